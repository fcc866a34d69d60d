//! Files of a store, as the ones who clean and verify it see them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::StoreError;
use crate::digest::BlobDigest;
use crate::file::{FileError, OnFile};
use crate::index::{FORMER, VERSION};

/// Bytes of the reserve: more than the log of the index grows to before it is used anew (1,000 pages of 4 KiB).
const RESERVE: u64 = 8 << 20;

/// Tells whether this version can use the store in `dir`, and makes it its own where it is new or older.
pub(super) fn check_version(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("version");
    match fs::read_to_string(&path) {
        Ok(found) if found == VERSION => Ok(()),
        Ok(found) if !FORMER.contains(&&*found) => Err(StoreError::Version { path, found }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError { what: "read", path, source: error }.into())
        }
        _ => {
            let fresh = dir.join(format!("version.{}", std::process::id()));
            fs::write(&fresh, VERSION).on_file("write", &fresh)?;
            Ok(fs::rename(&fresh, &path).on_file("write", &path)?)
        }
    }
}

/// Holds room for the next collector, if nobody does. A file system that cannot, or is full already, has none.
pub(crate) fn hold_reserve(dir: &Path) {
    let path = dir.join("reserve");
    if !path.exists() {
        let held =
            File::create(&path).and_then(|file| Ok(fallocate(file, FallocateFlags::empty(), 0, RESERVE)?));
        if held.is_err() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError { what: "remove", path: path.to_owned(), source: error }.into())
        }
        _ => Ok(()),
    }
}

/// Returns every file below `objects/`; the digest is missing where the name is none.
pub(crate) fn object_files(store: &Path) -> Result<Vec<(Option<BlobDigest>, PathBuf)>, StoreError> {
    let objects = store.join("objects");
    let mut files = Vec::new();
    for folder in fs::read_dir(&objects).on_file("list", &objects)? {
        let folder = folder.on_file("list", &objects)?.path();
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.on_file("list", &folder)?.path();
            let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
            let hex = format!("{}{}", name(&folder).unwrap_or_default(), name(&path).unwrap_or_default());
            files.push((hex.parse().ok(), path));
        }
    }
    Ok(files)
}
