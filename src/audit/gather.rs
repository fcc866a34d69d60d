//! Finds out everything about an ISO and a netboot set; judges nothing.

mod iso;
mod lists;
mod menus;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::facts::{Facts, IsoFacts, Kind, MenuFacts, Part, Target, span_of};
use super::pass::{self, Learnt, Span, Wanted};
use super::place::Place;
use super::set::{Set, SetError};
use crate::formats::checksums::{self, Algorithm, is_named_like_checksums};
use crate::formats::iso9660::{Iso, IsoError, IsoFile};
use crate::formats::squashfs;

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The ISO.
    #[error(transparent)]
    Iso(#[from] IsoError),
    /// The set.
    #[error(transparent)]
    Set(#[from] SetError),
}

/// What lies beside an ISO.
#[derive(Default)]
struct BesideIso {
    /// The folder, where it is not the set's.
    folder: PathBuf,
    /// Files whose names begin with the ISO's.
    names: BTreeSet<String>,
    /// Lists of checksums that were taken into the set from there.
    lists: BTreeSet<String>,
}

/// Finds out everything about `iso`, a file at `iso_place`, and the set.
///
/// # Errors
/// [`GatherError`]: one of them cannot be read at all.
pub fn gather(iso_name: &str, iso_place: &Place, mut set: Set) -> Result<Facts, GatherError> {
    let path = Path::new(iso_name);
    let failed = |source| IsoError::Read { path: path.to_owned(), at: 0, source };
    let iso = Iso::read(iso_place.open_at().map_err(failed)?, path)?;
    let mut gatherer = Gatherer::new(&iso);
    let file_name = iso_name.rsplit('/').next().unwrap_or(iso_name).to_owned();

    gatherer.read_iso_menus();
    gatherer.find_iso_parts();
    let squashfs = gatherer.iso_parts.values().find(|part| part.kind == Kind::Squashfs);
    let squashfs = squashfs.map(|part| part.name.clone());

    // The ISO itself is no file of the set.
    let identity = iso_place.identity();
    set.files.retain(|_, place| identity.is_none() || place.identity() != identity);
    let mut beside = BesideIso::default();
    if let Place::Local(path) = iso_place
        && let Some(folder) = path.canonicalize().ok().as_deref().and_then(Path::parent)
        && set.is_listable()
    {
        let in_set = set.folder_path() == Some(folder);
        let stem = file_name.strip_suffix(".iso").unwrap_or(&file_name);
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string()
                && name.starts_with(stem)
                && entry.path().is_file()
            {
                beside.names.insert(name);
            }
        }
        if !in_set {
            let before: BTreeSet<String> = set.files.keys().cloned().collect();
            set.add_beside(folder, &file_name, is_named_like_checksums);
            beside.lists = set.files.keys().filter(|name| !before.contains(*name)).cloned().collect();
            beside.folder = folder.to_owned();
        } else if set.script.is_some() {
            set.add_beside(folder, &file_name, |name| {
                is_named_like_checksums(name) || name.ends_with(".manifest.json")
            });
        }
    }

    if !set.is_listable() {
        beside.names.extend(set.files.keys().filter(|name| !name.contains('/')).cloned());
    }

    let mut parts = gatherer.read_set_menus(&mut set)?;
    let lists = gatherer.read_checksums(&mut set, &mut parts, &file_name, &beside)?;
    let manifests = gatherer.read_manifests(&set, &parts, &file_name);
    let own = gatherer.read_own_checksums();

    // One reading of everything.
    let initrd_sizes: BTreeSet<u64> = parts
        .values()
        .chain(gatherer.iso_parts.values())
        .filter(|part| part.kind == Kind::Initramfs)
        .map(|part| part.size)
        .collect();
    let mut iso_wanted = Wanted::default();
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for part in parts.values() {
        if matches!(part.kind, Kind::Kernel | Kind::Initramfs | Kind::Squashfs) {
            let wanted = wanted.entry(part.name.clone()).or_default();
            wanted.whole.push(Algorithm::Blake3);
            if part.kind == Kind::Initramfs {
                wanted.walk = true;
                let smaller = initrd_sizes.iter().filter(|size| **size < part.size);
                wanted.spans.extend(smaller.map(|size| (Algorithm::Blake3, Span::prefix(*size))));
            }
        }
    }
    let named = lists.iter().filter_map(|list| list.lines.as_ref().ok()).flatten();
    let named =
        named.flat_map(|(line, target)| line.algorithms.iter().map(move |algorithm| (*algorithm, target)));
    let manifested = manifests.iter().flat_map(|manifest| manifest.files.values());
    for (algorithm, target) in named.chain(manifested.map(|target| (Algorithm::Blake3, target))) {
        match target {
            Target::Iso => iso_wanted.whole.push(algorithm),
            Target::Part(name) => wanted.entry(name.clone()).or_default().whole.push(algorithm),
            Target::Missing | Target::Climbs => {}
        }
    }
    let mut iso_spans: BTreeMap<String, Span> = BTreeMap::new();
    for name in gatherer.iso_parts.keys() {
        if let Some(file) = iso.file(name.trim_start_matches('/')) {
            let span = span_of(&file.extents);
            iso_wanted.spans.push((Algorithm::Blake3, span.clone()));
            iso_spans.insert(name.clone(), span);
        }
    }
    for (line, file) in own.iter().flat_map(|own| own.as_ref().ok()).flatten() {
        if let Some(file) = file {
            let algorithm = line.algorithms.first().copied().unwrap_or(Algorithm::Blake2b);
            iso_wanted.spans.push((algorithm, span_of(&file.extents)));
        }
    }
    let mut learnt = read_once(&set, iso_place, iso_wanted, wanted);
    let iso_learnt = match learnt.remove("") {
        Some(Ok(learnt)) => learnt,
        Some(Err(source)) => return Err(failed(source).into()),
        None => Learnt::default(),
    };

    for (name, result) in learnt {
        let Some(part) = parts.get_mut(&name) else { continue };
        match result {
            Ok(learnt) => {
                if part.kind == Kind::Squashfs && part.size != learnt.size && !part.head.is_empty() {
                    part.superblock = Some(squashfs::superblock(&part.head, learnt.size));
                }
                part.size = learnt.size;
                for ((_, span), hex) in &learnt.spans {
                    if let ([(0, length)], Ok(digest)) = (&span.0[..], hex.parse()) {
                        part.prefixes.insert(*length, digest);
                    }
                }
                part.walk = learnt.walk;
                part.hashes = learnt.whole;
            }
            Err(error) => gatherer.unreadable.push((name, error.to_string())),
        }
    }
    for (name, span) in iso_spans {
        let hex = iso_learnt.spans.get(&(Algorithm::Blake3, span)).cloned();
        if let (Some(part), Some(hex)) = (gatherer.iso_parts.get_mut(&name), hex) {
            part.hashes.insert(Algorithm::Blake3, hex);
        }
    }
    gatherer.walk_iso_initrds(&parts);
    let own_checksums = own.map(|own| {
        own.map(|lines| {
            let hash = |line: &checksums::Checksum, file: &IsoFile| {
                let algorithm = line.algorithms.first().copied().unwrap_or(Algorithm::Blake2b);
                iso_learnt.spans.get(&(algorithm, span_of(&file.extents))).cloned().unwrap_or_default()
            };
            lines.into_iter().map(|(line, file)| (line.clone(), file.map(|file| hash(&line, file)))).collect()
        })
    });
    Ok(Facts {
        iso: IsoFacts {
            name: file_name,
            volume_id: iso.volume_id.clone(),
            volume_size: iso.volume_size,
            size: iso.size(),
            boot_images: iso.boot_images.clone(),
            parts: gatherer.iso_parts,
            squashfs,
            hashes: iso_learnt.whole,
            own_checksums,
        },
        set: set.shown.clone(),
        odd: set.odd.clone(),
        escapes: set.escapes.iter().map(|(name, to)| (name.clone(), to.display().to_string())).collect(),
        is_listed: set.is_listed(),
        parts,
        menus: gatherer.menus,
        checksums: lists,
        manifests,
        beside: beside.names,
        unreadable: gatherer.unreadable,
    })
}

