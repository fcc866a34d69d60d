//! How bytes become objects: written to the scratch folder, synced, made read-only, named, entered in the index.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::{Blob, Objects, StoreError};
use crate::digest::{BlobHasher, TreeDigest};
use crate::file::{FileError, OnFile};
use crate::index::{self, lock};
use crate::tree::Tree;

impl Objects {
    /// Stores `bytes`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).on_file("write", &writer.path)?;
        writer.commit()
    }

    /// Stores a tree's encoding. The bytes of its files are another matter: see [`crate::source`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_tree(&self, tree: &Tree) -> Result<TreeDigest, StoreError> {
        self.put(&tree.encode())?;
        Ok(tree.digest())
    }

    /// Starts a blob whose bytes come piece by piece.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        let path = self.scratch_name("blob");
        let file = File::create_new(&path).on_file("make", &path)?;
        Ok(BlobWriter { store: self, path, file, hasher: BlobHasher::default() })
    }

    /// Takes the file at `path` into the store; the file is gone afterwards.
    ///
    /// It must lie in a [`WorkDir`](super::WorkDir) of this store, and nobody may still be writing to it.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn adopt(&self, path: &Path) -> Result<Blob, StoreError> {
        let file = File::open(path).on_file("open", path)?;
        // The disk is busy with it while it is hashed.
        let (hasher, synced) = std::thread::scope(|scope| {
            let sync = scope.spawn(|| file.sync_data());
            let hasher = self.hash_file(path);
            (hasher, sync.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs it failed"))))
        });
        synced.on_file("sync", path)?;
        let hasher = hasher?;
        self.enter(&file, path, Blob::hashed(&hasher))
    }

    /// Copies `length` bytes, or all there are, to the file at `path`; returns how many there were.
    pub(super) fn copy(
        &self,
        mut from: impl Read,
        to: &mut impl Write,
        path: &Path,
        length: u64,
    ) -> Result<u64, StoreError> {
        let mut copied = 0;
        while copied < length {
            self.check_stopped()?;
            let mut piece = from.by_ref().take(COPIED.min(length - copied));
            match io::copy(&mut piece, to).on_file("write", path)? {
                0 => break,
                read => copied += read,
            }
        }
        Ok(copied)
    }

    /// Syncs a finished file, gives it its name and enters it in the index.
    fn enter(&self, file: &File, path: &Path, blob: Blob) -> Result<Blob, StoreError> {
        let Blob { digest, size } = blob;
        let object = self.object_path(&digest);
        let is_there = || fs::metadata(&object).is_ok_and(|found| found.len() == size);
        if !is_there() {
            take(file, path)?;
            file.set_permissions(fs::Permissions::from_mode(0o444)).on_file("chmod", path)?;
            file.sync_data().on_file("sync", path)?;
            if let Some(folder) = object.parent() {
                fs::create_dir_all(folder).on_file("make", folder)?;
            }
        }
        // The collector removes an object and its row under the same lock: it is there with both, or is made anew.
        let mut failure = None;
        let there = self.change(|index| {
            let there = is_there();
            let result = if there {
                fs::remove_file(path).on_file("remove", path)
            } else {
                // It may have gone since the look above, but then its bytes are on the disk all the same.
                let synced = file.sync_data().on_file("sync", path);
                synced.and_then(|()| fs::rename(path, &object).on_file("name", &object))
            };
            failure = result.err();
            if failure.is_none() {
                index
                    .prepare_cached("DELETE FROM compositions WHERE digest = ?1")?
                    .execute(params![digest.as_bytes()])?;
                enter_row(index, &blob)?;
            }
            Ok(there)
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        lock(&self.touched).insert(digest);
        if !there {
            lock(&self.verified).insert(digest);
        }
        Ok(blob)
    }
}

/// Enters an object in the index within a transaction, with a use of it.
pub(super) fn enter_row(index: &Connection, blob: &Blob) -> Result<(), rusqlite::Error> {
    index
        .prepare_cached("INSERT OR IGNORE INTO objects(digest, size, sha256) VALUES(?1, ?2, x'')")?
        .execute(params![blob.digest.as_bytes(), blob.size as i64])?;
    index::note(index, blob.digest.as_bytes())
}

/// So many bytes are copied before somebody asks whether to go on: a multiple of every file system's blocks, which are shared
/// where that can be.
const COPIED: u64 = 16 << 20;

/// A blob being written; it becomes an object by [`BlobWriter::commit`] or leaves nothing.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Objects,
    pub(super) path: PathBuf,
    file: File,
    hasher: BlobHasher,
}

impl BlobWriter<'_> {
    /// Returns the blob of what was written until now.
    pub(super) fn blob(&self) -> Blob {
        Blob::hashed(&self.hasher)
    }

    /// Stores what was written.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn commit(self) -> Result<Blob, StoreError> {
        self.store.enter(&self.file, &self.path, Blob::hashed(&self.hasher))
    }

    /// Takes in all that `reader` gives.
    ///
    /// # Errors
    /// [`StoreError::File`]: reading or writing failed.
    pub fn copy_from(&mut self, reader: impl Read) -> Result<u64, StoreError> {
        let (store, path) = (self.store, self.path.clone());
        store.copy(reader, self, &path, u64::MAX)
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        // Nothing is there after a commit.
        let _ = fs::remove_file(&self.path);
    }
}
/// Makes a file this user's: a tool may have written it as somebody else.
pub(super) fn take(file: &File, path: &Path) -> Result<(), FileError> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if file.metadata().on_file("look at", path)?.uid() == user.as_raw() {
        return Ok(());
    }
    rustix::fs::fchown(file, Some(user), Some(group)).map_err(io::Error::from).on_file("take", path)
}
