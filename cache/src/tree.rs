//! Trees: a folder with everything POSIX knows of it, in one canonical encoding.
//!
//! A tree is one flat, sorted list rather than a folder of folders: a live image's root travels
//! whole, hard links cross folders, and one encoding is one object. Times are whole seconds, as in
//! the images made from trees.
//!
//! ```text
//! encoding  = "stagegraph tree 1\n" meta(of the top folder) u64(number of entries) entry*
//! entry     = bytes(path) ( 0x00 bytes(path of the first name)                      a further hard link
//!                         | 0x01 meta                                               folder
//!                         | 0x02 meta digest[32] u64(size)                          file
//!                         | 0x03 meta bytes(target)                                 symbolic link
//!                         | 0x04|0x05 meta u32(major) u32(minor)                    character, block device
//!                         | 0x06|0x07 meta )                                        FIFO, socket
//! meta      = u16(mode & 07777) u32(uid) u32(gid) i64(mtime) u32(xattrs) (bytes(name) bytes(value))*
//! bytes     = u32(length) and that many;  every integer is little-endian
//! ```
//! Entries are in the order of [`RelPath`]; a hard link's first name is the one that sorts first.
//! Changing any of this changes every tree's digest.

mod error;
mod without;

use std::collections::BTreeMap;

pub use self::error::{DecodeError, TreeError};
use crate::digest::{BlobDigest, TreeDigest};
use crate::name::RelPath;

/// Opens every encoding; another first line is another format.
const MAGIC: &[u8] = b"stagegraph tree 1\n";

/// Owner, permissions, time and extended attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission, setuid, setgid and sticky bits: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification, in whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by full name (`security.capability`, `user.pax.flags`, …).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Returns the meta data of something plain: `mode`, owned by root, at the epoch 0, no xattrs.
    pub fn plain(mode: u16) -> Self {
        Self { mode, ..Self::default() }
    }
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Dir,
    /// A regular file with these bytes.
    File {
        /// Name of the bytes.
        digest: BlobDigest,
        /// How many there are.
        size: u64,
    },
    /// A symbolic link to this text.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

/// An inode: what it is and its meta data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, permissions, time, xattrs.
    pub meta: Meta,
    /// What it is.
    pub node: Node,
}

/// What a path of a tree stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An inode, under the first of its names.
    Inode(Inode),
    /// A further name of the inode at that path.
    Link(RelPath),
}

/// A folder and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: Meta,
    entries: BTreeMap<RelPath, Entry>,
}

/// Collects entries in any order and makes the tree of them.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    root: Meta,
    entries: BTreeMap<RelPath, Entry>,
}

impl TreeBuilder {
    /// Starts a tree whose top folder has `root` as meta data.
    pub fn new(root: Meta) -> Self {
        Self { root, entries: BTreeMap::new() }
    }

    /// Sets the meta data of the top folder.
    pub fn set_root(&mut self, root: Meta) {
        self.root = root;
    }

    /// Adds an inode under `path`.
    ///
    /// # Errors
    /// [`TreeError::Twice`] where something is there already.
    pub fn insert(&mut self, path: RelPath, meta: Meta, node: Node) -> Result<(), TreeError> {
        self.insert_entry(path, Entry::Inode(Inode { meta, node }))
    }

    /// Adds `path` as a further name of the inode at `to`, which may be added later.
    ///
    /// # Errors
    /// [`TreeError::Twice`] where something is there already.
    pub fn link(&mut self, path: RelPath, to: RelPath) -> Result<(), TreeError> {
        self.insert_entry(path, Entry::Link(to))
    }

