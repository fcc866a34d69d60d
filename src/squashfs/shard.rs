//! Shards: blocks that are compressed elsewhere, and what comes back.
//!
//! ```text
//! there    "stagegraph shard 1\n", a line of JSON (compressor, level, block_size, lengths), the blocks as one Zstandard frame
//! back     "stagegraph shard 1\n", for each block its length (u32, little-endian; bit 31: not compressed), then all bytes
//! ```
//! A slice of an image that another builder wrote has the same two parts as what comes back: the lengths, and all bytes.
//!
//! What comes back is undone and compared with what was sent, so a worker that errs or lies costs time. One block of each shard is
//! compressed here as well: a worker whose bytes can be undone, and are others than ours, is found out, and then the whole image is made here.

use serde::{Deserialize, Serialize};

use super::compress::{Compressor, Kind};

/// Opens both messages; another first line is another format.
const MAGIC: &[u8] = b"stagegraph shard 1\n";

/// Set in a length where the block is not compressed.
const PLAIN: u32 = 1 << 31;

/// How hard the way there is compressed: a link is seldom as fast as this.
const LEVEL: i32 = 1;

/// Bytes of blocks in a shard, at most.
pub(super) const MOST: usize = 64 << 20;

/// Why a message is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// It is of another form.
    #[error("it is no shard of this version: {0}")]
    Form(&'static str),
    /// A block is not what it was made of.
    #[error("block {0} is not what was sent")]
    Wrong(usize),
    /// A block was compressed in another way than here.
    #[error("block {0} has other bytes than this program's")]
    Other(usize),
    /// A block could not be compressed.
    #[error("block {0} could not be compressed")]
    Compress(usize),
}

/// The line of a message there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    compressor: String,
    level: i32,
    block_size: u32,
    lengths: Vec<u32>,
}

/// A block as it goes into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    pub(super) is_plain: bool,
}

/// Returns how the length of a packed block is written.
pub(super) fn written_length(length: u32, is_plain: bool) -> [u8; 4] {
    (length | if is_plain { PLAIN } else { 0 }).to_le_bytes()
}

/// Returns how many bytes the lengths of so many blocks take.
pub(super) fn lengths_of(blocks: usize) -> u64 {
    blocks as u64 * 4
}

/// Makes the message that asks for blocks to be compressed.
pub(super) fn ask(compressor: Compressor, block_size: u32, blocks: &[&[u8]]) -> Option<Vec<u8>> {
    let head = Head {
        compressor: compressor.kind.name().to_owned(),
        level: compressor.level,
        block_size,
        lengths: blocks.iter().map(|block| block.len() as u32).collect(),
    };
    let mut message = MAGIC.to_vec();
    serde_json::to_writer(&mut message, &head).ok()?;
    message.push(b'\n');
    message.extend(zstd::bulk::compress(&blocks.concat(), LEVEL).ok()?);
    Some(message)
}

/// Compresses the blocks of a message; returns the message that goes back.
///
/// # Errors
/// [`ShardError`].
pub fn answer(message: &[u8]) -> Result<Vec<u8>, ShardError> {
    let rest = message.strip_prefix(MAGIC).ok_or(ShardError::Form("its first line is another"))?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(ShardError::Form("it has no head"))?;
    let head: Head = serde_json::from_slice(&rest[..end]).map_err(|_| ShardError::Form("its head"))?;
    let kind = Kind::parse(&head.compressor).ok_or(ShardError::Form("the compressor is not known"))?;
    let compressor = Compressor { kind, level: head.level };
    if !kind.levels().0.contains(&head.level) {
        return Err(ShardError::Form("there is no such level"));
    }
    let total: usize = head.lengths.iter().map(|length| *length as usize).sum();
    let is_fine = |length: &u32| (1..=head.block_size).contains(length);
    if total > MOST || head.block_size > 1 << 20 || !head.lengths.iter().all(is_fine) {
        return Err(ShardError::Form("its lengths"));
    }
    let bytes = zstd::bulk::decompress(&rest[end + 1..], total).map_err(|_| ShardError::Form("its bytes"))?;
    if bytes.len() != total {
        return Err(ShardError::Form("its bytes are not as many as its head says"));
    }
    let (mut lengths, mut packed) = (MAGIC.to_vec(), Vec::new());
    let mut left = &bytes[..];
    for (number, length) in head.lengths.iter().enumerate() {
        let (block, rest) = left.split_at(*length as usize);
        left = rest;
        let pack = pack(compressor, head.block_size, block).ok_or(ShardError::Compress(number))?;
        lengths.extend(written_length(pack.bytes.len() as u32, pack.is_plain));
        packed.extend(pack.bytes);
    }
    lengths.extend(packed);
    Ok(lengths)
}

