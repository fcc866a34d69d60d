//! How much memory a way to boot needs.

use serde::Serialize;

/// How the squashfs gets into memory, which decides how much of it a machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// It stays on the medium.
    Medium,
    /// It is copied from the medium.
    Cached,
    /// It arrives inside the initrd, by BIOS.
    InInitrdBios,
    /// It arrives inside the initrd, by UEFI, where boot loaders keep a second copy.
    InInitrdUefi,
    /// The initramfs fetches it.
    Http,
    /// As [`Load::Http`], with the lean initrd.
    LeanHttp,
    /// It stays on a server, with the lean initrd where there is one.
    Nfs,
}

impl Load {
    /// Tells whether the squashfs is inside the initrd.
    pub fn is_in_initrd(self) -> bool {
        matches!(self, Load::InInitrdBios | Load::InInitrdUefi)
    }

    /// Tells whether only PCs boot so.
    pub fn is_of_pc(self) -> bool {
        self == Load::InInitrdBios
    }

    /// Tells whether the lean initrd is for it.
    pub fn is_lean(self) -> bool {
        matches!(self, Load::LeanHttp | Load::Nfs)
    }
}

/// No initrd has so many bytes: sizes of 32 bits are in its archives and in boot loaders.
const INITRD_LIMIT: u64 = 1 << 32;

/// Bytes that padding and an archive take around a squashfs.
const ARCHIVE_ROOM: u64 = 64 << 10;

/// Tells whether a squashfs can be inside an initrd, both given by their bytes.
pub fn fits_initrd(initrd: u64, squashfs: u64) -> bool {
    initrd.saturating_add(squashfs).saturating_add(ARCHIVE_ROOM) < INITRD_LIMIT
}

/// The ways to boot, by the names that manifests and audits give them.
pub const WAYS: [(&str, Load); 7] = [
    ("iso", Load::Medium),
    ("iso-cached", Load::Cached),
    ("netboot-bios", Load::InInitrdBios),
    ("netboot-uefi", Load::InInitrdUefi),
    ("netboot-http", Load::Http),
    ("netboot-lean", Load::LeanHttp),
    ("netboot-nfs", Load::Nfs),
];

/// Bytes of what is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// The kernel.
    pub kernel: u64,
    /// The initrd without a squashfs, packed.
    pub initrd: u64,
    /// The same unpacked.
    pub unpacked: u64,
    /// The squashfs.
    pub squashfs: u64,
}

/// Memory that a kernel and a small running system take beside what is counted, in bytes.
const SYSTEM: u64 = 192 << 20;

/// The same for a root that stays on a server, where what was unpacked is gone before the system runs.
const SYSTEM_OVER_NFS: u64 = 112 << 20;

/// The same where a lean initrd fetches its squashfs.
const SYSTEM_LEAN: u64 = 128 << 20;

/// Returns the least memory for a way to boot, in MiB, as a machine with it has it installed.
///
/// A rule by measurement, not a promise: the packed and the unpacked copy of what is in the initrd are in
/// memory at once, and UEFI boot loaders keep one more.
pub fn least_ram(load: Load, sizes: Sizes) -> u64 {
    let Sizes { kernel, initrd, unpacked, squashfs } = sizes;
    let bytes = match load {
        Load::Medium => SYSTEM + initrd + unpacked,
        Load::Cached | Load::Http => SYSTEM + initrd + unpacked + squashfs,
        Load::LeanHttp => SYSTEM_LEAN + initrd + unpacked + squashfs,
        Load::Nfs => SYSTEM_OVER_NFS + initrd + unpacked,
        Load::InInitrdBios => SYSTEM + initrd + unpacked + 2 * squashfs,
        Load::InInitrdUefi => SYSTEM + 2 * initrd + unpacked + 3 * squashfs,
    };
    // Rounded up to 64 MiB.
    (kernel + bytes).div_ceil(64 << 20) * 64
}
