//! The workers: they resolve and run what the loop hands them, and know nothing of the state table.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cache::statement::Fetched;
use cache::{ActionDigest, ActionResult, Bytes, Object, Output, StoreError};

use super::backend::{Backend, Options};
use super::graphs::Graphs;
use super::queue::Queue;
use crate::action::{Action, Sketch};
use crate::dag::Derivation;
use crate::error::StepError;
use crate::event::Event;
use crate::name::NodeName;
use crate::sandbox::{Mode, SandboxError};
use crate::step::{Job, Kit, Provenance, Report, Resolved, Resolving};
use crate::tool::ToolError;
use crate::toolbox::{self, Toolboxes};

/// What the workers share.
pub(super) struct Workshop<'a> {
    /// By the node's number.
    pub(super) nodes: Vec<(&'a NodeName, &'a Derivation)>,
    pub(super) backend: &'a Backend<'a>,
    pub(super) options: &'a Options,
    /// The graphs it is of, and what their nodes gave last time.
    pub(super) graphs: Graphs,
    /// Whether a node reports on the actions of others.
    pub(super) keeps_actions: bool,
    pub(super) toolboxes: Toolboxes,
    pub(super) tasks: Queue<Task>,
    /// Actions that upstreams are asked about.
    pub(super) questions: Queue<Box<RunTask>>,
    pub(super) messages: Queue<Message>,
}

impl Workshop<'_> {
    /// Tells whether waiting tasks keep the workers busy for a while.
    pub(super) fn is_busy(&self) -> bool {
        self.tasks.len() >= self.options.jobs.saturating_mul(8)
    }
}

/// Work for a worker.
pub(super) enum Task {
    /// `givers` are the results that the node's inputs come from, in the order of their names.
    Resolve {
        node: usize,
        givers: Vec<Option<Arc<ActionResult>>>,
        provenance: BTreeMap<NodeName, Provenance>,
    },
    Run(Box<RunTask>),
}

pub(super) struct RunTask {
    pub(super) node: usize,
    pub(super) digest: ActionDigest,
    pub(super) action: Arc<Action>,
    pub(super) inputs: BTreeMap<String, Output>,
    pub(super) resolved: Resolved,
    pub(super) provenance: BTreeMap<NodeName, Provenance>,
}

/// What a worker has to say.
pub(super) enum Message {
    /// The node is what it was last time, and so is its result.
    Known { node: usize, action: Option<Arc<Action>>, digest: ActionDigest, result: Arc<ActionResult> },
    /// The node's action is known.
    Resolved(Box<RunTask>),
    /// Upstreams were asked for the action's result.
    Answered { task: Box<RunTask>, fetched: Option<Fetched> },
    /// The node's action could not be found out.
    Failed { node: usize, error: StepError },
    /// The store failed.
    Broken(StoreError),
    /// The action ran.
    Ran { node: usize, digest: ActionDigest, result: Result<Ran, (StepError, Vec<u8>)> },
}

pub(super) struct Ran {
    pub(super) result: ActionResult,
    /// Whether this process ran it; another one may have been faster.
    pub(super) here: bool,
}

/// Takes tasks until there are no more.
pub(super) fn work(workshop: &Workshop<'_>) {
    while let Some(task) = workshop.tasks.pop() {
        let is_run = matches!(task, Task::Run(_));
        let message = match task {
            Task::Resolve { node, givers, provenance } => {
                resolve(workshop, node, &givers, provenance).unwrap_or_else(Message::Broken)
            }
            Task::Run(task) => {
                let log = Mutex::default();
                let result = run(workshop, &task, &log);
                let result = result.map_err(|error| {
                    (error, std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner)))
                });
                Message::Ran { node: task.node, digest: task.digest, result }
            }
        };
        // As long as there is plenty to do, nobody need be woken for what is done.
        workshop.messages.push([message], is_run || !workshop.is_busy());
    }
}

