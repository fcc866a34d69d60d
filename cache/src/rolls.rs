//! Rolls: the results that are used together under one name, in one row.
//!
//! Looking up 100,000 results one by one takes 100,000 transactions, because each is a use that must be noted. A
//! roll says again what the rows of results say, so that all are read at once, and one row notes the use of all of
//! them; the collector makes uses of results of that before it looks at any. Triggers count the rows of results and
//! objects that went or changed: a roll is void once there was one since it was begun, and then the rows are asked,
//! as if there were no roll.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use crate::actions::ActionResult;
use crate::digest::ActionDigest;
use crate::index::now;
use crate::objects::StoreError;
use crate::store::Store;

/// What stands for the losses of a void roll.
const VOID: i64 = -1;

/// Opens every encoding; another first byte is another format, and a roll of it counts for nothing.
const FORMAT: u8 = 1;

/// What was used together last time, by label; nothing, where there is no roll, or a void one.
#[derive(Debug, Default)]
pub struct Roll {
    /// How many losses there had been.
    losses: i64,
    encoding: Vec<u8>,
    /// Where each entry starts, in order of label.
    starts: Vec<usize>,
}

/// One entry: label (its length, one byte, before it), action, and the result as JSON (its length, u32 little-endian,
/// before it).
struct Entry<'a> {
    label: &'a [u8],
    action: &'a [u8],
    result: &'a [u8],
}

/// Takes the first entry off `bytes`.
fn next_entry<'a>(bytes: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (length, rest) = bytes.split_first()?;
    let (label, rest) = rest.split_at_checked(usize::from(*length))?;
    let (action, rest) = rest.split_at_checked(32)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (result, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(Entry { label, action, result })
}

impl Roll {
    /// Reads an encoding; `None` for anything else.
    fn decode(encoding: Vec<u8>, losses: i64) -> Option<Self> {
        let mut starts = Vec::new();
        let mut rest = encoding.strip_prefix(&[FORMAT])?;
        let mut last: Option<&[u8]> = None;
        while !rest.is_empty() {
            starts.push(encoding.len() - rest.len());
            let entry = next_entry(&mut rest)?;
            if last.is_some_and(|last| last >= entry.label) {
                return None;
            }
            last = Some(entry.label);
        }
        Some(Self { losses, encoding, starts })
    }

    fn entry(&self, start: usize) -> Option<Entry<'_>> {
        next_entry(&mut self.encoding.get(start..)?)
    }

    /// Looks for a label, first where it is likely to be.
    fn find(&self, label: &str, likely: usize) -> Option<Entry<'_>> {
        let there = self.starts.get(likely).and_then(|start| self.entry(*start));
        if let Some(entry) = there.filter(|entry| entry.label == label.as_bytes()) {
            return Some(entry);
        }
        let wanted = Some(label.as_bytes());
        let at =
            self.starts.binary_search_by(|start| self.entry(*start).map(|entry| entry.label).cmp(&wanted));
        self.entry(self.starts[at.ok()?])
    }

    fn actions(&self) -> impl Iterator<Item = ActionDigest> {
        self.starts.iter().filter_map(|start| ActionDigest::from_slice(self.entry(*start)?.action))
    }
}

/// A roll being written; labels come in order.
#[derive(Debug)]
pub struct RollWriter(Vec<u8>);

impl Default for RollWriter {
    fn default() -> Self {
        Self(vec![FORMAT])
    }
}

impl RollWriter {
    /// Adds a result. One whose label is too long is left out.
    ///
    /// # Errors
    /// [`StoreError::Row`] for a result that cannot be written down.
    pub fn add(
        &mut self,
        label: &str,
        action: &ActionDigest,
        result: &ActionResult,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_vec(result).map_err(|_| StoreError::Row(action.to_string()))?;
        self.push(&Entry { label: label.as_bytes(), action: action.as_bytes(), result: &text });
        Ok(())
    }

    /// Adds what another roll has under a label, if it has something.
    pub fn keep(&mut self, roll: &Roll, label: &str) {
        if let Some(entry) = roll.find(label, 0) {
            self.push(&entry);
        }
    }

    fn push(&mut self, entry: &Entry<'_>) {
        let (Ok(label), Ok(result)) = (u8::try_from(entry.label.len()), u32::try_from(entry.result.len()))
        else {
            return;
        };
        self.0.push(label);
        self.0.extend_from_slice(entry.label);
        self.0.extend_from_slice(entry.action);
        self.0.extend_from_slice(&result.to_le_bytes());
        self.0.extend_from_slice(entry.result);
    }
}

fn read(index: &Connection, name: &str) -> Result<Option<Roll>, rusqlite::Error> {
    let encoding: Option<Vec<u8>> = index
        .prepare_cached("SELECT entries FROM roll_entries WHERE name = ?1")?
        .query_row(params![name], |row| row.get(0))
        .optional()?;
    Ok(encoding.and_then(|encoding| Roll::decode(encoding, VOID)))
}

