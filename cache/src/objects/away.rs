//! What a process knows of objects whose bytes are elsewhere; see [`super::elsewhere`].

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex};

use super::upstream::Upstream;
use crate::digest::{ActionDigest, BlobDigest};
use crate::index::lock;

/// Where bytes come from that are not here, and what is being fetched.
#[derive(Default)]
pub(super) struct Away {
    pub(super) upstreams: Mutex<Vec<Arc<dyn Upstream>>>,
    /// What a thread fetches now.
    pub(super) fetching: Mutex<HashSet<BlobDigest>>,
    pub(super) fetched: Condvar,
    /// Results that were found to be wrong.
    pub(super) barred: Mutex<HashSet<ActionDigest>>,
    /// What could not be fetched.
    pub(super) lost: Mutex<HashSet<BlobDigest>>,
    /// Results that are no node's.
    pub(super) asides: AtomicU64,
    /// Slices of others' images that images here are made of.
    pub(super) slices: AtomicU64,
}

impl fmt::Debug for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> =
            lock(&self.upstreams).iter().map(|upstream| upstream.name().to_owned()).collect();
        f.debug_struct("Away").field("upstreams", &names).finish_non_exhaustive()
    }
}