/// Asks upstreams until there are no more questions.
pub(super) fn ask(workshop: &Workshop<'_>) {
    while let Some(task) = workshop.questions.pop() {
        let (name, derivation) = workshop.nodes[task.node];
        let backend = workshop.backend;
        let complain = |text| tell(backend, name, Report::Remark(text), None);
        let asked = caught(|| Ok(backend.store.ask(&task.digest, derivation.outputs(), &complain)));
        let message = match asked {
            Ok(Ok(fetched)) => Message::Answered { task, fetched },
            // That everything stops, the node is told when it is to run.
            Ok(Err(StoreError::Stopped)) => Message::Answered { task, fetched: None },
            Ok(Err(error)) => Message::Broken(error),
            Err(panic) => {
                Message::Ran { node: task.node, digest: task.digest, result: Err((panic, Vec::new())) }
            }
        };
        workshop.messages.push([message], true);
    }
}

/// Finds out a node's action, and whether it is what it was last time.
fn resolve(
    workshop: &Workshop<'_>,
    node: usize,
    givers: &[Option<Arc<ActionResult>>],
    provenance: BTreeMap<NodeName, Provenance>,
) -> Result<Message, StoreError> {
    let backend = workshop.backend;
    let (name, derivation) = workshop.nodes[node];
    let step = &derivation.step;
    let resolved = match look(backend, workshop.options, name, derivation) {
        Ok(resolved) => resolved,
        Err(error) => return Ok(Message::Failed { node, error }),
    };
    let given = || {
        let of_giver = derivation.inputs().zip(givers);
        of_giver
            .filter_map(|((input, from), giver)| Some((input, giver.as_ref()?.outputs.get(&from.output)?)))
    };
    let params = step.params();
    let below = provenance.iter().map(|(node, below)| (node.as_str(), below.action.digest()));
    let sketch = Sketch {
        step: step.kind(),
        version: step.version(),
        params: &params,
        inputs: given().map(|(input, output)| (input.as_str(), output.object)).collect(),
        sources: &resolved.sources,
        tools: resolved.tools.iter().map(|(name, tool)| (name.as_str(), tool.identity)).collect(),
        provenance: below.collect(),
        sandboxed: backend.sandbox.mode() == Mode::On,
    };
    let digest = sketch.digest();
    if !workshop.options.check
        && let Some(result) = last_time(workshop, node, &digest)?
    {
        let result = Arc::new(relocated(result, &resolved.places));
        let action = workshop.keeps_actions.then(|| Arc::new(sketch.to_action()));
        return Ok(Message::Known { node, action, digest, result });
    }
    let action = Arc::new(sketch.to_action());
    let inputs = given().map(|(input, output)| (input.clone(), output.clone())).collect();
    Ok(Message::Resolved(Box::new(RunTask { node, digest, action, inputs, resolved, provenance })))
}

/// Returns what a node gave last time, if that was the same action.
fn last_time(
    workshop: &Workshop<'_>,
    node: usize,
    digest: &ActionDigest,
) -> Result<Option<ActionResult>, StoreError> {
    let (name, _) = workshop.nodes[node];
    let roll = workshop.graphs.roll(node);
    match name.graph() {
        None => workshop.backend.store.result_in(roll, name.as_str(), node, digest),
        Some(_) => workshop.backend.store.result_in(roll, name.local().as_str(), node, digest),
    }
}

/// Has a node look outside.
pub(super) fn look(
    backend: &Backend<'_>,
    options: &Options,
    node: &NodeName,
    derivation: &Derivation,
) -> Result<Resolved, StepError> {
    let report = |report| tell(backend, node, report, None);
    let resolving = Resolving {
        objects: backend.store.objects(),
        tools: backend.tools,
        offline: options.offline,
        has_toolbox: derivation.inputs().any(|(input, _)| input == toolbox::INPUT),
        inputs: derivation.inputs().map(|(input, _)| input.as_str()).collect(),
        limits: backend.sandbox.limits(),
        cancel: backend.cancel,
        report: &report,
    };
    caught(|| derivation.step.resolve(&resolving))
}

/// Passes on what a step tells; remarks are also kept with the result.
fn tell(backend: &Backend<'_>, node: &NodeName, report: Report, remarks: Option<&Mutex<Vec<String>>>) {
    let node = node.clone();
    (backend.listener)(match report {
        Report::Remark(text) => {
            if let Some(remarks) = remarks {
                remarks.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
            }
            Event::Remark { node, text }
        }
        Report::Progress(doing, done, total) => Event::Progress { node, doing, done, total },
        Report::Output(line) => Event::Output { node, line },
    });
}

