//! What an action yielded: named outputs, each a blob or a tree.
//!
//! A result is entered after all its objects, and counts only while all of them are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use rusqlite::{OptionalExtension, params};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{ActionDigest, BlobDigest, TreeDigest};
use crate::file::lock_file;
use crate::index::note;
use crate::objects::{Blob, StoreError};
use crate::source::Bytes;
use crate::store::Store;

/// A thing with a digest: all that a later action's key needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// Bytes.
    Blob(Blob),
    /// A folder.
    Tree(TreeDigest),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Object::Blob(blob) => write!(f, "blob {}", blob.digest),
            Object::Tree(tree) => write!(f, "tree {tree}"),
        }
    }
}

/// One output of an action: what it is, and where the bytes of its files lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What it is.
    pub object: Object,
    /// Where its bytes are. Not part of any key: a tree is the same tree wherever it lies.
    #[serde(default, skip_serializing_if = "Bytes::is_store")]
    pub bytes: Bytes,
}

impl From<Blob> for Output {
    fn from(blob: Blob) -> Self {
        Output { object: Object::Blob(blob), bytes: Bytes::Store }
    }
}

/// Outputs by name. There are a few, and of results there are many: so it is a list, in order of name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outputs(Box<[(String, Output)]>);

impl Outputs {
    /// Returns the output of that name.
    pub fn get(&self, name: &str) -> Option<&Output> {
        self.iter().find(|(known, _)| *known == name).map(|(_, output)| output)
    }

    /// Returns the output of that name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Output> {
        self.0.iter_mut().find(|(known, _)| known == name).map(|(_, output)| output)
    }

    /// Returns names and outputs, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Output)> {
        self.0.iter().map(|(name, output)| (name, output))
    }

    /// Returns the outputs, in order of name.
    pub fn values(&self) -> impl Iterator<Item = &Output> {
        self.0.iter().map(|(_, output)| output)
    }
}

impl From<BTreeMap<String, Output>> for Outputs {
    fn from(outputs: BTreeMap<String, Output>) -> Self {
        Self(outputs.into_iter().collect())
    }
}

impl Serialize for Outputs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Outputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OutputsVisitor)
    }
}

struct OutputsVisitor;

impl<'de> Visitor<'de> for OutputsVisitor {
    type Value = Outputs;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("outputs by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outputs, A::Error> {
        let mut outputs = Vec::with_capacity(1);
        while let Some(entry) = map.next_entry::<String, Output>()? {
            outputs.push(entry);
        }
        outputs.sort_by(|(one, _), (other, _)| one.cmp(other));
        if outputs.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom("two outputs of one name"));
        }
        Ok(Outputs(outputs.into()))
    }
}

/// All that an action yielded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActionResult {
    /// The outputs by name.
    pub outputs: Outputs,
    /// What the action had to say to people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// How long it ran, in milliseconds.
    pub milliseconds: u64,
}

/// Held while an action runs: no other process runs it meanwhile.
#[derive(Debug)]
pub struct ActionLock {
    _file: File,
}

impl Store {
    /// Returns the recorded result of an action, if all its objects are there.
    ///
    /// # Errors
    /// [`StoreError::Index`], or [`StoreError::Row`] for a result nobody can read.
    pub fn action(&self, digest: &ActionDigest) -> Result<Option<ActionResult>, StoreError> {
        let text: Option<String> = self.change(|index| {
            let text = index
                .prepare_cached("SELECT result FROM actions WHERE digest = ?1")?
                .query_row(params![digest.as_bytes()], |row| row.get(0))
                .optional()?;
            // Whoever is told of a result relies on it.
            if text.is_some() {
                note(index, digest.as_bytes())?;
            }
            Ok(text)
        })?;
        let Some(text) = text else { return Ok(None) };
        let result: ActionResult =
            serde_json::from_str(&text).map_err(|_| StoreError::Row(digest.to_string()))?;
        let there = self.has_objects(&result, |blob| self.contains(&blob.digest))?;
        Ok(there.then_some(result))
    }

