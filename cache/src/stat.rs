//! Digests of files outside the store, remembered as long as their stat data stays the same.
//!
//! A file whose size, times and inode are those of the last look is not read again. A time stamp
//! tells nothing about a change within its own granularity, so a file that was changed just before
//! it was hashed is not remembered (the rule git's index has for "racily clean" entries). Where times
//! are made and not kept, one mount is told from the next, or nothing is remembered (see `keeping.rs`).

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::Metadata;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, params};
use rustix::fs::CWD;

use crate::digest::BlobDigest;
use crate::file::OnFile;
use crate::keeping::{self, Keeping};
use crate::objects::{Objects, StoreError};

/// Coarser than the time stamps of any file system in use (FAT has two seconds).
const GRANULARITY: Duration = Duration::from_secs(3);

/// Size, modification and change time, inode and device, and the mount where times alone do not tell: what tells that a file is
/// unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat([i64; 8]);

/// Counts looks at files whose times tell nothing: each is unlike all others.
static UNTOLD: AtomicI64 = AtomicI64::new(0);

impl Stat {
    /// Returns what tells that the file at `path`, with these meta data, is unchanged.
    pub fn of(path: &Path, found: &Metadata) -> Self {
        let keeping = match CString::new(path.as_os_str().as_bytes()) {
            Ok(path) => keeping::of(CWD, &path, found.dev()),
            Err(_) => Keeping::Nothing,
        };
        Self([
            found.size() as i64,
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
            found.ino() as i64,
            found.dev() as i64,
            mount(keeping),
        ])
    }

    /// Returns the same of what the system itself gives of a name in a folder.
    pub(crate) fn of_raw(folder: BorrowedFd<'_>, name: &CStr, found: &rustix::fs::Stat) -> Self {
        Self([
            found.st_size,
            found.st_mtime,
            found.st_mtime_nsec as i64,
            found.st_ctime,
            found.st_ctime_nsec as i64,
            found.st_ino as i64,
            found.st_dev as i64,
            mount(keeping::of(folder, name, found.st_dev)),
        ])
    }

    /// Returns the fields as bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    /// Tells whether the bytes are those of the other look: another link or mode leaves them as they are.
    fn has_same_bytes(&self, other: &Self) -> bool {
        let [size, mtime, mtime_nsec, _, _, inode, device, _] = self.0;
        let o = other.0;
        [size, mtime, mtime_nsec, inode, device] == [o[0], o[1], o[2], o[5], o[6]]
    }

    /// Tells whether a file that has these is the same.
    fn is_told(&self) -> bool {
        self.0[7] >= 0
    }

    /// Tells whether a look at `now` can be relied on later: the last change is long enough ago, and the file system tells of the
    /// next one.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let changed = Duration::from_secs(self.0[1].max(self.0[3]).max(0) as u64);
        self.is_told() && now.duration_since(UNIX_EPOCH).is_ok_and(|now| now > changed + GRANULARITY)
    }
}

fn mount(keeping: Keeping) -> i64 {
    match keeping {
        Keeping::Times => 0,
        Keeping::Mount(number) => number,
        Keeping::Nothing => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i64);
            // What an earlier process, or one beside this, wrote down is unlike it as well.
            i64::MIN | (now.wrapping_add(UNTOLD.fetch_add(1, Ordering::Relaxed)) & (i64::MAX >> 1))
        }
    }
}

/// The digests of all files below a folder, as far as they are remembered.
#[derive(Debug, Default)]
pub struct KnownFiles(HashMap<Vec<u8>, (Vec<u8>, BlobDigest)>);

impl KnownFiles {
    fn get(&self, path: &[u8], stat: &Stat) -> Option<BlobDigest> {
        self.0
            .get(path)
            .filter(|(known, _)| stat.is_told() && *known == stat.to_bytes())
            .map(|(_, digest)| *digest)
    }

    /// Returns the digest of the file at `path`, which is read unless it has the stat data that are remembered.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be read, or it changed meanwhile.
    pub fn digest(&self, store: &Objects, path: &Path, stat: &Stat) -> Result<BlobDigest, StoreError> {
        match self.get(path.as_os_str().as_bytes(), stat) {
            Some(digest) => Ok(digest),
            None => store.file_digest(path),
        }
    }
}

