//! Slices: parts of an image that travel as results of their own.
//!
//! An image whose input changed a little is another image, and nobody elsewhere has it; most of its compressed blocks somebody has, in
//! another image. So blocks that follow each other are a slice: a result under a key of what they were made of, with two outputs, the
//! `blocks` and, for whoever made them, what is to be known `about` them. An image is cut into chunks where its slices begin and end: a
//! slice is one chunk of it then, and offering one sends nothing but its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rusqlite::params;
use sha2::Digest as _;

use crate::actions::{ActionResult, Object, Output};
use crate::digest::{ActionDigest, BlobDigest, Sha256};
use crate::objects::upstream::{Chunk, Offer, Offered, Signed, Signer, Upstream, UpstreamError};
use crate::objects::{Blob, Objects, StoreError};
use crate::statement::Statement;
use crate::store::Store;

/// The outputs of a slice.
const BLOCKS: &str = "blocks";
const ABOUT: &str = "about";

/// Bytes of a slice, at most: it is held in memory.
const LARGEST: u64 = 64 << 20;

/// Slices that are offered at once.
const AT_ONCE: usize = 8;

/// A part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// What it was made of and how, hashed.
    pub action: ActionDigest,
    /// Where it begins in the image.
    pub start: u64,
    /// Bytes of it.
    pub length: u64,
    /// What is to be known of it to use it.
    pub about: Vec<u8>,
}

/// A slice that came from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its blocks.
    pub blocks: Vec<u8>,
    /// What is to be known of it to use it.
    pub about: Vec<u8>,
    /// Who signed it, if that was asked for.
    pub signer: Option<Signer>,
}

/// How many bytes a slice may have that is asked for: what has more is another one, and is not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Of blocks, at most.
    pub blocks: u64,
    /// Of what is to be known of them.
    pub about: u64,
}

/// Says what a slice is: its statement, and the two chunks it is made of.
fn statement(action: &ActionDigest, blocks: Chunk, about: &[u8]) -> Option<(Statement, [Chunk; 2])> {
    let sha256 = Sha256::from_slice(&sha2::Sha256::digest(about))?;
    let about = Chunk { digest: BlobDigest::of(about), sha256, size: about.len() as u64 };
    let output = |name: &str, chunk: &Chunk| {
        (name.to_owned(), Output::from(Blob { digest: chunk.digest, size: chunk.size }))
    };
    let outputs = BTreeMap::from([output(BLOCKS, &blocks), output(ABOUT, &about)]);
    let result = ActionResult { outputs: outputs.into(), ..ActionResult::default() };
    Some((Statement::of_whole(*action, result, &[blocks, about]), [blocks, about]))
}

