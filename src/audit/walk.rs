//! Walks through an initramfs and finds the squashfs images in it.

use std::io::{self, Read};

use cache::BlobDigest;
use cache::digest::BlobHasher;
use serde::Serialize;

use crate::formats::initramfs::{self, Initramfs};
use crate::formats::squashfs::{self, SUPERBLOCK};

/// Images in one initramfs that are looked at.
const MAX_IMAGES: usize = 64;

/// What an initramfs holds.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Who made it, its archives.
    pub initramfs: Initramfs,
    /// The squashfs images in it.
    pub images: Vec<Inside>,
}

/// A squashfs inside an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inside {
    /// Its name in the archive, as it is written.
    pub name: String,
    /// Number of bytes.
    pub size: u64,
    /// Its digest.
    pub digest: BlobDigest,
    /// Which archive it is in.
    pub segment: usize,
    /// What is wrong with its superblock.
    pub damage: Option<String>,
}

impl Inside {
    /// Returns where it is once the initramfs is unpacked.
    pub fn path(&self) -> String {
        format!("/{}", self.name.trim_start_matches("./").trim_start_matches('/'))
    }
}

/// Reads a whole initramfs.
///
/// # Errors
/// It is none, is damaged, or is beyond any reason.
pub(super) fn walk(input: impl Read) -> io::Result<Walk> {
    let mut images = Vec::new();
    let initramfs = initramfs::read_with(input, &mut |entry, content| {
        let mut head = Vec::new();
        content.take(SUPERBLOCK as u64).read_to_end(&mut head)?;
        // A squashfs whose first bytes are damaged is known by its name, at the top of an appended archive.
        let top = entry.name.trim_start_matches("./").trim_start_matches('/');
        let is_named = entry.size > 0
            && entry.bare
            && entry.segment > 0
            && top.contains("squashfs")
            && !top.contains('/');
        if !(head.starts_with(squashfs::MAGIC) || is_named) || images.len() >= MAX_IMAGES {
            return Ok(());
        }
        let mut hasher = BlobHasher::default();
        hasher.update(&head);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
        images.push(Inside {
            name: entry.name.to_owned(),
            size: entry.size,
            digest: hasher.finish(),
            segment: entry.segment,
            damage: squashfs::superblock(&head, entry.size).err(),
        });
        Ok(())
    })?;
    Ok(Walk { initramfs, images })
}
