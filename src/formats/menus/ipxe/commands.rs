//! The commands of iPXE: what each does on a way through a script.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::MAX_TEXT;
use super::names::BUILTIN;
use crate::formats::menus::ways::{Condition, Known, is_open};
use crate::formats::menus::{Continued, Entry, Loaded, MAX_ENTRIES, Menu, Named, Role};

/// Where a way through the script is, and with what.
#[derive(Debug, Clone, Hash)]
pub(super) struct Way {
    /// The line and the command of it that come next.
    pub(super) line: usize,
    pub(super) command: usize,
    /// Whether the command before on the line worked.
    pub(super) worked: bool,
    pub(super) known: Known,
    /// Whether it is one because something could not be loaded, or because nobody chose.
    pub(super) has_failed: bool,
    /// The label it came by.
    pub(super) label: String,
    pub(super) kernel: Option<Entry>,
    pub(super) initrds: Vec<Loaded>,
    pub(super) items: Vec<String>,
}

/// What a command does to a way.
pub(super) enum Effect {
    /// It works.
    Works,
    /// It works or fails, as the condition says.
    If(Condition),
    /// It works with each of these values for a variable, or fails.
    Chooses(String, Vec<String>),
    /// The script goes on at a label.
    Goes(String),
    /// What is loaded is started, or that fails.
    Boots,
    /// The script ends.
    Ends,
}

/// All commands, and what the script does with them.
pub(super) struct Commands {
    pub(super) menu: Menu,
    /// Names of the variables that were complained about.
    unset: BTreeSet<String>,
    entries: BTreeSet<Entry>,
    /// What was still loaded when the script ended, by the line of its kernel.
    left: BTreeMap<usize, Entry>,
    /// The lines of kernels that were booted.
    booted: BTreeSet<usize>,
}

impl Commands {
    pub(super) fn new(menu: Menu) -> Self {
        Self {
            menu,
            unset: BTreeSet::new(),
            entries: BTreeSet::new(),
            left: BTreeMap::new(),
            booted: BTreeSet::new(),
        }
    }

    /// Ends the script on all ways: what is never booted is said.
    pub(super) fn finish(mut self) -> Menu {
        for (line, entry) in std::mem::take(&mut self.left) {
            if self.booted.contains(&line) {
                continue;
            }
            self.record(entry);
            // A script that it goes on to may start what is loaded.
            if self.menu.continued.is_empty() {
                self.menu
                    .problem(line, "the kernel is loaded and never started: the script ends without boot");
            }
        }
        self.menu
    }

    /// Ends a way behind the last line.
    pub(super) fn end(&mut self, mut way: Way) {
        let Some(entry) = loaded(&mut way) else { return };
        // One that failed on its way has fewer initrds.
        let known = self.left.entry(entry.line).or_insert_with(|| entry.clone());
        if known.initrds.len() < entry.initrds.len() {
            *known = entry;
        }
    }

    /// Takes in one command.
    pub(super) fn run(&mut self, number: usize, words: &[&str], way: &mut Way) -> Effect {
        let [name, args @ ..] = words else { return Effect::Works };
        match *name {
            "set" => self.set(number, args, way),
            "clear" => drop(args.first().and_then(|name| way.known.values.remove(*name))),
            "isset" => {
                let text = args.concat();
                return Effect::If(match self.expand(number, &text, way, true) {
                    value if is_open(&value) => Condition::open(format!("isset {value}")),
                    value => Condition::Known(!value.is_empty()),
                });
            }
            "iseq" => {
                let [a, b] = args else { return Effect::If(Condition::Any) };
                let (a, b) = (self.expand(number, a, way, false), self.expand(number, b, way, false));
                return Effect::If(Condition::equal(&a, &b));
            }
            "cpuid" => return Effect::If(Condition::open(args.join(" "))),
            "read" | "choose" | "prompt" => return ask(name, args, way),
            "menu" => way.items.clear(),
            "item" => item(args, way),
            "goto" => {
                return match args.first() {
                    Some(label) => Effect::Goes(self.expand(number, label, way, false)),
                    None => Effect::If(Condition::Known(false)),
                };
            }
            "kernel" => {
                self.kernel(number, args, way);
                return Effect::If(Condition::Any);
            }
            "imgselect" | "imgload" => self.select(number, args, way),
            "initrd" | "module" | "imgfetch" | "imgget" => {
                self.initrd(number, args, way);
                return Effect::If(Condition::Any);
            }
            "imgargs" => {
                if let [_, args @ ..] = args {
                    let words = self.words(number, args, way);
                    if let Some(kernel) = &mut way.kernel {
                        kernel.words = words;
                    }
                }
            }
            "imgverify" => {
                if let Some(signature) = plain(args).get(1) {
                    let form = self.expand(number, signature, way, false);
                    let named = Named { line: number, form, role: Role::Signature };
                    if !self.menu.others.contains(&named) {
                        self.menu.others.push(named);
                    }
                }
                return Effect::If(Condition::Any);
            }
            "chain" | "imgexec" => return self.chain(number, args, way),
            "boot" => return self.boot_image(number, args, way),
            "imgfree" => {
                way.kernel = None;
                way.initrds.clear();
            }
            "exit" | "reboot" | "poweroff" => return Effect::Ends,
            "echo" => {}
            _ => {
                for word in args {
                    self.expand(number, word, way, false);
                }
                return Effect::If(Condition::Any);
            }
        }
        Effect::Works
    }

