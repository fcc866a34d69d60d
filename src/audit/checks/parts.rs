//! Checks of the bytes of kernels and squashfs: what is on the ISO, loose, and inside the combined initrds.

use std::collections::BTreeSet;

use super::address::needs_no_squashfs;
use super::select::{Booted, listed};
use crate::audit::facts::{Facts, Kind, Part};
use crate::audit::report::{Check, Outcome};

pub(super) const TAKE: &str = "take all of them from one ISO: stagegraph extract ISO DIR";

/// Tells why two files of a kind are not the same, as far as it can be told.
pub(super) fn difference(here: &Part, there: &Part) -> String {
    let release = |part: &Part| part.kernel.as_ref().and_then(|kernel| kernel.release.clone());
    match (release(here), release(there)) {
        (Some(a), Some(b)) if a != b => return format!("it is Linux {a}, that one {b}"),
        _ => {}
    }
    if here.size == there.size {
        format!("as long ({} bytes), but other bytes", here.size)
    } else {
        format!("{} bytes, that one {}", here.size, there.size)
    }
}

/// Returns the parts that have the same bytes.
pub(super) fn same<'a>(part: &Part, mut among: impl Iterator<Item = &'a Part>) -> Option<&'a Part> {
    among.find(|other| part.digest().is_some() && part.digest() == other.digest())
}

/// Returns the ISO's part that most probably should be the same: by release, by name, or the only one.
pub(super) fn meant<'a>(facts: &'a Facts, part: &Part) -> Option<&'a Part> {
    let stem = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        let ends = [".igz", ".initrd", ".vmlinuz", ".img", ".combined"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let all: Vec<&Part> = facts.iso.of_kind(part.kind).collect();
    all.iter().copied().find(|other| stem(&other.name) == stem(&part.name)).or_else(|| all.first().copied())
}

pub(super) fn kernel(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let booted = Booted::of(facts);
    let mut found = BTreeSet::new();
    let mut right = Vec::new();
    for part in facts.of_kind(Kind::Kernel).filter(|part| booted.has(&part.name)) {
        if part.digest().is_none() {
            continue;
        }
        outcome.looked();
        match same(part, facts.iso.of_kind(Kind::Kernel)) {
            Some(other) => {
                found.extend(other.digest().map(|digest| digest.to_string()));
                right.push(part.name.as_str());
            }
            None => {
                let what = match meant(facts, part) {
                    Some(other) => format!("is not {} of the ISO: {}", other.name, difference(part, other)),
                    None => "the ISO has no kernel to compare with".to_owned(),
                };
                outcome.differs(&part.name, what, TAKE);
            }
        }
    }
    if outcome.findings.is_empty() && right.is_empty() && facts.unreadable.is_empty() {
        outcome.differs(&facts.set, "there is no kernel", "stagegraph extract ISO DIR writes a whole set");
    }
    for part in facts.iso.of_kind(Kind::Kernel).chain(facts.of_kind(Kind::Kernel)) {
        if let Some(what) = part.kernel.as_ref().and_then(|kernel| kernel.damage(part.size)) {
            outcome.differs(&part.name, what, "fetch it again, or build it again");
        }
    }
    let is_found = |part: &&Part| part.digest().is_some_and(|digest| found.contains(&digest.to_string()));
    for other in facts.iso.of_kind(Kind::Kernel).filter(|other| !is_found(other)) {
        if outcome.findings.is_empty() {
            let what = format!("the ISO's kernel {} is not in the set", other.name);
            outcome.warns(&facts.set, what, "add it, if it is to be booted from the network");
        }
    }
    outcome.says(format!("{}: the ISO's, byte for byte", listed(right)), "no kernel could be read")
}

pub(super) fn squashfs(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut right = Vec::new();
    let images: Vec<&Part> = facts.of_kind(Kind::Squashfs).collect();
    for part in &images {
        if part.digest().is_none() {
            continue;
        }
        outcome.looked();
        let Some(iso) = facts.iso.squashfs() else {
            outcome.differs(&part.name, "the ISO has no squashfs to compare with", TAKE);
            continue;
        };
        if iso.digest().is_none() {
            continue;
        }
        // A medium may have several, one over the other.
        if same(part, facts.iso.of_kind(Kind::Squashfs)).is_some() {
            right.push(part.name.as_str());
        } else {
            let what = format!("is not {} of the ISO: {}", iso.name, difference(part, iso));
            outcome.differs(&part.name, what, TAKE);
        }
    }
    let inside = facts.of_kind(Kind::Initramfs).any(Part::is_combined);
    if images.is_empty() && !inside && needs_no_squashfs(facts) {
        outcome.looked();
        outcome.warns(
            &facts.set,
            "there is no squashfs: all that its menus boot has it from the whole ISO or from a server",
            "see that it is this ISO's",
        );
    } else if images.is_empty() && !inside && facts.unreadable.is_empty() {
        outcome.differs(
            &facts.set,
            "there is no squashfs, neither loose nor inside an initrd",
            "stagegraph extract ISO DIR writes a whole set",
        );
    }
    outcome.says(format!("{}: the ISO's, byte for byte", listed(right)), "there is no loose squashfs")
}

pub(super) fn squashfs_image(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut says = None;
    let hint = "fetch it again, or build it again";
    for part in facts.iso.of_kind(Kind::Squashfs).chain(facts.of_kind(Kind::Squashfs)) {
        match &part.superblock {
            None => {}
            Some(Ok(found)) => {
                outcome.looked();
                says = Some(format!(
                    "{}, blocks of {} KiB, {} bytes",
                    found.compressor,
                    found.block_size >> 10,
                    found.bytes_used
                ));
            }
            Some(Err(why)) => outcome.differs(&part.name, format!("is no sound squashfs: {why}"), hint),
        }
    }
    if let (Some(why), Some(squashfs)) = (&facts.iso.tables, facts.iso.squashfs()) {
        outcome.differs(&squashfs.name, format!("is no sound squashfs: {why}"), hint);
    }
    for part in facts.of_kind(Kind::Initramfs) {
        for image in part.contents().map_or(&[][..], |walk| &walk.images) {
            outcome.looked();
            if let Some(why) = &image.damage {
                let what = format!("{} inside it is no sound squashfs: {why}", image.name);
                outcome.differs(&part.name, what, hint);
            }
        }
    }
    outcome.says(says.unwrap_or_default(), "there is no squashfs")
}
