//! proxyDHCP: what a machine is to boot, beside a DHCP server that gives it an address and knows nothing of booting.
//!
//! The Preboot Execution Environment 2.1 (Intel, 1999), RFC 4578, and the UEFI specification's chapter on HTTP Boot say who asks what. A
//! machine is never given an address, and nothing is answered that does not ask to boot.

mod packet;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use tokio::net::UdpSocket;

pub use self::packet::{Kind, Packet};
use crate::datagram::receive;
use crate::room::Room;
use crate::site::{Set, Site};

/// The numbers of options: RFC 2132 and 4578, and for the class of a user RFC 3004.
const VENDOR: u8 = 43;
const WANTED_ADDRESS: u8 = 50;
pub(crate) const SERVER: u8 = 54;
pub(crate) const CLASS: u8 = 60;
pub(crate) const FILE: u8 = 67;
const USER_CLASS: u8 = 77;
pub(crate) const ARCHITECTURE: u8 = 93;
const MACHINE: u8 = 97;

/// iPXE's own options, and that among them which says that it speaks HTTP (its `features.h`).
const IPXE: u8 = 175;
const IPXE_HTTP: u8 = 0x13;

/// Tells PXE not to look for boot servers: `PXE_DISCOVERY_CONTROL` is 8.
const NO_DISCOVERY: [u8; 4] = [6, 1, 8, 255];

/// What firmware there is: the numbers of RFC 4578 and its registry, what it is called, and its loaders, the best one first. GRUB is not
/// among them: it looks for its menu where the DHCP server says (`next-server`), and never asks who told the machine to boot it.
const FIRMWARE: [(&[u16], &str, &[&str]); 10] = [
    (&[0], "x86 BIOS", &["undionly.kpxe", "ipxe.pxe", "pxelinux.0"]),
    (&[7, 9], "x86-64 UEFI", &["snponly.efi", "ipxe.efi"]),
    (&[16], "x86-64 UEFI HTTP", &["snponly.efi", "ipxe.efi"]),
    (&[6, 15], "x86 UEFI", &[]),
    (&[11], "arm64 UEFI", ARM64),
    (&[19], "arm64 UEFI HTTP", ARM64),
    (&[27], "riscv64 UEFI", RISCV64),
    (&[28], "riscv64 UEFI HTTP", RISCV64),
    (&[39], "loongarch64 UEFI", LOONG64),
    (&[40], "loongarch64 UEFI HTTP", LOONG64),
];

const ARM64: &[&str] = &["ipxe-arm64.efi"];
const RISCV64: &[&str] = &["ipxe-riscv64.efi"];
const LOONG64: &[&str] = &["ipxe-loong64.efi"];

/// Returns the firmware of a set's machines that it has no loader for, and what it might be given.
pub fn missing_loaders(set: &Set) -> Vec<(&'static str, &'static [&'static str])> {
    // By the name of the only loader there is; on PCs by what they are: for BIOS, iPXE is of 32 bits.
    let is_for_set = |loaders: &[&str]| {
        let of_pc = !loaders.iter().any(|name| name.starts_with("ipxe-"));
        let of_bios = loaders.contains(&"undionly.kpxe");
        let own = |arch: &String| match arch.as_str() {
            "i386" => of_bios,
            "x86_64" => of_pc && !of_bios,
            arch => loaders.contains(&format!("ipxe-{arch}.efi").as_str()),
        };
        if set.archs.is_empty() { of_pc } else { set.archs.iter().any(own) }
    };
    let known = FIRMWARE.iter().filter(|(_, _, loaders)| !loaders.is_empty() && is_for_set(loaders));
    let missing = known.filter(|(_, _, loaders)| loaders.iter().all(|loader| set.beside(loader).is_none()));
    missing.map(|(_, name, loaders)| (*name, *loaders)).collect()
}

/// The machine that does not exist: a program asks as it to hear who else answers. Its last bytes are those of the process, so that each
/// passes over its own questions alone; another one's is shown to nobody.
pub(crate) fn probe() -> [u8; 6] {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let [x, y, z] = PROBE;
    [x, y, z, a, b, c]
}

/// How the address of that machine begins, as one that nobody was given.
const PROBE: [u8; 3] = [0x02, b's', b'g'];

/// Where servers of this room are reached.
#[derive(Debug, Clone, Copy)]
pub struct BootServer {
    /// This machine, as the room sees it.
    pub server: Ipv4Addr,
    /// The port of HTTP.
    pub http: u16,
}

impl BootServer {
    fn url(self, path: &str) -> String {
        match self.http {
            80 => format!("http://{}/{path}", self.server),
            port => format!("http://{}:{port}/{path}", self.server),
        }
    }
}

/// Who asks, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Client {
    mac: String,
    /// What it calls itself: `PXEClient` or `HTTPClient`.
    is_http: bool,
    arch: u16,
    /// Whether it is iPXE, and whether that speaks HTTP.
    ipxe: Option<bool>,
}

