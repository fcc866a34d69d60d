//! `run`: a node of the user's own: a program, its inputs, its outputs.
//!
//! The program runs in the sandbox. It finds the input NAME at `in/NAME`, as a file or a folder, writes below
//! `out/`, and sees of the machine only itself and the programs named under `tools`. With a toolbox as the input `tools` it sees all of
//! that, and nothing of the machine. With `arch = "target"` they are programs of the machines that boot the image.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{Entry, Node, Object, Output, Tree};
use graph::sandbox::{Foreign, Invocation};
use graph::tool::ToolSpec;
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use super::emulation;
use super::kind::{Inputs, Kind, Made, folder, identity};
use crate::arch::Arch;
use crate::config::{Fields, SpecError};
use crate::image::{Image, TARGET};

/// Gives the outputs its spec names.
pub(super) const KIND: Kind = Kind { name: "run", inputs: Inputs::Any, make };

#[derive(Serialize)]
struct Run {
    argv: Vec<String>,
    tools: Vec<String>,
    /// Name and path below `out/`; a path that ends in a slash is a folder.
    outputs: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    epoch: u32,
    /// Whether its programs are those of the machines that boot the image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_of_target: bool,
    /// Whose programs these are, and what runs them here, where this machine does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    emulator: Option<(Arch, String)>,
}

/// The input that has the program by which programs of another machine run.
const EMULATOR: &str = "emulator";

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let argv = fields.required("argv").and_then(|item| {
        let words = fields.texts("argv");
        for (_, item) in words.iter().filter(|(word, _)| word.contains('\0')) {
            fields.wrong(SpecError::at(&item.origin, "a program's words cannot hold a NUL").label("a NUL"));
        }
        let argv: Vec<String> = words.into_iter().map(|(word, _)| word.to_owned()).collect();
        let is_read = item.as_list().is_ok_and(|list| list.len() == argv.len());
        if is_read && argv.first().is_none_or(|program| program.is_empty() || program.contains('/')) {
            fields.wrong(
                SpecError::at(&item.origin, "argv must begin with a program's name")
                    .label("a name without slashes, found along the search path"),
            );
            return None;
        }
        Some(argv)
    });
    fields.required_table("outputs");
    let mut outputs = BTreeMap::new();
    for (name, item) in fields.entries("outputs") {
        let Some(path) = fields.check(item.as_text()) else { continue };
        let checked = RelPath::new(path.trim_end_matches('/').as_bytes()).map_err(|error| {
            SpecError::at(&item.origin, error.to_string())
                .label("outputs are paths below out/; a folder ends in a slash")
        });
        fields.check(checked);
        outputs.insert(name.to_owned(), path.to_owned());
    }
    let mut env = BTreeMap::new();
    for (name, item) in fields.entries("env") {
        let value = fields.check(item.as_text()).unwrap_or_default();
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let error = SpecError::at(&item.origin, format!("{name:?} cannot be a variable with this value"));
            fields.wrong(error.label("a name without '=', and no NUL in either"));
        }
        env.insert(name.to_owned(), value.to_owned());
    }
    let tools = fields.texts("tools");
    for (name, item) in &tools {
        if name.is_empty() || name.contains('\0') || name.contains('/') && !name.starts_with('/') {
            let error = SpecError::at(&item.origin, format!("{name:?} is not a program's name"));
            fields.wrong(error.label("a name, found along the search path, or an absolute path"));
        }
    }
    let tools = tools.into_iter().map(|(name, _)| name.to_owned()).collect();
    let slash = |path: &str| if path.ends_with('/') { "/" } else { "" };
    let names: Vec<String> = outputs.iter().map(|(name, path)| format!("{name}{}", slash(path))).collect();
    let arch = fields.read("arch", |item| match item.as_text()? {
        TARGET => Ok(image.arch),
        other => Err(SpecError::at(&item.origin, format!("{other:?} is no machine to run on"))
            .label("expected \"target\": the machines that boot the image")),
    });
    let emulator = arch.and_then(|arch| Some((arch, emulation::emulator(fields, arch)?)));
    let (is_of_target, epoch) = (arch.is_some(), image.timestamp.epoch());
    let step = Run { argv: argv?, tools, outputs, env, epoch, is_of_target, emulator };
    Some(Made::new(step, &names.iter().map(String::as_str).collect::<Vec<_>>()))
}

impl Run {
    /// Gives an input the one date and plain permissions: a tool may look at both.
    fn settle(&self, path: &Path) -> io::Result<()> {
        let is_dir = path.is_dir();
        if is_dir {
            for entry in fs::read_dir(path)? {
                self.settle(&entry?.path())?;
            }
        }
        let time = UNIX_EPOCH + Duration::from_secs(self.epoch.into());
        File::open(path)?.set_modified(time)?;
        fs::set_permissions(path, fs::Permissions::from_mode(if is_dir { 0o755 } else { 0o444 }))
    }
}

