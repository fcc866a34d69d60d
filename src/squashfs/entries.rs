//! The entries of a tree that go into an image, and the tables that number them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cache::name::RelPath;
use cache::tree::{Entry, Inode, Meta, Node};
use cache::{BlobDigest, RootTree};

use super::error::WriteError;

/// The entries of a tree that go into an image, in the order of the tree, with their inode numbers.
pub(super) struct Entries<'a> {
    /// Each path with its inode and the number of that inode; hard links share both.
    pub(super) all: Vec<(&'a RelPath, &'a Inode, u32)>,
    /// The first file of each content.
    pub(super) files: Vec<(&'a RelPath, BlobDigest, u64)>,
    /// How many names the inodes have, from the first behind the top folder's.
    links: Vec<u32>,
}

/// The number of the top folder's inode.
pub(super) const ROOT_NUMBER: u32 = 1;

impl<'a> Entries<'a> {
    pub(super) fn new(root: &'a RootTree, is_excluded: &dyn Fn(&RelPath) -> bool) -> Self {
        let length = root.tree.entries().len();
        let mut entries = Entries {
            all: Vec::with_capacity(length),
            files: Vec::with_capacity(length),
            links: Vec::with_capacity(length),
        };
        // Of inodes with several names: the number, once there is one.
        let mut shared: HashMap<&RelPath, Option<u32>> = HashMap::new();
        for (_, entry) in root.tree.entries() {
            if let Entry::Link(first) = entry {
                shared.insert(first, None);
            }
        }
        let mut contents = HashSet::new();
        let mut excluded_folder: Option<&RelPath> = None;
        for (path, entry) in root.tree.entries() {
            let below = |folder: &RelPath| path.as_bytes().starts_with(&[folder.as_bytes(), b"/"].concat());
            if excluded_folder.is_some_and(below) {
                continue;
            }
            if is_excluded(path) {
                excluded_folder = Some(path);
                continue;
            }
            // A link whose first name is excluded stands for the inode all the same.
            let (first, inode) = match entry {
                Entry::Link(first) => (first, root.tree.inode(first)),
                Entry::Inode(inode) => (path, Some(inode)),
            };
            let Some(inode) = inode else { continue };
            let number = entries.number(shared.get_mut(first));
            if let Node::File { digest, size } = inode.node
                && contents.insert(digest)
            {
                // Bytes lie under the first name, excluded or not.
                entries.files.push((first, digest, size));
            }
            entries.all.push((path, inode, number));
        }
        entries
    }

    /// Counts a name of an inode; returns the inode's number, which `shared` keeps for its other names.
    fn number(&mut self, shared: Option<&mut Option<u32>>) -> u32 {
        let new = ROOT_NUMBER + 1 + self.links.len() as u32;
        let number = shared.map_or(new, |shared| *shared.get_or_insert(new));
        if number == new {
            self.links.push(0);
        }
        self.links[(number - ROOT_NUMBER - 1) as usize] += 1;
        number
    }

    /// Returns how many names an inode has.
    pub(super) fn links(&self, number: u32) -> u32 {
        self.links[(number - ROOT_NUMBER - 1) as usize]
    }

    pub(super) fn inode_count(&self) -> u32 {
        self.links.len() as u32 + 1
    }
}

/// Owners and groups by their place in the id table.
pub(super) struct Ids(pub(super) BTreeMap<u32, u16>);

impl Ids {
    pub(super) fn of(root: &Meta, entries: &Entries<'_>) -> Result<Self, WriteError> {
        let metas = entries.all.iter().map(|(_, inode, _)| &inode.meta).chain([root]);
        let all: BTreeSet<u32> = metas.flat_map(|meta| [meta.uid, meta.gid]).collect();
        let numbered = all.into_iter().enumerate().map(|(place, id)| Ok((id, u16::try_from(place)?)));
        let ids: Result<BTreeMap<_, _>, std::num::TryFromIntError> = numbered.collect();
        match ids {
            Ok(ids) if ids.len() <= usize::from(u16::MAX) => Ok(Self(ids)),
            _ => Err(WriteError::TooManyOwners),
        }
    }

    pub(super) fn place(&self, id: u32) -> u16 {
        self.0.get(&id).copied().unwrap_or_default()
    }
}
