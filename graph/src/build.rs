//! The build: one state table, one loop.
//!
//! One thread owns the table; workers resolve and run, and send one message each when they are done.
//! `docs/design.md` draws the states of a node. Two nodes that resolve to one action run it once; so do two
//! processes, which take turns at the action's lock. A failure stops the nodes that need the failed
//! one and no others. What all nodes gave last time is read at once, and written at once in the end.
//!
//! Where the store has upstreams, they are asked for what it does not have, by threads that do nothing else: nothing that could run
//! here waits for a server. A result counts as soon as it is said; if its bytes turn out to be nowhere when somebody reads them,
//! the nodes are gone through once more, and what named those bytes is made here.

mod backend;
mod graphs;
mod outcome;
mod queue;
mod table;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cache::statement::{Fetched, Origin};
use cache::store::Owner;
use cache::{ActionDigest, ActionResult, RollWriter, StoreError, causes};

pub use self::backend::{Backend, Options};
use self::graphs::Graphs;
pub use self::outcome::{Built, Done, Outcome};
use self::table::Table;
use self::worker::{Message, Ran, RunTask, Task, Workshop, ask, look, relocated, work};
use crate::action::Action;
use crate::dag::Dag;
use crate::error::{Fault, StepError};
use crate::event::Event;
use crate::explain::{self, Last, Reason};
use crate::name::NodeName;
use crate::sandbox::SandboxError;
use crate::step::{Provenance, Resolved};

/// How often the loop looks whether it should stop.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// How long messages may gather while there is plenty to do.
const GATHER_INTERVAL: Duration = Duration::from_millis(1);

/// How many questions to upstreams are under way at once.
const ASKERS: usize = 8;

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
    backend.store.stop_by(backend.cancel.flag());
    let closure = dag.closure_of(dag.numbers(wanted));
    (backend.listener)(Event::Planned { nodes: closure.len() });
    let may_lose = backend.store.has_elsewhere()? || !backend.store.upstreams().is_empty();
    let mut told = BTreeMap::new();
    // Each round but the last one finds that something is nowhere, which a node has to make.
    for left in (0..=closure.len()).rev() {
        let lost = backend.store.lost();
        let rounds = Rounds { told: &mut told, lost: (may_lose && left > 0).then_some(lost) };
        let built = go_through(dag, &closure, backend, options, rounds)?;
        let is_done = built.fault().is_none() || backend.store.lost() == lost;
        if left == 0 || is_done || backend.cancel.is_cancelled() {
            return Ok(built);
        }
        tracing::debug!("objects that were said to be elsewhere are not: once more");
    }
    unreachable!("the last round returned")
}

/// What a round knows of those before it.
struct Rounds<'a> {
    /// What was told of nodes that are done.
    told: &'a mut BTreeMap<usize, Done>,
    /// How many objects were lost when it began, where another round may follow.
    lost: Option<usize>,
}

/// Goes through the nodes once.
fn go_through(
    dag: &Dag,
    closure: &[usize],
    backend: &Backend<'_>,
    options: &Options,
    rounds: Rounds<'_>,
) -> Result<Built, StoreError> {
    let nodes: Vec<_> = dag.nodes().iter().collect();
    let wants_provenance = |node: usize| nodes[node].1.step.wants_provenance();
    let workshop = Workshop {
        keeps_actions: closure.iter().any(|node| wants_provenance(*node)),
        nodes,
        backend,
        options,
        graphs: Graphs::read(backend.store, dag, &options.graph)?,
        toolboxes: Default::default(),
        tasks: Default::default(),
        questions: Default::default(),
        messages: Default::default(),
    };
    let asks = options.asks(backend.store);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| work(&workshop));
        }
        for _ in 0..if asks { ASKERS } else { 0 } {
            scope.spawn(|| ask(&workshop));
        }
        let _closing = (workshop.tasks.closing(), workshop.questions.closing());
        let table = Table::new(dag, closure);
        let in_flight = BTreeMap::new();
        let workshop = &workshop;
        let news = vec![false; workshop.graphs.len()];
        Loop { dag, backend, options, workshop, table, in_flight, working: 0, news, asks, rounds }.run()
    })
}

