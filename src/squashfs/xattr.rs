//! Extended attributes: each set of them is stored once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};

use super::error::WriteError;
use super::metadata::MetadataWriter;
use super::options::Options;

/// Marks an inode without extended attributes.
pub(super) const NONE: u32 = u32::MAX;

/// The name spaces squashfs has, in the order of their numbers.
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

type Set = Vec<(u16, Vec<u8>, Vec<u8>)>;

/// The sets of extended attributes of an image.
#[derive(Default)]
pub(super) struct Table {
    sets: Vec<Set>,
    known: BTreeMap<Set, u32>,
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Adds a set; returns its number and the names squashfs has no place for.
    pub(super) fn add(&mut self, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> (u32, Vec<Vec<u8>>) {
        let mut set = Set::new();
        let mut dropped = Vec::new();
        for (name, value) in xattrs {
            let space = PREFIXES.iter().position(|prefix| name.starts_with(prefix));
            match space {
                Some(space) => {
                    set.push((space as u16, name[PREFIXES[space].len()..].to_vec(), value.clone()))
                }
                None => dropped.push(name.clone()),
            }
        }
        if set.is_empty() {
            return (NONE, dropped);
        }
        let sets = &mut self.sets;
        let number = *self.known.entry(set).or_insert_with_key(|set| {
            sets.push(set.clone());
            sets.len() as u32 - 1
        });
        (number, dropped)
    }

    /// Writes the attributes and their table; returns where the table's header is.
    pub(super) fn write(&self, out: &mut File, options: &Options) -> Result<u64, WriteError> {
        let mut values = MetadataWriter::new(options);
        let mut rows = MetadataWriter::new(options);
        for set in &self.sets {
            let place = values.place();
            let mut size = 0;
            for (space, name, value) in set {
                let mut entry = space.to_le_bytes().to_vec();
                entry.extend_from_slice(&(name.len() as u16).to_le_bytes());
                entry.extend_from_slice(name);
                entry.extend_from_slice(&(value.len() as u32).to_le_bytes());
                entry.extend_from_slice(value);
                size += entry.len() as u32;
                values.write(&entry)?;
            }
            rows.write(&place.reference().to_le_bytes())?;
            rows.write(&(set.len() as u32).to_le_bytes())?;
            rows.write(&size.to_le_bytes())?;
        }
        let values_at = out.stream_position()?;
        out.write_all(&values.finish()?.0)?;
        let (stream, starts) = rows.finish()?;
        let rows_at = out.stream_position()?;
        out.write_all(&stream)?;
        let header = out.stream_position()?;
        out.write_all(&values_at.to_le_bytes())?;
        out.write_all(&(self.sets.len() as u32).to_le_bytes())?;
        out.write_all(&[0; 4])?;
        for start in starts {
            out.write_all(&(rows_at + start).to_le_bytes())?;
        }
        Ok(header)
    }
}
