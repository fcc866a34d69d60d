//! Where the bytes of a tree's files lie.
//!
//! A live image's root is hundreds of megabytes that already lie somewhere: in a tar, in a folder.
//! They are not copied to be hashed. [`Bytes`] says where they are; [`RootTree`] reads them, and
//! compares what it reads with the digests of the tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, BlobHasher, TreeDigest};
use crate::file::OnFile;
use crate::name::{RelPath, follow};
use crate::objects::{Objects, StoreError};
use crate::tree::{Node, Tree};

/// Opens the encoding of [`Slices`]; another first line is another format.
const SLICES_MAGIC: &[u8] = b"stagegraph slices 1\n";

/// Where the bytes of a tree's files lie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bytes {
    /// Each file is an object of its own.
    #[default]
    Store,
    /// Slices of an object, a tar; `index` is the object with their places.
    Pack {
        /// The tar.
        pack: BlobDigest,
        /// The encoding of its [`Slices`].
        index: BlobDigest,
    },
    /// Slices of a tar outside the store.
    Tar {
        /// The tar.
        path: PathBuf,
        /// The encoding of its [`Slices`].
        index: BlobDigest,
    },
    /// Files below a folder, under the paths the tree has.
    Directory {
        /// The folder.
        path: PathBuf,
    },
}

impl Bytes {
    /// Tells whether each file is an object of its own.
    pub fn is_store(&self) -> bool {
        *self == Bytes::Store
    }
}

/// Where in a pack the bytes of each file start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slices(pub BTreeMap<BlobDigest, u64>);

impl Slices {
    /// Returns the encoding: a first line, then digest and offset (u64, little-endian) in order.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = SLICES_MAGIC.to_vec();
        for (digest, offset) in &self.0 {
            out.extend_from_slice(digest.as_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
        out
    }

    /// Reads an encoding; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (rows, rest) = bytes.strip_prefix(SLICES_MAGIC)?.as_chunks::<40>();
        let row = |row: &[u8; 40]| {
            let (digest, offset) = row.split_at(32);
            Some((BlobDigest::from_slice(digest)?, u64::from_le_bytes(offset.try_into().ok()?)))
        };
        let map = rows.iter().map(row).collect::<Option<BTreeMap<_, _>>>()?;
        rest.is_empty().then_some(Self(map))
    }
}

/// A tree together with the place of its bytes, ready to be read from several threads.
#[derive(Debug)]
pub struct RootTree {
    /// The tree.
    pub tree: Tree,
    at: Place,
}

#[derive(Debug)]
enum Place {
    Store,
    Pack { file: Arc<File>, path: PathBuf, slices: Slices, pack: Option<BlobDigest> },
    Directory(PathBuf),
}

impl Objects {
    /// Tells whether a tree's files can be found where `bytes` says.
    pub(crate) fn has_bytes(&self, tree: &TreeDigest, bytes: &Bytes) -> Result<bool, StoreError> {
        if !self.contains(&tree.encoding())? {
            return Ok(false);
        }
        match bytes {
            Bytes::Store => {
                for (_, digest, _) in self.tree(tree)?.files() {
                    if !self.contains(&digest)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            // Of two results of one tree, the collector may keep the other's.
            Bytes::Pack { pack, index } => {
                self.touch(pack)?;
                self.touch(index)?;
                Ok(self.contains(pack)? && self.contains(index)?)
            }
            Bytes::Tar { path, index } => {
                self.touch(index)?;
                Ok(path.is_file() && self.contains(index)?)
            }
            Bytes::Directory { path } => Ok(path.is_dir()),
        }
    }

    /// Opens a tree for reading its files.
    ///
    /// # Errors
    /// [`StoreError`]: the tree or the place of its bytes is missing or damaged.
    pub fn open_tree(&self, digest: &TreeDigest, bytes: &Bytes) -> Result<RootTree, StoreError> {
        let tree = self.tree(digest)?;
        let slices = |index: &BlobDigest| match Slices::decode(&self.read(index)?) {
            Some(slices) => Ok(slices),
            None => {
                self.contradicted(index)?;
                Err(StoreError::Row(index.to_string()))
            }
        };
        let open = |path: PathBuf, index: &BlobDigest, pack| {
            let file = Arc::new(File::open(&path).on_file("open", &path)?);
            Ok::<_, StoreError>(Place::Pack { file, path, slices: slices(index)?, pack })
        };
        let at = match bytes {
            Bytes::Store => Place::Store,
            Bytes::Pack { pack, index } => open(self.located(pack)?, index, Some(*pack))?,
            Bytes::Tar { path, index } => open(path.clone(), index, None)?,
            Bytes::Directory { path } => Place::Directory(path.clone()),
        };
        Ok(RootTree { tree, at })
    }
}

impl RootTree {
    /// Returns a tree each of whose files is an object of its own.
    pub(crate) fn of_store(tree: Tree) -> Self {
        Self { tree, at: Place::Store }
    }

    /// Returns where a path leads in the tree, links followed, and what is there.
    pub fn find(&self, path: &Path) -> Option<(RelPath, &Node)> {
        let link = |at: &RelPath| match &self.tree.inode(at)?.node {
            Node::Symlink(target) => Some(target.clone()),
            _ => None,
        };
        let at = follow(path.as_os_str().as_bytes(), link)?;
        let node = &self.tree.inode(&at)?.node;
        Some((at, node))
    }

    /// Returns the bytes of a file, compared with its digest; `None` where there is no such file.
    ///
    /// # Errors
    /// [`StoreError`]: the store lacks them, or has others.
    pub fn read(&self, objects: &Objects, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((at, Node::File { digest, size })) = self.find(path) else { return Ok(None) };
        let mut bytes = Vec::new();
        let mut reader = self.open_file(objects, &at, digest, *size)?;
        reader.read_to_end(&mut bytes).on_file("read", path)?;
        Ok(Some(bytes))
    }

    /// Opens the file that the tree has at `path`; `digest` and `size` are those of the tree.
    ///
    /// The reader fails at the end where the bytes are not the ones the tree names.
    ///
    /// # Errors
    /// [`StoreError`]: the bytes are not where they should be.
    pub fn open_file<'a>(
        &self,
        store: &'a Objects,
        path: &RelPath,
        digest: &BlobDigest,
        size: u64,
    ) -> Result<FileReader<'a>, StoreError> {
        let mut object = None;
        let (file, start, from) = match &self.at {
            Place::Pack { file, path, slices, pack } if slices.0.contains_key(digest) => {
                object = *pack;
                (Arc::clone(file), slices.0[digest], path.clone())
            }
            // What could not be a slice (a sparse member, say) is an object of its own.
            Place::Pack { .. } | Place::Store => {
                object = Some(*digest);
                let path = store.located(digest)?;
                (Arc::new(File::open(&path).on_file("open", &path)?), 0, path)
            }
            Place::Directory(top) => {
                let path = path.below(top);
                (Arc::new(File::open(&path).on_file("open", &path)?), 0, path)
            }
        };
        let hasher = BlobHasher::default();
        Ok(FileReader { store, object, file, path: from, at: start, left: size, expected: *digest, hasher })
    }
}

