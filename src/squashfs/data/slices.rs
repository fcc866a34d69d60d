//! Where blocks that follow each other are cut into slices.
//!
//! Cut is behind a block whose key says so, one of about 4 MiB of blocks: images that differ in a few files have the same slices but where
//! those are. Blocks that wait for a core are cut by the same rule into shards, so what one builder wrote another one asks for.

use cache::blocks::Block;
use cache::slices::Slice;
use cache::{ActionDigest, BlobDigest};

use super::found::Settings;
use crate::squashfs::shard;

/// Bytes of blocks in a slice: mostly, and at most.
const USUAL: u32 = 4 << 20;
const MOST: u32 = 8 << 20;

/// Where to cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    usual: u32,
    most: usize,
}

impl Cut {
    pub(super) fn of(block_size: u32) -> Self {
        Self { usual: USUAL / block_size, most: (MOST / block_size) as usize }
    }

    /// Tells whether a slice of `count` blocks ends with the one of this key.
    pub(super) fn is_behind(&self, key: &BlobDigest, count: usize) -> bool {
        let number = key.as_bytes().first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        number.is_multiple_of(self.usual) || count >= self.most
    }
}

/// Returns the key of a slice of blocks with these keys.
pub(super) fn key(settings: &Settings, keys: &[BlobDigest]) -> Option<ActionDigest> {
    let parts: Vec<&[u8]> = keys.iter().map(|key| &key.as_bytes()[..]).collect();
    ActionDigest::from_slice(settings.key("slice", &parts).as_bytes())
}

/// Puts the slices of an image together while it is written.
#[derive(Debug)]
pub(super) struct Slices {
    cut: Cut,
    keys: Vec<BlobDigest>,
    about: Vec<u8>,
    start: u64,
    end: u64,
    slices: Vec<Slice>,
}

impl Slices {
    pub(super) fn new(block_size: u32) -> Self {
        let cut = Cut::of(block_size);
        Self { cut, keys: Vec::new(), about: Vec::new(), start: 0, end: 0, slices: Vec::new() }
    }

    /// Takes the next block of the image, which begins at `at`.
    pub(super) fn add(&mut self, settings: &Settings, block: &Block, at: u64) {
        if at != self.end {
            self.close(settings);
        }
        if self.keys.is_empty() {
            self.start = at;
        }
        self.keys.push(block.key);
        self.about.extend(shard::written_length(block.length, block.is_plain));
        self.end = at + u64::from(block.length);
        if self.cut.is_behind(&block.key, self.keys.len()) {
            self.close(settings);
        }
    }

    fn close(&mut self, settings: &Settings) {
        let about = std::mem::take(&mut self.about);
        let keys = std::mem::take(&mut self.keys);
        let (start, length) = (self.start, self.end - self.start);
        let action = key(settings, &keys).filter(|_| !keys.is_empty());
        self.slices.extend(action.map(|action| Slice { action, start, length, about }));
    }

    /// Returns all slices.
    pub(super) fn finish(mut self, settings: &Settings) -> Vec<Slice> {
        self.close(settings);
        self.slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings("zstd-15 131072 zstd 1".to_owned())
    }

    /// The slices of an image of these blocks.
    fn slices(names: &[u32]) -> Vec<Slice> {
        let mut slices = Slices::new(1 << 17);
        let mut at = 96;
        for name in names {
            let bytes = name.to_le_bytes().repeat(1 + *name as usize % 7);
            slices.add(&settings(), &Block::of(&bytes, false, BlobDigest::of(&name.to_le_bytes())), at);
            at += bytes.len() as u64;
        }
        slices.finish(&settings())
    }

    #[test]
    fn slices_follow_each_other_and_a_change_costs_few() {
        let one: Vec<u32> = (0..4000).collect();
        let before = slices(&one);
        assert_eq!(before[0].start, 96);
        for pair in before.windows(2) {
            assert_eq!(pair[0].start + pair[0].length, pair[1].start);
        }
        assert!((60..300).contains(&before.len()), "{}", before.len());
        let two = [&one[..1234], &[9999, 9998], &one[1236..]].concat();
        let known = |slice: &Slice| before.iter().any(|old| old.action == slice.action);
        let new = slices(&two).iter().filter(|slice| !known(slice)).count();
        assert!((1..=3).contains(&new), "{new}");
    }

    #[test]
    fn what_does_not_follow_is_another_slice() {
        let mut slices = Slices::new(1 << 17);
        let keys = [1, 2].map(|name: u32| BlobDigest::of(&name.to_le_bytes()));
        slices.add(&settings(), &Block::of(b"one", true, keys[0]), 96);
        slices.add(&settings(), &Block::of(b"three", false, keys[1]), 500);
        let found = slices.finish(&settings());
        let places: Vec<(u64, u64)> = found.iter().map(|slice| (slice.start, slice.length)).collect();
        assert_eq!(places, [(96, 3), (500, 5)]);
        assert_eq!(found[0].about, [3, 0, 0, 0x80]);
        assert_eq!(found[1].about, [5, 0, 0, 0]);
    }

    #[test]
    fn the_key_of_a_slice_is_pinned() {
        let keys = [BlobDigest::of(b"one"), BlobDigest::of(b"two")];
        assert_eq!(
            key(&settings(), &keys).unwrap().to_string(),
            "1ddffdc2d354ecfa3b8b554de671933df3c35d83d1132fc8a83ec2b617e2ad18",
            "what others wrote is not found under another key"
        );
    }
}
