//! OpenPGP signatures (RFC 9580): detached ones, and those of clear-signed texts.
//!
//! The judgement is that of sequoia's standard policy: no SHA-1, no weak keys, nothing expired or revoked. A key that expired, or
//! was retired, after it had signed is good, and what became of it is said.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use sequoia::KeyHandle;
use sequoia::cert::Cert;
use sequoia::cert::amalgamation::ValidAmalgamation;
use sequoia::cert::prelude::CertParser;
use sequoia::packet::{Packet, Signature};
use sequoia::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError,
    VerificationHelper, VerifierBuilder,
};
use sequoia::parse::{PacketParser, PacketParserResult, Parse};
use sequoia::policy::StandardPolicy;
use sequoia::types::RevocationStatus;
use sequoia_openpgp as sequoia;

/// A longer file is no signature.
pub const MAX_SIGNATURE: u64 = 1 << 20;

/// Signatures on one file that are looked at.
const MAX_SIGNATURES: usize = 64;

/// Keys of a keyring, and bytes of its file.
const MAX_KEYS: usize = 100_000;
const MAX_KEYRING: u64 = 256 << 20;

/// How a clear-signed text begins, and the signature behind it.
const CLEAR: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const ARMORED: &str = "-----BEGIN PGP SIGNATURE-----";

/// Why a keyring is none.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It could not be read.
    #[error("read the keyring {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no keys that can be used.
    #[error("{path} is no keyring: {why}")]
    Bad {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Public keys that are trusted to sign.
#[derive(Clone)]
pub struct Keyring {
    certs: Vec<Cert>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.certs.iter().map(Cert::fingerprint)).finish()
    }
}

impl Keyring {
    /// Reads files of public keys, armored or binary, with one or many keys each.
    ///
    /// # Errors
    /// [`KeyringError`]: one cannot be read, has no key, or has something else.
    pub fn read(paths: &[PathBuf]) -> Result<Self, KeyringError> {
        let mut certs = Vec::new();
        for path in paths {
            let failed = |source| KeyringError::Read { path: path.clone(), source };
            let mut bytes = Vec::new();
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(MAX_KEYRING + 1).read_to_end(&mut bytes).map_err(failed)?;
            certs.extend(Self::keys(&bytes).map_err(|why| KeyringError::Bad { path: path.clone(), why })?);
        }
        Ok(Self { certs })
    }

    /// Reads public keys, armored or binary.
    ///
    /// # Errors
    /// There is none, or something else.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self { certs: Self::keys(bytes)? })
    }

    fn keys(bytes: &[u8]) -> Result<Vec<Cert>, String> {
        const KEYBOX: &[u8] = b"KBXf";
        if bytes.len() as u64 > MAX_KEYRING {
            return Err(format!("it has more than {MAX_KEYRING} bytes"));
        }
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        if bytes.get(8..12) == Some(KEYBOX) {
            return Err(
                "it is GnuPG's own keybox; write keys out of it with gpg --export FINGERPRINT".to_owned()
            );
        }
        let mut certs = Vec::new();
        for text in armors(bytes) {
            let parser = CertParser::from_bytes(text).map_err(|error| causes(&error))?;
            for cert in parser {
                certs.push(cert.map_err(|error| causes(&error))?);
                if certs.len() > MAX_KEYS {
                    return Err(format!("it has more than {MAX_KEYS} keys"));
                }
            }
        }
        if certs.is_empty() {
            return Err("it has no public key".to_owned());
        }
        Ok(certs)
    }

    /// Returns the fingerprints of its keys.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.certs.iter().map(|cert| cert.fingerprint().to_hex())
    }

    /// Verifies detached signatures: each is judged by itself.
    ///
    /// # Errors
    /// What is signed could not be read.
    pub fn detached(&self, signature: &[u8], signed: impl Read + Send + Sync) -> io::Result<Vec<Verdict>> {
        let policy = StandardPolicy::new();
        let helper = Helper { keyring: self, verdicts: Vec::new() };
        let verifier = DetachedVerifierBuilder::from_bytes(signature)
            .and_then(|builder| builder.with_policy(&policy, None, helper));
        let mut verifier = match verifier {
            Ok(verifier) => verifier,
            Err(error) => return Ok(vec![Verdict::unusable(causes(&error))]),
        };
        let mut broken = None;
        let read = verifier.verify_reader(Noting { inner: signed, broken: &mut broken });
        if let Some(error) = broken {
            return Err(error);
        }
        let mut verdicts = verifier.into_helper().verdicts;
        if verdicts.is_empty() {
            let why = read.err().map_or_else(|| "it has no signature".to_owned(), |error| causes(&error));
            verdicts.push(Verdict::unusable(why));
        }
        Ok(verdicts)
    }

    /// Verifies a clear-signed text, and returns what its signatures cover: only that is to be believed.
    pub fn clear(&self, text: &[u8]) -> (Vec<u8>, Vec<Verdict>) {
        let policy = StandardPolicy::new();
        let helper = Helper { keyring: self, verdicts: Vec::new() };
        let verifier =
            VerifierBuilder::from_bytes(text).and_then(|builder| builder.with_policy(&policy, None, helper));
        let mut verifier = match verifier {
            Ok(verifier) => verifier,
            Err(error) => return (Vec::new(), vec![Verdict::unusable(causes(&error))]),
        };
        let mut covered = Vec::new();
        let read = verifier.read_to_end(&mut covered);
        let mut verdicts = verifier.into_helper().verdicts;
        if let Err(error) = read {
            covered.clear();
            verdicts.push(Verdict::unusable(error.to_string()));
        } else if verdicts.is_empty() {
            verdicts.push(Verdict::unusable("it has no signature".to_owned()));
        }
        (covered, verdicts)
    }
}

