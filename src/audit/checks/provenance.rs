//! The check of what builders say of a set.

use std::collections::BTreeSet;

use super::select::{count, listed};
use super::signatures::has_hash;
use crate::audit::facts::{Facts, Kind, StatementFacts, Target};
use crate::audit::report::{Check, Outcome};
use crate::formats::checksums::Algorithm;

pub(super) fn provenance(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let (mut builders, mut keys, mut covered) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
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
        builders.extend(statement.builder.as_deref());
        if !statement.keys.is_empty() {
            covered.extend(statement.found.iter().flatten().map(|(target, _)| target));
        }
        keys.extend(statement.keys.iter().map(String::as_str));
    }
    let by = listed(builders.iter().copied());
    let Some(threshold) = facts.threshold else {
        let ok = format!(
            "{} so: {by}; not checked: give their keys with --builders",
            count(builders.len(), "builder says", "builders say")
        );
        return outcome.says(ok, "no builder says what it is made of");
    };
    outcome.looked();
    if keys.len() < threshold {
        outcome.differs(
            &facts.iso.name,
            format!(
                "{} of --builders signed what it is made of; {threshold} are wanted",
                count(keys.len(), "key", "keys")
            ),
            "have more builders build it and sign; or lower --threshold",
        );
    }
    if !keys.is_empty() && !covered.contains(&&Target::Iso) {
        outcome.differs(
            &facts.iso.name,
            "is of no build that a trusted builder signed",
            "name the ISO of that build",
        );
    }
    let names = covered.iter().filter_map(|target| match target {
        Target::Part(name) => Some(name.as_str()),
        _ => None,
    });
    let names = facts.with_same_file(&names.collect());
    let loaders: BTreeSet<&str> =
        facts.loaders.iter().filter(|loader| !loader.on_iso).map(|loader| loader.file.as_str()).collect();
    for part in facts.parts.values().filter(|part| !keys.is_empty() && !names.contains(part.name.as_str())) {
        let boots = matches!(part.kind, Kind::Kernel | Kind::Initramfs | Kind::Squashfs | Kind::Menu);
        if boots || loaders.contains(part.name.as_str()) {
            outcome.differs(
                &part.name,
                "is of no build that a trusted builder signed",
                "take it away; or publish what was built, and nothing beside it",
            );
        }
    }
    outcome.says(format!("{} signed: {by}", count(keys.len(), "trusted builder", "trusted builders")), "")
}

/// Says what is wrong with a statement.
fn wrong(facts: &Facts, statement: &StatementFacts) -> Option<String> {
    let files = match &statement.found {
        Ok(files) => files,
        Err(why) => return Some(why.clone()),
    };
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
