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

/// UEFI for PCs, and its variables; with Secure Boot, Microsoft's keys are among those.
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];
const NARROW_OVMF: [&str; 2] =
    ["/usr/share/OVMF/OVMF32_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF32_VARS_4M.fd"];
const U_BOOT: &str = "/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf";
/// UEFI for arm64.
const AAVMF: [&str; 2] = ["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"];
const SECURE_OVMF: [&str; 2] =
    ["/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// Text goes to the serial line.
    Bios,
    /// Text goes to a screen that nobody looks at: for loaders that write to the serial line themselves.
    BiosWithScreen,
    Uefi,
    /// It starts nothing that is not signed by whom Microsoft knows.
    SecureUefi,
    /// Of a PC whose firmware has 32 bits.
    NarrowUefi,
    /// Of a machine for arm64.
    Arm64,
    /// U-Boot of a machine for riscv64.
    Riscv,
    /// Open Firmware of a POWER machine.
    Power,
}

impl Firmware {
    /// The program that is such a machine, its kind, its screen, and its processor.
    fn machine(self) -> [&'static str; 4] {
        match self {
            Firmware::BiosWithScreen => ["qemu-system-x86_64", "pc,accel=tcg", "std", "qemu64"],
            Firmware::Bios | Firmware::Uefi => {
                ["qemu-system-x86_64", "pc,graphics=off,accel=tcg", "none", "qemu64"]
            }
            Firmware::SecureUefi => {
                ["qemu-system-x86_64", "q35,graphics=off,smm=on,accel=tcg", "none", "qemu64"]
            }
            Firmware::NarrowUefi => ["qemu-system-x86_64", "q35,graphics=off,accel=tcg", "none", "qemu64"],
            Firmware::Arm64 => ["qemu-system-aarch64", "virt,accel=tcg", "none", "cortex-a57"],
            Firmware::Riscv => ["qemu-system-riscv64", "virt,accel=tcg", "none", "rv64"],
            Firmware::Power => ["qemu-system-ppc64", "pseries,accel=tcg", "none", "power9"],
        }
    }

    /// UEFI and its variables.
    fn flash(self) -> Option<[&'static str; 2]> {
        match self {
            Firmware::Bios | Firmware::BiosWithScreen | Firmware::Riscv | Firmware::Power => None,
            Firmware::NarrowUefi => Some(NARROW_OVMF),
            Firmware::Uefi => Some(OVMF),
            Firmware::SecureUefi => Some(SECURE_OVMF),
            Firmware::Arm64 => Some(AAVMF),
        }
    }

    /// The console that the image's menus offer.
    pub(crate) fn console(self) -> &'static str {
        match self {
            Firmware::Arm64 => "ttyAMA0,115200",
            Firmware::Power => "hvc0",
            _ => "ttyS0,115200",
        }
    }

    /// How such a machine has a disc in its drive.
    pub(crate) fn disc(self, iso: &str) -> Vec<String> {
        match self {
            Firmware::Arm64 | Firmware::Power => vec![
                "-drive".to_owned(),
                format!("if=none,id=disc,media=cdrom,format=raw,readonly=on,file={iso}"),
                "-device".to_owned(),
                "virtio-scsi-pci".to_owned(),
                "-device".to_owned(),
                "scsi-cd,drive=disc,bootindex=0".to_owned(),
            ],
            Firmware::Riscv => vec![
                "-drive".to_owned(),
                format!("if=none,id=disk,format=raw,readonly=on,file={iso}"),
                "-device".to_owned(),
                "virtio-blk-device,drive=disk".to_owned(),
            ],
            _ => vec!["-cdrom".to_owned(), iso.to_owned()],
        }
    }
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
        let [program, machine, screen, cpu] = firmware.machine();
        command.args(["--pdeathsig", "KILL", program, "-cpu", cpu]);
        command.args("-nodefaults -display none -monitor none -no-reboot -serial stdio -smp 1".split(' '));
        let memory = match firmware {
            // Memory of a POWER machine comes by 256 MiB.
            Firmware::Power => memory.next_multiple_of(256),
            // This U-Boot stands still with less.
            Firmware::Riscv => memory.max(1024),
            _ => memory,
        };
        command.args(["-machine", machine, "-vga", screen, "-m", &memory.to_string()]);
        if firmware == Firmware::Riscv {
            command.args(["-kernel", U_BOOT]);
        }
        if firmware == Firmware::SecureUefi {
            command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        let vars = firmware.flash().map(|[code, variables]| {
            let vars = tempfile::NamedTempFile::new().unwrap();
            std::fs::copy(variables, vars.path()).unwrap();
            for (path, options) in [(code, ",readonly=on"), (vars.path().to_str().unwrap(), "")] {
                command.args(["-drive", &format!("if=pflash,format=raw,file={path}{options}")]);
            }
            vars
        });
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
