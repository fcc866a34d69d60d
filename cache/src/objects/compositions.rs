//! Compositions: objects made of pieces of other objects, whose bytes are not kept a second time.
//!
//! An ISO holds a squashfs, and so does an initrd that carries one. A row of the index says which pieces of which objects
//! give such an object, one behind the other; what no other object has (headers, folders, a menu) is an object of its
//! own, the frame. The whole is written out where a path is asked for: once in a process, to its scratch folder, and the
//! bytes are hashed like those of any object.
//!
//! A composition counts only while all its pieces are there; they are used where it is used, and kept as long.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, params};

use super::files::remove_if_there;
use super::pieces::{Piece, decode, encode};
use super::whole::Whole;
use super::write::{enter_row, take};
use super::{BUFFER, Blob, BlobWriter, Objects, StoreError};
use crate::digest::{BlobDigest, BlobHasher};
use crate::file::{FileError, OnFile};
use crate::index::lock;

/// What a composition is made of, in order.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Bytes that no other object has.
    Own(&'a [u8]),
    /// All of an object.
    Object(Blob),
}

/// Where a file has all the bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// The object.
    pub blob: Blob,
}

/// A composition being put together: what is its own goes into the frame.
struct Composer<'a> {
    frame: BlobWriter<'a>,
    own: u64,
    hasher: BlobHasher,
    /// Pieces in order; those of the frame have no object yet.
    pieces: Vec<(Option<BlobDigest>, u64, u64)>,
}

impl<'a> Composer<'a> {
    fn new(store: &'a Objects) -> Result<Self, StoreError> {
        Ok(Self { frame: store.writer()?, own: 0, hasher: BlobHasher::default(), pieces: Vec::new() })
    }

    fn own(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.frame.write_all(bytes).on_file("write", &self.frame.path)?;
        let length = bytes.len() as u64;
        match self.pieces.last_mut() {
            Some((None, _, so_far)) => *so_far += length,
            _ => self.pieces.push((None, self.own, length)),
        }
        self.own += length;
        Ok(())
    }

