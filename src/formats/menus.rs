//! The menus and scripts of boot loaders, as far as they say what is booted with which words.
//!
//! Not what a loader would do: what it is told. Every entry is read, whichever a user would pick; a variable
//! may have several values, and then a text has several forms.

mod bls;
mod grub;
mod ipxe;
mod pxelinux;

use std::collections::BTreeMap;

pub use self::bls::parse as parse_bls;
pub use self::grub::parse as parse_grub;
pub use self::ipxe::parse as parse_ipxe;
pub use self::pxelinux::parse as parse_pxelinux;

/// Entries, files and lines that are read before a file counts as hostile.
const MAX_LINES: usize = 100_000;
const MAX_ENTRIES: usize = 10_000;

/// A file that a menu names, in each form its variables allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The line, counted from 1.
    pub line: usize,
    /// The address or path; more than one where a variable has more than one value.
    pub forms: Vec<String>,
    /// What it is wanted for.
    pub role: Role,
}

/// What a file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A kernel.
    Kernel,
    /// An initrd.
    Initrd,
    /// A file that the boot loader puts into the initrd.
    Injected,
    /// Another script or menu, or a program.
    Next,
    /// A detached signature.
    Signature,
}

/// A file that goes into the memory of the kernel as initrd, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The file.
    pub file: Named,
    /// The path the boot loader gives it inside the initrd; without one it is an initrd by itself.
    pub inside: Option<String>,
    /// What the boot loader calls it, where that is not its file's name.
    pub called: Option<String>,
}

/// One thing that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the menu calls it.
    pub title: String,
    /// The line of the kernel, counted from 1.
    pub line: usize,
    /// The kernel.
    pub kernel: Named,
    /// The initrds, in order.
    pub initrds: Vec<Loaded>,
    /// The words of the kernel's command line, in order.
    pub words: Vec<String>,
}

/// Something wrong in a menu by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// Whether the boot loader surely stops there; what it might know and we do not is a guess.
    pub is_certain: bool,
}

/// What one menu hands over to the menu that it goes on to: variables by name, and for PXELINUX the line in front of all
/// labels, under the name `APPEND`.
pub type Handed = BTreeMap<String, String>;

/// A menu in another file, which this one includes or goes on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continued {
    /// The file.
    pub file: Named,
    /// What it begins with.
    pub handed: Handed,
}

/// A menu or script.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Menu {
    /// What can be booted.
    pub entries: Vec<Entry>,
    /// Other files that are named.
    pub others: Vec<Named>,
    /// Menus that it goes on to, whatever their names are.
    pub continued: Vec<Continued>,
    /// Volume labels that the medium is searched by, with their lines.
    pub searched: Vec<(usize, String)>,
    /// What is wrong in it.
    pub problems: Vec<Problem>,
    /// The line that takes in the entries of the Boot Loader Specification.
    pub takes_entries: Option<usize>,
}

impl Menu {
    fn problem(&mut self, line: usize, what: impl Into<String>) {
        // One of a kind is enough to act on.
        if self.problems.len() < MAX_ENTRIES {
            self.problems.push(Problem { line, what: what.into(), is_certain: true });
        }
    }

    fn guess(&mut self, line: usize, what: impl Into<String>) {
        self.problem(line, what);
        if let Some(problem) = self.problems.last_mut() {
            problem.is_certain = false;
        }
    }
}
