//! Writes the cpio archive (newc) that carries a file into an initramfs.
//!
//! The layout is that of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io;

use cpio::newc;

/// The largest file newc can hold: its size field has eight hex digits.
pub const MAX_FILE: u64 = u32::MAX as u64;

/// Headers and contents of an archive start on a multiple of this, and so does an archive behind another one.
const ALIGNMENT: u64 = 4;

/// A file's content starts on a multiple of this in the whole initramfs: the kernel skips zeros between archives, and
/// file systems can give the content the same blocks that the file by itself has.
const CONTENT_ALIGNMENT: u64 = 4096;

/// The mode of a regular file with read permission for all.
const MODE: u32 = 0o100_444;

/// Returns what an archive with one file of `size` bytes has before and behind the file's content.
///
/// Inode, owner and time are fixed, so that the bytes depend on name and content alone.
///
/// # Errors
/// The file is larger than [`MAX_FILE`].
pub fn around(name: &str, size: u64) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let length = u32::try_from(size)
        .map_err(|_| io::Error::other(format!("{name} has {size} bytes; cpio holds at most {MAX_FILE}")))?;
    let entry = newc::Builder::new(name).ino(1).nlink(1).mode(MODE).uid(0).gid(0).mtime(0);
    // A writer that is given no content leaves the header alone.
    let before = entry.write(Vec::new(), length).finish()?;
    let content_padding = size.next_multiple_of(ALIGNMENT) - size;
    let behind = newc::trailer(vec![0; content_padding as usize])?;
    Ok((before, behind))
}

/// An entry of a small archive.
pub enum Entry<'a> {
    /// A folder.
    Folder,
    /// A regular file with this content, and whether it may be run.
    File(&'a [u8], bool),
}

/// Returns an archive with these entries, which belong to root and have no time.
///
/// # Errors
/// A file is larger than [`MAX_FILE`].
pub fn archive(entries: &[(&str, Entry<'_>)]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, (name, entry)) in (1..).zip(entries) {
        let (mode, content): (u32, &[u8]) = match entry {
            Entry::Folder => (0o040_755, &[]),
            Entry::File(content, true) => (0o100_755, content),
            Entry::File(content, false) => (0o100_644, content),
        };
        let length = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{name} has more than {MAX_FILE} bytes")))?;
        let builder = newc::Builder::new(name).ino(number).nlink(1).mode(mode).uid(0).gid(0).mtime(0);
        let mut writer = builder.write(archive, length);
        io::Write::write_all(&mut writer, content)?;
        archive = writer.finish()?;
    }
    newc::trailer(archive)
}

/// Returns how many zero bytes go between an initramfs of `length` bytes and an archive whose header has `header` bytes.
pub fn padding(length: u64, header: u64) -> u64 {
    (length + header).next_multiple_of(CONTENT_ALIGNMENT) - header - length
}

/// Returns where an initrd begins that a boot loader puts behind `length` bytes of others: on a multiple of four.
pub fn aligned(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_made_of_its_name_and_content_alone() {
        let write = || {
            let (before, behind) = around("image.squashfs.img", 7).unwrap();
            [before, b"content".to_vec(), behind].concat()
        };
        let archive = write();
        assert_eq!(archive, write());
        assert!(archive.starts_with(b"070701"));
        assert_eq!(archive.len() % 4, 0);
        let mut reader = newc::Reader::new(&archive[..]).unwrap();
        let mut content = String::new();
        io::Read::read_to_string(&mut reader, &mut content).unwrap();
        assert_eq!((reader.entry().name(), content.as_str()), ("image.squashfs.img", "content"));
        assert!(newc::Reader::new(reader.finish().unwrap()).unwrap().entry().is_trailer());
    }

    #[test]
    fn a_file_of_4_gib_is_refused_and_not_cut() {
        let error = around("x", 1 << 32).unwrap_err();
        assert!(error.to_string().contains("at most 4294967295"), "{error}");
    }

    #[test]
    fn content_starts_on_a_block_and_the_archive_on_four_bytes() {
        for (length, header) in [(0, 132), (1, 132), (3964, 132), (3965, 132), (8192, 4)] {
            let padding = padding(length, header);
            assert_eq!((length + padding + header) % 4096, 0);
            assert_eq!((length + padding) % 4, 0);
            assert!(padding < 4096);
        }
    }
}
