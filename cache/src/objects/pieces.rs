//! What a composition is made of, as a row of the index has it.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::write::enter_row;
use super::{Blob, Objects, StoreError};
use crate::digest::BlobDigest;
use crate::index::note;

/// Bytes of a piece in a row: the object's digest, where the piece begins in it, how long it is.
const ROW: usize = 32 + 8 + 8;

/// Part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) object: BlobDigest,
    pub(super) start: u64,
    pub(super) length: u64,
}

/// What an object is made of, in order: pieces of other objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Composition(Vec<(BlobDigest, u64, u64)>);

impl Composition {
    /// Makes one of pieces.
    #[cfg(test)]
    pub(crate) fn of(pieces: Vec<(BlobDigest, u64, u64)>) -> Self {
        Self(pieces)
    }

    /// Returns its pieces: the object each is of, where it begins there, and how long it is, in bytes.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &(BlobDigest, u64, u64)> {
        self.0.iter()
    }

    /// Returns the number of its bytes; `None` where that is no number that a store could keep.
    pub(crate) fn size(&self) -> Option<u64> {
        let size = self.0.iter().try_fold(0_u64, |sum, (_, start, length)| {
            start.checked_add(*length)?;
            sum.checked_add(*length)
        });
        size.filter(|size| i64::try_from(*size).is_ok())
    }

    /// Enters an object that is made so in the index, within a transaction; one that is known stays as it is.
    pub(crate) fn enter(&self, index: &Connection, digest: &BlobDigest) -> Result<(), rusqlite::Error> {
        let piece = |&(object, start, length): &(BlobDigest, u64, u64)| Piece { object, start, length };
        let pieces: Vec<Piece> = self.0.iter().map(piece).collect();
        index
            .prepare_cached("INSERT OR IGNORE INTO compositions(digest, pieces) VALUES(?1, ?2)")?
            .execute(params![digest.as_bytes(), encode(&pieces)])?;
        enter_row(index, &Blob { digest: *digest, size: self.size().unwrap_or(0) })
    }
}

impl Objects {
    /// Returns what an object is made of; `None` for one that is kept as it is.
    pub(crate) fn composition(&self, digest: &BlobDigest) -> Result<Option<Composition>, StoreError> {
        let row = |piece: Piece| (piece.object, piece.start, piece.length);
        Ok(self.pieces(digest)?.map(|pieces| Composition(pieces.into_iter().map(row).collect())))
    }
}

pub(super) fn encode(pieces: &[Piece]) -> Vec<u8> {
    let row = |piece: &Piece| {
        let mut row = piece.object.as_bytes().to_vec();
        row.extend_from_slice(&piece.start.to_le_bytes());
        row.extend_from_slice(&piece.length.to_le_bytes());
        row
    };
    pieces.iter().flat_map(row).collect()
}

pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Piece>> {
    let (rows, rest) = bytes.as_chunks::<ROW>();
    let piece = |row: &[u8; ROW]| {
        let (object, numbers) = row.split_at(32);
        let (start, length) = numbers.split_first_chunk::<8>()?;
        Some(Piece {
            object: BlobDigest::from_slice(object)?,
            start: u64::from_le_bytes(*start),
            length: u64::from_le_bytes(length.try_into().ok()?),
        })
    };
    rest.is_empty().then(|| rows.iter().map(piece).collect())?
}

/// Notes a use of all pieces of a composition within a transaction.
pub(super) fn note_pieces(index: &Connection, digest: &BlobDigest) -> Result<(), rusqlite::Error> {
    let row: Option<Vec<u8>> = index
        .prepare_cached("SELECT pieces FROM compositions WHERE digest = ?1")?
        .query_row(params![digest.as_bytes()], |row| row.get(0))
        .optional()?;
    // A row nobody can read is reported by whoever needs it.
    for piece in row.as_deref().and_then(decode).unwrap_or_default() {
        note(index, piece.object.as_bytes())?;
    }
    Ok(())
}
