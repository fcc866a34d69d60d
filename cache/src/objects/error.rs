//! Why the store could not do what it was asked.

use std::path::PathBuf;

use crate::digest::{BlobDigest, TreeDigest};
use crate::file::FileError;
use crate::index::VERSION;
use crate::tree::DecodeError;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused something about a file of the store, or one it was to read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index could not be read or written.
    #[error("the index of the store, {path}")]
    Index {
        /// The SQLite file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The index is no database any more.
    #[error("the index of the store, {path}, is damaged")]
    IndexDamaged {
        /// The SQLite file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Another program's folder, or a newer version's store.
    #[error("{path} was written by another version of stagegraph ({found:?}); this one reads {VERSION:?}")]
    Version {
        /// The version file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A folder that has something in it and is no store.
    #[error(
        "{path} is no store, and is not empty: it has {name:?}; a store is made in a new or an empty folder"
    )]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// Something that is in it.
        name: String,
    },
    /// It belongs to somebody else, and this is root.
    #[error(
        "the store {path} belongs to the user {owner}, and what root makes in it is not his; build as him, or name another store"
    )]
    OfAnother {
        /// The store.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
    /// An object is not there.
    #[error("object {0} is not in the store")]
    Missing(BlobDigest),
    /// An object does not hold what its name says.
    #[error("object {0} was damaged, and was removed from the store")]
    Damaged(BlobDigest),
    /// A file was said to have an object's bytes in it, and has others.
    #[error("{path} does not have object {object} at byte {at}")]
    NotHeld {
        /// The file.
        path: PathBuf,
        /// Where they should be.
        at: u64,
        /// Whose bytes they should be.
        object: BlobDigest,
    },
    /// An object that should be a tree is none.
    #[error("object {digest} is not a tree")]
    NotATree {
        /// The object.
        digest: TreeDigest,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A row of the index holds what no version of this program writes.
    #[error("the index of the store has a damaged row for {0}")]
    Row(String),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
    /// A file changed while it was read, or no longer is what its tree says.
    #[error("{path} changed: its bytes are no longer those that were hashed")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Wraps what SQLite said about the index at `path`.
    pub(crate) fn index(path: PathBuf, source: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => StoreError::IndexDamaged { path, source },
            _ => StoreError::Index { path, source },
        }
    }
}
