//! Looks who else answers in the room, before machines do: a DHCP server has to, and another proxyDHCP must not.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::dhcp::{ARCHITECTURE, BootServer, CLASS, FILE, Kind, Packet, SERVER, probe};
use crate::room::Room;

/// How long answers to a question are waited for. Some servers look first whether somebody has the address that they are to give.
const PATIENCE: Duration = Duration::from_secs(4);

/// Questions without an answer before it is said that nobody answers: a packet may be lost, and a server may start when this does.
const QUESTIONS: u32 = 3;

/// How long after it was said the next question is asked: a switch may let nothing through for half a minute after it was plugged in.
const LATER: Duration = Duration::from_secs(10);

/// The option with the numbers of those that are wanted.
const WANTED: u8 = 55;

/// Who answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// Servers that offer addresses.
    servers: BTreeSet<Ipv4Addr>,
    /// Servers that say what to boot, and are not this one.
    others: BTreeSet<Ipv4Addr>,
}

/// The question of a machine that does not exist; nothing is taken of what is offered.
fn question() -> Packet {
    let mut packet = Packet::new(Kind::Discover, probe());
    // One number a process: answers to another one's question are not taken for answers to this.
    packet.xid = std::process::id().to_be_bytes();
    // It has no address yet: an answer to all.
    packet.secs_and_flags = [0, 0, 0x80, 0];
    packet.set(CLASS, *b"PXEClient:Arch:00000:UNDI:002001").set(ARCHITECTURE, [0, 0]);
    // The mask, the router, and what is said of booting.
    packet.set(WANTED, [1, 3, CLASS, FILE]);
    packet
}

impl Heard {
    fn take(&mut self, answer: &Packet, own: Ipv4Addr) {
        let server = answer.address(SERVER).unwrap_or(answer.siaddr);
        if answer.kind() != Some(Kind::Offer) || server == own {
            return;
        }
        if !answer.yiaddr.is_unspecified() {
            self.servers.insert(server);
        }
        let names_a_file = !answer.file.is_empty() || answer.option(FILE).is_some();
        if names_a_file || answer.yiaddr.is_unspecified() {
            self.others.insert(server);
        }
    }

    /// Says who else tells machines what to boot.
    fn others(&self, interface: &str) -> Vec<String> {
        let text = |other| {
            format!(
                "{other} tells machines on {interface} what to boot as well: whoever answers first wins; switch it off there"
            )
        };
        self.others.iter().map(text).collect()
    }

    /// Says that there is no DHCP server, or, if that was said, that there is one now.
    fn servers(&self, interface: &str, unanswered: u32) -> Option<String> {
        match (self.servers.first(), unanswered) {
            (None, QUESTIONS) => Some(format!(
                "no DHCP server answers on {interface}: machines there get no address, and cannot boot; is the cable in, and does \
                 a router or another server give addresses?"
            )),
            (Some(server), QUESTIONS..) => {
                Some(format!("{server} gives addresses on {interface} now: machines there can boot"))
            }
            _ => None,
        }
    }

    /// Says all that is in the way. Of a server with which the port `is_shared` nothing is heard, and so nothing is said.
    fn says(&self, interface: &str, unanswered: u32, is_shared: bool) -> Vec<String> {
        let servers = self.servers(interface, unanswered).filter(|_| !is_shared);
        self.others(interface).into_iter().chain(servers).collect()
    }
}

/// Asks once, and waits for the answers.
async fn ask(socket: &UdpSocket, own: Ipv4Addr) -> std::io::Result<Heard> {
    let question = question();
    socket.send_to(&question.write(), SocketAddrV4::new(Ipv4Addr::BROADCAST, 67)).await?;
    let mut heard = Heard::default();
    let until = Instant::now() + PATIENCE;
    let mut packet = vec![0; 4096];
    while let Ok(received) = tokio::time::timeout_at(until, socket.recv_from(&mut packet)).await {
        let Some(answer) = Packet::read(&packet[..received?.0]) else { continue };
        if answer.is_reply && answer.xid == question.xid && answer.mac == probe() {
            heard.take(&answer, own);
        }
    }
    Ok(heard)
}

