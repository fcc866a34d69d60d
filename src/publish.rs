//! Publishes outputs: all of them at once, by a rename, and nothing that is there is lost.
//!
//! A published folder holds hard links to the store's objects where the file system lets it, else copies. What the store
//! has as a composition is written out for it.
//! A listing in it says what was published, so that files somebody put there are told from ours and kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{BlobDigest, FileError, Object, Store, StoreError};
use graph::build::Built;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::spec::Spec;

/// The listing's name in a published folder.
const LISTING: &str = ".stagegraph.json";

/// Why outputs could not be published. What was published before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The system refused something about a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Two outputs have a file of the same name.
    #[error("two outputs would be published as {0}")]
    Twice(RelPath),
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
    /// An output to be published is a single file.
    #[error("{0} is a single file; only folders can be published")]
    NotAFolder(String),
}

impl PublishError {
    /// Tells whether the spec asks for something that cannot be published.
    pub fn is_specs_fault(&self) -> bool {
        matches!(self, PublishError::Twice(_) | PublishError::NotAFolder(_))
    }
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Every file and its digest.
    pub files: BTreeMap<String, BlobDigest>,
    /// Inode and time of each file as it was published: while they stay, nobody wrote to it.
    #[serde(default)]
    stats: BTreeMap<String, (u64, i64)>,
    /// Whether it was all there already.
    #[serde(skip)]
    pub unchanged: bool,
}

/// Publishes what the spec names into `folder`.
///
/// # Errors
/// [`PublishError`].
pub fn publish(store: &Store, spec: &Spec, built: &Built, folder: &Path) -> Result<Published, PublishError> {
    // A link to a folder elsewhere stays one.
    let real = folder.canonicalize();
    let folder = real.as_deref().unwrap_or(folder);
    let files = collect(store, spec, built)?;
    let mut published = Published {
        files: files.iter().map(|(path, (digest, _))| (path.to_string(), *digest)).collect(),
        stats: BTreeMap::new(),
        unchanged: false,
    };
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).on_file("make", above)?;
    // One process at a time publishes below a folder; what a killed one left half-filled goes away.
    let lock = File::open(above).on_file("open", above)?;
    lock.lock().on_file("lock", above)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let stage = folder.with_file_name(format!(".{name}.new"));
    if stage.exists() {
        fs::remove_dir_all(&stage).on_file("remove", &stage)?;
    }
    let before = read_listing(folder)?;
    let is_same = before.as_ref().is_some_and(|before| before.files == published.files);
    if is_same && is_whole(store, folder, &files)? {
        published.unchanged = true;
        return Ok(published);
    }
    fs::create_dir(&stage).on_file("make", &stage)?;
    let old = before.as_ref().map(|before| (folder, before));
    let done = fill(store, &stage, &files, &mut published, old)
        .and_then(|()| swap(store, folder, &stage, before.as_ref()));
    if let Err(error) = done {
        // What could not be published is no use to anybody; the error says why.
        let _ = fs::remove_dir_all(&stage);
        return Err(error);
    }
    for (path, (digest, _)) in &files {
        store.remember_file(&path.below(folder), digest)?;
    }
    Ok(published)
}

/// Publishes what the spec names beside other files of a folder: each file by a rename, none before all are there.
///
/// Files of the same names are replaced. What the spec publishes in folders below keeps them.
///
/// # Errors
/// [`PublishError`]; nothing has its name then, unless the system fails between two renames.
pub fn publish_beside(
    store: &Store,
    spec: &Spec,
    built: &Built,
    folder: &Path,
    name: &str,
) -> Result<Published, PublishError> {
    let files = collect(store, spec, built)?;
    let mut published = Published {
        files: files.iter().map(|(path, (digest, _))| (path.to_string(), *digest)).collect(),
        stats: BTreeMap::new(),
        unchanged: false,
    };
    fs::create_dir_all(folder).on_file("make", folder)?;
    let stage = folder.join(format!(".{name}.new"));
    if stage.exists() {
        fs::remove_dir_all(&stage).on_file("remove", &stage)?;
    }
    fs::create_dir(&stage).on_file("make", &stage)?;
    let moved = fill(store, &stage, &files, &mut published, None).and_then(|()| {
        for path in files.keys() {
            let place = path.below(folder);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).on_file("make", parent)?;
            }
            fs::rename(path.below(&stage), &place).on_file("publish", &place)?;
        }
        Ok(File::open(folder).and_then(|folder| folder.sync_all()).on_file("sync", folder)?)
    });
    let removed = fs::remove_dir_all(&stage).on_file("remove", &stage);
    moved.and(removed.map_err(PublishError::from)).map(|()| published)
}

