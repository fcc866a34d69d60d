//! Puts what was filled in the place of what was published before.
//!
//! There are three ways. Folders are exchanged in one step. Where the file system cannot do that (EXDEV, EINVAL, EBUSY …), the old one is moved
//! aside, the new one in its place, and the old one back if that fails. Where the folder cannot be moved either (the lower layer of an overlay,
//! a mount point), its files are replaced one by one, under a listing of what is to be there, with which the next run goes on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cache::Store;
use cache::file::OnFile;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::fill::fill;
use super::listing::{Files, LISTING, PublishError, Published, is_ours, list_foreign, next_to};
use super::signed;
use super::stage::{self, Stage};

/// How the folders that old ones are moved into begin, for a published folder's name.
fn aside_start(name: &str) -> String {
    format!(".{name}.old-")
}

/// Mends what a process left that ended between two steps: puts the old folder back where none is, and removes what is of no use.
pub(super) fn mend(folder: &Path, above: &Path, name: &str) -> Result<(), PublishError> {
    remove_waiting(folder)?;
    for aside in stage::left(above, &aside_start(name)) {
        let old = stage::set_of(&aside);
        if folder.symlink_metadata().is_err() && old.is_dir() {
            fs::rename(&old, folder).on_file("put back", folder)?;
        }
        stage::remove(&aside)?;
    }
    Ok(())
}

/// Tells whether an error says that the file system cannot do this, not that something is wrong.
fn cannot(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::XDEV | Errno::INVAL | Errno::BUSY | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
    )
}

/// Puts the filled folder in place of the old one, or beside nothing; returns false where only its files can be replaced. What was not
/// ours there is carried over.
pub(super) fn swap(
    store: &Store,
    folder: &Path,
    stage: &Path,
    before: Option<&Published>,
) -> Result<bool, PublishError> {
    if !folder.exists() {
        return Ok(fs::rename(stage, folder).on_file("publish", folder).map(|()| true)?);
    }
    if !carry_over(store, folder, stage, before)? {
        return Ok(false);
    }
    match renameat_with(CWD, stage, CWD, folder, RenameFlags::EXCHANGE).map_err(io::Error::from) {
        // What was there is where the new one was, and goes with it.
        Ok(()) => return Ok(true),
        Err(error) if !cannot(&error) => return Ok(Err(error).on_file("publish", folder)?),
        Err(_) => {}
    }
    let (above, name) = (stage::above(folder), folder.file_name().unwrap_or_default().to_string_lossy());
    let aside = Stage::fresh(above, &aside_start(&name))?;
    let old = aside.path();
    match fs::rename(folder, old) {
        Ok(()) => {}
        Err(error) if cannot(&error) => return Ok(false),
        Err(error) => return Ok(Err(error).on_file("publish", folder)?),
    }
    if let Err(error) = fs::rename(stage, folder) {
        fs::rename(old, folder).on_file("put back", folder)?;
        return Ok(Err(error).on_file("publish", folder)?);
    }
    File::open(above).and_then(|above| above.sync_all()).on_file("sync", above)?;
    Ok(true)
}

/// Gives what is not ours in a folder a second name in the next one, so that no moment is without it; returns false where they are on
/// different file systems.
fn carry_over(
    store: &Store,
    folder: &Path,
    stage: &Path,
    before: Option<&Published>,
) -> Result<bool, PublishError> {
    let mut foreign = Vec::new();
    list_foreign(store, folder, Path::new(""), before, &mut foreign)?;
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
        match fs::hard_link(&old, &new) {
            Err(error) if cannot(&error) => return Ok(false),
            linked => linked.on_file("keep", &old)?,
        }
    }
    Ok(true)
}

/// How the folders begin that files wait in until they take their places.
const WAITING: &str = ".stagegraph.new-";

/// Removes files that wait for a process that has ended.
pub(super) fn remove_waiting(folder: &Path) -> Result<(), PublishError> {
    for left in stage::left(folder, WAITING) {
        stage::remove(&left)?;
    }
    Ok(())
}

/// Replaces the files of a folder one by one; `listing` is the path of the one that says which are ours. None has its name before all
/// are there; what was published before and is no more, goes at the end.
pub(super) fn replace_files(
    store: &Store,
    folder: &Path,
    listing: &Path,
    files: &Files,
    published: &mut Published,
    before: Option<&Published>,
) -> Result<(), PublishError> {
    let waiting = Stage::fresh(folder, WAITING)?;
    let top = waiting.path();
    fill(store, top, files, published, before.map(|before| (folder, before)))?;
    if let Some(before) = before {
        signed::keep(store, folder, top, before, published)?;
    }
    // In a folder of ours, what is not listed is somebody's; beside other files, the names are the caller's to give.
    let is_free = listing.file_name().is_some_and(|name| name != LISTING);
    for path in files.keys() {
        let place = path.below(folder);
        let Ok(found) = place.symlink_metadata() else { continue };
        let name = path.to_string();
        let listed = before.and_then(|before| before.files.get_key_value(&name));
        if found.is_dir() || !(is_free || found.is_file() && is_ours(store, &place, listed, before)?) {
            return Err(PublishError::InTheWay(place));
        }
    }
    published.write(listing, true)?;
    for path in files.keys() {
        let place = path.below(folder);
        if let Some(parent) = place.parent().filter(|parent| !parent.is_dir()) {
            fs::create_dir_all(parent).on_file("make", parent)?;
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).on_file("chmod", parent)?;
        }
        fs::rename(path.below(top), &place).on_file("publish", &place)?;
    }
    remove_former(store, folder, files, published, before)?;
    fs::rename(next_to(listing), listing).on_file("write", listing)?;
    File::open(folder).and_then(|folder| folder.sync_all()).on_file("sync", folder)?;
    Ok(())
}

/// Removes what was published before, is still that, and is not published any more; and folders that are empty then.
fn remove_former(
    store: &Store,
    folder: &Path,
    files: &Files,
    published: &Published,
    before: Option<&Published>,
) -> Result<(), PublishError> {
    let is_published = |name: &str| {
        files.keys().any(|path| path.to_string() == name) || published.signatures.contains_key(name)
    };
    for listed in before.into_iter().flat_map(Published::ours) {
        let (name, place) = (listed.0, folder.join(listed.0));
        let is_file = place.symlink_metadata().is_ok_and(|found| found.is_file());
        if is_published(name) || !is_file || !is_ours(store, &place, Some(listed), before)? {
            continue;
        }
        fs::remove_file(&place).on_file("remove", &place)?;
        let folders: Vec<PathBuf> =
            place.ancestors().skip(1).take_while(|above| *above != folder).map(Path::to_owned).collect();
        // One that has something in it stays.
        folders.iter().take_while(|above| fs::remove_dir(above).is_ok()).for_each(drop);
    }
    Ok(())
}
