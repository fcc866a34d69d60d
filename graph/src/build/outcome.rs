//! How a build and its nodes ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::{ActionDigest, ActionResult, Blob, Object, Output};

use crate::action::Action;
use crate::error::Fault;
use crate::explain::Reason;
use crate::name::NodeName;

/// A node's outputs are there.
#[derive(Debug, Clone)]
pub struct Done {
    /// The step's kind.
    pub step: &'static str,
    /// What it was, in a build where a node reports on others.
    pub action: Option<Arc<Action>>,
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

    /// Returns how the nodes of one graph ended, where several were built at once, by their names in it.
    pub fn of_graph(&self, graph: &str) -> Self {
        let local = |(node, outcome): (&NodeName, &Outcome)| {
            let outcome = match outcome {
                Outcome::Skipped(because) => {
                    Outcome::Skipped(because.in_graph(graph).unwrap_or_else(|| because.local()))
                }
                outcome => outcome.clone(),
            };
            Some((node.in_graph(graph)?, outcome))
        };
        Self { nodes: self.nodes.iter().filter_map(local).collect() }
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

    /// Returns an output of a node, if the node is done and has it.
    pub fn output(&self, node: &str, output: &str) -> Option<&Output> {
        self.done(&NodeName::new(node)?)?.result.outputs.get(output)
    }

    /// Returns an output of a node, if the node is done and the output is a blob.
    pub fn blob(&self, node: &str, output: &str) -> Option<Blob> {
        match self.output(node, output)?.object {
            Object::Blob(blob) => Some(blob),
            Object::Tree(_) => None,
        }
    }
}