/// Reads one file of a tree and compares it with its digest.
pub struct FileReader<'a> {
    store: &'a Objects,
    /// The object it reads from, if it is one.
    object: Option<BlobDigest>,
    file: Arc<File>,
    path: PathBuf,
    at: u64,
    left: u64,
    expected: BlobDigest,
    hasher: BlobHasher,
}

impl FileReader<'_> {
    fn changed(&self) -> io::Error {
        // An object that is not what its name says is taken out, so that it is made again.
        if let Some(object) = self.object {
            // One that is, and has other bytes than a tree says: then whoever put the two together was wrong.
            let checked = self.store.verified_again(&object);
            if let Err(error) = checked.and_then(|_| self.store.contradicted(&object)) {
                return io::Error::other(error);
            }
        }
        io::Error::other(StoreError::Changed { path: self.path.clone() })
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        self.store.check_stopped().map_err(io::Error::other)?;
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 {
            return Err(self.changed());
        }
        self.hasher.update(&buffer[..read]);
        self.at += read as u64;
        self.left -= read as u64;
        if self.left == 0 && self.hasher.finish() != self.expected {
            return Err(self.changed());
        }
        Ok(read)
    }
}

impl RootTree {
    /// Copies the bytes of all files into one object of the store; returns where they are then. The place they were at
    /// may go.
    ///
    /// # Errors
    /// [`StoreError`]: a file is not what the tree says, or the store failed.
    pub fn pack(&self, store: &Objects) -> Result<Bytes, StoreError> {
        let mut writer = store.writer()?;
        let mut slices = Slices::default();
        let mut end = 0;
        for (path, digest, size) in self.tree.files() {
            if let std::collections::btree_map::Entry::Vacant(place) = slices.0.entry(digest) {
                place.insert(end);
                end += writer.copy_from(self.open_file(store, path, &digest, size)?)?;
            }
        }
        let pack = writer.commit()?.digest;
        Ok(Bytes::Pack { pack, index: store.put(&slices.encode())?.digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn slices_read_back_and_cut_off_ones_are_refused() {
        let slices = Slices(BTreeMap::from([(BlobDigest::of(b"a"), 512), (BlobDigest::of(b"b"), 1 << 40)]));
        let bytes = slices.encode();
        assert_eq!(Slices::decode(&bytes), Some(slices));
        assert_eq!(Slices::decode(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn a_packed_tree_is_read_without_its_folder() {
        let dir = Folder::new();
        let store = dir.store();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        for (name, text) in [("a", "one"), ("b", "two"), ("c", "one"), ("empty", "")] {
            std::fs::write(top.join(name), text).unwrap();
        }
        let tree = crate::ingest::directory(&store, &top).unwrap();
        let digest = store.put_tree(&tree).unwrap();
        let bytes =
            store.open_tree(&digest, &Bytes::Directory { path: top.clone() }).unwrap().pack(&store).unwrap();
        std::fs::remove_dir_all(&top).unwrap();
        let packed = store.open_tree(&digest, &bytes).unwrap();
        let texts: Vec<String> = packed
            .tree
            .files()
            .map(|(path, digest, size)| {
                let mut text = String::new();
                packed.open_file(&store, path, &digest, size).unwrap().read_to_string(&mut text).unwrap();
                text
            })
            .collect();
        assert_eq!(texts, ["one", "two", "one", ""]);
        let Bytes::Pack { pack, .. } = bytes else { panic!("{bytes:?}") };
        assert_eq!(store.read(&pack).unwrap(), b"onetwo", "each content once");
    }

    #[test]
    fn a_file_that_changed_in_its_folder_fails_to_read() {
        let dir = Folder::new();
        let store = dir.store();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        std::fs::write(top.join("file"), "right").unwrap();
        let tree = crate::ingest::directory(&store, &top).unwrap();
        let digest = store.put_tree(&tree).unwrap();
        let opened = store.open_tree(&digest, &Bytes::Directory { path: top.clone() }).unwrap();
        let (path, blob, size) = opened.tree.files().next().unwrap();
        let read =
            |text: &mut String| opened.open_file(&store, path, &blob, size).unwrap().read_to_string(text);
        assert_eq!(read(&mut String::new()).unwrap(), 5);
        std::fs::write(top.join("file"), "wrong").unwrap();
        let error = read(&mut String::new()).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
    }
}
