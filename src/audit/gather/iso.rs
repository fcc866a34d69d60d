//! What is on the ISO.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::super::facts::{Kind, Part};
use super::super::set::names_in_set;
use super::super::sniff::{HEAD, kind_of, loader_of, look, parse};
use super::super::{place, walk};
use super::Gatherer;
use super::menus::{Context, Reading, resolve};
use super::plan::OwnLines;
use crate::formats::{checksums, squashfs};

/// Files of an ISO whose first bytes are looked at.
const MAX_LOOKS: usize = 512;

impl<'a> Gatherer<'a> {
    pub(super) fn iso_text(&mut self, path: &str) -> Option<String> {
        let file = self.iso.file(path)?;
        let mut text = Vec::new();
        match self.iso.reader(file).take(place::MAX_TEXT).read_to_end(&mut text) {
            Ok(_) => Some(String::from_utf8_lossy(&text).into_owned()),
            Err(error) => {
                self.unreadable.push((format!("/{path}"), error.to_string()));
                None
            }
        }
    }

    pub(super) fn read_iso_menus(&mut self) {
        let names = self.iso.files.keys().rev().map(ToString::to_string);
        let mut reading = Reading::of(names.filter(|path| loader_of(path, b"").is_some()));
        while let Some(path) = reading.next() {
            let alone = || Some(Context::on_medium(&path, loader_of(&path, b"")?));
            let Some(context) = reading.given(&path).or_else(alone) else { continue };
            let Some(text) = self.iso_text(&path).filter(|text| context.takes(text.as_bytes())) else {
                continue;
            };
            let menu = parse(context.loader, &text, &context.handed);
            let iso = self.iso;
            let mut find = |form: &str| {
                // On a medium, a path with a slash in front is whole.
                let path = match form.strip_prefix('/') {
                    Some(path) => path.trim_start_matches('/').to_owned(),
                    None => names_in_set(form, &context.folder)?.into_iter().next().unwrap_or_default(),
                };
                Ok(iso.file(&path).is_some().then(|| format!("/{path}")))
            };
            let (facts, goes_on) = resolve(&format!("/{path}"), context.loader, true, menu, &mut find);
            for (next, handed) in goes_on {
                reading.go_on(next.trim_start_matches('/').to_owned(), &context, handed);
            }
            self.menus.retain(|known| known.file != facts.file);
            if !facts.entries.is_empty() || !facts.searched.is_empty() {
                self.menus.push(facts);
            }
        }
        self.menus.sort_by(|a, b| a.file.cmp(&b.file));
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
        let menus = std::mem::take(&mut self.menus);
        for entry in menus.iter().flat_map(|menu| &menu.entries) {
            let initrds = entry.initrds.iter().filter(|i| i.inside.is_none()).filter_map(|i| i.part.as_ref());
            let kernel = entry.kernel.iter().filter(|_| !entry.is_memtest).map(|name| (name, Kind::Kernel));
            for (name, kind) in initrds.map(|name| (name, Kind::Initramfs)).chain(kernel) {
                if let Some(file) = self.iso.file(name.trim_start_matches('/')) {
                    self.iso_parts
                        .entry(name.clone())
                        .or_insert_with(|| Part::new(name.clone(), kind, file.size()));
                }
            }
        }
        self.menus = menus;
    }

    /// Reads the checksums that catalyst puts on an ISO (`livecd/verify`).
    pub(super) fn read_own_checksums(&mut self) -> Option<Result<OwnLines<'a>, String>> {
        let iso = self.iso;
        let mut tops = iso.files.keys().map(ToString::to_string).filter(|name| !name.contains('/'));
        let name = tops.find(|name| checksums::is_named_like_checksums(name))?;
        let text = self.iso_text(&name)?;
        Some(checksums::parse(&name, &text).map(|parsed| {
            let file = |line: &checksums::Checksum| {
                iso.file(line.name.trim_start_matches("./").trim_start_matches('/'))
            };
            parsed.files.into_iter().map(|line| (line.clone(), file(&line))).collect()
        }))
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
