//! Tells what a file is.

use super::facts::{Kind, Loader, Part};
use super::place::Place;
use super::signatures::{CODE_SIGNATURE, signed_by_name};
use crate::formats::checksums::{is_named_like_checksums, is_signature};
use crate::formats::compression::Compression;
use crate::formats::menus::{self, Handed, IsThere, Menu};
use crate::formats::{initramfs, iso9660, kernel, squashfs};
use crate::manifest;

/// How much of a file is looked at: a first block of zstd has up to 128 KiB.
pub(super) const HEAD: usize = 256 << 10;

const _: () = assert!(HEAD >= kernel::HEAD);

/// Tells what a file is by its first bytes and its name.
pub(super) fn kind_of(name: &str, head: &[u8]) -> Kind {
    let file = name.rsplit('/').next().unwrap_or(name);
    if loader_of(name, head).is_some() {
        return Kind::Menu;
    }
    if name.ends_with(CODE_SIGNATURE) || signed_by_name(name).is_some() && trust::openpgp::is_detached(head) {
        return Kind::Signature;
    }
    if is_named_like_checksums(name) && !is_signature(head) {
        return Kind::Checksums;
    }
    if file.ends_with(manifest::ENDING) {
        return Kind::Manifest;
    }
    if head.starts_with(squashfs::MAGIC) {
        return Kind::Squashfs;
    }
    // iPXE and memory tests come with a kernel's header, so that boot loaders start them.
    let is_program = file.ends_with(".lkrn") || is_memtest(name);
    // A Linux release begins with a digit; MEMDISK and its like say their own name there.
    let is_linux = |found: kernel::Kernel| {
        found.release.is_none_or(|release| release.starts_with(|first: char| first.is_ascii_digit()))
    };
    if !is_program && kernel::detect(head).is_some_and(is_linux) {
        return Kind::Kernel;
    }
    if is_initramfs(name, head) {
        return Kind::Initramfs;
    }
    if iso9660::is_iso(head) {
        return Kind::Iso;
    }
    Kind::Other
}

/// Tells whether a file is one that iPXE loads, and so may verify.
pub(super) fn is_loaded_by_ipxe(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Kernel | Kind::Initramfs | Kind::Squashfs => true,
        Kind::Menu => name.ends_with(".ipxe"),
        _ => false,
    }
}

/// Tells by its name and its first bytes whether a file is one that iPXE loads, and so may verify.
pub fn takes_code_signature(name: &str, head: &[u8]) -> bool {
    is_loaded_by_ipxe(kind_of(name, head), name)
}

/// How much of a file [`takes_code_signature`] wants to see.
pub const CODE_HEAD: u64 = HEAD as u64;

/// Tells whether a file is a program that boot loaders start like a kernel: a memory test, MEMDISK, wimboot.
pub(super) fn is_memtest(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    ["memtest", "memdisk", "wimboot"].iter().any(|program| file.contains(program))
}

/// Tells whether a file begins with a cpio archive, bare or compressed.
pub(super) fn is_initramfs(name: &str, head: &[u8]) -> bool {
    let start = head.iter().position(|byte| *byte != 0).unwrap_or(head.len());
    let head = &head[start..];
    let is_no_tar = || !name.contains(".tar") && !name.ends_with(".CONTENTS.gz");
    // What nothing here unpacks, and what is in larger blocks than were read of it, counts by its name.
    initramfs::begins(head)
        .unwrap_or_else(|| Compression::detect(head) == Some(Compression::Lzo) || is_no_tar())
}

/// Tells for which boot loader a file is a menu.
pub(super) fn loader_of(name: &str, head: &[u8]) -> Option<Loader> {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    if head.starts_with(b"#!ipxe") || file.ends_with(".ipxe") && !head.contains(&0) {
        return Some(Loader::Ipxe);
    }
    if folder.rsplit('/').next() == Some("pxelinux.cfg")
        || matches!(file, "isolinux.cfg" | "syslinux.cfg" | "extlinux.conf")
    {
        return Some(Loader::Pxelinux);
    }
    if file.ends_with(".conf") && (folder == "loader/entries" || folder.ends_with("/loader/entries")) {
        return Some(Loader::Bls);
    }
    // Those with the address of one machine go first on a network: grub.cfg-01-MAC, grub.cfg-C0A80001.
    (file == "grub.cfg"
        || file.starts_with("grub.cfg-")
        || folder.rsplit('/').next() == Some("grub") && file.ends_with(".cfg"))
    .then_some(Loader::Grub)
}

/// Reads a menu; `is_there` tells whether a file is there that a condition of it asks for.
pub(super) fn parse(loader: Loader, text: &str, handed: &Handed, is_there: IsThere<'_>) -> Menu {
    match loader {
        Loader::Bls => menus::parse_bls(text, handed),
        Loader::Grub => menus::parse_grub(text, handed, is_there),
        Loader::Ipxe => menus::parse_ipxe(text, handed),
        Loader::Pxelinux => menus::parse_pxelinux(text, handed),
    }
}

/// Adds what the first bytes tell.
pub(super) fn look(mut part: Part, head: &[u8]) -> Part {
    match part.kind {
        Kind::Kernel => part.kernel = kernel::detect(head),
        Kind::Squashfs => {
            part.superblock = Some(squashfs::superblock(head, part.size));
            part.head = head[..head.len().min(squashfs::SUPERBLOCK)].to_vec();
        }
        _ => {}
    }
    part
}

/// Tells what a file is, by its name and its first bytes, which it returns too; none for one that cannot be read.
pub(super) fn first_look(
    name: &str,
    place: &Place,
    unreadable: &mut Vec<(String, String)>,
) -> (Part, Option<Vec<u8>>) {
    match place.size().and_then(|size| Ok((size, place.head(HEAD)?))) {
        Ok((size, head)) => {
            let mut part = Part::new(name, kind_of(name, &head), size.unwrap_or(head.len() as u64));
            part.identity = place.identity();
            (look(part, &head), Some(head))
        }
        Err(error) => {
            unreadable.push((name.to_owned(), error.to_string()));
            (Part::new(name, Kind::Other, 0), None)
        }
    }
}
