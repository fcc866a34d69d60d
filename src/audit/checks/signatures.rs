//! Checks of signatures, and of what they cover.

use std::collections::BTreeSet;

use trust::openpgp::{Claim, Judgement, Verdict};

use super::select::{count, listed, set_loaders};
use crate::audit::facts::{Facts, Found, Kind, SignatureFacts, Target, article};
use crate::audit::pass::hash;
use crate::audit::report::{Check, Outcome};
use crate::formats::checksums::Algorithm;

const ANEW: &str = "fetch it again, from another mirror; what does not verify is not the release";

pub(super) fn signatures(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut says = BTreeSet::new();
    let mut good = 0;
    for signature in &facts.signatures {
        outcome.looked();
        match &signature.found {
            Found::Judged(verdicts) => {
                good += judge(facts, signature, verdicts, &mut says, &mut outcome);
            }
            Found::Claimed(claims) => says.extend(claims.iter().map(signed_by)),
            Found::Unusable(why) if facts.has_keyring => outcome.differs(&signature.file, why, ANEW),
            Found::Unusable(why) => {
                outcome.warns(&signature.file, format!("is no signature: {why}"), "sign it again");
            }
        }
        if signature.of == Target::Missing {
            outcome.warns(
                &signature.file,
                "is a signature of nothing that is here",
                "put what it is on beside it, or take it away",
            );
        }
    }
    let by: Vec<String> = says.into_iter().collect();
    let by = by.join("; ");
    let ok = match facts.has_keyring {
        true => format!("{} good: {by}", count(good, "signature is", "signatures are")),
        false => format!("{by}; not checked: give the key with --keyring"),
    };
    outcome.says(ok, "nothing is signed")
}

/// Judges the signatures of one file; returns how many are good.
fn judge(
    facts: &Facts,
    signature: &SignatureFacts,
    verdicts: &[Verdict],
    says: &mut BTreeSet<String>,
    outcome: &mut Outcome,
) -> usize {
    let on = match &signature.of {
        Target::Part(name) if *name != signature.file => format!(" of {name}"),
        Target::Iso => format!(" of {}", facts.iso.name),
        _ => String::new(),
    };
    if verdicts.is_empty() {
        outcome.differs(&signature.file, format!("the signature{on} was not verified"), ANEW);
    }
    let is_good = |verdict: &&Verdict| matches!(verdict.judgement, Judgement::Good(_));
    let good = verdicts.iter().filter(is_good).count();
    for Verdict { claim, judgement } in verdicts {
        let made = made(claim).map(|made| format!(" of {made}")).unwrap_or_default();
        match judgement {
            Judgement::Good(signer) => {
                let name = signer.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
                says.insert(format!("{}{name}{made}", signer.fingerprint));
                if let Some(since) = &signer.since {
                    let what =
                        format!("the signature{on} is good, but its key {} {since}", signer.fingerprint);
                    outcome.warns(&signature.file, what, "fetch the newer keyring of whoever signs");
                }
            }
            Judgement::Foreign => {
                let key = claim.key.as_deref().unwrap_or("that it does not name");
                let what = format!("the signature{on}{made} is by a key that the keyring lacks: {key}");
                let hint = "add the key to the keyring if its owner may sign releases";
                match good {
                    0 => outcome.differs(&signature.file, what, hint),
                    _ => outcome.warns(&signature.file, what, hint),
                }
            }
            Judgement::Bad(why) => {
                let what = format!("the signature{on}{made} is bad: {why}");
                outcome.differs(&signature.file, what, ANEW);
            }
        }
    }
    good
}

fn made(claim: &Claim) -> Option<String> {
    let time = jiff::Timestamp::from_second(claim.made?.try_into().ok()?).ok()?;
    Some(time.strftime("%Y-%m-%d").to_string())
}

/// Says what a signature says of itself.
fn signed_by(claim: &Claim) -> String {
    let made = made(claim).map(|made| format!(" on {made}")).unwrap_or_default();
    format!("signed by {}{made}", claim.key.as_deref().unwrap_or("a key that it does not name"))
}

