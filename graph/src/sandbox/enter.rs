//! What happens between fork and exec: a session without a terminal, no keys, limits; and for root a mount namespace with what lies
//! in folders of its own, and a user namespace in which it is somebody else.
//!
//! Here is all of the crate's unsafe code: the child of a fork may make system calls, and nothing else.

use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
    open_tree,
};
use rustix::process::{Pid, Signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::foreign::Registration;
use super::identity::Identity;
use super::limits::Limits;

/// A file or folder, shown at another place: bubblewrap, who is not root outside, cannot reach its own.
#[derive(Debug)]
pub(super) struct Stage {
    mount: OwnedFd,
    place: CString,
    is_folder: bool,
}

impl Stage {
    /// Takes what is at `path`, to show it at `place`.
    pub(super) fn of(path: &Path, place: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, path, flags)?;
        Ok(Self { mount, place: c_path(place)?, is_folder: path.is_dir() })
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// How root enters a sandbox: as whom, and with what in sight.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) identity: Identity,
    /// The folder that is covered by the staged files.
    pub(super) top: PathBuf,
    pub(super) staged: Vec<Stage>,
    /// What runs programs of another machine.
    pub(super) foreign: Option<Registration>,
}

/// Where parent and child wait for each other.
struct Gate {
    top: CString,
    staged: Vec<Stage>,
    foreign: Option<Registering>,
    told: PipeWriter,
    go: PipeReader,
}

/// Whose business it is that a program goes when this process is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    /// This module's.
    WithUs,
    /// Its own: bubblewrap's (`--die-with-parent`), who is not to be killed while it begins. A process stays behind for it.
    ByItself,
}

/// Starts a program in a session of its own, with these limits; `others` are processes that count as well.
pub(super) fn start(command: Command, limits: Option<Limits>, others: u64, goes: Goes) -> io::Result<Child> {
    spawn(command, limits, others, goes, None)
}

/// Starts a program as [`start`] does, as another user.
///
/// # Errors
/// It could not be started, or the namespaces could not be made.
pub(super) fn start_as(command: Command, limits: Option<Limits>, entrance: Entrance) -> io::Result<Child> {
    let (hears, told) = io::pipe()?;
    let (go, gives) = io::pipe()?;
    let foreign = entrance.foreign.map(|foreign| Registering::below(&entrance.top, foreign)).transpose()?;
    let gate = Gate { top: c_path(&entrance.top)?, staged: entrance.staged, foreign, told, go };
    let identity = entrance.identity;
    std::thread::scope(|scope| {
        let helper = scope.spawn(move || let_in(hears, gives, &identity));
        let child = spawn(command, limits, 0, Goes::ByItself, Some(gate));
        // The gate is gone by now, and the helper has ended.
        match (child, helper.join()) {
            (Ok(child), _) => Ok(child),
            (Err(_), Ok(Err(why))) => Err(why),
            (Err(error), _) => Err(error),
        }
    })
}

/// Gives the child, who says which process it is, its identity.
fn let_in(mut hears: PipeReader, mut gives: PipeWriter, identity: &Identity) -> io::Result<()> {
    let mut pid = [0; 4];
    // A child that never came this far says itself what is wrong.
    if hears.read_exact(&mut pid).is_err() {
        return Ok(());
    }
    let process = format!("/proc/{}", i32::from_ne_bytes(pid));
    for (file, map) in [("uid_map", &identity.users), ("gid_map", &identity.groups)] {
        std::fs::write(format!("{process}/{file}"), map).map_err(|error| {
            io::Error::new(error.kind(), format!("write {file} of a user namespace: {error}"))
        })?;
    }
    gives.write_all(&[1])
}

#[allow(unsafe_code)]
fn spawn(
    mut command: Command,
    limits: Option<Limits>,
    others: u64,
    goes: Goes,
    gate: Option<Gate>,
) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let enter = move || {
        if goes == Goes::WithUs {
            goes_with(parent)?;
        }
        rustix::process::setsid()?;
        // The modes of what it makes are those that it gives, whoever the caller is.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        without_keys()?;
        if let Some(gate) = &gate {
            become_another(gate, parent)?;
        }
        if goes == Goes::ByItself {
            goes_with(parent)?;
            stay_behind(gate.is_some())?;
        }
        if let Some(limits) = &limits {
            limits.set(others)?;
        }
        hand_nothing_on()
    };
    // SAFETY: between fork and exec the closure makes system calls; it takes no lock and no memory.
    unsafe { command.pre_exec(enter) };
    let child = command.spawn();
    // The ends of pipes in it must go, or whoever reads from them waits for ever.
    drop(command);
    child
}

/// Has this process go when its parent is killed, also if that happened already. It is to be said again when somebody became
/// somebody else.
fn goes_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    match rustix::process::getppid() {
        Some(now) if now == parent => Ok(()),
        _ => Err(rustix::io::Errno::SRCH.into()),
    }
}

