//! The netboot set of an ISO that somebody published, audited against that ISO.

mod spec;

use std::fs;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::{FileError, Store, StoreError};
use graph::Fault;

pub use self::spec::MenuError;
use crate::audit::{self, GatherError, Place, Report, Set, SetError, Trusted, Verdict};
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
    /// An audit found that it does not match the ISO or does not boot, or could not read something; nothing was written.
    Refused(Box<Report>),
    /// A node failed, which was reported; nothing was written.
    Failed(Fault),
    /// The machine was told to stop; nothing was written.
    Stopped,
}

/// What is to be extracted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The ISO.
    pub iso: &'a Path,
    /// The folder to write.
    pub dir: &'a Path,
    /// Checks of the audit whose differences are warnings.
    pub allow: &'a [String],
}

/// Whether the ISO itself boots is of no weight for its netboot set.
const ALWAYS_ALLOWED: &str = "iso-boot";

/// Writes the netboot set of an ISO into a folder: new, empty, or written by this program before. It is audited against the ISO first.
///
/// # Errors
/// [`ExtractError`]; the folder is what it was.
pub fn extract(
    wanted: Wanted<'_>,
    finder: &Finder,
    machine: &Machine,
    reporter: &Reporter,
) -> Result<Extracted, ExtractError> {
    let Wanted { iso, dir, allow } = wanted;
    publish::check(dir)?;
    let made = spec::spec(iso)?;
    for remark in &made.remarks {
        reporter.say(&format!("note: {remark}"));
    }
    if dir.file_name().is_none() {
        return Err(ExtractError::NoName(dir.to_owned()));
    }
    // Next to the folder, so that its files are links to what is made here.
    let work = publish::work_beside(dir)?;
    let file = work.path().join("extract.toml");
    fs::write(&file, made.text).on_file("write", &file)?;
    let spec = Spec::load(finder, &file.to_string_lossy(), &Overrides::default())?;
    let store = Store::open(&work.path().join(publish::STORE))?;
    let built = match machine.build_all(&store, &spec, &spec.name, reporter)? {
        Ended::Done(built) => built,
        Ended::Failed(fault) => return Ok(Extracted::Failed(fault)),
        Ended::Stopped => return Ok(Extracted::Stopped),
    };
    let draft = work.path().join("set");
    publish::publish(&store, &spec, &built, &draft, None)?;
    let mut set = Set::open(&draft.to_string_lossy(), &Client::new(Patience::default()))?;
    set.shown = dir.to_string_lossy().into_owned();
    set.stop = machine.stop();
    let mut report =
        audit::audit(&iso.to_string_lossy(), &Place::Local(iso.to_owned()), set, &Trusted::default())?;
    if machine.signal().is_some() {
        return Ok(Extracted::Stopped);
    }
    report.allow(&[allow, &[ALWAYS_ALLOWED.to_owned()]].concat());
    if matches!(report.verdict, Verdict::Different | Verdict::Unreadable) {
        return Ok(Extracted::Refused(Box::new(report)));
    }
    let published = publish::publish(&store, &spec, &built, dir, None)?;
    reporter.published(dir, &published);
    Ok(Extracted::Written(Box::new(report)))
}