/// Compresses a block, as it goes into an image.
fn pack(compressor: Compressor, block_size: u32, block: &[u8]) -> Option<Packed> {
    Some(match compressor.compress(block, block_size).ok()? {
        Some(bytes) => Packed { bytes, is_plain: false },
        None => Packed { bytes: block.to_vec(), is_plain: true },
    })
}

/// Reads what came back for these blocks, and undoes it to compare; the block of the number `sample` is compressed here as well.
pub(super) fn check(
    compressor: Compressor,
    block_size: u32,
    blocks: &[&[u8]],
    message: &[u8],
    sample: usize,
) -> Result<Vec<Packed>, ShardError> {
    let rest = message.strip_prefix(MAGIC).ok_or(ShardError::Form("its first line is another"))?;
    let (lengths, packed) = rest.split_at_checked(blocks.len() * 4).ok_or(ShardError::Form("its lengths"))?;
    check_parts(compressor, block_size, blocks, (lengths, packed), sample)
}

/// As [`check`], for the two parts of what came back: the lengths, and all bytes.
pub(super) fn check_parts(
    compressor: Compressor,
    block_size: u32,
    blocks: &[&[u8]],
    (lengths, mut left): (&[u8], &[u8]),
    sample: usize,
) -> Result<Vec<Packed>, ShardError> {
    let (lengths, []) = lengths.as_chunks::<4>() else { return Err(ShardError::Form("its lengths")) };
    if lengths.len() != blocks.len() {
        return Err(ShardError::Form("it has another number of blocks"));
    }
    let mut packed = Vec::with_capacity(blocks.len());
    for (number, (length, block)) in lengths.iter().zip(blocks).enumerate() {
        let length = u32::from_le_bytes(*length);
        let is_plain = length & PLAIN != 0;
        let (bytes, rest) =
            left.split_at_checked((length & !PLAIN) as usize).ok_or(ShardError::Form("its bytes"))?;
        left = rest;
        let is_right = match is_plain {
            true => bytes == *block,
            // What saves nothing is stored as it is.
            false => {
                bytes.len() < block.len()
                    && compressor.kind.undo(bytes, block.len()).as_deref() == Some(*block)
            }
        };
        if !is_right {
            return Err(ShardError::Wrong(number));
        }
        packed.push(Packed { bytes: bytes.to_vec(), is_plain });
    }
    if !left.is_empty() {
        return Err(ShardError::Form("there is more behind it"));
    }
    // One that was compressed: of the others there is but one form.
    let compressed: Vec<usize> = (0..packed.len()).filter(|number| !packed[*number].is_plain).collect();
    if let Some(number) = sample.checked_rem(compressed.len()) {
        let sample = compressed[number];
        let own = pack(compressor, block_size, blocks[sample]).ok_or(ShardError::Compress(sample))?;
        if own != packed[sample] {
            return Err(ShardError::Other(sample));
        }
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> Vec<Vec<u8>> {
        let noise: Vec<u8> =
            (0u32..).flat_map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).take(9000).collect();
        vec![b"squashfs ".repeat(5000), noise, b"x".to_vec()]
    }

    fn compressors() -> impl Iterator<Item = Compressor> {
        ["gzip", "xz", "lz4", "zstd"].into_iter().map(|name| {
            let kind = Kind::parse(name).unwrap();
            Compressor { kind, level: kind.levels().1 }
        })
    }

    #[test]
    fn what_comes_back_is_what_is_made_here() {
        let own = blocks();
        let blocks: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        for compressor in compressors() {
            let back = answer(&ask(compressor, 1 << 17, &blocks).unwrap()).unwrap();
            let packed = check(compressor, 1 << 17, &blocks, &back, 0).unwrap();
            for (packed, block) in packed.iter().zip(&blocks) {
                assert_eq!(*packed, pack(compressor, 1 << 17, block).unwrap());
            }
            let plain: Vec<bool> = packed.iter().map(|packed| packed.is_plain).collect();
            assert_eq!(plain, [false, true, true], "{compressor:?}");
        }
    }

    #[test]
    fn the_bytes_of_both_messages_are_pinned() {
        let blocks: [&[u8]; 2] = [&b"squashfs ".repeat(5000), b"x"];
        let compressor = Compressor { kind: Kind::parse("zstd").unwrap(), level: 15 };
        let there = ask(compressor, 1 << 17, &blocks).unwrap();
        let back = answer(&there).unwrap();
        let digests = [there, back].map(|message| blake3::hash(&message).to_string());
        assert_eq!(
            digests,
            [
                "a908d8afc4d14300f9e7d2023bfb1b8dd0163dae82ecb8b79faf1c82011c4a05",
                "7983f0969088383bc9cf350b481bf218ba604f97d258064008eb2ff2a4bf6239",
            ],
            "workers of another version would read something else"
        );
    }

    #[test]
    fn what_is_altered_in_any_way_is_found() {
        let own = blocks();
        let blocks: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        for compressor in compressors() {
            let back = answer(&ask(compressor, 1 << 17, &blocks).unwrap()).unwrap();
            for at in 0..back.len() {
                let mut altered = back.clone();
                altered[at] ^= 1;
                let found = check(compressor, 1 << 17, &blocks, &altered, 0);
                assert!(found.is_err(), "{compressor:?} at {at}");
            }
            assert!(check(compressor, 1 << 17, &blocks, &back[..back.len() - 1], 0).is_err());
            assert!(check(compressor, 1 << 17, &blocks[..2], &back, 0).is_err());
        }
    }

    #[test]
    fn bytes_that_can_be_undone_and_are_not_ours_are_found_by_the_sample() {
        let numbers: Vec<u8> = (0..20_000u32).flat_map(|i| (i / 3 * 7).to_string().into_bytes()).collect();
        let own = [numbers, blocks().remove(1)];
        let blocks: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        let zstd = |level| Compressor { kind: Kind::parse("zstd").unwrap(), level };
        let back = answer(&ask(zstd(1), 1 << 17, &blocks).unwrap()).unwrap();
        // Whichever is asked for: of the one that is not compressed there is but one form.
        for sample in 0..2 {
            let found = check(zstd(15), 1 << 17, &blocks, &back, sample).map(drop);
            assert_eq!(found, Err(ShardError::Other(0)));
        }
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        let own = blocks();
        let blocks: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        let zstd = Compressor { kind: Kind::parse("zstd").unwrap(), level: 15 };
        let good = ask(zstd, 1 << 17, &blocks).unwrap();
        let text = String::from_utf8_lossy(&good[..200]).into_owned();
        let head_end = good.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
        let with = |from: &str, to: &str| {
            let head = String::from_utf8(good[..head_end].to_vec()).unwrap().replace(from, to);
            [head.as_bytes(), &good[head_end..]].concat()
        };
        for wrong in [
            good[1..].to_vec(),
            good[..40].to_vec(),
            good[..good.len() - 9].to_vec(),
            with("zstd", "zpaq"),
            with("\"level\":15", "\"level\":99"),
            with("45000", "45001"),
            with("131072", "1024"),
            with("131072", "4294967295"),
        ] {
            assert!(matches!(answer(&wrong), Err(ShardError::Form(_))), "{text}");
        }
    }
}
