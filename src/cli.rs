//! The command line: one file for each verb. It finds things and prints things; the work is done elsewhere.

mod audit;
mod build;
mod catalyst;
mod extract;
mod machine;
mod plan;
mod store;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use graph::tool::Tools;

use crate::config::SpecError;
use crate::publish::PublishError;
use crate::spec::{Finder, Overrides};

/// All went well.
const DONE: u8 = 0;
/// An action failed, or an audit found a difference.
const FAILED: u8 = 1;
/// The spec or the command line is wrong.
const WRONG: u8 = 2;
/// The store, the sandbox or the network failed.
const ENVIRONMENT: u8 = 3;

/// Builds live media: an ISO and a netboot set from the same kernel, initrd and squashfs, each made once.
///
/// A spec says what the image is; `stagegraph plan SPEC` shows the graph it stands for. Everything is kept in
/// a store under the hash of what it was made from: a second build does nothing, and a change runs exactly
/// what depends on it.
///
/// Environment: STAGEGRAPH_STORE is the store; STAGEGRAPH_SPECS are more folders with specs; STAGEGRAPH_TOOLS are
/// folders with tools that go before the system's; SOURCE_DATE_EPOCH is the date of the image; STAGEGRAPH_LOG
/// (such as `graph=debug`) prints keys and command lines.
///
/// Exit codes: 0 done; 1 an action failed or an audit found a difference; 2 the spec or the command line is wrong; 3 the store, the sandbox
/// or the network failed; 130 stopped by ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
#[derive(Debug, Parser)]
#[command(name = "stagegraph", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds images and publishes them under the output folder
    Build(build::Build),
    /// Prints the graph a spec stands for, without building it
    Plan(plan::Plan),
    /// Compares a published ISO with a published netboot set, whoever made them
    Audit(audit::Audit),
    /// Writes the netboot set of an ISO that is published already
    Extract(extract::Extract),
    /// Is the backend of catalyst's target livecd-stagegraph
    Catalyst(catalyst::Catalyst),
    /// Looks after the store: its size, its soundness, what may go
    Store(store::StoreVerb),
    /// Says why each node of a spec last ran
    Why(why::Why),
    /// Prints the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes one for each verb into a folder
    Man {
        /// The folder
        dir: Option<PathBuf>,
    },
}

/// Which spec, and what is set on top of it.
#[derive(Debug, Args)]
struct SpecArgs {
    /// Set image.KEY or NODE.KEY of the spec, such as `squashfs.compressor=xz`; a name in capitals stands for a
    /// placeholder, such as `TREEISH=…` for @TREEISH@; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl SpecArgs {
    fn overrides(&self) -> Overrides {
        Overrides {
            set: self.set.clone(),
            epoch: std::env::var("SOURCE_DATE_EPOCH").ok().filter(|e| !e.is_empty()),
        }
    }
}

/// Where the store is.
#[derive(Debug, Args)]
struct StoreArgs {
    /// The store [default: $STAGEGRAPH_STORE, else $XDG_CACHE_HOME/stagegraph, else ~/.cache/stagegraph]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    /// Opens a store that is there already.
    fn open_existing(&self) -> Result<cache::Store, Failure> {
        let dir = self.dir()?;
        if !dir.join("version").exists() {
            return Err(Failure::environment(format!(
                "{} is no store; name one with --store DIR, or build something first",
                dir.display()
            )));
        }
        Ok(cache::Store::open(&dir)?)
    }

    fn dir(&self) -> Result<PathBuf, Failure> {
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

/// A message and the exit code it stands for.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn environment(message: impl Into<String>) -> Self {
        Self { code: ENVIRONMENT, message: message.into() }
    }
}

impl From<cache::StoreError> for Failure {
    fn from(error: cache::StoreError) -> Self {
        Self::environment(with_causes(&error))
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let code = if error.is_specs_fault() { WRONG } else { ENVIRONMENT };
        Self { code, message: with_causes(&error) }
    }
}

/// Writes an error with what caused it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some libraries repeat their cause.
        if !message.ends_with(&text) {
            message.push_str(&format!(": {text}"));
        }
        next = cause.source();
    }
    message
}

impl From<Box<SpecError>> for Failure {
    fn from(error: Box<SpecError>) -> Self {
        Self { code: WRONG, message: format!("{:?}", miette::Report::new(*error)) }
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

/// Returns where specs are looked for.
fn finder() -> Finder {
    let mut folders = vec![PathBuf::from("specs")];
    if let Some(set) = std::env::var_os("STAGEGRAPH_SPECS") {
        folders.extend(std::env::split_paths(&set));
    }
    // Beside an installed program: PREFIX/bin and PREFIX/share.
    let prefix = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_owned()));
    folders.extend(prefix.map(|prefix| prefix.join("share/stagegraph/specs")));
    Finder { folders, has_catalyst: Tools::new(search_path()).has("catalyst") }
}

/// Runs the program with these arguments; returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { WRONG } else { DONE };
            // Where nobody reads, there is nobody to tell.
            let _ = error.print();
            return code.into();
        }
    };
    if let Ok(filter) = std::env::var("STAGEGRAPH_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let result = match cli.verb {
        Verb::Build(build) => build.run(),
        Verb::Plan(plan) => plan.run(),
        Verb::Why(why) => why.run(),
        Verb::Audit(audit) => audit.run(),
        Verb::Catalyst(catalyst) => catalyst.run(),
        Verb::Store(store) => store.run(),
        Verb::Extract(extract) => extract.run(),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "stagegraph", &mut text);
            print(&text)
        }
        Verb::Man { dir: Some(dir) } => clap_mangen::generate_to(Cli::command(), &dir)
            .map(|()| DONE)
            .map_err(|error| Failure::environment(format!("write into {}: {error}", dir.display()))),
        Verb::Man { dir: None } => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut text)
                .map_err(|error| Failure::environment(error.to_string()))
                .and_then(|()| print(&text))
        }
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            complain(&format!("error: {}", failure.message.trim_start()));
            failure.code.into()
        }
    }
}

/// Says what was asked for and could not be made, where all else was; returns the exit code.
fn refused(what: Option<&str>) -> u8 {
    match what {
        None => DONE,
        Some(what) => {
            complain(&format!("error: {what}"));
            FAILED
        }
    }
}

/// Prints an error; where nobody can read it, the exit code still tells.
fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a whole text; a reader that went away (`| head`) is no failure.
fn print(text: &[u8]) -> Result<u8, Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::environment(error.to_string())),
        _ => Ok(DONE),
    }
}
