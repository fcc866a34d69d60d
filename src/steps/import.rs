//! `import`: a root from a folder, a tar, or a live ISO that somebody else made.

mod signed;
mod tar;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::tar::Trim;
use super::boot::{is_kernel_by_name, is_memtest, is_menu};
use super::exclude::Excluded;
use super::kind::{Inputs, Kind, Made, folder};
use crate::audit::{EntryFacts, MenuFacts, iso_menus};
use crate::config::{Fields, Item, SpecError};
use crate::formats::compression::Compression;
use crate::formats::iso9660::{self, Iso, IsoError, IsoFile};
use crate::formats::{kernel, squashfs};
use crate::image::Image;
use cache::file::OnFile;
use cache::ingest::{IsLeftOut, directory_without, is_tar};
use cache::name::{RelPath, follow};
use cache::tree::Node;
use cache::{Blob, Bytes, Object, Objects, Output, RootTree, TreeDigest};
use graph::{Job, Resolved, Resolving, Step, StepError};

/// Gives `root` (a tree, or the squashfs of an ISO), `boot` (what lies under `/boot`), an empty list of `packages`,
/// and, where a folder is named for it, `medium` (the other files of a medium).
pub(super) const KIND: Kind =
    Kind { name: "import", inputs: Inputs::Named { required: &[], optional: &[] }, make };

/// Where live ISOs have their squashfs: Gentoo's, then those of dracut's tools.
const SQUASHFS_PATHS: [&str; 3] = ["image.squashfs", "LiveOS/squashfs.img", "live/filesystem.squashfs"];

/// Bytes that tell what file system an image is of.
const OTHER_HEAD: u64 = 128 << 10;

struct Import {
    path: PathBuf,
    boot: Option<PathBuf>,
    medium: Option<PathBuf>,
    /// Public keys, one of which has to have signed a tar or an ISO.
    keyrings: Vec<PathBuf>,
    /// Later times are taken for this one.
    latest: Option<u32>,
    /// Patterns of what nobody packs; of a folder it is neither listed nor read.
    excluded: Vec<String>,
}

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let located = |key| {
        fields.read(key, |item| {
            // Relative to the spec file; to the current folder where it was set on the command line.
            let text = item.as_text()?;
            if text.is_empty() {
                // Joined to the spec's folder it would be that folder.
                return Err(SpecError::at(&item.origin, "the path is empty")
                    .label("expected a folder, a tar or an ISO")
                    .hint("a variable that was not set, perhaps; the spec's own folder is \".\""));
            }
            let folder = Path::new(&item.origin.source.name).parent().unwrap_or(Path::new(""));
            let path = folder.join(text);
            if !path.exists() {
                return Err(SpecError::at(&item.origin, format!("{} is not there", path.display()))
                    .label("expected a folder, a tar or an ISO"));
            }
            Ok(path)
        })
    };
    fields.required("path");
    // What packs the root takes them for that anyway: then a folder that lost a file it leaves out is still the same.
    let clamps = fields.bool("clamp_mtime", false) || fields.packing().clamps_mtime;
    let latest = clamps.then(|| image.timestamp.epoch());
    let (path, boot, medium) = (located("path"), located("boot"), located("medium"));
    let excluded = fields.packing().excluded.clone();
    let beside =
        |item: &Item| Path::new(&item.origin.source.name).parent().unwrap_or(Path::new("")).to_owned();
    let keyrings: Vec<PathBuf> =
        fields.texts("keyring").into_iter().map(|(path, item)| beside(item).join(path)).collect();
    if !keyrings.is_empty()
        && path.as_ref().is_some_and(|path| path.is_dir())
        && let Some(item) = fields.get("keyring")
    {
        let error = SpecError::at(&item.origin, "a folder has no signature").label("a tar or an ISO has one");
        fields.wrong(error);
    }
    let step = Import { keyrings, path: path.unwrap_or_default(), boot, medium, latest, excluded };
    let mut outputs = vec!["root", "boot/", "packages"];
    outputs.extend(step.medium.as_ref().map(|_| "medium"));
    Some(Made::new(step, &outputs))
}

