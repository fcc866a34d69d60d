//! What went wrong with which file: the one way to keep the path beside what the system said.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// The system refused something about a file.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub struct FileError {
    /// What was tried: `read`, `write`, …
    pub what: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Says what was tried on which file, where the system alone says only why not.
///
/// ```
/// use cache::file::{FileError, OnFile};
///
/// fn first_line(path: &std::path::Path) -> Result<String, FileError> {
///     let text = std::fs::read_to_string(path).on_file("read", path)?;
///     Ok(text.lines().next().unwrap_or_default().to_owned())
/// }
/// let error = first_line("/not/there".as_ref()).unwrap_err();
/// assert_eq!(error.to_string(), "read /not/there");
/// ```
pub trait OnFile<T> {
    /// Names verb and path; `what` is the verb's plain form: `read`, `write`.
    ///
    /// # Errors
    /// [`FileError`], where there was an error.
    fn on_file(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, FileError>;
}

impl<T> OnFile<T> for io::Result<T> {
    fn on_file(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, FileError> {
        self.map_err(|source| FileError { what, path: path.as_ref().to_owned(), source })
    }
}

impl<T> OnFile<T> for rustix::io::Result<T> {
    fn on_file(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, FileError> {
        self.map_err(io::Error::from).on_file(what, path)
    }
}

/// Returns the message of an error and of each of its causes, each after the one it explains; a cause that only repeats
/// what is said already is left out.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if causes.last().is_some_and(|last| !last.ends_with(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}
