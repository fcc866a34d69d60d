//! Fills a folder with what is to be published.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{BlobDigest, Store};

use super::listing::{Files, PublishError, Published, stat};

/// Fills a fresh folder with links to the objects, or to files of the folder that was published before.
pub(super) fn fill(
    store: &Store,
    stage: &Path,
    files: &Files,
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
