//! Tries to get out of the sandbox, each from inside and with what a tool could do, against what `docs/sandbox.md` promises.
//!
//! A try prints `OPEN` where it gets through; it asks for a door to be opened and goes through none, so that a machine on which one
//! is open is not harmed. What is tried needs nothing but perl itself.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use cache::testing::Folder;
use graph::Cancel;
use graph::sandbox::{Invocation, Limits, Mode, Sandbox, SandboxError};
use graph::tool::{Tool, ToolSpec, Tools};

/// What a try has at hand, in front of each.
const PRELUDE: &str = r#"
$| = 1;
sub writes { for (@_) { print "OPEN $_\n" if sysopen(my $f, $_, 1) } }
sub reads { for (@_) { print "OPEN $_\n" if sysopen(my $f, $_, 0) && sysread($f, my $b, 1) } }
sub quiet { my ($n, @a) = @_; syscall($n, @a) }
sub call { my $r = quiet(@_); print "OPEN @_\n" if $r >= 0; $r }
my $null = 0;
# What a pattern with {a,b} and * stands for.
sub names {
    my ($p) = @_;
    if ($p =~ /^(.*?)\{([^}]*)\}(.*)$/) { my ($a, $m, $z) = ($1, $2, $3); return map { names("$a$_$z") } split /,/, $m }
    my @found = ('');
    for my $part (grep { length } split m{/}, $p) {
        (my $like = quotemeta $part) =~ s/\\\*/.*/g;
        @found = $part =~ /\*/
            ? map { my ($in, $d) = $_; opendir($d, "$in/") ? map { "$in/$_" } grep { /^$like$/ && !/^\./ } readdir $d : () } @found
            : map { "$_/$part" } @found;
    }
    grep { -e } @found;
}
"#;

/// One try: what it is called, and how it goes.
struct Try(&'static str, &'static str);

