//! Programs of other machines, run by an interpreter.
//!
//! Since Linux 6.7, binfmt_misc belongs to a user namespace: what is registered in that of a sandbox is there for its programs alone, and
//! nothing of this machine decides. The interpreter is opened when it is registered (flag `F`), so that it is found whatever root a program
//! has; it has to be one that needs no libraries. Programs keep their names (`P`), and run as others where they say so (`O`, `C`). (Linux: Documentation/admin-guide/binfmt-misc.rst.)

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::tool::Tool;

/// The first Linux where a user namespace has registrations of its own.
const FIRST: (u32, u32) = (6, 7);

/// Programs of another machine, and what runs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// What the machine is called, in messages and as the registration's name.
    pub name: String,
    /// The interpreter, a path outside of the sandbox.
    pub interpreter: PathBuf,
    /// How its programs begin.
    pub magic: Vec<u8>,
    /// Which bits of that count.
    pub mask: Vec<u8>,
}

/// A registration that is ready to be written.
#[derive(Debug)]
pub(super) struct Registration {
    /// Keeps the interpreter's file open until it is written.
    _interpreter: OwnedFd,
    pub(super) rule: Vec<u8>,
}

impl Foreign {
    /// Opens the interpreter.
    pub(super) fn open(&self) -> io::Result<Registration> {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy();
        if version(&release).is_none_or(|version| version < FIRST) {
            let why = format!(
                "programs for {} run by an interpreter here, which needs Linux 6.7; this is {release}",
                self.name
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let missing = |error: io::Error| {
            io::Error::new(error.kind(), format!("open {}: {error}", self.interpreter.display()))
        };
        let file = OwnedFd::from(File::open(&self.interpreter).map_err(missing)?);
        let mut rule = format!(":stagegraph-{}:M::", self.name);
        for byte in &self.magic {
            let _ = write!(rule, "\\x{byte:02x}");
        }
        rule.push(':');
        for byte in &self.mask {
            let _ = write!(rule, "\\x{byte:02x}");
        }
        // By its number: no path leads there for whoever is nobody.
        let _ = write!(rule, ":/proc/self/fd/{}:POCF", file.as_raw_fd());
        Ok(Registration { _interpreter: file, rule: rule.into_bytes() })
    }
}

impl Tool {
    /// Returns where a file of the tool's root is outside.
    pub fn outside(&self, inside: &Path) -> Option<PathBuf> {
        inside.ancestors().find_map(|above| {
            let outside = self.files.get(above)?;
            let rest = inside.strip_prefix(above).ok()?;
            Some(if rest.as_os_str().is_empty() { outside.clone() } else { outside.join(rest) })
        })
    }
}

/// Reads the first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_says_its_version() {
        assert_eq!(version("6.18.44-fc-v1045"), Some((6, 18)));
        assert_eq!(version("6.1.0-9-amd64"), Some((6, 1)));
        assert!(
            version("6.1.0") < Some(FIRST) && version("6.7") >= Some(FIRST) && version("10.0") > Some(FIRST)
        );
        assert_eq!(version("x"), None);
    }
}
