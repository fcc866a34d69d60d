//! What checks ask of the facts, and how they put numbers and names into words.

use std::collections::BTreeSet;

use crate::audit::facts::{EntryFacts, Facts, Kind, MenuFacts, Part};

/// Returns the menus of the set.
pub(super) fn set_menus(facts: &Facts) -> impl Iterator<Item = &MenuFacts> {
    facts.menus.iter().filter(|menu| !menu.on_iso)
}

/// Returns the names of the set's boot loaders.
pub(super) fn set_loaders(facts: &Facts) -> BTreeSet<&str> {
    facts.loaders.iter().filter(|loader| !loader.on_iso).map(|loader| loader.file.as_str()).collect()
}

/// Returns a menu's entries that boot Linux.
pub(super) fn linux(menu: &MenuFacts) -> impl Iterator<Item = &EntryFacts> {
    menu.entries.iter().filter(|entry| !entry.is_memtest)
}

/// Returns the initrds of an entry, in order, without files that are put into them.
pub(super) fn initrds_of<'a>(
    facts: &'a Facts,
    menu: &MenuFacts,
    entry: &EntryFacts,
) -> impl Iterator<Item = &'a Part> {
    let own = entry.initrds.iter().filter(|loaded| loaded.inside.is_none());
    let parts: Vec<&Part> = own.filter_map(|loaded| facts.part(menu, loaded.part.as_ref()?)).collect();
    parts.into_iter().filter(|part| part.kind == Kind::Initramfs)
}

/// Returns the initrd of an entry that finds the root: the first one that somebody known made; else the first that is more than
/// microcode.
pub(super) fn initrd_of<'a>(facts: &'a Facts, menu: &MenuFacts, entry: &EntryFacts) -> Option<&'a Part> {
    let all: Vec<&Part> = initrds_of(facts, menu, entry).collect();
    let is_more = |part: &&&Part| part.contents().is_none_or(|walk| !walk.initramfs.is_microcode());
    let known = all.iter().find(|part| part.family().is_some());
    known.or_else(|| all.iter().find(is_more)).or(all.first()).copied()
}

/// What menus of the set boot.
pub(super) struct Booted<'a>(Option<BTreeSet<&'a str>>);

impl<'a> Booted<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let mut entries = set_menus(facts).flat_map(linux).peekable();
        // Of an entry whose files only the machine knows, all may be meant.
        let is_open = set_menus(facts).flat_map(linux).any(|entry| entry.is_open);
        Self((entries.peek().is_some() && !is_open).then(|| {
            let names = |entry: &'a EntryFacts| {
                let initrds = entry.initrds.iter().filter_map(|loaded| loaded.part.as_deref());
                entry.kernel.as_deref().into_iter().chain(initrds)
            };
            entries.flat_map(names).collect()
        }))
    }

    /// Tells whether a part of the set is used: a menu boots it or may do so, or no menu boots anything.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// Joins names for a sentence.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match &names[..] {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [all @ .., last] if names.len() <= 6 => format!("{} and {last}", all.join(", ")),
        _ => format!("{} and {} more", names[..5].join(", "), names.len() - 5),
    }
}

/// Says how many.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}