    /// Tells whether all objects of a result are there; `has_blob` tells it of a blob.
    pub(crate) fn has_objects(
        &self,
        result: &ActionResult,
        has_blob: impl Fn(&Blob) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        for output in result.outputs.values() {
            let there = match &output.object {
                Object::Blob(blob) => has_blob(blob),
                Object::Tree(tree) => self.has_bytes(tree, &output.bytes),
            };
            match there {
                Ok(true) => {}
                // What is damaged is made again.
                Ok(false)
                | Err(StoreError::Missing(_) | StoreError::Damaged(_) | StoreError::NotATree { .. }) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Returns all results, with their last use; those nobody can read are left out.
    pub(crate) fn all_actions(&self) -> Result<BTreeMap<ActionDigest, (ActionResult, i64)>, StoreError> {
        let rows: Vec<(Vec<u8>, String, Option<i64>)> = self.index(|index| {
            let mut query = index
                .prepare("SELECT actions.digest, result, time FROM actions LEFT JOIN uses USING (digest)")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })?;
        let row = |(digest, text, used): (Vec<u8>, String, Option<i64>)| {
            let digest = ActionDigest::from_slice(&digest)?;
            Some((digest, (serde_json::from_str(&text).ok()?, used.unwrap_or(0))))
        };
        Ok(rows.into_iter().filter_map(row).collect())
    }

    /// Returns where the bytes of a tree's files are, by any result that has it.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn bytes_of(&self, tree: &TreeDigest) -> Result<Option<Bytes>, StoreError> {
        let results = self.all_actions()?.into_values();
        let mut outputs = results.flat_map(|(result, _)| result.outputs.0.into_vec());
        Ok(outputs.find(|(_, output)| output.object == Object::Tree(*tree)).map(|(_, output)| output.bytes))
    }

    /// Returns all objects that a result needs, the pieces of compositions included.
    pub(crate) fn objects_of(&self, result: &ActionResult) -> Result<BTreeSet<BlobDigest>, StoreError> {
        let mut needed = BTreeSet::new();
        for output in result.outputs.values() {
            match &output.object {
                Object::Blob(blob) => drop(needed.insert(blob.digest)),
                Object::Tree(digest) => {
                    needed.insert(digest.encoding());
                    match &output.bytes {
                        Bytes::Store => match self.tree_as_it_is(digest) {
                            Ok(tree) => needed.extend(tree.files().map(|(_, digest, _)| digest)),
                            // A result that lacks something counts for nothing; what is left of it may go.
                            Err(
                                StoreError::Missing(_) | StoreError::Damaged(_) | StoreError::NotATree { .. },
                            ) => {}
                            Err(error) => return Err(error),
                        },
                        Bytes::Pack { pack, index } => needed.extend([*pack, *index]),
                        Bytes::Tar { index, .. } => drop(needed.insert(*index)),
                        Bytes::Directory { .. } => {}
                    }
                }
            }
        }
        let mut pieces = Vec::new();
        for digest in &needed {
            pieces.extend(self.pieces(digest)?.into_iter().flatten().map(|piece| piece.object));
        }
        needed.extend(pieces);
        Ok(needed)
    }

    /// Records what an action yielded; its objects must be in the store.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn set_action(&self, digest: &ActionDigest, result: &ActionResult) -> Result<(), StoreError> {
        self.record(digest, result, |index| {
            index
                .prepare_cached("DELETE FROM origins WHERE action = ?1")?
                .execute(params![digest.as_bytes()])
                .map(drop)
        })
    }

    /// Records what an action yielded, and in the same transaction, where that comes from.
    pub(crate) fn record(
        &self,
        digest: &ActionDigest,
        result: &ActionResult,
        origin: impl FnOnce(&rusqlite::Connection) -> Result<(), rusqlite::Error>,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(result).map_err(|_| StoreError::Row(digest.to_string()))?;
        self.change(|index| {
            index
                .prepare_cached("INSERT OR REPLACE INTO actions(digest, result) VALUES(?1, ?2)")?
                .execute(params![digest.as_bytes(), text])?;
            origin(index)?;
            note(index, digest.as_bytes())
        })
    }

    /// Waits until no other process runs the action, and keeps others out until the lock is dropped.
    ///
    /// Gives up with `None` once `stop` says so.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn lock_action(
        &self,
        digest: &ActionDigest,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<ActionLock>, StoreError> {
        let path = self.dir().join("locks").join(digest.to_string());
        let file = lock_file(&path)?;
        let is_held = self.wait_for(&file, &path, stop)?;
        Ok(is_held.then_some(ActionLock { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_result_counts_only_while_its_objects_are_there() {
        let dir = Folder::new();
        let store = dir.store();
        let action = ActionDigest::of_encoding(b"action");
        assert_eq!(store.action(&action).unwrap(), None);
        let blob = store.put(b"bytes").unwrap();
        let result = ActionResult {
            outputs: BTreeMap::from([("image".to_owned(), blob.into())]).into(),
            ..ActionResult::default()
        };
        store.set_action(&action, &result).unwrap();
        assert_eq!(store.action(&action).unwrap(), Some(result));
        std::fs::remove_file(store.object_path(&blob.digest)).unwrap();
        assert_eq!(store.action(&action).unwrap(), None);
    }
}
