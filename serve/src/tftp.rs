//! Files over TFTP: read requests alone, in octets (RFC 1350), with the options of RFC 2347, 2348, 2349 and 7440.
//!
//! Each transfer has a socket of its own, which hears its client alone. A client that asks again from the same port is answered anew:
//! firmware asks once for the size, gives up, and asks again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::datagram::receive;
use crate::room::Room;
use crate::site::{Entry, Found};

/// The codes of packets.
const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Bytes of a block where nothing is said, and at most: with its headers it fits into a frame.
const BLOCK: usize = 512;
const LARGEST: usize = 1468;

/// Blocks that are sent without an answer, at most.
const WINDOW: u16 = 64;

/// How long an answer is waited for where nothing is said, and how often it is sent again: nobody is flooded who did not ask.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u32 = 2;

/// How long a transfer may take to get on by a window.
const STALLED: Duration = Duration::from_secs(60);

/// Seconds that a client may have an answer waited for: who wants more gets the usual.
const LONGEST: u64 = 10;

/// As [`TRIES`], for a client that has answered before.
const TRIES_AGAIN: u32 = 8;

/// Transfers at once: in all, and to one client.
const TRANSFERS: usize = 64;
const TRANSFERS_EACH: usize = 8;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name of the file.
    pub file: String,
    block: usize,
    patience: Duration,
    window: u16,
    /// The options that are granted, in the order in which they were asked for; the size is not known yet.
    options: Vec<(&'static str, Option<u64>)>,
}

/// Why a packet is answered with an error: its code, and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(u16, &'static str);

/// Reads a request.
///
/// # Errors
/// What it is answered with; nothing where it is no request at all.
pub fn parse(packet: &[u8]) -> Result<Request, Option<Refusal>> {
    let (code, rest) = packet.split_first_chunk::<2>().ok_or(None)?;
    match u16::from_be_bytes(*code) {
        RRQ => {}
        WRQ => return Err(Some(Refusal(4, "nothing can be written here"))),
        DATA | ACK | ERROR | OACK => return Err(None),
        _ => return Err(Some(Refusal(4, "no such operation"))),
    }
    let broken = Some(Refusal(4, "the request cannot be read"));
    // Each word ends in a zero.
    let words: Vec<&str> = match rest.strip_suffix(b"\0") {
        Some(rest) => rest
            .split(|byte| *byte == 0)
            .map(std::str::from_utf8)
            .collect::<Result<_, _>>()
            .map_err(|_| broken)?,
        None => return Err(broken),
    };
    let [file, mode, options @ ..] = &words[..] else { return Err(broken) };
    // A text that is sent in octets is read as it is.
    if !mode.eq_ignore_ascii_case("octet") && !mode.eq_ignore_ascii_case("netascii") {
        return Err(Some(Refusal(4, "no such mode")));
    }
    let mut request = Request {
        file: (*file).to_owned(),
        block: BLOCK,
        patience: PATIENCE,
        window: 1,
        options: Vec::new(),
    };
    for pair in options.chunks_exact(2) {
        let Ok(value) = pair[1].parse::<u64>() else { continue };
        match pair[0].to_ascii_lowercase().as_str() {
            "blksize" if value >= 8 => {
                request.block = usize::try_from(value).unwrap_or(LARGEST).min(LARGEST);
                request.grant("blksize", Some(request.block as u64));
            }
            "timeout" if (1..=LONGEST).contains(&value) => {
                request.patience = Duration::from_secs(value);
                request.grant("timeout", Some(value));
            }
            "windowsize" if value >= 1 => {
                request.window = u16::try_from(value).unwrap_or(WINDOW).min(WINDOW);
                request.grant("windowsize", Some(u64::from(request.window)));
            }
            "tsize" => request.grant("tsize", None),
            _ => {}
        }
    }
    Ok(request)
}

