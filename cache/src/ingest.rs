//! Makes trees of what lies outside the store: folders and tars.

mod tar;

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use self::tar::{Tar, TarError, is_tar, tar};
use crate::file::{FileError, OnFile};
use crate::name::{FileName, NameError, RelPath};
use crate::objects::{Objects, StoreError};
use crate::stat::Stat;
use crate::tree::{Meta, Node, Tree, TreeBuilder, TreeError};

/// Why a folder did not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The system refused something about a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name no tree can hold.
    #[error("a name in {path}")]
    Name {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: NameError,
    },
    /// Hashing or remembering failed.
    #[error(transparent)]
    Objects(#[from] StoreError),
    /// The entries do not make a tree: it changed while it was read.
    #[error("the folder {path} changed while it was read")]
    Tree {
        /// The folder.
        path: PathBuf,
        /// What does not fit.
        source: TreeError,
    },
}

/// What a walk finds, before the files are hashed.
struct Found {
    path: RelPath,
    meta: Meta,
    what: What,
    /// Device and inode of a file with several names.
    shared: Option<(u64, u64)>,
}

enum What {
    Node(Node),
    File { size: u64, stat: Stat },
    Link(RelPath),
}

/// Tells of a path below a folder whether it is left out, with all below it.
pub type IsLeftOut<'a> = dyn Fn(&RelPath) -> bool + Sync + 'a;

/// Finds everything below a folder, in no order; folders side by side on all cores.
fn walk(top: &Path, is_left_out: &IsLeftOut<'_>) -> Result<Vec<Found>, IngestError> {
    let list = |below: &Option<RelPath>| -> Result<Vec<Found>, IngestError> {
        let folder = below.as_ref().map_or_else(|| top.to_owned(), |below| below.below(top));
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).on_file("list", &folder)? {
            let entry = entry.on_file("list", &folder)?;
            let name = FileName::new(entry.file_name().as_bytes())
                .map_err(|source| IngestError::Name { path: folder.clone(), source })?;
            let path = below.as_ref().map_or_else(|| name.clone().into(), |below| below.join(&name));
            if is_left_out(&path) {
                continue;
            }
            let place = entry.path();
            let stat = fs::symlink_metadata(&place).on_file("read", &place)?;
            let shared = (!stat.is_dir() && stat.nlink() > 1).then(|| (stat.dev(), stat.ino()));
            found.push(Found {
                path,
                meta: read_meta(&place, &stat)?,
                what: read_node(&place, &stat)?,
                shared,
            });
        }
        Ok(found)
    };
    let mut all = Vec::new();
    let mut level = vec![None];
    while !level.is_empty() {
        let found: Vec<Vec<Found>> = level.par_iter().map(list).collect::<Result<_, _>>()?;
        let start = all.len();
        all.extend(found.into_iter().flatten());
        let is_folder = |entry: &&Found| matches!(entry.what, What::Node(Node::Dir));
        level = all[start..].iter().filter(is_folder).map(|entry| Some(entry.path.clone())).collect();
    }
    Ok(all)
}

/// Reads the folder at `top` into a tree: owners, modes, times, xattrs, hard links, devices.
///
/// Files are hashed on all cores; one whose stat data are known is not read. Mount points below
/// are walked into. The bytes stay where they are.
///
/// # Errors
/// [`IngestError`], which names the path at fault.
pub fn directory(store: &Objects, top: &Path) -> Result<Tree, IngestError> {
    directory_without(store, top, &|_| false)
}

