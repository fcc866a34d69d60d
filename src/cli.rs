//! The command line: one file for each verb. It finds things and prints things; the work is done elsewhere.

mod args;
mod audit;
mod build;
#[cfg(feature = "serve")]
mod building;
mod catalyst;
mod extract;
mod failure;
mod lock;
mod plan;
mod provenance;
#[cfg(feature = "remote")]
mod remote;
mod reproduce;
#[cfg(feature = "serve")]
mod serve;
mod sign;
mod store;
#[cfg_attr(not(feature = "remote"), path = "cli/no_upstreams.rs")]
mod upstreams;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::failure::{DONE, ENVIRONMENT, Failure, WRONG, complain, print};

/// Builds live media: an ISO and a netboot set from the same kernel, initrd and squashfs, each made once.
///
/// A spec says what the image is; `stagegraph plan SPEC` shows the graph it stands for. Everything is kept in
/// a store under the hash of what it was made from: a second build does nothing, and a change runs exactly
/// what depends on it.
///
/// Environment: STAGEGRAPH_STORE is the store; STAGEGRAPH_SPECS are more folders with specs; STAGEGRAPH_TOOLS are
/// folders with tools that go before the system's; SOURCE_DATE_EPOCH is the date of the image; STAGEGRAPH_LOG
/// (such as `graph=debug`) prints keys and command lines; STAGEGRAPH_REMOTE are upstreams, and STAGEGRAPH_REMOTE_TRUST, _KEY, _TOKEN, _CA
/// and _SALT say how they are used, as ~/.config/stagegraph/remote.toml does.
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
    /// Writes down what the sources of a spec are, by content, so that later builds and other machines use the same
    Lock(lock::LockArgs),
    /// Prints the graph a spec stands for, without building it
    Plan(plan::Plan),
    /// Compares a published ISO with a published netboot set, whoever made them
    Audit(audit::Audit),
    /// Writes the netboot set of an ISO that is published already
    Extract(extract::Extract),
    /// Signs what was published
    Sign(sign::Sign),
    /// Builds a published set again from its manifest, and compares
    Reproduce(reproduce::Reproduce),
    /// Prints what a published set was built of
    Provenance(provenance::Provenance),
    /// Serves what was built, so that machines boot from it
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Prints the lines by which other servers and programs boot what was built
    #[cfg(feature = "serve")]
    Recipe(serve::Recipe),
    /// Is the backend of catalyst's target livecd-stagegraph
    Catalyst(catalyst::Catalyst),
    /// Looks after the store: its size, its soundness, what may go
    Store(store::StoreVerb),
    /// Looks after upstreams: keys, and what a server can
    #[cfg(feature = "remote")]
    Remote(remote::RemoteVerb),
    /// Compresses the blocks of a shard: what workers run
    #[cfg(feature = "remote")]
    #[command(hide = true)]
    Shard(upstreams::ShardVerb),
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

/// Runs the program with these arguments; returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    settle();
    // What nobody foresaw, as threads that the system does not give, is a failure of what is around.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(args))) {
        Ok(code) => code,
        Err(_) => {
            complain(
                "error: this is a fault of stagegraph's, or of what the system gives it; what was published stays as it was",
            );
            complain(
                "  hint: give it more threads and memory (ulimit -u, ulimit -v); if that is not it, report what is printed above",
            );
            ENVIRONMENT.into()
        }
    }
}

/// Makes this process independent of what its caller left it: nobody else may write to what it makes, and a file that may not grow
/// is an error like any other.
fn settle() {
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::umask(umask | rustix::fs::Mode::from_raw_mode(0o022));
    // A handler that does nothing: programs that are started have the usual effect again. Without it, writing ends the program.
    let _ = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
}

/// `SIGXFSZ`: a file would grow beyond `ulimit -f`.
const SIGXFSZ: i32 = 25;

fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
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
        Verb::Lock(lock) => lock.run(),
        Verb::Plan(plan) => plan.run(),
        Verb::Why(why) => why.run(),
        Verb::Audit(audit) => audit.run(),
        Verb::Catalyst(catalyst) => catalyst.run(),
        Verb::Store(store) => store.run(),
        #[cfg(feature = "remote")]
        Verb::Remote(remote) => remote.run(),
        #[cfg(feature = "remote")]
        Verb::Shard(shard) => shard.run(),
        #[cfg(feature = "serve")]
        Verb::Serve(serve) => serve.run(),
        #[cfg(feature = "serve")]
        Verb::Recipe(recipe) => recipe.run(),
        Verb::Extract(extract) => extract.run(),
        Verb::Sign(sign) => sign.run(),
        Verb::Reproduce(reproduce) => reproduce.run(),
        Verb::Provenance(provenance) => provenance.run(),
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
            failure.print();
            failure.code.into()
        }
    }
}
