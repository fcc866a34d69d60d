//! Chunks: as what an object travels. They are found once, and remembered.
//!
//! Objects up to [`WHOLE`] bytes are one chunk. Larger ones are cut where the content says (FastCDC, the 2020 version): what two
//! images have in common is cut alike wherever it lies in them. A slice ([`crate::slices`]) is a chunk; what lies between two is cut as if
//! it were an object.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use fastcdc::v2020::StreamCDC;
use rusqlite::{OptionalExtension, params};
use sha2::Digest as _;

use super::upstream::Chunk;
use super::{Objects, StoreError};
use crate::digest::{BlobDigest, BlobHasher, Sha256};
use crate::file::OnFile;

/// Objects up to this many bytes are one chunk.
const WHOLE: u64 = 1 << 20;

/// Bytes of the least, the usual and the largest chunk. The largest fits into one message of every server.
const LEAST: u32 = 128 << 10;
const USUAL: u32 = 512 << 10;
const LARGEST: u32 = 2 << 20;

/// Bytes of a chunk in a row: BLAKE3, SHA-256, size.
const ROW: usize = 32 + 32 + 8;

pub(super) fn encode(chunks: &[Chunk]) -> Vec<u8> {
    let mut row = Vec::with_capacity(chunks.len() * ROW);
    for chunk in chunks {
        row.extend_from_slice(chunk.digest.as_bytes());
        row.extend_from_slice(chunk.sha256.as_bytes());
        row.extend_from_slice(&chunk.size.to_le_bytes());
    }
    row
}

pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Chunk>> {
    let (rows, rest) = bytes.as_chunks::<ROW>();
    let chunk = |row: &[u8; ROW]| {
        let (digest, row) = row.split_at(32);
        let (sha256, size) = row.split_at(32);
        Some(Chunk {
            digest: BlobDigest::from_slice(digest)?,
            sha256: Sha256::from_slice(sha256)?,
            size: u64::from_le_bytes(size.try_into().ok()?),
        })
    };
    rest.is_empty().then(|| rows.iter().map(chunk).collect())?
}

/// Passes bytes on, and hashes them all.
struct Hashing<'a> {
    objects: &'a Objects,
    file: File,
    hasher: &'a mut BlobHasher,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.objects.check_stopped().map_err(io::Error::other)?;
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

impl Objects {
    /// Returns the chunks of an object, in order. Whoever asks first has the object read, and fetched if it is elsewhere: what an
    /// upstream said of it is not passed on.
    ///
    /// # Errors
    /// [`StoreError`]: it is missing or damaged.
    pub fn chunks(&self, digest: &BlobDigest) -> Result<Vec<Chunk>, StoreError> {
        if let Some(known) = self.known_chunks(digest)? {
            return Ok(known);
        }
        let path = self.located(digest)?;
        let file = File::open(&path).on_file("open", &path)?;
        let size = file.metadata().on_file("look at", &path)?.len();
        let mut hasher = BlobHasher::default();
        let mut chunks = Vec::new();
        let mut add = |bytes: &[u8]| {
            let (digest, sha256) = rayon::join(|| BlobDigest::of(bytes), || sha2::Sha256::digest(bytes));
            let Some(sha256) = Sha256::from_slice(&sha256) else { return };
            chunks.push(Chunk { digest, sha256, size: bytes.len() as u64 });
        };
        let mut reader = Hashing { objects: self, file, hasher: &mut hasher };
        // Behind every slice, and in front of it; then the rest.
        let mut cuts = self.cuts(digest)?;
        cuts.push(size.saturating_sub(cuts.iter().sum()));
        let count = cuts.len();
        for (number, length) in cuts.into_iter().enumerate() {
            let is_slice = number % 2 == 1 && number + 1 < count;
            let mut part = reader.by_ref().take(length);
            if is_slice || length <= WHOLE {
                let mut bytes = Vec::new();
                part.read_to_end(&mut bytes).on_file("read", &path)?;
                if !bytes.is_empty() || size == 0 {
                    add(&bytes);
                }
            } else {
                for piece in StreamCDC::new(part, LEAST, USUAL, LARGEST) {
                    add(&piece.map_err(io::Error::from).on_file("read", &path)?.data);
                }
            }
        }
        if hasher.finish() != *digest {
            // Takes the damaged object out, so that the next build makes it again.
            self.verified_again(digest)?;
            return Err(StoreError::Damaged(*digest));
        }
        self.index(|index| {
            index
                .prepare_cached("INSERT OR REPLACE INTO chunks(digest, list) VALUES(?1, ?2)")?
                .execute(params![digest.as_bytes(), encode(&chunks)])
        })?;
        Ok(chunks)
    }

