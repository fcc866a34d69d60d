//! The lock of a spec: which of its entries count, and whether they fit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::{Output, Sha256};
use graph::{Job, NodeName, Resolved, Resolving, Step, StepError};
use sha2::Digest;

use crate::config::{Lock, Locked, Package, Source, SpecError, SpecErrors};

/// What becomes of a spec's lock.
#[derive(Debug, Clone, Default)]
pub enum Locking {
    /// It does not count: what is outside is what it is today.
    #[default]
    Ignored,
    /// It counts where there is one; at this path, or else beside the spec.
    IfThere(Option<PathBuf>),
    /// There must be one.
    Required(Option<PathBuf>),
    /// Of this one, packages stay as they are, but for those of these names.
    Kept(Lock, BTreeSet<String>),
}

/// A lock that counts.
#[derive(Debug, Clone)]
pub(super) struct InUse {
    /// Its path, for messages.
    pub(super) name: String,
    /// The hash of the file.
    pub(super) sha256: Sha256,
    pub(super) lock: Lock,
    /// Where it begins.
    source: Arc<Source>,
    /// The command that makes the lock.
    command: String,
}

/// Returns the command that makes the lock of a spec, for whoever reads a hint; `spec` is what the caller calls the spec.
pub(super) fn command(spec: &str, set: &[String], locking: &Locking) -> String {
    // A name that begins with a dash would be taken for an option.
    let spec = if spec.starts_with('-') { format!("./{spec}") } else { spec.to_owned() };
    let mut words = vec!["stagegraph".to_owned(), "lock".to_owned(), quoted(&spec)];
    words.extend(set.iter().flat_map(|set| ["--set".to_owned(), quoted(set)]));
    if let Locking::IfThere(Some(path)) | Locking::Required(Some(path)) = locking {
        words.extend(["--lock".to_owned(), quoted(&path.display().to_string())]);
    }
    words.join(" ")
}

/// Returns a word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+/=@:,%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Reads a lock file.
///
/// # Errors
/// There is none, or none that can be read.
pub fn read_file(path: &Path) -> std::io::Result<String> {
    const MOST: u64 = 64 << 20;
    let found = std::fs::metadata(path)?;
    if !found.is_file() || found.len() > MOST {
        return Err(std::io::Error::other("expected a plain file of 64 MiB at most"));
    }
    std::fs::read_to_string(path)
}

/// Returns where the lock of a spec is; `spec` is the path of its file, or its name among the built-in ones.
pub(super) fn path_of(spec: &str) -> PathBuf {
    match spec.strip_prefix("<built-in>/") {
        Some(name) => Path::new(name).with_extension("lock"),
        None => Path::new(spec).with_extension("lock"),
    }
}

impl InUse {
    /// Reads the lock that is to count, if there is one.
    ///
    /// `command` makes it, and `file` is the path of the spec's file.
    pub(super) fn read(locking: &Locking, command: &str, file: &str) -> Result<Option<Self>, SpecErrors> {
        let (path, is_required) = match locking {
            Locking::Ignored | Locking::Kept(..) => return Ok(None),
            Locking::IfThere(path) => (path, path.is_some()),
            Locking::Required(path) => (path, true),
        };
        let path = path.clone().unwrap_or_else(|| path_of(file));
        let name = path.display().to_string();
        let text = match read_file(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_required => return Ok(None),
            Err(error) => {
                let error = SpecError::nowhere(format!("cannot read the lock {name}: {error}"));
                let hint = match path.symlink_metadata() {
                    Ok(_) => "name another file with --lock, or move this away".to_owned(),
                    Err(_) => format!("write one: {command}"),
                };
                return Err(error.hint(hint).into());
            }
        };
        let sha256 = Sha256::from(sha2::Sha256::new_with_prefix(&text));
        let source = Arc::new(Source::of_file(name.clone(), &text));
        let anew = format!("write it anew: {command} --update");
        let lock = Lock::read(&source).map_err(|errors| errors.with_hint(&anew))?;
        Ok(Some(Self { name, sha256, lock, source, command: command.to_owned() }))
    }

