//! Checks of lists of checksums and of the manifest.

use std::collections::{BTreeMap, BTreeSet};

use super::select::{count, linux, listed, set_menus};
use crate::audit::facts::{ChecksumFacts, EntryFacts, Facts, Kind, ManifestFacts, MenuFacts, Target};
use crate::audit::report::{Check, Outcome};
use crate::formats::checksums::Algorithm;
use crate::manifest::{Manifest, ManifestError, Way};
use crate::memory::WAYS;

const AGAIN: &str = "make the list anew from the published files, and sign it again";

pub(super) fn digests(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut lines = 0;
    for list in &facts.checksums {
        outcome.looked();
        lines += judge_list(facts, list, &mut outcome);
    }
    for (folder, names) in uncovered(facts) {
        let what = format!("no list of checksums names {}", listed(names.iter().map(String::as_str)));
        outcome.warns(folder, what, "add the files to the list, or take them away");
    }
    outcome.says(
        format!(
            "{} of {} hold",
            count(lines, "line", "lines"),
            count(facts.checksums.len(), "list", "lists")
        ),
        "there is no list of checksums",
    )
}

/// Compares one list; returns how many of its lines hold.
fn judge_list(facts: &Facts, list: &ChecksumFacts, outcome: &mut Outcome) -> usize {
    let lines = match &list.lines {
        Ok(lines) => lines,
        Err(why) => {
            outcome.differs(&list.file, why, AGAIN);
            return 0;
        }
    };
    let unknown: BTreeSet<&str> = list.unknown.iter().map(String::as_str).collect();
    if !unknown.is_empty() {
        let what = format!("has hashes that cannot be checked here: {}", listed(unknown));
        outcome.warns(&list.file, what, "SHA-256, SHA-512, BLAKE2b and BLAKE3 can be");
    }
    if lines.is_empty() && list.unknown.is_empty() {
        outcome.differs(&list.file, "names no file", AGAIN);
    }
    let is_about_us = lines.iter().any(|(_, target)| matches!(target, Target::Iso | Target::Part(_)));
    let mut hold = 0;
    let mut absent = BTreeMap::new();
    for (line, target) in lines {
        let subject = format!("{}:{}", list.file, line.line);
        let hashes = match target {
            Target::Iso => &facts.iso.hashes,
            Target::Part(name) => match facts.parts.get(name) {
                Some(part) => &part.hashes,
                None => continue,
            },
            Target::Missing => {
                absent.entry(line.name.as_str()).or_insert(subject);
                continue;
            }
            Target::Climbs => {
                let what = format!("names {}, which is not in its folder", line.name);
                outcome.differs(subject, what, "names in a list are relative to its folder");
                continue;
            }
        };
        let known: Vec<_> = line.algorithms.iter().filter_map(|a| Some((a, hashes.get(a)?))).collect();
        if known.iter().any(|(_, hex)| **hex == line.hex) {
            hold += 1;
        } else if let Some((algorithm, hex)) = known.first() {
            let what = format!(
                "{} has another {}: {}… in the list, {}… by its bytes",
                line.name,
                algorithm.name(),
                &line.hex[..12],
                &hex[..12]
            );
            outcome.differs(subject, what, AGAIN);
        }
    }
    for (name, subject) in absent {
        // Beside an ISO that was fetched alone, the list names what was left on the mirror.
        if !(list.beside_iso && is_about_us) {
            outcome.differs(subject, format!("names {name}, which is not there"), AGAIN);
        }
    }
    hold
}

