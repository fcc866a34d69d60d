//! File content: blocks, and the ends of files packed together into fragments.
//!
//! The calling thread goes through the files in the order of the tree and hands on the results in that same order; a pool
//! compresses, and a thread writes. Only a window of blocks, and a few that wait to be written, are in memory at any time.
//!
//! Nothing is compressed twice: blocks are looked up in the images of the store, a file's as a whole by its digest, then
//! each by its content, a fragment by the ends it is made of. A file all of whose pieces are found is not even read. What is found changes the
//! time this takes, and no byte of the image. A file whose blocks are those of another has no others.

mod found;
mod fragments;
mod repeats;
mod shards;
mod sink;
mod slices;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use cache::blocks::{self, Blocks, Run};
use cache::name::RelPath;
use cache::slices::Slice;
use cache::upstream::Signer;
use cache::{BlobDigest, Objects, RootTree};

use self::found::{Ready, Settings, compressed};
use self::fragments::{Fragment, Fragments};
use self::repeats::{Next, Repeats};
use self::shards::{Answer, PATIENCE, Shard, Shards, Wanted};
use self::sink::Sink;
use self::slices::{Cut, Slices};
use super::error::WriteError;
use super::options::{Help, Options, Progress};

/// Set in a block's size where it is stored as it is.
const STORED: u32 = 1 << 24;

/// Marks a file without a fragment.
pub(super) const NO_FRAGMENT: u32 = u32::MAX;

/// The caller is told of so many bytes at a time.
const TELLING: u64 = 4 << 20;

/// Blocks in flight for each thread: enough that none waits for the reader.
const WINDOW: usize = 8;

/// Where a block is, and how long it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    start: u64,
    /// Length in the image; bit 24 marks a stored one.
    size: u32,
}

impl Block {
    /// Returns the row of the fragment table.
    pub(super) fn fragment_entry(&self) -> Vec<u8> {
        [&self.start.to_le_bytes()[..], &self.size.to_le_bytes(), &[0; 4]].concat()
    }
}

/// Where a file's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// Where its first block is.
    pub(super) start: u64,
    /// Its blocks.
    blocks: Vec<blocks::Block>,
    /// The fragment with its end, and where in it; [`NO_FRAGMENT`] where there is none.
    pub(super) fragment: (u32, u32),
}

impl Content {
    /// Returns the sizes of its blocks, as inodes have them; 0 is a hole.
    pub(super) fn sizes(&self) -> Vec<u32> {
        self.blocks.iter().map(size).collect()
    }

    /// Returns how many bytes of it are holes.
    pub(super) fn holes(&self, block_size: u32) -> u64 {
        self.blocks.iter().filter(|block| block.is_hole()).count() as u64 * u64::from(block_size)
    }
}

/// Returns a block's size, as inodes and the fragment table have it.
fn size(block: &blocks::Block) -> u32 {
    block.length | if block.is_plain { STORED } else { 0 }
}

/// Where all content is.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) files: HashMap<BlobDigest, Content>,
    pub(super) fragments: Vec<Block>,
    /// Every run of blocks, by what it was made of.
    pub(super) runs: Vec<(BlobDigest, Run)>,
    /// Its slices.
    pub(super) slices: Vec<Slice>,
    /// How many slices of others it is made of, and who signed them.
    pub(super) taken: u64,
    pub(super) signers: BTreeSet<Signer>,
    /// Whether bytes came from elsewhere that are others than this program's.
    pub(super) is_doubtful: bool,
}

/// What a block is for.
#[derive(Debug, Clone, Copy)]
enum Target {
    File(BlobDigest, usize),
    Fragment(usize),
}

