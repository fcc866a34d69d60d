//! Inodes and directory listings.

use std::collections::BTreeMap;

use cache::name::RelPath;
use cache::tree::{Inode, Meta, Node};

use super::data::{Content, Data};
use super::entries::{Entries, Ids, ROOT_NUMBER};
use super::error::WriteError;
use super::metadata::{MetadataWriter, Place};
use super::options::Options;
use super::xattr;

/// Entries behind one header of a listing, at most.
const RUN: usize = 256;

/// What a listing's size counts beyond its bytes: the entries `.` and `..`, which are not written.
const LISTING_EXTRA: u32 = 3;

/// The numbers of the basic inodes; the extended ones are 7 higher.
const EXTENDED: u16 = 7;

/// The number of a folder.
const DIR: u16 = 1;

/// The number of a file.
const FILE: u16 = 2;

/// What finished inodes consist of: inode stream, directory stream, export rows, lost xattrs.
type Finished = (Vec<u8>, Vec<u8>, Vec<u8>, BTreeMap<RelPath, Vec<u8>>);

pub(super) struct InodeWriter<'a> {
    options: &'a Options,
    ids: &'a Ids,
    data: &'a Data,
    xattrs: &'a mut xattr::Table,
    inodes: MetadataWriter<'a>,
    directories: MetadataWriter<'a>,
    /// Where each inode that is written is, by number.
    places: Vec<Option<Place>>,
    dropped: BTreeMap<RelPath, Vec<u8>>,
}

/// A name in a folder.
struct Child<'a> {
    name: &'a [u8],
    path: &'a RelPath,
    inode: &'a Inode,
    number: u32,
}

/// A folder and what is in it.
struct Folder<'a> {
    /// `None` for the top.
    path: Option<&'a RelPath>,
    meta: &'a Meta,
    number: u32,
    parent: u32,
    children: Vec<Child<'a>>,
}

impl<'a> Folder<'a> {
    /// Returns all folders, those above before those below them.
    fn all(root: &'a Meta, entries: &Entries<'a>) -> Vec<Self> {
        // The kernel knows the top folder by a parent number that no inode has.
        let parent = entries.inode_count() + 1;
        let mut folders =
            vec![Folder { path: None, meta: root, number: ROOT_NUMBER, parent, children: Vec::new() }];
        let mut open = vec![0];
        for (path, inode, number) in &entries.all {
            // As on a walk, this is in the folder that was opened last, or in one above that.
            while let Some(last) = open.pop_if(|last| !path.is_in(folders[*last].path)) {
                debug_assert!(last > 0, "{path} is in no folder");
            }
            let above = open.last().copied().unwrap_or_default();
            folders[above].children.push(Child { name: path.file_name(), path, inode, number: *number });
            if inode.node == Node::Dir {
                let parent = folders[above].number;
                open.push(folders.len());
                folders.push(Folder {
                    path: Some(path),
                    meta: &inode.meta,
                    number: *number,
                    parent,
                    children: Vec::new(),
                });
            }
        }
        folders
    }
}

/// Where a folder's listing is.
struct Listing {
    place: Place,
    size: u32,
    /// For large folders: offset in the listing, block of the stream and first name, at each new block.
    index: Vec<(u32, u32, Vec<u8>)>,
}

impl<'a> InodeWriter<'a> {
    pub(super) fn new(
        options: &'a Options,
        ids: &'a Ids,
        data: &'a Data,
        xattrs: &'a mut xattr::Table,
    ) -> Self {
        Self {
            options,
            ids,
            data,
            xattrs,
            inodes: MetadataWriter::new(options),
            directories: MetadataWriter::new(options),
            places: Vec::new(),
            dropped: BTreeMap::new(),
        }
    }

