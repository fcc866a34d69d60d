//! Files of a store, as the ones who clean and verify it see them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::StoreError;
use crate::digest::BlobDigest;
use crate::file::{FileError, OnFile};
use crate::index::{FORMER, VERSION};

/// Bytes of the reserve: more than the log of the index grows to before it is used anew (1,000 pages of 4 KiB).
const RESERVE: u64 = 8 << 20;

/// What a store has in its folder.
const OWN: [&str; 11] = [
    "version",
    "objects",
    "locks",
    "scratch",
    "logs",
    "published",
    "checkouts",
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
    "reserve",
];

/// What the index begins with, if it begins at all.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Tells whether this version can use the store in `dir`, and makes it its own where it is new or older. A folder that has anything
/// in it is a store only if it says so.
pub(super) fn check_version(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("version");
    let read = || match fs::read_to_string(&path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::from(FileError { what: "read", path: path.clone(), source })),
    };
    match read()? {
        Some(found) if found == VERSION => return Ok(()),
        Some(found) if FORMER.contains(&&*found) => {}
        // The power failed when it was made, and its first file lost its content.
        Some(found) if found.is_empty() && has_only_ours(dir)? => {}
        Some(found) => return Err(StoreError::Version { path, found }),
        None => {
            if let Some(name) = first_entry(dir)? {
                // Somebody else may have begun it in between.
                return match read()? {
                    Some(found) if found == VERSION => Ok(()),
                    _ => Err(StoreError::NotAStore { path: dir.to_owned(), name }),
                };
            }
        }
    }
    write_version(dir, &path).on_file("write", &path)?;
    Ok(())
}

/// Writes which version a store is of, so that it lasts before anything relies on it.
fn write_version(dir: &Path, path: &Path) -> io::Result<()> {
    let fresh = dir.join(format!("version.{}", std::process::id()));
    // Left by a process of that number.
    if fresh.symlink_metadata().is_ok() {
        fs::remove_file(&fresh)?;
    }
    let mut file = File::create_new(&fresh)?;
    file.write_all(VERSION.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()?;
    // The folder itself may be as new.
    dir.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

/// Tells whether a name is one that [`write_version`] gives: with the number of a process.
fn is_being_written(name: &str) -> bool {
    let number = name.strip_prefix("version.");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the name of something in a folder that is no beginning of a store: a version that is being written, what a file system
/// has in its top folder.
fn first_entry(dir: &Path) -> Result<Option<String>, StoreError> {
    for entry in fs::read_dir(dir).on_file("list", dir)? {
        let name = entry.on_file("list", dir)?.file_name().to_string_lossy().into_owned();
        if !is_being_written(&name) && name != "lost+found" {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Tells whether a folder has nothing but what a store has, and an index that is none of somebody else's.
fn has_only_ours(dir: &Path) -> Result<bool, StoreError> {
    for entry in fs::read_dir(dir).on_file("list", dir)? {
        let name = entry.on_file("list", dir)?.file_name();
        let name = name.to_string_lossy();
        if !OWN.contains(&&*name) && !is_being_written(&name) && name != "lost+found" {
            return Ok(false);
        }
    }
    let mut start = Vec::new();
    match File::open(dir.join("index.sqlite")) {
        Ok(file) => drop(file.take(SQLITE.len() as u64).read_to_end(&mut start)),
        // Nothing was kept yet, and nothing of anybody's is to be lost.
        Err(_) => {
            let is_empty = |name: &str| {
                fs::read_dir(dir.join(name)).map_or(true, |mut entries| entries.next().is_none())
            };
            return Ok(is_empty("objects") && is_empty("scratch"));
        }
    }
    Ok(start.is_empty() || start == SQLITE)
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
