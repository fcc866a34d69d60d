//! Raw LZ4 blocks.

use super::row::{Encode, Kind, Row};

pub(super) const ROW: Row = Row {
    kind: Kind::Lz4,
    name: "lz4",
    id: 5,
    levels: 1..=1,
    default: 1,
    metadata: 1,
    // The version of the LZ4 format, and no flags. Always there.
    options: |_| Some([1u32.to_le_bytes(), 0u32.to_le_bytes()].concat()),
    libraries: "lz4_flex 0.14.0",
    undo: |packed, length| {
        lz4_flex::block::decompress(packed, length).ok().filter(|block| block.len() == length)
    },
    context: |_, _| Some(Box::new(Encoder)),
};

struct Encoder;

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        Some(lz4_flex::block::compress(block))
    }
}
