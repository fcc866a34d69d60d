//! The workers: they resolve and run what the loop hands them, and know nothing of the state table.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cache::{ActionDigest, ActionResult, Output};

use super::{Backend, Options};
use crate::action::Action;
use crate::dag::{Dag, NodeName};
use crate::event::Event;
use crate::sandbox::SandboxError;
use crate::step::{Job, Provenance, Report, Resolved, Resolving, StepError};

/// Work for a worker.
pub(super) enum Task {
    Resolve { node: NodeName, inputs: BTreeMap<String, Output> },
    Run(Box<RunTask>),
}

pub(super) struct RunTask {
    pub(super) node: NodeName,
    pub(super) digest: ActionDigest,
    pub(super) action: Arc<Action>,
    pub(super) inputs: BTreeMap<String, Output>,
    pub(super) resolved: Resolved,
    pub(super) provenance: BTreeMap<NodeName, Provenance>,
}

/// What a worker has to say.
pub(super) enum Message {
    Resolved { node: NodeName, inputs: BTreeMap<String, Output>, resolved: Result<Resolved, StepError> },
    Ran { node: NodeName, digest: ActionDigest, result: Result<Ran, (StepError, Vec<u8>)> },
}

pub(super) struct Ran {
    pub(super) result: ActionResult,
    /// Whether this process ran it; another one may have been faster.
    pub(super) here: bool,
}

/// Takes tasks until there are no more.
pub(super) fn work(
    dag: &Dag,
    backend: &Backend<'_>,
    options: &Options,
    tasks: &Mutex<Receiver<Task>>,
    messages: &Sender<Message>,
) {
    loop {
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        let message = match task {
            Task::Resolve { node, inputs } => {
                let report = |report| tell(backend, &node, report, None);
                let resolving = Resolving {
                    store: backend.store,
                    tools: backend.tools,
                    offline: options.offline,
                    cancel: backend.cancel,
                    report: &report,
                };
                let step = &dag.nodes()[&node].step;
                let resolved = caught(|| step.resolve(&resolving));
                Message::Resolved { node, inputs, resolved }
            }
            Task::Run(task) => {
                let log = Mutex::default();
                let result = run(dag, backend, options, &task, &log);
                let result = result.map_err(|error| {
                    (error, std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner)))
                });
                Message::Ran { node: task.node, digest: task.digest, result }
            }
        };
        if messages.send(message).is_err() {
            return;
        }
    }
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
            .with_help("this is a bug in stagegraph; please report it with the spec"))
    })
}

fn run(
    dag: &Dag,
    backend: &Backend<'_>,
    options: &Options,
    task: &RunTask,
    log: &Mutex<Vec<u8>>,
) -> Result<Ran, StepError> {
    let (store, cancel) = (backend.store, backend.cancel);
    let lock = store.lock_action(&task.digest, &|| cancel.is_cancelled())?;
    let _lock = lock.ok_or(SandboxError::Cancelled)?;
    let known = store.action(&task.digest)?;
    if let Some(result) = &known
        && !options.check
    {
        let result = super::relocated(result.clone(), &task.resolved.places);
        return Ok(Ran { result, here: false });
    }
    let remarks = Mutex::default();
    let report = |report| tell(backend, &task.node, report, Some(&remarks));
    let job = Job {
        store,
        node: &task.node,
        action: &task.action,
        inputs: &task.inputs,
        resolved: &task.resolved,
        provenance: &task.provenance,
        threads: options.jobs.max(1),
        offline: options.offline,
        cancel,
        sandbox: backend.sandbox,
        report: &report,
        log,
    };
    let derivation = &dag.nodes()[&task.node];
    let started = Instant::now();
    let outputs = caught(|| derivation.step.run(&job))?;
    job.check_cancelled()?;
    if !outputs.keys().eq(&derivation.outputs) {
        let given: Vec<_> = outputs.keys().map(String::as_str).collect();
        return Err(StepError::action(format!(
            "the step was to give {} but gave {}",
            derivation.outputs.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
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
