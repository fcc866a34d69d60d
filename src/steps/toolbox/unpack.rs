//! Puts the files of packages together into one tree, as dpkg would leave them (`deb(5)`, `deb-control(5)`) on a system where `/bin`,
//! `/sbin` and `/lib` are links into `/usr`.
//!
//! Owners, set-user-id bits and extended attributes are left out: tools run as root of their sandbox. `/etc/passwd` and `/etc/group`
//! name root, and `/var/lib/dpkg/status` the packages.

use std::collections::BTreeMap;
use std::io::{self, Write};

use cache::file::OnFile;
use cache::ingest::{Tar, TarError};
use cache::name::{FileName, NameError, RelPath, follow};
use cache::objects::BlobWriter;
use cache::source::Slices;
use cache::tree::{Inode, Meta, TreeBuilder};
use cache::{BlobDigest, Bytes, Entry, Node, Objects, Tree};
use graph::{Cancel, StepError};

use super::super::exclude::Excluded;
use super::super::packages::deb;
use super::super::watched::Watched;
use crate::formats::control::field;

/// Folders at the top that are links into `/usr`.
const MERGED: [&str; 7] = ["bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin"];

/// Files that every toolbox has, where no package has them.
const OWN: [(&str, &str); 2] =
    [("etc/group", "root:x:0:\n"), ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")];

/// Where dpkg lists what is installed.
const STATUS: &str = "var/lib/dpkg/status";

/// Why a package could not be taken into a toolbox.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// It is no package, or a damaged one.
    #[error("{package} cannot be read")]
    Package { package: String, source: io::Error },
    /// Its files cannot be unpacked.
    #[error("the files of {package} cannot be unpacked")]
    Files { package: String, source: TarError },
    /// It has something that only root could unpack.
    #[error("{package} has /{path}, which is a device, a pipe or a socket")]
    Special { package: String, path: RelPath },
    /// Two packages have the same file.
    #[error("{one} and {other} both have /{path}, and neither says that it replaces the other")]
    Both { one: String, other: String, path: RelPath },
    /// A link is to be where something else is.
    #[error("links: {package} has /{path} already")]
    Taken { package: String, path: RelPath },
}

impl From<UnpackError> for StepError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Taken { .. } => Self::spec(error),
            _ => Self::action(error),
        }
    }
}

/// A package, read to its end.
pub(super) struct Unpacked {
    name: String,
    control: String,
    tar: Tar,
    /// The bytes of the archive of its files.
    bytes: Vec<u8>,
}

impl Unpacked {
    /// Reads a package; `most` bytes may become of it.
    pub(super) fn read(name: &str, package: &[u8], most: u64, cancel: &Cancel) -> Result<Self, UnpackError> {
        let unreadable = |source| UnpackError::Package { package: name.to_owned(), source };
        let control = deb::control(package).map_err(unreadable)?;
        let inner = deb::data(package).map_err(unreadable)?;
        let mut bytes = Vec::new();
        let tar = cache::ingest::tar(Watched { inner, read: 0, most, cancel }, &mut bytes)
            .map_err(|source| UnpackError::Files { package: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), control, tar, bytes })
    }

    /// Tells whether it says that it takes over files of the package of that name.
    fn replaces(&self, name: &str) -> bool {
        let replaced = field(&self.control, "Replaces").unwrap_or_default();
        let names = replaced.split(',').filter_map(|one| one.split_whitespace().next());
        names.map(|one| one.split_once(':').map_or(one, |(one, _)| one)).any(|one| one == name)
    }
}

/// Returns where something is on a system whose `/bin` is a link into `/usr`.
fn merged(path: &RelPath) -> RelPath {
    let first = path.names().next().unwrap_or_default();
    if !MERGED.iter().any(|name| name.as_bytes() == first) {
        return path.clone();
    }
    RelPath::new(&[b"usr/", path.as_bytes()].concat()).unwrap_or_else(|_| path.clone())
}

