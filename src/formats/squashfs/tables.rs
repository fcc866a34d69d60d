//! The tables of a squashfs image: whether each block of metadata is where it should be, unpacks, and is full.
//!
//! Format 4.0, as the kernel's `fs/squashfs/squashfs_fs.h` and `cache.c` have it.

use std::io::{self, Read};

use super::superblock::{NO_TABLE, SUPERBLOCK, u16_at, u32_at, u64_at};
use crate::formats::little::{half, long, word};

/// Tables longer than this are not looked at: those of an image with a million files have a tenth.
const MAX_TABLES: u64 = 512 << 20;

/// What a block of metadata unpacks to; packed, it is never longer.
const METADATA: usize = 8192;

/// In the length in front of a block: it is not packed.
const STORED: u16 = 0x8000;

/// Where the superblock has the place of the top folder: its block in the inode table, and where it is in that.
const ROOT: usize = 32;

/// Kinds of inodes that are folders: short and long.
const FOLDERS: [u16; 2] = [1, 8];

/// A table that is found by a list of its blocks.
struct Lookup {
    name: &'static str,
    /// Where the superblock has the place of the list.
    at: usize,
    /// How many entries there are: where that stands, and in how many bytes.
    count: (usize, usize),
    /// Bytes of an entry.
    entry: u64,
}

const LOOKUPS: [Lookup; 3] = [
    Lookup { name: "fragment", at: 80, count: (16, 4), entry: 16 },
    Lookup { name: "export", at: 88, count: (4, 4), entry: 8 },
    Lookup { name: "id", at: 48, count: (26, 2), entry: 4 },
];

/// Looks at the tables of an image whose superblock is sound. `read` fills a buffer from a place of the image on. Returns what is
/// wrong.
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
    let mut image = Image {
        tail: &tail,
        start: inodes,
        compressor: u16_at(bytes, 20),
        first_of_lookups: used,
        block: Vec::new(),
    };
    Ok(image.judge(bytes, inodes, directories).err())
}

/// An image, from its inode table on.
struct Image<'a> {
    tail: &'a [u8],
    start: u64,
    compressor: u16,
    /// The first block of those that lists name: the directory table ends there at the latest.
    first_of_lookups: u64,
    /// The block that was unpacked last; empty where nothing here unpacks it.
    block: Vec<u8>,
}

