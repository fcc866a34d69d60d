//! The packets of DHCP for IPv4: RFC 2131, with options as RFC 2132 and 3396 have them.
//!
//! They come from anybody on the network, so reading one never fails otherwise than with nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What opens the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Bytes in front of the cookie; of the whole, at least: what is shorter, some relays and clients drop.
const HEAD: usize = 236;
const LEAST: usize = 300;

/// Where the names of the server and of the file are, and how long each is.
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Options without a length: nothing, and the last one. Fields that hold options as well. What kind of message it is.
const PAD: u8 = 0;
const END: u8 = 255;
const OVERLOAD: u8 = 52;
const KIND: u8 = 53;

/// What a packet is: the option 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who gives addresses, or says what to boot?
    Discover,
    /// This is what you could have.
    Offer,
    /// That is what I take; or, at the port of boot servers: what is it that I boot?
    Request,
    /// It is yours.
    Ack,
    /// Another one.
    Other(u8),
}

impl Kind {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            5 => Self::Ack,
            number => Self::Other(number),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Ack => 5,
            Self::Other(number) => number,
        }
    }
}

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Whether it is an answer.
    pub is_reply: bool,
    /// The number that ties an answer to its question.
    pub xid: [u8; 4],
    /// Seconds since the machine began, and flags: the highest bit asks for an answer to all.
    pub secs_and_flags: [u8; 4],
    /// The address that the machine has.
    pub ciaddr: Ipv4Addr,
    /// The address that it is given.
    pub yiaddr: Ipv4Addr,
    /// The server that it boots from.
    pub siaddr: Ipv4Addr,
    /// The relay that passed the question on.
    pub giaddr: Ipv4Addr,
    /// The machine's address of Ethernet.
    pub mac: [u8; 6],
    /// The name of the server.
    pub server_name: Vec<u8>,
    /// The file that it boots.
    pub file: Vec<u8>,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Packet {
    /// The question of a machine of Ethernet, or the answer to one, with nothing in it.
    pub fn new(kind: Kind, mac: [u8; 6]) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            is_reply: false,
            xid: [0; 4],
            secs_and_flags: [0; 4],
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            giaddr: none,
            mac,
            server_name: Vec::new(),
            file: Vec::new(),
            options: BTreeMap::from([(KIND, vec![kind.number()])]),
        }
    }

    /// Reads a packet; nothing where it is none, or of another network than Ethernet.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let options = rest.strip_prefix(&COOKIE)?;
        let address =
            |at: usize| head.get(at..at + 4)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
        let (is_reply, ethernet) = (head[0], &head[1..3]);
        if !matches!(is_reply, 1 | 2) || ethernet != [1, 6] {
            return None;
        }
        let mut found = BTreeMap::new();
        read_options(options, &mut found);
        let [mut server_name, mut file] = [&head[SERVER_NAME], &head[FILE]];
        // First the file's field, then the server's.
        match found.get(&OVERLOAD).and_then(|value: &Vec<u8>| value.first()) {
            Some(1) => read_options(std::mem::take(&mut file), &mut found),
            Some(2) => read_options(std::mem::take(&mut server_name), &mut found),
            Some(3) => {
                read_options(std::mem::take(&mut file), &mut found);
                read_options(std::mem::take(&mut server_name), &mut found);
            }
            _ => {}
        }
        Some(Self {
            is_reply: is_reply == 2,
            xid: *head.get(4..)?.first_chunk()?,
            secs_and_flags: *head.get(8..)?.first_chunk()?,
            ciaddr: address(12)?,
            yiaddr: address(16)?,
            siaddr: address(20)?,
            giaddr: address(24)?,
            mac: *head.get(28..)?.first_chunk()?,
            server_name: text(server_name),
            file: text(file),
            options: found,
        })
    }

    /// Writes it down. What is too long for its field is left out of it.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![if self.is_reply { 2 } else { 1 }, 1, 6, 0];
        bytes.extend(self.xid);
        bytes.extend(self.secs_and_flags);
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.mac);
        for (place, value) in [(SERVER_NAME, &self.server_name), (FILE, &self.file)] {
            bytes.resize(place.start, 0);
            // A zero ends it.
            if value.len() < place.len() {
                bytes.extend(value);
            }
            bytes.resize(place.end, 0);
        }
        bytes.extend(COOKIE);
        // Some look for the kind at the beginning.
        let (kind, others): (Vec<_>, Vec<_>) = self.options.iter().partition(|(number, _)| **number == KIND);
        for (number, value) in kind.into_iter().chain(others) {
            // What is longer than a length can say stands in parts.
            for part in value.chunks(255) {
                bytes.extend([*number, part.len() as u8]);
                bytes.extend(part);
            }
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(LEAST), PAD);
        bytes
    }

    /// Returns what it is, where it says.
    pub fn kind(&self) -> Option<Kind> {
        match self.option(KIND)? {
            [number] => Some(Kind::of(*number)),
            _ => None,
        }
    }

    /// Returns an option.
    pub fn option(&self, number: u8) -> Option<&[u8]> {
        self.options.get(&number).map(Vec::as_slice)
    }

    /// Returns an option that is an address.
    pub fn address(&self, number: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.option(number)?).ok().map(Ipv4Addr::from)
    }

    /// Sets an option.
    pub fn set(&mut self, number: u8, value: impl Into<Vec<u8>>) -> &mut Self {
        self.options.insert(number, value.into());
        self
    }
}

