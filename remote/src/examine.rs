//! Reads all that an upstream has of some results, to find what is gone or altered there.
//!
//! The Remote Execution API has no way to delete a blob, and servers that send other bytes under a name go on saying that it is there: who
//! runs the server has to know which they are.

use std::collections::HashSet;

use cache::statement::Statement;
use cache::upstream::{Chunk, UpstreamError};
use cache::{ActionDigest, BlobDigest};

use crate::upstream::Remote;

/// A chunk that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The object that it is of.
    pub object: BlobDigest,
    /// The chunk.
    pub chunk: Chunk,
    /// Whether there is nothing; otherwise there are other bytes.
    pub is_gone: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// Results that are there and count.
    pub results: usize,
    /// Actions without one.
    pub without: Vec<ActionDigest>,
    /// Chunks that are whole, and their bytes.
    pub chunks: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Those that are not.
    pub damages: Vec<Damage>,
}

/// Reads all chunks of what these actions gave, each once.
///
/// # Errors
/// The upstream cannot be used, or a result of it cannot be read.
pub fn examine(upstream: &dyn Remote, actions: &[ActionDigest]) -> Result<Examined, UpstreamError> {
    let mut found = Examined::default();
    let mut seen = HashSet::new();
    for action in actions {
        let Some(signed) = upstream.result(action)? else {
            found.without.push(*action);
            continue;
        };
        let nonsense =
            |error| UpstreamError::Failed(format!("the result of action {action} cannot be read: {error}"));
        let statement = Statement::decode(&signed.statement).map_err(nonsense)?;
        found.results += 1;
        let chunks = statement.chunks().map(|(object, chunk)| (*object, chunk));
        let new = chunks.filter(|(_, chunk)| seen.insert(chunk.digest)).collect();
        found.read(upstream, new)?;
    }
    Ok(found)
}

impl Examined {
    fn read(
        &mut self,
        upstream: &dyn Remote,
        mut left: Vec<(BlobDigest, Chunk)>,
    ) -> Result<(), UpstreamError> {
        while !left.is_empty() {
            let chunks: Vec<Chunk> = left.iter().map(|(_, chunk)| *chunk).collect();
            let mut read = 0;
            let fetched = upstream.fetch(&chunks, &mut |number, bytes| {
                read = number + 1;
                self.chunks += 1;
                self.bytes += bytes.len() as u64;
                Ok(())
            });
            let (digest, is_gone) = match fetched {
                Ok(()) => return Ok(()),
                Err(UpstreamError::Gone(digest)) => (digest, true),
                Err(UpstreamError::Altered(digest)) => (digest, false),
                Err(error) => return Err(error),
            };
            left.drain(..read);
            // It is the one that cannot be had: a list without it is shorter.
            let Some(place) = left.iter().position(|(_, chunk)| chunk.digest == digest) else {
                return Err(UpstreamError::Failed(format!("it was not asked for {digest}")));
            };
            let (object, chunk) = left.remove(place);
            self.damages.push(Damage { object, chunk, is_gone });
        }
        Ok(())
    }
}
