//! Where a value came from: a text, and a place in it.

use std::ops::Range;
use std::sync::Arc;

/// A text that values come from.
#[derive(Debug)]
pub struct Source {
    /// The file's path, or what else it is.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// Where a value came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The text.
    pub source: Arc<Source>,
    /// The place in it, in bytes.
    pub span: Range<usize>,
}
