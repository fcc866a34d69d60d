//! Signatures of statements: ed25519 (RFC 8032).
//!
//! A signature is a line `ed25519 NAME BASE64` over the bytes of a statement; several may stand. A list of trusted keys has lines
//! `NAME ed25519 BASE64`, of the raw 32 bytes of each public key, and comments from `#` on. A private key is PKCS#8 in PEM
//! (RFC 8410), as `openssl genpkey -algorithm ed25519` writes it, with a line `Name: NAME` above.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cache::upstream::Signer;
use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

/// The name of the algorithm, in signatures and lists.
const ALGORITHM: &str = "ed25519";

/// What goes before the 32 secret bytes in PKCS#8 (RFC 8410, section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Bytes of a list of keys or of signatures, before it counts as something else.
const MAX_LIST: usize = 1 << 20;

/// Why a file of a key or of settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A name that no key may have.
    #[error("{0:?} is no name for a key; expected 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
    Name(String),
}

impl KeyError {
    /// Tells whether it is the machine's fault, and not that of whoever named the file.
    pub fn is_of_the_machine(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound};
        let Self::File { what: "write" | "make", source, .. } = self else { return false };
        ![AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound].contains(&source.kind())
    }
}

/// Why a list of trusted keys cannot be used.
pub type TrustError = KeyError;

fn is_name(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_fine)
}

