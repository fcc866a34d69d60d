//! Finds out everything about an ISO and a netboot set; judges nothing.

mod code;
mod esp;
mod iso;
mod lists;
mod medium;
mod menus;
mod plan;
mod programs;
mod reading;
mod signatures;
mod statements;
mod verity;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::code::CodeSigned;
use self::esp::Esp;
use self::plan::Plan;
pub use self::reading::{folder_menus, may_be_menu};
use super::facts::{
    BootFacts, ChecksumFacts, Facts, IsoFacts, Kind, ManifestFacts, MenuFacts, Part, SignatureFacts,
    StatementFacts, Target,
};
use super::loaders::LoaderFacts;
use super::pass::{Detached, Learnt};
use super::place::Place;
use super::set::{Set, SetError};
use super::signatures::{Trusted, signed_by_name};
use crate::formats::checksums::{Algorithm, is_named_like_checksums};
use crate::formats::iso9660::{Iso, IsoError};
use crate::manifest::ENDING;
use crate::provenance::STATEMENTS;

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

/// What is next to an ISO.
#[derive(Default)]
struct BesideIso {
    /// The folder, where it is not the set's.
    folder: PathBuf,
    /// Files whose names begin with the ISO's.
    names: BTreeSet<String>,
    /// Lists of checksums that were taken into the set from there.
    lists: BTreeSet<String>,
}

/// Finds out everything about `iso`, a file at `iso_place`, and the set; signatures are judged by whom is trusted.
///
/// # Errors
/// [`GatherError`]: one of them cannot be read at all.
pub fn gather(
    iso_name: &str,
    iso_place: &Place,
    mut set: Set,
    trusted: &Trusted,
) -> Result<Facts, GatherError> {
    let failed = |source| IsoError::Read { path: iso_name.into(), at: 0, source };
    let iso = Iso::read(iso_place.open_at().map_err(failed)?, Path::new(iso_name))?;
    let file_name = iso_name.rsplit('/').next().unwrap_or(iso_name).to_owned();
    let mut gatherer = Gatherer::new(&iso);
    gatherer.read_boot_images();
    let wrong_partitions = gatherer.read_partitions();
    gatherer.read_iso_loaders();
    gatherer.read_iso_menus();
    gatherer.find_iso_parts();
    let mut beside = take_from_beside(iso_place, &file_name, &mut set);
    if trusted.asks_beside() {
        beside.lists.extend(gatherer.ask_beside(iso_place, &file_name, &mut set));
    }
    let mut parts = gatherer.read_set_menus(&mut set)?;
    let read = gatherer.read_documents(&mut set, &mut parts, &file_name, &beside, trusted)?;
    let own = gatherer.read_own_checksums();

    let mut plan = Plan::new(&iso);
    plan.wants_parts(&parts, &gatherer.iso_parts, &gatherer.menus);
    plan.wants_listed(&read.lists, &read.manifests);
    plan.wants_own_checksums(&own);
    plan.wants_signatures(read.detached);
    plan.wants_hashes(read.code.iter().map(|signed| (Algorithm::Sha256, &signed.of)));
    let stated = read.statements.iter().flat_map(|statement| &statement.found).flatten();
    plan.wants_hashes(stated.map(|(target, _)| (Algorithm::Sha256, target)));
    plan.wants_tree(verity::wanted(&iso, &gatherer.iso_parts, &set, &parts));
    let mut learnt = plan.read_once(&set, iso_place);
    let iso_learnt = learnt.remove("").unwrap_or_else(|| Ok(Learnt::default())).map_err(failed)?;
    gatherer.learn_signatures(learnt.values().flatten().chain([&iso_learnt]));
    gatherer.learn_parts(learnt, &mut parts);
    plan.learn_iso_parts(&iso_learnt, &mut gatherer.iso_parts);
    plan::find_beginnings(&mut parts, &gatherer.menus, &gatherer.iso_parts);
    gatherer.walk_iso_initrds(&parts);
    gatherer.look_into_iso_kernels(&parts);
    let programs = gatherer.read_programs(&parts);
    let late = || verity::made_late(&iso, iso_place, &gatherer.iso_parts, &parts);
    let code = code::judge(read.code, &parts, trusted);
    let tree = iso_learnt.tree.clone().or_else(late);

    let is_squashfs = |part: &&Part| part.kind == Kind::Squashfs;
    let squashfs = gatherer.iso_parts.values().find(is_squashfs).map(|part| part.name.clone());
    Ok(Facts {
        iso: IsoFacts {
            name: file_name,
            volume_id: iso.volume_id.clone(),
            uuid: iso.uuid.clone(),
            is_gentoos: is_gentoos(&iso, squashfs.as_deref()),
            volume_size: iso.volume_size,
            size: iso.size(),
            wrong_partitions,
            has_empty_boot_code: gatherer.has_empty_boot_code(),
            tables: gatherer.tables(squashfs.as_deref()),
            boot_images: iso.boot_images.as_ref().map(|_| gatherer.boot_images).map_err(|why| *why),
            repeated: iso.repeated.iter().map(|path| format!("/{path}")).collect(),
            dangling: dangling(&iso),
            parts: gatherer.iso_parts,
            other_images: gatherer.other_images,
            squashfs,
            own_checksums: own.map(|own| own.map(|lines| plan::own_hashes(lines, &iso_learnt))),
            tree,
            hashes: iso_learnt.whole,
        },
        set: set.shown.clone(),
        odd: set.odd.clone(),
        escapes: set.escapes.iter().map(|(name, to)| (name.clone(), to.display().to_string())).collect(),
        is_listed: set.is_listed(),
        parts,
        menus: gatherer.menus,
        loaders: gatherer.loaders,
        programs,
        checksums: read.lists,
        manifests: read.manifests,
        beside: beside.names,
        signatures: gatherer.signatures,
        code_signatures: code,
        statements: read.statements,
        threshold: trusted.builders.as_ref().map(|_| trusted.threshold),
        has_authorities: trusted.authorities.is_some(),
        is_before_signing: trusted.is_before_signing,
        has_keyring: trusted.keyring.is_some(),
        unreadable: gatherer.unreadable.into_iter().chain(set.unread).collect(),
    })
}

