//! The least memory of each way to boot, computed from what is on the ISO.

use super::lean;
use super::select::{initrd_of, linux, set_menus};
use crate::arch::Arch;
use crate::audit::facts::{Facts, Kind, Part};
use crate::audit::report::Memory;
use crate::audit::walk::Walk;
use crate::cmdline::compare::is_nfs;
use crate::memory::{Load, Sizes, WAYS, fits_initrd, least_ram};

/// Computes the least memory of every initrd of the ISO and way to boot.
pub(super) fn memory(facts: &Facts) -> Vec<Memory> {
    let Some(squashfs) = facts.iso.squashfs() else { return Vec::new() };
    let is_for_pcs = |part: &Part| part.kernel.as_ref().is_none_or(|kernel| kernel.may_be(Arch::is_pc));
    let has_pcs = facts.iso.of_kind(Kind::Kernel).any(is_for_pcs);
    let mut memory = Vec::new();
    for initrd in facts.iso.of_kind(Kind::Initramfs) {
        let of = &initrd.name;
        let Some(walk) = initrd.contents().filter(|walk| !walk.initramfs.is_microcode()) else { continue };
        let entries = facts.menus.iter().filter(|menu| menu.on_iso).flat_map(|menu| &menu.entries);
        let with =
            entries.filter(|entry| entry.initrds.iter().any(|i| i.part.as_deref() == Some(&initrd.name)));
        let kernels = with.filter_map(|entry| facts.iso.parts.get(entry.kernel.as_ref()?));
        let Some(kernel) = kernels.map(|kernel| kernel.size).max() else { continue };
        let loaded = |is_over_nfs| set_initrd(facts, initrd, is_over_nfs);
        for (way, load) in WAYS {
            let found = match load {
                Load::Http if !walk.initramfs.has_livenet() => None,
                Load::LeanHttp => loaded(false).filter(|(part, _)| part.begins.is_none()),
                Load::Nfs => loaded(true),
                Load::Http | Load::Medium | Load::Cached | Load::InInitrdBios | Load::InInitrdUefi => {
                    Some((initrd, walk))
                }
            };
            let Some((initrd, walk)) = found else { continue };
            if load.is_of_pc() && !has_pcs {
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
            memory.push(Memory { way, initrd: of.clone(), least_ram_mib: least_ram(load, sizes) });
        }
    }
    memory
}

/// Returns what an entry of the set loads in the place of an initrd of the ISO, that or a lean one, by which the initramfs gets its root
/// from a server: a lean one before the other, as it is there for that.
fn set_initrd<'a>(facts: &'a Facts, full: &Part, is_over_nfs: bool) -> Option<(&'a Part, &'a Walk)> {
    let mut found = Vec::new();
    for menu in set_menus(facts) {
        for entry in linux(menu) {
            let root = entry.words.iter().rev().find_map(|word| word.strip_prefix("root=live:"));
            let Some(part) =
                initrd_of(facts, menu, entry).filter(|_| root.is_some_and(is_nfs) == is_over_nfs)
            else {
                continue;
            };
            let is_it = match &part.begins {
                Some(begins) => begins.initrds.contains(&full.name) && !part.is_combined(),
                None => lean::full_of(facts, part).is_some_and(|of| of.name == full.name),
            };
            found.extend(part.contents().filter(|_| is_it).map(|walk| (part, walk)));
        }
    }
    found.into_iter().min_by_key(|(part, _)| part.begins.is_some())
}
