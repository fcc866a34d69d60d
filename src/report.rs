//! Turns what happens into what people and programs read.
//!
//! On a terminal: one line for each running node, with bytes and rate for long ones, and a line for each
//! that ended. In a pipe: plain lines. With `--json`: the events themselves.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use graph::Event;
use graph::NodeName;
use graph::build::{Built, Outcome};
use graph::explain::Reason;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::publish::Published;

/// Columns for the names of nodes, where none is longer.
const NAME: usize = 16;

/// What to print.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Events as JSON, and nothing else.
    pub json: bool,
    /// What tools print, as well.
    pub verbose: bool,
}

/// The line of a running node on the terminal.
struct Bar {
    bar: ProgressBar,
    /// What it is doing.
    doing: String,
}

/// Prints what happens.
pub struct Reporter {
    style: Style,
    progress: Option<MultiProgress>,
    bars: Mutex<BTreeMap<NodeName, Bar>>,
    /// What was told of nodes that failed.
    failures: Mutex<Vec<String>>,
    /// How wide names of nodes have been.
    width: std::sync::atomic::AtomicUsize,
    /// Why something could not be printed.
    lost: Mutex<Option<std::io::Error>>,
}

impl Reporter {
    /// Prints to the terminal, or to whatever standard output is.
    pub fn new(style: Style) -> Self {
        let terminal = std::io::stderr().is_terminal() && !style.json;
        Self {
            style,
            progress: terminal.then(MultiProgress::new),
            bars: Mutex::default(),
            failures: Mutex::default(),
            width: NAME.into(),
            lost: Mutex::default(),
        }
    }

    /// Returns a name with blanks behind it, so that what follows stands in a column.
    fn padded(&self, node: &NodeName) -> String {
        let width = self.width.fetch_max(node.as_str().len(), std::sync::atomic::Ordering::Relaxed);
        format!("{node:<0$}", width.max(node.as_str().len()))
    }

    /// Prints a line for people.
    pub fn say(&self, line: &str) {
        if self.style.json {
            return;
        }
        match &self.progress {
            Some(progress) => progress.suspend(|| self.print(line)),
            None => self.print(line),
        }
    }

    /// Prints a line for people, or the same for programs.
    pub fn tell(&self, line: &str, json: &serde_json::Value) {
        match self.style.json {
            true => self.print(&json.to_string()),
            false => self.say(line),
        }
    }

