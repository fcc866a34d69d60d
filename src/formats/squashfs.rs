//! What the superblock of a squashfs image says, and whether the image can hold it.
//!
//! Format 4.0, as the kernel's `fs/squashfs/squashfs_fs.h` has it.

use serde::Serialize;

/// The first bytes of every image.
pub const MAGIC: &[u8; 4] = b"hsqs";

/// Bytes of a superblock.
pub const SUPERBLOCK: usize = 96;

/// Images are padded to a multiple of this, so that loop devices can show their end.
const PADDING: u64 = 4096;

/// The place of a table that is not there.
const NO_TABLE: u64 = u64::MAX;

/// Compressors by number.
const COMPRESSORS: [&str; 6] = ["gzip", "lzma", "lzo", "xz", "lz4", "zstd"];

/// A superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Superblock {
    /// The compressor.
    pub compressor: &'static str,
    /// Bytes of a block before compression.
    pub block_size: u32,
    /// Bytes of the image without its padding.
    pub bytes_used: u64,
}

fn u16_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Tells which other file system's image a file is, by its first bytes: those that live media have where a squashfs was.
///
/// The places are those of the kernel's `erofs_fs.h`, `ext4.h`, `cramfs_fs.h` and `btrfs_tree.h`.
pub fn other_image(start: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let known: [(&str, usize, &[u8]); 6] = [
        ("EROFS", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
        ("ext2, ext3 or ext4", 1080, &[0x53, 0xef]),
        ("cramfs", 0, &[0x45, 0x3d, 0xcd, 0x28]),
        ("big-endian squashfs", 0, b"sqsh"),
        ("Btrfs", 0x10040, b"_BHRfS_M"),
        ("XFS", 0, b"XFSB"),
    ];
    known.iter().find(|(_, at, magic)| has(*at, magic)).map(|(name, ..)| *name)
}

/// Reads the start of an image of `size` bytes; the error says what is wrong with it.
///
/// # Errors
/// It is no squashfs 4.0, contradicts itself, or is cut off.
pub fn superblock(start: &[u8], size: u64) -> Result<Superblock, String> {
    let Some(bytes) = start.first_chunk::<SUPERBLOCK>() else {
        return Err(format!("it is shorter than a superblock: {size} bytes"));
    };
    if !bytes.starts_with(MAGIC) {
        return Err(match other_image(start) {
            Some(other) => format!("it is an image of {other}, not a squashfs"),
            None => "it does not begin with \"hsqs\"".to_owned(),
        });
    }
    let version = (u16_at(bytes, 28), u16_at(bytes, 30));
    if version != (4, 0) {
        return Err(format!("its version is {}.{}, not 4.0", version.0, version.1));
    }
    let (block_size, block_log) = (u32_at(bytes, 12), u16_at(bytes, 22));
    if !(4096..=1 << 20).contains(&block_size) || Some(block_size) != 1u32.checked_shl(block_log.into()) {
        return Err(format!("its block size {block_size} is none that squashfs has"));
    }
    let number = u16_at(bytes, 20);
    let compressor = number.checked_sub(1).and_then(|number| COMPRESSORS.get(usize::from(number)));
    let compressor = compressor.ok_or_else(|| format!("no compressor has the number {number}"))?;
    let bytes_used = u64_at(bytes, 40);
    if bytes_used > size {
        return Err(format!("it is cut off: it should have {bytes_used} bytes and has {size}"));
    }
    if size > bytes_used.next_multiple_of(PADDING).max(bytes_used + PADDING) {
        return Err(format!("it should have {bytes_used} bytes and has {size}: something is behind it"));
    }
    let tables =
        [(48, "id"), (56, "xattr"), (64, "inode"), (72, "directory"), (80, "fragment"), (88, "export")];
    for (at, name) in tables {
        let place = u64_at(bytes, at);
        let optional = matches!(name, "xattr" | "export" | "fragment");
        if place >= bytes_used && !(optional && place == NO_TABLE) {
            return Err(format!("its {name} table is beyond its end"));
        }
    }
    Ok(Superblock { compressor, block_size, bytes_used })
}

/// Tables longer than this are not looked at: those of an image with a million files have a tenth.
const MAX_TABLES: u64 = 512 << 20;

/// What a block of metadata unpacks to at most; packed, it is never longer.
const METADATA: u16 = 8192;

/// Where the superblock has the places of what metadata is about, and how many of it there are in one block.
struct Lookup {
    name: &'static str,
    at: usize,
    /// How many there are: where that stands, and in how many bytes.
    count: (usize, usize),
    in_block: u64,
}

const LOOKUPS: [Lookup; 2] = [
    Lookup { name: "fragment", at: 80, count: (16, 4), in_block: 512 },
    Lookup { name: "id", at: 48, count: (26, 2), in_block: 2048 },
];

/// Looks at the tables of an image whose superblock is sound: whether each block of metadata is where it should be.
/// `read` fills a buffer from a place of the image on. Returns what is wrong.
///
/// # Errors
/// `read` failed.
pub fn tables<E>(
    head: &[u8],
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<Option<String>, E> {
    let Some(bytes) = head.first_chunk::<SUPERBLOCK>() else { return Ok(None) };
    let (inodes, directories, used) = (u64_at(bytes, 64), u64_at(bytes, 72), u64_at(bytes, 40));
    if used.saturating_sub(inodes) > MAX_TABLES {
        return Ok(None);
    }
    if inodes > directories || used < inodes {
        return Ok(Some("its inode table is not in front of its directory table".to_owned()));
    }
    let mut tail = vec![0; (used - inodes) as usize];
    read(&mut tail, inodes)?;
    let tail = Tail { bytes: &tail, start: inodes };
    let mut at = inodes;
    while at < directories {
        match tail.block(at) {
            Some(next) => at = next,
            None => return Ok(Some(format!("its inode table is damaged at byte {at}"))),
        }
    }
    if at != directories {
        return Ok(Some("its inode table goes on into its directory table".to_owned()));
    }
    for Lookup { name, at, count, in_block } in LOOKUPS {
        let number = if count.1 == 2 { u16_at(bytes, count.0).into() } else { u32_at(bytes, count.0) };
        let start = u64_at(bytes, at);
        for block in 0..u64::from(number).div_ceil(in_block) {
            let place = tail.word(start + 8 * block);
            if place.is_none_or(|place| place >= start || tail.block(place).is_none()) {
                return Ok(Some(format!("its {name} table is damaged at byte {}", start + 8 * block)));
            }
        }
    }
    Ok(None)
}

/// The end of an image, from its inode table on.
struct Tail<'a> {
    bytes: &'a [u8],
    start: u64,
}

impl Tail<'_> {
    fn at(&self, place: u64, length: usize) -> Option<&[u8]> {
        let at = usize::try_from(place.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(length)?)
    }

    fn word(&self, place: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.at(place, 8)?.try_into().ok()?))
    }

    /// Returns where a block of metadata ends, if there is one: a length with a bit for "not packed", then as many bytes.
    fn block(&self, place: u64) -> Option<u64> {
        let header = u16::from_le_bytes(self.at(place, 2)?.try_into().ok()?);
        let length = header & 0x7fff;
        if length == 0 || length > METADATA {
            return None;
        }
        self.at(place + 2, length.into())?;
        Some(place + 2 + u64::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[12..16].copy_from_slice(&(1u32 << 17).to_le_bytes());
        bytes[20] = 6;
        bytes[22] = 17;
        bytes[28] = 4;
        bytes[40] = 200;
        for at in [48, 64, 72] {
            bytes[at] = 100;
        }
        for at in [56, 80, 88] {
            bytes[at..at + 8].fill(0xff);
        }
        bytes
    }

    #[test]
    fn a_sound_superblock_is_read() {
        let expected = Superblock { compressor: "zstd", block_size: 1 << 17, bytes_used: 200 };
        assert_eq!(superblock(&image(), 4096), Ok(expected));
    }

    #[test]
    fn every_damage_is_named() {
        for (at, value, size, expected) in [
            (0, b'x', 4096, "hsqs"),
            (28, 3, 4096, "version"),
            (22, 18, 4096, "block size"),
            (20, 9, 4096, "compressor"),
            (64, 250, 4096, "inode table"),
            (1, b's', 150, "cut off"),
            (1, b's', 9000, "behind it"),
        ] {
            let mut bytes = image();
            bytes[at] = value;
            let error = superblock(&bytes, size).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        assert!(superblock(b"hsqs", 4).unwrap_err().contains("shorter"));
    }
}
