//! What a kind of step is, and what every step is made with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cache::name::RelPath;
use cache::{Blob, Object, Objects, Output, Tree};
use graph::{Step, StepError};
use serde::Serialize;

use crate::config::Fields;
use crate::image::Image;

/// The inputs a kind of step takes.
#[derive(Debug, Clone, Copy)]
pub enum Inputs {
    /// These and no others.
    Named {
        /// Those it needs.
        required: &'static [&'static str],
        /// Those it can do without.
        optional: &'static [&'static str],
    },
    /// Any, under any names.
    Any,
}

/// A step made from a spec, and the outputs it will give.
pub struct Made {
    /// The step.
    pub step: Arc<dyn Step>,
    /// The names of its outputs.
    pub outputs: BTreeSet<String>,
    /// Those that are folders of plain files, which can be published.
    pub folders: BTreeSet<String>,
}

impl Made {
    /// Takes the names of the outputs; those of folders end in a slash.
    pub(super) fn new(step: impl Step + 'static, outputs: &[&str]) -> Self {
        let names = |wanted: fn(&&&str) -> bool| {
            outputs.iter().filter(wanted).map(|name| name.trim_end_matches('/').to_owned()).collect()
        };
        Self { step: Arc::new(step), outputs: names(|_| true), folders: names(|name| name.ends_with('/')) }
    }
}

/// A kind of step.
pub struct Kind {
    /// Its name in specs.
    pub name: &'static str,
    /// The inputs it takes.
    pub inputs: Inputs,
    /// Reads its settings.
    ///
    /// What is wrong with them is noted in the fields; `None` where no step can be made then.
    pub make: fn(&Fields<'_>, &Image) -> Option<Made>,
}

/// What every step says of itself: the name of its kind, the version of its code, its settings.
macro_rules! identity {
    (version $version:expr) => {
        fn kind(&self) -> &'static str {
            KIND.name
        }

        fn version(&self) -> u32 {
            $version
        }

        fn params(&self) -> std::collections::BTreeMap<String, String> {
            $crate::steps::kind::params(self)
        }
    };
}
pub(super) use identity;

/// Returns a step's settings as the fields of its action: each member of the struct is one.
pub(super) fn params(step: &impl Serialize) -> BTreeMap<String, String> {
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(step) else {
        unreachable!("steps are structs of plain values")
    };
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    members.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Makes an output of files that are in the store: a folder of plain files.
pub(super) fn folder(
    objects: &Objects,
    files: impl IntoIterator<Item = (String, Blob)>,
) -> Result<Output, StepError> {
    let files = files.into_iter().map(|(name, blob)| {
        let path = RelPath::new(name.as_bytes()).map_err(StepError::spec)?;
        Ok((path, blob.digest, blob.size))
    });
    let tree = Tree::of_files(files.collect::<Result<Vec<_>, StepError>>()?).map_err(StepError::spec)?;
    Ok(Output { object: Object::Tree(objects.put_tree(&tree)?), bytes: cache::Bytes::Store })
}

/// Writes a document as JSON for people, with a line's end.
pub(super) fn json(document: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec_pretty(document);
    let mut text = text.expect("documents are made of plain values, and of maps with texts for keys");
    text.push(b'\n');
    text
}