/// Has nodes look outside, as each does before it is built, one after the other; builds nothing and keeps nothing. What is
/// not there is told as in a build. Where tools are to run in a sandbox, one is tried.
///
/// # Errors
/// [`SandboxError`]: there can be no sandbox. Failures of nodes are told; whose fault the first one is, is returned.
pub fn check(
    dag: &Dag,
    nodes: &[NodeName],
    backend: &Backend<'_>,
    options: &Options,
) -> Result<Option<Fault>, SandboxError> {
    backend.sandbox.check()?;
    let failed = looks(dag, nodes, backend, options).filter_map(|(_, found)| found.err());
    Ok(failed.fold(None, |first, fault| first.or(Some(fault))))
}

/// Has nodes look outside, one after the other; returns what each found, or whose fault it is that one failed, which is told as in a
/// build. Nothing is built.
///
/// # Errors
/// The fault of the first node that failed.
pub fn sources(
    dag: &Dag,
    nodes: &[NodeName],
    backend: &Backend<'_>,
    options: &Options,
) -> Result<BTreeMap<NodeName, Resolved>, Fault> {
    let looks = looks(dag, nodes, backend, options);
    looks.map(|(name, found)| Ok((name.clone(), found?))).collect()
}

/// Has nodes look outside, one after the other, as the results are taken; tells who failed.
fn looks<'a>(
    dag: &'a Dag,
    nodes: &'a [NodeName],
    backend: &'a Backend<'_>,
    options: &'a Options,
) -> impl Iterator<Item = (&'a NodeName, Result<Resolved, Fault>)> {
    let wanted = dag.nodes().iter().filter(|(name, _)| nodes.contains(name));
    wanted.map(|(name, derivation)| {
        let found = look(backend, options, name, derivation).map_err(|error| {
            (backend.listener)(failure(backend, name, &error, None));
            error.fault
        });
        (name, found)
    })
}

/// What is told of a node that failed.
fn failure(backend: &Backend<'_>, node: &NodeName, error: &StepError, log: Option<PathBuf>) -> Event {
    let hint = error.hint.clone().or_else(|| (backend.hints)(error));
    Event::Failed { node: node.clone(), causes: causes(error), hint, log }
}

/// A running action, and the nodes that wait for it: the first one is the one that runs.
struct InFlight {
    action: Arc<Action>,
    nodes: Vec<(usize, Reason)>,
}

/// The owner of the state table: it alone moves nodes.
struct Loop<'a> {
    dag: &'a Dag,
    backend: &'a Backend<'a>,
    options: &'a Options,
    workshop: &'a Workshop<'a>,
    table: Table<'a>,
    in_flight: BTreeMap<ActionDigest, InFlight>,
    working: usize,
    /// For each graph, whether a node gave something else than the roll says.
    news: Vec<bool>,
    /// Whether there is somebody to ask for what the store does not have.
    asks: bool,
    rounds: Rounds<'a>,
}

