//! Why an image could not be written.

use std::io;

use cache::StoreError;
use cache::name::RelPath;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Writing failed.
    #[error("write the image")]
    Write(#[from] io::Error),
    /// A file of the tree could not be read.
    #[error("read {path} of the tree")]
    Read {
        /// The file.
        path: RelPath,
        /// What the system said.
        source: io::Error,
    },
    /// The store could not give a file of the tree.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Squashfs numbers owners with 16 bits.
    #[error("the tree has more than 65535 different owners; squashfs can hold no more")]
    TooManyOwners,
    /// A compressor failed.
    #[error("compress a block with {0}")]
    Compress(&'static str),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}
