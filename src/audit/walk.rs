//! Walks through an initramfs and finds the squashfs images in it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use cache::BlobDigest;
use cache::digest::BlobHasher;
use cache::name::RelPath;
use serde::Serialize;

use crate::formats::initramfs::{self, Initramfs, Meta};
use crate::formats::iso9660;
use crate::formats::modules::{self, Modules};
use crate::formats::squashfs::{self, SUPERBLOCK};

/// Images in one initramfs that are looked at.
const MAX_IMAGES: usize = 64;

/// Bytes of a list of modules that are looked at.
const MAX_LIST: usize = 16 << 20;

/// What an initramfs holds.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Who made it, its archives.
    pub initramfs: Initramfs,
    /// The squashfs images in it.
    pub images: Vec<Inside>,
    /// What is in its regular files, as the kernel makes them: several names of one file have what was written last.
    pub digests: BTreeMap<RelPath, BlobDigest>,
    /// What everything says of itself.
    pub metas: BTreeMap<RelPath, Meta>,
    /// What its modules depend on.
    pub modules: Modules,
}

/// A squashfs inside an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inside {
    /// Its name in the archive, as it is written.
    pub name: String,
    /// Where it is once the initramfs is unpacked.
    pub path: String,
    /// Number of bytes.
    pub size: u64,
    /// Its digest.
    pub digest: BlobDigest,
    /// Which archive it is in.
    pub segment: usize,
    /// Whether it is a whole ISO, with the squashfs in it.
    pub is_iso: bool,
    /// What is wrong with its superblock.
    pub damage: Option<String>,
}

/// Reads a whole initramfs.
///
/// # Errors
/// It is none, is damaged, or is beyond any reason.
pub(super) fn walk(input: impl Read) -> io::Result<Walk> {
    // What is lost has its name for a path.
    let mut images: BTreeMap<String, Inside> = BTreeMap::new();
    let mut digests = BTreeMap::new();
    let mut metas = BTreeMap::new();
    let mut modules = Modules::default();
    let mut shared: BTreeMap<_, Vec<RelPath>> = BTreeMap::new();
    let mut buffer = vec![0; 1 << 18];
    let initramfs = initramfs::read_with(input, &mut |entry, content| {
        let written = format!("/{}", initramfs::plain_name(entry.name));
        let path = entry.path.map_or(written, |path| format!("/{path}"));
        // Of several entries of one name, the last is what is there.
        images.remove(&path);
        metas.extend(entry.path.map(|path| (path.clone(), entry.meta)));
        if !entry.is_file {
            return Ok(());
        }
        // dracut takes a local file for an ISO by its name.
        let is_iso = path.to_ascii_lowercase().ends_with(".iso");
        let mut head = Vec::new();
        let looked_at = if is_iso { iso9660::HEAD } else { SUPERBLOCK };
        content.take(looked_at as u64).read_to_end(&mut head)?;
        let is_iso = is_iso && iso9660::is_iso(&head);
        // A squashfs whose first bytes are damaged is known by its name, at the top of an appended archive.
        let is_named = entry.size > 0
            && entry.bare
            && entry.segment > 0
            && path.contains("squashfs")
            && !path[1..].contains('/');
        let mut hasher = BlobHasher::default();
        hasher.update(&head);
        let mut list = entry.path.filter(|at| modules::is_list(&at.to_string())).map(|_| head.clone());
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            if let Some(list) = list.as_mut().filter(|list| list.len() < MAX_LIST) {
                list.extend(&buffer[..read]);
            }
        }
        if let Some(list) = list {
            modules.add(&path, &String::from_utf8_lossy(&list));
        }
        let digest = hasher.finish();
        if let Some(at) = entry.path {
            digests.insert(at.clone(), digest);
            if let Some(file) = entry.shared {
                let names = shared.entry(file).or_default();
                // A name that brings nothing has what the others have; one that brings something gives it to all of them.
                let content = names.first().and_then(|first| digests.get(first).copied());
                let content = content.filter(|_| entry.size == 0).unwrap_or(digest);
                names.push(at.clone());
                digests.extend(names.iter().map(|name| (name.clone(), content)));
            }
        }
        if !(head.starts_with(squashfs::MAGIC) || is_named || is_iso) || images.len() >= MAX_IMAGES {
            return Ok(());
        }
        let lost = "no entry makes the folder that it lies in, so the kernel does not make it";
        let damage = if is_iso { None } else { squashfs::superblock(&head, entry.size).err() };
        let image = Inside {
            name: entry.name.to_owned(),
            path: path.clone(),
            size: entry.size,
            digest,
            segment: entry.segment,
            is_iso,
            damage: if entry.path.is_none() { Some(lost.to_owned()) } else { damage },
        };
        images.insert(path, image);
        Ok(())
    })?;
    Ok(Walk { initramfs, images: images.into_values().collect(), digests, metas, modules })
}
