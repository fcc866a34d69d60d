//! Boot loaders: which files are to be some by their names, and what they are by their bytes.

use crate::arch::{Arch, Firmware};
use crate::formats::{kernel, program};

/// A boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderFacts {
    /// Its file.
    pub file: String,
    /// Whether it is on the ISO.
    pub on_iso: bool,
    /// What starts it.
    pub firmware: Firmware,
    /// The architecture that its name says it is for.
    pub named: Option<Arch>,
    /// The architecture that it is for.
    pub arch: Option<Arch>,
    /// Why it is none.
    pub damage: Option<String>,
    /// Whether it is an EFI program with nothing in it.
    pub is_hollow: bool,
    /// Whether it is a SYSLINUX that does nothing without `ldlinux.c32`.
    pub is_modular: bool,
}

/// A boot loader is no larger: what is, holds a whole system, and is not kept in memory.
pub(super) const MAX_PROGRAM: u64 = 8 << 20;

/// How much of a file is wanted to tell.
pub(super) const LOADER_HEAD: u64 = 64 << 10;

/// Programs of BIOS and of its PXE, by their names.
const BIOS_NAMES: [&str; 7] =
    ["pxelinux.0", "lpxelinux.0", "gpxelinux.0", "core.0", "isolinux.bin", "memdisk", "grldr"];
const BIOS_ENDINGS: [&str; 5] = [".kpxe", ".kkpxe", ".kkkpxe", ".pxe", ".c32"];

/// Returns what starts a file of this name, if it is to be a boot loader, and the architecture that the name says it is for.
pub(super) fn expected(path: &str) -> Option<(Firmware, Option<Arch>)> {
    let lower = path.to_ascii_lowercase();
    let file = lower.rsplit('/').next().unwrap_or(&lower);
    let platform = lower.rsplit('/').skip(1).find_map(Arch::of_grub_platform);
    if file.ends_with(".efi") {
        return Some((Firmware::Uefi, platform.or_else(|| Arch::of_uefi_name(file))));
    }
    if BIOS_NAMES.contains(&file) || BIOS_ENDINGS.iter().any(|ending| file.ends_with(ending)) {
        return Some((Firmware::Bios, Some(Arch::X86)));
    }
    // iPXE as a Linux kernel, for boot loaders that start those: of any architecture.
    file.ends_with(".lkrn").then_some((Firmware::Bios, None))
}

/// Tells whether a file is to be a program of UEFI by its name.
pub(super) fn is_program(name: &str) -> bool {
    expected(name).is_some_and(|(firmware, _)| firmware == Firmware::Uefi)
}

/// Tells what a file is that is to be a boot loader by its name; `None` for all others. `head` are its first bytes, `size` all.
pub(super) fn look(path: &str, head: &[u8], size: u64, on_iso: bool) -> Option<LoaderFacts> {
    let (firmware, named) = expected(path)?;
    let mut loader = LoaderFacts {
        file: path.to_owned(),
        on_iso,
        firmware,
        named,
        arch: None,
        damage: None,
        is_modular: false,
        is_hollow: false,
    };
    if firmware == Firmware::Uefi {
        match program::pe(head) {
            None => loader.damage = Some(format!("is no EFI program: {}", looks(head))),
            Some(pe) => {
                loader.arch = pe.arch;
                let end = pe.sections.iter().map(|section| section.offset + section.length).max();
                loader.damage = match end {
                    _ if pe.is_cut => {
                        Some("is cut off: it ends before its table of sections does".to_owned())
                    }
                    Some(end) if end > size => {
                        Some(format!("is cut off: it should have {end} bytes and has {size}"))
                    }
                    _ => None,
                };
                loader.is_hollow = pe.sections.is_empty();
            }
        }
    } else if path.to_ascii_lowercase().ends_with(".lkrn") {
        match kernel::detect(head) {
            Some(kernel) => loader.arch = kernel.archs.first().copied(),
            None => loader.damage = Some(format!("does not begin as a kernel does: {}", looks(head))),
        }
    } else {
        loader.arch = named;
        loader.is_modular = is_modular(head);
        if is_no_program(head) {
            loader.damage = Some(format!("is no program: {}", looks(head)));
        }
    }
    Some(loader)
}

