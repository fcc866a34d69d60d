//! Blocks that wait for a core, here or elsewhere.
//!
//! Blocks that follow each other make a shard. Threads of this machine take shards from the end that was added last. Lanes take them from
//! the other end, where they are wanted first: a lane asks upstreams for the shard as a slice of an image that somebody else wrote, then
//! has a worker do it, and gives back what nobody has. So nothing waits for a server that a core here could do. What comes from
//! elsewhere is compared before it counts, and what does not come in time is done here as well: the first one counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cache::blocks::{self, Blocks};
use cache::slices::{Expected, Found};
use cache::upstream::Signer;
use cache::{BlobDigest, Objects};
use graph::Workers;

use super::found::{Ready, Settings, compressed, found_block};
use super::slices::{self, Cut};
use crate::squashfs::error::WriteError;
use crate::squashfs::options::{Help, Options};
use crate::squashfs::shard::{self, Packed, ShardError};

/// Lanes that ask upstreams, where there are no workers.
const ASKING: usize = 8;

/// Bytes of blocks that are under way at once for an image: where there are workers, and where upstreams are asked alone.
const IN_FLIGHT: usize = 256 << 20;
const IN_FLIGHT_ASKING: usize = 96 << 20;

/// How long somebody waits for a shard before it is looked whether one is late.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// What is not back after so many times the usual time, and not before this, is done here as well.
const LATE: u32 = 3;
const SOON: Duration = Duration::from_secs(1);

/// What is not back after this is done here, whatever is usual.
const LATEST: Duration = Duration::from_secs(10);

/// A block's number, the block, and the memory that was read into.
pub(super) type Answer = (usize, Result<Ready, WriteError>, Vec<u8>);

/// A block to be compressed.
pub(super) struct Wanted {
    pub(super) number: usize,
    pub(super) block: Vec<u8>,
    pub(super) key: BlobDigest,
    /// Whether it was looked for already.
    pub(super) is_new: bool,
}

/// Blocks that are compressed together.
#[derive(Default)]
pub(super) struct Shard {
    wanted: Vec<Wanted>,
}

impl Shard {
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Adds a block; tells whether the shard ends with it.
    pub(super) fn add(&mut self, wanted: Wanted, cut: Cut) -> bool {
        let key = wanted.key;
        self.wanted.push(wanted);
        cut.is_behind(&key, self.wanted.len())
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Shard>>,
    /// Those that nobody elsewhere has or does.
    returned: VecDeque<Arc<Shard>>,
    /// Those that a lane has, by the number of their first block, and since when.
    away: BTreeMap<usize, (Arc<Shard>, Instant)>,
    /// How long others took.
    times: Vec<Duration>,
    /// Who signed slices that are in the image, and how many slices there are.
    signers: BTreeSet<Signer>,
    slices: u64,
}

impl State {
    /// Returns a shard that should have come back from its lane; it is returned once.
    fn late(&mut self) -> Option<Arc<Shard>> {
        let mut times = self.times.clone();
        times.sort_unstable();
        let usual = times.get(times.len() / 2).copied().unwrap_or(Duration::ZERO);
        let limit = SOON.max(usual * LATE).min(LATEST);
        let (number, _) = self.away.iter().find(|(_, (_, since))| since.elapsed() > limit)?;
        let number = *number;
        self.away.remove(&number).map(|(shard, _)| shard)
    }
}

/// Blocks that wait for a core.
pub(super) struct Shards<'a> {
    help: Help<'a>,
    objects: &'a Objects,
    options: &'a Options,
    settings: &'a Settings,
    known: &'a Blocks<'a>,
    state: Mutex<State>,
    arrived: Condvar,
    is_over: AtomicBool,
    /// Whether bytes came that could be undone, and were not ours.
    is_doubtful: AtomicBool,
}

/// Ends the lanes when it is dropped, also where writing failed.
pub(super) struct Ending<'a>(&'a Shards<'a>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // Under the lock: nobody begins to wait between the two.
        let _state = self.0.state();
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.arrived.notify_all();
    }
}

impl<'a> Shards<'a> {
    pub(super) fn new(
        help: Help<'a>,
        objects: &'a Objects,
        options: &'a Options,
        settings: &'a Settings,
        known: &'a Blocks<'a>,
    ) -> Self {
        let (state, arrived) = (Mutex::default(), Condvar::new());
        let (is_over, is_doubtful) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { help, objects, options, settings, known, state, arrived, is_over, is_doubtful }
    }

