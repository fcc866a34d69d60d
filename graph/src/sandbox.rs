//! Runs a tool: only its own files and its inputs in sight, read-only; no network; an empty environment.
//!
//! The sandbox is bubblewrap: a mount, PID, IPC, UTS and network namespace around one process tree,
//! which dies with the caller. The command line is built by a pure function, [`bwrap_argv`].
//!
//! Inside, the work folder is the current one and writable; input NAME is the file `in/NAME`, so that the
//! same relative paths serve where the sandbox is switched off.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::cancel::Cancel;
use crate::tool::{PATH, Tool};

/// The work folder, seen from inside.
const INSIDE: &str = "/build";

/// How often a running tool is asked whether it should stop.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// How many lines of a failed tool's output are repeated in the error.
const TAIL: usize = 12;

/// One run of a tool.
pub struct Invocation<'a> {
    /// The program, what it may start and what it may read.
    pub tool: &'a Tool,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// The whole environment, but for `PATH`, `HOME`, `TMPDIR`, `LC_ALL` and `TZ`, which are fixed.
    pub env: BTreeMap<String, String>,
    /// Files and folders it may read, by their name below `in/`.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Files and folders it finds at absolute paths, read-only, such as an `/etc/passwd`.
    pub mounts: BTreeMap<PathBuf, PathBuf>,
    /// The work folder: its current one, and the only one it may write to.
    pub work: &'a Path,
    /// Whether it needs root's powers inside (mounting, changing owners, device nodes).
    pub privileged: bool,
}

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
#[derive(Debug)]
pub struct Sandbox {
    mode: Mode,
    bwrap: Option<PathBuf>,
    is_root: bool,
    probed: OnceLock<Result<(), String>>,
}

impl Sandbox {
    /// Makes a sandbox with the bubblewrap at that path; it is tried at the first run.
    pub fn new(mode: Mode, bwrap: Option<PathBuf>) -> Self {
        Self { mode, bwrap, is_root: rustix::process::geteuid().is_root(), probed: OnceLock::new() }
    }

    /// Tells whether tools run in a sandbox.
    pub fn mode(&self) -> Mode {
        self.mode
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
        let start = |source| SandboxError::Start { program: program.clone(), source };
        let command = match self.mode {
            Mode::On => {
                let bwrap = self.bwrap.as_deref().ok_or(SandboxError::NoBubblewrap)?;
                self.probe(bwrap)?;
                prepare_mounts(invocation).map_err(start)?;
                let mut command = Command::new(bwrap);
                command.env_clear().args(bwrap_argv(invocation, &root_links(), self.is_root));
                command
            }
            Mode::Off => {
                copy_inputs(invocation).map_err(start)?;
                let mut command = Command::new(program);
                command.args(&invocation.args).current_dir(invocation.work);
                command.env_clear().envs(environment(invocation)).env("HOME", invocation.work);
                die_with_parent(&mut command);
                command
            }
        };
        supervise(command, program, cancel, each)
    }

    /// Tries once whether a sandbox can be made at all.
    fn probe(&self, bwrap: &Path) -> Result<(), SandboxError> {
        let probe = || {
            let mut command = Command::new(bwrap);
            command.args(["--unshare-net", "--unshare-pid", "--ro-bind", "/", "/", "true"]);
            match command.env_clear().env("PATH", PATH).stdin(Stdio::null()).output() {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        self.probed.get_or_init(probe).clone().map_err(SandboxError::Forbidden)
    }
}

/// Runs a program that is at work on the machine itself: a whole build system, which mounts things and fetches things.
///
/// It gets a PID namespace of its own, so that nothing of it outlives this process, however that ends. `unshare` is the
/// path of util-linux's program.
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
    die_with_parent(&mut command);
    supervise(command, Path::new(inner.get_program()), cancel, each)
}

/// Runs a command to its end and hands every line it prints to `each`.
fn supervise(
    mut command: Command,
    program: &Path,
    cancel: &Cancel,
    each: &(dyn Fn(&[u8]) + Sync),
) -> Result<(), SandboxError> {
    let start = |source| SandboxError::Start { program: program.to_owned(), source };
    tracing::debug!(?command, "tool");
    let (reader, writer) = io::pipe().map_err(start)?;
    let errors = writer.try_clone().map_err(start)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(errors).process_group(0);
    let mut child = command.spawn().map_err(start)?;
    // The pipe's writing ends in `command` must go, or reading never ends.
    drop(command);
    let mut tail = std::collections::VecDeque::new();
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                each(&line);
                tail.push_back(String::from_utf8_lossy(&line).into_owned());
                if tail.len() > TAIL {
                    tail.pop_front();
                }
            }
        });
        wait(&mut child, cancel)
    });
    match status.map_err(start)? {
        None => Err(SandboxError::Cancelled),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(SandboxError::Failed {
            program: program.to_owned(),
            status: describe(status),
            tail: tail.into(),
        }),
    }
}

