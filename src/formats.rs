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
use std::io;
use std::os::unix::fs::FileExt;

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

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, at)
    }
}