    fn insert_entry(&mut self, path: RelPath, entry: Entry) -> Result<(), TreeError> {
        match self.entries.entry(path) {
            std::collections::btree_map::Entry::Occupied(taken) => Err(TreeError::Twice(taken.key().clone())),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(entry);
                Ok(())
            }
        }
    }

    /// Returns what is at `path` so far.
    pub fn get(&self, path: &RelPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Removes what is at `path`; a tar's later member takes the place of an earlier one.
    ///
    /// Further names of the inode there keep it.
    pub fn remove(&mut self, path: &RelPath) {
        let removed = self.entries.remove(path);
        let Some(inode @ Entry::Inode(_)) = removed else { return };
        let mut links = self.entries.iter_mut().filter(|(_, entry)| **entry == Entry::Link(path.clone()));
        let Some((heir, entry)) = links.next() else { return };
        *entry = inode;
        let heir = heir.clone();
        links.for_each(|(_, entry)| *entry = Entry::Link(heir.clone()));
    }

    /// Adds the folders above `path` that nobody named, as mode 0755 of root at the epoch 0.
    pub fn insert_parents(&mut self, path: &RelPath) {
        let mut above = path.parent();
        while let Some(folder) = above {
            above = folder.parent();
            let inode = Inode { meta: Meta::plain(0o755), node: Node::Dir };
            self.entries.entry(folder).or_insert(Entry::Inode(inode));
        }
    }

    /// Makes the tree: every hard link points at the first of the inode's names.
    ///
    /// # Errors
    /// [`TreeError`], which names the path at fault.
    pub fn finish(mut self) -> Result<Tree, TreeError> {
        // Names of one inode, under the path that holds it now.
        let mut names: BTreeMap<RelPath, Vec<RelPath>> = BTreeMap::new();
        for (path, entry) in &self.entries {
            if let Entry::Link(to) = entry {
                let target = self.resolve(path, to)?;
                names.entry(target).or_default().push(path.clone());
            }
        }
        for (holder, links) in names {
            // `links` is sorted, because `entries` is.
            let first = links[0].clone().min(holder.clone());
            if let Some(inode) = self.entries.get(&holder).cloned() {
                self.entries.insert(first.clone(), inode);
            }
            for name in links.into_iter().chain([holder]).filter(|name| *name != first) {
                self.entries.insert(name, Entry::Link(first.clone()));
            }
        }
        // Most entries are in the folder of the one before.
        let mut folder: Option<RelPath> = None;
        for (path, entry) in &self.entries {
            if !path.is_in(folder.as_ref()) {
                folder = path.parent();
                let inode = folder.as_ref().and_then(|folder| self.entries.get(folder));
                if folder.is_some() && !matches!(inode, Some(Entry::Inode(Inode { node: Node::Dir, .. }))) {
                    return Err(TreeError::NotInFolder(path.clone()));
                }
            }
            if let Entry::Inode(inode) = entry
                && inode.meta.mode > 0o7777
            {
                return Err(TreeError::Mode(path.clone()));
            }
        }
        Ok(Tree { root: self.root, entries: self.entries })
    }

    /// Follows a chain of hard links to the path that holds the inode.
    fn resolve(&self, path: &RelPath, to: &RelPath) -> Result<RelPath, TreeError> {
        let dangling = || TreeError::DanglingLink { path: path.clone(), to: to.clone() };
        let mut at = to;
        for _ in 0..=self.entries.len() {
            match self.entries.get(at) {
                Some(Entry::Link(next)) => at = next,
                Some(Entry::Inode(inode)) if inode.node != Node::Dir => return Ok(at.clone()),
                _ => return Err(dangling()),
            }
        }
        Err(dangling())
    }
}

impl Tree {
    /// Returns the meta data of the top folder.
    pub fn root(&self) -> &Meta {
        &self.root
    }

    /// Returns the same tree with every later time set to `latest`, in seconds since 1970.
    pub fn clamped(mut self, latest: i64) -> Tree {
        let clamp = |meta: &mut Meta| meta.mtime = meta.mtime.min(latest);
        clamp(&mut self.root);
        for entry in self.entries.values_mut() {
            if let Entry::Inode(inode) = entry {
                clamp(&mut inode.meta);
            }
        }
        self
    }

