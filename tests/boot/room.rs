//! A room of machines that know nothing, with a DHCP server that knows nothing of booting, and `stagegraph serve --room`.
//!
//! The room is made of network namespaces: no packet leaves them. Guests have the firmware's own network stack, as a machine out of the
//! box has it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cache::testing::{Folder, Need, needs};

use crate::Published;
use crate::vm::{BOOTED, Firmware, LOADED, Vm};

/// How long servers may take to listen.
const UP: Duration = Duration::from_secs(30);

/// How long a server is away that is started again.
const AWAY: Duration = Duration::from_secs(8);

/// Where the server is in the room.
const SERVER: &str = "10.77.0.2";

/// A bridge with a router and a server at it, and a place for a machine.
struct Room {
    prefix: String,
    children: Vec<Child>,
    folder: Folder,
    log: PathBuf,
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("iproute2 is there");
    assert!(output.status.success(), "ip {args}: {output:?}");
}

impl Room {
    /// Serves a folder in a new room, whose router gives addresses.
    fn serving(folder: &Path, more: &[&str]) -> Self {
        Self::with_dhcp_on("router", folder, more)
    }

    /// Serves a folder in a new room; `dhcp` is the machine that gives addresses: the router, or the server itself.
    fn with_dhcp_on(dhcp: &str, folder: &Path, more: &[&str]) -> Self {
        let prefix = format!("sg{}", std::process::id());
        let [room, router, server] = ["room", "router", "server"].map(|name| format!("{prefix}-{name}"));
        let own = Folder::new();
        let log = own.join("serve.log");
        let mut made = Self { prefix, children: Vec::new(), log: log.clone(), folder: own };
        for name in [&room, &router, &server] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {room} link add br0 type bridge"));
        ip(&format!("-n {room} link set br0 up"));
        for (number, (name, port)) in [(&router, "to-router"), (&server, "to-server")].into_iter().enumerate()
        {
            ip(&format!("-n {room} link add {port} type veth peer name eth0 netns {name}"));
            ip(&format!("-n {room} link set {port} master br0 up"));
            ip(&format!("-n {name} addr add 10.77.0.{}/24 dev eth0", number + 1));
            ip(&format!("-n {name} link set eth0 up"));
        }
        // A socket each for two machines.
        for tap in ["tap0", "tap1"] {
            ip(&format!("-n {room} tuntap add {tap} mode tap"));
            ip(&format!("-n {room} link set {tap} master br0 up"));
        }
        made.start_dhcp(dhcp);
        // On the machine of the server it is known by its port.
        let until = Instant::now() + UP;
        let at = format!("{}-{dhcp}", made.prefix);
        let listens = || {
            let ss = ["netns", "exec", &at, "ss", "-Huln", "sport = :67"];
            !Command::new("ip").args(ss).output().unwrap().stdout.is_empty()
        };
        while dhcp == "server" && !listens() {
            assert!(Instant::now() < until, "dnsmasq does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        made.serve(folder, more);
        let until = Instant::now() + UP;
        while made.asked("/api/sets").is_none() {
            assert!(Instant::now() < until, "{}", made.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        made
    }

    /// Starts the server.
    fn serve(&mut self, folder: &Path, more: &[&str]) {
        let program = env!("CARGO_BIN_EXE_stagegraph");
        let serve = [program, "serve", folder.to_str().unwrap(), "--on", "eth0", "--room"];
        let (namespace, log) = (format!("{}-server", self.prefix), self.log.clone());
        self.start(&namespace, &[&serve[..], more].concat(), Some(&log));
    }

    /// Ends the program that was started as that one.
    fn kill(&mut self, number: usize) {
        let mut child = self.children.remove(number);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts what gives addresses, on one of the machines.
    fn start_dhcp(&mut self, machine: &str) {
        let leases = format!("--dhcp-leasefile={}", self.folder.join("leases").display());
        let dnsmasq = "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces --user=root \
                       --dhcp-range=10.77.0.50,10.77.0.99,1h";
        let namespace = format!("{}-{machine}", self.prefix);
        self.start(&namespace, &[&dnsmasq.split(' ').collect::<Vec<_>>()[..], &[&leases]].concat(), None);
    }

    /// Waits until the server has said something.
    fn says(&self, text: &str) {
        let until = Instant::now() + UP;
        while !self.log().contains(text) {
            assert!(Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn start(&mut self, namespace: &str, words: &[&str], log: Option<&Path>) {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL"])
            .args(words)
            .stdin(Stdio::null());
        if let Some(log) = log {
            let file = std::fs::File::create(log).unwrap();
            command.env("STAGEGRAPH_LOG", "serve=info").stdout(file.try_clone().unwrap()).stderr(file);
        }
        self.children.push(command.spawn().unwrap());
    }

    /// Reads something from the server, as a machine of the room.
    fn asked(&self, path: &str) -> Option<String> {
        let url = format!("http://{SERVER}{path}");
        let output = Command::new("ip")
            .args([
                "netns",
                "exec",
                &format!("{}-router", self.prefix),
                "curl",
                "-sf",
                "--max-time",
                "5",
                &url,
            ])
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Starts a machine whose only hope is its network.
    fn machine(&self, firmware: Firmware, memory: u64, more: &[&str]) -> Vm {
        self.machine_at(0, firmware, memory, more)
    }

    /// The same at one of the sockets; each has a MAC of its own.
    fn machine_at(&self, socket: usize, firmware: Firmware, memory: u64, more: &[&str]) -> Vm {
        let network = format!("tap,id=n0,ifname=tap{socket},script=no,downscript=no");
        // Without iPXE in it, OVMF's own PXE drives the card.
        let rom = if matches!(firmware, Firmware::Uefi | Firmware::Arm64) { ",romfile=" } else { "" };
        let card = format!("virtio-net-pci,netdev=n0,bootindex=0,mac=52:54:00:12:34:5{socket}{rom}");
        let devices = [&["-netdev", &network, "-device", &card][..], more].concat();
        Vm::start_in(&format!("{}-room", self.prefix), firmware, memory, &devices)
    }

    /// Returns the name of the one set that is served.
    fn set(&self) -> String {
        let sets: serde_json::Value = serde_json::from_str(&self.asked("/api/sets").unwrap()).unwrap();
        sets[0]["name"].as_str().unwrap().to_owned()
    }

    /// Returns what the server said and logged.
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Returns the one machine that the page shows.
    fn seen(&self) -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(&self.asked("/api/machines").unwrap()).unwrap();
        let machines = all.as_array().unwrap();
        let guests: Vec<_> =
            machines.iter().filter(|machine| machine["mac"] != serde_json::Value::Null).collect();
        assert_eq!(guests.len(), 1, "{all}");
        guests[0].clone()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in ["room", "router", "server"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{name}", self.prefix)]).status();
        }
    }
}

/// A set whose script says that it was reached.
fn marker() -> Folder {
    let folder = Folder::new();
    let set = folder.join("marker");
    std::fs::create_dir(&set).unwrap();
    let script = "#!ipxe\necho REACHED ${platform} with ${cmdline}\necho base ${base}\nsleep 600\n";
    std::fs::write(set.join("boot.ipxe"), script).unwrap();
    for loader in ["undionly.kpxe", "snponly.efi", "ipxe.efi"] {
        std::fs::copy(Path::new("/usr/lib/ipxe").join(loader), set.join(loader)).unwrap();
    }
    folder
}

#[test]
fn a_bios_machine_finds_its_script() {
    if !needs(Need::Root) {
        return;
    }
    let folder = marker();
    let room = Room::serving(&folder.join("marker"), &["--append", "quiet"]);
    let mut vm = room.machine(Firmware::Bios, 256, &[]);
    let text = vm.wait_for("REACHED pcbios", LOADED) + &vm.wait_for("with quiet", LOADED);
    assert!(text.contains("REACHED pcbios"), "{text}");
    vm.wait_for(&format!("base http://{SERVER}/marker/@"), LOADED);
    let machine = room.seen();
    assert_eq!((&machine["memory_mib"], &machine["platform"]), (&256.into(), &"pcbios".into()), "{machine}");
    assert!(machine["address"].as_str().unwrap().starts_with("10.77.0."), "{machine}");
    assert!(!room.log().contains("tftp"), "its own iPXE speaks HTTP: {}", room.log());
    assert!(!room.log().contains("no DHCP server"), "{}", room.log());
}

#[test]
fn a_dhcp_server_on_the_same_machine_shares_its_port() {
    if !needs(Need::Root) {
        return;
    }
    let folder = marker();
    let room = Room::with_dhcp_on("server", &folder.join("marker"), &[]);
    let mut vm = room.machine(Firmware::Bios, 256, &[]);
    vm.wait_for("REACHED pcbios", LOADED);
    assert!(!room.log().contains("no DHCP server"), "{}", room.log());
}

#[test]
fn that_nobody_gives_addresses_is_said() {
    if !needs(Need::Root) {
        return;
    }
    let folder = marker();
    let mut room = Room::serving(&folder.join("marker"), &[]);
    // The router ends, and the server is asked to look again.
    room.kill(0);
    room.kill(0);
    let check = ["serve", folder.join("marker").to_str().unwrap(), "--on", "eth0", "--room", "--check"]
        .map(str::to_owned);
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let server = format!("{}-server", room.prefix);
    let output = Command::new("ip").args(["netns", "exec", &server, program]).args(check).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("no DHCP server answers on eth0"), "{said}");
    room.serve(&folder.join("marker"), &[]);
    room.says("no DHCP server answers on eth0");
    room.start_dhcp("router");
    room.says("10.77.0.1 gives addresses on eth0 now");
}

#[test]
fn a_uefi_machine_is_given_a_loader_over_tftp() {
    if !needs(Need::Root) {
        return;
    }
    let folder = marker();
    let room = Room::serving(&folder.join("marker"), &[]);
    let mut vm =
        room.machine(Firmware::Uefi, 256, &["-fw_cfg", "name=opt/org.tianocore/IPv6Support,string=n"]);
    vm.wait_for("REACHED efi", LOADED);
    let machine = room.seen();
    assert_eq!(machine["steps"][0]["name"], "marker/snponly.efi", "{machine}");
    assert_eq!(machine["steps"][0]["done"], machine["steps"][0]["size"], "{machine}");
    assert_eq!(machine["steps"][0]["over"], "tftp", "{machine}");
}

#[test]
fn a_uefi_machine_boots_over_http_alone() {
    if !needs(Need::Root) {
        return;
    }
    let folder = marker();
    let room = Room::serving(&folder.join("marker"), &[]);
    let off = ["IPv4PXESupport", "IPv6PXESupport", "IPv6Support"]
        .map(|name| format!("name=opt/org.tianocore/{name},string=n"));
    let more: Vec<&str> = off.iter().flat_map(|option| ["-fw_cfg", option]).collect();
    let mut vm = room.machine(Firmware::Uefi, 256, &more);
    vm.wait_for("REACHED efi", LOADED);
    assert!(!room.log().contains("tftp"), "{}", room.log());
    assert!(room.log().contains("UEFI HTTP"), "{}", room.log());
}

#[test]
fn an_arm64_machine_in_a_room_of_pcs_is_led_to_what_runs_on_it() {
    let Some(arm64) = crate::of_spec(crate::ARM64).filter(|_| needs(Need::Root)) else { return };
    let Some(published) = Published::find() else { return };
    let room = Room::serving(&published.dir, &[arm64.dir.to_str().unwrap()]);
    let mut vm = room.machine(Firmware::Arm64, arm64.memory("netboot-uefi"), &[]);
    vm.wait_for("EFI stub: Booting Linux Kernel", BOOTED);
    let machine = room.seen();
    let steps = machine["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names[0], "arm64-minimal/netboot/ipxe-arm64.efi", "{machine}");
    assert!(names.iter().all(|name| !name.contains("amd64-minimal")), "{machine}");
    assert!(names.iter().any(|name| name.ends_with("/debian.combined")), "{machine}");
}

#[test]
fn two_machines_boot_at_once_and_one_that_is_not_named_does_not() {
    if !needs(Need::Root) {
        return;
    }
    let folder = marker();
    let more = ["--only", "52-54-00-12-34-50", "--only", "52:54:00:12:34:51"];
    let mut room = Room::serving(&folder.join("marker"), &more);
    let mut both = [0, 1].map(|socket| room.machine_at(socket, Firmware::Bios, 256, &[]));
    both.iter_mut().for_each(|vm| drop(vm.wait_for("REACHED pcbios", LOADED)));
    let all: serde_json::Value = serde_json::from_str(&room.asked("/api/machines").unwrap()).unwrap();
    let macs: Vec<&str> =
        all.as_array().unwrap().iter().filter_map(|machine| machine["mac"].as_str()).collect();
    assert_eq!(macs.len(), 2, "{all}");
    drop(both);
    room.kill(1);
    room.serve(&folder.join("marker"), &more[..2]);
    let _other = room.machine_at(1, Firmware::Bios, 256, &[]);
    room.says("--only names others");
}

#[test]
fn pxelinux_reads_its_menu_over_tftp() {
    let Some(published) = Published::find().filter(|_| needs(Need::Root)) else { return };
    // The published set, with a menu that says that it was reached. QEMU's own iPXE stands for the firmware, and starts it.
    let folder = Folder::new();
    let set = folder.join("menus");
    assert!(Command::new("cp").args(["-r", &published.netboot()]).arg(&set).status().unwrap().success());
    for (name, text) in [
        ("pxelinux.cfg/default", "SERIAL 0 115200\nSAY REACHED pxelinux\nPROMPT 1\nTIMEOUT 0\n".to_owned()),
        ("boot.ipxe", format!("#!ipxe\nset 210:string tftp://{SERVER}/\nchain tftp://{SERVER}/pxelinux.0\n")),
    ] {
        std::fs::remove_file(set.join(name)).unwrap();
        std::fs::write(set.join(name), text).unwrap();
    }
    let room = Room::serving(&set, &[]);
    let mut vm = room.machine(Firmware::Bios, 256, &[]);
    vm.wait_for("REACHED pxelinux", LOADED);
    let machine = room.seen();
    let is_menu =
        |step: &serde_json::Value| step["name"] == "menus/pxelinux.cfg/default" && step["over"] == "tftp";
    assert!(machine["steps"].as_array().unwrap().iter().any(is_menu), "{machine}");
}

#[test]
fn a_bios_machine_boots_the_whole_system_from_the_room() {
    let Some(published) = Published::find().filter(|_| needs(Need::Root)) else { return };
    let room = Room::serving(&published.dir, &["--append", "console=ttyS0,115200"]);
    let vm = room.machine(Firmware::Bios, published.memory("netboot-bios"), &[]);
    published.check(vm, "netboot-bios");
    let machine = room.seen();
    let roles: Vec<&str> =
        machine["steps"].as_array().unwrap().iter().map(|step| step["role"].as_str().unwrap()).collect();
    for role in ["script", "kernel", "initrd", "root"] {
        assert!(roles.contains(&role), "{machine}");
    }
    assert_eq!(machine["hint"], serde_json::Value::Null, "{machine}");
}

#[test]
fn a_machine_with_little_memory_fetches_its_root_by_itself() {
    let Some(published) = Published::find().filter(|_| needs(Need::Root)) else { return };
    let room = Room::serving(&published.dir, &["--append", "console=ttyS0,115200"]);
    let vm = room.machine(Firmware::Bios, published.memory("netboot-http"), &[]);
    published.check(vm, "netboot-http");
}

#[test]
fn a_machine_with_256_mib_leaves_its_root_on_the_server() {
    let Some(published) = Published::find().filter(|_| needs(Need::Root)) else { return };
    let needed = published.memory("netboot-nfs");
    assert!(needed <= 256, "{needed}");
    let more = ["--append", "console=ttyS0,115200"];
    let mut room = Room::serving(&published.dir, &more);
    let mut vm = room.machine(Firmware::Bios, needed, &[]);
    vm.wait_for("root@live:~# ", BOOTED);
    let machine = room.seen();
    let root = machine["steps"].as_array().unwrap().iter().find(|step| step["role"] == "root").unwrap();
    assert_eq!(
        (&root["over"], &root["name"]),
        (&"nfs".into(), &format!("{}/netboot/image.squashfs", room.set()).into())
    );
    let read = root["done"].as_u64().unwrap();
    assert!(read < root["size"].as_u64().unwrap() / 2, "it reads what it needs: {machine}");
    // The server goes while the system reads, is away for a while, and is there again.
    room.kill(1);
    vm.send("cat /usr/sbin/* | wc -c; echo GOES ON\\!\r");
    std::thread::sleep(AWAY);
    room.serve(&published.dir, &more);
    vm.wait_for("GOES ON!", BOOTED);
    vm.send("\r");
    published.check(vm, "netboot-nfs");
}

#[test]
fn a_machine_with_a_lean_initrd_fetches_its_root_by_itself() {
    let Some(published) = Published::find().filter(|_| needs(Need::Root)) else { return };
    let needed = published.memory("netboot-lean");
    assert!(needed <= 448, "{needed}");
    let room = Room::serving(&published.dir, &["--append", "console=ttyS0,115200"]);
    let vm = room.machine(Firmware::Bios, needed, &[]);
    published.check(vm, "netboot-lean");
}
