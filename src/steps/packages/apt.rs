//! Asks the machine's own apt which packages it would install into an empty root, and fetches them.

mod call;
mod lists;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cache::Sha256;
use cache::file::OnFile;
use cache::name::RelPath;
use graph::{Job, StepError};
use serde::{Deserialize, Serialize};

pub(super) use self::call::Apt;
use self::call::{APT_GET, LISTS, problems, run, stamp};
use super::stored::take;
use crate::config::Package;
use crate::image::Timestamp;

/// A package as apt would fetch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Candidate {
    pub(super) package: Package,
    uri: String,
}

impl Apt<'_> {
    /// Returns what apt would install into an empty system, sorted by name; the network is not used. Packages that are to be kept have
    /// the version they had, as far as apt knows it, and as the others let them.
    pub(super) fn resolve(self, wanted: &[&str], kept: &[Package]) -> Result<Vec<Candidate>, StepError> {
        let newest = self.install(wanted, &[])?;
        if kept.is_empty() {
            return Ok(newest);
        }
        let known = self.locate(&kept.iter().collect::<Vec<_>>())?;
        let version = |all: &[Candidate], name: &str| {
            let found = all.iter().find(|candidate| candidate.package.name == name);
            found.map(|candidate| candidate.package.version.clone())
        };
        // What is needed no longer does not stay for having been there.
        let pinned = |all: &[Candidate]| -> Vec<&Package> {
            let stays = |package: &&Package| {
                known.contains_key(&package.sha256) && version(all, &package.name).is_some()
            };
            kept.iter().filter(stays).collect()
        };
        let first = match self.install(wanted, &pinned(&newest)) {
            Ok(found) => found,
            Err(_) => {
                // What moves takes along what has its version: mostly packages of the same source, which fit each other alone.
                let is_kept = |name: &str| kept.iter().any(|package| package.name == name);
                let moving: Vec<&String> = newest
                    .iter()
                    .filter(|candidate| !is_kept(&candidate.package.name))
                    .map(|candidate| &candidate.package.version)
                    .collect();
                let mut pinned = pinned(&newest);
                pinned.retain(|package| {
                    version(&newest, &package.name).is_none_or(|version| !moving.contains(&&version))
                });
                match self.install(wanted, &pinned) {
                    Ok(found) => found,
                    Err(_) => return Ok(newest),
                }
            }
        };
        // Old versions may need what new ones do not.
        let all = pinned(&first);
        Ok(self.install(wanted, &all).unwrap_or(first))
    }

    /// Returns what apt would install, with some packages at just their versions.
    fn install(self, wanted: &[&str], pinned: &[&Package]) -> Result<Vec<Candidate>, StepError> {
        let words: Vec<String> = wanted
            .iter()
            .map(ToString::to_string)
            .chain(pinned.iter().map(|package| exactly(package)))
            .collect();
        // The answer holds as long as apt's lists and sources are untouched.
        let about = match (self.suite, self.with_dependencies) {
            (None, true) => self.architecture.to_owned(),
            (suite, _) => {
                format!("{} {} {}", self.architecture, suite.unwrap_or("-"), self.with_dependencies)
            }
        };
        let key = format!("{about} {} {}", words.join(" "), stamp().on_file("list", LISTS)?);
        if let Some(known) = self.objects.memo(SPACE, &key)?
            && let Ok(candidates) = serde_json::from_str(&known)
        {
            return Ok(candidates);
        }
        let verb: &[&str] = if self.with_dependencies { &["-y", "install"] } else { &["download"] };
        let output = self.ask(verb, &words)?;
        if !output.status.success() {
            return Err(StepError::environment(format!(
                "apt cannot resolve the packages: {}",
                problems(&output).join("; ")
            ))
            .with_hint(
                "run `apt-get update` first; if that does not help, correct the packages of the node in the spec",
            ));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut candidates = text.lines().map(parse).collect::<Result<Vec<_>, StepError>>()?;
        if candidates.is_empty() {
            return Err(StepError::environment("apt names no packages at all: its lists are empty")
                .with_hint("run `apt-get update` first"));
        }
        candidates.sort_by(|a, b| a.package.name.cmp(&b.package.name));
        let text = serde_json::to_string(&candidates).expect("packages are plain values");
        self.objects.set_memo(SPACE, &key, &text)?;
        Ok(candidates)
    }

    /// Returns where apt's sources have packages of just these versions and hashes; nothing where there is no apt.
    pub(super) fn locate(self, packages: &[&Package]) -> Result<BTreeMap<Sha256, String>, StepError> {
        if !Path::new(APT_GET).is_file() {
            return Ok(BTreeMap::new());
        }
        let words: Vec<String> = packages.iter().map(|package| exactly(package)).collect();
        let output = self.ask(&["download"], &words)?;
        // What it does not know is an error in the end, and what it knows is printed all the same.
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.lines().filter_map(|line| parse(line).ok());
        Ok(found.map(|candidate| (candidate.package.sha256, candidate.uri)).collect())
    }

    /// Has apt print where it would fetch packages from.
    fn ask(self, verb: &[&str], words: &[String]) -> Result<Output, StepError> {
        let work = self.objects.work_dir()?;
        for folder in ["state", "cache/archives/partial"] {
            fs::create_dir_all(work.path().join(folder)).on_file("make", work.path().join(folder))?;
        }
        fs::write(work.path().join("status"), "").on_file("write", work.path().join("status"))?;
        let lists = self.lists(work.path())?;
        let mut command = self.apt_get(work.path(), &lists);
        command.args(["--print-uris", "-qq"]).args(verb).arg("--").args(words);
        run(command, self.cancel)
    }
}

