//! Signatures of what is published: they stay while what they are on stays, and go with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cache::Store;
use cache::file::OnFile;

use super::listing::{LISTING, PublishError, Published, Signature, read, stat};

/// Signs a folder; takes the signatures that it has, and returns all that it has then.
pub type Signing<'a> = dyn Fn(
        &Path,
        &BTreeMap<String, Signature>,
    ) -> Result<BTreeMap<String, Signature>, Box<dyn std::error::Error + Send + Sync>>
    + 'a;

/// Signs what is to be published; returns whether that made anything.
pub(super) fn sign(
    folder: &Path,
    published: &mut Published,
    sign: Option<&Signing<'_>>,
) -> Result<bool, PublishError> {
    let Some(sign) = sign else { return Ok(false) };
    let signatures = sign(folder, &published.signatures).map_err(PublishError::Unsigned)?;
    let is_new = signatures != published.signatures;
    published.unsigned.retain(|name| !signatures.values().any(|signature| signature.of == *name));
    published.take(folder, signatures)?;
    Ok(is_new)
}

/// Signs what is published, and notes it; returns whether that made anything.
pub(super) fn sign_there(
    folder: &Path,
    published: &mut Published,
    by: Option<&Signing<'_>>,
) -> Result<bool, PublishError> {
    let is_new = sign(folder, published, by)?;
    if is_new {
        note(folder, &published.signatures)?;
    }
    Ok(is_new)
}

/// Returns the signatures that the listing of a published folder knows; none where it has no listing.
///
/// # Errors
/// [`PublishError`]: it cannot be read.
pub fn signatures(folder: &Path) -> Result<BTreeMap<String, Signature>, PublishError> {
    Ok(read(&folder.join(LISTING))?.map(|published| published.signatures).unwrap_or_default())
}

/// Notes in the listing of a published folder what was signed; a folder without a listing has nothing to note.
///
/// # Errors
/// [`PublishError`]: the listing cannot be read or written.
pub fn note(folder: &Path, signatures: &BTreeMap<String, Signature>) -> Result<(), PublishError> {
    let listing = folder.join(LISTING);
    let Some(mut published) = read(&listing)?.filter(|published| published.former.is_none()) else {
        return Ok(());
    };
    published.take(folder, signatures.clone())?;
    Ok(published.write(&listing, false)?)
}

impl Published {
    /// Takes the signatures of a folder for those of what is published: of what was signed before and is gone, nothing stays.
    fn take(&mut self, folder: &Path, signatures: BTreeMap<String, Signature>) -> Result<(), PublishError> {
        for name in signatures.keys() {
            let place = folder.join(name);
            self.stats.insert(name.clone(), stat(&place).on_file("read", &place)?);
        }
        self.signatures = signatures;
        Ok(())
    }
}

/// Tells whether every signature is there as it was made.
pub(super) fn are_whole(store: &Store, folder: &Path, before: &Published) -> Result<bool, PublishError> {
    for (name, signature) in &before.signatures {
        let place = folder.join(name);
        let is_file = fs::symlink_metadata(&place).is_ok_and(|found| found.is_file());
        if !is_file || store.file_digest(&place)? != signature.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes signatures over from what was published before into what is filled, as far as what they are on did not change.
pub(super) fn keep(
    store: &Store,
    folder: &Path,
    stage: &Path,
    before: &Published,
    published: &mut Published,
) -> Result<(), PublishError> {
    for (name, signature) in &before.signatures {
        let (old, new) = (folder.join(name), stage.join(name));
        let is_same = published.files.get(&signature.of) == Some(&signature.unsigned);
        if !is_same || !old.is_file() || store.file_digest(&old)? != signature.bytes {
            if published.files.contains_key(&signature.of) {
                published.unsigned.push(signature.of.clone());
            }
            continue;
        }
        if new.symlink_metadata().is_ok() {
            fs::remove_file(&new).on_file("remove", &new)?;
        }
        if fs::hard_link(&old, &new).is_err() {
            fs::copy(&old, &new).on_file("write", &new)?;
            fs::File::open(&new).and_then(|file| file.sync_all()).on_file("sync", &new)?;
        }
        published.stats.insert(name.clone(), stat(&new).on_file("read", &new)?);
        published.signatures.insert(name.clone(), signature.clone());
    }
    Ok(())
}
