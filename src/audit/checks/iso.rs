//! Checks of the ISO by itself.

use super::arch::is_for_other_firmware;
use super::select::{count, linux, listed};
use crate::arch::Firmware;
use crate::audit::facts::{Facts, Kind};
use crate::audit::report::{Check, Outcome};
use crate::formats::iso9660::Platform;
use crate::formats::menus::{By, Searched};

const AGAIN: &str = "fetch the ISO again, or build it again";

pub(super) fn structure(check: &Check, facts: &Facts) -> Outcome {
    let iso = &facts.iso;
    let mut outcome = Outcome::new(check);
    outcome.looked();
    if iso.size < iso.volume_size {
        let what = format!("it is cut off: it should have {} bytes and has {}", iso.volume_size, iso.size);
        outcome.differs(&iso.name, what, AGAIN);
    }
    for path in &iso.repeated {
        outcome.differs(
            path,
            "stands several times in its folder; boot loaders and Linux take the first one",
            "make the ISO anew: each name once",
        );
    }
    for path in &iso.dangling {
        outcome.warns(
            path,
            "is a link that leads to nothing on the ISO",
            "put the file there, or remove the link",
        );
    }
    outcome.says(format!("whole: {} bytes, volume id {:?}", iso.size, iso.volume_id), "")
}

pub(super) fn boot(check: &Check, facts: &Facts) -> Outcome {
    let iso = &facts.iso;
    let mut outcome = Outcome::new(check);
    outcome.looked();
    let hint = "make the ISO with boot images for BIOS and UEFI (grub-mkrescue, xorriso)";
    let images = match &iso.boot_images {
        Ok(images) => &images[..],
        Err(why) => {
            outcome.differs(&iso.name, *why, hint);
            return outcome;
        }
    };
    let open_firmware = facts.loaders.iter().filter(|l| l.on_iso && l.firmware == Firmware::OpenFirmware);
    let open_firmware = open_firmware.filter(|loader| loader.damage.is_none()).count() > 0;
    if images.is_empty() && !open_firmware {
        let mut kernels = iso.of_kind(Kind::Kernel).peekable();
        if kernels.peek().is_some() && kernels.all(is_for_other_firmware) {
            outcome.warns(
                &iso.name,
                "whether it starts is not judged: it has no El Torito catalog, and its kernels are for machines with other firmware",
                "boot it once",
            );
        } else {
            outcome.differs(&iso.name, "it has no El Torito catalog: no firmware starts it from a CD", hint);
        }
    }
    let mut offered = Vec::new();
    for boot in images {
        let image = &boot.image;
        let name = match image.platform {
            Platform::Bios => "BIOS".to_owned(),
            Platform::Uefi => "UEFI".to_owned(),
            Platform::Other(number) => format!("platform {number}"),
        };
        let of = boot.file.as_ref().map(|file| format!(", /{file},")).unwrap_or_default();
        if let Some(why) = &boot.damage {
            let what = format!("its boot image for {name}{of} {why}");
            outcome.differs(&iso.name, what, hint);
        }
        if image.start >= iso.size {
            outcome.differs(&iso.name, format!("its boot image for {name} lies beyond its end"), AGAIN);
        } else if image.bootable {
            offered.push((image.platform, name));
        }
    }
    if offered.is_empty() && !images.is_empty() && !open_firmware {
        outcome.differs(&iso.name, "none of its boot images is said to be bootable", hint);
    }
    for what in &iso.wrong_partitions {
        outcome.differs(&iso.name, what, "make the partition again: UEFI starts a stick from there");
    }
    if iso.has_empty_boot_code {
        outcome.warns(
            &iso.name,
            "BIOS starts it from a disc alone: its first sector has no code, as a stick needs it",
            "make it with a boot sector (xorriso --grub2-mbr or -isohybrid-mbr)",
        );
    }
    let is_pc = iso
        .of_kind(Kind::Kernel)
        .any(|part| part.kernel.as_ref().is_some_and(|kernel| kernel.archs.iter().any(|arch| arch.is_pc())));
    for (platform, name) in [(Platform::Bios, "BIOS"), (Platform::Uefi, "UEFI")] {
        let lacks = !offered.iter().any(|(offered, _)| *offered == platform);
        if lacks && is_pc && !images.is_empty() {
            outcome.warns(&iso.name, format!("there is nothing that {name} could start"), hint);
        }
    }
    let open_firmware = open_firmware.then_some("Open Firmware");
    let names = listed(offered.iter().map(|(_, name)| name.as_str()).chain(open_firmware));
    outcome.says(format!("starts by {names}"), "")
}