    /// Tells whether bytes came that could be undone, and were not ours: others from there may be such as well.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many lanes there are.
    pub(super) fn lanes(&self) -> usize {
        self.help.workers.map_or(ASKING, Workers::lanes)
    }

    /// Returns how many bytes of blocks are under way at once.
    pub(super) fn in_flight(&self) -> usize {
        if self.help.workers.is_some() { IN_FLIGHT } else { IN_FLIGHT_ASKING }
    }

    /// Returns who signed the slices that the image is made of, and how many they are.
    pub(super) fn helped(&self) -> (BTreeSet<Signer>, u64) {
        let state = self.state();
        (state.signers.clone(), state.slices)
    }

    /// Ends the lanes when what is returned is dropped.
    pub(super) fn ending(&'a self) -> Ending<'a> {
        Ending(self)
    }

    /// Has a shard wait for a core.
    pub(super) fn push(&self, shard: Shard) {
        self.state().waiting.push_back(Arc::new(shard));
        self.arrived.notify_all();
    }

    /// Does one shard on this thread, as long as there is one that nobody has done.
    pub(super) fn do_one(&self, answers: &Sender<Answer>) {
        if let Some(shard) = self.next_here() {
            self.compress(&shard, answers);
        }
    }

    /// Returns the next shard for a thread of this machine: one that came back, the last one that waits, or one that is late. While lanes
    /// have some, one of those may come back.
    fn next_here(&self) -> Option<Arc<Shard>> {
        let mut state = self.state();
        loop {
            // What is left waits for nobody any more.
            if self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            let next = state.returned.pop_front().or_else(|| state.waiting.pop_back());
            if let Some(shard) = next.or_else(|| state.late()) {
                return Some(shard);
            }
            if state.away.is_empty() {
                return None;
            }
            let waited = self.arrived.wait_timeout(state, PATIENCE);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does all blocks of a shard on this thread.
    pub(super) fn compress(&self, shard: &Shard, answers: &Sender<Answer>) {
        for Wanted { number, block, key, is_new } in &shard.wanted {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let result = compressed(self.options, self.known, block, *key, *is_new);
            // The receiver is gone only where writing has failed already.
            let _ = answers.send((*number, result, Vec::new()));
        }
    }

    /// Looks elsewhere for shards, one after the other, until all is over.
    pub(super) fn lane(&self, answers: &Sender<Answer>) {
        while let Some((first, shard)) = self.take() {
            let began = Instant::now();
            let panicked = |_| Err("what asks for it panicked".to_owned());
            let found = catch_unwind(AssertUnwindSafe(|| self.elsewhere(&shard))).unwrap_or_else(panicked);
            let mut state = self.state();
            // A thread of this machine does what was late.
            let is_ours = state.away.remove(&first).is_some();
            match found {
                Ok(ready) => {
                    // What came too late does not tell what is usual.
                    state.times.extend(is_ours.then(|| began.elapsed()));
                    for (wanted, ready) in shard.wanted.iter().zip(ready) {
                        let _ = answers.send((wanted.number, Ok(ready), Vec::new()));
                    }
                }
                Err(why) => {
                    tracing::debug!(why, "a shard is done here");
                    state.returned.extend(is_ours.then_some(shard));
                }
            }
            drop(state);
            self.arrived.notify_all();
        }
    }

    /// Waits for a shard, and takes the first one.
    fn take(&self) -> Option<(usize, Arc<Shard>)> {
        let mut state = self.state();
        loop {
            if self.is_over.load(Ordering::Relaxed) {
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

    /// Has others give what no image of the store has.
    fn elsewhere(&self, shard: &Shard) -> Result<Vec<Ready>, String> {
        let mut ready: Vec<Option<Ready>> = Vec::with_capacity(shard.wanted.len());
        for Wanted { key, is_new, .. } in &shard.wanted {
            let found = if *is_new { Ok(None) } else { found_block(self.known, key) };
            ready.push(found.map_err(|error| error.to_string())?);
        }
        let missing: Vec<usize> = (0..ready.len()).filter(|number| ready[*number].is_none()).collect();
        if missing.len() * 2 < ready.len() {
            return Err("most of it is in the store".to_owned());
        }
        if let Some(packed) = self.slice(shard)? {
            return Ok(shard
                .wanted
                .iter()
                .zip(packed)
                .map(|(wanted, packed)| packed.ready(wanted.key))
                .collect());
        }
        let blocks: Vec<&[u8]> = missing.iter().map(|number| &*shard.wanted[*number].block).collect();
        let packed = self.done_by_worker(&blocks)?;
        for (number, packed) in missing.into_iter().zip(packed) {
            ready[number] = Some(packed.ready(shard.wanted[number].key));
        }
        Ok(ready.into_iter().flatten().collect())
    }

    /// Asks upstreams for a shard, as a slice of an image that has it: all of it, whatever of it is here.
    fn slice(&self, shard: &Shard) -> Result<Option<Vec<Packed>>, String> {
        let keys: Vec<BlobDigest> = shard.wanted.iter().map(|wanted| wanted.key).collect();
        let Some(action) = slices::key(self.settings, &keys).filter(|_| self.help.asks) else {
            return Ok(None);
        };
        let blocks: Vec<&[u8]> = shard.wanted.iter().map(|wanted| &*wanted.block).collect();
        let expected = Expected {
            blocks: blocks.iter().map(|block| block.len() as u64).sum(),
            about: shard::lengths_of(blocks.len()),
        };
        let found = self.objects.slice(&action, expected).map_err(|error| error.to_string())?;
        let Some(Found { blocks: bytes, about, signer }) = found else { return Ok(None) };
        let Options { compressor, block_size, .. } = *self.options;
        match shard::check_parts(compressor, block_size, &blocks, (&about, &bytes), sample()) {
            Ok(packed) => {
                let mut state = self.state();
                state.signers.extend(signer);
                state.slices += 1;
                Ok(Some(packed))
            }
            Err(error) => {
                tracing::warn!(%action, %error, "a slice from elsewhere is of no use");
                self.doubt(&error);
                Ok(None)
            }
        }
    }

    /// Has a worker compress blocks.
    fn done_by_worker(&self, blocks: &[&[u8]]) -> Result<Vec<Packed>, String> {
        let workers = self.help.workers.ok_or("no upstream has it")?;
        let Options { compressor, block_size, .. } = *self.options;
        let input = shard::ask(compressor, block_size, blocks).ok_or("it could not be packed")?;
        let output = workers.run(&input, &|| self.is_over.load(Ordering::Relaxed))?;
        shard::check(compressor, block_size, blocks, &output, sample()).map_err(|error| {
            workers.gave_wrong(&error.to_string());
            self.doubt(&error);
            error.to_string()
        })
    }

    fn doubt(&self, error: &ShardError) {
        if let ShardError::Other(_) = error {
            self.is_doubtful.store(true, Ordering::Relaxed);
        }
    }
}

impl Packed {
    /// Returns it as a block that was made of what `key` says.
    fn ready(self, key: BlobDigest) -> Ready {
        Ready { block: blocks::Block::of(&self.bytes, self.is_plain, key), bytes: self.bytes }
    }
}

/// Returns which block is compared byte for byte: whoever is asked cannot know it.
fn sample() -> usize {
    RandomState::new().build_hasher().finish() as usize
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use cache::testing::Folder;

    use super::*;
    use crate::squashfs::compress::{Compressor, Kind};

    #[test]
    fn what_waits_when_all_is_over_is_not_done() {
        let folder = Folder::new();
        let store = folder.store();
        let compressor = Compressor { kind: Kind::parse("zstd").unwrap(), level: 1 };
        let options = Options { compressor, block_size: 4096, epoch: 0, clamp_mtime: false, threads: 1 };
        let (settings, known) = (Settings::of(&options), Blocks::new(&store));
        let help = Help { workers: None, asks: true };
        let shards = Shards::new(help, &store, &options, &settings, &known);
        let shard = || {
            let block = vec![7; 4096];
            let key = settings.block(&block);
            Shard { wanted: vec![Wanted { number: 0, block, key, is_new: true }] }
        };
        let (answers, done) = channel();
        shards.push(shard());
        shards.do_one(&answers);
        assert!(done.try_recv().is_ok());
        shards.push(shard());
        drop(shards.ending());
        shards.do_one(&answers);
        shards.compress(&shard(), &answers);
        shards.lane(&answers);
        assert!(done.try_recv().is_err(), "nobody waits for it");
    }
}