    /// Writes all inodes; returns the reference of the top folder's.
    pub(super) fn write_all(&mut self, root: &Meta, entries: &Entries<'_>) -> Result<u64, WriteError> {
        self.places = vec![None; entries.inode_count() as usize];
        // What is listed is written before the list.
        for folder in Folder::all(root, entries).iter().rev() {
            for child in &folder.children {
                if child.inode.node != Node::Dir && self.place(child.number).is_none() {
                    self.write_plain(child, entries.links(child.number))?;
                }
            }
            self.write_folder(folder)?;
        }
        Ok(self.place(ROOT_NUMBER).map_or(0, Place::reference))
    }

    pub(super) fn finish(self) -> Result<Finished, WriteError> {
        let export = self.places.iter().flatten().flat_map(|place| place.reference().to_le_bytes()).collect();
        Ok((self.inodes.finish()?.0, self.directories.finish()?.0, export, self.dropped))
    }

    /// Returns where an inode is, once it is written.
    fn place(&self, number: u32) -> Option<Place> {
        self.places[(number - ROOT_NUMBER) as usize]
    }

    fn header(&self, kind: u16, meta: &Meta, number: u32) -> Vec<u8> {
        let latest = if self.options.clamp_mtime { self.options.epoch } else { u32::MAX };
        let mtime = u32::try_from(meta.mtime.max(0)).unwrap_or(u32::MAX).min(latest);
        let mut bytes = Vec::with_capacity(64);
        for half in [kind, meta.mode, self.ids.place(meta.uid), self.ids.place(meta.gid)] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        words(&mut bytes, &[mtime, number]);
        bytes
    }

    fn xattrs(&mut self, path: Option<&RelPath>, meta: &Meta) -> u32 {
        let (number, dropped) = self.xattrs.add(&meta.xattrs);
        if let (Some(path), false) = (path, dropped.is_empty()) {
            self.dropped.insert(path.clone(), dropped.join(&b", "[..]));
        }
        number
    }

    fn write_inode(&mut self, number: u32, bytes: &[u8]) -> Result<(), WriteError> {
        self.places[(number - ROOT_NUMBER) as usize] = Some(self.inodes.place());
        self.inodes.write(bytes)
    }

