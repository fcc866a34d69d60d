//! Lean initrds: the ISO's, without modules and firmware that a root over the network does not need.

use std::collections::BTreeSet;

use cache::name::RelPath;

use super::select::{count, listed};
use super::verity;
use crate::audit::facts::{Facts, Kind, Part};
use crate::audit::report::Outcome;
use crate::audit::walk::Walk;
use crate::formats::initramfs::Node;
use crate::formats::modules;

/// Modules by which the root is mounted; a kernel may have them in itself.
const MOUNTS: [&str; 9] =
    ["squashfs", "loop", "overlay", "nfs", "nfsv3", "lockd", "grace", "nfs-acl", "sunrpc"];

/// How an initrd compares with one of the ISO's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// What it has, and that one has not, or otherwise.
    pub(super) foreign: Vec<String>,
    /// What that one has, and it needs.
    pub(super) lacks: Vec<String>,
    /// Modules and firmware that it is without.
    pub(super) without: usize,
    /// Files of both.
    common: usize,
}

impl Comparison {
    /// Tells whether it is that one, without modules and firmware.
    pub(super) fn is_lean(&self) -> bool {
        self.foreign.is_empty() && self.lacks.is_empty() && self.without > 0
    }

    /// Tells whether it is near enough to be meant to be that one.
    fn is_near(&self) -> bool {
        self.common > 2 * (self.foreign.len() + self.lacks.len())
    }

    /// Says what is wrong with it.
    pub(super) fn says(&self, name: &str, full: &Part, outcome: &mut Outcome) {
        let hint = "make it anew of the ISO's initrd: the step lean leaves out modules and firmware, and nothing else; \
                    a spec's lean.without may not name what the root is mounted with";
        for (what, paths) in [("has other bytes, or more", &self.foreign), ("lacks", &self.lacks)] {
            if !paths.is_empty() {
                let names = listed(paths.iter().map(String::as_str));
                outcome.differs(
                    name,
                    format!(
                        "is {} of the ISO without {}, and {what}: {names}",
                        full.name,
                        count(self.without, "module or firmware", "modules and firmware")
                    ),
                    hint,
                );
            }
        }
    }
}

/// Tells whether something is what a lean initrd may be without: a module, firmware, or a folder of them.
fn may_go(path: &RelPath, node: &Node) -> bool {
    let path = path.to_string();
    let plain = modules::plain(&path);
    let is_below = plain.starts_with("lib/modules/") && plain.contains("/kernel/");
    match node {
        Node::Folder => is_below,
        _ => plain.starts_with("lib/firmware/") || is_below && modules::is_module(&path),
    }
}

/// Returns the modules of an initrd, by the paths that they have where `lib` is no link.
fn modules_of(walk: &Walk) -> BTreeSet<String> {
    let paths = walk.initramfs.files.iter().map(|(path, _)| path.to_string());
    paths.filter(|path| modules::is_module(path)).map(|path| modules::plain(&path).to_owned()).collect()
}

/// Returns the modules that a lean initrd needs of those that the full one has: those that mount its root, and what all of its own depend on.
fn needed(lean: &Walk, full: &Walk) -> BTreeSet<String> {
    let there = modules_of(full);
    let mounts = |path: &&String| modules::name(path).is_some_and(|name| MOUNTS.contains(&name.as_str()));
    let own = modules_of(lean);
    let start = there.iter().filter(mounts).chain(&own).map(String::as_str);
    full.modules.with_dependencies(start, &there).difference(&own).cloned().collect()
}

fn compare(lean: &Walk, full: &Walk) -> Comparison {
    let mut found = Comparison::default();
    let (lean_files, full_files) = (&lean.initramfs.files, &full.initramfs.files);
    // The ISO that a set was taken of may have nothing of it; what it is, is another check's business.
    let checked = match full.initramfs.verity.checks {
        Some(_) => BTreeSet::new(),
        None => verity::paths(lean),
    };
    let is_checked = |path: &RelPath| full_files.get(path).is_none() && checked.contains(&path.to_string());
    for (path, made) in lean_files.iter().filter(|(path, _)| !is_checked(path)) {
        let same = full_files.get(path).is_some_and(|other| {
            other.node == made.node
                && lean.metas.get(path) == full.metas.get(path)
                && lean.digests.get(path) == full.digests.get(path)
        });
        if same { found.common += 1 } else { found.foreign.push(format!("/{path}")) }
    }
    let needed = needed(lean, full);
    for (path, made) in full_files.iter().filter(|(path, _)| lean_files.get(path).is_none()) {
        let is_needed = needed.contains(modules::plain(&path.to_string()));
        match may_go(path, &made.node) && !is_needed {
            true => found.without += usize::from(made.node != Node::Folder),
            false => found.lacks.push(format!("/{path}")),
        }
    }
    let microcode = |walk: &Walk| walk.initramfs.segments.iter().take_while(|s| s.microcode).count();
    if microcode(lean) < microcode(full) {
        found.lacks.push("microcode in front of all else".to_owned());
    }
    found
}

/// Tells whether a file is called as lean initrds are: under another name, it would be taken for the full one.
fn is_called_lean(name: &str) -> bool {
    name.ends_with(".lean")
}

/// Returns the ISO's initrd that an initrd of the set is meant to be a lean one of, and how they compare.
pub(super) fn of<'a>(facts: &'a Facts, part: &Part) -> Option<(&'a Part, Comparison)> {
    let lean = part.contents().filter(|walk| walk.images.is_empty() && part.begins.is_none())?;
    let full = facts.iso.of_kind(Kind::Initramfs).filter(|_| is_called_lean(&part.name));
    let compared = full.filter_map(|full| Some((full, compare(lean, full.contents()?))));
    compared.filter(|(_, found)| found.is_near()).min_by_key(|(_, c)| c.foreign.len() + c.lacks.len())
}

/// Returns the ISO's initrd that a part of the set is a lean one of, without a fault.
pub(super) fn full_of<'a>(facts: &'a Facts, part: &Part) -> Option<&'a Part> {
    of(facts, part).filter(|(_, found)| found.is_lean()).map(|(full, _)| full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lean_initrd_may_be_without_modules_and_firmware() {
        let may_go = |path: &str, node: Node| may_go(&RelPath::new(path.as_bytes()).unwrap(), &node);
        for goes in [
            "usr/lib/modules/6.1/kernel/drivers/scsi/sd_mod.ko",
            "lib/modules/6.1/kernel/fs/xfs/xfs.ko.xz",
            "usr/lib/firmware/amdgpu/a.bin",
        ] {
            assert!(may_go(goes, Node::File), "{goes}");
        }
        assert!(may_go("lib/modules/6.1/kernel/sound", Node::Folder));
        for stays in ["usr/bin/mount", "usr/lib/modules/6.1/modules.dep", "etc/protocols"] {
            assert!(!may_go(stays, Node::File), "{stays}");
        }
        assert!(!may_go("sysroot", Node::Folder) && !may_go("lib/firmware", Node::Folder));
    }

    #[test]
    fn a_lean_initrd_has_a_name_of_its_own() {
        assert!(is_called_lean("netboot/debian.lean") && !is_called_lean("netboot/debian.initrd"));
    }
}