    /// Returns every path and what it stands for, folders before their entries.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&RelPath, &Entry)> {
        self.entries.iter()
    }

    /// Returns the inode at `path`, through a hard link if need be.
    pub fn inode(&self, path: &RelPath) -> Option<&Inode> {
        match self.entries.get(path)? {
            Entry::Inode(inode) => Some(inode),
            Entry::Link(first) => match self.entries.get(first)? {
                Entry::Inode(inode) => Some(inode),
                Entry::Link(_) => None,
            },
        }
    }

    /// Returns every regular file with its first name, digest and size.
    pub fn files(&self) -> impl Iterator<Item = (&RelPath, BlobDigest, u64)> {
        self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::Inode(Inode { node: Node::File { digest, size }, .. }) => Some((path, *digest, *size)),
            _ => None,
        })
    }

    /// Returns the tree of plain files (mode 0444, root's, at the epoch 0) and the folders they need.
    ///
    /// # Errors
    /// [`TreeError`] where a file lies below another.
    pub fn of_files(files: impl IntoIterator<Item = (RelPath, BlobDigest, u64)>) -> Result<Tree, TreeError> {
        let mut builder = TreeBuilder::new(Meta::plain(0o755));
        for (path, digest, size) in files {
            builder.insert_parents(&path);
            builder.insert(path, Meta::plain(0o444), Node::File { digest, size })?;
        }
        builder.finish()
    }

    /// Returns the digest: the hash of [`Tree::encode`].
    pub fn digest(&self) -> TreeDigest {
        TreeDigest::of_encoding(&self.encode())
    }

    /// Returns the canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 * self.entries.len() + 64);
        out.extend_from_slice(MAGIC);
        encode_meta(&mut out, &self.root);
        out.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        for (path, entry) in &self.entries {
            encode_bytes(&mut out, path.as_bytes());
            match entry {
                Entry::Link(first) => {
                    out.push(0);
                    encode_bytes(&mut out, first.as_bytes());
                }
                Entry::Inode(inode) => encode_inode(&mut out, inode),
            }
        }
        out
    }

    /// Reads a canonical encoding.
    ///
    /// # Errors
    /// [`DecodeError`]: whatever is not exactly what [`Tree::encode`] gives is refused.
    pub fn decode(bytes: &[u8]) -> Result<Tree, DecodeError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
        let mut input = Input(rest);
        let mut builder = TreeBuilder::new(input.meta()?);
        let count = input.u64()?;
        let mut last: Option<RelPath> = None;
        for _ in 0..count {
            let path = RelPath::new(input.bytes()?)?;
            if last.as_ref().is_some_and(|last| *last >= path) {
                return Err(DecodeError::NotCanonical(path));
            }
            let entry = match input.u8()? {
                0 => {
                    let first = RelPath::new(input.bytes()?)?;
                    let holds_inode = matches!(builder.get(&first), Some(Entry::Inode(_)));
                    if !holds_inode {
                        return Err(DecodeError::NotCanonical(path));
                    }
                    Entry::Link(first)
                }
                kind => Entry::Inode(input.inode(kind, &path)?),
            };
            builder.insert_entry(path.clone(), entry)?;
            last = Some(path);
        }
        if !input.0.is_empty() {
            return Err(DecodeError::Length);
        }
        Ok(builder.finish()?)
    }
}

fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Paths, link targets and xattrs are far below 4 GiB: the kernel's own limits are 4 KiB and 64 KiB.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn encode_meta(out: &mut Vec<u8>, meta: &Meta) {
    out.extend_from_slice(&meta.mode.to_le_bytes());
    out.extend_from_slice(&meta.uid.to_le_bytes());
    out.extend_from_slice(&meta.gid.to_le_bytes());
    out.extend_from_slice(&meta.mtime.to_le_bytes());
    out.extend_from_slice(&(meta.xattrs.len() as u32).to_le_bytes());
    for (name, value) in &meta.xattrs {
        encode_bytes(out, name);
        encode_bytes(out, value);
    }
}

fn encode_inode(out: &mut Vec<u8>, inode: &Inode) {
    let kind = match inode.node {
        Node::Dir => 1,
        Node::File { .. } => 2,
        Node::Symlink(_) => 3,
        Node::CharDevice { .. } => 4,
        Node::BlockDevice { .. } => 5,
        Node::Fifo => 6,
        Node::Socket => 7,
    };
    out.push(kind);
    encode_meta(out, &inode.meta);
    match &inode.node {
        Node::File { digest, size } => {
            out.extend_from_slice(digest.as_bytes());
            out.extend_from_slice(&size.to_le_bytes());
        }
        Node::Symlink(target) => encode_bytes(out, target),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
        Node::Dir | Node::Fifo | Node::Socket => {}
    }
}

