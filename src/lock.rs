//! Makes and renews the lock of a spec: has its sources looked up, keeps what is to stay, and says what changed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::file::OnFile;
use cache::{FileError, Store};
use graph::{Fault, NodeName, Resolved};

use crate::config::{Lock, Locked, Package, Source, SpecError, SpecErrors};
use crate::difference::{Parts, between};
use crate::image::Timestamp;
use crate::machine::Machine;
use crate::report::Reporter;
use crate::spec::{Finder, Locking, Overrides, Spec, read_lock};
use crate::steps;

/// What is to be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// What is missing, or fits the spec no longer.
    Missing,
    /// Everything.
    All,
    /// These nodes and packages, by name.
    Some(Vec<String>),
}

/// Why there is no new lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The spec, or the lock that is there.
    #[error(transparent)]
    Spec(#[from] SpecErrors),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A source could not be looked up, which was reported.
    #[error("a source could not be looked up")]
    Source(Fault),
}

/// A new lock.
#[derive(Debug)]
pub struct Renewed {
    /// Where it is.
    pub path: PathBuf,
    /// What changed, in lines for people.
    pub changes: String,
    /// What it has, in a few words.
    pub summary: String,
    /// Nodes that run this machine's own programs, which no lock pins.
    pub unpinned: Vec<NodeName>,
    /// Nodes of which the lock has something else than there is now, and keeps it.
    pub stale: Vec<NodeName>,
}

/// Says what a new lock is, and what changed since the old one.
fn renewed(path: PathBuf, spec: &Spec, old: &Lock, new: &Lock) -> Renewed {
    let is_unpinned = |node: &&NodeName| {
        let derivation = &spec.dag.nodes()[*node];
        steps::runs_tools(derivation.step.kind()) && derivation.inputs().all(|(name, _)| name != steps::TOOLS)
    };
    let unpinned = spec.dag.nodes().keys().filter(is_unpinned).cloned().collect();
    Renewed { path, changes: changes(old, new), summary: summary(new), unpinned, stale: Vec::new() }
}

/// What a lock is made with.
pub struct Maker<'a> {
    /// Looks the sources up.
    pub machine: &'a Machine,
    /// Where what is known of them is kept.
    pub store: &'a Store,
    /// Is told what is missing.
    pub reporter: &'a Reporter,
    /// Finds the spec.
    pub finder: &'a Finder,
    /// The spec.
    pub spec: &'a str,
    /// What is set on top of it.
    pub overrides: &'a Overrides,
}