/// Returns every file that the spec publishes.
fn collect(
    store: &Store,
    spec: &Spec,
    built: &Built,
) -> Result<BTreeMap<RelPath, (BlobDigest, u64)>, PublishError> {
    let mut files: BTreeMap<RelPath, (BlobDigest, u64)> = BTreeMap::new();
    for (below, output) in &spec.publish {
        let Some(found) = built.done(&output.node).and_then(|done| done.result.outputs.get(&output.output))
        else {
            continue;
        };
        let Object::Tree(tree) = found.object else {
            return Err(PublishError::NotAFolder(output.to_string()));
        };
        for (path, digest, size) in store.tree(&tree)?.files() {
            let path = match below {
                None => path.clone(),
                // Both halves were checked when they were made.
                Some(below) => RelPath::new(&[below.as_bytes(), b"/", path.as_bytes()].concat())
                    .map_err(|_| PublishError::Twice(path.clone()))?,
            };
            if files.insert(path.clone(), (digest, size)).is_some() {
                return Err(PublishError::Twice(path));
            }
        }
    }
    Ok(files)
}

/// Finds out whether a folder can be published into, before anything is made for it.
///
/// # Errors
/// [`PublishError`]: it is somebody else's, or cannot be read.
pub fn check(folder: &Path) -> Result<(), PublishError> {
    if folder.exists() && !folder.is_dir() {
        return Err(PublishError::Foreign(folder.to_owned()));
    }
    read_listing(folder).map(drop)
}

/// Tells whether every published file is there and holds what it should.
///
/// A file that was written to is a link to an object that is now damaged; that object is taken out of the
/// store, and the error says so.
fn is_whole(
    store: &Store,
    folder: &Path,
    files: &BTreeMap<RelPath, (BlobDigest, u64)>,
) -> Result<bool, PublishError> {
    for (path, (digest, size)) in files {
        let place = path.below(folder);
        if !fs::symlink_metadata(&place).is_ok_and(|found| found.is_file() && found.len() == *size) {
            return Ok(false);
        }
        if store.file_digest(&place)? != *digest {
            store.verified(digest)?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_listing(folder: &Path) -> Result<Option<Published>, PublishError> {
    if !folder.exists() {
        return Ok(None);
    }
    let path = folder.join(LISTING);
    let foreign = || PublishError::Foreign(folder.to_owned());
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| foreign()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(folder).on_file("list", folder)?;
            if entries.next().is_none() { Ok(None) } else { Err(foreign()) }
        }
        Err(source) => Err(FileError { what: "read", path, source }.into()),
    }
}

/// Fills a fresh folder with links to the objects, or to files of the folder that was published before.
fn fill(
    store: &Store,
    stage: &Path,
    files: &BTreeMap<RelPath, (BlobDigest, u64)>,
    published: &mut Published,
    old: Option<(&Path, &Published)>,
) -> Result<(), PublishError> {
    for (path, (digest, _)) in files {
        let place = path.below(stage);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).on_file("make", parent)?;
        }
        let is_kept = match old {
            // Objects are linked from the store, which hashes them.
            Some((folder, before)) if !store.object_path(digest).exists() => {
                keep(store, folder, before, path, digest, &place)?
            }
            _ => false,
        };
        if !is_kept {
            let object = store.verified(digest)?;
            // Another file system, or too many links: copied, by reference where the file system can.
            if fs::hard_link(&object, &place).is_err() {
                fs::copy(&object, &place).on_file("write", &place)?;
            }
        }
    }
    for (path, (digest, _)) in files {
        store.release(digest)?;
        let place = path.below(stage);
        // Objects are on the disk already; what was written out or copied is not.
        File::open(&place).and_then(|file| file.sync_data()).on_file("sync", &place)?;
        let stat = stat(&place).on_file("read", &place)?;
        published.stats.insert(path.to_string(), stat);
    }
    let text = serde_json::to_vec_pretty(published).map_err(io::Error::other);
    let listing = stage.join(LISTING);
    let write = |text: Vec<u8>| {
        let mut file = File::create(&listing)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    text.and_then(write).on_file("write", &listing)?;
    finish_folder(stage)
}

