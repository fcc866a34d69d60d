//! Boot loaders by architecture: GRUB's platforms, and those that are published as their packages have them.

use super::names::Arch;

/// What starts a boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firmware {
    /// The BIOS of PCs, and its PXE.
    Bios,
    /// UEFI.
    Uefi,
    /// Open Firmware, as of PowerPC.
    OpenFirmware,
}

impl Firmware {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Firmware::Bios => "BIOS",
            Firmware::Uefi => "UEFI",
            Firmware::OpenFirmware => "Open Firmware",
        }
    }
}

/// A platform of GRUB.
#[derive(Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its name, which is that of the folder with its modules.
    pub name: &'static str,
    /// For which its images are programs; on PCs, they start kernels of others too.
    pub arch: Arch,
    /// What starts its images.
    pub firmware: Firmware,
    /// Modules that images for media have beside those that all images have.
    pub medium: &'static [&'static str],
    /// Modules that images for the network have beside those that all images have.
    pub network: &'static [&'static str],
    /// Debian's package with its modules.
    pub package: &'static str,
    /// Whether few machines need it, so that images are made without it where its modules are missing.
    pub is_optional: bool,
}

const fn efi(
    name: &'static str,
    arch: Arch,
    medium: &'static [&'static str],
    network: &'static [&'static str],
    package: &'static str,
) -> Platform {
    // Few PCs have UEFI of 32 bits.
    let is_optional = matches!(arch, Arch::X86);
    Platform { name, arch, firmware: Firmware::Uefi, medium, network, package, is_optional }
}

const MEDIUM: &[&str] = &["chain", "efi_gop"];
const NETWORK: &[&str] = &["chain", "efinet", "tftp", "http", "efi_gop"];
/// PCs have an older screen of UEFI as well.
const PC_MEDIUM: &[&str] = &["chain", "efi_gop", "efi_uga"];
const PC_NETWORK: &[&str] = &["chain", "efinet", "tftp", "http", "efi_gop", "efi_uga"];

const PLATFORMS: [Platform; 8] = [
    Platform {
        name: "i386-pc",
        arch: Arch::X86,
        firmware: Firmware::Bios,
        medium: &["chain", "biosdisk", "vbe", "vga"],
        network: &["chain", "pxe", "tftp", "http", "vbe", "vga"],
        package: "grub-pc-bin",
        is_optional: false,
    },
    efi("i386-efi", Arch::X86, PC_MEDIUM, PC_NETWORK, "grub-efi-ia32-bin"),
    efi("x86_64-efi", Arch::Amd64, PC_MEDIUM, PC_NETWORK, "grub-efi-amd64-bin"),
    efi("arm64-efi", Arch::Arm64, MEDIUM, NETWORK, "grub-efi-arm64-bin"),
    efi("arm-efi", Arch::Arm, MEDIUM, NETWORK, "grub-efi-arm-bin"),
    efi("riscv64-efi", Arch::Riscv, MEDIUM, NETWORK, "grub-efi-riscv64-bin"),
    efi("loongarch64-efi", Arch::Loong, MEDIUM, NETWORK, "grub-efi-loong64-bin"),
    Platform {
        name: "powerpc-ieee1275",
        arch: Arch::Ppc,
        firmware: Firmware::OpenFirmware,
        medium: &["ofnet"],
        network: &["ofnet", "tftp", "http"],
        package: "grub-ieee1275-bin",
        is_optional: false,
    },
];

impl Platform {
    /// Returns all, in the order of the table.
    pub fn all() -> impl Iterator<Item = &'static Platform> {
        PLATFORMS.iter()
    }

    /// Returns the one of that name.
    pub fn named(name: &str) -> Option<&'static Platform> {
        PLATFORMS.iter().find(|platform| platform.name == name)
    }
}

