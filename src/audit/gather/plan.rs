//! What the one reading of everything is to find out, and where it goes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{
    ChecksumFacts, Kind, ManifestFacts, MenuFacts, OwnChecksums, Part, Target, places, sequences, span_of,
};
use super::super::pass::{self, Learnt, Span, Wanted};
use super::super::place::Place;
use super::super::set::Set;
use crate::formats::checksums::{Algorithm, Checksum};
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
                wanted.release = part.kernel.clone().filter(Kernel::hides_release);
                if part.kind == Kind::Initramfs {
                    wanted.walk = true;
                    let inside = spans.iter().filter(|(at, length)| at + length <= part.size);
                    let inside = inside.filter(|place| **place != (0, part.size));
                    wanted.spans.extend(inside.map(|place| (Algorithm::Blake3, Span(vec![*place]))));
                }
            }
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
        for (algorithm, target) in listed.chain(manifested.map(|target| (Algorithm::Blake3, target))) {
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
            all.release = all.release.take().or(wanted.release);
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
    if let Some(kernel) = &mut part.kernel {
        kernel.release = kernel.release.take().or(learnt.release);
    }
    part.hashes = learnt.whole;
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
