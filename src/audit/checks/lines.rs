//! Checks of command lines, and of what scripts and menus name.

use std::collections::{BTreeMap, BTreeSet};

use super::address::{self, Address};
use super::select::{count, initrd_of, linux, listed, set_menus};
use crate::audit::facts::{EntryFacts, Facts, IsoFacts, Kind, LoadedPart, Loader, MenuFacts};
use crate::audit::report::{Check, Outcome};
use crate::cmdline::compare::{Squashfs, compare};
use crate::formats::initramfs::{Initramfs, Node};
use crate::formats::menus::Role;

const HINT: &str = "stagegraph extract ISO DIR writes scripts with the right lines";

pub(super) fn iso_menu(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = judge(check, facts, |menu| menu.on_iso);
    for menu in facts.menus.iter().filter(|menu| menu.on_iso) {
        for problem in &menu.problems {
            let subject = format!("{}:{}", menu.file, problem.line);
            match problem.is_certain {
                true => outcome.differs(
                    subject,
                    &problem.what,
                    "correct the menu that the ISO is made with, and build the ISO again",
                ),
                false => outcome.warns(subject, &problem.what, "see that it is meant to be so"),
            }
        }
    }
    outcome
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
    let on_iso = facts.iso.squashfs.as_deref().unwrap_or("image.squashfs").trim_start_matches('/');
    let IsoFacts { volume_id, is_gentoos, .. } = &facts.iso;
    let is_gentoos = *is_gentoos;
    if menu.on_iso {
        return Squashfs::Iso { volume_id, path: on_iso, is_gentoos };
    }
    let injected = entry.initrds.iter().find_map(|loaded| {
        let part = loaded.part.as_ref().and_then(|name| facts.parts.get(name));
        // One that is not there is looked for under the name it would have.
        let is_image = part.is_none_or(|part| matches!(part.kind, Kind::Squashfs | Kind::Iso));
        let inside = loaded.inside.as_ref().filter(|_| is_image)?;
        Some((inside, part.is_some_and(|part| part.kind == Kind::Iso)))
    });
    if let Some((inside, is_iso)) = injected {
        path.clone_from(inside);
        return Squashfs::InInitrd { path, is_gentoos, on_iso: is_iso.then_some(on_iso) };
    }
    for loaded in &entry.initrds {
        let walk = loaded.part.as_ref().and_then(|name| facts.parts.get(name)?.contents());
        if let Some(image) = walk.and_then(|walk| walk.images.first()) {
            path.clone_from(&image.path);
            return Squashfs::InInitrd { path, is_gentoos, on_iso: image.is_iso.then_some(on_iso) };
        }
    }
    let is_iso = address::of_entry(facts, menu, entry).iter().any(Address::is_iso);
    Squashfs::Fetched { is_gentoos, on_iso: is_iso.then_some(on_iso) }
}

/// Tells whether a path inside an initrd is one where a squashfs is looked for.
pub(in crate::audit) fn is_image(path: &str) -> bool {
    path.contains("squashfs") || path.ends_with(".img") || path.ends_with(".iso")
}

/// Judges what an entry loads, each for itself.
fn judge_loaded(facts: &Facts, menu: &MenuFacts, entry: &EntryFacts, subject: &str, outcome: &mut Outcome) {
    let kernel = entry.kernel.as_ref().and_then(|name| facts.part(menu, name));
    if let Some(part) = kernel.filter(|p| matches!(p.kind, Kind::Initramfs | Kind::Squashfs | Kind::Iso)) {
        outcome.differs(subject, format!("boots {}, which is no kernel", part.name), "name the kernel there");
    }
    for loaded in &entry.initrds {
        let Some(part) = loaded.part.as_ref().and_then(|name| facts.part(menu, name)) else { continue };
        match (&loaded.inside, part.kind) {
            (None, Kind::Squashfs) => outcome.differs(
                subject,
                format!("loads {} as an initrd, which the kernel cannot unpack", part.name),
                format!("say where it goes: initrd {} /image.squashfs.img", part.name),
            ),
            (Some(_), Kind::Iso) if part.digest().is_some() && !address::is_the_iso(facts, part) => outcome
                .differs(
                    subject,
                    format!("puts {} into the initrd, which is not the ISO {}", part.name, facts.iso.name),
                    "put the ISO itself there, or its squashfs",
                ),
            // Other files may be put there as well.
            (Some(inside), kind) if !matches!(kind, Kind::Squashfs | Kind::Iso) && is_image(inside) => {
                outcome.differs(
                    subject,
                    format!("puts {} into the initrd, which is no squashfs", part.name),
                    "put the squashfs of the ISO there",
                )
            }
            _ => {}
        }
        if let Some(folder) =
            loaded.inside.as_deref().and_then(|inside| lacked_folder(facts, menu, entry, loaded, inside))
        {
            outcome.differs(
                subject,
                format!(
                    "puts {} into {folder}, which no initrd before it has: iPXE makes no folders",
                    loaded.form
                ),
                "put it at the top, or have iPXE make them: mkdir=-1 behind the path (iPXE since 2022)",
            );
        }
    }
}

