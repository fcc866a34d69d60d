//! What is on the ISO.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use cache::name::RelPath;

use super::super::facts::{Kind, Part};
use super::super::set::names_in_set;
use super::super::sniff::{HEAD, kind_of, look};
use super::super::{place, walk};
use super::Gatherer;
use super::esp::Esp;
use super::plan::OwnLines;
use super::reading::{Finder, Source, menus_of};
use crate::formats::iso9660::Iso;
use crate::formats::kernel::{self, Inside};
use crate::formats::{checksums, squashfs};

/// Files of an ISO whose first bytes are looked at.
const MAX_LOOKS: usize = 512;

/// The files of an ISO and of its EFI system partitions.
struct Medium<'a> {
    iso: &'a Iso,
    esps: &'a [Esp],
    unreadable: Vec<(String, String)>,
}

impl Source for Medium<'_> {
    fn text(&mut self, name: &str) -> Option<String> {
        for esp in self.esps {
            if let Some((_, file)) = esp.files.iter().find(|(path, _)| esp.shown(path) == name) {
                return Some(String::from_utf8_lossy(&file.start).into_owned());
            }
        }
        Some(String::from_utf8_lossy(&self.bytes(name)?).into_owned())
    }
}

impl Medium<'_> {
    /// Reads a file of the ISO that is no longer than a text may be.
    fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let file = self.iso.file(name)?;
        let mut bytes = Vec::new();
        match self.iso.reader(file).take(place::MAX_TEXT).read_to_end(&mut bytes) {
            Ok(_) => Some(bytes),
            Err(error) => {
                self.unreadable.push((name.to_owned(), error.to_string()));
                None
            }
        }
    }
}

impl Finder for Medium<'_> {
    fn is_kernel(&self, name: &str) -> bool {
        let mut head = Vec::new();
        let file = self.iso.file(name.trim_start_matches('/'));
        let read = file.map(|file| self.iso.reader(file).take(HEAD as u64).read_to_end(&mut head));
        read.is_some_and(|read| read.is_ok()) && kind_of(name, &head) == Kind::Kernel
    }

    fn find(&mut self, form: &str, folder: &str) -> Result<Option<String>, ()> {
        // On a medium, a path with a slash in front is whole; PXELINUX writes :: in front of one.
        let form = form.trim_start_matches("::");
        let path = match form.strip_prefix('/') {
            Some(path) => path.trim_start_matches('/').to_owned(),
            None => names_in_set(form, folder)?.into_iter().next().unwrap_or_default(),
        };
        if let Some(path) = self.iso.resolve(&path).filter(|path| self.iso.files.contains_key(path)) {
            return Ok(Some(format!("/{path}")));
        }
        // ISOLINUX looks for its programs in several folders.
        if path.ends_with(".c32") {
            let file = path.rsplit('/').next().unwrap_or(&path);
            let mut names = self.iso.files.keys().map(ToString::to_string);
            if let Some(found) = names.find(|name| name.rsplit('/').next() == Some(file)) {
                return Ok(Some(format!("/{found}")));
            }
        }
        // What starts from the EFI system partition finds its files there as well.
        Ok(self.esps.iter().find_map(|esp| Some(esp.shown(esp.find(&path)?))))
    }

    fn is_folder(&self, form: &str, _: &str) -> bool {
        let inside = format!("{}/", form.trim_matches('/'));
        let on_esp = || self.esps.iter().flat_map(|esp| esp.files.keys());
        self.iso.files.keys().any(|path| path.to_string().starts_with(&inside))
            || on_esp()
                .any(|path| path.get(..inside.len()).is_some_and(|start| start.eq_ignore_ascii_case(&inside)))
    }
}

impl<'a> Gatherer<'a> {
    pub(super) fn iso_text(&mut self, path: &str) -> Option<String> {
        let mut medium = Medium { iso: self.iso, esps: &[], unreadable: Vec::new() };
        let text = medium.text(&format!("/{path}"));
        self.unreadable.append(&mut medium.unreadable);
        text
    }

