//! zlib streams.

use super::row::{Encode, Kind, Row};

pub(super) const ROW: Row = Row {
    kind: Kind::Gzip,
    name: "gzip",
    id: 1,
    levels: 1..=12,
    default: DEFAULT,
    metadata: 12,
    options,
    libraries: "libdeflate-sys 1.26.1",
    undo: |packed, length| {
        let mut block = vec![0; length];
        let written = libdeflater::Decompressor::new().zlib_decompress(packed, &mut block).ok()?;
        (written == length).then_some(block)
    },
    context: |level, _| {
        let level = libdeflater::CompressionLvl::new(level).ok()?;
        Some(Box::new(Encoder(libdeflater::Compressor::new(level))))
    },
};

const DEFAULT: i32 = 9;

/// Level, window of 2^15, no strategies. libdeflate's levels above 9 are zlib streams as well.
fn options(level: i32) -> Option<Vec<u8>> {
    let bytes = || [&level.min(9).to_le_bytes()[..], &15u16.to_le_bytes(), &0u16.to_le_bytes()].concat();
    (level != DEFAULT).then(bytes)
}

struct Encoder(libdeflater::Compressor);

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; self.0.zlib_compress_bound(block.len())];
        let length = self.0.zlib_compress(block, &mut out).ok()?;
        out.truncate(length);
        Some(out)
    }
}
