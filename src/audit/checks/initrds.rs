//! Checks of initrds: whose bytes they are, what was put behind them, and whether the kernel unpacks them.

use std::collections::{BTreeMap, BTreeSet};

use super::lean;
use super::lines::{is_image, is_of_the_way};
use super::parts::{TAKE, difference, meant};
use super::select::{Booted, count, initrd_of, initrds_of, linux, listed, set_menus};
use super::verity;
use crate::audit::facts::{EntryFacts, Facts, Kind, MenuFacts, Part};
use crate::audit::report::{Check, Outcome};
use crate::formats::initramfs::{Node, Runs, plain_name};

pub(super) fn initrd(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let booted = Booted::of(facts);
    let mut right = Vec::new();
    let mut lean_ones = Vec::new();
    for part in facts.of_kind(Kind::Initramfs).filter(|part| booted.has(&part.name)) {
        let only_begins = part.begins.is_some() && !is_isos(part);
        // One with a squashfs inside is the next check's business, and so is one that only begins well.
        if part.is_combined() || only_begins || part.digest().is_none() {
            continue;
        }
        outcome.looked();
        match part.begins {
            Some(_) => right.push(part.name.as_str()),
            None if is_extra(facts, part) => {
                let what = "is loaded beside the ISO's initrd; the ISO has none like it";
                outcome.warns(&part.name, what, "see that its files are meant to be there");
            }
            None => match lean::of(facts, part) {
                Some((_, found)) if found.is_lean() => lean_ones.push(part.name.as_str()),
                Some((full, found)) => found.says(&part.name, full, &mut outcome),
                None => {
                    let what = match meant(facts, part) {
                        Some(other) => {
                            format!("is not {} of the ISO: {}", other.name, difference(part, other))
                        }
                        None => "the ISO has no initrd to compare with".to_owned(),
                    };
                    outcome.differs(&part.name, what, TAKE);
                }
            },
        }
    }
    judge_beside(facts, &mut outcome);
    let lean = match lean_ones.is_empty() {
        true => String::new(),
        false => format!("; every file of {} is in it", listed(lean_ones)),
    };
    outcome.says(format!("{}: the ISO's, byte for byte{lean}", listed(right)), "there is no loose initrd")
}

/// Tells whether an initrd is the ISO's, or that and what has its squashfs checked.
fn is_isos(part: &Part) -> bool {
    part.begins.as_ref().is_some_and(|begins| {
        let is_checked = |part: &Part| {
            !part.is_combined() && part.contents().is_some_and(|walk| !verity::paths(walk).is_empty())
        };
        begins.is_all_of(part.size) || is_checked(part) && more_behind(part, begins.length).is_nothing()
    })
}

/// Tells whether an initrd is only loaded beside one of the ISO's and has no system of its own: microcode, an overlay.
fn is_extra(facts: &Facts, part: &Part) -> bool {
    let Some(walk) = part.contents().filter(|walk| walk.initramfs.family.is_none()) else { return false };
    let is_isos = |name: &String| facts.parts.get(name).is_some_and(|other| other.begins.is_some());
    let mut entries = set_menus(facts).flat_map(linux);
    walk.initramfs.kernels.is_empty()
        && entries.any(|entry| {
            let names = || entry.initrds.iter().filter_map(|loaded| loaded.part.as_ref());
            names().any(|name| *name == part.name) && names().any(is_isos)
        })
}

/// What is in an initrd beyond the ISO's: files that take the place of one of its, and files that are new.
#[derive(Default)]
struct More {
    replaced: Vec<String>,
    added: Vec<String>,
}

impl More {
    fn is_nothing(&self) -> bool {
        self.replaced.is_empty() && self.added.is_empty()
    }

    fn say(&self, subject: &str, outcome: &mut Outcome) {
        let hint = "take the ISO's initrd, and behind it the squashfs alone; what the image needs belongs into the image";
        let named = |paths: &[String]| listed(paths.iter().map(String::as_str));
        if !self.replaced.is_empty() {
            let what = format!("replaces {} of the ISO's initrd", named(&self.replaced));
            outcome.differs(subject, what, hint);
        }
        // dracut reads these as if they stood on the kernel's line.
        let (words, others): (Vec<_>, Vec<_>) =
            self.added.iter().cloned().partition(|path| path.starts_with("/etc/cmdline"));
        if !words.is_empty() {
            let what =
                format!("adds words to the command line, which the ISO's initrd does not: {}", named(&words));
            outcome.differs(subject, what, hint);
        }
        if !others.is_empty() {
            let what = format!(
                "has {} that the ISO's initrd lacks: {}",
                count(others.len(), "file", "files"),
                named(&others)
            );
            outcome.warns(subject, what, "see that they are meant to be there");
        }
    }
}

