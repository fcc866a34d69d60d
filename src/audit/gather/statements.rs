//! Statements of builders: what they say, who signed them, and whether it is what the manifest says.

use std::collections::BTreeMap;

use serde_json::Value;
use trust::dsse::{Envelope, MAX_ENVELOPE};

use super::super::facts::{ManifestFacts, Part, StatementFacts, Target};
use super::super::set::Set;
use super::super::signatures::Trusted;
use super::Gatherer;
use crate::manifest::ENDING;
use crate::provenance::{PAYLOAD_TYPE, STATEMENTS, Statement, UNNAMED};

/// Builders that are looked at in one file.
const MAX_LINES: usize = 1_000;

impl Gatherer<'_> {
    /// Reads the statements of a set.
    pub(super) fn read_statements(
        &mut self,
        set: &Set,
        parts: &BTreeMap<String, Part>,
        manifests: &[ManifestFacts],
        trusted: &Trusted,
    ) -> Vec<StatementFacts> {
        let mut all = Vec::new();
        for name in parts.keys().filter(|name| name.ends_with(STATEMENTS)) {
            let Some(place) = set.files.get(name) else { continue };
            let text = match place.text_to(MAX_ENVELOPE, "file of statements") {
                Ok(text) => text,
                Err(error) => {
                    self.unreadable.push((name.clone(), error.to_string()));
                    continue;
                }
            };
            let stem = name.strip_suffix(STATEMENTS).unwrap_or(name);
            let manifest = manifests.iter().find(|manifest| manifest.file == format!("{stem}{ENDING}"));
            let expected = manifest.map(expected);
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            for (index, line) in lines.take(MAX_LINES) {
                let (builder, keys, found) = look(line, expected.as_ref(), trusted);
                all.push(StatementFacts { file: name.clone(), line: index + 1, builder, keys, found });
            }
        }
        all
    }
}

/// Files that a statement is about, with their SHA-256; or why it does not count.
type Found = Result<Vec<(Target, String)>, String>;

/// What a statement about a manifest has to be, but for who says it; and the files that it is about, with their SHA-256.
type Expected = Result<(Value, Vec<(Target, String)>), String>;

/// Where a statement says who built.
const BUILDER: &str = "/predicate/runDetails/builder/id";

fn expected(manifest: &ManifestFacts) -> Expected {
    let Ok(document) = &manifest.document else {
        return Err("has a manifest that cannot be read".to_owned());
    };
    let statement = serde_json::to_value(Statement::of(document, UNNAMED)).unwrap_or_default();
    let files = document
        .files
        .iter()
        .filter_map(|(name, facts)| Some((manifest.files.get(name)?.clone(), facts.sha256.to_string())));
    Ok((statement, files.collect()))
}

/// Returns who says it, and the ids of the trusted keys that signed it.
fn look(line: &str, expected: Option<&Expected>, trusted: &Trusted) -> (Option<String>, Vec<String>, Found) {
    let read = || {
        let envelope = Envelope::parse(line, PAYLOAD_TYPE)?;
        let said: Value = serde_json::from_slice(&envelope.payload()?)
            .map_err(|error| format!("has a statement that is no JSON: {error}"))?;
        Ok::<_, String>((envelope, said))
    };
    let (envelope, mut said) = match read() {
        Ok(read) => read,
        Err(why) => return (None, Vec::new(), Err(why)),
    };
    let builder = said.pointer_mut(BUILDER).filter(|id| id.is_string());
    let builder = builder.and_then(|id| std::mem::replace(id, UNNAMED.into()).as_str().map(str::to_owned));
    let keys = trusted.builders.iter().flatten().filter(|key| envelope.is_by(key));
    let keys = keys.map(|key| key.id()).collect();
    let found = match (&builder, expected) {
        (None, _) => Err("does not say who built".to_owned()),
        (_, None) => Err("has no manifest beside it".to_owned()),
        (_, Some(Err(why))) => Err(why.clone()),
        (_, Some(Ok((expected, _)))) if said != *expected => {
            Err(format!("says something else than the manifest: {}", first_difference(&said, expected)))
        }
        (_, Some(Ok((_, files)))) => Ok(files.clone()),
    };
    (builder, keys, found)
}

/// Names the first member that differs.
fn first_difference(said: &Value, expected: &Value) -> String {
    let inner = |key: String, said: Option<&Value>, expected: Option<&Value>| match (said, expected) {
        (Some(said), Some(expected)) => {
            let below = first_difference(said, expected);
            if below.is_empty() { key } else { format!("{key}.{below}") }
        }
        _ => key,
    };
    match (said, expected) {
        (Value::Object(said), Value::Object(expected)) => {
            let mut keys = said.keys().chain(expected.keys());
            let other = keys.find(|key| said.get(*key) != expected.get(*key));
            other.map_or_else(String::new, |key| inner(key.clone(), said.get(key), expected.get(key)))
        }
        (Value::Array(said), Value::Array(expected)) => {
            let other = (0..said.len().max(expected.len())).find(|at| said.get(*at) != expected.get(*at));
            other.map_or_else(String::new, |at| inner(at.to_string(), said.get(at), expected.get(at)))
        }
        _ => String::new(),
    }
}
