//! Programs of this machine, pinned by content.
//!
//! A tool is its program, the libraries the dynamic linker would load for it, the interpreter of a
//! script, and the data files its step names. Their content is its identity, and the sandbox shows
//! an action nothing else of the machine: what is not part of the key cannot be read.

pub mod listing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::{BlobDigest, Objects, StoreError};

use self::listing::known_identity;

/// Where the paths of libraries are looked up again when it changes.
const LINKER_CACHE: &str = "/etc/ld.so.cache";

/// The search path inside a sandbox, and where tools are looked for outside.
pub const PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin";

/// A program that a step runs, as the step names it.
#[derive(Debug, Clone, Copy)]
pub struct ToolSpec<'a> {
    /// The program's name, looked up along the search path.
    pub name: &'a str,
    /// Further programs it starts: names, or absolute paths of those outside the search path.
    pub programs: &'a [&'a str],
    /// Files and folders it reads, absolute.
    pub data: &'a [&'a str],
    /// Places of data that distributions put in different folders; those that are there count.
    pub data_places: &'a [&'a str],
    /// The package that usually has it, for the message where it is missing; may be empty.
    pub package: &'a str,
}

/// Why a tool could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("the program {name} is not installed (looked in {})", searched.join(":"))]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        searched: Vec<String>,
        /// The package that usually has it.
        package: String,
    },
    /// A data file it needs is not there.
    #[error("{path}, which {name} needs, is not there")]
    MissingData {
        /// The tool.
        name: String,
        /// The file or folder.
        path: PathBuf,
        /// The package that usually has it.
        package: String,
    },
    /// A library it needs is not installed.
    #[error("{program} needs the library {library}, which is not installed")]
    MissingLibrary {
        /// The program.
        program: PathBuf,
        /// The library.
        library: String,
    },
    /// One of its files cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A toolbox lacks a program, or a file that one needs.
    #[error("the toolbox has no {what}")]
    NotInToolbox {
        /// The program's name, or the file's path.
        what: String,
        /// The package that usually has it; may be empty.
        package: String,
    },
    /// A toolbox was changed while a tool of it ran.
    #[error("the toolbox in {path} was changed while a tool of it ran")]
    ToolboxChanged {
        /// The folder.
        path: PathBuf,
    },
    /// A toolbox lies where no program can be run.
    #[error(
        "the toolbox is laid out in {path}, on a file system that is mounted noexec: no program runs from there"
    )]
    NoExec {
        /// The folder.
        path: PathBuf,
    },
    /// Tools are to run outside of a sandbox, and these cannot.
    #[error("the tools of a toolbox run in a sandbox or not at all")]
    NeedsSandbox,
    /// It is not what it was when it was pinned.
    #[error("the program {name}, or a file it reads, changed since this build looked at it")]
    Changed {
        /// Its name.
        name: String,
    },
    /// A file could not be hashed or remembered.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A [`ToolSpec`] that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) package: String,
    /// Programs, data, places of data.
    lists: [Vec<String>; 3],
}

impl Wanted {
    pub(crate) fn of(spec: &ToolSpec<'_>) -> Self {
        let lists = [spec.programs, spec.data, spec.data_places];
        Self {
            name: spec.name.to_owned(),
            package: spec.package.to_owned(),
            lists: lists.map(|list| list.iter().map(ToString::to_string).collect()),
        }
    }

    /// Returns the further programs.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &str> {
        self.lists[0].iter().map(String::as_str)
    }

    /// Returns the files and folders that must be there.
    pub(crate) fn data(&self) -> impl Iterator<Item = &str> {
        self.lists[1].iter().map(String::as_str)
    }
}

/// A program with all that it may read, pinned by content.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Its path, as the sandbox shows it.
    pub program: PathBuf,
    /// Files and folders to show: the path inside, and the path outside with links followed.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// The links at the top of the file system, such as `/lib` → `usr/lib`.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// The digest of the listing of all of them; see [`listing`].
    pub identity: BlobDigest,
    /// What was asked for.
    pub(crate) wanted: Wanted,
}

