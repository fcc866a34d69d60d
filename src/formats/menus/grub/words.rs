//! GRUB's words: how its shell splits a text, and what becomes of quotes, backslashes and variables.
//!
//! As `grub-core/script/yylex.l` and `execute.c` of GRUB 2.06 have it; a test has GRUB itself read the same texts.
//! - A carriage return is passed over, wherever it is; a line that begins with `#` is as if it were not there, in the
//!   middle of a command or of a quote as well.
//! - A backslash takes the meaning from the next character; with the end of a line it stands for nothing. Between double
//!   quotes it does so only in front of `$`, `"`, `\` and the end of a line.
//! - `{` and `}` outside of quotes begin and end a block, with or without a blank around them.
//! - The value of a variable outside of quotes is split at its blanks, those at its ends count for nothing; a word that
//!   is left with nothing is none.
//! - A dollar that names no variable is a mistake, in double quotes as well: GRUB refuses the command. So is `&` or `|`.

use std::collections::BTreeSet;
use std::iter::Peekable;

use crate::formats::menus::ways::Known;

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Text as it is; it makes a word even where it is empty.
    Text(String),
    /// A variable, and whether it stands in quotes, where its value is not split.
    Variable(String, bool),
}

/// A word as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word(Vec<Piece>);

impl Word {
    /// Returns the text of a word without variables.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.0[..] {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the names of its variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(name, _) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }
}

/// A command, or the end of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// `{`.
    Opens,
    /// `}`.
    Closes,
    Words(Vec<Word>),
}

/// A text, split into commands.
pub(super) struct Commands {
    pub(super) commands: Vec<Command>,
    /// What GRUB refuses a command for, by lines.
    pub(super) mistakes: Vec<(usize, &'static str)>,
    /// The line of a quote that nobody closes.
    pub(super) open_quote: Option<usize>,
}

/// Variables that GRUB sets itself: what they hold depends on the machine.
fn is_grubs_own(name: &str) -> bool {
    const NAMES: [&str; 24] = [
        "biosnum",
        "check_signatures",
        "chosen",
        "cmdpath",
        "config_directory",
        "config_file",
        "debug",
        "default",
        "fallback",
        "feature_all_video_module",
        "feature_platform_search_hint",
        "grub_cpu",
        "grub_platform",
        "lang",
        "locale_dir",
        "lockdown",
        "pager",
        "prefix",
        "root",
        "secondary_locale_dir",
        "shim_lock",
        "theme",
        "timeout",
        "timeout_style",
    ];
    matches!(name, "?" | "#" | "*" | "@")
        || NAMES.contains(&name)
        || ["net_", "pxe_", "feature_"].iter().any(|start| name.starts_with(start))
}

/// The values of variables, as far as the menu itself tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Variables {
    pub(super) known: Known,
    /// Those that submenus and other menus see as well.
    pub(super) exported: BTreeSet<String>,
    /// Whether another file may have set some: then one that nobody sets here may have any value.
    pub(super) are_open: bool,
}