/// Judges the files of initrds that are loaded beside the ISO's: the kernel unpacks all of them into one place.
fn judge_beside(facts: &Facts, outcome: &mut Outcome) {
    let mut seen = BTreeSet::new();
    for menu in set_menus(facts) {
        for entry in linux(menu) {
            let all: Vec<&Part> = initrds_of(facts, menu, entry).collect();
            for (number, extra) in all.iter().enumerate() {
                if extra.begins.is_some() || !is_extra(facts, extra) || !seen.insert(&extra.name) {
                    continue;
                }
                let Some(files) = extra.contents().map(|walk| &walk.initramfs.files) else { continue };
                // The later one wins: where the ISO's comes later, nothing of it is lost. Folders may be made by the others.
                let before =
                    || all[..number].iter().filter_map(|part| Some(&part.contents()?.initramfs.files));
                let own = files.iter().map(|(path, made)| (path.to_string(), made.node == Node::Folder));
                let lost = files.lost.iter().map(|name| (name.clone(), false));
                let mut more = More::default();
                for (path, is_folder) in own.chain(lost) {
                    if before().any(|files| files.loses(&path, is_folder)) {
                        more.replaced.push(shown(&path));
                    } else if !is_folder && shown(&path).starts_with("/etc/cmdline") {
                        more.added.push(shown(&path));
                    }
                }
                more.say(&extra.name, outcome);
            }
            // Files that the boot loader puts there come last.
            let before = || all.iter().filter_map(|part| Some(&part.contents()?.initramfs.files));
            let mut more = More::default();
            for inside in entry.initrds.iter().filter_map(|loaded| loaded.inside.as_ref()) {
                if before().any(|files| files.loses(inside, false)) {
                    more.replaced.push(shown(inside));
                } else if shown(inside).starts_with("/etc/cmdline") || !is_image(inside) {
                    more.added.push(shown(inside));
                }
            }
            more.say(&format!("{}:{}", menu.file, entry.line), outcome);
        }
    }
}

/// Returns a path as it is once everything is unpacked.
fn shown(path: &str) -> String {
    format!("/{}", plain_name(path))
}

/// Returns what stands in an initrd behind the ISO's, beside the squashfs.
fn more_behind(part: &Part, length: u64) -> More {
    let mut more = More::default();
    let Some(walk) = part.contents() else { return more };
    let segments = &walk.initramfs.segments;
    let first = segments.iter().take_while(|segment| segment.offset < length).count();
    let images: BTreeSet<&str> = walk.images.iter().map(|image| image.path.as_str()).collect();
    // What has the squashfs checked is another check's business.
    let checked = verity::paths(walk);
    for (path, made) in walk.initramfs.files.iter().filter(|(_, made)| made.last >= first) {
        let is_new = made.first >= first || made.node == Node::Folder;
        if is_new && checked.contains(&path.to_string()) {
            continue;
        }
        let path = format!("/{path}");
        if images.contains(path.as_str()) {
            continue;
        }
        let is_turned = made.turned.is_some_and(|segment| segment >= first);
        if made.first < first && (made.node != Node::Folder || is_turned) {
            more.replaced.push(path);
        } else if made.node != Node::Folder {
            more.added.push(path);
        }
    }
    more
}