impl Objects {
    /// Enters the slices of an image that is in the store.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn enter_slices(&self, image: &BlobDigest, slices: &[Slice]) -> Result<(), StoreError> {
        self.change(|index| {
            let mut insert = index.prepare_cached(
                "INSERT OR REPLACE INTO slices(action, image, start, length, about) VALUES(?1, ?2, ?3, ?4, ?5)",
            )?;
            for Slice { action, start, length, about } in slices {
                let (start, length) = (*start as i64, *length as i64);
                insert.execute(params![action.as_bytes(), image.as_bytes(), start, length, about])?;
            }
            Ok(())
        })
    }

    /// Returns the slices of an image, in order.
    pub(crate) fn slices(&self, image: &BlobDigest) -> Result<Vec<Slice>, StoreError> {
        let rows: Vec<(Vec<u8>, i64, i64, Vec<u8>)> = self.index(|index| {
            let mut query = index.prepare_cached(
                "SELECT action, start, length, about FROM slices WHERE image = ?1 ORDER BY start",
            )?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            query.query_map(params![image.as_bytes()], row)?.collect()
        })?;
        let slice = |(action, start, length, about): (Vec<u8>, i64, i64, Vec<u8>)| {
            let action = ActionDigest::from_slice(&action)?;
            Some(Slice { action, start: start as u64, length: length as u64, about })
        };
        Ok(rows.into_iter().filter_map(slice).collect())
    }

    /// Returns where the slices of an object begin and end, as lengths: of what is in front of one, of it, of what is in front of the next.
    pub(crate) fn cuts(&self, object: &BlobDigest) -> Result<Vec<u64>, StoreError> {
        let mut cuts = Vec::new();
        let mut at = 0;
        for Slice { start, length, .. } in self.slices(object)? {
            if start >= at && (1..=LARGEST).contains(&length) {
                cuts.extend([start - at, length]);
                at = start + length;
            }
        }
        Ok(cuts)
    }

    /// Asks the upstreams for a slice. Of an upstream that fails or says nonsense, there is nothing. What is returned is what somebody
    /// signed, if that is asked for, and no more.
    ///
    /// # Errors
    /// [`StoreError`]: the store itself failed, or everything is to stop.
    pub fn slice(&self, action: &ActionDigest, expected: Expected) -> Result<Option<Found>, StoreError> {
        for upstream in self.upstreams() {
            match self.ask_slice(&*upstream, action, expected) {
                Ok(Some(found)) => return Ok(Some(found)),
                Err(UpstreamError::Store(error)) => return Err(error),
                // An upstream that failed has said so itself.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(None)
    }

    fn ask_slice(
        &self,
        upstream: &dyn Upstream,
        action: &ActionDigest,
        expected: Expected,
    ) -> Result<Option<Found>, UpstreamError> {
        let Some(Signed { statement, signer }) = upstream.result(action)? else { return Ok(None) };
        self.count_aside();
        let names = [ABOUT, BLOCKS].map(str::to_owned);
        let read = Statement::decode(&statement)
            .and_then(|statement| statement.answers(action, &names).map(|()| statement));
        let Ok(statement) = read else { return Ok(None) };
        let chunks = [BLOCKS, ABOUT].map(|name| statement.whole(name));
        let [Some(blocks), Some(about)] = chunks else { return Ok(None) };
        if blocks.size > expected.blocks || about.size != expected.about {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(2);
        upstream.fetch(&[blocks, about], &mut |_, bytes| {
            found.push(bytes);
            Ok(())
        })?;
        let [blocks, about] = <[Vec<u8>; 2]>::try_from(found).unwrap_or_default();
        Ok(Some(Found { blocks, about, signer }))
    }

    /// Enters who signed slices that an image was made of: where they are no longer trusted, it counts no longer.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn enter_helpers(&self, image: &BlobDigest, signers: &BTreeSet<Signer>) -> Result<(), StoreError> {
        self.change(|index| {
            let mut insert = index
                .prepare_cached("INSERT OR IGNORE INTO helpers(image, signer, key) VALUES(?1, ?2, ?3)")?;
            let mut signers = signers.iter();
            signers.try_for_each(|Signer { name, key }| {
                insert.execute(params![image.as_bytes(), name, key]).map(drop)
            })
        })
    }

    /// Returns the signers of slices that images here were made of.
    pub(crate) fn helpers(&self) -> Result<Vec<Signer>, StoreError> {
        self.index(|index| {
            let mut query = index.prepare("SELECT DISTINCT signer, key FROM helpers")?;
            query.query_map([], |row| Ok(Signer { name: row.get(0)?, key: row.get(1)? }))?.collect()
        })
    }

    /// Forgets the images that somebody's slices are in: what gave them, and their blocks. Returns how many results that were.
    pub(crate) fn forget_helped(&self, Signer { name, key }: &Signer) -> Result<usize, StoreError> {
        self.change(|index| {
            let images: Vec<Vec<u8>> = index
                .prepare("SELECT image FROM helpers WHERE signer = ?1 AND key = ?2")?
                .query_map(params![name, key], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut forgotten = 0;
            for digest in images {
                // Digests stand in results as text.
                let named = BlobDigest::from_slice(&digest).map(|digest| format!("%{digest}%"));
                forgotten += index.execute("DELETE FROM actions WHERE result LIKE ?1", params![named])?;
                index.execute(
                    "DELETE FROM runs WHERE image IN (SELECT id FROM images WHERE digest = ?1)",
                    params![digest],
                )?;
                for table in ["slices", "helpers"] {
                    index.execute(&format!("DELETE FROM {table} WHERE image = ?1"), params![digest])?;
                }
            }
            Ok(forgotten)
        })
    }
}

impl Store {
    /// Returns the keys of the slices of what an action gave.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn slices_of(&self, action: &ActionDigest) -> Result<Vec<ActionDigest>, StoreError> {
        let mut keys = Vec::new();
        for output in self.action(action)?.iter().flat_map(|result| result.outputs.values()) {
            if let Object::Blob(blob) = output.object {
                keys.extend(self.slices(&blob.digest)?.into_iter().map(|slice| slice.action));
            }
        }
        Ok(keys)
    }

    /// Offers the slices of an image to an upstream, several at once; returns how many bytes had to be sent for them.
    ///
    /// # Errors
    /// [`UpstreamError`]: the upstream, or the store, failed.
    pub(crate) fn offer_slices(
        &self,
        upstream: &dyn Upstream,
        image: &BlobDigest,
        slices: &[Slice],
    ) -> Result<u64, UpstreamError> {
        let mut at = 0;
        let mut chunks = BTreeMap::new();
        for chunk in self.chunks(image)? {
            chunks.insert(at, chunk);
            at += chunk.size;
        }
        let (next, sent) = (AtomicUsize::new(0), AtomicU64::new(0));
        let lane = || {
            while let Some(slice) = slices.get(next.fetch_add(1, Ordering::Relaxed)) {
                let bytes = self.offer_slice(upstream, image, slice, &chunks).inspect_err(|_| {
                    // The others end as well.
                    next.store(slices.len(), Ordering::Relaxed);
                })?;
                sent.fetch_add(bytes, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(lane)).collect();
            let panicked = |_| Err(UpstreamError::Failed("offering panicked".to_owned()));
            lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(panicked))
        })?;
        Ok(sent.into_inner())
    }

    fn offer_slice(
        &self,
        upstream: &dyn Upstream,
        image: &BlobDigest,
        Slice { action, start, length, about }: &Slice,
        chunks: &BTreeMap<u64, Chunk>,
    ) -> Result<u64, UpstreamError> {
        // One that was entered after the image was cut is none of its chunks.
        let Some(blocks) = chunks.get(start).filter(|chunk| chunk.size == *length) else { return Ok(0) };
        let Some((statement, chunks)) = statement(action, *blocks, about) else { return Ok(0) };
        let statement = statement.encode().map_err(|error| UpstreamError::Failed(error.to_string()))?;
        let read = |number: usize| match number {
            0 => self.read_chunk(image, *start, blocks),
            _ => Ok(about.clone()),
        };
        let offer = Offer { action: *action, statement: &statement, chunks: &chunks, read: &read };
        match upstream.offer(&offer)? {
            Offered::Taken { sent } => Ok(sent),
            Offered::There(_) => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::offering::Offering;
    use crate::testing::{Folder, Memory};

    const EXPECTED: Expected = Expected { blocks: 4 << 20, about: 3 };

    /// An action that gave an image of 3 MiB, and its slices.
    fn image(store: &Store, seed: u8) -> (ActionDigest, Vec<u8>, Vec<Slice>) {
        let mut bytes = vec![0; 3 << 20];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        let blob = store.put(&bytes).unwrap();
        let slice = |start: u64, length: u64| Slice {
            action: ActionDigest::of_encoding(&[seed, start as u8, length as u8]),
            start,
            length,
            about: vec![seed; 3],
        };
        let slices = vec![slice(100, 5), slice(105, 2 << 20), slice((3 << 20) - 3, 7)];
        store.enter_slices(&blob.digest, &slices).unwrap();
        let action = ActionDigest::of_encoding(&[seed]);
        let outputs = BTreeMap::from([("image".to_owned(), blob.into())]).into();
        store.set_action(&action, &ActionResult { outputs, ..ActionResult::default() }).unwrap();
        (action, bytes, slices)
    }

    #[test]
    fn a_slice_is_a_chunk_of_its_image_and_comes_without_it() {
        let dirs = [Folder::new(), Folder::new()];
        let [one, other] = [&dirs[0], &dirs[1]].map(Folder::store);
        let upstream = Arc::new(Memory::default());
        other.set_upstreams(vec![Arc::clone(&upstream) as Arc<dyn Upstream>]);
        let (action, bytes, slices) = image(&one, 1);
        assert_eq!(other.slice(&slices[0].action, EXPECTED).unwrap(), None);
        let Offering::Sent(sent) = one.offer(&*upstream, &action).unwrap() else { panic!() };
        assert_eq!(sent, (3 << 20) + 3, "the image, and once what is to be known of a slice");
        for Slice { action, start, length, about } in &slices[..2] {
            let found = other.slice(action, EXPECTED).unwrap().unwrap();
            assert!(found.blocks == bytes[*start as usize..][..*length as usize]);
            assert_eq!(found.about, *about);
        }
        assert_eq!(other.asides(), 2);
        let little = Expected { blocks: 4, about: 3 };
        assert_eq!(other.slice(&slices[0].action, little).unwrap(), None, "more than there are blocks");
        let unknown = Expected { about: 4, ..EXPECTED };
        assert_eq!(other.slice(&slices[0].action, unknown).unwrap(), None, "for another number of blocks");
        assert_eq!(
            other.slice(&slices[2].action, EXPECTED).unwrap(),
            None,
            "behind the end: none is offered"
        );
        assert_eq!(one.offer(&*upstream, &action).unwrap(), Offering::There);
        assert!(!other.has_elsewhere().unwrap(), "the image is none of its business");
    }

    #[test]
    fn what_an_upstream_says_is_compared() {
        let dirs = [Folder::new(), Folder::new()];
        let [one, other] = [&dirs[0], &dirs[1]].map(Folder::store);
        let upstream = Arc::new(Memory::default());
        other.set_upstreams(vec![Arc::clone(&upstream) as Arc<dyn Upstream>]);
        let (action, _, slices) = image(&one, 1);
        one.offer(&*upstream, &action).unwrap();
        let signed = upstream.result(&slices[0].action).unwrap().unwrap().statement;
        for (what, key, statement) in [
            ("of another", &slices[1].action, &signed[..]),
            ("no statement", &slices[0].action, b"{}"),
            ("an image", &slices[0].action, &upstream.result(&action).unwrap().unwrap().statement),
        ] {
            upstream.set_result(key, statement);
            assert_eq!(other.slice(key, EXPECTED).unwrap(), None, "{what}");
        }
        upstream.set_result(&slices[0].action, &signed);
        assert!(other.slice(&slices[0].action, EXPECTED).unwrap().is_some());
        upstream.spoil(|bytes| Some(vec![0; bytes.len()]));
        assert_eq!(other.slice(&slices[0].action, EXPECTED).unwrap(), None);
    }

    #[test]
    fn a_slice_is_of_every_image_that_has_it() {
        let dir = Folder::new();
        let store = dir.store();
        let (first, _, slices) = image(&store, 1);
        let (second, bytes, _) = image(&store, 2);
        let later = BlobDigest::of(&bytes);
        store.enter_slices(&later, &slices).unwrap();
        for action in [first, second] {
            let upstream = Memory::default();
            store.offer(&upstream, &action).unwrap();
            for slice in &slices[..2] {
                assert!(upstream.result(&slice.action).unwrap().is_some(), "{action}");
            }
        }
        assert_eq!(store.slices_of(&first).unwrap().len(), 3);
    }

    #[test]
    fn an_offer_that_broke_off_is_ended_by_the_next_one() {
        let dir = Folder::new();
        let store = dir.store();
        let (action, _, slices) = image(&store, 1);
        // A question, two slices, the image.
        for calls in 0..5 {
            let upstream = Memory::default();
            let mut left = calls;
            *upstream.fails.lock().unwrap() = Some(Box::new(move || {
                left -= 1;
                left < 0
            }));
            let broken = store.offer(&upstream, &action);
            *upstream.fails.lock().unwrap() = None;
            assert_eq!(broken.is_err(), calls < 4, "{calls}: {broken:?}");
            store.offer(&upstream, &action).unwrap();
            for slice in &slices[..2] {
                assert!(upstream.result(&slice.action).unwrap().is_some(), "{calls}");
            }
        }
    }

    #[test]
    fn an_image_with_slices_of_who_is_no_longer_trusted_is_made_anew() {
        let dir = Folder::new();
        let store = dir.store();
        let (action, bytes, _) = image(&store, 1);
        let (other, ..) = image(&store, 2);
        let signer = |name: &str| Signer { name: name.to_owned(), key: "key".to_owned() };
        store.enter_helpers(&BlobDigest::of(&bytes), &[signer("ci")].into()).unwrap();
        assert_eq!(store.distrust(&|_| true).unwrap(), 0);
        assert_eq!(store.distrust(&|known| *known != signer("ci")).unwrap(), 1);
        assert!(store.action(&action).unwrap().is_none() && store.action(&other).unwrap().is_some());
        assert!(store.slices(&BlobDigest::of(&bytes)).unwrap().is_empty());
        assert_eq!(store.distrust(&|_| false).unwrap(), 0, "once");
    }

    #[test]
    fn the_slices_of_an_image_that_went_go_as_well() {
        let dir = Folder::new();
        let store = dir.store();
        let (_, bytes, _) = image(&store, 1);
        let digest = BlobDigest::of(&bytes);
        assert_eq!(store.slices(&digest).unwrap().len(), 3);
        store.index(|index| index.execute("DELETE FROM objects", [])).unwrap();
        store.remove_lost_runs().unwrap();
        assert!(store.slices(&digest).unwrap().is_empty());
    }

    #[test]
    fn the_statement_of_a_slice_is_pinned() {
        let bytes = b"blocks";
        let sha256 = Sha256::from_slice(&sha2::Sha256::digest(bytes)).unwrap();
        let blocks = Chunk { digest: BlobDigest::of(bytes), sha256, size: 6 };
        let (statement, _) =
            statement(&ActionDigest::of_encoding(b"slice"), blocks, &[3, 0, 0, 0x80]).unwrap();
        let encoding = statement.encode().unwrap();
        assert!(Statement::decode(&encoding).is_ok());
        assert_eq!(
            BlobDigest::of(&encoding).to_string(),
            "c21e1a50f8c14da17267e0e4be2f3216d551f6b7501708e7f5829643db056480",
            "{}",
            String::from_utf8_lossy(&encoding)
        );
    }
}
