//! Runs a tool: only its own files and its inputs in sight, read-only; no network; an empty environment.
//!
//! The sandbox is bubblewrap: a mount, PID, IPC, UTS, network and user namespace around one process tree,
//! which dies with the caller. The command line is built by a pure function, [`bwrap_argv`]; who the tool is outside,
//! and what it may use, is set before bubblewrap starts.
//!
//! Inside, the work folder is the current one and writable; input NAME is the file `in/NAME`, so that the
//! same relative paths serve where the sandbox is switched off.

mod argv;
mod enter;
mod foreign;
mod identity;
mod invocation;
mod limits;
mod supervise;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

pub use self::argv::bwrap_argv;
use self::argv::environment;
use self::enter::{Entrance, Goes, Stage};
pub use self::foreign::Foreign;
use self::identity::Identity;
pub use self::invocation::Invocation;
pub use self::limits::Limits;
use self::limits::threads_of_user;
use self::supervise::{End, describe, supervise};
use crate::cancel::Cancel;
use crate::tool::PATH;

/// Whether tools run in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In a sandbox, or not at all.
    On,
    /// As the caller, with everything in sight; results are marked.
    Off,
}

/// Why a tool's run did not end well.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Bubblewrap is not installed.
    #[error("tools run in a sandbox, and bubblewrap (bwrap) is not installed")]
    NoBubblewrap,
    /// The machine forbids namespaces.
    #[error("this machine does not let bubblewrap make a sandbox: {0}")]
    Forbidden(String),
    /// The tool could not be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tool failed.
    #[error("{program} {status}{}", shown(tail))]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: String,
        /// The last lines it printed.
        tail: Vec<String>,
    },
    /// The build was stopped.
    #[error("stopped")]
    Cancelled,
}

fn shown(tail: &[String]) -> String {
    tail.iter().map(|line| format!("\n    {line}")).collect()
}

impl SandboxError {
    /// Tells whether the tool itself failed, and not what is around it.
    pub fn is_tools_fault(&self) -> bool {
        matches!(self, SandboxError::Failed { .. } | SandboxError::Cancelled)
    }
}

/// Runs tools.
#[derive(Debug, Clone)]
pub struct Sandbox {
    mode: Mode,
    bwrap: Option<PathBuf>,
    limits: Limits,
    /// Who tools are outside, where the caller is root.
    identity: Option<Identity>,
    probed: OnceLock<Result<(), String>>,
}

