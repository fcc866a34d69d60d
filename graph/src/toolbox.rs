//! Toolboxes: trees of programs, each the whole root of the sandbox that a tool runs in.
//!
//! A node whose tools are to come from a toolbox takes the tree as its input [`INPUT`]. The digest of the tree is then the identity of
//! all its tools: nothing of this machine is part of the key, and nothing of it is in the sandbox. The tree is laid out as a folder
//! where a tool is about to run, and not before.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cache::checkout::Checkout;
use cache::file::OnFile;
use cache::name::RelPath;
use cache::{Node, Object, Objects, Output, RootTree, StoreError, TreeDigest};
use rustix::fs::StatVfsMountFlags;

use crate::error::StepError;
use crate::tool::{PATH, Tool, ToolError, Wanted};

/// The name of the input that a node takes its tools from.
pub const INPUT: &str = "tools";

/// Folders that every sandbox has itself.
const OF_SANDBOX: [&[u8]; 5] = [b"build", b"dev", b"proc", b"sys", b"tmp"];

/// A tree of programs and all that they read.
#[derive(Debug)]
pub struct Toolbox {
    digest: TreeDigest,
    root: RootTree,
    /// Where it is laid out, once it is.
    folder: Mutex<Option<Checkout>>,
}

impl Toolbox {
    /// Opens a tree.
    fn open(objects: &Objects, digest: TreeDigest, output: &Output) -> Result<Self, StoreError> {
        Ok(Self { digest, root: objects.open_tree(&digest, &output.bytes)?, folder: Mutex::default() })
    }

    /// Returns where a path leads in the tree, links followed, and what is there.
    fn find(&self, path: &Path) -> Option<(RelPath, &Node)> {
        self.root.find(path)
    }

    /// Returns the bytes of a file, compared with its digest; `None` where there is no such file.
    ///
    /// # Errors
    /// The store lacks them, or has others.
    pub fn read(&self, objects: &Objects, path: &Path) -> Result<Option<Vec<u8>>, StepError> {
        Ok(self.root.read(objects, path)?)
    }

    /// Returns the tree.
    pub fn root(&self) -> &RootTree {
        &self.root
    }

    /// Returns the path of a program: it has a slash in its name, or lies along the search path.
    fn locate(&self, name: &str) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            let Some((at, Node::File { .. })) = self.find(path) else { return false };
            self.root.tree.inode(&at).is_some_and(|inode| inode.meta.mode & 0o111 != 0)
        };
        let places = std::env::split_paths(PATH).map(|folder| folder.join(name));
        // An absolute name is not joined to anything.
        places.into_iter().find(is_program)
    }

    /// Returns the path of what a program runs in: the interpreter of a script, or the dynamic linker.
    fn interpreter(&self, objects: &Objects, path: &Path) -> Result<Option<String>, StoreError> {
        let Some((at, Node::File { digest, size })) = self.find(path) else { return Ok(None) };
        let mut start = Vec::new();
        let file = self.root.open_file(objects, &at, digest, *size)?;
        file.take(START).read_to_end(&mut start).on_file("read", path)?;
        Ok(interpreter_of(&start))
    }

    /// Returns the folder it is laid out in.
    fn folder(&self, objects: &Objects) -> Result<PathBuf, ToolError> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*folder {
            return Ok(known.path.clone());
        }
        let made = objects.checkout(&self.root, &self.digest)?;
        let mount = rustix::fs::statvfs(&made.path).map_err(std::io::Error::from);
        let mount = mount.map_err(|source| ToolError::Read { path: made.path.clone(), source })?;
        if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            return Err(ToolError::NoExec { path: made.path });
        }
        Ok(folder.insert(made).path.clone())
    }

    /// Looks whether the folder it is laid out in is as it was when its tools were found; where it is not, the next to want it has
    /// it made again.
    ///
    /// # Errors
    /// [`ToolError::Changed`].
    pub(crate) fn check(&self) -> Result<(), ToolError> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        match &*folder {
            Some(made) if !made.is_as_it_was() => {
                let path = made.path.clone();
                *folder = None;
                Err(ToolError::ToolboxChanged { path })
            }
            _ => Ok(()),
        }
    }

    /// Returns a program that runs with all of the toolbox in sight, and nothing else.
    pub(crate) fn tool(&self, objects: &Objects, wanted: &Wanted) -> Result<Tool, ToolError> {
        let missing =
            |what: &str| ToolError::NotInToolbox { what: what.to_owned(), package: wanted.package.clone() };
        let program = self.locate(&wanted.name).ok_or_else(|| missing(&wanted.name))?;
        for name in [wanted.name.as_str()].into_iter().chain(wanted.programs()) {
            let place = self.locate(name).ok_or_else(|| missing(name))?;
            // Without it the kernel says that there is no such program.
            if let Some(interpreter) = self.interpreter(objects, &place)?
                && self.find(Path::new(&interpreter)).is_none()
            {
                return Err(missing(&format!("{interpreter}, which {name} runs in")));
            }
        }
        if let Some(path) = wanted.data().find(|path| self.find(Path::new(path)).is_none()) {
            return Err(missing(path));
        }
        let folder = self.folder(objects)?;
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        for (path, _) in self.root.tree.entries().filter(|(path, _)| path.is_in(None)) {
            let inside = path.below(Path::new("/"));
            match self.root.tree.inode(path).map(|inode| &inode.node) {
                _ if OF_SANDBOX.contains(&path.as_bytes()) => {}
                Some(Node::Dir | Node::File { .. }) => drop(files.insert(inside, path.below(&folder))),
                Some(Node::Symlink(target)) => {
                    links.insert(inside, PathBuf::from(std::ffi::OsStr::from_bytes(target)));
                }
                _ => {}
            }
        }
        Ok(Tool { program, files, links, identity: self.digest.encoding(), wanted: wanted.clone() })
    }
}

