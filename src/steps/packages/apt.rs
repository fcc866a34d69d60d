//! Asks the machine's own apt which packages it would install into an empty root, and fetches them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use cache::file::OnFile;
use cache::stat::Stat;
use cache::{BlobDigest, Objects, Sha256};
use graph::{Job, StepError};
use serde::{Deserialize, Serialize};

/// apt's package lists.
const LISTS: &str = "/var/lib/apt/lists";

/// Where apt's sources and settings are written down.
const SOURCES: [&str; 6] = [
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/preferences",
    "/etc/apt/preferences.d",
    "/etc/apt/apt.conf",
    "/etc/apt/apt.conf.d",
];

/// Under this name the store remembers which object has a SHA-256.
const BY_SHA256: &str = "sha256";

/// A package as apt would fetch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::steps) struct Pinned {
    pub(in crate::steps) name: String,
    pub(in crate::steps) version: String,
    pub(in crate::steps) architecture: String,
    file: String,
    uri: String,
    size: u64,
    pub(in crate::steps) sha256: Sha256,
}

/// A package in the store.
pub(in crate::steps) struct Package {
    pinned: Pinned,
    pub(in crate::steps) blob: BlobDigest,
    /// The file's name, without apt's escapes.
    pub(in crate::steps) file: String,
    pub(in crate::steps) size: u64,
    pub(in crate::steps) sha256: Sha256,
}

/// What the manifest says of a package.
#[derive(Serialize)]
pub(in crate::steps) struct Listing<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    sha256: Sha256,
}

impl Package {
    pub(in crate::steps) fn name(&self) -> &str {
        &self.pinned.name
    }

    pub(in crate::steps) fn listing(&self) -> Listing<'_> {
        let Pinned { name, version, architecture, sha256, .. } = &self.pinned;
        Listing { name, version, architecture, sha256: *sha256 }
    }
}

/// Returns all packages that make the root, sorted by name; the network is not used.
pub(in crate::steps) fn resolve(
    objects: &Objects,
    architecture: &str,
    wanted: &[&str],
) -> Result<Vec<Pinned>, StepError> {
    // The answer holds as long as apt's lists and sources are untouched.
    let key = format!("{architecture} {} {}", wanted.join(" "), stamp().on_file("list", LISTS)?);
    if let Some(known) = objects.memo("apt", &key)?
        && let Ok(pinned) = serde_json::from_str(&known)
    {
        return Ok(pinned);
    }
    let work = objects.work_dir()?;
    for folder in ["state", "cache/archives/partial"] {
        fs::create_dir_all(work.path().join(folder)).on_file("make", work.path().join(folder))?;
    }
    fs::write(work.path().join("status"), "").on_file("write", work.path().join("status"))?;
    let output = Command::new("apt-get")
        .args(apt_args(work.path(), architecture))
        .args(["--print-uris", "-qq", "-y", "install"])
        .args(wanted)
        .env_clear()
        .envs([("LC_ALL", "C"), ("PATH", graph::tool::PATH)])
        .output()
        .map_err(|error| StepError::environment(format!("run apt-get: {error}")))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let problems: Vec<_> = errors.lines().filter(|line| line.starts_with("E:")).collect();
        return Err(StepError::environment(format!(
            "apt cannot resolve the packages: {}",
            problems.join("; ")
        ))
        .with_hint(
            "run `apt-get update` first; if that does not help, correct the packages of the node in the spec",
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut pinned = text.lines().map(parse).collect::<Result<Vec<_>, StepError>>()?;
    if pinned.is_empty() {
        return Err(StepError::environment("apt names no packages at all: its lists are empty")
            .with_hint("run `apt-get update` first"));
    }
    pinned.sort_by(|a, b| a.name.cmp(&b.name));
    let text = serde_json::to_string(&pinned).expect("packages are plain values");
    objects.set_memo("apt", &key, &text)?;
    Ok(pinned)
}

/// Builds the options under which apt sees its own lists and sources, and an empty root.
fn apt_args(work: &Path, architecture: &str) -> Vec<String> {
    let place = |name: &str| work.join(name).display().to_string();
    let settings = [
        format!("Dir::State={}", place("state")),
        format!("Dir::State::status={}", place("status")),
        format!("Dir::State::lists={LISTS}"),
        format!("Dir::Cache={}", place("cache")),
        format!("Dir::Log={}", place("cache")),
        "Dir::Cache::pkgcache=".to_owned(),
        "Dir::Cache::srcpkgcache=".to_owned(),
        format!("APT::Architecture={architecture}"),
        format!("APT::Architectures={architecture}"),
        "APT::Default-Release=".to_owned(),
        "APT::Install-Recommends=false".to_owned(),
        "APT::Install-Suggests=false".to_owned(),
        "APT::Get::AutomaticRemove=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
        // Without this, apt names the MD5 of what it would fetch.
        "Acquire::ForceHash=SHA256".to_owned(),
        "Debug::NoLocking=1".to_owned(),
    ];
    settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect()
}

/// Returns what changes when apt's lists or sources change.
fn stamp() -> io::Result<String> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |path: &Path| {
        if let Ok(found) = fs::metadata(path)
            && found.is_file()
        {
            files.insert(path.display().to_string(), Stat::of(path, &found).to_bytes());
        }
    };
    for folder in SOURCES.iter().chain([&LISTS]) {
        add(Path::new(folder));
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // A file, or not there.
            Err(_) => continue,
        };
        for entry in entries {
            let path = entry?.path();
            // apt locks its lists even where it only reads.
            if path.file_name().is_none_or(|name| name != "lock") {
                add(&path);
            }
        }
    }
    let text: Vec<u8> =
        files.into_iter().flat_map(|(path, stat)| [path.into_bytes(), stat].concat()).collect();
    Ok(BlobDigest::of(&text).to_string())
}