impl Variables {
    /// Returns a value; what cannot be told is written as the variable itself, `${name}`.
    fn value(&self, name: &str) -> String {
        match self.known.values.get(name) {
            Some(value) => value.clone(),
            None if self.are_open || is_grubs_own(name) => format!("${{{name}}}"),
            None => String::new(),
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        // What there is no room for, only the machine knows.
        self.are_open |= !self.known.set(name, value);
    }

    /// Forgets the first arguments: what was `$2` is `$1`.
    pub(super) fn shift(&mut self, by: usize) {
        let is_number = |name: &str| name.parse::<usize>().is_ok_and(|number| number > 0);
        for (name, value) in self.known.take_out(is_number) {
            let place = name.parse::<usize>().ok().and_then(|number| number.checked_sub(by));
            if let Some(place) = place.filter(|place| *place > 0) {
                self.set(&place.to_string(), &value);
            }
        }
    }

    /// Returns what a submenu or another menu sees of them (`grub_env_context_open`; seen in QEMU): those that were exported. GRUB
    /// exports its own.
    pub(super) fn passed_on(&self) -> Self {
        let is_menus =
            |name: &str| matches!(name, "default" | "fallback" | "timeout" | "timeout_style" | "theme");
        let is_passed = |name: &str| self.exported.contains(name) || is_grubs_own(name) && !is_menus(name);
        let mut passed = self.clone();
        passed.known.take_out(|name| !is_passed(name));
        passed
    }

    /// Returns what a word becomes: one word, or none, or several.
    pub(super) fn expand(&self, word: &Word) -> Vec<String> {
        let mut words = Vec::new();
        let mut current: Option<String> = None;
        for piece in &word.0 {
            match piece {
                Piece::Text(text) => append(&mut current, text),
                Piece::Variable(name, true) => append(&mut current, &self.value(name)),
                Piece::Variable(name, false) => {
                    // A blank ends a word only where another part of the value follows it.
                    for (index, part) in self.value(name).split_ascii_whitespace().enumerate() {
                        if index > 0 {
                            words.extend(current.take());
                        }
                        append(&mut current, part);
                    }
                }
            }
        }
        words.extend(current);
        words
    }
}

/// The longest word that is read: a real menu's are short, a hostile one's would double without end.
const MAX_WORD: usize = 1 << 16;

fn append(word: &mut Option<String>, text: &str) {
    let word = word.get_or_insert_default();
    if word.len() + text.len() <= MAX_WORD {
        word.push_str(text);
    }
}

/// Splits a text into commands.
pub(super) fn split(text: &str, max_commands: usize) -> Commands {
    let lines = text.split_inclusive('\n').zip(1..);
    let read = lines.filter(|(line, _)| !line.trim_start_matches('\r').starts_with('#'));
    let characters: Vec<_> = read.flat_map(|(line, number)| line.chars().map(move |c| (number, c))).collect();
    let mut splitter = Splitter::new(characters);
    while splitter.commands.len() < max_commands && splitter.step() {}
    splitter.end();
    Commands {
        commands: splitter.commands,
        mistakes: splitter.mistakes,
        open_quote: splitter.quote.map(|(_, line)| line),
    }
}

struct Splitter {
    /// What was not read yet, with the numbers of the lines.
    rest: Peekable<std::vec::IntoIter<(usize, char)>>,
    /// The line of what was read last.
    line: usize,
    commands: Vec<Command>,
    words: Vec<Word>,
    word: Option<Word>,
    mistakes: Vec<(usize, &'static str)>,
    /// The quote that is open, and its line.
    quote: Option<(char, usize)>,
    /// The line of the command that is being read.
    first: usize,
}

impl Splitter {
    fn new(mut characters: Vec<(usize, char)>) -> Self {
        characters.retain(|(_, c)| *c != '\r');
        Self {
            rest: characters.into_iter().peekable(),
            line: 1,
            commands: Vec::new(),
            words: Vec::new(),
            word: None,
            mistakes: Vec::new(),
            quote: None,
            first: 1,
        }
    }

    fn next(&mut self) -> Option<char> {
        self.next_if(|_| true)
    }

    fn next_if(&mut self, takes: impl FnOnce(char) -> bool) -> Option<char> {
        let (line, c) = self.rest.next_if(|(_, c)| takes(*c))?;
        self.line = line;
        Some(c)
    }

    /// Takes in what comes next; tells whether there was something.
    fn step(&mut self) -> bool {
        let Some(c) = self.next() else { return false };
        match (self.quote.map(|(quote, _)| quote), c) {
            (Some(quote), c) if c == quote => self.quote = None,
            (Some('\''), c) => self.push(c),
            (Some(_), '\\') => match self.next_if(|c| "\n$\"\\".contains(c)) {
                Some('\n') => {}
                Some(c) => self.push(c),
                None => self.push('\\'),
            },
            (None, '\\') => match self.next() {
                Some('\n') | None => {}
                Some(c) => self.push(c),
            },
            (quote, '$') => self.variable(quote.is_some()),
            (Some(_), c) => self.push(c),
            (None, '\'' | '"') => {
                self.quote = Some((c, self.line));
                self.push_text("");
            }
            (None, '#') if self.word.is_none() => while self.next_if(|c| c != '\n').is_some() {},
            (None, '\n' | ';') => self.end(),
            (None, '&' | '|') => {
                self.mistakes.push((self.line, "GRUB knows neither & nor |: it refuses the command"));
                self.end();
            }
            (None, ' ' | '\t') => self.end_word(),
            (None, '{') => self.block(What::Opens),
            (None, '}') => self.block(What::Closes),
            (None, c) => self.push(c),
        }
        true
    }

