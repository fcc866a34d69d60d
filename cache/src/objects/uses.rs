//! When objects and results were last used.
//!
//! A process notes a use before it relies on what it found. The collector asks for the same lock to remove
//! something, and leaves alone what was used since the oldest running process began; so nothing goes
//! away under a build.

use rusqlite::{Transaction, TransactionBehavior};

use super::pieces::note_pieces;
use super::{Objects, StoreError};
use crate::digest::BlobDigest;
use crate::index::{lock, note};

impl Objects {
    /// Runs `change` on the index with nobody else writing to it, and keeps what it did.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let index = lock(&self.index);
        let run = || {
            let transaction = Transaction::new_unchecked(&index, TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|source| StoreError::index(self.dir.join("index.sqlite"), source))
    }

    /// Notes that this process relies on an object, and on its pieces if it is a composition; once in its life.
    pub(crate) fn touch(&self, digest: &BlobDigest) -> Result<(), StoreError> {
        if !lock(&self.touched).contains(digest) {
            self.index(|index| {
                note(index, digest.as_bytes())?;
                note_pieces(index, digest)
            })?;
            // Not before: another thread would rely on what is not noted yet.
            lock(&self.touched).insert(*digest);
        }
        Ok(())
    }
}