/// Returns the path of a link, by the name it has in a spec.
pub(super) fn link_path(name: &str) -> Result<RelPath, NameError> {
    match name.strip_prefix('/') {
        Some(path) => RelPath::new(path.as_bytes()).map(|path| merged(&path)),
        None => RelPath::new(format!("usr/bin/{name}").as_bytes()),
    }
}

/// Returns what a toolbox keeps of an inode's meta data.
fn plain(meta: &Meta) -> Meta {
    Meta { mode: meta.mode & 0o777, mtime: meta.mtime, ..Meta::default() }
}

/// Packages being put together; the bytes of their files go into one object.
pub(super) struct Unpacking<'a> {
    objects: &'a Objects,
    excluded: &'a Excluded,
    pack: BlobWriter<'a>,
    /// Bytes in the pack so far.
    end: u64,
    slices: Slices,
    /// What there is, and which package it is of.
    entries: BTreeMap<RelPath, (usize, Entry)>,
    /// Of each package the name, and without its files what was read of it.
    packages: Vec<Unpacked>,
}

impl<'a> Unpacking<'a> {
    pub(super) fn new(objects: &'a Objects, excluded: &'a Excluded) -> Result<Self, StepError> {
        Ok(Self {
            objects,
            excluded,
            pack: objects.writer()?,
            end: 0,
            slices: Slices::default(),
            entries: BTreeMap::new(),
            packages: Vec::new(),
        })
    }

