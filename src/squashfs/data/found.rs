//! Blocks as they go into an image: found in one of the store by what they were made of and how, or compressed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cache::BlobDigest;
use cache::blocks::{self, Blocks};

use crate::squashfs::error::WriteError;
use crate::squashfs::options::Options;

/// A block as it goes into the image.
pub(super) struct Ready {
    pub(super) bytes: Vec<u8>,
    pub(super) block: blocks::Block,
}

/// What a key says besides the content: all that can change what a compressor makes of it.
#[derive(Clone)]
pub(super) struct Settings(pub(super) String);

impl Settings {
    pub(super) fn of(options: &Options) -> Self {
        let Options { compressor, block_size, .. } = options;
        let libraries = compressor.kind.libraries();
        Self(format!("{}-{} {block_size} {libraries}", compressor.kind.name(), compressor.level))
    }

    /// Returns the key of a block of these bytes.
    pub(super) fn block(&self, bytes: &[u8]) -> BlobDigest {
        self.key("block", &[bytes])
    }

    /// Returns the key of what is made of `parts`, in the way `kind` says.
    pub(super) fn key(&self, kind: &str, parts: &[&[u8]]) -> BlobDigest {
        let mut hasher = cache::digest::BlobHasher::default();
        hasher.update(format!("stagegraph squashfs {kind}\n{}\n", self.0).as_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finish()
    }
}

/// Reads a block that lies in an image under a key of its own.
pub(super) fn found_block(known: &Blocks<'_>, key: &BlobDigest) -> Result<Option<Ready>, WriteError> {
    let Some(run) = known.find(key)?.filter(|run| run.blocks.len() == 1) else { return Ok(None) };
    let mut found = None;
    known.read(&run, |block, bytes| {
        found = Some(Ready { bytes, block: *block });
        Ok::<(), WriteError>(())
    })?;
    Ok(found)
}

/// Compresses a block; one that is not known to be new is looked for by its key first.
pub(super) fn compressed(
    options: &Options,
    known: &Blocks<'_>,
    block: &[u8],
    key: BlobDigest,
    is_new: bool,
) -> Result<Ready, WriteError> {
    let result = || {
        if !is_new && let Some(ready) = found_block(known, &key)? {
            return Ok(ready);
        }
        let (bytes, is_plain) = match options.compressor.compress(block, options.block_size)? {
            Some(bytes) => (bytes, false),
            None => (block.to_vec(), true),
        };
        Ok(Ready { block: blocks::Block::of(&bytes, is_plain, key), bytes })
    };
    // The pipeline waits for an answer, whatever happens here.
    let failed = |_| Err(WriteError::Compress(options.compressor.kind.name()));
    catch_unwind(AssertUnwindSafe(result)).unwrap_or_else(failed)
}
