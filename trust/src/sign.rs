//! Has the user's own gpg sign, which holds the keys or asks the card that does.
//!
//! Nothing here reads a private key. The program gets the key's name and the path of what is to be signed, and gives a signature;
//! whoever called verifies it before it counts.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
