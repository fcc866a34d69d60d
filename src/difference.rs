//! What differs between two values of a field of an action: the packages or the files of two trees, or of the listings of two tools.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use cache::name::RelPath;
use cache::{BlobDigest, Bytes, Node, Store, StoreError, Tree, TreeDigest};
use graph::explain::Change;
use graph::tool::listing::Listing;

use crate::formats::installed::{DPKG, of_dpkg, of_portage};

/// How many lines are shown at most.
const MOST: usize = 10;

/// What differs.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference {
    /// These lines, and so many more.
    Lines(Vec<String>, usize),
    /// Nobody can tell: one of the two is no longer in the store.
    Gone,
}

/// Says what differs between the two values of a field; `None` where they stand for nothing that has parts.
///
/// # Errors
/// The store failed.
pub fn of(store: &Store, change: &Change) -> Result<Option<Difference>, StoreError> {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return Ok(None) };
    let (before, after) = match change.kind.as_str() {
        "tool" => (listing(store, before)?, listing(store, after)?),
        _ => match (before.strip_prefix("tree "), after.strip_prefix("tree ")) {
            (Some(before), Some(after)) => (tree(store, before)?, tree(store, after)?),
            _ => return Ok(None),
        },
    };
    let (Some(before), Some(after)) = (before, after) else { return Ok(Some(Difference::Gone)) };
    let by_package = match (before.packages, after.packages) {
        (Some(before), Some(after)) => between(&before, &after),
        _ => Vec::new(),
    };
    let rows = if by_package.is_empty() { between(&before.files, &after.files) } else { by_package };
    let more = rows.len().saturating_sub(MOST);
    let lines = rows.into_iter().take(MOST).map(|(name, what)| format!("{name} {what}"));
    Ok(Some(Difference::Lines(lines.collect(), more)))
}

/// Named parts: of each what is shown of it (of a file nothing), and what tells it from others.
pub type Parts = BTreeMap<String, (String, String)>;

/// Returns what differs between two sets of parts: of each that does, its name and what became of it, in order of name.
pub fn between(before: &Parts, after: &Parts) -> Vec<(String, String)> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |text: &str, what: &str| format!("{text} {what}").trim_start().to_owned();
    let row = |name: &String| {
        let what = match (before.get(name), after.get(name)) {
            (Some(old), Some(new)) if old == new => return None,
            (Some((old, _)), Some((new, _))) if old != new => format!("{old} → {new}"),
            (Some(_), Some((new, _))) if new.is_empty() => "changed".to_owned(),
            (Some(_), Some((new, _))) => format!("{new}, another file"),
            (None, Some((new, _))) => shown(new, "is new"),
            (Some((old, _)), None) => shown(old, "is gone"),
            (None, None) => return None,
        };
        Some((name.clone(), what))
    };
    names.into_iter().filter_map(row).collect()
}

/// What something consists of.
struct Whole {
    packages: Option<Parts>,
    files: Parts,
}

