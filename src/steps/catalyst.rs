//! `catalyst`: runs the catalyst that is installed on one of its specs.
//!
//! It works where catalyst is configured to work, with its caches, and leaves nothing but what it makes. What counts is
//! part of the key: the values of the spec, the seed, the snapshot, every file the spec names, catalyst's own files and
//! its configuration. With the same again, catalyst is not started.

mod inputs;
mod installed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cache::file::OnFile;
use cache::{Blob, Object, Output};
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use self::installed::{Installed, Place};
use super::import::{boot_files, read_folder};
use super::kind::{Inputs, Kind, Made, folder, identity, json};
use crate::catalyst::{self, Request, TARGET, Values};
use crate::config::Fields;
use crate::image::Image;

/// Gives `root`, the cleaned chroot, `boot`, the kernels and initrds, `medium`, all files of the medium, and `packages`;
/// of a livecd-stage1, `files`: the tarball and its digests.
///
/// `values` is a spec of catalyst, as a table. `conf` is catalyst's configuration, `python` the interpreter that runs it
/// and `dir`, where it is not installed, the folder that holds its Python package.
pub(super) const KIND: Kind =
    Kind { name: "catalyst", inputs: Inputs::Named { required: &[], optional: &[] }, make };

#[derive(Serialize)]
struct Catalyst {
    values: Values,
    epoch: u32,
    /// Where things are is no matter of the result.
    #[serde(skip)]
    place: Place,
    /// What was found there.
    #[serde(skip)]
    installed: OnceLock<Installed>,
}

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let (conf, python, dir) = (fields.text("conf"), fields.text("python"), fields.text("dir"));
    let values = fields.required_table("values")?;
    let values = fields.check(catalyst::read_values(values, &|text| image.timestamp.fill(text)))?;
    let place = Place {
        conf: conf.unwrap_or(catalyst::CONF).into(),
        python: python.unwrap_or("python3").to_owned(),
        dir: dir.map(PathBuf::from),
    };
    let step = Catalyst { values, epoch: image.timestamp.epoch(), place, installed: OnceLock::new() };
    let outputs: &[&str] =
        if step.is_stage1() { &["files/"] } else { &["root", "boot/", "medium", "packages"] };
    Some(Made::new(step, outputs))
}

impl Catalyst {
    fn word(&self, key: &str) -> &str {
        self.values.get(key).and_then(|words| words.first()).map_or("", String::as_str)
    }

    fn is_stage1(&self) -> bool {
        self.word("target") == "livecd-stage1"
    }

    /// Writes what catalyst is told, and returns the command.
    fn command(&self, installed: &Installed, work: &Path) -> Result<Command, StepError> {
        let mut values = self.values.clone();
        if !self.is_stage1() {
            let request = work.join(REQUEST).display().to_string();
            values.insert("target".to_owned(), vec!["livecd-stagegraph".to_owned()]);
            values.insert("livecd/stagegraph_request".to_owned(), vec![request]);
        }
        let spec = catalyst::render(&values)
            .map_err(|word| StepError::spec(format!("catalyst's specs cannot hold the word {word:?}")))?;
        // A chroot or a seed that was unpacked before is no input that is known.
        let options = installed.options.iter().map(String::as_str);
        let options: Vec<&str> =
            options.filter(|option| !["autoresume", "seedcache"].contains(option)).collect();
        let keep = toml::Value::from([options, vec!["keepwork"]].concat());
        let target = work.join("targets");
        let written = fs::create_dir(&target)
            .and_then(|()| fs::write(target.join("livecd_stagegraph.py"), TARGET))
            .and_then(|()| fs::write(work.join("build.spec"), spec))
            .and_then(|()| fs::write(work.join("more.conf"), format!("options = {keep}\n")));
        written.on_file("write into", work)?;
        let mut command = installed.command(RUN);
        command.arg(&target).arg("-c").arg(&installed.conf).arg("-c").arg(work.join("more.conf"));
        command.arg("-f").arg(work.join("build.spec")).arg("--clear-autoresume").arg("--nocolor");
        command.current_dir(work);
        Ok(command)
    }

