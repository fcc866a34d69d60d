//! Reads menus one after the other, each as its boot loader does.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{EntryFacts, LoadedPart, Loader, MenuFacts, Missing};
use super::super::sniff::{is_memtest, loader_of, parse};
use crate::formats::menus::{By, Handed, Menu, Named, Problem, Role, Searched};

/// How often a menu is read that others go on to, each time with other variables.
const MAX_CONTEXTS: usize = 64;

/// Finds the files that menus name.
pub(super) trait Finder {
    /// Returns the file that a menu means, which begins its paths in `folder`; an error where the path climbs out.
    fn find(&mut self, form: &str, folder: &str) -> Result<Option<String>, ()>;

    /// Tells whether a file that was found is a kernel.
    fn is_kernel(&self, name: &str) -> bool;

    /// Tells whether it is a folder.
    fn is_folder(&self, form: &str, folder: &str) -> bool;
}

/// Where menus are, and the files they name.
pub(super) trait Source: Finder {
    /// Returns the text of a file; nothing where it is not there or no text.
    fn text(&mut self, name: &str) -> Option<String>;
}

/// How a menu is read: by which boot loader, from where, with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    loader: Loader,
    /// The folder that its paths begin in.
    folder: String,
    /// The folder of the first menu, which GRUB calls `$prefix`.
    prefix: String,
    handed: Handed,
}

impl Context {
    /// Of a menu that is told by its name or its first bytes.
    fn alone(name: &str, loader: Loader) -> Self {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let prefix = folder.to_owned();
        // PXELINUX and GRUB look from the folder above their own.
        let folder = match loader {
            Loader::Ipxe => folder,
            Loader::Pxelinux => folder.strip_suffix("pxelinux.cfg").unwrap_or(folder).trim_end_matches('/'),
            Loader::Bls => folder.strip_suffix("loader/entries").unwrap_or(folder).trim_end_matches('/'),
            Loader::Grub => folder.strip_suffix("grub").unwrap_or(folder).trim_end_matches('/'),
        };
        Self { loader, folder: folder.to_owned(), prefix, handed: Handed::new() }
    }

    /// Of one on a medium, where a relative path begins at the menu's own folder.
    fn on_medium(path: &str, loader: Loader) -> Self {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        // On an EFI system partition it is the path there.
        let prefix = folder.rsplit_once(":/").map_or(folder, |(_, inside)| inside).trim_start_matches('/');
        // Paths of a single entry begin at the top of its file system.
        let begins =
            if loader == Loader::Bls { folder.trim_end_matches("loader/entries") } else { folder }.to_owned();
        Self { loader, folder: begins, prefix: prefix.to_owned(), handed: Handed::new() }
    }

    /// Of a menu in another file that this one goes on to.
    fn goes_on(&self, name: &str, handed: Handed) -> Self {
        let folder = match self.loader {
            // A script's addresses are those from its own.
            Loader::Ipxe => name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned(),
            Loader::Bls | Loader::Pxelinux | Loader::Grub => self.folder.clone(),
        };
        Self { folder, handed, ..self.clone() }
    }

    /// Tells whether a file can be a menu of this loader at all.
    fn takes(&self, head: &[u8]) -> bool {
        match self.loader {
            Loader::Ipxe => head.starts_with(b"#!ipxe"),
            Loader::Bls | Loader::Pxelinux | Loader::Grub => !head.contains(&0),
        }
    }

    /// Returns what a menu writes for a file, with what is known of it put in.
    fn put_in(&self, form: &str) -> String {
        match form.strip_prefix("${prefix}").filter(|_| self.loader == Loader::Grub) {
            Some(rest) => format!("/{}{rest}", self.prefix),
            None => form.to_owned(),
        }
    }

    /// Tells whether only the machine knows what file is meant.
    fn leaves_open(&self, form: &str) -> bool {
        match self.loader {
            // What stands for the server does not matter.
            Loader::Ipxe => {
                let base = ["${cwduri}", "${base-url}"].iter().find_map(|base| form.strip_prefix(base));
                let path = match form.split_once("://") {
                    Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
                    None => base.unwrap_or(form),
                };
                path.contains("${")
            }
            loader => loader.leaves_open(form),
        }
    }
}

