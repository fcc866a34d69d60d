//! Architectures: what each is called in the formats that name one.
//!
//! ELF: the generic ABI's `e_machine` and the byte order beside it; PE: the machine numbers of Microsoft's PE format;
//! removable media: UEFI 2.10, 3.5.1.1.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An architecture, by Gentoo's name where Gentoo has one for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its name")]
pub enum Arch {
    Amd64,
    X86,
    Arm64,
    Arm,
    Riscv,
    Loong,
    Ppc64le,
    Ppc64,
    Ppc,
    Sparc,
    S390,
    Hppa,
    Mips,
    Alpha,
    M68k,
    Ia64,
}

/// How ELF files of an architecture are marked.
struct Elf {
    machine: u16,
    /// The byte order, where that does.
    little: Option<bool>,
}

/// What is known of an architecture.
struct Row {
    arch: Arch,
    name: &'static str,
    elf: &'static [Elf],
    /// The machine number of PE programs for its UEFI.
    pe: Option<u16>,
    /// The name that UEFI looks for on removable media, without `.EFI`; what is behind `BOOT` ends other loaders' names too.
    removable: Option<&'static str>,
    /// GRUB's platforms.
    grub: &'static [&'static str],
}

const fn elf(machine: u16) -> Elf {
    Elf { machine, little: None }
}

const fn row(arch: Arch, name: &'static str, elf: &'static [Elf]) -> Row {
    Row { arch, name, elf, pe: None, removable: None, grub: &[] }
}

const fn uefi(
    arch: Arch,
    name: &'static str,
    elf: &'static [Elf],
    pe: u16,
    removable: &'static str,
    grub: &'static [&'static str],
) -> Row {
    Row { arch, name, elf, pe: Some(pe), removable: Some(removable), grub }
}

const fn open_firmware(
    arch: Arch,
    name: &'static str,
    elf: &'static [Elf],
    grub: &'static [&'static str],
) -> Row {
    Row { arch, name, elf, pe: None, removable: None, grub }
}

const ROWS: [Row; 16] = [
    uefi(Arch::Amd64, "amd64", &[elf(62)], 0x8664, "BOOTX64", &["x86_64-efi"]),
    uefi(Arch::X86, "x86", &[elf(3)], 0x14c, "BOOTIA32", &["i386-pc", "i386-efi"]),
    uefi(Arch::Arm64, "arm64", &[elf(183)], 0xaa64, "BOOTAA64", &["arm64-efi"]),
    uefi(Arch::Arm, "arm", &[elf(40)], 0x1c2, "BOOTARM", &["arm-efi"]),
    uefi(Arch::Riscv, "riscv", &[elf(243)], 0x5064, "BOOTRISCV64", &["riscv64-efi"]),
    uefi(Arch::Loong, "loong", &[elf(258)], 0x6264, "BOOTLOONGARCH64", &["loongarch64-efi"]),
    open_firmware(
        Arch::Ppc64le,
        "ppc64le",
        &[Elf { machine: 21, little: Some(true) }],
        &["powerpc-ieee1275"],
    ),
    row(Arch::Ppc64, "ppc64", &[Elf { machine: 21, little: Some(false) }]),
    row(Arch::Ppc, "ppc", &[elf(20)]),
    open_firmware(Arch::Sparc, "sparc", &[elf(2), elf(18), elf(43)], &["sparc64-ieee1275"]),
    row(Arch::S390, "s390", &[elf(22)]),
    row(Arch::Hppa, "hppa", &[elf(15)]),
    row(Arch::Mips, "mips", &[elf(8)]),
    row(Arch::Alpha, "alpha", &[elf(0x9026)]),
    row(Arch::M68k, "m68k", &[elf(4)]),
    uefi(Arch::Ia64, "ia64", &[elf(50)], 0x200, "BOOTIA64", &["ia64-efi"]),
];