fn environment(invocation: &Invocation<'_>) -> BTreeMap<String, String> {
    let fixed = [("PATH", PATH), ("HOME", INSIDE), ("TMPDIR", "/tmp"), ("LC_ALL", "C"), ("TZ", "UTC")];
    let mut environment: BTreeMap<_, _> =
        fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.extend(invocation.env.clone());
    environment
}

/// Returns the links at the top of the file system, such as `/lib` → `usr/lib`.
fn root_links() -> BTreeMap<PathBuf, PathBuf> {
    ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"]
        .iter()
        .filter_map(|path| Some((PathBuf::from(path), fs::read_link(path).ok()?)))
        .collect()
}

/// Builds bubblewrap's command line.
///
/// `links` are the links at the top of the file system; `is_root` tells whether the caller is root, who
/// needs no user namespace and gives the tool root's powers only where it asks for them.
pub fn bwrap_argv(
    invocation: &Invocation<'_>,
    links: &BTreeMap<PathBuf, PathBuf>,
    is_root: bool,
) -> Vec<OsString> {
    let mut argv: Vec<OsString> = Vec::new();
    let mut add = |words: &[&OsStr]| argv.extend(words.iter().map(|word| (*word).to_owned()));
    for flag in ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"] {
        add(&[flag.as_ref()]);
    }
    if is_root {
        let change = if invocation.privileged { "--cap-add" } else { "--cap-drop" };
        add(&[change.as_ref(), "ALL".as_ref()]);
    } else {
        add(&["--unshare-user".as_ref(), "--uid".as_ref(), "0".as_ref(), "--gid".as_ref(), "0".as_ref()]);
    }
    add(&["--hostname".as_ref(), "stagegraph".as_ref(), "--clearenv".as_ref()]);
    for (name, value) in environment(invocation) {
        add(&["--setenv".as_ref(), name.as_ref(), value.as_ref()]);
    }
    for (link, target) in links {
        add(&["--symlink".as_ref(), target.as_ref(), link.as_ref()]);
    }
    // Before the files: a tool may lie below one of these.
    for (flag, path) in [("--proc", "/proc"), ("--dev", "/dev"), ("--tmpfs", "/tmp")] {
        add(&[flag.as_ref(), path.as_ref()]);
    }
    for (inside, outside) in &invocation.tool.files {
        add(&["--ro-bind".as_ref(), outside.as_ref(), inside.as_ref()]);
    }
    if invocation.privileged {
        // Whoever mounts things in a root of its own finds /sys there; device nodes work below /build.
        add(&["--ro-bind".as_ref(), "/sys".as_ref(), "/sys".as_ref()]);
        add(&["--dev-bind".as_ref(), invocation.work.as_ref(), INSIDE.as_ref()]);
    } else {
        add(&["--bind".as_ref(), invocation.work.as_ref(), INSIDE.as_ref()]);
    }
    for (inside, outside) in &invocation.mounts {
        add(&["--ro-bind".as_ref(), outside.as_ref(), inside.as_ref()]);
    }
    for (name, outside) in &invocation.inputs {
        let inside = Path::new(INSIDE).join("in").join(name);
        add(&["--ro-bind".as_ref(), outside.as_ref(), inside.as_ref()]);
    }
    add(&["--chdir".as_ref(), INSIDE.as_ref(), "--".as_ref(), invocation.tool.program.as_ref()]);
    argv.extend(invocation.args.iter().cloned());
    argv
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

/// Waits for the end; kills the tool and returns `None` where everything should stop.
fn wait(child: &mut Child, cancel: &Cancel) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    let interval = Timespec { tv_sec: 0, tv_nsec: CANCEL_INTERVAL.as_nanos() as i64 };
    loop {
        let mut ends = [PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)];
        match poll(&mut ends, Some(&interval)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return child.wait().map(Some),
            Err(errno) => return Err(errno.into()),
        }
        if cancel.is_cancelled() {
            // The first process of the PID namespace dies with bubblewrap, and all others with it.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            child.wait()?;
            return Ok(None);
        }
    }
}

/// Lets a tool end when this process is killed; bubblewrap does the same by itself.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let ask = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec the closure makes one system call; it takes no lock and no memory.
    unsafe { command.pre_exec(ask) };
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use cache::testing::Folder;

    use super::*;
    use crate::tool::{ToolSpec, Tools};

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
