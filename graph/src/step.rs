//! Steps: what a node does, seen from the engine.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use cache::objects::Held;
use cache::{Bytes, Object, Objects, Output, RootTree};

use crate::action::Action;
use crate::cancel::Cancel;
use crate::error::StepError;
use crate::name::NodeName;
use crate::sandbox::{self, Invocation, Limits, Mode, Sandbox, SandboxError};
use crate::tool::{Tool, ToolError, Tools, Wanted};
use crate::toolbox::{Toolbox, Toolboxes};
use crate::workers::Workers;

/// Something a node does. Live media's steps implement it, and the counting fake of the engine's tests.
pub trait Step: Send + Sync {
    /// Returns the kind's name.
    fn kind(&self) -> &'static str;

    /// Returns the version of the step's code; raised when the same inputs would give other bytes.
    fn version(&self) -> u32;

    /// Returns every setting that can change what the step yields.
    fn params(&self) -> BTreeMap<String, String>;

    /// Tells whether the step reports on the actions of the nodes below it.
    fn wants_provenance(&self) -> bool {
        false
    }

    /// Looks outside: pins tools and sources by content. This is where a step may use the network.
    ///
    /// # Errors
    /// [`StepError`]: something needed is not there.
    fn resolve(&self, _resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        Ok(Resolved::default())
    }

    /// Makes the outputs. Only what is in the action may have an influence on them.
    ///
    /// # Errors
    /// [`StepError`]: they could not be made.
    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError>;
}

/// What a step may use while it looks outside.
pub struct Resolving<'a> {
    /// The objects of the store.
    pub objects: &'a Objects,
    /// The programs of this machine.
    pub tools: &'a Tools,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Whether the node takes its tools from a toolbox, one of its inputs: then nothing of this machine's is pinned.
    pub has_toolbox: bool,
    /// The names of the node's inputs.
    pub inputs: BTreeSet<&'a str>,
    /// What may be unpacked.
    pub limits: Limits,
    /// Set when everything should stop.
    pub cancel: &'a Cancel,
    pub(crate) report: &'a (dyn Fn(Report) + Sync),
}

impl Resolving<'_> {
    /// Tells people something they should read.
    pub fn remark(&self, text: impl Into<String>) {
        (self.report)(Report::Remark(text.into()));
    }

    /// Tells what is being done, in bytes where they can be counted.
    pub fn progress(&self, doing: &str, done: u64, total: Option<u64>) {
        (self.report)(Report::Progress(doing.to_owned(), done, total));
    }
}

/// What a step found outside.
#[derive(Debug, Default, Clone)]
pub struct Resolved {
    /// The programs it will run.
    pub tools: BTreeMap<String, Arc<Tool>>,
    /// What came from outside, by content: digests in hex, or other text that pins it.
    pub sources: BTreeMap<String, String>,
    /// Where the bytes of trees lie. Not part of the key.
    pub places: BTreeMap<String, Bytes>,
    /// Where files lie. Not part of the key.
    pub paths: BTreeMap<String, PathBuf>,
    /// What the step will want to know again when it runs. Not part of the key.
    pub found: Option<Arc<dyn Any + Send + Sync>>,
    /// The programs that a toolbox is to have.
    pub(crate) wanted: Vec<Wanted>,
}

impl Resolved {
    /// Pins the programs of these names; where they come from a toolbox, its digest does that.
    ///
    /// # Errors
    /// [`ToolError`]: one is not installed.
    pub fn with_tools(
        resolving: &Resolving<'_>,
        specs: &[crate::tool::ToolSpec<'_>],
    ) -> Result<Self, ToolError> {
        let mut resolved = Self::default();
        if resolving.has_toolbox {
            resolved.wanted = specs.iter().map(Wanted::of).collect();
            return Ok(resolved);
        }
        for spec in specs {
            resolved.tools.insert(spec.name.to_owned(), resolving.tools.find(resolving.objects, spec)?);
        }
        Ok(resolved)
    }
}

/// What a node below a reporting one did.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// Its action.
    pub action: Arc<Action>,
    /// Its outputs.
    pub outputs: BTreeMap<String, Object>,
    /// What it had to say.
    pub remarks: Vec<String>,
}

/// What a running step tells.
pub(crate) enum Report {
    Remark(String),
    Progress(String, u64, Option<u64>),
    Output(String),
}

/// The programs that an action runs.
pub(crate) struct Kit {
    toolbox: Option<Arc<Toolbox>>,
    tools: BTreeMap<String, Arc<Tool>>,
}