impl Arch {
    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.arch == self).unwrap_or(&ROWS[0])
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns whose ELF files have this machine number and byte order.
    pub fn of_elf(machine: u16, little: bool) -> Option<Self> {
        let is_right = |elf: &Elf| elf.machine == machine && elf.little.is_none_or(|right| right == little);
        ROWS.iter().find(|row| row.elf.iter().any(is_right)).map(|row| row.arch)
    }

    /// Returns whose PE programs have this machine number.
    pub fn of_pe(machine: u16) -> Option<Self> {
        // ARM's Thumb-2 has a number of its own.
        let machine = if machine == 0x1c4 { 0x1c2 } else { machine };
        ROWS.iter().find(|row| row.pe == Some(machine)).map(|row| row.arch)
    }

    /// Returns for which architecture UEFI looks for a file of this name, as `BOOTX64.EFI`, on removable media.
    pub fn of_removable(file: &str) -> Option<Self> {
        let name = file.to_ascii_uppercase();
        let stem = name.strip_suffix(".EFI")?;
        ROWS.iter().find(|row| row.removable == Some(stem)).map(|row| row.arch)
    }

    /// Returns the architecture that the name of a UEFI program names, as `grubx64.efi` and `ipxe-arm64.efi` do.
    pub fn of_uefi_name(file: &str) -> Option<Self> {
        let name = file.to_ascii_lowercase();
        let stem = name.strip_suffix(".efi")?;
        let is_named = |row: &&Row| {
            let ending = row.removable.map(|name| name["BOOT".len()..].to_ascii_lowercase());
            let platform = row.grub.iter().filter_map(|platform| platform.strip_suffix("-efi"));
            let mut endings = platform.map(str::to_owned).chain(ending).chain([row.name.to_owned()]);
            endings.any(|ending| stem.ends_with(&ending))
        };
        ROWS.iter().filter(|row| row.pe.is_some()).find(is_named).map(|row| row.arch)
    }

    /// Returns the architecture of a platform of GRUB, as `arm64-efi`.
    pub fn of_grub_platform(platform: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.grub.contains(&platform)).map(|row| row.arch)
    }

    /// Tells whether its machines have UEFI.
    pub fn has_uefi(self) -> bool {
        self.row().pe.is_some()
    }

    /// Tells whether PCs run it, whose BIOS starts boot sectors and PXE programs.
    pub fn is_pc(self) -> bool {
        matches!(self, Arch::Amd64 | Arch::X86)
    }

    /// Tells whether a kernel for `self` runs programs for `program`.
    pub fn runs(self, program: Arch) -> bool {
        let narrower: &[Arch] = match self {
            Arch::Amd64 => &[Arch::X86],
            Arch::Arm64 => &[Arch::Arm],
            Arch::Ppc64 => &[Arch::Ppc],
            _ => &[],
        };
        self == program || narrower.contains(&program)
    }

    /// Tells whether boot loaders for `loader` start kernels for `self`: on PCs, those for 64 bits start both.
    pub fn starts_by(self, loader: Arch) -> bool {
        self == loader || self.is_pc() && loader.is_pc()
    }
}

/// Returns the names of those that one thing may be for, for a sentence.
pub fn one_of(archs: &[Arch]) -> String {
    archs.iter().map(|arch| arch.name()).collect::<Vec<_>>().join(" or ")
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_row_and_each_mark_is_of_one() {
        let mut marks = std::collections::BTreeSet::new();
        for row in &ROWS {
            assert_eq!(row.arch.name(), row.name);
            for elf in row.elf {
                let little = elf.little.unwrap_or(true);
                assert_eq!(Arch::of_elf(elf.machine, little), Some(row.arch));
                assert!(marks.insert((elf.machine, little)), "{}", row.name);
            }
            if let (Some(pe), Some(name)) = (row.pe, row.removable) {
                assert_eq!(Arch::of_pe(pe), Some(row.arch));
                assert_eq!(Arch::of_removable(&format!("{}.efi", name.to_lowercase())), Some(row.arch));
            }
        }
        assert_eq!(Arch::of_elf(21, false), Some(Arch::Ppc64));
        assert_eq!(Arch::of_elf(21, true), Some(Arch::Ppc64le));
        assert_eq!((Arch::of_pe(1), Arch::of_removable("GRUBX64.EFI")), (None, None));
    }

    #[test]
    fn names_of_loaders_tell_whose_they_are() {
        for (name, arch) in [
            ("grubx64.efi", Some(Arch::Amd64)),
            ("SHIMAA64.EFI", Some(Arch::Arm64)),
            ("ipxe-arm64.efi", Some(Arch::Arm64)),
            ("snponly-x86_64.efi", Some(Arch::Amd64)),
            ("grubia32.efi", Some(Arch::X86)),
            ("BOOTRISCV64.EFI", Some(Arch::Riscv)),
            ("grubarm.efi", Some(Arch::Arm)),
            ("ipxe.efi", None),
            ("core.efi", None),
            ("alarm", None),
        ] {
            assert_eq!(Arch::of_uefi_name(name), arch, "{name}");
        }
        assert_eq!(Arch::of_grub_platform("riscv64-efi"), Some(Arch::Riscv));
    }

    #[test]
    fn wider_kernels_run_narrower_programs_and_not_the_other_way_round() {
        assert!(Arch::Amd64.runs(Arch::X86) && !Arch::X86.runs(Arch::Amd64));
        assert!(Arch::X86.starts_by(Arch::Amd64) && !Arch::Arm64.starts_by(Arch::Amd64));
    }
}
