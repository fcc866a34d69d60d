//! Digest functions: by what a server names blobs.
//!
//! A server says which functions it knows (`CacheCapabilities.digest_functions` of `remote_execution.proto`). BLAKE3 names objects
//! here, and is used where the server knows it, SHA-256 otherwise.

use bazel_remote_apis::build::bazel::remote::execution::v2::{Digest, digest_function};
use cache::upstream::Chunk;
use cache::{BlobDigest, Sha256};
use sha2::Digest as _;

/// By what a server names blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Sha256,
    Blake3,
}

impl Function {
    /// Returns its number in requests.
    pub(crate) fn number(self) -> i32 {
        match self {
            Function::Sha256 => digest_function::Value::Sha256 as i32,
            Function::Blake3 => digest_function::Value::Blake3 as i32,
        }
    }

    /// Returns its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Function::Sha256 => "SHA-256",
            Function::Blake3 => "BLAKE3",
        }
    }

    /// Returns what goes before a hash in the names of `google.bytestream`: older functions are told by their length.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Function::Sha256 => "",
            Function::Blake3 => "blake3/",
        }
    }

    /// Returns the name of bytes.
    pub(crate) fn of(self, bytes: &[u8]) -> Digest {
        let hash = match self {
            Function::Sha256 => Sha256::from(sha2::Sha256::new_with_prefix(bytes)).to_string(),
            Function::Blake3 => BlobDigest::of(bytes).to_string(),
        };
        Digest { hash, size_bytes: bytes.len() as i64 }
    }

    /// Returns the name of a chunk.
    pub(crate) fn of_chunk(self, chunk: &Chunk) -> Digest {
        let hash = match self {
            Function::Sha256 => chunk.sha256.to_string(),
            Function::Blake3 => chunk.digest.to_string(),
        };
        Digest { hash, size_bytes: chunk.size as i64 }
    }
}