/// What is left of an encoding.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Length)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn meta(&mut self) -> Result<Meta, DecodeError> {
        let mode = u16::from_le_bytes(self.array()?);
        let (uid, gid) = (self.u32()?, self.u32()?);
        let mtime = i64::from_le_bytes(self.array()?);
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.u32()? {
            let name = self.bytes()?.to_vec();
            if xattrs.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(DecodeError::Xattrs);
            }
            xattrs.insert(name, self.bytes()?.to_vec());
        }
        Ok(Meta { mode, uid, gid, mtime, xattrs })
    }

    fn inode(&mut self, kind: u8, path: &RelPath) -> Result<Inode, DecodeError> {
        let meta = self.meta()?;
        let node = match kind {
            1 => Node::Dir,
            2 => {
                let name = self.array::<32>()?;
                let digest = BlobDigest::from_slice(&name).ok_or(DecodeError::Length)?;
                Node::File { digest, size: self.u64()? }
            }
            3 => Node::Symlink(self.bytes()?.to_vec()),
            4 => Node::CharDevice { major: self.u32()?, minor: self.u32()? },
            5 => Node::BlockDevice { major: self.u32()?, minor: self.u32()? },
            6 => Node::Fifo,
            7 => Node::Socket,
            _ => return Err(DecodeError::NotCanonical(path.clone())),
        };
        Ok(Inode { meta, node })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn file(bytes: &[u8]) -> Node {
        Node::File { digest: BlobDigest::of(bytes), size: bytes.len() as u64 }
    }

    fn sample(order: &[usize]) -> Tree {
        let mut builder = TreeBuilder::new(Meta::plain(0o755));
        for step in order {
            match step {
                0 => builder.insert(path("dev"), Meta::plain(0o755), Node::Dir),
                1 => builder.insert(
                    path("dev/null"),
                    Meta::plain(0o666),
                    Node::CharDevice { major: 1, minor: 3 },
                ),
                2 => builder.insert(path("usr"), Meta::plain(0o4755), file(b"x")),
                _ => builder.link(path("bin"), path("usr")),
            }
            .unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn the_digest_of_a_tree_is_pinned() {
        let digest = sample(&[0, 1, 2, 3]).digest().to_string();
        assert_eq!(digest, "ab9260f46a01f7a1d1bed0535bbf78ce223e7a18d7b77096a97f93ba9baf93a7");
    }

    #[test]
    fn the_first_name_of_a_hard_link_holds_the_inode_whatever_the_order() {
        let tree = sample(&[0, 1, 2, 3]);
        assert_eq!(tree, sample(&[3, 2, 0, 1]));
        let entries: BTreeMap<_, _> = tree.entries().collect();
        assert_eq!(entries[&path("usr")], &Entry::Link(path("bin")));
        assert_eq!(tree.inode(&path("usr")).unwrap().meta.mode, 0o4755);
    }

    #[test]
    fn links_to_nothing_to_folders_and_in_circles_are_refused() {
        let mut circle = TreeBuilder::default();
        circle.link(path("a"), path("b")).unwrap();
        circle.link(path("b"), path("a")).unwrap();
        assert!(matches!(circle.finish(), Err(TreeError::DanglingLink { .. })));
        let mut folder = TreeBuilder::default();
        folder.insert(path("d"), Meta::plain(0o755), Node::Dir).unwrap();
        folder.link(path("l"), path("d")).unwrap();
        assert!(matches!(folder.finish(), Err(TreeError::DanglingLink { .. })));
        let mut below = TreeBuilder::default();
        below.insert(path("f"), Meta::plain(0o644), file(b"")).unwrap();
        below.insert(path("f/x"), Meta::plain(0o644), file(b"")).unwrap();
        assert_eq!(below.finish(), Err(TreeError::NotInFolder(path("f/x"))));
    }

    #[test]
    fn an_encoding_that_is_not_canonical_is_refused() {
        let good = sample(&[0, 1, 2, 3]).encode();
        assert!(Tree::decode(&good[..good.len() - 1]).is_err());
        assert_eq!(Tree::decode(&[&good[..], b"x"].concat()), Err(DecodeError::Length));
        assert_eq!(Tree::decode(b"stagegraph tree 2\n"), Err(DecodeError::Magic));
    }

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            Just(Node::Dir),
            any::<[u8; 4]>().prop_map(|bytes| file(&bytes)),
            "[a-z/.]{1,9}".prop_map(|target| Node::Symlink(target.into_bytes())),
            any::<(u32, u32)>().prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
            Just(Node::Fifo),
            Just(Node::Socket),
        ]
    }

    prop_compose! {
        fn meta()(
            mode in 0..0o10000u16, uid: u32, gid: u32, mtime: i64,
            xattrs in proptest::collection::btree_map(any::<Vec<u8>>(), any::<Vec<u8>>(), 0..3),
        ) -> Meta {
            Meta { mode, uid, gid, mtime, xattrs }
        }
    }

    proptest! {
        #[test]
        fn a_tree_reads_back_from_its_encoding(
            root in meta(),
            entries in proptest::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}", (meta(), node()), 0..12),
        ) {
            let mut builder = TreeBuilder::new(root);
            for (name, (meta, node)) in entries {
                let path = path(&name);
                let mut above = path.parent();
                let mut folder = true;
                while let Some(parent) = above {
                    folder &= matches!(builder.get(&parent), None | Some(Entry::Inode(Inode { node: Node::Dir, .. })));
                    above = parent.parent();
                }
                if folder {
                    builder.insert_parents(&path);
                    builder.remove(&path);
                    builder.insert(path, meta, node).unwrap();
                }
            }
            if let Ok(tree) = builder.finish() {
                prop_assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
            }
        }

        #[test]
        fn damaged_encodings_never_panic(position in 0usize..400, byte: u8) {
            let mut bytes = sample(&[0, 1, 2, 3]).encode();
            let position = position % bytes.len();
            bytes[position] = byte;
            let _ = Tree::decode(&bytes);
        }
    }
}
