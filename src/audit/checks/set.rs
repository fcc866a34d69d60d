//! Checks of the set as a folder: sizes, memory, names, links, leftovers.

use std::collections::BTreeSet;

use super::memory::memory as computed;
use super::select::{Booted, set_menus};
use crate::audit::facts::{Facts, Kind, Target, article};
use crate::audit::report::{Check, Outcome};
use crate::manifest::Way;

/// Some boot loaders and TFTP servers count bytes with 31 bits, others with 32.
const LIMIT_31: u64 = 1 << 31;
const LIMIT_32: u64 = 1 << 32;

/// `COMMAND_LINE_SIZE` of x86 and arm64, with the zero at its end.
const COMMAND_LINE: usize = 2048;

pub(super) fn limits(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    outcome.looked();
    let mut largest = 0;
    for part in facts.parts.values() {
        let loaded = matches!(part.kind, Kind::Kernel | Kind::Initramfs | Kind::Squashfs);
        if !loaded {
            continue;
        }
        largest = largest.max(part.size);
        if part.size >= LIMIT_32 && part.kind != Kind::Squashfs {
            let what = format!("has {} bytes; boot loaders load less than 4 GiB", part.size);
            outcome.differs(&part.name, what, "boot from the ISO or over HTTP, or make the squashfs smaller");
        } else if part.size >= LIMIT_32 {
            let what = format!("has {} bytes; no initrd can hold it", part.size);
            outcome.warns(
                &part.name,
                what,
                "it can be fetched over HTTP; a cpio archive holds less than 4 GiB",
            );
        } else if part.size >= LIMIT_31 {
            let what = format!("has {} bytes; some TFTP servers and boot loaders stop at 2 GiB", part.size);
            outcome.warns(&part.name, what, "serve it over HTTP");
        }
    }
    for menu in &facts.menus {
        for entry in &menu.entries {
            let length = entry.words.iter().map(|word| word.len() + 1).sum::<usize>();
            if length > COMMAND_LINE {
                outcome.differs(
                    format!("{}:{}", menu.file, entry.line),
                    format!("the command line has {length} characters; kernels cut it off at {COMMAND_LINE}"),
                    "make it shorter",
                );
            }
        }
    }
    outcome.says(format!("the largest file has {largest} bytes"), "")
}

pub(super) fn memory(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let found = computed(facts);
    for manifest in &facts.manifests {
        let Ok(document) = &manifest.document else { continue };
        for Way { way: name, kernel, least_ram_mib: said, .. } in &document.boot {
            let of_kernel = found.iter().filter(|memory| {
                memory.way == *name && memory.initrd.trim_end_matches(".igz").ends_with(kernel.as_str())
            });
            for memory in of_kernel.filter(|memory| memory.least_ram_mib > *said) {
                outcome.differs(
                    &manifest.file,
                    format!(
                        "says {said} MiB are enough for {name}; by the sizes it is {}",
                        memory.least_ram_mib
                    ),
                    "publish the files of one build together with its manifest",
                );
            }
        }
    }
    if !found.is_empty() {
        outcome.looked();
    }
    let ways: Vec<String> =
        found.iter().map(|memory| format!("{} MiB by {}", memory.least_ram_mib, memory.way)).collect();
    outcome.says(format!("at least {}", ways.join(", ")), "it cannot be told without menu and initrd")
}

pub(super) fn names(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    outcome.looked();
    let iso = &facts.iso.name;
    let stem = iso.strip_suffix(".iso").unwrap_or(iso);
    for name in facts.beside.iter().filter(|name| *name != iso) {
        let right = format!("call it {iso}.KIND, as {iso}.ipxe");
        if name.contains(".tar") {
            outcome.differs(
                name,
                "ends like a stage: the mirrors' script would publish it as the latest image in the ISO's place",
                right,
            );
        } else if name.starts_with(&format!("{iso}.")) {
        } else if name.starts_with(&format!("{stem}-")) {
            outcome.differs(name, "the mirrors' script would put it into a folder of its own", right);
        } else if name.starts_with(&format!("{stem}.")) {
            outcome.warns(name, "the mirrors' script leaves it out of the current folder", right);
        }
    }
    for name in facts.parts.keys() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+/@,=~".contains(&byte);
        if !name.bytes().all(plain) {
            outcome.warns(
                name,
                "has characters that an address cannot hold as they are",
                "use letters, digits and . _ - + only",
            );
        }
    }
    outcome.says("mirrors and servers take them as they are", "")
}

pub(super) fn links(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    outcome.looked();
    for (name, to) in &facts.escapes {
        outcome.differs(
            name,
            format!("is a link to {to}, outside the set or nowhere"),
            "put the file itself there: servers do not follow such links, or show what they should not",
        );
    }
    outcome.says("none leads out of the set", "")
}

/// Ends of names that editors, downloads and failed builds leave behind.
const LEFT: [&str; 9] = ["~", ".bak", ".part", ".partial", ".tmp", ".orig", ".swp", ".old", ".new"];

pub(super) fn leftovers(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    if !facts.is_listed {
        return outcome.says("", "only what is named was looked at");
    }
    outcome.looked();
    let listed_files: BTreeSet<&str> = facts
        .checksums
        .iter()
        .filter_map(|list| list.lines.as_ref().ok())
        .flatten()
        .filter_map(|(_, target)| match target {
            Target::Part(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let fetched: BTreeSet<&str> = set_menus(facts)
        .flat_map(|menu| &menu.entries)
        .flat_map(|entry| &entry.words)
        .filter(|word| word.starts_with("root=live:") || word.contains("://"))
        .filter_map(|word| word.rsplit('/').next())
        .collect();
    let all = Booted::of(facts);
    let booted: BTreeSet<&str> =
        facts.parts.keys().map(String::as_str).filter(|name| all.has(name)).collect();
    let listed_files = facts.with_same_file(&listed_files);
    let booted = facts.with_same_file(&booted);
    let has_menus = set_menus(facts).any(|menu| !menu.entries.is_empty());
    for part in facts.parts.values() {
        let file = part.name.rsplit('/').next().unwrap_or(&part.name);
        if LEFT.iter().any(|end| file.ends_with(end)) || file.starts_with('.') {
            outcome.warns(&part.name, "looks like something left behind", "remove it");
        } else if matches!(part.kind, Kind::Kernel | Kind::Initramfs | Kind::Squashfs)
            && has_menus
            && !booted.contains(part.name.as_str())
            && !fetched.contains(file)
            && !listed_files.contains(part.name.as_str())
        {
            let what = format!("is {}, but no script, menu or list names it", article(part.kind));
            outcome.warns(&part.name, what, "remove it, or say how it is booted");
        }
    }
    outcome.says("none", "")
}
