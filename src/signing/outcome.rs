//! What comes of signing, and how files are read and written by it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cache::FileError;
use cache::file::OnFile;
use trust::sign::SignError;

use crate::publish::Signature;

/// Why a folder was not signed, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// What was signed does not verify.
    #[error("{file}: the signature that was made does not verify: {why}")]
    Unverified {
        /// What was signed.
        file: String,
        /// Why not.
        why: String,
    },
    /// A list is signed already, and not by this key, or it was changed since.
    #[error("{file} is signed already, and not well by {key}: {why}")]
    Signed {
        /// The list.
        file: String,
        /// The key that was to sign.
        key: String,
        /// What is wrong with the signature.
        why: String,
    },
    /// A signature is to be where something else is: a link, a folder.
    #[error("{0} is no plain file, and a signature is to be there")]
    Odd(PathBuf),
    /// There is nothing to sign.
    #[error("{0} has nothing to sign: no ISO, no list of checksums, nothing that iPXE loads")]
    Nothing(PathBuf),
}

/// What was signed.
#[derive(Debug, Default)]
pub struct Signed {
    /// The files that have new signatures.
    pub made: Vec<String>,
    /// The files whose signatures were good already.
    pub kept: Vec<String>,
    /// All signatures, by the files that they are in.
    pub records: BTreeMap<String, Signature>,
}

/// Reads a file, and no more of it than so many bytes.
pub(super) fn read_to(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).on_file("read", path)?;
    Ok(bytes)
}

/// Hands on the bytes of a file, piece by piece.
pub(super) fn read_through(path: &Path, mut each: impl FnMut(&[u8])) -> Result<(), FileError> {
    let mut file = File::open(path).on_file("read", path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).on_file("read", path)? {
            0 => return Ok(()),
            read => each(&buffer[..read]),
        }
    }
}

/// Tells whether a file is where a signature is to be. A link leads to something else, whose bytes would be published.
pub(super) fn is_signed_there(place: &Path) -> Result<bool, SigningError> {
    match fs::symlink_metadata(place) {
        Ok(found) if !found.is_file() => Err(SigningError::Odd(place.to_owned())),
        found => Ok(found.is_ok()),
    }
}

/// Puts bytes in the place of a file by a rename: what was there may be a link to an object of the store.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".signing-").tempfile_in(folder).on_file("write", path)?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().set_permissions(fs::Permissions::from_mode(0o644)))
        .and_then(|()| file.as_file().sync_all())
        .on_file("write", path)?;
    file.persist(path).map_err(|error| error.error).on_file("write", path)?;
    File::open(folder).and_then(|folder| folder.sync_all()).on_file("sync", folder)
}
