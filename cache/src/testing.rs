//! What tests of stores need: a folder that stays when the test fails, results, damage, time that goes by.
//!
//! Behind the feature `testing`; nothing of it is in the program.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use crate::actions::{ActionResult, Output};
use crate::digest::{ActionDigest, BlobDigest};
use crate::index::now;
use crate::objects::upstream::{Chunk, Offer, Offered, Signed, Take, Upstream, UpstreamError};
use crate::objects::{Blob, Objects};
use crate::store::Store;

/// A folder that goes away with the test; where the test fails, it stays, and the test says where.
#[derive(Debug)]
pub struct Folder(Option<tempfile::TempDir>);

impl Folder {
    /// Makes an empty one.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self(Some(tempfile::Builder::new().prefix("stagegraph-test-").tempdir().unwrap()))
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until it is dropped").path()
    }

    /// Returns the path of something in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Opens the store in it, as a new process would; it is made where there is none.
    pub fn store(&self) -> Store {
        Store::open(&self.join("store")).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("the test failed; its folder is kept: {}", folder.keep().display());
        }
    }
}

/// Records the result of an action called `name`: one output `x`, a blob that holds the name.
pub fn result(store: &Store, name: &str) -> (ActionDigest, ActionResult, Blob) {
    let blob = store.put(name.as_bytes()).unwrap();
    let action = ActionDigest::of_encoding(name.as_bytes());
    let outputs = BTreeMap::from([("x".to_owned(), Output::from(blob))]).into();
    let result = ActionResult { outputs, ..ActionResult::default() };
    store.set_action(&action, &result).unwrap();
    (action, result, blob)
}