    /// Returns what the lock says of a node.
    ///
    /// # Errors
    /// It says nothing of it, or does not fit; `asked` is what the node asks apt for.
    pub(super) fn entry(
        &self,
        node: &NodeName,
        step: &str,
        asked: Option<&[String]>,
    ) -> Result<&Locked, Box<SpecError>> {
        let start = || crate::config::Origin { source: Arc::clone(&self.source), span: 0..0 };
        let update = format!("bring it up to date: {}", self.command);
        let Some(entry) = self.lock.nodes.get(node.as_str()) else {
            let error = SpecError::at(&start(), format!("{} has no entry for the node {node}", self.name));
            return Err(error.label("not in this file").hint(format!("add it: {}", self.command)));
        };
        let origin = entry.origin.clone().unwrap_or_else(start);
        if entry.step != step {
            let message =
                format!("{node} was locked where it ran the step {}; here it runs {step}", entry.step);
            return Err(SpecError::at(&origin, message).label("does not fit").hint(update));
        }
        let Some(asked) = asked else { return Ok(entry) };
        if entry.packages.is_empty() {
            let error = SpecError::at(&origin, format!("the lock of {node} has no packages"));
            return Err(error.label("does not fit the spec").hint(update));
        }
        let without = |all: &[String], some: &[String]| -> Vec<String> {
            all.iter().filter(|name| !some.contains(name)).cloned().collect()
        };
        let (new, gone) = (without(asked, &entry.asked), without(&entry.asked, asked));
        let parts = [("has nothing of", new), ("has what is not asked for any more,", gone)];
        let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = parts.map(|(says, names)| format!("{says} {}", some_of(&names))).collect();
        if !parts.is_empty() {
            let message = format!("the lock of {node} {}", parts.join("; "));
            return Err(SpecError::at(&origin, message).label("does not fit the spec").hint(update));
        }
        Ok(entry)
    }

    /// Refuses entries for nodes that the spec does not have.
    pub(super) fn check_nodes(&self, nodes: &BTreeSet<&str>, errors: &mut SpecErrors) {
        for (name, entry) in self.lock.nodes.iter().filter(|(name, _)| !nodes.contains(name.as_str())) {
            if let Some(origin) = &entry.origin {
                let error = SpecError::at(origin, format!("the spec has no node {name}"));
                let hint = format!("bring it up to date: {}", self.command);
                errors.push(error.label("locked, and not there").hint(hint));
            }
        }
    }

    /// Has a step that takes something from outside compare it with the lock.
    pub(super) fn holding(&self, node: &NodeName, step: Arc<dyn Step>, entry: &Locked) -> Arc<dyn Step> {
        let (lock, command, expected) = (self.name.clone(), self.command.clone(), entry.sources.clone());
        Arc::new(Held { step, expected, lock, command, node: node.clone() })
    }
}

/// Names the first few.
fn some_of(names: &[String]) -> String {
    const MOST: usize = 10;
    match names.split_at_checked(MOST) {
        Some((some, more)) if !more.is_empty() => format!("{} and {} more", some.join(", "), more.len()),
        _ => names.join(", "),
    }
}

impl Locking {
    /// Returns the packages of a node that stay as they are where they can.
    pub(super) fn kept(&self, node: &NodeName) -> Vec<Package> {
        let Locking::Kept(lock, moved) = self else { return Vec::new() };
        let packages = lock.nodes.get(node.as_str()).map(|entry| entry.packages.clone()).unwrap_or_default();
        packages.into_iter().filter(|package| !moved.contains(&package.name)).collect()
    }
}

/// A step whose sources are to be those of a lock.
struct Held {
    step: Arc<dyn Step>,
    expected: BTreeMap<String, String>,
    lock: String,
    command: String,
    node: NodeName,
}

impl Step for Held {
    fn kind(&self) -> &'static str {
        self.step.kind()
    }

    fn version(&self) -> u32 {
        self.step.version()
    }

    fn params(&self) -> BTreeMap<String, String> {
        self.step.params()
    }

    fn wants_provenance(&self) -> bool {
        self.step.wants_provenance()
    }

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let resolved = self.step.resolve(resolving)?;
        let Self { expected, lock, command, node, .. } = self;
        let found = &resolved.sources;
        let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
        let value = |of: &BTreeMap<String, String>, name| {
            of.get(name).cloned().unwrap_or_else(|| "nothing".to_owned())
        };
        let other = names.into_iter().find(|name| expected.get(*name) != found.get(*name));
        let other = other.map(|name| (name.clone(), value(found, name), value(expected, name)));
        match other {
            None => Ok(resolved),
            Some((name, here, there)) => Err(StepError::spec(format!(
                "{name} is {here} here; the lock {lock} has {there}"
            ))
            .with_hint(format!("put back what was there; or go on with this: {command} --update {node}"))),
        }
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        self.step.run(job)
    }
}
