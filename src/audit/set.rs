//! The files of a netboot set: a folder, what a script names, or either of them behind a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use url::Url;

use super::place::Place;
use crate::http::{Client, HttpError};

/// Files that are listed before a folder counts as something else than a netboot set.
const MAX_FILES: usize = 100_000;

/// Folders inside folders.
const MAX_DEPTH: usize = 32;

/// What a folder behind a server is asked for, as most servers list nothing.
const USUAL: [&str; 12] = [
    "DIGESTS",
    "boot.ipxe",
    "autoexec.ipxe",
    "default.ipxe",
    "inject.ipxe",
    "combined.ipxe",
    "http.ipxe",
    "lean.ipxe",
    "nfs.ipxe",
    "pxelinux.cfg/default",
    "grub/grub.cfg",
    "SHA256SUMS",
];

/// A name that nobody publishes, and how much of an answer to it is looked at.
const NOBODYS: &str = "stagegraph-asks-for-what-is-not-there";
const ANSWER: usize = 512;

/// The listing that `stagegraph build` leaves in a folder.
const LISTING: &str = ".stagegraph.json";

/// Why a netboot set could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file or folder could not be read.
    #[error("read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A server could not be asked.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// There is nothing of a netboot set at an address.
    #[error("{0}: there is neither a script nor a menu nor a list of checksums under the usual names")]
    Empty(Url),
    /// It is neither a folder nor a script.
    #[error("{0} is neither a folder nor an iPXE script; name the folder it is in")]
    Neither(PathBuf),
    /// It has too many files.
    #[error("{0} has more than {MAX_FILES} files; name the folder of the netboot set itself")]
    TooMany(PathBuf),
}

/// The top of a set.
#[derive(Debug, Clone)]
enum Top {
    Folder(PathBuf),
    Server(Client, Url),
    /// Files whose names were given, and no others.
    Given,
}

/// A netboot set.
#[derive(Debug)]
pub struct Set {
    /// What it was called on the command line.
    pub shown: String,
    /// Its files, by their paths below its top.
    pub files: BTreeMap<String, Place>,
    /// The script it was named by: then only what that names belongs to it.
    pub script: Option<String>,
    /// Links that lead out of it, and where.
    pub escapes: Vec<(String, PathBuf)>,
    /// What is neither file nor folder, or has a name that is no text.
    pub odd: Vec<String>,
    /// What a server would not give, and what it said.
    pub unread: Vec<(String, String)>,
    /// Set where its reading is to stop: what is not read by then is an error.
    pub stop: Arc<AtomicBool>,
    top: Top,
}