/// Writes the content of `files` behind what `out` holds already.
pub(super) fn write(
    out: &mut File,
    root: &RootTree,
    objects: &Objects,
    files: &[(&RelPath, BlobDigest, u64)],
    options: &Options,
    help: Help<'_>,
    progress: Progress<'_>,
) -> Result<Data, WriteError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(std::io::Error::other)?;
    let settings = Settings::of(options);
    let known = Blocks::new(objects);
    let (sender, receiver) = channel();
    let at = out.stream_position()?;
    let shards = help.is_some().then(|| Shards::new(help, objects, options, &settings, &known));
    std::thread::scope(|threads| {
        let sink = Sink::new(threads, out);
        let lanes = shards.iter().flat_map(|shards| (0..shards.lanes()).map(move |_| shards));
        for shards in lanes {
            let sender = sender.clone();
            threads.spawn(move || shards.lane(&sender));
        }
        let data = pool.in_place_scope(|scope| {
            let _ending = shards.as_ref().map(Shards::ending);
            let pipeline = Pipeline {
                scope,
                options,
                settings: &settings,
                known: &known,
                shards: shards.as_ref(),
                open: Shard::default(),
                cut: Cut::of(options.block_size),
                slices: Slices::new(options.block_size),
                sender,
                receiver,
                sink: &sink,
                at,
                targets: BTreeMap::new(),
                early: BTreeMap::new(),
                spare: Vec::new(),
                submitted: 0,
                written: 0,
                data: Data::default(),
                repeats: Repeats::default(),
                fragments: Fragments::plan(files, options.block_size, &settings),
                progress,
                before: 0,
                done: 0,
                told: 0,
                total: files.iter().map(|(_, _, size)| size).sum(),
            };
            pipeline.write(root, objects, files)
        });
        // Where it could not be written, that is why all else ended.
        sink.finish()?;
        let is_doubtful = shards.as_ref().is_some_and(Shards::is_doubtful);
        let (signers, taken) = shards.as_ref().map(Shards::helped).unwrap_or_default();
        data.map(|data| Data { is_doubtful, signers, taken, ..data })
    })
}

struct Pipeline<'scope, 'a> {
    scope: &'a rayon::Scope<'scope>,
    options: &'scope Options,
    settings: &'scope Settings,
    known: &'scope Blocks<'scope>,
    /// Where others help, the shard that is being filled, and where it ends.
    shards: Option<&'scope Shards<'scope>>,
    open: Shard,
    cut: Cut,
    slices: Slices,
    sender: Sender<Answer>,
    receiver: Receiver<Answer>,
    sink: &'a Sink<'a>,
    at: u64,
    /// What the blocks in flight are for.
    targets: BTreeMap<usize, Target>,
    /// Blocks that are ready before one that goes in front of them.
    early: BTreeMap<usize, Ready>,
    /// Memory for blocks to be read into: asking the system for it again and again costs a twentieth of the time.
    spare: Vec<Vec<u8>>,
    submitted: usize,
    written: usize,
    data: Data,
    repeats: Repeats,
    fragments: Fragments,
    progress: Progress<'a>,
    /// Bytes of the files that are done; of those and of this one's blocks, as good as it is known; of all.
    before: u64,
    done: u64,
    total: u64,
    /// What the caller was told of.
    told: u64,
}

