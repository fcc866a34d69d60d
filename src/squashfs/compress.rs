//! The compressors squashfs knows, one context a thread.

mod gzip;
mod lz4;
mod row;
mod xz;
mod zstd;

use std::cell::RefCell;
use std::ops::RangeInclusive;

use serde::Serialize;

pub use self::row::Kind;
use self::row::{Encode, Row};
use super::error::WriteError;

static ROWS: [Row; 4] = [gzip::ROW, xz::ROW, lz4::ROW, zstd::ROW];

impl Kind {
    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.kind == self).expect("every kind has a row")
    }

    /// Reads a name; `None` for an unknown one.
    pub fn parse(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.name == name).map(|row| row.kind)
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the levels it has, and the one that squashfs-tools take by default.
    pub fn levels(self) -> (RangeInclusive<i32>, i32) {
        (self.row().levels.clone(), self.row().default)
    }

    /// Undoes a block of so many bytes; `None` where it is none.
    pub(super) fn undo(self, packed: &[u8], length: usize) -> Option<Vec<u8>> {
        (self.row().undo)(packed, length)
    }

    /// Returns names and versions of the libraries whose code decides what the bytes are.
    pub fn libraries(self) -> &'static str {
        self.row().libraries
    }
}

/// A compressor at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compressor {
    /// Which.
    pub kind: Kind,
    /// How hard it tries; within [`Kind::levels`].
    pub level: i32,
}

/// A thread's context, with the compressor and the size of the blocks it is for.
type Kept = (Compressor, u32, Box<dyn Encode>);

thread_local! {
    static CONTEXT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

impl Compressor {
    /// Returns the superblock's number for it.
    pub(super) fn id(self) -> u16 {
        self.kind.row().id
    }

    /// Returns the options behind the superblock, where they are not the defaults.
    pub(super) fn options(self) -> Option<Vec<u8>> {
        (self.kind.row().options)(self.level)
    }

    /// Returns the compressor for metadata.
    pub(super) fn for_metadata(self) -> Self {
        Self { level: self.level.min(self.kind.row().metadata), ..self }
    }

    /// Compresses one block of at most 1 MiB; `None` where that saves nothing.
    ///
    /// # Errors
    /// [`WriteError::Compress`].
    pub(super) fn compress(self, block: &[u8], block_size: u32) -> Result<Option<Vec<u8>>, WriteError> {
        let failed = || WriteError::Compress(self.kind.name());
        let compressed = CONTEXT.with_borrow_mut(|kept| {
            let context = match kept {
                Some((settings, size, context)) if (*settings, *size) == (self, block_size) => context,
                _ => {
                    let context = (self.kind.row().context)(self.level, block_size).ok_or_else(failed)?;
                    &mut kept.insert((self, block_size, context)).2
                }
            };
            context.encode(block).ok_or_else(failed)
        })?;
        Ok(Some(compressed).filter(|bytes| bytes.len() < block.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compressor_makes_a_repetitive_block_smaller_and_leaves_noise_alone() {
        let block = b"squashfs ".repeat(5000);
        let noise: Vec<u8> =
            (0u32..).flat_map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).take(8192).collect();
        for kind in ROWS.iter().map(|row| row.kind) {
            let compressor = Compressor { kind, level: kind.levels().1 };
            let small = compressor.compress(&block, 131_072).unwrap().unwrap();
            assert!(small.len() < 2000, "{kind:?}: {}", small.len());
            assert_eq!(compressor.compress(&noise, 131_072).unwrap(), None, "{kind:?}");
        }
    }

    #[test]
    fn the_libraries_in_keys_are_those_of_the_lock_file() {
        let lock: toml::Table = include_str!("../../Cargo.lock").parse().unwrap();
        let packages = lock["package"].as_array().unwrap();
        for row in &ROWS {
            for library in row.libraries.split(", ") {
                let (name, version) = library.split_once(' ').unwrap();
                let locked: Vec<&str> = packages
                    .iter()
                    .filter(|package| package["name"].as_str() == Some(name))
                    .filter_map(|package| package["version"].as_str())
                    .collect();
                assert_eq!(
                    locked,
                    [version],
                    "{}: Cargo.lock has another {name}; say so in src/squashfs/compress/, and if a pinned image \
                     changed with it, raise squashfs::VERSION",
                    row.name
                );
            }
        }
    }
}
