//! Actions: derivations whose inputs are known by content.
//!
//! Whatever can change what an action yields is a field of it, and every field goes through the one
//! walk, `Sketch::walk`: hashing, explaining and the manifest all read it, so that nothing can be
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

/// An action as borrowed parts: of most, only the digest is wanted. Lists are in order of name.
#[derive(Debug)]
pub(crate) struct Sketch<'a> {
    pub(crate) step: &'a str,
    pub(crate) version: u32,
    pub(crate) params: &'a BTreeMap<String, String>,
    pub(crate) inputs: Vec<(&'a str, Object)>,
    pub(crate) sources: &'a BTreeMap<String, String>,
    pub(crate) tools: Vec<(&'a str, BlobDigest)>,
    pub(crate) provenance: Vec<(&'a str, ActionDigest)>,
    pub(crate) sandboxed: bool,
}

impl Sketch<'_> {
    /// The only walk over an action: kind, name and value of every field, in a fixed order.
    fn walk(&self, field: &mut dyn FnMut(&str, &str, &str)) {
        field("step", "kind", self.step);
        field("step", "version", &self.version.to_string());
        field("sandbox", "tools", if self.sandboxed { "sandboxed" } else { "not sandboxed" });
        for (name, value) in self.params {
            field("param", name, value);
        }
        for (name, object) in &self.inputs {
            field("input", name, &object.to_string());
        }
        for (name, value) in self.sources {
            field("source", name, value);
        }
        for (name, identity) in &self.tools {
            field("tool", name, &identity.to_string());
        }
        for (name, action) in &self.provenance {
            field("provenance", name, &action.to_string());
        }
    }

    /// Returns the key under which the result is kept: the hash of all fields.
    pub(crate) fn digest(&self) -> ActionDigest {
        let mut encoding = Vec::with_capacity(1024);
        encoding.extend_from_slice(MAGIC);
        self.walk(&mut |kind, name, value| {
            for text in [kind, name, value] {
                encoding.extend_from_slice(&(text.len() as u64).to_le_bytes());
                encoding.extend_from_slice(text.as_bytes());
            }
        });
        ActionDigest::of_encoding(&encoding)
    }

    /// Returns the action itself.
    pub(crate) fn to_action(&self) -> Action {
        fn owned<T: Copy>(list: &[(&str, T)]) -> BTreeMap<String, T> {
            list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        }
        Action {
            step: self.step.to_owned(),
            version: self.version,
            params: self.params.clone(),
            inputs: owned(&self.inputs),
            sources: self.sources.clone(),
            tools: owned(&self.tools),
            provenance: owned(&self.provenance),
            sandboxed: self.sandboxed,
        }
    }
}

impl Action {
    fn sketch(&self) -> Sketch<'_> {
        fn borrowed<T: Copy>(map: &BTreeMap<String, T>) -> Vec<(&str, T)> {
            map.iter().map(|(name, value)| (name.as_str(), *value)).collect()
        }
        Sketch {
            step: &self.step,
            version: self.version,
            params: &self.params,
            inputs: borrowed(&self.inputs),
            sources: &self.sources,
            tools: borrowed(&self.tools),
            provenance: borrowed(&self.provenance),
            sandboxed: self.sandboxed,
        }
    }

    /// Returns every field, in the order of the walk.
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        self.sketch().walk(&mut |kind, name, value| {
            let [kind, name, value] = [kind, name, value].map(str::to_owned);
            fields.push(Field { kind, name, value });
        });
        fields
    }

    /// Returns the key under which the result is kept: the hash of all fields.
    pub fn digest(&self) -> ActionDigest {
        self.sketch().digest()
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
