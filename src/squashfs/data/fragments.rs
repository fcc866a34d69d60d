//! Which ends of files share a fragment.
//!
//! That is decided before anything is read, by sizes and paths alone. A fragment ends where the next end does not fit, and
//! in front of some files whatever it holds, chosen by a hash of their paths: an end that grows moves those behind it only
//! as far as the next of these, wherever in the tree it is.

use cache::BlobDigest;
use cache::blocks::Blocks;
use cache::name::RelPath;

use super::found::{Ready, Settings, found_block};
use crate::squashfs::error::WriteError;

/// One file of as many as a block has of these begins a new fragment. With fewer files to a cut the image grows, with more
/// a change costs more.
const BYTES_PER_CUT: u32 = 8192;

/// Small blocks have few files in a fragment anyway.
const LEAST_CUT: u32 = 4;

/// A fragment of an image.
pub(super) struct Fragment {
    /// What it is made of.
    pub(super) key: BlobDigest,
    /// It, where an image has it already.
    pub(super) found: Option<Ready>,
    /// Its content, where it must be made.
    pub(super) content: Vec<u8>,
}

/// All fragments of an image.
pub(super) struct Fragments {
    fragments: Vec<Fragment>,
    /// For each file: its fragment and where in it its end is.
    places: Vec<Option<(usize, u32)>>,
}

impl Fragments {
    pub(super) fn plan(files: &[(&RelPath, BlobDigest, u64)], block_size: u32, settings: &Settings) -> Self {
        let cut = (block_size / BYTES_PER_CUT).max(LEAST_CUT);
        let mut made_of: Vec<Vec<u8>> = Vec::new();
        let mut length = 0;
        let places = files
            .iter()
            .map(|(path, digest, size)| {
                let end = (size % u64::from(block_size)) as u32;
                if end == 0 {
                    return None;
                }
                if made_of.is_empty() || length + end > block_size || (length > 0 && begins_one(path, cut)) {
                    made_of.push(Vec::new());
                    length = 0;
                }
                let parts = made_of.last_mut()?;
                parts.extend_from_slice(digest.as_bytes());
                parts.extend_from_slice(&end.to_le_bytes());
                length += end;
                Some((made_of.len() - 1, length - end))
            })
            .collect();
        let fragment = |parts: &Vec<u8>| Fragment {
            key: settings.key("fragment", &[parts]),
            found: None,
            content: Vec::new(),
        };
        Self { fragments: made_of.iter().map(fragment).collect(), places }
    }

    pub(super) fn count(&self) -> usize {
        self.fragments.len()
    }

    /// Returns the fragment of a file's end, and whether that is the first in it.
    pub(super) fn of(&self, file: usize) -> Option<(usize, bool)> {
        self.places[file].map(|(fragment, offset)| (fragment, offset == 0))
    }

    /// Looks for a fragment in the images of the store.
    pub(super) fn look_up(&mut self, fragment: usize, known: &Blocks<'_>) -> Result<(), WriteError> {
        let fragment = &mut self.fragments[fragment];
        fragment.found = found_block(known, &fragment.key)?;
        Ok(())
    }

    /// Gives a missing fragment memory for its content.
    pub(super) fn begin(&mut self, fragment: usize, memory: Vec<u8>) {
        self.fragments[fragment].content = memory;
    }

    pub(super) fn is_missing(&self, fragment: usize) -> bool {
        self.fragments[fragment].found.is_none()
    }

    /// Adds the end of a file, with its bytes where the fragment is missing; returns where in the fragment it is.
    pub(super) fn add(&mut self, file: usize, end: Option<&[u8]>) -> u32 {
        let Some((fragment, offset)) = self.places[file] else { return 0 };
        self.fragments[fragment].content.extend_from_slice(end.unwrap_or_default());
        offset
    }

    /// Returns a fragment, and keeps nothing but its key.
    pub(super) fn take(&mut self, fragment: usize) -> Fragment {
        let Fragment { key, found, content } = &mut self.fragments[fragment];
        Fragment { key: *key, found: found.take(), content: std::mem::take(content) }
    }
}

/// Tells whether a fragment ends in front of this file, whatever it holds: one of `cut` files.
fn begins_one(path: &RelPath, cut: u32) -> bool {
    let digest = BlobDigest::of(path.as_bytes());
    let number = digest.as_bytes().first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    number.is_multiple_of(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(sizes: &[u64]) -> Vec<(usize, u32)> {
        let paths: Vec<RelPath> = (0..sizes.len())
            .map(|number| RelPath::new(format!("usr/file-{number}").as_bytes()).unwrap())
            .collect();
        let files: Vec<_> = paths
            .iter()
            .zip(sizes)
            .map(|(path, size)| (path, BlobDigest::of(path.as_bytes()), *size))
            .collect();
        Fragments::plan(&files, 1 << 17, &Settings(String::new()))
            .places
            .into_iter()
            .map(Option::unwrap)
            .collect()
    }

    #[test]
    fn an_end_that_grows_moves_the_next_ones_only_a_little() {
        let sizes: Vec<u64> = (0..4000u64).map(|number| 1 + number * 7919 % 9000).collect();
        let before = plan(&sizes);
        for changed in [0, 5, 1234, 3998] {
            let mut sizes = sizes.clone();
            sizes[changed] = 20_000;
            let after = plan(&sizes);
            // Fragments are told by what is in them.
            let groups = |places: &[(usize, u32)]| {
                let mut groups: Vec<Vec<usize>> = Vec::new();
                for (file, (fragment, _)) in places.iter().enumerate() {
                    groups.resize(groups.len().max(fragment + 1), Vec::new());
                    groups[*fragment].push(file);
                }
                groups
            };
            let (old, new) = (groups(&before), groups(&after));
            let moved = new.iter().filter(|group| group.contains(&changed) || !old.contains(group)).count();
            assert!(moved <= 8, "{changed}: {moved} of {}", new.len());
        }
    }

    #[test]
    fn ends_fit_and_fragments_are_not_much_emptier_than_they_must_be() {
        let sizes: Vec<u64> = (0..4000u64).map(|number| 1 + number * 7919 % 9000).collect();
        let places = plan(&sizes);
        for ((_, offset), size) in places.iter().zip(&sizes) {
            assert!(u64::from(*offset) + size <= 1 << 17);
        }
        let fragments = places.last().unwrap().0 + 1;
        let least = sizes.iter().sum::<u64>().div_ceil(1 << 17) as usize;
        assert!(fragments < least * 3, "{fragments}, at least {least}");
    }
}
