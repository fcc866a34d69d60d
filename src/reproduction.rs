//! Whether two builds of one spec gave the same, by their manifests; and where they part, if they do.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Manifest, NodeFacts};

/// What two manifests say of each other.
#[derive(Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same nodes gave the same, and all files are the same.
    Same,
    /// All files are the same; these nodes were made of something else, which changed nothing.
    SameFiles(Vec<String>),
    /// This node was made of something else from outside than before, or by other code: `what` names it.
    Inputs {
        /// The node.
        node: String,
        /// What differs.
        what: Vec<String>,
    },
    /// This node was made of the same, and gave other bytes.
    Outputs {
        /// The node.
        node: String,
        /// The outputs that differ.
        outputs: Vec<String>,
    },
    /// Files differ that no node of both manifests accounts for.
    Files(Vec<String>),
}

/// Compares a build with the one before: the first node that differs, in the order in which nodes were made, accounts for all others.
pub fn compare(before: &Manifest, now: &Manifest) -> Comparison {
    let differ = |node: &&String| {
        let (before, now) = (before.nodes.get(*node), now.nodes.get(*node));
        before.map(made) != now.map(made)
    };
    let names: BTreeSet<&String> = before.nodes.keys().chain(now.nodes.keys()).collect();
    let others: BTreeSet<&String> = names.iter().copied().filter(differ).collect();
    let files = different(&before.files, &now.files);
    if files.is_empty() {
        return match others.is_empty() {
            true => Comparison::Same,
            false => Comparison::SameFiles(others.into_iter().cloned().collect()),
        };
    }
    let outputs_differ = |node: &&String| {
        let outputs = |manifest: &Manifest| manifest.nodes.get(*node).map(|node| node.outputs.clone());
        outputs(before) != outputs(now)
    };
    let first = others.iter().copied().filter(outputs_differ).find(|node| {
        let inputs = |manifest: &Manifest| manifest.nodes.get(*node).map(|node| node.inputs.clone());
        match (inputs(before), inputs(now)) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        }
    });
    match first.map(|node| (node, before.nodes.get(node), now.nodes.get(node))) {
        None => Comparison::Files(files),
        Some((node, Some(one), Some(other))) => {
            let what = from_outside(one, other);
            match what.is_empty() {
                false => Comparison::Inputs { node: node.clone(), what },
                true => Comparison::Outputs {
                    node: node.clone(),
                    outputs: different(&one.outputs, &other.outputs),
                },
            }
        }
        Some((node, one, _)) => {
            let what = if one.is_some() { "there is no such node now" } else { "there was no such node" };
            Comparison::Inputs { node: node.clone(), what: vec![what.to_owned()] }
        }
    }
}

/// What counts of a node: its remarks do not.
fn made(node: &NodeFacts) -> NodeFacts {
    NodeFacts { remarks: Vec::new(), ..node.clone() }
}

/// Names what two nodes took from outside that differs.
fn from_outside(before: &NodeFacts, now: &NodeFacts) -> Vec<String> {
    let mut what = Vec::new();
    let mut add =
        |kind: &str, names: Vec<String>| what.extend(names.iter().map(|name| format!("{kind} {name}")));
    add("the source", different(&before.sources, &now.sources));
    add("the program", different(&before.tools, &now.tools));
    add("the setting", different(&before.params, &now.params));
    if (&before.step, before.version) != (&now.step, now.version) {
        let of = |node: &NodeFacts| format!("{} {}", node.step, node.version);
        what.push(format!("the step: {} and {}", of(before), of(now)));
    }
    if before.sandboxed != now.sandboxed {
        what.push("the sandbox: one of them had none".to_owned());
    }
    what
}

/// Names what two maps have that the other has not, or has otherwise.
fn different<V: PartialEq>(before: &BTreeMap<String, V>, now: &BTreeMap<String, V>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
}