impl Run {
    /// Returns how programs of another machine run; `folder` gets the program that runs them.
    fn foreign(&self, job: &Job<'_>, folder: &Path) -> Result<Option<Foreign>, StepError> {
        let Some((arch, emulator)) = &self.emulator else { return Ok(None) };
        if !job.inputs.contains_key(EMULATOR) {
            let what = format!("{} runs programs for {arch}, which this machine does not", job.node);
            return Err(StepError::spec(what).with_hint(format!(
                "give it an input {EMULATOR:?}: the root of a toolbox with {emulator} (on Debian in qemu-user-static)"
            )));
        }
        let place = emulation::lay_out(job, &job.tree(EMULATOR)?, emulator, folder)?;
        Ok(emulation::foreign(*arch, place))
    }
}

impl Step for Run {
    identity!(version 2);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        if self.is_of_target && !resolving.has_toolbox {
            return Err(StepError::spec(
                "arch = \"target\" runs programs of another root than this machine's",
            )
            .with_hint("give the node an input \"tools\": a root of the machines that boot the image"));
        }
        let programs: Vec<&str> = self.tools.iter().map(String::as_str).collect();
        let name = &self.argv[0];
        Ok(Resolved::with_tools(
            resolving,
            &[ToolSpec { name, programs: &programs, data: &[], data_places: &[], package: "" }],
        )?)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let work = job.objects.work_dir()?;
        let folders = job.objects.work_dir()?;
        fs::create_dir(work.path().join("out")).on_file("make", work.path().join("out"))?;
        let foreign = self.foreign(job, folders.path())?;
        let mut inputs = BTreeMap::new();
        let is_given = |name: &str| name != graph::toolbox::INPUT && !(self.is_of_target && name == EMULATOR);
        for (name, output) in job.inputs.iter().filter(|(name, _)| is_given(name)) {
            let path = match output.object {
                Object::Blob(blob) => {
                    let place = folders.path().join(name);
                    fs::copy(job.objects.verified(&blob.digest)?, &place).on_file("write", &place)?;
                    place
                }
                Object::Tree(_) => write_folder(job, name, folders.path())?,
            };
            self.settle(&path).on_file("date", &path)?;
            inputs.insert(name.clone(), path);
        }
        let epoch = ("SOURCE_DATE_EPOCH".to_owned(), self.epoch.to_string());
        job.run(&Invocation {
            tool: job.tool(&self.argv[0])?,
            args: self.argv[1..].iter().map(OsString::from).collect(),
            env: self.env.clone().into_iter().chain([epoch]).collect(),
            inputs,
            mounts: BTreeMap::new(),
            work: work.path(),
            privileged: false,
            foreign,
        })?;
        let mut outputs = BTreeMap::new();
        for (name, path) in &self.outputs {
            let output = match path.strip_suffix('/') {
                None => job.take(work.path(), &format!("out/{path}"))?.into(),
                Some(path) => take_folder(job, work.path(), &format!("out/{path}"))?,
            };
            outputs.insert(name.clone(), output);
        }
        Ok(outputs)
    }
}

/// Lays out an input folder. Only plain files can be given to a tool this way.
fn write_folder(job: &Job<'_>, name: &str, top: &Path) -> Result<PathBuf, StepError> {
    let tree = job.tree(name)?;
    let folder = top.join(name);
    fs::create_dir_all(&folder).on_file("make", &folder)?;
    check_plain(&tree.tree).map_err(|path| {
        StepError::spec(format!(
            "{path} of the input {name:?} is a link or a device; a tool is given plain files"
        ))
        .with_hint("give it the squashfs of the root (squashfs.image)")
    })?;
    for (path, digest, size) in tree.tree.files() {
        let place = path.below(&folder);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).on_file("make", parent)?;
        }
        let mut reader = tree.open_file(job.objects, path, &digest, size)?;
        let mut file = fs::File::create_new(&place).on_file("make", &place)?;
        std::io::copy(&mut reader, &mut file).on_file("write", &place)?;
    }
    Ok(folder)
}

/// Fails with the first path that is neither a plain file nor a folder.
fn check_plain(tree: &Tree) -> Result<(), RelPath> {
    let is_plain = |entry: &Entry| match entry {
        Entry::Inode(inode) => matches!(inode.node, Node::File { .. } | Node::Dir),
        Entry::Link(_) => false,
    };
    tree.entries().find(|(_, entry)| !is_plain(entry)).map_or(Ok(()), |(path, _)| Err(path.clone()))
}

/// Takes an output folder of plain files into the store.
fn take_folder(job: &Job<'_>, work: &Path, name: &str) -> Result<Output, StepError> {
    let top = work.join(name);
    let real = top.canonicalize();
    if !real.is_ok_and(|real| real.is_dir() && work.canonicalize().is_ok_and(|work| real == work.join(name)))
    {
        return Err(StepError::action(format!("the tool ended well but left no folder {name}")));
    }
    let tree = cache::ingest::directory(job.objects, &top)?;
    check_plain(&tree).map_err(|path| {
        StepError::action(format!("{name}/{path} is a link or a device; outputs are folders of plain files"))
    })?;
    let mut files = Vec::new();
    for (inner, ..) in tree.files() {
        let text = std::str::from_utf8(inner.as_bytes())
            .map_err(|_| StepError::action(format!("{name}/{inner} has a name that is not UTF-8")))?;
        files.push((text.to_owned(), job.take(&top, text)?));
    }
    folder(job.objects, files)
}