/// Puts other bytes where an object is, as a failing disk would.
pub fn damage(store: &Objects, digest: &BlobDigest, bytes: &[u8]) {
    let path = store.object_path(digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
}

/// Waits until the store's clock shows a later time, for files as well: file systems keep the time of the kernel's last
/// tick, which a busy machine may be late with.
pub fn tick() {
    let before = UNIX_EPOCH + Duration::from_millis(u64::try_from(now()).unwrap() + 1);
    while tempfile::tempfile().unwrap().metadata().unwrap().modified().unwrap() < before {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Compares bytes of a format with their pinned digest (BLAKE3), and the version of the code with the pinned version.
///
/// # Panics
/// The bytes changed and the version did not, or both did: the message says what to do.
#[track_caller]
pub fn assert_pinned(what: &str, version: u32, bytes: &[u8], pinned: (u32, &str)) {
    let found = BlobDigest::of(bytes).to_string();
    let (pinned_version, pinned_digest) = pinned;
    let changed = found != pinned_digest;
    assert!(
        !changed || version != pinned_version,
        "the bytes of {what} changed, and their version is still {version}: whoever has a result of that key would go on \
         using the old bytes. Raise the version, and pin ({}, \"{found}\")",
        version + 1
    );
    assert!(
        !changed && version == pinned_version,
        "the version of {what} is {version}: pin ({version}, \"{found}\"), and say in the commit what changed"
    );
}

/// What a test needs of who runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root: to mount, to change owners, to make devices.
    Root,
    /// Anybody but root, whom permissions do not stop.
    User,
}

/// Tells whether the test has what it needs; it is to return where it has not.
///
/// `make test` runs every test twice, as root and as another user. `STAGEGRAPH_NO_SKIP` names who must be there, `root`
/// or `user`, so that a run that skips what it was made for fails.
pub fn needs(need: Need) -> bool {
    let found = if rustix::process::geteuid().is_root() { Need::Root } else { Need::User };
    if let Some(set) = std::env::var_os("STAGEGRAPH_NO_SKIP") {
        let promised = match set.to_str() {
            Some("root") => Need::Root,
            Some("user") => Need::User,
            _ => panic!("STAGEGRAPH_NO_SKIP is {set:?}; it takes root or user"),
        };
        assert_eq!(found, promised, "this run was to skip nothing that needs {promised:?}");
    }
    if found != need {
        eprintln!("SKIPPED: this needs {need:?}, and runs as {found:?}");
    }
    found == need
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_of_the_same_version_are_not_let_pass() {
        let digest = BlobDigest::of(b"bytes").to_string();
        assert_pinned("it", 3, b"bytes", (3, &digest));
        let message = |version, bytes: &[u8]| {
            let failed = std::panic::catch_unwind(|| assert_pinned("it", version, bytes, (3, &digest)));
            *failed.unwrap_err().downcast::<String>().unwrap()
        };
        assert!(message(3, b"other").contains("Raise the version, and pin (4, "));
        assert!(message(4, b"other").contains("the version of it is 4: pin (4, "));
        assert!(message(4, b"bytes").contains("the version of it is 4: pin (4, "));
    }

    #[test]
    fn the_folder_of_a_test_that_fails_stays() {
        let place = std::sync::Mutex::new(PathBuf::new());
        let failed = std::panic::catch_unwind(|| {
            let folder = Folder::new();
            *place.lock().unwrap() = folder.path().to_owned();
            std::panic::resume_unwind(Box::new("fails"));
        });
        let place = place.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        assert!(failed.is_err() && place.is_dir());
        fs::remove_dir(&place).unwrap();
        let sound = Folder::new().path().to_owned();
        assert!(!sound.exists());
    }
}

/// An upstream in memory, for tests of what a store or an engine does with one.
#[derive(Default)]
pub struct Memory {
    results: Mutex<BTreeMap<ActionDigest, Vec<u8>>>,
    chunks: Mutex<BTreeMap<BlobDigest, Vec<u8>>>,
    /// Asked before every call; `true` has it fail.
    pub fails: Mutex<Option<Box<dyn FnMut() -> bool + Send>>>,
}

impl Memory {
    /// Puts a statement under the key of an action.
    pub fn set_result(&self, action: &ActionDigest, statement: &[u8]) {
        self.results.lock().unwrap().insert(*action, statement.to_vec());
    }

    /// Has other bytes in the place of every chunk, or none.
    pub fn spoil(&self, mut spoil: impl FnMut(&[u8]) -> Option<Vec<u8>>) {
        let chunks = std::mem::take(&mut *self.chunks.lock().unwrap());
        let spoilt = chunks.into_iter().filter_map(|(digest, bytes)| Some((digest, spoil(&bytes)?)));
        *self.chunks.lock().unwrap() = spoilt.collect();
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.results.lock().unwrap().clear();
        self.chunks.lock().unwrap().clear();
    }

    fn check(&self) -> Result<(), UpstreamError> {
        let fails = self.fails.lock().unwrap().as_mut().is_some_and(|fails| fails());
        if fails { Err(UpstreamError::Failed("asked to fail".to_owned())) } else { Ok(()) }
    }
}

impl Upstream for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn result(&self, action: &ActionDigest) -> Result<Option<Signed>, UpstreamError> {
        self.check()?;
        let statement = self.results.lock().unwrap().get(action).cloned();
        Ok(statement.map(|statement| Signed { statement, signer: None }))
    }

    fn fetch(&self, chunks: &[Chunk], take: Take<'_>) -> Result<(), UpstreamError> {
        for (number, chunk) in chunks.iter().enumerate() {
            self.check()?;
            let bytes = self.chunks.lock().unwrap().get(&chunk.digest).cloned();
            let bytes = bytes.ok_or(UpstreamError::Gone(chunk.digest))?;
            if BlobDigest::of(&bytes) != chunk.digest {
                return Err(UpstreamError::Altered(chunk.digest));
            }
            take(number, bytes)?;
        }
        Ok(())
    }

    fn offer(&self, offer: &Offer<'_>) -> Result<Offered, UpstreamError> {
        self.check()?;
        if let Some(there) = self.results.lock().unwrap().get(&offer.action) {
            return Ok(Offered::There(there.clone()));
        }
        let mut sent = 0;
        for (number, chunk) in offer.chunks.iter().enumerate() {
            if let Entry::Vacant(place) = self.chunks.lock().unwrap().entry(chunk.digest) {
                place.insert((offer.read)(number)?);
                sent += chunk.size;
            }
        }
        self.set_result(&offer.action, offer.statement);
        Ok(Offered::Taken { sent })
    }
}
