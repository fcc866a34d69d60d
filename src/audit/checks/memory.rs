//! The least memory of each way to boot, computed from what is on the ISO.

use crate::audit::facts::{Facts, Kind};
use crate::audit::report::Memory;
use crate::memory::{Load, Sizes, WAYS, fits_initrd, least_ram};

/// Computes the least memory of every initrd of the ISO and way to boot.
pub(super) fn memory(facts: &Facts) -> Vec<Memory> {
    let Some(squashfs) = facts.iso.squashfs() else { return Vec::new() };
    let mut memory = Vec::new();
    for initrd in facts.iso.of_kind(Kind::Initramfs) {
        let Some(walk) = initrd.contents().filter(|walk| !walk.initramfs.is_microcode()) else { continue };
        let entries = facts.menus.iter().filter(|menu| menu.on_iso).flat_map(|menu| &menu.entries);
        let with =
            entries.filter(|entry| entry.initrds.iter().any(|i| i.part.as_deref() == Some(&initrd.name)));
        let kernels = with.filter_map(|entry| facts.iso.parts.get(entry.kernel.as_ref()?));
        let Some(kernel) = kernels.map(|kernel| kernel.size).max() else { continue };
        for (way, load) in WAYS {
            if load == Load::Http && !walk.initramfs.has_livenet() {
                continue;
            }
            if load.is_in_initrd() && !fits_initrd(initrd.size, squashfs.size) {
                continue;
            }
            let sizes = Sizes {
                kernel,
                initrd: initrd.size,
                unpacked: walk.initramfs.unpacked,
                squashfs: squashfs.size,
            };
            memory.push(Memory { way, initrd: initrd.name.clone(), least_ram_mib: least_ram(load, sizes) });
        }
    }
    memory
}
