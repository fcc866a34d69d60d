//! Why a node ran: the fields of its action last time against those of this time.

use cache::{ActionDigest, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::action::Field;
use crate::name::NodeName;

/// One field that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What kind of thing changed: `param`, `input`, `tool`, …
    pub kind: String,
    /// Which one.
    pub name: String,
    /// What it was; nothing where it is new.
    pub before: Option<String>,
    /// What it is; nothing where it is gone.
    pub after: Option<String>,
}

/// Why a node ran, or did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing changed: the result was in the store.
    Cached,
    /// The key is another than last time, but its result was in the store.
    CachedFromBefore(Vec<Change>),
    /// The result was not in the store, and an upstream had it.
    Fetched {
        /// Which upstream.
        from: String,
        /// Who signed it, where that was asked for.
        signer: Option<String>,
    },
    /// The node was never built under this name in this store.
    First,
    /// The key is another than last time.
    Changed(Vec<Change>),
    /// The key is the same, but the result or one of its objects was no longer in the store.
    Gone,
    /// The caller asked for the node to be built again and compared.
    Check,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |changes: &[Change]| {
            let names: Vec<_> = changes.iter().map(|c| format!("{} {}", c.kind, c.name)).collect();
            match names.len() {
                0..=2 => names.join(", "),
                more => format!("{} and {} more", names[..2].join(", "), more - 2),
            }
        };
        match self {
            Reason::Cached => f.write_str("nothing changed"),
            Reason::CachedFromBefore(changes) => write!(f, "{} changed back", list(changes)),
            Reason::Fetched { from, signer: Some(signer) } => {
                write!(f, "fetched from {from}, signed {signer}")
            }
            Reason::Fetched { from, signer: None } => write!(f, "fetched from {from}, unsigned"),
            Reason::First => f.write_str("first build"),
            Reason::Changed(changes) => write!(f, "{} changed", list(changes)),
            Reason::Gone => f.write_str("its result was no longer in the store"),
            Reason::Check => f.write_str("built again to compare"),
        }
    }
}

/// What is remembered of a node's last build under one graph's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The key.
    pub action: ActionDigest,
    /// Everything that went into it.
    pub fields: Vec<Field>,
    /// Why it ran, or did not.
    pub reason: Reason,
}

/// Returns the fields that differ, in the order of the walk.
pub fn changes(before: &[Field], after: &[Field]) -> Vec<Change> {
    let find = |fields: &[Field], wanted: &Field| {
        fields.iter().find(|f| f.kind == wanted.kind && f.name == wanted.name).map(|f| f.value.clone())
    };
    let change = |field: &Field, before, after| Change {
        kind: field.kind.clone(),
        name: field.name.clone(),
        before,
        after,
    };
    let mut changes = Vec::new();
    for field in after {
        let old = find(before, field);
        if old.as_ref() != Some(&field.value) {
            changes.push(change(field, old, Some(field.value.clone())));
        }
    }
    for field in before {
        if find(after, field).is_none() {
            changes.push(change(field, Some(field.value.clone()), None));
        }
    }
    changes
}

fn space(graph: &str) -> String {
    format!("last/{graph}")
}

/// Returns what is remembered of the last build of `node` in the graph of that name.
///
/// # Errors
/// [`StoreError`].
pub fn last(store: &Store, graph: &str, node: &NodeName) -> Result<Option<Last>, StoreError> {
    let text = store.memo(&space(graph), node.as_str())?;
    // A memo of another version is as good as none: it only explains.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Remembers the build of `node`.
///
/// # Errors
/// [`StoreError`].
pub fn remember(store: &Store, graph: &str, node: &NodeName, last: &Last) -> Result<(), StoreError> {
    let text = serde_json::to_string(last).map_err(|_| StoreError::Row(node.to_string()))?;
    store.set_memo(&space(graph), node.as_str(), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: &str, name: &str, value: &str) -> Field {
        Field { kind: kind.into(), name: name.into(), value: value.into() }
    }

    #[test]
    fn changed_new_and_lost_fields_are_named_with_both_values() {
        let before = [field("param", "level", "6"), field("tool", "xorriso", "aa")];
        let after = [field("param", "level", "9"), field("input", "root", "bb")];
        let found = changes(&before, &after);
        let shown: Vec<_> =
            found.iter().map(|c| (c.name.as_str(), c.before.as_deref(), c.after.as_deref())).collect();
        assert_eq!(
            shown,
            [("level", Some("6"), Some("9")), ("root", None, Some("bb")), ("xorriso", Some("aa"), None)]
        );
        assert_eq!(Reason::Changed(found).to_string(), "param level, input root and 1 more changed");
    }
}
