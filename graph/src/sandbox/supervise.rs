//! Watches a running tool: what it prints, when it ends, and that it ends where everything should stop.

use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::enter::Goes;
use crate::cancel::Cancel;

/// How often a running tool is asked whether it should stop.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// After how many of these whoever stays behind for a tool is killed with it.
const PATIENCE: u32 = 20;

/// After how many of them it is looked whether bubblewrap is stopped, and how far below the child that was started.
const STOPPED_TICKS: u32 = 5;
const STOPPED_DEPTH: u32 = 3;

/// How many lines of a failed tool's output are repeated in the error.
const TAIL: usize = 12;

/// The longest line; what is longer is handed on in pieces.
const MAX_LINE: usize = 64 << 10;

/// How a tool ended: nothing where it was stopped.
pub(super) struct End {
    pub(super) status: Option<ExitStatus>,
    /// The last lines that it printed.
    pub(super) tail: Vec<String>,
}

/// Hands every line that a tool prints to `each`, until it ends; then ends all that it left behind.
pub(super) fn supervise(
    child: &mut Child,
    goes: Goes,
    output: PipeReader,
    cancel: &Cancel,
    each: &(dyn Fn(&[u8]) + Sync),
) -> io::Result<End> {
    // It is closed when the tool has ended: a process that it left behind may hold the output open.
    let (ended, running) = io::pipe()?;
    let mut tail = VecDeque::new();
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = |line: &[u8]| {
                each(line);
                tail.push_back(String::from_utf8_lossy(line).into_owned());
                if tail.len() > TAIL {
                    tail.pop_front();
                }
            };
            read_lines(output, &ended, &mut line);
        });
        let status = wait(child, goes, cancel);
        drop(running);
        status
    })?;
    Ok(End { status, tail: tail.into() })
}

/// Reads lines to the end of the output, or, once the tool has ended, what it had written by then.
fn read_lines(mut output: PipeReader, ended: &PipeReader, line: &mut dyn FnMut(&[u8])) {
    let mut buffer = vec![0; MAX_LINE];
    let mut begun: Vec<u8> = Vec::new();
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut ends = [
            PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        if poll(&mut ends, None).is_err_and(|errno| errno != rustix::io::Errno::INTR) {
            break;
        }
        let mut only = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
        match poll(&mut only, Some(&none)) {
            Ok(0) if !ends[1].revents().is_empty() => break,
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        let Ok(read @ 1..) = output.read(&mut buffer) else { break };
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            if begun.last() == Some(&b'\n') {
                begun.pop();
                line(&begun);
                begun.clear();
            } else if begun.len() >= MAX_LINE {
                line(&begun);
                begun.clear();
            }
        }
    }
    if !begun.is_empty() {
        line(&begun);
    }
}

/// Waits for the end; kills the tool and returns `None` where everything should stop.
fn wait(child: &mut Child, goes: Goes, cancel: &Cancel) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    let interval = Timespec { tv_sec: 0, tv_nsec: CANCEL_INTERVAL.as_nanos() as i64 };
    let (mut ticks, mut cancelled) = (0u32, 0u32);
    loop {
        let mut ends = [PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)];
        match poll(&mut ends, Some(&interval)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {
                let status = child.wait()?;
                if cancelled > 0 {
                    return Ok(None);
                }
                // What it left behind in its own group; in a sandbox, nothing is left.
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
                return Ok(Some(status));
            }
            Err(errno) => return Err(errno.into()),
        }
        ticks += 1;
        if ticks.is_multiple_of(STOPPED_TICKS) {
            go_on(pid, STOPPED_DEPTH);
        }
        if cancel.is_cancelled() {
            cancelled += 1;
            match goes {
                // The first process of the PID namespace dies with bubblewrap, and all others with it. Who stayed behind ends when
                // they have; what had not begun yet is there at the next look.
                Goes::ByItself if cancelled < PATIENCE => children(pid).for_each(|child| {
                    let _ = rustix::process::kill_process(child, Signal::KILL);
                }),
                // Also where a kernel does not tell who started whom.
                _ => drop(rustix::process::kill_process_group(pid, Signal::KILL)),
            }
        }
    }
}

/// Has bubblewrap's own processes go on where they are stopped: a tool may attach to the one that waits for it (ptrace), and end. What a
/// stopped process should see the end of never ends.
fn go_on(pid: Pid, depth: u32) {
    let number = pid.as_raw_nonzero();
    // `NUMBER (NAME) STATE …` (proc(5)); the name may have anything in it.
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    if let Some((head, state)) = stat.rsplit_once(") ")
        && head.ends_with("(bwrap")
        && state.starts_with('T')
    {
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
    if depth > 0 {
        children(pid).for_each(|child| go_on(child, depth - 1));
    }
}

/// The processes that a process of one thread started, or adopted.
fn children(pid: Pid) -> impl Iterator<Item = Pid> {
    let number = pid.as_raw_nonzero();
    let list = std::fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap_or_default();
    let found: Vec<_> = list.split(' ').filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect();
    found.into_iter()
}

/// What shells, and bubblewrap, add to the number of the signal that ended a program.
const BY_SIGNAL: i32 = 128;

/// Says how a tool ended.
pub(super) fn describe(status: ExitStatus) -> String {
    let signal = status
        .signal()
        .or_else(|| status.code().filter(|code| *code > BY_SIGNAL).map(|code| code - BY_SIGNAL));
    match (signal, status.code()) {
        (Some(TOO_LARGE), _) => "was stopped: it wrote a file larger than limits.file_mib allows".to_owned(),
        (_, Some(code)) => format!("ended with exit code {code}"),
        (Some(signal), None) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}

/// `SIGXFSZ`: a file grew beyond its limit.
const TOO_LARGE: i32 = 25;
