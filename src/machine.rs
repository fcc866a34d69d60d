//! This machine: its sandbox, its tools, its signals. Every verb that builds does it with one.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cache::{Store, StoreError};
use graph::build::{Backend, Built, Options};
use graph::dag::Dag;
use graph::sandbox::{Limits, Mode, Sandbox, SandboxError};
use graph::tool::Tools;
use graph::{Cancel, Event, Fault, NodeName, Resolved, Workers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::hints;
use crate::report::Reporter;
use crate::spec::Spec;

/// What a shell expects of a program that a signal ended: this, and the signal's number.
const BY_SIGNAL: i32 = 128;

/// How a build of a whole graph ended.
pub enum Ended {
    /// All nodes are done.
    Done(Built),
    /// A node failed, which was reported.
    Failed(Fault),
    /// The machine was told to stop.
    Stopped,
}

/// What builds need of this machine.
#[derive(Debug)]
pub struct Machine {
    sandbox: Sandbox,
    tools: Tools,
    cancel: Cancel,
    /// Cores elsewhere.
    workers: Option<Box<dyn Workers>>,
    /// The signal that ended a build.
    signal: Arc<AtomicUsize>,
}

impl Machine {
    /// Finds tools, and lets ctrl-C, SIGTERM and SIGHUP end a build in order, a second one at once.
    ///
    /// `search` are the folders where tools are looked for.
    ///
    /// # Errors
    /// Signals cannot be caught.
    pub fn new(mode: Mode, search: Vec<PathBuf>) -> io::Result<Self> {
        let bwrap = search.iter().map(|folder| folder.join("bwrap")).find(|path| path.is_file());
        let machine = Self {
            sandbox: Sandbox::new(mode, bwrap),
            tools: Tools::new(search),
            cancel: Cancel::default(),
            workers: None,
            signal: Arc::default(),
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = signal.unsigned_abs() as usize;
            let register = || {
                let cancel = || machine.cancel.flag();
                flag::register_conditional_shutdown(signal, BY_SIGNAL + signal, cancel())?;
                flag::register_usize(signal, Arc::clone(&machine.signal), number)?;
                flag::register(signal, cancel())
            };
            register()?;
        }
        Ok(machine)
    }

    /// Has cores elsewhere do a part of the work.
    pub fn use_workers(&mut self, workers: Box<dyn Workers>) {
        self.workers = Some(workers);
    }

    /// Builds nodes of a graph under the limits of its spec; `listener` is told what happens.
    ///
    /// # Errors
    /// The store failed; failures of nodes are told, and in what is returned.
    pub fn build(
        &self,
        store: &Store,
        (dag, limits): (&Dag, Limits),
        wanted: &[NodeName],
        listener: &(dyn Fn(Event) + Sync),
        options: &Options,
    ) -> Result<Built, StoreError> {
        let sandbox = self.sandbox.clone().with_limits(limits);
        graph::build::build(dag, wanted, &self.backend(store, &sandbox, listener), options)
    }

    /// Finds out whether what nodes of a spec need of this machine is here; builds nothing. What is missing is reported.
    ///
    /// # Errors
    /// There can be no sandbox.
    pub fn check(
        &self,
        store: &Store,
        spec: &Spec,
        nodes: &[NodeName],
        reporter: &Reporter,
    ) -> Result<Option<Fault>, SandboxError> {
        let listener = |event| reporter.event(event);
        let sandbox = self.sandbox.clone().with_limits(spec.limits);
        let backend = self.backend(store, &sandbox, &listener);
        graph::build::check(&spec.dag, nodes, &backend, &looking())
    }

    /// Has nodes of a spec look outside, without the network; returns what each found. What is missing is reported.
    ///
    /// # Errors
    /// Whose fault it is that a node found nothing.
    pub fn sources(
        &self,
        store: &Store,
        spec: &Spec,
        nodes: &[NodeName],
        reporter: &Reporter,
    ) -> Result<BTreeMap<NodeName, Resolved>, Fault> {
        let listener = |event| reporter.event(event);
        let sandbox = self.sandbox.clone().with_limits(spec.limits);
        let backend = self.backend(store, &sandbox, &listener);
        graph::build::sources(&spec.dag, nodes, &backend, &looking())
    }

    fn backend<'a>(
        &'a self,
        store: &'a Store,
        sandbox: &'a Sandbox,
        listener: &'a (dyn Fn(Event) + Sync),
    ) -> Backend<'a> {
        let (tools, cancel, workers) = (&self.tools, &self.cancel, self.workers.as_deref());
        Backend { store, sandbox, tools, workers, cancel, listener, hints: &hints::of_step }
    }

    /// Builds all nodes of a spec with the usual options, without the network, and sums the build up; `graph` is the name that
    /// `why` knows it by.
    ///
    /// # Errors
    /// As [`Machine::build`].
    pub fn build_all(
        &self,
        store: &Store,
        spec: &Spec,
        graph: &str,
        reporter: &Reporter,
    ) -> Result<Ended, StoreError> {
        let wanted: Vec<_> = spec.dag.nodes().keys().cloned().collect();
        let options = Options { graph: graph.to_owned(), jobs: cores(), check: false, offline: true };
        let built =
            self.build(store, (&spec.dag, spec.limits), &wanted, &|event| reporter.event(event), &options)?;
        reporter.finish(&built);
        Ok(match built.fault() {
            _ if self.signal().is_some() => Ended::Stopped,
            Some(fault) => Ended::Failed(fault),
            None => Ended::Done(built),
        })
    }

    /// Returns the flag that a signal sets.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.cancel.flag()
    }

    /// Returns the signal that ended the build, if one did.
    pub fn signal(&self) -> Option<u8> {
        let number = u8::try_from(self.signal.load(Ordering::Relaxed)).unwrap_or(0);
        self.cancel.is_cancelled().then_some(number)
    }
}

/// Returns how nodes look outside where nothing is built.
fn looking() -> Options {
    Options { graph: String::new(), jobs: 1, check: false, offline: true }
}

/// Returns how many nodes run at once, and how many threads each may use, where nobody says.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
