//! That what is imported is a release, by the signatures that lie beside it; asked before a byte of it is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::file::OnFile;
use cache::{BlobDigest, StoreError};
use graph::{Resolving, StepError};
use trust::openpgp::{Keyring, KeyringError};

use crate::audit::{self, ReleaseError};

/// Where the store remembers what was verified: by the digests of the file and of the keys.
const VERIFIED: &str = "verified release";

/// Verifies a file, and returns its digest, and that of the keys, which is part of the node's key: with other keys it is asked again.
///
/// # Errors
/// No good signature is beside it.
pub(super) fn verify(
    resolving: &Resolving<'_>,
    path: &Path,
    keyrings: &[PathBuf],
) -> Result<(BlobDigest, BlobDigest), StepError> {
    let mut bytes = Vec::new();
    for keyring in keyrings {
        bytes.extend(fs::read(keyring).on_file("read", keyring)?);
    }
    let keys = BlobDigest::of(&bytes);
    let digest = resolving.objects.file_digest(path)?;
    let known = format!("{digest} {keys}");
    if resolving.objects.memo(VERIFIED, &known)?.is_some() {
        return Ok((digest, keys));
    }
    let keyring = Keyring::read(keyrings).map_err(|error| match error {
        KeyringError::Read { .. } => StepError::environment(error),
        KeyringError::Bad { .. } => StepError::spec(error),
    })?;
    resolving.progress("verifying the signature", 0, None);
    let (verified, by) = audit::verify(path, &Arc::new(keyring)).map_err(|error| match error {
        ReleaseError::Read { .. } => StepError::environment(error),
        ReleaseError::Bad { .. } | ReleaseError::Unsigned(_) => StepError::action(error).with_hint(
            "fetch it again, with what is signed beside it (.asc, .DIGESTS, .sha256); or take the keyring out of the spec",
        ),
    })?;
    // What was hashed must be what was read.
    if verified != digest || resolving.objects.file_digest(path)? != digest {
        return Err(StoreError::Changed { path: path.to_owned() }.into());
    }
    let by: Vec<String> = by.iter().map(|path| path.display().to_string()).collect();
    resolving.remark(format!("{} is signed: {}", path.display(), by.join(", ")));
    resolving.objects.set_memo(VERIFIED, &known, &by.join(" "))?;
    Ok((digest, keys))
}
