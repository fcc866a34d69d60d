//! The lists of checksums and the manifests of a set, and the files they are about.

use std::collections::BTreeMap;

use super::super::facts::{ChecksumFacts, Kind, ManifestFacts, Part, Target};
use super::super::place::Place;
use super::super::set::{Set, SetError, names_in_set};
use super::super::signatures::Trusted;
use super::super::sniff::first_look;
use super::signatures::clear_signed;
use super::{BesideIso, Gatherer};
use crate::formats::checksums;
use crate::manifest::{Manifest, ManifestError};

impl Gatherer<'_> {
    pub(super) fn read_checksums(
        &mut self,
        set: &mut Set,
        parts: &mut BTreeMap<String, Part>,
        iso_name: &str,
        beside_iso: &BesideIso,
        trusted: &Trusted,
    ) -> Result<Vec<ChecksumFacts>, SetError> {
        let files: Vec<String> = parts
            .values()
            .filter(|part| part.kind == Kind::Checksums)
            .map(|part| part.name.clone())
            .collect();
        let mut lists = Vec::new();
        for file in files {
            let Some(place) = set.files.get(&file).cloned() else { continue };
            let text = match place.text() {
                Ok(text) => text,
                Err(error) => {
                    self.unreadable.push((file, error.to_string()));
                    continue;
                }
            };
            let signed = text.as_deref().and_then(|text| clear_signed(&file, text, trusted));
            let parsed = text.as_deref().ok_or_else(|| "it is no text".to_owned());
            let parsed = parsed.and_then(|text| checksums::parse(&file, text));
            // Only what a signature covers counts, as whoever verifies it reads it.
            let parsed = match &signed {
                Some((_, Some((covered, before)))) => {
                    parsed.and_then(|_| checksums::parse(&file, covered)).map(|parsed| parsed.behind(*before))
                }
                _ => parsed,
            };
            self.signatures.extend(signed.map(|(facts, _)| facts));
            let beside = beside_iso.lists.contains(&file);
            let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            let unknown = parsed.as_ref().map(|parsed| parsed.unknown.clone()).unwrap_or_default();
            let mut target = |name: &str| -> Result<Target, SetError> {
                if name == iso_name {
                    return Ok(Target::Iso);
                }
                let plain = name.strip_prefix("./").unwrap_or(name);
                if beside && beside_iso.names.contains(plain) {
                    let place = Place::Local(beside_iso.folder.join(plain));
                    set.files.entry(plain.to_owned()).or_insert(place);
                }
                if plain.starts_with('/') {
                    return Ok(Target::Climbs);
                }
                match names_in_set(plain, &folder) {
                    Err(()) => Ok(Target::Climbs),
                    Ok(names) => {
                        for name in names {
                            if set.find(&name)? {
                                if !parts.contains_key(&name)
                                    && let Some(place) = set.files.get(&name)
                                {
                                    let (part, _) = first_look(&name, place, &mut self.unreadable);
                                    parts.insert(name.clone(), part);
                                }
                                return Ok(Target::Part(name));
                            }
                        }
                        Ok(if plain.ends_with(iso_name) { Target::Iso } else { Target::Missing })
                    }
                }
            };
            let lines = match parsed {
                Err(error) => Err(error),
                Ok(parsed) => {
                    let mut lines = Vec::new();
                    for line in parsed.files {
                        let found = target(&line.name)?;
                        lines.push((line, found));
                    }
                    Ok(lines)
                }
            };
            let text = text.unwrap_or_default();
            lists.push(ChecksumFacts { file, beside_iso: beside, lines, text, unknown });
        }
        Ok(lists)
    }

    pub(super) fn read_manifests(
        &mut self,
        set: &Set,
        parts: &BTreeMap<String, Part>,
        iso_name: &str,
    ) -> Vec<ManifestFacts> {
        let files: Vec<&Part> = parts.values().filter(|part| part.kind == Kind::Manifest).collect();
        let mut manifests = Vec::new();
        for part in files {
            let Some(place) = set.files.get(&part.name) else { continue };
            let text = match place.text() {
                Ok(text) => text,
                Err(error) => {
                    self.unreadable.push((part.name.clone(), error.to_string()));
                    continue;
                }
            };
            let document = match &text {
                Some(text) => Manifest::read(text),
                None => Err(ManifestError::Syntax("it is not a text".to_owned())),
            };
            let text = text.unwrap_or_default();
            let folder = part.name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let named = document.as_ref().ok().map(|document| document.files.keys());
            let targets = named.into_iter().flatten().map(|name| {
                if name == iso_name {
                    return (name.clone(), Target::Iso);
                }
                let found = names_in_set(name, folder).unwrap_or_default();
                let found = found.into_iter().find(|name| parts.contains_key(name));
                (name.clone(), found.map_or(Target::Missing, Target::Part))
            });
            let files = targets.collect();
            manifests.push(ManifestFacts { file: part.name.clone(), text, document, files });
        }
        manifests
    }
}
