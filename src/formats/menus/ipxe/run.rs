//! Runs a script of iPXE on every way through it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::commands::{Commands, Effect, Way};
use super::lines::{Joint, Line};
use crate::formats::menus::ways::{Known, is_open};
use crate::formats::menus::{Handed, Menu};

/// Commands that are run, all ways together, and ways that wait, before a script counts as hostile.
const MAX_COMMANDS: usize = 200_000;
const MAX_WAITING: usize = 4_096;

/// Bytes of the variables on all ways that wait.
const MAX_BYTES: usize = 64 << 20;

/// Commands that load a file.
const LOADS: [&str; 6] = ["kernel", "initrd", "module", "imgfetch", "imgget", "chain"];

/// Runs a script.
pub(super) struct Runner<'a> {
    commands: Commands,
    lines: &'a [Line],
    labels: &'a BTreeMap<&'a str, usize>,
    waiting: Vec<Way>,
    /// Ways on which something failed: they go last, and to nothing that the others come to.
    failed: Vec<Way>,
    /// Lines of labels that ways come to on which nothing failed.
    reached: BTreeSet<usize>,
    /// Ways that were begun already.
    seen: HashSet<u64>,
    /// Bytes of the variables on ways that wait.
    bytes: usize,
}

impl<'a> Runner<'a> {
    pub(super) fn new(menu: Menu, lines: &'a [Line], labels: &'a BTreeMap<&'a str, usize>) -> Self {
        Self {
            commands: Commands::new(menu),
            lines,
            labels,
            waiting: Vec::new(),
            failed: Vec::new(),
            reached: BTreeSet::new(),
            seen: HashSet::new(),
            bytes: 0,
        }
    }

    /// Runs the script from its beginning.
    pub(super) fn run(mut self, handed: &Handed) -> Menu {
        self.waiting.push(Way {
            line: 0,
            command: 0,
            worked: true,
            has_failed: false,
            known: Known::of(handed.clone()),
            label: String::new(),
            kernel: None,
            images: Vec::new(),
            items: Vec::new(),
        });
        let mut commands = 0;
        while let Some(mut way) = self.waiting.pop().or_else(|| self.failed.pop()) {
            self.bytes = self.bytes.saturating_sub(way.known.bytes());
            loop {
                commands += 1;
                let waiting = self.waiting.len() + self.failed.len();
                if commands > MAX_COMMANDS || waiting > MAX_WAITING || self.bytes > MAX_BYTES {
                    self.commands
                        .menu
                        .guess(1, "it has more ways than are read: not every one of them is judged");
                    self.waiting.clear();
                    self.failed.clear();
                    break;
                }
                match self.step(way) {
                    Some(next) => way = next,
                    None => break,
                }
            }
        }
        self.commands.finish()
    }

