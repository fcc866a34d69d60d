//! The menus of a set, and the files they name.

use std::collections::BTreeMap;

use super::super::checks::is_image;
use super::super::facts::{EntryFacts, Kind, Part};
use super::super::loaders;
use super::super::set::{Set, SetError, names_in_set};
use super::super::sniff::{HEAD, first_look, kind_of};
use super::Gatherer;
use super::reading::{Finder, Reading};
use crate::formats::kernel;
use crate::formats::menus::Role;

impl Gatherer<'_> {
    /// Reads the menus of the set, and those they go on to, whatever their names are; returns all files of the set.
    pub(super) fn read_set_menus(&mut self, set: &mut Set) -> Result<BTreeMap<String, Part>, SetError> {
        let mut parts: BTreeMap<String, Part> = BTreeMap::new();
        let mut roles: BTreeMap<String, Role> = BTreeMap::new();
        let mut reading = Reading::of(set.files.keys().cloned());
        while let Some(name) = reading.next() {
            let Some(place) = set.files.get(&name).cloned() else { continue };
            let head = match parts.get(&name) {
                None => {
                    let (part, head) = first_look(&name, &place, &mut self.unreadable);
                    let head_of = |head: &Vec<u8>| loaders::look(&name, head, part.size, false);
                    // A kernel may be an EFI program.
                    let loader = head.as_ref().filter(|_| part.kind != Kind::Kernel).and_then(head_of);
                    self.loaders.extend(loader);
                    parts.insert(name.clone(), part);
                    head
                }
                Some(_) => place.head(HEAD).ok(),
            };
            let Some(part) = parts.get_mut(&name) else { continue };
            let is_menu = part.kind == Kind::Menu;
            let contexts = head.map(|head| reading.contexts(&name, is_menu, &head)).unwrap_or_default();
            if contexts.is_empty() {
                continue;
            }
            let text = match place.menu_text() {
                Ok(text) => text,
                Err(error) => {
                    self.unreadable.push((name, error.to_string()));
                    continue;
                }
            };
            part.kind = Kind::Menu;
            let mut finder = InSet { set: &mut *set, failure: None };
            let whole = reading.read(&name, &text, &contexts, false, &mut finder);
            if let Some(error) = finder.failure {
                return Err(error);
            }
            let Some(menu) = whole else { continue };
            roles.extend(menu.entries.iter().flat_map(roles_of));
            // Read before as if it stood alone, it is read again as what it is.
            self.menus.retain(|known| known.on_iso || known.file != menu.file);
            self.menus.push(menu);
            reading.waiting.extend(set.files.keys().filter(|name| !parts.contains_key(*name)).cloned());
        }
        // What a menu says is a kernel, is one, whatever it begins with.
        for (name, role) in roles {
            if let Some(part) = parts.get_mut(&name)
                && part.kind == Kind::Other
            {
                part.kind = match role {
                    Role::Kernel => Kind::Kernel,
                    Role::Initrd => Kind::Initramfs,
                    Role::Injected => Kind::Squashfs,
                    Role::Next | Role::Program | Role::Signature => Kind::Other,
                };
                let head = || set.files.get(&name)?.head(kernel::HEAD).ok();
                if part.kind == Kind::Kernel {
                    part.kernel = head().and_then(|head| kernel::detect_named(&head));
                }
                if part.kind == Kind::Squashfs {
                    part.superblock = Some(Err("it does not begin with \"hsqs\"".to_owned()));
                }
            }
        }
        self.menus.sort_by(|a, b| (!a.on_iso, &a.file).cmp(&(!b.on_iso, &b.file)));
        Ok(parts)
    }
}

/// Returns what an entry of a menu says its files are.
fn roles_of(entry: &EntryFacts) -> Vec<(String, Role)> {
    let kernel = entry.kernel.iter().filter(|_| !entry.is_memtest).map(|name| (name.clone(), Role::Kernel));
    let initrds = entry.initrds.iter().filter_map(|loaded| {
        let role = match &loaded.inside {
            Some(inside) if is_image(inside) => Role::Injected,
            Some(_) => Role::Next,
            None => Role::Initrd,
        };
        Some((loaded.part.clone()?, role))
    });
    kernel.chain(initrds).collect()
}

/// The files of a set, as its menus mean them.
struct InSet<'a> {
    set: &'a mut Set,
    failure: Option<SetError>,
}

impl Finder for InSet<'_> {
    fn is_kernel(&self, name: &str) -> bool {
        let head = self.set.files.get(name).and_then(|place| place.head(HEAD).ok());
        head.is_some_and(|head| kind_of(name, &head) == Kind::Kernel)
    }

    fn find(&mut self, form: &str, folder: &str) -> Result<Option<String>, ()> {
        for candidate in names_in_set(form, folder)? {
            match self.set.find(&candidate) {
                Ok(true) => return Ok(Some(candidate)),
                Ok(false) => {}
                Err(error) => self.failure = Some(error),
            }
        }
        Ok(None)
    }

    fn is_folder(&self, form: &str, folder: &str) -> bool {
        let names = names_in_set(form, folder).unwrap_or_default();
        names.iter().any(|name| {
            let inside = format!("{name}/");
            self.set.files.range(inside.clone()..).next().is_some_and(|(file, _)| file.starts_with(&inside))
        })
    }
}
