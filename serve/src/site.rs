//! What is served: sets of files under addresses that cannot mix two builds.
//!
//! ```text
//! /boot.ipxe                  a menu of the sets, or the only one
//! /SET/boot.ipxe              the newest build of a set: goes on with the way that fits the machine
//! /SET/FILE                   a file of the newest build
//! /SET/@ID/FILE               a file of that build, for as long as somebody uses it
//! ```
//! A path is looked up here, and nowhere else: no name that a client sends gets to a file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cache::{BlobDigest, Sha256};
use serde::Serialize;

/// How long a build that has been replaced is served on after it was last used.
const KEPT: Duration = Duration::from_secs(3600);

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A boot loader, which firmware fetches.
    Loader,
    /// A script or a menu.
    Script,
    /// A kernel.
    Kernel,
    /// An initrd.
    Initrd,
    /// The root file system.
    Root,
    /// Anything else.
    Other,
}

/// Where bytes are.
#[derive(Debug)]
pub enum Content {
    /// In a file that was opened when the set was made: whatever its name leads to later, it stays.
    File(File),
    /// Here.
    Text(Vec<u8>),
}

/// The digests of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Digests {
    /// Its BLAKE3.
    pub blake3: BlobDigest,
    /// Its SHA-256, where it is known.
    pub sha256: Option<Sha256>,
}

/// A file.
#[derive(Debug)]
pub struct Entry {
    /// Its bytes.
    pub content: Content,
    /// How many.
    pub size: u64,
    /// Their digests, where they are known.
    pub digests: Option<Digests>,
    /// When it was last changed.
    pub modified: SystemTime,
    /// What it is for.
    pub role: Role,
}

impl Entry {
    /// Returns a text.
    pub fn text(text: String, role: Role) -> Self {
        let size = text.len() as u64;
        let content = Content::Text(text.into_bytes());
        Self { content, size, digests: None, modified: SystemTime::UNIX_EPOCH, role }
    }

    /// Tells whether it has the size and the time that it had when it was opened.
    pub(crate) fn is_intact(&self) -> bool {
        let Content::File(file) = &self.content else { return true };
        let now = file.metadata().and_then(|now| Ok((now.len(), now.modified()?)));
        now.is_ok_and(|now| now == (self.size, self.modified))
    }

    /// Reads so many bytes from there on: all of them, or an error.
    ///
    /// # Errors
    /// Reading failed, or the file was written to since it was opened: these digests and this address do not speak of it then.
    pub fn read(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        match &self.content {
            Content::File(file) => {
                let mut bytes = vec![0; length];
                let read = file.read_exact_at(&mut bytes, at);
                // Behind the read: what was written meanwhile is seen, too.
                if !self.is_intact() {
                    let why = "it was written to since it was opened; publish it anew, or start again";
                    return Err(io::Error::other(why));
                }
                read.map(|()| bytes)
            }
            Content::Text(text) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let end = start.checked_add(length);
                let found = end.and_then(|end| text.get(start..end));
                found.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

/// A way to boot a set over the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// The script, below the folder of the set's network files.
    pub script: String,
    /// The platform that it is for, as iPXE calls it (`pcbios`, `efi`); all, where it is empty.
    pub platform: String,
    /// The least memory for it, in MiB; 0 where it is not known.
    pub least_ram_mib: u64,
    /// Whether its root stays on a server, and is read over NFS.
    pub nfs: bool,
}

/// One build of something that boots.
#[derive(Debug)]
pub struct Set {
    /// Its name, a part of addresses: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What it is called by people.
    pub title: String,
    /// Tells builds of the same name apart: hex digits.
    pub id: String,
    /// The folder that its loaders and scripts are in: empty, or with a slash at its end.
    pub folder: String,
    /// Its files, by path.
    pub files: BTreeMap<String, Arc<Entry>>,
    /// The ways to boot it over the network, the best one first.
    pub ways: Vec<Way>,
    /// Which iPXEs start it, as they call themselves (`buildarch`); all, where nothing is known.
    pub archs: Vec<String>,
    /// What else people want to know of it.
    pub facts: Vec<(String, String)>,
    /// Texts for programs, by their whole paths without a slash in front; [`BASE`] in them stands for this server.
    pub texts: BTreeMap<String, String>,
}

/// Stands for the address of the server in a set's texts.
pub const BASE: &str = "@BASE@";

impl Set {
    /// Returns the best way for a machine: of that platform, with so much memory, where they are known. If none fits, the one
    /// that needs least. One that needs NFS is one only where that is served.
    pub fn way(&self, platform: Option<&str>, memory_mib: Option<u64>, has_nfs: bool) -> Option<&Way> {
        let of_platform = |way: &&Way| {
            let fits = way.platform.is_empty() || platform.is_none_or(|platform| way.platform == platform);
            fits && (has_nfs || !way.nfs)
        };
        let fitting = self
            .ways
            .iter()
            .filter(of_platform)
            .find(|way| memory_mib.is_none_or(|has| way.least_ram_mib <= has));
        fitting.or_else(|| self.ways.iter().filter(of_platform).min_by_key(|way| way.least_ram_mib))
    }

    /// Returns a file that firmware or a loader asks for by the name that it has beside the loaders.
    pub fn beside(&self, name: &str) -> Option<&Arc<Entry>> {
        self.files.get(&format!("{}{name}", self.folder))
    }
}

/// A file that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// It.
    pub entry: Arc<Entry>,
    /// Its path, as events name it.
    pub path: String,
    /// Whether the address will never mean anything else.
    pub is_immutable: bool,
}

/// What a client asked for.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A file.
    File(Found),
    /// A text for programs, with [`BASE`] where the server's address goes.
    Text(String),
    /// The menu of all sets.
    Menu,
    /// The way into the newest build of a set.
    Start(Arc<Set>),
    /// The way that fits the machine which asks.
    Way(Arc<Set>),
}

