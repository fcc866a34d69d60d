//! The manifest: one document that says what everything is made of. A step writes it; the audit and the command line read it.
//!
//! Every member is described in `docs/manifest.md`.

use std::collections::BTreeMap;

use cache::{ActionDigest, BlobDigest, Sha256};
use serde::{Deserialize, Serialize};

use crate::boot::BootEntry;
use crate::cmdline::Choice;

/// The version of the schema.
pub const SCHEMA: u32 = 1;

/// The ending of a manifest's name, behind that of its ISO.
pub const ENDING: &str = ".manifest.json";

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the schema.
    pub schema: u32,
    /// The program that wrote it, and its version.
    pub generator: String,
    /// The image as a whole.
    pub image: ImageFacts,
    /// The lock that its sources were taken from, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockFacts>,
    /// The spec as it was understood: all that it takes to build the set again, but for what lies on the machine.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub spec: serde_json::Value,
    /// The kernels, in order of their labels.
    pub kernels: Vec<BootEntry>,
    /// The same kernels with their lean initrds, as far as there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lean: Vec<BootEntry>,
    /// The squashfs.
    pub squashfs: FileFacts,
    /// The ways to boot.
    pub boot: Vec<Way>,
    /// Every published file but lists of checksums and the manifest, by path.
    pub files: BTreeMap<String, FileFacts>,
    /// Every node below the manifest, by name.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// The packages of the root, as whoever made the root lists them.
    pub packages: serde_json::Value,
}

/// The image as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The ISO's name.
    pub name: String,
    /// What menus call the system.
    pub title: String,
    /// The ISO's volume id.
    pub volume_id: String,
    /// The one date of everything: `YYYYMMDDTHHMMSSZ`.
    pub timestamp: String,
    /// The same in seconds since 1970.
    pub epoch: u32,
}

/// A lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFacts {
    /// The hash of the file.
    pub sha256: Sha256,
}

/// A published file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Number of bytes.
    pub size: u64,
    /// Its BLAKE3.
    pub blake3: BlobDigest,
    /// Its SHA-256.
    pub sha256: Sha256,
}

/// One way to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Its name: one of [`crate::memory::WAYS`].
    pub way: String,
    /// The label of the kernel.
    pub kernel: String,
    /// What a user picks in a menu for it.
    pub choice: Choice,
    /// The kernel's command line.
    pub command_line: String,
    /// The least memory for it, in MiB.
    pub least_ram_mib: u64,
}

/// A node below the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The kind of step.
    pub step: String,
    /// The version of the step's code.
    pub version: u32,
    /// Its key.
    pub action: ActionDigest,
    /// Whether its tools ran in a sandbox.
    pub sandboxed: bool,
    /// Its settings.
    pub params: BTreeMap<String, String>,
    /// What it took: `blob DIGEST` or `tree DIGEST`.
    pub inputs: BTreeMap<String, String>,
    /// What came from outside, by content.
    pub sources: BTreeMap<String, String>,
    /// The tools it ran: the hash of each program, its libraries and its data.
    pub tools: BTreeMap<String, BlobDigest>,
    /// What it gave: `blob DIGEST` or `tree DIGEST`.
    pub outputs: BTreeMap<String, String>,
    /// What it had to say to people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Why a text cannot be read as a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or lacks a member of its schema.
    #[error("is not a manifest: {0}")]
    Syntax(String),
    /// It has another schema, or none.
    #[error("has the schema {0}; this version reads {SCHEMA}")]
    Schema(String),
}

impl Manifest {
    /// Reads a manifest. Members that this version does not know are passed over.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn read(text: &str) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default)]
            schema: serde_json::Value,
        }
        let syntax = |error: serde_json::Error| ManifestError::Syntax(error.to_string());
        // The schema counts before anything else does.
        let Versioned { schema } = serde_json::from_str(text).map_err(syntax)?;
        if schema != SCHEMA {
            return Err(ManifestError::Schema(schema.to_string()));
        }
        serde_json::from_str(text).map_err(syntax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_schema_is_told_from_what_is_no_manifest() {
        let read = |text| Manifest::read(text).unwrap_err();
        assert_eq!(read("{\"schema\": 99}"), ManifestError::Schema("99".to_owned()));
        assert_eq!(read("{}"), ManifestError::Schema("null".to_owned()));
        assert!(matches!(read("{\"schema\": 1}"), ManifestError::Syntax(why) if why.contains("generator")));
        assert!(matches!(read("schema"), ManifestError::Syntax(_)));
    }
}