    /// Adds the files of a package.
    pub(super) fn add(&mut self, mut package: Unpacked) -> Result<(), StepError> {
        let number = self.packages.len();
        let tree = std::mem::replace(
            &mut package.tar.tree,
            TreeBuilder::default().finish().map_err(StepError::action)?,
        );
        self.packages.push(package);
        for (path, entry) in tree.entries() {
            // What would be a link at the top is made in the end.
            let is_top_link =
                path.is_in(None) && tree.inode(path).is_some_and(|inode| is_symlink(&inode.node));
            let place = merged(path);
            if is_top_link && place != *path || self.excluded.has(&place) {
                continue;
            }
            let entry = match entry {
                Entry::Link(first) => Entry::Link(merged(first)),
                Entry::Inode(inode) => {
                    Entry::Inode(Inode { meta: plain(&inode.meta), node: inode.node.clone() })
                }
            };
            if let Entry::Inode(Inode { node, .. }) = &entry
                && !matches!(node, Node::Dir | Node::File { .. } | Node::Symlink(_))
            {
                let package = self.packages[number].name.clone();
                return Err(UnpackError::Special { package, path: place }.into());
            }
            self.put(number, place, entry)?;
        }
        let package = &mut self.packages[number];
        let bytes = std::mem::take(&mut package.bytes);
        for (digest, start) in std::mem::take(&mut package.tar.slices.0) {
            self.slices.0.entry(digest).or_insert(self.end + start);
        }
        self.append(&bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        self.pack.write_all(bytes).on_file("write", "the pack of the toolbox")?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Puts something where it belongs, or leaves what is there, as the packages say.
    fn put(&mut self, number: usize, path: RelPath, entry: Entry) -> Result<(), StepError> {
        if let Some((holder, there)) = self.entries.get(&path) {
            let is_dir = |entry: &Entry| matches!(entry, Entry::Inode(Inode { node: Node::Dir, .. }));
            let leads_on = |entry: &Entry| matches!(entry, Entry::Inode(inode) if is_symlink(&inode.node));
            let (one, other) = (&self.packages[*holder], &self.packages[number]);
            // What is in a folder that another package has as a link goes where the link leads.
            let stays = is_dir(&entry) && (is_dir(there) || leads_on(there));
            if stays || is_same(there, &entry) || one.replaces(&other.name) {
                return Ok(());
            }
            if !(is_dir(there) && leads_on(&entry) || other.replaces(&one.name)) {
                let (one, other) = (one.name.clone(), other.name.clone());
                return Err(UnpackError::Both { one, other, path }.into());
            }
        }
        self.entries.insert(path, (number, entry));
        Ok(())
    }

    /// Adds a link that no package has.
    pub(super) fn link(&mut self, name: &str, target: &str) -> Result<(), StepError> {
        let path = link_path(name).map_err(StepError::spec)?;
        let node = Node::Symlink(target.as_bytes().to_vec());
        let entry = Entry::Inode(Inode { meta: Meta::plain(0o777), node });
        if let Some((holder, there)) = self.entries.get(&path) {
            if is_same(there, &entry) {
                return Ok(());
            }
            let package =
                self.packages.get(*holder).map_or("another link", |package| &package.name).to_owned();
            return Err(UnpackError::Taken { package, path }.into());
        }
        self.entries.insert(path, (usize::MAX, entry));
        Ok(())
    }

    /// Adds a file that no package has.
    fn write(&mut self, path: &str, text: &str) -> Result<(), StepError> {
        let path = RelPath::new(path.as_bytes()).map_err(StepError::spec)?;
        if !self.entries.contains_key(&path) {
            let digest = BlobDigest::of(text.as_bytes());
            self.slices.0.entry(digest).or_insert(self.end);
            self.append(text.as_bytes())?;
            let node = Node::File { digest, size: text.len() as u64 };
            self.entries.insert(path, (usize::MAX, Entry::Inode(Inode { meta: Meta::plain(0o644), node })));
        }
        Ok(())
    }

    /// Makes the tree; returns where its bytes are as well.
    pub(super) fn finish(mut self) -> Result<(Tree, Bytes), StepError> {
        for name in MERGED {
            let place = RelPath::new(format!("usr/{name}").as_bytes()).map_err(StepError::spec)?;
            if self.entries.contains_key(&place) {
                let node = Node::Symlink(place.as_bytes().to_vec());
                let entry = Entry::Inode(Inode { meta: Meta::plain(0o777), node });
                let name = FileName::new(name.as_bytes()).map_err(StepError::spec)?;
                self.entries.insert(name.into(), (usize::MAX, entry));
            }
        }
        for (path, text) in OWN {
            self.write(path, text)?;
        }
        let status: String = self.packages.iter().map(|package| status(&package.control)).collect();
        self.write(STATUS, &status)?;
        let pack = self.pack.commit()?.digest;
        let index = self.objects.put(&self.slices.encode())?.digest;
        let tree = tree_of(&self.entries)?;
        Ok((tree, Bytes::Pack { pack, index }))
    }
}

/// Returns what dpkg writes of an installed package.
fn status(control: &str) -> String {
    format!("{}\nStatus: install ok installed\n\n", control.trim_end())
}

fn is_symlink(node: &Node) -> bool {
    matches!(node, Node::Symlink(_))
}

/// Tells whether two entries are the same but for their times.
fn is_same(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Inode(one), Entry::Inode(other)) => {
            one.node == other.node && one.meta.mode == other.meta.mode
        }
        (one, other) => one == other,
    }
}

/// Makes a tree of entries; what a package has behind a link of another package goes where the link leads, as when dpkg unpacks it.
fn tree_of(entries: &BTreeMap<RelPath, (usize, Entry)>) -> Result<Tree, StepError> {
    let link = |at: &RelPath| match &entries.get(at)?.1 {
        Entry::Inode(Inode { node: Node::Symlink(target), .. }) => Some(target.clone()),
        _ => None,
    };
    let place = |path: &RelPath| -> Option<RelPath> {
        let folder = follow(path.parent()?.as_bytes(), link)?;
        Some(folder.join(&FileName::new(path.file_name()).ok()?))
    };
    let mut builder = TreeBuilder::new(Meta::plain(0o755));
    for (path, (_, entry)) in entries {
        let path = place(path).unwrap_or_else(|| path.clone());
        builder.insert_parents(&path);
        match entry {
            Entry::Link(first) => builder.link(path, place(first).unwrap_or_else(|| first.clone())),
            // A folder may be there already, where a link leads.
            Entry::Inode(inode) if inode.node == Node::Dir && builder.get(&path).is_some() => Ok(()),
            Entry::Inode(inode) => builder.insert(path, inode.meta.clone(), inode.node.clone()),
        }
        .map_err(StepError::action)?;
    }
    builder.finish().map_err(StepError::action)
}

