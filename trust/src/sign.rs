//! Has the user's own gpg and openssl sign, which hold the keys or ask the card that does.
//!
//! Nothing here reads a private key. The program gets the key's name and the path of what is to be signed, and gives a signature;
//! whoever called verifies it before it counts.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use tempfile::NamedTempFile;

use crate::cms::{CertificateError, Chain};
use crate::dsse::{Envelope, PublicKey, signed_bytes};
use crate::openpgp::Keyring;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A program is not there, or could not be started.
    #[error("{program} cannot be started; {hint}")]
    Missing {
        /// Which.
        program: String,
        /// What to do.
        hint: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program did not sign.
    #[error("{program} did not sign {file}: {why}")]
    Refused {
        /// Which.
        program: String,
        /// What it was to sign.
        file: PathBuf,
        /// What it said.
        why: String,
    },
    /// A private key lies where others may read it, or is not there.
    #[error("the key {path} {why}")]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The public key could not be had.
    #[error("{program} has no public key {key}: {why}")]
    NoKey {
        /// Which.
        program: String,
        /// The key.
        key: String,
        /// What it said.
        why: String,
    },
}

/// Runs a program with nothing to read but what it is told to, and with the terminal that this process has: an agent may ask for a
/// passphrase there.
fn output(
    program: &str,
    args: &[OsString],
    hint: &'static str,
) -> Result<(bool, Vec<u8>, String), SignError> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|source| SignError::Missing { program: program.to_owned(), hint, source })?;
    Ok((output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Returns what of a program's errors says why, in one line.
fn last_words(errors: &str, is_noise: impl Fn(&str) -> bool) -> String {
    let lines: Vec<&str> =
        errors.lines().map(str::trim).filter(|line| !line.is_empty() && !is_noise(line)).collect();
    match &lines[..] {
        [] => "it did not say why".to_owned(),
        lines => lines[lines.len().saturating_sub(3)..].join("; "),
    }
}

/// GnuPG, and the key that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpg {
    key: String,
}

const GPG: &str = "gpg";
const NO_GPG: &str = "install GnuPG (Debian: gnupg; Gentoo: app-crypt/gnupg)";

impl Gpg {
    /// Takes the key by its fingerprint: 40 or 64 hexadecimal digits, and `!` behind them where no other part of the key may sign.
    ///
    /// # Errors
    /// It is no fingerprint: shorter names can be somebody else's too.
    pub fn new(key: &str) -> Result<Self, String> {
        let plain: String = key.chars().filter(|c| *c != ' ').collect();
        let digits = plain.strip_suffix('!').unwrap_or(&plain);
        if ![40, 64].contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!(
                "{key:?} is no fingerprint of a key; `gpg --list-keys --with-fingerprint` shows it"
            ));
        }
        Ok(Self { key: plain.to_ascii_uppercase() })
    }

    /// Returns the key's name.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the command line for a signature of a file, on standard output.
    fn args(&self, how: &[&str], file: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> = [
            "--batch",
            "--status-fd",
            "2",
            "--digest-algo",
            "SHA512",
            "--local-user",
            &self.key,
            "--output",
            "-",
        ]
        .map(OsString::from)
        .to_vec();
        args.extend(how.iter().map(OsString::from));
        args.extend([OsString::from("--"), file.as_os_str().to_owned()]);
        args
    }

    fn sign(&self, how: &[&str], file: &Path) -> Result<Vec<u8>, SignError> {
        let (is_done, signature, errors) = output(GPG, &self.args(how, file), NO_GPG)?;
        if is_done && !signature.is_empty() {
            return Ok(signature);
        }
        Err(SignError::Refused { program: GPG.to_owned(), file: file.to_owned(), why: self.why(&errors) })
    }

    /// Says why gpg did not sign, by its status lines (GnuPG's `doc/DETAILS`).
    fn why(&self, errors: &str) -> String {
        let status = errors.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
        let reason = status.filter_map(|line| line.strip_prefix("INV_SGNR ")?.split(' ').next()).next_back();
        let why = match reason {
            Some("1" | "9") => Some("it does not have that secret key"),
            Some("4") => Some("the key is revoked"),
            Some("5") => Some("the key is expired"),
            Some("3") => Some("the key may not sign"),
            _ => None,
        };
        match why {
            Some(why) => format!("{why}: {}", self.key),
            None => last_words(errors, |line| line.starts_with("[GNUPG:]")),
        }
    }

    /// Signs a text in place: returns it with its signature.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn clear_sign(&self, text: &Path) -> Result<Vec<u8>, SignError> {
        self.sign(&["--clearsign"], text)
    }

    /// Makes a detached signature, armored.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn detach_sign(&self, file: &Path) -> Result<Vec<u8>, SignError> {
        self.sign(&["--armor", "--detach-sign"], file)
    }

    /// Returns the public key, by which signatures are verified.
    ///
    /// # Errors
    /// [`SignError`]: gpg is not there, or lacks the key.
    pub fn keyring(&self) -> Result<Keyring, SignError> {
        let digits = self.key.trim_end_matches('!');
        let args = ["--batch", "--export", "--", digits].map(OsString::from);
        let (_, bytes, errors) = output(GPG, &args, NO_GPG)?;
        Keyring::of_bytes(&bytes).map_err(|why| {
            let said = last_words(&errors, |_| false);
            let why = if errors.trim().is_empty() { why } else { said };
            SignError::NoKey { program: GPG.to_owned(), key: digits.to_owned(), why }
        })
    }
}