impl Maker<'_> {
    /// Makes the lock of a spec, or renews it, and writes it down; at `path`, or else beside the spec.
    ///
    /// # Errors
    /// [`LockError`]; the lock that was there stays as it was.
    pub fn renew(&self, path: Option<PathBuf>, renewal: &Renewal) -> Result<Renewed, LockError> {
        let today = steps::date_of_lists().map(Timestamp::text);
        // Of the spec without a lock only the nodes count.
        let dated = |lock: &Lock| Lock { date: Some(today.clone().unwrap_or_else(start)), ..lock.clone() };
        let spec = self.load(&dated(&Lock::default()), BTreeSet::new())?;
        let path = path.unwrap_or_else(|| spec.lock.clone());
        let old = if *renewal == Renewal::All { read_any(&path)? } else { read(&path)? };
        // What was a toolbox stays one, also where there is no apt.
        let spec = self.load(&dated(&old), BTreeSet::new())?;
        let has_date = old.date.is_some() || old.nodes.values().all(|node| node.packages.is_empty());
        if *renewal == Renewal::Missing && has_date && self.fits(&path) {
            // As this program writes it, whoever edited it.
            write(&path, &old.render())?;
            let stale = self.stale(&old)?;
            return Ok(Renewed { stale, ..renewed(path, &spec, &old, &old) });
        }
        let moves = Moves::of(renewal, &old, &spec)?;
        let mut kept = old.clone();
        for (_, entry) in kept.nodes.iter_mut().filter(|(node, _)| moves.nodes.contains(*node)) {
            *entry = Locked { step: entry.step.clone(), ..Locked::default() };
        }
        // Which packages there are does not depend on the date.
        kept.date = kept.date.or_else(|| today.clone()).or_else(|| Some(start()));
        let mut lock = self.look(&kept, &moves, steps::has_packages)?;
        // What else there is may be dated by the lock.
        let is_as_before = lock
            .nodes
            .iter()
            .all(|(node, entry)| old.nodes.get(node).is_some_and(|old| old.packages == entry.packages));
        kept.date = if lock.nodes.is_empty() {
            None
        } else if is_as_before && old.date.is_some() {
            old.date.clone()
        } else {
            today
        };
        lock.nodes.extend(self.look(&kept, &moves, |kind| !steps::has_packages(kind))?.nodes);
        lock.date = kept.date;
        write(&path, &lock.render())?;
        Ok(renewed(path, &spec, &old, &lock))
    }

    /// Reads the spec; the packages of `lock` stay where they can, but those of these names.
    fn load(&self, lock: &Lock, moved: BTreeSet<String>) -> Result<Spec, SpecErrors> {
        let lock = Locking::Kept(lock.clone(), moved);
        Spec::load(self.finder, self.spec, &Overrides { lock, ..self.overrides.clone() })
    }

    /// Tells whether there is a lock that fits the spec.
    fn fits(&self, path: &Path) -> bool {
        let lock = Locking::Required(Some(path.to_owned()));
        Spec::load(self.finder, self.spec, &Overrides { lock, ..self.overrides.clone() }).is_ok()
    }

    /// Returns the nodes without packages that are not what the lock says.
    fn stale(&self, lock: &Lock) -> Result<Vec<NodeName>, LockError> {
        let found = self.found(lock, &Moves::default(), |kind| !steps::has_packages(kind))?;
        let is_stale = |(node, now): &(NodeName, Locked)| {
            lock.nodes.get(node.as_str()).is_some_and(|entry| entry.sources != now.sources)
        };
        Ok(found.into_iter().filter(is_stale).map(|(node, _)| node).collect())
    }

    /// Returns what a lock would say today of the nodes of some kinds.
    fn found(
        &self,
        kept: &Lock,
        moves: &Moves,
        is_meant: fn(&str) -> bool,
    ) -> Result<Vec<(NodeName, Locked)>, LockError> {
        let spec = self.load(kept, moves.packages.clone())?;
        let kind = |node: &NodeName| spec.dag.nodes()[node].step.kind();
        let meant = |node: &&NodeName| steps::is_source(kind(node)) && is_meant(kind(node));
        // Specs that are taken in have locks of their own.
        let is_own = |node: &&NodeName| node.graph().is_none();
        let nodes: Vec<NodeName> = spec.dag.nodes().keys().filter(is_own).filter(meant).cloned().collect();
        let found =
            self.machine.sources(self.store, &spec, &nodes, self.reporter).map_err(LockError::Source)?;
        Ok(found.into_iter().map(|(node, resolved)| (node.clone(), entry(kind(&node), &resolved))).collect())
    }

    /// Returns the entries of the nodes of some kinds: those of `kept` that fit, and what else there is today.
    fn look(&self, kept: &Lock, moves: &Moves, is_meant: fn(&str) -> bool) -> Result<Lock, LockError> {
        let mut lock = Lock::default();
        for (node, new) in self.found(kept, moves, is_meant)? {
            let stays = |old: &&Locked| {
                let is_moved = old.packages.iter().any(|package| moves.packages.contains(&package.name));
                let is_whole = old.packages.is_empty() == new.packages.is_empty()
                    && old.sources.is_empty() == new.sources.is_empty();
                !is_moved && is_whole && old.step == new.step && old.asked == new.asked
            };
            let old = kept.nodes.get(node.as_str()).filter(stays).cloned();
            lock.nodes.insert(node.to_string(), old.unwrap_or(new));
        }
        Ok(lock)
    }
}

/// Returns a date for what is not to have one.
fn start() -> String {
    Timestamp::default().text()
}

/// What is to move.
#[derive(Default)]
struct Moves {
    nodes: BTreeSet<String>,
    packages: BTreeSet<String>,
}

impl Moves {
    fn of(renewal: &Renewal, old: &Lock, spec: &Spec) -> Result<Self, SpecErrors> {
        let all = || spec.dag.nodes().keys().map(ToString::to_string);
        let names = match renewal {
            Renewal::Missing => return Ok(Self::default()),
            Renewal::All => return Ok(Self { nodes: all().collect(), ..Self::default() }),
            Renewal::Some(names) => names,
        };
        let mut moves = Self::default();
        let locked: BTreeSet<&str> =
            old.nodes.values().flat_map(|node| &node.packages).map(|package| package.name.as_str()).collect();
        for name in names {
            if all().any(|node| node == *name) {
                moves.nodes.insert(name.clone());
            } else if locked.contains(name.as_str()) {
                moves.packages.insert(name.clone());
            } else {
                let error = SpecError::nowhere(format!(
                    "{name:?} is neither a node of the spec nor a locked package"
                ));
                return Err(error
                    .hint(format!("nodes are: {}", all().collect::<Vec<_>>().join(", ")))
                    .into());
            }
        }
        Ok(moves)
    }
}