/// Asks as often as it takes to be sure, and returns what is in the way.
pub(crate) async fn look_once(
    socket: &UdpSocket,
    place: BootServer,
    (interface, is_shared): (String, bool),
) -> std::io::Result<Vec<String>> {
    let mut heard = Heard::default();
    for _ in 0..QUESTIONS {
        heard = ask(socket, place.server).await?;
        if !heard.servers.is_empty() {
            break;
        }
    }
    let unanswered = if heard.servers.is_empty() { QUESTIONS } else { 0 };
    Ok(heard.says(&interface, unanswered, is_shared))
}

/// Asks until a DHCP server answers, and says what is in the way. A server of this machine, with which the port `is_shared`, is not heard:
/// one question is asked then, as another proxyDHCP may be.
pub(crate) async fn look(
    room: Arc<Room>,
    socket: UdpSocket,
    place: BootServer,
    (interface, is_shared): (String, bool),
) {
    let mut unanswered = 0;
    let mut said = BTreeSet::new();
    loop {
        // That nothing can be sent, as where the cable is out, is no answer either.
        let heard = ask(&socket, place.server).await;
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => {
                tracing::debug!(%error, "lookout");
                tokio::time::sleep(PATIENCE).await;
                Heard::default()
            }
        };
        // A server that started later on this machine is not heard; machines that take its addresses are.
        let is_shared = is_shared || room.has_addresses();
        let is_answered = !heard.servers.is_empty();
        unanswered += u32::from(!is_answered);
        for text in heard.says(&interface, unanswered, is_shared) {
            if said.insert(text.clone()) {
                room.say(&text);
            }
        }
        if is_answered || is_shared {
            return;
        }
        if unanswered >= QUESTIONS {
            tokio::time::sleep(LATER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn answer(server: [u8; 4], address: [u8; 4], file: Option<&str>) -> Packet {
        let mut packet = Packet::new(Kind::Offer, probe());
        packet.yiaddr = address.into();
        packet.set(SERVER, server);
        packet.file = file.unwrap_or_default().into();
        packet
    }

    fn said(answers: &[Packet]) -> String {
        let mut heard = Heard::default();
        answers.iter().for_each(|answer| heard.take(answer, OWN));
        let unanswered = if heard.servers.is_empty() { QUESTIONS } else { 0 };
        heard.says("eth0", unanswered, false).join("\n")
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let router = answer([10, 0, 0, 1], [10, 0, 0, 50], None);
        let ours = answer([10, 0, 0, 2], [0, 0, 0, 0], Some("undionly.kpxe"));
        assert_eq!(said(&[router.clone(), ours.clone()]), "");
        assert!(said(&[ours]).contains("no DHCP server answers on eth0"));
        let proxy = answer([10, 0, 0, 9], [0, 0, 0, 0], Some("pxelinux.0"));
        let text = said(&[router, proxy]);
        assert!(text.contains("10.0.0.9 tells machines") && !text.contains("no DHCP server"), "{text}");
        let both = answer([10, 0, 0, 1], [10, 0, 0, 50], Some("pxelinux.0"));
        assert!(said(&[both]).contains("10.0.0.1 tells machines"));
    }

    #[test]
    fn one_question_without_an_answer_says_nothing() {
        let none = Heard::default();
        assert_eq!([1, 2, 4].map(|unanswered| none.servers("eth0", unanswered)), [const { None }; 3]);
        assert!(none.servers("eth0", QUESTIONS).is_some());
        let mut heard = Heard::default();
        heard.take(&answer([10, 0, 0, 1], [10, 0, 0, 50], None), OWN);
        assert_eq!(heard.servers("eth0", QUESTIONS - 1), None, "nobody was told that it was missing");
        assert!(
            heard
                .servers("eth0", QUESTIONS + 3)
                .is_some_and(|text| text.starts_with("10.0.0.1 gives addresses"))
        );
    }
}
