//! The hash tree by which the kernel checks a device block by block (dm-verity).
//!
//! The layout is that of `veritysetup format` without salt: a superblock (cryptsetup, "DM-Verity on-disk format"), then the levels of
//! the tree, its top first (the kernel's `Documentation/admin-guide/device-mapper/verity.rst`). The hash of the top block is the
//! root hash, and that of each block is in the level above it.

use std::io;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cpio::{self, Entry};

/// Where an initramfs has what its squashfs is checked by.
pub const CHECKS: &str = "etc/stagegraph/verity";

/// Where it has the hash tree.
pub const TREE: &str = "etc/stagegraph/verity.tree";

/// The folder of both.
const FOLDER: &str = "etc/stagegraph";

/// What dracut runs once the squashfs is mounted, and its name among dracut's hooks.
pub const HOOK: &str = include_str!("verity/hook.sh");
const HOOK_NAME: &str = "pre-mount/00-stagegraph-verity.sh";

/// Returns where the hook lies, by the folder of dracut's hooks.
pub fn hook_path(hooks: &str) -> String {
    format!("{hooks}/{HOOK_NAME}")
}

/// The version of the text that an initramfs has of it.
const FORMAT: &str = "1";

/// What a squashfs is checked by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// The image that it is of, as it is called.
    pub image: String,
    /// How many blocks it has.
    pub blocks: u64,
    /// The root hash, in hex.
    pub root: String,
}

impl Checks {
    /// Reads the text that an initramfs has; nothing where it is none of this version.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            lines.filter(|(found, _)| *found == key).map(|(_, value)| value).next_back()
        };
        let root = value("root").filter(|root| root.len() == 2 * HASH && is_hex(root))?;
        let blocks = value("blocks")?.parse().ok()?;
        (value("format") == Some(FORMAT)).then_some(())?;
        Some(Self { image: value("image")?.to_owned(), blocks, root: root.to_owned() })
    }

    /// Returns that text.
    pub fn text(&self) -> String {
        let Self { image, blocks, root } = self;
        format!("format={FORMAT}\nimage={image}\nblocks={blocks}\nroot={root}\n")
    }

    /// Returns the archive that, behind an initramfs whose hooks are in `hooks`, has its squashfs checked.
    ///
    /// # Errors
    /// The tree is larger than an archive can hold.
    pub fn archive(&self, tree: &[u8], hooks: &str) -> io::Result<Vec<u8>> {
        let (hook, text) = (hook_path(hooks), self.text());
        let folder = hook.rsplit_once('/').map_or("", |(folder, _)| folder);
        cpio::archive(&[
            (FOLDER, Entry::Folder),
            (TREE, Entry::File(tree, false)),
            (CHECKS, Entry::File(text.as_bytes(), false)),
            (folder, Entry::Folder),
            (&hook, Entry::File(HOOK.as_bytes(), true)),
        ])
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Bytes of a block, of what is checked as of the tree.
pub const BLOCK: usize = 4096;

/// Bytes of a hash.
const HASH: usize = 32;

/// Blocks that one core hashes before it looks for more.
const SHARE: usize = 64;

/// A hash tree and what it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The root hash, in hex.
    pub root: String,
    /// How many blocks are checked by it.
    pub blocks: u64,
    /// The superblock and the tree.
    pub bytes: Vec<u8>,
}

/// Makes a tree while what it is of goes by.
#[derive(Debug, Default)]
pub struct Builder {
    hashes: Vec<u8>,
    /// The beginning of a block whose end has not come yet.
    begun: Vec<u8>,
}