impl Objects {
    /// Returns what is remembered of all files below a folder, in one look.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn known_files(&self, folder: &Path) -> Result<KnownFiles, StoreError> {
        let first = [folder.as_os_str().as_bytes(), b"/"].concat();
        // The character behind the slash: no path below the folder is behind it.
        let last = [folder.as_os_str().as_bytes(), b"0"].concat();
        self.index(|index| {
            let mut query =
                index.prepare_cached("SELECT path, stat, digest FROM files WHERE path > ?1 AND path < ?2")?;
            let rows = query.query_map(params![first, last], |row| {
                let digest: Vec<u8> = row.get(2)?;
                Ok((row.get(0)?, (row.get(1)?, digest)))
            })?;
            let mut known = HashMap::new();
            for row in rows {
                let (path, (stat, digest)): (Vec<u8>, (Vec<u8>, Vec<u8>)) = row?;
                known.extend(BlobDigest::from_slice(&digest).map(|digest| (path, (stat, digest))));
            }
            Ok(KnownFiles(known))
        })
    }

    /// Remembers what the file at `path` holds, for one that was just made of a known object.
    ///
    /// A change within the same tick of the file system's clock would go unnoticed; that is a few milliseconds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remember_file(&self, path: &Path, digest: &BlobDigest) -> Result<(), StoreError> {
        let stat = Stat::of(path, &std::fs::metadata(path).on_file("read", path)?);
        self.index(|index| {
            index
                .prepare_cached("INSERT OR REPLACE INTO files(path, stat, digest) VALUES(?1, ?2, ?3)")?
                .execute(params![path.as_os_str().as_bytes(), stat.to_bytes(), digest.as_bytes()])
        })?;
        Ok(())
    }

    /// Returns the digest of the file at `path`, without reading it where its stat data are known.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be read, or it changed meanwhile.
    pub fn file_digest(&self, path: &Path) -> Result<BlobDigest, StoreError> {
        let now = SystemTime::now();
        let found = std::fs::metadata(path).on_file("read", path)?;
        let stat = Stat::of(path, &found);
        let key = path.as_os_str().as_bytes();
        // The stat data of a device say nothing about the medium in it.
        let known: Option<Vec<u8>> = if found.is_file() && stat.is_told() {
            self.index(|index| {
                index
                    .prepare_cached("SELECT digest FROM files WHERE path = ?1 AND stat = ?2")?
                    .query_row(params![key, stat.to_bytes()], |row| row.get(0))
                    .optional()
            })?
        } else {
            None
        };
        if let Some(digest) = known.as_deref().and_then(BlobDigest::from_slice) {
            return Ok(digest);
        }
        let digest = self.hash_file(path)?.finish();
        let after = Stat::of(path, &std::fs::metadata(path).on_file("read", path)?);
        if !after.has_same_bytes(&stat) {
            return Err(StoreError::Changed { path: path.to_owned() });
        }
        if found.is_file() && after == stat && stat.is_settled(now) {
            self.remember_file(path, &digest)?;
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_file_changed_a_moment_ago_is_hashed_anew_each_time() {
        let dir = Folder::new();
        let store = dir.store();
        let path = dir.path().join("file");
        for content in ["one", "two", "six"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(store.file_digest(&path).unwrap(), BlobDigest::of(content.as_bytes()));
        }
    }

    #[test]
    fn another_link_or_mode_changes_no_bytes_and_another_time_or_size_may() {
        let stat = Stat([5, 100, 7, 100, 8, 42, 1, 0]);
        assert!(
            stat.has_same_bytes(&Stat([5, 100, 7, 200, 9, 42, 1, 0])),
            "a new link moves the change time"
        );
        for (field, value) in [(0, 6), (1, 101), (2, 8), (5, 43), (6, 2)] {
            let mut other = stat;
            other.0[field] = value;
            assert!(!stat.has_same_bytes(&other), "field {field}");
        }
    }

    #[test]
    fn what_a_device_holds_is_read_each_time() {
        let dir = Folder::new();
        let store = dir.store();
        let path = Path::new("/dev/null");
        store.remember_file(path, &BlobDigest::of(b"planted")).unwrap();
        assert_eq!(store.file_digest(path).unwrap(), BlobDigest::of(b""));
    }

    #[test]
    fn a_settled_file_is_not_read_twice_and_a_changed_one_is() {
        let dir = Folder::new();
        let store = dir.store();
        let path = dir.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let stat = Stat::of(&path, &std::fs::metadata(&path).unwrap());
        let planted = BlobDigest::of(b"planted");
        let key = path.as_os_str().as_bytes();
        store
            .index(|index| {
                index.execute(
                    "INSERT INTO files(path, stat, digest) VALUES(?1, ?2, ?3)",
                    params![key, stat.to_bytes(), planted.as_bytes()],
                )
            })
            .unwrap();
        assert_eq!(store.file_digest(&path).unwrap(), planted, "the row was not used");
        let known = store.known_files(dir.path()).unwrap();
        assert_eq!(known.get(key, &stat), Some(planted));
        assert_eq!(known.get(key, &Stat([0; 8])), None);
        assert_eq!(store.known_files(&dir.path().join("fil")).unwrap().get(key, &stat), None);
        std::fs::write(&path, "three").unwrap();
        assert_eq!(store.file_digest(&path).unwrap(), BlobDigest::of(b"three"));
    }
}