/// Where openssl finds a private key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In a file, which openssl reads.
    File(PathBuf),
    /// On a card or in a token, by its URI (RFC 7512).
    Token(String),
}

/// A private key, by where openssl finds it; nothing here reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateKey {
    place: Place,
    /// Where openssl takes the passphrase from (openssl-passphrase-options(1)); without it, it asks.
    passphrase: Option<String>,
}

impl PrivateKey {
    /// Takes a key by the path of its file, or by the URI of a token; and where openssl takes the passphrase from, where it is not to ask.
    ///
    /// # Errors
    /// The URI has the PIN in it, or the passphrase is written down: they would be in the list of processes, which everybody may read.
    pub fn new(text: &str, passphrase: Option<&str>) -> Result<Self, String> {
        if passphrase.is_some_and(|from| !["env:", "file:", "fd:"].iter().any(|kind| from.starts_with(kind)))
        {
            return Err(
                "a passphrase is not written down; say where openssl takes it from: env:NAME or file:PATH"
                    .to_owned(),
            );
        }
        let is_token = text.starts_with("pkcs11:");
        // The attributes of the path are parted by `;`, those of the query, behind `?`, by `&`.
        if is_token && text.split([';', '?', '&', ':']).any(|part| part.trim_start().starts_with("pin-value"))
        {
            return Err(
                "the PIN is in it, and all who see the list of processes would see it; pin-source names a file with it"
                    .to_owned(),
            );
        }
        let place = match is_token {
            true => Place::Token(text.to_owned()),
            false => Place::File(PathBuf::from(text)),
        };
        Ok(Self { place, passphrase: passphrase.map(str::to_owned) })
    }

    /// Returns the same key, whose file is meant as seen from a folder.
    pub fn seen_from(self, folder: &Path) -> Self {
        let place = match self.place {
            Place::File(path) => Place::File(folder.join(path)),
            token => token,
        };
        Self { place, ..self }
    }

    /// Looks whether others than its owner may read it.
    fn check(&self) -> Result<(), SignError> {
        let Place::File(path) = &self.place else { return Ok(()) };
        let wrong = |why: String| SignError::Key { path: path.clone(), why };
        let found = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be found: {error}")))?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 == 0 {
            return Ok(());
        }
        let what = format!(
            "has mode {mode:04o}, by which others may read or change it; chmod 600 {}",
            path.display()
        );
        Err(wrong(what))
    }

    /// Adds the options that name it; two of them are called differently by the commands of openssl.
    fn args(&self, option: &str, form: &str, args: &mut Vec<OsString>) {
        match &self.place {
            Place::File(path) => args.extend([option.into(), path.into()]),
            Place::Token(uri) => {
                args.extend(["-engine", "pkcs11", form, "engine", option, uri].map(OsString::from));
            }
        }
        if let Some(from) = &self.passphrase {
            args.extend(["-passin".into(), from.into()]);
        }
    }
}

/// OpenSSL, the certificate that signs code, and its key.
#[derive(Debug, Clone)]
pub struct Openssl {
    certificate: PathBuf,
    chain: Chain,
    /// The certificates above, in one file, which is all that openssl takes.
    above: Option<Arc<NamedTempFile>>,
    key: PrivateKey,
}

const OPENSSL: &str = "openssl";
const NO_OPENSSL: &str = "install OpenSSL (Debian: openssl; Gentoo: dev-libs/openssl)";

