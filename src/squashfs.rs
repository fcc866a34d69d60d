//! Writes squashfs 4.0 images: in process, on all cores, the same bytes every time.
//!
//! The format is that of the Linux kernel (`fs/squashfs/squashfs_fs.h`) and its description in
//! squashfs-tools. Everything a tree holds arrives: owners, modes with setuid, extended attributes, hard
//! links, devices, holes, names in any encoding. Files of the same content share their blocks; they
//! are recognised by the digests of the tree.
//!
//! ```text
//! superblock │ compressor options │ file blocks and fragment blocks │ inodes │ directories │ fragment table
//!            │ export table │ id table │ xattr table │ zeros up to a multiple of 4 KiB
//! ```
//! Block order follows the order of the tree, and no byte depends on the number of threads.

mod compress;
mod data;
mod inode;
mod metadata;
mod xattr;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use cache::blocks::Run;
use cache::name::RelPath;
use cache::tree::{Entry, Inode, Meta, Node};
use cache::{BlobDigest, RootTree, Store, StoreError};

pub use self::compress::{Compressor, Kind as CompressorKind};
use self::inode::InodeWriter;
use self::metadata::{MetadataWriter, write_table};

/// `sqsh`, little-endian.
const MAGIC: u32 = 0x7371_7368;

/// The superblock's length.
const SUPERBLOCK: u64 = 96;

/// Images end on a multiple of this, so that a loop device sees whole blocks.
const PADDING: u64 = 4096;

/// Marks a table that is not there.
const ABSENT: u64 = u64::MAX;

const FLAG_DUPLICATES: u16 = 0x0040;
const FLAG_EXPORTABLE: u16 = 0x0080;
const FLAG_NO_XATTRS: u16 = 0x0200;
const FLAG_COMPRESSOR_OPTIONS: u16 = 0x0400;

/// How to write an image.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compressor and level.
    pub compressor: Compressor,
    /// Bytes of a data block: a power of two from 4 KiB to 1 MiB.
    pub block_size: u32,
    /// The image's own date, in seconds since 1970.
    pub epoch: u32,
    /// Whether times after the epoch become the epoch.
    pub clamp_mtime: bool,
    /// Threads that compress.
    pub threads: usize,
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Writing failed.
    #[error("write the image")]
    Write(#[from] io::Error),
    /// A file of the tree could not be read.
    #[error("read {path} of the tree")]
    Read {
        /// The file.
        path: RelPath,
        /// What the system said.
        source: io::Error,
    },
    /// The store could not give a file of the tree.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Squashfs numbers owners with 16 bits.
    #[error("the tree has more than 65535 different owners; squashfs can hold no more")]
    TooManyOwners,
    /// A compressor failed.
    #[error("compress a block with {0}")]
    Compress(&'static str),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Returns what tells these compressors from other versions of them, which may write other bytes.
pub fn versions() -> BlobDigest {
    BlobDigest::of(include_bytes!("../Cargo.lock"))
}

/// What was written, and what squashfs could not hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Inodes of the image.
    pub inodes: u32,
    /// Where the image's blocks are, for [`Store::enter_runs`] once it is in the store.
    pub runs: Vec<(BlobDigest, Run)>,
    /// Extended attributes that squashfs has no place for (`system.*`), by path.
    pub dropped_xattrs: BTreeMap<RelPath, Vec<u8>>,
}

/// Tells how far the writing is, in bytes of file content; returns whether to go on.
pub type Progress<'a> = &'a dyn Fn(u64, u64) -> bool;

/// Writes the tree to `out` without the paths `is_excluded` names; a folder goes with all below it.
///
/// # Errors
/// [`WriteError`], which names the file at fault.
pub fn write(
    out: &mut File,
    root: &RootTree,
    store: &Store,
    options: &Options,
    is_excluded: &dyn Fn(&RelPath) -> bool,
    progress: Progress<'_>,
) -> Result<Summary, WriteError> {
    let entries = Entries::new(root, is_excluded);
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&[0; SUPERBLOCK as usize])?;
    let compressor_options = options.compressor.options();
    if let Some(bytes) = &compressor_options {
        // A metadata block that is stored as it is: the kernel reads it before it knows the options.
        out.write_all(&(bytes.len() as u16 | metadata::STORED).to_le_bytes())?;
        out.write_all(bytes)?;
    }
    let mut data = data::write(out, root, store, &entries.files, options, progress)?;

    let runs = std::mem::take(&mut data.runs);

    let ids = Ids::of(root.tree.root(), &entries)?;
    let mut xattrs = xattr::Table::default();
    let mut writer = InodeWriter::new(options, &ids, &data, &mut xattrs);
    let root_inode = writer.write_all(root.tree.root(), &entries)?;
    let (inodes, directories, export, dropped_xattrs) = writer.finish()?;

    let inode_table = out.stream_position()?;
    out.write_all(&inodes)?;
    let directory_table = out.stream_position()?;
    out.write_all(&directories)?;
    let fragments: Vec<u8> = data.fragments.iter().flat_map(data::Block::fragment_entry).collect();
    let fragment_table = match data.fragments.is_empty() {
        true => ABSENT,
        false => write_table(out, &fragments, options)?,
    };
    let export_table = write_table(out, &export, options)?;
    let id_bytes: Vec<u8> = ids.0.keys().flat_map(|id| id.to_le_bytes()).collect();
    let id_table = write_table(out, &id_bytes, options)?;
    let xattr_table = if xattrs.is_empty() { ABSENT } else { xattrs.write(out, options)? };
    let used = out.stream_position()?;
    out.write_all(&vec![0; (used.next_multiple_of(PADDING) - used) as usize])?;

    let mut flags = FLAG_DUPLICATES | FLAG_EXPORTABLE;
    if xattrs.is_empty() {
        flags |= FLAG_NO_XATTRS;
    }
    if compressor_options.is_some() {
        flags |= FLAG_COMPRESSOR_OPTIONS;
    }
    let count = entries.inode_count();
    let mut superblock = Vec::with_capacity(SUPERBLOCK as usize);
    for word in [MAGIC, count, options.epoch, options.block_size, data.fragments.len() as u32] {
        superblock.extend_from_slice(&word.to_le_bytes());
    }
    let log = options.block_size.trailing_zeros() as u16;
    for half in [options.compressor.id(), log, flags, ids.0.len() as u16, 4, 0] {
        superblock.extend_from_slice(&half.to_le_bytes());
    }
    let tables = [id_table, xattr_table, inode_table, directory_table, fragment_table, export_table];
    for long in [root_inode, used].into_iter().chain(tables) {
        superblock.extend_from_slice(&long.to_le_bytes());
    }
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&superblock)?;
    Ok(Summary { inodes: count, runs, dropped_xattrs })
}

