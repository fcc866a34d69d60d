//! What every verb that builds does in the same way: this machine's sandbox and tools, signals, exit codes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cache::{Store, StoreError};
use graph::NodeName;
use graph::build::{Backend, Built, Options};
use graph::sandbox::{Mode, Sandbox};
use graph::tool::Tools;
use graph::{Cancel, Fault};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::args::search_path;
use super::failure::{ENVIRONMENT, FAILED, Failure, WRONG};
use crate::report::Reporter;
use crate::spec::Spec;

/// What a shell expects of a program that a signal ended: this, and the signal's number.
const BY_SIGNAL: u8 = 128;

/// What builds need of this machine.
pub(super) struct Machine {
    sandbox: Sandbox,
    tools: Tools,
    cancel: Cancel,
    /// The signal that ended a build.
    signal: Arc<AtomicUsize>,
}

impl Machine {
    /// Finds tools, and lets ctrl-C, SIGTERM and SIGHUP end a build in order, a second one at once.
    pub(super) fn new(mode: Mode) -> Result<Self, Failure> {
        let search = search_path();
        let bwrap = search.iter().map(|folder| folder.join("bwrap")).find(|path| path.is_file());
        let machine = Self {
            sandbox: Sandbox::new(mode, bwrap),
            tools: Tools::new(search),
            cancel: Cancel::default(),
            signal: Arc::default(),
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = signal.unsigned_abs() as usize;
            let register = || {
                let cancel = || machine.cancel.flag();
                flag::register_conditional_shutdown(signal, i32::from(BY_SIGNAL) + signal, cancel())?;
                flag::register_usize(signal, Arc::clone(&machine.signal), number)?;
                flag::register(signal, cancel())
            };
            register().map_err(|error| Failure::environment(format!("catch signals: {error}")))?;
        }
        Ok(machine)
    }

    /// Builds nodes of a spec.
    pub(super) fn build(
        &self,
        store: &Store,
        spec: &Spec,
        wanted: &[NodeName],
        reporter: &Reporter,
        options: &Options,
    ) -> Result<Built, StoreError> {
        let backend = Backend {
            store,
            sandbox: &self.sandbox,
            tools: &self.tools,
            cancel: &self.cancel,
            listener: &|event| reporter.event(event),
        };
        graph::build::build(&spec.dag, wanted, &backend, options)
    }

    /// Returns the exit code that a shell expects where a signal ended the build.
    pub(super) fn stopped(&self) -> Option<u8> {
        let number = u8::try_from(self.signal.load(Ordering::Relaxed)).unwrap_or(0);
        self.cancel.is_cancelled().then(|| BY_SIGNAL.saturating_add(number))
    }
}

/// Returns the options of a build that nobody set any for.
pub(super) fn usual(graph: String) -> Options {
    Options { graph, jobs: cores(), check: false, offline: true }
}

/// Returns how many nodes run at once, and how many threads each may use, where nobody says.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the exit code for a failure.
pub(super) fn code(fault: Fault) -> u8 {
    match fault {
        Fault::Action => FAILED,
        Fault::Spec => WRONG,
        Fault::Environment => ENVIRONMENT,
    }
}