/// What is still to be read, and how.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) waiting: Vec<String>,
    /// Menus that others go on to.
    contexts: BTreeMap<String, Vec<Context>>,
    /// What was read, and with how many contexts.
    read: BTreeSet<(String, usize)>,
}

impl Reading {
    /// Begins with these files; the last of them goes first.
    pub(super) fn of(files: impl Iterator<Item = String>) -> Self {
        Self { waiting: files.collect(), ..Self::default() }
    }

    /// Returns the next file that was not read in the way it is to be read in.
    pub(super) fn next(&mut self) -> Option<String> {
        while let Some(name) = self.waiting.pop() {
            if self.read.insert((name.clone(), self.contexts.get(&name).map_or(0, Vec::len))) {
                return Some(name);
            }
        }
        None
    }

    /// Returns how a file is read, if it is a menu: more than once, where several menus go on to it.
    pub(super) fn contexts(&self, name: &str, is_menu: bool, head: &[u8]) -> Vec<Context> {
        let given = self.given(name);
        if !given.is_empty() {
            return given.iter().filter(|context| context.takes(head)).cloned().collect();
        }
        loader_of(name, head)
            .filter(|_| is_menu)
            .map(|loader| Context::alone(name, loader))
            .into_iter()
            .collect()
    }

    /// Returns how a menu is read that others go on to.
    fn given(&self, name: &str) -> &[Context] {
        self.contexts.get(name).map_or(&[], Vec::as_slice)
    }

    /// Reads a menu with each of its contexts; those that it goes on to are read as well.
    pub(super) fn read(
        &mut self,
        name: &str,
        text: &str,
        contexts: &[Context],
        on_iso: bool,
        finder: &mut dyn Finder,
    ) -> Option<MenuFacts> {
        let mut whole: Option<MenuFacts> = None;
        for context in contexts {
            let (mut facts, goes_on) = read(name, text, context, on_iso, finder);
            if on_iso {
                say_if_dead(&mut facts, goes_on.is_empty());
            }
            for (next, handed) in goes_on {
                self.go_on(next, context, handed);
            }
            match &mut whole {
                Some(whole) => whole.join(facts),
                None => whole = Some(facts),
            }
        }
        whole
    }

    /// Has a file read as a menu that another one goes on to.
    fn go_on(&mut self, name: String, from: &Context, handed: Handed) {
        let context = from.goes_on(&name, handed);
        let known = self.contexts.entry(name.clone()).or_default();
        if known.len() < MAX_CONTEXTS && !known.contains(&context) {
            known.push(context);
            self.waiting.push(name);
        }
    }
}

/// Reads a menu and finds the files it names; returns those menus too that it goes on to, and what it hands to them.
fn read(
    file: &str,
    text: &str,
    context: &Context,
    on_iso: bool,
    finder: &mut dyn Finder,
) -> (MenuFacts, Vec<(String, Handed)>) {
    let mut is_there = |form: &str| {
        let form = context.put_in(form);
        match finder.find(&form, &context.folder) {
            Ok(Some(_)) => Some(true),
            _ if finder.is_folder(&form, &context.folder) => Some(true),
            _ => (!context.leaves_open(&form)).then_some(false),
        }
    };
    let menu = parse(context.loader, text, &context.handed, &mut is_there);
    resolve(file, context, on_iso, menu, finder)
}