    /// Reads the menus of the ISO and of its EFI system partition, and those they go on to.
    pub(super) fn read_iso_menus(&mut self) {
        let on_esp = |esp: &Esp| esp.files.keys().map(|path| esp.shown(path)).collect::<Vec<_>>();
        let names: Vec<String> = self
            .esps
            .iter()
            .flat_map(on_esp)
            .chain(self.iso.files.keys().rev().map(|path| format!("/{path}")))
            .collect();
        let mut medium = Medium { iso: self.iso, esps: &self.esps, unreadable: Vec::new() };
        self.menus = menus_of(&mut medium, names);
        let unreadable = medium.unreadable;
        self.unreadable.extend(unreadable);
    }

    pub(super) fn find_iso_parts(&mut self) {
        let named: BTreeSet<String> = self
            .menus
            .iter()
            .flat_map(|menu| &menu.entries)
            .flat_map(|entry| entry.kernel.iter().chain(entry.initrds.iter().filter_map(|i| i.part.as_ref())))
            .cloned()
            .collect();
        let mut looks = 0;
        // The largest ones first: kernels, initrds and images are no small files.
        let mut files: Vec<_> = self.iso.files.iter().collect();
        files.sort_by_key(|(_, file)| std::cmp::Reverse(file.size()));
        for (path, file) in files {
            let (path, depth) = (path.to_string(), path.names().count());
            let is_loaders = path.contains("grub/") || path.to_ascii_lowercase().contains("efi/");
            let name = format!("/{path}");
            if !named.contains(&name) && (depth > 3 || is_loaders || file.size() < 512 || looks >= MAX_LOOKS)
            {
                continue;
            }
            looks += 1;
            let mut head = Vec::new();
            let read = self.iso.reader(file).take(HEAD as u64).read_to_end(&mut head);
            if let Err(error) = read {
                self.unreadable.push((name, error.to_string()));
                continue;
            }
            let kind = kind_of(&path, &head);
            if matches!(kind, Kind::Kernel | Kind::Initramfs | Kind::Squashfs) {
                let part = look(Part::new(name.clone(), kind, file.size()), &head);
                self.iso_parts.insert(name, part);
            } else if let Some(other) = squashfs::other_image(&head) {
                self.other_images.push((name, other));
            }
        }
        // What a menu says is an initrd, is one, whatever it begins with.
        let mut named_kernels = BTreeSet::new();
        let menus = std::mem::take(&mut self.menus);
        for entry in menus.iter().flat_map(|menu| &menu.entries) {
            let initrds = entry.initrds.iter().filter(|i| i.inside.is_none()).filter_map(|i| i.part.as_ref());
            let kernel = entry.kernel.iter().filter(|_| !entry.is_memtest).map(|name| (name, Kind::Kernel));
            for (name, kind) in initrds.map(|name| (name, Kind::Initramfs)).chain(kernel) {
                if let Some(file) = self.iso.file(name.trim_start_matches('/')) {
                    self.iso_parts
                        .entry(name.clone())
                        .or_insert_with(|| Part::new(name.clone(), kind, file.size()));
                    if kind == Kind::Kernel {
                        named_kernels.insert(name.clone());
                    }
                }
            }
        }
        self.menus = menus;
        for name in named_kernels {
            let Some(file) = self.iso.file(name.trim_start_matches('/')) else { continue };
            let Some(part) = self.iso_parts.get_mut(&name).filter(|part| part.kernel.is_none()) else {
                continue;
            };
            let mut head = Vec::new();
            match self.iso.reader(file).take(kernel::HEAD as u64).read_to_end(&mut head) {
                Ok(_) => part.kernel = kernel::detect_named(&head),
                Err(error) => self.unreadable.push((name, error.to_string())),
            }
        }
    }