/// A step that panics fails its node; the build goes on.
fn caught<T>(step: impl FnOnce() -> Result<T, StepError>) -> Result<T, StepError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic: Box<dyn Any + Send>| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("for no stated reason");
        Err(StepError::environment(format!("the step panicked: {text}"))
            .with_hint("this is a bug in stagegraph; please report it with the spec"))
    })
}

fn run(workshop: &Workshop<'_>, task: &RunTask, log: &Mutex<Vec<u8>>) -> Result<Ran, StepError> {
    let Workshop { backend, options, .. } = workshop;
    let (name, derivation) = workshop.nodes[task.node];
    let (store, cancel) = (backend.store, backend.cancel);
    if cancel.is_cancelled() {
        return Err(SandboxError::Cancelled.into());
    }
    let lock = store.lock_action(&task.digest, &|| cancel.is_cancelled())?;
    let _lock = lock.ok_or(SandboxError::Cancelled)?;
    let known = store.action(&task.digest)?;
    if let Some(result) = &known
        && !options.check
    {
        let result = relocated(result.clone(), &task.resolved.places);
        return Ok(Ran { result, here: false });
    }
    let remarks = Mutex::default();
    let report = |report| tell(backend, name, report, Some(&remarks));
    let objects = store.objects();
    let kit = Kit::of(objects, &workshop.toolboxes, &task.inputs, &task.resolved, backend.sandbox)?;
    // What it gives is the same, whatever else is built.
    let local = name.local();
    let job = Job {
        objects,
        node: &local,
        action: &task.action,
        inputs: &task.inputs,
        resolved: &task.resolved,
        provenance: &task.provenance,
        threads: options.jobs.max(1),
        workers: backend.workers,
        asks: options.asks(store),
        offline: options.offline,
        cancel,
        kit: &kit,
        sandbox: backend.sandbox,
        report: &report,
        log,
    };
    let started = Instant::now();
    // The node may have waited for hours since its tools were pinned, and run for as long.
    let check_tools = || task.resolved.tools.values().try_for_each(|tool| backend.tools.check(store, tool));
    check_tools()?;
    let outputs = caught(|| derivation.step.run(&job));
    job.check_cancelled()?;
    kit.check()?;
    let outputs = match (check_tools(), outputs) {
        // That may well be why it failed.
        (Err(error @ ToolError::Changed { .. }), _) => return Err(error.into()),
        (_, Err(error)) => return Err(error),
        (checked, Ok(outputs)) => checked.map(|()| outputs)?,
    };
    if !outputs.keys().eq(derivation.outputs()) {
        let given: Vec<_> = outputs.keys().map(String::as_str).collect();
        return Err(StepError::action(format!(
            "the step was to give {} but gave {}",
            derivation.outputs().join(", "),
            given.join(", ")
        )));
    }
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let remarks = remarks.into_inner().unwrap_or_else(PoisonError::into_inner);
    let result = ActionResult { outputs: outputs.into(), remarks, milliseconds };
    match known {
        Some(known) => compare(&known, &result)?,
        None => store.set_action(&task.digest, &result)?,
    }
    Ok(Ran { result, here: true })
}

/// Compares what an action gave with what it gave before.
fn compare(before: &ActionResult, after: &ActionResult) -> Result<(), StepError> {
    for (name, output) in after.outputs.iter() {
        let old = before.outputs.get(name).map(|output| output.object);
        if old != Some(output.object) {
            let old = old.map_or_else(|| "nothing".to_owned(), |object| object.to_string());
            return Err(StepError::action(format!(
                "built again, its output {name} is {}, but it was {old}: the step is not reproducible",
                output.object
            )));
        }
    }
    Ok(())
}

/// Returns a result whose trees lie where this build found them.
///
/// The same tree may lie in another folder today than when the result was recorded, and the old one may
/// have changed since.
pub(super) fn relocated(mut result: ActionResult, places: &BTreeMap<String, Bytes>) -> ActionResult {
    for (name, place) in places {
        if let Some(output) = result.outputs.get_mut(name)
            && matches!(output.object, Object::Tree(_))
        {
            output.bytes = place.clone();
        }
    }
    result
}
