//! Reads the menus of a medium or of a folder with kernels, one after the other, each as its boot loader does.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{Loader, MenuFacts};
use super::super::sniff::{loader_of, parse};
use super::menus::{Context, Reading, resolve};

/// Where menus are, and the files they name.
pub(super) trait Source {
    /// Returns the text of a file; nothing where it is not there or no text.
    fn text(&mut self, name: &str) -> Option<String>;

    /// Returns the file that a menu means, which begins its paths in `folder`; an error where the path climbs out.
    fn find(&self, form: &str, folder: &str) -> Result<Option<String>, ()>;
}

/// Reads the menus among files of these names, and those they go on to.
pub(super) fn menus_of(source: &mut dyn Source, names: Vec<String>) -> Vec<MenuFacts> {
    let is_menu = |path: &String| loader_of(path, b"").is_some();
    let mut reading = Reading::of(names.into_iter().filter(is_menu));
    let mut menus: Vec<MenuFacts> = Vec::new();
    while let Some(name) = reading.next() {
        let alone = || Some(Context::on_medium(&name, loader_of(&name, b"")?));
        let Some(context) = reading.given(&name).or_else(alone) else { continue };
        let Some(text) = source.text(&name).filter(|text| context.takes(text.as_bytes())) else { continue };
        let menu = parse(context.loader, &text, &context.handed);
        let mut find = |form: &str| source.find(form, &context.folder);
        let (facts, goes_on) = resolve(&name, context.loader, true, menu, &mut find);
        for (next, handed) in goes_on {
            reading.go_on(next, &context, handed);
        }
        menus.retain(|known| known.file != facts.file);
        if !facts.entries.is_empty() || !facts.searched.is_empty() {
            menus.push(facts);
        }
    }
    // What is on the medium itself goes before what is on its EFI system partition, and menus before single entries.
    let order = |menu: &MenuFacts| (menu.file.contains(":/"), menu.loader == Loader::Bls, menu.file.clone());
    menus.sort_by_key(order);
    menus
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

    fn find(&self, form: &str, folder: &str) -> Result<Option<String>, ()> {
        let whole = form.trim_start_matches('/');
        let relative = format!("{}/{whole}", folder.trim_matches('/'));
        // Menus of a system call the folder by its path, unless it is a file system of its own.
        let candidates = [Some(whole), whole.strip_prefix("boot/"), Some(relative.trim_start_matches('/'))];
        let found = candidates.into_iter().flatten().find(|name| self.names.contains(*name));
        Ok(found.map(|name| format!("/{name}")))
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
