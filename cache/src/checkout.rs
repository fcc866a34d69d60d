//! Checkouts: trees laid out as folders, for programs that run from them.
//!
//! ```text
//! <store>/checkouts/<tree>/        what the tree has, as the owner of the store: files 0644 or 0755, folders 0755, times as the tree's
//! <store>/checkouts/<tree>.lock    held while the folder is made or looked at
//! ```
//! A checkout is made once and found again by its name. It is compared with the tree's digests when it is made, and again after a
//! restart of the machine, which may have lost some of it; in between, one look at its stat data tells whether anybody changed it. What
//! is damaged or gone is made again. The collector removes those that no process uses.
//!
//! Owners, extended attributes, set-user-id bits, devices, pipes and sockets of the tree are left out: programs in a sandbox need none
//! of them, and no user but root could make them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::digest::{BlobDigest, BlobHasher, TreeDigest};
use crate::file::{self, FileError, OnFile};
use crate::index::last_use;
use crate::look::Look;
use crate::name::RelPath;
use crate::objects::{Objects, StoreError, remove_all};
use crate::source::RootTree;
use crate::store::Store;
use crate::tree::{Entry, Inode, Meta, Node};

/// The folder of all checkouts.
const FOLDER: &str = "checkouts";

/// Bytes that are copied at once.
const BUFFER: usize = 256 << 10;

/// Changes with each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A tree laid out as a folder, as it was when it was found to be right.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The folder.
    pub path: PathBuf,
    /// The hash of its stat data.
    seen: BlobDigest,
}

impl Checkout {
    /// Tells whether nobody has changed it since, by its stat data.
    pub fn is_as_it_was(&self) -> bool {
        Look::at(&[&self.path]).is_ok_and(|look| look.digest == self.seen)
    }
}

impl Objects {
    /// Returns a folder with what a tree has, for reading alone; `digest` is the tree's.
    ///
    /// # Errors
    /// [`StoreError`]: the bytes of the tree are missing or damaged, or the folder cannot be made.
    pub fn checkout(&self, tree: &RootTree, digest: &TreeDigest) -> Result<Checkout, StoreError> {
        // Before it is looked for: the collector leaves alone what was used since this process began.
        self.touch(&digest.encoding())?;
        let top = self.dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o755).create(&top).on_file("make", &top)?;
        if !is_folder(&top) {
            return Err(not_a_folder(top));
        }
        let path = top.join(digest.to_string());
        let lock_path = path.with_extension("lock");
        let lock = file::lock_file(&lock_path)?;
        if !self.wait_for(&lock, &lock_path, &|| false)? {
            return Err(StoreError::Stopped);
        }
        // A folder that belongs to another start of the machine was perhaps not written to the end.
        let stamp = |look: &Look| format!("{} {}", boot_id(), look.digest);
        let key = digest.to_string();
        if !is_folder(&path) {
            // Nothing, or what somebody put there.
            if path.symlink_metadata().is_ok() {
                self.discard(&path)?;
            }
        } else if let Ok(look) = Look::at(&[&path]) {
            if self.memo(FOLDER, &key)?.is_some_and(|known| known == stamp(&look)) {
                return Ok(Checkout { path, seen: look.digest });
            }
            if is_laid_out(self, tree, &path)? && Look::at(&[&path]).is_ok_and(|again| again == look) {
                self.set_memo(FOLDER, &key, &stamp(&look))?;
                return Ok(Checkout { path, seen: look.digest });
            }
            self.discard(&path)?;
        }
        let work = self.work_dir()?;
        lay_out(self, tree, work.path())?;
        fs::rename(work.path(), &path).on_file("rename", &path)?;
        let look = Look::at(&[&path]).on_file("look at", &path)?;
        self.set_memo(FOLDER, &key, &stamp(&look))?;
        Ok(Checkout { path, seen: look.digest })
    }

    /// Removes a checkout; whoever still uses it keeps what he has open.
    fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let work = self.work_dir()?;
        let away = work.path().join("checkout");
        fs::rename(path, &away).on_file("move away", path)?;
        let removed = if is_folder(&away) { remove_all(&away) } else { fs::remove_file(&away) };
        Ok(removed.on_file("remove", away)?)
    }
}

