//! The menus and scripts of boot loaders, as far as they say what is booted with which words.
//!
//! Every entry is read, whichever a user would pick. A condition that only the machine can decide has two ways through
//! the script behind it, and what is loaded on each of them is an entry of its own.

mod bls;
mod grub;
mod ipxe;
mod pxelinux;
mod ways;

use std::collections::BTreeMap;

pub use self::bls::parse as parse_bls;
pub use self::grub::parse as parse_grub;
pub use self::ipxe::parse as parse_ipxe;
pub use self::pxelinux::parse as parse_pxelinux;

/// Entries, files and lines that are read before a file counts as hostile.
const MAX_LINES: usize = 100_000;
const MAX_ENTRIES: usize = 10_000;

/// A file that a menu names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    /// The line, counted from 1.
    pub line: usize,
    /// The address or path; what only the machine knows of it is the name of the variable, `${net0/mac}`.
    pub form: String,
    /// What it is wanted for.
    pub role: Role,
}

/// What a file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A kernel.
    Kernel,
    /// An initrd.
    Initrd,
    /// A file that the boot loader puts into the initrd.
    Injected,
    /// Another script or menu, or a program that does something else.
    Next,
    /// A program without which the menu is not shown.
    Program,
    /// A detached signature.
    Signature,
}

/// A file that goes into the memory of the kernel as initrd, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loaded {
    /// The file.
    pub file: Named,
    /// The path the boot loader gives it inside the initrd; without one it is an initrd by itself.
    pub inside: Option<String>,
    /// How many of that path's folders the boot loader makes, counted from the innermost.
    pub makes_folders: usize,
    /// What the boot loader calls it, where that is not its file's name.
    pub called: Option<String>,
}

impl Loaded {
    /// A file that is an initrd by itself.
    fn initrd(file: Named) -> Self {
        Self { file, inside: None, makes_folders: usize::MAX, called: None }
    }
}

/// One thing that can be booted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Whether it is booted where nobody chooses.
    pub is_default: bool,
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Continued {
    /// The file.
    pub file: Named,
    /// What it begins with.
    pub handed: Handed,
    /// What is booted if the file is a kernel.
    pub program: Option<Entry>,
    /// Whether it is read in any case, in the middle of this menu.
    pub includes: bool,
}

/// A volume that a menu looks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Searched {
    /// The line, counted from 1.
    pub line: usize,
    /// What it is known by.
    pub by: By,
    /// Its label, its UUID, or the path of a file on it.
    pub value: String,
}

/// What a volume is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// The label.
    Label,
    /// The UUID; of an ISO, the time that its volume descriptor says it was changed.
    Uuid,
    /// A file on it.
    File,
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
    /// Volumes that it looks for.
    pub searched: Vec<Searched>,
    /// What is wrong in it.
    pub problems: Vec<Problem>,
    /// The line that takes in the entries of the Boot Loader Specification.
    pub takes_entries: Option<usize>,
    /// Whether it may start something that is not looked into.
    pub leads_elsewhere: bool,
    /// For which machine it is, and the line that says so.
    pub machine: Option<(usize, String)>,
}

/// Tells whether a file is there, for conditions that ask; nothing where that cannot be told.
pub type IsThere<'a> = &'a mut dyn FnMut(&str) -> Option<bool>;

impl Menu {
    fn problem(&mut self, line: usize, what: impl Into<String>) {
        self.say(Problem { line, what: what.into(), is_certain: true });
    }

    fn guess(&mut self, line: usize, what: impl Into<String>) {
        self.say(Problem { line, what: what.into(), is_certain: false });
    }

    fn say(&mut self, problem: Problem) {
        let is_known = || self.problems.iter().rev().take(64).any(|known| *known == problem);
        // One of a kind is enough to act on.
        if self.problems.len() < MAX_ENTRIES && !is_known() {
            self.problems.push(problem);
        }
    }
}
