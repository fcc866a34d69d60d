//! Reads files once, and learns everything that is wanted of them while their bytes go by.
//!
//! One thread reads a file; each hash, and the walk through an initramfs, has a thread that gets the same
//! pieces. The channels between them are short: memory does not grow with the files.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use blake2::Blake2b512;
use cache::BlobDigest;
use cache::digest::BlobHasher;
use sha2::{Digest, Sha256, Sha512};
use trust::openpgp::{Keyring, Verdict};

use super::place::Place;
use super::walk::{self, Walk};
use crate::formats::authenticode::{self, Image, Unread};
use crate::formats::checksums::{Algorithm, hex};
use crate::formats::kernel::{Inside, Kernel};
use crate::formats::verity;

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

/// Pieces that wait between two threads.
const WAITING: usize = 4;

/// Part of a file: pieces of it, in the order in which they are read. A file of an ISO may have several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) Vec<(u64, u64)>);

/// A detached signature to be verified while what it is on is read.
#[derive(Debug, Clone)]
pub(super) struct Detached {
    pub(super) file: String,
    pub(super) keyring: Arc<Keyring>,
    pub(super) signature: Arc<[u8]>,
}

/// What is to be learnt of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Hashes of the whole file.
    pub(super) whole: Vec<Algorithm>,
    /// Hashes of parts.
    pub(super) spans: Vec<(Algorithm, Span)>,
    /// What is in it, if it is an initramfs.
    pub(super) walk: bool,
    /// Signatures of the whole file.
    pub(super) signatures: Vec<Detached>,
    /// The part that a hash tree is wanted of.
    pub(super) tree: Option<Span>,
    /// What is in this kernel that its first bytes do not tell.
    pub(super) kernel: Option<Kernel>,
    /// What it says to firmware that verifies it; how many bytes it has.
    pub(super) image: Option<u64>,
}

/// What was learnt of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Learnt {
    /// Number of bytes.
    pub(super) size: u64,
    /// Hashes of the whole file, in hex.
    pub(super) whole: BTreeMap<Algorithm, String>,
    /// Hashes of the parts, in hex; those that go beyond the file's end are missing.
    pub(super) spans: BTreeMap<(Algorithm, Span), String>,
    /// What is in the initramfs, or why that cannot be told.
    pub(super) walk: Option<Result<Walk, String>>,
    /// What is in the kernel.
    pub(super) kernel: Option<Inside>,
    /// What it says to firmware that verifies it; nothing where it is no program of UEFI.
    pub(super) image: Option<Result<Image, Unread>>,
    /// The hash tree of a part; nothing where that is no whole number of blocks.
    pub(super) tree: Option<TreeFacts>,
    /// How its signatures were judged, by the files they are in.
    pub(super) signatures: BTreeMap<String, Vec<Verdict>>,
}

/// What is known of a hash tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFacts {
    /// The root hash, in hex.
    pub root: String,
    /// Blocks that it is of.
    pub blocks: u64,
    /// The digest of the tree as a file.
    pub digest: BlobDigest,
}