impl Store {
    /// Returns every checkout and its folder.
    fn checkouts(&self) -> Result<Vec<(TreeDigest, PathBuf)>, StoreError> {
        let top = self.dir.join(FOLDER);
        if top.symlink_metadata().is_err() {
            return Ok(Vec::new());
        }
        // What a link leads to is not the store's.
        if !is_folder(&top) {
            return Err(not_a_folder(top));
        }
        let entries = fs::read_dir(&top).on_file("list", &top)?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.on_file("list", &top)?.path();
            // What has no checkout's name is somebody else's, or a lock.
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            found.extend(name.parse().ok().map(|digest| (digest, path)));
        }
        found.sort();
        Ok(found)
    }

    /// Returns the number of checkouts, and their bytes.
    pub(crate) fn checkouts_size(&self) -> Result<(usize, u64), StoreError> {
        let checkouts = self.checkouts()?;
        Ok((checkouts.len(), checkouts.iter().map(|(_, path)| file::bytes_below(path)).sum()))
    }

    /// Removes the checkouts that were not used since `cutoff`, or only counts them; returns how many, and their bytes.
    pub(crate) fn collect_checkouts(&self, cutoff: i64, dry_run: bool) -> Result<(usize, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        for (digest, path) in self.checkouts()? {
            let used = self.index(|index| last_use(index, digest.encoding().as_bytes()))?;
            if used.is_some_and(|used| used >= cutoff) {
                continue;
            }
            let lock = file::lock_file(&path.with_extension("lock"))?;
            // Whoever holds it uses it now.
            if lock.try_lock().is_err() {
                continue;
            }
            count += 1;
            bytes += file::bytes_below(&path);
            if !dry_run {
                self.discard(&path)?;
                let _ = fs::remove_file(path.with_extension("lock"));
            }
        }
        Ok((count, bytes))
    }

    /// Returns the checkouts that are not what their trees say. With `repair`, they are removed.
    pub(crate) fn verify_checkouts(&self, repair: bool) -> Result<Vec<TreeDigest>, StoreError> {
        let mut damaged = Vec::new();
        for (digest, path) in self.checkouts()? {
            // Of a tree that is no longer there nobody uses the checkout.
            let Ok(tree) = self.tree_as_it_is(&digest) else { continue };
            let tree = RootTree::of_store(tree);
            let lock = file::lock_file(&path.with_extension("lock"))?;
            lock.lock().on_file("lock", path.with_extension("lock"))?;
            if !is_folder(&path) || !is_laid_out(self, &tree, &path)? {
                damaged.push(digest);
                if repair {
                    self.discard(&path)?;
                }
            }
        }
        Ok(damaged)
    }
}

/// Tells whether there is a folder, and not a link to one.
fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

fn not_a_folder(path: PathBuf) -> StoreError {
    let source = io::Error::other("it is not a folder of the store's; move it away");
    FileError { what: "use", path, source }.into()
}

/// Returns what tells this start of the machine from others.
fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

/// Returns the mode of a file of a checkout: for everybody, run by everybody or nobody.
fn mode(meta: &Meta) -> u32 {
    if meta.mode & 0o111 == 0 { 0o644 } else { 0o755 }
}

fn set_time(path: &Path, meta: &Meta) -> Result<(), StoreError> {
    let time = Timespec { tv_sec: meta.mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from).on_file("date", path)?;
    Ok(())
}