/// Bytes at the start of a program that are looked at: the dynamic linker's path is in the first page.
const START: u64 = 4096;

/// Finds what a program runs in, by how it begins: a script's first line, or the program header `PT_INTERP` of a 64-bit little-endian
/// ELF file (System V ABI, "Program Header").
fn interpreter_of(start: &[u8]) -> Option<String> {
    if let Some(line) = start.strip_prefix(b"#!") {
        let words = line.split(|byte| *byte == b'\n').next()?.split(|byte| byte.is_ascii_whitespace());
        return words.map(|word| String::from_utf8_lossy(word).into_owned()).find(|word| !word.is_empty());
    }
    let is_known = start.starts_with(b"\x7fELF\x02\x01");
    let number = |at: usize, bytes: usize| {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(start.get(at..at.checked_add(bytes)?)?);
        usize::try_from(u64::from_le_bytes(value)).ok()
    };
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    let headers = (0..count).filter_map(|header| table.checked_add(header.checked_mul(size)?));
    let header = headers.filter(|_| is_known).find(|at| number(*at, 4) == Some(3))?;
    let (from, length) = (number(header.checked_add(8)?, 8)?, number(header.checked_add(32)?, 8)?);
    let path = start.get(from..from.checked_add(length)?)?;
    Some(String::from_utf8_lossy(path.split(|byte| *byte == 0).next()?).into_owned())
}

/// The toolboxes that the nodes of a build have opened.
#[derive(Debug, Default)]
pub(crate) struct Toolboxes(Mutex<HashMap<TreeDigest, Arc<Toolbox>>>);

