//! Where boot loaders come from: packages of the machine that boots, those of the toolbox, or this machine.
//!
//! They are data: nothing of them runs here. The input [`INPUT`] has them for any architecture; without it they are those of the
//! toolbox, and without a toolbox this machine's own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cache::file::OnFile;
use cache::{Blob, Node, Objects, RootTree};
use graph::{Job, Resolved, Resolving, StepError};

/// The input that has boot loaders: a root with packages of the machine that boots.
pub(super) const INPUT: &str = "loaders";

/// Where boot loaders of a node come from: one of its inputs, the toolbox, or, where there is neither, this machine.
pub(super) struct Source<'a> {
    job: &'a Job<'a>,
    input: Option<RootTree>,
}

/// Tells whether a node takes boot loaders of this machine.
pub(super) fn are_of_machine(resolving: &Resolving<'_>) -> bool {
    !resolving.has_toolbox && !resolving.inputs.contains(INPUT)
}

impl<'a> Source<'a> {
    /// Opens what a node has.
    pub(super) fn of(job: &'a Job<'a>) -> Result<Self, StepError> {
        let input = job.inputs.contains_key(INPUT).then(|| job.tree(INPUT)).transpose()?;
        Ok(Self { job, input })
    }

    /// Returns what it is called in messages.
    pub(super) fn name(&self) -> &'static str {
        match (&self.input, self.job.toolbox()) {
            (Some(_), _) => "the input \"loaders\"",
            (None, Some(_)) => "the toolbox",
            (None, None) => "this machine",
        }
    }

    /// Returns the tree, where it is one of the node's inputs and not laid out for the tools.
    pub(super) fn input(&self) -> Option<&RootTree> {
        self.input.as_ref()
    }

    /// Takes a file into the store: the first of `places` that there is. `name` is the source that [`pin`] made of it.
    pub(super) fn take(&self, name: &str, places: &[&str]) -> Result<Option<Blob>, StepError> {
        let Job { objects, resolved, action, .. } = self.job;
        if let Some(root) = self.input().or_else(|| Some(self.job.toolbox()?.root())) {
            for place in places {
                if let Some(bytes) = root.read(objects, Path::new(place))? {
                    return Ok(Some(objects.put(&bytes)?));
                }
            }
            return Ok(None);
        }
        let Some(path) = resolved.paths.get(name) else { return Ok(None) };
        let blob = objects.put(&fs::read(path).on_file("read", path)?)?;
        let pinned = action.sources.get(name);
        if pinned.is_none_or(|pinned| !pinned.starts_with(&blob.digest.to_string())) {
            return Err(cache::StoreError::Changed { path: path.clone() }.into());
        }
        Ok(Some(blob))
    }
}

/// Writes the plain files of a folder of a tree to `to`; tells how many there were.
pub(super) fn lay_out(
    objects: &Objects,
    root: &RootTree,
    folder: &str,
    to: &Path,
) -> Result<usize, StepError> {
    let Some((top, Node::Dir)) = root.find(Path::new(folder)) else { return Ok(0) };
    let mut number = 0;
    for (path, _) in root.tree.entries().filter(|(path, _)| path.is_in(Some(&top))) {
        let Some(bytes) = root.read(objects, &path.below(Path::new("/")))? else { continue };
        let place = to.join(OsStr::from_bytes(path.file_name()));
        fs::write(&place, bytes).on_file("write", &place)?;
        number += 1;
    }
    Ok(number)
}

/// How sources are called that are boot loaders as their packages have them.
pub(super) const LOADER: &str = "loader ";

/// Pins a file of this machine by its content, and by the version of its package, for [`Source::take`], as a source of this name.
///
/// # Errors
/// It is not there; `package` is Debian's name of what has it, and `hint` what else can be done.
pub(super) fn pin(
    resolving: &Resolving<'_>,
    resolved: &mut Resolved,
    name: &str,
    places: &[&str],
    (package, hint): (&str, &str),
) -> Result<(), StepError> {
    let path = places.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        let name = name.strip_prefix(LOADER).unwrap_or(name);
        StepError::environment(format!("the boot loader {name} is not at {}", places.join(" nor at ")))
            .with_hint(format!("on Debian: apt-get install {package}; {hint}"))
    })?;
    let digest = resolving.objects.file_digest(&path)?;
    // Asking the package manager takes a while; the answer holds as long as the file does.
    let key = format!("{} {digest}", path.display());
    let version = match resolving.objects.memo(VERSIONS, &key)? {
        Some(version) => version,
        None => {
            let version = package_version(&path)?.unwrap_or_else(|| "unknown version".to_owned());
            resolving.objects.set_memo(VERSIONS, &key, &version)?;
            version
        }
    };
    resolved.sources.insert(name.to_owned(), format!("{digest} {version}"));
    resolved.paths.insert(name.to_owned(), path);
    Ok(())
}

/// Where versions of packages are remembered. In the space before this one, what was asked when a signal came was of no version.
const VERSIONS: &str = "package-versions 2";

/// Returns the version of the package that a file belongs to, as the host's package manager knows it; `None` where it knows of none, or
/// there is no such manager.
///
/// # Errors
/// The manager could not be asked, or did not come to an end: then nothing is known.
fn package_version(path: &Path) -> Result<Option<String>, StepError> {
    let output = |program: &str, args: &[&str]| {
        let unknown =
            |why: String| StepError::environment(format!("{program} cannot be asked for versions: {why}"));
        let output = match Command::new(program).args(args).env("LC_ALL", "C").output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            output => output.map_err(|error| unknown(error.to_string()))?,
        };
        if output.status.code().is_none() {
            return Err(unknown(output.status.to_string()));
        }
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(text))
    };
    let Some(path) = path.to_str() else { return Ok(None) };
    match output("dpkg-query", &["-S", path])? {
        Some(found) => match found.split_once(": ") {
            Some((package, _)) => output("dpkg-query", &["-W", "-f", "${Package} ${Version}", package]),
            None => Ok(None),
        },
        None => output("qfile", &["-qCv", path]),
    }
}
