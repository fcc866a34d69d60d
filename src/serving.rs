//! What `serve` serves: published folders as sets, each file opened once and never looked for by its name again.

mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cache::{BlobDigest, FileError, Look, RelPath, file::OnFile};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use serve::{Content, Digests, Entry, Role, Set, Way};

use crate::arch::Arch;
use crate::manifest::{ENDING, FileFacts, Manifest, ManifestError};
use crate::recipes::Kernel;

/// What a published folder says of itself.
const LISTING: &str = ".stagegraph.json";

/// Bytes of a manifest or a listing, at most.
const LARGEST: u64 = 64 << 20;

/// Files of a set, at most: each stays open.
const MOST: usize = 500;

/// Folders below each other, at most.
const DEEPEST: usize = 16;

/// The folder that network files are published in, where they are not published alone.
const NETBOOT: &str = "netboot/";

/// Boot loaders, by the names that they are published under.
const LOADERS: [&str; 10] = [
    "undionly.kpxe",
    "ipxe.pxe",
    "snponly.efi",
    "ipxe.efi",
    "ipxe-arm64.efi",
    "ipxe-riscv64.efi",
    "ipxe-loong64.efi",
    "pxelinux.0",
    "core.0",
    "core.efi",
];

/// The ways that start over the network, by the names that manifests give them: the script, and iPXE's name of the platform.
const WAYS: [(&str, &str, &str); 5] = [
    ("netboot-bios", "boot.ipxe", "pcbios"),
    ("netboot-uefi", "boot.ipxe", "efi"),
    ("netboot-http", "http.ipxe", ""),
    ("netboot-lean", "lean.ipxe", ""),
    (NFS, "nfs.ipxe", ""),
];

/// The one whose root stays on the server.
const NFS: &str = "netboot-nfs";

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of it cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its manifest cannot be read.
    #[error("{path} {source}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// It has nothing that boots over a network.
    #[error("{0} has no boot.ipxe and no netboot/boot.ipxe: nothing in it boots over a network")]
    NothingBoots(PathBuf),
    /// It has far more files than a set has.
    #[error("{0} has more than {MOST} files: that is no folder with boot files alone")]
    TooMany(PathBuf),
    /// Its name cannot be a part of an address.
    #[error("{0:?} cannot be a part of an address; expected letters, digits, `.`, `_` and `-`")]
    Name(String),
}

/// A folder that is served, as it was when it was last looked at.
#[derive(Debug)]
pub struct Served {
    folder: PathBuf,
    name: String,
    seen: Option<BlobDigest>,
}

impl Served {
    /// Serves a folder under its own name.
    ///
    /// # Errors
    /// Its name cannot be a part of an address.
    pub fn of(folder: &Path) -> Result<Self, ServeError> {
        let full = fs::canonicalize(folder).on_file("look at", folder)?;
        let name = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::later(folder, name)
    }