impl Loop<'_> {
    fn run(mut self) -> Result<Built, StoreError> {
        loop {
            if !self.backend.cancel.is_cancelled() {
                self.hand_out();
            }
            if self.working == 0 {
                break;
            }
            let patience = if self.workshop.is_busy() { GATHER_INTERVAL } else { CANCEL_INTERVAL };
            for message in self.workshop.messages.take(patience) {
                self.working -= 1;
                match message {
                    Message::Known { node, action, digest, result } => {
                        self.known(node, action, digest, result);
                    }
                    Message::Resolved(task) => self.resolved(task)?,
                    Message::Answered { task, fetched } => self.answered(task, fetched)?,
                    Message::Failed { node, error } => self.failed(node, &error, None),
                    Message::Broken(error) => return Err(error),
                    Message::Ran { node, digest, result } => self.ran(node, digest, result)?,
                }
            }
        }
        for graph in (0..self.news.len()).filter(|graph| self.news[*graph]) {
            self.write_roll(graph)?;
        }
        Ok(Built { nodes: self.table.into_outcomes() })
    }

    /// Has all nodes resolved whose givers are done.
    fn hand_out(&mut self) {
        let mut tasks = Vec::new();
        while let Some(node) = self.table.next_ready() {
            let of = |giver| self.table.done(giver).map(|done| Arc::clone(&done.result));
            let givers = self.dag.sources_of(node).map(of).collect();
            let wants = self.workshop.nodes[node].1.step.wants_provenance();
            let provenance = if wants { self.provenance(node) } else { BTreeMap::new() };
            tasks.push(Task::Resolve { node, givers, provenance });
        }
        self.working += tasks.len();
        self.workshop.tasks.push(tasks, true);
    }

    /// Writes down what every node of a graph gave, for the next time.
    fn write_roll(&self, graph: usize) -> Result<(), StoreError> {
        let mut writer = RollWriter::default();
        let graphs = &self.workshop.graphs;
        let (graph_name, roll) = graphs.at(graph);
        let names = self.dag.nodes().keys().enumerate();
        for (number, name) in names.filter(|(node, _)| graphs.of(*node) == graph) {
            let name = name.local();
            match self.table.done(number) {
                Some(done) => writer.add(name.as_str(), &done.digest, &done.result)?,
                // What this build did not want is still what it was.
                None => writer.keep(roll, name.as_str()),
            }
        }
        self.backend.store.set_roll(graph_name, roll, writer)
    }

    fn tell(&self, event: Event) {
        (self.backend.listener)(event);
    }

    fn name(&self, node: usize) -> NodeName {
        self.dag.name(node).clone()
    }

    fn make_done(
        &self,
        node: usize,
        action: Option<&Arc<Action>>,
        digest: ActionDigest,
        result: Arc<ActionResult>,
        reason: Reason,
    ) -> Done {
        let step = self.workshop.nodes[node].1.step.kind();
        let action = action.filter(|_| self.workshop.keeps_actions).cloned();
        Done { step, action, digest, result, reason, ran: false }
    }

    /// Takes in a node that is what the roll says it was.
    fn known(
        &mut self,
        node: usize,
        action: Option<Arc<Action>>,
        digest: ActionDigest,
        result: Arc<ActionResult>,
    ) {
        tracing::debug!(node = %self.dag.name(node), action = %digest, "known");
        if let Some(running) = self.in_flight.get_mut(&digest) {
            running.nodes.push((node, Reason::Cached));
            self.table.runs(node);
            return;
        }
        let done = self.make_done(node, action.as_ref(), digest, result, Reason::Cached);
        self.finished(node, done, None);
    }

    fn resolved(&mut self, task: Box<RunTask>) -> Result<(), StoreError> {
        let digest = task.digest;
        let places = &task.resolved.places;
        let known = self.backend.store.action(&digest)?.map(|known| relocated(known, places));
        let hit = known.is_some();
        let name = self.name(task.node);
        tracing::debug!(node = %name, action = %digest, hit, "resolved");
        let reason = self.reason(task.node, &task.action, digest, hit)?;
        if let Some(running) = self.in_flight.get_mut(&digest) {
            running.nodes.push((task.node, Reason::Cached));
            self.table.runs(task.node);
        } else if let Some(result) = known.filter(|_| !self.options.check) {
            let done = self.make_done(task.node, Some(&task.action), digest, Arc::new(result), reason);
            self.remember(task.node, &task.action, &done)?;
            self.finished(task.node, done, None);
        } else {
            let running =
                InFlight { action: Arc::clone(&task.action), nodes: vec![(task.node, reason.clone())] };
            self.in_flight.insert(digest, running);
            self.table.runs(task.node);
            match self.asks {
                true => {
                    self.working += 1;
                    self.workshop.questions.push([task], true);
                }
                false => self.start(task, reason),
            }
        }
        Ok(())
    }

    /// Has a node's action run.
    fn start(&mut self, task: Box<RunTask>, reason: Reason) {
        self.tell(Event::Started { node: self.name(task.node), reason, action: task.digest });
        self.working += 1;
        self.workshop.tasks.push([Task::Run(task)], true);
    }

    /// Takes in what upstreams said of a node's action.
    fn answered(&mut self, task: Box<RunTask>, fetched: Option<Fetched>) -> Result<(), StoreError> {
        let Some(Fetched { result, origin: Origin { upstream, signer } }) = fetched else {
            let running = self.in_flight.get(&task.digest).and_then(|running| running.nodes.first());
            let reason = running.map_or(Reason::First, |(_, reason)| reason.clone());
            self.start(task, reason);
            return Ok(());
        };
        let Some(InFlight { action, nodes }) = self.in_flight.remove(&task.digest) else { return Ok(()) };
        let result = Arc::new(relocated(result, &task.resolved.places));
        for (node, _) in nodes {
            let reason = Reason::Fetched { from: upstream.clone(), signer: signer.clone() };
            let done = self.make_done(node, Some(&action), task.digest, Arc::clone(&result), reason);
            self.remember(node, &action, &done)?;
            self.finished(node, done, None);
        }
        Ok(())
    }

    /// Returns what every node below `node` did.
    fn provenance(&self, node: usize) -> BTreeMap<NodeName, Provenance> {
        let below = self.dag.closure_of([node]).into_iter().filter(|below| *below != node);
        below
            .filter_map(|below| {
                let done = self.table.done(below)?;
                let outputs = &done.result.outputs;
                let provenance = Provenance {
                    action: Arc::clone(done.action.as_ref()?),
                    outputs: outputs.iter().map(|(name, output)| (name.clone(), output.object)).collect(),
                    remarks: done.result.remarks.clone(),
                };
                // What reports on them says the same, whatever else is built.
                Some((self.name(below).local(), provenance))
            })
            .collect()
    }

    fn reason(
        &self,
        node: usize,
        action: &Action,
        digest: ActionDigest,
        hit: bool,
    ) -> Result<Reason, StoreError> {
        if hit && self.options.check {
            return Ok(Reason::Check);
        }
        let (graph, name) = (self.workshop.graphs.name(node), self.dag.name(node).local());
        Ok(match explain::last(self.backend.store, graph, &name)? {
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
        node: usize,
        digest: ActionDigest,
        result: Result<Ran, (StepError, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let Some(InFlight { action, nodes }) = self.in_flight.remove(&digest) else { return Ok(()) };
        match result {
            Ok(ran) => {
                let milliseconds = ran.here.then_some(ran.result.milliseconds);
                let result = Arc::new(ran.result);
                for (follower, reason) in nodes {
                    let milliseconds = milliseconds.filter(|_| follower == node);
                    let result = Arc::clone(&result);
                    let done = self.make_done(follower, Some(&action), digest, result, reason);
                    let done = Done { ran: milliseconds.is_some(), ..done };
                    self.remember(follower, &action, &done)?;
                    self.finished(follower, done, milliseconds);
                }
            }
            Err((error, log)) => {
                let path = self.backend.store.log_path(&digest);
                let kept = !log.is_empty() && std::fs::write(&path, &log).is_ok();
                for (follower, _) in nodes {
                    self.failed(follower, &error, kept.then(|| path.clone()));
                }
            }
        }
        Ok(())
    }

    /// Remembers why a node ran, and for whom.
    fn remember(&mut self, node: usize, action: &Action, done: &Done) -> Result<(), StoreError> {
        let (store, graphs) = (self.backend.store, &self.workshop.graphs);
        let (place, graph, node) = (graphs.of(node), graphs.name(node), self.dag.name(node).local());
        if !std::mem::replace(&mut self.news[place], true) {
            // Its nodes are what they were last time; from here on, they may not be.
            store.void_roll(graph)?;
        }
        let known = explain::last(store, graph, &node)?.is_some_and(|last| last.action == done.digest);
        // What is remembered is why the node last ran, not that nothing has changed since.
        if !known || matches!(done.reason, Reason::Gone) {
            let last = Last { action: done.digest, fields: action.fields(), reason: done.reason.clone() };
            explain::remember(store, graph, &node, &last)?;
            let kind = action.step.clone();
            let owner = Owner { spec: graph.to_owned(), node: node.to_string(), kind };
            store.note_owner(&done.digest, &owner)?;
        }
        Ok(())
    }

    fn finished(&mut self, node: usize, mut done: Done, milliseconds: Option<u64>) {
        let name = self.name(node);
        if let Some(before) = self.rounds.told.get(&node).filter(|before| before.digest == done.digest)
            && milliseconds.is_none()
        {
            // It was told of in an earlier round.
            (done.ran, done.reason) = (before.ran, before.reason.clone());
            self.table.ends_done(node, done);
            return;
        }
        if self.rounds.lost.is_some() {
            self.rounds.told.insert(node, done.clone());
        }
        if milliseconds.is_none() {
            for text in &done.result.remarks {
                self.tell(Event::Remark { node: name.clone(), text: text.clone() });
            }
        }
        self.tell(Event::Finished {
            node: name,
            reason: done.reason.clone(),
            action: done.digest,
            milliseconds,
        });
        self.table.ends_done(node, done);
    }

    fn failed(&mut self, node: usize, error: &StepError, log: Option<PathBuf>) {
        let name = self.name(node);
        let skipped = self.table.ends_failed(node, error.fault);
        // What failed because something is nowhere will not fail in the next round.
        if self.rounds.lost.is_some_and(|before| self.backend.store.lost() > before) {
            tracing::debug!(node = %name, %error, "failed in this round");
            return;
        }
        self.tell(failure(self.backend, &name, error, log));
        for skipped in skipped {
            self.tell(Event::Skipped { node: self.name(skipped), because: name.clone() });
        }
    }
}
