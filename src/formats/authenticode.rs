//! PE programs as firmware with Secure Boot reads them: the bytes that a signature is of, and the signatures.
//!
//! The format is that of "Windows Authenticode Portable Executable Signature Format", 1.0, and of UEFI 2.10, 32.2.

use std::io::{self, Read};

use object::{LittleEndian as LE, ReadRef, pe};
use sha2::{Digest, Sha256};

use super::program;

/// Headers of a program lie in its first bytes: no real one has more.
const MAX_HEADERS: u64 = 64 << 10;

/// Bytes of all signatures, and of the names of sections.
const MAX_TABLE: u64 = 1 << 20;

/// Sections with long names, and bytes of one that are kept.
const MAX_LONG: usize = 32;
const MAX_SECTION: u64 = 256 << 10;

/// Where the optional header has the checksum, and its directories in its two widths; the fifth one is of the signatures.
const CHECKSUM: u64 = 64;
const DIRECTORIES_32: u64 = 96;
const DIRECTORIES_64: u64 = 112;
const PE32: u16 = 0x10b;
const PE32_PLUS: u16 = 0x20b;
const SECURITY: u64 = 4;
const DIRECTORY: u64 = 8;

/// A signature's header: its length, its version, and its kind, of which UEFI knows this one (PKCS #7).
const ENTRY_HEAD: usize = 8;
const PKCS_SIGNED_DATA: u16 = 2;

/// The section in which shim has whom it trusts: sizes and places of two lists, then those.
const VENDOR_CERT: &str = ".vendor_cert";

/// What a program says to firmware that verifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The hash that signatures are of.
    pub sha256: [u8; 32],
    /// The signatures: PKCS #7 each.
    pub signatures: Vec<Vec<u8>>,
    /// Whom it trusts, where it is a shim: a certificate in DER, or a list of signatures as UEFI has them.
    pub vendor: Option<Vec<u8>>,
}

/// Why nothing can be told of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Why.
    pub why: String,
    /// Whether it was signed, and was changed since: its end is not where its signatures say.
    pub is_changed: bool,
}

/// Where in a file what is.
struct Layout {
    /// What is signed, in the order of the file.
    signed: Vec<(u64, u64)>,
    table: (u64, u64),
    /// Names of sections that are longer than a header holds.
    names: (u64, u64),
    /// The sections with such names: where in `names` each is, and its bytes.
    long: Vec<(usize, (u64, u64))>,
}

/// Reads a program to its end; `size` are its bytes. `None` for what is no PE program; the inner error says what is wrong with one.
///
/// # Errors
/// Reading failed.
pub fn read(mut input: impl Read, size: u64) -> io::Result<Option<Result<Image, Unread>>> {
    let mut head = Vec::new();
    input.by_ref().take(MAX_HEADERS).read_to_end(&mut head)?;
    let layout = match layout(&head, size) {
        Some(Ok(layout)) => layout,
        Some(Err(why)) => return Ok(Some(Err(why))),
        None => return Ok(None),
    };
    let mut input = head.as_slice().chain(input);
    let mut hasher = Sha256::new();
    let (mut table, mut names) = (Vec::new(), Vec::new());
    let mut long: Vec<Vec<u8>> = vec![Vec::new(); layout.long.len()];
    let mut buffer = vec![0; 1 << 16];
    let mut at = 0;
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        let bytes = &buffer[..length];
        for span in &layout.signed {
            hasher.update(within(bytes, at, *span));
        }
        table.extend_from_slice(within(bytes, at, layout.table));
        names.extend_from_slice(within(bytes, at, layout.names));
        for (content, (_, span)) in long.iter_mut().zip(&layout.long) {
            content.extend_from_slice(within(bytes, at, *span));
        }
        at += length as u64;
    }
    if at != size {
        return Ok(Some(Err(unread(format!("it has {at} bytes, and should have {size}"), false))));
    }
    let signatures = match entries(&table) {
        Ok(signatures) => signatures,
        Err(why) => return Ok(Some(Err(unread(why, true)))),
    };
    let is_vendors = |offset: usize| {
        let name = names.get(offset..).and_then(|rest| rest.split(|byte| *byte == 0).next());
        name == Some(VENDOR_CERT.as_bytes())
    };
    let vendor = layout.long.iter().position(|(offset, _)| is_vendors(*offset));
    let vendor = vendor.and_then(|index| authorized(&long[index])).map(<[u8]>::to_vec);
    Ok(Some(Ok(Image { sha256: hasher.finalize().into(), signatures, vendor })))
}

