//! The lines of a script of iPXE, and the commands on each.

use crate::formats::menus::MAX_LINES;

/// The longest text that variables may grow to.
pub(super) const MAX_TEXT: usize = 1 << 12;

/// What stands between two commands of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    /// `;`, or the beginning of the line: the next command is run.
    Always,
    /// `&&`: it is run if the one before worked.
    Then,
    /// `||`: it is run if the one before failed.
    Else,
}

/// One line: its number, and its commands with what stands in front of each.
pub(super) struct Line {
    pub(super) number: usize,
    /// The label, where it is one.
    pub(super) label: Option<String>,
    pub(super) commands: Vec<(Joint, Vec<String>)>,
}

/// Returns the lines that say something; a backslash at the end joins two.
pub(super) fn lines_of(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut continued = String::new();
    for (index, line) in text.lines().take(MAX_LINES).enumerate() {
        if let Some(line) = line.strip_suffix('\\')
            && continued.len() < MAX_TEXT
        {
            continued.push_str(line);
            continue;
        }
        read_line(index + 1, &(std::mem::take(&mut continued) + line), &mut lines);
    }
    lines
}

/// Reads a line: what stands behind a label is a line of its own, and from a word that begins with `#` on nothing counts
/// (`image/script.c`, `core/exec.c`).
fn read_line(number: usize, line: &str, lines: &mut Vec<Line>) {
    let mut line = line.trim();
    if let Some(label) = line.strip_prefix(':') {
        let (label, rest) = label.split_once(|byte: char| byte.is_ascii_whitespace()).unwrap_or((label, ""));
        lines.push(Line { number, label: Some(label.to_owned()), commands: Vec::new() });
        line = rest.trim_start();
    }
    let mut commands = vec![(Joint::Always, Vec::new())];
    for word in line.split_ascii_whitespace().take_while(|word| !word.starts_with('#')) {
        match (word, commands.last_mut()) {
            ("||", _) => commands.push((Joint::Else, Vec::new())),
            ("&&", _) => commands.push((Joint::Then, Vec::new())),
            (";", _) => commands.push((Joint::Always, Vec::new())),
            (word, Some((_, words))) => words.push(word.to_owned()),
            (_, None) => {}
        }
    }
    if commands.len() > 1 || !commands[0].1.is_empty() {
        lines.push(Line { number, label: None, commands });
    }
}
