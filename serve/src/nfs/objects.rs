//! Files and folders as NFS has them, and the handles that lead to them.
//!
//! ```text
//! /                  the sets
//! /SET               the newest build of a set, as it is when it is looked up
//! /SET/@ID           that build
//! ```
//! A handle says what is in a file, or where a folder is, and nothing of this process: it leads to the same when the server was started
//! again, and a file that a newer build has as well is found there when the build that a machine booted from is gone.

use std::sync::Arc;
use std::time::SystemTime;

use cache::BlobDigest;
use nfs3_types::nfs3::{fattr3, ftype3, nfstime3, specdata3};

use crate::site::{Entry, Set, Site};

/// How a handle begins; behind it, what kind of a handle it is, and a digest.
const OURS: [u8; 7] = *b"stgraph";

/// Bytes of a handle.
pub(super) const HANDLE: usize = OURS.len() + 1 + 32;

/// What a digest in a handle is of.
const TOP: u8 = 0;
const FOLDER: u8 = 1;
/// A file whose content is known: of that.
const CONTENT: u8 = 2;
/// Any other: of its path.
const FILE: u8 = 3;

/// Everything is one file system.
const FILE_SYSTEM: u64 = 0x7374_6772_6170_6801;

/// A handle.
pub(super) type Handle = [u8; HANDLE];

/// What a handle leads to.
#[derive(Debug, Clone)]
pub(super) enum Object {
    /// The folder with all sets.
    Top,
    /// A folder of a build: its path is empty, or has a slash at its end.
    Folder(Arc<Set>, String),
    /// A file of a build.
    File(Arc<Set>, String, Arc<Entry>),
}

fn whole(set: &Set, path: &str) -> String {
    format!("{}/@{}/{path}", set.name, set.id)
}

/// Returns the folders of a build, the one at its top first.
fn folders(set: &Set) -> impl Iterator<Item = &str> {
    let of_file = |path: &'_ str| path.match_indices('/').map(|(at, _)| at + 1).collect::<Vec<_>>();
    let below = set.files.keys().flat_map(move |path| of_file(path).into_iter().map(move |end| &path[..end]));
    std::iter::once("").chain(below)
}

impl Object {
    /// Finds what a handle leads to.
    pub(super) fn of_handle(site: &Site, handle: &[u8]) -> Option<Self> {
        let (kind, digest) = handle.strip_prefix(&OURS)?.split_first()?;
        let digest = BlobDigest::from_slice(digest)?;
        let is_at = |set: &Set, path: &str| BlobDigest::of(whole(set, path).as_bytes()) == digest;
        match *kind {
            TOP => Some(Self::Top),
            FOLDER => site.find_build(|set| {
                let found = folders(set).find(|path| is_at(set, path))?;
                Some(Self::Folder(Arc::clone(set), found.to_owned()))
            }),
            kind @ (CONTENT | FILE) => {
                // The same content may be in several builds; one that was written to is the last that is taken.
                let find = |is_wanted: fn(&Entry) -> bool| {
                    site.find_build(|set| Self::file_of(set, kind, digest, is_wanted))
                };
                find(Entry::is_intact).or_else(|| find(|_| true))
            }
            _ => None,
        }
    }

    /// Finds the file of a build that a handle of that kind and digest leads to.
    fn file_of(set: &Arc<Set>, kind: u8, digest: BlobDigest, is_wanted: fn(&Entry) -> bool) -> Option<Self> {
        // Beside the loaders first: of two names of one file, that is the one by which machines read it.
        let is_it = |(path, entry): &(&String, &Arc<Entry>)| match (kind, entry.digests) {
            (CONTENT, Some(digests)) => digests.blake3 == digest,
            (FILE, None) => BlobDigest::of(whole(set, path).as_bytes()) == digest,
            _ => false,
        };
        let found = set.files.iter().filter(is_it).filter(|(_, entry)| is_wanted(entry));
        let (path, entry) = found.min_by_key(|(path, _)| !path.starts_with(&set.folder))?;
        Some(Self::File(Arc::clone(set), path.clone(), Arc::clone(entry)))
    }

