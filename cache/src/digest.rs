//! Digests: one type for each kind of thing, one hash algorithm (BLAKE3) for all names.
//!
//! A digest value exists only by hashing bytes or by parsing 64 lower-case hex digits. The SHA-256
//! of an object is kept beside its name, because remote engines and mirrors speak it; it never
//! names anything here.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest; expected 64 lower-case hex digits")]
pub struct ParseDigestError {
    text: String,
}

fn parse_hex(text: &str) -> Result<[u8; 32], ParseDigestError> {
    let bad = || ParseDigestError { text: text.to_owned() };
    if text.len() != 64 {
        return Err(bad());
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        match (nibble(pair[0]), nibble(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(bad()),
        }
    }
    Ok(bytes)
}

/// Writes bytes as lower-case hex digits.
fn to_hex(bytes: &[u8; 32]) -> [u8; 64] {
    let mut hex = [0; 64];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        (pair[0], pair[1]) = (digit(byte >> 4), digit(byte & 15));
    }
    hex
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Returns the raw 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Parses the raw 32 bytes of a digest that was written down before; `None` for another length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Returns the first 12 hex digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&to_hex(&self.0)).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_type! {
    /// The BLAKE3 of a blob's bytes: its name in the store.
    BlobDigest
}
digest_type! {
    /// The BLAKE3 of a tree's canonical encoding (see [`crate::tree`]).
    TreeDigest
}
digest_type! {
    /// The BLAKE3 of everything that can change what an action yields.
    ActionDigest
}
digest_type! {
    /// The SHA-256 of a blob's bytes, kept beside its name for those who speak only that.
    Sha256
}

impl BlobDigest {
    /// Returns the object's path below the folder of objects.
    pub(crate) fn place(&self) -> [u8; 65] {
        let hex = to_hex(&self.0);
        let mut place = [b'/'; 65];
        place[..2].copy_from_slice(&hex[..2]);
        place[3..].copy_from_slice(&hex[2..]);
        place
    }

    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl TreeDigest {
    /// Hashes a canonical encoding; only the tree module makes one.
    pub(crate) fn of_encoding(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// Returns the blob under which the store keeps the canonical encoding.
    pub fn encoding(&self) -> BlobDigest {
        BlobDigest(self.0)
    }
}

impl ActionDigest {
    /// Hashes the canonical encoding of an action; the graph crate makes it.
    pub fn of_encoding(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

/// Hashes a stream of bytes into its name alone.
#[derive(Debug, Default)]
pub struct BlobHasher {
    blake3: blake3::Hasher,
}

impl BlobHasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
    }

    /// Returns the number of bytes taken in.
    pub fn size(&self) -> u64 {
        self.blake3.count()
    }

    /// Returns the digest of all bytes taken in.
    pub fn finish(&self) -> BlobDigest {
        BlobDigest(self.blake3.finalize().into())
    }

    /// Hashes the file at `path` on all cores.
    ///
    /// # Errors
    /// What opening or reading the file gives.
    pub(crate) fn file(path: &std::path::Path) -> std::io::Result<BlobDigest> {
        let hashed = Self::of_file(path, &|| false)?;
        Ok(hashed.unwrap_or_default().finish())
    }

    /// Takes in the file at `path` on all cores; returns the hasher, which knows the number of bytes as well, or nothing where
    /// `is_stopped` said so meanwhile. Holes are not read: they are zeros.
    ///
    /// # Errors
    /// What opening or reading the file gives.
    pub(crate) fn of_file(
        path: &std::path::Path,
        is_stopped: &dyn Fn() -> bool,
    ) -> std::io::Result<Option<BlobHasher>> {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = BlobHasher::default();
        // Not mapped: that would count as this process's memory, all of the file.
        let size = file.metadata()?.len();
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, PARALLEL)];
        let mut at = 0;
        // No file without holes has one before its end.
        let mut data_end = if size > PARALLEL as u64 { 0 } else { size };
        loop {
            if is_stopped() {
                return Ok(None);
            }
            if at == data_end && at < size {
                let data = data_from(&file, at, size)?;
                hasher.zeros(data.start - at, is_stopped);
                (at, data_end) = (data.start, data.end);
                continue;
            }
            // What is behind the size that it had is read as well.
            let left = if at < data_end { data_end - at } else { PARALLEL as u64 };
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..wanted])?;
            match read {
                0 => return Ok(Some(hasher)),
                PARALLEL => {
                    hasher.blake3.update_rayon(&buffer);
                }
                _ => hasher.update(&buffer[..read]),
            }
            at += read as u64;
        }
    }

    /// Takes in zeros.
    fn zeros(&mut self, mut left: u64, is_stopped: &dyn Fn() -> bool) {
        let zeros = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS)];
        while left > 0 && !is_stopped() {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
            self.blake3.update_rayon(&zeros[..now]);
            left -= now as u64;
        }
    }
}

