//! Metadata: a stream cut into compressed blocks of 8 KiB, and tables with an index of such blocks.

use std::fs::File;
use std::io::{Seek, Write};

use super::error::WriteError;
use super::options::Options;

/// Bytes of a metadata block before compression.
const BLOCK: usize = 8192;

/// Set in a metadata block's length where it is stored as it is.
pub(super) const STORED: u16 = 1 << 15;

/// Where something starts in a metadata stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Where its block starts, from the start of the stream.
    pub(super) block: u32,
    /// Where it starts in the uncompressed block.
    pub(super) offset: u16,
}

impl Place {
    /// Returns the reference as inodes and tables have it.
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

/// Collects a metadata stream.
pub(super) struct MetadataWriter<'a> {
    options: &'a Options,
    done: Vec<u8>,
    block: Vec<u8>,
    /// Where each block starts.
    starts: Vec<u64>,
}

impl<'a> MetadataWriter<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self { options, done: Vec::new(), block: Vec::with_capacity(BLOCK), starts: Vec::new() }
    }

    /// Returns where the next byte goes.
    pub(super) fn place(&self) -> Place {
        Place { block: self.done.len() as u32, offset: self.block.len() as u16 }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            // Flushed as soon as it is full, so that `place` is right for the byte that follows.
            if self.block.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.starts.push(self.done.len() as u64);
        let block = std::mem::take(&mut self.block);
        match self.options.compressor.for_metadata().compress(&block, self.options.block_size)? {
            Some(small) => {
                self.done.extend_from_slice(&(small.len() as u16).to_le_bytes());
                self.done.extend_from_slice(&small);
            }
            None => {
                self.done.extend_from_slice(&(block.len() as u16 | STORED).to_le_bytes());
                self.done.extend_from_slice(&block);
            }
        }
        Ok(())
    }

    /// Returns the stream, and where each of its blocks starts.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Vec<u64>), WriteError> {
        self.flush()?;
        Ok((self.done, self.starts))
    }
}

/// Writes a table: its rows as metadata, then where each block is. Returns where that index is.
pub(super) fn write_table(out: &mut File, rows: &[u8], options: &Options) -> Result<u64, WriteError> {
    let mut writer = MetadataWriter::new(options);
    writer.write(rows)?;
    let (stream, starts) = writer.finish()?;
    let at = out.stream_position()?;
    out.write_all(&stream)?;
    let index = out.stream_position()?;
    for start in starts {
        out.write_all(&(at + start).to_le_bytes())?;
    }
    Ok(index)
}
