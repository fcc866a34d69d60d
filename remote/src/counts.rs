//! What was asked of an upstream, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was asked of an upstream until now.
#[derive(Debug, Default)]
pub struct Counts {
    found: AtomicU64,
    fetched: AtomicU64,
    fetching: AtomicU64,
    sent: AtomicU64,
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

    /// Counts the time until what is returned is dropped.
    pub(crate) fn fetching(&self) -> impl Drop {
        struct Fetching<'a>(&'a AtomicU64, Instant);
        impl Drop for Fetching<'_> {
            fn drop(&mut self) {
                let taken = u64::try_from(self.1.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.0.fetch_add(taken, Ordering::Relaxed);
            }
        }
        Fetching(&self.fetching, Instant::now())
    }

    /// Returns the numbers.
    pub fn total(&self) -> Total {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Total {
            found: number(&self.found),
            fetched: number(&self.fetched),
            fetching: Duration::from_micros(number(&self.fetching)),
            sent: number(&self.sent),
        }
    }
}
