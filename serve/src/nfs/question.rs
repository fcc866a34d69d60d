//! What a client asks: calls of Sun RPC (RFC 5531), written in XDR (RFC 4506).
//!
//! Nothing is set aside for what a client says that it sends: all that is read here is a part of bytes that are there.

/// The only version of the protocol.
const VERSION: u32 = 2;

/// The first number of a call.
const CALL: u32 = 0;

/// Bytes of what a client says of itself, at most.
const CREDENTIAL: usize = 400;

/// Ways in which a client says who it is: 0 for not at all, 1 for numbers of users and groups.
const KNOWN: u32 = 1;

/// Reads words of a call, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads a number.
    pub(super) fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Reads a number of 64 bits.
    pub(super) fn long(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// Reads bytes that say how many they are, at most `most`.
    pub(super) fn bytes(&mut self, most: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= most)?;
        let taken = self.take(length)?;
        // Filled up to a multiple of four.
        self.take(length.next_multiple_of(4) - length)?;
        Some(taken)
    }
}

/// A call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Tells answers apart.
    pub(super) xid: u32,
    /// Whether it is of the version of the protocol that there is.
    pub(super) is_known: bool,
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    /// Whether the client says who it is in a way that is known here.
    pub(super) is_credible: bool,
    pub(super) arguments: Words<'a>,
}

impl<'a> Call<'a> {
    /// Reads a call; `None` where it is none, which nobody can answer.
    pub(super) fn read(record: &'a [u8]) -> Option<Self> {
        let mut words = Words::of(record);
        let xid = words.number()?;
        words.number().filter(|kind| *kind == CALL)?;
        let is_known = words.number()? == VERSION;
        let [program, version, procedure] = [words.number()?, words.number()?, words.number()?];
        let flavor = words.number()?;
        let credential = words.bytes(usize::MAX)?;
        words.number()?;
        let verifier = words.bytes(usize::MAX)?;
        let is_credible = flavor <= KNOWN && credential.len() <= CREDENTIAL && verifier.len() <= CREDENTIAL;
        Some(Self { xid, is_known, program, version, procedure, is_credible, arguments: words })
    }
}
