//! Compressed blocks that lie in images of the store, found by what they were made of.
//!
//! An image that is built again has mostly the blocks of the one before it. They are not kept a second time: a row of the
//! index says in which image of the store a run of blocks lies, and where. Whoever builds an image enters all its runs,
//! so rows lead to the newest image that has the bytes; the collector removes the rows of images that went.
//!
//! Every block has a check of its own, compared when it is read: what is damaged is not there, and is made again.
//! Nothing depends on what is found here but the time a build takes.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use rusqlite::{OptionalExtension, params};

use crate::digest::BlobDigest;
use crate::index::lock;
use crate::objects::{Objects, StoreError};

/// Bytes of BLAKE3 that tell whether a block is whole: enough against rot, and nobody forges a cache of their own.
const CHECK: usize = 16;

/// Bytes of a block in a row: its length, its check, its own key.
const ROW: usize = 4 + CHECK + 32;

/// Set in a length where the block is not compressed.
const PLAIN: u32 = 1 << 31;

/// A block of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its length in the image; 0 for one that is all zeros and is not there.
    pub length: u32,
    /// Whether it is there as it is, not compressed.
    pub is_plain: bool,
    /// The start of the BLAKE3 of its bytes in the image.
    pub check: [u8; CHECK],
    /// What it was made of: the key of a run that is this block alone.
    pub key: BlobDigest,
}

impl Block {
    /// Describes a block by its bytes in the image.
    pub fn of(bytes: &[u8], is_plain: bool, key: BlobDigest) -> Self {
        Self { length: bytes.len() as u32, is_plain, check: check(bytes), key }
    }

    /// Describes one that is all zeros and is not there; `key` is of no use then.
    pub fn hole(key: BlobDigest) -> Self {
        Self { length: 0, is_plain: false, check: [0; CHECK], key }
    }

    /// Tells whether it is all zeros.
    pub fn is_hole(&self) -> bool {
        self.length == 0
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK]);
    check
}

/// Blocks of an image that lie one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The image; only the store makes one up.
    image: i64,
    /// Where the first block is.
    start: u64,
    /// The blocks.
    pub blocks: Vec<Block>,
}

impl Run {
    /// Describes a run of an image that is not in the store yet.
    pub fn new(start: u64, blocks: Vec<Block>) -> Self {
        Self { image: 0, start, blocks }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.blocks.len() * ROW);
        for block in &self.blocks {
            let length = block.length | if block.is_plain { PLAIN } else { 0 };
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&block.check);
            bytes.extend_from_slice(block.key.as_bytes());
        }
        bytes
    }

    fn decode(image: i64, start: u64, bytes: &[u8]) -> Option<Self> {
        let (rows, rest) = bytes.as_chunks::<ROW>();
        let block = |row: &[u8; ROW]| {
            let (length, rest) = row.split_first_chunk::<4>()?;
            let (check, key) = rest.split_first_chunk::<CHECK>()?;
            let length = u32::from_le_bytes(*length);
            let key = BlobDigest::from_slice(key)?;
            Some(Block { length: length & !PLAIN, is_plain: length & PLAIN != 0, check: *check, key })
        };
        let blocks = rows.iter().map(block).collect::<Option<Vec<_>>>()?;
        rest.is_empty().then_some(Self { image, start, blocks })
    }
}

/// Finds and reads blocks; several threads may ask at once.
#[derive(Debug)]
pub struct Blocks<'a> {
    store: &'a Objects,
    /// Images by their number in the index; `None` for one that is gone.
    images: Mutex<HashMap<i64, Option<std::sync::Arc<File>>>>,
}

impl<'a> Blocks<'a> {
    /// Looks into a store.
    pub fn new(store: &'a Objects) -> Self {
        Self { store, images: Mutex::default() }
    }

