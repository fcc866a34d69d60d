//! Checks of the bytes: what is on the ISO, loose, and inside the combined initrds.

use std::collections::BTreeSet;

use super::select::{count, initrd_of, is_booted, linux, listed, set_menus};
use crate::audit::facts::{Facts, Kind, Part};
use crate::audit::report::{Check, Outcome};

const TAKE: &str = "take all of them from one ISO: stagegraph extract ISO DIR";

/// Tells why two files of a kind are not the same, as far as it can be told.
fn difference(here: &Part, there: &Part) -> String {
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
fn same<'a>(part: &Part, mut among: impl Iterator<Item = &'a Part>) -> Option<&'a Part> {
    among.find(|other| part.digest().is_some() && part.digest() == other.digest())
}

/// Returns the ISO's part that most probably should be the same: by release, by name, or the only one.
fn meant<'a>(facts: &'a Facts, part: &Part) -> Option<&'a Part> {
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
    let mut found = BTreeSet::new();
    let mut right = Vec::new();
    for part in facts.of_kind(Kind::Kernel).filter(|part| is_booted(facts, &part.name)) {
        if part.digest().is_none() {
            continue;
        }
        outcome.looked();
        match same(part, facts.iso.of_kind(Kind::Kernel)) {
            Some(other) => {
                found.insert(&other.name);
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
    for other in facts.iso.of_kind(Kind::Kernel).filter(|other| !found.contains(&other.name)) {
        if outcome.findings.is_empty() {
            let what = format!("the ISO's kernel {} is not in the set", other.name);
            outcome.warns(&facts.set, what, "add it, if it is to be booted from the network");
        }
    }
    outcome.says(format!("{}: the ISO's, byte for byte", listed(right)), "no kernel could be read")
}

pub(super) fn initrd(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut right = Vec::new();
    for part in facts.of_kind(Kind::Initramfs).filter(|part| is_booted(facts, &part.name)) {
        // One with a squashfs inside is the next check's business, and so is one that only begins well.
        if part.is_combined() || begins_with(facts, part).is_some() || part.digest().is_none() {
            continue;
        }
        outcome.looked();
        match same(part, facts.iso.of_kind(Kind::Initramfs)) {
            Some(_) => right.push(part.name.as_str()),
            None if is_extra(facts, part) => {
                let what = "is loaded beside the ISO's initrd; the ISO has none like it";
                outcome.warns(&part.name, what, "see that its files are meant to be there");
            }
            None => {
                let what = match meant(facts, part) {
                    Some(other) => format!("is not {} of the ISO: {}", other.name, difference(part, other)),
                    None => "the ISO has no initrd to compare with".to_owned(),
                };
                outcome.differs(&part.name, what, TAKE);
            }
        }
    }
    outcome.says(format!("{}: the ISO's, byte for byte", listed(right)), "there is no loose initrd")
}

/// Tells whether an initrd is only loaded beside one of the ISO's and has no system of its own: microcode, an overlay.
fn is_extra(facts: &Facts, part: &Part) -> bool {
    let Some(walk) = part.contents().filter(|walk| walk.initramfs.family.is_none()) else { return false };
    let is_isos = |name: &String| {
        let other = facts.parts.get(name);
        other.is_some_and(|other| {
            same(other, facts.iso.of_kind(Kind::Initramfs)).is_some() || begins_with(facts, other).is_some()
        })
    };
    let mut entries = set_menus(facts).flat_map(linux);
    walk.initramfs.kernels.is_empty()
        && entries.any(|entry| {
            let names = || entry.initrds.iter().filter_map(|loaded| loaded.part.as_ref());
            names().any(|name| *name == part.name) && names().any(is_isos)
        })
}

/// Returns the ISO's initrd that a longer one begins with.
fn begins_with<'a>(facts: &'a Facts, part: &Part) -> Option<&'a Part> {
    let all = facts.iso.of_kind(Kind::Initramfs);
    all.filter(|initrd| initrd.size < part.size)
        .filter(|initrd| {
            initrd.digest().is_some() && part.prefixes.get(&initrd.size).copied() == initrd.digest()
        })
        .max_by_key(|initrd| initrd.size)
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
        if part.digest() == iso.digest() {
            right.push(part.name.as_str());
        } else {
            let what = format!("is not {} of the ISO: {}", iso.name, difference(part, iso));
            outcome.differs(&part.name, what, TAKE);
        }
    }
    let inside = facts.of_kind(Kind::Initramfs).any(Part::is_combined);
    if images.is_empty() && !inside && facts.unreadable.is_empty() {
        outcome.differs(
            &facts.set,
            "there is no squashfs, neither loose nor inside an initrd",
            "stagegraph extract ISO DIR writes a whole set",
        );
    }
    outcome.says(format!("{}: the ISO's, byte for byte", listed(right)), "there is no loose squashfs")
}

