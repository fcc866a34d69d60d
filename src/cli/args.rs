//! What verbs take in the same way: a spec, a store, the folders of this machine.

use std::path::PathBuf;

use clap::Args;
use graph::sandbox::Mode;
use graph::tool::Tools;

use super::failure::Failure;
use crate::audit;
use crate::machine::Machine;
use crate::spec::{Finder, Locking, Overrides};

/// Which spec, and what is set on top of it.
#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// Set image.KEY or NODE.KEY of the spec, such as `squashfs.compressor=xz`; a name in capitals stands for a
    /// placeholder, such as `TREEISH=…` for @TREEISH@; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

impl SpecArgs {
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            set: self.set.clone(),
            epoch: std::env::var("SOURCE_DATE_EPOCH").ok().filter(|e| !e.is_empty()),
            lock: Locking::IfThere(None),
            ..Overrides::default()
        }
    }
}

/// Refuses names that are no check's of the audit.
pub(super) fn known_checks(names: &[String]) -> Result<(), Failure> {
    let Some(unknown) = names.iter().find(|id| !audit::is_check(id)) else { return Ok(()) };
    let known: Vec<&str> = audit::CHECKS.iter().map(|check| check.id).collect();
    Err(Failure::wrong(format!("there is no check {unknown:?}; there are {}", known.join(", "))))
}

/// Where the store is.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// The store [default: $STAGEGRAPH_STORE, else $XDG_CACHE_HOME/stagegraph, else ~/.cache/stagegraph]
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
}

impl StoreArgs {
    /// Opens a store that is there already.
    pub(super) fn open_existing(&self) -> Result<cache::Store, Failure> {
        let dir = self.dir()?;
        if !dir.join("version").exists() {
            return Err(Failure::environment(format!(
                "{} is no store; name one with --store DIR, or build something first",
                dir.display()
            )));
        }
        Ok(cache::Store::open(&dir)?)
    }

    pub(super) fn dir(&self) -> Result<PathBuf, Failure> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.store
            .clone()
            .or_else(|| set("STAGEGRAPH_STORE"))
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("stagegraph")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/stagegraph")))
            .ok_or_else(|| {
                Failure::environment(
                    "there is no place for the store: neither STAGEGRAPH_STORE, XDG_CACHE_HOME nor HOME is set; \
                     name one with --store DIR",
                )
            })
    }
}

/// Returns the folders where tools are looked for: those of `$STAGEGRAPH_TOOLS`, then the system's.
///
/// The caller's own search path does not count: a wrapper in a home folder is not what a build is to run.
fn search_path() -> Vec<PathBuf> {
    let own = std::env::var_os("STAGEGRAPH_TOOLS").unwrap_or_default();
    let own = std::env::split_paths(&own).filter(|folder| folder.is_absolute());
    own.chain(std::env::split_paths(graph::tool::PATH)).collect::<Vec<_>>()
}

/// Returns this machine, ready to build.
pub(super) fn machine(mode: Mode) -> Result<Machine, Failure> {
    Machine::new(mode, search_path()).map_err(|error| Failure::environment(format!("catch signals: {error}")))
}

/// Returns where specs are looked for.
pub(super) fn finder() -> Finder {
    let mut folders = vec![PathBuf::from("specs")];
    if let Some(set) = std::env::var_os("STAGEGRAPH_SPECS") {
        folders.extend(std::env::split_paths(&set));
    }
    // Beside an installed program: PREFIX/bin and PREFIX/share.
    let prefix = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_owned()));
    folders.extend(prefix.map(|prefix| prefix.join("share/stagegraph/specs")));
    let tools = Tools::new(search_path());
    let (has_catalyst, has_apt) = (tools.has("catalyst"), tools.has("apt-get"));
    Finder { folders, has_catalyst, has_apt, is_unboxed: false }
}