impl Builder {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.begun.is_empty() {
            let taken = (BLOCK - self.begun.len()).min(bytes.len());
            self.begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.begun.len() < BLOCK {
                return;
            }
            let begun = std::mem::take(&mut self.begun);
            self.hashes.extend_from_slice(&hashes(&begun));
        }
        let whole = bytes.len() - bytes.len() % BLOCK;
        self.hashes.extend_from_slice(&hashes(&bytes[..whole]));
        self.begun.extend_from_slice(&bytes[whole..]);
    }

    /// Returns the tree; nothing where the bytes were no whole number of blocks, or none.
    pub fn finish(self) -> Option<Tree> {
        if !self.begun.is_empty() || self.hashes.is_empty() {
            return None;
        }
        let blocks = (self.hashes.len() / HASH) as u64;
        let mut levels: Vec<Vec<u8>> = Vec::new();
        let mut hashed = self.hashes;
        while hashed.len() > HASH {
            hashed.resize(hashed.len().next_multiple_of(BLOCK), 0);
            let above = hashes(&hashed);
            levels.push(hashed);
            hashed = above;
        }
        let mut bytes = superblock(blocks);
        levels.iter().rev().for_each(|level| bytes.extend_from_slice(level));
        Some(Tree { root: super::checksums::hex(&hashed), blocks, bytes })
    }
}

/// Hashes whole blocks.
fn hashes(blocks: &[u8]) -> Vec<u8> {
    let share = |share: &[u8]| {
        share.chunks(BLOCK).flat_map(|block| Sha256::digest(block).to_vec()).collect::<Vec<u8>>()
    };
    if blocks.len() <= SHARE * BLOCK {
        return share(blocks);
    }
    blocks.par_chunks(SHARE * BLOCK).map(share).collect::<Vec<_>>().concat()
}

/// Returns the superblock, which fills a block: so that `veritysetup` knows the tree. Its UUID is of zeros.
fn superblock(blocks: u64) -> Vec<u8> {
    const VERSION: u32 = 1;
    const HASH_TYPE: u32 = 1;
    let mut bytes = b"verity\0\0".to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(HASH_TYPE.to_le_bytes());
    bytes.extend([0; 16]);
    let mut algorithm = [0; 32];
    algorithm[..6].copy_from_slice(b"sha256");
    bytes.extend(algorithm);
    bytes.extend((BLOCK as u32).to_le_bytes());
    bytes.extend((BLOCK as u32).to_le_bytes());
    bytes.extend(blocks.to_le_bytes());
    bytes.resize(BLOCK, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(bytes: &[u8], piece: usize) -> Option<Tree> {
        let mut builder = Builder::default();
        bytes.chunks(piece.max(1)).for_each(|piece| builder.update(piece));
        builder.finish()
    }

    #[test]
    fn pieces_do_not_matter_and_part_of_a_block_is_refused() {
        let bytes: Vec<u8> = (0..300 * BLOCK).map(|n| (n % 251) as u8).collect();
        let whole = tree(&bytes, bytes.len()).unwrap();
        for piece in [1000, BLOCK, BLOCK + 1, 100 * BLOCK, 130 * BLOCK + 7] {
            assert_eq!(tree(&bytes, piece).unwrap(), whole);
        }
        assert_eq!(whole.blocks, 300);
        // 300 hashes take three blocks, and those one more.
        assert_eq!(whole.bytes.len(), (1 + 1 + 3) * BLOCK);
        assert_eq!(tree(&bytes[..bytes.len() - 1], 4096), None);
        assert_eq!(tree(&[], 1), None);
    }

    #[test]
    fn the_root_depends_on_every_block() {
        let mut bytes = vec![7; 200 * BLOCK];
        let sound = tree(&bytes, BLOCK).unwrap().root;
        for at in [0, 100 * BLOCK + 5, 200 * BLOCK - 1] {
            bytes[at] ^= 1;
            assert_ne!(tree(&bytes, BLOCK).unwrap().root, sound, "{at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn the_text_is_read_back_and_what_is_none_refused() {
        let checks = Checks { image: "x.iso".to_owned(), blocks: 3, root: "ab".repeat(32) };
        assert_eq!(Checks::parse(&checks.text()), Some(checks.clone()));
        let text = checks.text();
        for wrong in [
            text.replace("format=1", "format=2"),
            text.replace("ab", "AB"),
            text.replace("abab\n", "\n"),
            text.replace("blocks=3", "blocks=x"),
            String::new(),
        ] {
            assert_eq!(Checks::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn one_block_is_its_own_root() {
        let one = tree(&[0; BLOCK], BLOCK).unwrap();
        assert_eq!(one.bytes.len(), BLOCK);
        assert_eq!(one.root, super::super::checksums::hex(&Sha256::digest([0; BLOCK])));
    }
}