    /// Returns the run made of what `key` says.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn find(&self, key: &BlobDigest) -> Result<Option<Run>, StoreError> {
        let row: Option<(i64, i64, Vec<u8>)> = self.store.index(|index| {
            index
                .prepare_cached("SELECT image, start, blocks FROM runs WHERE key = ?1")?
                .query_row(params![key.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        Ok(row.and_then(|(image, start, blocks)| Run::decode(image, start as u64, &blocks)))
    }

    /// Reads the blocks of a run in order and hands over each; a block that is all zeros is empty. Ends at the first
    /// that is damaged or gone; returns how many there were.
    ///
    /// # Errors
    /// Those of `each`, and [`StoreError::Index`].
    pub fn read<E: From<StoreError>>(
        &self,
        run: &Run,
        mut each: impl FnMut(&Block, Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let Some(image) = self.image(run.image)? else { return Ok(0) };
        let mut at = run.start;
        for (number, block) in run.blocks.iter().enumerate() {
            let mut bytes = vec![0; block.length as usize];
            let mut is_whole = || image.read_exact_at(&mut bytes, at).is_ok() && check(&bytes) == block.check;
            if !block.is_hole() && !is_whole() {
                return Ok(number);
            }
            at += u64::from(block.length);
            each(block, bytes)?;
        }
        Ok(run.blocks.len())
    }

    /// Opens an image, which the collector leaves alone from then on.
    fn image(&self, id: i64) -> Result<Option<std::sync::Arc<File>>, StoreError> {
        let mut images = lock(&self.images);
        if let Some(known) = images.get(&id) {
            return Ok(known.clone());
        }
        let digest: Option<Vec<u8>> = self.store.index(|index| {
            index
                .prepare_cached("SELECT digest FROM images WHERE id = ?1")?
                .query_row(params![id], |row| row.get(0))
                .optional()
        })?;
        let mut opened = None;
        if let Some(digest) = digest.as_deref().and_then(BlobDigest::from_slice) {
            self.store.touch(&digest)?;
            opened = File::open(self.store.object_path(&digest)).ok().map(std::sync::Arc::new);
        }
        images.insert(id, opened.clone());
        Ok(opened)
    }
}

impl Objects {
    /// Enters the runs of an image that is in the store, by what they were made of.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn enter_runs(&self, image: &BlobDigest, runs: &[(BlobDigest, Run)]) -> Result<(), StoreError> {
        self.change(|index| {
            index.execute("INSERT OR IGNORE INTO images(digest) VALUES(?1)", params![image.as_bytes()])?;
            let id: i64 = index.query_row(
                "SELECT id FROM images WHERE digest = ?1",
                params![image.as_bytes()],
                |row| row.get(0),
            )?;
            let mut insert = index.prepare_cached(
                "INSERT OR REPLACE INTO runs(key, image, start, blocks) VALUES(?1, ?2, ?3, ?4)",
            )?;
            for (key, run) in runs {
                insert.execute(params![key.as_bytes(), id, run.start as i64, run.encode()])?;
            }
            Ok(())
        })
    }

    /// Removes the runs and slices of images that are no longer there.
    pub(crate) fn remove_lost_runs(&self) -> Result<(), StoreError> {
        self.change(|index| {
            index.execute("DELETE FROM images WHERE digest NOT IN (SELECT digest FROM objects)", [])?;
            index.execute("DELETE FROM slices WHERE image NOT IN (SELECT digest FROM objects)", [])?;
            index.execute("DELETE FROM helpers WHERE image NOT IN (SELECT digest FROM objects)", [])?;
            index.execute("DELETE FROM runs WHERE image NOT IN (SELECT id FROM images)", []).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    struct World {
        _dir: Folder,
        store: crate::store::Store,
        image: BlobDigest,
        key: BlobDigest,
    }

    /// A store with an image of three blocks, the second of which is a hole.
    fn world() -> World {
        let dir = Folder::new();
        let store = dir.store();
        let image = store.put(b"headoneTWOS").unwrap().digest;
        let key = BlobDigest::of(b"how and what");
        let blocks = vec![Block::of(b"one", false, key), Block::hole(key), Block::of(b"TWO", true, key)];
        store.enter_runs(&image, &[(key, Run::new(4, blocks))]).unwrap();
        World { _dir: dir, store, image, key }
    }

    fn read(store: &Objects, key: &BlobDigest) -> Vec<String> {
        let blocks = Blocks::new(store);
        let Some(run) = blocks.find(key).unwrap() else { return Vec::new() };
        let mut found = Vec::new();
        blocks
            .read(&run, |block, bytes| {
                found.push(format!(
                    "{}{}",
                    String::from_utf8(bytes).unwrap(),
                    if block.is_plain { "!" } else { "" }
                ));
                Ok::<(), StoreError>(())
            })
            .unwrap();
        found
    }

    #[test]
    fn blocks_are_read_out_of_the_image_they_lie_in() {
        let world = world();
        assert_eq!(read(&world.store, &world.key), ["one", "", "TWO!"]);
        assert_eq!(read(&world.store, &BlobDigest::of(b"other")), [""; 0]);
    }

    #[test]
    fn what_is_damaged_is_not_there() {
        use std::os::unix::fs::PermissionsExt;
        let world = world();
        let path = world.store.object_path(&world.image);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&path, b"headoneTwOS").unwrap();
        assert_eq!(read(&world.store, &world.key), ["one", ""], "up to the damage");
        std::fs::write(&path, b"headon").unwrap();
        assert_eq!(read(&world.store, &world.key), [""; 0]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&world.store, &world.key), [""; 0]);
        world.store.index(|index| index.execute("UPDATE runs SET blocks = x'00'", [])).unwrap();
        assert_eq!(read(&world.store, &world.key), [""; 0], "a row that is none");
    }

    #[test]
    fn the_collector_takes_the_runs_of_images_that_went() {
        let world = world();
        let kept = world.store.put(b"kept").unwrap().digest;
        let key = BlobDigest::of(b"of the other");
        world.store.enter_runs(&kept, &[(key, Run::new(0, vec![Block::of(b"kept", true, key)]))]).unwrap();
        world
            .store
            .index(|index| index.execute("DELETE FROM objects WHERE digest = ?1", [world.image.as_bytes()]))
            .unwrap();
        world.store.remove_lost_runs().unwrap();
        assert_eq!(read(&world.store, &world.key), [""; 0]);
        assert_eq!(read(&world.store, &key), ["kept!"]);
        let left = world
            .store
            .index(|index| index.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0)));
        assert_eq!(left.unwrap(), 1);
    }
}