/// Looks programs up along a search path.
#[derive(Debug)]
pub struct Tools {
    search: Vec<PathBuf>,
    /// What was pinned already: nodes that run one tool look at its files once.
    pinned: Mutex<HashMap<Wanted, Arc<Tool>>>,
}

impl Tools {
    /// Looks in these folders, in order.
    pub fn new(search: Vec<PathBuf>) -> Self {
        Self { search, pinned: Mutex::default() }
    }

    /// Tells whether a program of that name is installed.
    pub fn has(&self, name: &str) -> bool {
        self.locate(name).is_some()
    }

    /// Returns the path of a program, which is not pinned by that.
    pub fn locate(&self, name: &str) -> Option<PathBuf> {
        self.search
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0))
    }

    /// Pins a program, once for all who want the same.
    ///
    /// # Errors
    /// [`ToolError`]: it, a library or a data file is not there.
    pub fn find(&self, objects: &Objects, spec: &ToolSpec<'_>) -> Result<Arc<Tool>, ToolError> {
        let wanted = Wanted::of(spec);
        if let Some(known) = self.pinned().get(&wanted) {
            return Ok(Arc::clone(known));
        }
        let tool = Arc::new(self.pin(objects, spec)?);
        Ok(Arc::clone(self.pinned().entry(wanted).or_insert(tool)))
    }

    fn pinned(&self) -> MutexGuard<'_, HashMap<Wanted, Arc<Tool>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares a program with what it was when it was pinned; where it changed, the next to want it pins it anew.
    ///
    /// # Errors
    /// [`ToolError::Changed`], or as [`Tools::find`].
    pub fn check(&self, objects: &Objects, tool: &Tool) -> Result<(), ToolError> {
        let Wanted { name, package, lists } = &tool.wanted;
        let [programs, data, data_places] = lists.each_ref().map(|list| list.iter().map(String::as_str));
        let spec = ToolSpec {
            name,
            package,
            programs: &programs.collect::<Vec<_>>(),
            data: &data.collect::<Vec<_>>(),
            data_places: &data_places.collect::<Vec<_>>(),
        };
        let now = self.pin(objects, &spec);
        if now.as_ref().is_ok_and(|now| now.identity == tool.identity) {
            return Ok(());
        }
        self.pinned().remove(&tool.wanted);
        now.and(Err(ToolError::Changed { name: name.clone() }))
    }

    fn pin(&self, objects: &Objects, spec: &ToolSpec<'_>) -> Result<Tool, ToolError> {
        let mut files = Files::default();
        let program = self.add_program(objects, spec.name, spec.package, &mut files)?;
        for name in spec.programs {
            self.add_program(objects, name, spec.package, &mut files)?;
        }
        for path in spec.data {
            let path = Path::new(path);
            if !path.exists() {
                return Err(ToolError::MissingData {
                    name: spec.name.to_owned(),
                    path: path.to_owned(),
                    package: spec.package.to_owned(),
                });
            }
            files.add(path)?;
        }
        for path in spec.data_places.iter().map(Path::new).filter(|path| path.exists()) {
            files.add(path)?;
        }
        let files = files.shown;
        let identity = known_identity(objects, &files)?;
        Ok(Tool { program, files, links: root_links(), identity, wanted: Wanted::of(spec) })
    }

    fn add_program(
        &self,
        objects: &Objects,
        name: &str,
        package: &str,
        files: &mut Files,
    ) -> Result<PathBuf, ToolError> {
        let path = self.locate(name).ok_or_else(|| ToolError::Missing {
            name: name.to_owned(),
            searched: self.search.iter().map(|folder| folder.display().to_string()).collect(),
            package: package.to_owned(),
        })?;
        let shown = files.add(&path)?;
        let mut start = Vec::new();
        let read = |source| ToolError::Read { path: path.clone(), source };
        fs::File::open(&path).and_then(|file| file.take(256).read_to_end(&mut start)).map_err(read)?;
        if let Some(line) = start.strip_prefix(b"#!") {
            let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
            let words: Vec<_> =
                line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty()).collect();
            // `#!/usr/bin/env NAME` runs NAME; any other first word is the interpreter itself.
            for word in
                words.iter().take(if words.first().is_some_and(|w| w.ends_with(b"/env")) { 2 } else { 1 })
            {
                let name = word.rsplit(|b| *b == b'/').next().unwrap_or_default();
                self.add_program(objects, &String::from_utf8_lossy(name), package, files)?;
            }
        } else if start.starts_with(b"\x7fELF") {
            for library in libraries(objects, &path, files)? {
                files.add(&library)?;
            }
        }
        Ok(shown)
    }
}

