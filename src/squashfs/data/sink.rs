//! Writes an image beside the thread that makes it.
//!
//! Bytes that are in memory already reach the page cache while the next blocks are found and compared, and the disk
//! while more are to come: what is synced in the end is the last part.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::squashfs::WriteError;

/// Blocks that wait to be written.
const WAITING: usize = 16;

/// So many bytes are brought to the disk at a time.
const SYNCING: u64 = 32 << 20;

/// Where blocks go, in order.
pub(super) struct Sink<'scope> {
    blocks: SyncSender<Vec<u8>>,
    writing: ScopedJoinHandle<'scope, io::Result<()>>,
}

impl<'scope> Sink<'scope> {
    /// Writes behind what `out` holds already.
    pub(super) fn new<'env>(scope: &'scope Scope<'scope, 'env>, out: &'scope File) -> Self {
        let (blocks, written) = sync_channel::<Vec<u8>>(WAITING);
        let writing = scope.spawn(move || {
            let (due, dues) = sync_channel(1);
            let syncing = scope.spawn(move || dues.iter().try_for_each(|()| out.sync_data()));
            let mut file = out;
            let mut behind = 0;
            for block in written {
                file.write_all(&block)?;
                behind += block.len() as u64;
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
        Self { blocks, writing }
    }

    /// Hands a block over.
    ///
    /// # Errors
    /// [`WriteError::Stopped`]: writing failed before; [`Sink::finish`] says why.
    pub(super) fn write(&self, block: Vec<u8>) -> Result<(), WriteError> {
        self.blocks.send(block).map_err(|_| WriteError::Stopped)
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// Writing, or bringing to the disk, failed.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.blocks);
        self.writing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that writes the image failed")))
    }
}
