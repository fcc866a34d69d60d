//! Publishes outputs: all of them at once, by a rename, and nothing that is there is lost.
//!
//! A published folder holds hard links to the store's objects where the file system lets it, else copies. What the store
//! has as a composition is written out for it.
//! A listing in it says what was published, so that files somebody put there are told from ours and kept.

mod fill;
mod listing;
mod signed;
mod stage;
mod swap;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{BlobDigest, Object, Objects, Store};
use graph::build::Built;

use self::fill::fill;
use self::listing::Files;
pub use self::listing::{PublishError, Published, Signature};
pub use self::signed::{Signing, note, signatures};
use self::stage::Alone;
pub use self::stage::Stage;
use crate::spec::Spec;

/// Publishes what the spec names into `folder`; with `sign`, it is signed before it has its name.
///
/// # Errors
/// [`PublishError`].
pub fn publish(
    store: &Store,
    spec: &Spec,
    built: &Built,
    folder: &Path,
    sign: Option<&Signing<'_>>,
) -> Result<Published, PublishError> {
    // A link to a folder elsewhere stays one.
    let real = folder.canonicalize();
    let folder = real.as_deref().unwrap_or(folder);
    let files = collect(store, spec, built)?;
    let mut published = Published::of(&files);
    let above = stage::above(folder);
    fs::create_dir_all(above).on_file("make", above)?;
    // One process at a time publishes below a folder; what a killed one left half-filled goes away.
    let _alone = Alone::in_folder(store, above)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let start = format!(".{name}.new-");
    for left in stage::left(above, &start) {
        stage::remove(&left)?;
    }
    swap::mend(folder, above, &name)?;
    let before = listing::of_folder(folder)?;
    let is_same =
        before.as_ref().is_some_and(|before| before.files == published.files && before.former.is_none());
    if is_same && is_whole(store, folder, &files, before.as_ref())? {
        published.signatures = before.map(|before| before.signatures).unwrap_or_default();
        published.unchanged = !signed::sign_there(folder, &mut published, sign)?;
        return Ok(published);
    }
    // What could not be published is no use to anybody, and goes when this is dropped; the error says why.
    let stage = Stage::fresh(above, &start)?;
    let old = before.as_ref().map(|before| (folder, before));
    fill(store, stage.path(), &files, &mut published, old)?;
    if let Some(before) = &before {
        signed::keep(store, folder, stage.path(), before, &mut published)?;
    }
    signed::sign(stage.path(), &mut published, sign)?;
    published.write(&stage.path().join(listing::LISTING), false)?;
    if !swap::swap(store, folder, stage.path(), before.as_ref())? {
        drop(stage);
        // What was signed there went with it.
        (published.signatures, published.unsigned) = Default::default();
        let path = folder.join(listing::LISTING);
        swap::replace_files(store, folder, &path, &files, &mut published, before.as_ref())?;
        signed::sign_there(folder, &mut published, sign)?;
    }
    for (path, (digest, _)) in &files {
        let digest = published.holds(&path.to_string()).unwrap_or(digest);
        store.remember_file(&path.below(folder), digest)?;
    }
    Ok(published)
}

/// Publishes what the spec names beside other files of a folder: each file by a rename, none before all are there.
///
/// Files of the same names are replaced, and what was published under this name before and is no more goes. What the spec publishes
/// in folders below keeps them. The store says what was published.
///
/// # Errors
/// [`PublishError`]; nothing has its name then, unless the system fails between two renames. The next run goes on.
pub fn publish_beside(
    store: &Store,
    spec: &Spec,
    built: &Built,
    folder: &Path,
    name: &str,
) -> Result<Published, PublishError> {
    let files = collect(store, spec, built)?;
    let mut published = Published::of(&files);
    fs::create_dir_all(folder).on_file("make", folder)?;
    let _alone = Alone::in_folder(store, folder)?;
    let listing = listing_beside(store, folder, name)?;
    // One that cannot be read is as good as none: what it named stays.
    let before = listing::read(&listing).unwrap_or_default();
    swap::remove_waiting(folder)?;
    swap::replace_files(store, folder, &listing, &files, &mut published, before.as_ref())?;
    Ok(published)
}

/// Returns where the store keeps the listing of what is published beside other files, under a name, in a folder.
fn listing_beside(store: &Store, folder: &Path, name: &str) -> Result<PathBuf, PublishError> {
    let listings = store.dir().join("published");
    fs::create_dir_all(&listings).on_file("make", &listings)?;
    let real = folder.canonicalize().on_file("resolve", folder)?;
    let key = [real.as_os_str().as_encoded_bytes(), b"\0", name.as_bytes()].concat();
    Ok(listings.join(format!("{}.json", BlobDigest::of(&key))))
}

/// Returns every file that the spec publishes.
fn collect(store: &Store, spec: &Spec, built: &Built) -> Result<Files, PublishError> {
    let mut files = Files::new();
    for (below, output) in &spec.publish {
        let Some(found) = built.done(&output.node).and_then(|done| done.result.outputs.get(&output.output))
        else {
            return Err(PublishError::Missing(output.to_string()));
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
            if listing::is_own_name(Path::new(OsStr::from_bytes(path.as_bytes()))) {
                return Err(PublishError::Reserved(path));
            }
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
    listing::of_folder(folder).map(drop)
}

/// The name of the store in a folder of [`work_beside`].
pub const STORE: &str = "store";

/// Makes a work folder beside another one, under a name of its own; it goes with what is returned. What ended processes left of
/// that kind is removed: those without a process that works in the store inside, which is called [`STORE`].
///
/// # Errors
/// [`PublishError`].
pub fn work_beside(folder: &Path) -> Result<Stage, PublishError> {
    let above = stage::above(folder);
    let start = format!(".{}.extract-", folder.file_name().unwrap_or_default().to_string_lossy());
    let is_used =
        |left: &PathBuf| stage::is_begun(left) || Objects::is_used(&stage::set_of(left).join(STORE));
    for left in stage::left(above, &start).iter().filter(|left| !is_used(left)) {
        stage::remove(left)?;
    }
    Ok(Stage::fresh(above, &start)?)
}

/// Tells whether every published file is there and holds what it should.
///
/// A file that was written to is a link to an object that is now damaged; that object is taken out of the
/// store, and the error says so.
fn is_whole(
    store: &Store,
    folder: &Path,
    files: &Files,
    before: Option<&Published>,
) -> Result<bool, PublishError> {
    if let Some(before) = before
        && !signed::are_whole(store, folder, before)?
    {
        return Ok(false);
    }
    let is_signed =
        |path: &RelPath| before.is_some_and(|before| before.signatures.contains_key(&path.to_string()));
    for (path, (digest, size)) in files.iter().filter(|(path, _)| !is_signed(path)) {
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