/// What a machine is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The packet.
    pub packet: Packet,
    /// What it is to fetch.
    pub file: String,
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Who asked.
    pub mac: String,
    /// The firmware, or iPXE, for people.
    pub firmware: String,
    /// Whether it is iPXE.
    pub is_ipxe: bool,
    /// What it is given; nothing where no set has a loader for it.
    pub reply: Option<Reply>,
}

/// Returns an address of Ethernet as text.
fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Tells whether a list of options has one of this number: a number, a length, that many bytes, again and again.
fn has_option(mut list: &[u8], wanted: u8) -> bool {
    while let [number, rest @ ..] = list {
        match (number, rest) {
            (0, _) => list = rest,
            (255, _) => return false,
            (number, _) if *number == wanted => return true,
            (_, [length, rest @ ..]) => list = rest.get(usize::from(*length)..).unwrap_or_default(),
            _ => return false,
        }
    }
    false
}

impl Client {
    fn of(packet: &Packet) -> Option<Self> {
        let class = packet.option(CLASS)?;
        let is_http = class.starts_with(b"HTTPClient");
        if !is_http && !class.starts_with(b"PXEClient") {
            return None;
        }
        let arch = match packet.option(ARCHITECTURE).and_then(|arch| arch.first_chunk::<2>()) {
            Some(arch) => u16::from_be_bytes(*arch),
            // As the class says it: `PXEClient:Arch:00007:UNDI:003016`.
            None => {
                let text = std::str::from_utf8(class).ok()?;
                text.split(':').nth(2).and_then(|arch| arch.parse().ok()).unwrap_or(0)
            }
        };
        // With its length in front, as RFC 3004 has it, or without, as iPXE does.
        let is_ipxe = packet.option(USER_CLASS).is_some_and(|class| class == b"iPXE" || class == b"\x04iPXE");
        let ipxe = is_ipxe.then(|| has_option(packet.option(IPXE).unwrap_or_default(), IPXE_HTTP));
        Some(Self { mac: shown(packet.mac), is_http, arch, ipxe })
    }
}

/// Finds out what to answer. `before` is the loader that the machine fetched a moment ago, and comes back from as firmware: it is given the
/// next one. `is_boot_server` where it asked at the port of boot servers.
pub fn answer(
    packet: &Packet,
    place: BootServer,
    site: &Site,
    is_boot_server: bool,
    before: impl FnOnce(&str) -> Option<String>,
) -> Option<Outcome> {
    if packet.is_reply {
        return None;
    }
    let kind = match (packet.kind()?, is_boot_server) {
        (Kind::Discover, false) => Kind::Offer,
        (Kind::Request, true) => Kind::Ack,
        _ => return None,
    };
    let client = Client::of(packet)?;
    let firmware = FIRMWARE.iter().find(|(numbers, ..)| numbers.contains(&client.arch));
    let name =
        firmware.map_or_else(|| format!("architecture {}", client.arch), |(_, name, _)| (*name).to_owned());
    let file = match client.ipxe {
        Some(true) => Some(place.url("boot.ipxe")),
        _ => firmware.and_then(|(_, _, loaders)| loader(loaders, site, before(&client.mac))),
    };
    let file = match (file, client.is_http && client.ipxe.is_none()) {
        (Some(loader), true) => site.find_loader(&loader).map(|found| place.url(&found.path)),
        (file, _) => file,
    };
    let name = if client.ipxe.is_some() { format!("iPXE, {name}") } else { name };
    let reply = file.map(|file| Reply { packet: reply(packet, &client, kind, place, &file), file });
    Some(Outcome { mac: client.mac, firmware: name, is_ipxe: client.ipxe.is_some(), reply })
}

