//! Writes an image beside the thread that makes it.
//!
//! Bytes that are in memory already reach the page cache while the next blocks are found and compared, and the disk
//! while more are to come: what is synced in the end is the last part.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::squashfs::error::WriteError;

/// Blocks that wait to be written.
const WAITING: usize = 16;

/// So many bytes are brought to the disk at a time.
const SYNCING: u64 = 32 << 20;

/// At most so many bytes are copied at a time.
const AGAIN: usize = 1 << 20;

/// What is written next.
enum Piece {
    Block(Vec<u8>),
    /// What lies there once more: at most [`AGAIN`] bytes.
    Again(Range<u64>),
}

/// Where blocks go, in order.
pub(super) struct Sink<'scope> {
    pieces: SyncSender<Piece>,
    writing: ScopedJoinHandle<'scope, io::Result<()>>,
}

impl<'scope> Sink<'scope> {
    /// Writes behind what `out` holds already.
    pub(super) fn new<'env>(scope: &'scope Scope<'scope, 'env>, out: &'scope File) -> Self {
        let (pieces, written) = sync_channel(WAITING);
        let writing = scope.spawn(move || {
            let (due, dues) = sync_channel(1);
            let syncing = scope.spawn(move || dues.iter().try_for_each(|()| out.sync_data()));
            let mut file = out;
            let mut behind = 0;
            for piece in written {
                behind += match piece {
                    Piece::Block(block) => file.write_all(&block).map(|()| block.len() as u64)?,
                    Piece::Again(bytes) => copy(out, bytes)?,
                };
                if behind >= SYNCING {
                    match due.try_send(()) {
                        Ok(()) => behind = 0,
                        // The sync that waits takes this with it.
                        Err(TrySendError::Full(())) => {}
                        // It failed, and says so below.
                        Err(TrySendError::Disconnected(())) => break,
                    }
                }
            }
            drop(due);
            syncing.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs the image failed")))
        });
        Self { pieces, writing }
    }

    /// Hands a block over.
    ///
    /// # Errors
    /// [`WriteError::Stopped`]: writing failed before; [`Sink::finish`] says why.
    pub(super) fn write(&self, block: Vec<u8>) -> Result<(), WriteError> {
        self.send(Piece::Block(block))
    }

    /// Writes bytes that were handed over before once more.
    ///
    /// # Errors
    /// As [`Sink::write`].
    pub(super) fn write_again(&self, bytes: Range<u64>) -> Result<(), WriteError> {
        let starts = bytes.clone().step_by(AGAIN);
        starts
            .map(|start| start..bytes.end.min(start + AGAIN as u64))
            .try_for_each(|part| self.send(Piece::Again(part)))
    }

    fn send(&self, piece: Piece) -> Result<(), WriteError> {
        self.pieces.send(piece).map_err(|_| WriteError::Stopped)
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// Writing, or bringing to the disk, failed.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        self.writing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that writes the image failed")))
    }
}

/// Writes bytes of the file once more; returns how many.
fn copy(file: &File, bytes: Range<u64>) -> io::Result<u64> {
    let mut again = vec![0; (bytes.end - bytes.start) as usize];
    file.read_exact_at(&mut again, bytes.start)?;
    let mut out = file;
    out.write_all(&again).map(|()| bytes.end - bytes.start)
}