/// Returns the armored blocks of a file, or the file itself where there is none: keyrings are often several, one behind the other.
fn armors(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    let starts = |at: &usize| bytes[*at..].starts_with(BEGIN) && (*at == 0 || bytes[at - 1] == b'\n');
    let mut places: Vec<usize> = (0..bytes.len()).filter(starts).collect();
    if places.is_empty() {
        return vec![bytes];
    }
    places.push(bytes.len());
    places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// What a signature says of itself. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The fingerprint of the key that it says made it, or the key's shorter id; nothing where it does not say.
    pub key: Option<String>,
    /// When, in seconds since 1970.
    pub made: Option<u64>,
}

/// Reads what detached signatures, or those of a clear-signed text, say of themselves.
///
/// # Errors
/// There is no signature, or something else as well.
pub fn claims(bytes: &[u8]) -> Result<Vec<Claim>, String> {
    let start = match is_clear_signed(bytes) {
        true => find(bytes, ARMORED.as_bytes()).ok_or("it has no signature: it is cut off")?,
        false => 0,
    };
    let mut claims = Vec::new();
    let mut next = PacketParser::from_bytes(&bytes[start..]).map_err(|error| causes(&error))?;
    while let PacketParserResult::Some(parser) = next {
        let (packet, rest) = parser.next().map_err(|error| causes(&error))?;
        match packet {
            Packet::Signature(signature) => claims.push(claim(&signature)),
            Packet::Marker(_) | Packet::Padding(_) => {}
            other => return Err(format!("it is no signature: it holds {}", other.tag())),
        }
        if claims.len() > MAX_SIGNATURES {
            return Err(format!("it has more than {MAX_SIGNATURES} signatures"));
        }
        next = rest;
    }
    if claims.is_empty() {
        return Err("it has no signature".to_owned());
    }
    Ok(claims)
}

/// Tells whether a text is clear-signed: its first line that is not empty says so.
pub fn is_clear_signed(text: &[u8]) -> bool {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    text.trim_ascii_start().starts_with(CLEAR.as_bytes())
}

/// Tells by its first bytes whether a file is a detached signature, armored or binary.
pub fn is_detached(head: &[u8]) -> bool {
    // A packet's first byte: bit 7 always, bit 6 for the newer form (RFC 9580, 4.2).
    const SIGNATURE: u8 = 2;
    let of_packet = |byte: u8| match byte & 0xc0 {
        0xc0 => byte & 0x3f == SIGNATURE,
        0x80 => (byte >> 2) & 0xf == SIGNATURE,
        _ => false,
    };
    head.trim_ascii_start().starts_with(ARMORED.as_bytes())
        || head.first().is_some_and(|byte| of_packet(*byte)) && claims(head).is_ok()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn claim(signature: &Signature) -> Claim {
    let issuers = signature.get_issuers();
    let by = issuers.iter().find(|issuer| matches!(issuer, KeyHandle::Fingerprint(_)));
    Claim {
        key: by.or(issuers.first()).map(KeyHandle::to_hex),
        made: signature.signature_creation_time().and_then(seconds),
    }
}

/// The holder of a key that made a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The fingerprint of the whole key, not of the part that signed.
    pub fingerprint: String,
    /// Whose it is, as the key says.
    pub name: Option<String>,
    /// What became of the key after it had signed: it expired, it was retired.
    pub since: Option<String>,
}