/// Reads a line of `--print-uris`: `'URI' FILE SIZE SHA256:HEX`.
fn parse(line: &str) -> Result<Pinned, StepError> {
    let unknown =
        || StepError::environment(format!("apt-get printed {line:?}; expected 'URI' FILE SIZE SHA256:HEX"));
    let (uri, rest) = line.strip_prefix('\'').and_then(|rest| rest.split_once("' ")).ok_or_else(unknown)?;
    let [file, size, hash] = rest.split(' ').collect::<Vec<_>>()[..] else { return Err(unknown()) };
    let sha256 = hash.strip_prefix("SHA256:").and_then(|hex| hex.parse().ok()).ok_or_else(unknown)?;
    let size = size.parse().map_err(|_| unknown())?;
    let stem = file.strip_suffix(".deb").ok_or_else(unknown)?;
    let [name, version, architecture] = stem.split('_').collect::<Vec<_>>()[..] else {
        return Err(unknown());
    };
    // The name becomes a file's: what apt escapes is the epoch's colon.
    if cache::FileName::new(file.as_bytes()).is_err() {
        return Err(unknown());
    }
    Ok(Pinned {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
        file: file.to_owned(),
        uri: uri.to_owned(),
        size,
        sha256,
    })
}

/// Returns the packages in the store; those that are not there are fetched and checked.
pub(in crate::steps) fn fetch(
    job: &Job<'_>,
    architecture: &str,
    wanted: &[&str],
) -> Result<Vec<Package>, StepError> {
    let pinned = resolve(job.objects, architecture, wanted)?;
    for package in &pinned {
        let expected = format!("{} sha256:{}", package.version, package.sha256);
        if job.action.sources.get(&package.name) != Some(&expected) {
            return Err(StepError::environment("apt's lists changed during the build; build again"));
        }
    }
    let known = |package: &Pinned| -> Result<Option<BlobDigest>, StepError> {
        let memo = job.objects.memo(BY_SHA256, &package.sha256.to_string())?;
        let Some(digest) = memo.and_then(|text| text.parse().ok()) else { return Ok(None) };
        Ok(job.objects.contains(&digest)?.then_some(digest))
    };
    let mut missing = Vec::new();
    for package in &pinned {
        if known(package)?.is_none() {
            missing.push(package);
        }
    }
    if job.offline && !missing.is_empty() {
        return Err(StepError::environment(format!(
            "{} of {} packages are not in the store, {} for one, and the build is offline",
            missing.len(),
            pinned.len(),
            missing[0].name
        ))
        .with_hint("build once without --offline"));
    }
    let total = missing.iter().map(|package| package.size).sum();
    let mut done = 0;
    // apt fetches a few at a time, so that progress can be told and a stop is heard.
    for some in missing.chunks(16) {
        job.check_cancelled()?;
        job.progress("fetching packages", done, Some(total));
        download(job, some)?;
        done += some.iter().map(|package| package.size).sum::<u64>();
    }
    let mut packages = Vec::new();
    for package in pinned {
        let blob = known(&package)?
            .ok_or_else(|| StepError::environment(format!("{} was not fetched", package.name)))?;
        job.objects.verified(&blob)?;
        let (file, size, sha256) = (package.file.clone(), package.size, package.sha256);
        packages.push(Package { pinned: package, blob, file, size, sha256 });
    }
    Ok(packages)
}

/// Fetches packages with apt's own transport, and takes those into the store that have the right hash.
fn download(job: &Job<'_>, packages: &[&Pinned]) -> Result<(), StepError> {
    let work = job.objects.work_dir()?;
    let mut command = Command::new("/usr/lib/apt/apt-helper");
    command.args(["-o", "APT::Sandbox::User=root", "-qq", "download-file"]).env("LC_ALL", "C");
    command.current_dir(work.path());
    for package in packages {
        command.args([&package.uri, &package.file, &format!("SHA256:{}", package.sha256)]);
    }
    let output =
        command.output().map_err(|error| StepError::environment(format!("run apt-helper: {error}")))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(StepError::environment(format!("fetch packages: {}", errors.trim())).with_hint(
            "look at the network and at apt's sources; `apt-get update` gets lists that fit the archive",
        ));
    }
    for package in packages {
        let blob = job.objects.adopt(&work.path().join(&package.file))?;
        let found = job.objects.sha256(&blob.digest)?;
        if found != package.sha256 {
            return Err(StepError::environment(format!(
                "{} has the SHA-256 {found}, but apt's lists say {}",
                package.file, package.sha256
            )));
        }
        job.objects.set_memo(BY_SHA256, &found.to_string(), &blob.digest.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_apt_names_a_package_with_its_hash() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let line = format!(
            "'http://host/p/libx_1%3a2.0-1%2bb1_amd64.deb' libx_1%3a2.0-1+b1_amd64.deb 77 SHA256:{hash}"
        );
        let package = parse(&line).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("libx", "1:2.0-1+b1"));
        assert_eq!((package.architecture.as_str(), package.size), ("amd64", 77));
        for bad in ["", "'x' y 1 MD5Sum:00", "'x' ../y_1_a.deb 1 SHA256:0", "'x' y.deb 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
