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