impl Sandbox {
    /// Makes a sandbox with the bubblewrap at that path; it is tried at the first run.
    pub fn new(mode: Mode, bwrap: Option<PathBuf>) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let identity = if is_root { Identity::of_root() } else { None };
        Self { mode, bwrap, limits: Limits::default(), identity, probed: OnceLock::new() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Returns its limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Tells whether tools run in a sandbox.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Finds out whether tools can be run as they are to be run.
    ///
    /// # Errors
    /// [`SandboxError`]: there can be no sandbox.
    pub fn check(&self) -> Result<(), SandboxError> {
        match self.mode {
            Mode::On => self.probe(self.bwrap.as_deref().ok_or(SandboxError::NoBubblewrap)?),
            Mode::Off => Ok(()),
        }
    }

    /// Runs a tool to its end and hands every line it prints to `each`.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn run(
        &self,
        invocation: &Invocation<'_>,
        cancel: &Cancel,
        each: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<(), SandboxError> {
        let program = &invocation.tool.program;
        let failed = |source| SandboxError::Start { program: program.clone(), source };
        match self.mode {
            Mode::On => {
                let bwrap = self.bwrap.as_deref().ok_or(SandboxError::NoBubblewrap)?;
                self.probe(bwrap)?;
                prepare_mounts(invocation).map_err(failed)?;
                let entrance = self.entrance(invocation).map_err(failed)?;
                let mut command = Command::new(bwrap);
                let places = entrance.as_ref().map(|(_, places)| places.clone()).unwrap_or_default();
                command.env_clear();
                command.args(bwrap_argv(invocation, &places, entrance.is_some()));
                watch(command, program, Goes::ByItself, cancel, each, |command| match entrance {
                    Some((entrance, _)) => enter::start_as(command, Some(self.limits), entrance),
                    None => enter::start(command, Some(self.limits), threads_of_user(), Goes::ByItself),
                })
            }
            Mode::Off => {
                copy_inputs(invocation).map_err(failed)?;
                let mut command = Command::new(program);
                command.args(&invocation.args).current_dir(invocation.work);
                command.env_clear().envs(environment(invocation)).env("HOME", invocation.work);
                let limits = Some(self.limits);
                watch(command, program, Goes::WithUs, cancel, each, |command| {
                    enter::start(command, limits, threads_of_user(), Goes::WithUs)
                })
            }
        }
    }

    /// Tries once whether a sandbox can be made at all.
    fn probe(&self, bwrap: &Path) -> Result<(), SandboxError> {
        let probe = || {
            let mut command = Command::new(bwrap);
            command.args([
                "--unshare-net",
                "--unshare-pid",
                "--die-with-parent",
                "--ro-bind",
                "/",
                "/",
                "true",
            ]);
            command
                .env_clear()
                .env("PATH", PATH)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let child = match &self.identity {
                Some(identity) => {
                    let entrance = Entrance {
                        identity: identity.clone(),
                        top: PathBuf::new(),
                        staged: Vec::new(),
                        foreign: None,
                    };
                    enter::start_as(command, None, entrance)
                }
                None => enter::start(command, None, 0, Goes::ByItself),
            };
            match child.and_then(Child::wait_with_output) {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        self.probed.get_or_init(probe).clone().map_err(SandboxError::Forbidden)
    }

    /// Says how root enters the sandbox, and where there the files are that only root reaches.
    ///
    /// What the tool is to write, and copies that were made for it, become those of the identity.
    fn entrance(
        &self,
        invocation: &Invocation<'_>,
    ) -> io::Result<Option<(Entrance, BTreeMap<PathBuf, PathBuf>)>> {
        let Some(identity) = self.identity.clone() else {
            return match &invocation.foreign {
                None => Ok(None),
                Some(Foreign { name, .. }) => Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("only root can run programs for {name} in a sandbox"),
                )),
            };
        };
        let foreign = invocation.foreign.as_ref().map(Foreign::open).transpose()?;
        let own = invocation.work.parent();
        let copies = invocation.inputs.values().filter(|path| path.parent().and_then(Path::parent) == own);
        for path in copies.map(PathBuf::as_path).chain([invocation.work]) {
            give_to(path, identity.id)?;
        }
        let mut known = BTreeSet::new();
        let sources = || {
            let all = invocation
                .tool
                .files
                .values()
                .chain(invocation.mounts.values())
                .chain(invocation.inputs.values());
            all.map(PathBuf::as_path).chain([invocation.work])
        };
        let (reached, hidden): (Vec<&Path>, Vec<&Path>) =
            sources().partition(|path| is_reached(path, &mut known));
        let top = TOPS.iter().map(Path::new).find(|top| {
            top.symlink_metadata().is_ok_and(|found| found.is_dir())
                && !reached.iter().any(|path| path.starts_with(top))
        });
        let top = top.ok_or_else(|| {
            io::Error::other(format!(
                "the tool needs files below each of {}: none of them can be covered",
                TOPS.join(", ")
            ))
        })?;
        let mut places = BTreeMap::new();
        let mut staged = Vec::new();
        for path in hidden.into_iter().collect::<BTreeSet<_>>() {
            let place = top.join(places.len().to_string());
            staged.push(Stage::of(path, &place)?);
            places.insert(path.to_owned(), place);
        }
        Ok(Some((Entrance { identity, top: top.to_owned(), staged, foreign }, places)))
    }
}

/// Folders of which one is covered where files are shown that only root reaches.
const TOPS: [&str; 6] = ["/mnt", "/media", "/srv", "/opt", "/home", "/tmp"];

/// Tells whether everybody reaches a path and may read it.
fn is_reached(path: &Path, known: &mut BTreeSet<PathBuf>) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let wanted = if found.is_dir() { 0o5 } else { 0o4 };
    if found.permissions().mode() & wanted != wanted {
        return false;
    }
    for folder in path.ancestors().skip(1) {
        if known.contains(folder) {
            break;
        }
        if !fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o1 != 0) {
            return false;
        }
    }
    known.extend(path.ancestors().skip(1).map(Path::to_owned));
    true
}

/// Gives a folder with all in it to a user and his group, but for files that have other names: those are objects.
fn give_to(path: &Path, id: u32) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    if !found.is_dir() && found.nlink() > 1 {
        return Ok(());
    }
    if found.uid() != id {
        std::os::unix::fs::lchown(path, Some(id), Some(id))?;
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to(&entry?.path(), id)?;
        }
    }
    Ok(())
}

/// Runs a program that is at work on the machine itself: a whole build system, which mounts things and fetches things.
///
/// It gets a PID namespace and a session of its own, so that nothing of it outlives this process, however that ends, and it has no
/// terminal. `unshare` is the path of util-linux's program.
///
/// # Errors
/// [`SandboxError`]: it could not be started, failed or was stopped.
pub(crate) fn run_outside(
    unshare: &Path,
    inner: &Command,
    cancel: &Cancel,
    each: &(dyn Fn(&[u8]) + Sync),
) -> Result<(), SandboxError> {
    let mut command = Command::new(unshare);
    command.args(["--pid", "--fork", "--kill-child", "--"]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(inner.get_current_dir().unwrap_or(Path::new("/")));
    watch(command, Path::new(inner.get_program()), Goes::WithUs, cancel, each, |command| {
        enter::start(command, None, 0, Goes::WithUs)
    })
}

/// Starts a command, waits for its end and hands every line it prints to `each`.
fn watch(
    mut command: Command,
    program: &Path,
    goes: Goes,
    cancel: &Cancel,
    each: &(dyn Fn(&[u8]) + Sync),
    start: impl FnOnce(Command) -> io::Result<Child>,
) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Start { program: program.to_owned(), source };
    tracing::debug!(?command, "tool");
    let (output, writer) = io::pipe().map_err(failed)?;
    let errors = writer.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    let mut child = start(command).map_err(failed)?;
    let End { status, tail } = supervise(&mut child, goes, output, cancel, each).map_err(failed)?;
    match status {
        None => Err(SandboxError::Cancelled),
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            Err(SandboxError::Failed { program: program.to_owned(), status: describe(status), tail })
        }
    }
}