fn unread(why: String, is_changed: bool) -> Unread {
    Unread { why, is_changed }
}

/// Returns what of a piece, which begins at `at`, lies in a span.
fn within(piece: &[u8], at: u64, (start, length): (u64, u64)) -> &[u8] {
    let end = at + piece.len() as u64;
    let (from, to) = (start.clamp(at, end), (start + length).clamp(at, end));
    &piece[(from - at) as usize..(to - at) as usize]
}

/// Reads where what is, by the headers.
fn layout(head: &[u8], size: u64) -> Option<Result<Layout, Unread>> {
    program::pe(head)?;
    let dos = pe::ImageDosHeader::parse(head).ok()?;
    let file_header = u64::from(dos.nt_headers_offset()) + 4;
    let header = head.read_at::<pe::ImageFileHeader>(file_header).ok()?;
    let optional = file_header + size_of::<pe::ImageFileHeader>() as u64;
    let half = |at: u64| head.read_at::<object::U16<LE>>(at).ok().map(|value| value.get(LE));
    let word = |at: u64| head.read_at::<object::U32<LE>>(at).ok().map(|value| u64::from(value.get(LE)));
    let directories = match half(optional)? {
        PE32 => optional + DIRECTORIES_32,
        PE32_PLUS => optional + DIRECTORIES_64,
        _ => return None,
    };
    let headers = word(optional + 60)?;
    let has_table = word(directories - 4)? > SECURITY;
    let entry = directories + SECURITY * DIRECTORY;
    let table = if has_table { (word(entry)?, word(entry + 4)?) } else { (0, 0) };
    let sections = optional + u64::from(header.size_of_optional_header.get(LE));
    let number = usize::from(header.number_of_sections.get(LE));
    let sections = head.read_slice_at::<pe::ImageSectionHeader>(sections, number).ok()?;
    let raw = |section: &pe::ImageSectionHeader| {
        (u64::from(section.pointer_to_raw_data.get(LE)), u64::from(section.size_of_raw_data.get(LE)))
    };
    // A long name is a slash and its place among the names behind the symbols, which have 18 bytes each.
    let offset = |section: &pe::ImageSectionHeader| {
        std::str::from_utf8(section.raw_name()).ok()?.strip_prefix('/')?.parse().ok()
    };
    let long = sections.iter().filter_map(|section| Some((offset(section)?, raw(section))));
    let long: Vec<(usize, (u64, u64))> = long.filter(|(_, (_, length))| *length <= MAX_SECTION).collect();
    let symbols = u64::from(header.pointer_to_symbol_table.get(LE));
    let names = symbols + 18 * u64::from(header.number_of_symbols.get(LE));
    let names = if symbols == 0 { (0, 0) } else { (names, MAX_TABLE) };
    let mut bodies: Vec<(u64, u64)> = sections.iter().map(raw).filter(|(_, length)| *length > 0).collect();
    bodies.sort_unstable();
    let mut signed = vec![(0, optional + CHECKSUM)];
    let behind = optional + CHECKSUM + 4;
    if has_table {
        signed.push((behind, entry - behind));
        signed.push((entry + DIRECTORY, headers.saturating_sub(entry + DIRECTORY)));
    } else {
        signed.push((behind, headers.saturating_sub(behind)));
    }
    signed.extend(&bodies);
    // What is behind the sections is signed too, up to the signatures.
    let hashed = headers + bodies.iter().map(|(_, length)| length).sum::<u64>();
    let left = size.checked_sub(hashed + table.1);
    signed.extend(left.map(|left| (hashed, left)));
    if table.1 > MAX_TABLE || long.len() > MAX_LONG {
        return Some(Err(unread("it has more certificates than any real one".to_owned(), false)));
    }
    if left.is_none() || table.1 > 0 && table.0 + table.1 != size {
        let why = "it is cut off, or longer than its headers say".to_owned();
        return Some(Err(unread(why, table.1 > 0)));
    }
    let mut end = 0;
    for (start, length) in &signed {
        if *start < end {
            let why = "its sections are not one behind the other".to_owned();
            return Some(Err(unread(why, false)));
        }
        end = start + length;
    }
    Some(Ok(Layout { signed, table, names, long }))
}