    /// Takes a way one command further; `None` where it ends, or waits.
    fn step(&mut self, mut way: Way) -> Option<Way> {
        let lines = self.lines;
        let Some(line) = lines.get(way.line) else {
            self.commands.end(way);
            return None;
        };
        if let Some(label) = &line.label {
            label.clone_into(&mut way.label);
            if !way.has_failed {
                self.reached.insert(way.line);
            } else if self.reached.contains(&way.line) {
                return None;
            }
            return self.is_new(&way).then(|| next_line(way));
        }
        let Some((joint, words)) = line.commands.get(way.command) else {
            // A line that fails ends the script.
            return way.worked.then(|| next_line(way));
        };
        let is_skipped = match joint {
            Joint::Always => false,
            Joint::Then => !way.worked,
            Joint::Else => way.worked,
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        way.command += 1;
        if is_skipped {
            return Some(way);
        }
        if words.is_empty() {
            way.worked = true;
            return Some(way);
        }
        if gives_default(&words, line.commands.get(way.command), &way) {
            way.worked = false;
            return Some(way);
        }
        if let Some(name) = asks_for(&words, line.commands.get(way.command), &way) {
            way.known.values.insert(name.to_owned(), format!("${{{name}}}"));
        }
        // Failing makes a difference where another command comes next.
        let may_fail = line.commands[way.command..].iter().any(|(_, words)| !words.is_empty());
        // "iseq a b && kernel x || kernel y" means y for what is not the same, not for an x that is not there.
        let is_meant = *joint == Joint::Then && LOADS.contains(&words[0]);
        let may_fail = may_fail && !is_meant;
        let before = may_fail.then(|| way.clone());
        let effect = self.commands.run(line.number, &words, &mut way);
        self.part(effect, LOADS.contains(&words[0]), way, before)
    }

    /// Parts a way by what a command does to it; `failed` is the way on which it fails, where that makes a difference.
    fn part(&mut self, effect: Effect, loads: bool, mut way: Way, failed: Option<Way>) -> Option<Way> {
        let failed = failed.map(|failed| Way { worked: false, ..failed });
        match effect {
            Effect::Works => way.worked = true,
            Effect::If(condition) => {
                let holds = way.known.holds(&condition);
                way.worked = holds.unwrap_or(true);
                match (holds, failed) {
                    (None, Some(mut failed)) => {
                        failed.has_failed |= loads;
                        way.known.take(&condition, true);
                        failed.known.take(&condition, false);
                        self.wait(failed);
                    }
                    (Some(false), Some(failed)) => return Some(failed),
                    _ => {}
                }
            }
            Effect::Chooses(variable, values) => {
                self.wait_failed(failed);
                way.items.clear();
                // The last one that waits goes first.
                for value in values.into_iter().rev() {
                    let mut chosen = way.clone();
                    chosen.worked = true;
                    chosen.known.set(&variable, &value);
                    self.wait(chosen);
                }
                return None;
            }
            Effect::Goes(label) => return self.go_to(&label, way),
            Effect::Boots => {
                self.wait_failed(failed);
                return None;
            }
            Effect::Ends => return None,
        }
        Some(way)
    }

    fn wait_failed(&mut self, failed: Option<Way>) {
        if let Some(failed) = failed {
            self.wait(Way { has_failed: true, ..failed });
        }
    }

    fn is_new(&mut self, way: &Way) -> bool {
        let mut hasher = DefaultHasher::new();
        way.hash(&mut hasher);
        self.seen.insert(hasher.finish())
    }

    fn wait(&mut self, way: Way) {
        if self.is_new(&way) {
            self.bytes += way.known.bytes();
            let queue = if way.has_failed { &mut self.failed } else { &mut self.waiting };
            queue.push(way);
        }
    }

    fn go_to(&mut self, label: &str, mut way: Way) -> Option<Way> {
        (way.worked, way.command) = (true, 0);
        if is_open(label) {
            // Only the machine knows which: it may be any.
            for at in self.labels.values().rev() {
                way.line = *at;
                self.wait(way.clone());
            }
            return None;
        }
        way.line = *self.labels.get(label)?;
        Some(way)
    }
}

/// Tells of `isset ${name} || set name value` whether the script's own value is the one that is judged: that of a setting which
/// the machine may have is not known.
fn gives_default(words: &[&str], next: Option<&(Joint, Vec<String>)>, way: &Way) -> bool {
    let (["isset", asked], Some((Joint::Else, next))) = (words, next) else { return false };
    let name = asked.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    matches!(&next[..], [command, set, ..] if command == "set" && set.split(':').next() == Some(name))
        && !way.known.values.contains_key(name)
}

/// Returns the name of a setting that a script cannot do without and does not set, as in `isset ${name} || goto failed`: one before it
/// is to, and then only the machine knows what it is.
fn asks_for<'a>(words: &[&'a str], next: Option<&(Joint, Vec<String>)>, way: &Way) -> Option<&'a str> {
    let (["isset", asked], Some((Joint::Else, next))) = (words, next) else { return None };
    let name = asked.strip_prefix("${")?.strip_suffix('}')?;
    let goes = matches!(&next[..], [command, ..] if command == "goto");
    (goes && !way.known.values.contains_key(name)).then_some(name)
}

fn next_line(way: Way) -> Way {
    Way { line: way.line + 1, command: 0, worked: true, ..way }
}
