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

/// A command of GRUB's shell: its line and its words.
struct Statement {
    line: usize,
    words: Vec<String>,
}

/// Splits a text of GRUB's shell into commands: at line ends, at `;`, and around `{` and `}`.
///
/// The second value is the line of a quote that nobody closes.
fn statements(text: &str) -> (Vec<Statement>, Option<usize>) {
    let mut all = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<(char, usize)> = None;
    let mut is_quoted = false;
    let (mut line, mut first) = (1, 1);
    let mut characters = text.chars().peekable();
    let mut end = |words: &mut Vec<String>, first: usize| {
        if !words.is_empty() {
            all.push(Statement { line: first, words: std::mem::take(words) });
        }
    };
    while let Some(c) = characters.next() {
        let was_empty = words.is_empty() && word.is_none();
        match (quote, c) {
            (None, '#') if word.is_none() => while characters.next_if(|c| *c != '\n').is_some() {},
            (None, '\'' | '"') => {
                quote = Some((c, line));
                is_quoted = true;
                word.get_or_insert_default();
            }
            (Some((open, _)), c) if c == open => quote = None,
            (None | Some(('"', _)), '\\') => {
                let next = characters.next();
                line += usize::from(next == Some('\n'));
                word.get_or_insert_default().extend(next.filter(|c| *c != '\n'));
            }
            (None, '\n' | ';') => {
                words.extend(word.take());
                end(&mut words, first);
            }
            (None, c) if c.is_ascii_whitespace() => {
                // A brace by itself ends a command and opens or closes a block.
                if let Some(brace) = word.take_if(|word| !is_quoted && (word == "{" || word == "}")) {
                    end(&mut words, first);
                    words.push(brace);
                    end(&mut words, line);
                }
                words.extend(word.take());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
        if word.is_none() {
            is_quoted = false;
        }
        if was_empty {
            first = line;
        }
        line += usize::from(c == '\n');
        // A brace before a line's end, or before a semicolon, stands by itself as well.
        if quote.is_none()
            && !is_quoted
            && matches!(characters.peek(), None | Some('\n' | ';'))
            && let Some(brace) = word.take_if(|word| word == "{" || word == "}")
        {
            end(&mut words, first);
            words.push(brace);
            end(&mut words, line);
        }
        if words.len() > MAX_ENTRIES {
            break;
        }
    }
    words.extend(word);
    end(&mut words, first);
    (all, quote.map(|(_, line)| line))
}
