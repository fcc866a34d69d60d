//! The commands of GRUB that say what is booted.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::default::Choice;
use super::test::{self, device_less};
use super::tree::Statement;
use super::words::{Variables, Word};
use crate::formats::menus::ways::{Condition, MANY_VARIABLES, MAX_HANDED, is_open};
use crate::formats::menus::{
    By, Continued, Entry, IsThere, Loaded, MAX_ENTRIES, Menu, Named, Role, Searched,
};

/// Commands that go on to another menu.
const GO_ON: [&str; 4] = ["configfile", "normal", "source", "."];

/// Commands that start nothing.
const HARMLESS: [&str; 16] = [
    "background_image",
    "clear",
    "cpuid",
    "export",
    "gfxmode",
    "hdparm",
    "keymap",
    "loadfont",
    "play",
    "rmmod",
    "serial",
    "sleep",
    "terminal_input",
    "terminal_output",
    "videoinfo",
    "cat",
];

/// One way through the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) variables: Variables,
    /// Whether the last command worked.
    pub(super) status: Condition,
    /// What is loaded.
    pub(super) entry: Option<Entry>,
    /// What was looked for since the entry began.
    pub(super) searched: Vec<Searched>,
    /// It left the menu, or the function.
    pub(super) is_over: bool,
    /// Loops that it leaves, but that it goes on with the next turn of the last one.
    pub(super) leaves: usize,
    pub(super) goes_on: bool,
    /// What can be chosen: numbers of [`State::choices`].
    pub(super) choices: Vec<usize>,
    /// A hash of them: two ways mostly differ in it.
    pub(super) chosen: u64,
}

impl Way {
    /// Tells whether what stands next is not run.
    pub(super) fn has_left(&self) -> bool {
        self.is_over || self.leaves > 0
    }

    /// Takes in one more thing to choose.
    pub(super) fn offer(&mut self, choice: usize) {
        self.choices.push(choice);
        let mut hasher = DefaultHasher::new();
        (self.chosen, choice).hash(&mut hasher);
        self.chosen = hasher.finish();
    }

    pub(super) fn beginning(variables: Variables) -> Self {
        Self {
            variables,
            status: Condition::Known(true),
            entry: None,
            searched: Vec::new(),
            is_over: false,
            leaves: 0,
            goes_on: false,
            choices: Vec::new(),
            chosen: 0,
        }
    }
}

/// What the commands of a menu come to.
pub(super) struct State<'a, 't> {
    pub(super) menu: Menu,
    pub(super) is_there: IsThere<'t>,
    /// The line that sets `default`.
    pub(super) default_line: Option<usize>,
    /// Whether there are other ways than the one that is being gone.
    pub(super) has_others: bool,
    /// Whether a condition is being run: what it looks for may be missing.
    pub(super) is_asking: bool,
    /// The entry that is being run: its title, and whether it is the one by default.
    pub(super) chosen: Option<(String, bool)>,
    /// The blocks of entries and submenus, by where they are.
    pub(super) blocks: BTreeMap<usize, &'a [Statement]>,
    /// How often each variable is asked for: what nobody asks for parts no ways.
    pub(super) references: BTreeMap<&'a str, usize>,
    /// Whether another menu may ask for any variable.
    goes_on: bool,
    /// Where each entry is that is known.
    known: BTreeMap<Entry, usize>,
    /// All that can be chosen on any way, and where each is.
    pub(super) choices: Vec<Choice>,
    places: BTreeMap<Choice, usize>,
    /// Bytes of what is handed to other menus.
    handed: usize,
    /// Loops that are being run.
    pub(super) loops: usize,
}

impl<'a, 't> State<'a, 't> {
    pub(super) fn new(is_there: IsThere<'t>) -> Self {
        Self {
            menu: Menu::default(),
            is_there,
            default_line: None,
            has_others: false,
            is_asking: false,
            chosen: None,
            blocks: BTreeMap::new(),
            references: BTreeMap::new(),
            goes_on: false,
            known: BTreeMap::new(),
            choices: Vec::new(),
            places: BTreeMap::new(),
            handed: 0,
            loops: 0,
        }
    }

