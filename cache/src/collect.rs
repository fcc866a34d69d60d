//! The collector: removes what no root needs, and nothing that a running build relies on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::params;

use crate::actions::{ActionResult, Object};
use crate::digest::{ActionDigest, BlobDigest};
use crate::file::OnFile;
use crate::index::{last_use, now};
use crate::objects::StoreError;
use crate::objects::files::{hold_reserve, object_files, remove_if_there};
use crate::rolls;
use crate::store::Store;

/// Objects that are removed while the index is locked; others wait that long.
const BATCH: usize = 64;

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Only what was not used for that long.
    pub older_than: Option<Duration>,
    /// Only as much, the longest unused first, until the store has no more bytes than this.
    pub max_size: Option<u64>,
    /// Remove nothing, only tell.
    pub dry_run: bool,
}

/// What was, or would be, removed and kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Results that went.
    pub actions: usize,
    /// Objects that went.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Checkouts that went; their bytes count above.
    pub checkouts: usize,
    /// Objects that stay.
    pub kept_objects: usize,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Roots that are still there.
    pub roots: Vec<PathBuf>,
    /// Roots that are gone, and keep nothing any more.
    pub lost_roots: Vec<PathBuf>,
    /// Other processes that use the store now.
    pub running: usize,
}

/// What removing an object frees, and its last use.
struct Row {
    size: u64,
    used: i64,
}

impl Store {
    /// Removes results and objects that nothing needs.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed until then stays removed, and the store is whole.
    pub fn collect(&self, limits: &Limits) -> Result<Collected, StoreError> {
        // One collector at a time.
        let path = self.dir.join("locks/gc");
        let file = File::options().create(true).append(true).open(&path).on_file("make", &path)?;
        file.lock().on_file("lock", &path)?;
        if !limits.dry_run {
            remove_if_there(&self.dir.join("reserve"))?;
        }
        let collected = self.collect_alone(limits);
        hold_reserve(&self.dir);
        collected
    }

