//! Detached signatures, by OpenPGP and by CMS: which there are, and what they are on.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use trust::openpgp;

use super::super::facts::{ChecksumFacts, Found, Kind, ManifestFacts, Part, SignatureFacts, Target};
use super::super::pass::{Detached, Learnt};
use super::super::place::Place;
use super::super::set::{Set, SetError};
use super::super::signatures::{CODE_SIGNATURE, ENDINGS, Trusted, signed_by_name};
use super::super::sniff::{first_look, is_loaded_by_ipxe};
use super::Gatherer;
use super::code::CodeSigned;
use crate::manifest::ENDING;
use crate::provenance::STATEMENTS;

/// What lies beside an ISO on a mirror and says what it is, by what its name ends with.
const BESIDE: [&str; 10] = [
    ".asc",
    ".sig",
    ".gpg",
    ".DIGESTS",
    ".DIGESTS.asc",
    ".sha256",
    ".sha512",
    ".sha256.asc",
    ENDING,
    STATEMENTS,
];

/// Judges a clear-signed text. With a keyring, what its signatures cover comes back, and in which line that begins; nothing else
/// of the text is to be believed.
pub(super) fn clear_signed(
    file: &str,
    text: &str,
    trusted: &Trusted,
) -> Option<(SignatureFacts, Option<(String, usize)>)> {
    if !openpgp::is_clear_signed(text.as_bytes()) {
        return None;
    }
    let (found, covered) = match &trusted.keyring {
        Some(keyring) => {
            let (covered, verdicts) = keyring.clear(text.as_bytes());
            // The headers in front end with an empty line.
            let mut lines = text.lines().enumerate().skip_while(|(_, line)| !line.contains("-----BEGIN"));
            let before = lines.find(|(_, line)| line.trim().is_empty()).map_or(0, |(index, _)| index + 1);
            (Found::Judged(verdicts), Some((String::from_utf8_lossy(&covered).into_owned(), before)))
        }
        None => (openpgp::claims(text.as_bytes()).map_or_else(Found::Unusable, Found::Claimed), None),
    };
    let of = Target::Part(file.to_owned());
    Some((SignatureFacts { file: file.to_owned(), of, found }, covered))
}

/// Tells by its bytes whether a file is a detached signature: servers have pages for what is not there.
fn is_signature(place: &Place) -> bool {
    bytes(place).is_ok_and(|bytes| openpgp::is_detached(&bytes))
}

/// Tells whether a file begins as a page for people does.
fn is_page(place: &Place) -> bool {
    place.head(64).is_ok_and(|head| head.trim_ascii_start().starts_with(b"<"))
}

fn bytes(place: &Place) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    place.open()?.take(openpgp::MAX_SIGNATURE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > openpgp::MAX_SIGNATURE {
        return Err(std::io::Error::other(format!(
            "it has more than {} bytes, which no signature has",
            openpgp::MAX_SIGNATURE
        )));
    }
    Ok(bytes)
}

