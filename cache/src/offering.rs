//! Offering results to upstreams, with the slices of the images among them.

use crate::actions::Object;
use crate::digest::{ActionDigest, BlobDigest};
use crate::objects::upstream::{Chunk, Offer, Offered, Upstream, UpstreamError};
use crate::statement::{Statement, StatementError};
use crate::store::Store;

/// What came of offering a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offering {
    /// There is no such result, or its bytes lie in a place of this machine's.
    Nothing,
    /// It is there now; so many bytes of objects had to be sent.
    Sent(u64),
    /// It was there.
    There,
    /// There is another result of the same action, which stays: the step does not give the same each time.
    Other {
        /// The output that differs.
        output: String,
        /// What it is here.
        here: String,
        /// What it is there.
        there: String,
    },
}

impl Store {
    /// Offers a result to an upstream.
    ///
    /// # Errors
    /// [`UpstreamError`]: the upstream, or the store, failed.
    pub fn offer(&self, upstream: &dyn Upstream, action: &ActionDigest) -> Result<Offering, UpstreamError> {
        let Some(statement) = self.statement(action)? else { return Ok(Offering::Nothing) };
        let failed = |error: StatementError| UpstreamError::Failed(error.to_string());
        let encoding = statement.encode().map_err(failed)?;
        let mut places: Vec<(&BlobDigest, u64, Chunk)> = Vec::new();
        let mut at = 0;
        for (digest, chunk) in statement.chunks() {
            at = if places.last().is_some_and(|(last, ..)| *last == digest) { at } else { 0 };
            places.push((digest, at, chunk));
            at += chunk.size;
        }
        let chunks: Vec<Chunk> = statement.chunks().map(|(_, chunk)| chunk).collect();
        let read = |number: usize| {
            let (digest, at, chunk) = &places[number];
            self.read_chunk(digest, *at, chunk)
        };
        let slices = self.offer_slices_of(upstream, &statement)?;
        let offer = Offer { action: *action, statement: &encoding, chunks: &chunks, read: &read };
        let there = match upstream.offer(&offer)? {
            Offered::Taken { sent } => return Ok(Offering::Sent(slices + sent)),
            Offered::There(there) => Statement::decode(&there).map_err(failed)?,
        };
        let other = statement.result.outputs.iter().find_map(|(name, output)| {
            let there = there.result.outputs.get(name).map(|output| output.object);
            let there_text = there.map_or_else(|| "nothing".to_owned(), |object| object.to_string());
            (there != Some(output.object)).then(|| Offering::Other {
                output: name.clone(),
                here: output.object.to_string(),
                there: there_text,
            })
        });
        Ok(other.unwrap_or(Offering::There))
    }

    /// Offers the slices of what an action gave, unless its result is there: they go in front of it. Returns how many bytes had to be sent.
    fn offer_slices_of(&self, upstream: &dyn Upstream, statement: &Statement) -> Result<u64, UpstreamError> {
        let mut images = Vec::new();
        for output in statement.result.outputs.values() {
            if let Object::Blob(blob) = output.object {
                let slices = self.slices(&blob.digest)?;
                images.extend(Some((blob.digest, slices)).filter(|(_, slices)| !slices.is_empty()));
            }
        }
        if images.is_empty() {
            return Ok(0);
        }
        if upstream.result(&statement.action)?.is_some() {
            self.count_aside();
            return Ok(0);
        }
        let mut sent = 0;
        for (image, slices) in images {
            sent += self.offer_slices(upstream, &image, &slices)?;
        }
        Ok(sent)
    }
}