/// What was found at a path.
enum Found {
    Folder,
    Iso,
    Tar(Option<Compression>),
}

impl Import {
    fn look(&self) -> Result<Found, StepError> {
        let failed = |error: io::Error| StepError::spec(format!("{}: {error}", self.path.display()));
        if self.path.is_dir() {
            return Ok(Found::Folder);
        }
        let mut head = vec![0; 0x8800];
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut length = 0;
        while length < head.len() {
            match file.read(&mut head[length..]).map_err(failed)? {
                0 => break,
                read => length += read,
            }
        }
        head.truncate(length);
        if iso9660::is_iso(&head) {
            return Ok(Found::Iso);
        }
        if is_tar(&head) {
            return Ok(Found::Tar(None));
        }
        match Compression::detect(&head) {
            Some(compression) => Ok(Found::Tar(Some(compression))),
            None => Err(StepError::spec(format!(
                "{} is neither a folder nor a tar nor an ISO 9660 image",
                self.path.display()
            ))
            .with_hint("a tar may be compressed with gzip, xz, zstd, bzip2, lz4 or lzma")),
        }
    }

    /// Tells whether nobody wants a path of the root.
    fn is_left_out(&self, excluded: &Excluded, path: &RelPath) -> bool {
        // Kernels are taken from there, unless they are elsewhere.
        let is_boot = path.as_bytes() == b"boot" || path.as_bytes().starts_with(b"boot/");
        excluded.has(path) && (self.boot.is_some() || !is_boot)
    }
}

impl Step for Import {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn version(&self) -> u32 {
        4
    }