/// Reads all files, as many at once as there are cores; those that are not read when `stop` is set are errors.
pub(super) fn read_all(files: &[(Place, Wanted)], stop: &AtomicBool) -> Vec<io::Result<Learnt>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<io::Result<Learnt>>>> = Mutex::new(files.iter().map(|_| None).collect());
    let mut order: Vec<usize> = (0..files.len()).collect();
    // The largest first, so that no core waits at the end for a file that was begun last.
    order.sort_by_key(|index| std::cmp::Reverse(files[*index].0.size().ok().flatten()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (place, wanted) = &files[*index];
                    let learnt = read_one(place, wanted, stop);
                    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    results[*index] = Some(learnt);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lost = || Err(io::Error::other("it was not read"));
    results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
}

/// Begins all hashes that are wanted of a file: those of one kind belong together.
fn sums_of(wanted: &Wanted) -> BTreeMap<Algorithm, Sums> {
    let mut sums: BTreeMap<Algorithm, Sums> = BTreeMap::new();
    for algorithm in &wanted.whole {
        sums.entry(*algorithm).or_insert_with(|| Sums::new(*algorithm)).whole = Some(Hasher::new(*algorithm));
    }
    for (algorithm, span) in &wanted.spans {
        let part = Part { window: Window::new(span.clone()), hasher: Hasher::new(*algorithm) };
        sums.entry(*algorithm).or_insert_with(|| Sums::new(*algorithm)).parts.push(part);
    }
    sums
}

/// Reads one file.
fn read_one(place: &Place, wanted: &Wanted, stop: &AtomicBool) -> io::Result<Learnt> {
    let mut reader = place.open()?;
    std::thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut listen = || {
            let (sender, pieces) = mpsc::sync_channel::<Arc<Vec<u8>>>(WAITING);
            senders.push(sender);
            pieces
        };
        let mut hashing = Vec::new();
        let mut inline = None;
        for mut sums in sums_of(wanted).into_values() {
            // Where there is nothing else to do, the reading thread hashes too.
            if inline.is_none() && !wanted.walk && hashing.is_empty() && wanted.whole.len() <= 1 {
                inline = Some(sums);
                continue;
            }
            let pieces = listen();
            hashing.push(scope.spawn(move || {
                pieces.iter().for_each(|piece| sums.update(&piece));
                sums
            }));
        }
        let walking = wanted.walk.then(|| {
            let pieces = listen();
            scope.spawn(move || walk::walk(Pieces::of(pieces)))
        });
        let looking = wanted.kernel.as_ref().map(|kernel| {
            let pieces = listen();
            scope.spawn(move || kernel.look_inside(Pieces::of(pieces)))
        });
        let imaging = wanted.image.map(|size| {
            let pieces = listen();
            scope.spawn(move || authenticode::read(Pieces::of(pieces), size))
        });
        let growing = wanted.tree.clone().map(|span| {
            let pieces = listen();
            scope.spawn(move || tree_of(&pieces, span))
        });
        let mut verifying = Vec::new();
        for Detached { file, keyring, signature } in &wanted.signatures {
            let signed = Pieces::of(listen());
            verifying.push((file, scope.spawn(move || keyring.detached(signature, signed))));
        }
        let mut learnt =
            Learnt { size: feed(&mut reader, &senders, &mut inline, stop)?, ..Learnt::default() };
        drop(senders);
        let lost = |_| io::Error::other("a thread of the audit failed");
        if let Some(sums) = inline {
            sums.finish(&mut learnt);
        }
        for thread in hashing {
            thread.join().map_err(lost)?.finish(&mut learnt);
        }
        if let Some(thread) = walking {
            learnt.walk = Some(thread.join().map_err(lost)?.map_err(|error| error.to_string()));
        }
        if let Some(thread) = looking {
            learnt.kernel = Some(thread.join().map_err(lost)??);
        }
        if let Some(thread) = imaging {
            learnt.image = thread.join().map_err(lost)??;
        }
        if let Some(thread) = growing {
            learnt.tree = thread.join().map_err(lost)?;
        }
        for (file, thread) in verifying {
            learnt.signatures.insert(file.clone(), thread.join().map_err(lost)??);
        }
        Ok(learnt)
    })
}

/// Reads a file to its end, and hands each piece to all who listen; returns how many bytes there were.
fn feed(
    reader: &mut impl Read,
    listeners: &[mpsc::SyncSender<Arc<Vec<u8>>>],
    inline: &mut Option<Sums>,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let mut size = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let mut piece = Vec::with_capacity(PIECE);
        if reader.by_ref().take(PIECE as u64).read_to_end(&mut piece)? == 0 {
            return Ok(size);
        }
        size += piece.len() as u64;
        let piece = Arc::new(piece);
        // A walk that failed no longer listens.
        listeners.iter().for_each(|listener| drop(listener.send(Arc::clone(&piece))));
        if let Some(sums) = inline {
            sums.update(&piece);
        }
    }
}

/// All hashes of one kind.
struct Sums {
    algorithm: Algorithm,
    at: u64,
    whole: Option<Hasher>,
    parts: Vec<Part>,
}

struct Part {
    window: Window,
    hasher: Hasher,
}

/// A part of a file that goes by.
struct Window {
    span: Span,
    /// Which piece of the span comes next, and how much of it went by.
    index: usize,
    done: u64,
}

impl Window {
    fn new(span: Span) -> Self {
        Self { span, index: 0, done: 0 }
    }

    /// Hands on what of a piece is in it; the piece begins at `at`.
    fn take(&mut self, at: u64, piece: &[u8], each: &mut dyn FnMut(&[u8])) {
        let end = at + piece.len() as u64;
        while let Some((start, length)) = self.span.0.get(self.index) {
            let (from, to) = (start + self.done, start + length);
            if from >= end || from < at {
                break;
            }
            let to = to.min(end);
            each(&piece[(from - at) as usize..(to - at) as usize]);
            self.done += to - from;
            if self.done < *length {
                break;
            }
            self.index += 1;
            self.done = 0;
        }
    }

    /// Tells whether all of it went by.
    fn is_whole(&self) -> bool {
        self.index == self.span.0.len() || self.span.0.iter().all(|(_, length)| *length == 0)
    }
}