/// As [`directory`], without what is left out: that is neither listed nor read.
///
/// # Errors
/// As [`directory`].
pub fn directory_without(
    store: &Objects,
    top: &Path,
    is_left_out: &IsLeftOut<'_>,
) -> Result<Tree, IngestError> {
    let meta = fs::symlink_metadata(top).on_file("read", top)?;
    let mut builder = TreeBuilder::new(read_meta(top, &meta)?);
    let mut found = walk(top, is_left_out)?;
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    // Of several names of one file, the first in order is the file, and the others are links to it.
    let mut inodes: HashMap<(u64, u64), RelPath> = HashMap::new();
    for entry in &mut found {
        if let Some(inode) = entry.shared {
            let first = inodes.entry(inode).or_insert_with(|| entry.path.clone());
            if *first != entry.path {
                entry.what = What::Link(first.clone());
            }
        }
    }
    let known = store.known_files(top)?;
    let hashed: Vec<(RelPath, Meta, Result<Node, RelPath>)> = found
        .into_par_iter()
        .map(|found| {
            let node = match found.what {
                What::Node(node) => Ok(node),
                What::Link(first) => Err(first),
                What::File { size, stat } => {
                    let digest = known.digest(store, &found.path.below(top), &stat)?;
                    Ok(Node::File { digest, size })
                }
            };
            Ok((found.path, found.meta, node))
        })
        .collect::<Result<_, IngestError>>()?;
    let changed = |source| IngestError::Tree { path: top.to_owned(), source };
    for (path, meta, node) in hashed {
        match node {
            Ok(node) => builder.insert(path, meta, node),
            Err(first) => builder.link(path, first),
        }
        .map_err(changed)?;
    }
    builder.finish().map_err(changed)
}

fn read_node(path: &Path, stat: &Metadata) -> Result<What, IngestError> {
    let kind = stat.file_type();
    let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    Ok(if kind.is_dir() {
        What::Node(Node::Dir)
    } else if kind.is_symlink() {
        let target = fs::read_link(path).on_file("read", path)?;
        What::Node(Node::Symlink(target.as_os_str().as_bytes().to_vec()))
    } else if kind.is_char_device() {
        What::Node(Node::CharDevice { major, minor })
    } else if kind.is_block_device() {
        What::Node(Node::BlockDevice { major, minor })
    } else if kind.is_fifo() {
        What::Node(Node::Fifo)
    } else if kind.is_socket() {
        What::Node(Node::Socket)
    } else {
        What::File { size: stat.size(), stat: Stat::of(path, stat) }
    })
}

fn read_meta(path: &Path, stat: &Metadata) -> Result<Meta, IngestError> {
    Ok(Meta {
        mode: (stat.mode() & 0o7777) as u16,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: stat.mtime(),
        xattrs: read_xattrs(path).on_file("read the xattrs of", path)?,
    })
}

fn read_xattrs(path: &Path) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    // Most files have none or a short list of them; 64 KiB is the kernel's own limit for the list and for each value.
    let mut short = [0; 256];
    let mut long = Vec::new();
    let list = match rustix::fs::llistxattr(path, &mut short[..]) {
        Ok(length) => &short[..length],
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(rustix::io::Errno::RANGE) => {
            long.resize(1 << 16, 0);
            let length = rustix::fs::llistxattr(path, &mut long[..])?;
            &long[..length]
        }
        Err(errno) => return Err(errno),
    };
    let mut xattrs = BTreeMap::new();
    for name in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let Ok(c_name) = CString::new(name) else { continue };
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, c_name.as_c_str(), &mut value[..])?;
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::digest::BlobDigest;
    use crate::testing::Folder;
    use crate::tree::Entry;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_folder_becomes_a_tree_with_its_links_modes_and_names() {
        let dir = Folder::new();
        let store = dir.store();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::write(top.join("etc/b"), "text").unwrap();
        fs::create_dir(top.join("tmp")).unwrap();
        fs::write(top.join("tmp/x"), "").unwrap();
        fs::set_permissions(top.join("etc/b"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(top.join("etc/b"), top.join("etc/a")).unwrap();
        symlink("etc/\u{e9}", top.join("link")).unwrap();
        fs::write(top.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
        let tree = directory_without(&store, &top, &|path| path.as_bytes() == b"tmp").unwrap();
        let entries: BTreeMap<_, _> = tree.entries().collect();
        assert_eq!(entries.len(), 5);
        assert_eq!(entries[&path("etc/b")], &Entry::Link(path("etc/a")));
        let inode = tree.inode(&path("etc/b")).unwrap();
        assert_eq!(inode.meta.mode, 0o4711);
        assert_eq!(inode.node, Node::File { digest: BlobDigest::of(b"text"), size: 4 });
        assert_eq!(tree.inode(&path("link")).unwrap().node, Node::Symlink("etc/\u{e9}".into()));
        assert!(tree.inode(&RelPath::new(b"\xff\xfe").unwrap()).is_some());
    }
}
