//! A guest whose serial line is the test's.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a boot loader's menu may take, as seen from the firmware's first instruction.
pub(crate) const LOADED: Duration = Duration::from_secs(300);

/// How long a system may take to its shell, emulated, on a loaded machine, over TFTP.
pub(crate) const BOOTED: Duration = Duration::from_secs(900);

/// How long the shell may take to answer.
pub(crate) const ANSWERED: Duration = Duration::from_secs(120);

/// What a guest says when it is of no use to wait on.
const HOPELESS: [&str; 7] = [
    "Kernel panic",
    "No more network devices",
    "No bootable device",
    "dracut: FATAL",
    "Entering emergency mode",
    "Here is a shell; exit goes on",
    "Out of memory",
];

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// Text goes to the serial line.
    Bios,
    /// Text goes to a screen that nobody looks at: for loaders that write to the serial line themselves.
    BiosWithScreen,
    Uefi,
}

pub(crate) struct Vm {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// The beginning of an escape whose end has not come yet.
    rest: Vec<u8>,
    /// All that was printed, without escapes.
    text: String,
    /// Up to here it was waited for.
    seen: usize,
    _vars: Option<tempfile::NamedTempFile>,
}

impl Vm {
    /// Starts a guest with so much memory, in MiB.
    pub(crate) fn start(firmware: Firmware, memory: u64, devices: &[&str]) -> Self {
        Self::start_with(Command::new("setpriv"), firmware, memory, devices)
    }

    /// Starts a guest in a network namespace.
    pub(crate) fn start_in(namespace: &str, firmware: Firmware, memory: u64, devices: &[&str]) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "setpriv"]);
        Self::start_with(command, firmware, memory, devices)
    }

    fn start_with(mut command: Command, firmware: Firmware, memory: u64, devices: &[&str]) -> Self {
        // A test that is killed takes its guest along.
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(
            "-nodefaults -display none -monitor none -no-reboot -serial stdio -cpu qemu64 -smp 1".split(' '),
        );
        let (machine, screen) = match firmware {
            Firmware::BiosWithScreen => ("pc,accel=tcg", "std"),
            Firmware::Bios | Firmware::Uefi => ("pc,graphics=off,accel=tcg", "none"),
        };
        command.args(["-machine", machine, "-vga", screen, "-m", &memory.to_string()]);
        let vars = match firmware {
            Firmware::Bios | Firmware::BiosWithScreen => None,
            Firmware::Uefi => {
                let vars = tempfile::NamedTempFile::new().unwrap();
                std::fs::copy(OVMF_VARS, vars.path()).unwrap();
                for (path, options) in [(OVMF_CODE, ",readonly=on"), (vars.path().to_str().unwrap(), "")] {
                    command.args(["-drive", &format!("if=pflash,format=raw,file={path}{options}")]);
                }
                Some(vars)
            }
        };
        command.args(devices).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("QEMU starts; `make test` installs it");
        let input = child.stdin.take().unwrap();
        let mut serial = child.stdout.take().unwrap();
        let (sender, output) = channel();
        // For who wants to look on: all that a guest prints, as it prints it.
        let log = std::env::var_os("STAGEGRAPH_BOOT_LOG");
        let mut log = log.map(|path| std::fs::File::options().append(true).create(true).open(path).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = serial.read(&mut buffer) {
                if let Some(log) = &mut log {
                    log.write_all(&buffer[..length]).unwrap();
                }
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, input, output, rest: Vec::new(), text: String::new(), seen: 0, _vars: vars }
    }

    /// Types on the serial line, at a pace that emulated firmware can follow.
    pub(crate) fn send(&mut self, keys: &str) {
        for key in keys.bytes() {
            self.input.write_all(&[key]).unwrap();
            self.input.flush().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the guest has printed `text`; returns all it printed since the last wait.
    pub(crate) fn wait_for(&mut self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = self.text[self.seen..].find(text) {
                let end = self.seen + found + text.len();
                let new = self.text[self.seen..end].to_owned();
                self.seen = end;
                return new;
            }
            if let Some(hopeless) =
                HOPELESS.iter().find(|hopeless| self.text[self.seen..].contains(**hopeless))
            {
                self.fail(&format!("the guest says {hopeless:?} instead of {text:?}"));
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => {
                    self.rest.extend(bytes);
                    let (text, used) = plain(&self.rest);
                    self.text.push_str(&text);
                    self.rest.drain(..used);
                }
                Err(RecvTimeoutError::Timeout) => self.fail(&format!("no {text:?} within {limit:?}")),
                Err(RecvTimeoutError::Disconnected) => {
                    self.fail(&format!("the guest ended without {text:?}"))
                }
            }
        }
    }

    fn fail(&self, why: &str) -> ! {
        let tail: Vec<_> = self.text.lines().rev().take(60).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        panic!("{why}; the last it printed:\n{}", tail.join("\n"));
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes terminal escapes out: menus and systemd write them into the middle of words. Returns the text, and
/// how many bytes it is made of; an escape that is not finished yet is not among them.
fn plain(bytes: &[u8]) -> (String, usize) {
    let mut text = String::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let length = match byte {
            0x1b => match bytes.get(at + 1) {
                None => break,
                Some(b'[') => {
                    let end = bytes[at + 2..].iter().position(|byte| byte.is_ascii_alphabetic());
                    let Some(end) = end else { break };
                    end + 3
                }
                // A character set: one more byte.
                Some(b'(' | b')' | b'%') => 3,
                Some(_) => 2,
            },
            b'\r' | 0x0e | 0x0f => 1,
            byte => {
                text.push(char::from(*byte));
                1
            }
        };
        if at + length > bytes.len() {
            break;
        }
        at += length;
    }
    (text, at)
}

#[test]
fn escapes_are_taken_out_even_where_they_come_in_pieces() {
    assert_eq!(plain(b"a\x1b[0;1mb\x1b(Bc"), ("abc".to_owned(), 12));
    assert_eq!(plain(b"a\x1b[0;"), ("a".to_owned(), 1));
    assert_eq!(plain(b"a\x1b"), ("a".to_owned(), 1));
}
