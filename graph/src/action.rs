//! Actions: derivations whose inputs are known by content.
//!
//! Whatever can change what an action yields is a field of it, and every field goes through the one
//! walk, [`Action::fields`]: hashing, explaining and the manifest all read it, so that nothing can be
//! part of the key and missing from the explanation.

use std::collections::BTreeMap;

use cache::{ActionDigest, BlobDigest, Object};
use serde::{Deserialize, Serialize};

/// Opens every encoding; another first line is another format, and every action another action.
const MAGIC: &[u8] = b"stagegraph action 1\n";

/// One thing that can change what an action yields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Field {
    /// What kind of thing: `step`, `param`, `input`, `source`, `tool`, …
    pub kind: String,
    /// Which one.
    pub name: String,
    /// Its value: text, or a digest in hex.
    pub value: String,
}

/// A step with everything that can change what it yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The step's kind.
    pub step: String,
    /// The version of the step's own code: raised when the same inputs would give other bytes.
    pub version: u32,
    /// The settings.
    pub params: BTreeMap<String, String>,
    /// The inputs, outputs of other nodes.
    pub inputs: BTreeMap<String, Object>,
    /// What came from outside the graph, by content.
    pub sources: BTreeMap<String, String>,
    /// The programs it runs: their content, their libraries' and their data's.
    pub tools: BTreeMap<String, BlobDigest>,
    /// The actions of the nodes below, for a node that reports on them.
    pub provenance: BTreeMap<String, ActionDigest>,
    /// Whether tools run in the sandbox.
    pub sandboxed: bool,
}

impl Action {
    /// The only walk over an action: every field, in a fixed order.
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        let mut field = |kind: &str, name: &str, value: String| {
            fields.push(Field { kind: kind.to_owned(), name: name.to_owned(), value });
        };
        field("step", "kind", self.step.clone());
        field("step", "version", self.version.to_string());
        field("sandbox", "tools", if self.sandboxed { "sandboxed" } else { "not sandboxed" }.to_owned());
        for (name, value) in &self.params {
            field("param", name, value.clone());
        }
        for (name, object) in &self.inputs {
            field("input", name, object.to_string());
        }
        for (name, value) in &self.sources {
            field("source", name, value.clone());
        }
        for (name, identity) in &self.tools {
            field("tool", name, identity.to_string());
        }
        for (name, action) in &self.provenance {
            field("provenance", name, action.to_string());
        }
        fields
    }

    /// Returns the key under which the result is kept: the hash of all fields.
    pub fn digest(&self) -> ActionDigest {
        let mut encoding = MAGIC.to_vec();
        for field in self.fields() {
            for text in [&field.kind, &field.name, &field.value] {
                encoding.extend_from_slice(&(text.len() as u64).to_le_bytes());
                encoding.extend_from_slice(text.as_bytes());
            }
        }
        ActionDigest::of_encoding(&encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(params: &[(&str, &str)]) -> Action {
        Action {
            step: "squashfs".to_owned(),
            version: 1,
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            tools: BTreeMap::new(),
            provenance: BTreeMap::new(),
            sandboxed: true,
        }
    }

    #[test]
    fn moving_a_byte_between_a_name_and_its_value_changes_the_digest() {
        assert_ne!(action(&[("ab", "c")]).digest(), action(&[("a", "bc")]).digest());
    }

    #[test]
    fn every_field_changes_the_digest() {
        let base = action(&[("a", "b")]);
        let object = Object::Tree(cache::Tree::of_files([]).unwrap().digest());
        let changes: [fn(&mut Action, Object); 8] = [
            |action, _| action.step.push('x'),
            |action, _| action.version += 1,
            |action, _| action.sandboxed = false,
            |action, _| action.params.extend([("c".into(), "d".into())]),
            |action, object| action.inputs.extend([("a".into(), object)]),
            |action, _| action.sources.extend([("a".into(), "b".into())]),
            |action, _| action.tools.extend([("a".into(), BlobDigest::of(b""))]),
            |action, _| action.provenance.extend([("a".into(), ActionDigest::of_encoding(b""))]),
        ];
        let mut seen = std::collections::BTreeSet::from([base.digest()]);
        for change in changes {
            let mut changed = base.clone();
            change(&mut changed, object);
            assert!(seen.insert(changed.digest()), "{changed:?}");
        }
    }

    #[test]
    fn the_digest_of_an_action_is_pinned() {
        assert_eq!(
            action(&[("level", "6")]).digest().to_string(),
            "f0639f99a7154547ed27d6f2debcd7f0947735692e634d0874fdad745e0df743"
        );
    }
}