/// Takes the table of signatures apart.
fn entries(mut table: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    while table.len() > ENTRY_HEAD {
        let length = u32::from_le_bytes([table[0], table[1], table[2], table[3]]) as usize;
        let kind = u16::from_le_bytes([table[6], table[7]]);
        let Some(content) = table.get(ENTRY_HEAD..length) else {
            return Err("its table of signatures is cut off".to_owned());
        };
        if kind == PKCS_SIGNED_DATA {
            found.push(content.to_vec());
        }
        table = table.get(length.next_multiple_of(ENTRY_HEAD)..).unwrap_or_default();
    }
    Ok(found)
}

/// Returns whom a shim authorizes, by its section.
fn authorized(section: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(section.get(at..at + 4)?.try_into().ok()?) as usize);
    let (size, offset) = (word(0)?, word(8)?);
    section.get(offset..offset.checked_add(size)?).filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a program of one section, as linkers make them, with a table of signatures.
    pub(crate) fn program(content: &[u8], table: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x84..0x86].copy_from_slice(&0x8664u16.to_le_bytes());
        bytes[0x86] = 1;
        bytes[0x94..0x96].copy_from_slice(&240u16.to_le_bytes());
        let optional = 0x98;
        bytes[optional..optional + 2].copy_from_slice(&PE32_PLUS.to_le_bytes());
        bytes[optional + 60..optional + 64].copy_from_slice(&0x400u32.to_le_bytes());
        bytes[optional + 108..optional + 112].copy_from_slice(&16u32.to_le_bytes());
        let section = optional + 240;
        bytes[section..section + 5].copy_from_slice(b".text");
        bytes[section + 16..section + 20].copy_from_slice(&(content.len() as u32).to_le_bytes());
        bytes[section + 20..section + 24].copy_from_slice(&0x400u32.to_le_bytes());
        bytes.extend_from_slice(content);
        if !table.is_empty() {
            let entry = optional + 112 + 32;
            let (at, length) = (bytes.len() as u32, table.len() as u32);
            bytes[entry..entry + 4].copy_from_slice(&at.to_le_bytes());
            bytes[entry + 4..entry + 8].copy_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(table);
        }
        bytes
    }

    fn entry(content: &[u8]) -> Vec<u8> {
        let mut bytes = (content.len() as u32 + 8).to_le_bytes().to_vec();
        bytes.extend([0, 2, 2, 0]);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn image(bytes: &[u8]) -> Result<Image, Unread> {
        read(bytes, bytes.len() as u64).unwrap().unwrap()
    }

    #[test]
    fn signatures_and_the_checksum_are_not_signed_and_all_else_is() {
        let content = vec![7; 200_000];
        let bare = image(&program(&content, b"")).unwrap();
        let signed = image(&program(&content, &[entry(b"first"), entry(b"second one")].concat())).unwrap();
        assert_eq!(bare.sha256, signed.sha256);
        assert!(bare.signatures.is_empty());
        assert_eq!(signed.signatures, [b"first".to_vec(), b"second one".to_vec()]);
        let good = program(&content, &entry(b"x"));
        for at in [0x42, 0x86 + 20, 0x98 + 1, 0x98 + 70, 0x399, 0x400, 0x400 + 199_999] {
            let mut other = good.clone();
            other[at] ^= 0x10;
            let is_same = |image: &Image| image.sha256 == bare.sha256;
            let read = read(&other[..], other.len() as u64).unwrap();
            assert!(!read.is_some_and(|read| read.as_ref().is_ok_and(is_same)), "{at:#x}");
        }
        let mut other = good.clone();
        other[0x98 + 64] ^= 1;
        assert_eq!(image(&other).unwrap().sha256, bare.sha256);
    }

    #[test]
    fn every_prefix_and_every_odd_header_is_refused_or_read() {
        let good = program(&[9; 3000], &entry(b"signature"));
        for length in 0..good.len() {
            let cut = &good[..length];
            assert!(!matches!(read(cut, good.len() as u64).unwrap(), Some(Ok(_))), "{length}");
            let _ = read(cut, length as u64).unwrap();
        }
        for at in 0..0x200 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut odd = good.clone();
                odd[at] = value;
                let _ = read(&odd[..], odd.len() as u64).unwrap();
            }
        }
    }
}
