//! Checks of command lines, and of what scripts and menus name.

use std::collections::BTreeSet;

use super::select::{count, initrd_of, linux, listed, set_menus};
use crate::audit::facts::{EntryFacts, Facts, Kind, LoadedPart, Loader, MenuFacts, Part};
use crate::audit::report::{Check, Outcome};
use crate::audit::set::names_in_set;
use crate::cmdline::compare::{Squashfs, compare};
use crate::formats::menus::Role;

const HINT: &str = "stagegraph extract ISO DIR writes scripts with the right lines";

pub(super) fn iso_menu(check: &Check, facts: &Facts) -> Outcome {
    judge(check, facts, |menu| menu.on_iso)
}

pub(super) fn ipxe(check: &Check, facts: &Facts) -> Outcome {
    judge(check, facts, |menu| !menu.on_iso && menu.loader == Loader::Ipxe)
}

pub(super) fn pxelinux(check: &Check, facts: &Facts) -> Outcome {
    judge(check, facts, |menu| !menu.on_iso && menu.loader == Loader::Pxelinux)
}

pub(super) fn grub_net(check: &Check, facts: &Facts) -> Outcome {
    judge(check, facts, |menu| !menu.on_iso && matches!(menu.loader, Loader::Grub | Loader::Bls))
}

fn judge(check: &Check, facts: &Facts, is_ours: fn(&MenuFacts) -> bool) -> Outcome {
    let mut outcome = Outcome::new(check);
    let (mut entries, mut menus) = (0, 0);
    for menu in facts.menus.iter().filter(|menu| is_ours(menu)) {
        let before = entries;
        for entry in linux(menu) {
            entries += 1;
            outcome.looked();
            judge_entry(facts, menu, entry, &mut outcome);
        }
        menus += usize::from(entries > before);
    }
    outcome.says(
        format!(
            "{} in {} fit the initrd",
            count(entries, "command line", "command lines"),
            count(menus, "menu", "menus")
        ),
        "there are none",
    )
}

/// Returns where the squashfs of an entry is when the initramfs looks for it.
fn place<'a>(
    facts: &'a Facts,
    menu: &MenuFacts,
    entry: &'a EntryFacts,
    path: &'a mut String,
) -> Squashfs<'a> {
    if menu.on_iso {
        *path = facts.iso.squashfs.as_deref().unwrap_or("image.squashfs").trim_start_matches('/').to_owned();
        return Squashfs::Iso { volume_id: &facts.iso.volume_id, path, is_gentoos: facts.iso.is_gentoos };
    }
    let injected = entry.initrds.iter().filter_map(|loaded| {
        let part = loaded.part.as_ref().and_then(|name| facts.parts.get(name));
        // One that is not there is looked for under the name it would have.
        let is_image = part.is_none_or(|part| part.kind == Kind::Squashfs);
        loaded.inside.as_ref().filter(|_| is_image)
    });
    if let Some(inside) = injected.into_iter().next() {
        *path = inside.clone();
        return Squashfs::InInitrd { path };
    }
    for loaded in &entry.initrds {
        let walk = loaded.part.as_ref().and_then(|name| facts.parts.get(name)?.contents());
        if let Some(image) = walk.and_then(|walk| walk.images.first()) {
            path.clone_from(&image.path);
            return Squashfs::InInitrd { path };
        }
    }
    Squashfs::Fetched
}

/// Tells whether a path inside an initrd is one where a squashfs is looked for.
pub(in crate::audit) fn is_image(path: &str) -> bool {
    path.contains("squashfs") || path.ends_with(".img") || path.ends_with(".iso")
}

