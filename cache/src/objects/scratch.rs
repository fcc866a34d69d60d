//! Scratch folders: one for each process, gone with it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::file::{FileError, OnFile};

/// Removes the scratch folders of processes that died.
pub(super) fn sweep(scratch: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(scratch).on_file("list", scratch)? {
        let path = entry.on_file("list", scratch)?.path();
        // What has another name is none of ours.
        if !is_ours(&path) {
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "lock") {
            // The lock is made before the folder and goes after it: without one, nobody uses the folder.
            if !path.with_extension("lock").exists() {
                let _ = remove_all(&path);
            }
            continue;
        }
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        let folder = path.with_extension("");
        // One that cannot be removed (another user's, or a tool that is still dying) waits for the next time.
        match remove_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => drop(fs::remove_file(&path)),
        }
    }
    Ok(())
}

/// Removes a folder with all that is in it, also folders that a tool has closed to their owner.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_all(path)?;
            fs::remove_dir_all(path)
        }
        done => done,
    }
}

/// Lets their owner into a folder and those below.
fn open_all(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A link is none.
        if entry.file_type()?.is_dir() {
            open_all(&entry.path())?;
        }
    }
    Ok(())
}

/// Tells whether a process works in a scratch folder.
pub(super) fn is_used(scratch: &Path) -> bool {
    let entries = fs::read_dir(scratch).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut locks = entries.filter(|path| path.extension().is_some_and(|extension| extension == "lock"));
    locks.any(|lock| File::open(lock).is_ok_and(|file| file.try_lock().is_err()))
}

/// Tells whether a name is one that [`claim`] gives: a process, a number, and perhaps the ending of a lock.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.strip_suffix(".lock").unwrap_or(&name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('-').is_some_and(|(process, number)| is_number(process) && is_number(number))
}

/// Makes this process's scratch folder and holds its lock.
pub(super) fn claim(scratch: &Path) -> Result<(PathBuf, File), StoreError> {
    for attempt in 0.. {
        let path = scratch.join(format!("{}-{attempt}", std::process::id()));
        let lock_path = path.with_extension("lock");
        match File::options().write(true).create_new(true).mode(0o600).open(&lock_path) {
            Ok(lock) => {
                lock.lock().on_file("lock", &lock_path)?;
                // A sweeper may have taken the file between its making and its locking.
                if !lock_path.exists() {
                    continue;
                }
                fs::DirBuilder::new().mode(0o700).create(&path).on_file("make", &path)?;
                return Ok((path, lock));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(FileError { what: "make", path: lock_path, source }.into()),
        }
    }
    unreachable!("the loop above only ends by returning")
}

/// A work folder below the store; it is removed when dropped.
#[derive(Debug)]
pub struct WorkDir {
    pub(super) path: PathBuf,
}

impl WorkDir {
    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = remove_all(&self.path);
    }
}
