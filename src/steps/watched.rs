//! What is being unpacked, watched: it stops when everything should, and gives no more than it may.

use std::io::{self, Read};

use graph::Cancel;

/// Reads so many bytes at most, and none when everything should stop.
pub(super) struct Watched<'a, R> {
    pub(super) inner: R,
    /// Bytes read so far.
    pub(super) read: u64,
    pub(super) most: u64,
    pub(super) cancel: &'a Cancel,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("stopped"));
        }
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        if self.read <= self.most {
            return Ok(read);
        }
        let most = self.most >> 20;
        Err(io::Error::other(format!(
            "it unpacks to more than {most} MiB, which is refused unless [limits] unpacked_mib allows more"
        )))
    }
}