/// The entries of a tree that go into an image, in the order of the tree, with their inode numbers.
struct Entries<'a> {
    /// Each path with its inode and the number of that inode; hard links share both.
    all: Vec<(&'a RelPath, &'a Inode, u32)>,
    /// The first file of each content.
    files: Vec<(&'a RelPath, BlobDigest, u64)>,
    /// How many names the inodes have, from the first behind the top folder's.
    links: Vec<u32>,
}

/// The number of the top folder's inode.
const ROOT_NUMBER: u32 = 1;

impl<'a> Entries<'a> {
    fn new(root: &'a RootTree, is_excluded: &dyn Fn(&RelPath) -> bool) -> Self {
        let length = root.tree.entries().len();
        let mut entries = Entries {
            all: Vec::with_capacity(length),
            files: Vec::with_capacity(length),
            links: Vec::with_capacity(length),
        };
        // Of inodes with several names: the number, once there is one.
        let mut shared: HashMap<&RelPath, Option<u32>> = HashMap::new();
        for (_, entry) in root.tree.entries() {
            if let Entry::Link(first) = entry {
                shared.insert(first, None);
            }
        }
        let mut contents = HashSet::new();
        let mut excluded_folder: Option<&RelPath> = None;
        for (path, entry) in root.tree.entries() {
            let below = |folder: &RelPath| path.as_bytes().starts_with(&[folder.as_bytes(), b"/"].concat());
            if excluded_folder.is_some_and(below) {
                continue;
            }
            if is_excluded(path) {
                excluded_folder = Some(path);
                continue;
            }
            // A link whose first name is excluded stands for the inode all the same.
            let (first, inode) = match entry {
                Entry::Link(first) => (first, root.tree.inode(first)),
                Entry::Inode(inode) => (path, Some(inode)),
            };
            let Some(inode) = inode else { continue };
            let number = entries.number(shared.get_mut(first));
            if let Node::File { digest, size } = inode.node
                && contents.insert(digest)
            {
                // Bytes lie under the first name, excluded or not.
                entries.files.push((first, digest, size));
            }
            entries.all.push((path, inode, number));
        }
        entries
    }

    /// Counts a name of an inode; returns the inode's number, which `shared` keeps for its other names.
    fn number(&mut self, shared: Option<&mut Option<u32>>) -> u32 {
        let new = ROOT_NUMBER + 1 + self.links.len() as u32;
        let number = shared.map_or(new, |shared| *shared.get_or_insert(new));
        if number == new {
            self.links.push(0);
        }
        self.links[(number - ROOT_NUMBER - 1) as usize] += 1;
        number
    }

    /// Returns how many names an inode has.
    fn links(&self, number: u32) -> u32 {
        self.links[(number - ROOT_NUMBER - 1) as usize]
    }

    fn inode_count(&self) -> u32 {
        self.links.len() as u32 + 1
    }
}

/// Owners and groups by their place in the id table.
struct Ids(BTreeMap<u32, u16>);

impl Ids {
    fn of(root: &Meta, entries: &Entries<'_>) -> Result<Self, WriteError> {
        let metas = entries.all.iter().map(|(_, inode, _)| &inode.meta).chain([root]);
        let all: BTreeSet<u32> = metas.flat_map(|meta| [meta.uid, meta.gid]).collect();
        let numbered = all.into_iter().enumerate().map(|(place, id)| Ok((id, u16::try_from(place)?)));
        let ids: Result<BTreeMap<_, _>, std::num::TryFromIntError> = numbered.collect();
        match ids {
            Ok(ids) if ids.len() <= usize::from(u16::MAX) => Ok(Self(ids)),
            _ => Err(WriteError::TooManyOwners),
        }
    }

    fn place(&self, id: u32) -> u16 {
        self.0.get(&id).copied().unwrap_or_default()
    }
}
