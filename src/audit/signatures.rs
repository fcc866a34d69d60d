//! Whom an audit believes, and what files with signatures are called.

use std::sync::Arc;

use trust::openpgp::Keyring;

/// Whom an audit believes.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    /// Keys that releases are signed with; without them nobody is believed, and nothing has to be signed.
    pub keyring: Option<Arc<Keyring>>,
}

/// Endings of the names of detached signatures.
pub(super) const ENDINGS: [&str; 3] = [".asc", ".sig", ".gpg"];

/// Signatures by CMS, which iPXE verifies, are named by this.
pub(super) const CODE_SIGNATURE: &str = ".ipxe.sig";

/// Returns what a file by this name is a signature of, if it is one of OpenPGP's by its name.
pub(super) fn signed_by_name(name: &str) -> Option<&str> {
    if name.ends_with(CODE_SIGNATURE) {
        return None;
    }
    ENDINGS.iter().find_map(|end| name.strip_suffix(end)).filter(|of| !of.is_empty() && !of.ends_with('/'))
}