/// Returns the first of these loaders that there is; the next one, where the machine came back from one.
fn loader(loaders: &[&str], site: &Site, before: Option<String>) -> Option<String> {
    let there: Vec<&&str> = loaders.iter().filter(|name| site.find_loader(name).is_some()).collect();
    let is_before = |name: &str| {
        before.as_deref().is_some_and(|path| path == name || path.ends_with(&format!("/{name}")))
    };
    let next = there.iter().position(|name| is_before(name)).map_or(0, |place| place + 1);
    // Behind the last one comes the first again.
    there.get(next).or_else(|| there.first()).map(|name| (**name).to_owned())
}

fn reply(asked: &Packet, client: &Client, kind: Kind, place: BootServer, file: &str) -> Packet {
    let mut reply = Packet::new(kind, asked.mac);
    reply.is_reply = true;
    reply.xid = asked.xid;
    // The flags, and not the seconds.
    reply.secs_and_flags = [0, 0, asked.secs_and_flags[2], asked.secs_and_flags[3]];
    (reply.giaddr, reply.siaddr) = (asked.giaddr, place.server);
    reply.server_name = place.server.to_string().into_bytes();
    // What does not fit into the field stands in the option alone.
    reply.file = file.as_bytes().to_vec();
    let class: &[u8] = if client.is_http { b"HTTPClient" } else { b"PXEClient" };
    reply.set(SERVER, place.server.octets()).set(CLASS, class).set(FILE, file);
    if let Some(machine) = asked.option(MACHINE) {
        reply.set(MACHINE, machine);
    }
    // UEFI looks for the boot server at port 4011 by itself, and not where this is said.
    if client.ipxe.is_some() || client.arch == 0 {
        reply.set(VENDOR, NO_DISCOVERY);
    }
    reply
}

/// Answers at a port until the socket fails.
pub(crate) async fn serve(
    room: Arc<Room>,
    socket: UdpSocket,
    place: BootServer,
    is_boot_server: bool,
) -> std::io::Result<()> {
    let mut packet = vec![0; 4096];
    loop {
        let (length, client) = receive(&socket, &mut packet).await?;
        let Some(asked) = Packet::read(&packet[..length]).filter(|asked| asked.mac != probe()) else {
            continue;
        };
        notice(&room, &asked);
        let before = |mac: &str| room.machines().came_back(mac);
        let Some(outcome) = answer(&asked, place, &room.site(), is_boot_server, before) else { continue };
        // Another server's probe is no machine, answered or not.
        let is_machine = !asked.mac.starts_with(&PROBE);
        if let Some(why) = room.leaves_alone(&outcome.mac) {
            tracing::info!(mac = outcome.mac, why, "dhcp");
            if is_machine {
                room.machines().left_alone(&outcome.mac, &outcome.firmware, why);
            }
            continue;
        }
        let file = outcome.reply.as_ref().map(|reply| reply.file.as_str());
        tracing::info!(mac = outcome.mac, firmware = outcome.firmware, file, "dhcp");
        if is_machine {
            room.machines().asked(&outcome.mac, &outcome.firmware, outcome.is_ipxe, file);
        }
        let Some(reply) = outcome.reply else { continue };
        let to = destination(&asked, client, is_boot_server);
        // Nobody is waited for: who asks again is answered again.
        match socket.try_send_to(&reply.packet.write(), to) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tracing::debug!(%to, "dhcp: the answer is dropped");
            }
            Err(error) => room.say(&format!("the answer to {} cannot be sent: {error}", outcome.mac)),
        }
    }
}

/// Returns where an answer goes: through the relay that passed the question on, to who asked the boot server, or to all.
fn destination(asked: &Packet, client: SocketAddr, is_boot_server: bool) -> SocketAddr {
    if !asked.giaddr.is_unspecified() {
        return SocketAddrV4::new(asked.giaddr, 67).into();
    }
    if is_boot_server && !client.ip().is_unspecified() {
        return client;
    }
    SocketAddrV4::new(Ipv4Addr::BROADCAST, 68).into()
}