fn judge_entry(facts: &Facts, menu: &MenuFacts, entry: &EntryFacts, outcome: &mut Outcome) {
    let subject = format!("{}:{}", menu.file, entry.line);
    for loaded in &entry.initrds {
        let Some(part) = loaded.part.as_ref().and_then(|name| facts.part(menu, name)) else { continue };
        match (&loaded.inside, part.kind) {
            (None, Kind::Squashfs) => outcome.differs(
                &subject,
                format!("loads {} as an initrd, which the kernel cannot unpack", part.name),
                format!("say where it goes: initrd {} /image.squashfs.img", part.name),
            ),
            // Other files may be put there as well.
            (Some(inside), kind) if kind != Kind::Squashfs && is_image(inside) => outcome.differs(
                &subject,
                format!("puts {} into the initrd, which is no squashfs", part.name),
                "put the squashfs of the ISO there",
            ),
            _ => {}
        }
    }
    if entry.initrds.is_empty() {
        outcome.differs(&subject, "loads no initrd, without which nothing finds the squashfs", HINT);
        return;
    }
    if menu.loader == Loader::Ipxe {
        judge_names(entry, &subject, outcome);
    }
    let Some(initrd) = initrd_of(facts, menu, entry) else { return };
    let (Some(walk), Some(family)) = (initrd.contents(), initrd.family()) else { return };
    let mut path = String::new();
    let squashfs = place(facts, menu, entry, &mut path);
    let (words, is_whole) = decided(menu, entry, &subject, outcome);
    let mut comparison = compare(&walk.initramfs, family, &squashfs, &words);
    if !is_whole {
        // What is wrong because of a word that is not there, or of a default, may be right.
        comparison.missing.clear();
        comparison
            .contradicting
            .retain(|what| words.iter().any(|word| what.starts_with(&format!("{word}: "))));
    }
    if squashfs == Squashfs::Fetched {
        judge_address(facts, menu, entry, &subject, outcome);
    }
    // The ISO's own menu is mended by whoever makes the ISO.
    let hint = if menu.on_iso {
        "correct the menu that the ISO is made with, and build the ISO again"
    } else {
        HINT
    };
    for what in comparison.contradicting.into_iter().chain(comparison.missing) {
        outcome.differs(&subject, what, hint);
    }
    for word in entry.words.iter().filter(|word| !word.is_ascii()) {
        let what =
            format!("{word:?} has characters that are not ASCII, perhaps a blank that does not part words");
        outcome.differs(&subject, what, hint);
    }
}

/// Tells whether only the machine knows what a word is.
fn is_open(menu: &MenuFacts, word: &str) -> bool {
    matches!(menu.loader, Loader::Grub | Loader::Bls) && word.contains("${")
}

/// Returns the words whose text is known, and whether nothing of importance can be among the others: GRUB's variables
/// may come from the machine or from a menu elsewhere.
fn decided(
    menu: &MenuFacts,
    entry: &EntryFacts,
    subject: &str,
    outcome: &mut Outcome,
) -> (Vec<String>, bool) {
    let (open, words): (Vec<_>, Vec<_>) = entry.words.iter().partition(|word| is_open(menu, word));
    // A variable by itself may be any number of words.
    let important: Vec<&str> = open
        .into_iter()
        .map(String::as_str)
        .filter(|word| word.starts_with("${") || is_of_the_way(word))
        .collect();
    if !important.is_empty() {
        outcome.warns(
            subject,
            format!(
                "what its line lacks is not judged: only the machine knows {}",
                listed(important.iter().copied())
            ),
            "see that the variable is what the initrd needs, or write its value into the menu",
        );
    }
    (words.into_iter().cloned().collect(), important.is_empty())
}

/// Checks the names by which UEFI kernels and old versions of iPXE find the initrd.
fn judge_names(entry: &EntryFacts, subject: &str, outcome: &mut Outcome) {
    let loaded: BTreeSet<&str> = entry.initrds.iter().map(LoadedPart::name).collect();
    for name in &entry.initrd_words {
        if name != "initrd.magic" && !loaded.contains(name.as_str()) {
            outcome.differs(
                subject,
                format!(
                    "initrd={name} names no file that is loaded; those are {}",
                    listed(loaded.iter().copied())
                ),
                "write the name under which the initrd is published, without its folder",
            );
        }
    }
    if entry.initrd_words.is_empty() {
        let first = loaded.first().copied().unwrap_or("NAME");
        outcome.warns(
            subject,
            "has no initrd= on the kernel's line, which UEFI kernels and old versions of iPXE need",
            format!("add initrd={first}"),
        );
    }
}

/// Checks that the squashfs an initramfs fetches is that of the set.
fn judge_address(facts: &Facts, menu: &MenuFacts, entry: &EntryFacts, subject: &str, outcome: &mut Outcome) {
    let folder = menu.file.rsplit_once('/').map_or("", |(folder, _)| folder);
    for address in entry.words.iter().filter_map(|word| word.strip_prefix("root=live:")) {
        if !address.contains("://") && !address.contains("${") {
            continue;
        }
        let names = names_in_set(address, folder).unwrap_or_default();
        let found = names.iter().find_map(|name| facts.parts.get(name));
        if found.is_none_or(|part: &Part| part.kind != Kind::Squashfs) && facts.is_listed {
            outcome.differs(
                subject,
                format!("{address} is no squashfs of this set"),
                "publish the ISO's squashfs under that name, or correct the address",
            );
        }
    }
}