/// Finds the files of a menu, and says which are not there.
struct Resolver<'a> {
    context: &'a Context,
    on_iso: bool,
    /// Whether the menu itself boots something.
    boots: bool,
    finder: &'a mut dyn Finder,
    missing: Vec<Missing>,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn guess(&mut self, line: usize, what: String) {
        let problem = Problem { line, what, is_certain: false };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Judges the file that a volume is looked for by.
    fn searched(&mut self, searched: &Searched) {
        let form = self.context.put_in(&searched.value);
        let found = self.finder.find(&form, &self.context.folder);
        if !matches!(found, Ok(Some(_))) && !self.context.leaves_open(&form) {
            let what = format!("it looks for the volume that has {form}, which is not on this one");
            self.guess(searched.line, what);
        }
    }

    fn file(&mut self, named: &Named) -> Option<String> {
        let form = self.context.put_in(&named.form);
        let found = self.finder.find(&form, &self.context.folder);
        if let Ok(Some(name)) = found {
            return Some(name);
        }
        let Named { line, form, role } = named.clone();
        let is_elsewhere = form.contains("://") && (self.on_iso || self.context.loader == Loader::Ipxe);
        if form.is_empty() || role == Role::Signature && (is_elsewhere || self.on_iso) {
        } else if self.context.leaves_open(&form) {
            self.guess(line, format!("{form} is not judged: only the machine knows what the variable holds"));
        } else if role == Role::Next && is_elsewhere {
            self.guess(line, format!("{form} is on another server: what it boots is not judged"));
        } else if role == Role::Next && self.on_iso && self.boots {
            self.guess(line, format!("names {form}, which is not there"));
        } else {
            let missing = Missing { line, form, role, climbs: found.is_err() };
            if !self.missing.contains(&missing) {
                self.missing.push(missing);
            }
        }
        None
    }
}

fn resolve(
    file: &str,
    context: &Context,
    on_iso: bool,
    menu: Menu,
    finder: &mut dyn Finder,
) -> (MenuFacts, Vec<(String, Handed)>) {
    let mut menu = menu;
    // What is gone on to may be a kernel.
    for next in &mut menu.continued {
        let Some(program) = next.program.take() else { continue };
        let found = finder.find(&context.put_in(&next.file.form), &context.folder);
        if found.is_ok_and(|name| name.is_some_and(|name| finder.is_kernel(&name))) {
            menu.entries.push(program);
            next.file.role = Role::Kernel;
        }
    }
    menu.continued.retain(|next| next.file.role != Role::Kernel);
    let boots = !menu.entries.is_empty();
    let is_dead = !boots
        && menu.others.is_empty()
        && menu.continued.is_empty()
        && !menu.leads_elsewhere
        && menu.takes_entries.is_none()
        && menu.problems.iter().all(|problem| problem.is_certain);
    let mut resolver =
        Resolver { context, on_iso, boots, finder, missing: Vec::new(), problems: menu.problems };
    let mut entries: Vec<EntryFacts> = Vec::new();
    for entry in menu.entries {
        let forms = std::iter::once(&entry.kernel).chain(entry.initrds.iter().map(|loaded| &loaded.file));
        let is_open = forms.into_iter().any(|file| context.leaves_open(&context.put_in(&file.form)));
        let initrds = entry.initrds.iter().map(|loaded| LoadedPart {
            part: resolver.file(&loaded.file),
            form: loaded.file.form.clone(),
            inside: loaded.inside.clone(),
            makes_folders: loaded.makes_folders,
            called: loaded.called.clone(),
        });
        let initrds = initrds.collect();
        let (initrd_words, words): (Vec<_>, Vec<_>) =
            entry.words.into_iter().partition(|word| word.starts_with("initrd="));
        entries.push(EntryFacts {
            kernel: resolver.file(&entry.kernel),
            is_open,
            is_memtest: is_memtest(&entry.kernel.form),
            title: entry.title,
            line: entry.line,
            initrds,
            words,
            initrd_words: initrd_words.iter().map(|word| word["initrd=".len()..].to_owned()).collect(),
            is_default: entry.is_default,
        });
    }
    for other in &menu.others {
        resolver.file(other);
    }
    for searched in menu.searched.iter().filter(|searched| on_iso && searched.by == By::File) {
        resolver.searched(searched);
    }
    let mut goes_on: Vec<(String, Handed)> = Vec::new();
    for next in menu.continued {
        let Some(found) = resolver.file(&next.file) else { continue };
        if next.includes && found == file {
            resolver.problems.push(Problem {
                line: next.file.line,
                what: "reads itself, without end: GRUB stops at the depth that it allows, and shows no menu"
                    .to_owned(),
                is_certain: true,
            });
            continue;
        }
        goes_on.push((found, next.handed));
    }
    let facts = MenuFacts {
        file: file.to_owned(),
        loader: context.loader,
        on_iso,
        entries,
        missing: resolver.missing,
        problems: resolver.problems,
        searched: menu.searched,
        takes_entries: menu.takes_entries,
        is_dead,
        machine: menu.machine,
    };
    (facts, goes_on)
}

