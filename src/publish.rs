//! Publishes outputs: all of them at once, by a rename, and nothing that is there is lost.
//!
//! A published folder holds hard links to the store's objects where the file system lets it, else copies.
//! A listing in it says what was published, so that files somebody put there are told from ours and kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cache::name::RelPath;
use cache::{BlobDigest, Object, Store, StoreError};
use graph::build::Built;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::spec::Spec;

/// The listing's name in a published folder.
const LISTING: &str = ".stagegraph.json";

/// Why outputs could not be published. What was published before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The operating system said no.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two outputs have a file of the same name.
    #[error("two outputs would be published as {0}")]
    Twice(RelPath),
    /// The folder is somebody else's.
    #[error("{0} is there, but stagegraph did not make it; move it away, or name another folder with --out")]
    Foreign(PathBuf),
    /// Somebody's file has the name of one that is to be published.
    #[error("{0} was not published by stagegraph, and is in the way of a file of that name; move it away")]
    InTheWay(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An output to be published is a single file.
    #[error("{0} is a single file; only folders can be published")]
    NotAFolder(String),
}

fn failed(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PublishError {
    let path = path.into();
    move |source| PublishError::Io { what, path, source }
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Every file and its digest.
    pub files: BTreeMap<String, BlobDigest>,
    /// Whether it was all there already.
    #[serde(skip)]
    pub unchanged: bool,
}

/// Publishes what the spec names into `folder`.
///
/// # Errors
/// [`PublishError`].
pub fn publish(store: &Store, spec: &Spec, built: &Built, folder: &Path) -> Result<Published, PublishError> {
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
    let mut published = Published {
        files: files.iter().map(|(path, (digest, _))| (path.to_string(), *digest)).collect(),
        unchanged: false,
    };
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(failed("make", above))?;
    // One process at a time publishes below a folder; what a killed one left half-filled goes away.
    let lock = File::open(above).map_err(failed("open", above))?;
    lock.lock().map_err(failed("lock", above))?;
    let before = read_listing(folder)?;
    let whole = |(path, (_, size)): (&RelPath, &(BlobDigest, u64))| {
        fs::metadata(path.below(folder)).is_ok_and(|found| found.len() == *size)
    };
    if before.as_ref() == Some(&published) && files.iter().all(whole) {
        published.unchanged = true;
        return Ok(published);
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let stage = folder.with_file_name(format!(".{name}.new"));
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(failed("remove", &stage))?;
    }
    fs::create_dir(&stage).map_err(failed("make", &stage))?;
    fill(store, &stage, &files, &published)?;
    swap(folder, &stage, before.as_ref())?;
    Ok(published)
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
            let mut entries = fs::read_dir(folder).map_err(failed("list", folder))?;
            if entries.next().is_none() { Ok(None) } else { Err(foreign()) }
        }
        Err(source) => Err(PublishError::Io { what: "read", path, source }),
    }
}

/// Fills a fresh folder with links to the objects.
fn fill(
    store: &Store,
    stage: &Path,
    files: &BTreeMap<RelPath, (BlobDigest, u64)>,
    published: &Published,
) -> Result<(), PublishError> {
    for (path, (digest, _)) in files {
        let place = path.below(stage);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        let object = store.verified(digest)?;
        // Another file system, or too many links: copied, by reference where the file system can.
        if fs::hard_link(&object, &place).is_err() {
            fs::copy(&object, &place).map_err(failed("write", &place))?;
        }
    }
    let text = serde_json::to_vec_pretty(published).map_err(io::Error::other);
    let listing = stage.join(LISTING);
    text.and_then(|text| fs::write(&listing, text)).map_err(failed("write", &listing))
}

/// Puts the filled folder in place of the old one; what was not ours there is carried over.
fn swap(folder: &Path, stage: &Path, before: Option<&Published>) -> Result<(), PublishError> {
    if !folder.exists() {
        return fs::rename(stage, folder).map_err(failed("publish", folder));
    }
    let ours: BTreeSet<&str> =
        before.iter().flat_map(|before| before.files.keys()).map(String::as_str).chain([LISTING]).collect();
    let mut foreign = Vec::new();
    list_foreign(folder, Path::new(""), &ours, &mut foreign)?;
    // They get their second name before the exchange, so that no moment is without one.
    for path in foreign {
        let (old, new) = (folder.join(&path), stage.join(&path));
        if new.symlink_metadata().is_ok() {
            return Err(PublishError::InTheWay(old));
        }
        if let Some(parent) = new.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        fs::hard_link(&old, &new).map_err(failed("keep", &old))?;
    }
    renameat_with(CWD, stage, CWD, folder, RenameFlags::EXCHANGE)
        .map_err(|errno| failed("publish", folder)(errno.into()))?;
    fs::remove_dir_all(stage).map_err(failed("remove", stage))
}

/// Collects the files below `folder` that were not published.
fn list_foreign(
    folder: &Path,
    below: &Path,
    ours: &BTreeSet<&str>,
    foreign: &mut Vec<PathBuf>,
) -> Result<(), PublishError> {
    let here = folder.join(below);
    for entry in fs::read_dir(&here).map_err(failed("list", &here))? {
        let entry = entry.map_err(failed("list", &here))?;
        let path = below.join(entry.file_name());
        if entry.file_type().map_err(failed("read", &here))?.is_dir() {
            list_foreign(folder, &path, ours, foreign)?;
        } else if path.to_str().is_none_or(|text| !ours.contains(text)) {
            foreign.push(path);
        }
    }
    Ok(())
}
