//! Bytes by digest.
//!
//! This crate keeps blobs and trees under the BLAKE3 of their content, remembers what an action
//! yielded, and reads trees whose bytes lie elsewhere (in a tar, in a directory). It has not heard
//! of graphs: it neither knows what an action does nor when one runs.
//!
//! Start with [`objects`], whose module documentation draws the layout on disk, then [`tree`].
//!
//! ```
//! use cache::{BlobDigest, Store, StoreError};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let dir = folder.path();
//! let store = Store::open(dir)?;
//! let blob = store.put(b"hello")?;
//! assert_eq!(blob.digest, BlobDigest::of(b"hello"));
//! assert_eq!(store.read(&blob.digest)?, b"hello");
//! // What is put again is there already, and what is damaged is found when it is read, and taken out.
//! assert_eq!(store.put(b"hello")?, blob);
//! # Ok::<(), StoreError>(())
//! ```

pub mod actions;
pub mod blocks;
pub mod checkout;
pub mod collect;
pub mod digest;
pub mod file;
mod index;
pub mod ingest;
mod keeping;
pub mod look;
pub mod name;
pub mod objects;
pub mod offering;
pub mod rolls;
pub mod slices;
pub mod source;
pub mod stat;
pub mod statement;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tree;
pub mod usage;
pub mod verify;

pub use actions::{ActionResult, Object, Output, Outputs};
pub use digest::{ActionDigest, BlobDigest, Sha256, TreeDigest};
pub use file::{FileError, causes};
pub use look::Look;
pub use name::{FileName, RelPath};
pub use objects::{Blob, Objects, StoreError, upstream};
pub use rolls::{Roll, RollWriter};
pub use source::{Bytes, RootTree};
pub use store::Store;
pub use tree::{Entry, Meta, Node, Tree};
