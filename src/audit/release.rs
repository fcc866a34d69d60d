//! Whether an ISO is a release, by the signatures beside it: asked before anything of it is used.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cache::BlobDigest;
use trust::openpgp::{self, Judgement, Keyring, Verdict};

use super::pass::{self, Detached, Wanted};
use super::place::{MAX_TEXT, Place};
use super::signatures::signed_by_name;
use crate::formats::checksums::{self, Algorithm, Checksum, is_named_like_checksums};

/// Why an ISO does not count as a release.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A signature is not good, or a signed list has another hash.
    #[error("{path}: {why}")]
    Bad {
        /// The file with the signature.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Nobody signed it.
    #[error(
        "{0} is not signed: there is no good signature beside it, neither of its own nor of a list that has its hash"
    )]
    Unsigned(PathBuf),
}

/// What lies beside an ISO and speaks of it.
#[derive(Default)]
struct Beside {
    wanted: Wanted,
    /// Lines of signed lists that are about it, and their lists.
    lines: Vec<(PathBuf, Checksum)>,
}

/// Verifies an ISO by what lies beside it: `X.iso.asc`, `.sig`, `.gpg`, and lists of checksums whose names begin with its own, which are
/// signed in place or by such a file. Returns the digest of the bytes that were verified, and the files that say so.
///
/// # Errors
/// [`ReleaseError`]: none does, or one is not good.
pub fn verify(iso: &Path, keyring: &Arc<Keyring>) -> Result<(BlobDigest, Vec<PathBuf>), ReleaseError> {
    let mut beside = look_beside(iso, keyring)?;
    beside.wanted.whole.push(Algorithm::Blake3);
    let failed = |source| ReleaseError::Read { path: iso.to_owned(), source };
    let mut read = pass::read_all(&[(Place::Local(iso.to_owned()), beside.wanted)], &AtomicBool::default());
    let learnt = read.pop().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into())).map_err(failed)?;
    let digest = learnt.whole.get(&Algorithm::Blake3).and_then(|hex| hex.parse().ok());
    let digest = digest.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
    let mut by = Vec::new();
    for (file, verdicts) in &learnt.signatures {
        by.push(is_good(Path::new(file), verdicts)?);
    }
    for (path, line) in beside.lines {
        let holds = line.algorithms.iter().any(|algorithm| learnt.whole.get(algorithm) == Some(&line.hex));
        if !holds {
            let why = format!("line {}: it has another hash of the ISO: these are other bytes", line.line);
            return Err(ReleaseError::Bad { path, why });
        }
        by.push(path);
    }
    by.sort();
    by.dedup();
    if by.is_empty() { Err(ReleaseError::Unsigned(iso.to_owned())) } else { Ok((digest, by)) }
}

fn look_beside(iso: &Path, keyring: &Arc<Keyring>) -> Result<Beside, ReleaseError> {
    let folder = iso.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = iso.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |source| ReleaseError::Read { path: folder.to_owned(), source };
    let mut beside = Beside::default();
    let entries = fs::read_dir(folder).map_err(failed)?;
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let path = folder.join(&name);
        if !name.starts_with(&own) || name == own || !path.is_file() {
            continue;
        }
        if signed_by_name(&name) == Some(&own) {
            let file = path.display().to_string();
            let signature = read(&path, openpgp::MAX_SIGNATURE)?.into();
            beside.wanted.signatures.push(Detached { file, keyring: Arc::clone(keyring), signature });
        } else if is_named_like_checksums(&name)
            && let Some(text) = signed_text(&path, keyring)?
        {
            let list = checksums::parse(&name, &text)
                .map_err(|why| ReleaseError::Bad { path: path.clone(), why })?;
            for line in list.files.into_iter().filter(|line| line.name.trim_start_matches("./") == own) {
                beside.wanted.whole.extend(&line.algorithms);
                beside.lines.push((path.clone(), line));
            }
        }
    }
    Ok(beside)
}

/// Returns what good signatures cover of a list; nothing where it has none.
fn signed_text(path: &Path, keyring: &Keyring) -> Result<Option<String>, ReleaseError> {
    let bytes = read(path, MAX_TEXT)?;
    if openpgp::is_clear_signed(&bytes) {
        let (covered, verdicts) = keyring.clear(&bytes);
        is_good(path, &verdicts)?;
        return Ok(Some(String::from_utf8_lossy(&covered).into_owned()));
    }
    let beside = PathBuf::from(format!("{}.asc", path.display()));
    if !beside.is_file() {
        return Ok(None);
    }
    let signature = read(&beside, openpgp::MAX_SIGNATURE)?;
    let failed = |source| ReleaseError::Read { path: beside.clone(), source };
    is_good(&beside, &keyring.detached(&signature, &bytes[..]).map_err(failed)?)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, ReleaseError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|source| ReleaseError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > most {
        let why = format!("it has more than {most} bytes");
        return Err(ReleaseError::Bad { path: path.to_owned(), why });
    }
    Ok(bytes)
}

/// Returns the file if one of its signatures is good and none is bad; one by a foreign key beside a good one is nobody's loss.
fn is_good(path: &Path, verdicts: &[Verdict]) -> Result<PathBuf, ReleaseError> {
    let bad = |why: String| ReleaseError::Bad { path: path.to_owned(), why };
    let mut foreign = "it has no signature".to_owned();
    let mut good = 0;
    for verdict in verdicts {
        match &verdict.judgement {
            Judgement::Good(_) => good += 1,
            Judgement::Foreign => {
                let key = verdict.claim.key.as_deref().unwrap_or("that it does not name");
                foreign = format!("the signature is by a key that the keyring lacks: {key}");
            }
            Judgement::Bad(why) => return Err(bad(format!("the signature is bad: {why}"))),
        }
    }
    if good > 0 { Ok(path.to_owned()) } else { Err(bad(foreign)) }
}
