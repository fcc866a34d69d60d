//! How firmware starts an ISO: El Torito, the EFI system partition, the boot sector of a stick, Open Firmware.

use std::collections::BTreeSet;
use std::io::Read;

use cache::name::RelPath;

use super::super::facts::{BootFacts, Kind, article};
use super::super::loaders::{LOADER_HEAD, LoaderFacts, MAX_PROGRAM, expected, is_no_program, look, looks};
use super::super::place::MAX_TEXT;
use super::super::sniff::{kind_of, loader_of};
use super::Gatherer;
use super::esp::Esp;
use crate::arch::{Arch, Firmware};
use crate::formats::iso9660::{BootImage, Iso, IsoFile, Platform};
use crate::formats::{fat, partitions, program};

/// What CHRP firmware reads from a medium, and where on it (CHRP binding to IEEE 1275, 11.1.2).
const BOOTINFO: &str = "ppc/bootinfo.txt";

/// The boot sector of a disk: where its code ends, where its table of partitions is, and its mark.
const SECTOR: usize = 512;
const CODE_END: usize = 440;
const MARK: usize = 510;

/// How many bytes of a file of an EFI system partition are wanted.
fn wanted(path: &str, size: u64) -> u64 {
    match loader_of(path, b"") {
        Some(_) => MAX_TEXT,
        None if path.to_ascii_lowercase().ends_with(".cfg") => MAX_TEXT,
        None if expected(path).is_some() && size <= MAX_PROGRAM => size,
        None if expected(path).is_some() => LOADER_HEAD,
        None => 0,
    }
}

