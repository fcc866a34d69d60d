//! A reader that counts, and shows first bytes whole; and what lies between archives.

use std::io::{self, BufRead, Read};

use super::newc::HEADER;

/// Bytes an initramfs may unpack to.
pub(super) const MAX_UNPACKED: u64 = 16 << 30;

/// Padding is skipped in blocks of this.
const ZEROS: [u8; 4096] = [0; 4096];

/// Skips padding, but no more of it than an initramfs may unpack to.
pub(super) fn skip_zeros<R: Read>(input: &mut Counting<R>) -> io::Result<()> {
    while input.at <= MAX_UNPACKED {
        let buffer = input.fill_buf()?;
        // Padding may be long: whole blocks are compared, then bytes.
        let blocks =
            buffer.chunks_exact(ZEROS.len()).take_while(|block| **block == ZEROS).count() * ZEROS.len();
        let zeros = blocks + buffer[blocks..].iter().take_while(|byte| **byte == 0).count();
        let all = zeros == buffer.len();
        if zeros == 0 {
            return Ok(());
        }
        input.consume(zeros);
        if !all {
            return Ok(());
        }
    }
    Ok(())
}

/// Counts the bytes read, and never shows fewer than [`Counting::PEEK`] of them before the end: whoever looks
/// at first bytes sees them whole.
pub(super) struct Counting<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    pub(super) at: u64,
}

impl<R: Read> Counting<R> {
    const PEEK: usize = HEADER;
    const CAPACITY: usize = 1 << 18;

    pub(super) fn new(inner: R) -> Self {
        Self { inner, buffer: Vec::with_capacity(Self::CAPACITY), start: 0, at: 0 }
    }
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buffer.len() - self.start < Self::PEEK {
            self.buffer.drain(..self.start);
            self.start = 0;
            let wanted = (Self::CAPACITY - self.buffer.len()) as u64;
            // Reads on until the buffer is full or the input ends.
            self.inner.by_ref().take(wanted).read_to_end(&mut self.buffer)?;
        }
        Ok(&self.buffer[self.start..])
    }

    fn consume(&mut self, amount: usize) {
        self.start += amount;
        self.at += amount as u64;
    }
}
