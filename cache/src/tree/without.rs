//! A tree without some of its paths.

use std::collections::BTreeMap;

use super::{Entry, Inode, Tree};
use crate::name::RelPath;

impl Tree {
    /// Returns the same tree without the paths that are left out, and without all below them. An inode that loses its first
    /// name goes on under its next one.
    pub fn without(self, is_left_out: impl Fn(&RelPath) -> bool) -> Tree {
        let mut entries = BTreeMap::new();
        // Inodes whose first name is left out, and the first name that is not.
        let mut orphans: BTreeMap<RelPath, (Inode, Option<RelPath>)> = BTreeMap::new();
        let mut folder: Option<RelPath> = None;
        for (path, entry) in self.entries {
            let is_below = |folder: &RelPath| {
                path.as_bytes().strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
            };
            if folder.as_ref().is_some_and(is_below) || is_left_out(&path) {
                if !folder.as_ref().is_some_and(is_below) {
                    folder = Some(path.clone());
                }
                if let Entry::Inode(inode) = entry {
                    orphans.insert(path, (inode, None));
                }
                continue;
            }
            let entry = match entry {
                Entry::Link(first) => match orphans.get_mut(&first) {
                    Some((inode, heir @ None)) => {
                        *heir = Some(path.clone());
                        Entry::Inode(inode.clone())
                    }
                    Some((_, Some(heir))) => Entry::Link(heir.clone()),
                    None => Entry::Link(first),
                },
                inode @ Entry::Inode(_) => inode,
            };
            entries.insert(path, entry);
        }
        Tree { root: self.root, entries }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Meta, Node, TreeBuilder};
    use super::*;
    use crate::digest::BlobDigest;

    #[test]
    fn what_is_left_out_takes_all_below_it_and_a_file_lives_on_under_its_other_names() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let build = |names: &[&str]| {
            let mut builder = TreeBuilder::new(Meta::plain(0o755));
            let mut first = None;
            for name in names {
                match (name.strip_suffix('/'), &first) {
                    (Some(folder), _) => builder.insert(path(folder), Meta::plain(0o755), Node::Dir).unwrap(),
                    (None, Some(first)) => builder.link(path(name), RelPath::clone(first)).unwrap(),
                    (None, None) => {
                        let node = Node::File { digest: BlobDigest::of(b"x"), size: 1 };
                        builder.insert(path(name), Meta::plain(0o644), node).unwrap();
                        first = Some(path(name));
                    }
                }
            }
            builder.finish().unwrap()
        };
        let all = build(&["a/", "a/b/", "a/b/x", "a-b", "c/", "c/x", "c/y"]);
        let left = all.without(|path| path.as_bytes() == b"a/b");
        assert_eq!(left, build(&["a/", "a-b", "c/", "c/x", "c/y"]));
        let all = build(&["a/", "a/x", "c/", "c/x", "c/y"]);
        assert_eq!(all.without(|path| path.as_bytes() == b"a/x"), build(&["a/", "c/", "c/x", "c/y"]));
    }
}
