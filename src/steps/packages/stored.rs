//! Packages in the store: which object has the hash of a package is remembered, so that none is fetched twice.

use std::path::Path;

use cache::{BlobDigest, Objects};
use graph::{Job, StepError};

use super::deb;
use crate::config::Package;
use crate::formats::control::field;

/// Under this name the store remembers which object has a SHA-256.
const BY_SHA256: &str = "sha256";

/// Returns the object that is a package; `None` where the store has none.
pub(super) fn find(objects: &Objects, package: &Package) -> Result<Option<BlobDigest>, StepError> {
    let memo = objects.memo(BY_SHA256, &package.sha256.to_string())?;
    let Some(digest) = memo.and_then(|text| text.parse().ok()) else { return Ok(None) };
    Ok(objects.contains(&digest)?.then_some(digest))
}

/// Takes a file into the store that should be a package.
pub(super) fn take(job: &Job<'_>, package: &Package, path: &Path) -> Result<(), StepError> {
    let blob = job.objects.adopt(path)?;
    let sha256 = job.objects.sha256(&blob.digest)?;
    if sha256 != package.sha256 {
        let Package { name, version, sha256: wanted, .. } = package;
        return Err(StepError::environment(format!(
            "{name} {version} was fetched with the SHA-256 {sha256}; it should have {wanted}"
        ))
        .with_hint("nothing of it was used; the archive is damaged, or is not what it says it is"));
    }
    job.objects.set_memo(BY_SHA256, &sha256.to_string(), &blob.digest.to_string())?;
    Ok(())
}

/// Compares a package with what is said of it: whoever writes a lock may write anything beside a hash. Returns its control file.
pub(super) fn checked(package: &Package, bytes: &[u8]) -> Result<String, StepError> {
    let Package { name, version, architecture, size, .. } = package;
    let control =
        deb::control(bytes).map_err(|error| StepError::action(format!("{name} {version}: {error}")))?;
    let [own_name, own_version, own_architecture] =
        ["Package", "Version", "Architecture"].map(|name| field(&control, name).unwrap_or_default());
    let said = format!("{name} {version} for {architecture}, of {size} bytes");
    let is = format!("{own_name} {own_version} for {own_architecture}, of {} bytes", bytes.len());
    if said == is {
        return Ok(control);
    }
    Err(StepError::spec(format!(
        "the package with the SHA-256 {} is {is}; it should be {said}",
        package.sha256
    )))
}
