//! What a menu of GRUB does, on every way through it.
//!
//! As GRUB 2.06 does it in QEMU:
//! - The text is run from top to bottom; the block of an entry is run when the entry is chosen, with what the variables
//!   hold at the end, and the title as `$1`.
//! - A submenu, and a menu that `configfile` goes on to, see only variables that were exported.

use std::collections::{BTreeMap, HashSet};

use super::commands::{State, Way};
use super::default::{Choice, Chosen, chosen};
use super::tree::Statement;
use super::words::{Variables, Word};
use crate::formats::menus::IsThere;
use crate::formats::menus::ways::{Condition, is_open};

/// Ways through a menu that are kept apart; a real menu has few that matter.
const MAX_WAYS: usize = 32;

/// Commands that are run, all ways together, before a file counts as hostile.
const MAX_COMMANDS: usize = 400_000;

/// Bytes of all words of a menu, with the values of variables in them, that are read before it counts as hostile.
const MAX_EXPANDED: usize = 16 << 20;

/// Things to choose that are looked at on ways that are too many.
const MAX_COMPARED: usize = 4 << 20;

/// Functions and submenus inside each other.
const MAX_CALLS: usize = 16;

/// Words that a loop goes through.
const MAX_TURNS: usize = 64;

/// Runs a menu.
pub(super) struct Runner<'a, 't> {
    pub(super) state: State<'a, 't>,
    functions: BTreeMap<&'a str, &'a [Statement]>,
    commands: usize,
    expanded: usize,
    calls: usize,
    /// Things to choose that were looked at because there were too many ways.
    compared: usize,
}

impl<'a, 't> Runner<'a, 't> {
    pub(super) fn new(statements: &'a [Statement], is_there: IsThere<'t>) -> Self {
        let mut state = State::new(is_there);
        state.count(statements);
        Self { state, functions: BTreeMap::new(), commands: 0, expanded: 0, calls: 0, compared: 0 }
    }

    /// Runs a whole menu: its text, and then each of its entries. It is `shown` by itself, or it is a submenu that nobody may
    /// choose; `default` is what stands for the variable of that name.
    pub(super) fn menu(
        &mut self,
        statements: &'a [Statement],
        variables: Variables,
        shown: bool,
        default: Option<&str>,
    ) {
        let outer = self.state.chosen.take();
        let ways = self.run(statements, vec![Way::beginning(variables)]);
        let has_more = ways.len() > 1;
        // What was run already, with the same variables.
        let mut done: Vec<(Variables, BTreeMap<usize, bool>)> = Vec::new();
        let mut said = None;
        for mut way in ways {
            // What is loaded outside of an entry is booted there.
            let numbers = match way.is_over {
                // Whoever leaves shows no menu.
                true => Vec::new(),
                false => std::mem::take(&mut way.choices),
            };
            let choices: Vec<Choice> =
                numbers.iter().map(|number| self.state.choices[*number].clone()).collect();
            let variables = way.variables.clone();
            self.state.push(&mut way);
            let default = default.or_else(|| variables.known.values.get("default").map(String::as_str));
            let chosen = chosen(&choices, default);
            let place = done.iter().position(|(known, _)| *known == variables).unwrap_or_else(|| {
                done.push((variables.clone(), BTreeMap::new()));
                done.len() - 1
            });
            for (number, choice) in choices.iter().enumerate() {
                let inside = match &chosen {
                    Chosen::Entry(at, inside) if *at == number && shown => Some(*inside),
                    _ => None,
                };
                let known = done[place].1.get(&numbers[number]).copied();
                let boots = match known {
                    Some(boots) if inside.is_none() => boots,
                    _ => {
                        self.state.has_others = has_more;
                        self.choose(choice, variables.clone(), inside)
                    }
                };
                done[place].1.insert(numbers[number], boots);
                if inside.is_some() && !boots {
                    said = Some(format!(
                        "the entry that is booted by itself, {:?}, boots no Linux",
                        choice.title
                    ));
                }
            }
            if let (Chosen::Nothing(default), Some(first)) = (&chosen, choices.first()) {
                let first = &first.title;
                said = Some(format!("default names no entry {default:?}: GRUB takes the first, {first:?}"));
            }
        }
        // A menu that goes on has entries elsewhere as well.
        let is_whole =
            !self.state.menu.entries.is_empty() && self.state.menu.continued.is_empty() && outer.is_none();
        if let Some(what) = said.filter(|_| is_whole) {
            self.state.menu.guess(self.state.default_line.unwrap_or(1), what);
        }
        self.state.chosen = outer;
    }

