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
pub(super) const NO_TABLE: u64 = u64::MAX;

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

pub(super) fn u16_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8; SUPERBLOCK], at: usize) -> u64 {
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
