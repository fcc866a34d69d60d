//! What the one reading of everything is to find out, and where it goes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{
    Beginning, ChecksumFacts, Kind, ManifestFacts, MenuFacts, OwnChecksums, Part, Target, span_of,
};
use super::super::loaders::is_program;
use super::super::pass::{self, Detached, Learnt, Span, Wanted};
use super::super::place::Place;
use super::super::set::Set;
use crate::formats::checksums::{Algorithm, Checksum};
use crate::formats::cpio;
use crate::formats::iso9660::{Iso, IsoFile};
use crate::formats::kernel::Kernel;
use crate::formats::squashfs;

/// The checksums on the ISO itself, and the files they are about.
pub(super) type OwnLines<'a> = Vec<(Checksum, Option<&'a IsoFile>)>;

/// What is wanted of the ISO and of each file of the set.
pub(super) struct Plan<'a> {
    iso: &'a Iso,
    iso_wanted: Wanted,
    /// Where on the ISO each of its parts is.
    iso_spans: BTreeMap<String, Span>,
    wanted: BTreeMap<String, Wanted>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(iso: &'a Iso) -> Self {
        Self { iso, iso_wanted: Wanted::default(), iso_spans: BTreeMap::new(), wanted: BTreeMap::new() }
    }

    /// Asks for the hashes of kernels, initrds and squashfs, for what is in the initrds, and for releases of kernels.
    pub(super) fn wants_parts(
        &mut self,
        parts: &BTreeMap<String, Part>,
        iso_parts: &BTreeMap<String, Part>,
        menus: &[MenuFacts],
    ) {
        // An initrd may begin with those that the ISO loads, one behind the other: the places follow from their sizes.
        let spans: BTreeSet<(u64, u64)> =
            sequences(menus, iso_parts).iter().flat_map(|sequence| places(sequence)).collect();
        for part in parts.values() {
            if matches!(part.kind, Kind::Kernel | Kind::Initramfs | Kind::Squashfs) {
                let wanted = self.wanted.entry(part.name.clone()).or_default();
                wanted.whole.push(Algorithm::Blake3);
                wanted.kernel = part.kernel.clone().filter(Kernel::hides_more);
                wanted.image = (part.kind == Kind::Kernel).then_some(part.size);
                if part.kind == Kind::Initramfs {
                    wanted.walk = true;
                    let inside = spans.iter().filter(|(at, length)| at + length <= part.size);
                    let inside = inside.filter(|place| **place != (0, part.size));
                    wanted.spans.extend(inside.map(|place| (Algorithm::Blake3, Span(vec![*place]))));
                }
            }
        }
        for part in parts.values().filter(|part| is_program(&part.name)) {
            self.wanted.entry(part.name.clone()).or_default().image = Some(part.size);
        }
        // The whole ISO may be there once more, by itself or inside an initrd: to be fetched, or handed to the kernel.
        for part in parts.values().filter(|part| part.kind == Kind::Iso) {
            self.wanted.entry(part.name.clone()).or_default().whole.push(Algorithm::Blake3);
            self.iso_wanted.whole.push(Algorithm::Blake3);
        }
        if parts.values().any(|part| part.kind == Kind::Initramfs && part.size > self.iso.size()) {
            self.iso_wanted.whole.push(Algorithm::Blake3);
        }
        for name in iso_parts.keys() {
            if let Some(file) = self.iso.file(name.trim_start_matches('/')) {
                let span = span_of(&file.extents);
                self.iso_wanted.spans.push((Algorithm::Blake3, span.clone()));
                self.iso_spans.insert(name.clone(), span);
            }
        }
    }

    /// Asks for the hashes that lists and manifests name.
    pub(super) fn wants_listed(&mut self, lists: &[ChecksumFacts], manifests: &[ManifestFacts]) {
        let listed = lists.iter().filter_map(|list| list.lines.as_ref().ok()).flatten();
        let listed = listed
            .flat_map(|(line, target)| line.algorithms.iter().map(move |algorithm| (*algorithm, target)));
        let manifested = manifests.iter().flat_map(|manifest| manifest.files.values());
        self.wants_hashes(listed.chain(manifested.map(|target| (Algorithm::Blake3, target))));
    }

    /// Asks for hashes of whole files.
    pub(super) fn wants_hashes<'t>(&mut self, wanted: impl Iterator<Item = (Algorithm, &'t Target)>) {
        for (algorithm, target) in wanted {
            match target {
                Target::Iso => self.iso_wanted.whole.push(algorithm),
                Target::Part(name) => self.wanted.entry(name.clone()).or_default().whole.push(algorithm),
                Target::Missing | Target::Climbs => {}
            }
        }
    }

    /// Asks for the hashes that the ISO's own list names.
    pub(super) fn wants_own_checksums(&mut self, own: &Option<Result<OwnLines<'_>, String>>) {
        for (line, file) in own.iter().flat_map(|own| own.as_ref().ok()).flatten() {
            if let Some(file) = file {
                self.iso_wanted.spans.push((algorithm_of(line), span_of(&file.extents)));
            }
        }
    }

    /// Asks for the hash tree of the ISO's squashfs.
    pub(super) fn wants_tree(&mut self, squashfs: Option<Span>) {
        self.iso_wanted.tree = squashfs;
    }

    /// Asks for signatures to be verified.
    pub(super) fn wants_signatures(&mut self, detached: Vec<(Target, Detached)>) {
        for (target, detached) in detached {
            match target {
                Target::Iso => self.iso_wanted.signatures.push(detached),
                Target::Part(name) => self.wanted.entry(name).or_default().signatures.push(detached),
                Target::Missing | Target::Climbs => {}
            }
        }
    }

    /// Reads the ISO (the name "") and all wanted files, each once even if it has several names.
    pub(super) fn read_once(
        &mut self,
        set: &Set,
        iso_place: &Place,
    ) -> BTreeMap<String, std::io::Result<Learnt>> {
        let mut files: Vec<(Place, Wanted)> = Vec::new();
        let mut names: Vec<Vec<String>> = Vec::new();
        let mut by_identity: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        let wanted = std::mem::take(&mut self.wanted);
        let iso = std::mem::take(&mut self.iso_wanted);
        let places = wanted.into_iter().filter_map(|(name, wanted)| {
            let place = set.files.get(&name)?.clone();
            Some((name, place, wanted))
        });
        for (name, place, wanted) in std::iter::once((String::new(), iso_place.clone(), iso)).chain(places) {
            let same = place.identity().and_then(|identity| by_identity.get(&identity).copied());
            let index = same.unwrap_or(files.len());
            if same.is_none() {
                if let Some(identity) = place.identity() {
                    by_identity.insert(identity, index);
                }
                files.push((place, Wanted::default()));
                names.push(Vec::new());
            }
            names[index].push(name);
            let all = &mut files[index].1;
            all.whole.extend(wanted.whole);
            all.spans.extend(wanted.spans);
            all.walk |= wanted.walk;
            all.signatures.extend(wanted.signatures);
            all.tree = all.tree.take().or(wanted.tree);
            all.kernel = all.kernel.take().or(wanted.kernel);
            all.image = all.image.or(wanted.image);
        }
        for (_, wanted) in &mut files {
            wanted.whole.sort_unstable();
            wanted.whole.dedup();
            wanted.spans.sort_unstable();
            wanted.spans.dedup();
        }
        let mut all = BTreeMap::new();
        for (names, result) in names.into_iter().zip(pass::read_all(&files, &set.stop)) {
            for name in names {
                let copy = result.as_ref().map(Clone::clone);
                all.insert(name, copy.map_err(|error| std::io::Error::new(error.kind(), error.to_string())));
            }
        }
        all
    }

    /// Gives the ISO's parts the hashes that were learnt of the ISO.
    pub(super) fn learn_iso_parts(&self, learnt: &Learnt, iso_parts: &mut BTreeMap<String, Part>) {
        for (name, span) in &self.iso_spans {
            let hex = learnt.spans.get(&(Algorithm::Blake3, span.clone()));
            if let (Some(part), Some(hex)) = (iso_parts.get_mut(name), hex) {
                part.hashes.insert(Algorithm::Blake3, hex.clone());
            }
        }
    }
}

