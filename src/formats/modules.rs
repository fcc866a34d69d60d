//! The kernel modules of an initramfs or a root: their paths, and what they depend on (`modules.dep(5)`, `modprobe.d(5)`).

use std::collections::{BTreeMap, BTreeSet};

/// How the file of a module ends, alone or compressed.
const ENDINGS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];

/// The lists of what modules depend on.
const DEPENDENCIES: &str = "modules.dep";
const SOFT: &str = "modules.softdep";

/// Returns a path as it is where `lib` is no link.
pub fn plain(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    path.strip_prefix("usr/").unwrap_or(path)
}

/// Returns the name of a module by its path: without folders, with dashes.
pub fn name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let name = ENDINGS.iter().find_map(|ending| file.strip_suffix(ending))?;
    Some(name.replace('_', "-"))
}

/// Tells whether a path is that of a module's file.
pub fn is_module(path: &str) -> bool {
    plain(path).starts_with("lib/modules/") && name(path).is_some()
}

/// Tells whether a path is that of a list which [`Modules::add`] reads.
pub fn is_list(path: &str) -> bool {
    let parts: Vec<&str> = plain(path).split('/').collect();
    match parts[..] {
        ["lib", "modules", _, DEPENDENCIES | SOFT] => true,
        ["lib" | "etc", "modprobe.d", file] => file.ends_with(".conf"),
        _ => false,
    }
}

/// What modules depend on. Paths are those of [`plain`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modules {
    needs: BTreeMap<String, BTreeSet<String>>,
    /// Names, and the names of those that they ask for beside what they need.
    soft: BTreeMap<String, BTreeSet<String>>,
}

impl Modules {
    /// Adds what a list says that lies at that path.
    pub fn add(&mut self, path: &str, text: &str) {
        let path = plain(path);
        match path.strip_suffix(DEPENDENCIES) {
            Some(folder) => self.add_dependencies(folder, text),
            None => self.add_soft(text),
        }
    }

    /// Each line is a module, a colon, and those it needs; below the folder, or with the whole path.
    fn add_dependencies(&mut self, folder: &str, text: &str) {
        let whole = |path: &str| match path.starts_with('/') {
            true => plain(path).to_owned(),
            false => format!("{folder}{path}"),
        };
        for line in text.lines() {
            let Some((module, needs)) = line.split_once(':') else { continue };
            self.needs.entry(whole(module)).or_default().extend(needs.split_whitespace().map(whole));
        }
    }

    /// Lines such as `softdep NAME pre: A B post: C`.
    fn add_soft(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let asked = words.filter(|word| !word.ends_with(':')).map(|word| word.replace('_', "-"));
            self.soft.entry(module.replace('_', "-")).or_default().extend(asked);
        }
    }

    /// Returns modules, and all that they depend on, among those that `there` are.
    pub fn with_dependencies<'a>(
        &self,
        start: impl IntoIterator<Item = &'a str>,
        there: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut by_name: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for path in there {
            if let Some(name) = name(path) {
                by_name.entry(name).or_default().push(path);
            }
        }
        let mut open: Vec<&str> = start.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(path) = open.pop() {
            if !there.contains(path) || !found.insert(path.to_owned()) {
                continue;
            }
            open.extend(self.needs.get(path).into_iter().flatten().map(String::as_str));
            let asked = name(path).and_then(|name| self.soft.get(&name)).into_iter().flatten();
            open.extend(asked.filter_map(|name| by_name.get(name)).flatten());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_comes_with_it() {
        let mut modules = Modules::default();
        modules.add(
            "usr/lib/modules/6.1/modules.dep",
            "kernel/a.ko: kernel/b.ko.xz\r\n/lib/modules/6.1/kernel/b.ko.xz:\nkernel/c.ko: kernel/a.ko\n",
        );
        modules.add("lib/modules/6.1/modules.softdep", "# a comment\nsoftdep b pre: d_d post: nowhere\n");
        let path = |file: &str| format!("lib/modules/6.1/kernel/{file}");
        let there: BTreeSet<String> = ["a.ko", "b.ko.xz", "c.ko", "d-d.ko"].map(path).into();
        let found =
            modules.with_dependencies([path("a.ko").as_str(), "lib/modules/6.1/kernel/gone.ko"], &there);
        assert_eq!(found, ["a.ko", "b.ko.xz", "d-d.ko"].map(path).into());
    }

    #[test]
    fn modules_are_known_by_their_paths() {
        for path in ["usr/lib/modules/6.1/kernel/a.ko", "lib/modules/6.1/extra/a_b.ko.zst"] {
            assert!(is_module(path), "{path}");
        }
        for path in ["lib/modules/6.1/modules.dep", "a.ko", "usr/bin/ko"] {
            assert!(!is_module(path), "{path}");
        }
        assert_eq!(name("x/a_b.ko.gz").as_deref(), Some("a-b"));
        assert!(is_list("usr/lib/modprobe.d/a.conf") && is_list("etc/modprobe.d/b.conf"));
        assert!(is_list("lib/modules/6.1/modules.softdep") && !is_list("lib/modules/modules.dep"));
    }
}
