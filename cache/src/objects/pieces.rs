//! What a composition is made of, as a row of the index has it.

use rusqlite::{Connection, OptionalExtension, params};

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