impl Set {
    /// Opens what the command line names.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn open(named: &str, client: &Client) -> Result<Set, SetError> {
        if named.starts_with("http://") || named.starts_with("https://") {
            let url = Url::parse(named)
                .map_err(|error| SetError::Io { path: named.into(), source: io::Error::other(error) })?;
            return Self::remote(named, url, client);
        }
        let path = Path::new(named);
        let failed = |source| SetError::Io { path: path.to_owned(), source };
        let found = fs::metadata(path).map_err(failed)?;
        if found.is_dir() {
            return Self::folder(path, named);
        }
        if !found.is_file() {
            return Err(SetError::Neither(path.to_owned()));
        }
        let place = Place::Local(path.to_owned());
        if !place.head(6).map_err(failed)?.starts_with(b"#!ipxe") && !named.ends_with(".ipxe") {
            return Err(SetError::Neither(path.to_owned()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = folder.canonicalize().map_err(failed)?;
        Ok(Set {
            shown: named.to_owned(),
            files: BTreeMap::from([(name.clone(), place)]),
            script: Some(name),
            escapes: Vec::new(),
            odd: Vec::new(),
            unread: Vec::new(),
            stop: Arc::default(),
            top: Top::Folder(folder),
        })
    }

    /// Takes files whose names and places are known.
    pub fn given(shown: &str, files: BTreeMap<String, PathBuf>) -> Set {
        let files = files.into_iter().map(|(name, path)| (name, Place::Local(path))).collect();
        Set {
            shown: shown.to_owned(),
            files,
            script: None,
            escapes: Vec::new(),
            odd: Vec::new(),
            unread: Vec::new(),
            stop: Arc::default(),
            top: Top::Given,
        }
    }

    fn folder(folder: &Path, shown: &str) -> Result<Set, SetError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SetError::Io { path, source }
        };
        let top = folder.canonicalize().map_err(failed(folder))?;
        let mut set = Set {
            shown: shown.to_owned(),
            files: BTreeMap::new(),
            script: None,
            escapes: Vec::new(),
            odd: Vec::new(),
            unread: Vec::new(),
            stop: Arc::default(),
            top: Top::Folder(top.clone()),
        };
        // Each folder with the folders it was reached by: a link to one of them would go round in a circle.
        let mut folders = vec![(top.clone(), String::new(), vec![top.clone()])];
        while let Some((folder, below, trail)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
                let entry = entry.map_err(failed(&folder))?;
                let path = entry.path();
                let name = match entry.file_name().into_string() {
                    Ok(name) => format!("{below}{name}"),
                    Err(name) => {
                        set.odd.push(format!("{below}{}", name.to_string_lossy()));
                        continue;
                    }
                };
                if name == LISTING {
                    continue;
                }
                let kind = entry.file_type().map_err(failed(&path))?;
                let mut enter = |path: PathBuf, name: String| {
                    if trail.len() < MAX_DEPTH && !trail.contains(&path) {
                        let trail = trail.iter().cloned().chain([path.clone()]).collect();
                        folders.push((path, format!("{name}/"), trail));
                    }
                };
                if kind.is_symlink() {
                    if let Some(folder) = set.link(&top, &path, name.clone()) {
                        enter(folder, name);
                    }
                } else if kind.is_dir() {
                    enter(path, name);
                } else if kind.is_file() {
                    set.files.insert(name, Place::Local(path));
                } else {
                    set.odd.push(name);
                }
                if set.files.len() > MAX_FILES {
                    return Err(SetError::TooMany(top));
                }
            }
        }
        Ok(set)
    }

    /// Takes in a link to a file of the set, and notes one that leads out; returns the folder it leads to.
    fn link(&mut self, top: &Path, path: &Path, name: String) -> Option<PathBuf> {
        match path.canonicalize() {
            Ok(target) if !target.starts_with(top) => self.escapes.push((name, target)),
            Ok(target) if target.is_file() => drop(self.files.insert(name, Place::Local(target))),
            Ok(target) if target.is_dir() => return Some(target),
            Ok(_) => self.odd.push(name),
            Err(_) => self.escapes.push((name, fs::read_link(path).unwrap_or_default())),
        }
        None
    }

    fn remote(shown: &str, url: Url, client: &Client) -> Result<Set, SetError> {
        let mut set = Set {
            shown: shown.to_owned(),
            files: BTreeMap::new(),
            script: None,
            escapes: Vec::new(),
            odd: Vec::new(),
            unread: Vec::new(),
            stop: Arc::default(),
            top: Top::Server(client.clone(), url.clone()),
        };
        let name = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default().to_owned();
        if name.ends_with(".ipxe") {
            let file = client.find(&url)?;
            let base = url.join(".").unwrap_or(url);
            set.top = Top::Server(client.clone(), base);
            set.files.insert(name.clone(), Place::Remote(Box::new(file)));
            set.script = Some(name);
            return Ok(set);
        }
        let mut base = url.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", url.path()));
        }
        set.top = Top::Server(client.clone(), base.clone());
        // An index page, where the server makes one.
        let mut names = BTreeSet::new();
        for folder in ["", "pxelinux.cfg/", "grub/"] {
            let page = base.join(folder).ok().and_then(|page| client.find(&page).ok());
            let text = page.and_then(|page| Place::Remote(Box::new(page)).text().ok().flatten());
            names.extend(links(&text.unwrap_or_default()).into_iter().map(|name| format!("{folder}{name}")));
        }
        let linked = names.clone();
        names.extend(USUAL.iter().map(|name| (*name).to_owned()));
        // Some servers have an answer for every name.
        let answer = set.answer_to_all(client);
        for name in names {
            set.find(&name)?;
            let is_page = |place: &Place| {
                let Ok(head) = place.head(ANSWER) else { return false };
                is_page(&head) || answer.as_ref().is_some_and(|answer| without_name(&head, &name) == *answer)
            };
            if !linked.contains(&name) && set.files.get(&name).is_some_and(is_page) {
                set.files.remove(&name);
            }
        }
        if set.files.is_empty() && set.unread.is_empty() {
            return Err(SetError::Empty(base));
        }
        Ok(set)
    }

    /// Returns the beginning of what a server answers for a name that nobody publishes; nothing where it says that it is not there.
    fn answer_to_all(&self, client: &Client) -> Option<Vec<u8>> {
        let Top::Server(_, base) = &self.top else { return None };
        let file = client.find(&base.join(NOBODYS).ok()?).ok()?;
        let head = Place::Remote(Box::new(file)).head(ANSWER).ok()?;
        Some(without_name(&head, NOBODYS))
    }

    /// Tells whether a file is there; behind a server it is asked for.
    ///
    /// # Errors
    /// The server could not be asked.
    pub fn find(&mut self, name: &str) -> Result<bool, SetError> {
        if self.files.contains_key(name) {
            return Ok(true);
        }
        match &self.top {
            Top::Given => Ok(false),
            // A folder is listed whole; a script's folder is not.
            Top::Folder(_) if self.script.is_none() => Ok(false),
            Top::Folder(top) => {
                let path = top.join(name);
                if path.symlink_metadata().is_err() {
                    return Ok(false);
                }
                let top = top.clone();
                drop(self.link(&top, &path, name.to_owned()));
                Ok(self.files.contains_key(name))
            }
            Top::Server(client, base) => {
                let Ok(url) = base.join(name) else { return Ok(false) };
                match client.find(&url) {
                    Ok(file) => {
                        self.files.insert(name.to_owned(), Place::Remote(Box::new(file)));
                        Ok(true)
                    }
                    Err(error) if error.is_missing() => Ok(false),
                    // It may be there: the others are looked at.
                    Err(error @ (HttpError::Status { .. } | HttpError::Encoded { .. })) => {
                        if !self.unread.iter().any(|(known, _)| known == name) {
                            self.unread.push((name.to_owned(), error.to_string()));
                        }
                        Ok(true)
                    }
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Takes in files that lie beside the script or the ISO and begin with `stem`: checksums, manifests.
    pub fn add_beside(&mut self, folder: &Path, stem: &str, wanted: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with(stem) && wanted(&name) && entry.path().is_file() {
                self.files.entry(name).or_insert_with(|| Place::Local(entry.path()));
            }
        }
    }

    /// Tells whether there are files beside those that were given.
    pub fn is_listable(&self) -> bool {
        !matches!(self.top, Top::Given)
    }

    /// Returns the folder it is in, where that is one of this machine.
    pub fn folder_path(&self) -> Option<&Path> {
        match &self.top {
            Top::Folder(path) => Some(path),
            Top::Server(..) | Top::Given => None,
        }
    }

    /// Tells whether it is all there is: a folder, not what a script or a server let us guess.
    pub fn is_listed(&self) -> bool {
        self.script.is_none() && !matches!(self.top, Top::Server(..))
    }
}

/// Returns the relative links of an index page: names of files in that folder.
fn links(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in page.split("href=\"").skip(1).take(MAX_FILES) {
        let Some((target, _)) = part.split_once('"') else { continue };
        let target = target.strip_prefix("./").unwrap_or(target);
        let is_file = !target.is_empty() && !target.contains(['/', '?', '#', ':', '&']) && target != "..";
        if is_file {
            names.insert(decoded(target));
        }
    }
    names
}

/// Returns an address's text with `%2B` and the like put back.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, next)) = rest.split_first() {
        let hex = next.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &next[2..];
            }
            None => {
                bytes.push(*byte);
                rest = next;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Finds the name of a file of the set that a menu means, tried in the order of the forms it gives.
///
/// Returns `Err` for a path that climbs out of the set.
pub(super) fn names_in_set(form: &str, folder: &str) -> Result<Vec<String>, ()> {
    // What stands for the script's own address is left away.
    let form = ["${cwduri}/", "${cwduri}", "${base-url}/", "${base-url}"]
        .iter()
        .find_map(|prefix| form.strip_prefix(prefix))
        .unwrap_or(form);
    if let Some((_, rest)) = form.split_once("://") {
        // An address: any tail of its path may be what the set calls the file.
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        let path = path.split(['?', '#']).next().unwrap_or(path);
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        return Ok((0..parts.len()).map(|from| parts[from..].join("/")).collect());
    }
    let path = form.strip_prefix("::").unwrap_or(form).split(['?', '#']).next().unwrap_or(form);
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> =
        if absolute { Vec::new() } else { folder.split('/').filter(|p| !p.is_empty()).collect() };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or(())?),
            part => parts.push(part),
        }
    }
    if absolute {
        // The set may be served from anywhere below a server's top, and its folder may be a server's top.
        let path = parts.join("/");
        let mut names = Vec::new();
        let mut above = folder;
        while !above.is_empty() {
            names.push(format!("{above}/{path}"));
            above = above.rsplit_once('/').map_or("", |(above, _)| above);
        }
        names.extend((0..parts.len()).map(|from| parts[from..].join("/")));
        return Ok(names);
    }
    Ok(vec![parts.join("/")])
}

