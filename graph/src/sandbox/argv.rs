//! The command line of bubblewrap.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::invocation::Invocation;
use crate::tool::PATH;

/// The work folder, seen from inside.
pub(super) const INSIDE: &str = "/build";

pub(super) fn environment(invocation: &Invocation<'_>) -> BTreeMap<String, String> {
    let fixed = [("PATH", PATH), ("HOME", INSIDE), ("TMPDIR", "/tmp"), ("LC_ALL", "C"), ("TZ", "UTC")];
    let mut environment: BTreeMap<_, _> =
        fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.extend(invocation.env.clone());
    environment
}

/// Files of the process folder that change the machine.
const COVERED: [&str; 6] =
    ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/acpi", "/proc/scsi"];

/// Builds bubblewrap's command line.
///
/// `staged` says where a path is found that bubblewrap cannot reach;
/// `has_identity` tells whether it is started in a user namespace already, where it is root.
pub fn bwrap_argv(
    invocation: &Invocation<'_>,
    staged: &BTreeMap<PathBuf, PathBuf>,
    has_identity: bool,
) -> Vec<OsString> {
    let mut argv: Vec<OsString> = Vec::new();
    let mut add = |words: &[&OsStr]| argv.extend(words.iter().map(|word| (*word).to_owned()));
    for flag in ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"] {
        add(&[flag.as_ref()]);
    }
    if has_identity {
        let change = if invocation.privileged { "--cap-add" } else { "--cap-drop" };
        add(&[change.as_ref(), "ALL".as_ref()]);
    } else {
        add(&["--unshare-user".as_ref(), "--uid".as_ref(), "0".as_ref(), "--gid".as_ref(), "0".as_ref()]);
    }
    add(&["--hostname".as_ref(), "stagegraph".as_ref(), "--clearenv".as_ref()]);
    for (name, value) in environment(invocation) {
        add(&["--setenv".as_ref(), name.as_ref(), value.as_ref()]);
    }
    for (link, target) in &invocation.tool.links {
        add(&["--symlink".as_ref(), target.as_ref(), link.as_ref()]);
    }
    // Before the files: a tool may lie below one of these.
    for (flag, path) in [("--proc", "/proc"), ("--dev", "/dev"), ("--tmpfs", "/tmp")] {
        add(&[flag.as_ref(), path.as_ref()]);
    }
    if !invocation.privileged {
        // Whoever is root outside, in whatever namespace, may write there without any capability. (Whoever mounts a process folder of
        // his own needs them as they are.)
        for path in COVERED {
            add(&["--ro-bind-try".as_ref(), path.as_ref(), path.as_ref()]);
        }
    }
    let place = |path: &'_ Path| staged.get(path).cloned().unwrap_or_else(|| path.to_owned());
    for (inside, outside) in &invocation.tool.files {
        add(&["--ro-bind".as_ref(), place(outside).as_ref(), inside.as_ref()]);
    }
    if invocation.privileged {
        // Whoever mounts things in a root of its own finds /sys there, and devices that are mounted into it work.
        add(&["--ro-bind".as_ref(), "/sys".as_ref(), "/sys".as_ref()]);
        add(&["--dev-bind".as_ref(), place(invocation.work).as_ref(), INSIDE.as_ref()]);
    } else {
        add(&["--bind".as_ref(), place(invocation.work).as_ref(), INSIDE.as_ref()]);
    }
    for (inside, outside) in &invocation.mounts {
        add(&["--ro-bind".as_ref(), place(outside).as_ref(), inside.as_ref()]);
    }
    for (name, outside) in &invocation.inputs {
        let inside = Path::new(INSIDE).join("in").join(name);
        add(&["--ro-bind".as_ref(), place(outside).as_ref(), inside.as_ref()]);
    }
    add(&["--chdir".as_ref(), INSIDE.as_ref(), "--".as_ref(), invocation.tool.program.as_ref()]);
    argv.extend(invocation.args.iter().cloned());
    argv
}
