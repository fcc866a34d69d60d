//! The table of architectures.
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

const fn elf(machine: u16) -> Elf {
    Elf { machine, little: None }
}

/// What is known of an architecture.
struct Row {
    arch: Arch,
    name: &'static str,
    /// Debian's name, where it has packages for it.
    debian: Option<&'static str>,
    /// Debian's package of a kernel for it.
    kernel: Option<&'static str>,
    /// What iPXE for it calls itself (`buildarch`).
    ipxe: Option<&'static str>,
    /// What QEMU calls its processor, where programs of it are emulated.
    machine: Option<&'static str>,
    elf: &'static [Elf],
    /// The machine number of PE programs for its UEFI.
    pe: Option<u16>,
    /// The name that UEFI looks for on removable media, without `.EFI`; what is behind `BOOT` ends other loaders' names too.
    removable: Option<&'static str>,
    /// GRUB's platforms whose images start its kernels.
    grub: &'static [&'static str],
}

/// An architecture without firmware that boot loaders are made for here.
const OTHER: Row = Row {
    arch: Arch::Hppa,
    name: "hppa",
    debian: None,
    kernel: None,
    ipxe: None,
    machine: None,
    elf: &[elf(15)],
    pe: None,
    removable: None,
    grub: &[],
};

const ROWS: [Row; 16] = [
    Row {
        arch: Arch::Amd64,
        name: "amd64",
        debian: Some("amd64"),
        kernel: Some("linux-image-amd64"),
        ipxe: Some("x86_64"),
        machine: Some("x86_64"),
        elf: &[elf(62)],
        pe: Some(0x8664),
        removable: Some("BOOTX64"),
        grub: &["i386-pc", "x86_64-efi"],
    },
    Row {
        arch: Arch::X86,
        name: "x86",
        debian: Some("i386"),
        kernel: Some("linux-image-686"),
        ipxe: Some("i386"),
        machine: Some("i386"),
        elf: &[elf(3)],
        pe: Some(0x14c),
        removable: Some("BOOTIA32"),
        grub: &["i386-pc", "i386-efi", "x86_64-efi"],
    },
    Row {
        arch: Arch::Arm64,
        name: "arm64",
        debian: Some("arm64"),
        kernel: Some("linux-image-arm64"),
        ipxe: Some("arm64"),
        machine: Some("aarch64"),
        elf: &[elf(183)],
        pe: Some(0xaa64),
        removable: Some("BOOTAA64"),
        grub: &["arm64-efi"],
    },
    Row {
        arch: Arch::Arm,
        name: "arm",
        debian: Some("armhf"),
        kernel: Some("linux-image-armmp"),
        ipxe: Some("arm32"),
        machine: Some("arm"),
        elf: &[elf(40)],
        pe: Some(0x1c2),
        removable: Some("BOOTARM"),
        grub: &["arm-efi"],
    },
    Row {
        arch: Arch::Riscv,
        name: "riscv",
        debian: Some("riscv64"),
        kernel: Some("linux-image-riscv64"),
        ipxe: Some("riscv64"),
        machine: Some("riscv64"),
        elf: &[elf(243)],
        pe: Some(0x5064),
        removable: Some("BOOTRISCV64"),
        grub: &["riscv64-efi"],
    },
    Row {
        arch: Arch::Loong,
        name: "loong",
        debian: Some("loong64"),
        kernel: Some("linux-image-loong64"),
        ipxe: Some("loong64"),
        machine: Some("loongarch64"),
        elf: &[elf(258)],
        pe: Some(0x6264),
        removable: Some("BOOTLOONGARCH64"),
        grub: &["loongarch64-efi"],
    },
    Row {
        arch: Arch::Ppc64le,
        name: "ppc64le",
        debian: Some("ppc64el"),
        kernel: Some("linux-image-powerpc64le"),
        ipxe: None,
        machine: Some("ppc64le"),
        elf: &[Elf { machine: 21, little: Some(true) }],
        grub: &["powerpc-ieee1275"],
        ..OTHER
    },
    Row {
        arch: Arch::Ppc64,
        name: "ppc64",
        elf: &[Elf { machine: 21, little: Some(false) }],
        grub: &["powerpc-ieee1275"],
        ..OTHER
    },
    Row { arch: Arch::Ppc, name: "ppc", elf: &[elf(20)], grub: &["powerpc-ieee1275"], ..OTHER },
    Row { arch: Arch::Sparc, name: "sparc", elf: &[elf(2), elf(18), elf(43)], ..OTHER },
    Row {
        arch: Arch::S390,
        name: "s390",
        debian: Some("s390x"),
        kernel: Some("linux-image-s390x"),
        ipxe: None,
        machine: Some("s390x"),
        elf: &[elf(22)],
        ..OTHER
    },
    OTHER,
    Row { arch: Arch::Mips, name: "mips", debian: Some("mips64el"), elf: &[elf(8)], ..OTHER },
    Row { arch: Arch::Alpha, name: "alpha", elf: &[elf(0x9026)], ..OTHER },
    Row { arch: Arch::M68k, name: "m68k", elf: &[elf(4)], ..OTHER },
    Row {
        arch: Arch::Ia64,
        name: "ia64",
        elf: &[elf(50)],
        pe: Some(0x200),
        removable: Some("BOOTIA64"),
        ..OTHER
    },
];

