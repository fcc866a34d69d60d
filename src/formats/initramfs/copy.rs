//! Copies an initramfs without some of its files: what is left has the bytes that it had.

use std::io::{self, BufRead, Read, Write};

use super::counting::{Counting, skip_zeros};
use super::{Initramfs, Segment, newc, plain_name};
use crate::formats::compression::Compression;
use crate::formats::packer::Packer;

/// What became of an initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It was written.
    Whole,
    /// It is compressed in this way, which nothing here writes.
    NotWritten(Compression),
}

/// Sees an entry, or the end of an archive: its name, as the kernel makes it, and it.
type Each<'v> = dyn FnMut(&str, &mut newc::Entry<'_, Counting<&mut dyn Read>>) -> io::Result<()> + 'v;

/// An archive's last entry, as GNU's cpio and dracut write it.
const TRAILER: &str = "TRAILER!!!";

/// Shows every entry of an archive of an initramfs, and of those that are compressed together with it.
fn each(bytes: &[u8], segment: &Segment, visit: &mut Each<'_>) -> io::Result<()> {
    let offset = usize::try_from(segment.offset).map_err(io::Error::other)?;
    let start = bytes.get(offset..).ok_or(io::ErrorKind::UnexpectedEof)?;
    match &segment.compression {
        None => archives(&mut &*start, Some(segment.entries), visit),
        Some(_) => {
            let unknown = || io::Error::other("it is compressed in an unknown way");
            let mut decoder = Compression::detect(start).ok_or_else(unknown)?.decoder(start)?;
            archives(&mut decoder, None, visit)
        }
    }
}

/// Shows the entries of one archive, of so many, or of all that there are.
fn archives(input: &mut dyn Read, entries: Option<usize>, visit: &mut Each<'_>) -> io::Result<()> {
    let mut input = Counting::new(input);
    let mut seen = 0;
    loop {
        skip_zeros(&mut input)?;
        if input.fill_buf()?.is_empty() {
            return Ok(());
        }
        let mut entry = newc::Entry::read(&mut input)?;
        let is_trailer = entry.is_trailer();
        let name = entry.name.clone();
        visit(plain_name(&name), &mut entry)?;
        entry.finish()?;
        seen += usize::from(!is_trailer);
        if is_trailer && entries.is_some_and(|entries| seen >= entries) {
            return Ok(());
        }
    }
}

/// Returns the archives of an initramfs that are more than microcode.
fn of_files(facts: &Initramfs) -> impl Iterator<Item = &Segment> {
    facts.segments.iter().filter(|segment| !segment.microcode)
}

/// Writes an initramfs anew with the entries that `keeps` says yes to, by their names, and with all folders: microcode as it is, and all
/// else behind one another, compressed as it was. An entry has the header and the content that it had, and stays in its archive: a number
/// that ties several names of one file together means nothing in another one.
///
/// # Errors
/// It cannot be read, or `output` cannot be written.
pub fn copy(
    bytes: &[u8],
    facts: &Initramfs,
    keeps: &mut dyn FnMut(&str) -> bool,
    output: &mut Vec<u8>,
) -> io::Result<Copied> {
    // The one with the most entries counts, and of equals the first: what is behind it was added by hand.
    let backwards = facts.segments.iter().rev().filter(|segment| !segment.microcode);
    let main = backwards.max_by_key(|segment| segment.entries);
    let offset = main.filter(|main| main.compression.is_some()).map(|main| main.offset as usize);
    let compression = offset.and_then(|offset| Compression::detect(bytes.get(offset..)?));
    let ends = facts.segments.iter().skip(1).map(|segment| segment.offset).chain([bytes.len() as u64]);
    for (segment, end) in facts.segments.iter().zip(ends).filter(|(segment, _)| segment.microcode) {
        let raw = bytes.get(segment.offset as usize..end as usize);
        output.extend(raw.ok_or(io::ErrorKind::UnexpectedEof)?);
        // An archive begins on a multiple of four.
        output.resize(output.len().next_multiple_of(4), 0);
    }
    let Some(mut packer) = Packer::new(compression, output)? else {
        return Ok(compression.map_or(Copied::Whole, Copied::NotWritten));
    };
    for segment in of_files(facts) {
        let mut is_open = false;
        each(bytes, segment, &mut |name, entry| {
            let is_trailer = entry.is_trailer();
            // Of several names of one file, one has the content.
            let stays = is_trailer || entry.is_folder() || entry.nlink > 1 || keeps(name);
            is_open = !is_trailer;
            if stays {
                packer.write_all(&entry.head)?;
                let size = io::copy(entry, &mut packer)?;
                packer.write_all(&[0; 3][..(size.next_multiple_of(4) - size) as usize])?;
            }
            Ok(())
        })?;
        if is_open {
            let trailer = cpio::newc::Builder::new(TRAILER).nlink(1).write(Vec::new(), 0).finish()?;
            packer.write_all(&trailer)?;
        }
    }
    packer.finish()?;
    Ok(Copied::Whole)
}

