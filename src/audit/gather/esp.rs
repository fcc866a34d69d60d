//! The EFI system partition of an ISO, once it is read.

use std::collections::BTreeMap;

use crate::formats::fat::FatFile;

/// The EFI system partition of an ISO.
#[derive(Debug)]
pub(super) struct Esp {
    /// What it is called in what is said.
    pub(super) name: String,
    /// Its files.
    pub(super) files: BTreeMap<String, FatFile>,
}

impl Esp {
    /// Returns the name of a file of it.
    pub(super) fn shown(&self, path: &str) -> String {
        format!("{}:/{path}", self.name)
    }

    /// Returns a file by its name in any case, as FAT finds it.
    pub(super) fn find(&self, path: &str) -> Option<&str> {
        self.files.keys().find(|name| name.eq_ignore_ascii_case(path)).map(String::as_str)
    }
}
