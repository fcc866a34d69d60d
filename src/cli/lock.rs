//! `stagegraph lock`.

use std::path::PathBuf;

use clap::Args;
use graph::sandbox::Mode;

use super::args::{self, SpecArgs, StoreArgs, finder};
use super::failure::{DONE, Failure, code_of, complain, print, stopped};
use crate::lock::{LockError, Maker, Renewal, Renewed};
use crate::report::{Reporter, Style};

#[derive(Debug, Args)]
#[command(override_usage = "stagegraph lock <SPEC> [--update [NODE | PACKAGE]...] [OPTIONS]")]
pub(super) struct LockArgs {
    /// The spec
    #[arg(value_name = "SPEC")]
    name: String,
    /// Go on to what is newest: of these nodes and packages, or of everything
    #[arg(long, value_name = "NODE | PACKAGE", num_args = 0..)]
    update: Option<Vec<String>>,
    /// The lock [default: SPEC.lock beside the spec; of a built-in spec, in the current folder]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl LockArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let renewal = match self.update {
            None => Renewal::Missing,
            Some(names) if names.is_empty() => Renewal::All,
            Some(names) => Renewal::Some(names),
        };
        let store = cache::Store::open(&self.store.dir()?)?;
        store.say_waits(complain);
        let machine = args::machine(Mode::On)?;
        let reporter = Reporter::new(Style { json: false, verbose: false });
        let overrides = self.spec.overrides();
        let (machine, store, reporter, overrides) = (&machine, &store, &reporter, &overrides);
        let finder = finder();
        let maker = Maker { machine, store, reporter, finder: &finder, spec: &self.name, overrides };
        let renewed = maker.renew(self.lock, &renewal);
        if let Some(signal) = machine.signal() {
            return Ok(stopped(signal, "what was finished is kept"));
        }
        match renewed {
            Ok(Renewed { path, changes, summary, unpinned, stale }) => {
                for node in stale {
                    complain(&format!(
                        "note: {node} is not what the lock has, and a build will refuse it; `--update {node}` goes on to what is there"
                    ));
                }
                if !unpinned.is_empty() {
                    let names: Vec<_> = unpinned.iter().map(|node| node.as_str()).collect();
                    complain(&format!(
                        "note: {} run this machine's own programs, which no lock pins; a toolbox as their input \"tools\" is pinned",
                        names.join(", ")
                    ));
                }
                print(format!("{changes}{}: {summary}\n", path.display()).as_bytes())?;
                Ok(DONE)
            }
            Err(LockError::Spec(errors)) => Err(errors.into()),
            Err(LockError::Source(fault)) => Ok(code_of(fault)),
            Err(error @ LockError::File(_)) => Err(Failure::environment(cache::causes(&error).join(": "))),
        }
    }
}
