//! The manifest: its document, written by a step and read by the audit.

/// The version of the manifest's schema, which `docs/manifest.md` documents.
pub const SCHEMA: u32 = 1;
