//! File content: blocks, and the ends of files packed together into fragments.
//!
//! The calling thread reads blocks in the order of the tree and writes the results in that same
//! order; a pool compresses. Only a window of blocks is in memory at any time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use cache::name::RelPath;
use cache::{BlobDigest, RootTree, Store};

use super::{Options, Progress, WriteError};

/// Set in a block's size where it is stored as it is.
const STORED: u32 = 1 << 24;

/// Marks a file without a fragment.
pub(super) const NO_FRAGMENT: u32 = u32::MAX;

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
    /// The sizes of its blocks; 0 is a hole.
    pub(super) blocks: Vec<u32>,
    /// The fragment with its end, and where in it; [`NO_FRAGMENT`] where there is none.
    pub(super) fragment: (u32, u32),
    /// Bytes of holes.
    pub(super) holes: u64,
}

/// Where all content is.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) files: HashMap<BlobDigest, Content>,
    pub(super) fragments: Vec<Block>,
}

/// What a compressed block is for.
#[derive(Debug, Clone, Copy)]
enum Target {
    File(BlobDigest, usize),
    Fragment(usize),
}

type Compressed = (usize, Result<(Vec<u8>, bool), WriteError>);

/// Writes the content of `files` behind what `out` holds already.
pub(super) fn write(
    out: &mut File,
    root: &RootTree,
    store: &Store,
    files: &[(&RelPath, BlobDigest, u64)],
    options: &Options,
    progress: Progress<'_>,
) -> Result<Data, WriteError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(std::io::Error::other)?;
    let (sender, receiver) = channel();
    let at = out.stream_position()?;
    let total = files.iter().map(|(_, _, size)| size).sum();
    pool.in_place_scope(|scope| {
        let mut pipeline = Pipeline {
            scope,
            options,
            sender,
            receiver,
            out,
            at,
            targets: BTreeMap::new(),
            early: BTreeMap::new(),
            submitted: 0,
            written: 0,
            data: Data::default(),
            fragment: Vec::with_capacity(options.block_size as usize),
            fragment_count: 0,
        };
        let mut done = 0;
        for (path, digest, size) in files {
            let mut reader = root.open_file(store, path, digest, *size)?;
            let read = |source| WriteError::Read { path: (*path).clone(), source };
            pipeline.begin_file(*digest);
            let mut left = *size;
            while left > 0 {
                let length = left.min(u64::from(options.block_size));
                let mut block = vec![0; length as usize];
                reader.read_exact(&mut block).map_err(read)?;
                left -= length;
                done += length;
                pipeline.add(*digest, block)?;
                if !progress(done, total) {
                    return Err(WriteError::Stopped);
                }
            }
        }
        pipeline.finish()
    })
}

struct Pipeline<'scope, 'a> {
    scope: &'a rayon::Scope<'scope>,
    options: &'scope Options,
    sender: Sender<Compressed>,
    receiver: Receiver<Compressed>,
    out: &'a mut File,
    at: u64,
    /// What the blocks in flight are for.
    targets: BTreeMap<usize, Target>,
    /// Blocks that are ready before one that goes in front of them.
    early: BTreeMap<usize, (Vec<u8>, bool)>,
    submitted: usize,
    written: usize,
    data: Data,
    /// The fragment being filled.
    fragment: Vec<u8>,
    fragment_count: usize,
}

impl<'scope> Pipeline<'scope, '_> {
    fn begin_file(&mut self, digest: BlobDigest) {
        let content = Content { start: 0, blocks: Vec::new(), fragment: (NO_FRAGMENT, 0), holes: 0 };
        self.data.files.insert(digest, content);
    }

    /// Adds the next block of a file, or its end.
    fn add(&mut self, digest: BlobDigest, block: Vec<u8>) -> Result<(), WriteError> {
        let whole = block.len() == self.options.block_size as usize;
        if !whole && self.fragment.len() + block.len() > self.options.block_size as usize {
            self.submit_fragment()?;
        }
        let Some(content) = self.data.files.get_mut(&digest) else { return Ok(()) };
        if !whole {
            content.fragment = (self.fragment_count as u32, self.fragment.len() as u32);
            self.fragment.extend_from_slice(&block);
            return Ok(());
        }
        let index = content.blocks.len();
        content.blocks.push(0);
        if block.iter().all(|byte| *byte == 0) {
            content.holes += block.len() as u64;
            return Ok(());
        }
        self.submit(Target::File(digest, index), block)
    }

    fn submit_fragment(&mut self) -> Result<(), WriteError> {
        if self.fragment.is_empty() {
            return Ok(());
        }
        let fresh = Vec::with_capacity(self.options.block_size as usize);
        let full = std::mem::replace(&mut self.fragment, fresh);
        self.data.fragments.push(Block { start: 0, size: 0 });
        self.fragment_count += 1;
        self.submit(Target::Fragment(self.fragment_count - 1), full)
    }

    fn submit(&mut self, target: Target, block: Vec<u8>) -> Result<(), WriteError> {
        while self.submitted - self.written >= WINDOW * self.options.threads.max(1) {
            self.collect()?;
        }
        let number = self.submitted;
        self.submitted += 1;
        self.targets.insert(number, target);
        let (options, sender) = (self.options, self.sender.clone());
        self.scope.spawn(move |_| {
            let compressed = options.compressor.compress(&block, options.block_size);
            let result = compressed.map(|smaller| match smaller {
                Some(bytes) => (bytes, false),
                None => (block, true),
            });
            // The receiver is gone only where writing has failed already.
            let _ = sender.send((number, result));
        });
        Ok(())
    }

    /// Waits for one block and writes all that are next in order.
    fn collect(&mut self) -> Result<(), WriteError> {
        let (number, result) = self.receiver.recv().map_err(|_| WriteError::Stopped)?;
        self.early.insert(number, result?);
        while let Some((bytes, stored)) = self.early.remove(&self.written) {
            let size = bytes.len() as u32 | if stored { STORED } else { 0 };
            match self.targets.remove(&self.written) {
                Some(Target::Fragment(index)) => {
                    self.data.fragments[index] = Block { start: self.at, size };
                }
                Some(Target::File(digest, index)) => {
                    if let Some(content) = self.data.files.get_mut(&digest) {
                        // Holes in front take no room: the first block with bytes is the start.
                        if content.blocks.iter().all(|block| *block == 0) {
                            content.start = self.at;
                        }
                        content.blocks[index] = size;
                    }
                }
                None => {}
            }
            self.out.write_all(&bytes)?;
            self.at += bytes.len() as u64;
            self.written += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Data, WriteError> {
        self.submit_fragment()?;
        while self.written < self.submitted {
            self.collect()?;
        }
        Ok(self.data)
    }
}
