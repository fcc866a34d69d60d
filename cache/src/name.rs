//! File names and relative paths that cannot climb out of a folder.
//!
//! Both hold bytes, not text: a root may have names in any encoding. They are checked once, when
//! they are made; whoever holds one need not look again.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest file name Linux has (`NAME_MAX`), and the longest squashfs can hold.
const NAME_MAX: usize = 255;

/// Why bytes are not a file name or a relative path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between two slashes, or nothing at all.
    #[error("{0:?} has an empty name in it")]
    Empty(String),
    /// `.` or `..`: the path would stand still or climb.
    #[error("{0:?} has a '.' or '..' in it; paths here only go down")]
    Climbs(String),
    /// A slash inside a name.
    #[error("{0:?} has a '/' in it")]
    Slash(String),
    /// A NUL byte.
    #[error("{0:?} has a NUL byte in it")]
    Nul(String),
    /// More than 255 bytes in one name.
    #[error("{0:?} has a name of more than {NAME_MAX} bytes in it")]
    Long(String),
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check_name(name: &[u8], whole: &[u8]) -> Result<(), NameError> {
    match name {
        b"" => Err(NameError::Empty(shown(whole))),
        b"." | b".." => Err(NameError::Climbs(shown(whole))),
        _ if name.contains(&0) => Err(NameError::Nul(shown(whole))),
        _ if name.len() > NAME_MAX => Err(NameError::Long(shown(whole))),
        _ => Ok(()),
    }
}

/// One name in a folder: not empty, no slash, no NUL, neither `.` nor `..`, at most 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Box<[u8]>);

impl FileName {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// [`NameError`], which names what is wrong with them.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.contains(&b'/') {
            return Err(NameError::Slash(shown(bytes)));
        }
        check_name(bytes, bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Returns the bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Links that are followed for one path: Linux gives up at this number too.
const MAX_LINKS: usize = 40;

/// Returns where `path` leads inside a root whose links are those that `link` knows: a link's target is as if the root
/// were the whole system, and `..` at the top stays there. `None` for links in a circle, and for what is no path.
pub fn follow(path: &[u8], link: impl Fn(&RelPath) -> Option<Vec<u8>>) -> Option<RelPath> {
    let mut rest: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut at: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match &name[..] {
            b"" | b"." => continue,
            b".." => {
                at.pop();
                continue;
            }
            _ => at.push(name),
        }
        let Some(target) = link(&RelPath::new(&at.join(&b'/')).ok()?) else { continue };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        at.pop();
        if target.starts_with(b"/") {
            at.clear();
        }
        rest.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
    }
    RelPath::new(&at.join(&b'/')).ok()
}

/// A path below some folder: one or more [`FileName`]s with slashes between them.
///
/// The order is that of a walk: a folder comes directly before what is in it, and its entries are
/// sorted by name as bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Checks `bytes`; no leading, doubled or trailing slash is let through.
    ///
    /// # Errors
    /// [`NameError`], which names what is wrong with them.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        bytes.split(|b| *b == b'/').try_for_each(|name| check_name(name, bytes))?;
        Ok(Self(bytes.into()))
    }

    /// Returns the bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the names from the top down.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// Returns the last name.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }

    /// Returns the folder this path is in; `None` at the top.
    pub fn parent(&self) -> Option<RelPath> {
        self.above().map(|folder| Self(folder.into()))
    }

    /// Tells whether this folder is the one the path is in; none is the top.
    pub fn is_in(&self, folder: Option<&RelPath>) -> bool {
        self.above() == folder.map(RelPath::as_bytes)
    }

    /// Returns the bytes of the folder's path; `None` at the top.
    fn above(&self) -> Option<&[u8]> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(&self.0[..slash])
    }

    /// Returns the path of `name` in this folder.
    pub fn join(&self, name: &FileName) -> RelPath {
        Self([&self.0, b"/".as_slice(), name.as_bytes()].concat().into())
    }

    /// Returns where the path is when `folder` is its top.
    pub fn below(&self, folder: &Path) -> PathBuf {
        folder.join(OsStr::from_bytes(&self.0))
    }
}

impl From<FileName> for RelPath {
    fn from(name: FileName) -> Self {
        Self(name.0)
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts below every byte a name can hold, so that a folder's entries stay together.
        let rank = |b: &u8| if *b == b'/' { 0 } else { *b };
        // Neighbours in a tree begin alike: sixteen bytes are compared as fast as one.
        let (own, others) = (self.0.as_chunks::<16>().0, other.0.as_chunks::<16>().0);
        let alike = 16 * own.iter().zip(others).take_while(|(one, other)| one == other).count();
        self.0[alike..].iter().map(rank).cmp(other.0[alike..].iter().map(rank))
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_its_folder_is_refused() {
        for bad in ["", "/etc", "a//b", "a/", "..", "a/../b", "./a", "a/.", "a\0b"] {
            assert!(RelPath::new(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(RelPath::new(&[b'x'; 256]).is_err());
        assert!(RelPath::new(b"etc/..data/\xff").is_ok());
    }

    #[test]
    fn a_folder_comes_before_its_entries_and_its_entries_before_its_neighbours() {
        let mut paths: Vec<_> =
            ["a-b", "a/z", "a", "a/b/c", "a/b"].iter().map(|p| RelPath::new(p.as_bytes()).unwrap()).collect();
        paths.sort();
        let shown: Vec<_> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", "a/b", "a/b/c", "a/z", "a-b"]);
    }

    proptest::proptest! {
        #[test]
        fn paths_are_in_the_order_of_their_names(
            start in "([ab]{1,9}/){0,5}", ends in proptest::collection::vec("[-ab]{1,20}(/[-ab]{1,9})?", 2),
        ) {
            let paths = ends.iter().map(|end| RelPath::new([&start, &**end].concat().as_bytes()).unwrap());
            let paths: Vec<RelPath> = paths.collect();
            let by_names = paths[0].names().cmp(paths[1].names());
            assert_eq!(paths[0].cmp(&paths[1]), by_names);
        }
    }
}