    /// Reads the checksums that catalyst puts on an ISO (`livecd/verify`).
    pub(super) fn read_own_checksums(&mut self) -> Option<Result<OwnLines<'a>, String>> {
        let iso = self.iso;
        let mut tops = iso.files.keys().map(ToString::to_string).filter(|name| !name.contains('/'));
        let name = tops.find(|name| checksums::is_named_like_checksums(name))?;
        let mut medium = Medium { iso: self.iso, esps: &[], unreadable: Vec::new() };
        let bytes = medium.bytes(&format!("/{name}"));
        self.unreadable.append(&mut medium.unreadable);
        let bytes = bytes?;
        // Names are bytes, of whatever encoding: each is read as one character, and put back.
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let text: String = text.iter().copied().map(char::from).collect();
        Some(checksums::parse(&name, &text).map(|parsed| {
            let line = |line: checksums::Checksum| {
                let below_top = line.name.trim_start_matches("./").trim_start_matches('/');
                let name: Vec<u8> = line.name.chars().filter_map(|c| u8::try_from(c).ok()).collect();
                // A character is a byte.
                let on_iso = &name[name.len().saturating_sub(below_top.chars().count())..];
                let as_it_is = RelPath::new(on_iso).ok().and_then(|path| iso.files.get(&path));
                let file = as_it_is.or_else(|| iso.file(&String::from_utf8_lossy(on_iso)));
                (checksums::Checksum { name: String::from_utf8_lossy(&name).into_owned(), ..line }, file)
            };
            parsed.files.into_iter().map(line).collect()
        }))
    }

    /// Looks into the ISO's kernels for what their first bytes do not tell; one whose bytes are in the set was read there.
    pub(super) fn look_into_iso_kernels(&mut self, parts: &BTreeMap<String, Part>) {
        let iso = self.iso;
        for part in self.iso_parts.values_mut() {
            let digest = part.digest();
            let Some(kernel) = part.kernel.as_mut().filter(|kernel| kernel.hides_more()) else { continue };
            let same = parts.values().find(|other| digest.is_some() && other.digest() == digest);
            if let Some(same) = same.and_then(|same| same.kernel.as_ref()) {
                kernel.learn(Inside { release: same.release.clone(), is_cut: same.is_cut });
                continue;
            }
            let Some(file) = iso.file(part.name.trim_start_matches('/')) else { continue };
            match kernel.look_inside(iso.reader(file)) {
                Ok(inside) => kernel.learn(inside),
                Err(error) => self.unreadable.push((part.name.clone(), error.to_string())),
            }
        }
    }

    /// Looks at the tables of the ISO's squashfs; returns what is wrong with them.
    pub(super) fn tables(&mut self, squashfs: Option<&str>) -> Option<String> {
        let part = self.iso_parts.get(squashfs?)?;
        part.superblock.as_ref()?.as_ref().ok()?;
        let file = self.iso.file(part.name.trim_start_matches('/'))?;
        match squashfs::tables(&part.head, |buffer, at| self.iso.read_exact_at(file, buffer, at)) {
            Ok(wrong) => wrong,
            Err(error) => {
                self.unreadable.push((part.name.clone(), error.to_string()));
                None
            }
        }
    }

    /// Walks the ISO's initrds; one whose bytes are those of the set's was walked with it.
    pub(super) fn walk_iso_initrds(&mut self, parts: &BTreeMap<String, Part>) {
        let iso = self.iso;
        for part in self.iso_parts.values_mut().filter(|part| part.kind == Kind::Initramfs) {
            let same = parts.values().find(|other| other.walk.is_some() && other.digest() == part.digest());
            part.walk = match same {
                Some(same) => same.walk.clone(),
                None => iso
                    .file(part.name.trim_start_matches('/'))
                    .map(|file| walk::walk(iso.reader(file)).map_err(|error| error.to_string())),
            };
        }
    }
}
