//! A composition written out to a file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::StoreError;
use crate::file::OnFile;

/// A composition that this process has written out.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) path: PathBuf,
    /// Brings it to the disk meanwhile: who publishes it waits for that.
    pub(super) sync: JoinHandle<io::Result<()>>,
}

impl Whole {
    /// Takes a file that nobody writes to any more.
    pub(super) fn new(path: PathBuf) -> Result<Self, StoreError> {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).on_file("chmod", &path)?;
        let file = File::open(&path).on_file("open", &path)?;
        Ok(Self { path, sync: std::thread::spawn(move || file.sync_data()) })
    }

    /// Gives the file another name, under which it stays.
    pub(super) fn rename(&mut self, name: PathBuf) -> Result<(), StoreError> {
        fs::rename(&self.path, &name).on_file("name", &name)?;
        self.path = name;
        Ok(())
    }
}
