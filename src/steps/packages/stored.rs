//! Packages in the store: which object has the hash of a package is remembered, so that none is fetched twice.

use std::path::Path;

use cache::{BlobDigest, Objects};
use graph::{Job, StepError};

use crate::config::Package;

/// Under this name the store remembers which object has a SHA-256.
const BY_SHA256: &str = "sha256";

/// Returns the object that is a package; `None` where the store has none.
pub(super) fn find(objects: &Objects, package: &Package) -> Result<Option<BlobDigest>, StepError> {
    let memo = objects.memo(BY_SHA256, &package.sha256.to_string())?;
    let Some(digest) = memo.and_then(|text| text.parse().ok()) else { return Ok(None) };
    Ok(objects.contains(&digest)?.then_some(digest))
}

/// Takes a file into the store that should be a package.
pub(super) fn take(job: &Job<'_>, package: &Package, path: &Path, from: &str) -> Result<(), StepError> {
    let blob = job.objects.adopt(path)?;
    let sha256 = job.objects.sha256(&blob.digest)?;
    if sha256 != package.sha256 {
        let Package { name, version, sha256: wanted, .. } = package;
        return Err(StepError::environment(format!(
            "{name} {version} from {from} has the SHA-256 {sha256}; it should have {wanted}"
        ))
        .with_hint("nothing of it was used; the archive is damaged, or is not what it says it is"));
    }
    job.objects.set_memo(BY_SHA256, &sha256.to_string(), &blob.digest.to_string())?;
    Ok(())
}
