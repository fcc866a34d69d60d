//! Reads the entries of a cpio archive (newc) as the kernel does: names are bytes up to the first zero, and the header counts, whatever
//! stands behind its magic (`init/initramfs.c`; `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The `cpio` crate refuses names that are not UTF-8, and takes what is behind a zero for a part of the name.

use std::io::{self, BufRead, Read};

/// What every header begins with: with or without checksums.
const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];

/// Bytes of a header: the magic, and thirteen numbers of eight hex digits.
pub(super) const HEADER: usize = 110;

/// The longest name an entry may have. dracut-cpio pads names to a block, and the kernel stops at a page.
const MAX_NAME: u32 = 16 << 10;

/// The name of the last entry.
const TRAILER: &str = "TRAILER!!!";

/// An entry: its header, and its content as a reader.
pub(super) struct Entry<'a, R> {
    /// What it is called. Bytes that are not UTF-8 are written as `\xNN`.
    pub(super) name: String,
    pub(super) ino: u32,
    pub(super) mode: u32,
    pub(super) nlink: u32,
    /// The user and the group that it is of.
    pub(super) owner: (u32, u32),
    /// Which device it is.
    pub(super) special: (u32, u32),
    /// The number of bytes of the content.
    pub(super) size: u32,
    /// The file system that it was on.
    pub(super) device: (u32, u32),
    /// The header, the name and the padding behind it, as they are written.
    pub(super) head: Vec<u8>,
    input: io::Take<&'a mut R>,
}

impl<'a, R: BufRead> Entry<'a, R> {
    /// Reads a header and a name.
    ///
    /// # Errors
    /// It is cut off or none, or the name is longer than any.
    pub(super) fn read(input: &'a mut R) -> io::Result<Self> {
        let mut header = [0; HEADER];
        input.read_exact(&mut header)?;
        let damaged = || io::Error::other("the header of an entry is damaged");
        if !MAGICS.iter().any(|magic| header.starts_with(magic)) {
            return Err(damaged());
        }
        let mut fields = [0u32; 13];
        for (field, digits) in fields.iter_mut().zip(header[6..].chunks_exact(8)) {
            let digits = std::str::from_utf8(digits).map_err(|_| damaged())?;
            *field = u32::from_str_radix(digits, 16).map_err(|_| damaged())?;
        }
        let [ino, mode, uid, gid, nlink, _, size, major, minor, own_major, own_minor, name_size, _] = fields;
        if name_size > MAX_NAME {
            return Err(io::Error::other(format!("an entry has a name of {name_size} bytes")));
        }
        let padded = padded(HEADER as u64 + u64::from(name_size)) - HEADER as u64;
        let mut head = header.to_vec();
        head.resize(HEADER + padded as usize, 0);
        input.read_exact(&mut head[HEADER..])?;
        let name = &head[HEADER..HEADER + name_size as usize];
        let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
        let input = input.take(u64::from(size));
        let (owner, special, device) = ((uid, gid), (own_major, own_minor), (major, minor));
        Ok(Self { name: shown(name), ino, mode, nlink, owner, special, size, device, head, input })
    }

    /// Tells whether it is a folder.
    pub(super) fn is_folder(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Tells whether it is the last one.
    pub(super) fn is_trailer(&self) -> bool {
        self.name == TRAILER
    }

    /// Passes over what was not read of it.
    ///
    /// # Errors
    /// The archive is cut off.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink())?;
        if self.input.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = u64::from(self.size);
        let mut padding = self.input.into_inner().take(padded(size) - size);
        // To the kernel, the end of the file ends the archive as well.
        io::copy(&mut padding, &mut io::sink()).map(drop)
    }
}

impl<R: BufRead> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if read == 0 && self.input.limit() > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

fn padded(length: u64) -> u64 {
    length.next_multiple_of(4)
}

/// Writes a name as text.
fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut bytes = b"070701".to_vec();
        let fields = [7, 0o100_644, 0, 0, 2, 0, content.len(), 8, 1, 0, 0, name.len() + 1, 0];
        fields.iter().for_each(|field| bytes.extend(format!("{field:08X}").bytes()));
        bytes.extend([name, &[0]].concat());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn names_are_bytes_up_to_the_first_zero() {
        for (name, is) in [(&b"init\0x"[..], "init"), (b"caf\xe9", "caf\\xe9"), ("ü".as_bytes(), "ü")] {
            let bytes = [archive(name, b"content"), archive(b"TRAILER!!!", b"")].concat();
            let mut input = &bytes[..];
            let mut entry = Entry::read(&mut input).unwrap();
            assert_eq!((entry.name.as_str(), entry.size, entry.mode), (is, 7, 0o100_644));
            assert_eq!((entry.ino, entry.nlink, entry.device), (7, 2, (8, 1)));
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            assert_eq!(content, "content");
            entry.finish().unwrap();
            let trailer = Entry::read(&mut input).unwrap();
            assert!(trailer.is_trailer());
            trailer.finish().unwrap();
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_cut_off_damaged_or_too_long_is_an_error() {
        let whole = archive(b"name", b"content");
        for end in [5, 109, 112, whole.len() - 4] {
            let mut input = &whole[..end];
            let read = Entry::read(&mut input).and_then(Entry::finish);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
        let mut long = whole.clone();
        long[94..102].copy_from_slice(b"00010000");
        assert!(Entry::read(&mut &long[..]).err().unwrap().to_string().contains("65536 bytes"));
        let mut damaged = whole;
        damaged[20] = b'x';
        assert!(Entry::read(&mut &damaged[..]).err().unwrap().to_string().contains("damaged"));
    }
}