/// Returns files that no list names, in folders whose list names others.
fn uncovered(facts: &Facts) -> BTreeMap<String, BTreeSet<String>> {
    let mut covered: BTreeSet<&str> = BTreeSet::new();
    let mut folders: BTreeSet<&str> = BTreeSet::new();
    for list in &facts.checksums {
        let named: BTreeSet<&str> = list
            .lines
            .iter()
            .flatten()
            .filter_map(|(_, target)| match target {
                Target::Part(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        // A list of one file is about that file only, and one beside the ISO about another folder.
        if named.len() > 1 && !list.beside_iso {
            folders.insert(list.file.rsplit_once('/').map_or("", |(folder, _)| folder));
        }
        covered.extend(named);
    }
    let covered = facts.with_same_file(&covered);
    let mut uncovered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for part in facts.parts.values().filter(|part| part.kind != Kind::Checksums) {
        let name = part.name.as_str();
        let in_folder = |folder: &&&str| folder.is_empty() || name.starts_with(&format!("{folder}/"));
        let Some(folder) = folders.iter().filter(in_folder).max_by_key(|folder| folder.len()) else {
            continue;
        };
        let is_signature = [".asc", ".sig", ".gpg", ".minisig"].iter().any(|end| name.ends_with(end));
        if !covered.contains(name) && !is_signature {
            let folder = if folder.is_empty() { facts.set.clone() } else { (*folder).to_owned() };
            uncovered.entry(folder).or_default().insert(part.name.clone());
        }
    }
    uncovered
}

pub(super) fn manifest(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut files = 0;
    for manifest in &facts.manifests {
        outcome.looked();
        files += judge_manifest(facts, manifest, &mut outcome);
    }
    outcome.says(
        format!("{} and all command lines are those of the manifest", count(files, "file", "files")),
        "there is no manifest",
    )
}

const REBUILD: &str = "publish the files of one build together with its manifest";

fn judge_manifest(facts: &Facts, manifest: &ManifestFacts, outcome: &mut Outcome) -> usize {
    let document = match &manifest.document {
        Ok(document) => document,
        Err(error @ ManifestError::Syntax(_)) => {
            outcome.differs(&manifest.file, error.to_string(), REBUILD);
            return 0;
        }
        Err(error @ ManifestError::Schema(_)) => {
            let hint = "audit it with the version of stagegraph that wrote it";
            outcome.warns(&manifest.file, error.to_string(), hint);
            return 0;
        }
    };
    let volume_id = &document.image.volume_id;
    if *volume_id != facts.iso.volume_id {
        let what = format!("says the volume id is {volume_id:?}; it is {:?}", facts.iso.volume_id);
        outcome.differs(&manifest.file, what, REBUILD);
    }
    let squashfs = document.squashfs.blake3.to_string();
    let found = facts.iso.squashfs().and_then(|part| part.hashes.get(&Algorithm::Blake3));
    if found.is_some_and(|found| *found != squashfs) {
        outcome.differs(&manifest.file, "is about another squashfs than the ISO's", REBUILD);
    }
    let mut files = 0;
    for (name, target) in &manifest.files {
        let Some(said) = document.files.get(name) else { continue };
        let (size, hash) = match target {
            Target::Iso => (Some(facts.iso.size), facts.iso.hashes.get(&Algorithm::Blake3)),
            Target::Part(part) => {
                let part = facts.parts.get(part);
                (part.map(|part| part.size), part.and_then(|part| part.hashes.get(&Algorithm::Blake3)))
            }
            Target::Missing | Target::Climbs => {
                // A set that is a folder should have all that lies beside the manifest.
                if facts.is_listed && name.contains('/') == manifest.file.contains('/') {
                    outcome.differs(&manifest.file, format!("names {name}, which is not there"), REBUILD);
                }
                continue;
            }
        };
        let Some(hash) = hash else { continue };
        if said.blake3.to_string() == *hash {
            files += 1;
        } else {
            let same = size == Some(said.size);
            let how = if same { "as long, but other bytes" } else { "another size" };
            outcome.differs(&manifest.file, format!("{name} is not what it says: {how}"), REBUILD);
        }
    }
    judge_lines(facts, manifest, document, outcome);
    files
}

/// Returns the words of a line by their keys: the order counts only among those of one key.
fn by_key<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for word in words {
        found.entry(word.split('=').next().unwrap_or(word)).or_default().push(word);
    }
    found
}

/// Compares the command lines, word by word: the manifest has those the build meant.
fn judge_lines(facts: &Facts, manifest: &ManifestFacts, document: &Manifest, outcome: &mut Outcome) {
    let is_in_initrd = |name: &str| WAYS.iter().any(|(way, load)| *way == name && load.is_in_initrd());
    let in_initrd = document.boot.iter().map(|way| &way.way).find(|name| is_in_initrd(name));
    for Way { way: name, command_line, kernel, .. } in &document.boot {
        let words: Vec<&str> = command_line.split_whitespace().collect();
        let is_iso = name.starts_with("iso");
        let menus: Vec<&MenuFacts> = if is_iso {
            facts.menus.iter().filter(|menu| menu.on_iso).collect()
        } else if Some(name) == in_initrd {
            set_menus(facts).collect()
        } else {
            // The other firmware has the same line; that for HTTP holds the server's address.
            continue;
        };
        for menu in menus {
            let of_kernel = |path: &str| {
                let file = path.rsplit('/').next().unwrap_or(path);
                let file = file.rsplit(".iso.").next().unwrap_or(file);
                file == kernel || file.strip_suffix(".vmlinuz") == Some(kernel) || file == "vmlinuz"
            };
            // A menu need not offer every way; what it offers must be right.
            let is_cached = |word: &String| word.starts_with("rd.live.ram") || word == "docache";
            let of_way = |words: &[String]| name != "iso-cached" || words.iter().any(is_cached);
            let entries: Vec<_> = linux(menu)
                .filter(|entry| entry.kernel.as_deref().is_some_and(of_kernel) && of_way(&entry.words))
                .collect();
            let is_fetched = entries
                .iter()
                .all(|entry| entry.words.iter().any(|word| word.contains("://") || word.contains("${")));
            if entries.is_empty() || !is_iso && is_fetched {
                continue;
            }
            // Where a set's line lacks it, the check of its lines says so.
            let counts = |word: &&str| is_iso || *word != "cdroot";
            let meant = by_key(words.iter().copied().filter(counts));
            let of =
                |entry: &EntryFacts| by_key(entry.words.iter().map(String::as_str).filter(counts)) == meant;
            if !entries.iter().any(|entry| of(entry)) {
                let first = entries[0];
                let here: BTreeSet<&str> = first.words.iter().map(String::as_str).collect();
                let there: BTreeSet<&str> = words.iter().copied().collect();
                let (lacks, more) = (&there - &here, &here - &there);
                let how = match (lacks.is_empty(), more.is_empty()) {
                    (false, _) => format!("lacks {}", listed(lacks)),
                    (true, false) => format!("has {} besides", listed(more)),
                    (true, true) => "has them in another order".to_owned(),
                };
                outcome.differs(
                    format!("{}:{}", menu.file, first.line),
                    format!("no entry has the line that {} names for {name}: {kernel} {how}", manifest.file),
                    REBUILD,
                );
            }
        }
    }
}
