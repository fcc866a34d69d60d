//! When objects and results were last used, for whom, and what keeps them.
//!
//! A process notes a use before it relies on what it found. The collector asks for the same lock to remove
//! something, and leaves alone what was used since the oldest running process began; so nothing goes
//! away under a build.

use std::path::{Path, PathBuf};

use rusqlite::{Transaction, TransactionBehavior, params};

use super::pieces::note_pieces;
use super::{Store, StoreError};
use crate::digest::{ActionDigest, BlobDigest};
use crate::index::{lock, note};

/// For whom an action ran or was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The spec.
    pub spec: String,
    /// The node.
    pub node: String,
    /// The kind of step.
    pub kind: String,
}

/// Something outside the store that keeps results in it, as long as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The file or folder.
    pub path: PathBuf,
    /// The spec it was built from.
    pub spec: String,
    /// The results it was built from.
    pub actions: Vec<ActionDigest>,
}

impl Store {
    /// Runs `change` on the index with nobody else writing to it, and keeps what it did.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let index = lock(&self.index);
        let run = || {
            let transaction = Transaction::new_unchecked(&index, TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|source| StoreError::index(self.dir.join("index.sqlite"), source))
    }

    /// Notes that this process relies on an object, and on its pieces if it is a composition; once in its life.
    pub(crate) fn touch(&self, digest: &BlobDigest) -> Result<(), StoreError> {
        if !lock(&self.touched).contains(digest) {
            self.index(|index| {
                note(index, digest.as_bytes())?;
                note_pieces(index, digest)
            })?;
            // Not before: another thread would rely on what is not noted yet.
            lock(&self.touched).insert(*digest);
        }
        Ok(())
    }

    /// Notes for whom an action ran or was found.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn note_owner(&self, action: &ActionDigest, owner: &Owner) -> Result<(), StoreError> {
        self.index(|index| {
            index
                .prepare_cached(
                    "INSERT OR IGNORE INTO owners(action, spec, node, kind) VALUES(?1, ?2, ?3, ?4)",
                )?
                .execute(params![action.as_bytes(), owner.spec, owner.node, owner.kind])
                .map(drop)
        })
    }

    /// Keeps the results of `actions` for as long as `path` is there; what that path kept before, is let go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_root(&self, path: &Path, spec: &str, actions: &[ActionDigest]) -> Result<(), StoreError> {
        let path = path.canonicalize().map_err(StoreError::io("resolve", path))?;
        let text = actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let key = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let known = self.index(|index| {
            index
                .prepare_cached("SELECT 1 FROM roots WHERE path = ?1 AND spec = ?2 AND actions = ?3")?
                .exists(params![key, spec, text])
        })?;
        if known {
            return Ok(());
        }
        self.index(|index| {
            index
                .prepare_cached("INSERT OR REPLACE INTO roots(path, spec, actions) VALUES(?1, ?2, ?3)")?
                .execute(params![key, spec, text])
                .map(drop)
        })
    }

    /// Returns all roots, whether or not they are still there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        let rows: Vec<(Vec<u8>, String, String)> = self.index(|index| {
            let mut query = index.prepare("SELECT path, spec, actions FROM roots ORDER BY path")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })?;
        let root = |(path, spec, actions): (Vec<u8>, String, String)| {
            let path = PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(&path).into_owned()));
            let parsed: Result<Vec<ActionDigest>, _> = actions.split_whitespace().map(str::parse).collect();
            let actions = parsed.map_err(|_| StoreError::Row(path.display().to_string()))?;
            Ok(Root { path, spec, actions })
        };
        rows.into_iter().map(root).collect()
    }
}
