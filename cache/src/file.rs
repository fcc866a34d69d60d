//! Files: what went wrong with which one, the one way to keep the path beside what the system said; and locks on them.

use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// Opens a lock file, making it where it is missing. Nobody else may open it: whoever can, can hold the lock.
///
/// # Errors
/// It cannot be made or opened, or is a link.
pub fn lock_file(path: &Path) -> Result<File, FileError> {
    let mut options = File::options();
    options.create(true).append(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let file = options.open(path).on_file("open", path)?;
    let found = file.metadata().on_file("look at", path)?;
    // As versions before this one made it.
    if found.permissions().mode() & 0o077 != 0 && found.uid() == rustix::process::geteuid().as_raw() {
        file.set_permissions(fs::Permissions::from_mode(0o600)).on_file("chmod", path)?;
    }
    Ok(file)
}

/// Returns who holds a lock on a file, as far as the system tells: its process, and what that is called.
pub fn holder(file: &File) -> Option<String> {
    let found = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", found.ino());
    // proc(5): "1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF".
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let process = lines.find_map(|fields| match fields[..] {
        [_, "FLOCK", _, _, process, file, ..] if file == wanted => Some(process),
        _ => None,
    })?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    Some(format!("process {process} ({})", name.trim()))
}

/// How long somebody waits for a lock before he says so.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a lock that somebody else holds is tried.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits for a lock on the file at `path`; after two seconds `say` is told for what, and who holds it. Returns whether it was got:
/// not where `stop` says so before.
///
/// # Errors
/// The file cannot be locked.
pub fn lock_patiently(
    file: &File,
    path: &Path,
    stop: &dyn Fn() -> bool,
    say: &dyn Fn(&str),
) -> Result<bool, FileError> {
    let start = Instant::now();
    let mut is_said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if stop() => return Ok(false),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => {
                return Err(FileError { what: "lock", path: path.to_owned(), source });
            }
        }
        if !is_said && start.elapsed() > PATIENCE {
            is_said = true;
            let who = holder(file).unwrap_or_else(|| "another process".to_owned());
            say(&format!("waiting for {}, which {who} holds", path.display()));
        }
        std::thread::sleep(INTERVAL);
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

/// Returns the bytes of a file, or of all files below a folder; what goes away meanwhile counts nothing.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| bytes_below(&entry.path())).sum()
}