fn judge_entry(facts: &Facts, menu: &MenuFacts, entry: &EntryFacts, outcome: &mut Outcome) {
    let subject = format!("{}:{}", menu.file, entry.line);
    judge_loaded(facts, menu, entry, &subject, outcome);
    // The ISO's own menu is mended by whoever makes the ISO.
    let hint = if menu.on_iso {
        "correct the menu that the ISO is made with, and build the ISO again"
    } else {
        HINT
    };
    if entry.initrds.iter().all(|loaded| loaded.inside.is_some()) {
        outcome.differs(&subject, "loads no initrd, without which nothing finds the squashfs", hint);
        return;
    }
    let mut parts = entry.initrds.iter().map(|loaded| facts.part(menu, loaded.part.as_ref()?)?.contents());
    if parts.all(|walk| walk.is_some_and(|walk| walk.initramfs.is_microcode())) {
        outcome.differs(&subject, "loads microcode and no initrd: nothing finds the squashfs", hint);
        return;
    }
    if menu.loader == Loader::Ipxe {
        judge_names(entry, &subject, outcome);
    }
    let Some(initrd) = initrd_of(facts, menu, entry) else { return };
    let Some(walk) = initrd.contents() else { return };
    address::judge(facts, menu, entry, &subject, outcome);
    let Some(family) = initrd.family() else {
        let what =
            format!("its line is not judged: {} was made by neither dracut nor genkernel", initrd.name);
        // Once for all entries; those of the ISO are its own business.
        if !menu.on_iso && !outcome.findings.iter().any(|finding| finding.what == what) {
            outcome.warns(&subject, what, "boot it once");
        }
        return;
    };
    let mut path = String::new();
    let squashfs = place(facts, menu, entry, &mut path);
    let (words, is_whole) = decided(menu, entry, &subject, outcome);
    let mut comparison = compare(&walk.initramfs, family, &squashfs, &effective(&walk.initramfs, &words));
    if !is_whole {
        // What is wrong because of a word that is not there, or of a default, may be right.
        comparison.missing.clear();
        comparison.contradicting.retain(|wrong| wrong.word.is_some());
    }
    for what in &comparison.advised {
        outcome.warns(&subject, what, "add it to the line");
    }
    for what in &comparison.not_judged {
        outcome.warns(&subject, format!("{what}: it is not judged"), "boot it once");
    }
    let contradicting = comparison.contradicting.into_iter().map(|wrong| wrong.what);
    for what in contradicting.chain(comparison.missing) {
        outcome.differs(&subject, what, hint);
    }
    for word in entry.words.iter().filter(|word| !word.is_ascii()) {
        let what =
            format!("{word:?} has characters that are not ASCII, perhaps a blank that does not part words");
        outcome.differs(&subject, what, hint);
    }
}

/// Returns the folder of a path inside the initrd that neither the boot loader makes nor an initrd has that is loaded before it.
fn lacked_folder<'a>(
    facts: &Facts,
    menu: &MenuFacts,
    entry: &EntryFacts,
    loaded: &LoadedPart,
    inside: &'a str,
) -> Option<&'a str> {
    let folders = inside.trim_start_matches('/').matches('/').count();
    // Those that it does not make.
    let own = folders.checked_sub(loaded.makes_folders).filter(|own| *own > 0)?;
    let (end, _) = inside.match_indices('/').nth(own)?;
    let folder = &inside[..end];
    let is_in = |path: &String| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    for part in entry.initrds.iter().take_while(|other| !std::ptr::eq(*other, loaded)) {
        match &part.inside {
            // What is put there as well has made it, or is complained about.
            Some(other) if is_in(other) => return None,
            Some(_) => continue,
            None => {}
        }
        // What cannot be read may have it.
        let walk = facts.part(menu, part.part.as_ref()?)?.contents()?;
        let files = &walk.initramfs.files;
        let made = files.resolve(folder).and_then(|folder| files.get(&folder));
        if made.is_some_and(|made| made.node == Node::Folder) {
            return None;
        }
    }
    Some(folder)
}

/// Returns the words that dracut finds: those that are in the initramfs, and behind them those of the kernel's line, which win.
fn effective(initramfs: &Initramfs, words: &[String]) -> Vec<String> {
    let key = |word: &str| word.split('=').next().unwrap_or(word).replace('-', "_");
    let on_line: BTreeSet<String> = words.iter().map(|word| key(word)).collect();
    let baked = initramfs.baked().map(|(_, word)| word.to_owned());
    baked.filter(|word| !on_line.contains(&key(word))).chain(words.iter().cloned()).collect()
}

