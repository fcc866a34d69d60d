//! Signs what was built of what: a statement for each manifest, one line a builder, in `X.iso.intoto.jsonl`.

use std::path::Path;

use cache::BlobDigest;
use trust::dsse::{Envelope, MAX_ENVELOPE};

use super::outcome::{Signed, SigningError, is_signed_there, read_to, replace};
use super::signers::Builder;
use crate::manifest::{ENDING, Manifest};
use crate::provenance::{PAYLOAD_TYPE, STATEMENTS, Statement};
use crate::publish::Signature;

/// Signs statements of the manifests among the files.
pub(super) fn sign(
    folder: &Path,
    files: &[String],
    builder: &Builder,
    signed: &mut Signed,
) -> Result<(), SigningError> {
    for name in files {
        if let Some(image) = name.strip_suffix(ENDING) {
            sign_one(folder, name, &format!("{image}{STATEMENTS}"), builder, signed)?;
        }
    }
    Ok(())
}

fn sign_one(
    folder: &Path,
    name: &str,
    beside: &str,
    builder: &Builder,
    signed: &mut Signed,
) -> Result<(), SigningError> {
    let path = folder.join(name);
    let text = read_to(&path, MAX_ENVELOPE)?;
    let bad = |why: String| SigningError::Unverified { file: name.to_owned(), why };
    let manifest = Manifest::read(&String::from_utf8_lossy(&text)).map_err(|error| bad(error.to_string()))?;
    let payload = Statement::of(&manifest, &builder.id).encode();
    let there = folder.join(beside);
    let before = match is_signed_there(&there)? {
        true => read_to(&there, MAX_ENVELOPE)?,
        false => Vec::new(),
    };
    let before = String::from_utf8_lossy(&before).into_owned();
    let public = builder.key.public();
    let is_own =
        |line: &&str| Envelope::parse(line, PAYLOAD_TYPE).is_ok_and(|envelope| envelope.is_by(public));
    let says_so = |line: &str| {
        Envelope::parse(line, PAYLOAD_TYPE)
            .and_then(|envelope| envelope.payload())
            .is_ok_and(|said| said == payload)
    };
    let (own, others): (Vec<&str>, Vec<&str>) =
        before.lines().filter(|line| Envelope::parse(line, PAYLOAD_TYPE).is_ok()).partition(is_own);
    let bytes = if let [line] = own[..]
        && says_so(line)
    {
        signed.kept.push(beside.to_owned());
        before.into_bytes()
    } else {
        let envelope = builder.key.sign(PAYLOAD_TYPE, &payload)?;
        let line = serde_json::to_string(&envelope).map_err(|error| bad(error.to_string()))?;
        let lines: String =
            others.iter().map(|line| format!("{line}\n")).chain([format!("{line}\n")]).collect();
        replace(&there, lines.as_bytes())?;
        signed.made.push(beside.to_owned());
        lines.into_bytes()
    };
    let record =
        Signature { of: name.to_owned(), unsigned: BlobDigest::of(&text), bytes: BlobDigest::of(&bytes) };
    signed.records.insert(beside.to_owned(), record);
    Ok(())
}
