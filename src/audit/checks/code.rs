//! The check of signatures by CMS, which iPXE verifies.

use std::collections::BTreeSet;

use trust::cms::CodeJudgement;

use super::select::{count, listed, set_menus};
use crate::audit::facts::{Facts, Loader, MenuFacts, Target, article};
use crate::audit::report::{Check, Outcome};
use crate::audit::signatures::CODE_SIGNATURE;
use crate::audit::sniff::is_loaded_by_ipxe;

const AGAIN: &str = "sign the set again: stagegraph sign FOLDER";

pub(super) fn code_signatures(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let (mut signers, mut good) = (BTreeSet::new(), BTreeSet::new());
    for signature in &facts.code_signatures {
        outcome.looked();
        let Target::Part(of) = &signature.of else {
            outcome.warns(
                &signature.file,
                "is a signature of nothing that is here",
                "put what it is on beside it, or take it away",
            );
            continue;
        };
        let signer = signature.signer.as_deref().unwrap_or("nobody that it names");
        match &signature.judgement {
            CodeJudgement::Good => {
                good.insert(of.as_str());
                signers.insert(signer);
            }
            CodeJudgement::Foreign => outcome.differs(
                &signature.file,
                format!("is by {signer}, and no authority that --ca names says that they may sign"),
                "name the root that does with --ca, if it is to be believed",
            ),
            CodeJudgement::Bad(why) => {
                outcome.differs(
                    &signature.file,
                    format!("is no signature of {of} that iPXE takes: {why}"),
                    AGAIN,
                );
            }
        }
    }
    if facts.has_authorities {
        outcome.looked();
        let is_script = |name: &str| scripts(facts).any(|menu| menu.file == name);
        let loaded = loaded(facts);
        for part in facts.parts.values().filter(|part| !good.contains(part.name.as_str())) {
            let name = part.name.as_str();
            if is_loaded_by_ipxe(part.kind, name) || is_script(name) || loaded.contains(name) {
                let what = if is_script(&part.name) { "a script" } else { article(part.kind) };
                outcome.differs(
                    &part.name,
                    format!(
                        "is {what} that iPXE loads, and no good {}{CODE_SIGNATURE} is beside it",
                        part.name
                    ),
                    AGAIN,
                );
            }
        }
    }
    let ok = format!("{} good: by {}", count(good.len(), "is", "are"), listed(signers));
    let ok = match facts.has_authorities {
        true => ok,
        false => format!("{ok}, whom the root inside vouches for; --ca says whom to believe"),
    };
    outcome.says(ok, "there are none")
}

/// Returns the set's scripts of iPXE.
fn scripts(facts: &Facts) -> impl Iterator<Item = &MenuFacts> {
    set_menus(facts).filter(|menu| menu.loader == Loader::Ipxe)
}

/// Returns what the set's scripts of iPXE load, whatever it is.
fn loaded(facts: &Facts) -> BTreeSet<&str> {
    let entries = scripts(facts).flat_map(|menu| &menu.entries);
    let names = entries.flat_map(|entry| {
        let initrds = entry.initrds.iter().filter_map(|loaded| loaded.part.as_deref());
        entry.kernel.as_deref().into_iter().chain(initrds)
    });
    names.collect()
}
