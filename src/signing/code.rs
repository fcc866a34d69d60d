//! Signs by CMS what iPXE loads: `F.ipxe.sig` beside each kernel, initrd, squashfs and script.

use std::path::Path;
use std::time::SystemTime;

use cache::digest::BlobHasher;
use cache::{BlobDigest, FileError};
use sha2::{Digest, Sha256};
use trust::cms::{CodeJudgement, CodeSignature};
use trust::sign::Openssl;

use super::outcome::{Signed, SigningError, is_signed_there, read_through, read_to, replace};
use crate::audit::{CODE_HEAD, CODE_SIGNATURE, takes_code_signature};
use crate::publish::Signature;

/// Signs those of the files that iPXE loads.
pub(super) fn sign(
    folder: &Path,
    files: &[String],
    openssl: &Openssl,
    signed: &mut Signed,
) -> Result<(), SigningError> {
    for name in files {
        if takes_code_signature(name, &read_to(&folder.join(name), CODE_HEAD)?) {
            sign_one(folder, name, openssl, signed)?;
        }
    }
    Ok(())
}

fn sign_one(folder: &Path, name: &str, openssl: &Openssl, signed: &mut Signed) -> Result<(), SigningError> {
    let path = folder.join(name);
    let beside = format!("{name}{CODE_SIGNATURE}");
    let there = folder.join(&beside);
    let (unsigned, sha256) = digests(&path)?;
    let is_bad = |bytes: &[u8]| {
        let signature = match CodeSignature::parse(bytes) {
            Ok(signature) => signature,
            Err(why) => return Some(why),
        };
        match signature.judge(&sha256, None, SystemTime::now()) {
            CodeJudgement::Bad(why) => Some(why),
            _ if !signature.is_by(openssl.chain()) => Some(format!("it is by {}", signature.signer())),
            CodeJudgement::Good | CodeJudgement::Foreign => None,
        }
    };
    let before =
        is_signed_there(&there)?.then(|| read_to(&there, trust::cms::MAX_SIGNATURE + 1).ok()).flatten();
    let bytes = match before.filter(|bytes| is_bad(bytes).is_none()) {
        Some(bytes) => {
            signed.kept.push(name.to_owned());
            bytes
        }
        None => {
            let bytes = openssl.sign(&path)?;
            if let Some(why) = is_bad(&bytes) {
                return Err(SigningError::Unverified { file: name.to_owned(), why });
            }
            replace(&there, &bytes)?;
            signed.made.push(name.to_owned());
            bytes
        }
    };
    let record = Signature { of: name.to_owned(), unsigned, bytes: BlobDigest::of(&bytes) };
    signed.records.insert(beside, record);
    Ok(())
}

/// Returns the digests of a file, of one reading.
fn digests(path: &Path) -> Result<(BlobDigest, [u8; 32]), FileError> {
    let (mut blob, mut sha256) = (BlobHasher::default(), Sha256::new());
    read_through(path, |piece| {
        blob.update(piece);
        sha256.update(piece);
    })?;
    Ok((blob.finish(), sha256.finalize().into()))
}