/// Tells whether only the machine knows what a word is.
fn is_open(menu: &MenuFacts, word: &str) -> bool {
    menu.loader.leaves_open(word)
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
        // Where other people's initramfs find their image: Debian's, Ubuntu's, anaconda's, Alpine's, Arch's.
        "fetch",
        "httpfs",
        "ftpfs",
        "url",
        "iso-url",
        "netboot",
        "nfsroot",
        "netroot",
        "inst.stage2",
        "inst.repo",
        "modloop",
        "archiso_http_srv",
        "archisosearchuuid",
        "archisolabel",
        "archisodevice",
        // Where the ISO itself lies as a file.
        "iso-scan/filename",
        "findiso",
        "fromiso",
        "isofrom",
    ];
    of_the_way.contains(&key)
}

/// Entries of one kernel, with words of their own, that others are compared with.
const MAX_TWINS: usize = 256;

/// The image's own words of an entry: those that are known, and whether they are all.
struct Own<'a> {
    menu: &'a MenuFacts,
    entry: &'a EntryFacts,
    words: BTreeSet<&'a str>,
    is_whole: bool,
}

impl<'a> Own<'a> {
    fn of(menu: &'a MenuFacts, entry: &'a EntryFacts) -> Self {
        let (open, known): (Vec<&String>, Vec<&String>) =
            entry.words.iter().partition(|word| is_open(menu, word));
        let words = known.into_iter().map(String::as_str).filter(|word| !is_of_the_way(word)).collect();
        Self { menu, entry, words, is_whole: open.is_empty() }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.menu.file, self.entry.line)
    }
}

fn owns<'a>(menus: impl Iterator<Item = &'a MenuFacts>) -> Vec<Own<'a>> {
    menus.flat_map(|menu| linux(menu).map(move |entry| Own::of(menu, entry))).collect()
}

pub(super) fn drift(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let on_iso = owns(facts.menus.iter().filter(|menu| menu.on_iso));
    let Some(first) = on_iso.first() else { return outcome.says("", "the ISO has no menu") };
    let digest = |own: &Own<'_>| facts.part(own.menu, own.entry.kernel.as_ref()?)?.digest();
    // Many entries have the same words.
    let mut by_kernel: BTreeMap<Option<String>, Vec<&Own<'_>>> = BTreeMap::new();
    for own in &on_iso {
        let kernel = digest(own).map(|digest| digest.to_string());
        for kernel in [kernel, None] {
            let known = by_kernel.entry(kernel).or_default();
            if known.len() < MAX_TWINS && !known.iter().any(|other| other.words == own.words) {
                known.push(own);
            }
        }
    }
    let (mut said, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for here in owns(set_menus(facts)) {
        outcome.looked();
        let kernel = digest(&here).map(|digest| digest.to_string());
        if !seen.insert((&here.menu.file, kernel.clone(), here.words.clone(), here.is_whole)) {
            continue;
        }
        // Its twin: of the entries with this kernel, the one whose words are most like its own.
        let of_kernel = by_kernel.get(&kernel).or_else(|| by_kernel.get(&None));
        let distance = |iso: &&&Own<'_>| iso.words.symmetric_difference(&here.words).count();
        let twin = of_kernel.into_iter().flatten().min_by_key(distance).copied();
        let iso = twin.unwrap_or(first);
        let lacks: Vec<&str> = iso.words.difference(&here.words).copied().collect();
        let more: Vec<&str> = here.words.difference(&iso.words).copied().collect();
        // The entries of one menu mostly differ in the same way.
        if !said.insert((here.menu.file.clone(), lacks.clone(), more.clone())) {
            continue;
        }
        if !lacks.is_empty() && here.is_whole {
            outcome.warns(
                here.place(),
                format!("lacks {}, which {} of the ISO has", listed(lacks.iter().copied()), iso.place()),
                "add it, unless it was left out for a reason",
            );
        }
        if !more.is_empty() && iso.is_whole {
            outcome.warns(
                here.place(),
                format!("has {}, which {} of the ISO lacks", listed(more.iter().copied()), iso.place()),
                "remove it, unless it was added for a reason",
            );
        }
    }
    outcome.says(
        format!("the same everywhere: {}", listed(first.words.iter().copied())),
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
            if missing.role == Role::Signature && facts.is_before_signing {
                continue;
            }
            let subject = format!("{}:{}", menu.file, missing.line);
            let what = if missing.climbs {
                format!("names {}, which climbs out of the set", missing.form)
            } else {
                let role = match missing.role {
                    Role::Kernel => "the kernel",
                    Role::Initrd => "the initrd",
                    Role::Injected => "the squashfs",
                    Role::Next | Role::Program => "the file",
                    Role::Signature => "the signature",
                };
                format!("names {role} {}, which is not there", missing.form)
            };
            let hint = match missing.role {
                Role::Signature => "sign the set: stagegraph sign FOLDER",
                _ => "publish the file under that name, or correct the script",
            };
            outcome.differs(subject, what, hint);
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
        match set_menus(facts).all(|menu| menu.is_dead) {
            true => outcome.differs(&facts.set, what, HINT),
            false => outcome.warns(&facts.set, what, HINT),
        }
    }
    outcome.says(format!("all that {} name is there", listed(names)), "")
}