/// Remembers which address a machine asks its DHCP server for: that request goes to all.
fn notice(room: &Room, asked: &Packet) {
    if asked.is_reply || asked.kind() != Some(Kind::Request) {
        return;
    }
    if asked.address(SERVER).is_some() {
        room.takes_address();
    }
    let wanted = asked.address(WANTED_ADDRESS).unwrap_or(asked.ciaddr);
    if !wanted.is_unspecified() {
        room.machines().has_address(&shown(asked.mac), IpAddr::V4(wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::set;

    const PLACE: BootServer = BootServer { server: Ipv4Addr::new(10, 0, 0, 1), http: 8080 };

    /// What firmware sends to all when it looks for a server.
    fn question(class: &str, arch: u16, more: &[(u8, &[u8])]) -> Packet {
        let mut packet = Packet::new(Kind::Discover, [0x52, 0x54, 0, 0, 0, 1]);
        packet.xid = [0, 0, 0, 7];
        packet.set(CLASS, class).set(ARCHITECTURE, arch.to_be_bytes()).set(MACHINE, [0; 17]);
        for (number, value) in more {
            packet.set(*number, *value);
        }
        packet
    }

    fn ipxe(features: &[u8]) -> [(u8, &[u8]); 2] {
        [(USER_CLASS, b"iPXE"), (IPXE, features)]
    }

    fn asked(packet: &Packet, before: Option<&str>) -> Option<Outcome> {
        // As it comes over the wire.
        let packet = Packet::read(&packet.write()).unwrap();
        let site = Site::new(vec![set("a", "11")]);
        let is_boot_server = packet.kind() == Some(Kind::Request);
        answer(&packet, PLACE, &site, is_boot_server, |_| before.map(str::to_owned))
    }

    fn file(packet: &Packet) -> Option<String> {
        asked(packet, None)?.reply.map(|reply| reply.file)
    }

    #[test]
    fn each_firmware_is_told_what_it_can_run() {
        let http = [0xb1, 1, 0xeb, IPXE_HTTP, 1, 1];
        for (class, arch, more, expected) in [
            ("PXEClient:Arch:00000:UNDI:002001", 0, vec![], Some("undionly.kpxe")),
            ("PXEClient:Arch:00007:UNDI:003016", 7, vec![], Some("snponly.efi")),
            ("PXEClient", 9, vec![], Some("snponly.efi")),
            ("HTTPClient:Arch:00016", 16, vec![], Some("http://10.0.0.1:8080/a/netboot/snponly.efi")),
            ("PXEClient", 0, ipxe(&[IPXE_HTTP, 1, 1]).to_vec(), Some("http://10.0.0.1:8080/boot.ipxe")),
            ("PXEClient", 7, ipxe(&http[3..]).to_vec(), Some("http://10.0.0.1:8080/boot.ipxe")),
            ("PXEClient", 0, ipxe(&[0x15, 1, 1]).to_vec(), Some("undionly.kpxe")),
            ("PXEClient", 7, ipxe(&[]).to_vec(), Some("snponly.efi")),
            ("PXEClient", 11, vec![], None),
            ("PXEClient", 6, vec![], None),
            ("PXEClient", 4711, vec![], None),
        ] {
            assert_eq!(file(&question(class, arch, &more)).as_deref(), expected, "{class} {arch}");
        }
        assert_eq!(file(&question("MSFT 5.0", 0, &[])), None, "who does not ask to boot is left alone");
    }

    #[test]
    fn what_nobody_has_to_answer_is_not_answered() {
        let fine = question("PXEClient", 0, &[]);
        assert!(asked(&fine, None).is_some());
        let with = |number: u8, value: &[u8]| {
            let mut packet = fine.clone();
            packet.set(number, value);
            asked(&packet, None).is_some()
        };
        assert!(!with(53, &[8]), "it informs itself");
        assert!(!with(53, &[1, 1]) && !with(53, &[]));
        assert!(!with(CLASS, b"MSFT 5.0") && !with(CLASS, b""));
        let mut reply = fine.clone();
        reply.is_reply = true;
        assert_eq!(asked(&reply, None), None);
        let elsewhere = question("PXEClient", 11, &[]);
        let outcome = asked(&elsewhere, None).unwrap();
        assert_eq!((outcome.firmware.as_str(), outcome.reply), ("arm64 UEFI", None), "but people are told");
    }

    #[test]
    fn an_offer_has_what_firmware_looks_for() {
        let reply =
            asked(&question("PXEClient:Arch:00000:UNDI:002001", 0, &[]), None).unwrap().reply.unwrap();
        let packet = reply.packet;
        assert_eq!((packet.is_reply, packet.xid, packet.siaddr), (true, [0, 0, 0, 7], PLACE.server));
        assert_eq!(packet.yiaddr, Ipv4Addr::UNSPECIFIED, "it gives nobody an address");
        assert_eq!(packet.file, b"undionly.kpxe");
        assert_eq!((packet.kind(), packet.address(SERVER)), (Some(Kind::Offer), Some(PLACE.server)));
        assert_eq!(packet.option(CLASS), Some(&b"PXEClient"[..]));
        assert_eq!(packet.option(MACHINE), Some(&[0; 17][..]));
        assert_eq!(packet.option(VENDOR), Some(&NO_DISCOVERY[..]));
        let uefi = asked(&question("PXEClient", 7, &[]), None).unwrap().reply.unwrap().packet;
        assert_eq!(uefi.option(VENDOR), None);
        let mut request = question("PXEClient", 7, &[]);
        request.set(53, [3]);
        let ack = asked(&request, None).unwrap().reply.unwrap().packet;
        assert_eq!(ack.kind(), Some(Kind::Ack));
    }

    #[test]
    fn a_machine_that_comes_back_gets_the_next_loader() {
        let mut site = set("a", "11");
        let loader = std::sync::Arc::clone(&site.files["netboot/snponly.efi"]);
        site.files.insert("netboot/ipxe.efi".to_owned(), loader);
        let site = Site::new(vec![site]);
        let next = |before: Option<&str>| {
            let question = question("PXEClient", 7, &[]);
            let found = answer(&question, PLACE, &site, false, |_| before.map(str::to_owned));
            found.unwrap().reply.unwrap().file
        };
        assert_eq!(next(None), "snponly.efi");
        assert_eq!(next(Some("a/netboot/snponly.efi")), "ipxe.efi");
        assert_eq!(next(Some("a/netboot/ipxe.efi")), "snponly.efi", "behind the last one, the first again");
        assert_eq!(next(Some("a/netboot/undionly.kpxe")), "snponly.efi");
    }

    #[test]
    fn answers_go_where_they_are_heard() {
        let asked = question("PXEClient", 7, &[]);
        let client: SocketAddr = "10.0.0.9:4011".parse().unwrap();
        assert_eq!(
            destination(&asked, "0.0.0.0:68".parse().unwrap(), false).to_string(),
            "255.255.255.255:68"
        );
        assert_eq!(destination(&asked, client, true), client);
        let mut relayed = asked;
        relayed.giaddr = Ipv4Addr::new(10, 1, 0, 1);
        assert_eq!(destination(&relayed, client, false).to_string(), "10.1.0.1:67");
    }

    proptest::proptest! {
        #[test]
        fn lists_of_options_are_read_to_their_end(list in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = has_option(&list, IPXE_HTTP);
        }

        #[test]
        fn any_question_is_answered_or_passed_over(
            number in proptest::num::u8::ANY, value in proptest::collection::vec(proptest::num::u8::ANY, 0..30),
        ) {
            let more: [(u8, &[u8]); 3] = [(USER_CLASS, b"iPXE"), (IPXE, &[IPXE_HTTP, 1, 1]), (number, &value)];
            let _ = asked(&question("PXEClient", 7, &more), None);
        }
    }

    #[test]
    fn a_machine_that_takes_an_address_tells_that_somebody_gives_them() {
        let room = Room::new(Vec::new(), |_| ());
        let mut request = Packet::new(Kind::Request, [0x52, 0x54, 0, 0, 0, 1]);
        request.set(WANTED_ADDRESS, [10, 0, 0, 50]);
        notice(&room, &request);
        assert!(!room.has_addresses(), "it had that one once, and asks for it again");
        request.set(SERVER, [10, 0, 0, 1]);
        notice(&room, &request);
        assert!(room.has_addresses());
    }
}