impl Gatherer<'_> {
    /// Looks at what El Torito offers; reads the EFI system partition among it.
    pub(super) fn read_boot_images(&mut self) {
        let iso = self.iso;
        let Ok(images) = &iso.boot_images else { return };
        for image in images.iter().filter(|image| image.bootable && image.start < iso.size()) {
            let file = file_at(iso, image.start);
            let damage = match image.platform {
                Platform::Uefi => {
                    let name =
                        file.as_deref().map_or_else(|| "EFI partition".to_owned(), |file| format!("/{file}"));
                    self.read_esp(image.start, name).err()
                }
                Platform::Bios | Platform::Other(_) => self.look_at_boot_image(image, file.as_deref()),
            };
            self.boot_images.push(BootFacts { image: *image, file, damage });
        }
    }

    /// Returns what is wrong with an image that BIOS starts.
    fn look_at_boot_image(&mut self, image: &BootImage, file: Option<&str>) -> Option<String> {
        let mut head = Vec::new();
        if let Err(error) = self.iso.window(image.start).take(LOADER_HEAD).read_to_end(&mut head) {
            self.unreadable.push((file.unwrap_or("the boot image").to_owned(), error.to_string()));
            return None;
        }
        let kind = kind_of(file.unwrap_or_default(), &head);
        match kind {
            Kind::Kernel | Kind::Initramfs | Kind::Squashfs => {
                Some(format!("is {}, which no firmware starts", article(kind)))
            }
            _ if is_no_program(&head) => Some(format!("is no program: {}", looks(&head))),
            _ => None,
        }
    }

    /// Reads the EFI system partition; the error says why firmware finds nothing in it.
    fn read_esp(&mut self, start: u64, name: String) -> Result<(), String> {
        let window = self.iso.window(start);
        let mut head = Vec::new();
        let read = self.iso.window(start).take(SECTOR as u64).read_to_end(&mut head);
        read.map_err(|error| error.to_string())?;
        let files = fat::read(window, wanted).map_err(|error| {
            format!("is no FAT file system, as UEFI starts from: {error}; {}", looks(&head))
        })?;
        let esp = Esp { name, files };
        for (path, file) in &esp.files {
            self.loaders.extend(look(&esp.shown(path), &file.start, file.size, true));
        }
        let is_removable = |path: &&String| {
            let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
            folder.eq_ignore_ascii_case("EFI/BOOT") && Arch::of_removable(file).is_some()
        };
        let is_startable = esp.files.keys().any(|path| is_removable(&path));
        self.esps.push(esp);
        match is_startable {
            true => Ok(()),
            false => Err("has no EFI/BOOT/BOOTX64.EFI or its like, by which UEFI starts".to_owned()),
        }
    }

    /// Reads the EFI system partitions that a stick has beside El Torito's; returns what is wrong with them.
    pub(super) fn read_partitions(&mut self) -> Vec<String> {
        let iso = self.iso;
        let found = partitions::efi_system(|buffer, at| match at.checked_add(buffer.len() as u64) {
            Some(end) if end <= iso.size() => iso.window(at).read_exact(buffer),
            _ => {
                buffer.fill(0);
                Ok(())
            }
        });
        let starts = match found {
            Ok(starts) => starts,
            Err(error) => {
                self.unreadable.push(("the partition table".to_owned(), error.to_string()));
                return Vec::new();
            }
        };
        let offered: BTreeSet<u64> = self.boot_images.iter().map(|boot| boot.image.start).collect();
        let mut wrong = Vec::new();
        for start in starts.difference(&offered) {
            let name = format!("EFI partition at byte {start}");
            let read = match *start < iso.size() {
                true => self.read_esp(*start, name),
                false => Err("lies beyond the end".to_owned()),
            };
            wrong.extend(read.err().map(|why| format!("its EFI system partition at byte {start} {why}")));
        }
        wrong
    }

    /// Looks at the boot loaders among the files of the ISO.
    pub(super) fn read_iso_loaders(&mut self) {
        let iso = self.iso;
        for (path, file) in &iso.files {
            let path = path.to_string();
            if expected(&path).is_none() {
                continue;
            }
            let mut head = Vec::new();
            match iso.reader(file).take(LOADER_HEAD).read_to_end(&mut head) {
                Ok(_) => self.loaders.extend(look(&format!("/{path}"), &head, file.size(), true)),
                Err(error) => self.unreadable.push((format!("/{path}"), error.to_string())),
            }
        }
        self.read_bootinfo();
    }

    /// Reads how Open Firmware starts the ISO: a text that names an ELF program.
    fn read_bootinfo(&mut self) {
        let Some(text) = self.iso.file(BOOTINFO).and_then(|_| self.iso_text(BOOTINFO)) else { return };
        let script = text.split_once("<boot-script>").and_then(|(_, rest)| rest.split_once("</boot-script>"));
        // "boot &device;:\boot\grub\powerpc.elf", as Open Firmware writes paths.
        let path = script.and_then(|(script, _)| script.split_once("&device;:"));
        let path = path.and_then(|(_, path)| path.split_whitespace().next());
        // A partition's number may stand in front.
        let path = path.map(|path| path.rsplit(',').next().unwrap_or(path).replace('\\', "/"));
        let path = path.unwrap_or_default().trim_start_matches('/').to_owned();
        let mut loader = LoaderFacts {
            file: format!("/{path}"),
            on_iso: true,
            firmware: Firmware::OpenFirmware,
            named: None,
            arch: None,
            damage: None,
            is_hollow: false,
            is_modular: false,
        };
        let mut head = Vec::new();
        let read =
            self.iso.file(&path).map(|file| self.iso.reader(file).take(SECTOR as u64).read_to_end(&mut head));
        match read {
            None => loader.damage = Some(format!("is not there, but /{BOOTINFO} names it")),
            Some(Err(error)) => self.unreadable.push((loader.file.clone(), error.to_string())),
            Some(Ok(_)) => match program::elf(&head) {
                // GRUB for Open Firmware is for 32 bits; it starts kernels for 64.
                Some(elf) => loader.arch = elf.arch,
                None => loader.damage = Some(format!("is no ELF program: {}", looks(&head))),
            },
        }
        self.loaders.push(loader);
    }

    /// Tells whether BIOS is to start the ISO from a stick, and finds nothing but zeros there.
    pub(super) fn has_empty_boot_code(&mut self) -> bool {
        let mut sector = [0; SECTOR];
        match self.iso.window(0).read_exact(&mut sector) {
            Ok(()) => {
                let offers_bios = self.boot_images.iter().any(|boot| boot.image.platform == Platform::Bios);
                let code = &sector[..CODE_END];
                offers_bios && sector[MARK..] == [0x55, 0xaa] && code.iter().all(|byte| *byte == 0)
            }
            Err(_) => false,
        }
    }
}

/// Returns the file of an ISO that begins at a place.
fn file_at(iso: &Iso, start: u64) -> Option<String> {
    let at = |(_, file): &(&RelPath, &IsoFile)| {
        file.size() > 0 && file.extents.first().is_some_and(|extent| extent.0 == start)
    };
    iso.files.iter().find(at).map(|(path, _)| path.to_string())
}