/// Returns the result of a read of the store; `None` where it is not there any more.
fn if_there<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Missing(_) | StoreError::Damaged(_) | StoreError::NotATree { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn listing(store: &Store, digest: &str) -> Result<Option<Whole>, StoreError> {
    let Ok(digest) = digest.parse::<BlobDigest>() else { return Ok(None) };
    let Some(listing) = if_there(store.read(&digest))?.and_then(|bytes| Listing::decode(&bytes)) else {
        return Ok(None);
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let files = listing.0.iter().map(|(path, what)| (text(path), (String::new(), text(what)))).collect();
    Ok(Some(Whole { packages: None, files }))
}

fn tree(store: &Store, digest: &str) -> Result<Option<Whole>, StoreError> {
    let Ok(digest) = digest.parse::<TreeDigest>() else { return Ok(None) };
    let Some(tree) = if_there(store.tree(&digest))? else { return Ok(None) };
    let files = tree
        .entries()
        .map(|(path, entry)| (format!("/{path}"), (String::new(), format!("{entry:?}"))))
        .collect();
    let packages = match dpkg_status(store, &digest, &tree)? {
        Some(status) => Some(packages_of_dpkg(&status)),
        None => Some(packages_of_portage(&tree)).filter(|packages| !packages.is_empty()),
    };
    Ok(Some(Whole { packages, files }))
}

/// Reads dpkg's list in a tree, if there is one and its bytes are where they were.
fn dpkg_status(store: &Store, digest: &TreeDigest, tree: &Tree) -> Result<Option<String>, StoreError> {
    let Ok(path) = RelPath::new(DPKG.as_bytes()) else { return Ok(None) };
    let Some(Node::File { digest: blob, size }) = tree.inode(&path).map(|inode| &inode.node) else {
        return Ok(None);
    };
    let bytes: Bytes = store.bytes_of(digest)?.unwrap_or_default();
    let Ok(opened) = store.open_tree(digest, &bytes) else { return Ok(None) };
    let mut text = Vec::new();
    let read = opened.open_file(store, &path, blob, *size).map(|mut file| file.read_to_end(&mut text));
    Ok(matches!(read, Ok(Ok(_))).then(|| String::from_utf8_lossy(&text).into_owned()))
}

/// Returns what is shown of a package, and tells it from others: both are its version.
fn of_version(version: &str) -> (String, String) {
    (version.to_owned(), version.to_owned())
}

fn packages_of_dpkg(status: &str) -> Parts {
    of_dpkg(status).map(|deb| (deb.name.to_owned(), of_version(deb.version))).collect()
}

fn packages_of_portage(tree: &Tree) -> Parts {
    let names = tree.entries().filter_map(|(path, _)| std::str::from_utf8(path.as_bytes()).ok());
    names.filter_map(of_portage).map(|(name, version)| (name, of_version(version))).collect()
}

#[cfg(test)]
mod tests {
    use cache::testing::Folder;
    use cache::{ActionDigest, ActionResult, Object, Output};

    use super::*;

    fn change(kind: &str, before: impl ToString, after: impl ToString) -> Change {
        let (before, after) = (Some(before.to_string()), Some(after.to_string()));
        Change { kind: kind.to_owned(), name: "tools".to_owned(), before, after }
    }

    /// Stores a tree as a result; its files are objects.
    fn stored(store: &Store, files: &[(&str, &str)]) -> String {
        let blobs = files.iter().map(|(path, text)| {
            let blob = store.put(text.as_bytes()).unwrap();
            (RelPath::new(path.as_bytes()).unwrap(), blob.digest, blob.size)
        });
        let digest = store.put_tree(&Tree::of_files(blobs).unwrap()).unwrap();
        let output = Output { object: Object::Tree(digest), bytes: Bytes::Store };
        let outputs = BTreeMap::from([("root".to_owned(), output)]).into();
        let action = ActionDigest::of_encoding(digest.to_string().as_bytes());
        store.set_action(&action, &ActionResult { outputs, ..ActionResult::default() }).unwrap();
        format!("tree {digest}")
    }

    #[test]
    fn of_each_part_it_is_said_what_became_of_it() {
        let parts = |all: &[(&str, &str, &str)]| -> Parts {
            let part = |(name, shown, other): &(&str, &str, &str)| {
                ((*name).to_owned(), ((*shown).to_owned(), (*other).to_owned()))
            };
            all.iter().map(part).collect()
        };
        let old = parts(&[("a", "1", "x"), ("b", "1", "x"), ("c", "", "x"), ("d", "", "x"), ("e", "1", "x")]);
        let new =
            parts(&[("a", "1", "x"), ("b", "1", "y"), ("c", "", "y"), ("e", "2", "x"), ("f", "3", "x")]);
        let rows = between(&old, &new);
        let rows: Vec<_> = rows.iter().map(|(name, what)| (name.as_str(), what.as_str())).collect();
        let expected =
            [("b", "1, another file"), ("c", "changed"), ("d", "is gone"), ("e", "1 → 2"), ("f", "3 is new")];
        assert_eq!(rows, expected);
    }

    #[test]
    fn packages_of_two_roots_are_named_with_their_versions() {
        let dir = Folder::new();
        let store = dir.store();
        let status = |version: &str, more: &str| {
            format!("Package: pcre\nVersion: {version}\nStatus: install ok installed\n\n{more}")
        };
        let old = stored(&store, &[("var/lib/dpkg/status", &status("1", "Package: old\nVersion: 3\n\n"))]);
        let new = stored(&store, &[("var/lib/dpkg/status", &status("2", ""))]);
        let lines = vec!["old 3 is gone".to_owned(), "pcre 1 → 2".to_owned()];
        assert_eq!(of(&store, &change("input", &old, &new)).unwrap(), Some(Difference::Lines(lines, 0)));
        let old = stored(&store, &[("var/db/pkg/dev-libs/libisoburn-1.5.4-r1/PF", "a")]);
        let new = stored(&store, &[("var/db/pkg/dev-libs/libisoburn-1.5.6/PF", "b")]);
        let lines = vec!["dev-libs/libisoburn 1.5.4-r1 → 1.5.6".to_owned()];
        assert_eq!(of(&store, &change("input", old, new)).unwrap(), Some(Difference::Lines(lines, 0)));
    }

    #[test]
    fn files_are_named_where_there_are_no_packages_ten_at_most() {
        let dir = Folder::new();
        let store = dir.store();
        let names: Vec<String> = (10..25).map(|number| format!("usr/{number}")).collect();
        let files = |text: &'static str| -> Vec<(&str, &str)> {
            names.iter().map(|name| (name.as_str(), text)).collect()
        };
        let (old, new) = (stored(&store, &files("old")), stored(&store, &files("new")));
        let Some(Difference::Lines(lines, more)) = of(&store, &change("input", old, &new)).unwrap() else {
            panic!("it can be told")
        };
        assert_eq!((lines.len(), lines[0].as_str(), more), (10, "/usr/10 changed", 5));
        let lost = format!("tree {}", Tree::of_files([]).unwrap().digest());
        assert_eq!(of(&store, &change("input", lost, new)).unwrap(), Some(Difference::Gone));
        assert_eq!(of(&store, &change("param", "1", "2")).unwrap(), None);
    }

    #[test]
    fn files_of_a_program_of_this_machine_are_named() {
        use std::os::unix::fs::PermissionsExt;

        let dir = Folder::new();
        let store = dir.store();
        let path = dir.path().join("tool");
        let identity = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let tools = graph::Tools::new(vec![dir.path().to_owned(), "/usr/bin".into()]);
            let spec = graph::tool::ToolSpec {
                name: "tool",
                programs: &[],
                data: &[],
                data_places: &[],
                package: "",
            };
            tools.find(&store, &spec).unwrap().identity
        };
        let (old, new) = (identity("#!/bin/sh\n"), identity("#!/bin/sh -e\n"));
        let shown = path.canonicalize().unwrap().display().to_string();
        let lines = vec![format!("{shown} changed")];
        assert_eq!(of(&store, &change("tool", old, new)).unwrap(), Some(Difference::Lines(lines, 0)));
    }
}
