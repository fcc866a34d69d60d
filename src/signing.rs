//! Signs a published folder: its lists of checksums in place, its ISOs and what iPXE loads by files beside them.
//!
//! Nothing of it is part of the graph: what nodes make is unsigned, and the same for everybody. The programs of the user's hold the
//! keys; what they give is verified by other code before it has its name.

mod code;
mod outcome;
mod signers;
mod statements;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use cache::digest::BlobHasher;
use cache::file::OnFile;
use cache::{BlobDigest, FileError};
use trust::openpgp::{self, Judgement, Keyring, Verdict};
use trust::sign::Gpg;

pub use self::outcome::{Signed, SigningError};
use self::outcome::{is_signed_there, read_through, read_to, replace};
pub use self::signers::{Builder, Signers, SignersError};
use crate::formats::checksums::{is_named_like_checksums, is_signature};
use crate::publish::Signature;

/// Folders inside folders.
const MAX_DEPTH: usize = 16;

/// A list that is longer is none.
const MAX_LIST: u64 = 64 << 20;

/// Signs what is to be signed of a folder; `before` are the signatures that it has. What has a good signature by the key is left alone,
/// so that signing twice changes nothing.
///
/// # Errors
/// [`SigningError`]; what was signed by then is sound, and a second run goes on.
pub fn sign(
    folder: &Path,
    signers: &Signers,
    before: &BTreeMap<String, Signature>,
) -> Result<Signed, SigningError> {
    let mut files = Vec::new();
    list(folder, "", 0, &mut files)?;
    let mut signed = Signed::default();
    if let Some(openssl) = &signers.cms {
        code::sign(folder, &files, openssl, &mut signed)?;
    }
    if let Some(gpg) = &signers.openpgp {
        let signer = Signer { folder, gpg, keyring: gpg.keyring()?, before };
        for name in &files {
            if is_list(folder, name)? {
                signer.list(name, &mut signed)?;
            } else if name.ends_with(".iso") {
                signer.iso(name, &mut signed)?;
            }
        }
    }
    if let Some(builder) = &signers.builder {
        statements::sign(folder, &files, builder, &mut signed)?;
    }
    // What another signer made, who is not named this time, stays.
    for (name, signature) in before {
        if !signed.records.contains_key(name) && folder.join(name).is_file() {
            signed.records.insert(name.clone(), signature.clone());
        }
    }
    if signed.records.is_empty() {
        return Err(SigningError::Nothing(folder.to_owned()));
    }
    Ok(signed)
}

/// Lists the files of a folder, as paths below it. Links lead elsewhere, and what begins with a dot is not for others.
fn list(folder: &Path, below: &str, depth: usize, files: &mut Vec<String>) -> Result<(), FileError> {
    let here = folder.join(below);
    let mut names: Vec<_> =
        fs::read_dir(&here).on_file("list", &here)?.collect::<Result<_, _>>().on_file("list", &here)?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().on_file("read", &here)?;
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if kind.is_dir() && depth < MAX_DEPTH {
            list(folder, &path, depth + 1, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn is_list(folder: &Path, name: &str) -> Result<bool, FileError> {
    if !is_named_like_checksums(name) {
        return Ok(false);
    }
    let path = folder.join(name);
    Ok(!is_signature(&read_to(&path, 64)?))
}

/// Signs files of one folder.
struct Signer<'a> {
    folder: &'a Path,
    gpg: &'a Gpg,
    keyring: Keyring,
    before: &'a BTreeMap<String, Signature>,
}

impl Signer<'_> {
    /// Signs a list in place.
    fn list(&self, name: &str, signed: &mut Signed) -> Result<(), SigningError> {
        let path = self.folder.join(name);
        let text = read_to(&path, MAX_LIST)?;
        if openpgp::is_clear_signed(&text) {
            let (_, verdicts) = self.keyring.clear(&text);
            let why = bad(&verdicts);
            if let Some(why) = why {
                let (file, key) = (name.to_owned(), self.gpg.key().to_owned());
                return Err(SigningError::Signed { file, key, why });
            }
            let bytes = BlobDigest::of(&text);
            // Of one that somebody else signed with the same key, only what is there now is known.
            let unsigned = self.before.get(name).map_or(bytes, |before| before.unsigned);
            signed.records.insert(name.to_owned(), Signature { of: name.to_owned(), unsigned, bytes });
            signed.kept.push(name.to_owned());
            return Ok(());
        }
        let signature = self.gpg.clear_sign(&path)?;
        let (covered, verdicts) = self.keyring.clear(&signature);
        let why = bad(&verdicts).or_else(|| {
            (!same_lines(&covered, &text))
                .then(|| "it covers another text: the list was changed meanwhile".to_owned())
        });
        if let Some(why) = why {
            return Err(SigningError::Unverified { file: name.to_owned(), why });
        }
        replace(&path, &signature)?;
        let record = Signature {
            of: name.to_owned(),
            unsigned: BlobDigest::of(&text),
            bytes: BlobDigest::of(&signature),
        };
        signed.records.insert(name.to_owned(), record);
        signed.made.push(name.to_owned());
        Ok(())
    }

    /// Signs an ISO: the signature is a file beside it.
    fn iso(&self, name: &str, signed: &mut Signed) -> Result<(), SigningError> {
        let path = self.folder.join(name);
        let beside = format!("{name}.asc");
        let there = self.folder.join(&beside);
        let is_good = |signature: &[u8]| -> Result<Option<String>, SigningError> {
            let file = File::open(&path).on_file("read", &path)?;
            Ok(bad(&self.keyring.detached(signature, file).on_file("read", &path)?))
        };
        let record = |bytes: &[u8]| -> Result<Signature, SigningError> {
            Ok(Signature { of: name.to_owned(), unsigned: digest(&path)?, bytes: BlobDigest::of(bytes) })
        };
        if is_signed_there(&there)?
            && let Ok(signature) = read_to(&there, openpgp::MAX_SIGNATURE + 1)
            && is_good(&signature)?.is_none()
        {
            signed.records.insert(beside, record(&signature)?);
            signed.kept.push(name.to_owned());
            return Ok(());
        }
        let signature = self.gpg.detach_sign(&path)?;
        if let Some(why) = is_good(&signature)? {
            return Err(SigningError::Unverified { file: name.to_owned(), why });
        }
        let record = record(&signature)?;
        replace(&there, &signature)?;
        signed.records.insert(beside, record);
        signed.made.push(name.to_owned());
        Ok(())
    }
}

/// Says what is wrong with signatures; nothing where there is one, and all are good.
fn bad(verdicts: &[Verdict]) -> Option<String> {
    if verdicts.is_empty() {
        return Some("there is none".to_owned());
    }
    verdicts.iter().find_map(|verdict| match &verdict.judgement {
        Judgement::Good(_) => None,
        Judgement::Foreign => {
            let key = verdict.claim.key.as_deref().unwrap_or("which it does not name");
            Some(format!("it is by another key, {key}"))
        }
        Judgement::Bad(why) => Some(why.clone()),
    })
}

/// Compares texts as a signature does that is made in place: ends of lines, and blanks in front of them, do not count.
fn same_lines(one: &[u8], other: &[u8]) -> bool {
    let lines = |text: &[u8]| {
        let lines: Vec<Vec<u8>> =
            text.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end().to_vec()).collect();
        let length = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
        lines[..length].to_vec()
    };
    lines(one) == lines(other)
}

/// Returns the digest of a file.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &Path) -> Result<BlobDigest, FileError> {
    let mut hasher = BlobHasher::default();
    read_through(path, |piece| hasher.update(piece))?;
    Ok(hasher.finish())
}