/// Reads the menus among files of these names, and those they go on to.
pub(super) fn menus_of(source: &mut dyn Source, names: Vec<String>) -> Vec<MenuFacts> {
    let is_menu = |path: &String| loader_of(path, b"").is_some();
    let mut reading = Reading::of(names.into_iter().filter(is_menu));
    let mut menus: Vec<MenuFacts> = Vec::new();
    while let Some(name) = reading.next() {
        let alone = || Some(Context::on_medium(&name, loader_of(&name, b"")?));
        let contexts = match reading.given(&name) {
            [] => alone().into_iter().collect(),
            given => given.to_vec(),
        };
        let Some(text) = source.text(&name) else { continue };
        let contexts: Vec<Context> =
            contexts.into_iter().filter(|context| context.takes(text.as_bytes())).collect();
        let whole = reading.read(&name, &text, &contexts, true, source);
        let Some(facts) = whole else { continue };
        menus.retain(|known| known.file != facts.file);
        if !facts.entries.is_empty() || !facts.searched.is_empty() || is_main(&facts) {
            menus.push(facts);
        }
    }
    // What is on the medium itself goes before what is on its EFI system partition, and menus before single entries.
    let order = |menu: &MenuFacts| (menu.file.contains(":/"), menu.loader == Loader::Bls, menu.file.clone());
    menus.sort_by_key(order);
    menus
}

/// Tells whether a boot loader begins with a menu of this name.
fn is_main(menu: &MenuFacts) -> bool {
    let file = menu.file.rsplit('/').next().unwrap_or(&menu.file);
    matches!(file, "grub.cfg" | "isolinux.cfg" | "syslinux.cfg")
}

/// Says of a menu on an EFI system partition that it leads nowhere: what GRUB begins with there.
fn say_if_dead(menu: &mut MenuFacts, is_last: bool) {
    let leads_on =
        !is_last || menu.takes_entries.is_some() || !menu.missing.is_empty() || !menu.problems.is_empty();
    if menu.entries.is_empty() && !leads_on && is_main(menu) && menu.file.contains(":/") {
        let what = "boots nothing and goes on to no other menu".to_owned();
        menu.problems.push(Problem { line: 1, what, is_certain: false });
    }
}

/// A folder with kernels: the `/boot` of a root, or what of an ISO is needed to boot.
struct Folder<'a> {
    names: &'a BTreeSet<String>,
    texts: &'a BTreeMap<String, String>,
}

impl Source for Folder<'_> {
    fn text(&mut self, name: &str) -> Option<String> {
        self.texts.get(name.trim_start_matches('/')).cloned()
    }
}

impl Finder for Folder<'_> {
    fn is_kernel(&self, _: &str) -> bool {
        // No script of iPXE goes on from here.
        false
    }

    fn find(&mut self, form: &str, folder: &str) -> Result<Option<String>, ()> {
        let whole = form.trim_start_matches('/');
        let relative = format!("{}/{whole}", folder.trim_matches('/'));
        // Menus of a system call the folder by its path, unless it is a file system of its own.
        let candidates = [Some(whole), whole.strip_prefix("boot/"), Some(relative.trim_start_matches('/'))];
        let found = candidates.into_iter().flatten().find(|name| self.names.contains(*name));
        Ok(found.map(|name| format!("/{name}")))
    }

    fn is_folder(&self, form: &str, _: &str) -> bool {
        let inside = format!("{}/", form.trim_matches('/'));
        self.names.range(inside.clone()..).next().is_some_and(|name| name.starts_with(&inside))
    }
}

/// Reads the menus of a folder with kernels; `names` are all its files, `texts` those that may be menus.
pub fn folder_menus(names: &BTreeSet<String>, texts: &BTreeMap<String, String>) -> Vec<MenuFacts> {
    let all = texts.keys().rev().map(|name| format!("/{name}")).collect();
    menus_of(&mut Folder { names, texts }, all)
}

/// Tells whether a file may be a menu, by its name.
pub fn may_be_menu(name: &str) -> bool {
    loader_of(name, b"").is_some() || name.ends_with(".cfg") || name.ends_with(".conf")
}