/// Links to the file that was published before under the same name, if it is still that and has these bytes, as far as its
/// stat data tell: a composition is not written out again.
fn keep(
    store: &Store,
    folder: &Path,
    before: &Published,
    path: &RelPath,
    digest: &BlobDigest,
    place: &Path,
) -> Result<bool, PublishError> {
    let name = path.to_string();
    let published = path.below(folder);
    if before.files.get(&name) != Some(digest) || !published.is_file() {
        return Ok(false);
    }
    Ok(store.file_digest(&published)? == *digest && fs::hard_link(&published, place).is_ok())
}

/// Returns what changes when somebody puts another file in place, or writes to it.
fn stat(path: &Path) -> io::Result<(u64, i64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.ino(), found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())))
}

/// Makes a folder and those below readable for servers, whatever the umask, and lasting.
fn finish_folder(folder: &Path) -> Result<(), PublishError> {
    for entry in fs::read_dir(folder).on_file("list", folder)? {
        let path = entry.on_file("list", folder)?.path();
        if path.is_dir() {
            finish_folder(&path)?;
        }
    }
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, readable).on_file("chmod", folder)?;
    Ok(File::open(folder).and_then(|folder| folder.sync_all()).on_file("sync", folder)?)
}

/// Puts the filled folder in place of the old one; what was not ours there is carried over.
fn swap(store: &Store, folder: &Path, stage: &Path, before: Option<&Published>) -> Result<(), PublishError> {
    if !folder.exists() {
        return Ok(fs::rename(stage, folder).on_file("publish", folder)?);
    }
    let mut foreign = Vec::new();
    list_foreign(store, folder, Path::new(""), before, &mut foreign)?;
    // They get their second name before the exchange, so that no moment is without one.
    for path in foreign {
        let (old, new) = (folder.join(&path), stage.join(&path));
        if old.is_dir() && !old.is_symlink() {
            fs::create_dir_all(&new).on_file("make", &new)?;
            let mode = fs::metadata(&old).on_file("read", &old)?.permissions();
            fs::set_permissions(&new, mode).on_file("chmod", &new)?;
            continue;
        }
        if new.symlink_metadata().is_ok() {
            return Err(PublishError::InTheWay(old));
        }
        if let Some(parent) = new.parent() {
            fs::create_dir_all(parent).on_file("make", parent)?;
        }
        fs::hard_link(&old, &new).on_file("keep", &old)?;
    }
    renameat_with(CWD, stage, CWD, folder, RenameFlags::EXCHANGE).on_file("publish", folder)?;
    Ok(fs::remove_dir_all(stage).on_file("remove", stage)?)
}

/// Tells whether a file is the one that was published: it has its bytes, or nobody wrote to it since. One whose bytes
/// changed all the same was damaged by the disk, and is no loss.
fn is_ours(
    store: &Store,
    path: &Path,
    listed: Option<(&String, &BlobDigest)>,
    before: Option<&Published>,
) -> Result<bool, PublishError> {
    let Some((name, digest)) = listed else { return Ok(false) };
    let known = before.and_then(|before| before.stats.get(name)).copied();
    if known.is_some() && known == Some(stat(path).on_file("read", path)?) {
        return Ok(true);
    }
    Ok(store.file_digest(path)? == *digest)
}

/// Collects what is below `folder` and was not published: folders without anything published in them, files
/// under other names, and files that somebody put in the place of a published one.
fn list_foreign(
    store: &Store,
    folder: &Path,
    below: &Path,
    before: Option<&Published>,
    foreign: &mut Vec<PathBuf>,
) -> Result<(), PublishError> {
    let here = folder.join(below);
    let files = || before.iter().flat_map(|before| before.files.iter());
    for entry in fs::read_dir(&here).on_file("list", &here)? {
        let entry = entry.on_file("list", &here)?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().on_file("read", &here)?;
        if kind.is_dir() {
            if !files().any(|(name, _)| Path::new(name).starts_with(&path)) {
                foreign.push(path.clone());
            }
            list_foreign(store, folder, &path, before, foreign)?;
        } else if path != Path::new(LISTING) {
            let listed = files().find(|(name, _)| Path::new(name) == path);
            if !kind.is_file() || !is_ours(store, &folder.join(&path), listed, before)? {
                foreign.push(path);
            }
        }
    }
    Ok(())
}
