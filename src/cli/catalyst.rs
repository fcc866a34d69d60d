//! `stagegraph catalyst`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use graph::sandbox::Mode;

use super::args::{finder, machine};
use super::failure::{ENVIRONMENT, Failure, WRONG, code_of, print, refused, stopped};
use crate::catalyst::{RequestError, TARGET, TARGET_PATH};
use crate::finish::{FinishError, Finished};
use crate::report::{Reporter, Style};

#[derive(Debug, Args)]
pub(super) struct Catalyst {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Puts the target livecd-stagegraph into catalyst: one Python file
    Install {
        #[command(flatten)]
        place: Place,
    },
    /// Takes the target out of catalyst
    Uninstall {
        #[command(flatten)]
        place: Place,
    },
    /// Packs what catalyst made: ISO, netboot set, digests; the target calls this
    Finish {
        /// The request that the target wrote; it can be run again as long as catalyst keeps its work folder
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// Find out whether it can be met, and pack nothing: catalyst's folders need not be there yet
        #[arg(long)]
        check: bool,
        /// Print what tools print
        #[arg(short, long)]
        verbose: bool,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The folder that holds catalyst/targets [default: where python3 finds catalyst]
    #[arg(long, value_name = "DIR")]
    catalyst_dir: Option<PathBuf>,
}

impl Place {
    fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.catalyst_dir {
            return Ok(dir.join(TARGET_PATH));
        }
        let script = "import catalyst, os; print(os.path.dirname(os.path.dirname(os.path.abspath(catalyst.__file__))))";
        let output = Command::new("python3").args(["-c", script]).output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join(TARGET_PATH))
            }
            _ => Err(Failure::environment(
                "python3 does not find catalyst; name the folder that holds catalyst/targets with --catalyst-dir",
            )),
        }
    }
}

impl Catalyst {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self.verb {
            Verb::Install { place } => install(&place.file()?),
            Verb::Uninstall { place } => uninstall(&place.file()?),
            Verb::Finish { request, check: true, verbose } => check(&request, verbose),
            Verb::Finish { request, check: false, verbose } => finish(&request, verbose),
        }
    }
}

/// Tells whether a file is the target, of whatever version.
fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("class livecd_stagegraph(livecd_stage2)"))
}

fn install(path: &Path) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("write {}: {error}", path.display()));
    if path.exists() && !is_ours(path) {
        return Err(Failure::environment(format!(
            "{} is there, and is not stagegraph's; move it away",
            path.display()
        )));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    // Below an empty folder it is made; beside other things, the folder is another one than was meant.
    let top = folder.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let is_empty = std::fs::read_dir(top).is_ok_and(|mut entries| entries.next().is_none());
    if top.exists() && !is_empty && !folder.is_dir() {
        return Err(Failure::environment(format!(
            "{} is not there; name the folder that holds catalyst/targets with --catalyst-dir",
            folder.display()
        )));
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&fresh, TARGET)
        .and_then(|()| std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o644)))
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(failed)?;
    print(format!("installed {}; say `target: livecd-stagegraph` in a spec\n", path.display()).as_bytes())
}

fn uninstall(path: &Path) -> Result<u8, Failure> {
    if !path.exists() {
        return print(format!("{} is not there\n", path.display()).as_bytes());
    }
    if !is_ours(path) {
        return Err(Failure::environment(format!("{} is not stagegraph's; it stays", path.display())));
    }
    std::fs::remove_file(path)
        .map_err(|error| Failure::environment(format!("remove {}: {error}", path.display())))?;
    print(format!("removed {}\n", path.display()).as_bytes())
}

fn request_failure(error: &RequestError) -> Failure {
    let code = match error {
        RequestError::Read { .. } => ENVIRONMENT,
        RequestError::Syntax { .. }
        | RequestError::Schema { .. }
        | RequestError::Relative { .. }
        | RequestError::Wanted(_) => WRONG,
    };
    Failure::of(code, error)
}

fn failure(error: FinishError) -> Failure {
    match error {
        FinishError::Spec(error) => error.into(),
        FinishError::Publish(error) => error.into(),
        FinishError::Request(error) => request_failure(&error),
        error @ (FinishError::NoName | FinishError::StoreInside { .. }) => Failure::of(WRONG, &error),
        error => Failure::of(ENVIRONMENT, &error),
    }
}

fn check(request: &Path, verbose: bool) -> Result<u8, Failure> {
    let reporter = Reporter::new(Style { json: false, verbose });
    match crate::finish::check(request, &finder(), &machine(Mode::On)?, &reporter) {
        Ok(None) => print(b"the request can be met\n"),
        Ok(Some(fault)) => Ok(code_of(fault)),
        Err(error) => Err(failure(error)),
    }
}

fn finish(request: &Path, verbose: bool) -> Result<u8, Failure> {
    let machine = machine(Mode::On)?;
    let reporter = Reporter::new(Style { json: false, verbose });
    let finished = crate::finish::finish(request, &finder(), &machine, &reporter).map_err(failure);
    let reason = match &finished {
        Ok(Finished::Published { .. }) => None,
        Ok(Finished::Failed(_)) => Some(reporter.failures().join("\n")),
        Ok(Finished::Stopped) => Some("stopped by a signal".to_owned()),
        Err(failure) => Some(failure.text()),
    };
    if let Some(reason) = reason
        && let Err(error) = crate::finish::write_reason(request, &reason)
    {
        // The target reads it where it can; here it was told anyway.
        tracing::debug!(%error, "the reason is not written");
    }
    match finished? {
        Finished::Published { lacks } => Ok(refused(lacks.as_deref())),
        Finished::Failed(fault) => Ok(code_of(fault)),
        Finished::Stopped => Ok(stopped(machine.signal().unwrap_or(0), "what was finished is kept")),
    }
}
