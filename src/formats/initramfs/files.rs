//! The files of an initramfs as the kernel makes them of its archives, entry by entry (`init/initramfs.c`): a later entry takes
//! the place of an earlier one, what lies in no folder is not made, and links to folders are followed.

use std::collections::BTreeMap;

use cache::name::{FileName, RelPath, follow};

/// The bits of a mode that say what an entry is, and what they say.
const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link to this.
    Link(Vec<u8>),
    /// A device, a pipe, a socket.
    Other,
}

impl Node {
    /// Tells what an entry of this mode is; `None` for one that the kernel passes over. A link's target is to be filled in.
    pub fn of_mode(mode: u32) -> Option<Self> {
        match mode & TYPE {
            FOLDER => Some(Node::Folder),
            FILE => Some(Node::File),
            LINK => Some(Node::Link(Vec::new())),
            // Character and block devices, pipes, sockets.
            0o020_000 | 0o060_000 | 0o010_000 | 0o140_000 => Some(Node::Other),
            _ => None,
        }
    }
}

/// A path that entries made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What is there in the end.
    pub node: Node,
    /// Whether somebody may run it.
    pub is_executable: bool,
    /// The first archive that made something there.
    pub first: usize,
    /// The archive that made what is there in the end.
    pub last: usize,
    /// The last archive that made something of another kind of what was there: a folder of a file or of a link.
    pub turned: Option<usize>,
}

/// All that is there once everything is unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    made: BTreeMap<RelPath, Made>,
    /// Entries that the kernel does not make, because what they lie in is no folder.
    pub lost: Vec<String>,
}

/// Lost entries that are remembered.
const MAX_LOST: usize = 1000;

impl Files {
    /// Makes an entry of the archive `segment`; returns its path, or nothing where the kernel does not make it.
    pub fn add(&mut self, name: &str, node: Node, is_executable: bool, segment: usize) -> Option<RelPath> {
        let made = self.place(name, &node);
        if made.is_none() && !is_top(name) && self.lost.len() < MAX_LOST {
            self.lost.push(name.to_owned());
        }
        let path = made?;
        let kind = std::mem::discriminant::<Node>;
        let before = self.made.get(&path);
        let first = before.map_or(segment, |before| before.first);
        let is_turned = before.is_some_and(|before| kind(&before.node) != kind(&node));
        let turned = if is_turned { Some(segment) } else { before.and_then(|before| before.turned) };
        self.made.insert(path.clone(), Made { node, is_executable, first, last: segment, turned });
        Some(path)
    }

    /// Returns where an entry goes, if it can be made there.
    fn place(&self, name: &str, node: &Node) -> Option<RelPath> {
        let name = name.trim_end_matches('/');
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let file = FileName::new(file.as_bytes()).ok()?;
        let path = if self.is_top(folder) {
            file.into()
        } else {
            let folder = self.resolve(folder)?;
            self.made.get(&folder).filter(|made| made.node == Node::Folder)?;
            folder.join(&file)
        };
        // A folder gives way to nothing, unless it is empty.
        let stays = self.made.get(&path).is_some_and(|before| before.node == Node::Folder)
            && *node != Node::Folder
            && self.made.range(path.clone()..).nth(1).is_some_and(|(next, _)| next.is_in(Some(&path)));
        (!stays).then_some(path)
    }

    /// Returns where a path leads, through links.
    pub fn resolve(&self, path: &str) -> Option<RelPath> {
        follow(path.as_bytes(), |path| match &self.made.get(path)?.node {
            Node::Link(target) => Some(target.clone()),
            _ => None,
        })
    }

    /// Tells whether a path leads to the top: `..` there stays there.
    fn is_top(&self, path: &str) -> bool {
        is_top(path)
            || path.split('/').any(|name| name == "..") && self.resolve(path).is_none() && {
                let inside = self.resolve(&format!("{path}/x"));
                inside.is_some_and(|inside| !inside.as_bytes().contains(&b'/'))
            }
    }

    /// Returns what is at a path, if anything is.
    pub fn get(&self, path: &RelPath) -> Option<&Made> {
        self.made.get(path)
    }

    /// Returns everything that is there, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Made)> {
        self.made.iter()
    }

    /// Tells whether something is lost where an entry is made at a path afterwards: a file or a link, whatever comes. A folder
    /// stays, and what a link to a folder leads to does where the entry is a folder itself.
    pub fn loses(&self, path: &str, is_folder: bool) -> bool {
        let whole = RelPath::new(plain_name(path).trim_end_matches('/').as_bytes()).ok();
        let is_no_folder = |path: Option<RelPath>| {
            path.and_then(|path| self.get(&path)).is_some_and(|made| made.node != Node::Folder)
        };
        is_no_folder(whole) || !is_folder && is_no_folder(self.resolve(path))
    }
}

/// Returns the name of an entry without what stands in front of the first name: archives are unpacked at the top.
pub fn plain_name(name: &str) -> &str {
    name.trim_start_matches("./").trim_start_matches('/')
}

/// Tells whether a name is that of the top folder.
fn is_top(name: &str) -> bool {
    name.split('/').all(|name| matches!(name, "" | "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn link(to: &str) -> Node {
        Node::Link(to.as_bytes().to_vec())
    }

    #[test]
    fn the_last_entry_of_a_name_wins_and_folders_that_are_links_are_followed() {
        let mut files = Files::default();
        for (name, node, segment) in [
            (".", Node::Folder, 0),
            ("usr", Node::Folder, 0),
            ("usr/lib", Node::Folder, 0),
            ("lib", link("usr/lib"), 0),
            ("init", link("/usr/lib/systemd"), 0),
            ("/lib/a", Node::File, 0),
            ("./usr/lib/a", Node::File, 1),
            ("init", Node::File, 1),
        ] {
            files.add(name, node, true, segment);
        }
        let made = |name: &str| files.get(&path(name)).cloned();
        assert_eq!(
            made("usr/lib/a"),
            Some(Made { node: Node::File, is_executable: true, first: 0, last: 1, turned: None })
        );
        assert_eq!(
            made("init"),
            Some(Made { node: Node::File, is_executable: true, first: 0, last: 1, turned: Some(1) })
        );
        assert_eq!(files.resolve("/lib/../lib/a"), Some(path("usr/lib/a")));
        assert!(files.lost.is_empty(), "{:?}", files.lost);
        assert_eq!(files.add("../usr/../b", Node::File, true, 1), Some(path("b")));
        assert_eq!(files.add("usr/lib/../c", Node::File, true, 1), Some(path("usr/c")));
    }

    #[test]
    fn what_lies_in_no_folder_is_not_made() {
        let mut files = Files::default();
        assert_eq!(files.add("live/image.img", Node::File, true, 0), None);
        files.add("live", Node::File, true, 0);
        assert_eq!(files.add("live/image.img", Node::File, true, 0), None);
        files.add("live", Node::Folder, true, 0);
        assert_eq!(files.add("live/image.img", Node::File, true, 0), Some(path("live/image.img")));
        // A folder with something in it stays.
        assert_eq!(files.add("live", Node::File, true, 1), None);
        assert_eq!(files.lost, ["live/image.img", "live/image.img", "live"]);
    }
}
