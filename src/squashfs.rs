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
mod entries;
mod error;
mod inode;
mod metadata;
mod options;
mod shard;
mod xattr;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use cache::blocks::Run;
use cache::name::RelPath;
use cache::slices::Slice;
use cache::upstream::Signer;
use cache::{BlobDigest, Objects, RootTree};

pub use self::compress::{Compressor, Kind as CompressorKind};
use self::entries::{Entries, Ids};
pub use self::error::WriteError;
use self::inode::InodeWriter;
use self::metadata::write_table;
pub use self::options::{Help, Options, Progress};
pub use self::shard::{ShardError, answer as answer_shard};

/// The version of the bytes that are written: raised in the commit that changes them, with the digests in
/// `src/steps/pins.rs`.
pub const VERSION: u32 = 4;

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

/// What was written, and what squashfs could not hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Inodes of the image.
    pub inodes: u32,
    /// Where the image's blocks are, for [`Objects::enter_runs`] once it is in the store.
    pub runs: Vec<(BlobDigest, Run)>,
    /// Its slices, for [`Objects::enter_slices`] then.
    pub slices: Vec<Slice>,
    /// How many slices of others' images it is made of.
    pub taken: u64,
    /// Who signed those, for [`Objects::enter_helpers`] then.
    pub signers: BTreeSet<Signer>,
    /// Extended attributes that squashfs has no place for (`system.*`), by path.
    pub dropped_xattrs: BTreeMap<RelPath, Vec<u8>>,
}

/// Writes the tree to `out` without the paths `is_excluded` names; a folder goes with all below it. `help` changes no byte: blocks are
/// taken from others' images, and workers compress as well.
///
/// # Errors
/// [`WriteError`], which names the file at fault.
pub fn write(
    out: &mut File,
    root: &RootTree,
    objects: &Objects,
    options: &Options,
    is_excluded: &dyn Fn(&RelPath) -> bool,
    help: Help<'_>,
    progress: Progress<'_>,
) -> Result<Summary, WriteError> {
    for help in [help, Help::default()] {
        if let Some(summary) = write_once(out, root, objects, options, is_excluded, help, progress)? {
            return Ok(summary);
        }
        // Who was found out once may have done it before: nothing of it stays.
        out.set_len(0)?;
    }
    unreachable!("without help, nothing is doubtful")
}

/// Writes the tree; nothing where others gave other bytes than this program makes.
fn write_once(
    out: &mut File,
    root: &RootTree,
    objects: &Objects,
    options: &Options,
    is_excluded: &dyn Fn(&RelPath) -> bool,
    help: Help<'_>,
    progress: Progress<'_>,
) -> Result<Option<Summary>, WriteError> {
    let entries = Entries::new(root, is_excluded);
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&[0; SUPERBLOCK as usize])?;
    let compressor_options = options.compressor.options();
    if let Some(bytes) = &compressor_options {
        // A metadata block that is stored as it is: the kernel reads it before it knows the options.
        out.write_all(&(bytes.len() as u16 | metadata::STORED).to_le_bytes())?;
        out.write_all(bytes)?;
    }
    let mut data = data::write(out, root, objects, &entries.files, options, help, progress)?;

    if data.is_doubtful {
        return Ok(None);
    }
    let (runs, slices) = (std::mem::take(&mut data.runs), std::mem::take(&mut data.slices));
    let (signers, taken) = (std::mem::take(&mut data.signers), data.taken);

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
    Ok(Some(Summary { inodes: count, runs, slices, taken, signers, dropped_xattrs }))
}
