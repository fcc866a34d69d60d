//! A spec as it was understood on this machine: what it extends is in it, each node has the one step that it runs, and the date is a date.
//! The manifest has it, so that the set can be built again from there.

use std::collections::{BTreeMap, BTreeSet};

use graph::NodeName;
use serde_json::{Map, Value, json};

use super::settings::{step_settings, without_other_steps};
use crate::config::Item;
use crate::image::Timestamp;
use crate::steps::{self, HOST};

/// Settings that say where things are on a machine, which is no matter of what comes out.
const PLACES: [&str; 7] = ["boot", "conf", "dir", "keyring", "medium", "path", "python"];

/// Tables that say what tools may use, and where packages may be had: no matter of what comes out either.
const OF_THE_MACHINE: [&str; 3] = ["extends", "limits", "packages"];

/// Takes out of a resolved spec all that says where things lie on a machine: who wrote it may be a stranger.
pub fn without_places(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(all) = spec.as_object_mut() {
        all.retain(|key, _| !OF_THE_MACHINE.contains(&key.as_str()));
    }
    let nodes = spec.get_mut("node").and_then(Value::as_object_mut);
    for settings in nodes.into_iter().flat_map(|nodes| nodes.values_mut()).filter_map(Value::as_object_mut) {
        if settings.get("step").and_then(Value::as_str).is_some_and(steps::is_place) {
            PLACES.iter().for_each(|place| drop(settings.remove(*place)));
        }
        // A table of the step's name has settings of it too.
        settings.retain(|key, value| !(value.is_object() && steps::is_place(key)));
    }
    spec
}

/// Returns a spec as it was understood.
pub(super) fn resolved(
    table: &Item,
    kinds: &BTreeMap<NodeName, &'static steps::Kind>,
    hosts: &BTreeSet<NodeName>,
    timestamp: Timestamp,
) -> Value {
    let names: BTreeSet<&str> = kinds.values().map(|kind| kind.name).collect();
    let mut image =
        table.get("image").map_or(Value::Null, |image| without_other_steps(image, &names).plain());
    image["timestamp"] = timestamp.text().into();
    let mut nodes = Map::new();
    for (node, kind) in kinds {
        let item = table.get("node").and_then(|nodes| nodes.get(node.as_str()));
        let settings = item.and_then(|item| step_settings(item, kind.name).ok());
        let mut settings = settings.map_or_else(|| json!({}), |settings| settings.plain());
        settings["step"] = kind.name.into();
        nodes.insert(node.to_string(), settings);
    }
    nodes.extend(hosts.iter().map(|node| (node.to_string(), json!({ "step": HOST }))));
    let mut all = table.plain();
    all["image"] = image;
    all["node"] = nodes.into();
    without_places(&all)
}
