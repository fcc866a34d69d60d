//! The graph: derivations by name, and the outputs they take from each other.
//!
//! It is checked once, when it is made. It does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::step::Step;

/// A node's name: lower-case letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct NodeName(String);

impl NodeName {
    /// Checks a name; `None` where it is not one.
    pub fn new(text: &str) -> Option<Self> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (!text.is_empty() && text.len() <= 64 && text.chars().all(good)).then(|| Self(text.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One output of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputRef {
    /// The node.
    pub node: NodeName,
    /// The name of its output.
    pub output: String,
}

impl fmt::Display for OutputRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.output)
    }
}

/// A step as written: inputs may name other nodes' outputs.
#[derive(Clone)]
pub struct Derivation {
    /// What it does.
    pub step: Arc<dyn Step>,
    /// What it takes.
    pub inputs: BTreeMap<String, OutputRef>,
    /// What it gives.
    pub outputs: BTreeSet<String>,
}

/// Why derivations do not make a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// An input names a node that is not there.
    #[error("{node} takes {input} from {wanted}, but there is no node {:?}", wanted.node.as_str())]
    UnknownNode {
        /// Who takes it.
        node: NodeName,
        /// As which input.
        input: String,
        /// What it names.
        wanted: OutputRef,
    },
    /// An input names an output the node does not have.
    #[error("{node} takes {input} from {wanted}, but {} gives {}", wanted.node, has.join(", "))]
    UnknownOutput {
        /// Who takes it.
        node: NodeName,
        /// As which input.
        input: String,
        /// What it names.
        wanted: OutputRef,
        /// What there is.
        has: Vec<String>,
    },
    /// Nodes that wait for each other.
    #[error("the graph goes round in a circle: {}", .0.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" → "))]
    Cycle(Vec<NodeName>),
}

/// A checked graph. An edge goes from a node to one that takes its output.
#[derive(Clone)]
pub struct Dag {
    nodes: BTreeMap<NodeName, Derivation>,
    graph: DiGraph<NodeName, ()>,
    index: BTreeMap<NodeName, NodeIndex>,
}

impl Dag {
    /// Checks the derivations and makes the graph of them.
    ///
    /// # Errors
    /// [`DagError`], which names the node and the input.
    pub fn new(nodes: BTreeMap<NodeName, Derivation>) -> Result<Dag, DagError> {
        let mut graph = DiGraph::new();
        let index: BTreeMap<_, _> =
            nodes.keys().map(|name| (name.clone(), graph.add_node(name.clone()))).collect();
        for (node, derivation) in &nodes {
            for (input, wanted) in &derivation.inputs {
                let Some(giver) = nodes.get(&wanted.node) else {
                    let (node, input, wanted) = (node.clone(), input.clone(), wanted.clone());
                    return Err(DagError::UnknownNode { node, input, wanted });
                };
                if !giver.outputs.contains(&wanted.output) {
                    return Err(DagError::UnknownOutput {
                        node: node.clone(),
                        input: input.clone(),
                        wanted: wanted.clone(),
                        has: giver.outputs.iter().cloned().collect(),
                    });
                }
                graph.update_edge(index[&wanted.node], index[node], ());
            }
        }
        if let Some(cycle) = find_cycle(&graph) {
            return Err(DagError::Cycle(cycle));
        }
        Ok(Dag { nodes, graph, index })
    }

    /// Returns every node.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Derivation> {
        &self.nodes
    }

    /// Returns `wanted` and every node they need, directly or not; unknown names are left out.
    pub fn closure<'a>(&self, wanted: impl IntoIterator<Item = &'a NodeName>) -> BTreeSet<NodeName> {
        let mut left: Vec<_> = wanted.into_iter().filter_map(|name| self.index.get(name)).copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(node) = left.pop() {
            if seen.insert(self.graph[node].clone()) {
                left.extend(self.graph.neighbors_directed(node, Direction::Incoming));
            }
        }
        seen
    }

    /// Returns the nodes that take an output of `node`.
    pub fn takers<'a>(&'a self, node: &NodeName) -> impl Iterator<Item = &'a NodeName> + use<'a> {
        let index = self.index.get(node).copied();
        index
            .into_iter()
            .flat_map(|index| self.graph.neighbors_directed(index, Direction::Outgoing))
            .map(|taker| &self.graph[taker])
    }

    /// Returns the number of distinct nodes whose outputs `node` takes.
    pub fn givers(&self, node: &NodeName) -> usize {
        self.index
            .get(node)
            .map_or(0, |index| self.graph.neighbors_directed(*index, Direction::Incoming).count())
    }

    /// Returns every node after those it needs; among those that could be next, in order of name.
    pub fn order(&self) -> Vec<NodeName> {
        let mut left: BTreeMap<&NodeName, usize> =
            self.nodes.keys().map(|name| (name, self.givers(name))).collect();
        let mut ready: BTreeSet<&NodeName> =
            left.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(node) = ready.pop_first() {
            order.push(node.clone());
            for taker in self.takers(node) {
                if let Some(count) = left.get_mut(taker) {
                    *count -= 1;
                    if *count == 0 {
                        ready.insert(taker);
                    }
                }
            }
        }
        order
    }
}

/// Returns the nodes of a circle in the order of their edges, the first one again at the end.
fn find_cycle(graph: &DiGraph<NodeName, ()>) -> Option<Vec<NodeName>> {
    let group = tarjan_scc(graph)
        .into_iter()
        .find(|group| group.len() > 1 || group.iter().any(|node| graph.contains_edge(*node, *node)))?;
    // Inside a strongly connected group every node has a successor in it: walking on must repeat one.
    let mut walk: Vec<NodeIndex> = vec![*group.iter().min_by_key(|node| &graph[**node])?];
    loop {
        let last = *walk.last()?;
        let next = graph.neighbors(last).filter(|node| group.contains(node)).min_by_key(|n| &graph[*n])?;
        if let Some(start) = walk.iter().position(|node| *node == next) {
            walk.push(next);
            return Some(walk[start..].iter().map(|node| graph[*node].clone()).collect());
        }
        walk.push(next);
    }
}
