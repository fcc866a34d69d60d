//! What a published folder says of itself: which files are ours, so that others are told from them and kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{BlobDigest, FileError, Store, StoreError};
use serde::{Deserialize, Serialize};

/// The listing's name in a published folder, and that of the one that is to take its place, while files are being exchanged one by one.
pub(super) const LISTING: &str = ".stagegraph.json";
const NEXT: &str = ".next";

/// Why outputs could not be published. What was published before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The system refused something about a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Two outputs have a file of the same name.
    #[error("two outputs would be published as {0}")]
    Twice(RelPath),
    /// An output has a file with a name that publishing needs itself.
    #[error(
        "an output would be published as {0}, where the list of what is published goes; call it otherwise"
    )]
    Reserved(RelPath),
    /// The folder is somebody else's.
    #[error("{0} is there, but stagegraph did not make it; move it away, or name another folder")]
    Foreign(PathBuf),
    /// Somebody's file has the name of one that is to be published.
    #[error(
        "{0} was not published by stagegraph, or was changed since, and is in the way of a file of that name; move it away"
    )]
    InTheWay(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is published could not be signed.
    #[error("nothing was published: {0}")]
    Unsigned(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was not made.
    #[error("{0} is to be published, and was not made")]
    Missing(String),
    /// An output to be published is a single file.
    #[error("{0} is a single file; only folders can be published")]
    NotAFolder(String),
}

impl PublishError {
    /// Tells whether the spec asks for something that cannot be published.
    pub fn is_specs_fault(&self) -> bool {
        matches!(self, PublishError::Twice(_) | PublishError::Reserved(_) | PublishError::NotAFolder(_))
    }
}

/// A signature of a published file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The file that is signed.
    pub of: String,
    /// That file's digest without the signature.
    pub unsigned: BlobDigest,
    /// The digest of the file that the signature is in.
    pub bytes: BlobDigest,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Every file and its digest.
    pub files: BTreeMap<String, BlobDigest>,
    /// Inode and time of each file as it was published: while they stay, nobody wrote to it.
    #[serde(default)]
    pub(super) stats: BTreeMap<String, (u64, i64)>,
    /// Signatures, by the files that they are in: lists that are signed in place, and files beside what they are on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signatures: BTreeMap<String, Signature>,
    /// What was signed before, and is not any more: it changed.
    #[serde(skip)]
    pub unsigned: Vec<String>,
    /// Whether it was all there already.
    #[serde(skip)]
    pub unchanged: bool,
    /// What was published before an exchange of files that was begun and not ended: each file is of that, or of this.
    #[serde(skip)]
    pub(super) former: Option<Box<Published>>,
}

impl Published {
    /// Says that these files are published.
    pub(super) fn of(files: &Files) -> Self {
        let digests = files.iter().map(|(path, (digest, _))| (path.to_string(), *digest));
        Self {
            files: digests.collect(),
            stats: BTreeMap::new(),
            signatures: BTreeMap::new(),
            unsigned: Vec::new(),
            unchanged: false,
            former: None,
        }
    }

    /// Writes the listing, so that it lasts: under its own name, or as the one that is to take its place.
    pub(super) fn write(&self, path: &Path, is_next: bool) -> Result<(), FileError> {
        let next = next_to(path);
        let write = || {
            let mut file = File::create(&next)?;
            file.write_all(&serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
            file.sync_all()?;
            if !is_next {
                fs::rename(&next, path)?;
            }
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        write().on_file("write", path)
    }

    /// Returns all files that are ours, with the digests of what they hold as far as they are not signed in place; detached signatures
    /// among them.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&String, &BlobDigest)> {
        let beside = self.signatures.iter().filter(|(name, _)| !self.files.contains_key(*name));
        self.files.iter().chain(beside.map(|(name, signature)| (name, &signature.bytes)))
    }

    /// Returns the digest of what a file holds, signed in place or not.
    pub(super) fn holds(&self, name: &str) -> Option<&BlobDigest> {
        let signed = self.signatures.get(name).map(|signature| &signature.bytes);
        signed.or_else(|| self.files.get(name))
    }

    /// Returns this, and what was published before, where both count.
    fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.former.as_deref())
    }
}

/// Returns the name of the listing that is to take another's place.
pub(super) fn next_to(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEXT);
    PathBuf::from(name)
}

