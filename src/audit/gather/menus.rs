//! The menus of a set, and the files they name.

use std::collections::BTreeMap;

use super::super::checks::is_image;
use super::super::facts::{EntryFacts, Kind, LoadedPart, Loader, MenuFacts, Missing, Part};
use super::super::set::{Set, SetError, names_in_set};
use super::super::sniff::{first_look, is_memtest, loader_of, parse};
use super::Gatherer;
use crate::formats::menus::{Menu, Named, Role};

impl Gatherer<'_> {
    /// Reads the menus of the set and of the scripts they go on to; returns all files of the set.
    pub(super) fn read_set_menus(&mut self, set: &mut Set) -> Result<BTreeMap<String, Part>, SetError> {
        let mut parts: BTreeMap<String, Part> = BTreeMap::new();
        let mut roles: BTreeMap<String, Role> = BTreeMap::new();
        let mut waiting: Vec<String> = set.files.keys().cloned().collect();
        while let Some(name) = waiting.pop() {
            if parts.contains_key(&name) {
                continue;
            }
            let Some(place) = set.files.get(&name).cloned() else { continue };
            let (part, head) = first_look(&name, &place, &mut self.unreadable);
            let is_menu = part.kind == Kind::Menu;
            parts.insert(name.clone(), part);
            let loader = head.filter(|_| is_menu).and_then(|head| loader_of(&name, &head));
            let Some(loader) = loader else { continue };
            let text = match place.text() {
                Ok(text) => text.unwrap_or_default(),
                Err(error) => {
                    self.unreadable.push((name, error.to_string()));
                    continue;
                }
            };
            let menu = parse(loader, &text);
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            // PXELINUX and GRUB look from the folder above their own.
            let folder = match loader {
                Loader::Ipxe => folder,
                Loader::Pxelinux => {
                    folder.strip_suffix("pxelinux.cfg").unwrap_or(folder).trim_end_matches('/')
                }
                Loader::Grub => folder.strip_suffix("grub").unwrap_or(folder).trim_end_matches('/'),
            };
            let mut failure = None;
            let menu = resolve(&name, loader, false, menu, &mut |form| {
                for candidate in names_in_set(form, folder)? {
                    match set.find(&candidate) {
                        Ok(true) => return Ok(Some(candidate)),
                        Ok(false) => {}
                        Err(error) => failure = Some(error),
                    }
                }
                Ok(None)
            });
            if let Some(error) = failure {
                return Err(error);
            }
            for entry in &menu.entries {
                let kernel =
                    entry.kernel.iter().filter(|_| !entry.is_memtest).map(|name| (name, Role::Kernel));
                let initrds = entry.initrds.iter().filter_map(|loaded| {
                    let role = match &loaded.inside {
                        Some(inside) if is_image(inside) => Role::Injected,
                        Some(_) => Role::Next,
                        None => Role::Initrd,
                    };
                    Some((loaded.part.as_ref()?, role))
                });
                roles.extend(kernel.chain(initrds).map(|(name, role)| (name.clone(), role)));
            }
            self.menus.push(menu);
            waiting.extend(set.files.keys().filter(|name| !parts.contains_key(*name)).cloned());
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
                    Role::Next | Role::Signature => Kind::Other,
                };
                if part.kind == Kind::Squashfs {
                    part.superblock = Some(Err("it does not begin with \"hsqs\"".to_owned()));
                }
            }
        }
        self.menus.sort_by(|a, b| (!a.on_iso, &a.file).cmp(&(!b.on_iso, &b.file)));
        Ok(parts)
    }
}

/// Finds the files a menu names.
pub(super) fn resolve(
    file: &str,
    loader: Loader,
    on_iso: bool,
    menu: Menu,
    find: &mut dyn FnMut(&str) -> Result<Option<String>, ()>,
) -> MenuFacts {
    let mut missing = Vec::new();
    let mut found = |named: &Named| -> Option<String> {
        let mut climbs = false;
        for form in &named.forms {
            match find(form) {
                Ok(Some(name)) => return Some(name),
                Ok(None) => {}
                Err(()) => climbs = true,
            }
        }
        let form = named.forms.first().cloned().unwrap_or_default();
        // Another server's script, or a loader on a medium, is not this set's business.
        let elsewhere = matches!(named.role, Role::Next | Role::Signature)
            && (form.contains("://") || form.contains("${") || on_iso);
        if !elsewhere && !form.is_empty() {
            missing.push(Missing { line: named.line, form, role: named.role, climbs });
        }
        None
    };
    let mut entries = Vec::new();
    for entry in menu.entries {
        let is_memtest = entry.kernel.forms.iter().any(|form| is_memtest(form));
        let kernel = found(&entry.kernel);
        let initrds = entry.initrds.iter().map(|loaded| LoadedPart {
            part: found(&loaded.file),
            form: loaded.file.forms.first().cloned().unwrap_or_default(),
            inside: loaded.inside.clone(),
            called: loaded.called.clone(),
        });
        let initrds = initrds.collect();
        let (initrd_words, words): (Vec<_>, Vec<_>) =
            entry.words.into_iter().partition(|word| word.starts_with("initrd="));
        entries.push(EntryFacts {
            title: entry.title,
            line: entry.line,
            kernel,
            is_memtest,
            initrds,
            words,
            initrd_words: initrd_words.iter().map(|word| word["initrd=".len()..].to_owned()).collect(),
        });
    }
    for other in &menu.others {
        found(other);
    }
    let (problems, searched) = (menu.problems, menu.searched);
    MenuFacts { file: file.to_owned(), loader, on_iso, entries, missing, problems, searched }
}