    /// Writes the inode of anything but a folder.
    fn write_plain(&mut self, child: &Child<'_>, links: u32) -> Result<(), WriteError> {
        let Child { path, inode: Inode { meta, node }, number, .. } = child;
        let xattrs = self.xattrs(Some(path), meta);
        if let Node::File { digest, size } = node {
            let Some(content) = self.data.files.get(digest) else { return Err(WriteError::Stopped) };
            let bytes = self.file(meta, *number, *size, links, xattrs, content);
            return self.write_inode(*number, &bytes);
        }
        let kind = listing_kind(node) + if xattrs == xattr::NONE { 0 } else { EXTENDED };
        let mut bytes = self.header(kind, meta, *number);
        words(&mut bytes, &[links]);
        match node {
            Node::Symlink(target) => {
                words(&mut bytes, &[target.len() as u32]);
                bytes.extend_from_slice(target);
            }
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                // The kernel's `new_encode_dev`.
                words(&mut bytes, &[(minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)]);
            }
            Node::File { .. } | Node::Dir | Node::Fifo | Node::Socket => {}
        }
        if xattrs != xattr::NONE {
            words(&mut bytes, &[xattrs]);
        }
        self.write_inode(*number, &bytes)
    }

    fn file(
        &self,
        meta: &Meta,
        number: u32,
        size: u64,
        links: u32,
        xattrs: u32,
        content: &Content,
    ) -> Vec<u8> {
        let (fragment, offset) = content.fragment;
        let holes = content.holes(self.options.block_size);
        let basic = match (u32::try_from(content.start), u32::try_from(size)) {
            (Ok(start), Ok(size)) if links == 1 && xattrs == xattr::NONE && holes == 0 => {
                Some([start, fragment, offset, size])
            }
            _ => None,
        };
        let mut bytes;
        match basic {
            Some(fields) => {
                bytes = self.header(FILE, meta, number);
                words(&mut bytes, &fields);
            }
            None => {
                bytes = self.header(FILE + EXTENDED, meta, number);
                for long in [content.start, size, holes] {
                    bytes.extend_from_slice(&long.to_le_bytes());
                }
                words(&mut bytes, &[links, fragment, offset, xattrs]);
            }
        }
        words(&mut bytes, &content.sizes());
        bytes
    }

    /// Writes a folder whose children are written: its listing and its inode.
    fn write_folder(&mut self, folder: &Folder<'_>) -> Result<(), WriteError> {
        let Folder { path, meta, number, parent, children } = folder;
        let listing = self.write_listing(children)?;
        let links = 2 + children.iter().filter(|child| child.inode.node == Node::Dir).count() as u32;
        let xattrs = self.xattrs(*path, meta);
        let Place { block, offset } = listing.place;
        let size = listing.size + LISTING_EXTRA;
        if let (Ok(size), true, true) = (u16::try_from(size), xattrs == xattr::NONE, listing.index.is_empty())
        {
            let mut bytes = self.header(DIR, meta, *number);
            words(&mut bytes, &[block, links]);
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
            words(&mut bytes, &[*parent]);
            return self.write_inode(*number, &bytes);
        }
        let mut bytes = self.header(DIR + EXTENDED, meta, *number);
        words(&mut bytes, &[links, size, block, *parent]);
        // The kernel counts index entries with 16 bits; a folder with more is found by walking on.
        let index = &listing.index[..listing.index.len().min(usize::from(u16::MAX))];
        bytes.extend_from_slice(&(index.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&offset.to_le_bytes());
        words(&mut bytes, &[xattrs]);
        for (at, block, name) in index {
            words(&mut bytes, &[*at, *block, name.len() as u32 - 1]);
            bytes.extend_from_slice(name);
        }
        self.write_inode(*number, &bytes)
    }

    /// Writes the listing of a folder whose children are written.
    fn write_listing(&mut self, children: &[Child<'_>]) -> Result<Listing, WriteError> {
        let place = self.directories.place();
        let mut listing = Listing { place, size: 0, index: Vec::new() };
        let mut last_block = place.block;
        let mut left = children;
        while let Some(first) = left.first() {
            let base = self.place_of(first);
            // Entries behind one header share the inode block, and their numbers are close together.
            let fits = |child: &Child<'_>| {
                let delta = i64::from(child.number) - i64::from(first.number);
                self.place_of(child).block == base.block && i16::try_from(delta).is_ok()
            };
            let length = left.iter().take(RUN).take_while(|child| fits(child)).count();
            let (run, rest) = left.split_at(length);
            left = rest;
            let at = self.directories.place();
            if at.block != last_block {
                listing.index.push((listing.size, at.block, first.name.to_vec()));
                last_block = at.block;
            }
            let mut bytes = Vec::new();
            words(&mut bytes, &[run.len() as u32 - 1, base.block, first.number]);
            for child in run {
                let delta = (i64::from(child.number) - i64::from(first.number)) as i16;
                bytes.extend_from_slice(&self.place_of(child).offset.to_le_bytes());
                bytes.extend_from_slice(&delta.to_le_bytes());
                bytes.extend_from_slice(&listing_kind(&child.inode.node).to_le_bytes());
                bytes.extend_from_slice(&(child.name.len() as u16 - 1).to_le_bytes());
                bytes.extend_from_slice(child.name);
            }
            self.directories.write(&bytes)?;
            listing.size += bytes.len() as u32;
        }
        Ok(listing)
    }

    fn place_of(&self, child: &Child<'_>) -> Place {
        self.place(child.number).unwrap_or(Place { block: 0, offset: 0 })
    }
}

/// Returns the number of a kind, as listings and basic inodes have it.
fn listing_kind(node: &Node) -> u16 {
    match node {
        Node::Dir => DIR,
        Node::File { .. } => FILE,
        Node::Symlink(_) => 3,
        Node::BlockDevice { .. } => 4,
        Node::CharDevice { .. } => 5,
        Node::Fifo => 6,
        Node::Socket => 7,
    }
}

fn words(bytes: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
}