    /// Enters the composition in the index, with a use of it; those of its pieces are noted. Tells as well whether it is
    /// one: what lies in the store as a file needs no pieces.
    fn commit(self, store: &Objects) -> Result<(Blob, bool), StoreError> {
        let frame = self.frame.commit()?.digest;
        let piece = |(object, start, length): (Option<BlobDigest>, u64, u64)| Piece {
            object: object.unwrap_or(frame),
            start,
            length,
        };
        let pieces: Vec<Piece> =
            self.pieces.into_iter().map(piece).filter(|piece| piece.length > 0).collect();
        let blob = Blob::hashed(&self.hasher);
        let Blob { digest, size } = blob;
        let path = store.object_path(&digest);
        let mut failure = None;
        let is_composed = store.change(|index| {
            // As for any object: a file of another size is none of it.
            let is_file = fs::metadata(&path).is_ok_and(|found| found.len() == size);
            if !is_file {
                failure = remove_if_there(&path).err();
                index
                    .prepare_cached("INSERT OR REPLACE INTO compositions(digest, pieces) VALUES(?1, ?2)")?
                    .execute(params![digest.as_bytes(), encode(&pieces)])?;
            }
            enter_row(index, &blob)?;
            Ok(!is_file)
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        lock(&store.touched).insert(digest);
        Ok((blob, is_composed))
    }
}

impl Objects {
    /// Stores what `parts` give, one behind the other; the objects among them are not kept a second time.
    ///
    /// # Errors
    /// [`StoreError`]: an object is missing or damaged, or the frame could not be written.
    pub fn compose(&self, parts: &[Part<'_>]) -> Result<Blob, StoreError> {
        let mut composer = Composer::new(self)?;
        for part in parts {
            match part {
                Part::Own(bytes) => composer.own(bytes)?,
                Part::Object(blob) => {
                    let mut file = self.open_object(&blob.digest)?;
                    let mut read = 0;
                    let mut buffer = vec![0; BUFFER];
                    let path = || self.object_path(&blob.digest);
                    loop {
                        self.check_stopped()?;
                        let got = file.read(&mut buffer).on_file("read", path())?;
                        if got == 0 {
                            break;
                        }
                        composer.hasher.update(&buffer[..got]);
                        read += got as u64;
                    }
                    let pieces = match self.pieces(&blob.digest)? {
                        // Pieces are of files: a composition within another one is taken apart.
                        Some(inner) => inner,
                        None => vec![Piece { object: blob.digest, start: 0, length: read }],
                    };
                    composer.pieces.extend(
                        pieces.into_iter().map(|piece| (Some(piece.object), piece.start, piece.length)),
                    );
                }
            }
        }
        composer.commit(self).map(|(blob, _)| blob)
    }

    /// Takes the file at `path` into the store, as [`Objects::adopt`] does, but keeps no second time what it has of other
    /// objects. The file becomes the whole that [`Objects::verified`] gives in this process.
    ///
    /// # Errors
    /// [`StoreError::File`], and [`StoreError::NotHeld`] where the file has other bytes than the object where that is said
    /// to be.
    pub fn adopt_composed(&self, path: &Path, held: &[Held]) -> Result<Blob, StoreError> {
        let mut held = held.to_vec();
        held.sort_by_key(|held| held.at);
        let failed = |source| FileError { what: "read", path: path.to_owned(), source };
        // The disk is busy with it while it is hashed.
        let mut whole = Whole::new(path.to_owned())?;
        let mut file = File::open(path).map_err(failed)?;
        take(&file, path)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut composer = Composer::new(self)?;
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        let mut read = |length: u64, each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>| {
            let mut left = length;
            while left > 0 {
                let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                file.read_exact(&mut buffer[..wanted]).map_err(failed)?;
                each(&buffer[..wanted])?;
                left -= wanted as u64;
            }
            Ok::<(), StoreError>(())
        };
        for Held { at: start, blob } in held {
            // What lies in another one's bytes, or is no file of the store, is taken for the file's own.
            self.touch(&blob.digest)?;
            if start < at || !self.contains(&blob.digest)? || !self.object_path(&blob.digest).exists() {
                continue;
            }
            read(start - at, &mut |bytes| composer.own(bytes))?;
            let mut check = BlobHasher::default();
            read(blob.size, &mut |bytes| {
                composer.hasher.update(bytes);
                check.update(bytes);
                Ok(())
            })?;
            if check.finish() != blob.digest {
                return Err(StoreError::NotHeld { path: path.to_owned(), at: start, object: blob.digest });
            }
            composer.pieces.push((Some(blob.digest), 0, blob.size));
            at = start + blob.size;
        }
        read(size.saturating_sub(at), &mut |bytes| composer.own(bytes))?;
        let (blob, is_composed) = composer.commit(self)?;
        if !is_composed {
            fs::remove_file(path).on_file("remove", path)?;
            return Ok(blob);
        }
        whole.rename(self.scratch_name("whole"))?;
        lock(&self.wholes).insert(blob.digest, whole);
        lock(&self.verified).insert(blob.digest);
        Ok(blob)
    }

    /// Returns the pieces of a composition; `None` for an object that is none, and where nobody can read its row: then it
    /// is made again.
    pub(crate) fn pieces(&self, digest: &BlobDigest) -> Result<Option<Vec<Piece>>, StoreError> {
        let row: Option<Vec<u8>> = self.index(|index| {
            index
                .prepare_cached("SELECT pieces FROM compositions WHERE digest = ?1")?
                .query_row(params![digest.as_bytes()], |row| row.get(0))
                .optional()
        })?;
        Ok(row.as_deref().and_then(decode))
    }

    /// Tells whether an object without a file of its own is a composition all of whose pieces are there.
    pub(crate) fn is_composed(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        let Some(pieces) = self.pieces(digest)? else { return Ok(false) };
        for piece in &pieces {
            if !self.is_file(&piece.object)? && !self.is_elsewhere(&piece.object)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns a path at which the bytes of an object can be read, as they are; a composition is written out first, and
    /// what is elsewhere fetched. For who compares what is read with the digest.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or the whole could not be written.
    pub fn located(&self, digest: &BlobDigest) -> Result<PathBuf, StoreError> {
        let path = self.object_path(digest);
        if path.exists() {
            return Ok(path);
        }
        let Some(pieces) = self.pieces(digest)? else {
            return if self.bring(digest)? { Ok(path) } else { Err(StoreError::Missing(*digest)) };
        };
        // Before the lock is taken: meanwhile others may want other wholes.
        for piece in &pieces {
            self.bring(&piece.object)?;
        }
        // Asked for by two at once, it is written once.
        let mut wholes = lock(&self.wholes);
        if let Some(known) = wholes.get(digest).filter(|whole| whole.path.exists()) {
            return Ok(known.path.clone());
        }
        self.touch(digest)?;
        // What was hashed before was another file.
        lock(&self.verified).remove(digest);
        let whole = self.scratch_name("whole");
        let written = self.write_out(&pieces, &whole);
        if !matches!(written, Ok(None)) {
            remove_if_there(&whole)?;
        }
        if let Some(cut_off) = written? {
            drop(wholes);
            self.verified_again(&cut_off)?;
            // The piece is what it should be: then the row is not.
            self.remove(digest)?;
            self.contradicted(digest)?;
            return Err(StoreError::Damaged(*digest));
        }
        wholes.insert(*digest, Whole::new(whole.clone())?);
        Ok(whole)
    }

    /// Writes a composition out in one pass: within the kernel, and by reference where the file system can. Returns the
    /// first object that is shorter than its piece.
    fn write_out(&self, pieces: &[Piece], whole: &Path) -> Result<Option<BlobDigest>, StoreError> {
        let mut out = File::create_new(whole).on_file("make", whole)?;
        for Piece { object, start, length } in pieces {
            let path = self.object_path(object);
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StoreError::Missing(*object));
                }
                opened => opened.on_file("open", &path)?,
            };
            file.seek(SeekFrom::Start(*start)).on_file("read", &path)?;
            if self.copy(file, &mut out, whole, *length)? != *length {
                return Ok(Some(*object));
            }
        }
        Ok(None)
    }

    /// Hashes the bytes that the pieces give, without writing them out.
    pub(crate) fn composed_digest(&self, pieces: &[Piece]) -> io::Result<BlobDigest> {
        let mut hasher = BlobHasher::default();
        let mut buffer = vec![0; BUFFER];
        for Piece { object, start, length } in pieces {
            let mut file = File::open(self.object_path(object))?;
            file.seek(SeekFrom::Start(*start))?;
            let mut piece = file.take(*length);
            loop {
                let read = piece.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
            }
        }
        Ok(hasher.finish())
    }

    /// Finds out why a composition has other bytes than its name says, and takes out what is damaged.
    pub(super) fn remove_composed(&self, digest: &BlobDigest) -> Result<StoreError, StoreError> {
        if let Some(whole) = lock(&self.wholes).remove(digest) {
            fs::remove_file(&whole.path).on_file("remove", &whole.path)?;
        }
        for piece in self.pieces(digest)?.unwrap_or_default() {
            if let Err(error) = self.verified_again(&piece.object) {
                return Ok(error);
            }
        }
        // All pieces are what they should be: then the row is not.
        self.remove(digest)?;
        self.contradicted(digest)?;
        Ok(StoreError::Damaged(*digest))
    }

    /// Waits until the file that a composition was written out to is on the disk, and gives it up; it has another name
    /// now, and stays under that.
    ///
    /// # Errors
    /// [`StoreError::File`]: it could not be brought to the disk, or not be removed.
    pub fn release(&self, digest: &BlobDigest) -> Result<(), StoreError> {
        let Some(Whole { path, sync }) = lock(&self.wholes).remove(digest) else { return Ok(()) };
        let synced = sync.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs it failed")));
        synced.on_file("sync", &path)?;
        Ok(fs::remove_file(&path).on_file("remove", &path)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::actions::{ActionResult, Output};
    use crate::collect::Limits;
    use crate::digest::ActionDigest;
    use crate::store::Store;
    use crate::testing::{Folder, damage, tick};
    use crate::verify::Damage;

    struct World {
        dir: Folder,
        store: Store,
        image: Blob,
    }

    const IMAGE: &[u8] = b"a squashfs";

    fn world() -> World {
        let dir = Folder::new();
        let store = dir.store();
        let image = store.put(IMAGE).unwrap();
        World { dir, store, image }
    }

    impl World {
        /// head, the image, tail.
        fn composed(&self) -> Blob {
            self.store
                .compose(&[Part::Own(b"he"), Part::Own(b"ad"), Part::Object(self.image), Part::Own(b"tail")])
                .unwrap()
        }

        fn adopt(&self, bytes: &[u8], held: &[Held]) -> Result<Blob, StoreError> {
            let work = self.store.work_dir().unwrap();
            fs::write(work.path().join("file"), bytes).unwrap();
            self.store.adopt_composed(&work.path().join("file"), held)
        }

        fn bytes_kept(&self) -> u64 {
            self.store.usage().unwrap().all.bytes
        }

        /// The store as another process sees it.
        fn again(&self) -> Store {
            self.dir.store()
        }
    }

    const WHOLE: &[u8] = b"heada squashfstail";

    #[test]
    fn a_composition_reads_like_any_object_and_keeps_its_own_bytes_alone() {
        let world = world();
        let blob = world.composed();
        assert_eq!(blob, Blob { digest: BlobDigest::of(WHOLE), size: WHOLE.len() as u64 });
        let plain = Objects::open(&world.dir.path().join("other")).unwrap();
        plain.put(WHOLE).unwrap();
        assert_eq!(world.store.sha256(&blob.digest).unwrap(), plain.sha256(&blob.digest).unwrap());
        assert_eq!(world.bytes_kept(), (IMAGE.len() + "headtail".len()) as u64);
        assert!(!world.store.object_path(&blob.digest).exists());
        assert!(world.store.contains(&blob.digest).unwrap());
        let other = world.again();
        assert_eq!(other.read(&blob.digest).unwrap(), WHOLE);
        let path = other.verified(&blob.digest).unwrap();
        assert_eq!(fs::read(&path).unwrap(), WHOLE);
        assert_eq!(other.verified(&blob.digest).unwrap(), path, "written out once");
        other.release(&blob.digest).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read(other.verified(&blob.digest).unwrap()).unwrap(), WHOLE);
    }

    #[test]
    fn a_file_that_holds_objects_is_taken_in_without_them() {
        let world = world();
        let held = Held { at: 4, blob: world.image };
        // Within another one's bytes, and of an object that is not there.
        let inner = Held { at: 6, blob: world.store.put(b"squash").unwrap() };
        let unknown = Held { at: 14, blob: Blob { digest: BlobDigest::of(b"tail"), size: 4 } };
        let before = world.bytes_kept();
        let blob = world.adopt(WHOLE, &[unknown, inner, held]).unwrap();
        assert_eq!(blob.digest, BlobDigest::of(WHOLE));
        assert_eq!(world.bytes_kept() - before, "headtail".len() as u64);
        assert_eq!(world.again().read(&blob.digest).unwrap(), WHOLE);
        assert_eq!(world.composed(), blob, "the same, whichever way it is made");
    }

    #[test]
    fn a_file_that_does_not_hold_what_is_said_is_refused() {
        let world = world();
        let held = Held { at: 3, blob: world.image };
        let error = world.adopt(WHOLE, &[held]).unwrap_err();
        assert!(matches!(error, StoreError::NotHeld { at: 3, .. }), "{error}");
        assert!(!world.store.contains(&BlobDigest::of(WHOLE)).unwrap());
    }

    #[test]
    fn a_composition_within_another_one_is_taken_apart() {
        let world = world();
        let inner = world.composed();
        let outer = world.store.compose(&[Part::Own(b"<"), Part::Object(inner), Part::Own(b">")]).unwrap();
        damage(&world.store, &world.image.digest, b"b squashfs");
        assert!(
            matches!(world.again().read(&outer.digest), Err(StoreError::Damaged(digest)) if digest == world.image.digest)
        );
        world.store.put(IMAGE).unwrap();
        assert_eq!(world.again().read(&outer.digest).unwrap(), [b"<", WHOLE, b">"].concat());
    }

    #[test]
    fn a_damaged_piece_is_taken_out_and_the_composition_counts_again_when_it_is_back() {
        for damaged in [b"b squashfs".as_slice(), b"cut"] {
            let world = world();
            let blob = world.composed();
            damage(&world.store, &world.image.digest, damaged);
            let other = world.again();
            let error = other.verified(&blob.digest).unwrap_err();
            assert!(matches!(error, StoreError::Damaged(digest) if digest == world.image.digest), "{error}");
            assert!(!other.contains(&blob.digest).unwrap());
            assert!(matches!(other.verified(&blob.digest), Err(StoreError::Missing(_))));
            other.put(IMAGE).unwrap();
            assert!(other.contains(&blob.digest).unwrap());
            assert_eq!(other.read(&blob.digest).unwrap(), WHOLE);
        }
    }

    #[test]
    fn a_row_that_is_wrong_is_found_and_dropped() {
        let world = world();
        let blob = world.composed();
        assert_eq!(world.store.verify(false, &|_| ()).unwrap().damages, []);
        let pieces = encode(&[Piece { object: world.image.digest, start: 0, length: 3 }]);
        let set = |pieces: &[u8]| {
            let change = "UPDATE compositions SET pieces = ?1";
            world.store.index(|index| index.execute(change, params![pieces])).unwrap();
        };
        set(&pieces);
        let error = world.again().verified(&blob.digest).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(digest) if digest == blob.digest), "{error}");
        assert!(!world.store.contains(&blob.digest).unwrap());

        let blob = world.composed();
        set(&pieces);
        assert_eq!(world.store.verify(true, &|_| ()).unwrap().damages, [Damage::Bytes(blob.digest)]);
        assert!(!world.store.contains(&blob.digest).unwrap());

        let blob = world.composed();
        set(b"short");
        assert!(!world.again().contains(&blob.digest).unwrap());
        assert_eq!(world.store.verify(true, &|_| ()).unwrap().damages, [Damage::Missing(blob.digest)]);
        assert_eq!(world.composed(), blob);
        assert_eq!(world.again().read(&blob.digest).unwrap(), WHOLE);
    }

    #[test]
    fn verify_tells_of_what_a_composition_lacks() {
        let world = world();
        let blob = world.composed();
        fs::remove_file(world.store.object_path(&world.image.digest)).unwrap();
        let damages = world.store.verify(true, &|_| ()).unwrap().damages;
        let missing = |digest| damages.contains(&Damage::Missing(digest));
        assert!(missing(world.image.digest) && missing(blob.digest), "{damages:?}");
        assert_eq!(world.store.verify(false, &|_| ()).unwrap().damages, []);
    }

    #[test]
    fn a_repair_leaves_nothing_of_a_composition_whose_piece_is_damaged() {
        let world = world();
        let blob = world.composed();
        damage(&world.store, &world.image.digest, b"b squashfs");
        let store = world.again();
        let damages = store.verify(true, &|_| ()).unwrap().damages;
        let damaged = |digest| damages.contains(&Damage::Bytes(digest));
        assert!(damaged(world.image.digest) && damaged(blob.digest), "{damages:?}");
        assert_eq!(store.verify(false, &|_| ()).unwrap().damages, []);
    }

    #[test]
    fn what_is_stored_as_a_file_needs_no_pieces() {
        let world = world();
        let blob = world.composed();
        world.store.put(WHOLE).unwrap();
        assert!(world.store.pieces(&blob.digest).unwrap().is_none());
        world.composed();
        assert!(world.store.pieces(&blob.digest).unwrap().is_none());
        assert!(world.store.object_path(&blob.digest).exists());
    }

    #[test]
    fn a_file_of_another_size_under_the_same_name_gives_way() {
        let world = world();
        let blob = world.store.put(WHOLE).unwrap();
        damage(&world.store, &blob.digest, b"cut off");
        assert!(!world.store.contains(&blob.digest).unwrap());
        let held = Held { at: 4, blob: world.image };
        assert_eq!(world.adopt(WHOLE, &[held]).unwrap(), blob);
        assert!(!world.store.object_path(&blob.digest).exists());
        assert_eq!(world.again().read(&blob.digest).unwrap(), WHOLE);
    }

    #[test]
    fn what_is_written_out_again_is_hashed_again() {
        let world = world();
        let blob = world.composed();
        world.store.verified(&blob.digest).unwrap();
        world.store.release(&blob.digest).unwrap();
        damage(&world.store, &world.image.digest, b"b squashfs");
        assert!(matches!(world.store.verified(&blob.digest), Err(StoreError::Damaged(_))));
        let left = fs::read_dir(&world.store.scratch).unwrap().count();
        assert_eq!(left, 0, "nothing stays of what was damaged");
    }

    #[test]
    fn with_a_limit_of_size_a_composition_goes_before_its_pieces() {
        let world = world();
        world.composed();
        let World { dir, store, .. } = world;
        drop(store);
        tick();
        let store = dir.store();
        store.collect(&Limits { max_size: Some(IMAGE.len() as u64), ..Limits::default() }).unwrap();
        assert_eq!(store.verify(false, &|_| ()).unwrap().damages, []);
    }

    #[test]
    fn the_collector_keeps_the_pieces_of_what_a_root_or_a_process_needs() {
        let world = world();
        let blob = world.composed();
        let action = ActionDigest::of_encoding(b"iso");
        let outputs = BTreeMap::from([("iso".to_owned(), Output::from(blob))]).into();
        world.store.set_action(&action, &ActionResult { outputs, ..ActionResult::default() }).unwrap();
        let out = world.dir.path().join("out");
        fs::create_dir(&out).unwrap();
        world.store.set_root(&out, "spec", &[action]).unwrap();
        let World { dir, store, image } = world;
        drop(store);
        let open = || dir.store();
        tick();
        assert_eq!(open().collect(&Limits::default()).unwrap().objects, 0);
        fs::remove_dir(&out).unwrap();

        // The root is gone, but a process read it.
        let running = open();
        tick();
        running.verified(&blob.digest).unwrap();
        tick();
        let collector = open();
        collector.collect(&Limits::default()).unwrap();
        assert!(collector.contains(&blob.digest).unwrap() && collector.contains(&image.digest).unwrap());
        drop(running);
        tick();
        let collected = collector.collect(&Limits::default()).unwrap();
        assert_eq!(collected.objects, 3, "the composition, its frame and the image");
        assert_eq!(collected.bytes, (IMAGE.len() + "headtail".len()) as u64);
        assert_eq!(collector.usage().unwrap().all.objects, 0);
    }
}
