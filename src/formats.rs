//! Readers of the formats that live media are made of.

pub mod authenticode;
pub mod checksums;
pub mod compression;
pub mod control;
pub mod cpio;
pub mod fat;
pub mod initramfs;
pub mod installed;
pub mod iso9660;
pub mod kernel;
mod little;
pub mod menus;
pub mod modules;
pub mod packer;
pub mod partitions;
pub mod program;
pub mod spdx;
pub mod squashfs;
pub mod verity;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};

/// Bytes that can be read at any place: a file, or one behind an HTTP server.
pub trait ReadAt: std::fmt::Debug + Send + Sync {
    /// Returns the number of bytes.
    ///
    /// # Errors
    /// It cannot be told.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` with the bytes from `at` on.
    ///
    /// # Errors
    /// Reading failed, or there are not as many.
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

/// A part of something, read and sought like a file.
#[derive(Debug)]
pub struct Window<'a> {
    of: &'a dyn ReadAt,
    start: u64,
    length: u64,
    at: u64,
}

impl<'a> Window<'a> {
    /// Returns `length` bytes of `of` from `start` on.
    pub fn new(of: &'a dyn ReadAt, start: u64, length: u64) -> Self {
        Self { of, start, length, at: 0 }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        self.of.read_exact_at(&mut buffer[..wanted], self.start + self.at)?;
        self.at += wanted as u64;
        Ok(wanted)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// A file, or a block device: a burned disc, a stick.
impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        let found = self.metadata()?;
        if !found.file_type().is_block_device() {
            return Ok(found.len());
        }
        // A device has no length of its own, but an end. Nothing here depends on where the file is read next.
        let mut device = self;
        let size = device.seek(SeekFrom::End(0))?;
        device.rewind()?;
        Ok(size)
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, at)
    }
}
