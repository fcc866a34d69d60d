//! Packages, as specs and locks name them.

use cache::Sha256;
use serde::{Deserialize, Serialize};

/// A package of Debian's, as it is known wherever it lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, with the epoch.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Bytes of the file.
    pub size: u64,
    /// The hash of the file.
    pub sha256: Sha256,
    /// Where an archive has the file, below the address of the archive.
    pub file: String,
}