impl Image<'_> {
    fn judge(&mut self, bytes: &[u8; SUPERBLOCK], inodes: u64, directories: u64) -> Result<(), String> {
        let table = self.chain("inode", inodes, directories)?;
        if !table.is_empty() {
            let found = count_inodes(&table, u32_at(bytes, 12).into());
            let number = u32_at(bytes, 4) as usize;
            match found {
                Ok(found) if found == number => {}
                Ok(found) => return Err(format!("it says that it has {number} inodes, and has {found}")),
                Err(at) => {
                    return Err(format!("its inode table is damaged: there is no inode {at} bytes into it"));
                }
            }
        }
        for Lookup { name, at, count, entry } in &LOOKUPS {
            let number: u64 = match count.1 {
                2 => u16_at(bytes, count.0).into(),
                _ => u32_at(bytes, count.0).into(),
            };
            let list = u64_at(bytes, *at);
            if list != NO_TABLE {
                self.lookup(name, list, number * entry)?;
            }
        }
        let xattrs = u64_at(bytes, 56);
        if xattrs != NO_TABLE {
            // In front of its list stand where what it is about begins, and how many entries there are.
            let number = self.at(xattrs + 8, 4).and_then(|bytes| word(bytes, 0));
            let (Some(begin), Some(number)) = (self.word(xattrs), number) else {
                return Err(format!("its xattr table is damaged at byte {xattrs}"));
            };
            self.lookup("xattr", xattrs + 16, u64::from(number) * 16)?;
            self.first_of_lookups = self.first_of_lookups.min(begin.max(directories));
        }
        let end = self.first_of_lookups.max(directories);
        self.chain("directory", directories, end)?;
        self.root(u64_at(bytes, ROOT), inodes)
    }

    /// Looks at a table whose blocks stand one behind the other; returns it, or nothing where nothing here unpacks it.
    fn chain(&mut self, name: &str, start: u64, end: u64) -> Result<Vec<u8>, String> {
        let mut table = Vec::new();
        let mut at = start;
        while at < end {
            let next =
                self.unpack(at).map_err(|why| format!("its {name} table is damaged at byte {at}: {why}"))?;
            let is_last = next >= end;
            if !is_last && !self.block.is_empty() && self.block.len() != METADATA {
                return Err(format!("its {name} table is damaged at byte {at}: a block is not full"));
            }
            table.extend_from_slice(&self.block);
            at = next;
        }
        match at == end {
            true => Ok(table),
            false => Err(format!("its {name} table goes on into what follows it")),
        }
    }

    /// Looks at a table of so many bytes whose blocks a list names.
    fn lookup(&mut self, name: &str, list: u64, length: u64) -> Result<(), String> {
        let damaged = |place: u64, why: &str| format!("its {name} table is damaged at byte {place}: {why}");
        let blocks = length.div_ceil(METADATA as u64);
        for block in 0..blocks {
            let entry = list + 8 * block;
            let place = self.word(entry).filter(|place| *place < list);
            let place = place.ok_or_else(|| damaged(entry, "no block is there"))?;
            self.unpack(place).map_err(|why| damaged(place, &why))?;
            let expected = (length - block * METADATA as u64).min(METADATA as u64);
            if !self.block.is_empty() && self.block.len() as u64 != expected {
                return Err(damaged(place, "a block has another length than its entries"));
            }
            self.first_of_lookups = self.first_of_lookups.min(place);
        }
        if blocks == 0 {
            self.first_of_lookups = self.first_of_lookups.min(list);
        }
        Ok(())
    }

    /// Looks at the inode of the top folder.
    fn root(&mut self, reference: u64, inodes: u64) -> Result<(), String> {
        let (block, at) = (inodes + (reference >> 16), (reference & 0xffff) as usize);
        self.unpack(block).map_err(|why| format!("its top folder is damaged at byte {block}: {why}"))?;
        if self.block.is_empty() {
            return Ok(());
        }
        let kind = half(&self.block, at);
        match kind.is_some_and(|kind| FOLDERS.contains(&kind)) {
            true => Ok(()),
            false => Err("its top folder is none".to_owned()),
        }
    }

    fn at(&self, place: u64, length: usize) -> Option<&[u8]> {
        let at = usize::try_from(place.checked_sub(self.start)?).ok()?;
        self.tail.get(at..at.checked_add(length)?)
    }

    fn word(&self, place: u64) -> Option<u64> {
        long(self.at(place, 8)?, 0)
    }

    /// Unpacks the block of metadata at a place; returns where it ends. In front of it stands its length, with a bit for "not packed".
    fn unpack(&mut self, place: u64) -> Result<u64, String> {
        let header = self.at(place, 2).and_then(|bytes| half(bytes, 0)).ok_or("it lies beyond the end")?;
        let length = usize::from(header & !STORED);
        if length == 0 || length > METADATA {
            return Err(format!("a block of {length} bytes"));
        }
        let packed = self.at(place + 2, length).ok_or("it goes on beyond the end")?;
        self.block = match header & STORED {
            0 => unpacked(self.compressor, packed).map_err(|error| format!("it does not unpack: {error}"))?,
            _ => packed.to_vec(),
        };
        Ok(place + 2 + length as u64)
    }
}

/// Counts the inodes of a table: they stand one behind the other, each as long as its kind and what is in it say. The error is the
/// place where there is none.
fn count_inodes(table: &[u8], block_size: u64) -> Result<usize, usize> {
    let (mut at, mut number) = (0, 0);
    while at < table.len() {
        let length = inode(&table[at..], block_size).filter(|length| *length <= table.len() - at);
        at += length.ok_or(at)?;
        number += 1;
    }
    Ok(number)
}

