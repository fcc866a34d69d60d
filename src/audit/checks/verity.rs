//! Whether initrds have the squashfs checked block by block, and by the right hashes.

use std::collections::BTreeSet;

use cache::BlobDigest;
use cache::name::RelPath;

use super::select::{count, listed};
use crate::audit::facts::{Facts, Kind, Part};
use crate::audit::report::{Check, Outcome};
use crate::audit::walk::Walk;
use crate::formats::verity::{CHECKS, HOOK, TREE, hook_path};

const ANEW: &str = "make the initrd anew, of the squashfs that it boots: the step verity does";

/// Returns the paths of what has the squashfs checked, and of the folders it lies in; none where an initramfs has nothing of it.
pub(super) fn paths(walk: &Walk) -> BTreeSet<String> {
    let verity = &walk.initramfs.verity;
    let (Some(_), Some(hooks)) = (&verity.checks, &verity.hooks) else { return BTreeSet::new() };
    let files = [CHECKS.to_owned(), TREE.to_owned(), hook_path(hooks)];
    let folders = files.iter().filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned()));
    folders.collect::<Vec<_>>().into_iter().chain(files).collect()
}

pub(super) fn verity(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut roots = BTreeSet::new();
    let mut right = 0;
    let initrds = facts.iso.of_kind(Kind::Initramfs).chain(facts.of_kind(Kind::Initramfs));
    for part in initrds {
        let Some(walk) = part.contents() else { continue };
        let has = |path: &str| {
            RelPath::new(path.as_bytes()).is_ok_and(|path| walk.initramfs.files.get(&path).is_some())
        };
        if !has(CHECKS) {
            continue;
        }
        outcome.looked();
        let before = outcome.findings.len();
        judge(facts, part, walk, &mut outcome);
        if outcome.findings.len() == before {
            right += 1;
            roots.extend(walk.initramfs.verity.checks.as_ref().map(|checks| checks.root.as_str()));
        }
    }
    let root = listed(roots);
    outcome.says(
        format!(
            "{} the squashfs checked; its root hash is {root}",
            count(right, "initrd has", "initrds have")
        ),
        "no initrd has the squashfs checked block by block",
    )
}

fn judge(facts: &Facts, part: &Part, walk: &Walk, outcome: &mut Outcome) {
    let verity = &walk.initramfs.verity;
    let digest = |path: &str| walk.digests.get(&RelPath::new(path.as_bytes()).ok()?);
    let Some(checks) = &verity.checks else {
        outcome.differs(&part.name, format!("has a /{CHECKS} that cannot be read"), ANEW);
        return;
    };
    if !verity.lacks.is_empty() {
        let what = format!("is to have the squashfs checked, and lacks {}", verity.lacks.join(", "));
        outcome.differs(
            &part.name,
            what,
            "make it with dracut's dmsquash-live, dmsetup, losetup and dm-verity.ko",
        );
    }
    match &facts.iso.tree {
        None => outcome.warns(
            &part.name,
            "has a squashfs checked, and the ISO has none that the hash tree could be of",
            "see what it boots",
        ),
        Some(tree) if tree.root != checks.root || tree.blocks != checks.blocks => {
            let what = format!(
                "has the squashfs checked by the root hash {}…; that of the ISO's is {}…: no machine boots it",
                &checks.root[..12],
                &tree.root[..12]
            );
            outcome.differs(&part.name, what, ANEW);
        }
        Some(tree) if digest(TREE) != Some(&tree.digest) => {
            let what = format!("/{TREE} is not the hash tree of the squashfs: no machine boots it");
            outcome.differs(&part.name, what, ANEW);
        }
        Some(_) => {}
    }
    let hook = verity.hooks.as_deref().map(hook_path).unwrap_or_default();
    match digest(&hook) {
        None => {
            let what = format!("has a hash tree, and no /{hook}, which would use it: nothing is checked");
            outcome.differs(&part.name, what, ANEW);
        }
        Some(found) if *found != BlobDigest::of(HOOK.as_bytes()) => outcome.warns(
            &part.name,
            format!("/{hook} is not this version's: what it does is not judged"),
            "audit it with the version of stagegraph that made it",
        ),
        Some(_) => {}
    }
}