/// The module that SYSLINUX loads first, since version 5 (its `doc/syslinux.txt`).
pub(super) const LDLINUX: &str = "ldlinux.c32";

/// Tells whether a program is PXELINUX, ISOLINUX or EXTLINUX of version 5 or later, by what it says of itself.
fn is_modular(head: &[u8]) -> bool {
    ["PXELINUX ", "ISOLINUX ", "EXTLINUX "].iter().any(|name| {
        memchr::memmem::find_iter(head, name).any(|at| {
            let version = &head[at + name.len()..];
            let digits = version.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let major =
                std::str::from_utf8(&version[..digits]).ok().and_then(|text| text.parse::<u32>().ok());
            version.get(digits) == Some(&b'.') && major.is_some_and(|major| major >= 5)
        })
    })
}

/// First bytes of files that people mistake for programs.
const OTHERS: [(&[u8], &str); 11] = [
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"\x0a\x05\x01\x08", "a picture (PCX)"),
    (b"%PDF", "a document (PDF)"),
    (b"PK\x03\x04", "an archive (zip)"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"\xfd7zXZ", "compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    (b"BZh9", "compressed (bzip2)"),
    (b"FILE", "a font (PF2)"),
];

fn other(head: &[u8]) -> Option<&'static str> {
    OTHERS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
}

/// Tells whether bytes that are to be a program of BIOS are none: such a program has no mark, but is neither text nor nothing.
pub(super) fn is_no_program(head: &[u8]) -> bool {
    let start = &head[..head.len().min(512)];
    other(start).is_some()
        || start.iter().all(|byte| *byte == 0)
        || std::str::from_utf8(start).is_ok_and(|text| !text.contains('\0'))
}

/// Says what a file begins with.
pub(super) fn looks(head: &[u8]) -> String {
    let start = &head[..head.len().min(512)];
    if start.is_empty() {
        return "it is empty".to_owned();
    }
    if start.iter().all(|byte| *byte == 0) {
        return "it begins with zeros".to_owned();
    }
    if let Some(other) = other(start) {
        return format!("it is {other}");
    }
    let text = String::from_utf8_lossy(&start[..start.len().min(24)]);
    let text = text.trim_start();
    if text.to_ascii_lowercase().starts_with("<!doctype") || text.to_ascii_lowercase().starts_with("<html") {
        return "it is a page for people, as servers send where a file is missing".to_owned();
    }
    format!("it begins with {text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_loaders_are_known_whatever_their_case() {
        for (path, expected_firmware, arch) in [
            ("EFI/BOOT/BOOTX64.EFI", Some(Firmware::Uefi), Some(Arch::Amd64)),
            ("grub/arm64-efi/core.efi", Some(Firmware::Uefi), Some(Arch::Arm64)),
            ("grub/i386-pc/core.0", Some(Firmware::Bios), Some(Arch::X86)),
            ("snponly.efi", Some(Firmware::Uefi), None),
            ("undionly.kpxe", Some(Firmware::Bios), Some(Arch::X86)),
            ("PXELINUX.0", Some(Firmware::Bios), Some(Arch::X86)),
            ("ipxe.lkrn", Some(Firmware::Bios), None),
            ("grub.cfg", None, None),
        ] {
            let found = expected(path);
            assert_eq!(found.map(|(firmware, _)| firmware), expected_firmware, "{path}");
            assert_eq!(found.and_then(|(_, arch)| arch), arch, "{path}");
        }
    }

    #[test]
    fn a_page_of_a_server_is_no_loader() {
        let page = b"<!DOCTYPE html><title>404</title>";
        for path in ["pxelinux.0", "ipxe.efi", "undionly.kpxe", "ipxe.lkrn", "ldlinux.c32"] {
            let found = look(path, page, page.len() as u64, false).unwrap();
            let damage = found.damage.unwrap();
            assert!(damage.contains("page for people"), "{path}: {damage}");
            assert!(look(path, b"", 0, false).unwrap().damage.unwrap().contains("empty"));
            assert!(look(path, &[0; 600], 600, false).unwrap().damage.unwrap().contains("zeros"));
        }
    }
}