/// Reads the menus of an ISO.
pub fn iso_menus(iso: &Iso) -> Vec<MenuFacts> {
    let mut gatherer = Gatherer::new(iso);
    gatherer.read_iso_menus();
    gatherer.menus
}

/// Reads the ISO (the name "") and all wanted files, each once even if it has several names.
fn read_once(
    set: &Set,
    iso_place: &Place,
    iso: Wanted,
    wanted: BTreeMap<String, Wanted>,
) -> BTreeMap<String, std::io::Result<Learnt>> {
    let mut files: Vec<(Place, Wanted)> = Vec::new();
    let mut names: Vec<Vec<String>> = Vec::new();
    let mut by_identity: BTreeMap<(u64, u64), usize> = BTreeMap::new();
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
    }
    for (_, wanted) in &mut files {
        wanted.whole.sort_unstable();
        wanted.whole.dedup();
        wanted.spans.sort_unstable();
        wanted.spans.dedup();
    }
    let mut all = BTreeMap::new();
    for (names, result) in names.into_iter().zip(pass::read_all(&files)) {
        for name in names {
            let copy = result.as_ref().map(Clone::clone);
            all.insert(name, copy.map_err(|error| std::io::Error::new(error.kind(), error.to_string())));
        }
    }
    all
}

struct Gatherer<'a> {
    iso: &'a Iso,
    unreadable: Vec<(String, String)>,
    menus: Vec<MenuFacts>,
    iso_parts: BTreeMap<String, Part>,
}

impl<'a> Gatherer<'a> {
    fn new(iso: &'a Iso) -> Self {
        Self { iso, unreadable: Vec::new(), menus: Vec::new(), iso_parts: BTreeMap::new() }
    }
}

/// The checksums on the ISO itself, and the files they are about.
type OwnLines<'a> = Vec<(checksums::Checksum, Option<&'a IsoFile>)>;