/// Returns the links at the top of this machine's file system.
fn root_links() -> BTreeMap<PathBuf, PathBuf> {
    ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"]
        .iter()
        .filter_map(|path| Some((PathBuf::from(path), fs::read_link(path).ok()?)))
        .collect()
}

/// The files of a tool being gathered.
#[derive(Default)]
struct Files {
    /// The path inside, and the path outside with links followed.
    shown: BTreeMap<PathBuf, PathBuf>,
    /// Folders with links followed.
    folders: BTreeMap<PathBuf, PathBuf>,
    /// What was added, and the path inside of each.
    added: BTreeMap<PathBuf, PathBuf>,
}

impl Files {
    /// Adds a file under the path at which a program would look for it; returns that path.
    fn add(&mut self, path: &Path) -> Result<PathBuf, ToolError> {
        if let Some(shown) = self.added.get(path) {
            return Ok(shown.clone());
        }
        let read = |source| ToolError::Read { path: path.to_owned(), source };
        // `/lib` is a link to `/usr/lib` on merged systems; the sandbox has the same links.
        let shown = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => match self.folders.get(folder) {
                Some(real) => real.join(name),
                None => {
                    let real = folder.canonicalize().map_err(read)?;
                    self.folders.entry(folder.to_owned()).or_insert(real).join(name)
                }
            },
            _ => path.canonicalize().map_err(read)?,
        };
        // Links in the folder's own path are followed already.
        let is_link = fs::symlink_metadata(&shown).map_err(read)?.is_symlink();
        let real = if is_link { shown.canonicalize().map_err(read)? } else { shown.clone() };
        self.shown.insert(shown.clone(), real);
        self.added.insert(path.to_owned(), shown.clone());
        Ok(shown)
    }
}

/// Returns what the dynamic linker would load for `program`, from memory where nothing changed.
fn libraries(objects: &Objects, program: &Path, files: &Files) -> Result<Vec<PathBuf>, ToolError> {
    let read = |source| ToolError::Read { path: program.to_owned(), source };
    let stamp = |path: &Path| match fs::metadata(path) {
        Ok(found) => format!("{:?}", cache::stat::Stat::of(path, &found)),
        Err(_) => "none".to_owned(),
    };
    let key = format!("{} {} {}", program.display(), stamp(program), stamp(Path::new(LINKER_CACHE)));
    if let Some(known) = objects.memo("libraries", &key)? {
        let paths: Vec<PathBuf> = known.lines().map(PathBuf::from).collect();
        if paths.iter().all(|path| files.added.contains_key(path) || path.exists()) {
            return Ok(paths);
        }
    }
    // The caller's variables would change the answer.
    let mut ldd = Command::new("/usr/bin/ldd");
    ldd.arg(program).env_clear().envs([("PATH", PATH), ("LC_ALL", "C")]);
    let output = ldd.output().map_err(read)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut paths = BTreeSet::new();
    if !text.contains("statically linked") && !errors.contains("not a dynamic executable") {
        if !output.status.success() {
            return Err(read(io::Error::other(format!("ldd failed: {}", errors.trim()))));
        }
        for line in text.lines() {
            paths.extend(library(program, line)?);
        }
    }
    let listing: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    objects.set_memo("libraries", &key, &listing.join("\n"))?;
    Ok(paths.into_iter().collect())
}