/// What no tool may do, whoever runs it and however.
const TRIES: &[Try] = &[
    Try("sysctl: the program for core dumps", "writes '/proc/sys/kernel/core_pattern'"),
    Try("sysctl: the program that loads modules", "writes '/proc/sys/kernel/modprobe'"),
    Try(
        "sysctl: the program for hotplugged devices",
        "writes '/proc/sys/kernel/hotplug', '/sys/kernel/uevent_helper'",
    ),
    Try("sysctl: what a panic does", "writes '/proc/sys/kernel/panic', '/proc/sys/kernel/panic_on_oops'"),
    Try(
        "sysctl: memory",
        "writes names('/proc/sys/vm/{drop_caches,overcommit_memory,swappiness,compact_memory}')",
    ),
    Try(
        "sysctl: limits of everybody",
        "writes names('/proc/sys/{fs/file-max,fs/nr_open,kernel/threads-max}')",
    ),
    Try(
        "sysctl: hardening",
        "writes names('/proc/sys/kernel/{randomize_va_space,kptr_restrict,dmesg_restrict,yama/ptrace_scope}')",
    ),
    Try(
        "sysctl: formats of programs",
        "writes '/proc/sys/fs/binfmt_misc/register', '/proc/sys/fs/binfmt_misc/status'",
    ),
    Try(
        "sysctl: links and setuid dumps",
        "writes names('/proc/sys/fs/{suid_dumpable,protected_symlinks,protected_hardlinks}')",
    ),
    Try("the keys of a console", "writes '/proc/sysrq-trigger'"),
    Try(
        "interrupts and buses",
        "writes names('/proc/irq/*/smp_affinity'), names('/proc/bus/pci/*/*'), names('/proc/scsi/*')",
    ),
    Try(
        "memory and messages of the kernel",
        "reads '/proc/kcore', '/proc/kmsg'; writes '/dev/kmsg', '/dev/mem'",
    ),
    Try(
        "power and devices",
        "writes '/sys/power/state', '/proc/acpi/wakeup', names('/sys/bus/*/drivers_probe'), names('/sys/class/leds/*/brightness')",
    ),
    Try(
        "control groups",
        "writes '/sys/fs/cgroup/cgroup.procs', '/sys/fs/cgroup/cgroup.subtree_control', names('/sys/fs/cgroup/*/cgroup.procs')",
    ),
    Try("the caller's terminal", "print \"OPEN tty\\n\" if sysopen(my $f, '/dev/tty', 2)"),
    Try(
        "typing into what was handed over",
        "for my $n (0..9) { open(my $f, '+<&=', $n) or next; my $c = 'x'; print \"OPEN $n\\n\" if ioctl($f, 0x5412, $c) }",
    ),
    Try(
        "what the caller has open",
        "for my $n (3..1023) { open(my $f, '<&=', $n) or next; my $l = readlink(\"/proc/self/fd/$n\"); \
         print \"OPEN $n $l\\n\" if !defined $l || $l !~ m{^/build/|^/dev/null$} }",
    ),
    Try(
        "other terminals",
        "writes '/dev/console', '/dev/tty0', '/dev/tty1', '/dev/ttyS0', names('/dev/vcs*'), names('/dev/pts/[0-9]*')",
    ),
    Try(
        "disks and other devices",
        "writes names('/dev/{sd,vd,nvme,loop,dm-,mapper/}*'), '/dev/fuse', '/dev/kvm', '/dev/uinput', '/dev/net/tun'",
    ),
    Try("a device node: memory", "quiet(133, 'm', 020600, 0x101) == 0 && reads 'm'"),
    Try(
        "a device node: disks",
        "for my $d (0x800, 0xfe00, 0x10300, 0x700) { unlink 'b'; quiet(133, 'b', 060600, $d) == 0 && reads 'b' }",
    ),
    Try("a device node: the console", "quiet(133, 'c', 020600, 0x501) == 0 && writes 'c'"),
    Try(
        "processes outside: seeing",
        "print \"OPEN\\n\" if -e \"/proc/$ENV{HOST}/root/etc\" || grep { $_ > 50 } map { m{/(\\d+)$} } names('/proc/[0-9]*')",
    ),
    Try("processes outside: signals", "print \"OPEN\\n\" if kill 0, $ENV{HOST}"),
    Try("processes outside: ptrace", "call(101, 16, $ENV{HOST}, 0, 0); call(101, 0x4206, $ENV{HOST}, 0, 0)"),
    Try("bubblewrap, which is the first process: its program", "writes '/proc/1/exe'"),
    Try("the caller's keys: session", "call(250, 10, -3, 'user', $ENV{KEY}, 0)"),
    Try(
        "the caller's keys: user",
        "call(250, 10, -4, 'user', $ENV{KEY}, 0); call(250, 10, -5, 'user', $ENV{KEY}, 0)",
    ),
    Try("the caller's keys: asked for", "call(249, 'user', $ENV{KEY}, 0, 0)"),
    Try(
        "the network",
        "socket(my $s, 2, 1, 0); print \"OPEN\\n\" if connect($s, pack('S n a4 x8', 2, $ENV{PORT}, \"\\x7f\\0\\0\\1\"))",
    ),
    Try(
        "the network: another interface",
        "open(my $f, '<', '/proc/net/dev'); print \"OPEN $_\" for grep { /:/ && !/ lo:/ && !/(sit|ip6?tnl|gre|erspan|tunl|vti|teql)/ } <$f>",
    ),
    Try(
        "an abstract socket",
        "socket(my $s, 1, 1, 0); print \"OPEN\\n\" if connect($s, pack('S', 1) . \"\\0$ENV{SOCKET}\")",
    ),
    Try(
        "a socket in a folder",
        "socket(my $s, 1, 1, 0); print \"OPEN\\n\" if connect($s, pack('S a*', 1, $ENV{MARK} . '.socket'))",
    ),
    Try(
        "shared memory and queues",
        "call(29, 0x5347, 16, 0); call(68, 0x5347, 0); call(240, \"/$ENV{KEY}\", 0, 0, 0)",
    ),
    Try(
        "the files outside",
        "reads $ENV{MARK}, \"/proc/1/root$ENV{MARK}\", '/etc/shadow', '/root/.bashrc', '/var/lib/dpkg/status'",
    ),
    Try("its inputs", "writes 'in/file'; print \"OPEN\\n\" if unlink('in/file') || rename('in/file', 'x')"),
    Try("its inputs, mounted anew", "quiet(165, 'none', '/build/in/file', 0, 0x1020, 0); writes 'in/file'"),
    Try("its inputs, by another name", "link('in/file', 'other') && writes 'other'"),
    Try("its inputs, made writable", "chmod(0666, 'in/file'); chown(0, 0, 'in/file'); writes 'in/file'"),
    Try(
        "its inputs, with the mount taken away",
        "quiet(166, '/build/in/file', 2); writes 'in/file' if -s 'in/file'",
    ),
    Try(
        "its own program",
        "writes $ENV{PERL}; quiet(165, 'none', $ENV{PERL}, 0, 0x1020, 0); writes $ENV{PERL}",
    ),
    Try("namespaces of others", "sysopen(my $f, \"/proc/$ENV{HOST}/ns/mnt\", 0) && call(308, fileno($f), 0)"),
    Try(
        "a user namespace, and the sysctls in it",
        "quiet(272, 0x10000000) == 0 && do { open(my $f, '>', '/proc/self/uid_map') and syswrite($f, \"0 0 1\\n\"); writes '/proc/sys/kernel/core_pattern' }",
    ),
    Try(
        "a process folder of its own, and the sysctls in it",
        "quiet(272, 0x10020000); mkdir 'p'; quiet(165, 'proc', 'p', 'proc', 0, 0) == 0 && writes 'p/sys/kernel/core_pattern', 'p/sysrq-trigger'",
    ),
    Try(
        "a folder of devices of its own",
        "quiet(272, 0x10020000); mkdir 'd'; quiet(165, 'd', 'd', 'devtmpfs', 0, 0) == 0 && reads 'd/mem', 'd/kmsg', 'd/sda', 'd/vda'",
    ),
    Try(
        "a folder of the kernel's own",
        "quiet(272, 0x10020000); mkdir 's'; quiet(165, 's', 's', 'sysfs', 0, 0) == 0 && writes 's/power/state', 's/kernel/uevent_helper'",
    ),
    Try(
        "debugging and tracing",
        "mkdir 't'; quiet(165, 't', 't', 'debugfs', 0, 0) == 0 && print \"OPEN debugfs\\n\"; quiet(165, 't', 't', 'tracefs', 0, 0) == 0 && print \"OPEN tracefs\\n\"",
    ),
    Try(
        "out of a root by the old trick",
        "mkdir 'r'; opendir(my $d, '/'); quiet(161, 'r'); for (1..64) { quiet(80, '..') } quiet(161, '.'); reads $ENV{MARK}",
    ),
    Try(
        "a file by its handle",
        "my $h = pack('I i a128', 8, 1, pack('II', 2, 0)); sysopen(my $f, '.', 0); my $r = quiet(304, fileno($f), $h, 0); $r >= 0 && print \"OPEN\\n\"",
    ),
    Try(
        "the kernel's modules and successors",
        "call(175, $null, 0, 0); call(246, 0, 0, 0, 0); call(313, 0, '', 0)",
    ),
    Try(
        "the machine: clock, swap, power",
        "call(164, pack('qq', 0, 0), 0); call(227, 0, pack('qq', 0, 0)); call(167, '/build/x', 0)",
    ),
    Try("the machine: ports", "call(172, 3); call(173, 0, 1, 1)"),
    Try(
        "the kernel's own programs",
        "my $a = pack('IIQQIIQ', 1, 1, 0, 0, 0, 0, 0) . \"\\0\" x 96; call(321, 5, $a, 128)",
    ),
    Try(
        "counters of the whole machine",
        "my $a = pack('IIQ', 0, 112, 0) . \"\\0\" x 96; call(298, $a, -1, 0, -1, 0)",
    ),
    Try(
        "root's id",
        "quiet(117, $_, $_, $_) == 0 && writes '/proc/sys/kernel/core_pattern' for (1, 1000, 65534, 0x70005347, 4294967294)",
    ),
    Try("a program of root's", "chmod(06755, 'x'); writes '/proc/sys/kernel/core_pattern'"),
];

