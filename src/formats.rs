//! Readers of the formats that live media are made of.

pub mod checksums;
pub mod compression;
pub mod cpio;
pub mod initramfs;
pub mod iso9660;
pub mod kernel;
pub mod menus;
pub mod squashfs;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
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
