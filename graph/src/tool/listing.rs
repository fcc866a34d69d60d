//! What a tool of this machine is made of: the paths and contents of its files, in one listing.
//!
//! ```text
//! listing = "stagegraph files 1\n" entry*            entries in order of path
//! entry   = bytes(path) bytes(what)                  what: "folder", "link " and its target, "file " and its digest in hex
//! bytes   = u32(length, little-endian) and that many
//! ```
//! The digest of the listing is the identity of the tool. The listing is an object of the store, so that two of them can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::stat::{KnownFiles, Stat};
use cache::{BlobDigest, Look, Objects, StoreError};

/// Opens every listing; another first line is another format, and every tool another tool.
const MAGIC: &[u8] = b"stagegraph files 1\n";

/// Paths, and what is there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Listing(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl Listing {
    /// Lists files and folders with all below them: by the path inside the sandbox, from the path outside.
    pub(super) fn of(objects: &Objects, files: &BTreeMap<PathBuf, PathBuf>) -> Result<Self, StoreError> {
        let mut listing = Self::default();
        for (shown, real) in files {
            let known = if real.is_dir() { objects.known_files(real)? } else { KnownFiles::default() };
            listing.add(objects, shown, real, &known)?;
        }
        Ok(listing)
    }

    /// `known` are the digests of the files below the folder this is in.
    fn add(
        &mut self,
        objects: &Objects,
        shown: &Path,
        real: &Path,
        known: &KnownFiles,
    ) -> Result<(), StoreError> {
        let found = fs::symlink_metadata(real).on_file("read", real)?;
        let kind = found.file_type();
        let what = if kind.is_symlink() {
            [b"link ", fs::read_link(real).on_file("read", real)?.as_os_str().as_bytes()].concat()
        } else if kind.is_dir() {
            for entry in fs::read_dir(real).on_file("list", real)? {
                let name = entry.on_file("list", real)?.file_name();
                self.add(objects, &shown.join(&name), &real.join(&name), known)?;
            }
            b"folder".to_vec()
        } else {
            format!("file {}", known.digest(objects, real, &Stat::of(real, &found))?).into_bytes()
        };
        self.0.insert(shown.as_os_str().as_bytes().to_vec(), what);
        Ok(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for bytes in self.0.iter().flat_map(|(path, what)| [path, what]) {
            // Paths are of four kilobytes at most.
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Reads an encoding; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut next = || {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let (bytes, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(bytes.to_vec())
        };
        let mut entries = BTreeMap::new();
        while let Some(path) = next() {
            entries.insert(path, next()?);
        }
        let listing = Self(entries);
        (listing.encode() == bytes).then_some(listing)
    }
}

/// Returns the digest of the listing of files and folders, from memory where a look shows no change. The listing is in the store then.
pub(super) fn known_identity(
    objects: &Objects,
    files: &BTreeMap<PathBuf, PathBuf>,
) -> Result<BlobDigest, StoreError> {
    let places: Vec<&Path> = files.values().map(PathBuf::as_path).collect();
    let look = || Look::at(&places).ok();
    let before = look();
    let mut paths = cache::digest::BlobHasher::default();
    for path in files.iter().flat_map(|(shown, real)| [shown, real]) {
        paths.update(path.as_os_str().as_bytes());
        paths.update(&[0]);
    }
    let key = paths.finish().to_string();
    if let (Some(look), Some(known)) = (&before, objects.memo(SPACE, &key)?)
        && let Some((seen, identity)) = known.split_once(' ')
        && seen == look.digest.to_string()
        && let Ok(identity) = identity.parse()
        && objects.contains(&identity)?
    {
        return Ok(identity);
    }
    let identity = identity(objects, files)?;
    // What changed meanwhile, or just before, is looked at again.
    if let Some(before) = before.filter(|before| before.is_settled)
        && look() == Some(before)
    {
        objects.set_memo(SPACE, &key, &format!("{} {identity}", before.digest))?;
    }
    Ok(identity)
}

/// Where it is remembered what a look stood for.
const SPACE: &str = "listings";

/// Lists files and folders; returns the digest of the listing, which is in the store.
pub(super) fn identity(
    objects: &Objects,
    files: &BTreeMap<PathBuf, PathBuf>,
) -> Result<BlobDigest, StoreError> {
    Ok(objects.put(&Listing::of(objects, files)?.encode())?.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(entries: &[(&str, &str)]) -> Listing {
        let entry = |(path, what): &(&str, &str)| (path.as_bytes().to_vec(), what.as_bytes().to_vec());
        Listing(entries.iter().map(entry).collect())
    }

    #[test]
    fn a_listing_reads_back_and_the_digest_of_its_encoding_is_pinned() {
        let known = listing(&[("/bin/sh", "link dash"), ("/bin/dash", "file ab"), ("/bin", "folder")]);
        assert_eq!(Listing::decode(&known.encode()), Some(known.clone()));
        assert_eq!(Listing::decode(&known.encode()[..50]), None);
        assert_eq!(Listing::decode(b"text"), None);
        let digest = BlobDigest::of(&known.encode()).to_string();
        assert_eq!(digest, "1a409ce6e62ea632d9c551a6f77340104ec1d2b3e2d388526a3cbeadadd55db0");
    }

    #[test]
    fn moving_a_byte_between_a_path_and_what_is_there_is_another_listing() {
        assert_ne!(listing(&[("ab", "c")]).encode(), listing(&[("a", "bc")]).encode());
    }
}
