//! Upstreams: where results and the bytes of objects come from that this store does not have, and where they are offered.
//!
//! An upstream is asked for what an action gave ([`Upstream::result`]), and later, when somebody reads them, for the bytes of
//! objects ([`Upstream::fetch`]). Bytes travel as chunks of a few megabytes at most, cut where the content says: two images that
//! differ in one file share all other chunks. Nothing that an upstream says is believed because of where it comes from: results
//! count by their signature, bytes by their digest.

use std::fmt;

use super::error::StoreError;
use crate::digest::{ActionDigest, BlobDigest, Sha256};

/// A piece of an object, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chunk {
    /// The BLAKE3 of its bytes; that of the object, where the object is one chunk.
    pub digest: BlobDigest,
    /// Their SHA-256, for servers that know no other.
    pub sha256: Sha256,
    /// Number of bytes.
    pub size: u64,
}

/// Who signed a result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signer {
    /// The name that the own list of trusted keys gives him.
    pub name: String,
    /// His public key, as that list writes it.
    pub key: String,
}

/// What an upstream has under the key of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The encoding of a statement, as it was signed.
    pub statement: Vec<u8>,
    /// Whose signature was checked; nobody's, where any result is taken.
    pub signer: Option<Signer>,
}

/// A result to be offered.
pub struct Offer<'a> {
    /// The action.
    pub action: ActionDigest,
    /// The encoding of its statement.
    pub statement: &'a [u8],
    /// All chunks of all objects that it names.
    pub chunks: &'a [Chunk],
    /// Reads the bytes of a chunk, by its place in the list.
    pub read: &'a (dyn Fn(usize) -> Result<Vec<u8>, StoreError> + Sync),
}

impl fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offer({}, {} chunks)", self.action, self.chunks.len())
    }
}

/// What came of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It was taken; so many bytes of objects had to be sent.
    Taken {
        /// The bytes.
        sent: u64,
    },
    /// There was a valid result already: the first one stays.
    There(Vec<u8>),
}

/// Why an upstream did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It has no such chunk, or no longer.
    #[error("it does not have {0}")]
    Gone(BlobDigest),
    /// It has other bytes under that name.
    #[error("what it has as {0} are other bytes")]
    Altered(BlobDigest),
    /// It was not reached, refused, was too slow, or answered nonsense.
    #[error("{0}")]
    Failed(String),
    /// The store failed, or everything is to stop.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes in the bytes of a chunk, by its place in the list that was asked for.
pub type Take<'a> = &'a mut dyn FnMut(usize, Vec<u8>) -> Result<(), StoreError>;

/// A place elsewhere that has results and objects. Servers of the Remote Execution API implement it, and plain folders.
pub trait Upstream: Send + Sync {
    /// Returns its name, for people.
    fn name(&self) -> &str;

    /// Returns what it has for an action, if that is signed by somebody who is trusted.
    ///
    /// # Errors
    /// [`UpstreamError::Failed`]: as far as the build is concerned, it has nothing.
    fn result(&self, action: &ActionDigest) -> Result<Option<Signed>, UpstreamError>;

    /// Fetches chunks and hands them over in order, each compared with its digest.
    ///
    /// # Errors
    /// [`UpstreamError`]; what was handed over until then is right.
    fn fetch(&self, chunks: &[Chunk], take: Take<'_>) -> Result<(), UpstreamError>;

    /// Sends what it does not have yet, the objects first.
    ///
    /// # Errors
    /// [`UpstreamError`]; what was sent stays there, and the result is not there.
    fn offer(&self, offer: &Offer<'_>) -> Result<Offered, UpstreamError>;
}
