//! A store: its objects, and above them what actions gave, for whom, and what keeps it.

use std::ops::Deref;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rusqlite::params;

use crate::digest::ActionDigest;
use crate::file::OnFile;
use crate::objects::{Objects, StoreError};

/// An open store. It does all that its [`Objects`] do.
#[derive(Debug)]
pub struct Store {
    objects: Objects,
}

/// Whoever may use the whole store may use its objects.
impl Deref for Store {
    type Target = Objects;

    fn deref(&self) -> &Objects {
        &self.objects
    }
}

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
    /// Opens the store in `dir`, making it where nothing is.
    ///
    /// # Errors
    /// [`StoreError`]: the folder cannot be made or written, or holds another version's store.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        Ok(Store { objects: Objects::open(dir)? })
    }

    /// Returns the objects alone: what a step may use.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Returns where the log of a failed action is kept.
    pub fn log_path(&self, action: &crate::digest::ActionDigest) -> PathBuf {
        self.dir.join("logs").join(format!("{action}.log"))
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
        let path = path.canonicalize().on_file("resolve", path)?;
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
            let path = PathBuf::from(std::ffi::OsString::from_vec(path));
            let parsed: Result<Vec<ActionDigest>, _> = actions.split_whitespace().map(str::parse).collect();
            let actions = parsed.map_err(|_| StoreError::Row(path.display().to_string()))?;
            Ok(Root { path, spec, actions })
        };
        rows.into_iter().map(root).collect()
    }
}