    /// Takes in an event.
    pub fn event(&self, event: Event) {
        if self.style.json {
            if let Ok(text) = serde_json::to_string(&event) {
                // One write a line, so that lines of several threads do not mix.
                self.print(&text);
            }
            return;
        }
        match event {
            Event::Planned { .. } => {}
            Event::Started { node, reason, .. } => self.started(&node, &reason.to_string()),
            Event::Progress { node, doing, done, total } => self.advance(&node, &doing, done, total),
            Event::Output { node, line } if self.style.verbose => {
                self.say(&format!("{node}| {}", plain(&line)));
            }
            Event::Output { node, line } => self.show(&node, &line),
            // It may be of a result that came from elsewhere.
            Event::Remark { node, text } => self.say(&format!("note: {node}: {}", shown(&text))),
            Event::Finished { node, reason, milliseconds, .. } => {
                self.end(&node);
                let how = match milliseconds {
                    Some(milliseconds) => {
                        format!("built   {:>7.1} s  {reason}", milliseconds as f64 / 1000.0)
                    }
                    None if matches!(reason, Reason::Fetched { .. }) => reason.to_string(),
                    None => "cached".to_owned(),
                };
                self.say(&format!("  {} {how}", self.padded(&node)));
            }
            Event::Failed { node, causes, hint, log } => {
                self.end(&node);
                // The last lines of a tool are among them.
                let causes = causes.join(": ").lines().map(plain).collect::<Vec<_>>().join("\n");
                let mut text = format!("error: {node}: {causes}");
                if let Some(hint) = hint {
                    text.push_str(&format!("\n  hint: {hint}"));
                }
                if let Some(log) = log {
                    text.push_str(&format!("\n  log: {}", log.display()));
                }
                self.complain(&text);
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            Event::Skipped { node, because } => {
                self.say(&format!("  {} skipped, because {because} failed", self.padded(&node)))
            }
        }
    }

    /// Prints a line. A reader that went away is no failure.
    fn print(&self, line: &str) {
        let written = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Returns what was told of nodes that failed.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns why something that was to be printed is lost.
    pub fn lost(&self) -> Option<String> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.as_ref().map(ToString::to_string)
    }

    fn complain(&self, text: &str) {
        match &self.progress {
            Some(progress) => progress.suspend(|| drop(writeln!(std::io::stderr(), "{text}"))),
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    fn bars(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeName, Bar>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, node: &NodeName, reason: &str) {
        let Some(progress) = &self.progress else {
            self.print(&format!("  {} running          {reason}", self.padded(node)));
            return;
        };
        let bar = progress.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:16} {elapsed:>4} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(node.to_string());
        bar.set_message(reason.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bars().insert(node.clone(), Bar { bar, doing: reason.to_owned() });
    }

    fn advance(&self, node: &NodeName, doing: &str, done: u64, total: Option<u64>) {
        let mut bars = self.bars();
        let Some(Bar { bar, doing: shown }) = bars.get_mut(node) else { return };
        *shown = match total {
            Some(total) if total > 0 => {
                let seconds = bar.elapsed().as_secs_f64().max(0.1);
                let rate = HumanBytes((done as f64 / seconds) as u64);
                let (done, total, percent) = (HumanBytes(done), HumanBytes(total), done * 100 / total);
                format!("{doing}: {percent:>3} %  {done} of {total}, {rate}/s")
            }
            _ => doing.to_owned(),
        };
        bar.set_message(shown.clone());
    }

    /// Shows the last line that a node's tool printed, behind what the node is doing; the terminal's width cuts it.
    fn show(&self, node: &NodeName, line: &str) {
        let line = plain(line).trim().to_owned();
        if let Some(Bar { bar, doing }) = self.bars().get(node).filter(|_| !line.is_empty()) {
            bar.set_message(format!("{doing}: {line}"));
        }
    }

    fn end(&self, node: &NodeName) {
        if let Some(Bar { bar, .. }) = self.bars().remove(node) {
            bar.finish_and_clear();
        }
    }

    /// Sums up a build in one line.
    pub fn finish(&self, built: &Built) {
        let count = |wanted: &dyn Fn(&Outcome) -> bool| built.nodes.values().filter(|o| wanted(o)).count();
        let ran = |outcome: &Outcome| matches!(outcome, Outcome::Done(done) if done.ran);
        let is_fetched = |outcome: &Outcome| matches!(outcome, Outcome::Done(done) if !done.ran && matches!(done.reason, Reason::Fetched { .. }));
        let cached =
            count(&|outcome| matches!(outcome, Outcome::Done(done) if !done.ran && !is_fetched(outcome)));
        let fetched = count(&is_fetched);
        let mut parts = Vec::new();
        if cached > 0 {
            parts.push(format!("{cached} cached"));
        }
        if fetched > 0 {
            parts.push(format!("{fetched} fetched"));
        }
        let built_count = count(&ran);
        if built_count > 0 {
            parts.push(format!("{built_count} built ({})", why(built, built_count)));
        }
        for (name, wanted) in [("failed", 0), ("skipped", 1), ("stopped", 2)] {
            let number = count(&|outcome| match outcome {
                Outcome::Failed(_) => wanted == 0,
                Outcome::Skipped(_) => wanted == 1,
                Outcome::Stopped => wanted == 2,
                Outcome::Done(_) => false,
            });
            if number > 0 {
                parts.push(format!("{number} {name}"));
            }
        }
        let all = built.nodes.len();
        let nodes = if all == 1 { "node" } else { "nodes" };
        self.say(&format!("{all} {nodes}: {}", parts.join(", ")));
    }

    /// Says what was published where.
    pub fn published(&self, folder: &Path, published: &Published) {
        let (count, folder) = (published.files.len(), folder.display());
        if self.style.json {
            let event = serde_json::json!({
                "event": "published", "folder": folder.to_string(), "files": published.files,
                "unchanged": published.unchanged, "unsigned": published.unsigned,
            });
            return self.print(&event.to_string());
        }
        if !published.unsigned.is_empty() {
            let names = published.unsigned.join(", ");
            self.say(&format!("signatures are gone: what they were on changed: {names}; sign it again"));
        }
        if published.unchanged {
            self.say(&format!("published: {folder}/ ({count} files, unchanged)"));
        } else {
            self.say(&format!("published: {folder}/ ({count} files)"));
        }
        for name in
            published.files.keys().filter(|name| name.ends_with(".iso") || name.ends_with("/boot.ipxe"))
        {
            self.say(&format!("    {folder}/{name}"));
        }
    }
}

/// Returns what a terminal would show of a text: nothing in it begins a line of its own, moves, colours or asks the terminal.
pub fn shown(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n    ")
}

/// Returns what a terminal would show of a line that a tool printed: what came after its last carriage return, without the
/// sequences (ECMA-48) that would move, colour or ask the terminal.
fn plain(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or_default();
    let mut shown = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // A control sequence ends in a letter or its like, a string (a title, say) in BEL or in ESC \\.
            '\u{1b}' => match chars.next() {
                Some('[') => skip(&mut chars, |c| ('@'..='~').contains(&c)),
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    skip(&mut chars, |c| matches!(c, '\u{7}' | '\u{1b}'));
                    chars.next_if_eq(&'\\');
                }
                _ => {}
            },
            '\t' => shown.push(' '),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

/// Goes on to behind the first character that ends something.
fn skip(chars: &mut impl Iterator<Item = char>, ends: impl Fn(char) -> bool) {
    for c in chars {
        if ends(c) {
            break;
        }
    }
}

/// Sums up why nodes ran: those that ran for a reason of their own, and how many only because of them.
fn why(built: &Built, count: usize) -> String {
    let reasons: Vec<(&NodeName, &Reason)> = built
        .nodes
        .iter()
        .filter_map(|(node, outcome)| match outcome {
            Outcome::Done(done) if done.ran => Some((node, &done.reason)),
            _ => None,
        })
        .collect();
    if reasons.iter().all(|(_, reason)| **reason == Reason::First) {
        return "for the first time".to_owned();
    }
    if reasons.iter().all(|(_, reason)| **reason == Reason::Check) {
        return "to compare; all gave the same".to_owned();
    }
    let is_own = |reason: &Reason| match reason {
        Reason::Changed(changes) => changes.iter().any(|c| c.kind != "input" && c.kind != "provenance"),
        _ => true,
    };
    let own: Vec<_> = reasons.iter().filter(|(_, reason)| is_own(reason)).collect();
    let mut parts: Vec<_> =
        own.iter().take(3).map(|(node, reason)| format!("{node} because {reason}")).collect();
    if own.len() > 3 {
        parts.push(format!("{} more, see `stagegraph why`", own.len() - 3));
    }
    if count > own.len() {
        parts.push(format!("{} more depend on it", count - own.len()));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_prints_cannot_move_or_ask_the_terminal() {
        for (line, shown) in [
            ("Setting up libc6 (2.36) ...", "Setting up libc6 (2.36) ..."),
            ("\tI: \u{1b}[1;32mgreen\u{1b}[0m\ttext", " I: green text"),
            ("10 %\r50 %\r100 %", "100 %"),
            ("100 %\r", "100 %"),
            ("\u{1b}]0;a title\u{7}after", "after"),
            ("\u{1b}]52;c;cm0=\u{1b}\\after", "after"),
            ("a\u{8}\u{7f}\u{9b}31mb", "a31mb"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(plain(line), shown, "{line:?}");
        }
    }
}
