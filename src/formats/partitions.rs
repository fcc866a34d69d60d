//! The partition tables of a disk, as far as they say where EFI system partitions are.
//!
//! The table in the boot sector, and the GUID partition table (UEFI specification 2.10, 5.2 and 5.3).

use std::collections::BTreeSet;
use std::io;

use super::little::{long, word};

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Where the boot sector has its four entries and its mark; where in one are the kind and the first sector.
const ENTRIES: usize = 446;
const ENTRY: usize = 16;
const KIND: usize = 4;
const FIRST: usize = 8;
const MARK: usize = 510;

/// The kind of an EFI system partition in the boot sector.
const ESP: u8 = 0xef;

/// An EFI system partition in the GUID partition table: C12A7328-F81F-11D2-BA4B-00A0C93EC93B, as it is written there.
const ESP_GUID: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// Entries of a GUID partition table that are read, and the length of one.
const MAX_ENTRIES: u32 = 128;
const MAX_ENTRY: u32 = 512;

/// Returns where the EFI system partitions of a disk begin, in bytes; `read` fills a buffer from a place on.
///
/// # Errors
/// `read` failed.
pub fn efi_system(mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> io::Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    let mut sector = [0; SECTOR as usize];
    read(&mut sector, 0)?;
    if sector[MARK..] != [0x55, 0xaa] {
        return Ok(found);
    }
    for entry in sector[ENTRIES..MARK].chunks_exact(ENTRY) {
        if entry[KIND] == ESP {
            found.insert(SECTOR * u64::from(word(entry, FIRST).unwrap_or_default()));
        }
    }
    let mut header = [0; SECTOR as usize];
    read(&mut header, SECTOR)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(found);
    }
    let (Some(at), Some(number), Some(length)) = (long(&header, 72), word(&header, 80), word(&header, 84))
    else {
        return Ok(found);
    };
    if number > MAX_ENTRIES || !(128..=MAX_ENTRY).contains(&length) {
        return Ok(found);
    }
    let mut entries = vec![0; (number * length) as usize];
    read(&mut entries, at.saturating_mul(SECTOR))?;
    for entry in entries.chunks_exact(length as usize) {
        if entry.starts_with(&ESP_GUID) {
            found.insert(long(entry, 32).unwrap_or_default().saturating_mul(SECTOR));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_both_tables_are_found() {
        let mut disk = vec![0u8; 4096];
        let places = |disk: &[u8]| {
            let read = |buffer: &mut [u8], at: u64| {
                let at = at as usize;
                let from = disk.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(from);
                Ok(())
            };
            efi_system(read).unwrap().into_iter().collect::<Vec<_>>()
        };
        assert!(places(&disk).is_empty());
        disk[MARK..MARK + 2].copy_from_slice(&[0x55, 0xaa]);
        disk[ENTRIES + ENTRY + KIND] = ESP;
        disk[ENTRIES + ENTRY + FIRST] = 4;
        assert_eq!(places(&disk), [2048]);
        disk[512..520].copy_from_slice(b"EFI PART");
        (disk[512 + 72], disk[512 + 80], disk[512 + 84]) = (2, 4, 128);
        disk[1024 + 128..1024 + 144].copy_from_slice(&ESP_GUID);
        disk[1024 + 128 + 32] = 6;
        assert_eq!(places(&disk), [2048, 3072]);
    }
}
