//! Blocks that wait for a core, here or elsewhere.
//!
//! Blocks that follow each other make a shard. Threads of this machine take shards from the end that was added last, each lane to a
//! worker takes them from the other end, where they are wanted first; so nothing waits for a server that a core here could do. What
//! a worker gave is compared before it counts, and what does not come back in time is done here as well: the first one counts.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cache::BlobDigest;
use cache::blocks::{self, Blocks};
use graph::Workers;

use super::found::{Ready, Settings, compressed, found_block};
use crate::squashfs::error::WriteError;
use crate::squashfs::options::Options;
use crate::squashfs::shard::{self, ShardError};

/// Bytes of blocks in a shard.
const SHARD: usize = 4 << 20;

/// Bytes of blocks that are under way at once, in all.
pub(super) const IN_FLIGHT: usize = 256 << 20;

/// What is not back after so many times the usual time, and not before this, is done here as well.
const LATE: u32 = 3;
const SOON: Duration = Duration::from_secs(1);

/// A block's number, the block, and the memory that was read into.
pub(super) type Answer = (usize, Result<Ready, WriteError>, Vec<u8>);

/// A block to be compressed; one that has a key was looked up already.
pub(super) struct Wanted {
    pub(super) number: usize,
    pub(super) block: Vec<u8>,
    pub(super) key: Option<BlobDigest>,
}

/// Blocks that are compressed together.
#[derive(Default)]
pub(super) struct Shard {
    wanted: Vec<Wanted>,
    bytes: usize,
}

impl Shard {
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Adds a block; tells whether there are enough now.
    pub(super) fn add(&mut self, wanted: Wanted) -> bool {
        self.bytes += wanted.block.len();
        self.wanted.push(wanted);
        self.bytes >= SHARD
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Shard>>,
    /// Those that are at a worker, by the number of their first block, and since when.
    away: BTreeMap<usize, (Arc<Shard>, Instant)>,
    /// How long others took.
    times: Vec<Duration>,
    is_over: bool,
}

/// Blocks that wait for a core.
pub(super) struct Shards<'a> {
    workers: &'a dyn Workers,
    options: &'a Options,
    settings: &'a Settings,
    known: &'a Blocks<'a>,
    state: Mutex<State>,
    arrived: Condvar,
    is_over: AtomicBool,
    /// Whether a worker gave bytes that could be undone, and were not ours.
    is_doubtful: AtomicBool,
}

/// Ends the lanes when it is dropped, also where writing failed.
pub(super) struct Ending<'a>(&'a Shards<'a>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.state().is_over = true;
        self.0.arrived.notify_all();
    }
}

impl<'a> Shards<'a> {
    pub(super) fn new(
        workers: &'a dyn Workers,
        options: &'a Options,
        settings: &'a Settings,
        known: &'a Blocks<'a>,
    ) -> Self {
        let (state, arrived) = (Mutex::default(), Condvar::new());
        let (is_over, is_doubtful) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { workers, options, settings, known, state, arrived, is_over, is_doubtful }
    }

    /// Tells whether a worker gave bytes that could be undone, and were not ours: others that it gave may be such as well.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many lanes there are to workers.
    pub(super) fn lanes(&self) -> usize {
        self.workers.lanes()
    }

