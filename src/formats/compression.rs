//! The compressions that initramfs images and tars come in, told by their first bytes.

use std::io::{self, BufRead, Read};

use serde::Serialize;

/// A compression. The names are those of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The .xz format.
    Xz,
    /// The older .lzma format.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// LZ4, in the legacy format that `lz4 -l` writes and the kernel reads, or in frames.
    Lz4,
    /// LZO, which nothing here reads.
    Lzo,
}

/// First bytes and what they stand for. The kernel's list is in `lib/decompress.c`.
const MAGICS: [(&[u8], Compression); 9] = [
    (b"\x1f\x8b", Compression::Gzip),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"\x5d\x00\x00", Compression::Lzma),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"BZh", Compression::Bzip2),
    (LZ4_LEGACY, Compression::Lz4),
    (LZ4_FRAME, Compression::Lz4),
    (b"\x89LZO", Compression::Lzo),
    (b"\x1f\x9e", Compression::Gzip),
];

const LZ4_LEGACY: &[u8] = b"\x02\x21\x4c\x18";
const LZ4_FRAME: &[u8] = b"\x04\x22\x4d\x18";

/// Memory that unpacking xz and lzma may take: `xz -9` needs 65 MiB, a hostile header asks for gigabytes.
const XZ_MEMORY: u64 = 256 << 20;

/// What one block of the legacy LZ4 format unpacks to, at most.
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

impl Compression {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Gzip, Self::Xz, Self::Lzma, Self::Zstd, Self::Bzip2, Self::Lz4, Self::Lzo];

    /// Tells the compression by the first bytes; `None` for anything else.
    pub fn detect(start: &[u8]) -> Option<Self> {
        MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, compression)| *compression)
    }

    /// Returns the program's name.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Lzma => "lzma",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
            Compression::Lz4 => "lz4",
            Compression::Lzo => "lzo",
        }
    }

    /// Unpacks one stream and leaves `input` at the byte behind it.
    ///
    /// # Errors
    /// There is no reader for LZO.
    pub fn decoder<'a, R: BufRead + 'a>(self, mut input: R) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
            Compression::Xz => {
                let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
                Box::new(xz2::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Lzma => {
                let stream = xz2::stream::Stream::new_lzma_decoder(XZ_MEMORY)?;
                Box::new(xz2::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?.single_frame()),
            Compression::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(input)),
            Compression::Lz4 => {
                if input.fill_buf()?.starts_with(LZ4_LEGACY) {
                    Box::new(LegacyLz4 { input, block: io::Cursor::new(Vec::new()), started: false })
                } else {
                    Box::new(lz4_flex::frame::FrameDecoder::new(input))
                }
            }
            Compression::Lzo => {
                return Err(io::Error::other("it is compressed with LZO, which cannot be read"));
            }
        })
    }
}

impl Compression {
    /// Unpacks all streams of a file, as parallel compressors write them one behind the other.
    ///
    /// # Errors
    /// There is no reader for LZO.
    pub fn decoder_to_end<'a, R: BufRead + 'a>(self, input: R) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Xz => {
                let flags = xz2::stream::CONCATENATED;
                let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)?;
                Box::new(xz2::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Compression::Lzma | Compression::Lz4 | Compression::Lzo => self.decoder(input)?,
        })
    }
}

/// Returns why the kernel does not unpack a stream that begins so, though others do; `None` where it does.
///
/// The kernel has its own unpackers: `lib/decompress.c` lists the magic numbers (of LZ4, the legacy format's alone);
/// `lib/decompress_unxz.c` takes CRC32 or no check, and of the filters (xz file format 1.2.0, 5.3) LZMA2 and those for
/// programs, but not the delta filter.
pub fn kernels_refusal(start: &[u8]) -> Option<String> {
    if start.starts_with(LZ4_FRAME) {
        return Some("it is an LZ4 frame; the kernel takes the legacy format: lz4 -l".to_owned());
    }
    let [0xfd, b'7', b'z', b'X', b'Z', 0, _, flags, _, _, _, _, block @ ..] = start else { return None };
    let check = match flags & 0xf {
        0 | 1 => None,
        4 => Some("CRC64".to_owned()),
        10 => Some("SHA-256".to_owned()),
        other => Some(format!("number {other}")),
    };
    if let Some(check) = check {
        return Some(format!("its xz check is {check}; the kernel takes CRC32 or none: xz --check=crc32"));
    }
    // Sizes may stand in front of the filters, seven bits in each byte.
    let [_, flags, rest @ ..] = block else { return None };
    let sizes = usize::from(flags & 0x40 != 0) + usize::from(flags & 0x80 != 0);
    let mut rest = rest.iter();
    for _ in 0..sizes {
        rest.find(|byte| **byte & 0x80 == 0)?;
    }
    (rest.next() == Some(&0x03)).then(|| "it uses the delta filter of xz, which the kernel lacks".to_owned())
}

/// The legacy LZ4 format: a magic number, then blocks with their packed length in front.
struct LegacyLz4<R> {
    input: R,
    block: io::Cursor<Vec<u8>>,
    started: bool,
}

impl<R: BufRead> LegacyLz4<R> {
    /// Reads the next block; false at the end, which is marked only by what follows not being a length.
    fn next_block(&mut self) -> io::Result<bool> {
        if !self.started {
            self.input.read_exact(&mut [0; 4])?;
            self.started = true;
        }
        let start = self.input.fill_buf()?;
        let Some(length) = start.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) else {
            return Ok(false);
        };
        if length == 0 || length > lz4_flex::block::get_maximum_output_size(LZ4_LEGACY_BLOCK) {
            return Ok(false);
        }
        self.input.consume(4);
        let mut packed = Vec::new();
        self.input.by_ref().take(length as u64).read_to_end(&mut packed)?;
        if packed.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut block = vec![0; LZ4_LEGACY_BLOCK];
        let length = lz4_flex::block::decompress_into(&packed, &mut block).map_err(io::Error::other)?;
        block.truncate(length);
        self.block = io::Cursor::new(block);
        Ok(true)
    }
}

impl<R: BufRead> Read for LegacyLz4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.next_block()? {
                return Ok(read);
            }
        }
    }
}