    /// Tells how much there is so far: something was taken in where it is more.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.menu.entries.len(), self.menu.continued.len())
    }

    /// Counts what variables are asked for.
    pub(super) fn count(&mut self, statements: &'a [Statement]) {
        for statement in statements {
            match statement {
                Statement::Command { words, block, .. } => {
                    let name = words.first().and_then(Word::text).unwrap_or_default();
                    self.goes_on |= GO_ON.contains(&name);
                    if name != "echo" {
                        self.ask(words);
                    }
                    self.count(block.as_deref().unwrap_or_default());
                }
                Statement::If { arms, otherwise } => {
                    for (condition, body) in arms {
                        self.count(condition);
                        self.count(body);
                    }
                    self.count(otherwise);
                }
                Statement::Loop { words, condition, body, .. } => {
                    self.ask(words.as_deref().unwrap_or_default());
                    self.count(condition);
                    self.count(body);
                }
                Statement::Function { body, .. } => self.count(body),
            }
        }
    }

    fn ask(&mut self, words: &'a [Word]) {
        for name in words.iter().flat_map(Word::variables) {
            *self.references.entry(name).or_default() += 1;
        }
    }

    /// Tells whether a variable's value is of any interest.
    pub(super) fn is_asked_for(&self, name: &str) -> bool {
        self.goes_on || name == "default" || self.references.contains_key(name)
    }

    /// Takes in something to choose.
    fn offer(
        &mut self,
        way: &mut Way,
        line: usize,
        args: &[String],
        block: &'a [Statement],
        is_submenu: bool,
    ) {
        let place = block.as_ptr().addr();
        self.blocks.insert(place, block);
        if way.choices.len() < MAX_ENTRIES {
            let choice = Choice::of(line, args, place, is_submenu);
            let number = match self.places.get(&choice) {
                Some(number) => *number,
                None => {
                    self.choices.push(choice.clone());
                    self.places.insert(choice, self.choices.len() - 1);
                    self.choices.len() - 1
                }
            };
            way.offer(number);
        }
    }

    /// Ends the entry that is open on a way, if one is.
    pub(super) fn push(&mut self, way: &mut Way) {
        let Some(mut entry) = way.entry.take() else { return };
        let is_default = self.chosen.as_ref().is_some_and(|(_, is_default)| *is_default);
        entry.is_default = false;
        let next = self.menu.entries.len();
        if let Some(at) = self.known.get(&entry) {
            self.menu.entries[*at].is_default |= is_default;
        } else if next < MAX_ENTRIES {
            self.known.insert(entry.clone(), next);
            entry.is_default = is_default;
            self.menu.entries.push(entry);
        }
    }

    /// Returns the title of the entry that is being run; nothing outside of one.
    fn title(&self) -> Option<&str> {
        self.chosen.as_ref().map(|(title, _)| title.as_str())
    }

    /// Runs a command that is no function of the menu.
    pub(super) fn execute(
        &mut self,
        line: usize,
        command: &str,
        args: &[String],
        block: Option<&'a [Statement]>,
        way: &mut Way,
    ) {
        way.status = Condition::Any;
        match command {
            "menuentry" | "submenu" => {
                way.status = Condition::Known(true);
                self.offer(way, line, args, block.unwrap_or_default(), command == "submenu");
            }
            "set" => {
                way.status = Condition::Known(true);
                if let Some((name, value)) = args.first().and_then(|word| word.split_once('=')) {
                    self.set(line, name, value, way);
                }
            }
            "unset" => {
                way.status = Condition::Known(true);
                if let Some(name) = args.first() {
                    self.set(line, name, "", way);
                }
            }
            "export" => {
                way.status = Condition::Known(true);
                way.variables.exported.extend(args.iter().cloned());
            }
            "true" | "echo" | "insmod" => way.status = Condition::Known(true),
            "false" => way.status = Condition::Known(false),
            "test" => way.status = test::condition(args, self.is_there),
            "[" => {
                let inside = args.split_last().map_or(args, |(_, inside)| inside);
                way.status = test::condition(inside, self.is_there);
            }
            "exit" | "halt" | "reboot" | "return" | "fwsetup" => way.is_over = true,
            "break" | "continue" if self.loops > 0 => {
                way.leaves = args.first().and_then(|levels| levels.parse().ok()).unwrap_or(1).max(1);
                way.goes_on = command == "continue";
                way.status = Condition::Known(true);
            }
            "shift" => {
                let by = args.first().and_then(|places| places.parse::<usize>().ok()).unwrap_or(1);
                way.variables.shift(by);
                way.status = Condition::Known(true);
            }
            // Each of them takes the place of what was loaded before (`grub_loader_set`).
            "chainloader" | "multiboot" | "multiboot2" | "xnu_kernel" | "freedos" | "ntldr" | "kfreebsd"
            | "knetbsd" | "kopenbsd" | "plan9" | "truecrypt" | "legacy_kernel" | "xen_hypervisor" => {
                way.entry = None;
                // The first sector of a disk is none of ours.
                let is_disk = |arg: &String| arg.starts_with("(hd") || arg.starts_with('+');
                self.menu.leads_elsewhere |= !args.iter().any(is_disk);
            }
            // Each of them sets variables from what is on the machine.
            "load_env" | "probe" | "regexp" | "smbios" | "read" | "rdmsr" | "cpuid" => {
                way.variables.are_open = true;
            }
            "linux" | "linux16" | "linuxefi" => self.kernel(line, command, args, way),
            "initrd" | "initrd16" | "initrdefi" => self.initrd(line, command, args, way),
            "search" => self.search(line, args, way),
            "blscfg" => self.menu.takes_entries = Some(line),
            _ if GO_ON.contains(&command) => self.go_on(line, command, args, way),
            // GRUB takes a command of no such name for an assignment.
            _ => {
                if let Some((name, value)) = command.split_once('=') {
                    way.status = Condition::Known(true);
                    self.set(line, name, value, way);
                } else {
                    self.menu.leads_elsewhere |= !HARMLESS.contains(&command);
                }
            }
        }
    }

    fn set(&mut self, line: usize, name: &str, value: &str, way: &mut Way) {
        if name == "default" {
            self.default_line = Some(line);
        }
        if self.is_asked_for(name) {
            way.variables.set(name, value);
        }
    }

    /// Takes in a menu in another file. One that is read in between has the variables of this one, and may set others; one
    /// that is gone on to has those that were exported.
    fn go_on(&mut self, line: usize, command: &str, args: &[String], way: &mut Way) {
        let Some(path) = args.first() else { return };
        let file = Named { line, form: device_less(path), role: Role::Next };
        let variables =
            if command == "configfile" { way.variables.passed_on() } else { way.variables.clone() };
        self.handed += variables.known.bytes();
        let includes =
            command != "configfile" && self.title().is_none() && !self.is_asking && !self.has_others;
        let next = Continued { file, handed: variables.known.values, program: None, includes };
        if self.handed > MAX_HANDED {
            self.menu.guess(line, MANY_VARIABLES);
        } else if !self.menu.continued.contains(&next) {
            self.menu.continued.push(next);
        }
        if command != "configfile" {
            way.variables.are_open = true;
        }
    }

    fn kernel(&mut self, line: usize, command: &str, args: &[String], way: &mut Way) {
        self.push(way);
        self.add_searched(way);
        let [kernel, rest @ ..] = args else {
            return self.menu.problem(line, format!("{command} names no kernel"));
        };
        way.entry = Some(Entry {
            title: self.title().unwrap_or_default().to_owned(),
            line,
            kernel: Named { line, form: device_less(kernel), role: Role::Kernel },
            initrds: Vec::new(),
            words: rest.to_vec(),
            is_default: false,
        });
    }

    fn initrd(&mut self, line: usize, command: &str, args: &[String], way: &mut Way) {
        let Some(entry) = &mut way.entry else {
            let what = format!("{command} stands before any kernel");
            // Where only some ways have no kernel, the machine may never go them.
            match self.has_others {
                true => self.menu.guess(line, what),
                false => self.menu.problem(line, what),
            }
            return;
        };
        // Each of these commands begins anew (`grub_cmd_initrd`; seen in QEMU).
        entry.initrds.clear();
        for word in args {
            let (inside, path) = match word.strip_prefix("newc:").and_then(|rest| rest.split_once(':')) {
                Some((inside, path)) => (Some(format!("/{}", inside.trim_start_matches('/'))), path),
                None => (None, word.as_str()),
            };
            let role = if inside.is_some() { Role::Injected } else { Role::Initrd };
            let file = Named { line, form: device_less(path), role };
            entry.initrds.push(Loaded { file, inside, makes_folders: usize::MAX, called: None });
        }
    }

    /// Takes in `search`: of its words, the first that is neither an option nor the value of one is what it looks for.
    fn search(&mut self, line: usize, args: &[String], way: &mut Way) {
        let mut by = By::File;
        let (mut value, mut variable) = (None, "root");
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--label" | "-l" => by = By::Label,
                "--fs-uuid" | "-u" => by = By::Uuid,
                "--set" | "-s" => {
                    variable = args.next_if(|next| !next.starts_with('-')).map_or("root", String::as_str);
                }
                hint if hint == "-h" || hint.starts_with("--hint") && !hint.contains('=') => {
                    let _device = args.next();
                }
                option if option.starts_with('-') => {
                    variable = option.strip_prefix("--set=").unwrap_or(variable);
                }
                _ if value.is_none() => value = Some(arg.clone()),
                _ => {}
            }
        }
        // "search --set root --label X" names the variable behind the option.
        if self.is_asked_for(variable) {
            way.variables.set(variable, &format!("${{{variable}}}"));
        }
        let Some(value) = value else { return };
        if by == By::File && !is_open(&value) {
            way.status = (self.is_there)(&value).map_or(Condition::Any, Condition::Known);
        }
        if self.is_asking {
            return;
        }
        way.searched.push(Searched { line, by, value });
        // What an entry looks for counts if it boots a kernel: others start the disk, or another loader.
        if self.title().is_none() || way.entry.is_some() {
            self.add_searched(way);
        }
    }

    fn add_searched(&mut self, way: &mut Way) {
        for searched in way.searched.drain(..) {
            if !self.menu.searched.contains(&searched) {
                self.menu.searched.push(searched);
            }
        }
    }
}
