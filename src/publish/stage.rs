//! Folders of ours beside a published one: made under names that nobody had, known again by a mark in them, locked while they are used.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cache::file::{OnFile, lock_file};
use cache::{FileError, Store, StoreError};

/// How long an empty folder may be about to get its mark.
const YOUNG: Duration = Duration::from_secs(60);

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

/// Returns the folder that a folder is in.
pub(super) fn above(folder: &Path) -> &Path {
    folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Tells whether a folder was made just now and may be about to get its mark; where nobody else works, none is.
pub(super) fn is_begun(path: &Path) -> bool {
    let made = path.metadata().and_then(|found| found.modified());
    let is_young = made.is_ok_and(|made| made.elapsed().map_or(true, |age| age < YOUNG));
    is_young && !path.join(MARK).exists()
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_folder_without_a_mark_is_left_over_and_one_of_this_minute_may_be_begun() {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::fresh(dir.path(), ".x-").unwrap();
        assert!(!is_begun(&stage.top));
        let empty = dir.path().join(".x-empty");
        fs::create_dir(&empty).unwrap();
        let foreign = dir.path().join(".x-foreign");
        fs::create_dir_all(foreign.join("mine")).unwrap();
        let mut found = left(dir.path(), ".x-");
        found.sort();
        let mut expected = [stage.top.clone(), empty.clone()];
        expected.sort();
        assert_eq!(found, expected, "what holds somebody's files is not ours");
        assert!(is_begun(&empty));
        File::open(&empty).unwrap().set_modified(SystemTime::now() - 2 * YOUNG).unwrap();
        assert!(!is_begun(&empty));
    }
}
