//! Folders of ours beside a published one: made under names that nobody had, known again by a mark in them, locked while they are used.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cache::file::{OnFile, lock_file};
use cache::{FileError, Store, StoreError};

/// Says of a folder that it is one of these, and may go.
const MARK: &str = ".stagegraph.stage";

/// What is worked on, in such a folder: the mark outlives it.
const SET: &str = "set";

/// The name of the lock.
const LOCK: &str = ".stagegraph.lock";

/// A folder that nobody else can enter, in one that goes when this is dropped.
#[derive(Debug)]
pub struct Stage {
    top: PathBuf,
    path: PathBuf,
}

impl Stage {
    /// Makes one in the folder `above`, under a name of its own that begins with `start`.
    pub(super) fn fresh(above: &Path, start: &str) -> Result<Self, FileError> {
        let made = tempfile::Builder::new().prefix(start).tempdir_in(above);
        let top = made.on_file("make a folder in", above)?.keep();
        let stage = Self { path: top.join(SET), top };
        let mark = stage.top.join(MARK);
        File::create_new(&mark).on_file("write", &mark)?;
        fs::create_dir(&stage.path).on_file("make", &stage.path)?;
        Ok(stage)
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left of it is removed by the next process.
        let _ = remove(&self.top);
    }
}

/// Removes such a folder: its mark last.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    let set = path.join(SET);
    if set.symlink_metadata().is_ok() {
        fs::remove_dir_all(&set).on_file("remove", &set)?;
    }
    fs::remove_dir_all(path).on_file("remove", path)
}

/// Returns the folders of that beginning that a process left behind: those of this user's with the mark in them, or with nothing.
pub(super) fn left(above: &Path, start: &str) -> Vec<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let is_own = |path: &Path, is_kind: fn(&fs::Metadata) -> bool| {
        path.symlink_metadata().is_ok_and(|found| found.uid() == own && is_kind(&found))
    };
    let is_empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let entries = fs::read_dir(above).into_iter().flatten().flatten();
    let paths = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(start.as_bytes()));
    let paths = paths.map(|entry| entry.path()).filter(|path| {
        is_own(path, fs::Metadata::is_dir)
            && (is_own(&path.join(MARK), fs::Metadata::is_file) || is_empty(path))
    });
    paths.collect()
}

/// Returns what is worked on in a folder that a process left behind.
pub(super) fn set_of(left: &Path) -> PathBuf {
    left.join(SET)
}

/// Keeps other processes from publishing into a folder.
pub(super) struct Alone {
    path: PathBuf,
    _file: File,
}

impl Alone {
    /// Waits until nobody else publishes into the folder `above`.
    pub(super) fn in_folder(store: &Store, above: &Path) -> Result<Self, StoreError> {
        let path = above.join(LOCK);
        loop {
            let file = lock_file(&path)?;
            if !store.wait_for(&file, &path, &|| false)? {
                return Err(StoreError::Stopped);
            }
            // Who held it before has removed it.
            let is_same =
                |found: fs::Metadata, own: fs::Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
            let found = path.symlink_metadata().ok().zip(file.metadata().ok());
            if found.is_some_and(|(found, own)| is_same(found, own)) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // While it is held: whoever waits for it sees that it is gone, and makes one anew.
        let _ = fs::remove_file(&self.path);
    }
}