pub(super) fn volume_id(check: &Check, facts: &Facts) -> Outcome {
    let iso = &facts.iso;
    let mut outcome = Outcome::new(check);
    outcome.looked();
    let id = &iso.volume_id;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    if id.is_empty() {
        outcome.differs(
            &iso.name,
            "it has no volume id, by which the initramfs finds it",
            "set livecd/volid",
        );
    } else if !id.bytes().all(plain) {
        // Whoever looks for it has to write them in another way, as \x20; then it is found.
        outcome.warns(
            &iso.name,
            format!("the volume id {id:?} has characters that a kernel command line cannot hold as they are"),
            "use letters, digits and . _ - + only (livecd/volid)",
        );
    }
    let mut named = 0;
    for menu in &facts.menus {
        let labels = linux(menu).flat_map(|entry| {
            let labels = entry.words.iter().filter_map(|word| {
                let label = word.strip_prefix("root=live:")?;
                label.strip_prefix("CDLABEL=").or_else(|| label.strip_prefix("LABEL="))
            });
            labels.map(|label| (entry.line, label.replace("\\x20", " ")))
        });
        let searched = menu.searched.iter().filter(|searched| menu.on_iso && searched.by == By::Label);
        let searched = searched.map(|searched| (searched.line, searched.value.clone()));
        // What only the machine knows is not judged.
        for (line, label) in labels.chain(searched).filter(|(_, label)| !label.contains("${")) {
            named += 1;
            if label != *id {
                outcome.differs(
                    format!("{}:{line}", menu.file),
                    format!("it looks for the volume {label:?}, but the ISO's volume id is {id:?}"),
                    "make menu and ISO in one build; do not change one of them afterwards",
                );
            }
        }
    }
    for menu in facts.menus.iter().filter(|menu| menu.on_iso) {
        let is_isos = |searched: &&Searched| is_of_isos(&searched.value) && searched.value != iso.uuid;
        for searched in menu.searched.iter().filter(|searched| searched.by == By::Uuid).filter(is_isos) {
            let what =
                format!("it looks for the volume {}, but the ISO's UUID is {}", searched.value, iso.uuid);
            let hint = "make menu and ISO in one build, or look for a file that only this ISO has";
            outcome.warns(format!("{}:{}", menu.file, searched.line), what, hint);
        }
    }
    outcome.says(format!("{id:?}, and {} for it", count(named, "line looks", "lines look")), "")
}

/// Tells whether a UUID is one of an ISO: the digits of a time.
fn is_of_isos(uuid: &str) -> bool {
    uuid.len() == 22 && uuid.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

pub(super) fn contents(check: &Check, facts: &Facts) -> Outcome {
    let iso = &facts.iso;
    let mut outcome = Outcome::new(check);
    outcome.looked();
    for (kind, name) in
        [(Kind::Kernel, "kernel"), (Kind::Initramfs, "initrd"), (Kind::Squashfs, "squashfs image")]
    {
        if iso.of_kind(kind).next().is_some() {
            continue;
        }
        let other = iso.other_images.iter().find(|_| kind == Kind::Squashfs);
        if let Some((path, other)) = other {
            outcome.differs(
                &iso.name,
                format!("there is no {name} on it; {path} is an image of {other}"),
                "pack the root as a squashfs: nothing else is read here",
            );
        } else {
            outcome.differs(
                &iso.name,
                format!("there is no {name} on it"),
                "build it again; an interrupted catalyst run that was resumed leaves such ISOs",
            );
        }
    }
    if !facts.menus.iter().any(|menu| menu.on_iso && !menu.entries.is_empty()) {
        outcome.differs(&iso.name, "it has no menu that boots anything", "add boot/grub/grub.cfg");
    }
    for menu in facts.menus.iter().filter(|menu| menu.on_iso) {
        for missing in &menu.missing {
            outcome.differs(
                format!("{}:{}", menu.file, missing.line),
                format!("it names {}, which is not on the ISO", missing.form),
                "put the file there, or correct the menu",
            );
        }
    }
    let names = listed(iso.parts.keys().map(String::as_str));
    outcome.says(format!("has {names}"), "")
}

pub(super) fn own_checksums(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut number = 0;
    match &facts.iso.own_checksums {
        None => {}
        Some(Err(why)) => outcome.differs("isoroot_b2sums", why, AGAIN),
        Some(Ok(lines)) => {
            outcome.looked();
            number = lines.len();
            for (line, found) in lines {
                let subject = format!("isoroot_b2sums:{}", line.line);
                match found {
                    None => outcome.differs(subject, format!("{} is not on the ISO", line.name), AGAIN),
                    Some(hex) if *hex != line.hex => {
                        outcome.differs(subject, format!("{} has other bytes", line.name), AGAIN);
                    }
                    Some(_) => {}
                }
            }
        }
    }
    outcome.says(format!("all {} hold", count(number, "checksum", "checksums")), "the ISO carries none")
}