/// Where it is remembered what apt answered.
const SPACE: &str = "apt-candidates";

/// Returns the word by which apt takes a package of just that version.
fn exactly(package: &Package) -> String {
    format!("{}={}", package.name, package.version)
}

/// Returns the date of the newest package lists that apt has; nothing where it has none.
pub(in crate::steps) fn date() -> Option<Timestamp> {
    let is_release = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("Release"))
    };
    let paths = fs::read_dir(LISTS).into_iter().flatten().flatten().map(|entry| entry.path());
    let texts = paths.filter(is_release).filter_map(|path| fs::read_to_string(path).ok());
    let date = |text: String| {
        Timestamp::of_release(text.lines().find_map(|line| line.strip_prefix("Date:"))?.trim())
    };
    texts.filter_map(date).max()
}

/// Reads a line of `--print-uris`: `'URI' FILE SIZE SHA256:HEX`.
fn parse(line: &str) -> Result<Candidate, StepError> {
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
    let package = Package {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
        size,
        sha256,
        file: file_in_archive(uri).ok_or_else(unknown)?,
    };
    Ok(Candidate { package, uri: uri.to_owned() })
}

/// Returns where an archive has a file, by its address: below `pool`, where there is one, and else by its name alone.
fn file_in_archive(uri: &str) -> Option<String> {
    let path = match uri.rfind("/pool/") {
        Some(at) => &uri[at + 1..],
        None => uri.rsplit('/').next()?,
    };
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok().filter(|path| RelPath::new(path.as_bytes()).is_ok())
}

/// Fetches packages with apt's own transport, and takes those into the store that have the right hash. `known` says where they are.
pub(super) fn download(
    job: &Job<'_>,
    packages: &[&Package],
    known: &BTreeMap<Sha256, String>,
) -> Result<(), StepError> {
    let work = job.objects.work_dir()?;
    let mut command = Command::new("/usr/lib/apt/apt-helper");
    command.args(["-o", "APT::Sandbox::User=root", "-qq", "download-file"]).env("LC_ALL", "C");
    command.current_dir(work.path());
    let place = |package: &Package| work.path().join(package.sha256.to_string());
    let mut is_asked = false;
    for package in packages {
        let uri = &known[&package.sha256];
        match uri.strip_prefix("file:") {
            // apt leaves such files where they are.
            Some(path) => {
                let path = Path::new(path);
                fs::copy(path, place(package)).on_file("copy", path)?;
            }
            None => {
                command.args([uri, &package.sha256.to_string(), &format!("SHA256:{}", package.sha256)]);
                is_asked = true;
            }
        }
    }
    if is_asked {
        let output = run(command, job.cancel)?;
        if !output.status.success() {
            let problems = problems(&output).join("; ");
            let hint = match problems.contains("No space left") {
                true => "make room: `stagegraph store gc` removes what no published folder needs",
                false => {
                    "look at the network and at apt's sources; `apt-get update` gets lists that fit the archive"
                }
            };
            return Err(StepError::environment(format!("fetch packages: {problems}")).with_hint(hint));
        }
    }
    packages.iter().try_for_each(|package| take(job, package, &place(package)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_apt_names_a_package_with_its_hash_and_its_place_in_the_archive() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let line = format!(
            "'http://host/debian/pool/p/libx_2.0-1%2bb1_amd64.deb' libx_1%3a2.0-1+b1_amd64.deb 77 SHA256:{hash}"
        );
        let Package { name, version, architecture, size, file, .. } = parse(&line).unwrap().package;
        assert_eq!((name.as_str(), version.as_str(), architecture.as_str()), ("libx", "1:2.0-1+b1", "amd64"));
        assert_eq!((size, file.as_str()), (77, "pool/p/libx_2.0-1+b1_amd64.deb"));
        assert_eq!(file_in_archive("file:/repo/./x_1_all.deb").unwrap(), "x_1_all.deb");
        for bad in ["", "'x' y 1 MD5Sum:00", "'x' ../y_1_a.deb 1 SHA256:0", "'x' y.deb 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            (file_in_archive("http://h/pool/%2e%2e/x"), file_in_archive("http://h/pool/%2")),
            (None, None)
        );
    }
}
