//! Objects that are known, and whose bytes only an upstream has.
//!
//! Such an object counts as there, whether or not an upstream is set or can be reached: most are never read. Whoever reads one
//! has it fetched, once, however many ask. If that fails it counts as lost for the rest of this process, so that whatever names
//! it is made again; only where the upstream that was said to have it does not, it is forgotten for good.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rusqlite::{OptionalExtension, params};

use super::upstream::{Chunk, Upstream, UpstreamError};
use super::{Blob, Objects, StoreError};
use crate::digest::{ActionDigest, BlobDigest};
use crate::file::OnFile;
use crate::index::{lock, now};

/// Says that an object is no longer fetched.
struct Fetching<'a>(&'a Objects, BlobDigest);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        lock(&self.0.away.fetching).remove(&self.1);
        self.0.away.fetched.notify_all();
    }
}

impl Objects {
    /// Has bytes that are not here fetched from these, asked in this order.
    pub fn set_upstreams(&self, upstreams: Vec<Arc<dyn Upstream>>) {
        *lock(&self.away.upstreams) = upstreams;
    }

    /// Returns where bytes and results are fetched from.
    pub fn upstreams(&self) -> Vec<Arc<dyn Upstream>> {
        lock(&self.away.upstreams).clone()
    }

    /// Returns how many objects this process could not fetch, and how many results from elsewhere it found to be wrong. Neither counts any
    /// more.
    pub fn lost(&self) -> usize {
        let barred = lock(&self.away.barred).len();
        lock(&self.away.lost).len() + barred
    }

