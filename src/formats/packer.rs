//! Compresses an initramfs as another one is compressed, so that the kernel which unpacks that one unpacks it too.

use std::io::{self, Write};

use super::compression::Compression;

/// How hard is tried: of an initramfs of 120 MB, zstd's level 15 would save one byte in a hundred and take eight times as long.
const ZSTD: i32 = 9;
const GZIP: u32 = 6;
const XZ: u32 = 2;

/// A writer that compresses.
pub enum Packer<W: Write> {
    /// Leaves bytes as they are.
    Bare(W),
    /// gzip.
    Gzip(flate2::write::GzEncoder<W>),
    /// xz, with the check that the kernel knows.
    Xz(xz2::write::XzEncoder<W>),
    /// zstd.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    /// Compresses so, or not at all; `None` for what nothing here writes.
    ///
    /// # Errors
    /// The compressor could not be set up.
    pub fn new(compression: Option<Compression>, output: W) -> io::Result<Option<Self>> {
        Ok(Some(match compression {
            None => Self::Bare(output),
            Some(Compression::Gzip) => {
                Self::Gzip(flate2::write::GzEncoder::new(output, flate2::Compression::new(GZIP)))
            }
            Some(Compression::Xz) => {
                let stream = xz2::stream::Stream::new_easy_encoder(XZ, xz2::stream::Check::Crc32)?;
                Self::Xz(xz2::write::XzEncoder::new_stream(output, stream))
            }
            Some(Compression::Zstd) => Self::Zstd(zstd::stream::write::Encoder::new(output, ZSTD)?),
            Some(Compression::Lzma | Compression::Bzip2 | Compression::Lz4 | Compression::Lzo) => {
                return Ok(None);
            }
        }))
    }

    /// Writes what is left, and returns the writer.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Bare(output) => Ok(output),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Bare(output) => output.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Bare(output) => output.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Xz(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