    /// Takes in a variable: `$name`, `${name}`, `$1`, `$?`.
    fn variable(&mut self, is_quoted: bool) {
        let line = self.line;
        let mut name = String::new();
        match self.rest.peek().map(|(_, c)| *c) {
            Some('{') => {
                self.next();
                name.extend(std::iter::from_fn(|| self.next_if(|c| c != '}')));
                self.next();
            }
            // $"…" is a text to translate.
            Some('"') if !is_quoted => return,
            Some('?' | '#' | '*' | '@') => name.extend(self.next()),
            Some('0'..='9') => name.extend(std::iter::from_fn(|| self.next_if(|c| c.is_ascii_digit()))),
            _ => {
                let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                name.extend(std::iter::from_fn(|| self.next_if(is_of_name)));
            }
        }
        match name.is_empty() {
            true => {
                self.mistakes.push((line, "a $ names no variable: GRUB refuses the command"));
                self.push('$');
            }
            false => self.piece(Piece::Variable(name, is_quoted)),
        }
    }

    fn piece(&mut self, piece: Piece) {
        if self.words.is_empty() && self.word.is_none() {
            self.first = self.line;
        }
        self.word.get_or_insert_default().0.push(piece);
    }

    fn push_text(&mut self, text: &str) {
        match self.word.as_mut().and_then(|word| word.0.last_mut()) {
            Some(Piece::Text(known)) => known.push_str(text),
            _ => self.piece(Piece::Text(text.to_owned())),
        }
    }

    fn push(&mut self, c: char) {
        self.push_text(c.encode_utf8(&mut [0; 4]));
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            let what = What::Words(std::mem::take(&mut self.words));
            self.commands.push(Command { line: self.first, what });
        }
    }

    fn block(&mut self, what: What) {
        self.end();
        self.commands.push(Command { line: self.line, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, values: &[(&str, &str)]) -> Vec<Vec<String>> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let variables = Variables { known: Known::of(values), ..Variables::default() };
        let commands = split(text, 100).commands;
        commands
            .iter()
            .map(|command| match &command.what {
                What::Opens => vec!["{".to_owned()],
                What::Closes => vec!["}".to_owned()],
                What::Words(words) => words.iter().flat_map(|word| variables.expand(word)).collect(),
            })
            .collect()
    }

    #[test]
    fn a_text_is_split_as_grub_splits_it() {
        let live = &[("live", "root=live:CDLABEL=X cdroot"), ("e", ""), ("k", " b ")][..];
        for (text, expected) in [
            ("linux /k $live quiet", &[&["linux", "/k", "root=live:CDLABEL=X", "cdroot", "quiet"][..]][..]),
            ("linux /k \"$live\"", &[&["linux", "/k", "root=live:CDLABEL=X cdroot"]]),
            ("linux /k a=$e ${e} \"$e\" b", &[&["linux", "/k", "a=", "", "b"]]),
            ("linux a${k}c $k", &[&["linux", "abc", "b"]]),
            ("linux /k a \\\n  b", &[&["linux", "/k", "a", "b"]]),
            ("linux /k a\\\nb", &[&["linux", "/k", "ab"]]),
            ("linux /k a\r\nboot\r\n", &[&["linux", "/k", "a"], &["boot"]]),
            ("linux a\\ b '$live\\' \"x\\y\\\"z\"", &[&["linux", "a b", "$live\\", "x\\y\"z"]]),
            (
                "menuentry x {linux /k; initrd /i}",
                &[&["menuentry", "x"], &["{"], &["linux", "/k"], &["initrd", "/i"], &["}"]],
            ),
            ("a # b\n#c\nd#e", &[&["a"], &["d#e"]]),
            ("linux /k \\\n#old\n a 'b\n#c\nd'", &[&["linux", "/k", "a", "b\nd"]]),
            ("a && b || c", &[&["a"], &["b"], &["c"]]),
            ("echo $\"text\" x", &[&["echo", "text", "x"]]),
        ] {
            assert_eq!(words(text, live), expected, "{text}");
        }
    }

    #[test]
    fn what_grub_knows_itself_is_not_taken_for_nothing() {
        assert_eq!(
            words("linux ($root)/k ${iso_path} $grub_cpu", &[]),
            [["linux", "(${root})/k", "${grub_cpu}"]]
        );
        let open = Variables { are_open: true, ..Variables::default() };
        let What::Words(words) = split("${kernelopts}", 9).commands.remove(0).what else { panic!() };
        assert_eq!(open.expand(&words[0]), ["${kernelopts}"]);
    }

    #[test]
    fn lines_are_those_on_which_a_command_begins() {
        let commands = split("a \\\n b\n\n'c\nd' e\nf $ \"$\" 'open\n", 9);
        let lines: Vec<_> = commands.commands.iter().map(|command| command.line).collect();
        assert_eq!((lines, commands.open_quote), (vec![1, 4, 6], Some(6)));
        assert_eq!(commands.mistakes.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [6, 6]);
    }
}
