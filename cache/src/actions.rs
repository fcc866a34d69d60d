//! What an action yielded: named outputs, each a blob or a tree.
//!
//! A result is entered after all its objects, and counts only while all of them are there.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::digest::{ActionDigest, TreeDigest};
use crate::source::Bytes;
use crate::store::{Blob, Store, StoreError, note};

/// How often a waiting process tries again.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

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

/// All that an action yielded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActionResult {
    /// The outputs by name.
    pub outputs: BTreeMap<String, Output>,
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
        for output in result.outputs.values() {
            let there = match &output.object {
                Object::Blob(blob) => self.contains(&blob.digest),
                Object::Tree(tree) => self.has_bytes(tree, &output.bytes),
            };
            match there {
                Ok(true) => {}
                // What is damaged is made again.
                Ok(false)
                | Err(StoreError::Missing(_) | StoreError::Damaged(_) | StoreError::NotATree { .. }) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(result))
    }

    /// Records what an action yielded; its objects must be in the store.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn set_action(&self, digest: &ActionDigest, result: &ActionResult) -> Result<(), StoreError> {
        let text = serde_json::to_string(result).map_err(|_| StoreError::Row(digest.to_string()))?;
        self.change(|index| {
            index
                .prepare_cached("INSERT OR REPLACE INTO actions(digest, result) VALUES(?1, ?2)")?
                .execute(params![digest.as_bytes(), text])?;
            note(index, digest.as_bytes())
        })
    }

    /// Waits until no other process runs the action, and keeps others out until the lock is dropped.
    ///
    /// Gives up with `None` once `stop` says so.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn lock_action(
        &self,
        digest: &ActionDigest,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<ActionLock>, StoreError> {
        let path = self.dir().join("locks").join(digest.to_string());
        let file =
            File::options().create(true).append(true).open(&path).map_err(StoreError::io("make", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(ActionLock { _file: file })),
                Err(TryLockError::WouldBlock) if stop() => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
                Err(TryLockError::Error(source)) => {
                    return Err(StoreError::Io { what: "lock", path, source });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_counts_only_while_its_objects_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let action = ActionDigest::of_encoding(b"action");
        assert_eq!(store.action(&action).unwrap(), None);
        let blob = store.put(b"bytes").unwrap();
        let result = ActionResult {
            outputs: BTreeMap::from([("image".to_owned(), blob.into())]),
            ..ActionResult::default()
        };
        store.set_action(&action, &result).unwrap();
        assert_eq!(store.action(&action).unwrap(), Some(result));
        std::fs::remove_file(store.object_path(&blob.digest)).unwrap();
        assert_eq!(store.action(&action).unwrap(), None);
    }
}
