//! What catalyst's target asks for at its end: the ISO and the netboot set of what catalyst made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::{FileError, Store, StoreError};
use graph::Fault;
use graph::build::Built;
use graph::sandbox::SandboxError;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::catalyst::{Request, RequestError, RequestOutput, RequestResult};
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
    /// Each image would hold the last one.
    #[error(
        "the store {store} is in {packed}, which is packed: each image would hold the last one; name another place with livecd/stagegraph_store"
    )]
    StoreInside {
        /// The store.
        store: PathBuf,
        /// What it is in.
        packed: PathBuf,
    },
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
    /// Tools cannot be run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// The node that stands for catalyst's work.
const STAGE2: &str = "stage2";

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

/// A request, read, and what becomes of it.
struct Order {
    request: Request,
    /// The folder that everything is published in.
    folder: PathBuf,
    /// The ISO's name, with which all names begin.
    name: String,
    /// The text of the spec that stands for it.
    text: String,
}

impl Order {
    fn read(path: &Path) -> Result<Self, FinishError> {
        let request = Request::read(path)?;
        let text = request.spec()?;
        let iso = &request.image.iso;
        let (Some(folder), Some(name)) = (iso.parent(), iso.file_name()) else {
            return Err(FinishError::NoName);
        };
        if !request.image.has_iso() && iso.exists() {
            return Err(FinishError::OldIso(iso.clone()));
        }
        let (folder, name) = (folder.to_owned(), name.to_string_lossy().into_owned());
        Ok(Self { request, folder, name, text })
    }

    /// Finds out whether files can be published where they are to be, and whether the store is out of what is packed.
    fn check_places(&self) -> Result<(), FinishError> {
        let Request { image, store, stage_path, iso_root, .. } = &self.request;
        if let Some(packed) = [stage_path, iso_root].into_iter().find(|packed| store.starts_with(packed)) {
            return Err(FinishError::StoreInside { store: store.clone(), packed: packed.clone() });
        }
        if image.iso.is_dir() {
            return Err(FinishError::OldIso(image.iso.clone()));
        }
        fs::create_dir_all(&self.folder).on_file("make", &self.folder)?;
        let trial = tempfile::Builder::new().prefix(".stagegraph-").tempfile_in(&self.folder);
        trial.map(drop).on_file("write into", &self.folder)?;
        Ok(())
    }

    fn store(&self) -> Result<Store, FinishError> {
        let store = Store::open(&self.request.store)?;
        store.say_waits(|text| eprintln!("{text}"));
        Ok(store)
    }

    fn spec(&self, store: &Store, finder: &Finder) -> Result<Spec, FinishError> {
        let work = store.work_dir()?;
        let file = work.path().join("catalyst-request.toml");
        fs::write(&file, &self.text).on_file("write", &file)?;
        let overrides = Overrides { set: self.request.set.clone(), ..Overrides::default() };
        Ok(Spec::load(finder, &file.to_string_lossy(), &overrides)?)
    }
}

/// Finds out whether the request in the file at `path` can be met once catalyst's folders are filled: all that it says is
/// known, the store can be written, tools are here. Returns why not, where that was reported already.
///
/// A result without outputs is written, by which the target sees that this was understood.
///
/// # Errors
/// [`FinishError`].
pub fn check(
    path: &Path,
    finder: &Finder,
    machine: &Machine,
    reporter: &Reporter,
) -> Result<Option<Fault>, FinishError> {
    let mut order = Order::read(path)?;
    RequestResult::try_to_write(&order.request.result)?;
    order.check_places()?;
    let store = order.store()?;
    let stands_in = store.work_dir()?;
    order.request.stage_path = stands_in.path().join("stage");
    order.request.iso_root = stands_in.path().join("medium");
    for folder in [order.request.stage_path.clone(), order.request.iso_root.join("boot")] {
        fs::create_dir_all(&folder).on_file("make", &folder)?;
    }
    order.text = order.request.spec()?;
    let spec = order.spec(&store, finder)?;
    let here: Vec<_> = spec.dag.nodes().keys().filter(|node| node.as_str() != STAGE2).cloned().collect();
    let fault = machine.check(&store, &spec, &here, reporter)?;
    if fault.is_none() {
        RequestResult::default().write(&order.request.result)?;
    }
    Ok(fault)
}

/// Writes why a request was not met where the target looks for the result: catalyst's own log has no line of what its
/// children print.
pub fn write_reason(request: &Path, reason: &str) -> Result<(), FinishError> {
    let result = RequestResult { error: Some(reason.to_owned()), ..RequestResult::default() };
    Ok(result.write(&Request::read(request)?.result)?)
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
    let order = Order::read(path)?;
    // Found out before anything is published.
    RequestResult::try_to_write(&order.request.result)?;
    let Order { request, folder, name, .. } = &order;
    let store = order.store()?;
    let spec = order.spec(&store, finder)?;
    let built = match machine.build_all(&store, &spec, name, reporter)? {
        Ended::Done(built) => built,
        Ended::Failed(fault) => return Ok(Finished::Failed(fault)),
        Ended::Stopped => return Ok(Finished::Stopped),
    };
    let published = publish::publish_beside(&store, &spec, &built, folder, name)?;
    keep(&store, folder, name, &published, &built)?;
    let output = |(file, digest): (&String, &cache::BlobDigest)| RequestOutput {
        path: folder.join(file),
        blake3: *digest,
    };
    let outputs = published.files.iter().map(output).collect();
    RequestResult { outputs, ..RequestResult::default() }.write(&request.result)?;
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

/// Ends this process when catalyst ends: catalyst leaves its children behind.
fn die_with_catalyst() -> io::Result<()> {
    let before = getppid();
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended between the two.
    if getppid() == before { Ok(()) } else { Err(io::Error::other("its process is gone")) }
}
