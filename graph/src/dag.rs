//! The graph: derivations by name, and the outputs they take from each other.
//!
//! It is checked once, when it is made. It does no I/O.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use petgraph::Directed;
use petgraph::csr::Csr;

use crate::name::{NodeName, OutputRef};
use crate::step::Step;

/// A step as written: inputs may name other nodes' outputs.
///
/// There are a few of both, and of nodes there are many: so they are lists, where the smallest map has room for eleven.
#[derive(Clone)]
pub struct Derivation {
    /// What it does.
    pub step: Arc<dyn Step>,
    inputs: Box<[(String, OutputRef)]>,
    outputs: Box<[String]>,
}

impl Derivation {
    /// Makes a node of a step, what it takes and the names of what it gives.
    pub fn new(step: Arc<dyn Step>, inputs: BTreeMap<String, OutputRef>, outputs: BTreeSet<String>) -> Self {
        Self { step, inputs: inputs.into_iter().collect(), outputs: outputs.into_iter().collect() }
    }

    /// Returns what it takes, in order of the inputs' names.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = (&String, &OutputRef)> {
        self.inputs.iter().map(|(input, from)| (input, from))
    }

    /// Returns the names of what it gives, in order.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }
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

/// A checked graph. Inside, a node is its number in order of name.
#[derive(Clone)]
pub struct Dag {
    nodes: BTreeMap<NodeName, Derivation>,
    names: Vec<NodeName>,
    /// The giver of each input, in the order of the inputs' names.
    sources: Vec<Box<[usize]>>,
    /// Distinct neighbours: from a node to those it takes from, and to those that take from it.
    givers: Edges,
    takers: Edges,
}

/// Neighbours by number, one list behind the other: nothing is looked for when an edge is added.
type Edges = Csr<(), (), Directed, usize>;

impl Dag {
    /// Checks the derivations and makes the graph of them.
    ///
    /// # Errors
    /// Every [`DagError`], each of which names the node and the input; a circle is looked for where there is no other.
    pub fn new(nodes: BTreeMap<NodeName, Derivation>) -> Result<Dag, Vec<DagError>> {
        let numbers: HashMap<&NodeName, (usize, &Derivation)> = nodes
            .iter()
            .enumerate()
            .map(|(number, (name, derivation))| (name, (number, derivation)))
            .collect();
        let mut errors = Vec::new();
        let mut sources: Vec<Box<[usize]>> = Vec::with_capacity(nodes.len());
        for (node, derivation) in &nodes {
            let mut own = Vec::with_capacity(derivation.inputs.len());
            for (input, wanted) in derivation.inputs() {
                let names = || (node.clone(), input.clone(), wanted.clone());
                match numbers.get(&wanted.node) {
                    Some((giver, given)) if given.outputs.contains(&wanted.output) => own.push(*giver),
                    Some((_, given)) => {
                        let (node, input, wanted) = names();
                        let has = given.outputs.to_vec();
                        errors.push(DagError::UnknownOutput { node, input, wanted, has });
                    }
                    None => {
                        let (node, input, wanted) = names();
                        errors.push(DagError::UnknownNode { node, input, wanted });
                    }
                }
            }
            sources.push(own.into());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        drop(numbers);
        let mut edges: Vec<(usize, usize)> = Vec::new();
        for (node, own) in sources.iter().enumerate() {
            let start = edges.len();
            edges.extend(own.iter().map(|giver| (node, *giver)));
            edges[start..].sort_unstable();
        }
        edges.dedup();
        let givers = neighbours(nodes.len(), &edges);
        let takers = neighbours(nodes.len(), &turned(nodes.len(), &edges));
        let names = nodes.keys().cloned().collect();
        let dag = Dag { nodes, names, sources, givers, takers };
        match dag.find_circle() {
            Some(circle) => Err(vec![DagError::Cycle(circle)]),
            None => Ok(dag),
        }
    }

    /// Puts graphs side by side, to be built at once: every node gets the name of its graph before its own.
    ///
    /// # Errors
    /// None, as these are graphs.
    pub fn together<'a>(graphs: impl IntoIterator<Item = (&'a str, &'a Dag)>) -> Result<Dag, Vec<DagError>> {
        let mut nodes = BTreeMap::new();
        for (graph, dag) in graphs {
            for (name, derivation) in &dag.nodes {
                let within = |(input, from): &(String, OutputRef)| {
                    (input.clone(), OutputRef { node: from.node.within(graph), output: from.output.clone() })
                };
                let inputs = derivation.inputs.iter().map(within).collect();
                let derivation = Derivation { inputs, ..derivation.clone() };
                nodes.insert(name.within(graph), derivation);
            }
        }
        Dag::new(nodes)
    }