    /// Runs an entry; tells whether it boots something. `inside` is there for the one by default: what it names in a submenu.
    fn choose(&mut self, choice: &Choice, mut variables: Variables, inside: Option<Option<&str>>) -> bool {
        let Some(block) = self.state.blocks.get(&choice.block).copied() else { return true };
        for (number, arg) in std::iter::once(&choice.title).chain(&choice.args).enumerate() {
            variables.set(&(number + 1).to_string(), arg);
        }
        let before = self.state.size();
        self.state.chosen = Some((choice.title.clone(), inside.is_some()));
        if choice.is_submenu {
            if self.calls < MAX_CALLS {
                self.calls += 1;
                self.menu(block, variables.passed_on(), inside.is_some(), inside.flatten());
                self.calls -= 1;
            }
            self.state.chosen = None;
            return true;
        }
        let mut boots = false;
        for mut way in self.run(block, vec![Way::beginning(variables)]) {
            boots |= way.entry.is_some();
            self.state.push(&mut way);
        }
        self.state.chosen = None;
        boots || self.state.size() != before
    }

    /// Runs statements on each of these ways.
    fn run(&mut self, statements: &'a [Statement], mut ways: Vec<Way>) -> Vec<Way> {
        let mut over = Vec::new();
        for statement in statements {
            over.extend(ways.extract_if(.., |way| way.has_left()));
            if ways.is_empty() || self.commands > MAX_COMMANDS {
                break;
            }
            ways = match statement {
                Statement::Command { line, words, block } => {
                    let has_others = self.state.has_others;
                    self.state.has_others |= ways.len() > 1;
                    let next = ways
                        .into_iter()
                        .flat_map(|way| self.command(*line, words, block.as_deref(), way))
                        .collect();
                    self.state.has_others = has_others;
                    next
                }
                Statement::If { arms, otherwise } => self.branch(arms, otherwise, ways),
                Statement::Loop { line, words: Some(words), body, .. } => {
                    self.turns(*line, words, body, ways)
                }
                Statement::Loop { line, words: None, condition, is_until, body } => {
                    self.repeats(*line, condition, *is_until, body, ways)
                }
                Statement::Function { name, body } => {
                    self.functions.insert(name, body);
                    ways
                }
            };
        }
        over.extend(ways);
        over
    }

    fn branch(
        &mut self,
        arms: &'a [(Vec<Statement>, Vec<Statement>)],
        otherwise: &'a [Statement],
        mut ways: Vec<Way>,
    ) -> Vec<Way> {
        let has_others = self.state.has_others;
        let mut done = Vec::new();
        for (condition, body) in arms {
            let mut holds = Vec::new();
            let mut fails = Vec::new();
            let was_asking = std::mem::replace(&mut self.state.is_asking, true);
            let asked = self.run(condition, ways);
            self.state.is_asking = was_asking;
            for mut way in asked {
                match way.variables.known.holds(&way.status) {
                    _ if way.has_left() => done.push(way),
                    Some(true) => holds.push(way),
                    Some(false) => fails.push(way),
                    None => {
                        self.state.has_others = true;
                        let mut other = way.clone();
                        if self.is_asked_again(&way.status) {
                            way.variables.known.take(&way.status.clone(), true);
                            other.variables.known.take(&other.status.clone(), false);
                        }
                        holds.push(way);
                        fails.push(other);
                    }
                }
            }
            done.extend(self.run(body, holds));
            ways = fails;
        }
        done.extend(self.run(otherwise, ways));
        self.state.has_others = has_others;
        self.merge(done)
    }

    /// Tells whether a condition may come again: what is asked once need not be kept.
    fn is_asked_again(&self, condition: &Condition) -> bool {
        let Condition::Open { text, .. } = condition else { return false };
        let names = text.split("${").skip(1).filter_map(|rest| rest.split('}').next());
        names.into_iter().any(|name| self.state.references.get(name).is_some_and(|times| *times > 1))
    }

    /// Makes one of ways that are the same; of too many, keeps the first ones, with all that can be chosen.
    fn merge(&mut self, ways: Vec<Way>) -> Vec<Way> {
        let mut merged: Vec<Way> = Vec::new();
        // What the first of them can choose, once there are too many.
        let mut known: Option<HashSet<usize>> = None;
        for mut way in ways {
            way.status = Condition::Known(true);
            if merged.iter().any(|other| other.chosen == way.chosen && *other == way) {
                continue;
            }
            if merged.len() < MAX_WAYS {
                merged.push(way);
                continue;
            }
            self.state.menu.guess(1, "it has more ways than are read: not every one of them is judged");
            self.compared += way.choices.len();
            if self.compared > MAX_COMPARED {
                continue;
            }
            let known = known.get_or_insert_with(|| merged[0].choices.iter().copied().collect());
            for choice in way.choices {
                if known.insert(choice) {
                    merged[0].offer(choice);
                }
            }
        }
        merged
    }

