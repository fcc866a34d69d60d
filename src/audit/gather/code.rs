//! Signatures by CMS, which iPXE verifies: which there are, and whether they are those of the files beside them.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::SystemTime;

use trust::cms::{CodeJudgement, CodeSignature, MAX_SIGNATURE};

use super::super::facts::{CodeSignatureFacts, Part, Target};
use super::super::place::Place;
use super::super::signatures::Trusted;
use crate::formats::checksums::Algorithm;

/// A signature that was read, and is not judged yet.
pub(super) struct CodeSigned {
    file: String,
    pub(super) of: Target,
    found: Result<CodeSignature, String>,
}

impl CodeSigned {
    /// Reads the signature of a file.
    pub(super) fn read(file: &str, of: Target, place: &Place) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        place.open()?.take(MAX_SIGNATURE + 1).read_to_end(&mut bytes)?;
        Ok(Self { file: file.to_owned(), of, found: parse(&bytes) })
    }
}

fn parse(bytes: &[u8]) -> Result<CodeSignature, String> {
    match bytes.len() as u64 > MAX_SIGNATURE {
        true => Err(format!("it has more than {MAX_SIGNATURE} bytes, which no signature by CMS has")),
        false => CodeSignature::parse(bytes),
    }
}

/// Judges signatures by the hashes that were learnt of the files.
pub(super) fn judge(
    signatures: Vec<CodeSigned>,
    parts: &BTreeMap<String, Part>,
    trusted: &Trusted,
) -> Vec<CodeSignatureFacts> {
    let now = SystemTime::now();
    let judged = signatures.into_iter().map(|CodeSigned { file, of, found }| {
        let hash = match &of {
            Target::Part(name) => parts.get(name).and_then(sha256),
            _ => None,
        };
        let signer = found.as_ref().map(CodeSignature::signer).ok();
        let judgement = match (found, hash) {
            (Err(why), _) => CodeJudgement::Bad(why),
            // Nothing is good that was not read to its end.
            (Ok(_), None) => CodeJudgement::Bad("what it is on was not read".to_owned()),
            (Ok(signature), Some(hash)) => signature.judge(&hash, trusted.authorities.as_deref(), now),
        };
        CodeSignatureFacts { file, of, signer, judgement }
    });
    judged.collect()
}

fn sha256(part: &Part) -> Option<[u8; 32]> {
    let hex = part.hashes.get(&Algorithm::Sha256)?;
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    (hex.len() == 64).then_some(bytes)
}
