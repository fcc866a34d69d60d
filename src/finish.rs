//! What catalyst's target asks for at its end: the ISO and the netboot set of what catalyst made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::{FileError, Store, StoreError};
use graph::Fault;
use graph::build::Built;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::catalyst::{Request, RequestError, RequestOutput, RequestResult, SCHEMA};
use crate::config::SpecErrors;
use crate::machine::{Ended, Machine};
use crate::publish::{self, PublishError, Published};
use crate::report::Reporter;
use crate::spec::{Finder, Overrides, Spec};

/// Why a request was not met.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The request itself.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It names no ISO.
    #[error("livecd/iso names no file")]
    NoName,
    /// An ISO of an earlier run would stay next to a netboot set that it does not match.
    #[error(
        "{0} is there, of an earlier run that made it; the netboot set next to it would be another one's: move it and its \
         lists away"
    )]
    OldIso(PathBuf),
    /// catalyst ended, or its end cannot be watched.
    #[error("catalyst has ended, or its end cannot be watched")]
    Catalyst(#[source] io::Error),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The spec that stands for the request.
    #[error(transparent)]
    Spec(#[from] SpecErrors),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The outputs could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// How it ended.
#[derive(Debug)]
pub enum Finished {
    /// All that can be made is published, and the result is written.
    Published {
        /// What was asked for and cannot be made.
        lacks: Option<String>,
    },
    /// A node failed, which was reported.
    Failed(Fault),
    /// The machine was told to stop.
    Stopped,
}

/// Meets the request in the file at `path`.
///
/// # Errors
/// [`FinishError`]; nothing is published then.
pub fn finish(
    path: &Path,
    finder: &Finder,
    machine: &Machine,
    reporter: &Reporter,
) -> Result<Finished, FinishError> {
    die_with_catalyst().map_err(FinishError::Catalyst)?;
    let request = Request::read(path)?;
    let text = request.spec()?;
    let (Some(folder), Some(name)) = (request.image.iso.parent(), request.image.iso.file_name()) else {
        return Err(FinishError::NoName);
    };
    let name = name.to_string_lossy();
    if !request.image.has_iso() && request.image.iso.exists() {
        return Err(FinishError::OldIso(request.image.iso.clone()));
    }
    // Found out before anything is published.
    let fresh = request.result.with_extension("new");
    fs::write(&fresh, "").on_file("write", &request.result)?;
    let store = Store::open(&request.store)?;
    store.say_waits(|text| eprintln!("{text}"));
    let work = store.work_dir()?;
    let file = work.path().join("catalyst-request.toml");
    fs::write(&file, text).on_file("write", &file)?;
    let overrides = Overrides { set: request.set.clone(), epoch: None };
    let spec = Spec::load(finder, &file.to_string_lossy(), &overrides)?;
    let built = match machine.build_all(&store, &spec, &name, reporter)? {
        Ended::Done(built) => built,
        Ended::Failed(fault) => return Ok(Finished::Failed(fault)),
        Ended::Stopped => return Ok(Finished::Stopped),
    };
    let published = publish::publish_beside(&store, &spec, &built, folder, &name)?;
    keep(&store, folder, &name, &published, &built)?;
    write_result(&request.result, &fresh, folder, &published)?;
    reporter.published(folder, &published);
    Ok(Finished::Published { lacks: request.image.refused_iso() })
}

/// Keeps what is published in the store for as long as it is there: the ISO, or the first file where there is none.
fn keep(
    store: &Store,
    folder: &Path,
    name: &str,
    published: &Published,
    built: &Built,
) -> Result<(), StoreError> {
    let kept = published.files.keys().find(|file| *file == name).or_else(|| published.files.keys().next());
    match kept {
        Some(kept) => store.set_root(&folder.join(kept), name, &built.actions()),
        None => Ok(()),
    }
}

/// Tells the target what was published: the file has its name once it is whole.
fn write_result(path: &Path, fresh: &Path, folder: &Path, published: &Published) -> Result<(), FileError> {
    let output = |(file, digest): (&String, &cache::BlobDigest)| RequestOutput {
        path: folder.join(file),
        blake3: *digest,
    };
    let result = RequestResult { schema: SCHEMA, outputs: published.files.iter().map(output).collect() };
    let text = serde_json::to_string_pretty(&result).map_err(io::Error::from).on_file("write", path)?;
    fs::write(fresh, text + "\n").and_then(|()| fs::rename(fresh, path)).on_file("write", path)
}

/// Ends this process when catalyst ends: catalyst leaves its children behind.
fn die_with_catalyst() -> io::Result<()> {
    let before = getppid();
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended between the two.
    if getppid() == before { Ok(()) } else { Err(io::Error::other("its process is gone")) }
}
