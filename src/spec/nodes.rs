//! The nodes of a spec, and which of their outputs are published.

use std::collections::{BTreeMap, BTreeSet};

use cache::RelPath;
use graph::dag::Derivation;
use graph::{NodeName, OutputRef};

use super::settings::parse_output;
use crate::config::{Item, SpecError, SpecErrors};

/// The nodes of a spec, as far as they could be read.
#[derive(Default)]
pub(super) struct Nodes {
    pub(super) derivations: BTreeMap<NodeName, Derivation>,
    /// Outputs that are folders of plain files.
    pub(super) folders: BTreeSet<OutputRef>,
}

impl Nodes {
    /// Reads `[publish]`: a folder (`.` is the top) and the outputs that go there.
    pub(super) fn publish(
        &self,
        item: &Item,
        items: &BTreeMap<NodeName, &Item>,
        errors: &mut SpecErrors,
    ) -> Vec<(Option<RelPath>, OutputRef)> {
        let mut publish = Vec::new();
        for (folder, outputs) in errors.check(item.entries()).into_iter().flatten() {
            let path = match folder {
                "." => None,
                other => errors.check(RelPath::new(other.as_bytes()).map_err(|error| {
                    SpecError::at(&outputs.origin, error.to_string())
                        .label("folders are published below the output folder")
                })),
            };
            for output in errors.check(outputs.as_list()).unwrap_or_default() {
                let named = self.published(output, items);
                if let Some(Some(named)) = errors.check(named) {
                    publish.push((path.clone(), named));
                }
            }
        }
        publish
    }

    /// Reads one output to publish; `None` where its node could not be read, which is told elsewhere.
    fn published(
        &self,
        item: &Item,
        items: &BTreeMap<NodeName, &Item>,
    ) -> Result<Option<OutputRef>, Box<SpecError>> {
        let text = item.as_text()?;
        let named = parse_output(text);
        if let Some(named) = &named
            && items.contains_key(&named.node)
            && !self.derivations.contains_key(&named.node)
        {
            return Ok(None);
        }
        let named = named.filter(|named| {
            self.derivations.get(&named.node).is_some_and(|giver| giver.outputs().contains(&named.output))
        });
        let named = named.ok_or_else(|| {
            SpecError::at(&item.origin, format!("there is no output {text:?} to publish"))
                .label("expected NODE.OUTPUT of a node of this spec")
        })?;
        if !self.folders.contains(&named) {
            return Err(SpecError::at(&item.origin, format!("{text} is not a folder of plain files"))
                .label("only such folders can be published")
                .hint("a node of your own (step = \"run\") can put a file into one"));
        }
        Ok(Some(named))
    }
}
