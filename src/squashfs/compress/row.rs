//! What the writer knows of a compressor: one row each.

use std::ops::RangeInclusive;

use serde::Serialize;

/// A compressor's name, as specs and squashfs-tools have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// zlib streams.
    Gzip,
    /// xz streams with a CRC-32 and a dictionary of one block.
    Xz,
    /// Raw LZ4 blocks.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// All that the writer knows of a compressor.
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    /// The superblock's number for it.
    pub(super) id: u16,
    pub(super) levels: RangeInclusive<i32>,
    /// The level that squashfs-tools take by default.
    pub(super) default: i32,
    /// The highest level for metadata. They are written by one thread, at the end of every build, and are a few
    /// thousandths of an image: trying hard takes time there and gains nothing.
    pub(super) metadata: i32,
    /// Returns the options behind the superblock at a level, where they are not the defaults.
    pub(super) options: fn(i32) -> Option<Vec<u8>>,
    /// The libraries whose code decides what the bytes are, with their versions in Cargo.lock. Blocks of older images are
    /// found under these names: a new version compresses all of them again.
    pub(super) libraries: &'static str,
    /// Undoes a block of so many bytes; `None` where it is none.
    pub(super) undo: fn(&[u8], usize) -> Option<Vec<u8>>,
    /// Makes a context for a level and a size of blocks; `None` where the library refuses.
    pub(super) context: fn(i32, u32) -> Option<Box<dyn Encode>>,
}

/// What a thread keeps between blocks.
pub(super) trait Encode {
    /// Compresses a block; `None` where the library fails.
    fn encode(&mut self, block: &[u8]) -> Option<Vec<u8>>;
}
