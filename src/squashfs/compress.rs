//! The compressors squashfs knows, one context a thread.

mod xz;

use std::cell::RefCell;

use super::WriteError;
use serde::Serialize;

/// A compressor's name, as specs and squashfs-tools have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// zlib streams.
    Gzip,
    /// xz streams with a CRC-32 and a dictionary of one block.
    Xz,
    /// Raw LZ4 blocks.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

impl Kind {
    /// Reads a name; `None` for an unknown one.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Gzip, Self::Xz, Self::Lz4, Self::Zstd].into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gzip => "gzip",
            Kind::Xz => "xz",
            Kind::Lz4 => "lz4",
            Kind::Zstd => "zstd",
        }
    }

    /// Returns the levels it has, and the one that squashfs-tools take by default.
    pub fn levels(self) -> (std::ops::RangeInclusive<i32>, i32) {
        match self {
            Kind::Gzip => (1..=12, 9),
            Kind::Xz => (0..=9, 6),
            Kind::Lz4 => (1..=1, 1),
            Kind::Zstd => (1..=22, 15),
        }
    }
}

/// A compressor at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compressor {
    /// Which.
    pub kind: Kind,
    /// How hard it tries; within [`Kind::levels`].
    pub level: i32,
}

/// Above this, zstd takes more than twice as long for 8 KiB and saves nothing: at 5 and at 9 the tables of 27,000 files are of
/// the same size, at 4 a thirtieth larger.
const METADATA_LEVEL: i32 = 5;

/// What a thread keeps between blocks.
enum Context {
    Gzip(libdeflater::Compressor),
    Xz(xz::Encoder),
    Lz4,
    /// With the memory it writes to.
    Zstd(zstd::bulk::Compressor<'static>, Vec<u8>),
}

thread_local! {
    /// With the compressor and the size of the blocks it is for.
    static CONTEXT: RefCell<Option<(Compressor, u32, Context)>> = const { RefCell::new(None) };
}

impl Compressor {
    /// Returns the superblock's number for it.
    pub(super) fn id(self) -> u16 {
        match self.kind {
            Kind::Gzip => 1,
            Kind::Xz => 4,
            Kind::Lz4 => 5,
            Kind::Zstd => 6,
        }
    }

    /// Returns the options behind the superblock, where they are not the defaults.
    pub(super) fn options(self) -> Option<Vec<u8>> {
        let (_, default) = self.kind.levels();
        match self.kind {
            // Level, window of 2^15, no strategies. libdeflate's levels above 9 are zlib streams as well.
            Kind::Gzip if self.level != default => {
                let level = (self.level.min(9) as u32).to_le_bytes();
                Some([&level[..], &15u16.to_le_bytes(), &0u16.to_le_bytes()].concat())
            }
            Kind::Zstd if self.level != default => Some(self.level.to_le_bytes().to_vec()),
            // The version of the LZ4 format, and no flags. Always there.
            Kind::Lz4 => Some([1u32.to_le_bytes(), 0u32.to_le_bytes()].concat()),
            // A dictionary of one block and no filters are the defaults.
            Kind::Gzip | Kind::Zstd | Kind::Xz => None,
        }
    }

    /// Returns the compressor for metadata. They are written by one thread, at the end of every build, and are a few
    /// thousandths of an image: trying hard takes time there and gains nothing.
    pub(super) fn for_metadata(self) -> Self {
        match self.kind {
            Kind::Zstd => Self { level: self.level.min(METADATA_LEVEL), ..self },
            Kind::Gzip | Kind::Xz | Kind::Lz4 => self,
        }
    }

    fn context(self, block_size: u32) -> Result<Context, WriteError> {
        Ok(match self.kind {
            Kind::Gzip => {
                let level =
                    libdeflater::CompressionLvl::new(self.level).map_err(|_| WriteError::Compress("gzip"))?;
                Context::Gzip(libdeflater::Compressor::new(level))
            }
            Kind::Xz => Context::Xz(
                xz::Encoder::new(self.level.unsigned_abs(), block_size)
                    .map_err(|_| WriteError::Compress("xz"))?,
            ),
            Kind::Lz4 => Context::Lz4,
            Kind::Zstd => Context::Zstd(
                zstd::bulk::Compressor::new(self.level).map_err(|_| WriteError::Compress("zstd"))?,
                Vec::new(),
            ),
        })
    }

    /// Compresses one block of at most 1 MiB; `None` where that saves nothing.
    ///
    /// # Errors
    /// [`WriteError::Compress`].
    pub(super) fn compress(self, block: &[u8], block_size: u32) -> Result<Option<Vec<u8>>, WriteError> {
        let failed = |_| WriteError::Compress(self.kind.name());
        let compressed = CONTEXT.with_borrow_mut(|kept| {
            if kept.as_ref().is_none_or(|(settings, size, _)| (*settings, *size) != (self, block_size)) {
                *kept = Some((self, block_size, self.context(block_size)?));
            }
            let Some((_, _, context)) = kept else { return Err(WriteError::Compress(self.kind.name())) };
            match context {
                Context::Gzip(compressor) => {
                    let mut out = vec![0; compressor.zlib_compress_bound(block.len())];
                    let length = compressor
                        .zlib_compress(block, &mut out)
                        .map_err(|_| WriteError::Compress("gzip"))?;
                    out.truncate(length);
                    Ok(out)
                }
                Context::Xz(encoder) => encoder.encode(block).map_err(|_| WriteError::Compress("xz")),
                Context::Lz4 => Ok(lz4_flex::block::compress(block)),
                Context::Zstd(compressor, out) => {
                    out.resize(zstd::zstd_safe::compress_bound(block.len()).max(out.len()), 0);
                    let length = compressor.compress_to_buffer(block, out).map_err(failed)?;
                    Ok(out[..length].to_vec())
                }
            }
        })?;
        Ok(Some(compressed).filter(|bytes| bytes.len() < block.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compressor_makes_a_repetitive_block_smaller_and_leaves_noise_alone() {
        let block = b"squashfs ".repeat(5000);
        let noise: Vec<u8> =
            (0u32..).flat_map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).take(8192).collect();
        for kind in [Kind::Gzip, Kind::Xz, Kind::Lz4, Kind::Zstd] {
            let compressor = Compressor { kind, level: kind.levels().1 };
            let small = compressor.compress(&block, 131_072).unwrap().unwrap();
            assert!(small.len() < 2000, "{kind:?}: {}", small.len());
            assert_eq!(compressor.compress(&noise, 131_072).unwrap(), None, "{kind:?}");
        }
    }
}