/// A build that has been replaced, and when it was last used.
type Old = (Arc<Set>, Instant);

/// All that is served.
#[derive(Debug, Default)]
pub struct Site {
    /// How often a build of a set was put in the place of another one.
    changes: u32,
    sets: Vec<Arc<Set>>,
    old: Mutex<Vec<Old>>,
}

/// What iPXE runs by itself where it finds it beside itself.
const AUTOEXEC: &str = "autoexec.ipxe";

impl Site {
    /// Serves these.
    pub fn new(sets: Vec<Set>) -> Self {
        Self { changes: 0, sets: sets.into_iter().map(Arc::new).collect(), old: Mutex::default() }
    }

    /// Returns the newest build of each set.
    pub fn sets(&self) -> &[Arc<Set>] {
        &self.sets
    }

    /// Returns what is served with another build of one of the sets; the one before stays for who uses it.
    #[must_use]
    pub fn with(&self, set: Set) -> Self {
        let mut old = self.old().clone();
        let set = Arc::new(set);
        let mut sets = self.sets.clone();
        match sets.iter_mut().find(|known| known.name == set.name) {
            // The same files, opened anew: one of them may have been written to.
            Some(known) if known.id == set.id => *known = set,
            Some(known) => old.push((std::mem::replace(known, set), Instant::now())),
            None => sets.push(set),
        }
        old.retain(|(_, used)| used.elapsed() < KEPT);
        Self { changes: self.changes + 1, sets, old: Mutex::new(old) }
    }

    /// Returns a number that is another one after each change.
    pub(crate) fn changes(&self) -> u32 {
        self.changes
    }

    fn old(&self) -> std::sync::MutexGuard<'_, Vec<Old>> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets builds go that nobody used for long.
    pub fn sweep(&self) {
        self.old().retain(|(_, used)| used.elapsed() < KEPT);
    }

    /// Finds something in a build, the newest ones first; one that has been replaced is used by that.
    pub(crate) fn find_build<T>(&self, find: impl Fn(&Arc<Set>) -> Option<T>) -> Option<T> {
        if let Some(found) = self.sets.iter().find_map(&find) {
            return Some(found);
        }
        let mut old = self.old();
        old.iter_mut().rev().find_map(|(set, used)| {
            let found = find(set)?;
            *used = Instant::now();
            Some(found)
        })
    }

    /// Returns a build of a set.
    pub(crate) fn build(&self, name: &str, id: &str) -> Option<Arc<Set>> {
        self.find_build(|set| (set.name == name && set.id == id).then(|| Arc::clone(set)))
    }