/// Returns the initrds that the ISO's entries load, one behind the other, and each by itself.
fn sequences<'a>(menus: &[MenuFacts], iso_parts: &'a BTreeMap<String, Part>) -> Vec<Vec<&'a Part>> {
    let initrd = |name: &String| iso_parts.get(name).filter(|part| part.kind == Kind::Initramfs);
    let entries = menus.iter().filter(|menu| menu.on_iso).flat_map(|menu| &menu.entries);
    let loaded = entries.map(|entry| {
        let own = entry.initrds.iter().filter(|loaded| loaded.inside.is_none());
        own.filter_map(|loaded| initrd(loaded.part.as_ref()?)).collect::<Vec<_>>()
    });
    let singles = iso_parts.keys().filter_map(|name| Some(vec![initrd(name)?]));
    let mut sequences: Vec<Vec<&Part>> =
        loaded.chain(singles).filter(|sequence| !sequence.is_empty()).collect();
    let names =
        |sequence: &Vec<&Part>| sequence.iter().map(|part| part.name.clone()).collect::<Vec<String>>();
    sequences.sort_by_key(names);
    sequences.dedup_by_key(|sequence| names(sequence));
    sequences
}

/// Returns where each of these initrds is when they are one file: boot loaders begin each on a multiple of four.
fn places(sequence: &[&Part]) -> Vec<(u64, u64)> {
    let mut at: u64 = 0;
    let place = |part: &&Part| {
        let start = cpio::aligned(at);
        at = start + part.size;
        (start, part.size)
    };
    sequence.iter().map(place).collect()
}