    /// Takes in `chain`, which is also called `imgexec`: it starts an image that was loaded, or fetches one: a script goes on
    /// with the variables of this one.
    fn chain(&mut self, number: usize, args: &[&str], way: &mut Way) -> Effect {
        let plain = plain(args);
        let is_loaded = |file: &&str| way.initrds.iter().any(|loaded| is_called(loaded, file));
        let Some(file) = plain.first().filter(|file| !is_loaded(file)) else {
            self.select(number, args, way);
            return self.boot(way);
        };
        let form = self.expand(number, file, way, false);
        let file = Named { line: number, form, role: Role::Next };
        let next = Continued { file, handed: way.known.values.clone() };
        if self.menu.continued.len() < MAX_ENTRIES && !self.menu.continued.contains(&next) {
            self.menu.continued.push(next);
        }
        // A script that it goes on to may come back.
        Effect::If(Condition::Any)
    }

    fn set(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let [variable, value @ ..] = args else { return };
        // "set x:hex 20" says how the value is written.
        let variable = variable.split(':').next().unwrap_or(variable);
        let value = self.expand(number, &value.join(" "), way, false);
        way.known.values.insert(variable.to_owned(), value);
    }

    /// Makes an image that was fetched before the kernel; without a name, what is the kernel stays it.
    fn select(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let plain = plain(args);
        let Some((name, words)) = plain.split_first() else { return };
        let Some(place) = way.initrds.iter().position(|loaded| is_called(loaded, name)) else {
            if way.kernel.is_none() {
                self.kernel(number, args, way);
            }
            return;
        };
        let fetched = way.initrds.remove(place);
        let words = self.words(number, words, way);
        way.kernel = Some(Entry {
            title: way.label.clone(),
            line: number,
            kernel: Named { role: Role::Kernel, ..fetched.file },
            initrds: Vec::new(),
            words,
            is_default: false,
        });
    }

    fn words(&mut self, number: usize, args: &[&str], way: &Way) -> Vec<String> {
        // A variable that stands for nothing leaves no word, one with blanks leaves several.
        let expanded = args.iter().map(|arg| self.expand(number, arg, way, false));
        let expanded: Vec<String> = expanded.collect();
        expanded.iter().flat_map(|text| text.split_ascii_whitespace()).map(str::to_owned).collect()
    }

    fn kernel(&mut self, number: usize, args: &[&str], way: &mut Way) {
        // The options come before the address; all behind it are the kernel's.
        let mut rest = args;
        while let [option, next @ ..] = rest
            && option.starts_with('-')
        {
            rest = if takes_value(option) { next.get(1..).unwrap_or_default() } else { next };
        }
        let [address, words @ ..] = rest else { return };
        let form = self.expand(number, address, way, false);
        let words = self.words(number, words, way);
        way.kernel = Some(Entry {
            title: way.label.clone(),
            line: number,
            kernel: Named { line: number, form, role: Role::Kernel },
            initrds: Vec::new(),
            words,
            is_default: false,
        });
    }

    fn initrd(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let plain = plain(args);
        let Some(address) = plain.first() else { return };
        let form = self.expand(number, address, way, false);
        // "initrd URI /path": the path is a command line to iPXE, and the file's name in the initrd.
        let inside = plain.get(1).map(|path| self.expand(number, path, way, false));
        let inside = inside.map(|path| format!("/{}", path.trim_start_matches('/')));
        let role = if inside.is_some() { Role::Injected } else { Role::Initrd };
        let named = args.iter().position(|arg| matches!(*arg, "--name" | "-n"));
        let called = named.and_then(|at| args.get(at + 1)).map(|name| (*name).to_owned());
        // Folders are made only where it is said, since 2022: so many, or all (mkdir=-1).
        let makes = plain.iter().find_map(|word| word.strip_prefix("mkdir="));
        let makes_folders = match makes.map(str::parse::<i64>) {
            Some(Ok(number)) => usize::try_from(number).unwrap_or(usize::MAX),
            Some(Err(_)) | None => 0,
        };
        if way.initrds.len() < MAX_ENTRIES {
            way.initrds.push(Loaded {
                file: Named { line: number, form, role },
                inside,
                makes_folders,
                called,
            });
        }
    }

