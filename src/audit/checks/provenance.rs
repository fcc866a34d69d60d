//! The check of what builders say of a set.

use std::collections::{BTreeMap, BTreeSet};

use super::select::{count, listed, set_loaders};
use super::signatures::has_hash;
use crate::audit::facts::{Facts, Kind, StatementFacts, Target};
use crate::audit::report::{Check, Outcome};
use crate::formats::checksums::Algorithm;

pub(super) fn provenance(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let (mut claimed, mut trusted) = (BTreeSet::new(), BTreeSet::new());
    let mut keys = Keys::default();
    for statement in &facts.statements {
        outcome.looked();
        if let Some(why) = wrong(facts, statement) {
            outcome.differs(
                format!("{}:{}", statement.file, statement.line),
                why,
                "have that builder build again and sign; or take the line away",
            );
            continue;
        }
        claimed.extend(statement.builder.as_deref());
        if !statement.keys.is_empty() {
            trusted.extend(statement.builder.as_deref());
            keys.add(statement);
        }
    }
    let Some(threshold) = facts.threshold else {
        let ok = format!(
            "{} so: {}; not checked: give their keys with --builders",
            count(claimed.len(), "builder says", "builders say"),
            listed(claimed)
        );
        return outcome.says(ok, "no builder says what it is made of");
    };
    outcome.looked();
    if keys.of_iso.len() < threshold {
        outcome.differs(
            &facts.iso.name,
            format!(
                "{} of --builders signed what it is made of; {threshold} are wanted",
                count(keys.of_iso.len(), "key", "keys")
            ),
            "have more builders build it and sign; or lower --threshold",
        );
    } else {
        demand(facts, &keys, threshold, &mut outcome);
    }
    let ok = count(keys.of_iso.len(), "trusted builder", "trusted builders");
    outcome.says(format!("{ok} signed: {}", listed(trusted)), "")
}

/// The trusted keys that signed what files are made of.
#[derive(Default)]
struct Keys<'a> {
    of_iso: BTreeSet<&'a str>,
    of_parts: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Keys<'a> {
    fn add(&mut self, statement: &'a StatementFacts) {
        let keys = || statement.keys.iter().map(String::as_str);
        for (target, _) in statement.found.iter().flatten() {
            match target {
                Target::Iso => self.of_iso.extend(keys()),
                Target::Part(name) => self.of_parts.entry(name).or_default().extend(keys()),
                Target::Missing | Target::Climbs => {}
            }
        }
    }
}

/// Wants everything that boots to be of a build that so many trusted builders signed.
fn demand(facts: &Facts, keys: &Keys<'_>, threshold: usize, outcome: &mut Outcome) {
    let enough = keys.of_parts.iter().filter(|(_, keys)| keys.len() >= threshold).map(|(name, _)| *name);
    let names = facts.with_same_file(&enough.collect());
    let loaders = set_loaders(facts);
    for part in facts.parts.values().filter(|part| !names.contains(part.name.as_str())) {
        let boots =
            matches!(part.kind, Kind::Kernel | Kind::Initramfs | Kind::Squashfs | Kind::Menu | Kind::Iso);
        if boots || loaders.contains(part.name.as_str()) {
            outcome.differs(
                &part.name,
                "is of no build that enough trusted builders signed",
                "take it away; or publish what was built, and nothing beside it",
            );
        }
    }
}

/// Says what is wrong with a statement.
fn wrong(facts: &Facts, statement: &StatementFacts) -> Option<String> {
    let files = match &statement.found {
        Ok(files) => files,
        Err(why) => return Some(why.clone()),
    };
    if !files.iter().any(|(target, _)| *target == Target::Iso) {
        return Some(format!("is about another ISO than {}", facts.iso.name));
    }
    files.iter().find_map(|(target, sha256)| {
        let found = has_hash(facts, target, Algorithm::Sha256);
        let name = match target {
            Target::Iso => &facts.iso.name,
            Target::Part(name) => name,
            // That files are missing is the manifest's to say.
            Target::Missing | Target::Climbs => return None,
        };
        (found.as_ref() != Some(sha256)).then(|| format!("is about another {name}"))
    })
}