/// What of a set speaks of other files.
struct Documents {
    lists: Vec<ChecksumFacts>,
    manifests: Vec<ManifestFacts>,
    /// Signatures of what is still to be read.
    detached: Vec<(Target, Detached)>,
    code: Vec<CodeSigned>,
    statements: Vec<StatementFacts>,
}

impl Gatherer<'_> {
    fn read_documents(
        &mut self,
        set: &mut Set,
        parts: &mut BTreeMap<String, Part>,
        iso_name: &str,
        beside: &BesideIso,
        trusted: &Trusted,
    ) -> Result<Documents, SetError> {
        let lists = self.read_checksums(set, parts, iso_name, beside, trusted)?;
        let manifests = self.read_manifests(set, parts, iso_name);
        let detached = self.read_signatures(set, parts, iso_name, &lists, &manifests, trusted)?;
        let code = self.read_code_signatures(set, parts, trusted)?;
        let statements = self.read_statements(set, parts, &manifests, trusted);
        Ok(Documents { lists, manifests, detached, code, statements })
    }

    /// Gives the files what was learnt of them.
    fn learn_parts(
        &mut self,
        learnt: BTreeMap<String, std::io::Result<Learnt>>,
        parts: &mut BTreeMap<String, Part>,
    ) {
        for (name, result) in learnt {
            match (parts.get_mut(&name), result) {
                (Some(part), Ok(learnt)) => plan::learn(part, learnt),
                (Some(_), Err(error)) => self.unreadable.push((name, error.to_string())),
                (None, _) => {}
            }
        }
    }
}

/// Tells whether an ISO has a system of Gentoo's.
fn is_gentoos(iso: &Iso, squashfs: Option<&str>) -> bool {
    iso.file("livecd").is_some()
        || squashfs == Some("/image.squashfs")
        || iso.volume_id.to_ascii_lowercase().contains("gentoo")
}

/// Returns the links of an ISO that lead to nothing.
fn dangling(iso: &Iso) -> Vec<String> {
    iso.links.keys().filter(|link| iso.leads_nowhere(link)).map(|link| format!("/{link}")).collect()
}

/// Takes the lists and manifests that are next to the ISO into the set, and the ISO itself out of it.
fn take_from_beside(iso_place: &Place, iso_name: &str, set: &mut Set) -> BesideIso {
    let identity = iso_place.identity();
    set.files.retain(|_, place| identity.is_none() || place.identity() != identity);
    let mut beside = BesideIso::default();
    if !set.is_listable() {
        beside.names.extend(set.files.keys().filter(|name| !name.contains('/')).cloned());
        return beside;
    }
    let Place::Local(path) = iso_place else { return beside };
    let path = path.canonicalize().ok();
    let Some(folder) = path.as_deref().and_then(Path::parent) else { return beside };
    let stem = iso_name.strip_suffix(".iso").unwrap_or(iso_name);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with(stem)
            && entry.path().is_file()
        {
            beside.names.insert(name);
        }
    }
    if set.folder_path() != Some(folder) {
        let before: BTreeSet<String> = set.files.keys().cloned().collect();
        set.add_beside(folder, iso_name, |name| {
            is_named_like_checksums(name)
                || signed_by_name(name) == Some(iso_name)
                || name.ends_with(STATEMENTS)
                || name.ends_with(ENDING)
        });
        beside.lists = set.files.keys().filter(|name| !before.contains(*name)).cloned().collect();
        beside.folder = folder.to_owned();
    } else if set.script.is_some() {
        set.add_beside(folder, iso_name, |name| {
            let signed = signed_by_name(name);
            let name = signed.unwrap_or(name);
            signed == Some(iso_name)
                || is_named_like_checksums(name)
                || name.ends_with(ENDING)
                || name.ends_with(STATEMENTS)
        });
    }
    beside
}

/// Reads the menus of an ISO.
pub fn iso_menus(iso: &Iso) -> Vec<MenuFacts> {
    let mut gatherer = Gatherer::new(iso);
    gatherer.read_boot_images();
    gatherer.read_iso_menus();
    gatherer.menus
}

struct Gatherer<'a> {
    iso: &'a Iso,
    unreadable: Vec<(String, String)>,
    menus: Vec<MenuFacts>,
    iso_parts: BTreeMap<String, Part>,
    other_images: Vec<(String, &'static str)>,
    boot_images: Vec<BootFacts>,
    esps: Vec<Esp>,
    loaders: Vec<LoaderFacts>,
    signatures: Vec<SignatureFacts>,
}

impl<'a> Gatherer<'a> {
    fn new(iso: &'a Iso) -> Self {
        Self {
            iso,
            unreadable: Vec::new(),
            menus: Vec::new(),
            iso_parts: BTreeMap::new(),
            other_images: Vec::new(),
            boot_images: Vec::new(),
            esps: Vec::new(),
            loaders: Vec::new(),
            signatures: Vec::new(),
        }
    }
}
