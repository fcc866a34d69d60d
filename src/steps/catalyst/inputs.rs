//! What catalyst reads, by content; and what it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::stat::Stat;
use cache::{Objects, Tree};
use graph::{Resolving, StepError};
use serde::Serialize;

use super::installed::Installed;
use crate::catalyst::Values;
use crate::formats::installed::of_portage;

/// Keys whose words name files or folders of the machine; of a kernel's, their ends.
const FILES: [&str; 12] = [
    "interpreter",
    "portage_confdir",
    "repos",
    "livecd/cdtar",
    "livecd/fsscript",
    "livecd/linuxrc",
    "livecd/motd",
    "livecd/overlay",
    "livecd/readme",
    "livecd/root_overlay",
    "/config",
    "/initramfs_overlay",
];

/// Endings of seeds that catalyst unpacks.
const SEEDS: [&str; 11] =
    ["", ".tar.zst", ".tar.zstd", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.gz", ".tgz", ".tar"];

/// Returns everything that catalyst will read, by content.
///
/// The snapshot of a commit is known by the commit; one of a branch is known by its bytes.
pub(super) fn pin(
    resolving: &Resolving<'_>,
    values: &Values,
    installed: &Installed,
) -> Result<BTreeMap<String, String>, StepError> {
    let objects = resolving.objects;
    let first = |key: &str| values.get(key).and_then(|words| words.first()).cloned().unwrap_or_default();
    let mut sources = BTreeMap::new();
    let mut add = |name: String, digest: String| sources.insert(name, digest);

    resolving.progress("reading catalyst's inputs", 0, None);
    add("catalyst".to_owned(), code(objects, &installed.package, &["py"])?);
    for folder in ["targets", "livecd", "arch"] {
        add(format!("catalyst's {folder}"), code(objects, &installed.sharedir.join(folder), &[])?);
    }
    add("catalyst.conf".to_owned(), content(objects, &installed.conf, "the configuration")?);
    if let Some(script) = &installed.envscript {
        add("envscript".to_owned(), content(objects, script, "the envscript of catalyst.conf")?);
    }
    let seed = installed.storedir.join("builds").join(first("source_subpath"));
    let seeds: Vec<PathBuf> = SEEDS
        .iter()
        .map(|end| PathBuf::from(format!("{}{end}", seed.display())))
        .filter(|path| path.exists())
        .collect();
    if seeds.is_empty() {
        return Err(StepError::environment(format!("the seed {} is not there", seed.display()))
            .with_hint("source_subpath names it, below the builds of catalyst's storedir; build it first"));
    }
    for path in seeds {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        add(format!("seed {name}"), content(objects, &path, "source_subpath")?);
    }
    let treeish = first("snapshot_treeish");
    let name = format!("{}-{treeish}.sqfs", installed.repo_name);
    let snapshot = installed.storedir.join("snapshots").join(&name);
    if !snapshot.is_file() {
        return Err(StepError::environment(format!("the snapshot {} is not there", snapshot.display()))
            .with_hint(format!("make it: catalyst -s {treeish}")));
    }
    let is_commit = [40, 64].contains(&treeish.len()) && treeish.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = if is_commit { treeish } else { content(objects, &snapshot, "snapshot_treeish")? };
    add("snapshot".to_owned(), digest);
    for (key, words) in values {
        if !FILES.iter().any(|known| key == known || (known.starts_with('/') && key.ends_with(known))) {
            continue;
        }
        for word in words {
            add(format!("{key} {word}"), content(objects, Path::new(word), key)?);
        }
    }
    Ok(sources)
}

/// Returns the digest of a file, or of a folder with all its meta data.
fn content(objects: &Objects, path: &Path, key: &str) -> Result<String, StepError> {
    if path.is_relative() {
        return Err(StepError::spec(format!("{key}: {} is not an absolute path", path.display()))
            .with_hint("catalyst is not run in this folder"));
    }
    if path.is_dir() {
        let tree = cache::ingest::directory(objects, path)?;
        return Ok(tree.digest().to_string());
    }
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file).ok_or_else(|| {
        StepError::spec(format!("{key}: {} is not there", path.display()))
            .with_hint("catalyst needs every file that its spec names")
    })?;
    // catalyst copies it with its mode, or runs it.
    let mode = found.permissions().mode() & 0o7777;
    Ok(format!("{} {mode:o}", objects.file_digest(path)?))
}

/// Returns the digest of all files of a folder: names and contents, so that a package that is installed again is the
/// same. `ends` are the endings that count; none: all.
fn code(objects: &Objects, top: &Path, ends: &[&str]) -> Result<String, StepError> {
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error| StepError::environment(format!("read {}: {error}", folder.display()));
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if ends.is_empty()
                || path.extension().is_some_and(|end| ends.iter().any(|known| end == *known))
            {
                files.insert(path);
            }
        }
    }
    let known = objects.known_files(top)?;
    let mut hasher = cache::digest::BlobHasher::default();
    for path in files {
        let name = path.strip_prefix(top).unwrap_or(&path).display().to_string();
        let stat = Stat::of(&path, &fs::metadata(&path).on_file("read", &path)?);
        let digest = known.digest(objects, &path, &stat)?;
        hasher.update(format!("{}\0{name}\0{digest}\n", name.len()).as_bytes());
    }
    Ok(hasher.finish().to_string())
}

/// A package of Portage's.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    name: String,
    version: String,
}

/// Returns the packages that Portage says are installed in a root, as far as the root still has its records.
pub(super) fn packages(root: &Tree) -> Vec<Package> {
    let names = root.entries().filter_map(|(path, _)| std::str::from_utf8(path.as_bytes()).ok());
    let found = names.filter_map(of_portage);
    let found: BTreeSet<Package> =
        found.map(|(name, version)| Package { name, version: version.to_owned() }).collect();
    found.into_iter().collect()
}

/// Removes a folder that catalyst was told to keep.
pub(super) fn remove(path: &Path) -> Result<(), StepError> {
    let mounts = fs::read_to_string("/proc/self/mounts").on_file("read", "/proc/self/mounts")?;
    let mounted =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).find(|at| Path::new(at).starts_with(path));
    if let Some(mounted) = mounted {
        return Err(StepError::environment(format!(
            "catalyst left {mounted} mounted; {} stays",
            path.display()
        ))
        .with_hint("unmount it, then remove the folder"));
    }
    fs::remove_dir_all(path)
        .map_err(|error| StepError::environment(format!("remove {}: {error}", path.display())))
}
