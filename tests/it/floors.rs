//! The plan of the code: in every crate files stand on floors, and use files of lower floors alone.
//!
//! An arrow goes from a file to each file that defines a name it uses; a name that a module only passes on (`pub use`)
//! belongs to the file it comes from. Tests may use what they like. Not seen: methods of one type whose `impl` blocks stand
//! in several files (`Objects`), and what stands in the words of a macro.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use syn::visit::{self, Visit};

/// For each crate, its modules from the ground up; those on one floor do not use each other.
const FLOORS: [(&str, &[&str]); 6] = [
    (
        "cache/src",
        &[
            "digest name file",
            "tree index keeping",
            "objects",
            "store",
            "stat source blocks",
            "look ingest actions",
            "rolls checkout statement",
            "slices",
            "offering",
            "collect verify usage",
            "testing",
        ],
    ),
    (
        "graph/src",
        &[
            "name cancel action workers",
            "tool",
            "sandbox",
            "error",
            "toolbox",
            "step",
            "dag explain",
            "event",
            "build testing",
        ],
    ),
    (
        "remote/src",
        &[
            "address counts function sign",
            "settings upstream",
            "channel gate examine",
            "content",
            "results",
            "reapi mirror",
            "offers probe execution",
            "testing",
        ],
    ),
    (
        "serve/src",
        &[
            "answers confine connections datagram ports site works",
            "scripts",
            "machines",
            "room",
            "dhcp nfs page tftp",
            "http listen lookout",
            "web",
        ],
    ),
    ("trust/src", &["testing", "cms dsse openpgp", "authenticode sign"]),
    (
        "src",
        &[
            "arch config memory squashfs hints recipes",
            "formats upstreams",
            "cmdline http difference",
            "image boot",
            "manifest",
            "provenance reproduction",
            "audit catalyst serving",
            "steps",
            "spec",
            "plan publish",
            "building report signing",
            "machine",
            "extract finish lock",
            "cli",
        ],
    ),
];

/// A module: its names from the crate down.
type Module = Vec<String>;

/// All files of a crate, by the module each is.
struct Crate {
    files: BTreeMap<Module, (PathBuf, syn::File)>,
}

impl Crate {
    fn read(top: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![top.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("main.rs") {
                    continue;
                }
                let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
                let below = path.strip_prefix(top).unwrap().with_extension("");
                let module: Module = below.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
                let module = if module == ["lib"] { Vec::new() } else { module };
                files.insert(module, (path, file));
            }
        }
        Self { files }
    }

    /// Returns the module that defines what a path names, as seen from `module`; `None` for another crate's.
    fn definer(&self, module: &[String], path: &[String]) -> Option<Module> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            _ => {
                let child = [module, &path[..1]].concat();
                self.files.contains_key(&child).then_some(child)?
            }
        };
        while let Some((name, below)) = rest.split_first() {
            let child = [at.as_slice(), &rest[..1]].concat();
            if name == "super" {
                at.pop();
            } else if self.files.contains_key(&child) {
                at = child;
            } else if let Some(passed) = self.passed_on(&at, name) {
                return Some(passed);
            } else {
                break;
            }
            rest = below;
        }
        Some(at)
    }

    /// Returns where a name comes from that a module passes on.
    fn passed_on(&self, module: &[String], name: &str) -> Option<Module> {
        let (_, file) = self.files.get(module)?;
        let uses = file.items.iter().filter_map(|item| match item {
            syn::Item::Use(item) if !matches!(item.vis, syn::Visibility::Inherited) => Some(&item.tree),
            _ => None,
        });
        let mut paths = Vec::new();
        uses.for_each(|tree| leaves(tree, &mut Vec::new(), &mut paths));
        let (path, _) = paths.into_iter().find(|(_, known)| known == name)?;
        self.definer(module, &path)
    }
}

/// Collects the paths of a `use`, and the name each has afterwards.
fn leaves(tree: &syn::UseTree, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    match tree {
        syn::UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            leaves(&tree.tree, path, found);
            path.pop();
        }
        syn::UseTree::Name(tree) => {
            let name = tree.ident.to_string();
            let mut path = path.clone();
            if name != "self" {
                path.push(name.clone());
            }
            found.push((path, name));
        }
        syn::UseTree::Rename(tree) => {
            let mut path = path.clone();
            path.push(tree.ident.to_string());
            found.push((path, tree.rename.to_string()));
        }
        syn::UseTree::Glob(_) => found.push((path.clone(), String::new())),
        syn::UseTree::Group(tree) => tree.items.iter().for_each(|tree| leaves(tree, path, found)),
    }
}

