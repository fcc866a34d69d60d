//! What is written of nodes: the settings for the step that each runs, their inputs, where their outputs go.

use std::collections::{BTreeMap, BTreeSet};

use cache::name::FileName;
use graph::dag::DagError;
use graph::{NodeName, OutputRef};

use crate::config::{Fields, Item, Origin, Packing, SpecError, Value};
use crate::steps::{self, Inputs, can_run};

/// Where each input of each node was written.
pub(super) type Origins = BTreeMap<(NodeName, String), Origin>;

/// Returns `[image]` without the tables of steps that no node runs: those of a spec below, whose nodes run others here, or
/// those of the other step of `auto`.
pub(super) fn without_other_steps(image: &Item, kinds: &BTreeSet<&str>) -> Item {
    let mut image = image.clone();
    if let Value::Table(table) = &mut image.value {
        table.retain(|key, item| {
            let is_step = matches!(item.value, Value::Table(_)) && steps::kind(key).is_some();
            !is_step || kinds.contains(key.as_str())
        });
    }
    image
}

/// Returns the settings of a node for the step it runs: those that stand in the node, over those in a table named after
/// the step. A table for the other step of `auto` waits for a machine where that one runs.
pub(super) fn step_settings(item: &Item, step: &str) -> Result<Item, Box<SpecError>> {
    let mut merged = item.clone();
    let Value::Table(table) = &mut merged.value else { return Ok(merged) };
    let own = table.get(step).filter(|item| matches!(item.value, Value::Table(_))).cloned();
    let runs = item.get("step").and_then(|step| step.as_text().ok()).unwrap_or(step);
    table.retain(|key, item| !(can_run(runs, key) && matches!(item.value, Value::Table(_))));
    match own {
        Some(own) => merged.overlaid_on(own),
        None => Ok(merged),
    }
}

/// Returns what a node that packs a root does with it, by its settings.
pub(super) fn packing(settings: &Item) -> Packing {
    let excluded = settings.get("exclude").and_then(|item| item.as_list().ok()).unwrap_or_default();
    Packing {
        excluded: excluded.iter().filter_map(|item| item.as_text().ok().map(str::to_owned)).collect(),
        clamps_mtime: settings.get("clamp_mtime").is_none_or(|item| item.as_bool().unwrap_or(false)),
    }
}

/// Reads an input of a node.
pub(super) fn read_input(name: &str, item: &Item) -> Result<OutputRef, Box<SpecError>> {
    let text = item.as_text()?;
    // Inputs become file names where a tool runs.
    FileName::new(name.as_bytes()).map_err(|error| {
        SpecError::at(&item.origin, error.to_string()).label("the input's name is not a file name")
    })?;
    parse_output(text).ok_or_else(|| {
        SpecError::at(&item.origin, format!("{text:?} is not an output"))
            .label("expected NODE.OUTPUT, such as \"squashfs.image\"")
    })
}

/// Notes inputs that a step does not take, and those it lacks.
pub(super) fn check_inputs(
    node: &NodeName,
    kind: &steps::Kind,
    inputs: &BTreeMap<String, OutputRef>,
    fields: &Fields<'_>,
    item: &Item,
) {
    let Inputs::Named { required, optional } = kind.inputs else { return };
    let known: Vec<&str> = required.iter().chain(optional).copied().collect();
    for (name, item) in fields.entries("input") {
        if !known.contains(&name) {
            let takes = if known.is_empty() { "no inputs".to_owned() } else { known.join(", ") };
            let error = SpecError::at(&item.origin, format!("the step {} has no input {name:?}", kind.name));
            fields.wrong(error.label("not an input").hint(format!("it takes {takes}")));
        }
    }
    for name in required.iter().filter(|name| !inputs.contains_key(**name)) {
        if item.get("input").is_some_and(|inputs| inputs.entries().is_err() || inputs.get(name).is_some()) {
            // It is there and could not be read, which is told.
            continue;
        }
        fields.wrong(
            SpecError::at(&item.origin, format!("{node} lacks the input {name:?}"))
                .label(format!("the step {} needs it", kind.name))
                .hint(format!("add it: input.{name} = \"NODE.OUTPUT\"")),
        );
    }
}

pub(super) fn parse_output(text: &str) -> Option<OutputRef> {
    // A node of a spec that this one takes in has the spec's name and a colon before its own.
    let (spec, rest) = text.split_once(':').map_or((None, text), |(spec, rest)| (Some(spec), rest));
    let (node, output) = rest.split_once('.')?;
    let named = !output.is_empty() && output.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let node = NodeName::new(node)?;
    let node = spec.map_or(node.clone(), |spec| node.within(spec));
    Some(OutputRef { node, output: named.then(|| output.to_owned())? })
}

/// Returns the folder that each published output goes to, before anything about them is checked.
pub(super) fn published_places(item: &Item) -> BTreeMap<OutputRef, String> {
    let mut places = BTreeMap::new();
    for (folder, outputs) in item.entries().into_iter().flatten() {
        let prefix = if folder == "." { String::new() } else { format!("{folder}/") };
        for output in outputs.as_list().unwrap_or_default() {
            if let Some(output) = output.as_text().ok().and_then(parse_output) {
                places.insert(output, prefix.clone());
            }
        }
    }
    places
}

pub(super) fn point_at(error: DagError, origins: &Origins, nodes: &Item) -> Box<SpecError> {
    let (origin, label) = match &error {
        DagError::UnknownNode { node, input, .. } => {
            (origins.get(&(node.clone(), input.clone())), "no such node")
        }
        DagError::UnknownOutput { node, input, .. } => {
            (origins.get(&(node.clone(), input.clone())), "no such output")
        }
        DagError::Cycle(cycle) => {
            let first = cycle.first().and_then(|node| nodes.get(node.as_str()));
            (first.map(|item| &item.origin), "one of them")
        }
    };
    SpecError::at(origin.unwrap_or(&nodes.origin), error.to_string()).label(label)
}
