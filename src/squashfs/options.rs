//! How an image is written.

use graph::Workers;

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

/// What may come from elsewhere; none of it changes a byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct Help<'a> {
    /// Cores elsewhere.
    pub workers: Option<&'a dyn Workers>,
    /// Whether upstreams are asked for slices of images that others wrote.
    pub asks: bool,
}

impl Help<'_> {
    /// Tells whether there is any.
    pub(super) fn is_some(&self) -> bool {
        self.workers.is_some() || self.asks
    }
}