/// Returns an answer without the name that was asked for, which it may repeat.
fn without_name(answer: &[u8], name: &str) -> Vec<u8> {
    String::from_utf8_lossy(answer).replace(name, "").into_bytes()
}

/// Tells whether a file is a page for people.
fn is_page(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head)
        .trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n'])
        .to_ascii_lowercase();
    ["<!doctype html", "<html", "<?xml"].iter().any(|start| head.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menus_path_is_found_in_the_set() {
        let names = |form: &str, folder: &str| names_in_set(form, folder).unwrap();
        assert_eq!(names("gentoo", ""), ["gentoo"]);
        assert_eq!(names("../gentoo", "grub"), ["gentoo"]);
        assert_eq!(names("./a//b", "x"), ["x/a/b"]);
        assert_eq!(names("/srv/gentoo", "grub"), ["grub/srv/gentoo", "srv/gentoo", "gentoo"]);
        assert_eq!(names("http://host/a/gentoo?x=1", ""), ["a/gentoo", "gentoo"]);
        assert_eq!(names("${cwduri}/image.squashfs", ""), ["image.squashfs"]);
        assert_eq!(names_in_set("../../etc/passwd", "grub"), Err(()));
    }

    #[test]
    fn an_index_page_names_its_files() {
        let page = "<a href=\"../\">up</a><a href=\"?C=N\">N</a><a href=\"boot.ipxe\">b</a><a href=\"./k%2B\">k</a>\
                    <a href=\"http://x/y\">y</a><a href=\"grub/\">grub</a>";
        assert_eq!(links(page), BTreeSet::from(["boot.ipxe".to_owned(), "k+".to_owned()]));
    }
}