    /// Takes what livecd-stage2 left.
    fn take(&self, job: &Job<'_>, request: &Request) -> Result<BTreeMap<String, Output>, StepError> {
        let objects = job.objects;
        job.progress("packing the root", 0, None);
        let packed = |path: &Path| {
            let (digest, bytes) = read_folder(objects, path, Some(self.epoch), &|_| false)?;
            let tree = objects.open_tree(&digest, &bytes)?;
            Ok::<_, StepError>((Output { object: Object::Tree(digest), bytes: tree.pack(objects)? }, tree))
        };
        let (root, root_tree) = packed(&request.stage_path)?;
        let (medium, medium_tree) = packed(&request.iso_root)?;
        let boot = boot_files(objects, &medium_tree, Some(b"boot"), &mut |text| job.remark(text))?;
        let packages = json(&inputs::packages(&root_tree.tree));
        Ok(BTreeMap::from([
            ("root".to_owned(), root),
            ("medium".to_owned(), medium),
            ("boot".to_owned(), folder(objects, boot)?),
            ("packages".to_owned(), objects.put(&packages)?.into()),
        ]))
    }

    /// Takes the tarball of livecd-stage1 and what lies beside it.
    fn take_tarball(
        &self,
        job: &Job<'_>,
        installed: &Installed,
    ) -> Result<BTreeMap<String, Output>, StepError> {
        let builds = installed.storedir.join("builds").join(self.word("rel_type"));
        let stem = format!("livecd-stage1-{}-{}.", self.word("subarch"), self.word("version_stamp"));
        let mut files: Vec<(String, Blob)> = Vec::new();
        for entry in fs::read_dir(&builds).on_file("list", &builds)? {
            let entry = entry.on_file("list", &builds)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with(&stem) && entry.path().is_file() {
                let mut writer = job.objects.writer()?;
                writer.copy_from(fs::File::open(entry.path()).on_file("open", entry.path())?)?;
                files.push((name, writer.commit()?));
            }
        }
        if files.is_empty() {
            return Err(StepError::action(format!(
                "catalyst ended well but left no {stem}* in {}",
                builds.display()
            )));
        }
        Ok(BTreeMap::from([("files".to_owned(), folder(job.objects, files)?)]))
    }
}

/// The name of catalyst's request in the work folder.
const REQUEST: &str = "request.json";

/// Runs catalyst with a folder of more targets in front of its own.
const RUN: &str = "import sys, catalyst.targets\n\
                   catalyst.targets.__path__.insert(0, sys.argv[1])\n\
                   from catalyst.main import main\n\
                   main(sys.argv[2:])";

impl Step for Catalyst {
    identity!(version 1);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let installed = Installed::find(resolving, &self.place)?;
        let sources = inputs::pin(resolving, &self.values, &installed)?;
        // Set before, it is the same: one process resolves a step once.
        let _ = self.installed.set(installed);
        let mut resolved = Resolved::default();
        resolved.sources = sources;
        Ok(resolved)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        if job.offline {
            return Err(StepError::environment("catalyst may use the network, and --offline forbids it")
                .with_hint("build without --offline once; after that, this node is cached"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(StepError::environment("catalyst needs root: it mounts and changes owners")
                .with_hint("run this as root"));
        }
        let installed =
            self.installed.get().ok_or_else(|| StepError::environment("catalyst was not looked for"))?;
        let work = job.objects.work_dir()?;
        let command = self.command(installed, work.path())?;
        job.remark("catalyst works on this machine itself, not in a sandbox");
        job.progress("running catalyst", 0, None);
        job.run_outside(&installed.unshare, &command)?;
        if self.is_stage1() {
            return self.take_tarball(job, installed);
        }
        let request = Request::read(&work.path().join(REQUEST)).map_err(|error| {
            StepError::action(format!("catalyst ended well but left no request: {error}"))
        })?;
        let outputs = self.take(job, &request)?;
        // Everything is in the store now.
        inputs::remove(&request.stage_path)?;
        inputs::remove(&request.iso_root)?;
        Ok(outputs)
    }
}