/// Parts this process: the new one, in a process group of its own, goes on; this one ends when all that it started has ended.
///
/// bubblewrap alone ends a moment before the processes of its sandbox do: as the subreaper, this one waits for them too. Whoever
/// may make a PID namespace (`own_pids`) has the new one be the first of it, and takes all of it along wherever it is.
/// (bubblewrap's own processes wait for each other without an end if one of them is killed too early.)
#[allow(unsafe_code)]
fn stay_behind(own_pids: bool) -> io::Result<()> {
    if own_pids {
        // SAFETY: the child of a fork has one thread.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
    } else {
        // Any number but 0 says yes.
        rustix::process::set_child_subreaper(Some(Pid::INIT))?;
    }
    let (alive, keeps) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: as the fork that this is the child of: both go on with system calls alone.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(keeps);
            rustix::process::setpgid(None, None)?;
            if !own_pids {
                return Ok(());
            }
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // Its parent is in another namespace and has no number here: the pipe tells whether it went before that.
            let mut ends = [PollFd::from_borrowed_fd(alive.as_fd(), PollFlags::IN)];
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut ends, Some(&none))? {
                0 => Ok(()),
                _ => Err(rustix::io::Errno::SRCH.into()),
            }
        }
        child => {
            let kept = keeps.as_raw_fd() as libc::c_uint;
            // What the other is to close counts as closed only when it is closed here too.
            for (first, last) in [(0, kept.wrapping_sub(1)), (kept + 1, libc::c_uint::MAX)] {
                // SAFETY: nothing here uses a descriptor any more, but the one that is left open.
                unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            }
            let mut status = 0;
            // SAFETY: `status` is there for the whole call; what ends is one process.
            unsafe {
                while libc::waitpid(child, &mut status, 0) < 0 && *libc::__errno_location() == libc::EINTR {}
                libc::kill(-child, libc::SIGKILL);
                while libc::waitpid(-1, std::ptr::null_mut(), 0) > 0
                    || *libc::__errno_location() == libc::EINTR
                {}
                if libc::WIFSIGNALED(status) {
                    libc::kill(libc::getpid(), libc::WTERMSIG(status));
                    libc::_exit(128 + libc::WTERMSIG(status));
                }
                libc::_exit(libc::WEXITSTATUS(status))
            }
        }
    }
}

/// Has all that is open but the three standard streams closed by the exec to come, whoever opened it: what a shell, a CI runner or a
/// make hands to its children would be a way out.
#[allow(unsafe_code)]
fn hand_nothing_on() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes numbers and touches no memory.
    let closed =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if closed == 0 {
        return Ok(());
    }
    // A kernel before 5.11: one by one, as many as there can be.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let last = limit.and_then(|limit| libc::c_int::try_from(limit).ok()).unwrap_or(1 << 20);
    for descriptor in FIRST as libc::c_int..last {
        // SAFETY: as above; a number that is none is an error that says so.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Begins a session keyring of its own: what is in the caller's is his.
#[allow(unsafe_code)]
fn without_keys() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the call takes a name, or none, and touches no memory of ours.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    match rustix::io::Errno::from_io_error(&io::Error::last_os_error()) {
        _ if joined >= 0 => Ok(()),
        // A kernel without keys, or a container that forbids them to all below it.
        Some(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => Ok(()),
        errno => Err(errno.map_or(io::ErrorKind::Other.into(), io::Error::from)),
    }
}

/// Makes the namespaces; outside of them, the process is nobody that anybody knows.
#[allow(unsafe_code)]
fn become_another(gate: &Gate, parent: Pid) -> io::Result<()> {
    // SAFETY: the child of a fork has one thread, and no other shares its file system with it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    if !gate.staged.is_empty() || gate.foreign.is_some() {
        mount(c"tmpfs", &gate.top, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755"))?;
    }
    for Stage { mount, place, is_folder } in &gate.staged {
        match is_folder {
            true => rustix::fs::mkdir(place, Mode::from_raw_mode(0o755))?,
            false => drop(rustix::fs::open(
                place,
                OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o644),
            )?),
        }
        move_mount(mount.as_fd(), c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    if let Some(foreign) = &gate.foreign {
        rustix::fs::mkdir(&foreign.place, Mode::from_raw_mode(0o755))?;
    }
    // SAFETY: as above.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }?;
    // Whoever waits for what a dead parent should say waits for ever: this process holds the other end as well.
    goes_with(parent)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    rustix::io::write(&gate.told, &pid.to_ne_bytes())?;
    if rustix::io::read(&gate.go, &mut [0; 1])? == 0 {
        return Err(rustix::io::Errno::PERM.into());
    }
    let (user, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    gate.foreign.as_ref().map_or(Ok(()), Registering::register)
}

/// Where a registration is written.
struct Registering {
    registration: Registration,
    place: CString,
    file: CString,
}

impl Registering {
    fn below(top: &Path, registration: Registration) -> io::Result<Self> {
        let place = top.join("binfmt");
        Ok(Self { registration, place: c_path(&place)?, file: c_path(&place.join("register"))? })
    }

    /// Registers it in the user namespace that was just entered. It holds as long as its file system is mounted somewhere: in the mount
    /// namespace made here, which the process that stays behind keeps.
    #[allow(unsafe_code)]
    fn register(&self) -> io::Result<()> {
        // SAFETY: as in `become_another`. Only whose user namespace made a mount namespace may mount there.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(c"binfmt_misc", &self.place, c"binfmt_misc", flags, None)?;
        let file = rustix::fs::open(&self.file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, &self.registration.rule)?;
        Ok(())
    }
}