    /// Nothing: what is at the paths counts, not the paths.
    fn params(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let objects = resolving.objects;
        let mut resolved = Resolved::default();
        let mut verified = None;
        if !self.keyrings.is_empty() {
            let (digest, keys) = signed::verify(resolving, &self.path, &self.keyrings)?;
            resolved.sources.insert("keyring".to_owned(), keys.to_string());
            verified = Some(digest);
        }
        let mut tree = |name: &str, digest: TreeDigest, bytes: Bytes| {
            resolved.sources.insert(name.to_owned(), digest.to_string());
            resolved.places.insert(name.to_owned(), bytes);
        };
        match self.look()? {
            Found::Folder => {
                let excluded = Excluded::new(&self.excluded)?;
                let is_left_out = |path: &RelPath| self.is_left_out(&excluded, path);
                let (digest, bytes) = read_folder(objects, &self.path, self.latest, &is_left_out)?;
                tree("root", digest, bytes);
            }
            Found::Tar(compression) => {
                let excluded = Excluded::new(&self.excluded)?;
                let latest = self.latest.map_or(i64::MAX, i64::from);
                let trim = Trim {
                    key: format!("{latest} {:?}", self.excluded),
                    trimmed: &|tree| tree.without(|path| self.is_left_out(&excluded, path)).clamped(latest),
                };
                let known = tar::read(resolving, &self.path, compression, &trim)?;
                known.left_out.iter().for_each(|what| resolving.remark(what.as_str()));
                tree("root", known.tree, known.bytes);
            }
            Found::Iso => {
                let digest = objects.file_digest(&self.path)?;
                resolved.sources.insert("iso".to_owned(), digest.to_string());
                resolved.paths.insert("iso".to_owned(), self.path.clone());
            }
        }
        for (name, folder) in [("boot", &self.boot), ("medium", &self.medium)] {
            if let Some(folder) = folder {
                let (digest, bytes) = read_folder(objects, folder, self.latest, &|_| false)?;
                resolved.sources.insert(name.to_owned(), digest.to_string());
                resolved.places.insert(name.to_owned(), bytes);
            }
        }
        // What was verified must be what was read.
        if let Some(verified) = verified
            && objects.file_digest(&self.path)? != verified
        {
            return Err(cache::StoreError::Changed { path: self.path.clone() }.into());
        }
        Ok(resolved)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let opened = |name: &str| -> Result<Option<(TreeDigest, Bytes, RootTree)>, StepError> {
            let Some(bytes) = job.resolved.places.get(name) else { return Ok(None) };
            let digest: TreeDigest = job.resolved.sources[name].parse().map_err(StepError::environment)?;
            Ok(Some((digest, bytes.clone(), job.objects.open_tree(&digest, bytes)?)))
        };
        let mut remark = |text: String| job.remark(text);
        let mut boot = opened("boot")?
            .map(|(_, _, tree)| boot_files(job.objects, &tree, None, &mut remark))
            .transpose()?;
        let root: Output = if let Some((digest, bytes, tree)) = opened("root")? {
            if boot.is_none() {
                boot = Some(boot_files(job.objects, &tree, Some(b"boot"), &mut remark)?);
            }
            Output { object: Object::Tree(digest), bytes }
        } else {
            let path = &job.resolved.paths["iso"];
            let iso = Iso::open(path).map_err(iso_error)?;
            let menus = iso_menus(&iso);
            if boot.is_none() {
                boot = Some(iso_boot_files(job, &iso, &menus)?);
            }
            let squashfs = find_squashfs(&iso, &menus, path)?;
            let blob = copy_out(job, &iso, squashfs, "copying the squashfs")?;
            // What was hashed must be what was read.
            if job.objects.file_digest(path)?.to_string() != job.resolved.sources["iso"] {
                return Err(cache::StoreError::Changed { path: path.clone() }.into());
            }
            blob.into()
        };
        let packages = job.objects.put(b"[]\n")?;
        let mut outputs = BTreeMap::from([
            ("root".to_owned(), root),
            ("boot".to_owned(), folder(job.objects, boot.unwrap_or_default())?),
            ("packages".to_owned(), packages.into()),
        ]);
        if let Some((digest, bytes, _)) = opened("medium")? {
            outputs.insert("medium".to_owned(), Output { object: Object::Tree(digest), bytes });
        }
        Ok(outputs)
    }
}

fn iso_error(error: IsoError) -> StepError {
    match error {
        IsoError::Read { .. } => StepError::environment(error),
        IsoError::NotAnIso { .. } | IsoError::Damaged { .. } => StepError::action(error),
    }
}

/// Reads a folder into a tree, without what is left out, whose bytes stay where they are; times after `latest` become that.
pub(super) fn read_folder(
    objects: &Objects,
    path: &Path,
    latest: Option<u32>,
    is_left_out: &IsLeftOut<'_>,
) -> Result<(TreeDigest, Bytes), StepError> {
    let path = path.canonicalize().map_err(StepError::spec)?;
    for written in objects.written_below(&path) {
        let inside =
            written.strip_prefix(&path).map(|inside| RelPath::new(inside.as_os_str().as_encoded_bytes()));
        if !matches!(inside, Ok(Ok(inside)) if is_left_out(&inside)) {
            let what = format!(
                "{} has {} in it, which every build writes to: each image would hold the last one",
                path.display(),
                written.display()
            );
            return Err(StepError::spec(what)
                .with_hint("name another folder with --out or --store, or import the root's own folder"));
        }
    }
    let mut tree = directory_without(objects, &path, is_left_out)?;
    if let Some(latest) = latest {
        tree = tree.clamped(latest.into());
    }
    Ok((objects.put_tree(&tree)?, Bytes::Directory { path }))
}