pub(super) fn unsigned(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    if !facts.has_keyring {
        return outcome.says("", "there is no keyring");
    }
    outcome.looked();
    let covered = Covered::of(facts);
    let hint = "sign it, or a list that has its hash";
    if !covered.iso {
        outcome.differs(&facts.iso.name, "is covered by no good signature", hint);
    }
    let loaders = set_loaders(facts);
    let mut covers = 0;
    for part in facts.parts.values() {
        let what = match part.kind {
            Kind::Kernel | Kind::Initramfs | Kind::Squashfs => article(part.kind),
            Kind::Menu => "a script or a menu",
            Kind::Iso => "an ISO",
            _ if loaders.contains(part.name.as_str()) => "a boot loader",
            _ => continue,
        };
        match covered.parts.contains(part.name.as_str()) {
            true => covers += 1,
            false => outcome.differs(
                &part.name,
                format!("is {what} that no good signature covers, neither one of its own nor a list's"),
                hint,
            ),
        }
    }
    let by: Vec<&str> = covered.by.iter().map(String::as_str).collect();
    let by = listed(by);
    outcome.says(format!("the ISO and {}: by {by}", count(covers, "file that boots", "files that boot")), "")
}

/// What good signatures cover.
struct Covered<'a> {
    iso: bool,
    parts: BTreeSet<&'a str>,
    /// The files that say so.
    by: BTreeSet<String>,
}

impl<'a> Covered<'a> {
    /// Begins with what is signed itself, and goes on with what lists and manifests name that are covered.
    fn of(facts: &'a Facts) -> Self {
        let mut covered = Covered { iso: false, parts: BTreeSet::new(), by: BTreeSet::new() };
        let is_good = |verdict: &Verdict| matches!(verdict.judgement, Judgement::Good(_));
        for signature in &facts.signatures {
            let Found::Judged(verdicts) = &signature.found else { continue };
            if verdicts.iter().any(is_good) {
                covered.by.insert(signature.file.clone());
                covered.add(&signature.of);
            }
        }
        loop {
            let before = (covered.iso, covered.parts.len());
            covered.add_listed(facts);
            covered.add_manifested(facts);
            covered.add_same(facts);
            if before == (covered.iso, covered.parts.len()) {
                return covered;
            }
        }
    }

    fn add(&mut self, target: &'a Target) {
        match target {
            Target::Iso => self.iso = true,
            Target::Part(name) => drop(self.parts.insert(name)),
            Target::Missing | Target::Climbs => {}
        }
    }

    /// Adds what lists name that are covered themselves, where the hash is right.
    fn add_listed(&mut self, facts: &'a Facts) {
        for list in
            facts.checksums.iter().filter(|list| self.parts.contains(list.file.as_str())).collect::<Vec<_>>()
        {
            for (line, target) in list.lines.iter().flatten() {
                let holds = line.algorithms.iter().any(|algorithm| {
                    has_hash(facts, target, *algorithm).is_some_and(|found| found == line.hex)
                });
                if holds {
                    self.add(target);
                }
            }
        }
    }

    fn add_manifested(&mut self, facts: &'a Facts) {
        for manifest in &facts.manifests {
            let Ok(document) = &manifest.document else { continue };
            if !self.parts.contains(manifest.file.as_str()) {
                continue;
            }
            for (name, target) in &manifest.files {
                let said = document.files.get(name).map(|file| file.blake3.to_string());
                if said.is_some() && has_hash(facts, target, Algorithm::Blake3) == said {
                    self.add(target);
                }
            }
        }
    }

    /// Adds other names of the same files; and what is on an ISO that is covered, byte for byte.
    fn add_same(&mut self, facts: &'a Facts) {
        self.parts.extend(facts.with_same_file(&self.parts));
        if self.iso {
            let inside = facts.iso.parts.values().filter_map(|part| part.digest());
            let on_iso: BTreeSet<_> = inside.chain(facts.iso.digest()).collect();
            let same =
                facts.parts.values().filter(|part| part.digest().is_some_and(|own| on_iso.contains(&own)));
            self.parts.extend(same.map(|part| part.name.as_str()));
        }
    }
}

/// Returns the hash of what a list is about; of lists and manifests, that of the bytes by which they were judged.
pub(super) fn has_hash(facts: &Facts, target: &Target, algorithm: Algorithm) -> Option<String> {
    let name = match target {
        Target::Iso => return facts.iso.hashes.get(&algorithm).cloned(),
        Target::Part(name) => name,
        Target::Missing | Target::Climbs => return None,
    };
    let list = facts.checksums.iter().find(|list| list.file == *name).map(|list| &list.text);
    let manifest = || facts.manifests.iter().find(|manifest| manifest.file == *name).map(|found| &found.text);
    match list.or_else(manifest) {
        Some(text) => Some(hash(algorithm, text.as_bytes())),
        None => facts.parts.get(name)?.hashes.get(&algorithm).cloned(),
    }
}