/// Every file that is to be published: its digest, and its size.
pub(super) type Files = BTreeMap<RelPath, (BlobDigest, u64)>;

/// Reads a listing; nothing where there is none. Where files were being exchanged when a process ended, what either listing names
/// is ours, and nothing is whole.
pub(super) fn read(path: &Path) -> Result<Option<Published>, PublishError> {
    let read = |path: &Path| match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice::<Published>(&text).ok().map(Some)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(None)),
        Err(source) => Err(PublishError::from(FileError { what: "read", path: path.to_owned(), source })),
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let Some(mut found) = read(path)? else { return Err(PublishError::Foreign(folder.to_owned())) };
    // Half written, it says nothing: then nothing was exchanged yet.
    if let Some(Some(next)) = read(&next_to(path))? {
        let former = found.unwrap_or_else(|| Published::of(&Files::new()));
        let mut both = next;
        for (name, digest) in &former.files {
            both.files.entry(name.clone()).or_insert(*digest);
        }
        both.former = Some(Box::new(former));
        found = Some(both);
    }
    // It may come back from another machine, where it was signed: nothing that it names is elsewhere.
    let is_below = |name: &String| RelPath::new(name.as_bytes()).is_ok();
    let are_below = |published: &Published| {
        published.files.keys().all(is_below)
            && published.signatures.iter().all(|(name, signature)| is_below(name) && is_below(&signature.of))
    };
    if let Some(published) = &found
        && !(are_below(published) && published.former.as_deref().is_none_or(are_below))
    {
        return Err(PublishError::Foreign(folder.to_owned()));
    }
    Ok(found)
}

/// Reads the listing of a folder that is published as a whole.
pub(super) fn of_folder(folder: &Path) -> Result<Option<Published>, PublishError> {
    if !folder.exists() {
        return Ok(None);
    }
    let found = read(&folder.join(LISTING))?;
    if found.is_none() {
        let mut entries = fs::read_dir(folder).on_file("list", folder)?;
        if entries.next().is_some() {
            return Err(PublishError::Foreign(folder.to_owned()));
        }
    }
    Ok(found)
}

/// Returns what changes when somebody puts another file in place, or writes to it.
pub(super) fn stat(path: &Path) -> io::Result<(u64, i64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.ino(), found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())))
}

/// Tells whether a file is the one that was published: it has its bytes, or nobody wrote to it since. One whose bytes
/// changed all the same was damaged by the disk, and is no loss.
pub(super) fn is_ours(
    store: &Store,
    path: &Path,
    listed: Option<(&String, &BlobDigest)>,
    before: Option<&Published>,
) -> Result<bool, PublishError> {
    let Some((name, digest)) = listed else { return Ok(false) };
    let listings = || before.into_iter().flat_map(Published::each);
    let found = stat(path).on_file("read", path)?;
    if listings().any(|listing| listing.stats.get(name) == Some(&found)) {
        return Ok(true);
    }
    let found = store.file_digest(path)?;
    Ok(found == *digest || listings().any(|listing| listing.holds(name) == Some(&found)))
}

/// Collects what is below `folder` and was not published: folders without anything published in them, files
/// under other names, and files that somebody put in the place of a published one.
pub(super) fn list_foreign(
    store: &Store,
    folder: &Path,
    below: &Path,
    before: Option<&Published>,
    foreign: &mut Vec<PathBuf>,
) -> Result<(), PublishError> {
    let here = folder.join(below);
    let files = || before.iter().flat_map(|before| before.ours());
    for entry in fs::read_dir(&here).on_file("list", &here)? {
        let entry = entry.on_file("list", &here)?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().on_file("read", &here)?;
        if kind.is_dir() {
            if !files().any(|(name, _)| Path::new(name).starts_with(&path)) {
                foreign.push(path.clone());
            }
            list_foreign(store, folder, &path, before, foreign)?;
        } else if !is_own_name(&path) {
            let listed = files().find(|(name, _)| Path::new(name) == path);
            if !kind.is_file() || !is_ours(store, &folder.join(&path), listed, before)? {
                foreign.push(path);
            }
        }
    }
    Ok(())
}

/// Tells whether a path is one of the names that this module gives.
pub(super) fn is_own_name(path: &Path) -> bool {
    path == Path::new(LISTING) || path == next_to(Path::new(LISTING))
}