struct Bench {
    dir: Folder,
    tool: Arc<Tool>,
    /// What is outside, and must not be reached.
    outside: BTreeMap<String, String>,
}

impl Bench {
    fn new() -> Self {
        let dir = Folder::new();
        let store = dir.store();
        let spec =
            ToolSpec { name: "perl", programs: &[], data: &[], data_places: &[], package: "perl-base" };
        let tool = Tools::new(vec!["/usr/bin".into()]).find(&store, &spec).unwrap();
        let outside = [
            ("HOST", std::process::id().to_string()),
            ("KEY", format!("stagegraph-escape-{}", std::process::id())),
            ("SOCKET", format!("stagegraph-escape-{}", std::process::id())),
            ("MARK", dir.path().join("mark").display().to_string()),
            ("PERL", tool.program.display().to_string()),
        ];
        fs::write(dir.path().join("mark"), "outside\n").unwrap();
        let outside = outside.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { dir, tool, outside }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a script of perl's; returns what it printed.
    fn run(
        &self,
        sandbox: &Sandbox,
        name: &str,
        script: &str,
        privileged: bool,
    ) -> (Vec<String>, Result<(), SandboxError>) {
        let work = self.path(&format!("scratch/{name}"));
        let inputs = self.path(&format!("scratch/{name}.in"));
        fs::create_dir_all(&work).unwrap();
        fs::create_dir_all(&inputs).unwrap();
        let input = inputs.join("file");
        fs::write(&input, "content\n").unwrap();
        // As an object in the store: it has another name.
        let object = self.path(&format!("{name}.object"));
        fs::hard_link(&input, &object).unwrap();
        fs::set_permissions(&input, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        let invocation = Invocation {
            tool: &self.tool,
            args: vec!["-e".into(), format!("{PRELUDE}{script}").into()],
            env: self.outside.clone(),
            inputs: BTreeMap::from([("file".to_owned(), input)]),
            mounts: BTreeMap::new(),
            work: &work,
            privileged,
            foreign: None,
        };
        let lines = Mutex::new(Vec::new());
        let result = sandbox.run(&invocation, &Cancel::default(), &|line| {
            lines.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
        });
        assert_eq!(fs::read_to_string(&object).unwrap(), "content\n", "{name}: an object was written");
        (lines.into_inner().unwrap(), result)
    }
}

/// Tells whether this process is root to the kernel, though it is not root here: in a namespace that root made for it.
fn is_root_outside() -> bool {
    let text = fs::read_to_string("/proc/self/uid_map").unwrap();
    let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap());
    let own = u64::from(rustix::process::geteuid().as_raw());
    let (inside, outside) = (numbers.next().unwrap(), numbers.next().unwrap());
    own != 0 && own - inside + outside == 0
}

/// Whether tools get all powers inside. Somebody who is root to the kernel, and cannot be anybody else, is kept from nothing then.
fn modes() -> Vec<bool> {
    if is_root_outside() { vec![false] } else { vec![false, true] }
}

fn bwrap() -> Option<PathBuf> {
    Some(PathBuf::from("/usr/bin/bwrap")).filter(|path| path.exists())
}

/// Runs every try; returns those that got through.
fn open(bench: &Bench, sandbox: &Sandbox, privileged: bool) -> Vec<String> {
    let mut open = Vec::new();
    for (number, Try(name, script)) in TRIES.iter().enumerate() {
        let (lines, _) = bench.run(sandbox, &format!("{number}-{privileged}"), script, privileged);
        // A script that is wrong tries nothing.
        assert!(!lines.iter().any(|line| line.contains("at -e line")), "{name}: {lines:?}");
        open.extend(
            lines.into_iter().filter(|line| line.starts_with("OPEN")).map(|line| format!("{name}: {line}")),
        );
    }
    open
}

/// Opens a file and a folder as a shell does for its children: with `7>>file 8</`.
fn held_open(bench: &Bench) -> [fs::File; 2] {
    [bench.path("mark.held"), PathBuf::from("/")].map(|path| {
        if !path.exists() {
            fs::write(&path, "held").unwrap();
        }
        let file = fs::File::open(&path).unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        file
    })
}

#[test]
fn no_tool_gets_out_of_the_sandbox() {
    let mut bench = Bench::new();
    let address = SocketAddr::from_abstract_name(&bench.outside["SOCKET"]).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let _socket = UnixListener::bind(bench.path("mark.socket")).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bench.outside.insert("PORT".to_owned(), listener.local_addr().unwrap().port().to_string());
    // The caller has keys: add_key(2) for the session and for the user.
    let add =
        format!("{PRELUDE}quiet(248, 'user', '{}', 'secret', 6, $_) for (-3, -4)", bench.outside["KEY"]);
    assert!(Command::new("perl").args(["-e", &add]).status().unwrap().success());
    // From outside, what is tried does work: a try that fails whatever happens shows nothing.
    let works = "for (qw(PORT)) { socket(my $s, 2, 1, 0); print 'a' if connect($s, pack('S n a4 x8', 2, $ENV{PORT}, \"\\x7f\\0\\0\\1\")) }
        socket(my $u, 1, 1, 0); print 'b' if connect($u, pack('S', 1) . \"\\0$ENV{SOCKET}\"); print 'c' if kill 0, $ENV{HOST};
        print 'd' if open(my $f, '<', $ENV{MARK})";
    let output = Command::new("perl").args(["-e", works]).envs(&bench.outside).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "abcd");
    let _open = held_open(&bench);
    let sandbox = Sandbox::new(Mode::On, bwrap());
    for privileged in modes() {
        assert_eq!(open(&bench, &sandbox, privileged), Vec::<String>::new(), "privileged: {privileged}");
    }
    assert!(TRIES.len() >= 40);
}

#[test]
fn a_tool_has_the_work_folder_and_is_root_there() {
    let bench = Bench::new();
    let sandbox = Sandbox::new(Mode::On, bwrap());
    let script = "print \"$> $)\\n\"; open(my $f, '>', 'made') or die; my @s = stat 'made'; print \"$s[4] $s[5]\\n\"; \
                  open(my $i, '<', 'in/file') or die; print <$i>";
    for privileged in [false, true] {
        let (lines, result) = bench.run(&sandbox, &format!("work-{privileged}"), script, privileged);
        result.unwrap();
        assert_eq!(lines, ["0 0", "0 0", "content"], "privileged: {privileged}");
    }
    // With all powers inside it may give files away, as packages need.
    if rustix::process::geteuid().is_root() {
        let script = "open(my $f, '>', 'made'); print chown(42, 1000, 'made') ? 'yes' : $!, \"\\n\"; mkdir 'p'; \
                      print quiet(165, 'proc', 'p', 'proc', 0, 0) == 0 ? 'yes' : $!, \"\\n\"";
        let (lines, result) = bench.run(&sandbox, "powers", script, true);
        result.unwrap();
        assert_eq!(lines, ["yes", "yes"]);
        let (lines, _) = bench.run(&sandbox, "no-powers", script, false);
        assert_ne!(lines[0], "yes");
    }
}

#[test]
fn a_tool_that_stops_the_first_process_and_ends_has_ended() {
    let bench = Bench::new();
    let sandbox = Sandbox::new(Mode::On, bwrap());
    // ptrace(PTRACE_ATTACH, 1): whoever waits for the tool is stopped, and nobody lets it go on.
    let script = "quiet(101, 16, 1, 0, 0); print \"a\\n\"";
    for privileged in modes() {
        let (lines, result) = bench.run(&sandbox, &format!("attach-{privileged}"), script, privileged);
        result.unwrap();
        assert_eq!(lines, ["a"], "privileged: {privileged}");
    }
}

#[test]
fn nothing_of_a_tool_outlives_it() {
    let bench = Bench::new();
    let mark = |name: &str| bench.path(&format!("scratch/{name}/alive"));
    let daemon = "if (!fork) { syscall(112); if (!fork) { $SIG{HUP} = 'IGNORE'; while (1) { open(my $f, '>>', 'alive'); print $f 'x'; close $f; \
                  select(undef, undef, undef, 0.02) } } exit } select(undef, undef, undef, 0.1)";
    let sandbox = Sandbox::new(Mode::On, bwrap());
    for privileged in [false, true] {
        let name = format!("daemon-{privileged}");
        bench.run(&sandbox, &name, daemon, privileged).1.unwrap();
        let length = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        let before = length(&mark(&name));
        assert!(before > 0);
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(length(&mark(&name)), before, "privileged: {privileged}");
    }
    // Without a sandbox, what stays in its session goes too, and what does not holds up nothing.
    let off = Sandbox::new(Mode::Off, None);
    let (lines, result) =
        bench.run(&off, "off", "print \"a\\n\"; if (!fork) { sleep 600 } print \"b\\n\"", false);
    result.unwrap();
    assert_eq!(lines, ["a", "b"]);
}

#[test]
fn without_a_sandbox_a_tool_has_no_terminal_and_no_keys_of_the_session() {
    let bench = Bench::new();
    let add = format!("{PRELUDE}quiet(248, 'user', '{}', 'secret', 6, -3)", bench.outside["KEY"]);
    assert!(Command::new("perl").args(["-e", &add]).status().unwrap().success());
    let off = Sandbox::new(Mode::Off, None);
    let _open = held_open(&bench);
    let promised = [
        "the caller's terminal",
        "typing into what was handed over",
        "what the caller has open",
        "the caller's keys: session",
    ];
    for name in promised {
        let Try(_, script) = TRIES.iter().find(|found| found.0 == name).unwrap();
        let (lines, result) = bench.run(&off, &name.replace([' ', '\''], "-"), script, false);
        result.unwrap();
        assert_eq!(lines, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn processes_memory_and_files_have_limits() {
    let bench = Bench::new();
    let limits = Limits { processes: 40, memory: 256 << 20, file: 1 << 20, ..Limits::default() };
    let sandbox = || Sandbox::new(Mode::On, bwrap()).with_limits(limits);
    for privileged in [false, true] {
        let name = |kind: &str| format!("{kind}-{privileged}");
        let script = "my $n = 0; while (defined(my $p = fork)) { if (!$p) { sleep 600 } last if ++$n > 200 } print \"$n\\n\"";
        let (lines, _) = bench.run(&sandbox(), &name("processes"), script, privileged);
        let made: u32 = lines[0].parse().unwrap();
        // The kernel sets its root no such limit.
        assert!((1..=60).contains(&made) || is_root_outside(), "{made}");
        let script = "my $x = 'x' x (1 << 29); print length $x";
        let (lines, result) = bench.run(&sandbox(), &name("memory"), script, privileged);
        assert!(result.is_err() && !lines.contains(&(1u64 << 29).to_string()), "{lines:?}");
        let script = "open(my $f, '>', 'large'); for (1..64) { syswrite($f, 'x' x 65536) } print \"all\\n\"";
        let (lines, result) = bench.run(&sandbox(), &name("file"), script, privileged);
        assert!(!lines.contains(&"all".to_owned()), "{lines:?}");
        assert!(result.unwrap_err().to_string().contains("limits.file_mib"));
    }
}
