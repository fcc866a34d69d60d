//! `stagegraph reproduce`.

use std::fs;
use std::path::{Path, PathBuf};

use cache::RelPath;
use clap::{Args, Parser};
use sha2::{Digest, Sha256};
use trust::dsse::Envelope;

use super::build::Build;
use super::failure::{DONE, ENVIRONMENT, FAILED, Failure, WRONG, print};
use super::provenance::manifest_in;
use super::sign::SignersArg;
use crate::formats::checksums::hex;
use crate::http::{Client, Patience};
use crate::manifest::Manifest;
use crate::provenance::{PAYLOAD_TYPE, Statement};
use crate::reproduction::{Comparison, compare};
use crate::signing::digest;
use crate::spec::without_places;
use crate::steps;

/// Names of the spec and of what is built of it, in the folder of its own.
const NAME: &str = "reproduced";

/// Bytes of a manifest.
const LARGEST: u64 = 64 << 20;

/// Builds a published set again, from its manifest, and compares every file.
///
/// It is compared with what the manifest says; of a folder, so are its files before. Who wrote the manifest says what is run here, in the
/// sandbox: verify a stranger's before (`audit --keyring`).
///
/// The manifest has the spec. Nothing is taken from a store or an upstream: all is made again, in a folder that goes away. Of a set that
/// was made with a lock, the lock is needed, and is known by its hash. What lies on the machine (an imported root) is named with --set.
///
/// Exit codes: 0 every file is the same; 1 some differ: in the folder, from its manifest, or of the first node that gave other bytes of
/// the same inputs, which is named; 2 the command line, the manifest or the lock is wrong; 3 something of what it was made of is not
/// there, or is another one.
#[derive(Debug, Args)]
pub(super) struct Reproduce {
    /// A published folder, a manifest, or the address of a manifest
    #[arg(value_name = "FOLDER|MANIFEST|URL")]
    place: String,
    /// The lock that it was made with [default: FOLDER.lock, beside the folder]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Set NODE.KEY of the spec: where something lies, such as `stage2.path=root.tar`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// An archive with packages that apt does not have (any more): an address or a folder; may be repeated
    #[arg(long, value_name = "ARCHIVE")]
    mirror: Vec<String>,
    /// Where it is built: a new folder in this one, which goes away [default: $TMPDIR, else /tmp]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// How many nodes run at once, and how many threads each may use [default: all cores]
    #[arg(short, long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Where every file is the same, made of the same: sign that, by the builder's key, as a line of this new file
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    signers: SignersArg,
}

/// A build with nothing else on its command line.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Again {
    #[command(flatten)]
    build: Build,
}

impl Reproduce {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let builder = match &self.sign {
            None => None,
            Some(file) if file.exists() => {
                return Err(Failure::wrong(format!("--sign {}: the file is there already", file.display()))
                    .with_hint("name a new file; whoever publishes appends its line"));
            }
            Some(_) => Some(self.signers.read()?.builder.ok_or_else(|| {
                Failure::wrong("--sign: the file of signers names no builder")
                    .with_hint("add [provenance] with key = \"FILE\" and builder = \"ADDRESS\"")
            })?),
        };
        let (text, beside) = self.read()?;
        let before =
            Manifest::read(&text).map_err(|error| Failure::wrong(format!("{} {error}", self.place)))?;
        let lock = self.lock(&before, beside)?;
        let work = match &self.work {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let work =
            work.map_err(|error| Failure::environment(format!("make a folder to build in: {error}")))?;
        self.compare_files(&before)?;
        match self.build(&before, lock.as_deref(), work.path())? {
            DONE => {}
            // A node that fails gave nothing that could be compared.
            FAILED => return Ok(ENVIRONMENT),
            code => return Ok(code),
        }
        let now = manifest_in(&work.path().join("out").join(NAME))?;
        let now = fs::read_to_string(&now)
            .map_err(|error| Failure::environment(format!("read {}: {error}", now.display())))?;
        let now = Manifest::read(&now).map_err(|error| Failure::of(WRONG, &error))?;
        let comparison = compare(&before, &now);
        let (code, said) = say(&comparison, before.files.len());
        print(said.as_bytes())?;
        if let (Some(builder), Some(file)) = (builder, &self.sign) {
            let payload = Statement::of(&before, &builder.id).encode();
            if comparison != Comparison::Same || payload != Statement::of(&now, &builder.id).encode() {
                return Err(Failure {
                    code: code.max(FAILED),
                    ..Failure::wrong("nothing was signed: not everything is the same")
                });
            }
            let envelope: Envelope =
                builder.key.sign(PAYLOAD_TYPE, &payload).map_err(|error| Failure::of(ENVIRONMENT, &error))?;
            let line =
                serde_json::to_string(&envelope).map_err(|error| Failure::environment(error.to_string()))?;
            fs::write(file, line + "\n")
                .map_err(|error| Failure::environment(format!("write {}: {error}", file.display())))?;
            print(format!("signed   {}\n", file.display()).as_bytes())?;
        }
        Ok(code)
    }

    /// Compares the files of a published folder with what its manifest says.
    fn compare_files(&self, manifest: &Manifest) -> Result<(), Failure> {
        let folder = Path::new(&self.place);
        if !folder.is_dir() {
            return Ok(());
        }
        for (name, facts) in &manifest.files {
            let path = RelPath::new(name.as_bytes()).map(|name| name.below(folder));
            let path =
                path.map_err(|error| Failure::wrong(format!("the manifest names {name:?}: {error}")))?;
            let found = digest(&path).map_err(|error| Failure::of(ENVIRONMENT, &error))?;
            if found != facts.blake3 {
                return Err(Failure {
                    code: FAILED,
                    ..Failure::wrong(format!("{} is not what the manifest says", path.display()))
                }
                .with_hint("stagegraph audit tells all that is wrong with the folder"));
            }
        }
        Ok(())
    }