fn losses(index: &Connection) -> Result<i64, rusqlite::Error> {
    let count = index
        .prepare_cached("SELECT count FROM losses WHERE id = 0")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(count.unwrap_or(0))
}

/// Makes uses of results of the uses of rolls: before anything is removed, in its transaction.
pub(crate) fn note_uses(index: &Connection) -> Result<(), rusqlite::Error> {
    let rolls: Vec<(String, i64)> = index
        .prepare_cached("SELECT name, used FROM rolls WHERE used > noted")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, used) in rolls {
        for action in read(index, &name)?.iter().flat_map(Roll::actions) {
            note_use(index, &action, used)?;
        }
        index.execute("UPDATE rolls SET noted = ?2 WHERE name = ?1", params![name, used])?;
    }
    Ok(())
}

fn note_use(index: &Connection, action: &ActionDigest, time: i64) -> Result<(), rusqlite::Error> {
    index
        .prepare_cached(
            "INSERT INTO uses(digest, time) VALUES(?1, ?2)
             ON CONFLICT(digest) DO UPDATE SET time = max(time, excluded.time)",
        )?
        .execute(params![action.as_bytes(), time])
        .map(drop)
}

impl Store {
    /// Returns the roll of that name, and notes a use of all its results.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn roll(&self, name: &str) -> Result<Roll, StoreError> {
        self.change(|index| {
            let losses = losses(index)?;
            // Whoever is told of results relies on them.
            let valid = index
                .prepare_cached("UPDATE rolls SET used = max(used, ?2) WHERE name = ?1 AND losses = ?3")?
                .execute(params![name, now(), losses])?;
            let roll = if valid == 0 { None } else { read(index, name)? };
            Ok(Roll { losses, ..roll.unwrap_or_default() })
        })
    }

    /// Returns the result that a roll has under a label, if it is of that action and all its objects are there.
    ///
    /// `likely` is how many labels are thought to come before: where they do, it need not be looked for.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn result_in(
        &self,
        roll: &Roll,
        label: &str,
        likely: usize,
        action: &ActionDigest,
    ) -> Result<Option<ActionResult>, StoreError> {
        let entry = roll.find(label, likely).filter(|entry| entry.action == action.as_bytes());
        let result = entry.and_then(|entry| serde_json::from_slice::<ActionResult>(entry.result).ok());
        let Some(result) = result else { return Ok(None) };
        // There are rows of all of them, or the roll would be void.
        let there = self.has_objects(&result, |blob| self.has_file(blob))?;
        Ok(there.then_some(result))
    }

    /// Says that a roll's labels may no longer stand for what it says.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn void_roll(&self, name: &str) -> Result<(), StoreError> {
        self.index(|index| {
            index
                .prepare_cached("UPDATE rolls SET losses = ?2 WHERE name = ?1 AND losses <> ?2")?
                .execute(params![name, VOID])
                .map(drop)
        })
    }

    /// Writes a roll of results that this process has used since it read `before`; a use of them is noted.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn set_roll(&self, name: &str, before: &Roll, writer: RollWriter) -> Result<(), StoreError> {
        let Some(roll) = Roll::decode(writer.0, before.losses) else { return Ok(()) };
        self.change(|index| {
            let used: Option<i64> = index
                .prepare_cached("SELECT used FROM rolls WHERE name = ?1")?
                .query_row(params![name], |row| row.get(0))
                .optional()?;
            if let Some(used) = used {
                // Another process may rely on what only the old one has.
                let kept: HashSet<ActionDigest> = roll.actions().collect();
                for action in read(index, name)?.iter().flat_map(Roll::actions) {
                    if !kept.contains(&action) {
                        note_use(index, &action, used)?;
                    }
                }
            }
            index
                .prepare_cached("INSERT OR REPLACE INTO roll_entries(name, entries) VALUES(?1, ?2)")?
                .execute(params![name, roll.encoding])?;
            index
                .prepare_cached(
                    "INSERT OR REPLACE INTO rolls(name, losses, used, noted) VALUES(?1, ?2, ?3, 0)",
                )?
                .execute(params![name, roll.losses, now()])
                .map(drop)
        })
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::collect::Limits;
    use crate::objects::Blob;
    use crate::testing::{Folder, result, tick};

    fn write(store: &Store, entries: &[(&str, &(ActionDigest, ActionResult, Blob))]) {
        let before = store.roll("spec").unwrap();
        let mut writer = RollWriter::default();
        for (label, (action, result, _)) in entries {
            writer.add(label, action, result).unwrap();
        }
        store.set_roll("spec", &before, writer).unwrap();
    }

    #[test]
    fn a_roll_gives_what_was_written_under_the_label_for_that_action() {
        let dir = Folder::new();
        let store = dir.store();
        let (one, two) = (result(&store, "one"), result(&store, "two"));
        write(&store, &[("a", &one), ("b", &two)]);
        let roll = store.roll("spec").unwrap();
        let find = |label, action| store.result_in(&roll, label, 1, action).unwrap();
        assert_eq!(find("a", &one.0), Some(one.1.clone()));
        assert_eq!(find("b", &two.0), Some(two.1.clone()));
        assert_eq!((find("a", &two.0), find("c", &one.0)), (None, None));
        std::fs::write(store.object_path(&one.2.digest).with_extension("new"), "on").unwrap();
        std::fs::rename(
            store.object_path(&one.2.digest).with_extension("new"),
            store.object_path(&one.2.digest),
        )
        .unwrap();
        assert_eq!(find("a", &one.0), None, "an object of another size is not there");
        assert_eq!(store.result_in(&store.roll("other").unwrap(), "a", 0, &one.0).unwrap(), None);
    }

    #[test]
    fn an_entry_is_kept_from_one_roll_to_the_next() {
        let dir = Folder::new();
        let store = dir.store();
        let one = result(&store, "one");
        write(&store, &[("a", &one)]);
        let before = store.roll("spec").unwrap();
        let mut writer = RollWriter::default();
        writer.keep(&before, "a");
        writer.keep(&before, "b");
        store.set_roll("spec", &before, writer).unwrap();
        let after = store.roll("spec").unwrap();
        assert_eq!(store.result_in(&after, "a", 0, &one.0).unwrap(), Some(one.1));
        assert_eq!(after.starts.len(), 1);
    }

    #[test]
    fn a_roll_is_void_once_something_is_lost_or_another_since_it_was_begun() {
        let dir = Folder::new();
        let store = dir.store();
        let [one, two] = ["one", "two"].map(|name| result(&store, name));
        let is_void = || store.roll("spec").unwrap().starts.is_empty();
        write(&store, &[("a", &one)]);
        assert!(!is_void());
        store.set_action(&two.0, &two.1).unwrap();
        assert!(!is_void(), "the same again is no loss");
        store.set_action(&two.0, &ActionResult { milliseconds: 5, ..two.1.clone() }).unwrap();
        assert!(is_void());
        write(&store, &[("a", &one)]);
        for table in ["actions", "objects"] {
            assert!(!is_void());
            let before = store.roll("spec").unwrap();
            store.index(|index| index.execute_batch(&format!("DELETE FROM {table}"))).unwrap();
            assert!(is_void());
            let mut writer = RollWriter::default();
            writer.add("a", &one.0, &one.1).unwrap();
            store.set_roll("spec", &before, writer).unwrap();
            assert!(is_void(), "the loss came after it was begun");
            write(&store, &[("a", &one)]);
        }
        store.void_roll("spec").unwrap();
        assert!(is_void());
    }

    #[test]
    fn what_cannot_be_read_is_no_roll() {
        let good = {
            let mut writer = RollWriter::default();
            let action = ActionDigest::of_encoding(b"x");
            writer.add("a", &action, &ActionResult::default()).unwrap();
            writer.add("b", &action, &ActionResult::default()).unwrap();
            writer.0
        };
        assert_eq!(Roll::decode(good.clone(), 0).unwrap().starts.len(), 2);
        assert!(Roll::decode(good[..good.len() - 1].to_vec(), 0).is_none());
        assert!(Roll::decode([&[2], &good[1..]].concat(), 0).is_none());
        assert!(Roll::decode([&good[..], &good[1..]].concat(), 0).is_none(), "out of order");
        assert!(Roll::decode(Vec::new(), 0).is_none());
    }

    #[test]
    fn results_of_a_roll_that_a_running_process_read_stay() {
        let dir = Folder::new();
        let (one, two) = {
            let store = dir.store();
            let (one, two) = (result(&store, "one"), result(&store, "two"));
            write(&store, &[("a", &one)]);
            (one, two)
        };
        tick();
        let running = dir.store();
        tick();
        let roll = running.roll("spec").unwrap();
        assert!(running.result_in(&roll, "a", 0, &one.0).unwrap().is_some(), "found, and relied on");
        let collector = dir.store();
        tick();
        // Whoever writes another roll of that name meanwhile keeps the use.
        write(&collector, &[]);
        let done = collector.collect(&Limits::default()).unwrap();
        assert_eq!((done.actions, done.objects, done.running), (1, 1, 1));
        assert!(running.contains(&one.2.digest).unwrap() && !running.contains(&two.2.digest).unwrap());
        drop(running);
        tick();
        assert_eq!(collector.collect(&Limits::default()).unwrap().objects, 1);
    }
}