impl Kit {
    /// Takes the programs out of the toolbox among the inputs, or else those that were pinned.
    pub(crate) fn of(
        objects: &Objects,
        toolboxes: &Toolboxes,
        inputs: &BTreeMap<String, Output>,
        resolved: &Resolved,
        sandbox: &Sandbox,
    ) -> Result<Self, StepError> {
        let Some(toolbox) = toolboxes.among(objects, inputs)? else {
            return Ok(Self { toolbox: None, tools: resolved.tools.clone() });
        };
        if sandbox.mode() == Mode::Off && !resolved.wanted.is_empty() {
            return Err(ToolError::NeedsSandbox.into());
        }
        let mut tools = BTreeMap::new();
        for wanted in &resolved.wanted {
            tools.insert(wanted.name.clone(), Arc::new(toolbox.tool(objects, wanted)?));
        }
        Ok(Self { toolbox: Some(toolbox), tools })
    }

    /// Looks whether the toolbox is what it was, if its tools are of one.
    ///
    /// # Errors
    /// [`ToolError::ToolboxChanged`].
    pub(crate) fn check(&self) -> Result<(), ToolError> {
        self.toolbox.as_ref().map_or(Ok(()), |toolbox| toolbox.check())
    }
}

/// An action being run: its inputs, and what it may use.
pub struct Job<'a> {
    /// The objects of the store.
    pub objects: &'a Objects,
    /// The node's name, for messages and the manifest.
    pub node: &'a NodeName,
    /// The action.
    pub action: &'a Action,
    /// The inputs, with the places of their bytes.
    pub inputs: &'a BTreeMap<String, Output>,
    /// What the step found outside.
    pub resolved: &'a Resolved,
    /// The nodes below, for a step that wants them.
    pub provenance: &'a BTreeMap<NodeName, Provenance>,
    /// How many threads it may use.
    pub threads: usize,
    /// Cores elsewhere, where there are some.
    pub workers: Option<&'a dyn Workers>,
    /// Whether upstreams may be asked for parts of what it makes.
    pub asks: bool,
    /// Whether the network must not be used, not even for what is checked against a digest.
    pub offline: bool,
    /// Set when it should stop.
    pub cancel: &'a Cancel,
    pub(crate) kit: &'a Kit,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) report: &'a (dyn Fn(Report) + Sync),
    pub(crate) log: &'a Mutex<Vec<u8>>,
}

