//! What is known of the kernels of an image and the initrds that go with them: the document that the step `initrd` writes and
//! steps above it read.

use cache::Blob;
use serde::{Deserialize, Serialize};

use crate::arch::{self, Arch};
use crate::formats::initramfs::{Family, Initramfs};
use crate::memory;

/// A kernel and the initrd that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// The name of both on the media.
    pub label: String,
    /// The kernel.
    pub kernel: Blob,
    /// The kernel's release, where it says.
    pub release: Option<String>,
    /// The architectures it may be for: one, none where it does not say, two where a PC's kernel does not say which.
    #[serde(default)]
    pub archs: Vec<Arch>,
    /// The initrd, as it is.
    pub initrd: Blob,
    /// Who made the initrd.
    pub family: Family,
    /// What is in the initrd.
    pub initramfs: Initramfs,
    /// Drivers of network cards that the initrd is without, where it is a lean one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

impl BootEntry {
    /// Tells whether machines of which `is_so` holds may boot the kernel: one that does not say whose it is may be for any.
    pub fn may_be(&self, is_so: fn(Arch) -> bool) -> bool {
        arch::may_be(&self.archs, is_so)
    }

    /// Tells whether its initrd can fetch its squashfs over HTTP.
    pub fn has_livenet(&self) -> bool {
        self.family == Family::Dracut && self.initramfs.has_livenet()
    }

    /// Tells whether its initrd can mount its squashfs over NFS.
    pub fn mounts_nfs(&self) -> bool {
        self.has_livenet() && self.initramfs.has_nfs() && self.initramfs.nfs_lacks.is_empty()
    }
}

/// All kernels of an image, in order of their labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernels(pub Vec<BootEntry>);

impl Kernels {
    /// Reads what [`Kernels::encode`] wrote.
    ///
    /// # Errors
    /// It is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Returns the document.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("names, digests and numbers are plain values")
    }

    /// Tells whether a squashfs of so many bytes can be inside each initrd.
    pub fn can_hold(&self, squashfs: u64) -> bool {
        self.0.iter().all(|entry| memory::fits_initrd(entry.initrd.size, squashfs))
    }

    /// Tells whether every initrd can fetch its squashfs over HTTP.
    pub fn have_livenet(&self) -> bool {
        self.0.iter().all(BootEntry::has_livenet)
    }

    /// Returns the lean ones where there is one for every kernel: scripts are for all of them.
    pub fn all_lean(&self, lean: Self) -> Self {
        let has = |entry: &BootEntry| lean.0.iter().any(|lean| lean.label == entry.label);
        if self.0.iter().all(has) { lean } else { Self(Vec::new()) }
    }

    /// Tells whether every initrd can mount its squashfs over NFS.
    pub fn mount_nfs(&self) -> bool {
        self.0.iter().all(BootEntry::mounts_nfs)
    }
}