pub(super) fn combined(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut right = Vec::new();
    for part in facts.of_kind(Kind::Initramfs) {
        let images = part.contents().map_or(&[][..], |walk| &walk.images);
        let begins = part.begins.as_ref().filter(|_| !is_isos(part));
        if images.is_empty() && begins.is_none() {
            continue;
        }
        outcome.looked();
        let before = outcome.findings.len();
        match begins {
            Some(begins) => more_behind(part, begins.length).say(&part.name, &mut outcome),
            None if part.digest().is_some() && !is_extra(facts, part) => {
                let what = match meant(facts, part) {
                    Some(other) => format!("does not begin with the bytes of {} of the ISO", other.name),
                    None => "the ISO has no initrd that it could begin with".to_owned(),
                };
                outcome.differs(&part.name, what, "combine it anew, from the ISO's initrd and squashfs");
            }
            None => {}
        }
        if images.is_empty() && part.contents().is_some() {
            outcome.differs(
                &part.name,
                "begins with the ISO's initrd and goes on, but there is no squashfs in what follows",
                "combine it anew: initrd, zeros up to a multiple of four, a cpio archive with the squashfs",
            );
        }
        for image in images {
            if image.is_iso {
                if facts.iso.digest() != Some(image.digest) {
                    outcome.differs(
                        &part.name,
                        format!("the ISO inside, {}, is not {}", image.name, facts.iso.name),
                        "combine it anew, from the ISO's initrd and the ISO",
                    );
                }
                continue;
            }
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

/// Returns the ISO's initrds that an entry of the set loads, in order; what the ISO has none of is left out.
fn loaded_of_iso<'a>(facts: &'a Facts, menu: &MenuFacts, entry: &EntryFacts) -> Vec<&'a Part> {
    let of_iso = |part: &'a Part| match &part.begins {
        Some(begins) => begins.initrds.iter().filter_map(|name| facts.iso.parts.get(name)).collect(),
        // A lean one stands for the one that it is of.
        None => Vec::from_iter(lean::full_of(facts, part)),
    };
    initrds_of(facts, menu, entry).flat_map(of_iso).collect()
}

pub(super) fn pairs(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    // What each kernel of the ISO is booted with there, by the digests of all of it.
    let mut on_iso: BTreeMap<String, Vec<Vec<&Part>>> = BTreeMap::new();
    let digests = |parts: &[&Part]| parts.iter().map(|part| part.digest()).collect::<Vec<_>>();
    for menu in facts.menus.iter().filter(|menu| menu.on_iso) {
        for entry in linux(menu) {
            let kernel = entry.kernel.as_ref().and_then(|name| facts.iso.parts.get(name)?.digest());
            let initrds: Vec<&Part> = initrds_of(facts, menu, entry).collect();
            if let Some(kernel) = kernel.filter(|_| !initrds.is_empty()) {
                on_iso.entry(kernel.to_string()).or_default().push(initrds);
            }
        }
    }
    let mut seen = BTreeSet::new();
    for menu in set_menus(facts) {
        for entry in linux(menu) {
            let Some(kernel) = entry.kernel.as_ref().and_then(|name| facts.parts.get(name)) else { continue };
            let Some(right) = kernel.digest().and_then(|digest| on_iso.get(&digest.to_string())) else {
                continue;
            };
            let loaded = loaded_of_iso(facts, menu, entry);
            // Of another build; the checks of the bytes say so.
            let Some(initrd) = initrd_of(facts, menu, entry).filter(|_| !loaded.is_empty()) else { continue };
            outcome.looked();
            if right.iter().any(|right| digests(right) == digests(&loaded))
                || !seen.insert((kernel.name.clone(), initrd.name.clone()))
            {
                continue;
            }
            let subject = format!("{}:{}", menu.file, entry.line);
            let main =
                |parts: &[&Part]| parts.iter().find(|part| part.family().is_some()).and_then(|p| p.digest());
            let same = right.iter().find(|right| main(right).is_none() || main(right) == main(&loaded));
            let Some(right) = same else {
                outcome.differs(
                    subject,
                    format!(
                        "boots {} with {}, which is another kernel's initrd on the ISO",
                        kernel.name, initrd.name
                    ),
                    "give each kernel the initrd that it has on the ISO",
                );
                continue;
            };
            let names = |parts: &[&Part]| listed(parts.iter().map(|part| part.name.as_str()));
            outcome.differs(
                subject,
                format!(
                    "boots {} with {} of the ISO; the ISO boots it with {}",
                    kernel.name,
                    names(&loaded),
                    names(right)
                ),
                "load all initrds that the ISO loads, in its order",
            );
        }
    }
    outcome.says("each kernel has the initrds that it has on the ISO", "there is no pair to compare")
}

/// Tells whether an initrd is one that the ISO alone has, for kernels that the set lacks: an installer's, beside a live system's.
fn is_of_another_system(facts: &Facts, part: &Part) -> bool {
    let own: BTreeSet<String> =
        facts.of_kind(Kind::Kernel).filter_map(|kernel| Some(kernel.digest()?.to_string())).collect();
    let with = facts.menus.iter().filter(|menu| menu.on_iso).flat_map(linux);
    let mut with = with
        .filter(|entry| entry.initrds.iter().any(|loaded| loaded.part.as_deref() == Some(&part.name)))
        .filter_map(|entry| facts.iso.parts.get(entry.kernel.as_ref()?)?.digest())
        .peekable();
    let is_isos = facts.iso.parts.get(&part.name).is_some_and(|of_iso| std::ptr::eq(of_iso, part));
    is_isos && with.peek().is_some() && with.all(|kernel| !own.contains(&kernel.to_string()))
}