/// Makes the hash tree of a part.
fn tree_of(pieces: &mpsc::Receiver<Arc<Vec<u8>>>, span: Span) -> Option<TreeFacts> {
    let mut window = Window::new(span);
    let mut builder = verity::Builder::default();
    let mut at = 0;
    for piece in pieces.iter() {
        window.take(at, &piece, &mut |bytes| builder.update(bytes));
        at += piece.len() as u64;
    }
    let tree = builder.finish().filter(|_| window.is_whole())?;
    Some(TreeFacts { root: tree.root, blocks: tree.blocks, digest: BlobDigest::of(&tree.bytes) })
}

impl Sums {
    fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, at: 0, whole: None, parts: Vec::new() }
    }

    fn update(&mut self, piece: &[u8]) {
        if let Some(hasher) = &mut self.whole {
            hasher.update(piece);
        }
        for Part { window, hasher } in &mut self.parts {
            window.take(self.at, piece, &mut |bytes| hasher.update(bytes));
        }
        self.at += piece.len() as u64;
    }

    fn finish(self, learnt: &mut Learnt) {
        if let Some(hasher) = self.whole {
            learnt.whole.insert(self.algorithm, hasher.finish());
        }
        for part in self.parts {
            if part.window.is_whole() {
                learnt.spans.insert((self.algorithm, part.window.span), part.hasher.finish());
            }
        }
    }
}

/// Hashes bytes that are here.
pub(super) fn hash(algorithm: Algorithm, bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// A hash being computed.
enum Hasher {
    Sha256(Box<Sha256>),
    Sha512(Box<Sha512>),
    Blake2b(Box<Blake2b512>),
    Blake3(Box<BlobHasher>),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Box::default()),
            Algorithm::Sha512 => Hasher::Sha512(Box::default()),
            Algorithm::Blake2b => Hasher::Blake2b(Box::default()),
            Algorithm::Blake3 => Hasher::Blake3(Box::default()),
        }
    }

    fn update(&mut self, piece: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(piece),
            Hasher::Sha512(hasher) => hasher.update(piece),
            Hasher::Blake2b(hasher) => hasher.update(piece),
            Hasher::Blake3(hasher) => hasher.update(piece),
        }
    }

    fn finish(self) -> String {
        match self {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Sha512(hasher) => hex(&hasher.finalize()),
            Hasher::Blake2b(hasher) => hex(&hasher.finalize()),
            Hasher::Blake3(hasher) => hasher.finish().to_string(),
        }
    }
}

/// The pieces of a file, as a stream.
struct Pieces {
    // One thread has it; a lock makes that plain to those who want it so.
    pieces: Mutex<mpsc::Receiver<Arc<Vec<u8>>>>,
    piece: Arc<Vec<u8>>,
    at: usize,
}

impl Pieces {
    fn of(pieces: mpsc::Receiver<Arc<Vec<u8>>>) -> Self {
        Self { pieces: Mutex::new(pieces), piece: Arc::default(), at: 0 }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            let pieces = self.pieces.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.piece = pieces.recv().unwrap_or_default();
            self.at = 0;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_parts_are_hashed_across_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..(3u32 << 20) + 17).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let spans = [
            Span(vec![(0, 5)]),
            Span(vec![((1 << 20) - 3, 7)]),
            Span(vec![(0, 10), (2 << 20, 1 << 20)]),
            Span(vec![(100, 0)]),
            Span(vec![(0, 1 << 30)]),
        ];
        let wanted = Wanted {
            whole: vec![Algorithm::Sha256, Algorithm::Blake3],
            spans: spans.iter().map(|span| (Algorithm::Blake3, span.clone())).collect(),
            ..Wanted::default()
        };
        let learnt = read_all(&[(Place::Local(path), wanted)], &AtomicBool::default()).remove(0).unwrap();
        assert_eq!(learnt.size, bytes.len() as u64);
        assert_eq!(learnt.whole[&Algorithm::Blake3], BlobDigest::of(&bytes).to_string());
        assert_eq!(learnt.whole[&Algorithm::Sha256].len(), 64);
        let hash = |span: &Span| learnt.spans.get(&(Algorithm::Blake3, span.clone())).cloned();
        let of = |bytes: &[u8]| Some(BlobDigest::of(bytes).to_string());
        assert_eq!(hash(&spans[0]), of(&bytes[..5]));
        assert_eq!(hash(&spans[1]), of(&bytes[(1 << 20) - 3..(1 << 20) + 4]));
        assert_eq!(hash(&spans[2]), of(&[&bytes[..10], &bytes[2 << 20..3 << 20]].concat()));
        assert_eq!(hash(&spans[3]), of(b""));
        assert_eq!(hash(&spans[4]), None, "it is longer than the file");
    }
}
