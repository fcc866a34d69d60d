//! Checks of boot loaders and architectures: whatever starts, it starts this kernel, and the kernel its initrd.

use std::collections::BTreeSet;

use super::select::{count, initrds_of, linux, listed};
use crate::arch::{Arch, Firmware, one_of};
use crate::audit::facts::{Facts, Kind, Part};
use crate::audit::loaders::{LDLINUX, LoaderFacts};
use crate::audit::report::{Check, Outcome};
use crate::formats::iso9660::Platform;

const TAKE: &str = "take the boot loader for the kernel's architecture, or the kernel for the boot loader's";

/// Returns a medium's kernels whose architecture is known, with all that each may be for.
fn kernels(facts: &Facts, on_iso: bool) -> Vec<&[Arch]> {
    let parts = if on_iso { &facts.iso.parts } else { &facts.parts };
    let known = parts.values().filter_map(|part| Some(&part.kernel.as_ref()?.archs[..]));
    known.filter(|archs| !archs.is_empty()).collect()
}

fn starts_one(kernels: &[&[Arch]], loader: Arch) -> bool {
    kernels.iter().any(|archs| archs.iter().any(|arch| arch.starts_by(loader)))
}

fn names_of(kernels: &[&[Arch]]) -> String {
    let names: BTreeSet<String> = kernels.iter().map(|archs| one_of(archs)).collect();
    listed(names.iter().map(String::as_str))
}

/// Returns the kernels of a medium; a set without any has those of the ISO.
fn kernels_for(facts: &Facts, on_iso: bool) -> Vec<&[Arch]> {
    let own = kernels(facts, on_iso);
    if own.is_empty() { kernels(facts, true) } else { own }
}

pub(super) fn arch(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut archs = BTreeSet::new();
    for on_iso in [true, false] {
        let kernels = kernels_for(facts, on_iso);
        if kernels.is_empty() {
            continue;
        }
        outcome.looked();
        archs.extend(kernels.iter().map(|archs| one_of(archs)));
        judge_loaders(facts, on_iso, &kernels, &mut outcome);
    }
    judge_initrds(facts, &mut outcome);
    judge_entries(facts, &mut outcome);
    outcome.says(
        format!("kernels, initrds and boot loaders are for {}", listed(archs.iter().map(String::as_str))),
        "no kernel says what it is for",
    )
}

/// Judges the boot loaders of a medium, by the firmware that starts them.
fn judge_loaders(facts: &Facts, on_iso: bool, kernels: &[&[Arch]], outcome: &mut Outcome) {
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let is_ours = |loader: &&LoaderFacts| {
            loader.on_iso == on_iso && loader.firmware == firmware && loader.damage.is_none()
        };
        let loaders: Vec<&LoaderFacts> = facts.loaders.iter().filter(is_ours).collect();
        let has_right = loaders.iter().any(|l| l.arch.is_some_and(|arch| starts_one(kernels, arch)));
        for loader in loaders {
            let Some(arch) = loader.arch else { continue };
            if let Some(named) = loader.named.filter(|named| firmware == Firmware::Uefi && *named != arch) {
                let what = format!("is for {arch}; by its name it is for {named}");
                outcome.differs(&loader.file, what, "publish the boot loader that the name says");
            } else if !starts_one(kernels, arch) {
                let what = format!("is for {arch}; the kernels are for {}", names_of(kernels));
                // Another one starts them: this one is of no use, or for other systems.
                match has_right {
                    true => outcome.warns(&loader.file, what, "remove it, unless other systems need it"),
                    false => outcome.differs(&loader.file, what, TAKE),
                }
            }
        }
    }
    let offered = facts.iso.boot_images.iter().flatten().filter(|_| on_iso);
    let bios = offered.filter(|boot| boot.image.bootable && boot.image.platform == Platform::Bios);
    let is_for_pc = kernels.iter().any(|archs| archs.iter().any(|arch| arch.is_pc()));
    for boot in bios.filter(|_| !is_for_pc) {
        let name = boot.file.as_ref().map_or("El Torito's image".to_owned(), |file| format!("/{file}"));
        let what = format!("is for the BIOS of PCs; the kernels are for {}", names_of(kernels));
        let others = facts.iso.boot_images.iter().flatten().any(|boot| boot.image.platform == Platform::Uefi);
        match others {
            true => outcome.warns(name, what, "remove it"),
            false => outcome.differs(name, what, TAKE),
        }
    }
}