/// Finds out of each initrd of the set which of the ISO's it begins with: of those that the ISO's menus load one behind the
/// other, the most.
pub(super) fn find_beginnings(
    parts: &mut BTreeMap<String, Part>,
    menus: &[MenuFacts],
    iso_parts: &BTreeMap<String, Part>,
) {
    let sequences = sequences(menus, iso_parts);
    for part in parts.values_mut().filter(|part| part.kind == Kind::Initramfs) {
        let digest_at = |place: (u64, u64)| match place {
            (0, length) if length == part.size => part.digest(),
            place => part.spans.get(&place).copied(),
        };
        let found = sequences.iter().filter_map(|initrds| {
            let places = places(initrds);
            let is_there = |(place, initrd): (&(u64, u64), &&Part)| {
                initrd.digest().is_some() && digest_at(*place) == initrd.digest()
            };
            let length = places.last().map(|(at, length)| at + length)?;
            let names = initrds.iter().map(|initrd| initrd.name.clone()).collect();
            places.iter().zip(initrds).all(is_there).then_some(Beginning { initrds: names, length })
        });
        part.begins = found.max_by_key(|beginning| beginning.length);
    }
}

/// Gives a part what was learnt of its file.
pub(super) fn learn(part: &mut Part, learnt: Learnt) {
    if part.kind == Kind::Squashfs && part.size != learnt.size && !part.head.is_empty() {
        part.superblock = Some(squashfs::superblock(&part.head, learnt.size));
    }
    part.size = learnt.size;
    for ((_, span), hex) in &learnt.spans {
        if let ([place], Ok(digest)) = (&span.0[..], hex.parse()) {
            part.spans.insert(*place, digest);
        }
    }
    part.walk = learnt.walk;
    if let (Some(kernel), Some(inside)) = (&mut part.kernel, learnt.kernel) {
        kernel.learn(inside);
    }
    part.hashes = learnt.whole;
    part.image = learnt.image;
}

/// Returns the lines of the ISO's own list, with the hash that each file has.
pub(super) fn own_hashes(lines: OwnLines<'_>, learnt: &Learnt) -> OwnChecksums {
    let hash = |line: &Checksum, file: &IsoFile| {
        let hex = learnt.spans.get(&(algorithm_of(line), span_of(&file.extents)));
        hex.cloned().unwrap_or_default()
    };
    lines.into_iter().map(|(line, file)| (line.clone(), file.map(|file| hash(&line, file)))).collect()
}

/// Returns the hash that a line of the ISO's own list is of.
fn algorithm_of(line: &Checksum) -> Algorithm {
    line.algorithms.first().copied().unwrap_or(Algorithm::Blake2b)
}
