//! The graphs that a build is of: mostly one, and several where they are built at once.

use cache::{Roll, Store, StoreError};

use crate::dag::Dag;

/// The graphs that a build is of, and what their nodes gave last time.
pub(super) struct Graphs {
    known: Vec<(String, Roll)>,
    /// For each node of the build, the place of its graph.
    of: Vec<usize>,
}

impl Graphs {
    /// Reads what all nodes gave last time; `name` is the graph of nodes whose names say none.
    pub(super) fn read(store: &Store, dag: &Dag, name: &str) -> Result<Self, StoreError> {
        let mut known: Vec<(String, Roll)> = Vec::new();
        let mut of = Vec::with_capacity(dag.nodes().len());
        for node in dag.nodes().keys() {
            let graph = node.graph().unwrap_or(name);
            // Those of one graph stand together, in order of name.
            if known.last().is_none_or(|(last, _)| last != graph) {
                known.push((graph.to_owned(), store.roll(graph)?));
            }
            of.push(known.len() - 1);
        }
        Ok(Self { known, of })
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns the place of a node's graph.
    pub(super) fn of(&self, node: usize) -> usize {
        self.of[node]
    }

    /// Returns the name of a node's graph.
    pub(super) fn name(&self, node: usize) -> &str {
        &self.known[self.of[node]].0
    }

    /// Returns what the nodes of a node's graph gave last time.
    pub(super) fn roll(&self, node: usize) -> &Roll {
        &self.known[self.of[node]].1
    }

    /// Returns name and roll of the graph at a place.
    pub(super) fn at(&self, place: usize) -> (&str, &Roll) {
        let (name, roll) = &self.known[place];
        (name, roll)
    }
}
