//! The build: one state table, one loop.
//!
//! One thread owns the table; workers resolve and run, and send one message each when they are done.
//! A node goes from waiting to resolving (its tools and sources are pinned), to running on a miss,
//! and ends as done, failed or skipped. Two nodes that resolve to one action run it once; so do two
//! processes, which take turns at the action's lock. A failure stops the nodes that need the failed
//! one and no others.

mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache::store::Owner;
use cache::{ActionDigest, ActionResult, Bytes, Object, Output, Store, StoreError};

use self::worker::{Message, Ran, RunTask, Task, work};
use crate::action::Action;
use crate::dag::{Dag, NodeName};
use crate::event::Event;
use crate::explain::{self, Last, Reason};
use crate::sandbox::{Mode, Sandbox};
use crate::step::{Cancel, Fault, Provenance, Resolved, StepError};
use crate::tool::Tools;

/// How often the loop looks whether it should stop.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// What a build uses.
pub struct Backend<'a> {
    /// Where objects and results are kept.
    pub store: &'a Store,
    /// Where tools run.
    pub sandbox: &'a Sandbox,
    /// Which tools there are.
    pub tools: &'a Tools,
    /// Set to stop the build.
    pub cancel: &'a Cancel,
    /// Told everything that happens.
    pub listener: &'a (dyn Fn(Event) + Sync),
}

/// How a build goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name under which `why` finds this build.
    pub graph: String,
    /// How many nodes are worked on at once, and how many threads each may use.
    pub jobs: usize,
    /// Whether nodes run even where a result is known, and the results are compared.
    pub check: bool,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// A node's outputs are there.
#[derive(Debug, Clone)]
pub struct Done {
    /// What it was.
    pub action: Arc<Action>,
    /// The key.
    pub digest: ActionDigest,
    /// What it gave.
    pub result: Arc<ActionResult>,
    /// Why it ran, or did not.
    pub reason: Reason,
    /// Whether it ran.
    pub ran: bool,
}

/// How a node ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Its outputs are there.
    Done(Done),
    /// It failed.
    Failed(Fault),
    /// It did not run, because this one failed.
    Skipped(NodeName),
    /// It did not run, because the build was stopped.
    Stopped,
}

/// How the wanted nodes ended.
#[derive(Debug, Clone, Default)]
pub struct Built {
    /// Every wanted node and what it needs.
    pub nodes: BTreeMap<NodeName, Outcome>,
}

impl Built {
    /// Returns whose fault the first failure in order of name is; `None` where all nodes are done.
    pub fn fault(&self) -> Option<Fault> {
        self.nodes.values().find_map(|outcome| match outcome {
            Outcome::Failed(fault) => Some(*fault),
            Outcome::Stopped => Some(Fault::Action),
            Outcome::Done(_) | Outcome::Skipped(_) => None,
        })
    }

    /// Returns the keys of all nodes that are done.
    pub fn actions(&self) -> Vec<ActionDigest> {
        let done = self.nodes.values().filter_map(|outcome| match outcome {
            Outcome::Done(done) => Some(done.digest),
            _ => None,
        });
        done.collect()
    }

    /// Returns what a node gave, if it is done.
    pub fn done(&self, node: &NodeName) -> Option<&Done> {
        match self.nodes.get(node)? {
            Outcome::Done(done) => Some(done),
            _ => None,
        }
    }
}

enum State {
    Waiting(usize),
    Working,
    Ended(Outcome),
}

/// Builds `wanted` and all they need.
///
/// # Errors
/// [`StoreError`]: the store failed; failures of nodes are in the returned table.
pub fn build(
    dag: &Dag,
    wanted: &[NodeName],
    backend: &Backend<'_>,
    options: &Options,
) -> Result<Built, StoreError> {
    let closure = dag.closure(wanted);
    (backend.listener)(Event::Planned { nodes: closure.len() });
    let (task_sender, tasks) = channel();
    let (messages, inbox) = channel();
    let tasks = Mutex::new(tasks);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let (tasks, messages) = (&tasks, messages.clone());
            scope.spawn(move || work(dag, backend, options, tasks, &messages));
        }
        // Dropping the loop drops the only sender of tasks, and the workers end.
        Loop {
            dag,
            backend,
            options,
            states: closure.iter().map(|node| (node.clone(), State::Waiting(dag.givers(node)))).collect(),
            ready: closure.iter().filter(|node| dag.givers(node) == 0).cloned().collect(),
            in_flight: BTreeMap::new(),
            working: 0,
            tasks: task_sender,
        }
        .run(&inbox)
    })
}