/// Copies the files of a boot folder into the store: all below `prefix` of a tree, or all of it. A link counts as the file that
/// it leads to inside the tree; `remark` is told of those that lead nowhere.
pub(super) fn boot_files(
    objects: &Objects,
    root: &RootTree,
    prefix: Option<&[u8]>,
    remark: &mut dyn FnMut(String),
) -> Result<Vec<(String, Blob)>, StepError> {
    let link = |path: &RelPath| match &root.tree.inode(path)?.node {
        Node::Symlink(target) => Some(target.clone()),
        _ => None,
    };
    // The folder may be a link itself, to `usr/boot` or the like.
    let top = prefix.and_then(|prefix| follow(prefix, link));
    let mut files = Vec::new();
    let mut places: BTreeMap<RelPath, Blob> = BTreeMap::new();
    let mut linked = Vec::new();
    for (path, _) in root.tree.entries() {
        let Some(inode) = root.tree.inode(path) else { continue };
        let inner = match &top {
            Some(top) => {
                path.as_bytes().strip_prefix(top.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"))
            }
            None if prefix.is_some() => None,
            None => Some(path.as_bytes()),
        };
        let Some(name) = inner.and_then(|name| std::str::from_utf8(name).ok()) else { continue };
        let (path, inode) = match inode.node {
            Node::Symlink(_) => {
                let target = follow(path.as_bytes(), link);
                match target.and_then(|target| Some((target.clone(), root.tree.inode(&target)?))) {
                    Some((target, inode)) if inode.node == Node::Dir => {
                        linked.push((name.to_owned(), target));
                        continue;
                    }
                    Some(found) => found,
                    None => {
                        remark(format!("{path} is a link that leads to nothing in the root"));
                        continue;
                    }
                }
            }
            _ => (path.clone(), inode),
        };
        let Node::File { digest, size } = inode.node else { continue };
        // A kernel that did not change is there already.
        let blob = if objects.contains(&digest)? && objects.verified(&digest).is_ok() {
            Blob { digest, size }
        } else {
            let mut writer = objects.writer()?;
            writer.copy_from(root.open_file(objects, &path, &digest, size)?)?;
            writer.commit()?
        };
        files.push((name.to_owned(), blob));
        places.insert(path, blob);
    }
    // A menu may name files by a link to their folder.
    for (link, folder) in linked {
        let start = [folder.as_bytes(), b"/"].concat();
        let inside = places.iter().filter(|(path, _)| path.as_bytes().starts_with(&start));
        for (path, blob) in inside {
            let rest = path
                .as_bytes()
                .strip_prefix(folder.as_bytes())
                .and_then(|rest| std::str::from_utf8(rest).ok());
            files.extend(rest.map(|rest| (format!("{link}{rest}"), *blob)));
        }
    }
    Ok(files)
}

fn copy_out(job: &Job<'_>, iso: &Iso, file: &IsoFile, doing: &str) -> Result<Blob, StepError> {
    let mut writer = job.objects.writer()?;
    let mut reader = iso.reader(file);
    let mut done = 0;
    loop {
        job.check_cancelled()?;
        let copied = writer.copy_from(reader.by_ref().take(16 << 20))?;
        done += copied;
        job.progress(doing, done, Some(file.size()));
        if copied == 0 {
            return Ok(writer.commit()?);
        }
    }
}

fn linux_entries(menus: &[MenuFacts]) -> impl Iterator<Item = &EntryFacts> {
    menus.iter().flat_map(|menu| &menu.entries).filter(|entry| !entry.is_memtest)
}

/// Copies out of an ISO what is needed to boot it: kernels and what lies beside them, what its menus name, and the menus.
fn iso_boot_files(job: &Job<'_>, iso: &Iso, menus: &[MenuFacts]) -> Result<Vec<(String, Blob)>, StepError> {
    let mut folders: BTreeSet<Option<RelPath>> = BTreeSet::new();
    let mut wanted: BTreeSet<RelPath> = BTreeSet::new();
    for entry in linux_entries(menus) {
        let initrds = entry.initrds.iter().filter_map(|loaded| loaded.part.as_ref());
        wanted.extend(entry.kernel.iter().chain(initrds).filter_map(|name| iso.resolve(name)));
    }
    for (path, file) in &iso.files {
        let mut head = Vec::new();
        let reader = iso.reader(file).take(kernel::HEAD as u64).read_to_end(&mut head);
        reader.on_file("read", path.to_string())?;
        let is_kernel =
            kernel::detect(&head).is_some() || is_kernel_by_name(path, |name| iso.files.contains_key(name));
        if is_kernel && !is_memtest(path) {
            folders.insert(path.parent());
        }
        if is_menu(path, file.size()) {
            wanted.insert(path.clone());
        }
    }
    let mut files: BTreeMap<RelPath, Blob> = BTreeMap::new();
    for (path, file) in &iso.files {
        let is_wanted = wanted.contains(path) || folders.contains(&path.parent());
        if is_wanted && !is_memtest(path) && !is_squashfs(iso, file)? {
            files.insert(path.clone(), copy_out(job, iso, file, "copying the boot files")?);
        }
    }
    // Menus may name files by links to them.
    for link in iso.links.keys() {
        let target = iso.resolve(&link.to_string()).and_then(|target| files.get(&target).copied());
        files.extend(target.map(|blob| (link.clone(), blob)));
    }
    let named = files
        .into_iter()
        .filter_map(|(path, blob)| Some((std::str::from_utf8(path.as_bytes()).ok()?.to_owned(), blob)));
    Ok(named.collect())
}

fn is_squashfs(iso: &Iso, file: &IsoFile) -> Result<bool, StepError> {
    let mut head = Vec::new();
    iso.reader(file)
        .take(squashfs::MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(StepError::environment)?;
    Ok(head == squashfs::MAGIC)
}

/// Returns the squashfs of an ISO: the one that its menu boots by itself, else at one of the places that live media have it at,
/// else the largest one.
fn find_squashfs<'i>(iso: &'i Iso, menus: &[MenuFacts], path: &Path) -> Result<&'i IsoFile, StepError> {
    let first = linux_entries(menus).find(|entry| entry.is_default).or_else(|| linux_entries(menus).next());
    let named = first.and_then(|entry| named_squashfs(&entry.words));
    let usual = SQUASHFS_PATHS.iter().map(|path| (*path).to_owned());
    let mut files: Vec<&IsoFile> =
        named.into_iter().chain(usual).filter_map(|path| iso.file(&path)).collect();
    let mut others: Vec<_> = iso.files.values().collect();
    others.sort_by_key(|file| std::cmp::Reverse(file.size()));
    let mut other = None;
    let expected = files.len();
    files.extend(others);
    for (number, file) in files.into_iter().enumerate() {
        let mut head = Vec::new();
        let wanted = if number < expected { OTHER_HEAD } else { squashfs::MAGIC.len() as u64 };
        iso.reader(file).take(wanted).read_to_end(&mut head).map_err(StepError::environment)?;
        if head.starts_with(squashfs::MAGIC) {
            return Ok(file);
        }
        other = other.or(squashfs::other_image(&head));
    }
    let what = match other {
        Some(other) => format!(
            "what {} has for a squashfs is no such: it is an image of {other}, not a squashfs",
            path.display()
        ),
        None => format!("{} has no squashfs", path.display()),
    };
    Err(StepError::action(what)
        .with_hint("it is an image that begins with \"hsqs\"; other file systems are not read here"))
}

/// Returns where a kernel's line says that the squashfs is on the medium: by dracut's words, or genkernel's.
fn named_squashfs(words: &[String]) -> Option<String> {
    let value = |key: &str| words.iter().rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    if let Some(path) = value("loop") {
        return Some(path.trim_start_matches('/').to_owned());
    }
    let (folder, file) = (value("rd.live.dir"), value("rd.live.squashimg"));
    let is_said = folder.is_some() || file.is_some();
    let path = format!("{}/{}", folder.unwrap_or("LiveOS").trim_matches('/'), file.unwrap_or("squashfs.img"));
    is_said.then(|| path.trim_start_matches('/').to_owned())
}