/// Lays a tree out in the empty folder `top`.
fn lay_out(objects: &Objects, root: &RootTree, top: &Path) -> Result<(), StoreError> {
    let (mut folders, mut files, mut links) =
        (vec![(top.to_owned(), root.tree.root())], Vec::new(), Vec::new());
    for (path, entry) in root.tree.entries() {
        let place = path.below(top);
        match entry {
            Entry::Link(first) => links.push((first.below(top), place)),
            Entry::Inode(Inode { meta, node: Node::Dir }) => {
                fs::create_dir(&place).on_file("make", &place)?;
                folders.push((place, meta));
            }
            Entry::Inode(Inode { node: Node::Symlink(target), .. }) => {
                symlink(std::ffi::OsStr::from_bytes(target), &place).on_file("make", &place)?;
            }
            Entry::Inode(Inode { meta, node: Node::File { digest, size } }) => {
                files.push((path, place, meta, *digest, *size));
            }
            Entry::Inode(_) => {}
        }
    }
    let buffer = || vec![0; BUFFER];
    files.par_iter().try_for_each_init(buffer, |buffer, (path, place, meta, digest, size)| {
        let mut reader = root.open_file(objects, path, digest, *size)?;
        let mut file =
            File::options().write(true).create_new(true).mode(0o600).open(place).on_file("make", place)?;
        loop {
            let read = reader.read(buffer).on_file("read", place)?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).on_file("write", place)?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode(meta))).on_file("chmod", place)?;
        set_time(place, meta)
    })?;
    for (first, place) in links {
        // What was left out has no further names.
        if first.symlink_metadata().is_ok() {
            fs::hard_link(&first, &place).on_file("link", &place)?;
        }
    }
    for (place, meta) in folders.iter().rev() {
        fs::set_permissions(place, fs::Permissions::from_mode(0o755)).on_file("chmod", place)?;
        set_time(place, meta)?;
    }
    Ok(())
}

/// Tells whether the folder `top` has what a tree has, byte for byte, and nothing else.
fn is_laid_out(objects: &Objects, root: &RootTree, top: &Path) -> Result<bool, StoreError> {
    let is_right = |(path, inode): &(&RelPath, &Inode)| -> Result<bool, StoreError> {
        let place = path.below(top);
        let Ok(found) = place.symlink_metadata() else { return Ok(false) };
        Ok(match &inode.node {
            Node::Dir => found.is_dir(),
            Node::Symlink(target) => {
                fs::read_link(&place).is_ok_and(|found| found.as_os_str().as_bytes() == target)
            }
            Node::File { digest, size } => {
                objects.check_stopped()?;
                found.is_file()
                    && found.len() == *size
                    && found.permissions().mode() & 0o7777 == mode(&inode.meta)
                    && found.mtime() == inode.meta.mtime
                    && BlobHasher::file(&place).is_ok_and(|hashed: BlobDigest| hashed == *digest)
            }
            _ => true,
        })
    };
    let entries = root.tree.entries().filter_map(|(path, _)| Some((path, root.tree.inode(path)?)));
    let made: Vec<_> = entries.filter(|(_, inode)| is_made(&inode.node)).collect();
    let right =
        made.par_iter().map(is_right).try_fold(|| true, |all, right| Ok::<_, StoreError>(all & right?));
    Ok(right.try_reduce(|| true, |one, other| Ok(one & other))? && count_below(top) == Some(made.len()))
}

/// Tells whether a checkout has such a node.
fn is_made(node: &Node) -> bool {
    matches!(node, Node::Dir | Node::File { .. } | Node::Symlink(_))
}

