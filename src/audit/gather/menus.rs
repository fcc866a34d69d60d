//! The menus of a set, and the files they name.

use std::collections::{BTreeMap, BTreeSet};

use super::super::checks::is_image;
use super::super::facts::{EntryFacts, Kind, LoadedPart, Loader, MenuFacts, Missing, Part};
use super::super::loaders;
use super::super::set::{Set, SetError, names_in_set};
use super::super::sniff::{HEAD, first_look, is_memtest, loader_of, parse};
use super::Gatherer;
use crate::formats::kernel;
use crate::formats::menus::{Handed, Menu, Named, Problem, Role};

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
            let Some(context) = head.and_then(|head| reading.context(&name, is_menu, &head)) else {
                continue;
            };
            let text = match place.menu_text() {
                Ok(text) => text,
                Err(error) => {
                    self.unreadable.push((name, error.to_string()));
                    continue;
                }
            };
            part.kind = Kind::Menu;
            let menu = parse(context.loader, &text, &context.handed);
            let mut failure = None;
            let mut find = |form: &str| {
                for candidate in names_in_set(form, &context.folder)? {
                    match set.find(&candidate) {
                        Ok(true) => return Ok(Some(candidate)),
                        Ok(false) => {}
                        Err(error) => failure = Some(error),
                    }
                }
                Ok(None)
            };
            let (menu, goes_on) = resolve(&name, context.loader, false, menu, &mut find);
            for (next, handed) in goes_on {
                reading.go_on(next, &context, handed);
            }
            if let Some(error) = failure {
                return Err(error);
            }
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
                    Role::Next | Role::Signature => Kind::Other,
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

/// How a menu is read: by which boot loader, from where, with what.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) loader: Loader,
    /// The folder that its paths begin in.
    pub(super) folder: String,
    pub(super) handed: Handed,
}

impl Context {
    /// Of a menu that is told by its name or its first bytes.
    fn alone(name: &str, loader: Loader) -> Self {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        // PXELINUX and GRUB look from the folder above their own.
        let folder = match loader {
            Loader::Ipxe => folder,
            Loader::Pxelinux => folder.strip_suffix("pxelinux.cfg").unwrap_or(folder).trim_end_matches('/'),
            Loader::Bls => folder.strip_suffix("loader/entries").unwrap_or(folder).trim_end_matches('/'),
            Loader::Grub => folder.strip_suffix("grub").unwrap_or(folder).trim_end_matches('/'),
        };
        Self { loader, folder: folder.to_owned(), handed: Handed::new() }
    }

    /// Of one on a medium, where a relative path begins at the menu's own folder.
    pub(super) fn on_medium(path: &str, loader: Loader) -> Self {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        // Paths of a single entry begin at the top of its file system.
        let folder =
            if loader == Loader::Bls { folder.trim_end_matches("loader/entries") } else { folder }.to_owned();
        Self { loader, folder, handed: Handed::new() }
    }

    /// Of a menu in another file that this one goes on to.
    pub(super) fn goes_on(&self, name: &str, handed: Handed) -> Self {
        let folder = match self.loader {
            // A script's addresses are those from its own.
            Loader::Ipxe => name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned(),
            Loader::Bls | Loader::Pxelinux | Loader::Grub => self.folder.clone(),
        };
        Self { loader: self.loader, folder, handed }
    }

    /// Tells whether a file can be a menu of this loader at all.
    pub(super) fn takes(&self, head: &[u8]) -> bool {
        match self.loader {
            Loader::Ipxe => head.starts_with(b"#!ipxe"),
            Loader::Bls | Loader::Pxelinux | Loader::Grub => !head.contains(&0),
        }
    }
}

/// What is still to be read, and how.
#[derive(Default)]
pub(super) struct Reading {
    waiting: Vec<String>,
    /// Menus that another one goes on to.
    contexts: BTreeMap<String, Context>,
    /// What was read, and whether it was with a context.
    read: BTreeSet<(String, bool)>,
}

impl Reading {
    /// Begins with these files; the last of them goes first.
    pub(super) fn of(files: impl Iterator<Item = String>) -> Self {
        Self { waiting: files.collect(), ..Self::default() }
    }

    /// Returns the next file that was not read in the way it is to be read in.
    pub(super) fn next(&mut self) -> Option<String> {
        while let Some(name) = self.waiting.pop() {
            if self.read.insert((name.clone(), self.contexts.contains_key(&name))) {
                return Some(name);
            }
        }
        None
    }

    /// Returns how a file is read, if it is a menu.
    fn context(&self, name: &str, is_menu: bool, head: &[u8]) -> Option<Context> {
        if let Some(context) = self.given(name) {
            return Some(context).filter(|context| context.takes(head));
        }
        loader_of(name, head).filter(|_| is_menu).map(|loader| Context::alone(name, loader))
    }

    /// Returns how a menu is read that another one goes on to.
    pub(super) fn given(&self, name: &str) -> Option<Context> {
        self.contexts.get(name).cloned()
    }

    /// Has a file read as a menu that another one goes on to. The first one that does decides how.
    pub(super) fn go_on(&mut self, name: String, from: &Context, handed: Handed) {
        if !self.contexts.contains_key(&name) {
            self.contexts.insert(name.clone(), from.goes_on(&name, handed));
            self.waiting.push(name);
        }
    }
}

/// Finds the files a menu names; returns those menus too that it goes on to, and what it hands to them.
pub(super) fn resolve(
    file: &str,
    loader: Loader,
    on_iso: bool,
    menu: Menu,
    find: &mut dyn FnMut(&str) -> Result<Option<String>, ()>,
) -> (MenuFacts, Vec<(String, Handed)>) {
    let mut missing = Vec::new();
    let mut problems = menu.problems;
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
        if loader.leaves_open(&form) {
            let what = format!("{form} is not judged: only the machine knows what the variable holds");
            problems.push(Problem { line: named.line, what, is_certain: false });
        } else if loader == Loader::Ipxe && named.role == Role::Next && form.contains("://") {
            let what = format!("{form} is on another server: what it boots is not judged");
            problems.push(Problem { line: named.line, what, is_certain: false });
        } else if !elsewhere && !form.is_empty() {
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
    let goes_on =
        menu.continued.into_iter().filter_map(|next| Some((found(&next.file)?, next.handed))).collect();
    let facts = MenuFacts {
        file: file.to_owned(),
        loader,
        on_iso,
        entries,
        missing,
        problems,
        searched: menu.searched,
        takes_entries: menu.takes_entries,
    };
    (facts, goes_on)
}
