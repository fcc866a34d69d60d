//! `digests`: the digest files that Gentoo publishes, for every file of a folder, in a fixed order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use blake2::Blake2b512;
use cache::{Blob, Objects, Output};
use flate2::{Compression, GzBuilder};
use graph::{Job, Step, StepError};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256, Sha512};

use super::kind::{Inputs, Kind, Made, folder, identity};
use crate::config::{Fields, SpecError};
use crate::formats::checksums::{Algorithm, hex};
use crate::formats::iso9660::Iso;
use crate::image::Image;

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 2;

/// Gives `files`. Its inputs are the folders whose files it names; where some are published and others are not, it names those that are.
///
/// With `iso = true` the ISO comes first and gets a `.sha256` and a `.CONTENTS.gz`, as on Gentoo's
/// mirrors; else the file is called `DIGESTS`. With `each = true`, every other file gets a list and a `.sha256` too; without
/// an ISO, there are no others then.
pub(super) const KIND: Kind = Kind { name: "digests", inputs: Inputs::Any, make };

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let iso = fields.bool("iso", false).then(|| image.iso_name());
    let mut hashes = Vec::new();
    for (name, item) in fields.texts("hashes") {
        match Algorithm::of_lists(name) {
            Some(known) => hashes.push(known),
            None => fields.wrong(
                SpecError::at(&item.origin, format!("{name:?} is not a hash for digests"))
                    .label("blake2b, sha512 or sha256"),
            ),
        }
    }
    if hashes.is_empty() {
        hashes = vec![Algorithm::Blake2b, Algorithm::Sha512];
    }
    let bsd = fields.read("format", |item| match item.as_text()? {
        "linux" => Ok(false),
        "bsd" => Ok(true),
        _ => Err(SpecError::at(&item.origin, "digests have no such format").label("linux or bsd")),
    });
    let bsd = bsd.unwrap_or(false);
    let each = fields.bool("each", false);
    let published = fields.published();
    let is_kept = |input: &str| !published.is_empty() && !published.contains_key(input);
    let kept = fields.entries("input").into_iter().map(|(input, _)| input.to_owned());
    let kept = kept.filter(|input| is_kept(input)).collect();
    Some(Made::new(Digests { iso, hashes, bsd, each, kept }, &["files/"]))
}

#[derive(Serialize)]
struct Digests {
    iso: Option<String>,
    hashes: Vec<Algorithm>,
    /// `NAME (file) = hash` in place of `hash  file`.
    bsd: bool,
    /// Whether every file gets a list of its own as well, and a `.sha256`.
    each: bool,
    /// The inputs that nobody publishes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    kept: BTreeSet<String>,
}

/// The hashes of one file, in hex.
type Hashes = BTreeMap<Algorithm, String>;

/// Where the store remembers hashes by the digest of the object.
const MEMO: &str = "blake2b sha512";

/// Hashes a file in one reading, once for all lists that name it; with SHA-256 where that is asked for.
fn hash(objects: &Objects, blob: &Blob, with_sha256: bool) -> Result<Hashes, StepError> {
    let key = blob.digest.to_string();
    let known = objects.memo(MEMO, &key)?;
    let (blake2b, sha512) = match known.as_deref().and_then(|known| known.split_once(' ')) {
        Some((blake2b, sha512)) => (blake2b.to_owned(), sha512.to_owned()),
        None => {
            let (blake2b, sha512) = read(objects, blob, with_sha256)?;
            objects.set_memo(MEMO, &key, &format!("{blake2b} {sha512}"))?;
            (blake2b, sha512)
        }
    };
    let mut hashes = BTreeMap::from([(Algorithm::Blake2b, blake2b), (Algorithm::Sha512, sha512)]);
    if with_sha256 {
        hashes.insert(Algorithm::Sha256, objects.sha256(&blob.digest)?.to_string());
    }
    Ok(hashes)
}

/// Returns BLAKE2b and SHA-512 of a file, in hex, of the bytes that the digest names and of no others. Where it will be asked
/// for its SHA-256 as well, the store learns it on the way.
fn read(objects: &Objects, blob: &Blob, with_sha256: bool) -> Result<(String, String), StepError> {
    let (mut blake2b, mut sha512) = (Blake2b512::new(), Sha512::new());
    let mut sha256 = with_sha256.then(Sha256::new);
    objects.read_through(&blob.digest, |piece| {
        let others = || {
            blake2b.update(piece);
            sha256.iter_mut().for_each(|sha256| sha256.update(piece));
        };
        rayon::join(|| sha512.update(piece), others);
    })?;
    if let Some(sha256) = sha256 {
        objects.keep_sha256(&blob.digest, sha256)?;
    }
    Ok((hex(&blake2b.finalize()), hex(&sha512.finalize())))
}

impl Digests {
    /// Renders one file's lines: a comment and the hash for each kind.
    fn lines(&self, name: &str, hashes: &Hashes) -> String {
        let line = |hash: &Algorithm| Some(self.line(*hash, name, hashes.get(hash)?));
        self.hashes.iter().filter_map(line).collect()
    }