/// Reads the lock that is there; an empty one where there is none.
fn read(path: &Path) -> Result<Lock, LockError> {
    let name = path.display().to_string();
    match read_lock(path) {
        Ok(text) => Ok(Lock::read(&Arc::new(Source::of_file(name, &text)))
            .map_err(|errors| errors.with_hint("write it anew, with --update; or correct it"))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lock::default()),
        Err(error) => {
            let error = SpecError::nowhere(format!("cannot read the lock {name}: {error}"));
            Err(SpecErrors::from(error.hint("name another file with --lock")).into())
        }
    }
}

/// As [`read`], where all of it is to be renewed: what cannot be read is as good as none, if it says that it is a lock.
fn read_any(path: &Path) -> Result<Lock, LockError> {
    match read(path) {
        Err(LockError::Spec(errors)) => {
            let text = read_lock(path).unwrap_or_default();
            let is_comment = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
            let has = |start: &str| text.lines().any(|line| line.trim_start().starts_with(start));
            let is_lock = has("lock = ") || has("[node.") || text.lines().all(is_comment);
            if is_lock { Ok(Lock::default()) } else { Err(errors.into()) }
        }
        read => read,
    }
}

/// Returns what a lock says of a node.
fn entry(kind: &str, resolved: &Resolved) -> Locked {
    match steps::found(resolved) {
        Some(found) => Locked {
            step: kind.to_owned(),
            asked: found.asked.clone(),
            packages: found.packages.clone(),
            ..Locked::default()
        },
        None => Locked { step: kind.to_owned(), sources: resolved.sources.clone(), ..Locked::default() },
    }
}

/// Writes the lock in one go, if it is another one than there was.
fn write(path: &Path, text: &str) -> Result<(), FileError> {
    if std::fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    // What a link leads to is written anew, and not the link.
    let real = path.canonicalize();
    let path = real.as_deref().unwrap_or(path);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let make = || {
        let mut builder = tempfile::Builder::new();
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
        let mut file = builder.prefix(".stagegraph-").permissions(mode).tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    make().on_file("write", path)
}

fn summary(lock: &Lock) -> String {
    let packages: usize = lock.nodes.values().map(|node| node.packages.len()).sum();
    let others = lock.nodes.values().filter(|node| node.packages.is_empty()).count();
    let of = |count, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    let mut parts = Vec::new();
    if packages > 0 {
        let nodes = of(lock.nodes.len() - others, "node", "nodes");
        parts.push(format!("{} of {nodes}", of(packages, "package", "packages")));
    }
    if others > 0 {
        parts.push(of(others, "other source", "other sources"));
    }
    if parts.is_empty() { "no sources".to_owned() } else { parts.join(", ") }
}

/// Says what differs between two locks, node by node.
fn changes(old: &Lock, new: &Lock) -> String {
    let names: BTreeSet<&String> = old.nodes.keys().chain(new.nodes.keys()).collect();
    let mut text = String::new();
    for name in names {
        let rows = match (old.nodes.get(name), new.nodes.get(name)) {
            // Of a new node, a line for each package would bury those that changed.
            (None, Some(_)) if !old.nodes.is_empty() => {
                let _ = writeln!(text, "{name}: new");
                continue;
            }
            (Some(_), None) => {
                let _ = writeln!(text, "{name}: gone");
                continue;
            }
            (Some(old), Some(new)) => between(&parts(old), &parts(new)),
            _ => continue,
        };
        if rows.is_empty() {
            continue;
        }
        let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
        let _ = writeln!(text, "{name}:");
        for (part, what) in rows {
            let _ = writeln!(text, "    {part:width$}  {what}");
        }
    }
    text
}

/// Returns what a lock says of the parts of a node.
fn parts(node: &Locked) -> Parts {
    let version = |Package { name, version, sha256, .. }: &Package| {
        (name.clone(), (version.clone(), sha256.to_string()))
    };
    let short = |text: &String| text.chars().take(16).collect::<String>();
    let sources = node.sources.iter().map(|(name, value)| (name.clone(), (short(value), value.clone())));
    node.packages.iter().map(version).chain(sources).collect()
}
