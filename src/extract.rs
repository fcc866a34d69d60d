//! The netboot set of an ISO that somebody published, audited against that ISO.

mod spec;

use std::fs;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::{FileError, Store, StoreError};
use graph::Fault;

pub use self::spec::MenuError;
use crate::audit::{self, GatherError, Place, Report, Set, SetError};
use crate::config::SpecErrors;
use crate::http::{Client, Patience};
use crate::machine::{Ended, Machine};
use crate::publish::{self, PublishError};
use crate::report::Reporter;
use crate::spec::{Finder, Overrides, Spec};

/// Why no netboot set was written.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The ISO, or its menu.
    #[error(transparent)]
    Menu(#[from] MenuError),
    /// The folder to write has no name of its own.
    #[error("{0} is not a folder's name")]
    NoName(PathBuf),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The spec that stands for the ISO.
    #[error(transparent)]
    Spec(#[from] SpecErrors),
    /// The store of this run failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The set could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The set cannot be read again.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The set or the ISO cannot be read again.
    #[error(transparent)]
    Gather(#[from] GatherError),
}

/// How it ended.
#[derive(Debug)]
pub enum Extracted {
    /// The set is written; this is what an audit found.
    Written(Box<Report>),
    /// A node failed, which was reported; nothing was written.
    Failed(Fault),
    /// The machine was told to stop; nothing was written.
    Stopped,
}

/// Writes the netboot set of the ISO at `iso` into `dir`: new, empty, or written by this program before.
///
/// # Errors
/// [`ExtractError`]; `dir` is what it was.
pub fn extract(
    iso: &Path,
    dir: &Path,
    finder: &Finder,
    machine: &Machine,
    reporter: &Reporter,
) -> Result<Extracted, ExtractError> {
    publish::check(dir)?;
    let made = spec::spec(iso)?;
    for remark in &made.remarks {
        reporter.say(&format!("note: {remark}"));
    }
    let name = dir.file_name().ok_or_else(|| ExtractError::NoName(dir.to_owned()))?;
    // Next to the folder, so that its files are links to what is made here.
    let work = Work(dir.with_file_name(format!(".{}.extract", name.to_string_lossy())));
    fs::create_dir_all(&work.0).on_file("make", &work.0)?;
    let file = work.0.join("extract.toml");
    fs::write(&file, made.text).on_file("write", &file)?;
    let spec = Spec::load(finder, &file.to_string_lossy(), &Overrides::default())?;
    let store = Store::open(&work.0.join("store"))?;
    let built = match machine.build_all(&store, &spec, &spec.name, reporter)? {
        Ended::Done(built) => built,
        Ended::Failed(fault) => return Ok(Extracted::Failed(fault)),
        Ended::Stopped => return Ok(Extracted::Stopped),
    };
    let published = publish::publish(&store, &spec, &built, dir)?;
    reporter.published(dir, &published);
    let set = Set::open(&dir.to_string_lossy(), &Client::new(Patience::default()))?;
    let report = audit::audit(&iso.to_string_lossy(), &Place::Local(iso.to_owned()), set)?;
    Ok(Extracted::Written(Box::new(report)))
}

/// A folder that goes away, whatever happens.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        // What a killed process left is removed by the next one.
        let _ = fs::remove_dir_all(&self.0);
    }
}