/// Reads the content of entries, by their names.
///
/// # Errors
/// It cannot be read, or `visit` failed.
pub fn contents(
    bytes: &[u8],
    facts: &Initramfs,
    visit: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    for segment in of_files(facts) {
        each(bytes, segment, &mut |name, entry| match entry.is_trailer() {
            true => Ok(()),
            false => visit(name, entry),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::initramfs::read;
    use crate::formats::initramfs::tests::{archive, compressed};

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        contents(bytes, &read(bytes).unwrap(), &mut |name, _| {
            names.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        names
    }

    #[test]
    fn what_is_kept_is_what_it_was() {
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let microcode =
                archive(&[("early_cpio", "1"), ("kernel/x86/microcode/GenuineIntel.bin", "code")]);
            let main = [("usr/a", "one"), ("usr/b", "two of them"), ("./usr/c", "three")];
            let mut bytes = microcode.clone();
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            bytes.extend(compressed(compression, &archive(&main)));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(archive(&[("dev/null", "")]));
            let facts = read(&bytes[..]).unwrap();
            let mut lean = Vec::new();
            let copied = copy(&bytes, &facts, &mut |name| name != "usr/b", &mut lean).unwrap();
            assert_eq!(copied, Copied::Whole);
            assert!(lean.starts_with(&microcode));
            assert_eq!(names(&lean), ["usr/a", "usr/c", "dev/null"]);
            let found = read(&lean[..]).unwrap();
            assert_eq!(found.segments[1].compression.as_deref(), Some(compression.name()));
            let mut again = Vec::new();
            copy(&bytes, &facts, &mut |name| name != "usr/b", &mut again).unwrap();
            assert_eq!(lean, again);
        }
    }

    /// An archive with two names of a file, which the last one has.
    fn linked(names: [&str; 2], content: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, content) in [(names[0], ""), (names[1], content)] {
            let builder = cpio::newc::Builder::new(name).mode(0o100_644).ino(7).nlink(2);
            let mut writer = builder.write(&mut out, content.len() as u32);
            writer.write_all(content.as_bytes()).unwrap();
            writer.finish().unwrap();
        }
        cpio::newc::trailer(&mut out).unwrap();
        out
    }

    #[test]
    fn names_of_one_file_stay_those_of_that_file() {
        let mut bytes = compressed(Compression::Gzip, &linked(["a", "b"], "first"));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(linked(["c", "d"], "second"));
        let facts = read(&bytes[..]).unwrap();
        let mut lean = Vec::new();
        copy(&bytes, &facts, &mut |_| false, &mut lean).unwrap();
        let mut unpacked = Vec::new();
        Compression::Gzip.decoder_to_end(&lean[..]).unwrap().read_to_end(&mut unpacked).unwrap();
        assert_eq!(memchr::memmem::find_iter(&unpacked, TRAILER.as_bytes()).count(), 2);
        assert_eq!(names(&lean), ["a", "b", "c", "d"]);
    }

    #[test]
    fn microcode_that_is_not_the_first_leaves_what_follows_in_its_place() {
        let mut bytes = archive(&[("init", "x")]);
        bytes.extend(archive(&[("early_cpio", "1")]));
        bytes.extend([0; 3]);
        let facts = read(&bytes[..]).unwrap();
        let mut lean = Vec::new();
        copy(&bytes, &facts, &mut |_| true, &mut lean).unwrap();
        assert_eq!(names(&lean), ["init"]);
    }

    #[test]
    fn what_nothing_here_compresses_is_not_written() {
        let bytes = compressed(Compression::Lz4, &archive(&[("usr/a", "one")]));
        let copied = copy(&bytes, &read(&bytes[..]).unwrap(), &mut |_| true, &mut Vec::new()).unwrap();
        assert_eq!(copied, Copied::NotWritten(Compression::Lz4));
    }
}