/// Reads options up to the last whole one; parts of one stand together.
fn read_options(mut bytes: &[u8], found: &mut BTreeMap<u8, Vec<u8>>) {
    while let [number, rest @ ..] = bytes {
        match (*number, rest) {
            (PAD, _) => bytes = rest,
            (END, _) => return,
            (number, [length, rest @ ..]) => {
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                found.entry(number).or_default().extend_from_slice(value);
                bytes = rest;
            }
            _ => return,
        }
    }
}

/// Returns a text up to its zero.
fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        let mut packet = Packet::new(Kind::Discover, [2, 0, 0, 0, 0, 1]);
        packet.xid = [1, 2, 3, 4];
        packet.giaddr = Ipv4Addr::new(10, 0, 0, 1);
        packet.file = b"a file".to_vec();
        packet.set(60, *b"PXEClient").set(43, vec![7; 600]);
        packet
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let bytes = packet().write();
        assert_eq!(Packet::read(&bytes), Some(packet()));
        assert_eq!(&bytes[HEAD..HEAD + 7], [99, 130, 83, 99, 53, 1, 1], "the kind is in front");
        assert_eq!(Packet::new(Kind::Ack, [0; 6]).write().len(), LEAST);
        let long = Packet { file: vec![b'x'; 128], ..packet() };
        assert_eq!(Packet::read(&long.write()).unwrap().file, b"", "none of it rather than a part");
    }

    #[test]
    fn fields_hold_options_where_the_packet_says_so() {
        let mut bytes = packet().write();
        bytes.truncate(HEAD + 4);
        bytes.extend([OVERLOAD, 1, 3, END]);
        bytes[FILE.start..FILE.start + 5].copy_from_slice(&[77, 2, b'i', b'P', END]);
        bytes[SERVER_NAME.start..SERVER_NAME.start + 5].copy_from_slice(&[77, 2, b'X', b'E', END]);
        let read = Packet::read(&bytes).unwrap();
        assert_eq!((read.option(77), read.file.as_slice()), (Some(&b"iPXE"[..]), &b""[..]));
    }

    #[test]
    fn what_is_no_packet_is_nothing() {
        let fine = packet().write();
        for (at, byte) in [(0, 3), (1, 6), (2, 17), (2, 255), (HEAD, 0)] {
            let mut bytes = fine.clone();
            bytes[at] = byte;
            assert_eq!(Packet::read(&bytes), None, "{at}: {byte}");
        }
        for length in 0..HEAD + 4 {
            assert_eq!(Packet::read(&fine[..length]), None, "{length}");
        }
        // Cut off in an option: those before it count.
        let cut = Packet::read(&fine[..HEAD + 9]).unwrap();
        assert_eq!((cut.kind(), cut.option(60)), (Some(Kind::Discover), None));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_are_none(
            options in proptest::collection::vec(proptest::num::u8::ANY, 0..80), at in 0usize..236, byte in proptest::num::u8::ANY,
        ) {
            let mut bytes = packet().write();
            bytes.truncate(HEAD + 4);
            bytes[at] = byte;
            bytes.extend(&options);
            if let Some(read) = Packet::read(&bytes) {
                let again = Packet::read(&read.write()).unwrap();
                assert_eq!(again.mac, read.mac);
            }
            let _ = Packet::read(&options);
        }
    }
}