/// Tells whether a word of a command line belongs to a way of booting, not to the image.
pub fn is_of_the_way(word: &str) -> bool {
    let key = word.split('=').next().unwrap_or(word);
    let of_the_way = [
        "root",
        "rd.live.dir",
        "rd.live.squashimg",
        "rd.live.ram",
        "rd.live.image",
        "cdroot",
        "looptype",
        "loop",
        "docache",
        "dospeakup",
        "console",
        "ip",
        "rd.neednet",
        "nodhcp",
        "initrd",
        "BOOT_IMAGE",
        "BOOTIF",
        // Where the ISO itself lies as a file.
        "iso-scan/filename",
        "findiso",
        "fromiso",
        "isofrom",
    ];
    of_the_way.contains(&key)
}

pub(super) fn drift(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    // The words that are known, and whether they are all.
    let own = |menu: &MenuFacts, entry: &EntryFacts| -> (BTreeSet<String>, bool) {
        let (open, known): (Vec<_>, Vec<_>) = entry.words.iter().partition(|word| is_open(menu, word));
        (known.into_iter().filter(|word| !is_of_the_way(word)).cloned().collect(), open.is_empty())
    };
    let on_iso = facts.menus.iter().filter(|menu| menu.on_iso);
    let first = on_iso.flat_map(|menu| linux(menu).map(move |entry| (menu, entry))).next();
    let Some((menu, entry)) = first else { return outcome.says("", "the ISO has no menu") };
    let (iso, is_isos_whole) = own(menu, entry);
    for menu in set_menus(facts) {
        let Some(entry) = linux(menu).next() else { continue };
        outcome.looked();
        let (here, is_whole) = own(menu, entry);
        let lacks: Vec<&str> = iso.difference(&here).map(String::as_str).collect();
        let more: Vec<&str> = here.difference(&iso).map(String::as_str).collect();
        let subject = format!("{}:{}", menu.file, entry.line);
        if !lacks.is_empty() && is_whole {
            outcome.warns(
                &subject,
                format!("lacks {}, which the ISO's first entry has", listed(lacks.iter().copied())),
                "add it, unless it was left out for a reason",
            );
        }
        if !more.is_empty() && is_isos_whole {
            outcome.warns(
                &subject,
                format!("has {}, which the ISO's first entry lacks", listed(more.iter().copied())),
                "remove it, unless it was added for a reason",
            );
        }
    }
    outcome.says(
        format!("the same everywhere: {}", listed(iso.iter().map(String::as_str))),
        "there are no menus in the set",
    )
}

pub(super) fn references(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut names = Vec::new();
    for menu in set_menus(facts) {
        outcome.looked();
        names.push(menu.file.as_str());
        for missing in &menu.missing {
            let subject = format!("{}:{}", menu.file, missing.line);
            let what = if missing.climbs {
                format!("names {}, which climbs out of the set", missing.form)
            } else {
                let role = match missing.role {
                    Role::Kernel => "the kernel",
                    Role::Initrd => "the initrd",
                    Role::Injected => "the squashfs",
                    Role::Next => "the file",
                    Role::Signature => "the signature",
                };
                format!("names {role} {}, which is not there", missing.form)
            };
            outcome.differs(subject, what, "publish the file under that name, or correct the script");
        }
        let has_entries = set_menus(facts).any(|menu| menu.loader == Loader::Bls);
        if let Some(line) = menu.takes_entries.filter(|_| !has_entries) {
            outcome.warns(
                format!("{}:{line}", menu.file),
                "takes in entries of the Boot Loader Specification, and there are none in loader/entries",
                "publish them with the set, or remove the command",
            );
        }
        for problem in &menu.problems {
            let subject = format!("{}:{}", menu.file, problem.line);
            match problem.is_certain {
                true => outcome.differs(subject, &problem.what, "correct the script"),
                false => outcome.warns(
                    subject,
                    &problem.what,
                    "see that whoever boots it has it, or correct the script",
                ),
            }
        }
    }
    if names.is_empty() {
        outcome.warns(&facts.set, "there is neither a script nor a menu: nothing says how to boot it", HINT);
    } else if set_menus(facts).flat_map(linux).next().is_none() {
        let what = format!("{} boot nothing: no kernel is loaded and started", listed(names.iter().copied()));
        outcome.warns(&facts.set, what, HINT);
    }
    outcome.says(format!("all that {} name is there", listed(names)), "")
}