impl<'scope> Pipeline<'scope, '_> {
    /// Writes all files.
    fn write(
        mut self,
        root: &RootTree,
        objects: &Objects,
        files: &[(&RelPath, BlobDigest, u64)],
    ) -> Result<Data, WriteError> {
        for (number, (path, digest, size)) in files.iter().enumerate() {
            self.file(number, (path, *digest, *size), &|| root.open_file(objects, path, digest, *size))?;
            // Ends of files count here, and blocks that were counted twice no more.
            self.before += size;
            self.done = self.before;
            self.go_on(0)?;
        }
        self.finish(files)
    }

    /// Counts bytes; now and then tells the caller, and ends where he wants to.
    fn go_on(&mut self, bytes: usize) -> Result<(), WriteError> {
        self.done += bytes as u64;
        if self.done < self.told + TELLING && self.done < self.total {
            return Ok(());
        }
        self.told = self.done;
        if (self.progress)(self.done.min(self.total), self.total) { Ok(()) } else { Err(WriteError::Stopped) }
    }

    /// Adds a file: its whole blocks, then its end.
    fn file<R: Read>(
        &mut self,
        number: usize,
        (path, digest, size): (&RelPath, BlobDigest, u64),
        open: &dyn Fn() -> Result<R, cache::StoreError>,
    ) -> Result<(), WriteError> {
        let block_size = u64::from(self.options.block_size);
        let whole = size / block_size;
        let content = Content { start: 0, blocks: Vec::new(), fragment: (NO_FRAGMENT, 0) };
        self.data.files.insert(digest, content);
        let found = if whole > 0 { self.found_blocks(digest, whole)? } else { 0 };
        let place = self.fragments.of(number);
        let mut end = None;
        if let Some((fragment, is_first)) = place {
            if is_first {
                self.fragments.look_up(fragment, self.known)?;
            }
            if self.fragments.is_missing(fragment) {
                if is_first {
                    let memory = self.memory();
                    self.fragments.begin(fragment, memory);
                }
                end = Some(Vec::new());
            }
        }
        if found < whole || end.is_some() {
            let mut reader = open()?;
            let read = |source| WriteError::Read { path: path.clone(), source };
            for index in 0..whole {
                let block = self.read(&mut reader, block_size).map_err(read)?;
                // Those that were found only count for the digest.
                if index >= found {
                    self.add(digest, block)?;
                } else {
                    self.spare.push(block);
                }
            }
            let rest = self.read(&mut reader, size % block_size).map_err(read)?;
            end = end.map(|_| rest);
        }
        let Some((fragment, is_first)) = place else { return Ok(()) };
        if is_first && fragment > 0 {
            self.submit_fragment(fragment - 1)?;
        }
        let offset = self.fragments.add(number, end.as_deref());
        self.spare.extend(end);
        if let Some(content) = self.data.files.get_mut(&digest) {
            content.fragment = (fragment as u32, offset);
        }
        Ok(())
    }

    /// Returns memory for a block.
    fn memory(&mut self) -> Vec<u8> {
        let mut memory =
            self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.options.block_size as usize));
        memory.clear();
        memory
    }

    /// Reads so many bytes.
    fn read(&mut self, reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
        let mut block = self.memory();
        match reader.take(length).read_to_end(&mut block)? as u64 == length {
            true => Ok(block),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Takes a file's blocks out of an image that has them; returns how many of them.
    fn found_blocks(&mut self, digest: BlobDigest, whole: u64) -> Result<u64, WriteError> {
        let known = self.known;
        let Some(run) = known.find(&self.settings.key("file", &[digest.as_bytes()]))? else { return Ok(0) };
        if run.blocks.len() as u64 != whole {
            return Ok(0);
        }
        let found = known.read(&run, |block, bytes| match self.begin_block(digest) {
            Some(index) if !block.is_hole() => {
                self.ready(Target::File(digest, index), Ready { bytes, block: *block })
            }
            _ => Ok(()),
        })?;
        Ok(found as u64)
    }

    /// Enters the next block of a file, a hole until it is written; returns its number.
    fn begin_block(&mut self, digest: BlobDigest) -> Option<usize> {
        let content = self.data.files.get_mut(&digest)?;
        content.blocks.push(blocks::Block::hole(digest));
        Some(content.blocks.len() - 1)
    }

    /// Adds the next whole block of a file.
    fn add(&mut self, digest: BlobDigest, block: Vec<u8>) -> Result<(), WriteError> {
        self.go_on(block.len())?;
        let is_hole = block.iter().all(|byte| *byte == 0);
        match self.begin_block(digest) {
            Some(index) if !is_hole => self.submit(Target::File(digest, index), block, None),
            _ => {
                self.spare.push(block);
                Ok(())
            }
        }
    }

    fn submit_fragment(&mut self, fragment: usize) -> Result<(), WriteError> {
        self.data.fragments.push(Block { start: 0, size: 0 });
        let target = Target::Fragment(fragment);
        let Fragment { key, found, content } = self.fragments.take(fragment);
        match found {
            Some(ready) => self.ready(target, ready),
            None => self.submit(target, content, Some(key)),
        }
    }

    fn next(&mut self, target: Target) -> Result<usize, WriteError> {
        let window = match self.shards {
            None => WINDOW * self.options.threads.max(1),
            Some(shards) => shards.in_flight() / self.options.block_size as usize,
        };
        while self.submitted - self.written >= window {
            self.collect()?;
        }
        self.targets.insert(self.submitted, target);
        self.submitted += 1;
        Ok(self.submitted - 1)
    }

    /// Adds a block that was found.
    fn ready(&mut self, target: Target, ready: Ready) -> Result<(), WriteError> {
        self.go_on(self.options.block_size as usize)?;
        let number = self.next(target)?;
        self.early.insert(number, ready);
        self.write_early()
    }

    /// Has a block compressed, unless it is found by its content. One that has a key was looked up already.
    fn submit(&mut self, target: Target, block: Vec<u8>, key: Option<BlobDigest>) -> Result<(), WriteError> {
        let number = self.next(target)?;
        if self.shards.is_some() {
            let is_new = key.is_some();
            let key = key.unwrap_or_else(|| self.settings.block(&block));
            if self.open.add(Wanted { number, block, key, is_new }, self.cut) {
                self.close_shard();
            }
            return Ok(());
        }
        let (options, sender) = (self.options, self.sender.clone());
        let (settings, known) = (self.settings, self.known);
        self.scope.spawn(move |_| {
            let is_new = key.is_some();
            let key = key.unwrap_or_else(|| settings.block(&block));
            let result = compressed(options, known, &block, key, is_new);
            // The receiver is gone only where writing has failed already.
            let _ = sender.send((number, result, block));
        });
        Ok(())
    }

    /// Has the shard that is being filled wait for a core, here or elsewhere.
    fn close_shard(&mut self) {
        let Some(shards) = self.shards.filter(|_| !self.open.is_empty()) else { return };
        shards.push(std::mem::take(&mut self.open));
        let sender = self.sender.clone();
        self.scope.spawn(move |_| shards.do_one(&sender));
    }

    /// Waits for one block and writes all that are next in order.
    fn collect(&mut self) -> Result<(), WriteError> {
        // Nothing else is under way.
        if self.targets.len() - self.early.len() <= self.open.len() {
            self.close_shard();
        }
        let (number, result, memory) = match self.shards {
            None => self.receiver.recv().map_err(|_| WriteError::Stopped)?,
            Some(_) => self.patiently()?,
        };
        // What a shard was read into goes with it.
        self.spare.extend(Some(memory).filter(|memory| memory.capacity() > 0));
        // What was done twice came once already.
        if self.targets.contains_key(&number) && !self.early.contains_key(&number) {
            self.early.insert(number, result?);
        }
        self.write_early()
    }

    /// Waits for one block, and hears signals meanwhile.
    fn patiently(&mut self) -> Result<Answer, WriteError> {
        loop {
            match self.receiver.recv_timeout(PATIENCE) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(WriteError::Stopped),
                Err(RecvTimeoutError::Timeout) => {
                    // A signal is heard while nothing comes.
                    self.told = 0;
                    self.go_on(0)?;
                }
            }
        }
    }

    fn write_early(&mut self) -> Result<(), WriteError> {
        while let Some(Ready { bytes, block }) = self.early.remove(&self.written) {
            let target = self.targets.remove(&self.written);
            self.written += 1;
            let file = match target {
                Some(Target::File(digest, _)) => Some(digest),
                _ => None,
            };
            let next = self.repeats.next(file, block, self.at);
            let (start, is_copied) = match &next {
                Next::Lies(start) => (*start, false),
                Next::Write(again) => (self.at, !again.is_empty()),
            };
            match target {
                Some(Target::Fragment(index)) => {
                    self.data.fragments[index] = Block { start, size: size(&block) }
                }
                Some(Target::File(digest, index)) => {
                    if let Some(content) = self.data.files.get_mut(&digest) {
                        // Holes in front take no room: the first block with bytes is the start, and none is at 0.
                        // What is copied goes in front of this block, and there its file begins then.
                        if content.start == 0 || is_copied {
                            content.start = start;
                        }
                        content.blocks[index] = block;
                    }
                }
                None => {}
            }
            let Next::Write(again) = next else { continue };
            self.at += again.end - again.start;
            self.sink.write_again(again)?;
            self.data.runs.push((block.key, Run::new(self.at, vec![block])));
            self.slices.add(self.settings, &block, self.at);
            self.at += bytes.len() as u64;
            self.sink.write(bytes)?;
        }
        Ok(())
    }

    fn finish(mut self, files: &[(&RelPath, BlobDigest, u64)]) -> Result<Data, WriteError> {
        if let Some(last) = self.fragments.count().checked_sub(1) {
            self.submit_fragment(last)?;
        }
        while self.written < self.submitted {
            self.collect()?;
        }
        for (_, digest, _) in files {
            if let Some(content) = self.data.files.get(digest).filter(|content| !content.blocks.is_empty()) {
                let run = Run::new(content.start, content.blocks.clone());
                self.data.runs.push((self.settings.key("file", &[digest.as_bytes()]), run));
            }
        }
        self.data.slices = self.slices.finish(self.settings);
        Ok(self.data)
    }
}