/// Reads one line of `ldd`: `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)`, or the kernel's own object.
fn library(program: &Path, line: &str) -> Result<Option<PathBuf>, ToolError> {
    let line = line.trim();
    let (name, found) = line.split_once(" => ").unwrap_or((line, line));
    if found.starts_with("not found") {
        return Err(ToolError::MissingLibrary { program: program.to_owned(), library: name.to_owned() });
    }
    let path = found.rsplit_once(" (").map_or(found, |(path, _)| path);
    Ok(path.starts_with('/').then(|| PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cache::testing::Folder;

    use super::listing::identity;
    use super::*;

    fn spec(name: &str) -> ToolSpec<'_> {
        ToolSpec { name, programs: &[], data: &[], data_places: &[], package: "some-package" }
    }

    fn system() -> Vec<PathBuf> {
        ["/usr/bin", "/bin"].map(PathBuf::from).to_vec()
    }

    #[test]
    fn replacing_a_program_or_a_library_of_it_changes_its_identity() {
        let dir = Folder::new();
        let objects = dir.store();
        let cat = Tools::new(system()).find(&objects, &spec("cat")).unwrap();
        assert!(cat.files.keys().any(|path| path.to_string_lossy().contains("libc.so")));
        let own = dir.path().join("bin");
        fs::create_dir(&own).unwrap();
        let mut bytes = fs::read("/bin/cat").unwrap();
        bytes.push(0);
        fs::write(own.join("cat"), bytes).unwrap();
        fs::set_permissions(own.join("cat"), fs::Permissions::from_mode(0o755)).unwrap();
        let changed = Tools::new([vec![own], system()].concat());
        assert_ne!(changed.find(&objects, &spec("cat")).unwrap().identity, cat.identity);

        let library = cat.files.iter().find(|(path, _)| path.to_string_lossy().contains("libc.so")).unwrap();
        let copy = dir.path().join("libc.so.6");
        fs::copy(library.1, &copy).unwrap();
        let same = BTreeMap::from([(library.0.clone(), copy.clone())]);
        let before = identity(&objects, &same).unwrap();
        let mut bytes = fs::read(&copy).unwrap();
        bytes.push(0);
        fs::write(&copy, bytes).unwrap();
        assert_ne!(identity(&objects, &same).unwrap(), before);
    }

    #[test]
    fn the_interpreter_of_a_script_is_part_of_it() {
        let dir = Folder::new();
        let objects = dir.store();
        fs::write(dir.path().join("tool"), "#!/bin/sh -e\nexit 0\n").unwrap();
        fs::set_permissions(dir.path().join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let tools = Tools::new([vec![dir.path().to_owned()], system()].concat());
        let tool = tools.find(&objects, &spec("tool")).unwrap();
        assert!(tool.files.keys().any(|path| path.ends_with("sh")), "{:?}", tool.files);
    }

    #[test]
    fn a_tool_is_pinned_once_and_one_that_changed_since_is_told() {
        let dir = Folder::new();
        let objects = dir.store();
        let path = dir.path().join("tool");
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let tools = Tools::new([vec![dir.path().to_owned()], system()].concat());
        let tool = tools.find(&objects, &spec("tool")).unwrap();
        assert!(Arc::ptr_eq(&tool, &tools.find(&objects, &spec("tool")).unwrap()));
        assert!(!Arc::ptr_eq(&tool, &tools.find(&objects, &spec("cat")).unwrap()));
        tools.check(&objects, &tool).unwrap();
        fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
        let error = tools.check(&objects, &tool).unwrap_err();
        assert!(matches!(error, ToolError::Changed { .. }), "{error}");
        assert_ne!(tools.find(&objects, &spec("tool")).unwrap().identity, tool.identity, "it is pinned anew");
    }

    #[test]
    fn a_missing_program_names_the_package_and_where_it_was_looked_for() {
        let dir = Folder::new();
        let objects = dir.store();
        let error = Tools::new(system()).find(&objects, &spec("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("/usr/bin:/bin"), "{error}");
        assert!(matches!(error, ToolError::Missing { package, .. } if package == "some-package"));
    }

    #[test]
    fn a_library_that_is_not_found_is_an_error() {
        let line = "\tlibfoo.so.1 => not found";
        let error = library(Path::new("/bin/x"), line).unwrap_err();
        assert!(error.to_string().contains("libfoo.so.1"), "{error}");
        let vdso = "\tlinux-vdso.so.1 (0x00007ffd)";
        assert_eq!(library(Path::new("/bin/x"), vdso).unwrap(), None);
    }
}
