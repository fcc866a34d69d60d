//! What tests of steps need: a job to run one with, and programs that stand for real ones.
//!
//! Behind the feature `testing`; nothing of it is in the program. Folders, stores and damage are in [`cache::testing`].
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cache::testing::Folder;
use cache::{Blob, Bytes, Object, Output, Store};

use crate::action::Action;
use crate::cancel::Cancel;
use crate::error::StepError;
use crate::name::NodeName;
use crate::sandbox::{Limits, Mode, Sandbox};
use crate::step::{Job, Kit, Provenance, Report, Resolved, Resolving, Step};
use crate::tool::{PATH, Tools};
use crate::toolbox::{self, Toolboxes};

/// A store, tools and a sandbox, to run single steps with.
///
/// Tools run as the caller, so that a step's run takes as long as its tools do; [`Bench::sandboxed`] runs them as a build
/// does.
pub struct Bench {
    /// The store.
    pub store: Store,
    /// The nodes below, for a step that wants them.
    pub provenance: BTreeMap<NodeName, Provenance>,
    sandbox: Sandbox,
    // Gone last: the store is in it.
    folder: Folder,
}

/// What a step gave, and what it said.
#[derive(Debug)]
pub struct Ran {
    /// The outputs by name.
    pub outputs: BTreeMap<String, Output>,
    /// What it had to say to people.
    pub remarks: Vec<String>,
    /// What its tools printed.
    pub log: String,
    /// The action it was.
    pub action: Action,
}

impl Bench {
    /// Makes a bench whose tools run as the caller.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self::with(Mode::Off)
    }

    /// Makes a bench whose tools run in a sandbox, which needs bubblewrap.
    pub fn sandboxed() -> Self {
        Self::with(Mode::On)
    }

    fn with(mode: Mode) -> Self {
        let folder = Folder::new();
        fs::create_dir(folder.join("tools")).unwrap();
        let bwrap = Some(PathBuf::from("/usr/bin/bwrap"));
        Self {
            store: folder.store(),
            provenance: BTreeMap::new(),
            sandbox: Sandbox::new(mode, bwrap),
            folder,
        }
    }

    /// Puts a shell script in the place of a program.
    pub fn tool(&self, name: &str, script: &str) {
        let path = self.folder.join("tools").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns the folder it works in, for files of the test.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Stores bytes, as an input.
    pub fn blob(&self, bytes: &[u8]) -> Output {
        self.store.put(bytes).unwrap().into()
    }

    /// Stores a folder of plain files, as an input.
    pub fn files(&self, files: &[(&str, &[u8])]) -> Output {
        let stored = files.iter().map(|(path, bytes)| {
            let Blob { digest, size } = self.store.put(bytes).unwrap();
            (cache::RelPath::new(path.as_bytes()).unwrap(), digest, size)
        });
        let tree = cache::Tree::of_files(stored).unwrap();
        Output { object: Object::Tree(self.store.put_tree(&tree).unwrap()), bytes: Bytes::Store }
    }

    /// Resolves and runs a step as the engine does, but without looking for a result of before.
    ///
    /// # Errors
    /// Those of the step.
    pub fn run(&self, step: &dyn Step, inputs: &[(&str, Output)]) -> Result<Ran, StepError> {
        let tools = [self.folder.join("tools")].into_iter().chain(std::env::split_paths(PATH));
        let tools = Tools::new(tools.collect());
        let cancel = Cancel::default();
        let remarks = Mutex::new(Vec::new());
        let report = |report| {
            if let Report::Remark(text) = report {
                remarks.lock().unwrap().push(text);
            }
        };
        let objects = self.store.objects();
        let resolving = Resolving {
            objects,
            tools: &tools,
            offline: true,
            has_toolbox: inputs.iter().any(|(name, _)| *name == toolbox::INPUT),
            inputs: inputs.iter().map(|(name, _)| *name).collect(),
            limits: Limits::default(),
            cancel: &cancel,
            report: &report,
        };
        let resolved: Resolved = step.resolve(&resolving)?;
        let inputs: BTreeMap<String, Output> =
            inputs.iter().map(|(name, output)| ((*name).to_owned(), output.clone())).collect();
        let action = Action {
            step: step.kind().to_owned(),
            version: step.version(),
            params: step.params(),
            inputs: inputs.iter().map(|(name, output)| (name.clone(), output.object)).collect(),
            sources: resolved.sources.clone(),
            tools: resolved.tools.iter().map(|(name, tool)| (name.clone(), tool.identity)).collect(),
            provenance: BTreeMap::new(),
            sandboxed: self.sandbox.mode() == Mode::On,
        };
        let kit = Kit::of(objects, &Toolboxes::default(), &inputs, &resolved, &self.sandbox)?;
        let log = Mutex::default();
        let node = NodeName::new("node").expect("a good name");
        let outputs = step.run(&Job {
            objects,
            node: &node,
            action: &action,
            inputs: &inputs,
            resolved: &resolved,
            provenance: &self.provenance,
            workers: None,
            asks: false,
            threads: 2,
            offline: true,
            cancel: &cancel,
            kit: &kit,
            sandbox: &self.sandbox,
            report: &report,
            log: &log,
        })?;
        let log = String::from_utf8_lossy(&log.into_inner().unwrap()).into_owned();
        let remarks = remarks.into_inner().unwrap();
        Ok(Ran { outputs, remarks, log, action })
    }

    /// Reads an output that is a blob.
    pub fn read(&self, ran: &Ran, output: &str) -> Vec<u8> {
        let Object::Blob(blob) = ran.outputs[output].object else { panic!("{output} is a tree") };
        self.store.read(&blob.digest).unwrap()
    }

    /// Reads all files of an output that is a tree, by path.
    pub fn read_files(&self, ran: &Ran, output: &str) -> BTreeMap<String, Vec<u8>> {
        let Object::Tree(tree) = ran.outputs[output].object else { panic!("{output} is a blob") };
        let tree = self.store.tree(&tree).unwrap();
        tree.files().map(|(path, digest, _)| (path.to_string(), self.store.read(&digest).unwrap())).collect()
    }
}