#[cfg(test)]
mod tests {
    use cache::testing::Folder;

    use super::*;

    /// A member of a package.
    enum File<'a> {
        Dir,
        Text(&'a str, u32),
        Link(&'a str),
        Fifo,
    }
    use File::{Dir, Fifo, Link, Text};

    fn tar(files: &[(&str, File<'_>)]) -> Vec<u8> {
        let mut tar = ::tar::Builder::new(Vec::new());
        for (path, file) in files {
            let mut header = ::tar::Header::new_gnu();
            header.set_mtime(1_700_000_000);
            header.set_uid(1000);
            header.set_gid(50);
            let (kind, mode, bytes) = match file {
                Dir => (::tar::EntryType::Directory, 0o755, ""),
                Text(text, mode) => (::tar::EntryType::Regular, *mode, *text),
                Link(target) => {
                    header.set_link_name(target).unwrap();
                    (::tar::EntryType::Symlink, 0o777, "")
                }
                Fifo => (::tar::EntryType::Fifo, 0o644, ""),
            };
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    /// Makes a package; `more` are further fields of its control file.
    fn package(name: &str, more: &str, files: &[(&str, File<'_>)]) -> Vec<u8> {
        let control = format!("Package: {name}\nVersion: 1\n{more}");
        let member = |name: &str, content: &[u8]| {
            let mut bytes = format!("{name:<16}{:<32}{:<10}`\n", "", content.len()).into_bytes();
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
            bytes
        };
        let parts = [
            member("debian-binary", b"2.0\n"),
            member("control.tar", &tar(&[("./control", Text(&control, 0o644))])),
            member("data.tar", &tar(files)),
        ];
        [b"!<arch>\n".to_vec(), parts.concat()].concat()
    }

    /// Puts packages together; returns the tree as lines, and its digest.
    fn put_together(
        packages: &[(&str, Vec<u8>)],
        links: &[(&str, &str)],
    ) -> Result<(Vec<String>, String), StepError> {
        let dir = Folder::new();
        let store = dir.store();
        let excluded = Excluded::new(&["usr/share/doc/**".to_owned()])?;
        let mut unpacking = Unpacking::new(&store, &excluded)?;
        for (name, bytes) in packages {
            unpacking.add(Unpacked::read(name, bytes, 1 << 20, &Cancel::default())?)?;
        }
        for (name, target) in links {
            unpacking.link(name, target)?;
        }
        let (tree, bytes) = unpacking.finish()?;
        let digest = store.put_tree(&tree)?;
        let opened = store.open_tree(&digest, &bytes)?;
        let mut lines = Vec::new();
        for (path, _) in tree.entries() {
            let inode = tree.inode(path).unwrap();
            lines.push(match &inode.node {
                Node::Symlink(target) => format!("{path} -> {}", String::from_utf8_lossy(target)),
                Node::File { digest, size } => {
                    let mut text = String::new();
                    let mut file = opened.open_file(&store, path, digest, *size)?;
                    io::Read::read_to_string(&mut file, &mut text).unwrap();
                    format!("{path} {:o} {text}", inode.meta.mode)
                }
                _ => continue,
            });
        }
        Ok((lines, digest.to_string()))
    }

    fn refusal(packages: &[(&str, Vec<u8>)], links: &[(&str, &str)]) -> String {
        cache::causes(&put_together(packages, links).unwrap_err()).join(": ")
    }

    #[test]
    fn packages_become_one_root_with_links_into_usr_and_its_digest_is_pinned() {
        let one = package(
            "one",
            "",
            &[
                ("./", Dir),
                ("./bin/", Dir),
                ("./bin/mount", Text("suid", 0o4755)),
                ("./usr/share/doc/one/x", Text("left out", 0o644)),
                ("./usr/lib/x86/libone.so", Link("libone.so.1")),
            ],
        );
        // As Debian 13's base-files has it; and a file behind a link of another package.
        let two = package(
            "two",
            "",
            &[
                ("./bin", Link("usr/bin")),
                ("./usr/bin/two", Text("two", 0o755)),
                ("./usr/data", Link("share/real")),
                ("./usr/share/real/", Dir),
            ],
        );
        let six = package("six", "", &[("./usr/data/six", Text("behind a link", 0o600))]);
        let (lines, digest) =
            put_together(&[("one", one), ("six", six), ("two", two)], &[("sh", "two"), ("/lib/x", "y")])
                .unwrap();
        let expected = [
            "bin -> usr/bin",
            "etc/group 644 root:x:0:\n",
            "etc/passwd 644 root:x:0:0:root:/root:/bin/sh\n",
            "lib -> usr/lib",
            "usr/bin/mount 755 suid",
            "usr/bin/sh -> two",
            "usr/bin/two 755 two",
            "usr/data -> share/real",
            "usr/lib/x -> y",
            "usr/lib/x86/libone.so -> libone.so.1",
            "usr/share/real/six 600 behind a link",
        ];
        assert_eq!(&lines[..expected.len()], expected);
        assert!(
            lines[expected.len()].starts_with("var/lib/dpkg/status 644 Package: one\nVersion: 1\nStatus: ")
        );
        assert_eq!(digest, "80407ac00fae1e2fdad3ee0dc242399894ece4ee4086365983fe273eb32c9ea2");
    }

    #[test]
    fn of_two_packages_with_one_file_the_one_that_says_so_has_it() {
        let old = || ("old", package("old", "", &[("./usr/x", Text("old", 0o644))]));
        let new = |more| ("new", package("new", more, &[("./usr/x", Text("new", 0o644))]));
        for pair in [[old(), new("Replaces: a, old (<< 2)\n")], [new("Replaces: old\n"), old()]] {
            let (lines, _) = put_together(&pair, &[]).unwrap();
            assert!(lines.contains(&"usr/x 644 new".to_owned()), "{lines:?}");
        }
        let why = refusal(&[old(), new("")], &[]);
        assert_eq!(why, "old and new both have /usr/x, and neither says that it replaces the other");
        let same = ("new", package("new", "", &[("./usr/x", Text("old", 0o644))]));
        assert!(put_together(&[old(), same], &[]).is_ok());
    }

    #[test]
    fn what_cannot_be_in_a_toolbox_is_refused_by_name() {
        let with = |file| [("one", package("one", "", &[("./usr/x", file)]))];
        assert_eq!(refusal(&with(Fifo), &[]), "one has /usr/x, which is a device, a pipe or a socket");
        let taken = refusal(&with(Text("", 0o644)), &[("/usr/x", "y")]);
        assert_eq!(taken, "links: one has /usr/x already");
        let large = "x".repeat(2 << 20);
        assert!(refusal(&with(Text(&large, 0o644)), &[]).contains("unpacks to more than 1 MiB"));
        let whole = package("one", "", &[("./usr/x", Text("x", 0o644))]);
        for cut in [0, 7, 60, 700, whole.len() - 1200] {
            let why = refusal(&[("one", whole[..cut].to_vec())], &[]);
            assert!(
                why.starts_with("one cannot be read") || why.starts_with("the files of one"),
                "{cut}: {why}"
            );
        }
        let mut climbing = package("one", "", &[("./usr/xx", Text("x", 0o644))]);
        let at =
            climbing.windows(8).rposition(|window| window == b"./usr/xx" || window == b"usr/xx\0\0").unwrap();
        climbing[at..at + 6].copy_from_slice(b"../../");
        assert!(refusal(&[("one", climbing)], &[]).starts_with("the files of one"));
    }
}
