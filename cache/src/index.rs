//! `index.sqlite`: its whole schema, how it is opened and locked, and which version of a store has what.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

/// How long a process waits for another one's transaction before it gives up.
const BUSY: Duration = Duration::from_secs(60);

/// What the file `version` of a store says. A change of the layout or of the schema below changes it:
///
/// - 1: objects, actions, memos, files, uses, owners, roots; every object with its SHA-256.
/// - 2: compositions and rolls. The collector of version 1 would not keep what they need.
/// - 3: a SHA-256 is empty until somebody asks for it.
/// - 4: chunks, elsewhere, origins and claims. Version 3 would take what is elsewhere for lost.
/// - 5: slices and helpers. The collector of version 4 would leave those of images that went.
pub(crate) const VERSION: &str = "stagegraph store 5\n";

/// Older versions that this one reads, and takes over by writing its own.
pub(crate) const FORMER: [&str; 4] =
    ["stagegraph store 1\n", "stagegraph store 2\n", "stagegraph store 3\n", "stagegraph store 4\n"];

/// The tables and triggers. Digests are their raw 32 bytes; a SHA-256 that nobody asked for yet is empty.
///
/// - `memos`: what a higher crate remembers; losing one costs time only.
/// - `files`: digests of files outside, by path and stat data.
/// - `images`, `runs`: where compressed blocks are; the key of a run is what its blocks were made of and how, hashed.
/// - `slices`: parts of images that are offered as results of their own, with the key of that; `helpers`: who signed slices that an image
///   was made of.
/// - `rolls`: `used` is when the results were last relied on, `noted` as much of it as is in `uses`; the triggers count
///   in `losses` the rows that went or changed.
/// - `chunks`: as what an object travels that is here, found by reading it; `elsewhere`: objects that an upstream was said to have, as
///   which chunks, which one, and when that was. One that is fetched has a row in `objects` as well.
/// - `origins`: where a result came from that was not made here, and the name and key of who signed it; `claims`: which of them say
///   what an object is made of.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS objects(
        digest BLOB PRIMARY KEY, size INTEGER NOT NULL, sha256 BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS actions(
        digest BLOB PRIMARY KEY, result TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS memos(
        space TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(space, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS files(
        path BLOB PRIMARY KEY, stat BLOB NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS uses(
        digest BLOB PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS owners(
        action BLOB NOT NULL, spec TEXT NOT NULL, node TEXT NOT NULL, kind TEXT NOT NULL,
        PRIMARY KEY(action, spec, node)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS roots(
        path BLOB PRIMARY KEY, spec TEXT NOT NULL, actions TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS compositions(
        digest BLOB PRIMARY KEY, pieces BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS images(
        id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE);
    CREATE TABLE IF NOT EXISTS runs(
        key BLOB PRIMARY KEY, image INTEGER NOT NULL, start INTEGER NOT NULL, blocks BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS slices(
        image BLOB NOT NULL, action BLOB NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
        about BLOB NOT NULL, PRIMARY KEY(image, action)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS helpers(
        image BLOB NOT NULL, signer TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY(image, signer, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS losses(id INTEGER PRIMARY KEY, count INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS rolls(
        name TEXT PRIMARY KEY, losses INTEGER NOT NULL, used INTEGER NOT NULL, noted INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS roll_entries(name TEXT PRIMARY KEY, entries BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS chunks(
        digest BLOB PRIMARY KEY, list BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS elsewhere(
        digest BLOB PRIMARY KEY, size INTEGER NOT NULL, chunks BLOB NOT NULL, upstream TEXT NOT NULL,
        seen INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS origins(
        action BLOB PRIMARY KEY, upstream TEXT NOT NULL, signer TEXT NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS claims(
        digest BLOB NOT NULL, action BLOB NOT NULL, PRIMARY KEY(digest, action)) WITHOUT ROWID;
    CREATE TRIGGER IF NOT EXISTS lost_result AFTER DELETE ON actions BEGIN
        INSERT OR REPLACE INTO losses VALUES(0, 1 + coalesce((SELECT count FROM losses WHERE id = 0), 0)); END;
    CREATE TRIGGER IF NOT EXISTS lost_origin AFTER DELETE ON actions BEGIN
        DELETE FROM origins WHERE action = OLD.digest;
        DELETE FROM claims WHERE action = OLD.digest; END;
    CREATE TRIGGER IF NOT EXISTS lost_object AFTER DELETE ON objects BEGIN
        INSERT OR REPLACE INTO losses VALUES(0, 1 + coalesce((SELECT count FROM losses WHERE id = 0), 0)); END;
    CREATE TRIGGER IF NOT EXISTS other_result BEFORE INSERT ON actions
        WHEN EXISTS(SELECT 1 FROM actions WHERE digest = NEW.digest AND result <> NEW.result) BEGIN
        INSERT OR REPLACE INTO losses VALUES(0, 1 + coalesce((SELECT count FROM losses WHERE id = 0), 0)); END;
";

/// Opens the index, making the tables that are missing.
pub(crate) fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let index = Connection::open(path)?;
    index.busy_timeout(BUSY)?;
    index.pragma_update(None, "journal_mode", "WAL")?;
    index.pragma_update(None, "synchronous", "NORMAL")?;
    index.execute_batch(SCHEMA)?;
    Ok(index)
}

/// Locks even after another thread panicked: the index and the set are whole between any two calls.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns when something was last used, in milliseconds since 1970.
pub(crate) fn last_use(index: &Connection, digest: &[u8; 32]) -> Result<Option<i64>, rusqlite::Error> {
    index
        .prepare_cached("SELECT time FROM uses WHERE digest = ?1")?
        .query_row(params![digest], |row| row.get(0))
        .optional()
}

/// Notes a use within a transaction.
pub(crate) fn note(index: &rusqlite::Connection, digest: &[u8; 32]) -> Result<(), rusqlite::Error> {
    index
        .prepare_cached("INSERT OR REPLACE INTO uses(digest, time) VALUES(?1, ?2)")?
        .execute(params![digest, now()])
        .map(drop)
}
