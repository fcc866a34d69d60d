//! The store: objects under their digests, and what is known about them.
//!
//! ```text
//! <store>/
//!   version                 "stagegraph store 5\n"; a store of a newer version is left alone, one of an older taken over
//!   objects/ab/cdef…        one file an object, named by its BLAKE3, mode 0444, never edited
//!   index.sqlite (-wal)     objects (size, SHA-256), compositions (objects made of pieces of others), actions and their
//!                           results, memos, file digests, uses, roots, and where in which image a compressed block lies
//!   checkouts/<tree>/       trees laid out as folders, for programs that run from them; see `checkout`
//!   published/<folder>      what was published beside other files there, hashed with their name
//!   locks/<action>          held while that action runs, so that no two processes run it at once
//!   scratch/<id>/           one process's temporary files, work folders and compositions written out, with a lock it holds
//!   logs/<action>.log       what a failed action's tools printed
//!   reserve                 room that the collector gives up while it works: on a full disk it could not begin otherwise
//! ```
//! A blob is written to the scratch folder, synced, made read-only, linked to its name, and only then
//! entered in the index: a process may be killed and the power may fail between any two of these
//! steps, and what is found afterwards is whole or absent. A scratch folder whose lock nobody holds
//! belonged to a process that died; whoever opens the store next removes it.
//!
//! Bytes are hashed again when they are read. An object that does not hold what its name says is
//! taken out of the store at once, so that the next build makes it again.
//!
//! An object may be known, and its bytes be elsewhere: they are fetched when somebody reads them; see [`upstream`].

mod away;
mod chunks;
mod compositions;
mod elsewhere;
mod error;
pub(crate) mod files;
mod pieces;
mod scratch;
pub mod upstream;
mod uses;
mod whole;
mod write;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, params};
use rustix::fs::{AtFlags, statat};
use sha2::Digest;

pub use self::compositions::{Held, Part};
pub use self::error::StoreError;
pub use self::pieces::Composition;
pub use self::scratch::WorkDir;
pub(crate) use self::scratch::remove_all;
pub use self::write::BlobWriter;
use crate::digest::{BlobDigest, BlobHasher, Sha256, TreeDigest};
use crate::file::{self, FileError, OnFile};
use crate::index::{self, lock};
use crate::tree::Tree;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// The size of a log of the index that is left to the next process.
const SMALL_LOG: u64 = 128 << 10;

/// A blob's name and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Blob {
    /// The name.
    pub digest: BlobDigest,
    /// Number of bytes.
    pub size: u64,
}

impl Blob {
    /// Returns the blob of all that was hashed.
    fn hashed(hasher: &BlobHasher) -> Self {
        Self { digest: hasher.finish(), size: hasher.size() }
    }
}

/// An open store.
#[derive(Debug)]
pub struct Objects {
    pub(crate) dir: PathBuf,
    /// The folder of objects.
    objects: File,
    index: Mutex<Connection>,
    pub(crate) scratch: PathBuf,
    /// Held for as long as the scratch folder is in use.
    _scratch_lock: File,
    counter: AtomicU64,
    /// Objects this process has hashed already.
    verified: Mutex<HashSet<BlobDigest>>,
    /// Objects whose use this process has noted.
    touched: Mutex<HashSet<BlobDigest>>,
    /// Where this process has written out compositions.
    wholes: Mutex<HashMap<BlobDigest, whole::Whole>>,
    /// Set where everything that takes long is to stop.
    stop: Mutex<Arc<AtomicBool>>,
    /// Who is told what is waited for.
    waits: Mutex<Option<Waits>>,
    /// Folders that builds write to, beside the store's own.
    outputs: Mutex<Vec<PathBuf>>,
    /// Where bytes come from that are not here.
    away: away::Away,
}

/// Who is told what is waited for.
type Waits = fn(&str);

impl Objects {
    /// Tells whether a process works in the store in the folder `dir`, as far as it can be seen from outside.
    pub fn is_used(dir: &Path) -> bool {
        scratch::is_used(&dir.join("scratch"))
    }