/// Returns what a node below a reporting one did: `kind` with these outputs.
pub fn provenance(kind: &str, outputs: &[(&str, Object)]) -> Provenance {
    let action = Action {
        step: kind.to_owned(),
        version: 1,
        params: BTreeMap::new(),
        inputs: BTreeMap::new(),
        sources: BTreeMap::new(),
        tools: BTreeMap::new(),
        provenance: BTreeMap::new(),
        sandboxed: true,
    };
    let outputs = outputs.iter().map(|(name, object)| ((*name).to_owned(), *object)).collect();
    Provenance { action: Arc::new(action), outputs, remarks: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Invocation;
    use crate::tool::ToolSpec;

    /// Runs a program called `shout` on its input.
    struct Shouts;

    impl Step for Shouts {
        fn kind(&self) -> &'static str {
            "shouts"
        }

        fn version(&self) -> u32 {
            1
        }

        fn params(&self) -> BTreeMap<String, String> {
            BTreeMap::new()
        }

        fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
            let shout =
                ToolSpec { name: "shout", programs: &["cat"], data: &[], data_places: &[], package: "" };
            Ok(Resolved::with_tools(resolving, &[shout])?)
        }

        fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
            let work = job.objects.work_dir()?;
            job.run(&Invocation {
                tool: job.tool("shout")?,
                args: vec!["in/text".into()],
                env: BTreeMap::new(),
                inputs: BTreeMap::from([("text".to_owned(), job.path("text")?)]),
                mounts: BTreeMap::new(),
                work: work.path(),
                privileged: false,
                foreign: None,
            })?;
            job.remark("it is loud");
            let shouted = job.take(work.path(), "shouted")?;
            let listing = cache::Tree::of_files([]).map_err(StepError::spec)?;
            let listing = Object::Tree(job.objects.put_tree(&listing)?);
            Ok(BTreeMap::from([
                ("shouted".to_owned(), shouted.into()),
                ("listing".to_owned(), Output { object: listing, bytes: Bytes::Store }),
            ]))
        }
    }

    #[test]
    fn a_step_runs_with_a_tool_that_stands_for_a_real_one() {
        for bench in [Bench::new(), Bench::sandboxed()] {
            bench.tool("shout", "cat \"$1\" > shouted; echo '!' >> shouted; echo done");
            let text = bench.blob(b"hello");
            let ran = bench.run(&Shouts, &[("text", text)]).unwrap();
            assert_eq!(bench.read(&ran, "shouted"), b"hello!\n");
            assert_eq!((&ran.remarks[..], ran.log.as_str()), (&["it is loud".to_owned()][..], "done\n"));
            assert!(bench.read_files(&ran, "listing").is_empty());
            bench.tool("shout", "exit 3");
            let error = bench.run(&Shouts, &[("text", bench.blob(b"hello"))]).unwrap_err();
            assert!(error.to_string().contains("ended with exit code 3"), "{error}");
        }
    }
}