    /// Reads the manifest; returns where its lock would be, too.
    fn read(&self) -> Result<(String, Option<PathBuf>), Failure> {
        if self.place.contains("://") {
            let url = url::Url::parse(&self.place)
                .map_err(|error| Failure::wrong(format!("{}: {error}", self.place)))?;
            let file = Client::new(Patience::default()).find(&url);
            let file = file.map_err(|error| Failure::of(ENVIRONMENT, &error))?;
            let mut text = String::new();
            let mut reader = std::io::Read::take(file.reader(), LARGEST);
            std::io::Read::read_to_string(&mut reader, &mut text)
                .map_err(|error| Failure::environment(format!("read {}: {error}", self.place)))?;
            return Ok((text, None));
        }
        let place = PathBuf::from(&self.place);
        let (path, beside) = match place.is_dir() {
            true => (
                manifest_in(&place)?,
                Some(PathBuf::from(format!("{}.lock", self.place.trim_end_matches('/')))),
            ),
            false => (place, None),
        };
        let text = fs::read_to_string(&path)
            .map_err(|error| Failure::environment(format!("read {}: {error}", path.display())))?;
        Ok((text, beside))
    }

    /// Finds the lock that the set was made with.
    fn lock(&self, manifest: &Manifest, beside: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
        let Some(wanted) = manifest.lock else {
            return match &self.lock {
                None => Ok(None),
                Some(_) => Err(Failure::wrong("--lock: the set was made without a lock")),
            };
        };
        let path = self.lock.clone().or(beside.filter(|path| path.is_file())).ok_or_else(|| {
            Failure::wrong(format!("the set was made with a lock, which has the SHA-256 {}", wanted.sha256))
                .with_hint("name it: --lock FILE")
        })?;
        let bytes = fs::read(&path)
            .map_err(|error| Failure::environment(format!("read {}: {error}", path.display())))?;
        let found = hex(&Sha256::digest(&bytes));
        if found != wanted.sha256.to_string() {
            return Err(Failure::wrong(format!(
                "{} has the SHA-256 {found}; the set was made with the lock that has {}",
                path.display(),
                wanted.sha256
            )));
        }
        Ok(Some(path))
    }

    /// Builds the spec of a manifest, from nothing.
    fn build(&self, manifest: &Manifest, lock: Option<&Path>, work: &Path) -> Result<u8, Failure> {
        let no_spec = || {
            Failure::wrong(format!("the manifest has no spec: {} did not write it", manifest.generator))
                .with_hint("build the spec itself, and compare what comes out")
        };
        if manifest.spec.is_null() {
            return Err(no_spec());
        }
        // Who wrote the manifest may be a stranger: tools run in the sandbox, and catalyst does not.
        let runs_catalyst =
            |node: &serde_json::Value| node["step"] == "catalyst" || node["step"] == steps::AUTO;
        let mut nodes = manifest.spec["node"].as_object().into_iter().flatten();
        if let Some((node, _)) = nodes.find(|(_, settings)| runs_catalyst(settings)) {
            return Err(Failure::wrong(format!(
                "the node {node} runs catalyst, as root and without a sandbox"
            ))
            .with_hint(
                "a manifest is not enough for that: build the spec itself, and compare what comes out",
            ));
        }
        let spec =
            toml::Value::try_from(without_places(&manifest.spec)).and_then(|spec| toml::to_string(&spec));
        let spec = spec.map_err(|error| Failure::wrong(format!("the spec of the manifest: {error}")))?;
        let path = work.join(format!("{NAME}.toml"));
        fs::write(&path, spec)
            .map_err(|error| Failure::environment(format!("write {}: {error}", path.display())))?;
        let mut args = vec![path.display().to_string()];
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("--store", work.join("store").display().to_string());
        option("--out", work.join("out").display().to_string());
        lock.into_iter().for_each(|lock| option("--lock", lock.display().to_string()));
        self.set.iter().for_each(|set| option("--set", set.clone()));
        self.mirror.iter().for_each(|mirror| option("--mirror", mirror.clone()));
        self.jobs.iter().for_each(|jobs| option("--jobs", jobs.to_string()));
        // What somebody else made is not made again.
        #[cfg(feature = "remote")]
        option("--remote", "none".to_owned());
        let again = Again::try_parse_from(args).map_err(|error| Failure::wrong(error.to_string()))?;
        again.build.run()
    }
}

/// Says what came of it, and returns the exit code.
fn say(comparison: &Comparison, files: usize) -> (u8, String) {
    match comparison {
        Comparison::Same => (DONE, format!("All {files} files are the same.\n")),
        Comparison::SameFiles(nodes) => (
            DONE,
            format!(
                "All {files} files are the same, of other inputs: {} were made of something else.\n",
                nodes.join(", ")
            ),
        ),
        Comparison::Inputs { node, what } => {
            let shown: Vec<&str> = what.iter().take(5).map(String::as_str).collect();
            let more = what.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (ENVIRONMENT, format!("{node} was made of something else: {}{more} differ.\n", shown.join(", ")))
        }
        Comparison::Outputs { node, outputs } => (
            FAILED,
            format!(
                "{node} gave other bytes of the same inputs: {}. All other differences follow from that.\n",
                outputs.join(", ")
            ),
        ),
        Comparison::Files(names) => {
            (FAILED, format!("Files differ, and no node accounts for it: {}\n", names.join(", ")))
        }
    }
}
