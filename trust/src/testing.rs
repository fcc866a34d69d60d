//! What tests of signatures need: the programs that make them, each with keys of its own.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A GnuPG of its own, which ends with the test.
#[derive(Debug)]
pub struct Gpg(tempfile::TempDir);

impl Default for Gpg {
    fn default() -> Self {
        Self::new()
    }
}

impl Gpg {
    /// Makes one without keys.
    pub fn new() -> Self {
        let gpg = Self(tempfile::Builder::new().prefix("sg").tempdir().unwrap());
        fs::write(
            gpg.0.path().join("gpg.conf"),
            "batch\nyes\nno-greeting\nallow-weak-digest-algos\nallow-weak-key-signatures\n",
        )
        .unwrap();
        gpg
    }

    /// Returns its folder.
    pub fn home(&self) -> &Path {
        self.0.path()
    }

    /// Runs it, and returns what it prints.
    pub fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command
            .arg("--homedir")
            .arg(self.0.path())
            .args(["--pinentry-mode", "loopback", "--passphrase", ""])
            .args(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg is installed");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key and returns its fingerprint; `more` is when it expires, and options that say when it is made.
    pub fn key(&self, name: &str, kind: &str, more: &[&str]) -> String {
        let args = ["--quick-generate-key", name, kind, "sign,cert"];
        let expire = if more.is_empty() { "never" } else { more[0] };
        let time: Vec<&str> = more.iter().skip(1).copied().collect();
        self.run(&[&time[..], &args[..], &[expire]].concat(), b"");
        let listing = String::from_utf8(self.run(&["--with-colons", "--list-keys", name], b"")).unwrap();
        let line = listing.lines().rev().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// Writes public keys out, armored.
    pub fn export(&self, keys: &[&str]) -> Vec<u8> {
        self.run(&[&["--armor", "--export"][..], keys].concat(), b"")
    }

    /// Makes a detached signature.
    pub fn detached(&self, key: &str, more: &[&str], of: &[u8]) -> Vec<u8> {
        self.run(&[more, &["--local-user", key, "--detach-sign"]].concat(), of)
    }

    /// Signs a text in place.
    pub fn clear(&self, key: &str, text: &[u8]) -> Vec<u8> {
        self.run(&["--local-user", key, "--clearsign"], text)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        drop(Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status());
    }
}

/// A folder with certificates that openssl made, and their keys.
#[derive(Debug)]
pub struct Certificates(tempfile::TempDir);

/// What a certificate of a signer is to say.
#[derive(Debug, Clone, Copy)]
pub struct Asks<'a> {
    /// The kind of key: words of `openssl genpkey`.
    pub key: &'a [&'a str],
    /// Its extensions: lines of `openssl x509 -extfile`.
    pub extensions: &'a str,
    /// When it ends to be valid, in days; negative where it has ended.
    pub days: &'a str,
}

/// A key that every iPXE takes.
pub const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

/// What a certificate says that may sign code.
pub const CODE_SIGNING: &str = "keyUsage = digitalSignature\nextendedKeyUsage = codeSigning\n";

impl Default for Asks<'_> {
    fn default() -> Self {
        Self { key: RSA, extensions: CODE_SIGNING, days: "30" }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificates {
    /// Makes a root, `ca`.
    pub fn new() -> Self {
        let all = Self(tempfile::tempdir().unwrap());
        all.root("ca");
        all
    }

    /// Returns the path of a file of the folder.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Runs openssl in the folder, and returns what it prints.
    pub fn run(&self, args: &[&str]) -> Vec<u8> {
        let output =
            Command::new("openssl").args(args).current_dir(self.0.path()).stdin(Stdio::null()).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key, `NAME.key`, that nobody else may read.
    pub fn key(&self, name: &str, kind: &[&str]) {
        let file = format!("{name}.key");
        self.run(&[&["genpkey"], kind, &["-out", &file]].concat());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(self.path(&file), mode).unwrap();
    }

    /// Makes a root: `NAME.key` and `NAME.crt`.
    pub fn root(&self, name: &str) {
        self.key(name, RSA);
        let (key, crt, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        self.run(&["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", "60", "-out", &crt]);
    }

    /// Makes a signer under a root: `NAME.key` and `NAME.crt`.
    pub fn signer(&self, name: &str, root: &str, asks: Asks<'_>) {
        self.key(name, asks.key);
        fs::write(self.path("extensions"), asks.extensions).unwrap();
        let file = |end: &str| format!("{name}.{end}");
        self.run(&[
            "req",
            "-new",
            "-key",
            &file("key"),
            "-subj",
            &format!("/CN={name}"),
            "-out",
            &file("csr"),
        ]);
        let (ca, ca_key) = (format!("{root}.crt"), format!("{root}.key"));
        let (csr, crt) = (file("csr"), file("crt"));
        let args = [
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            asks.days,
        ];
        self.run(&[&args[..], &["-extfile", "extensions", "-out", &crt]].concat());
    }

    /// Signs a file as iPXE wants it, but for what is said otherwise; the signature is `NAME.sig`.
    pub fn sign(&self, name: &str, file: &str, with: &[&str], how: &[&str]) -> Vec<u8> {
        let (crt, key, out) = (format!("{name}.crt"), format!("{name}.key"), format!("{name}.sig"));
        let fixed = ["cms", "-sign", "-binary", "-in", file, "-outform", "DER", "-out", &out];
        let with: Vec<&str> = with.iter().flat_map(|certificates| ["-certfile", certificates]).collect();
        self.run(&[&fixed[..], &["-signer", &crt, "-inkey", &key], &with[..], how].concat());
        fs::read(self.path(&out)).unwrap()
    }
}
