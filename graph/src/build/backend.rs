//! What a build uses, and how it goes about it.

use cache::Store;

use crate::cancel::Cancel;
use crate::error::StepError;
use crate::event::Event;
use crate::sandbox::Sandbox;
use crate::tool::Tools;
use crate::workers::Workers;

/// What a build uses.
pub struct Backend<'a> {
    /// Where objects and results are kept.
    pub store: &'a Store,
    /// Where tools run.
    pub sandbox: &'a Sandbox,
    /// Which tools there are.
    pub tools: &'a Tools,
    /// Cores elsewhere, where there are some.
    pub workers: Option<&'a dyn Workers>,
    /// Set to stop the build.
    pub cancel: &'a Cancel,
    /// Told everything that happens.
    pub listener: &'a (dyn Fn(Event) + Sync),
    /// Says what to do about an error where the step does not: the engine knows no package manager and no option.
    pub hints: &'a (dyn Fn(&StepError) -> Option<String> + Sync),
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

impl Options {
    /// Tells whether upstreams are asked for what is not in the store.
    pub(super) fn asks(&self, store: &Store) -> bool {
        !self.check && !store.upstreams().is_empty()
    }
}
