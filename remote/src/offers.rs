//! Offers results beside the build: no step waits for it.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cache::offering::Offering;
use cache::upstream::UpstreamError;
use cache::{ActionDigest, Store, causes};

use crate::upstream::Remote;

/// What came of all offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Results that an upstream has now because of this build.
    pub results: usize,
    /// Bytes of objects that were sent for them.
    pub bytes: u64,
    /// Results that it had.
    pub there: usize,
    /// Results that could not be offered.
    pub failed: usize,
    /// What people should read: steps that give something else each time, failures.
    pub remarks: Vec<String>,
}

/// How often somebody who waits for the end looks whether it has come.
const INTERVAL: Duration = Duration::from_millis(2);

/// Results that are offered at once.
const AT_ONCE: usize = 4;

/// Offers results, on threads of its own.
pub struct Offers {
    queue: Sender<ActionDigest>,
    threads: Vec<JoinHandle<()>>,
    sent: Arc<Mutex<Sent>>,
}

impl std::fmt::Debug for Offers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offers").finish_non_exhaustive()
    }
}

impl Offers {
    /// Begins to offer results of a store to these.
    pub fn new(store: Arc<Store>, upstreams: Vec<Arc<dyn Remote>>) -> Self {
        let (queue, wanted) = channel::<ActionDigest>();
        let sent: Arc<Mutex<Sent>> = Arc::default();
        let wanted = Arc::new(Mutex::new(wanted));
        let thread = |_| {
            let (store, upstreams) = (Arc::clone(&store), upstreams.clone());
            let (wanted, log) = (Arc::clone(&wanted), Arc::clone(&sent));
            std::thread::spawn(move || {
                // One waits for the next result, and the others wait for him.
                let next = || wanted.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
                while let Some(action) = next() {
                    for upstream in &upstreams {
                        offer(&store, &**upstream, &action, &log);
                    }
                }
            })
        };
        let threads = (0..AT_ONCE).map(thread).collect();
        Self { queue, threads, sent }
    }

    /// Offers a result, later.
    pub fn push(&self, action: ActionDigest) {
        // The thread lives as long as somebody can push.
        let _ = self.queue.send(action);
    }

    /// Waits for what is left, but not longer than that; returns what came of it, and whether all was done.
    pub fn finish(self, patience: Duration, is_stopped: &dyn Fn() -> bool) -> (Sent, bool) {
        let Self { queue, threads, sent } = self;
        drop(queue);
        let began = Instant::now();
        let are_finished = || threads.iter().all(JoinHandle::is_finished);
        while !are_finished() && began.elapsed() < patience && !is_stopped() {
            std::thread::sleep(INTERVAL);
        }
        let is_done = are_finished() && threads.into_iter().all(|thread| thread.join().is_ok());
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (sent, is_done)
    }
}

fn offer(store: &Store, upstream: &dyn Remote, action: &ActionDigest, log: &Mutex<Sent>) {
    let offered = store.offer(upstream, action);
    let mut sent = log.lock().unwrap_or_else(PoisonError::into_inner);
    match offered {
        Ok(Offering::Nothing) => {}
        Ok(Offering::Sent(bytes)) => {
            sent.results += 1;
            sent.bytes += bytes;
        }
        Ok(Offering::There) => sent.there += 1,
        Ok(Offering::Other { output, here, there }) => {
            sent.there += 1;
            sent.remarks.push(format!(
                "{}: action {} gave another {output} there ({there}) than here ({here}); that one stays, and \
                 `stagegraph build --check` finds the step that is not reproducible",
                upstream.name(),
                action.short()
            ));
        }
        // The upstream has said itself why it fails.
        Err(UpstreamError::Failed(_)) => sent.failed += 1,
        Err(error) => {
            sent.failed += 1;
            sent.remarks.push(format!("{}: {}", upstream.name(), causes(&error).join(": ")));
        }
    }
}