/// Collects every path that a file names, but for its tests and for what it only passes on.
#[derive(Default)]
struct Named {
    paths: Vec<Vec<String>>,
    /// What it passes on, and under which name: it counts where the file uses that name as well.
    passed_on: Vec<(Vec<String>, String)>,
    words: BTreeSet<String>,
}

impl Named {
    fn of(file: &syn::File) -> Vec<Vec<String>> {
        let mut named = Self::default();
        named.visit_file(file);
        let used = named.passed_on.into_iter().filter(|(_, name)| named.words.contains(name));
        named.paths.into_iter().chain(used.map(|(path, _)| path)).collect()
    }
}

fn is_of_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'a> Visit<'a> for Named {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if is_of_tests(&item.attrs) {
            return;
        }
        let mut paths = Vec::new();
        leaves(&item.tree, &mut Vec::new(), &mut paths);
        match item.vis {
            syn::Visibility::Inherited => self.paths.extend(paths.into_iter().map(|(path, _)| path)),
            _ => self.passed_on.extend(paths),
        }
    }

    /// `pub(in crate::audit)` says who may use a name, and uses none.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.words.extend(path.segments.first().map(|first| first.ident.to_string()));
        if path.segments.len() > 1 {
            self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

/// Returns every arrow between two files of a crate.
fn arrows(house: &Crate) -> BTreeSet<(&Module, &Module)> {
    let mut arrows = BTreeSet::new();
    for (module, (_, file)) in &house.files {
        for path in Named::of(file) {
            let Some(definer) = house.definer(module, &path) else { continue };
            let (definer, _) = house.files.get_key_value(&definer).unwrap();
            if definer != module && !definer.is_empty() {
                arrows.insert((module, definer));
            }
        }
    }
    arrows
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for (house, _) in FLOORS {
        let read = Crate::read(&root().join(house));
        let arrows = arrows(&read);
        // Of a crate with a handful of files, that many are seen that its files need each other.
        let least = if read.files.len() > 6 { 10 } else { 2 };
        assert!(arrows.len() > least, "{house}: {arrows:?}");
        let mut graph = DiGraph::<&Module, ()>::new();
        let numbers: BTreeMap<&Module, NodeIndex> =
            read.files.keys().map(|module| (module, graph.add_node(module))).collect();
        for (from, to) in &arrows {
            graph.add_edge(numbers[from], numbers[to], ());
        }
        for circle in tarjan_scc(&graph).into_iter().filter(|circle| circle.len() > 1) {
            let circle: Vec<&Module> = circle.into_iter().map(|number| graph[number]).collect();
            let inside = arrows.iter().filter(|(from, to)| circle.contains(from) && circle.contains(to));
            let lines = inside.map(|(from, to)| format!("  {} -> {}", from.join("::"), to.join("::")));
            circles.push(format!("{house}:\n{}", lines.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(circles.is_empty(), "files that use each other:\n{}", circles.join("\n"));
}

/// Clippy sees to the length of functions.
#[test]
fn no_file_has_more_than_500_lines_without_its_tests() {
    let mut long = Vec::new();
    for (house, _) in FLOORS {
        let mut folders = vec![root().join(house)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap();
                    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
                    long.extend((lines > 500).then(|| format!("{}: {lines}", path.display())));
                }
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn modules_use_lower_floors_alone_and_are_on_the_map() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut wrong = BTreeSet::new();
    for (house, floors) in FLOORS {
        let floors: BTreeMap<&str, usize> = floors
            .iter()
            .enumerate()
            .flat_map(|(floor, names)| names.split(' ').map(move |name| (name, floor)))
            .collect();
        let read = Crate::read(&root().join(house));
        for module in read.files.keys().filter(|module| module.len() == 1) {
            if !floors.contains_key(module[0].as_str()) {
                wrong.insert(format!("{house}: {} stands on no floor", module[0]));
            }
            if !map.split(|c: char| !c.is_ascii_lowercase()).any(|word| word == module[0]) {
                wrong.insert(format!("{house}: {} is not on the map", module[0]));
            }
        }
        for (from, to) in arrows(&read) {
            let floor = |module: &Module| floors.get(module.first()?.as_str()).copied();
            if from.first() != to.first() && !from.is_empty() && floor(from) <= floor(to) {
                wrong.insert(format!("{house}: {} uses {}", from.join("::"), to.join("::")));
            }
        }
    }
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "ARCHITECTURE.md and this test have the floors:\n{}", wrong.join("\n"));
}