/// A private key with its name.
pub struct Key {
    name: String,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

impl Key {
    /// Makes a key and writes it to a new file that its owner alone can read.
    ///
    /// # Errors
    /// [`KeyError`]: the file is there already, or cannot be written.
    pub fn generate(name: &str, path: &Path) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name(name.to_owned()));
        }
        let failed = |what, source| KeyError::File { what, path: path.to_owned(), source };
        let no_random = |_| io::Error::other("the system gives no random numbers");
        let mut seed = [0; 32];
        ring::rand::SystemRandom::new().fill(&mut seed).map_err(no_random).map_err(|e| failed("make", e))?;
        let text = format!(
            "Name: {name}\n-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode([&PKCS8[..], &seed].concat())
        );
        let written = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        written().map_err(|error| failed("write", error))?;
        Self::parse(&text).map_err(|why| KeyError::Content { path: path.to_owned(), why })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyError`]: it cannot be read, others may read it, or it is no such key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { what: "read", path: path.to_owned(), source };
        let wrong = |why: String| KeyError::Content { path: path.to_owned(), why };
        let file = File::open(path).map_err(failed)?;
        let mode = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?.st_mode;
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(wrong(format!("others may read this private key; close it with `chmod 600 {path}`")));
        }
        Self::parse(&read_short(&file, path)?).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let expected =
            "expected a line `Name: NAME` and an ed25519 key in PEM, as `stagegraph remote keygen` makes it";
        let name = text.lines().find_map(|line| line.strip_prefix("Name: ")).map(str::trim);
        let name = name.filter(|name| is_name(name)).ok_or(expected)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| expected)?;
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| expected)?;
        Ok(Self { name: name.to_owned(), pair })
    }

    /// Returns who signs with it, as a list of trusted keys has him.
    pub fn signer(&self) -> Signer {
        Signer { name: self.name.clone(), key: STANDARD.encode(self.pair.public_key().as_ref()) }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the line by which others trust it.
    pub fn public(&self) -> String {
        format!("{} {ALGORITHM} {}", self.name, STANDARD.encode(self.pair.public_key().as_ref()))
    }

    /// Signs a statement; returns the line that says so.
    pub(crate) fn sign(&self, statement: &[u8]) -> String {
        format!("{ALGORITHM} {} {}\n", self.name, STANDARD.encode(self.pair.sign(statement).as_ref()))
    }
}

fn read_short(file: &File, path: &Path) -> Result<String, KeyError> {
    let mut text = String::new();
    let read = io::Read::read_to_string(&mut io::Read::take(file, MAX_LIST as u64 + 1), &mut text);
    read.map_err(|source| KeyError::File { what: "read", path: path.to_owned(), source })?;
    if text.len() > MAX_LIST {
        let why = format!("it has more than {MAX_LIST} bytes; expected a key, or a list of keys");
        return Err(KeyError::Content { path: path.to_owned(), why });
    }
    // Some editors write a mark at the start of a text.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// Whose results count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's: for servers that nobody else can write to.
    All,
    /// Those signed with one of these keys.
    Keys(Vec<Signer>),
}

impl Trust {
    /// Reads a list of trusted keys.
    ///
    /// # Errors
    /// [`KeyError`]: it cannot be read, or a line of it is none.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let file = File::open(path);
        let file = file.map_err(|source| KeyError::File { what: "read", path: path.to_owned(), source })?;
        Self::parse(&read_short(&file, path)?).map_err(|why| KeyError::Content { path: path.to_owned(), why })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<Signer> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, algorithm, key] = words[..] else {
                if words.is_empty() {
                    continue;
                }
                return Err(format!("line {}: expected `NAME ed25519 KEY`", number + 1));
            };
            let is_key = STANDARD.decode(key).is_ok_and(|key| key.len() == 32);
            if !is_name(name) || algorithm != ALGORITHM || !is_key {
                return Err(format!(
                    "line {}: expected `NAME ed25519 KEY`, with a key of 32 bytes in base64",
                    number + 1
                ));
            }
            if keys.iter().any(|known| known.name == name) {
                return Err(format!("line {}: there are two keys called {name}", number + 1));
            }
            keys.push(Signer { name: name.to_owned(), key: key.to_owned() });
        }
        if keys.is_empty() {
            return Err("it names no key; expected lines `NAME ed25519 KEY`".to_owned());
        }
        Ok(Trust::Keys(keys))
    }

    /// Tells whether results that this one signed count.
    pub fn has(&self, signer: &Signer) -> bool {
        match self {
            Trust::All => true,
            Trust::Keys(keys) => keys.contains(signer),
        }
    }

    /// Finds the signature that makes a statement count.
    ///
    /// # Errors
    /// There is none; returned are the names that were there.
    pub(crate) fn judge(&self, statement: &[u8], signatures: &[u8]) -> Result<Option<Signer>, Vec<String>> {
        let Trust::Keys(keys) = self else { return Ok(None) };
        let text = String::from_utf8_lossy(&signatures[..signatures.len().min(MAX_LIST)]);
        let mut names = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [ALGORITHM, name, signature] = words[..] else { continue };
            let Ok(signature) = STANDARD.decode(signature) else { continue };
            for signer in keys.iter().filter(|signer| signer.name == name) {
                let key = STANDARD.decode(&signer.key).unwrap_or_default();
                if UnparsedPublicKey::new(&ED25519, key).verify(statement, &signature).is_ok() {
                    return Ok(Some(signer.clone()));
                }
            }
            if is_name(name) {
                names.push(name.to_owned());
            }
        }
        Err(names)
    }
}

/// Says that results do not count, and whose they are.
pub(crate) fn distrusted(name: &str, names: &[String]) -> String {
    let who = match names {
        [] => "not signed".to_owned(),
        names => format!("signed by {}, with no key that is trusted", names.join(", ")),
    };
    format!("{name}: it has results that do not count: they are {who}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use cache::testing::Folder;

    use super::*;

    #[test]
    fn a_key_signs_what_its_list_trusts_and_nothing_else() {
        let dir = Folder::new();
        let key = Key::generate("ci-2026", &dir.join("key")).unwrap();
        let key_again = Key::read(&dir.join("key")).unwrap();
        assert_eq!((key.public(), key_again.name()), (key_again.public(), "ci-2026"));
        let other = Key::generate("other", &dir.join("other")).unwrap();
        let list = format!("# ours\n{} # until May\n\n", key.public());
        std::fs::write(dir.join("trust"), list).unwrap();
        let trust = Trust::read(&dir.join("trust")).unwrap();
        let line = key.sign(b"statement");
        let both = other.sign(b"statement") + &line;
        let signer = trust.judge(b"statement", both.as_bytes()).unwrap().unwrap();
        assert_eq!(signer.name, "ci-2026");
        assert!(trust.has(&signer));
        assert!(!trust.has(&Signer { key: "other".to_owned(), ..signer }));
        assert_eq!(trust.judge(b"other", line.as_bytes()), Err(vec!["ci-2026".to_owned()]));
        let forged = other.sign(b"statement").replace("other", "ci-2026");
        assert_eq!(trust.judge(b"statement", forged.as_bytes()), Err(vec!["ci-2026".to_owned()]));
        for nonsense in ["", "ed25519", "ed25519 ci-2026 !", "rsa ci-2026 AAAA", "\u{0}\u{0}"] {
            assert!(trust.judge(b"statement", nonsense.as_bytes()).is_err(), "{nonsense:?}");
        }
        assert_eq!(Trust::All.judge(b"statement", b""), Ok(None));
    }

    #[test]
    fn openssl_checks_our_signature_and_we_read_its_key() {
        let dir = Folder::new();
        let key = Key::generate("ci", &dir.join("key")).unwrap();
        let signature = key.sign(b"statement");
        let bytes = STANDARD.decode(signature.split_whitespace().last().unwrap()).unwrap();
        std::fs::write(dir.join("sig"), bytes).unwrap();
        std::fs::write(dir.join("statement"), "statement").unwrap();
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").current_dir(dir.path()).args(args).output().unwrap();
            assert!(output.status.success(), "{args:?}: {output:?}");
        };
        openssl(&["pkey", "-in", "key", "-pubout", "-out", "public"]);
        openssl(&[
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            "public",
            "-rawin",
            "-in",
            "statement",
            "-sigfile",
            "sig",
        ]);
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", "theirs"]);
        let theirs = std::fs::read_to_string(dir.join("theirs")).unwrap();
        assert!(Key::parse(&format!("Name: theirs\n{theirs}")).is_ok());
        openssl(&["genpkey", "-algorithm", "x25519", "-out", "wrong"]);
        let wrong = std::fs::read_to_string(dir.join("wrong")).unwrap();
        assert!(Key::parse(&format!("Name: wrong\n{wrong}")).is_err());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_none_is_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Folder::new();
        let path = dir.join("key");
        Key::generate("ci", &path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Key::generate("ci", &path), Err(KeyError::File { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Key::read(&path).unwrap_err().to_string();
        assert!(error.contains("others may read") && error.contains("chmod 600"), "{error}");
        assert!(matches!(Key::generate("no name", &dir.join("x")), Err(KeyError::Name(_))));
    }

    #[test]
    fn a_list_that_is_none_names_the_line() {
        for (text, why) in [
            ("", "names no key"),
            ("# nobody\n", "names no key"),
            ("ci ed25519", "line 1"),
            ("\nci rsa AAAA", "line 2"),
            ("ci ed25519 AAAA", "32 bytes"),
        ] {
            let error = Trust::parse(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