    /// Runs a `for`.
    fn turns(
        &mut self,
        line: usize,
        words: &'a [Word],
        body: &'a [Statement],
        mut ways: Vec<Way>,
    ) -> Vec<Way> {
        let name = words.first().and_then(Word::text).unwrap_or_default();
        let mut all = Vec::new();
        self.state.loops += 1;
        for way in ways.drain(..) {
            let items: Vec<String> =
                words.iter().skip(2).flat_map(|word| way.variables.expand(word)).collect();
            if items.len() > MAX_TURNS {
                self.state.menu.guess(line, "its loop goes through more than is read");
            }
            let mut turned = vec![way];
            for item in items.iter().take(MAX_TURNS) {
                // What a pattern or a variable stands for, the machine knows.
                let is_known = !is_open(item) && !item.contains(['*', '?']);
                let value = if is_known { item.clone() } else { format!("${{{name}}}") };
                turned.iter_mut().for_each(|way| way.variables.set(name, &value));
                turned = self.run(body, turned);
                all.extend(turned.extract_if(.., |way| !has_next_turn(way)));
                if turned.is_empty() {
                    break;
                }
            }
            all.extend(turned);
        }
        self.state.loops -= 1;
        all.iter_mut().for_each(leave_loop);
        self.merge(all)
    }

    /// Runs a `while` or an `until`.
    fn repeats(
        &mut self,
        line: usize,
        condition: &'a [Statement],
        is_until: bool,
        body: &'a [Statement],
        mut ways: Vec<Way>,
    ) -> Vec<Way> {
        let mut all = Vec::new();
        self.state.loops += 1;
        for _ in 0..MAX_TURNS {
            let mut turned = Vec::new();
            for mut way in self.run(condition, ways) {
                match way.variables.known.holds(&way.status).map(|holds| holds != is_until) {
                    _ if way.has_left() => all.push(way),
                    Some(true) => turned.push(way),
                    Some(false) => all.push(way),
                    // How often, the machine knows: never, or once and what then holds is open.
                    None => {
                        all.push(way.clone());
                        way.variables.are_open = true;
                        all.extend(self.run(body, vec![way]));
                    }
                }
            }
            ways = self.run(body, turned);
            all.extend(ways.extract_if(.., |way| !has_next_turn(way)));
            ways = self.merge(ways);
            if ways.is_empty() {
                break;
            }
        }
        if !ways.is_empty() {
            self.state.menu.guess(line, "its loop has more turns than are read");
        }
        self.state.loops -= 1;
        all.extend(ways);
        all.iter_mut().for_each(leave_loop);
        self.merge(all)
    }

    /// Runs one command on one way.
    fn command(
        &mut self,
        line: usize,
        words: &'a [Word],
        block: Option<&'a [Statement]>,
        way: Way,
    ) -> Vec<Way> {
        self.commands += 1;
        if self.commands == MAX_COMMANDS {
            self.state
                .menu
                .problem(line, "it has more commands than any real menu; what follows is not read");
        }
        let mut expanded = Vec::new();
        for word in words {
            let is_within = self.expanded <= MAX_EXPANDED;
            if is_within {
                let words = way.variables.expand(word);
                self.expanded += words.iter().map(|word| word.len() + 1).sum::<usize>();
                expanded.extend(words);
            }
            if is_within && self.expanded > MAX_EXPANDED {
                self.state
                    .menu
                    .problem(line, "its words are more than any real menu's; what follows is not read");
            }
        }
        if self.expanded > MAX_EXPANDED {
            return vec![way];
        }
        // "! COMMAND" works where the command fails (`grub_script_execute_cmdline`).
        let is_negated = expanded.first().is_some_and(|word| word == "!");
        let Some((name, args)) = expanded[usize::from(is_negated)..].split_first() else { return vec![way] };
        let mut ways = self.invoke(line, name, args, block, way);
        if is_negated {
            ways.iter_mut().for_each(|way| way.status = way.status.clone().not());
        }
        ways
    }

    /// Runs a function of the menu, or a command.
    fn invoke(
        &mut self,
        line: usize,
        name: &str,
        args: &[String],
        block: Option<&'a [Statement]>,
        mut way: Way,
    ) -> Vec<Way> {
        if let Some(body) = self.functions.get(name).copied() {
            return self.call(body, args, way);
        }
        self.state.execute(line, name, args, block, &mut way);
        vec![way]
    }

    fn call(&mut self, body: &'a [Statement], args: &[String], mut way: Way) -> Vec<Way> {
        if self.calls >= MAX_CALLS {
            return vec![way];
        }
        let positional = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let before = way.variables.known.take_out(positional);
        for (number, arg) in args.iter().enumerate() {
            way.variables.set(&(number + 1).to_string(), arg);
        }
        self.calls += 1;
        let mut ways = self.run(body, vec![way]);
        self.calls -= 1;
        for way in &mut ways {
            way.is_over = false;
            way.variables.known.take_out(positional);
            before.iter().for_each(|(name, value)| way.variables.set(name, value));
        }
        ways
    }
}

/// Tells whether a way goes on with the next turn of a loop that it is in.
fn has_next_turn(way: &mut Way) -> bool {
    if way.leaves == 1 && way.goes_on {
        (way.leaves, way.goes_on) = (0, false);
    }
    !way.has_left()
}

/// Takes a way out of a loop.
fn leave_loop(way: &mut Way) {
    way.leaves = way.leaves.saturating_sub(1);
}
