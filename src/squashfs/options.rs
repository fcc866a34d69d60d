//! How an image is written.

use super::compress::Compressor;

/// How to write an image.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compressor and level.
    pub compressor: Compressor,
    /// Bytes of a data block: a power of two from 4 KiB to 1 MiB.
    pub block_size: u32,
    /// The image's own date, in seconds since 1970.
    pub epoch: u32,
    /// Whether times after the epoch become the epoch.
    pub clamp_mtime: bool,
    /// Threads that compress.
    pub threads: usize,
}

/// Tells how far the writing is, in bytes of file content; returns whether to go on.
pub type Progress<'a> = &'a dyn Fn(u64, u64) -> bool;