/// Returns the next part of a file with data in it, and moves the file there: from `at` on, of `size` bytes.
fn data_from(file: &std::fs::File, at: u64, size: u64) -> std::io::Result<std::ops::Range<u64>> {
    use rustix::fs::{SeekFrom, seek};
    let found = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => {
            let end = seek(file, SeekFrom::Hole(start))?;
            start.min(size)..end.clamp(start.min(size), size)
        }
        // There is none any more.
        Err(rustix::io::Errno::NXIO) => size..size,
        // The file system does not know.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => at..size,
        Err(error) => return Err(error.into()),
    };
    seek(file, SeekFrom::Start(found.start))?;
    Ok(found)
}

/// Zeros are taken in by so many.
const ZEROS: usize = 16 << 20;

/// So many bytes are enough for several cores, and no more than their caches hold.
const PARALLEL: usize = 2 << 20;

impl From<sha2::Sha256> for Sha256 {
    fn from(hasher: sha2::Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_digest_of_nothing_is_blake3s_published_one() {
        assert_eq!(
            BlobDigest::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn a_file_of_any_length_has_the_digest_of_its_bytes() {
        let dir = Folder::new();
        let path = dir.path().join("file");
        for length in [0, 1, PARALLEL - 1, PARALLEL, 2 * PARALLEL + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 31 / 7) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let hasher = BlobHasher::of_file(&path, &|| false).unwrap().unwrap();
            assert_eq!((hasher.finish(), hasher.size()), (BlobDigest::of(&bytes), length as u64));
        }
    }

    #[test]
    fn a_file_with_holes_has_the_digest_of_its_bytes_and_a_stop_is_heard() {
        use std::os::unix::fs::FileExt;
        let dir = Folder::new();
        let path = dir.path().join("file");
        for parts in [vec![], vec![0], vec![5 << 20], vec![1 << 20, 9 << 20], vec![(12 << 20) - 3]] {
            let file = std::fs::File::create(&path).unwrap();
            file.set_len(12 << 20).unwrap();
            let mut bytes = vec![0; 12 << 20];
            for at in parts {
                file.write_all_at(b"abc", at).unwrap();
                bytes[at as usize..at as usize + 3].copy_from_slice(b"abc");
            }
            let hasher = BlobHasher::of_file(&path, &|| false).unwrap().unwrap();
            assert_eq!((hasher.finish(), hasher.size()), (BlobDigest::of(&bytes), 12 << 20));
        }
        // A hole that nobody could read in the time of a test.
        std::fs::File::create(&path).unwrap().set_len(1 << 43).unwrap();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let is_stopped = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 3;
        assert!(BlobHasher::of_file(&path, &is_stopped).unwrap().is_none());
    }

    #[test]
    fn a_digest_reads_back_what_it_prints_and_refuses_anything_else() {
        let digest = BlobDigest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "af13", &digest.to_string().to_uppercase(), &format!("{digest}0")] {
            assert!(bad.parse::<BlobDigest>().is_err(), "{bad}");
        }
    }
}