/// A boot loader that is published as its package has it.
#[derive(Debug)]
pub struct Loader {
    /// Its name in the netboot folder.
    pub name: &'static str,
    /// Where packages put it: Debian's, then Gentoo's.
    pub places: [&'static str; 2],
    /// Debian's package.
    pub package: &'static str,
    /// Those whose machines start it.
    archs: &'static [Arch],
}

/// The package of iPXE's loaders.
const IPXE: &str = "ipxe";

const PC: &[Arch] = &[Arch::Amd64, Arch::X86];

const fn loader(
    name: &'static str,
    places: [&'static str; 2],
    package: &'static str,
    archs: &'static [Arch],
) -> Loader {
    Loader { name, places, package, archs }
}

const LOADERS: [Loader; 10] = [
    loader("pxelinux.0", ["/usr/lib/PXELINUX/pxelinux.0", "/usr/share/syslinux/pxelinux.0"], "pxelinux", PC),
    loader(
        "ldlinux.c32",
        ["/usr/lib/syslinux/modules/bios/ldlinux.c32", "/usr/share/syslinux/ldlinux.c32"],
        "syslinux-common",
        PC,
    ),
    loader(
        "libutil.c32",
        ["/usr/lib/syslinux/modules/bios/libutil.c32", "/usr/share/syslinux/libutil.c32"],
        "syslinux-common",
        PC,
    ),
    loader(
        "menu.c32",
        ["/usr/lib/syslinux/modules/bios/menu.c32", "/usr/share/syslinux/menu.c32"],
        "syslinux-common",
        PC,
    ),
    loader("undionly.kpxe", ["/usr/lib/ipxe/undionly.kpxe", "/usr/share/ipxe/undionly.kpxe"], IPXE, PC),
    loader("ipxe.efi", ["/usr/lib/ipxe/ipxe.efi", "/usr/share/ipxe/ipxe.efi"], IPXE, &[Arch::Amd64]),
    loader("snponly.efi", ["/usr/lib/ipxe/snponly.efi", "/usr/share/ipxe/snponly.efi"], IPXE, &[Arch::Amd64]),
    loader(
        "ipxe-arm64.efi",
        ["/usr/lib/ipxe/ipxe-arm64.efi", "/usr/share/ipxe/ipxe-arm64.efi"],
        IPXE,
        &[Arch::Arm64],
    ),
    loader(
        "ipxe-riscv64.efi",
        ["/usr/lib/ipxe/ipxe-riscv64.efi", "/usr/share/ipxe/ipxe-riscv64.efi"],
        IPXE,
        &[Arch::Riscv],
    ),
    loader(
        "ipxe-loong64.efi",
        ["/usr/lib/ipxe/ipxe-loong64.efi", "/usr/share/ipxe/ipxe-loong64.efi"],
        IPXE,
        &[Arch::Loong],
    ),
];

impl Loader {
    /// Tells whether it is iPXE, whose scripts have the initramfs fetch what no initrd holds.
    pub fn is_ipxe(&self) -> bool {
        self.package == IPXE
    }
}

impl Arch {
    /// Returns GRUB's platforms whose images start its kernels.
    pub fn platforms(self) -> impl Iterator<Item = &'static Platform> {
        self.grub().iter().filter_map(|name| Platform::named(name))
    }

    /// Returns the architecture of a platform of GRUB, as `arm64-efi`.
    pub fn of_grub_platform(platform: &str) -> Option<Self> {
        Platform::named(platform).map(|platform| platform.arch)
    }

    /// Returns the architecture that the name of a UEFI program names, as `grubx64.efi` and `ipxe-arm64.efi` do.
    pub fn of_uefi_name(file: &str) -> Option<Self> {
        let name = file.to_ascii_lowercase();
        let stem = name.strip_suffix(".efi")?;
        let is_named = |arch: &Arch| {
            let ending = arch.uefi_ending();
            let own = Platform::all().filter(|platform| platform.arch == *arch);
            let platform = own.filter_map(|platform| platform.name.strip_suffix("-efi"));
            let mut endings = platform.map(str::to_owned).chain(ending).chain([arch.name().to_owned()]);
            endings.any(|ending| stem.ends_with(&ending))
        };
        Arch::all().filter(|arch| arch.has_uefi()).find(is_named)
    }

    /// Returns the boot loaders that are published for its machines.
    pub fn loaders(self) -> impl Iterator<Item = &'static Loader> {
        LOADERS.iter().filter(move |loader| loader.archs.contains(&self))
    }

    /// Tells whether there is iPXE for its machines.
    pub fn has_ipxe(self) -> bool {
        self.loaders().any(Loader::is_ipxe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_that_an_architecture_names_is_in_the_table() {
        for arch in Arch::all() {
            assert_eq!(arch.platforms().count(), arch.grub().len(), "{arch}");
        }
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
}