/// How a signature was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is good.
    Good(Signer),
    /// It is by a key that the keyring lacks.
    Foreign,
    /// It is not to be believed, and why.
    Bad(String),
}

/// A signature, and how it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it says of itself.
    pub claim: Claim,
    /// How it was judged.
    pub judgement: Judgement,
}

impl Verdict {
    fn unusable(why: String) -> Self {
        Self { claim: Claim { key: None, made: None }, judgement: Judgement::Bad(why) }
    }
}

/// Reads what is signed, and keeps the error by which that ended.
struct Noting<'a, R> {
    inner: R,
    broken: &'a mut Option<io::Error>,
}

impl<R: Read> Read for Noting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            *self.broken = Some(error);
            copy
        })
    }
}

/// Gives sequoia the keyring, and takes what it found.
struct Helper<'a> {
    keyring: &'a Keyring,
    verdicts: Vec<Verdict>,
}

impl VerificationHelper for Helper<'_> {
    fn get_certs(&mut self, wanted: &[KeyHandle]) -> sequoia::Result<Vec<Cert>> {
        let is_wanted = |cert: &&Cert| {
            cert.keys().any(|key| wanted.iter().any(|wanted| wanted.aliases(key.key().key_handle())))
        };
        Ok(self.keyring.certs.iter().filter(is_wanted).cloned().collect())
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> sequoia::Result<()> {
        for layer in structure {
            let MessageLayer::SignatureGroup { results } = layer else { continue };
            self.verdicts.extend(results.iter().take(MAX_SIGNATURES).map(|result| match result {
                Ok(good) => Verdict { claim: claim(good.sig), judgement: Judgement::Good(signer(good)) },
                Err(error) => refused(error),
            }));
        }
        Ok(())
    }
}

fn refused(error: &VerificationError<'_>) -> Verdict {
    let (claim, judgement) = match error {
        VerificationError::MissingKey { sig } => (claim(sig), Judgement::Foreign),
        VerificationError::UnboundKey { sig, cert, error } => {
            let why = format!("the key {} is not to be used: {}", cert.fingerprint().to_hex(), causes(error));
            (claim(sig), Judgement::Bad(why))
        }
        VerificationError::BadKey { sig, ka, error } => {
            let why = match ka.valid_cert().revocation_status() {
                RevocationStatus::Revoked(revocations) => format!("it is revoked{}", reason(&revocations)),
                _ => causes(error),
            };
            let key = ka.cert().fingerprint().to_hex();
            (claim(sig), Judgement::Bad(format!("the key {key} is not to be used: {why}")))
        }
        VerificationError::BadSignature { sig, error, .. } => (claim(sig), Judgement::Bad(causes(error))),
        VerificationError::MalformedSignature { sig, error } => (claim(sig), Judgement::Bad(causes(error))),
        VerificationError::UnknownSignature { sig } => {
            return Verdict::unusable(format!("it cannot be read: {}", causes(sig.error())));
        }
        other => return Verdict::unusable(other.to_string()),
    };
    Verdict { claim, judgement }
}

/// Says who signed, and what became of the key since.
fn signer(good: &GoodChecksum<'_>) -> Signer {
    let cert = good.ka.cert();
    let policy = StandardPolicy::new();
    let now = cert.with_policy(&policy, None);
    let since = match &now {
        Err(error) => Some(format!("is not to be used any more: {}", causes(error))),
        Ok(now) => match (now.revocation_status(), now.alive()) {
            (RevocationStatus::Revoked(revocations), _) => {
                Some(format!("was retired after it had signed{}", reason(&revocations)))
            }
            (_, Err(error)) => Some(format!("expired after it had signed: {}", causes(&error))),
            _ => None,
        },
    };
    let name = good.ka.valid_cert().primary_userid().ok();
    let name = name.map(|name| String::from_utf8_lossy(name.userid().value()).into_owned());
    Signer { fingerprint: cert.fingerprint().to_hex(), name, since }
}

/// Returns the reasons that revocations give, in brackets.
fn reason(revocations: &[&Signature]) -> String {
    let reasons = revocations.iter().filter_map(|revocation| revocation.reason_for_revocation());
    let texts: Vec<String> = reasons
        .map(|(code, text)| match String::from_utf8_lossy(text).trim() {
            "" => code.to_string(),
            text => format!("{code}: {text}"),
        })
        .collect();
    if texts.is_empty() { String::new() } else { format!(" ({})", texts.join("; ")) }
}

/// Returns an error with all its causes.
fn causes(error: &sequoia::anyhow::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests;
