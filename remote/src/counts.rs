//! What was asked of an upstream, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was asked of an upstream until now.
#[derive(Debug, Default)]
pub struct Counts {
    found: AtomicU64,
    fetched: AtomicU64,
    fetching: Mutex<Fetching>,
    sent: AtomicU64,
}

/// For how long somebody waited for bytes.
#[derive(Debug, Default)]
struct Fetching {
    waiting: usize,
    since: Option<Instant>,
    taken: Duration,
}

/// The numbers, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// Results that it had, and that count.
    pub found: u64,
    /// Bytes that came.
    pub fetched: u64,
    /// For how long somebody waited for them.
    pub fetching: Duration,
    /// Bytes that were sent.
    pub sent: u64,
}

impl Counts {
    pub(crate) fn found(&self) {
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts the time until what is returned is dropped; who waits at the same time as another one waits once.
    pub(crate) fn fetching(&self) -> impl Drop {
        struct Waiting<'a>(&'a Mutex<Fetching>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                let mut fetching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                fetching.waiting -= 1;
                if fetching.waiting == 0 {
                    let waited = fetching.since.take().map_or(Duration::ZERO, |since| since.elapsed());
                    fetching.taken += waited;
                }
            }
        }
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.waiting += 1;
        fetching.since.get_or_insert_with(Instant::now);
        Waiting(&self.fetching)
    }

    /// Returns the numbers.
    pub fn total(&self) -> Total {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Total {
            found: number(&self.found),
            fetched: number(&self.fetched),
            fetching: self.fetching.lock().unwrap_or_else(PoisonError::into_inner).taken,
            sent: number(&self.sent),
        }
    }
}