impl Request {
    /// Grants an option; of one that is asked for twice, what was said last.
    fn grant(&mut self, name: &'static str, value: Option<u64>) {
        match self.options.iter_mut().find(|(known, _)| *known == name) {
            Some(option) => option.1 = value,
            None => self.options.push((name, value)),
        }
    }

    /// Returns the packet that says what is granted, for a file of that size; none where nothing was asked for.
    fn granted(&self, size: u64) -> Option<Vec<u8>> {
        if self.options.is_empty() {
            return None;
        }
        let mut packet = OACK.to_be_bytes().to_vec();
        for (name, value) in &self.options {
            packet.extend(format!("{name}\0{}\0", value.unwrap_or(size)).as_bytes());
        }
        Some(packet)
    }
}

fn error(Refusal(code, words): Refusal) -> Vec<u8> {
    [&ERROR.to_be_bytes()[..], &code.to_be_bytes(), words.as_bytes(), b"\0"].concat()
}

/// What a client says to a transfer.
enum Said {
    /// It has all blocks up to the one of this number.
    Has(u16),
    /// It wants no more.
    Enough,
    /// Something that means nothing here.
    Nothing,
}

fn said(packet: &[u8]) -> Said {
    match packet.split_first_chunk::<2>().map(|(code, rest)| (u16::from_be_bytes(*code), rest)) {
        Some((ACK, rest)) => {
            rest.first_chunk().map_or(Said::Nothing, |number| Said::Has(u16::from_be_bytes(*number)))
        }
        Some((ERROR, _)) => Said::Enough,
        _ => Said::Nothing,
    }
}

/// Answers requests until the socket fails.
pub(crate) async fn serve(room: Arc<Room>, socket: UdpSocket, local: IpAddr) -> std::io::Result<()> {
    let mut transfers: HashMap<SocketAddr, Transfer> = HashMap::new();
    let mut packet = vec![0; 2048];
    loop {
        let (length, client) = receive(&socket, &mut packet).await?;
        transfers.retain(|_, transfer| !transfer.task.is_finished());
        let request = match parse(&packet[..length]) {
            Ok(request) => request,
            Err(refusal) => {
                if let Some(refusal) = refusal {
                    let _ = socket.send_to(&error(refusal), client).await;
                }
                continue;
            }
        };
        if let Some(before) = transfers.remove(&client) {
            before.task.abort();
        }
        if transfers.len() >= TRANSFERS {
            make_room(&mut transfers);
        }
        let to_client = transfers.keys().filter(|known| known.ip() == client.ip()).count();
        let found = room.site().find_loader(&request.file);
        tracing::info!(%client, file = request.file, found = found.is_some(), "tftp");
        let refusal = match &found {
            _ if transfers.len() >= TRANSFERS || to_client >= TRANSFERS_EACH => {
                Refusal(0, "too many transfers at once")
            }
            None => Refusal(1, "there is no such file"),
            Some(found) => {
                let has_answered = Arc::new(AtomicBool::new(false));
                let heard = Arc::clone(&has_answered);
                let task = transfer(Arc::clone(&room), local, client, request, found.clone(), heard);
                let task = tokio::spawn(task).abort_handle();
                transfers.insert(client, Transfer { task, began: Instant::now(), has_answered });
                continue;
            }
        };
        if found.is_none() {
            room.machines().missed(client.ip(), &request.file);
        }
        let _ = socket.send_to(&error(refusal), client).await;
    }
}

/// A transfer that is under way.
struct Transfer {
    task: AbortHandle,
    began: Instant,
    /// Whether its client has said anything: one that has not may be no client at all.
    has_answered: Arc<AtomicBool>,
}

/// Ends the oldest transfer whose client never said anything, if there is one.
fn make_room(transfers: &mut HashMap<SocketAddr, Transfer>) {
    let silent = transfers.iter().filter(|(_, transfer)| !transfer.has_answered.load(Ordering::Relaxed));
    let oldest = silent.min_by_key(|(_, transfer)| transfer.began).map(|(client, _)| *client);
    if let Some(transfer) = oldest.and_then(|client| transfers.remove(&client)) {
        transfer.task.abort();
    }
}

