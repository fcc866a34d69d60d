//! How apt is called: what it sees, and when that changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cache::stat::Stat;
use cache::{BlobDigest, Objects};
use graph::sandbox::SandboxError;
use graph::{Cancel, StepError};

pub(super) const APT_GET: &str = "/usr/bin/apt-get";

/// How often it is looked whether a program has ended.
const TICK: Duration = Duration::from_millis(50);

/// apt's package lists.
pub(super) const LISTS: &str = "/var/lib/apt/lists";

/// Where apt's sources and settings are written down.
const SOURCES: [&str; 6] = [
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/preferences",
    "/etc/apt/preferences.d",
    "/etc/apt/apt.conf",
    "/etc/apt/apt.conf.d",
];

/// What apt is asked about, and until when it is waited for.
#[derive(Clone, Copy)]
pub(in crate::steps::packages) struct Apt<'a> {
    pub(in crate::steps::packages) objects: &'a Objects,
    pub(in crate::steps::packages) architecture: &'a str,
    /// The release that is asked about; nothing for that of this machine.
    pub(in crate::steps::packages) suite: Option<&'a str>,
    /// Whether what packages depend on is meant too.
    pub(in crate::steps::packages) with_dependencies: bool,
    /// Whether the network must not be used.
    pub(in crate::steps::packages) offline: bool,
    pub(in crate::steps::packages) cancel: &'a Cancel,
}

impl Apt<'_> {
    /// Builds a call of apt-get that sees no more than these lists.
    pub(super) fn apt_get(self, work: &Path, lists: &Lists) -> Command {
        let mut command = Command::new(APT_GET);
        command.args(apt_args(work, self.architecture, lists));
        command.env_clear().envs([("LC_ALL", "C"), ("PATH", graph::tool::PATH)]);
        // Whoever has a proxy has it for lists too.
        let proxies = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];
        command.envs(proxies.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }
}

/// What apt reads.
pub(super) struct Lists {
    /// The package lists.
    pub(super) folder: PathBuf,
    /// The file with the sources; nothing for those of this machine.
    pub(super) sources: Option<PathBuf>,
}

/// Returns what apt says is wrong.
pub(super) fn problems(output: &Output) -> Vec<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    errors.lines().filter(|line| line.starts_with("E:")).map(str::to_owned).collect()
}

/// Builds the options under which apt sees its own lists and sources, and an empty root.
fn apt_args(work: &Path, architecture: &str, lists: &Lists) -> Vec<String> {
    let place = |name: &str| work.join(name).display().to_string();
    let own_sources = lists.sources.iter().flat_map(|path| {
        [format!("Dir::Etc::sourcelist={}", path.display()), "Dir::Etc::sourceparts=-".to_owned()]
    });
    let settings = [
        format!("Dir::State={}", place("state")),
        format!("Dir::State::status={}", place("status")),
        format!("Dir::State::lists={}", lists.folder.display()),
        format!("Dir::Cache={}", place("cache")),
        format!("Dir::Log={}", place("cache")),
        "Dir::Cache::pkgcache=".to_owned(),
        "Dir::Cache::srcpkgcache=".to_owned(),
        format!("APT::Architecture={architecture}"),
        format!("APT::Architectures={architecture}"),
        "APT::Default-Release=".to_owned(),
        "APT::Install-Recommends=false".to_owned(),
        "APT::Install-Suggests=false".to_owned(),
        "APT::Get::AutomaticRemove=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
        // Without this, apt names the MD5 of what it would fetch.
        "Acquire::ForceHash=SHA256".to_owned(),
        "Debug::NoLocking=1".to_owned(),
    ];
    settings.into_iter().chain(own_sources).flat_map(|setting| ["-o".to_owned(), setting]).collect()
}

/// How long a stamp holds: the nodes of a build begin together, and are to see the same lists.
const HOLDS: Duration = Duration::from_secs(1);

/// Returns what changes when apt's lists or sources change.
pub(super) fn stamp() -> io::Result<String> {
    static LAST: Mutex<Option<(Instant, String)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, stamp)) = &*last
        && since.elapsed() < HOLDS
    {
        return Ok(stamp.clone());
    }
    let stamp = look()?;
    *last = Some((Instant::now(), stamp.clone()));
    Ok(stamp)
}

/// Looks at apt's lists and sources.
fn look() -> io::Result<String> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |path: &Path| {
        if let Ok(found) = fs::metadata(path)
            && found.is_file()
        {
            files.insert(path.display().to_string(), Stat::of(path, &found).to_bytes());
        }
    };
    for folder in SOURCES.iter().chain([&LISTS]) {
        add(Path::new(folder));
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // A file, or not there.
            Err(_) => continue,
        };
        for entry in entries {
            let path = entry?.path();
            // apt locks its lists even where it only reads.
            if path.file_name().is_none_or(|name| name != "lock") {
                add(&path);
            }
        }
    }
    let text: Vec<u8> =
        files.into_iter().flat_map(|(path, stat)| [path.into_bytes(), stat].concat()).collect();
    Ok(BlobDigest::of(&text).to_string())
}

/// Runs a program of apt's to its end, or until everything should stop.
pub(super) fn run(mut command: Command, cancel: &Cancel) -> Result<Output, StepError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = move |error: io::Error| {
        let hint = "packages are looked up and fetched by apt; without it they come from a lock and an archive (--mirror), or the \
                    machine's own programs are used (step = \"host\")";
        StepError::environment(format!("run {program}: {error}")).with_hint(hint)
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(&failed)?;
    let pid = rustix::process::Pid::from_child(&child);
    let (tells, told) = channel();
    // What it started may hold its pipes open: nobody waits for that if everything should stop.
    std::thread::spawn(move || drop(tells.send(child.wait_with_output())));
    loop {
        match told.recv_timeout(TICK) {
            Ok(_) | Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => {
                // It may have ended by itself just now.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                return Err(SandboxError::Cancelled.into());
            }
            Ok(output) => return output.map_err(failed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(failed(io::ErrorKind::BrokenPipe.into())),
        }
    }
}
