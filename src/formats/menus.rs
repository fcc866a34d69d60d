//! The menus and scripts of boot loaders, as far as they say what is booted with which words.
//!
//! Not what a loader would do: what it is told. Every entry is read, whichever a user would pick; a variable
//! may have several values, and then a text has several forms.

mod grub;
mod ipxe;
mod pxelinux;

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
}

/// A menu or script.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Menu {
    /// What can be booted.
    pub entries: Vec<Entry>,
    /// Other files that are named.
    pub others: Vec<Named>,
    /// Volume labels that the medium is searched by, with their lines.
    pub searched: Vec<(usize, String)>,
    /// What is wrong in it.
    pub problems: Vec<Problem>,
}

impl Menu {
    fn problem(&mut self, line: usize, what: impl Into<String>) {
        // One of a kind is enough to act on.
        if self.problems.len() < MAX_ENTRIES {
            self.problems.push(Problem { line, what: what.into() });
        }
    }
}

/// The words of a line, split at blanks; a quoted part keeps its blanks.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, '#') if word.is_none() => break,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