/// Sends a file.
async fn transfer(
    room: Arc<Room>,
    local: IpAddr,
    client: SocketAddr,
    request: Request,
    found: Found,
    has_answered: Arc<AtomicBool>,
) {
    let sent = async {
        let socket = UdpSocket::bind((local, 0)).await?;
        socket.connect(client).await?;
        send(&room, &socket, client.ip(), &request, &found, &has_answered).await
    };
    match sent.await {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            tracing::debug!(%client, file = found.path, "tftp: no answer");
        }
        Err(error) => room.say(&format!("{} cannot be sent to {}: {error}", found.path, client.ip())),
    }
}

/// A window of blocks that was sent.
struct Window {
    /// The number of blocks that the client has.
    has: u64,
    /// The number of the last block of the file, from 1 on.
    last: u64,
}

impl Window {
    /// Takes in that the client has all blocks up to `number`, as it is written in packets; tells whether that is new. `sent` is the last
    /// that was sent.
    fn take(&mut self, number: u16, sent: u64) -> bool {
        // Of numbers that are equal in a packet, the one that was sent last.
        let back = u64::from((sent as u16).wrapping_sub(number));
        match sent.checked_sub(back) {
            Some(has) if has > self.has => {
                self.has = has;
                true
            }
            _ => false,
        }
    }
}