    /// Serves a folder, which need not be there yet, under a name.
    ///
    /// # Errors
    /// The name cannot be a part of an address.
    pub fn later(folder: &Path, name: String) -> Result<Self, ServeError> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        // What begins with a dot is hidden, and an @ begins the name of a build.
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_fine) {
            return Err(ServeError::Name(name));
        }
        Ok(Self { folder: folder.to_owned(), name, seen: None })
    }

    /// Reads the folder, if it is not what it was: a publish puts another one in its place.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn read(&mut self) -> Result<Option<Set>, ServeError> {
        let before = look(&self.folder)?;
        if self.seen == Some(before) {
            return Ok(None);
        }
        let set = read(&self.folder, &self.name)?;
        // Only what did not change meanwhile is what was read.
        if look(&self.folder)? == before {
            self.seen = Some(before);
        }
        Ok(Some(set))
    }

    /// Tries to read the folder, as whoever this process is by now.
    ///
    /// # Errors
    /// [`ServeError`]: what is published anew could not be read.
    pub fn check(&self) -> Result<(), ServeError> {
        read(&self.folder, &self.name).map(drop)
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Looks at all files below a folder: their names, sizes and times tell whether one changed.
fn look(folder: &Path) -> Result<BlobDigest, FileError> {
    Look::at(&[folder]).map(|look| look.digest).on_file("look at", folder)
}

/// Reads a published folder.
fn read(folder: &Path, name: &str) -> Result<Set, ServeError> {
    let top = File::open(folder).on_file("open", folder)?;
    let mut files = BTreeMap::new();
    walk(&top, folder, "", 0, &mut files)?;
    let listing = files.remove(LISTING);
    files.retain(|path, _| !path.split('/').any(|part| part.starts_with('.')));
    let network = if files.contains_key(&format!("{NETBOOT}boot.ipxe")) { NETBOOT } else { "" };
    if !files.contains_key(&format!("{network}boot.ipxe")) {
        return Err(ServeError::NothingBoots(folder.to_owned()));
    }
    let manifest = read_manifest(folder, &files)?;
    let listed = listing.map(|file| (file.modified, listed(&file.file)));
    let facts = |path: &str, file: &Opened| -> Option<Digests> {
        // What was written after the listing is something else than what the listing says.
        let (written, listed) = listed.as_ref()?;
        let blake3 = listed.get(path).filter(|_| file.modified <= *written)?;
        let known = manifest.as_ref().and_then(|manifest| manifest.files.get(path));
        let sha256 =
            known.filter(|facts| facts.blake3 == *blake3 && facts.size == file.size).map(|f| f.sha256);
        Some(Digests { blake3: *blake3, sha256 })
    };
    // What is in each file, or when it was written where that is not known: an address is never of other bytes.
    let line = |(path, file): (&String, &Opened)| match facts(path, file) {
        Some(known) => format!("{path} {}\n", known.blake3),
        None => format!("{path} {} {:?}\n", file.size, file.modified),
    };
    let id = BlobDigest::of(files.iter().map(line).collect::<String>().as_bytes()).to_string();
    let ways = ways(manifest.as_ref(), |script| files.contains_key(&format!("{network}{script}")));
    let entry = |(path, file): (String, Opened)| {
        let digests = facts(&path, &file);
        let role = role(&path, digests, manifest.as_ref());
        let Opened { file, size, modified } = file;
        (path, Arc::new(Entry { content: Content::File(file), size, digests, modified, role }))
    };
    Ok(Set {
        name: name.to_owned(),
        title: manifest.as_ref().map_or_else(|| name.to_owned(), |manifest| manifest.image.title.clone()),
        id: id[..16].to_owned(),
        folder: network.to_owned(),
        archs: manifest.as_ref().map(archs).unwrap_or_default(),
        facts: manifest.as_ref().map(said).unwrap_or_default(),
        texts: manifest.as_ref().map(|m| texts::texts(m, name, &id[..16], network)).unwrap_or_default(),
        ways,
        files: files.into_iter().map(entry).collect(),
    })
}

/// Returns which iPXEs start a set: on PCs of 64 bits, that for BIOS is of 32.
fn archs(manifest: &Manifest) -> Vec<String> {
    let kernels = manifest.kernels.iter().flat_map(|kernel| &kernel.archs);
    let names = kernels.flat_map(|arch| match arch {
        Arch::Amd64 => vec![Arch::Amd64.ipxe_name(), Arch::X86.ipxe_name()],
        arch => vec![arch.ipxe_name()],
    });
    let names: BTreeSet<&str> = names.flatten().collect();
    names.into_iter().map(str::to_owned).collect()
}

/// A file that was opened.
#[derive(Debug)]
struct Opened {
    file: File,
    size: u64,
    modified: SystemTime,
}

/// Opens all files below a folder; links are passed over, and lead nowhere.
fn walk(
    folder: &File,
    shown: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, Opened>,
) -> Result<(), ServeError> {
    let entries = Dir::read_from(folder).map_err(io::Error::from).on_file("read", shown)?;
    for entry in entries {
        let entry = entry.map_err(io::Error::from).on_file("read", shown)?;
        let name = entry.file_name();
        // What is no name of a path of text is not asked for by anybody.
        let Some(text) = name.to_str().ok().filter(|text| !matches!(*text, "." | "..")) else { continue };
        let (path, shown) =
            (format!("{prefix}{text}"), shown.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
        let failed = |error: Errno| Err::<(), _>(io::Error::from(error)).on_file("open", &shown);
        let kind = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => FileType::from_raw_mode(found.st_mode),
            Err(error) => return Ok(failed(error)?),
        };
        let flags = match kind {
            FileType::Directory if depth < DEEPEST => OFlags::RDONLY | OFlags::DIRECTORY,
            FileType::RegularFile => OFlags::RDONLY | OFlags::NONBLOCK,
            _ => continue,
        };
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = match openat2(folder, name, flags | OFlags::CLOEXEC, Mode::empty(), within) {
            Ok(opened) => File::from(opened),
            Err(error) => return Ok(failed(error)?),
        };
        let found = opened.metadata().on_file("look at", &shown)?;
        if found.is_dir() {
            walk(&opened, &shown, &format!("{path}/"), depth + 1, files)?;
        } else if found.is_file() {
            if files.len() == MOST {
                return Err(ServeError::TooMany(shown.parent().unwrap_or(&shown).to_owned()));
            }
            let modified = found.modified().on_file("look at", &shown)?;
            files.insert(path, Opened { file: opened, size: found.len(), modified });
        }
    }
    Ok(())
}

/// Reads all of a small file that was opened.
fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn listed(listing: &File) -> BTreeMap<String, BlobDigest> {
    #[derive(serde::Deserialize)]
    struct Signed {
        bytes: BlobDigest,
    }
    #[derive(serde::Deserialize)]
    struct Listing {
        files: BTreeMap<String, BlobDigest>,
        #[serde(default)]
        signatures: BTreeMap<String, Signed>,
    }
    // Without a listing that can be read there are no digests, and nothing else is wrong.
    let listing = read_all(listing).ok().and_then(|bytes| serde_json::from_slice::<Listing>(&bytes).ok());
    let Some(Listing { mut files, signatures }) = listing else { return BTreeMap::new() };
    // A list that is signed in place holds other bytes than were published.
    files.extend(signatures.into_iter().map(|(path, signature)| (path, signature.bytes)));
    files
}

/// Reads the manifest at the top of a folder, where there is one.
fn read_manifest(folder: &Path, files: &BTreeMap<String, Opened>) -> Result<Option<Manifest>, ServeError> {
    let is_it = |path: &&String| {
        path.ends_with(ENDING) && RelPath::new(path.as_bytes()).is_ok() && !path.contains('/')
    };
    let Some(path) = files.keys().find(is_it) else { return Ok(None) };
    let full = folder.join(path);
    let bytes =
        files.get(path).map_or(Ok(Vec::new()), |opened| read_all(&opened.file)).on_file("read", &full)?;
    let manifest = Manifest::read(&String::from_utf8_lossy(&bytes))
        .map_err(|source| ServeError::Manifest { path: full, source })?;
    Ok(Some(manifest))
}

/// Returns the ways that start over a network, as the manifest has them, the one that needs nothing of the server later first; without a
/// manifest, the script alone.
fn ways(manifest: Option<&Manifest>, has: impl Fn(&str) -> bool) -> Vec<Way> {
    let way = |name: &str, script: &str, platform: &str, least_ram_mib| Way {
        name: name.to_owned(),
        script: script.to_owned(),
        platform: platform.to_owned(),
        least_ram_mib,
        nfs: name == NFS,
    };
    let Some(manifest) = manifest else { return vec![way("boot.ipxe", "boot.ipxe", "", 0)] };
    let mut ways = Vec::new();
    for (name, script, platform) in WAYS {
        // Several kernels have one script, in which the user picks: the one that needs most has to fit.
        let needs = manifest.boot.iter().filter(|way| way.way == name).map(|way| way.least_ram_mib).max();
        ways.extend(needs.filter(|_| has(script)).map(|needs| way(name, script, platform, needs)));
    }
    ways
}

/// Returns the kernel of a set that was read, with the command line of the way where the initramfs fetches the squashfs: what its manifest says
/// of the first one.
pub fn kernel(set: &Set) -> Option<Kernel> {
    let path = set.files.keys().find(|path| path.ends_with(ENDING) && !path.contains('/'))?;
    let entry = set.files.get(path)?;
    let text = entry.read(0, usize::try_from(entry.size).ok()?).ok()?;
    let manifest = Manifest::read(&String::from_utf8_lossy(&text)).ok()?;
    let way = manifest.boot.iter().find(|way| way.way == "netboot-http")?;
    let name = |ending: &str| format!("{}.{ending}", way.kernel);
    Some(Kernel {
        kernel: name("vmlinuz"),
        initrd: name("initrd"),
        command_line: way.command_line.clone(),
        least_ram_mib: way.least_ram_mib,
    })
}

/// Finds out what a file is for: by its digest where the manifest has that, else by its name.
fn role(path: &str, digests: Option<Digests>, manifest: Option<&Manifest>) -> Role {
    let name = path.rsplit('/').next().unwrap_or_default();
    if LOADERS.contains(&name) {
        return Role::Loader;
    }
    if let (Some(Digests { blake3, .. }), Some(manifest)) = (digests, manifest) {
        if manifest.kernels.iter().any(|kernel| kernel.kernel.digest == blake3) {
            return Role::Kernel;
        }
        if manifest.kernels.iter().chain(&manifest.lean).any(|kernel| kernel.initrd.digest == blake3) {
            return Role::Initrd;
        }
        if manifest.squashfs.blake3 == blake3 {
            return Role::Root;
        }
    }
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "ipxe" | "cfg" => Role::Script,
        "vmlinuz" => Role::Kernel,
        "initrd" | "combined" | "lean" => Role::Initrd,
        "squashfs" => Role::Root,
        _ if path.contains("pxelinux.cfg/") => Role::Script,
        _ => Role::Other,
    }
}

/// What people want to know of a set.
fn said(manifest: &Manifest) -> Vec<(String, String)> {
    let releases: Vec<String> = manifest.kernels.iter().filter_map(|kernel| kernel.release.clone()).collect();
    let FileFacts { size, .. } = manifest.squashfs;
    let fact = |name: &str, value: String| (name.to_owned(), value);
    vec![
        fact("Date", manifest.image.timestamp.clone()),
        fact("Kernel", releases.join(", ")),
        fact("Root", format!("{} MB as squashfs", size / 1_000_000)),
        fact("Made by", manifest.generator.clone()),
    ]
}