/// Makes the files and folders that inputs are mounted on.
fn prepare_mounts(invocation: &Invocation<'_>) -> io::Result<()> {
    let top = invocation.work.join("in");
    for (name, outside) in &invocation.inputs {
        let inside = top.join(name);
        if let Some(folder) = inside.parent() {
            fs::create_dir_all(folder)?;
        }
        if outside.is_dir() {
            fs::create_dir_all(&inside)?;
        } else {
            fs::write(&inside, b"")?;
        }
    }
    Ok(())
}

/// Copies input files, and links input folders, for a run without a sandbox.
///
/// A link to an object could be written through, and some tools take no links.
fn copy_inputs(invocation: &Invocation<'_>) -> io::Result<()> {
    for (name, outside) in &invocation.inputs {
        let inside = invocation.work.join("in").join(name);
        if let Some(folder) = inside.parent() {
            fs::create_dir_all(folder)?;
        }
        if inside.symlink_metadata().is_ok() {
            fs::remove_file(&inside)?;
        }
        if outside.is_dir() {
            std::os::unix::fs::symlink(outside, inside)?;
        } else {
            fs::copy(outside, inside)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cache::testing::Folder;

    use super::*;
    use crate::tool::{Tool, ToolSpec, Tools};

    struct Bench {
        dir: Folder,
        tool: std::sync::Arc<Tool>,
    }

    fn bench() -> Bench {
        let dir = Folder::new();
        let store = dir.store();
        let spec = ToolSpec {
            name: "sh",
            programs: &["ls", "cat", "id", "env"],
            data: &[],
            data_places: &[],
            package: "dash",
        };
        let tool = Tools::new(vec!["/usr/bin".into()]).find(&store, &spec).unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        Bench { dir, tool }
    }

    impl Bench {
        fn run(&self, mode: Mode, script: &str, cancel: &Cancel) -> Result<Vec<String>, SandboxError> {
            let input = self.dir.path().join("input");
            fs::write(&input, "content\n").unwrap();
            let work = self.dir.path().join("work");
            let invocation = Invocation {
                tool: &self.tool,
                args: vec!["-c".into(), script.into()],
                env: BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), "7".to_owned())]),
                inputs: BTreeMap::from([("file".to_owned(), input)]),
                mounts: BTreeMap::new(),
                work: &work,
                privileged: false,
                foreign: None,
            };
            let lines = std::sync::Mutex::new(Vec::new());
            let bwrap = Some(PathBuf::from("/usr/bin/bwrap")).filter(|path| path.exists());
            Sandbox::new(mode, bwrap).run(&invocation, cancel, &|line| {
                lines.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
            })?;
            Ok(lines.into_inner().unwrap())
        }
    }

    #[test]
    fn a_tool_sees_its_inputs_and_nothing_else() {
        let bench = bench();
        let script = "cat in/file; ls /home /root /etc 2>/dev/null; ls /; cat /proc/net/dev; env; id -u";
        let lines = bench.run(Mode::On, script, &Cancel::default()).unwrap();
        assert_eq!(lines[0], "content");
        let text = lines.join("\n");
        assert!(!text.contains("etc\n"), "{text}");
        assert!(text.contains("lo:") && !text.contains("eth"), "{text}");
        assert!(text.contains("SOURCE_DATE_EPOCH=7") && text.contains("TZ=UTC"), "{text}");
        assert!(!text.contains("CARGO"), "{text}");
        assert_eq!(lines.last().unwrap(), "0");
    }

    #[test]
    fn a_tool_cannot_write_to_its_inputs() {
        let bench = bench();
        let error = bench.run(Mode::On, "echo x > in/file", &Cancel::default()).unwrap_err();
        assert!(error.is_tools_fault());
        assert_eq!(fs::read_to_string(bench.dir.path().join("input")).unwrap(), "content\n");
    }

    #[test]
    fn what_a_failed_tool_printed_is_in_the_error() {
        let error = bench().run(Mode::On, "echo why >&2; exit 3", &Cancel::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("ended with exit code 3") && text.contains("why"), "{text}");
    }

    #[test]
    fn the_same_relative_paths_serve_without_a_sandbox() {
        let bench = bench();
        let lines = bench.run(Mode::Off, "cat in/file; echo x > out", &Cancel::default()).unwrap();
        assert_eq!(lines, ["content"]);
        assert!(bench.dir.path().join("work/out").exists());
    }

    #[test]
    fn a_stopped_tool_leaves_no_process() {
        let cancel = Cancel::default();
        cancel.cancel();
        let started = std::time::Instant::now();
        let error = bench().run(Mode::On, "while :; do :; done", &cancel).unwrap_err();
        assert!(matches!(error, SandboxError::Cancelled));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