impl Job<'_> {
    /// Returns an input.
    ///
    /// # Errors
    /// A step that asks for an input it did not declare.
    pub fn input(&self, name: &str) -> Result<&Output, StepError> {
        self.inputs.get(name).ok_or_else(|| StepError::spec(format!("{} needs an input {name:?}", self.node)))
    }

    /// Returns an input that must be a blob.
    ///
    /// # Errors
    /// It is a tree.
    pub fn blob(&self, name: &str) -> Result<cache::Blob, StepError> {
        match self.input(name)?.object {
            Object::Blob(blob) => Ok(blob),
            Object::Tree(_) => Err(StepError::spec(format!(
                "{} needs a file as its input {name:?}, but it is given a folder",
                self.node
            ))),
        }
    }

    /// Returns an input that must be a tree, ready to be read.
    ///
    /// # Errors
    /// It is a blob, or cannot be read.
    pub fn tree(&self, name: &str) -> Result<RootTree, StepError> {
        let output = self.input(name)?;
        match output.object {
            Object::Tree(tree) => Ok(self.objects.open_tree(&tree, &output.bytes)?),
            Object::Blob(_) => Err(StepError::spec(format!(
                "{} needs a folder as its input {name:?}, but it is given a file",
                self.node
            ))),
        }
    }

    /// Returns the path of an input blob, verified.
    ///
    /// # Errors
    /// It is a tree, missing or damaged.
    pub fn path(&self, name: &str) -> Result<PathBuf, StepError> {
        Ok(self.objects.verified(&self.blob(name)?.digest)?)
    }

    /// Tells people something they should read, now and whenever the cached result is used.
    pub fn remark(&self, text: impl Into<String>) {
        (self.report)(Report::Remark(text.into()));
    }

    /// Tells what is being done, in bytes where they can be counted.
    pub fn progress(&self, doing: &str, done: u64, total: Option<u64>) {
        (self.report)(Report::Progress(doing.to_owned(), done, total));
    }

    /// Fails if everything should stop.
    ///
    /// # Errors
    /// [`SandboxError::Cancelled`].
    pub fn check_cancelled(&self) -> Result<(), StepError> {
        if self.cancel.is_cancelled() { Err(SandboxError::Cancelled.into()) } else { Ok(()) }
    }

    /// Returns a pinned program.
    ///
    /// # Errors
    /// A step that runs a program it did not pin.
    pub fn tool(&self, name: &str) -> Result<&Tool, StepError> {
        self.kit
            .tools
            .get(name)
            .map(Arc::as_ref)
            .ok_or_else(|| StepError::environment(format!("{name} was not pinned by {}", self.node)))
    }

    /// Returns how many bytes something of `packed` bytes may unpack to.
    pub fn may_unpack_to(&self, packed: u64) -> u64 {
        self.sandbox.limits().unpacked(packed)
    }

    /// Returns the toolbox that the node takes its tools from; nothing where they are this machine's.
    pub fn toolbox(&self) -> Option<&Toolbox> {
        self.kit.toolbox.as_deref()
    }

    /// Runs a tool in the sandbox; what it prints goes into the node's log.
    ///
    /// # Errors
    /// [`SandboxError`]: it could not be started, failed or was stopped.
    pub fn run(&self, invocation: &Invocation<'_>) -> Result<(), StepError> {
        Ok(self.sandbox.run(invocation, self.cancel, &|line| self.printed(line))?)
    }

    /// As [`Job::run`], for a tool that says where it is: a line of which `phase` makes something, begins that.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn run_in_phases(
        &self,
        invocation: &Invocation<'_>,
        phase: &(dyn Fn(&str) -> Option<&'static str> + Sync),
    ) -> Result<(), StepError> {
        let each = |line: &[u8]| {
            self.printed(line);
            if let Some(doing) = std::str::from_utf8(line).ok().and_then(phase) {
                self.progress(doing, 0, None);
            }
        };
        Ok(self.sandbox.run(invocation, self.cancel, &each)?)
    }

    /// Runs a program on the machine itself, with all of it in sight: for a whole build system that is a node. Nothing
    /// of it outlives this process; its environment is the one of `command`. `unshare` is the path of util-linux's
    /// program.
    ///
    /// # Errors
    /// [`SandboxError`]: it could not be started, failed or was stopped.
    pub fn run_outside(&self, unshare: &Path, command: &Command) -> Result<(), StepError> {
        Ok(sandbox::run_outside(unshare, command, self.cancel, &|line| self.printed(line))?)
    }

    fn printed(&self, line: &[u8]) {
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if log.len() + line.len() < MAX_LOG {
            log.extend_from_slice(line);
            log.push(b'\n');
        } else if !log.ends_with(REST_LEFT_OUT) {
            log.extend_from_slice(REST_LEFT_OUT);
        }
        drop(log);
        (self.report)(Report::Output(String::from_utf8_lossy(line).into_owned()));
    }

    /// Takes a tool's output file into the store.
    ///
    /// # Errors
    /// It is not there, or lies behind a link: a tool that exits 0 without its output has failed.
    pub fn take(&self, work: &Path, name: &str) -> Result<cache::Blob, StepError> {
        Ok(self.objects.adopt(&left_by_tool(work, name)?)?)
    }

    /// Takes a tool's output file into the store without keeping again what it has of other objects; `held` is asked
    /// where those are, by the path of the file.
    ///
    /// # Errors
    /// As [`Job::take`], and those of `held`; or the file has other bytes there.
    pub fn take_composed(
        &self,
        work: &Path,
        name: &str,
        held: impl FnOnce(&Path) -> Result<Vec<Held>, StepError>,
    ) -> Result<cache::Blob, StepError> {
        let path = left_by_tool(work, name)?;
        Ok(self.objects.adopt_composed(&path, &held(&path)?)?)
    }
}

/// Bytes of what a node's tools print that are kept, and what stands for the rest.
const MAX_LOG: usize = 16 << 20;
const REST_LEFT_OUT: &[u8] = b"... and more, which is not kept\n";

/// Returns the path of a file that a tool was to leave.
fn left_by_tool(work: &Path, name: &str) -> Result<PathBuf, StepError> {
    let path = work.join(name);
    let failed = |error| StepError::action(format!("the tool ended well but left no {name}: {error}"));
    let found = path.symlink_metadata().map_err(failed)?;
    let real = path.canonicalize().map_err(failed)?;
    // A link could lead to any file of the machine.
    if !found.is_file() || real != work.canonicalize().map_err(failed)?.join(name) {
        return Err(StepError::action(format!("the tool's output {name} is not a plain file of its own")));
    }
    Ok(path)
}