/// Judges entries of the Boot Loader Specification that say which machines they are for: systemd-boot leaves out the others
/// (UAPI.1, "architecture"), by the names that UEFI has for them.
fn judge_entries(facts: &Facts, outcome: &mut Outcome) {
    for menu in &facts.menus {
        let Some((line, machine)) = &menu.machine else { continue };
        let arch = Arch::of_removable(&format!("BOOT{machine}.EFI"));
        for entry in linux(menu) {
            let kernel = entry.kernel.as_ref().and_then(|name| facts.part(menu, name));
            let archs = kernel.and_then(|part| Some(&part.kernel.as_ref()?.archs[..])).unwrap_or_default();
            if !archs.is_empty() && arch.is_none_or(|arch| !archs.contains(&arch)) {
                outcome.differs(
                    format!("{}:{line}", menu.file),
                    format!("is for {machine}, and its kernel for {}: it is not shown", one_of(archs)),
                    "correct the architecture, or remove the line",
                );
            }
        }
    }
}

/// Judges each kernel that a menu boots with the initrds that it is booted with.
fn judge_initrds(facts: &Facts, outcome: &mut Outcome) {
    let mut seen = BTreeSet::new();
    for menu in &facts.menus {
        for entry in linux(menu) {
            let kernel = entry.kernel.as_ref().and_then(|name| facts.part(menu, name));
            let Some(archs) = kernel.and_then(|part| Some(&part.kernel.as_ref()?.archs)) else { continue };
            for initrd in initrds_of(facts, menu, entry) {
                let Some(program) = initrd.contents().and_then(|walk| walk.initramfs.program.as_ref()) else {
                    continue;
                };
                outcome.looked();
                let runs = archs.is_empty() || archs.iter().any(|arch| arch.runs(program.arch));
                if !runs && seen.insert(&initrd.name) {
                    outcome.differs(
                        format!("{}:{}", menu.file, entry.line),
                        format!(
                            "boots a kernel for {} with {}, whose {} is for {}",
                            one_of(archs),
                            initrd.name,
                            program.name,
                            program.arch
                        ),
                        "give the kernel the initrd that was made for it",
                    );
                }
            }
        }
    }
}

pub(super) fn loaders(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    for loader in &facts.loaders {
        outcome.looked();
        if let Some(why) = &loader.damage {
            outcome.differs(&loader.file, why, "fetch it again, or take it from the package it is in");
        }
        if loader.is_hollow && loader.damage.is_none() {
            let what = "is an EFI program without a section: there is nothing in it that could run";
            outcome.warns(&loader.file, what, "take it from the package it is in");
        }
        let is_module = |other: &LoaderFacts| {
            let file = other.file.rsplit('/').next().unwrap_or(&other.file);
            other.on_iso == loader.on_iso && file.eq_ignore_ascii_case(LDLINUX)
        };
        if loader.is_modular && !facts.loaders.iter().any(is_module) && (loader.on_iso || facts.is_listed) {
            let what = format!("does nothing without {LDLINUX}, which is not there");
            outcome.differs(&loader.file, what, "put the file of the same version of SYSLINUX beside it");
        }
    }
    let number = facts.loaders.len();
    let firmwares: BTreeSet<Firmware> = facts.loaders.iter().map(|loader| loader.firmware).collect();
    outcome.says(
        format!(
            "{} for {}",
            count(number, "program", "programs"),
            listed(firmwares.iter().map(|firmware| firmware.name()))
        ),
        "there are none",
    )
}

/// Tells whether a part is a kernel that only Open Firmware, or firmware of mainframes and workstations, starts.
pub(super) fn is_for_other_firmware(part: &Part) -> bool {
    part.kind == Kind::Kernel && part.kernel.as_ref().is_some_and(|kernel| !kernel.may_be(Arch::has_uefi))
}