impl Openssl {
    /// Takes a certificate, the files of those above it, and its key.
    ///
    /// # Errors
    /// [`SignError`]: a certificate cannot be used, or others than its owner may read the key.
    pub fn new(certificate: PathBuf, above: &[PathBuf], key: PrivateKey) -> Result<Self, SignError> {
        let chain = Chain::read(&certificate, above, SystemTime::now())?;
        key.check()?;
        let refused =
            |why: String| SignError::Refused { program: OPENSSL.to_owned(), file: certificate.clone(), why };
        let pem = chain.above().map_err(refused)?;
        let above = match pem.is_empty() {
            true => None,
            false => {
                let mut file = NamedTempFile::new().map_err(|error| refused(error.to_string()))?;
                file.write_all(pem.as_bytes()).map_err(|error| refused(error.to_string()))?;
                Some(Arc::new(file))
            }
        };
        Ok(Self { certificate, chain, above, key })
    }

    /// Returns the certificate that signs, and those above it.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Returns the command line for a signature of a file, on standard output.
    fn args(&self, file: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> =
            ["cms", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "DER", "-signer"]
                .map(OsString::from)
                .to_vec();
        args.push(self.certificate.clone().into());
        if let Some(above) = &self.above {
            args.extend(["-certfile".into(), above.path().into()]);
        }
        self.key.args("-inkey", "-keyform", &mut args);
        args.extend(["-in".into(), file.into()]);
        args
    }

    /// Makes a detached signature in DER.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, file: &Path) -> Result<Vec<u8>, SignError> {
        let (is_done, signature, errors) = output(OPENSSL, &self.args(file), NO_OPENSSL)?;
        if is_done && !signature.is_empty() {
            return Ok(signature);
        }
        Err(refused(file, &errors))
    }
}

/// openssl prints "…:error:code:library:function:why:file:line:" (ERR_print_errors(3)), and lines of its own.
fn refused(file: &Path, errors: &str) -> SignError {
    let why = last_words(errors, |line| line.to_ascii_lowercase().starts_with("engine "));
    SignError::Refused { program: OPENSSL.to_owned(), file: file.to_owned(), why }
}

/// A builder's key, by which openssl signs statements.
#[derive(Debug, Clone)]
pub struct BuilderKey {
    key: PrivateKey,
    public: PublicKey,
}

impl BuilderKey {
    /// Takes a key, and has openssl say which public key belongs to it; `name` is what that is called in messages.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn new(key: PrivateKey, name: &str) -> Result<Self, SignError> {
        key.check()?;
        let mut args = vec!["pkey".into()];
        key.args("-in", "-inform", &mut args);
        args.extend(["-pubout", "-outform", "DER"].map(OsString::from));
        let (is_done, der, errors) = output(OPENSSL, &args, NO_OPENSSL)?;
        let no_key = |why| SignError::NoKey { program: OPENSSL.to_owned(), key: name.to_owned(), why };
        if !is_done {
            return Err(no_key(last_words(&errors, |_| false)));
        }
        let public = PublicKey::of_bytes(name, &der).map_err(no_key)?;
        Ok(Self { key, public })
    }

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a payload; what openssl gave is verified.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, payload_type: &str, payload: &[u8]) -> Result<Envelope, SignError> {
        let failed = |error: io::Error| refused(Path::new("a statement"), &error.to_string());
        // openssl has to know how long it is: it takes a file.
        let mut file = NamedTempFile::new().map_err(failed)?;
        file.write_all(&signed_bytes(payload_type, payload)).map_err(failed)?;
        let mut args: Vec<OsString> = ["pkeyutl", "-sign", "-rawin"].map(OsString::from).to_vec();
        self.key.args("-inkey", "-keyform", &mut args);
        if let Some(digest) = self.public.digest() {
            args.extend(["-digest".into(), digest.into()]);
        }
        args.extend(["-in".into(), file.path().into()]);
        let (is_done, signature, errors) = output(OPENSSL, &args, NO_OPENSSL)?;
        if !is_done || signature.is_empty() {
            return Err(refused(Path::new("a statement"), &errors));
        }
        let envelope = Envelope::new(payload_type, payload, &self.public, &signature);
        match envelope.is_by(&self.public) {
            true => Ok(envelope),
            false => Err(refused(Path::new("a statement"), "what it gave does not verify")),
        }
    }
}

#[cfg(test)]
mod tests;