impl Toolboxes {
    /// Returns the toolbox among a node's inputs, if there is one.
    pub(crate) fn among(
        &self,
        objects: &Objects,
        inputs: &BTreeMap<String, Output>,
    ) -> Result<Option<Arc<Toolbox>>, StepError> {
        let Some(output) = inputs.get(INPUT) else { return Ok(None) };
        let Object::Tree(digest) = output.object else {
            let error = StepError::spec(format!("the input {INPUT:?} is a file; tools come from a folder"));
            return Err(error.with_hint("take the root of a toolbox, or of an import of a folder or a tar"));
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(toolbox) = known.get(&digest) {
            return Ok(Some(Arc::clone(toolbox)));
        }
        let toolbox = Arc::new(Toolbox::open(objects, digest, output)?);
        known.insert(digest, Arc::clone(&toolbox));
        Ok(Some(toolbox))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use cache::Bytes;

    use super::*;
    use crate::error::Fault;
    use crate::sandbox::Invocation;
    use crate::step::{Job, Resolved, Resolving, Step};
    use crate::testing::Bench;
    use crate::tool::{ToolSpec, Tools};

    /// Runs a line of shell.
    struct Shell(&'static str, ToolSpec<'static>);

    const SH: ToolSpec<'static> =
        ToolSpec { name: "sh", programs: &[], data: &["/etc/marker"], data_places: &[], package: "dash" };

    impl Step for Shell {
        fn kind(&self) -> &'static str {
            "shell"
        }

        fn version(&self) -> u32 {
            1
        }

        fn params(&self) -> BTreeMap<String, String> {
            BTreeMap::new()
        }

        fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
            Ok(Resolved::with_tools(resolving, &[self.1])?)
        }

        fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
            let work = job.objects.work_dir()?;
            job.run(&Invocation {
                tool: job.tool(self.1.name)?,
                args: vec!["-c".into(), self.0.into()],
                env: BTreeMap::new(),
                inputs: BTreeMap::new(),
                mounts: BTreeMap::new(),
                work: work.path(),
                privileged: self.0.contains("mount"),
                foreign: None,
            })?;
            Ok(BTreeMap::new())
        }
    }

    /// Makes a toolbox of this machine's shell and a file of its own.
    fn toolbox(bench: &Bench) -> Output {
        let top = bench.folder().join("toolbox");
        let spec = ToolSpec { data: &[], programs: &["ls", "cat", "mount", "unshare"], ..SH };
        let tool = Tools::new(std::env::split_paths(PATH).collect()).find(&bench.store, &spec).unwrap();
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::write(top.join("etc/marker"), "of the toolbox\n").unwrap();
        symlink("/etc/marker", top.join("etc/absolute")).unwrap();
        for (inside, outside) in &tool.files {
            let place = top.join(inside.strip_prefix("/").unwrap());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(outside, place).unwrap();
        }
        for (link, target) in &tool.links {
            symlink(target, top.join(link.strip_prefix("/").unwrap())).unwrap();
        }
        let tree = cache::ingest::directory(&bench.store, &top).unwrap();
        let digest = bench.store.put_tree(&tree).unwrap();
        Output { object: Object::Tree(digest), bytes: Bytes::Directory { path: top } }
    }

    #[test]
    fn a_toolbox_is_all_that_its_tools_see_and_nothing_of_this_machine_is_in_the_key() {
        let bench = Bench::sandboxed();
        let script = "cat /etc/marker; ls /etc; ls /usr/share /home /root 2>/dev/null; \
                      (echo x > /etc/marker) 2>/dev/null || echo read-only";
        let ran = bench.run(&Shell(script, SH), &[(INPUT, toolbox(&bench))]).unwrap();
        assert_eq!(ran.log, "of the toolbox\nabsolute\nmarker\nread-only\n");
        assert!(ran.action.tools.is_empty() && ran.action.inputs.contains_key(INPUT));
    }

    #[test]
    fn nobody_writes_to_a_toolbox_whatever_powers_he_has_inside() {
        let bench = Bench::sandboxed();
        let toolbox = toolbox(&bench);
        let script = "try() { (echo x > /etc/marker) 2>/dev/null && echo written; }; try; \
                      mount -o remount,bind,rw /etc 2>/dev/null; mount -o remount,rw /etc 2>/dev/null; try; \
                      unshare -Urm sh -c 'mount -o remount,bind,rw /etc; echo x > /etc/marker' 2>/dev/null && echo written; \
                      cat /etc/marker";
        let ran = bench.run(&Shell(script, SH), &[(INPUT, toolbox.clone())]).unwrap();
        assert_eq!(ran.log, "of the toolbox\n");
        let again = bench.run(&Shell("cat /etc/marker", SH), &[(INPUT, toolbox)]).unwrap();
        assert_eq!(again.log, "of the toolbox\n");
    }

    #[test]
    fn what_a_toolbox_lacks_is_named_before_anything_runs() {
        let bench = Bench::sandboxed();
        let toolbox = toolbox(&bench);
        let run = |spec: ToolSpec<'static>| {
            bench.run(&Shell("exit 7", spec), &[(INPUT, toolbox.clone())]).unwrap_err().to_string()
        };
        assert_eq!(run(ToolSpec { name: "xorriso", ..SH }), "the toolbox has no xorriso");
        assert_eq!(run(ToolSpec { programs: &["/usr/bin/awk"], ..SH }), "the toolbox has no /usr/bin/awk");
        assert_eq!(run(ToolSpec { data: &["/usr/lib/grub"], ..SH }), "the toolbox has no /usr/lib/grub");
    }

    #[test]
    fn what_a_program_runs_in_is_found_by_its_start() {
        let shell = fs::read("/bin/sh").unwrap();
        assert!(interpreter_of(&shell[..4096]).unwrap().contains("/ld"));
        assert_eq!(interpreter_of(b"#! /usr/bin/env python3\nx").unwrap(), "/usr/bin/env");
        for other in [&b""[..], b"#!", b"\x7fELF\x02\x01", b"text", &[0xff; 4096]] {
            assert_eq!(interpreter_of(other), None);
        }
        let mut odd = shell[..4096].to_vec();
        odd[0x20..0x28].fill(0xff);
        assert_eq!(interpreter_of(&odd), None);
    }

    #[test]
    fn a_file_is_no_toolbox_and_without_a_sandbox_there_is_none() {
        let bench = Bench::sandboxed();
        let error = bench.run(&Shell("exit 7", SH), &[(INPUT, bench.blob(b"x"))]).unwrap_err();
        assert_eq!(error.fault, Fault::Spec);
        let bench = Bench::new();
        let error = bench.run(&Shell("exit 7", SH), &[(INPUT, toolbox(&bench))]).unwrap_err();
        assert!(error.cause().is::<ToolError>() && error.to_string().contains("sandbox"), "{error}");
    }

    #[test]
    fn links_are_followed_inside_the_toolbox_alone() {
        let bench = Bench::sandboxed();
        let Output { object: Object::Tree(digest), bytes } = toolbox(&bench) else { panic!("a tree") };
        let output = Output { object: Object::Tree(digest), bytes };
        let opened = Toolbox::open(&bench.store, digest, &output).unwrap();
        let read = |path: &str| opened.read(&bench.store, Path::new(path)).unwrap();
        assert_eq!(read("/etc/absolute").unwrap(), b"of the toolbox\n");
        assert_eq!(read("/etc/../../etc/marker").unwrap(), b"of the toolbox\n");
        assert_eq!((read("/etc/hostname"), read("/etc")), (None, None));
    }
}
