//! The state table: where every node is, and the only way to move one. `docs/design.md` draws it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::outcome::{Done, Outcome};
use crate::dag::Dag;
use crate::error::Fault;
use crate::name::NodeName;

/// Where a node is.
#[derive(Debug)]
enum State {
    /// Nobody wants it.
    Unwanted,
    /// So many of its givers are not done yet.
    Waiting(usize),
    /// All its givers are done.
    Ready,
    /// A worker pins its tools and sources, and looks for its result.
    Resolving,
    /// Its action runs, for this node or for another one that resolved to the same.
    Running,
    /// Nothing more happens to it.
    Ended(Outcome),
}

impl State {
    /// Tells whether a node may go from here to `next`.
    fn may_become(&self, next: &State) -> bool {
        use Outcome::{Done, Failed, Skipped};
        use State::{Ended, Ready, Resolving, Running, Unwanted, Waiting};
        match (self, next) {
            (Unwanted, Waiting(_) | Ready) | (Ready, Resolving) | (Resolving, Running) => true,
            (Waiting(left), Waiting(fewer)) => fewer < left,
            (Waiting(left), Ready) => *left == 1,
            (Waiting(_), Ended(Skipped(_))) => true,
            (Resolving | Running, Ended(Done(_) | Failed(_))) => true,
            _ => false,
        }
    }
}

/// The states of all nodes, by number, and those that are ready.
pub(super) struct Table<'a> {
    dag: &'a Dag,
    states: Vec<State>,
    /// In order of number, so that runs on one thread are alike.
    ready: BinaryHeap<Reverse<usize>>,
}

impl<'a> Table<'a> {
    /// Starts with `wanted`, a closure: whoever needs nobody is ready.
    pub(super) fn new(dag: &'a Dag, wanted: &[usize]) -> Self {
        let states = (0..dag.nodes().len()).map(|_| State::Unwanted).collect();
        let mut table = Self { dag, states, ready: BinaryHeap::new() };
        for node in wanted {
            let givers = dag.count_givers(*node);
            table.set(*node, if givers == 0 { State::Ready } else { State::Waiting(givers) });
        }
        table
    }

    /// Moves a node: there is no other way.
    fn set(&mut self, node: usize, next: State) {
        let state = &mut self.states[node];
        assert!(state.may_become(&next), "{} would go from {state:?} to {next:?}", self.dag.name(node));
        if matches!(next, State::Ready) {
            self.ready.push(Reverse(node));
        }
        *state = next;
    }

    /// Takes the first node that is ready; it resolves from now on.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        let Reverse(node) = self.ready.pop()?;
        self.set(node, State::Resolving);
        Some(node)
    }

    /// A node was resolved to an action that runs.
    pub(super) fn runs(&mut self, node: usize) {
        self.set(node, State::Running);
    }

    /// A node's outputs are there: those that take them wait for one less.
    pub(super) fn ends_done(&mut self, node: usize, done: Done) {
        self.set(node, State::Ended(Outcome::Done(done)));
        for taker in self.dag.takers_of(node) {
            match self.states[taker] {
                State::Waiting(1) => self.set(taker, State::Ready),
                State::Waiting(left) => self.set(taker, State::Waiting(left - 1)),
                _ => {}
            }
        }
    }

    /// A node failed; returns those that will not run because of it.
    pub(super) fn ends_failed(&mut self, node: usize, fault: Fault) -> Vec<usize> {
        self.set(node, State::Ended(Outcome::Failed(fault)));
        let mut skipped = Vec::new();
        let mut left: Vec<usize> = self.dag.takers_of(node).collect();
        while let Some(taker) = left.pop() {
            if matches!(self.states[taker], State::Waiting(_)) {
                self.set(taker, State::Ended(Outcome::Skipped(self.dag.name(node).clone())));
                skipped.push(taker);
                left.extend(self.dag.takers_of(taker));
            }
        }
        skipped
    }

    /// Returns what a node gave, if it is done.
    pub(super) fn done(&self, node: usize) -> Option<&Done> {
        match self.states.get(node)? {
            State::Ended(Outcome::Done(done)) => Some(done),
            _ => None,
        }
    }

    /// Returns how every wanted node ended; one that did not was stopped.
    pub(super) fn into_outcomes(self) -> BTreeMap<NodeName, Outcome> {
        let ended = |(node, state): (&NodeName, State)| match state {
            State::Unwanted => None,
            State::Ended(outcome) => Some((node.clone(), outcome)),
            State::Waiting(_) | State::Ready | State::Resolving | State::Running => {
                Some((node.clone(), Outcome::Stopped))
            }
        };
        self.dag.nodes().keys().zip(self.states).filter_map(ended).collect()
    }
}