    /// Returns every node.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Derivation> {
        &self.nodes
    }

    /// Returns the number of a node.
    pub(crate) fn number(&self, node: &NodeName) -> Option<usize> {
        self.names.binary_search(node).ok()
    }

    /// Returns the numbers of nodes; unknown names are left out. Names that come in order are not searched for.
    pub(crate) fn numbers<'a>(
        &self,
        names: impl IntoIterator<Item = &'a NodeName>,
    ) -> impl Iterator<Item = usize> {
        let mut next = 0;
        names.into_iter().filter_map(move |name| {
            let is_next = self.names.get(next) == Some(name);
            let number = if is_next { next } else { self.number(name)? };
            next = number + 1;
            Some(number)
        })
    }

    /// Returns the name of a node.
    pub(crate) fn name(&self, node: usize) -> &NodeName {
        &self.names[node]
    }

    /// Returns the giver of each input of a node, in the order of the inputs' names.
    pub(crate) fn sources_of(&self, node: usize) -> impl Iterator<Item = usize> {
        self.sources[node].iter().copied()
    }

    /// Returns how many distinct nodes give to a node.
    pub(crate) fn count_givers(&self, node: usize) -> usize {
        self.givers.out_degree(node)
    }

    /// Returns the nodes that take an output of a node.
    pub(crate) fn takers_of(&self, node: usize) -> impl Iterator<Item = usize> {
        self.takers.neighbors_slice(node).iter().copied()
    }

    /// Returns `wanted` and every node they need, in order.
    pub(crate) fn closure_of(&self, wanted: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut left: Vec<usize> = wanted.into_iter().collect();
        let mut seen = vec![false; self.names.len()];
        while let Some(node) = left.pop() {
            if !std::mem::replace(&mut seen[node], true) {
                left.extend(self.givers.neighbors_slice(node));
            }
        }
        (0..seen.len()).filter(|node| seen[*node]).collect()
    }

    /// Returns `wanted` and every node they need, directly or not; unknown names are left out.
    pub fn closure<'a>(&self, wanted: impl IntoIterator<Item = &'a NodeName>) -> BTreeSet<NodeName> {
        self.closure_of(self.numbers(wanted)).into_iter().map(|node| self.names[node].clone()).collect()
    }

    /// Returns the nodes that take an output of `node`.
    pub fn takers<'a>(&'a self, node: &NodeName) -> impl Iterator<Item = &'a NodeName> + use<'a> {
        let takers = self.number(node).into_iter().flat_map(|node| self.takers_of(node));
        takers.map(|taker| &self.names[taker])
    }

    /// Returns the number of distinct nodes whose outputs `node` takes.
    pub fn givers(&self, node: &NodeName) -> usize {
        self.number(node).map_or(0, |node| self.count_givers(node))
    }

    /// Returns every node after those it needs; among those that could be next, in order of name.
    pub fn order(&self) -> Vec<NodeName> {
        let (order, _) = self.peeled();
        order.into_iter().map(|node| self.names[node].clone()).collect()
    }

    /// Takes away nodes that nothing is left to give to, in order; returns them, and how many givers the others wait for.
    fn peeled(&self) -> (Vec<usize>, Vec<usize>) {
        let mut waits: Vec<usize> = (0..self.names.len()).map(|node| self.count_givers(node)).collect();
        let mut ready: BinaryHeap<_> =
            (0..waits.len()).filter(|node| waits[*node] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(node);
            for taker in self.takers_of(node) {
                waits[taker] -= 1;
                if waits[taker] == 0 {
                    ready.push(Reverse(taker));
                }
            }
        }
        (order, waits)
    }

    /// Returns the nodes of a circle in the order of their edges, the first one again at the end.
    fn find_circle(&self) -> Option<Vec<NodeName>> {
        let (_, waits) = self.peeled();
        // What still waits is in a circle or behind one: whoever goes back from giver to giver must come round.
        let mut last = (0..waits.len()).find(|node| waits[*node] > 0)?;
        let mut walk = Vec::new();
        let mut place = vec![None; waits.len()];
        while place[last].is_none() {
            place[last] = Some(walk.len());
            walk.push(last);
            last = *self.givers.neighbors_slice(last).iter().find(|giver| waits[**giver] > 0)?;
        }
        let mut circle = walk.split_off(place[last]?);
        circle.reverse();
        let first = circle.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
        circle.rotate_left(first);
        circle.push(circle[0]);
        Some(circle.into_iter().map(|node| self.names[node].clone()).collect())
    }
}

/// Returns the neighbours of each of `count` nodes; the edges are in order, each once.
fn neighbours(count: usize, edges: &[(usize, usize)]) -> Edges {
    let mut graph = Edges::from_sorted_edges(edges).unwrap_or_else(|_| unreachable!("they are sorted"));
    while graph.node_count() < count {
        graph.add_node(());
    }
    graph
}

/// Returns the edges between `count` nodes turned round, in order as these are.
fn turned(count: usize, edges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // Where the edges from each node begin: they are counted, not sorted.
    let mut begin = vec![0; count + 1];
    for (_, to) in edges {
        begin[to + 1] += 1;
    }
    for node in 0..count {
        begin[node + 1] += begin[node];
    }
    let mut turned = vec![(0, 0); edges.len()];
    for (from, to) in edges {
        turned[begin[*to]] = (*to, *from);
        begin[*to] += 1;
    }
    turned
}