impl Gatherer<'_> {
    /// Asks a server for what may lie beside an ISO; what is there is taken into the set. Returns the lists among it.
    pub(super) fn ask_beside(&mut self, iso_place: &Place, iso_name: &str, set: &mut Set) -> Vec<String> {
        let mut lists = Vec::new();
        let Place::Remote(iso) = iso_place else { return lists };
        for end in BESIDE {
            let name = format!("{iso_name}{end}");
            if set.files.contains_key(&name) {
                continue;
            }
            let place = match iso.beside(&name) {
                Ok(file) => Place::Remote(Box::new(file)),
                Err(error) if error.is_missing() => continue,
                Err(error) => {
                    self.unreadable.push((name, error.to_string()));
                    continue;
                }
            };
            let is_other = [ENDING, STATEMENTS].contains(&end) && !is_page(&place);
            let is_list = signed_by_name(&name).is_none() && !is_other && !is_page(&place);
            if is_list {
                lists.push(name.clone());
            }
            if is_list || is_other || is_signature(&place) {
                set.files.insert(name, place);
            }
        }
        lists
    }

    /// Finds the detached signatures of a set. Those on lists and manifests are judged at once, by the bytes that were read of
    /// these; those that come back are on what is still to be read.
    pub(super) fn read_signatures(
        &mut self,
        set: &mut Set,
        parts: &mut BTreeMap<String, Part>,
        iso_name: &str,
        lists: &[ChecksumFacts],
        manifests: &[ManifestFacts],
        trusted: &Trusted,
    ) -> Result<Vec<(Target, Detached)>, SetError> {
        self.ask_for_signatures(set, parts, lists, manifests, trusted)?;
        let texts: BTreeMap<&str, &str> = lists
            .iter()
            .map(|list| (list.file.as_str(), list.text.as_str()))
            .chain(manifests.iter().map(|manifest| (manifest.file.as_str(), manifest.text.as_str())))
            .collect();
        let mut waiting = Vec::new();
        let is_one = |part: &&Part| {
            part.kind == Kind::Signature
                || part.kind == Kind::Other
                    && signed_by_name(&part.name).is_some_and(|of| is_there(of, iso_name, set, parts))
        };
        let files: Vec<String> = parts.values().filter(is_one).map(|part| part.name.clone()).collect();
        for file in files.into_iter().filter(|file| !file.ends_with(CODE_SIGNATURE)) {
            let Some(place) = set.files.get(&file) else { continue };
            let signature = match bytes(place) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.unreadable.push((file, error.to_string()));
                    continue;
                }
            };
            let of = signed_by_name(&file).unwrap_or(&file);
            let of = match of {
                of if of.rsplit('/').next() == Some(iso_name) => Target::Iso,
                of if of != file && parts.contains_key(of) => Target::Part(of.to_owned()),
                _ => Target::Missing,
            };
            let found = match (openpgp::claims(&signature), &trusted.keyring, &of) {
                (Err(why), ..) => Found::Unusable(why),
                (Ok(claims), None, _) | (Ok(claims), _, Target::Missing | Target::Climbs) => {
                    Found::Claimed(claims)
                }
                (Ok(_), Some(keyring), Target::Part(name)) if texts.contains_key(name.as_str()) => {
                    let text = texts.get(name.as_str()).copied().unwrap_or_default();
                    Found::Judged(keyring.detached(&signature, text.as_bytes()).unwrap_or_default())
                }
                (Ok(_), Some(keyring), _) => {
                    let detached = Detached {
                        file: file.clone(),
                        keyring: Arc::clone(keyring),
                        signature: signature.into(),
                    };
                    waiting.push((of.clone(), detached));
                    // Nothing is good that was not read to its end.
                    Found::Judged(Vec::new())
                }
            };
            self.signatures.push(SignatureFacts { file, of, found });
        }
        Ok(waiting)
    }

    /// Takes in how signatures were judged while what they are on was read.
    pub(super) fn learn_signatures<'l>(&mut self, learnt: impl Iterator<Item = &'l Learnt>) {
        for (file, verdicts) in learnt.flat_map(|learnt| &learnt.signatures) {
            if let Some(facts) = self.signatures.iter_mut().find(|facts| facts.file == *file) {
                facts.found = Found::Judged(verdicts.clone());
            }
        }
    }

    /// Asks a server, which lists nothing, for signatures of lists and manifests.
    fn ask_for_signatures(
        &mut self,
        set: &mut Set,
        parts: &mut BTreeMap<String, Part>,
        lists: &[ChecksumFacts],
        manifests: &[ManifestFacts],
        trusted: &Trusted,
    ) -> Result<(), SetError> {
        if trusted.keyring.is_none() || set.folder_path().is_some() {
            return Ok(());
        }
        let signed =
            lists.iter().map(|list| &list.file).chain(manifests.iter().map(|manifest| &manifest.file));
        for (file, end) in signed.flat_map(|file| ENDINGS.map(|end| (file, end))) {
            let name = format!("{file}{end}");
            if set.files.contains_key(&name) || !set.find(&name)? {
                continue;
            }
            let Some(place) = set.files.get(&name).cloned() else { continue };
            if is_signature(&place) {
                let (part, _) = first_look(&name, &place, &mut self.unreadable);
                parts.insert(name, part);
            } else {
                set.files.remove(&name);
            }
        }
        Ok(())
    }
}

impl Gatherer<'_> {
    /// Finds the signatures of a set.
    pub(super) fn read_code_signatures(
        &mut self,
        set: &mut Set,
        parts: &mut BTreeMap<String, Part>,
        trusted: &Trusted,
    ) -> Result<Vec<CodeSigned>, SetError> {
        if trusted.authorities.is_some() && set.folder_path().is_none() {
            self.ask_for_code_signatures(set, parts)?;
        }
        let mut all = Vec::new();
        for name in parts.keys() {
            let (Some(of), Some(place)) = (name.strip_suffix(CODE_SIGNATURE), set.files.get(name)) else {
                continue;
            };
            let of = match parts.contains_key(of) {
                true => Target::Part(of.to_owned()),
                false => Target::Missing,
            };
            match CodeSigned::read(name, of, place) {
                Ok(signed) => all.push(signed),
                Err(error) => self.unreadable.push((name.clone(), error.to_string())),
            }
        }
        Ok(all)
    }

    /// Asks a server, which lists nothing, for signatures of what iPXE loads.
    fn ask_for_code_signatures(
        &mut self,
        set: &mut Set,
        parts: &mut BTreeMap<String, Part>,
    ) -> Result<(), SetError> {
        let loaded = parts.values().filter(|part| is_loaded_by_ipxe(part.kind, &part.name));
        let names: Vec<String> = loaded.map(|part| format!("{}{CODE_SIGNATURE}", part.name)).collect();
        for name in names {
            if parts.contains_key(&name) || !set.find(&name)? {
                continue;
            }
            let Some(place) = set.files.get(&name).cloned() else { continue };
            // Servers have pages for what is not there.
            if place.head(1).is_ok_and(|head| head != b"<") {
                let (part, _) = first_look(&name, &place, &mut self.unreadable);
                parts.insert(name, part);
            } else {
                set.files.remove(&name);
            }
        }
        Ok(())
    }
}

fn is_there(name: &str, iso_name: &str, set: &Set, parts: &BTreeMap<String, Part>) -> bool {
    name.rsplit('/').next() == Some(iso_name) || set.files.contains_key(name) || parts.contains_key(name)
}