/// Returns the number of entries below a folder.
fn count_below(folder: &Path) -> Option<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        count += 1;
        if entry.file_type().ok()?.is_dir() {
            count += count_below(&entry.path())?;
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Limits;
    use crate::source::Bytes;
    use crate::testing::{Folder, tick};
    use crate::tree::Tree;

    fn stored(store: &Objects, dir: &Folder) -> (TreeDigest, RootTree) {
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("usr/bin")).unwrap();
        fs::write(top.join("usr/bin/tool"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(top.join("usr/bin/tool"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(top.join("usr/bin/tool"), top.join("usr/bin/other")).unwrap();
        fs::write(top.join("usr/data"), "data").unwrap();
        fs::set_permissions(top.join("usr/data"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("usr/bin", top.join("bin")).unwrap();
        let tree = crate::ingest::directory(store, &top).unwrap();
        let digest = store.put_tree(&tree).unwrap();
        let bytes = store.open_tree(&digest, &Bytes::Directory { path: top }).unwrap().pack(store).unwrap();
        let tree = store.open_tree(&digest, &bytes).unwrap();
        fs::remove_dir_all(dir.path().join("top")).unwrap();
        (digest, tree)
    }

    fn mode_of(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_tree_is_laid_out_once_with_plain_modes_and_its_times() {
        let dir = Folder::new();
        let store = dir.store();
        let (digest, tree) = stored(&store, &dir);
        let path = store.checkout(&tree, &digest).unwrap().path;
        assert_eq!(fs::read(path.join("usr/bin/other")).unwrap(), b"#!/bin/sh\n");
        assert_eq!((mode_of(&path.join("usr/bin/tool")), mode_of(&path.join("usr/data"))), (0o755, 0o644));
        assert_eq!(fs::read_link(path.join("bin")).unwrap(), Path::new("usr/bin"));
        let data = tree.tree.inode(&RelPath::new(b"usr/data").unwrap()).unwrap();
        let modified = path.join("usr/data").metadata().unwrap().modified().unwrap();
        let seconds = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds as i64, data.meta.mtime);
        let made = path.metadata().unwrap().modified().unwrap();
        let mark = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
        let inode = mark(&path);
        assert_eq!(store.checkout(&tree, &digest).unwrap().path, path);
        assert_eq!(
            (mark(&path), path.metadata().unwrap().modified().unwrap()),
            (inode, made),
            "not made twice"
        );
    }

    #[test]
    fn what_was_changed_added_or_removed_in_a_checkout_is_made_again() {
        let dir = Folder::new();
        let store = dir.store();
        let (digest, tree) = stored(&store, &dir);
        let path = store.checkout(&tree, &digest).unwrap().path;
        let mut before = store.checkout(&tree, &digest).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        let changes: [&dyn Fn(); 7] = [
            &|| {
                fs::rename(&path, &elsewhere).unwrap();
                symlink(&elsewhere, &path).unwrap();
            },
            &|| {
                fs::remove_dir_all(&path).unwrap();
                fs::write(&path, "a file").unwrap();
            },
            &|| fs::write(path.join("usr/data"), "DATA").unwrap(),
            &|| fs::write(path.join("usr/more"), "").unwrap(),
            &|| fs::remove_file(path.join("bin")).unwrap(),
            &|| fs::remove_dir_all(&path).unwrap(),
            &|| fs::set_permissions(path.join("usr/data"), fs::Permissions::from_mode(0o777)).unwrap(),
        ];
        for (number, change) in changes.iter().enumerate() {
            change();
            if number != 5 {
                assert_eq!(store.verify_checkouts(false).unwrap(), [digest], "change {number}");
            }
            assert!(!before.is_as_it_was(), "change {number}");
            before = store.checkout(&tree, &digest).unwrap();
            assert!(before.is_as_it_was());
            assert!(is_laid_out(&store, &tree, &path).unwrap(), "change {number}");
            assert!(store.verify_checkouts(false).unwrap().is_empty());
        }
        assert!(elsewhere.join("usr/data").exists(), "what a link led to stays");
        fs::remove_dir_all(store.dir().join(FOLDER)).unwrap();
        symlink(&elsewhere, store.dir().join(FOLDER)).unwrap();
        for error in
            [store.checkout(&tree, &digest).unwrap_err(), store.collect(&Limits::default()).unwrap_err()]
        {
            assert!(error.to_string().contains("checkouts"), "{error}");
        }
    }

    #[test]
    fn the_collector_removes_what_no_process_uses() {
        let dir = Folder::new();
        let (digest, path) = {
            let store = dir.store();
            let (digest, tree) = stored(&store, &dir);
            (digest, store.checkout(&tree, &digest).unwrap().path)
        };
        tick();
        let running = dir.store();
        running.touch(&digest.encoding()).unwrap();
        let collector = dir.store();
        tick();
        assert_eq!(collector.collect(&Limits::default()).unwrap().checkouts, 0);
        drop(running);
        tick();
        let planned = collector.collect(&Limits { dry_run: true, ..Limits::default() }).unwrap();
        assert!(planned.checkouts == 1 && path.exists(), "a dry run removes nothing");
        assert_eq!(collector.collect(&Limits::default()).unwrap().checkouts, 1);
        assert!(!path.exists() && !path.with_extension("lock").exists());
    }

    #[test]
    fn a_tree_of_plain_files_needs_no_pack() {
        let dir = Folder::new();
        let store = dir.store();
        let blob = store.put(b"text").unwrap();
        let tree = Tree::of_files([(RelPath::new(b"a/b").unwrap(), blob.digest, blob.size)]).unwrap();
        let digest = store.put_tree(&tree).unwrap();
        let opened = store.open_tree(&digest, &Bytes::Store).unwrap();
        let path = store.checkout(&opened, &digest).unwrap().path;
        assert_eq!(fs::read(path.join("a/b")).unwrap(), b"text");
    }
}