/// The owner of the state table.
struct Loop<'a> {
    dag: &'a Dag,
    backend: &'a Backend<'a>,
    options: &'a Options,
    states: BTreeMap<NodeName, State>,
    ready: BTreeSet<NodeName>,
    /// Running actions, and the nodes that wait for them: the first one is the one that runs.
    in_flight: BTreeMap<ActionDigest, Vec<(NodeName, Arc<Action>, Reason)>>,
    working: usize,
    tasks: Sender<Task>,
}

impl Loop<'_> {
    fn run(mut self, inbox: &Receiver<Message>) -> Result<Built, StoreError> {
        loop {
            while !self.backend.cancel.is_cancelled()
                && let Some(node) = self.ready.pop_first()
            {
                let inputs = self.inputs(&node);
                self.states.insert(node.clone(), State::Working);
                self.send(Task::Resolve { node, inputs });
            }
            if self.working == 0 {
                break;
            }
            match inbox.recv_timeout(CANCEL_INTERVAL) {
                Ok(Message::Resolved { node, inputs, resolved }) => {
                    self.working -= 1;
                    self.resolved(node, inputs, resolved)?;
                }
                Ok(Message::Ran { node, digest, result }) => {
                    self.working -= 1;
                    self.ran(&node, digest, result)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let outcome = |state| match state {
            State::Ended(outcome) => outcome,
            State::Waiting(_) | State::Working => Outcome::Stopped,
        };
        Ok(Built { nodes: self.states.into_iter().map(|(node, state)| (node, outcome(state))).collect() })
    }

    fn tell(&self, event: Event) {
        (self.backend.listener)(event);
    }

    fn send(&mut self, task: Task) {
        if self.tasks.send(task).is_ok() {
            self.working += 1;
        }
    }

    fn done(&self, node: &NodeName) -> Option<&Done> {
        match self.states.get(node)? {
            State::Ended(Outcome::Done(done)) => Some(done),
            _ => None,
        }
    }

    /// Returns the inputs of a node whose givers are all done.
    fn inputs(&self, node: &NodeName) -> BTreeMap<String, Output> {
        let wanted = &self.dag.nodes()[node].inputs;
        wanted
            .iter()
            .filter_map(|(name, from)| {
                let output = self.done(&from.node)?.result.outputs.get(&from.output)?;
                Some((name.clone(), output.clone()))
            })
            .collect()
    }

    fn resolved(
        &mut self,
        node: NodeName,
        inputs: BTreeMap<String, Output>,
        resolved: Result<Resolved, StepError>,
    ) -> Result<(), StoreError> {
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(error) => {
                self.failed(&node, &error, None);
                return Ok(());
            }
        };
        let step = &self.dag.nodes()[&node].step;
        let provenance = if step.wants_provenance() { self.provenance(&node) } else { BTreeMap::new() };
        let action = Arc::new(Action {
            step: step.kind().to_owned(),
            version: step.version(),
            params: step.params(),
            inputs: inputs.iter().map(|(name, output)| (name.clone(), output.object)).collect(),
            sources: resolved.sources.clone(),
            tools: resolved.tools.iter().map(|(name, tool)| (name.clone(), tool.identity)).collect(),
            provenance: provenance
                .iter()
                .map(|(node, below)| (node.as_str().to_owned(), below.action.digest()))
                .collect(),
            sandboxed: self.backend.sandbox.mode() == Mode::On,
        });
        let digest = action.digest();
        let known = self.backend.store.action(&digest)?.map(|known| relocated(known, &resolved.places));
        let hit = known.is_some();
        tracing::debug!(%node, action = %digest, hit, "resolved");
        let reason = self.reason(&node, &action, digest, hit)?;
        if let Some(followers) = self.in_flight.get_mut(&digest) {
            followers.push((node, action, Reason::Cached));
        } else if let Some(result) = known.filter(|_| !self.options.check) {
            self.finished(node, action, digest, Arc::new(result), reason, None)?;
        } else {
            self.tell(Event::Started { node: node.clone(), reason: reason.clone(), action: digest });
            self.in_flight.insert(digest, vec![(node.clone(), Arc::clone(&action), reason)]);
            let task = RunTask { node, digest, action, inputs, resolved, provenance };
            self.send(Task::Run(Box::new(task)));
        }
        Ok(())
    }

    /// Returns what every node below `node` did.
    fn provenance(&self, node: &NodeName) -> BTreeMap<NodeName, Provenance> {
        let mut below = self.dag.closure([node]);
        below.remove(node);
        below
            .into_iter()
            .filter_map(|name| {
                let done = self.done(&name)?;
                let outputs = &done.result.outputs;
                let provenance = Provenance {
                    action: Arc::clone(&done.action),
                    outputs: outputs.iter().map(|(name, output)| (name.clone(), output.object)).collect(),
                    remarks: done.result.remarks.clone(),
                };
                Some((name, provenance))
            })
            .collect()
    }

    fn reason(
        &self,
        node: &NodeName,
        action: &Action,
        digest: ActionDigest,
        hit: bool,
    ) -> Result<Reason, StoreError> {
        if hit && self.options.check {
            return Ok(Reason::Check);
        }
        Ok(match explain::last(self.backend.store, &self.options.graph, node)? {
            None if hit => Reason::Cached,
            None => Reason::First,
            Some(last) if last.action == digest => {
                if hit {
                    Reason::Cached
                } else {
                    Reason::Gone
                }
            }
            Some(last) => {
                let changes = explain::changes(&last.fields, &action.fields());
                if hit { Reason::CachedFromBefore(changes) } else { Reason::Changed(changes) }
            }
        })
    }

    fn ran(
        &mut self,
        node: &NodeName,
        digest: ActionDigest,
        result: Result<Ran, (StepError, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let followers = self.in_flight.remove(&digest).unwrap_or_default();
        match result {
            Ok(ran) => {
                let milliseconds = ran.here.then_some(ran.result.milliseconds);
                let result = Arc::new(ran.result);
                for (follower, action, reason) in followers {
                    let milliseconds = milliseconds.filter(|_| follower == *node);
                    self.finished(follower, action, digest, Arc::clone(&result), reason, milliseconds)?;
                }
            }
            Err((error, log)) => {
                let path = self.backend.store.log_path(&digest);
                let kept = !log.is_empty() && std::fs::write(&path, &log).is_ok();
                for (follower, _, _) in followers {
                    self.failed(&follower, &error, kept.then(|| path.clone()));
                }
            }
        }
        Ok(())
    }

    fn finished(
        &mut self,
        node: NodeName,
        action: Arc<Action>,
        digest: ActionDigest,
        result: Arc<ActionResult>,
        reason: Reason,
        milliseconds: Option<u64>,
    ) -> Result<(), StoreError> {
        if milliseconds.is_none() {
            for text in &result.remarks {
                self.tell(Event::Remark { node: node.clone(), text: text.clone() });
            }
        }
        let (store, graph) = (self.backend.store, &self.options.graph);
        let known = explain::last(store, graph, &node)?.is_some_and(|last| last.action == digest);
        // What is remembered is why the node last ran, not that nothing has changed since.
        if !known || matches!(reason, Reason::Gone) {
            let last = Last { action: digest, fields: action.fields(), reason: reason.clone() };
            explain::remember(store, graph, &node, &last)?;
            let kind = action.step.clone();
            store.note_owner(&digest, &Owner { spec: graph.clone(), node: node.to_string(), kind })?;
        }
        self.tell(Event::Finished {
            node: node.clone(),
            reason: reason.clone(),
            action: digest,
            milliseconds,
        });
        for taker in self.dag.takers(&node) {
            if let Some(State::Waiting(left)) = self.states.get_mut(taker) {
                *left -= 1;
                if *left == 0 {
                    self.ready.insert(taker.clone());
                }
            }
        }
        let done = Done { action, digest, result, reason, ran: milliseconds.is_some() };
        self.states.insert(node, State::Ended(Outcome::Done(done)));
        Ok(())
    }

    fn failed(&mut self, node: &NodeName, error: &StepError, log: Option<std::path::PathBuf>) {
        self.tell(Event::Failed {
            node: node.clone(),
            causes: error.causes(),
            help: error.help.clone(),
            log,
        });
        self.states.insert(node.clone(), State::Ended(Outcome::Failed(error.fault)));
        let mut left: Vec<NodeName> = self.dag.takers(node).cloned().collect();
        while let Some(taker) = left.pop() {
            if let Some(state @ State::Waiting(_)) = self.states.get_mut(&taker) {
                *state = State::Ended(Outcome::Skipped(node.clone()));
                self.tell(Event::Skipped { node: taker.clone(), because: node.clone() });
                left.extend(self.dag.takers(&taker).cloned());
            }
        }
    }
}

/// Returns a result whose trees lie where this build found them.
///
/// The same tree may lie in another folder today than when the result was recorded, and the old one may
/// have changed since.
fn relocated(mut result: ActionResult, places: &BTreeMap<String, Bytes>) -> ActionResult {
    for (name, place) in places {
        if let Some(output) = result.outputs.get_mut(name)
            && matches!(output.object, Object::Tree(_))
        {
            output.bytes = place.clone();
        }
    }
    result
}