    /// Takes in `boot`, which may name the image, and then the whole command line.
    fn boot_image(&mut self, number: usize, args: &[&str], way: &mut Way) -> Effect {
        if let [name, words @ ..] = &plain(args)[..] {
            let is_kernel = way.kernel.as_ref().is_some_and(|kernel| file_of(&kernel.kernel) == *name);
            if !is_kernel {
                self.select(number, args, way);
            } else if !words.is_empty() {
                let words = self.words(number, words, way);
                if let Some(kernel) = &mut way.kernel {
                    (kernel.words, kernel.line) = (words, number);
                }
            }
        }
        self.boot(way)
    }

    fn boot(&mut self, way: &mut Way) -> Effect {
        let Some(entry) = loaded(way) else { return Effect::If(Condition::Any) };
        self.booted.extend([entry.kernel.line, entry.line]);
        self.record(entry);
        Effect::Boots
    }

    /// Takes what is loaded for something that can be booted.
    fn record(&mut self, entry: Entry) {
        if self.menu.entries.len() < MAX_ENTRIES && self.entries.insert(entry.clone()) {
            self.menu.entries.push(entry);
        }
    }

    /// Puts in the values of variables; one nobody sets is complained about once, unless the script asks for it.
    fn expand(&mut self, number: usize, text: &str, way: &Way, is_asked: bool) -> String {
        let mut form = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, next)) = after.split_once('}') else { break };
            let plain = name.split(':').next().unwrap_or(name);
            form.push_str(before);
            match way.known.values.get(plain) {
                Some(value) if form.len() + value.len() < MAX_TEXT => form.push_str(value),
                Some(_) => {}
                None if BUILTIN.contains(&plain) || plain.contains('/') => {
                    form.push_str(&format!("${{{plain}}}"))
                }
                None if !is_asked && self.unset.insert(plain.to_owned()) => {
                    // A later iPXE, or a script before this one, may know it.
                    self.menu.guess(number, format!("nothing here sets the variable {plain}"));
                }
                None => {}
            }
            rest = next;
        }
        form.push_str(rest);
        form
    }
}

/// Takes what is loaded out of a way.
fn loaded(way: &mut Way) -> Option<Entry> {
    let mut entry = way.kernel.take()?;
    entry.initrds = std::mem::take(&mut way.initrds);
    Some(entry)
}

/// Takes in what a user picks: one of the menu's items, or anything.
fn ask(command: &str, args: &[&str], way: &Way) -> Effect {
    let variable = args.iter().rfind(|arg| !arg.starts_with('-'));
    match variable {
        Some(variable) if command == "choose" && !way.items.is_empty() => {
            Effect::Chooses((*variable).to_owned(), way.items.clone())
        }
        // What somebody types, nobody knows.
        Some(variable) if command != "prompt" => {
            Effect::Chooses((*variable).to_owned(), vec![format!("${{{variable}}}")])
        }
        _ => Effect::If(Condition::Any),
    }
}

/// Takes in an item of a menu: its label is what a user may choose.
fn item(args: &[&str], way: &mut Way) {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--gap" | "-g" => return,
            "--key" | "-k" | "--menu" | "-m" => drop(args.next()),
            arg if arg.starts_with('-') => {}
            label => {
                if way.items.len() < MAX_ENTRIES {
                    way.items.push(label.to_owned());
                }
                return;
            }
        }
    }
}

/// Tells whether an option is followed by its value.
fn takes_value(option: &str) -> bool {
    matches!(option, "--name" | "-n" | "--timeout" | "-t" | "--signer" | "-s")
}

/// Returns the arguments that are no options.
fn plain<'b>(args: &[&'b str]) -> Vec<&'b str> {
    let mut plain = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            option if takes_value(option) => drop(args.next()),
            arg if arg.starts_with("--") => {}
            "-a" | "-r" | "-k" => {}
            arg => plain.push(arg),
        }
    }
    plain
}

/// Returns the last part of a file's address.
fn file_of(named: &Named) -> &str {
    named.form.rsplit('/').next().unwrap_or(&named.form)
}

fn is_called(loaded: &Loaded, name: &str) -> bool {
    loaded.called.as_deref() == Some(name) || file_of(&loaded.file) == name
}