/// Returns all initrds of both, the ISO's first.
fn initrds(facts: &Facts) -> impl Iterator<Item = &Part> {
    facts.iso.of_kind(Kind::Initramfs).chain(facts.of_kind(Kind::Initramfs))
}

/// Judges of each entry whether its kernel finds the program that it begins with (`init/main.c`): without one it looks for a root
/// by itself, finds none, and panics.
fn judge_programs(facts: &Facts, outcome: &mut Outcome) {
    let mut said = BTreeSet::new();
    for menu in &facts.menus {
        for entry in linux(menu) {
            let loaded = || entry.initrds.iter().filter(|loaded| loaded.inside.is_none());
            let parts = loaded().map(|loaded| facts.part(menu, loaded.part.as_ref()?)?.contents());
            let Some(walks) = parts.collect::<Option<Vec<_>>>().filter(|walks| !walks.is_empty()) else {
                continue;
            };
            let named = entry.words.iter().rev().find_map(|word| word.strip_prefix("rdinit="));
            let program = named.unwrap_or("/init");
            let runs = walks.iter().map(|walk| walk.initramfs.runs(program)).max().unwrap_or(Runs::Missing);
            let names = listed(loaded().filter_map(|loaded| loaded.part.as_deref()));
            if !said.insert(names.clone()) {
                continue;
            }
            let hint = "build the initrd again, or name its program: rdinit=PATH";
            match runs {
                Runs::Yes => {}
                Runs::Missing => {
                    outcome.warns(names, format!("has no {program}, which the kernel begins with"), hint);
                }
                Runs::NotExecutable => {
                    outcome.warns(
                        names,
                        format!("nobody may run its {program}: the kernel cannot either"),
                        hint,
                    );
                }
                Runs::NoFile => {
                    outcome.differs(names, format!("its {program} is no file: the kernel panics"), hint)
                }
                Runs::LinkToNothing => outcome.differs(
                    names,
                    format!("its {program} is a link to nothing: the kernel panics"),
                    hint,
                ),
            }
        }
    }
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
                let lost = &walk.initramfs.files.lost;
                // What is loaded behind others may lie in their folders.
                if !lost.is_empty() && !walk.initramfs.is_microcode() && !is_extra(facts, part) {
                    let names = listed(lost.iter().map(String::as_str));
                    outcome.warns(
                        &part.name,
                        format!("the kernel does not make {names}: no entry makes the folder"),
                        "put the folder into the archive, in front of what is in it",
                    );
                }
                let baked: Vec<String> = walk
                    .initramfs
                    .baked()
                    .filter(|(_, word)| is_of_the_way(word))
                    .map(|(file, word)| format!("{word} ({file})"))
                    .collect();
                if !baked.is_empty() {
                    let what = format!(
                        "has words of a command line in it, which count where the kernel's line says nothing else: {}",
                        listed(baked.iter().map(String::as_str))
                    );
                    outcome.warns(
                        &part.name,
                        what,
                        "make it with dracut's --no-hostonly-cmdline, without kernel_cmdline",
                    );
                }
                match walk.initramfs.family {
                    Some(family) => drop(families.insert(family.name())),
                    None if walk.initramfs.is_microcode() => {}
                    None => outcome.warns(
                        &part.name,
                        "was made by neither dracut nor genkernel: what it needs on a command line is not known",
                        "boot it once; for a live system of dracut it needs the module dmsquash-live",
                    ),
                }
            }
            Some(Err(why)) => {
                let what = format!("cannot be unpacked: {why}");
                let hint = "take the initrd from the ISO, or build it again; an appended archive starts on a multiple of four bytes";
                match is_of_another_system(facts, part) {
                    true => outcome.warns(&part.name, what, hint),
                    false => outcome.differs(&part.name, what, hint),
                }
            }
        }
    }
    let (number, made) = (initrds(facts).count(), listed(families));
    judge_programs(facts, &mut outcome);
    outcome.says(
        format!(
            "{} of {} unpack; made by {made}",
            count(segments, "archive", "archives"),
            count(number, "initrd", "initrds")
        ),
        "there is no initrd",
    )
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
