//! Whom an audit believes, and what files with signatures are called.

use std::sync::Arc;

use trust::cms::Authorities;
use trust::dsse::PublicKey;
use trust::openpgp::Keyring;

/// Whom an audit believes.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    /// Keys that releases are signed with; without them nobody is believed, and nothing has to be signed.
    pub keyring: Option<Arc<Keyring>>,
    /// Roots that say who may sign code; without them, whoever signed it counts, and nothing has to be signed.
    pub authorities: Option<Arc<Authorities>>,
    /// Keys of builders, and how many of them have to say what the set is made of.
    pub builders: Option<Vec<PublicKey>>,
    /// See `builders`.
    pub threshold: usize,
    /// Whether nothing can be signed yet: an image is audited before it is published.
    pub is_before_signing: bool,
}

impl Trusted {
    /// Tells whether a server is asked for what may lie beside an ISO.
    pub(super) fn asks_beside(&self) -> bool {
        self.keyring.is_some() || self.builders.is_some()
    }
}

/// Endings of the names of detached signatures.
pub(super) const ENDINGS: [&str; 3] = [".asc", ".sig", ".gpg"];

/// Signatures by CMS, which iPXE verifies, are named by this.
pub const CODE_SIGNATURE: &str = ".ipxe.sig";

/// Returns what a file by this name is a signature of, if it is one of OpenPGP's by its name.
pub(super) fn signed_by_name(name: &str) -> Option<&str> {
    if name.ends_with(CODE_SIGNATURE) {
        return None;
    }
    ENDINGS.iter().find_map(|end| name.strip_suffix(end)).filter(|of| !of.is_empty() && !of.ends_with('/'))
}
