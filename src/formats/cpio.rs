//! Writes the cpio archive (newc) that carries a file into an initramfs.
//!
//! The layout is that of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

use cpio::newc;

/// The largest file newc can hold: its size field has eight hex digits.
pub const MAX_FILE: u64 = u32::MAX as u64;

/// Archives appended to a compressed initramfs start on a multiple of this.
pub const ALIGNMENT: u64 = 4;

/// The mode of a regular file with read permission for all.
const MODE: u32 = 0o100_444;

/// Writes an archive with one file of `size` bytes, copied from `content` by `copy`.
///
/// Inode, owner and time are fixed, so that the bytes depend on name and content alone.
///
/// # Errors
/// The file is larger than [`MAX_FILE`], `copy` wrote another number of bytes, or writing failed.
pub fn write_single<W: Write>(
    out: W,
    name: &str,
    size: u64,
    copy: impl FnOnce(&mut dyn Write) -> io::Result<u64>,
) -> io::Result<W> {
    let length = u32::try_from(size)
        .map_err(|_| io::Error::other(format!("{name} has {size} bytes; cpio holds at most {MAX_FILE}")))?;
    let mut writer =
        newc::Builder::new(name).ino(1).nlink(1).mode(MODE).uid(0).gid(0).mtime(0).write(out, length);
    let copied = copy(&mut writer)?;
    if copied != size {
        return Err(io::Error::other(format!("{name} was to have {size} bytes, but {copied} came")));
    }
    newc::trailer(writer.finish()?)
}

/// Returns how many zero bytes bring `length` to a multiple of [`ALIGNMENT`].
pub fn padding(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_made_of_its_name_and_content_alone() {
        let write = || {
            let copy = |out: &mut dyn Write| out.write_all(b"content").map(|()| 7);
            write_single(Vec::new(), "image.squashfs.img", 7, copy).unwrap()
        };
        let archive = write();
        assert_eq!(archive, write());
        assert!(archive.starts_with(b"070701"));
        assert_eq!(archive.len() % 4, 0);
    }

    #[test]
    fn a_file_of_4_gib_is_refused_and_not_cut() {
        let error = write_single(Vec::new(), "x", 1 << 32, |_| Ok(1 << 32)).unwrap_err();
        assert!(error.to_string().contains("at most 4294967295"), "{error}");
    }

    #[test]
    fn padding_ends_on_four_bytes() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
    }
}