/// Returns the length of the inode that bytes begin with.
fn inode(bytes: &[u8], block_size: u64) -> Option<usize> {
    // The end of a file may be in a fragment.
    let blocks = |size: u64, fragment: u32| match fragment {
        u32::MAX => size.div_ceil(block_size),
        _ => size / block_size,
    };
    let length = match half(bytes, 0)? {
        1 => 32,
        2 => 32 + 4 * blocks(word(bytes, 28)?.into(), word(bytes, 20)?),
        3 => 24 + u64::from(word(bytes, 20)?),
        4 | 5 => 24,
        6 | 7 => 20,
        8 => {
            let mut at = 40;
            for _ in 0..half(bytes, 32)? {
                at += 12 + word(bytes, at + 8)? as usize + 1;
            }
            at as u64
        }
        9 => 56 + 4 * blocks(long(bytes, 24)?, word(bytes, 44)?),
        10 => 28 + u64::from(word(bytes, 20)?),
        11 | 12 => 28,
        13 | 14 => 24,
        _ => return None,
    };
    usize::try_from(length).ok()
}

/// Unpacks a block; nothing where nothing here can.
fn unpacked(compressor: u16, packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut block = Vec::new();
    // One byte more tells that it is too long.
    let limit = METADATA as u64 + 1;
    match compressor {
        1 => flate2::bufread::ZlibDecoder::new(packed).take(limit).read_to_end(&mut block)?,
        4 => xz2::bufread::XzDecoder::new(packed).take(limit).read_to_end(&mut block)?,
        5 => {
            block = lz4_flex::block::decompress(packed, METADATA).map_err(io::Error::other)?;
            block.len()
        }
        6 => zstd::stream::read::Decoder::with_buffer(packed)?.take(limit).read_to_end(&mut block)?,
        _ => return Ok(block),
    };
    if block.is_empty() || block.len() > METADATA {
        return Err(io::Error::other(format!("a block of {} bytes", block.len())));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::superblock::superblock;
    use super::*;

    fn judged(image: &[u8]) -> Option<String> {
        superblock(image, image.len() as u64).unwrap();
        let read = |buffer: &mut [u8], at: u64| {
            let at = usize::try_from(at).unwrap();
            buffer.copy_from_slice(&image[at..at + buffer.len()]);
            Ok::<(), std::convert::Infallible>(())
        };
        tables(image, read).unwrap()
    }

    /// Makes an image of six hundred files, packed by the usual program.
    fn image(folder: &std::path::Path, options: &[&str]) -> Vec<u8> {
        let (tree, image) = (folder.join("tree"), folder.join("image"));
        for number in 0..600 {
            let folder = tree.join(format!("{}", number % 7));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("file-{number}")), format!("{number}")).unwrap();
        }
        let made = Command::new("mksquashfs").args([&tree, &image]).args(options).output();
        let made = made.expect("mksquashfs starts; `make test` installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::read(image).unwrap()
    }

    #[test]
    fn the_tables_of_the_usual_program_are_sound_until_a_byte_of_them_is_damaged() {
        for options in [
            &["-comp", "gzip"][..],
            &["-comp", "xz"],
            &["-comp", "zstd"],
            &["-comp", "lz4"],
            &["-comp", "lzo"],
            &["-noI", "-noD", "-noF", "-noX"],
            &["-no-exports", "-no-fragments", "-no-xattrs"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let good = image(folder.path(), options);
            assert_eq!(judged(&good), None, "{options:?}");
            let bytes = good.first_chunk::<SUPERBLOCK>().unwrap();
            let used = u64_at(bytes, 40) as usize;
            let (inodes, directories) = (u64_at(bytes, 64) as usize, u64_at(bytes, 72) as usize);
            // The lengths in front of the blocks stay, and all that is in them is gone.
            let mut zeroed = good.clone();
            let length = usize::from(u16::from_le_bytes([good[inodes], good[inodes + 1]]) & !STORED);
            zeroed[inodes + 2..inodes + 2 + length].fill(0);
            if options != ["-comp", "lzo"] {
                assert!(judged(&zeroed).is_some(), "{options:?}");
            }
            for (what, at) in [("inode", 64), ("directory", 72), ("export", 88), ("id", 48)] {
                let place = u64_at(bytes, at);
                if place == NO_TABLE {
                    continue;
                }
                let mut moved = good.clone();
                moved[at..at + 8].copy_from_slice(&(place + 3).to_le_bytes());
                assert!(judged(&moved).is_some(), "{options:?}: {what}");
            }
            let mut cut = good.clone();
            cut[directories..used].fill(0);
            assert!(judged(&cut).is_some(), "{options:?}");
        }
    }
}