    /// Ends the lanes when what is returned is dropped.
    pub(super) fn ending(&'a self) -> Ending<'a> {
        Ending(self)
    }

    /// Has a shard wait for a core.
    pub(super) fn push(&self, shard: Shard) {
        self.state().waiting.push_back(Arc::new(shard));
        self.arrived.notify_one();
    }

    /// Does one shard on this thread: the last one that waits, or else one that is late.
    pub(super) fn do_one(&self, answers: &Sender<Answer>) {
        let last = self.state().waiting.pop_back();
        if let Some(shard) = last.or_else(|| self.late()) {
            self.compress(&shard, answers);
        }
    }

    /// Returns a shard that should have come back from its worker; it is returned once.
    pub(super) fn late(&self) -> Option<Arc<Shard>> {
        let mut state = self.state();
        let mut times = state.times.clone();
        times.sort_unstable();
        let usual = times.get(times.len() / 2).copied().unwrap_or(Duration::ZERO);
        let limit = SOON.max(usual * LATE);
        let (number, _) = state.away.iter().find(|(_, (_, since))| since.elapsed() > limit)?;
        let number = *number;
        state.away.remove(&number).map(|(shard, _)| shard)
    }

    /// Does all blocks of a shard on this thread.
    pub(super) fn compress(&self, shard: &Shard, answers: &Sender<Answer>) {
        for Wanted { number, block, key } in &shard.wanted {
            let result = compressed(self.options, self.settings, self.known, block, *key);
            // The receiver is gone only where writing has failed already.
            let _ = answers.send((*number, result, Vec::new()));
        }
    }

    /// Hands shards to a worker, one after the other, until all is over.
    pub(super) fn lane(&self, answers: &Sender<Answer>) {
        while let Some((first, shard)) = self.take() {
            let began = Instant::now();
            let panicked = |_| Err("what asks the worker panicked".to_owned());
            let found = catch_unwind(AssertUnwindSafe(|| self.remote(&shard))).unwrap_or_else(panicked);
            let mut state = self.state();
            state.away.remove(&first);
            if found.is_ok() {
                state.times.push(began.elapsed());
            }
            drop(state);
            match found {
                Ok(ready) => {
                    for (wanted, ready) in shard.wanted.iter().zip(ready) {
                        let _ = answers.send((wanted.number, Ok(ready), Vec::new()));
                    }
                }
                // Nobody waits for it any more.
                Err(_) if self.is_over.load(Ordering::Relaxed) => return,
                Err(why) => {
                    tracing::debug!(why, "a shard is done here");
                    self.compress(&shard, answers);
                }
            }
        }
    }

    /// Waits for a shard, and takes the first one.
    fn take(&self) -> Option<(usize, Arc<Shard>)> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(shard) = state.waiting.pop_front() {
                let first = shard.wanted.first().map_or(0, |wanted| wanted.number);
                state.away.insert(first, (Arc::clone(&shard), Instant::now()));
                return Some((first, shard));
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has a worker compress what no image of the store has.
    fn remote(&self, shard: &Shard) -> Result<Vec<Ready>, String> {
        let mut ready: Vec<Option<Ready>> = Vec::with_capacity(shard.wanted.len());
        let mut keys = Vec::with_capacity(shard.wanted.len());
        for Wanted { block, key, .. } in &shard.wanted {
            let (key, found) = match key {
                Some(key) => (*key, None),
                None => {
                    let key = self.settings.key("block", &[block]);
                    (key, found_block(self.known, &key).map_err(|error| error.to_string())?)
                }
            };
            keys.push(key);
            ready.push(found);
        }
        let missing: Vec<usize> = (0..ready.len()).filter(|number| ready[*number].is_none()).collect();
        if missing.len() * 2 < ready.len() {
            return Err("most of it is in the store".to_owned());
        }
        let blocks: Vec<&[u8]> = missing.iter().map(|number| &*shard.wanted[*number].block).collect();
        let Options { compressor, block_size, .. } = *self.options;
        let input = shard::ask(compressor, block_size, &blocks).ok_or("it could not be packed")?;
        let output = self.workers.run(&input, &|| self.is_over.load(Ordering::Relaxed))?;
        // Whoever is asked cannot know which one is compared.
        let sample = RandomState::new().build_hasher().finish() as usize;
        let packed = shard::check(compressor, block_size, &blocks, &output, sample).map_err(|error| {
            self.workers.gave_wrong(&error.to_string());
            if let ShardError::Other(_) = error {
                self.is_doubtful.store(true, Ordering::Relaxed);
            }
            error.to_string()
        })?;
        for (number, packed) in missing.into_iter().zip(packed) {
            let block = blocks::Block::of(&packed.bytes, packed.is_plain, keys[number]);
            ready[number] = Some(Ready { bytes: packed.bytes, block });
        }
        Ok(ready.into_iter().flatten().collect())
    }
}