    /// Finds what a path means.
    pub fn find(&self, path: &str) -> Option<Asked> {
        let path = path.strip_prefix('/')?;
        if path == "boot.ipxe" {
            return Some(Asked::Menu);
        }
        if let Some(text) = self.sets.iter().find_map(|set| set.texts.get(path)) {
            return Some(Asked::Text(text.clone()));
        }
        let (name, rest) = path.split_once('/')?;
        let (set, rest, is_immutable) = match rest.strip_prefix('@') {
            Some(rest) => {
                let (id, rest) = rest.split_once('/')?;
                (self.build(name, id)?, rest, true)
            }
            None => (Arc::clone(self.sets.iter().find(|set| set.name == name)?), rest, false),
        };
        match (rest, is_immutable) {
            ("boot.ipxe", false) => return Some(Asked::Start(set)),
            ("way.ipxe", true) => return Some(Asked::Way(set)),
            _ => {}
        }
        let entry = Arc::clone(set.files.get(rest)?);
        Some(Asked::File(Found { entry, path: format!("{name}/{rest}"), is_immutable }))
    }

    /// Finds a file that is asked for over TFTP: by its whole path, or by the name that it has beside the loaders of the first set that has
    /// one. Slashes in front and backslashes are what some firmware sends.
    pub fn find_loader(&self, name: &str) -> Option<Found> {
        let name = name.replace('\\', "/");
        let name = name.trim_start_matches('/');
        // iPXE then asks DHCP, which leads it to the set that runs on the machine, by the way that fits it.
        if name == AUTOEXEC {
            return None;
        }
        if let Some(Asked::File(found)) = self.find(&format!("/{name}")) {
            return Some(found);
        }
        self.sets.iter().find_map(|set| {
            let entry = Arc::clone(set.beside(name)?);
            Some(Found { entry, path: format!("{}/{}{name}", set.name, set.folder), is_immutable: false })
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A set with a loader, a kernel and scripts.
    pub(crate) fn set(name: &str, id: &str) -> Set {
        let text = |text: &str, role| Arc::new(Entry::text(text.to_owned(), role));
        let files = [
            ("netboot/boot.ipxe", text("#!ipxe\nboot\n", Role::Script)),
            ("netboot/http.ipxe", text("#!ipxe\nhttp\n", Role::Script)),
            ("netboot/undionly.kpxe", text("loader", Role::Loader)),
            ("netboot/snponly.efi", text("loader", Role::Loader)),
            ("netboot/x.vmlinuz", text(&format!("kernel of {id}"), Role::Kernel)),
            ("x.iso", text("iso", Role::Other)),
        ];
        let way = |name: &str, script: &str, platform: &str, least_ram_mib| Way {
            name: name.to_owned(),
            script: script.to_owned(),
            platform: platform.to_owned(),
            least_ram_mib,
            nfs: name == "netboot-nfs",
        };
        Set {
            name: name.to_owned(),
            title: format!("The set {name}"),
            id: id.to_owned(),
            folder: "netboot/".to_owned(),
            files: files.into_iter().map(|(path, entry)| (path.to_owned(), entry)).collect(),
            ways: vec![
                way("netboot-bios", "boot.ipxe", "pcbios", 768),
                way("netboot-uefi", "boot.ipxe", "efi", 960),
                way("netboot-http", "http.ipxe", "", 640),
                way("netboot-nfs", "nfs.ipxe", "", 256),
            ],
            archs: Vec::new(),
            facts: Vec::new(),
            texts: BTreeMap::from([("streams/a.json".to_owned(), "{\"at\": \"@BASE@/a\"}".to_owned())]),
        }
    }

    fn read(site: &Site, path: &str) -> Option<String> {
        match site.find(path)? {
            Asked::File(found) => {
                let bytes = found.entry.read(0, found.entry.size as usize).unwrap();
                Some(format!(
                    "{}{}",
                    String::from_utf8(bytes).unwrap(),
                    if found.is_immutable { "!" } else { "" }
                ))
            }
            other => Some(format!("{other:?}").split('(').next().unwrap().to_owned()),
        }
    }

    #[test]
    fn a_path_is_a_name_and_nothing_else() {
        let site = Site::new(vec![set("a", "11"), set("b", "22")]);
        for (path, found) in [
            ("/boot.ipxe", Some("Menu")),
            ("/a/boot.ipxe", Some("Start")),
            ("/a/@11/way.ipxe", Some("Way")),
            ("/a/netboot/x.vmlinuz", Some("kernel of 11")),
            ("/b/@22/netboot/x.vmlinuz", Some("kernel of 22!")),
            ("/a/@22/netboot/x.vmlinuz", None),
            ("/a/way.ipxe", None),
            ("/a/netboot/../x.iso", None),
            ("/a//x.iso", None),
            ("/a/../../etc/passwd", None),
            ("/a/netboot", None),
            ("/a/", None),
            ("/a", None),
            ("/", None),
            ("", None),
            ("a/x.iso", None),
            ("/A/x.iso", None),
            ("/a/x.iso\0", None),
        ] {
            assert_eq!(read(&site, path).as_deref(), found, "{path}");
        }
    }

    #[test]
    fn a_build_that_was_replaced_stays_for_who_uses_it() {
        let site = Site::new(vec![set("a", "11")]);
        let newer = site.with(set("a", "12")).with(set("a", "12"));
        assert_eq!(newer.sets().len(), 1);
        assert_eq!(newer.old().len(), 1);
        assert_eq!(read(&newer, "/a/netboot/x.vmlinuz").as_deref(), Some("kernel of 12"));
        assert_eq!(read(&newer, "/a/@11/netboot/x.vmlinuz").as_deref(), Some("kernel of 11!"));
        newer.old()[0].1 = Instant::now().checked_sub(KEPT * 2).unwrap();
        assert!(read(&newer, "/a/@11/x.iso").is_some(), "to use it is to keep it");
        assert_eq!(newer.with(set("a", "13")).old().len(), 2);
        newer.old()[0].1 = Instant::now().checked_sub(KEPT * 2).unwrap();
        assert_eq!(newer.with(set("a", "13")).old().len(), 1);
    }

    #[test]
    fn a_file_that_was_written_to_is_read_no_more() {
        let folder = cache::testing::Folder::new();
        let path = folder.join("file");
        std::fs::write(&path, "as it was").unwrap();
        let open = || {
            let file = File::open(&path).unwrap();
            let (size, modified) = (9, file.metadata().unwrap().modified().unwrap());
            Entry { content: Content::File(file), size, digests: None, modified, role: Role::Other }
        };
        for written in ["as it is!", "as", "as it was and more"] {
            std::fs::write(&path, "as it was").unwrap();
            let entry = open();
            assert_eq!(entry.read(3, 6).unwrap(), b"it was");
            cache::testing::tick();
            std::fs::write(&path, written).unwrap();
            assert!(entry.read(0, 2).unwrap_err().to_string().contains("written to since"), "{written}");
        }
        let entry = open();
        std::fs::remove_file(&path).unwrap();
        assert!(entry.read(0, 2).is_err(), "it had more bytes when it was opened");
        std::fs::write(&path, "as it was").unwrap();
        let entry = open();
        std::fs::rename(&path, folder.join("elsewhere")).unwrap();
        assert_eq!(entry.read(0, 9).unwrap(), b"as it was", "what its name leads to is of no weight");
    }

    #[test]
    fn the_way_is_the_best_one_that_fits() {
        let set = set("a", "11");
        let way = |platform, memory| set.way(platform, memory, false).unwrap().name.as_str();
        assert_eq!(way(Some("pcbios"), Some(1024)), "netboot-bios");
        assert_eq!(way(Some("efi"), Some(1024)), "netboot-uefi");
        assert_eq!(way(Some("efi"), Some(800)), "netboot-http");
        assert_eq!(way(Some("pcbios"), None), "netboot-bios");
        assert_eq!(way(Some("pcbios"), Some(64)), "netboot-http", "the one that needs least");
        assert_eq!(way(None, Some(700)), "netboot-http");
        let with_nfs = |memory| set.way(Some("efi"), Some(memory), true).unwrap().name.as_str();
        assert_eq!(
            [with_nfs(800), with_nfs(300), with_nfs(64)],
            ["netboot-http", "netboot-nfs", "netboot-nfs"]
        );
    }

    #[test]
    fn loaders_are_found_by_the_names_that_firmware_sends() {
        let site = Site::new(vec![set("a", "11")]);
        let found = |name: &str| site.find_loader(name).map(|found| found.path);
        for name in [
            "undionly.kpxe",
            "/undionly.kpxe",
            "\\undionly.kpxe",
            "//undionly.kpxe",
            "a/netboot/undionly.kpxe",
        ] {
            assert_eq!(found(name).as_deref(), Some("a/netboot/undionly.kpxe"), "{name}");
        }
        for name in ["../undionly.kpxe", "x.iso", "", "/", "netboot/../undionly.kpxe", "boot.ipxe/"] {
            assert_eq!(found(name), None, "{name}");
        }
    }
}