async fn send(
    room: &Room,
    socket: &UdpSocket,
    client: IpAddr,
    request: &Request,
    found: &Found,
    has_answered: &AtomicBool,
) -> std::io::Result<()> {
    let entry = &found.entry;
    let is_question = |packet: &[u8]| matches!(said(packet), Said::Has(0));
    if let Some(granted) = request.granted(entry.size) {
        let mut tries = 0;
        loop {
            socket.send(&granted).await?;
            match answer(socket, Instant::now() + request.patience).await? {
                Some(packet) if is_question(&packet) => {
                    has_answered.store(true, Ordering::Relaxed);
                    break;
                }
                Some(packet) if matches!(said(&packet), Said::Enough) => return Ok(()),
                _ => tries += 1,
            }
            if tries >= TRIES {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
        }
    }
    room.machines().began_tftp(client, entry.role, &found.path, entry.size);
    let block = request.block as u64;
    // The last block is shorter than the others: without bytes, if need be.
    let mut window = Window { has: 0, last: entry.size / block + 1 };
    let mut tries = 0;
    let mut moved = Instant::now();
    while window.has < window.last {
        // To who has said nothing yet, no more than one block goes.
        let ahead = if has_answered.load(Ordering::Relaxed) { request.window } else { 1 };
        let end = window.last.min(window.has + u64::from(ahead));
        for packet in packets(entry, block, window.has, end).await? {
            socket.send(&packet).await?;
        }
        let before = window.has;
        let until = Instant::now() + request.patience;
        while window.has == before {
            match answer(socket, until).await? {
                None => break,
                Some(packet) => match said(&packet) {
                    Said::Enough => return Ok(()),
                    Said::Has(number) => drop(window.take(number, end)),
                    Said::Nothing => {}
                },
            }
        }
        if window.has > before {
            (tries, moved) = (0, Instant::now());
            has_answered.store(true, Ordering::Relaxed);
            room.machines().moved(client, &found.path, entry.size.min(window.has * block));
            continue;
        }
        tries += 1;
        if tries >= if window.has == 0 { TRIES } else { TRIES_AGAIN } || moved.elapsed() > STALLED {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Waits for a packet until then.
async fn answer(socket: &UdpSocket, until: Instant) -> std::io::Result<Option<Vec<u8>>> {
    let mut packet = vec![0; 1024];
    match tokio::time::timeout_at(until, socket.recv(&mut packet)).await {
        Err(_) => Ok(None),
        Ok(received) => {
            packet.truncate(received?);
            Ok(Some(packet))
        }
    }
}

/// Reads blocks behind the first `has`, up to that of the number `end`.
async fn packets(entry: &Arc<Entry>, block: u64, has: u64, end: u64) -> std::io::Result<Vec<Vec<u8>>> {
    let start = has * block;
    let length = usize::try_from(entry.size.min(end * block) - start).unwrap_or(0);
    let entry = Arc::clone(entry);
    let read = tokio::task::spawn_blocking(move || entry.read(start, length)).await;
    let bytes = read.map_err(std::io::Error::other)??;
    let packet = |number: u64| {
        let at = usize::try_from((number - has - 1) * block).unwrap_or(usize::MAX).min(bytes.len());
        let end = bytes.len().min(at + usize::try_from(block).unwrap_or(usize::MAX));
        [&DATA.to_be_bytes()[..], &(number as u16).to_be_bytes(), &bytes[at..end]].concat()
    };
    Ok((has + 1..=end).map(packet).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a request of these words, each of which ends in a zero.
    fn request(words: &str) -> Result<Request, Option<Refusal>> {
        let words = words.split(' ').map(|word| format!("{word}\0")).collect::<String>();
        parse(&[&RRQ.to_be_bytes()[..], words.as_bytes()].concat())
    }

    #[test]
    fn a_request_is_granted_what_can_be_granted() {
        let plain = request("file octet").unwrap();
        assert_eq!((plain.file.as_str(), plain.block, plain.granted(5)), ("file", 512, None));
        let with = request("a OCTET tsize 0 BLKSIZE 65464 windowsize 900 timeout 3 utimeout 5").unwrap();
        assert_eq!(
            with.granted(5).unwrap(),
            "\0\x06tsize|5|blksize|1468|windowsize|64|timeout|3|".replace('|', "\0").as_bytes(),
            "in the order in which they were asked for"
        );
        assert_eq!((with.block, with.window, with.patience), (1468, 64, Duration::from_secs(3)));
        let odd = request("a octet blksize 7 windowsize 0 timeout 900 tsize x blksize").unwrap();
        assert_eq!(odd.granted(5), None, "what cannot be granted is passed over");
    }

    #[test]
    fn what_is_no_request_is_refused_or_passed_over() {
        for (packet, code) in [
            (&b"\0\x02a\0octet\0"[..], Some(4)),
            (b"\0\x01a\0octet", Some(4)),
            (b"\0\x01a\0", Some(4)),
            (b"\0\x01a\0mail\0", Some(4)),
            (b"\0\x01\xff\xfe\0octet\0", Some(4)),
            (b"\0\x09", Some(4)),
            (b"\0\x05\0\0no\0", None),
            (b"\0\x03\0\x01data", None),
            (b"\0\x04\0\x01", None),
            (b"\0", None),
            (b"", None),
        ] {
            let refused = parse(packet).unwrap_err().map(|Refusal(code, _)| code);
            assert_eq!(refused, code, "{packet:?}");
        }
    }

    #[test]
    fn numbers_that_begin_again_are_told_apart() {
        let mut window = Window { has: 65_530, last: 200_000 };
        assert!(window.take(65_535, 65_540));
        assert_eq!(window.has, 65_535);
        assert!(!window.take(65_534, 65_540), "older ones say nothing new");
        assert!(window.take(4, 65_540));
        assert_eq!(window.has, 65_540);
        assert!(!window.take(4, 65_541) && !window.take(9, 65_541), "nor do those that were not sent");
        let mut first = Window { has: 0, last: 3 };
        assert!(!first.take(65_535, 2) && !first.take(0, 2) && first.take(2, 2));
    }

    proptest::proptest! {
        #[test]
        fn any_packet_is_read_or_refused(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = parse(&packet);
            let _ = parse(&[&[0, 1], &packet[..]].concat());
        }
    }
}