impl Arch {
    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.arch == self).unwrap_or(&ROWS[0])
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the names of all, in the order of the table.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ROWS.iter().map(|row| row.name)
    }

    /// Returns the one of that name.
    pub fn named(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.name == name).map(|row| row.arch)
    }

    /// Returns Debian's name, where Debian has packages for it.
    pub fn debian(self) -> Option<&'static str> {
        self.row().debian
    }

    /// Returns the one that Debian calls so.
    pub fn of_debian(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.debian == Some(name)).map(|row| row.arch)
    }

    /// Returns what its kernel calls it (`uname -m`), as others call it too.
    pub fn machine(self) -> &'static str {
        match self {
            Arch::X86 => "i686",
            _ => self.row().machine.unwrap_or(self.row().name),
        }
    }

    /// Returns the name of Debian's package of a kernel for it.
    pub fn kernel_package(self) -> Option<&'static str> {
        self.row().kernel
    }

    /// Returns what iPXE for it calls itself (its setting `buildarch`).
    pub fn ipxe_name(self) -> Option<&'static str> {
        self.row().ipxe
    }

    /// Returns what Debian calls the folders with its libraries, as `x86_64-linux-gnu`.
    pub fn multiarch(self) -> Option<String> {
        let machine = self.row().machine?;
        Some(match self {
            Arch::Arm => "arm-linux-gnueabihf".to_owned(),
            Arch::Ppc64le => "powerpc64le-linux-gnu".to_owned(),
            _ => format!("{machine}-linux-gnu"),
        })
    }

    /// Returns the program that runs its programs on other machines, without libraries.
    pub fn emulator(self) -> Option<String> {
        self.row().machine.map(|machine| format!("qemu-{machine}-static"))
    }

    /// Returns how its programs begin, and which bits of that count: an ELF header up to the machine's number. Of the kind of file, those
    /// that can be started count; of the ABI, every one.
    pub fn program_start(self) -> Option<([u8; 20], [u8; 20])> {
        let Row { elf: [elf, ..], .. } = self.row() else { return None };
        let is_wide = !matches!(self, Arch::X86 | Arch::Arm | Arch::Ppc | Arch::Hppa | Arch::M68k);
        let is_little = elf.little.unwrap_or(!matches!(
            self,
            Arch::Ppc64 | Arch::Ppc | Arch::Sparc | Arch::S390 | Arch::Hppa | Arch::M68k
        ));
        let half = |value: u16| if is_little { value.to_le_bytes() } else { value.to_be_bytes() };
        let (mut magic, mut mask) = ([0; 20], [0xff; 20]);
        magic[..4].copy_from_slice(b"\x7fELF");
        (magic[4], magic[5], magic[6]) = (if is_wide { 2 } else { 1 }, if is_little { 1 } else { 2 }, 1);
        mask[7] = 0;
        // 2 and 3: both are programs.
        magic[16..18].copy_from_slice(&half(2));
        mask[16..18].copy_from_slice(&half(0xfffe));
        magic[18..].copy_from_slice(&half(elf.machine));
        Some((magic, mask))
    }

    /// Returns that of the machine that this program is for.
    pub fn of_machine() -> Self {
        let name = std::env::consts::ARCH;
        let is_own = |row: &&Row| row.machine == Some(name) || row.name == name;
        // Of PowerPC, Rust's name tells no byte order.
        let powerpc = if cfg!(target_endian = "little") { Arch::Ppc64le } else { Arch::Ppc64 };
        ROWS.iter().find(is_own).map_or(powerpc, |row| row.arch)
    }

    /// Returns all, in the order of the table.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.arch)
    }

    /// Returns the names of GRUB's platforms whose images start its kernels.
    pub(super) fn grub(self) -> &'static [&'static str] {
        self.row().grub
    }

    /// Returns what ends the names of programs for its UEFI, as `x64` does.
    pub fn uefi_ending(self) -> Option<String> {
        self.row().removable.map(|stem| stem["BOOT".len()..].to_ascii_lowercase())
    }

    /// Returns the name that UEFI looks for on removable media, as `BOOTX64.EFI`.
    pub fn removable(self) -> Option<String> {
        self.row().removable.map(|stem| format!("{stem}.EFI"))
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

    /// Tells whether boot loaders for `loader` start kernels for `self`: on PCs, those for 64 bits start both; on PowerPC, Open
    /// Firmware's are for 32 bits.
    pub fn starts_by(self, loader: Arch) -> bool {
        let is_powerpc = matches!(self, Arch::Ppc64le | Arch::Ppc64);
        self == loader || self.is_pc() && loader.is_pc() || is_powerpc && loader == Arch::Ppc
    }
}

/// Tells whether `is_so` holds of one of those that a thing may be for; what does not say may be for any.
pub fn may_be(archs: &[Arch], is_so: fn(Arch) -> bool) -> bool {
    archs.is_empty() || archs.iter().any(|arch| is_so(*arch))
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
            assert_eq!((row.arch.name(), Arch::named(row.name)), (row.name, Some(row.arch)));
            assert!(row.debian.is_none_or(|name| Arch::of_debian(name) == Some(row.arch)));
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
    fn a_machines_own_programs_begin_as_the_table_says() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let (magic, mask) = Arch::of_machine().program_start().unwrap();
        let is_own = |magic: [u8; 20]| (0..20).all(|at| own[at] & mask[at] == magic[at] & mask[at]);
        assert!(is_own(magic) && !is_own(Arch::S390.program_start().unwrap().0));
        assert_eq!(
            Arch::S390.program_start().unwrap().0,
            *b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16"
        );
        assert_eq!(Arch::Arm64.emulator().unwrap(), "qemu-aarch64-static");
    }

    #[test]
    fn wider_kernels_run_narrower_programs_and_not_the_other_way_round() {
        assert!(Arch::Amd64.runs(Arch::X86) && !Arch::X86.runs(Arch::Amd64));
        assert!(Arch::X86.starts_by(Arch::Amd64) && !Arch::Arm64.starts_by(Arch::Amd64));
    }
}
