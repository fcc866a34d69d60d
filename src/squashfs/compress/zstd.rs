//! Zstandard frames.

use super::row::{Encode, Kind, Row};

pub(super) const ROW: Row = Row {
    kind: Kind::Zstd,
    name: "zstd",
    id: 6,
    levels: 1..=22,
    default: DEFAULT,
    // Above this, zstd takes more than twice as long for 8 KiB and saves nothing: at 5 and at 9 the tables of 27,000
    // files are of the same size, at 4 a thirtieth larger.
    metadata: 5,
    options: |level| (level != DEFAULT).then(|| level.to_le_bytes().to_vec()),
    libraries: "zstd-sys 2.1.3+zstd.1.5.7",
    undo: |packed, length| zstd::bulk::decompress(packed, length).ok().filter(|block| block.len() == length),
    context: |level, _| {
        let compressor = zstd::bulk::Compressor::new(level).ok()?;
        Some(Box::new(Encoder { compressor, out: Vec::new() }))
    },
};

const DEFAULT: i32 = 15;

struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
    /// The memory it writes to.
    out: Vec<u8>,
}

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        self.out.resize(zstd::zstd_safe::compress_bound(block.len()).max(self.out.len()), 0);
        let length = self.compressor.compress_to_buffer(block, &mut self.out).ok()?;
        Some(self.out[..length].to_vec())
    }
}