    fn line(&self, hash: Algorithm, name: &str, hex: &str) -> String {
        let kind = hash.listed();
        if self.bsd {
            format!("# {kind} HASH\n{kind} ({name}) = {hex}\n")
        } else {
            format!("# {kind} HASH\n{hex}  {name}\n")
        }
    }
}

/// Lists an ISO's files, sorted, gzipped.
fn contents(job: &Job<'_>, iso: &Blob) -> Result<Vec<u8>, StepError> {
    let iso = Iso::open(&job.objects.verified(&iso.digest)?).map_err(StepError::action)?;
    let mut listing = Vec::new();
    for path in iso.files.keys() {
        listing.extend_from_slice(b"/");
        listing.extend_from_slice(path.as_bytes());
        listing.push(b'\n');
    }
    Ok(gzipped(&listing))
}

/// Gzips a listing, without a date. An update of the library may give other bytes: `pins.rs` notices.
pub(super) fn gzipped(listing: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(listing).and_then(|()| gzip.finish()).expect("memory takes all that is written")
}

impl Step for Digests {
    identity!(version VERSION);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let mut named: BTreeMap<String, Blob> = BTreeMap::new();
        for input in job.inputs.keys().filter(|input| !self.kept.contains(*input)) {
            for (path, digest, size) in job.tree(input)?.tree.files() {
                let name = path.to_string();
                if named.insert(name.clone(), Blob { digest, size }).is_some() {
                    return Err(StepError::spec(format!("two inputs of {} have a file {name}", job.node)));
                }
            }
        }
        let mut first = Vec::new();
        let mut outputs = Vec::new();
        if let Some(name) = &self.iso {
            let iso = named
                .remove(name)
                .ok_or_else(|| StepError::spec(format!("no input of {} has the ISO {name}", job.node)))?;
            let listing = format!("{name}.CONTENTS.gz");
            let contents = job.objects.put(&contents(job, &iso)?)?;
            outputs.push((listing.clone(), contents));
            first.extend([(name.clone(), iso), (listing, contents)]);
        }
        // Gentoo's two files first, then all others by name.
        let all: Vec<(String, Blob)> = first.into_iter().chain(named).collect();
        job.progress("hashing", 0, None);
        // The ISO has its lists, and its listing is in them.
        let is_in_isos = |name: &str, iso: &String| name == iso || name == format!("{iso}.CONTENTS.gz");
        let has_own = |name: &str| self.each && !self.iso.as_ref().is_some_and(|iso| is_in_isos(name, iso));
        let has_sha256 = |name: &str| has_own(name) || self.iso.as_deref() == Some(name);
        let in_lists = self.hashes.contains(&Algorithm::Sha256);
        let hash = |(name, blob): &(String, Blob)| hash(job.objects, blob, in_lists || has_sha256(name));
        let hashed = all.par_iter().map(hash).collect::<Result<Vec<Hashes>, StepError>>()?;
        for ((name, _), hashes) in all.iter().zip(&hashed) {
            if has_own(name) {
                let lines = self.lines(name, hashes);
                outputs.push((format!("{name}.DIGESTS"), job.objects.put(lines.as_bytes())?));
            }
            if let Some(hex) = hashes.get(&Algorithm::Sha256).filter(|_| has_sha256(name)) {
                let sha256 = self.line(Algorithm::Sha256, name, hex);
                outputs.push((format!("{name}.sha256"), job.objects.put(sha256.as_bytes())?));
            }
        }
        let of_all = match &self.iso {
            Some(iso) => Some(format!("{iso}.DIGESTS")),
            // Without an ISO, lists of single files are all there is: they lie among other images' files.
            None => (!self.each).then(|| "DIGESTS".to_owned()),
        };
        if let Some(name) = of_all {
            let lines: String =
                all.iter().zip(&hashed).map(|((name, _), hashes)| self.lines(name, hashes)).collect();
            outputs.push((name, job.objects.put(lines.as_bytes())?));
        }
        Ok(BTreeMap::from([("files".to_owned(), folder(job.objects, outputs)?)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gentoo_digests_file_of_an_iso_has_774_bytes() {
        // As on the mirrors, where an ISO has a name of 42 characters.
        let name = "install-amd64-minimal-20260101T000000Z.iso";
        assert_eq!(name.len(), 42);
        let hashes = [(Algorithm::Blake2b, 128), (Algorithm::Sha512, 128), (Algorithm::Sha256, 64)];
        let hashes = hashes.map(|(hash, digits)| (hash, "0".repeat(digits))).into();
        let digests = Digests {
            iso: None,
            hashes: vec![Algorithm::Blake2b, Algorithm::Sha512],
            bsd: false,
            each: false,
            kept: BTreeSet::new(),
        };
        let text = digests.lines(name, &hashes) + &digests.lines(&format!("{name}.CONTENTS.gz"), &hashes);
        assert_eq!(text.len(), 774);
    }
}