    /// Counts a result that was asked for beside those of nodes.
    pub(crate) fn count_aside(&self) {
        self.away.asides.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many of the results that this process was given are no node's: slices of images, and what is there already of what is offered.
    pub fn asides(&self) -> u64 {
        self.away.asides.load(Ordering::Relaxed)
    }

    /// Counts slices of others that an image is made of.
    pub fn count_slices(&self, number: u64) {
        self.away.slices.fetch_add(number, Ordering::Relaxed);
    }

    /// Returns how many slices of others the images of this process are made of.
    pub fn slices_taken(&self) -> u64 {
        self.away.slices.load(Ordering::Relaxed)
    }

    /// Tells whether an upstream has the bytes of an object, as far as this process knows.
    pub(crate) fn is_elsewhere(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        let is_known = self.index(|index| {
            index
                .prepare_cached("SELECT 1 FROM elsewhere WHERE digest = ?1")?
                .exists(params![digest.as_bytes()])
        })?;
        Ok(is_known && !lock(&self.away.lost).contains(digest))
    }

    /// Fetches an object that is elsewhere and has no file here; tells whether it has one then.
    pub(super) fn bring(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        let path = self.object_path(digest);
        if path.exists() {
            return Ok(true);
        }
        let mut fetching = lock(&self.away.fetching);
        while fetching.contains(digest) {
            self.check_stopped()?;
            let wait = std::time::Duration::from_millis(100);
            let waited = self.away.fetched.wait_timeout(fetching, wait);
            (fetching, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if path.exists() {
            return Ok(true);
        }
        if !self.is_elsewhere(digest)? {
            return Ok(false);
        }
        fetching.insert(*digest);
        drop(fetching);
        let _fetching = Fetching(self, *digest);
        self.fetch(digest)
    }

    /// Asks one upstream after the other for an object.
    fn fetch(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        // Only who was said to have it can say that it is gone.
        let mut is_gone = false;
        let (chunks, had_by) = self.chunks_elsewhere(digest)?;
        for upstream in self.upstreams() {
            match self.fetch_from(&*upstream, digest, &chunks) {
                Ok(()) => return Ok(true),
                Err(UpstreamError::Store(error)) => return Err(error),
                Err(UpstreamError::Failed(_)) => {}
                Err(UpstreamError::Gone(_) | UpstreamError::Altered(_)) => {
                    is_gone |= upstream.name() == had_by
                }
            }
        }
        lock(&self.away.lost).insert(*digest);
        if is_gone {
            self.forget_elsewhere(&[*digest])?;
        }
        Ok(false)
    }

    fn fetch_from(
        &self,
        upstream: &dyn Upstream,
        digest: &BlobDigest,
        chunks: &[Chunk],
    ) -> Result<(), UpstreamError> {
        let mut writer = self.writer()?;
        upstream.fetch(chunks, &mut |_, bytes| {
            self.check_stopped()?;
            Ok(writer.write_all(&bytes).on_file("write", &writer.path)?)
        })?;
        // What has other bytes gets another name than the one that is looked for, or none at all.
        let size: u64 = chunks.iter().map(|chunk| chunk.size).sum();
        if writer.blob() != (Blob { digest: *digest, size }) {
            return Err(UpstreamError::Altered(*digest));
        }
        writer.commit()?;
        Ok(())
    }

    /// Forgets that an upstream has these.
    pub(crate) fn forget_elsewhere(&self, digests: &[BlobDigest]) -> Result<(), StoreError> {
        self.change(|index| {
            let mut delete = index.prepare_cached("DELETE FROM elsewhere WHERE digest = ?1")?;
            digests.iter().try_for_each(|digest| delete.execute(params![digest.as_bytes()]).map(drop))
        })
    }

    /// Remembers within a transaction that an upstream has an object, and as what it travels.
    pub(crate) fn enter_elsewhere(
        index: &rusqlite::Connection,
        digest: &BlobDigest,
        chunks: &[Chunk],
        upstream: &str,
    ) -> Result<(), rusqlite::Error> {
        let size: u64 = chunks.iter().map(|chunk| chunk.size).sum();
        index
            .prepare_cached(
                "INSERT OR REPLACE INTO elsewhere(digest, size, chunks, upstream, seen) VALUES(?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![digest.as_bytes(), size as i64, super::chunks::encode(chunks), upstream, now()])
            .map(drop)
    }

    /// Returns the chunks that an upstream was said to have an object as, and the upstream.
    fn chunks_elsewhere(&self, digest: &BlobDigest) -> Result<(Vec<Chunk>, String), StoreError> {
        let row: Option<(Vec<u8>, String)> = self.index(|index| {
            index
                .prepare_cached("SELECT chunks, upstream FROM elsewhere WHERE digest = ?1")?
                .query_row(params![digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        let (chunks, upstream) = row.unwrap_or_default();
        Ok((super::chunks::decode(&chunks).unwrap_or_default(), upstream))
    }

    /// Takes in that results which name this object contradict what it is. Those that came from elsewhere are forgotten, and not
    /// asked for again in this process.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub(crate) fn contradicted(&self, digest: &BlobDigest) -> Result<(), StoreError> {
        // Digests stand in results as text.
        let named = format!("%{digest}%");
        let actions: Vec<Vec<u8>> = self.change(|index| {
            let of = "FROM actions WHERE digest IN (SELECT action FROM origins)
                AND (result LIKE ?1 OR digest IN (SELECT action FROM claims WHERE digest = ?2))";
            let mut query = index.prepare(&format!("SELECT digest {of}"))?;
            let key = digest.as_bytes();
            let actions =
                query.query_map(params![named, key], |row| row.get(0))?.collect::<Result<_, _>>()?;
            index.execute(&format!("DELETE {of}"), params![named, key])?;
            Ok(actions)
        })?;
        lock(&self.away.barred).extend(actions.iter().filter_map(|row| ActionDigest::from_slice(row)));
        Ok(())
    }

    /// Tells whether a result is not to be asked for: what was said of it was wrong.
    pub(crate) fn is_barred(&self, action: &ActionDigest) -> bool {
        lock(&self.away.barred).contains(action)
    }

    /// Returns the objects that an upstream has, and no file here, with their sizes.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn all_elsewhere(&self) -> Result<Vec<(BlobDigest, u64)>, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = self.index(|index| {
            let mut query = index.prepare(
                "SELECT digest, size FROM elsewhere WHERE digest NOT IN (SELECT digest FROM objects) ORDER BY digest",
            )?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let row = |(digest, size): (Vec<u8>, i64)| Some((BlobDigest::from_slice(&digest)?, size as u64));
        Ok(rows.into_iter().filter_map(row).collect())
    }

    /// Tells whether an upstream was ever said to have something.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn has_elsewhere(&self) -> Result<bool, StoreError> {
        let found: Option<i64> = self.index(|index| {
            index.query_row("SELECT 1 FROM elsewhere LIMIT 1", [], |row| row.get(0)).optional()
        })?;
        Ok(found.is_some())
    }
}