    /// Does the work of [`Store::collect`], while no other collector does.
    fn collect_alone(&self, limits: &Limits) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        self.change(|index| rolls::note_uses(index))?;
        let age = limits.older_than.map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        // A process that begins after this is younger than anything that is removed.
        let began = now();
        let (oldest, running) = self.oldest_process()?;
        collected.running = running;
        let cutoff = oldest.min(began).saturating_sub(age);
        let mut rooted: BTreeSet<ActionDigest> = BTreeSet::new();
        for root in self.roots()? {
            // A medium that is not mounted now is lost as well: the next build makes it again.
            if root.path.exists() {
                collected.roots.push(root.path);
                rooted.extend(root.actions);
            } else {
                collected.lost_roots.push(root.path);
            }
        }
        let mut objects = self.all_objects()?;
        let total: u64 = objects.values().map(|row| row.size).sum();
        let mut to_free = limits.max_size.map_or(u64::MAX, |size| total.saturating_sub(size));
        let live = self.collect_actions(limits, cutoff, &rooted, to_free, &mut collected)?;
        let needed = self.needed_by(&live)?;
        // Compositions first: they free nothing, and would be left without their pieces.
        let mut dead: Vec<(bool, i64, BlobDigest, u64)> = objects
            .iter()
            .filter(|(digest, row)| !needed.contains(*digest) && row.used < cutoff)
            .map(|(digest, row)| (row.size > 0, row.used, *digest, row.size))
            .collect();
        dead.sort_unstable();
        let mut wanted = Vec::new();
        for (_, _, digest, size) in dead {
            if to_free == 0 {
                break;
            }
            to_free = to_free.saturating_sub(size);
            wanted.push(digest);
        }
        for batch in wanted.chunks(BATCH) {
            let gone: Vec<BlobDigest> =
                if limits.dry_run { batch.to_vec() } else { self.remove_unused(batch, cutoff)? };
            for digest in gone {
                let Some(row) = objects.remove(&digest) else { continue };
                collected.objects += 1;
                collected.bytes += row.size;
            }
        }
        let (checkouts, bytes) = self.collect_checkouts(cutoff, limits.dry_run)?;
        collected.checkouts = checkouts;
        collected.bytes += bytes;
        collected.kept_objects = objects.len();
        collected.kept_bytes = objects.values().map(|row| row.size).sum();
        if !limits.dry_run {
            self.remove_strays(cutoff)?;
            self.remove_leavings(&live, cutoff)?;
            self.remove_lost_runs()?;
            self.remove_lost_chunks(&needed, cutoff)?;
            for root in &collected.lost_roots {
                let key = std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str()).to_vec();
                self.index(|index| {
                    index.execute("DELETE FROM roots WHERE path = ?1", params![key]).map(drop)
                })?;
            }
        }
        Ok(collected)
    }

    /// Returns when the oldest process that uses the store began, and how many others there are.
    fn oldest_process(&self) -> Result<(i64, usize), StoreError> {
        let scratch = self.dir.join("scratch");
        let (mut oldest, mut running) = (i64::MAX, 0);
        for entry in fs::read_dir(&scratch).on_file("list", &scratch)? {
            let path = entry.on_file("list", &scratch)?.path();
            let is_lock = path.extension().is_some_and(|extension| extension == "lock");
            if !is_lock || path.with_extension("") == self.scratch {
                continue;
            }
            // One that goes away now has ended.
            let Ok(file) = File::open(&path) else { continue };
            if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                continue;
            }
            let began = file.metadata().and_then(|found| found.modified()).on_file("read", &path)?;
            let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
            oldest = oldest.min(i64::try_from(began.as_millis()).unwrap_or(i64::MAX));
            running += 1;
        }
        Ok((oldest, running))
    }

    fn all_objects(&self) -> Result<BTreeMap<BlobDigest, Row>, StoreError> {
        let rows: Vec<(Vec<u8>, i64, Option<i64>)> = self.index(|index| {
            // The bytes of a composition are those of its pieces.
            let mut query = index.prepare(
                "SELECT objects.digest, CASE WHEN pieces IS NULL THEN size ELSE 0 END, time
                 FROM objects LEFT JOIN compositions USING (digest) LEFT JOIN uses USING (digest)",
            )?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })?;
        let row = |(digest, size, used): (Vec<u8>, i64, Option<i64>)| {
            let digest =
                BlobDigest::from_slice(&digest).ok_or_else(|| StoreError::Row("an object".to_owned()))?;
            Ok((digest, Row { size: size as u64, used: used.unwrap_or(0) }))
        };
        rows.into_iter().map(row).collect()
    }

    /// Removes results that neither a root nor a late use keeps, the longest unused first; returns those that stay.
    fn collect_actions(
        &self,
        limits: &Limits,
        cutoff: i64,
        rooted: &BTreeSet<ActionDigest>,
        to_free: u64,
        collected: &mut Collected,
    ) -> Result<BTreeMap<ActionDigest, ActionResult>, StoreError> {
        let mut live = self.all_actions()?;
        let mut unused: Vec<(i64, ActionDigest)> = live
            .iter()
            .filter(|(digest, (_, used))| !rooted.contains(*digest) && *used < cutoff)
            .map(|(digest, (_, used))| (*used, *digest))
            .collect();
        unused.sort_unstable();
        let mut freed = 0;
        let mut dead = Vec::new();
        for (_, digest) in unused {
            if freed >= to_free {
                break;
            }
            // What only this one needs cannot be told cheaply; its own outputs are near enough to order by.
            freed = freed.saturating_add(live.get(&digest).map_or(0, |(result, _)| self.own_bytes(result)));
            dead.push(digest);
        }
        for digest in &dead {
            let is_gone = limits.dry_run
                || self.change(|index| {
                    // Used since it was looked at: then it stays.
                    rolls::note_uses(index)?;
                    let used = last_use(index, digest.as_bytes())?;
                    if used.is_some_and(|used| used >= cutoff) {
                        return Ok(false);
                    }
                    index.execute("DELETE FROM actions WHERE digest = ?1", params![digest.as_bytes()])?;
                    index.execute("DELETE FROM uses WHERE digest = ?1", params![digest.as_bytes()])?;
                    index.execute("DELETE FROM owners WHERE action = ?1", params![digest.as_bytes()])?;
                    Ok(true)
                })?;
            if is_gone {
                live.remove(digest);
                collected.actions += 1;
            }
        }
        if !limits.dry_run {
            // Those that came or were found meanwhile.
            live = self.all_actions()?;
        }
        Ok(live.into_iter().map(|(digest, (result, _))| (digest, result)).collect())
    }

    fn own_bytes(&self, result: &ActionResult) -> u64 {
        let size =
            |digest: &BlobDigest| fs::metadata(self.object_path(digest)).map_or(0, |found| found.len());
        let of_output = |object: &Object| match object {
            Object::Blob(blob) => blob.size,
            Object::Tree(tree) => size(&tree.encoding()),
        };
        result.outputs.values().map(|output| of_output(&output.object)).sum()
    }

    /// Returns all objects that these results need.
    fn needed_by(
        &self,
        actions: &BTreeMap<ActionDigest, ActionResult>,
    ) -> Result<BTreeSet<BlobDigest>, StoreError> {
        let mut needed = BTreeSet::new();
        for result in actions.values() {
            needed.extend(self.objects_of(result)?);
        }
        Ok(needed)
    }

    /// Removes objects that were not used since `cutoff`; returns those that went.
    fn remove_unused(&self, objects: &[BlobDigest], cutoff: i64) -> Result<Vec<BlobDigest>, StoreError> {
        let mut failure = None;
        let gone = self.change(|index| {
            let mut gone = Vec::new();
            rolls::note_uses(index)?;
            for digest in objects {
                let key = digest.as_bytes();
                if last_use(index, key)?.is_some_and(|used| used >= cutoff) {
                    continue;
                }
                if let Err(error) = remove_if_there(&self.object_path(digest)) {
                    failure = Some(error);
                    break;
                }
                for table in ["objects", "compositions", "uses"] {
                    index.execute(&format!("DELETE FROM {table} WHERE digest = ?1"), params![key])?;
                }
                gone.push(*digest);
            }
            Ok(gone)
        })?;
        failure.map_or(Ok(gone), Err)
    }

    /// Removes files among the objects that the index does not know: their process died before it entered them.
    fn remove_strays(&self, cutoff: i64) -> Result<(), StoreError> {
        for (digest, path) in object_files(&self.dir)? {
            // What has no object's name is somebody else's.
            let Some(digest) = digest else { continue };
            let modified = fs::metadata(&path).and_then(|found| found.modified());
            let Ok(modified) = modified else { continue };
            let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            if i64::try_from(modified.as_millis()).unwrap_or(i64::MAX) >= cutoff {
                continue;
            }
            let mut failure = None;
            self.change(|index| {
                let known = index
                    .prepare_cached("SELECT 1 FROM objects WHERE digest = ?1")?
                    .exists(params![digest.as_bytes()])?;
                if !known {
                    failure = remove_if_there(&path).err();
                }
                Ok(())
            })?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes what is known of objects elsewhere that nothing needs, and as what objects travel that are nowhere.
    fn remove_lost_chunks(&self, needed: &BTreeSet<BlobDigest>, cutoff: i64) -> Result<(), StoreError> {
        let seen: Vec<Vec<u8>> = self.index(|index| {
            let mut query = index.prepare("SELECT digest FROM elsewhere WHERE seen < ?1")?;
            query.query_map(params![cutoff], |row| row.get(0))?.collect()
        })?;
        let of_nobody = |digest: &BlobDigest| !needed.contains(digest);
        let lost: Vec<_> =
            seen.iter().filter_map(|row| BlobDigest::from_slice(row)).filter(of_nobody).collect();
        self.forget_elsewhere(&lost)?;
        let nowhere = "digest NOT IN (SELECT digest FROM objects UNION SELECT digest FROM elsewhere)";
        self.change(|index| index.execute(&format!("DELETE FROM chunks WHERE {nowhere}"), []).map(drop))
    }

    /// Removes locks and logs of actions that are no more, and what is known of files that are gone.
    fn remove_leavings(
        &self,
        live: &BTreeMap<ActionDigest, ActionResult>,
        cutoff: i64,
    ) -> Result<(), StoreError> {
        for name in ["locks", "logs"] {
            let folder = self.dir.join(name);
            for entry in fs::read_dir(&folder).on_file("list", &folder)? {
                let path = entry.on_file("list", &folder)?.path();
                let stem =
                    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                let Ok(action) = stem.parse::<ActionDigest>() else { continue };
                let old = fs::metadata(&path).and_then(|found| found.modified()).is_ok_and(|modified| {
                    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                    i64::try_from(modified.as_millis()).is_ok_and(|modified| modified < cutoff)
                });
                let free = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
                if old && !live.contains_key(&action) && (name == "logs" || free()) {
                    remove_if_there(&path)?;
                }
            }
        }
        let paths: Vec<Vec<u8>> = self.index(|index| {
            let mut query = index.prepare("SELECT path FROM files")?;
            query.query_map([], |row| row.get(0))?.collect()
        })?;
        for path in paths {
            let name = std::os::unix::ffi::OsStrExt::from_bytes(&path);
            if !Path::new::<std::ffi::OsStr>(name).exists() {
                self.index(|index| {
                    index.execute("DELETE FROM files WHERE path = ?1", params![path]).map(drop)
                })?;
            }
        }
        self.index(|index| index.execute_batch("DELETE FROM uses WHERE digest NOT IN (SELECT digest FROM objects UNION SELECT digest FROM actions)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, result, tick};

    #[test]
    fn what_a_root_needs_stays_until_the_root_goes() {
        let dir = Folder::new();
        let (kept, lost) = {
            let store = dir.store();
            let (kept, lost) = (result(&store, "kept"), result(&store, "lost"));
            fs::create_dir(dir.path().join("out")).unwrap();
            store.set_root(&dir.path().join("out"), "spec", &[kept.0]).unwrap();
            (kept, lost)
        };
        tick();
        let store = dir.store();
        let planned = store.collect(&Limits { dry_run: true, ..Limits::default() }).unwrap();
        assert_eq!((planned.actions, planned.objects, planned.bytes), (1, 1, 4));
        assert!(store.contains(&lost.2.digest).unwrap(), "a dry run removes nothing");
        let done = store.collect(&Limits::default()).unwrap();
        assert_eq!((done.actions, done.objects, done.kept_objects), (1, 1, 1));
        assert!(store.contains(&kept.2.digest).unwrap() && !store.object_path(&lost.2.digest).exists());
        fs::remove_dir(dir.path().join("out")).unwrap();
        tick();
        let done = store.collect(&Limits::default()).unwrap();
        assert_eq!(done.lost_roots.len(), 1);
        assert!(!store.contains(&kept.2.digest).unwrap());
        assert!(store.roots().unwrap().is_empty());
    }

    #[test]
    fn what_a_running_process_used_stays() {
        let dir = Folder::new();
        let early = {
            let store = dir.store();
            result(&store, "early")
        };
        tick();
        let running = dir.store();
        tick();
        let fresh = running.put(b"fresh").unwrap();
        assert!(running.action(&early.0).unwrap().is_some(), "found, and relied on");
        let collector = dir.store();
        tick();
        let done = collector.collect(&Limits::default()).unwrap();
        assert_eq!((done.objects, done.running), (0, 1));
        drop(running);
        tick();
        let done = collector.collect(&Limits::default()).unwrap();
        assert_eq!((done.objects, done.running), (2, 0));
        assert!(!collector.contains(&fresh.digest).unwrap());
    }

    #[test]
    fn limits_of_age_and_size_keep_what_was_used_last() {
        let dir = Folder::new();
        let all: Vec<_> = {
            let store = dir.store();
            ["one", "two", "six"]
                .map(|name| {
                    tick();
                    result(&store, name)
                })
                .into()
        };
        tick();
        let store = dir.store();
        let hour = Limits { older_than: Some(Duration::from_secs(3600)), ..Limits::default() };
        assert_eq!(store.collect(&hour).unwrap().objects, 0);
        let size = Limits { max_size: Some(6), ..Limits::default() };
        let done = store.collect(&size).unwrap();
        assert_eq!((done.objects, done.kept_bytes), (1, 6));
        assert!(!store.contains(&all[0].2.digest).unwrap() && store.contains(&all[2].2.digest).unwrap());
    }

    #[test]
    fn strays_and_what_belongs_to_nothing_go() {
        let dir = Folder::new();
        let store = dir.store();
        fs::create_dir_all(store.dir().join("objects/ab")).unwrap();
        let stray = store.object_path(&crate::BlobDigest::of(b"half"));
        fs::create_dir_all(stray.parent().unwrap()).unwrap();
        fs::write(&stray, "half").unwrap();
        let somebodys = store.dir().join("objects/ab/cdef");
        fs::write(&somebodys, "mine").unwrap();
        let log = store.log_path(&ActionDigest::of_encoding(b"gone"));
        fs::write(&log, "x").unwrap();
        tick();
        store.collect(&Limits::default()).unwrap();
        assert!(!stray.exists() && !log.exists() && somebodys.exists());
    }
}