    /// Returns the chunks of an object that were found before.
    fn known_chunks(&self, digest: &BlobDigest) -> Result<Option<Vec<Chunk>>, StoreError> {
        let row: Option<Vec<u8>> = self.index(|index| {
            index
                .prepare_cached("SELECT list FROM chunks WHERE digest = ?1")?
                .query_row(params![digest.as_bytes()], |row| row.get(0))
                .optional()
        })?;
        Ok(row.as_deref().and_then(decode))
    }

    /// Reads a chunk that begins there in an object, and compares it.
    ///
    /// # Errors
    /// [`StoreError`]: the object is missing or damaged.
    pub(crate) fn read_chunk(
        &self,
        digest: &BlobDigest,
        at: u64,
        chunk: &Chunk,
    ) -> Result<Vec<u8>, StoreError> {
        let path = self.located(digest)?;
        let mut bytes = vec![0; usize::try_from(chunk.size).unwrap_or(usize::MAX)];
        let file = File::open(&path).on_file("open", &path)?;
        if file.read_exact_at(&mut bytes, at).is_err() || BlobDigest::of(&bytes) != chunk.digest {
            self.verified_again(digest)?;
            return Err(StoreError::Damaged(*digest));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, damage};

    /// Bytes that no compressor could make smaller, the same every time.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        reader.fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_large_object_is_cut_by_its_content() {
        let dir = Folder::new();
        let store = dir.store();
        let one = noise(12 << 20, 1);
        let two = [&one[..5 << 20], b"nine more", &one[5 << 20..]].concat();
        let [one, two] = [one, two].map(|bytes| {
            let blob = store.put(&bytes).unwrap();
            let chunks = store.chunks(&blob.digest).unwrap();
            assert_eq!(chunks.iter().map(|chunk| chunk.size).sum::<u64>(), blob.size);
            assert_eq!(store.chunks(&blob.digest).unwrap(), chunks, "as they were remembered");
            chunks
        });
        assert!(one.len() > 12, "{}", one.len());
        let new: Vec<_> = two.iter().filter(|chunk| !one.contains(chunk)).collect();
        assert!(new.len() <= 2, "{new:?}");
    }

    #[test]
    fn the_chunks_of_bytes_are_pinned() {
        let dir = Folder::new();
        let store = dir.store();
        let blob = store.put(&noise(3 << 20, 2)).unwrap();
        let chunks = store.chunks(&blob.digest).unwrap();
        assert_eq!(
            BlobDigest::of(&encode(&chunks)).to_string(),
            "1bd46e50b4bcdbf7b105707384940adff3986ffff42fc38e0e2b5145f1009cc3",
            "{} chunks: what is cut otherwise travels again",
            chunks.len()
        );
    }

    #[test]
    fn a_small_object_is_its_own_chunk_and_a_damaged_one_has_none() {
        let dir = Folder::new();
        let store = dir.store();
        let blob = store.put(b"small").unwrap();
        let chunks = store.chunks(&blob.digest).unwrap();
        let found: Vec<_> = chunks.iter().map(|chunk| (chunk.digest, chunk.size)).collect();
        assert_eq!(found, [(blob.digest, 5)]);
        let empty = store.put(b"").unwrap();
        assert_eq!(store.chunks(&empty.digest).unwrap().len(), 1, "nothing is a chunk as well");
        let bad = store.put(b"sound").unwrap();
        damage(&store, &bad.digest, b"other");
        assert!(matches!(store.chunks(&bad.digest), Err(StoreError::Damaged(_))));
        assert!(!store.contains(&bad.digest).unwrap());
    }
}
