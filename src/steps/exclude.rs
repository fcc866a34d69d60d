//! Patterns of paths that do not get into an image.

use std::path::Path;

use cache::name::RelPath;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use graph::StepError;

use crate::config::{Fields, SpecError};

/// A pattern: `*` stops at slashes, `**` does not, and a leading slash is the top of the root.
fn glob(pattern: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(pattern.trim_start_matches('/')).literal_separator(true).build()
}

/// Reads the setting `exclude`, a list of patterns.
pub(super) fn read(fields: &Fields<'_>) -> Vec<String> {
    let patterns = fields.texts("exclude");
    for (pattern, item) in &patterns {
        fields.check(
            glob(pattern)
                .map_err(|error| SpecError::at(&item.origin, error.to_string()).label("not a pattern")),
        );
    }
    patterns.into_iter().map(|(pattern, _)| pattern.to_owned()).collect()
}

/// Paths that match one of several patterns.
pub(super) struct Excluded(GlobSet);

impl Excluded {
    /// Takes patterns that [`read`] has seen.
    ///
    /// # Errors
    /// One of them is none.
    pub(super) fn new(patterns: &[String]) -> Result<Self, StepError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(glob(pattern).map_err(StepError::spec)?);
        }
        set.build().map(Self).map_err(StepError::spec)
    }

    /// Tells whether a path matches.
    pub(super) fn has(&self, path: &RelPath) -> bool {
        self.0.is_match(path.below(Path::new("")))
    }
}