    /// Opens the store in `dir`, making it where nothing is.
    ///
    /// # Errors
    /// [`StoreError`]: the folder cannot be made or written, or holds another version's store.
    pub fn open(dir: &Path) -> Result<Objects, StoreError> {
        let make = |path: &Path| {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).on_file("make", path)
        };
        make(dir)?;
        let dir = dir.canonicalize().on_file("resolve", dir)?;
        let (owner, user) =
            (dir.metadata().on_file("look at", &dir)?.uid(), rustix::process::geteuid().as_raw());
        if user == 0 && owner != 0 {
            // What root made in it, its owner could not write to any more.
            return Err(StoreError::OfAnother { path: dir, owner });
        }
        files::check_version(&dir)?;
        for name in ["objects", "locks", "scratch", "logs"] {
            make(&dir.join(name))?;
        }
        scratch::sweep(&dir.join("scratch"))?;
        let (scratch, lock) = scratch::claim(&dir.join("scratch"))?;
        // Whoever makes the index switches it to a log; others that open it at that moment would be turned away at once.
        let path = dir.join("locks/index");
        let alone = file::lock_file(&path)?;
        alone.lock().on_file("lock", &path)?;
        let path = dir.join("index.sqlite");
        let index = index::open(&path).map_err(|source| StoreError::index(path, source))?;
        drop(alone);
        files::hold_reserve(&dir);
        let path = dir.join("objects");
        let objects = File::open(&path).on_file("open", &path)?;
        Ok(Objects {
            dir,
            objects,
            index: Mutex::new(index),
            scratch,
            _scratch_lock: lock,
            counter: AtomicU64::new(0),
            verified: Mutex::default(),
            touched: Mutex::default(),
            wholes: Mutex::default(),
            stop: Mutex::default(),
            waits: Mutex::default(),
            outputs: Mutex::default(),
            away: away::Away::default(),
        })
    }

    /// Has hashing and copying stop soon after `flag` is set, with [`StoreError::Stopped`].
    pub fn stop_by(&self, flag: Arc<AtomicBool>) {
        *lock(&self.stop) = flag;
    }

    /// Has `say` told what is waited for where that takes long.
    pub fn say_waits(&self, say: fn(&str)) {
        *lock(&self.waits) = Some(say);
    }

    /// Says that builds write to a folder.
    ///
    /// # Errors
    /// It is not there.
    pub fn add_output(&self, folder: &Path) -> Result<(), StoreError> {
        let folder = folder.canonicalize().on_file("resolve", folder)?;
        lock(&self.outputs).push(folder);
        Ok(())
    }

    /// Returns the folders that builds write to which lie in another one, or are it: the store's, and those that were named. What they hold
    /// changes with every build.
    pub fn written_below(&self, folder: &Path) -> Vec<PathBuf> {
        let Ok(folder) = folder.canonicalize() else { return Vec::new() };
        let outputs = lock(&self.outputs);
        let all = outputs.iter().chain([&self.dir]);
        all.filter(|written| written.starts_with(&folder)).cloned().collect()
    }

    /// Waits for a lock on a file; returns whether it was got before everything is to stop.
    ///
    /// # Errors
    /// The file cannot be locked.
    pub fn wait_for(&self, file: &File, path: &Path, stop: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        let say = *lock(&self.waits);
        let tell = |text: &str| say.iter().for_each(|say| say(text));
        let is_stopped = || stop() || lock(&self.stop).load(Ordering::Relaxed);
        Ok(file::lock_patiently(file, path, &is_stopped, &tell)?)
    }

    /// Hashes the file at `path`.
    pub(crate) fn hash_file(&self, path: &Path) -> Result<BlobHasher, StoreError> {
        let stop = Arc::clone(&lock(&self.stop));
        let hashed = BlobHasher::of_file(path, &|| stop.load(Ordering::Relaxed)).on_file("read", path)?;
        hashed.ok_or(StoreError::Stopped)
    }

    /// Returns an error where everything is to stop.
    pub(crate) fn check_stopped(&self) -> Result<(), StoreError> {
        if lock(&self.stop).load(Ordering::Relaxed) { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Returns the folder the store is in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs `query` on the index.
    pub(crate) fn index<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let index = lock(&self.index);
        query(&index).map_err(|source| StoreError::index(self.dir.join("index.sqlite"), source))
    }

    /// Returns where the object of that name is, or would be; a composition has no such file: see [`Objects::located`].
    pub fn object_path(&self, digest: &BlobDigest) -> PathBuf {
        let hex = digest.to_string();
        self.dir.join("objects").join(&hex[..2]).join(&hex[2..])
    }

    /// Makes a fresh, empty work folder that goes away with this process.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn work_dir(&self) -> Result<WorkDir, StoreError> {
        let path = self.scratch_name("work");
        fs::create_dir(&path).on_file("make", &path)?;
        Ok(WorkDir { path })
    }

    fn scratch_name(&self, kind: &str) -> PathBuf {
        self.scratch.join(format!("{kind}-{}", self.counter.fetch_add(1, Ordering::Relaxed)))
    }

    /// Tells whether the object is there and has as many bytes as the index says; of a composition, whether all its
    /// pieces are. One whose bytes an upstream has is there as well, until somebody reads it in vain.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn contains(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        let Some((size, _)) = self.row(digest)? else { return self.is_elsewhere(digest) };
        match fs::metadata(self.object_path(digest)) {
            Ok(found) => Ok(found.len() == size),
            Err(_) => Ok(self.is_composed(digest)? || self.is_elsewhere(digest)?),
        }
    }

    /// Tells whether an object is a file of its own, with as many bytes as the index says.
    fn is_file(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        let Some((size, _)) = self.row(digest)? else { return Ok(false) };
        Ok(fs::metadata(self.object_path(digest)).is_ok_and(|found| found.len() == size))
    }

    /// Tells whether a blob of which there is a row is there, with as many bytes as it should have.
    pub(crate) fn has_file(&self, blob: &Blob) -> Result<bool, StoreError> {
        let found = statat(&self.objects, &blob.digest.place()[..], AtFlags::empty());
        let there = found.is_ok_and(|found| u64::try_from(found.st_size) == Ok(blob.size));
        if there { Ok(true) } else { self.contains(&blob.digest) }
    }

    fn row(&self, digest: &BlobDigest) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.index(|index| {
            index
                .prepare_cached("SELECT size, sha256 FROM objects WHERE digest = ?1")?
                .query_row(params![digest.as_bytes()], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))
                .optional()
        })
    }

    /// Returns the SHA-256 of an object. Whoever asks first has the object read; it is kept beside the name from then on.
    ///
    /// # Errors
    /// [`StoreError::Missing`], and [`StoreError::Damaged`] where it holds something else; it is then removed.
    pub fn sha256(&self, digest: &BlobDigest) -> Result<Sha256, StoreError> {
        if self.row(digest)?.is_none() {
            self.located(digest)?;
        }
        let (_, kept) = self.row(digest)?.ok_or(StoreError::Missing(*digest))?;
        if !kept.is_empty() {
            return Sha256::from_slice(&kept).ok_or_else(|| StoreError::Row(digest.to_string()));
        }
        let mut sha256 = sha2::Sha256::default();
        self.read_through(digest, |piece| sha256.update(piece))?;
        self.keep_sha256(digest, sha256)
    }

    /// Keeps the SHA-256 of an object whose bytes were all handed over; see [`Objects::read_through`].
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn keep_sha256(&self, digest: &BlobDigest, sha256: sha2::Sha256) -> Result<Sha256, StoreError> {
        let sha256 = Sha256::from(sha256);
        self.index(|index| {
            index
                .prepare_cached("UPDATE objects SET sha256 = ?2 WHERE digest = ?1")?
                .execute(params![digest.as_bytes(), sha256.as_bytes()])
        })?;
        Ok(sha256)
    }

    /// Reads an object and hands over its bytes piece by piece, while its digest is made anew of them.
    ///
    /// # Errors
    /// As [`Objects::sha256`]: what was handed over is of no use then.
    pub fn read_through(
        &self,
        digest: &BlobDigest,
        mut each: impl FnMut(&[u8]) + Send,
    ) -> Result<(), StoreError> {
        let path = self.located(digest)?;
        let mut object = File::open(&path).on_file("open", &path)?;
        let mut hasher = BlobHasher::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            self.check_stopped()?;
            let read = object.read(&mut buffer).on_file("read", &path)?;
            if read == 0 {
                break;
            }
            let piece = &buffer[..read];
            rayon::join(|| each(piece), || hasher.update(piece));
        }
        if hasher.finish() != *digest {
            // Takes the damaged object out, so that the next build makes it again.
            self.verified_again(digest)?;
            return Err(StoreError::Damaged(*digest));
        }
        Ok(())
    }

    /// Reads a tree.
    ///
    /// # Errors
    /// [`StoreError`]: it is missing, damaged or no tree.
    pub fn tree(&self, digest: &TreeDigest) -> Result<Tree, StoreError> {
        let bytes = self.read(&digest.encoding())?;
        Tree::decode(&bytes).map_err(|source| StoreError::NotATree { digest: *digest, source })
    }

    /// Returns the path of an object after hashing it, once in this process; a composition is written out first.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Damaged`] where it holds something else; it, or the piece at fault, is
    /// then removed.
    pub fn verified(&self, digest: &BlobDigest) -> Result<PathBuf, StoreError> {
        self.touch(digest)?;
        let path = self.located(digest)?;
        if lock(&self.verified).contains(digest) && path.exists() {
            return Ok(path);
        }
        match self.hash_file(&path).map(|hasher| hasher.finish()) {
            Ok(found) if found == *digest => {
                lock(&self.verified).insert(*digest);
                Ok(path)
            }
            Ok(_) if path == self.object_path(digest) => {
                self.remove(digest)?;
                Err(StoreError::Damaged(*digest))
            }
            Ok(_) => Err(self.remove_composed(digest)?),
            Err(StoreError::File(error)) if error.source.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing(*digest))
            }
            Err(error) => Err(error),
        }
    }

    /// Hashes an object even if this process has done so before, and returns its path.
    ///
    /// # Errors
    /// As [`Objects::verified`].
    pub fn verified_again(&self, digest: &BlobDigest) -> Result<PathBuf, StoreError> {
        lock(&self.verified).remove(digest);
        self.verified(digest)
    }

    /// Reads a whole object into memory, verified.
    ///
    /// # Errors
    /// [`StoreError`]: it is missing or damaged.
    pub fn read(&self, digest: &BlobDigest) -> Result<Vec<u8>, StoreError> {
        self.touch(digest)?;
        self.read_as_it_is(digest)
    }

    /// Reads a tree without noting a use: the collector looks at all of them.
    pub(crate) fn tree_as_it_is(&self, digest: &TreeDigest) -> Result<Tree, StoreError> {
        let bytes = self.read_as_it_is(&digest.encoding())?;
        Tree::decode(&bytes).map_err(|source| StoreError::NotATree { digest: *digest, source })
    }

    fn read_as_it_is(&self, digest: &BlobDigest) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(digest);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A composition, or nothing at all.
                let whole = self.verified(digest)?;
                Ok(fs::read(&whole).on_file("read", whole)?)
            }
            Ok(bytes) if BlobDigest::of(&bytes) == *digest => Ok(bytes),
            Ok(_) => {
                self.remove(digest)?;
                Err(StoreError::Damaged(*digest))
            }
            Err(source) => Err(FileError { what: "read", path, source }.into()),
        }
    }

    /// Opens an object for reading in pieces, verified first.
    ///
    /// # Errors
    /// [`StoreError`]: it is missing or damaged.
    pub fn open_object(&self, digest: &BlobDigest) -> Result<File, StoreError> {
        let path = self.verified(digest)?;
        Ok(File::open(&path).on_file("open", path)?)
    }

    pub(crate) fn remove(&self, digest: &BlobDigest) -> Result<(), StoreError> {
        let path = self.object_path(digest);
        self.change(|index| {
            index.execute("DELETE FROM compositions WHERE digest = ?1", params![digest.as_bytes()])?;
            index.execute("DELETE FROM objects WHERE digest = ?1", params![digest.as_bytes()])
        })?;
        // Another process may have found the same.
        files::remove_if_there(&path)
    }

    /// Returns what was remembered under `key` in `space`.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn memo(&self, space: &str, key: &str) -> Result<Option<String>, StoreError> {
        self.index(|index| {
            index
                .prepare_cached("SELECT value FROM memos WHERE space = ?1 AND key = ?2")?
                .query_row(params![space, key], |row| row.get(0))
                .optional()
        })
    }

    /// Remembers `value` under `key` in `space`.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn set_memo(&self, space: &str, key: &str, value: &str) -> Result<(), StoreError> {
        self.index(|index| {
            index
                .prepare_cached("INSERT OR REPLACE INTO memos(space, key, value) VALUES(?1, ?2, ?3)")?
                .execute(params![space, key, value])
        })?;
        Ok(())
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // Moving a few rows from the log to the index waits for the disk twice; it can wait for a process that has more.
        let log = fs::metadata(self.dir.join("index.sqlite-wal")).map_or(0, |found| found.len());
        if log < SMALL_LOG {
            let _ = lock(&self.index).set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
        // What stays is swept by whoever opens the store next. The lock goes last: it says whose the folder is.
        if scratch::remove_all(&self.scratch).is_ok() {
            let _ = fs::remove_file(self.scratch.with_extension("lock"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Folder;

    fn store() -> (Folder, Objects) {
        let dir = Folder::new();
        let store = Objects::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn what_is_put_reads_back_and_is_read_only() {
        let (_dir, store) = store();
        let blob = store.put(b"hello").unwrap();
        assert_eq!(blob, Blob { digest: BlobDigest::of(b"hello"), size: 5 });
        assert_eq!(store.read(&blob.digest).unwrap(), b"hello");
        let mode = fs::metadata(store.object_path(&blob.digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(store.put(b"hello").unwrap(), blob);
    }

    #[test]
    fn a_damaged_object_is_found_when_read_and_can_be_stored_again() {
        let (_dir, store) = store();
        let blob = store.put(b"hello").unwrap();
        drop(store);
        let store = Objects::open(_dir.path()).unwrap();
        let path = store.object_path(&blob.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"hellx").unwrap();
        assert!(store.contains(&blob.digest).unwrap(), "size alone does not tell");
        assert!(matches!(store.verified(&blob.digest), Err(StoreError::Damaged(_))));
        assert!(!store.contains(&blob.digest).unwrap());
        assert_eq!(store.put(b"hello").unwrap(), blob);
        assert_eq!(store.read(&blob.digest).unwrap(), b"hello");
    }

    #[test]
    fn a_truncated_object_is_not_contained() {
        let (_dir, store) = store();
        let blob = store.put(b"hello").unwrap();
        let path = store.object_path(&blob.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"he").unwrap();
        assert!(!store.contains(&blob.digest).unwrap());
    }

    #[test]
    fn a_store_of_another_version_is_left_alone() {
        let dir = Folder::new();
        fs::write(dir.path().join("version"), "stagegraph store 99\n").unwrap();
        let error = Objects::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("store 99"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_store_of_the_former_version_is_taken_over() {
        for former in index::FORMER {
            let (dir, store) = store();
            let blob = store.put(b"old").unwrap();
            drop(store);
            fs::write(dir.path().join("version"), former).unwrap();
            assert_eq!(Objects::open(dir.path()).unwrap().read(&blob.digest).unwrap(), b"old");
            assert_eq!(fs::read_to_string(dir.path().join("version")).unwrap(), index::VERSION);
        }
    }

    #[test]
    fn the_sha256_of_an_object_is_kept_once_it_was_asked_for() {
        let (_dir, store) = store();
        let digest = store.put(b"abc").unwrap().digest;
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(store.sha256(&digest).unwrap().to_string(), expected);
        fs::remove_file(store.object_path(&digest)).unwrap();
        assert_eq!(store.sha256(&digest).unwrap().to_string(), expected, "not read again");
    }

    #[test]
    fn a_damaged_object_has_no_sha256() {
        let (_dir, store) = store();
        let digest = store.put(b"abc").unwrap().digest;
        let path = store.object_path(&digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"abd").unwrap();
        assert!(matches!(store.sha256(&digest), Err(StoreError::Damaged(found)) if found == digest));
        assert!(matches!(store.sha256(&digest), Err(StoreError::Missing(_))), "it is removed");
    }

    #[test]
    fn the_scratch_of_a_dead_process_is_swept_and_that_of_a_live_one_is_not() {
        let (dir, live) = store();
        let work = live.work_dir().unwrap();
        let dead = dir.path().join("scratch/0-0");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        let _second = Objects::open(dir.path()).unwrap();
        assert!(!dead.exists());
        assert!(work.path().exists());
    }

    #[test]
    fn an_abandoned_blob_leaves_nothing() {
        let (_dir, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"half").unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(&store.scratch).unwrap().count(), 0);
        assert_eq!(fs::read_dir(store.dir().join("objects")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_taken_in_has_the_same_name_as_its_bytes() {
        let (_dir, store) = store();
        let work = store.work_dir().unwrap();
        let path = work.path().join("out");
        fs::write(&path, b"bytes").unwrap();
        let blob = store.adopt(&path).unwrap();
        assert_eq!(blob.digest, BlobDigest::of(b"bytes"));
        assert!(!path.exists());
    }
}