    /// Finds what lies at a path.
    pub(super) fn at(site: &Site, path: &str) -> Option<Self> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(Self::Top, |object, part| object.child(site, part))
    }

    /// Returns its handle.
    pub(super) fn handle(&self) -> Handle {
        let (kind, digest) = match self {
            Self::Top => (TOP, BlobDigest::of(b"")),
            Self::Folder(set, path) => (FOLDER, BlobDigest::of(whole(set, path).as_bytes())),
            Self::File(set, path, entry) => match entry.digests {
                Some(digests) => (CONTENT, digests.blake3),
                None => (FILE, BlobDigest::of(whole(set, path).as_bytes())),
            },
        };
        let mut handle = [0; HANDLE];
        handle[..OURS.len()].copy_from_slice(&OURS);
        handle[OURS.len()] = kind;
        handle[OURS.len() + 1..].copy_from_slice(digest.as_bytes());
        handle
    }

    /// Returns the number by which a client knows it.
    pub(super) fn number(&self) -> u64 {
        let handle = BlobDigest::of(&self.handle());
        handle.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Tells whether it is a folder.
    pub(super) fn is_folder(&self) -> bool {
        !matches!(self, Self::File(..))
    }

    /// Finds something in a folder.
    pub(super) fn child(&self, site: &Site, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::File(..), _) => None,
            (_, name) if name.contains('/') => None,
            (_, ".") => Some(self.clone()),
            (_, "..") => Some(self.parent()),
            (Self::Top, name) => {
                let set = site.sets().iter().find(|set| set.name == name)?;
                Some(Self::Folder(Arc::clone(set), String::new()))
            }
            (Self::Folder(set, path), name) => {
                if let Some(id) = name.strip_prefix('@').filter(|_| path.is_empty()) {
                    let build = site.build(&set.name, id)?;
                    return Some(Self::Folder(build, String::new()));
                }
                let path = format!("{path}{name}");
                if let Some(entry) = set.files.get(&path) {
                    return Some(Self::File(Arc::clone(set), path, Arc::clone(entry)));
                }
                let path = format!("{path}/");
                let is_there = set.files.keys().any(|file| file.starts_with(&path));
                is_there.then(|| Self::Folder(Arc::clone(set), path))
            }
        }
    }

    fn parent(&self) -> Self {
        match self {
            Self::Folder(set, path) if !path.is_empty() => {
                let above = path.trim_end_matches('/').rfind('/').map_or(0, |at| at + 1);
                Self::Folder(Arc::clone(set), path[..above].to_owned())
            }
            _ => Self::Top,
        }
    }

    /// Returns what is in a folder, in an order in which what comes later does not take anybody's place.
    pub(super) fn children(&self, site: &Site) -> Vec<(String, Self)> {
        let mut names: Vec<&str> = match self {
            Self::Top => site.sets().iter().map(|set| set.name.as_str()).collect(),
            Self::Folder(set, path) => {
                let below = set.files.keys().filter_map(|file| file.strip_prefix(path.as_str()));
                below.filter_map(|rest| rest.split('/').next()).collect()
            }
            Self::File(..) => Vec::new(),
        };
        names.dedup();
        let found = names.into_iter().filter_map(|name| Some((name.to_owned(), self.child(site, name)?)));
        found.collect()
    }

    /// Returns what a client may know of it. What is known by its content does not change, and has no time: a client that saw another one
    /// would read it again.
    pub(super) fn attributes(&self, site: &Site) -> fattr3 {
        let (type_, mode, size, time) = match self {
            Self::File(_, _, entry) => {
                let time = if entry.digests.is_some() { SystemTime::UNIX_EPOCH } else { entry.modified };
                (ftype3::NF3REG, 0o444, entry.size, time)
            }
            // The one folder that changes.
            Self::Top => {
                let changed = std::time::Duration::from_secs(site.changes().into());
                (ftype3::NF3DIR, 0o555, 4096, SystemTime::UNIX_EPOCH + changed)
            }
            Self::Folder(..) => (ftype3::NF3DIR, 0o555, 4096, SystemTime::UNIX_EPOCH),
        };
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Its seconds end in 2106.
        let time = nfstime3 {
            seconds: u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
            nseconds: since.subsec_nanos(),
        };
        fattr3 {
            type_,
            mode,
            nlink: if self.is_folder() { 2 } else { 1 },
            uid: 0,
            gid: 0,
            size,
            used: size,
            rdev: specdata3 { specdata1: 0, specdata2: 0 },
            fsid: FILE_SYSTEM,
            fileid: self.number(),
            atime: time,
            mtime: time,
            ctime: time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Digests;
    use crate::site::tests::set;

    fn site() -> Site {
        Site::new(vec![set("a", "11"), set("b", "22")])
    }

    /// The same with digests, as what was published here has them.
    fn known(id: &str) -> Set {
        let mut known = set("a", id);
        for entry in known.files.values_mut() {
            let bytes = entry.read(0, entry.size as usize).unwrap();
            let entry = Arc::get_mut(entry).unwrap();
            entry.digests = Some(Digests { blake3: BlobDigest::of(&bytes), sha256: None });
        }
        known
    }

    #[test]
    fn every_handle_leads_back_to_what_it_is_of() {
        for site in [site(), Site::new(vec![known("11")])] {
            let mut open = vec![Object::Top];
            let mut seen = 0;
            while let Some(object) = open.pop() {
                let again = Object::of_handle(&site, &object.handle()).unwrap();
                assert_eq!(again.number(), object.number());
                assert_eq!(again.is_folder(), object.is_folder());
                open.extend(object.children(&site).into_iter().map(|(_, child)| child));
                seen += 1;
            }
            assert_eq!(seen, 1 + site.sets().len() * (1 + 1 + 6), "each with a folder and six files");
        }
    }

    #[test]
    fn paths_lead_to_files_and_never_elsewhere() {
        let site = site();
        let is_there = |path: &str| Object::at(&site, path).is_some();
        for path in ["/", "", "/a", "/a/@11/netboot", "/a/netboot/x.vmlinuz", "a//@11/./x.iso", "/a/@11/../b"]
        {
            assert!(is_there(path), "{path}");
        }
        for path in ["/c", "/a/@22", "/a/etc", "/a/netboot/@11", "/a/x.iso/..", "/../../etc/passwd"] {
            assert!(!is_there(path), "{path}");
        }
    }

    #[test]
    fn a_handle_outlives_the_build_where_the_file_does() {
        let before = Site::new(vec![known("11")]);
        let of = |site: &Site, path: &str| Object::at(site, path).unwrap().handle();
        let (loader, kernel) = (of(&before, "/a/netboot/snponly.efi"), of(&before, "/a/netboot/x.vmlinuz"));
        // Started again, and published anew meanwhile: the kernel is another one, the loader is not.
        let after = Site::new(vec![known("12")]);
        assert!(Object::of_handle(&after, &loader).is_some());
        assert!(Object::of_handle(&after, &kernel).is_none());
        // Without a restart, who booted the build before goes on with that.
        assert!(Object::of_handle(&before.with(known("12")), &kernel).is_some());
    }

    #[test]
    fn handles_of_others_lead_nowhere() {
        let site = site();
        let handle = Object::Top.handle();
        for wrong in [&[][..], &handle[..39], &[handle.as_slice(), &[0]].concat(), &[0; HANDLE], &[0xff; 64]]
        {
            assert!(Object::of_handle(&site, wrong).is_none());
        }
    }
}