pub(super) fn combined(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut right = Vec::new();
    for part in facts.of_kind(Kind::Initramfs) {
        let images = part.contents().map_or(&[][..], |walk| &walk.images);
        let begins = begins_with(facts, part);
        if images.is_empty() && begins.is_none() {
            continue;
        }
        outcome.looked();
        let before = outcome.findings.len();
        if begins.is_none() && part.digest().is_some() && !is_extra(facts, part) {
            let what = match meant(facts, part) {
                Some(other) => format!("does not begin with the bytes of {} of the ISO", other.name),
                None => "the ISO has no initrd that it could begin with".to_owned(),
            };
            outcome.differs(&part.name, what, "combine it anew, from the ISO's initrd and squashfs");
        }
        if images.is_empty() && part.contents().is_some() {
            outcome.differs(
                &part.name,
                "begins with the ISO's initrd and goes on, but there is no squashfs in what follows",
                "combine it anew: initrd, zeros up to a multiple of four, a cpio archive with the squashfs",
            );
        }
        for image in images {
            let Some(iso) = facts.iso.squashfs().filter(|iso| iso.digest().is_some()) else { continue };
            if Some(image.digest) != iso.digest() {
                let how = if image.size == iso.size {
                    "as long, but other bytes".to_owned()
                } else {
                    format!("{} bytes, that one {}", image.size, iso.size)
                };
                outcome.differs(
                    &part.name,
                    format!("the squashfs inside, {}, is not {} of the ISO: {how}", image.name, iso.name),
                    "combine it anew, from the ISO's initrd and squashfs",
                );
            }
        }
        if images.len() > 1 {
            let names = listed(images.iter().map(|image| image.name.as_str()));
            outcome.warns(&part.name, format!("holds {} images: {names}", images.len()), "one is enough");
        }
        if outcome.findings.len() == before {
            right.push(part.name.as_str());
        }
    }
    outcome.says(
        format!("{}: the ISO's initrd, then its squashfs", listed(right)),
        "there is no initrd with a squashfs inside",
    )
}

pub(super) fn pairs(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut on_iso = BTreeSet::new();
    for menu in facts.menus.iter().filter(|menu| menu.on_iso) {
        for entry in linux(menu) {
            let kernel = entry.kernel.as_ref().and_then(|name| facts.iso.parts.get(name)?.digest());
            let initrd = initrd_of(facts, menu, entry).and_then(Part::digest);
            on_iso.extend(kernel.zip(initrd));
        }
    }
    let mut seen = BTreeSet::new();
    for menu in set_menus(facts) {
        for entry in linux(menu) {
            let Some(kernel) = entry.kernel.as_ref().and_then(|name| facts.parts.get(name)) else { continue };
            let Some(initrd) = initrd_of(facts, menu, entry) else { continue };
            let bare = begins_with(facts, initrd).unwrap_or(initrd);
            let (Some(k), Some(i)) = (kernel.digest(), bare.digest()) else { continue };
            let known = on_iso.iter().any(|pair| pair.0 == k) && on_iso.iter().any(|pair| pair.1 == i);
            if !known {
                // Of another build; the checks of the bytes say so.
                continue;
            }
            outcome.looked();
            if !on_iso.contains(&(k, i)) && seen.insert((kernel.name.clone(), initrd.name.clone())) {
                outcome.differs(
                    format!("{}:{}", menu.file, entry.line),
                    format!(
                        "boots {} with {}, which is another kernel's initrd on the ISO",
                        kernel.name, initrd.name
                    ),
                    "give each kernel the initrd that it has on the ISO",
                );
            }
        }
    }
    outcome.says("each kernel has the initrd that it has on the ISO", "there is no pair to compare")
}

/// Returns all initrds of both, the ISO's first.
fn initrds(facts: &Facts) -> impl Iterator<Item = &Part> {
    facts.iso.of_kind(Kind::Initramfs).chain(facts.of_kind(Kind::Initramfs))
}

pub(super) fn initramfs(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut segments = 0;
    let mut families = BTreeSet::new();
    for part in initrds(facts) {
        match &part.walk {
            None => {}
            Some(Ok(walk)) => {
                outcome.looked();
                segments += walk.initramfs.segments.len();
                match walk.initramfs.family {
                    Some(family) => drop(families.insert(family.name())),
                    None => outcome.warns(
                        &part.name,
                        "was made by neither dracut nor genkernel: what it needs on a command line is not known",
                        "make it with dracut's dmsquash-live module, or with genkernel",
                    ),
                }
            }
            Some(Err(why)) => outcome.differs(
                &part.name,
                format!("cannot be unpacked: {why}"),
                "take the initrd from the ISO, or build it again; an appended archive starts on a multiple of four bytes",
            ),
        }
    }
    let (number, made) = (initrds(facts).count(), listed(families));
    outcome.says(
        format!(
            "{} of {} unpack; made by {made}",
            count(segments, "archive", "archives"),
            count(number, "initrd", "initrds")
        ),
        "there is no initrd",
    )
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

pub(super) fn modules(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut releases = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for menu in &facts.menus {
        for entry in linux(menu) {
            let kernel = entry.kernel.as_ref().and_then(|name| facts.part(menu, name));
            let release = kernel.and_then(|part| part.kernel.as_ref()?.release.as_ref());
            let Some(initrd) = initrd_of(facts, menu, entry) else { continue };
            let (Some(release), Some(walk)) = (release, initrd.contents()) else { continue };
            let has = &walk.initramfs.kernels;
            if has.is_empty() {
                continue;
            }
            outcome.looked();
            releases.insert(release.as_str());
            if !has.contains(release) && seen.insert((release, &initrd.name)) {
                outcome.differs(
                    format!("{}:{}", menu.file, entry.line),
                    format!(
                        "boots Linux {release} with {}, which has modules for {}",
                        initrd.name,
                        listed(has.iter().map(String::as_str))
                    ),
                    "give each kernel the initrd that was made for it",
                );
            }
        }
    }
    outcome.says(
        format!("of Linux {}", listed(releases)),
        "the kernels or the initrds do not say what they are for",
    )
}
