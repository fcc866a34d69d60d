//! What cannot be done of catalyst's spec.

/// Something that cannot be done, by the key of catalyst's spec.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {why}")]
pub struct WantedError {
    /// The key of catalyst's spec.
    pub key: &'static str,
    /// Why not, and what to do.
    pub why: String,
}

pub(super) fn wrong(key: &'static str, why: impl Into<String>) -> WantedError {
    WantedError { key, why: why.into() }
}
