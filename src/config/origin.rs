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

impl Source {
    /// Takes the text of a file, without the byte order mark that editors on Windows put in front.
    pub fn of_file(name: String, text: &str) -> Self {
        Self { name, text: text.strip_prefix('\u{feff}').unwrap_or(text).to_owned() }
    }
}

/// Where a value came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The text.
    pub source: Arc<Source>,
    /// The place in it, in bytes.
    pub span: Range<usize>,
}
