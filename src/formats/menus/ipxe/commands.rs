//! The commands of iPXE: what each does on a way through a script.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::MAX_TEXT;
use super::names::{BUILTIN, COMMANDS};
use crate::formats::menus::ways::{Condition, Known, MANY_VARIABLES, MAX_HANDED, is_open};
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
    /// The image that is started, and what it is called.
    pub(super) kernel: Option<(Entry, Option<String>)>,
    /// All other images, with their command lines.
    pub(super) images: Vec<Image>,
    pub(super) items: Vec<String>,
}

/// An image that was fetched.
#[derive(Debug, Clone, Hash)]
pub(super) struct Image {
    file: Named,
    called: Option<String>,
    words: Vec<String>,
}

impl Image {
    fn is_called(&self, name: &str) -> bool {
        self.called.as_deref() == Some(name) || file_of(&self.file) == name
    }

    /// What a kernel gets of it. The first word of its command line is its path in the initrd; folders are made only where it
    /// is said, since 2022: so many, or all (`mkdir=-1`).
    fn loaded(self) -> Loaded {
        let Self { file, called, words } = self;
        let inside = words.first().map(|path| format!("/{}", path.trim_start_matches('/')));
        let role = if inside.is_some() { Role::Injected } else { Role::Initrd };
        let makes = words.iter().find_map(|word| word.strip_prefix("mkdir=")).map(str::parse::<i64>);
        let makes_folders = match makes {
            Some(Ok(number)) => usize::try_from(number).unwrap_or(usize::MAX),
            Some(Err(_)) | None => 0,
        };
        Loaded { file: Named { role, ..file }, inside, makes_folders, called }
    }
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
    /// Bytes of what is handed to the scripts that it goes on to.
    continued_bytes: usize,
}

impl Commands {
    pub(super) fn new(menu: Menu) -> Self {
        Self {
            menu,
            unset: BTreeSet::new(),
            entries: BTreeSet::new(),
            left: BTreeMap::new(),
            booted: BTreeSet::new(),
            continued_bytes: 0,
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
            "clear" => {
                if let Some(name) = args.first() {
                    way.known.take_out(|known| known == *name);
                }
            }
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
            "imgargs" => return self.set_words(number, args, way),
            "imgverify" => {
                if let Some(signature) = options(args).1.get(1) {
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
            "imgfree" => self.free(number, args, way),
            "exit" | "reboot" | "poweroff" => return Effect::Ends,
            "echo" => {}
            _ => {
                // Another program may boot something.
                let is_harmless = COMMANDS.contains(name) && !["autoboot", "sanboot"].contains(name);
                self.menu.leads_elsewhere |= !is_harmless;
                for word in args {
                    self.expand(number, word, way, false);
                }
                return Effect::If(Condition::Any);
            }
        }
        Effect::Works
    }

    /// Takes in `imgargs`: the command line of an image, whichever it is.
    fn set_words(&mut self, number: usize, args: &[&str], way: &mut Way) -> Effect {
        let [name, args @ ..] = args else { return Effect::If(Condition::Known(false)) };
        let name = self.expand(number, name, way, false);
        let words = self.words(number, args, way);
        if let Some((kernel, called)) = &mut way.kernel
            && is_kernel(kernel, called.as_deref(), &name)
        {
            kernel.words = words;
            return Effect::Works;
        }
        match way.images.iter_mut().find(|image| image.is_called(&name)) {
            Some(image) => {
                image.words = words;
                Effect::Works
            }
            None => Effect::If(Condition::Any),
        }
    }

    /// Takes in `imgfree`: of one image, or of all.
    fn free(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let name = args.first().map(|name| self.expand(number, name, way, false));
        let is_meant = |called: &Option<String>, file: &Named| {
            name.as_ref().is_none_or(|name| called.as_ref() == Some(name) || file_of(file) == name.as_str())
        };
        way.kernel = way.kernel.take().filter(|(entry, called)| !is_meant(called, &entry.kernel));
        way.images.retain(|image| !is_meant(&image.called, &image.file));
    }

    /// Takes in `chain`, which is also called `imgexec`: it starts an image that was loaded, or fetches one: a kernel, or a
    /// script that goes on with the variables of this one.
    fn chain(&mut self, number: usize, args: &[&str], way: &mut Way) -> Effect {
        let (called, rest) = options(args);
        let Some((file, words)) = rest.split_first() else { return self.boot(way) };
        let name = self.expand(number, file, way, false);
        let is_kernel =
            |(kernel, called): &(Entry, Option<String>)| is_kernel(kernel, called.as_deref(), &name);
        let place = way.images.iter().position(|image| image.is_called(&name));
        // With an initrd beside it, what was fetched before is a kernel; alone, it may be a script.
        if way.kernel.as_ref().is_some_and(is_kernel) || place.is_some() && way.images.len() > 1 {
            self.select(number, args, way);
            return self.boot(way);
        }
        let fetched = place.and_then(|place| way.images.get(place)).cloned();
        let (form, own) = fetched.map_or((name, Vec::new()), |image| (image.file.form, image.words));
        let (mut program, _) = self.fetch(number, called, &form, words, way);
        if words.is_empty() {
            program.words = own;
        }
        let others = way.images.iter().enumerate().filter(|(index, _)| Some(*index) != place);
        program.initrds = others.map(|(_, image)| image.clone().loaded()).collect();
        // A script that it goes on to may come back.
        let effect = Effect::If(Condition::Any);
        self.continued_bytes += way.known.bytes();
        if self.continued_bytes > MAX_HANDED {
            self.menu
                .guess(number, "it hands on more than is read: not every script it goes on to is judged");
            return effect;
        }
        let file = Named { line: number, form, role: Role::Next };
        let handed = way.known.values.clone();
        let next = Continued { file, handed, program: Some(program), includes: false };
        if self.menu.continued.len() < MAX_ENTRIES && !self.menu.continued.contains(&next) {
            self.menu.continued.push(next);
        }
        effect
    }

    fn set(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let [variable, value @ ..] = args else { return };
        // "set x:hex 20" says how the value is written.
        let variable = variable.split(':').next().unwrap_or(variable);
        let value = self.expand(number, &value.join(" "), way, false);
        if !way.known.set(variable, &value) {
            self.menu.guess(number, MANY_VARIABLES);
        }
    }

    /// Makes an image that was fetched before the kernel; one of no such name is fetched.
    fn select(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let (_, rest) = options(args);
        let Some((name, words)) = rest.split_first() else { return };
        let name = self.expand(number, name, way, false);
        let given = self.words(number, words, way);
        if let Some((kernel, called)) = &mut way.kernel
            && is_kernel(kernel, called.as_deref(), &name)
        {
            if !given.is_empty() {
                (kernel.words, kernel.line) = (given, number);
            }
            return;
        }
        let Some(place) = way.images.iter().position(|image| image.is_called(&name)) else {
            if way.kernel.is_none() {
                self.kernel(number, args, way);
            }
            return;
        };
        let Image { file, called, words } = way.images.remove(place);
        let entry = Entry {
            title: way.label.clone(),
            line: number,
            kernel: Named { role: Role::Kernel, ..file },
            initrds: Vec::new(),
            words: if given.is_empty() { words } else { given },
            is_default: false,
        };
        way.kernel = Some((entry, called));
    }

    fn words(&mut self, number: usize, args: &[&str], way: &Way) -> Vec<String> {
        // A variable that stands for nothing leaves no word, one with blanks leaves several.
        let expanded = args.iter().map(|arg| self.expand(number, arg, way, false));
        let expanded: Vec<String> = expanded.collect();
        expanded.iter().flat_map(|text| text.split_ascii_whitespace()).map(str::to_owned).collect()
    }

    fn kernel(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let (called, rest) = options(args);
        let [address, words @ ..] = rest else { return };
        let form = self.expand(number, address, way, false);
        way.kernel = Some(self.fetch(number, called, &form, words, way));
    }

    /// Returns a kernel that is fetched, and what it is called.
    fn fetch(
        &mut self,
        number: usize,
        called: Option<&str>,
        form: &str,
        words: &[&str],
        way: &Way,
    ) -> (Entry, Option<String>) {
        let words = self.words(number, words, way);
        let kernel = Named { line: number, form: form.to_owned(), role: Role::Kernel };
        let called = called.map(|name| self.expand(number, name, way, false));
        let title = way.label.clone();
        (Entry { title, line: number, kernel, initrds: Vec::new(), words, is_default: false }, called)
    }

    fn initrd(&mut self, number: usize, args: &[&str], way: &mut Way) {
        let (called, rest) = options(args);
        let [address, words @ ..] = rest else { return };
        let form = self.expand(number, address, way, false);
        let called = called.map(|name| self.expand(number, name, way, false));
        let words = self.words(number, words, way);
        let file = Named { line: number, form, role: Role::Initrd };
        if way.images.len() < MAX_ENTRIES {
            way.images.push(Image { file, called, words });
        }
    }

    /// Takes in `boot`, which may name the image, and then the whole command line.
    fn boot_image(&mut self, number: usize, args: &[&str], way: &mut Way) -> Effect {
        self.select(number, args, way);
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

    /// Puts in the values of variables, the innermost first (`expand_settings` of `core/settings.c`); one nobody sets is
    /// complained about once, unless the script asks for it.
    fn expand(&mut self, number: usize, text: &str, way: &Way, is_asked: bool) -> String {
        let mut form = String::new();
        let mut begun = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['$', '}']) {
            form.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(next) = rest.strip_prefix("${") {
                begun.push(form.len());
                form.push_str("${");
                rest = next;
                continue;
            }
            let (mark, next) = rest.split_at(1);
            rest = next;
            let Some(start) = begun.pop_if(|_| mark == "}") else {
                form.push_str(mark);
                continue;
            };
            let name = form.split_off(start).split_off(2);
            form.push_str(&self.value(number, &name, way, is_asked, MAX_TEXT.saturating_sub(form.len())));
        }
        form.push_str(rest);
        form
    }

    /// Returns what a variable stands for: itself, where the machine knows it.
    fn value(&mut self, number: usize, name: &str, way: &Way, is_asked: bool, room: usize) -> String {
        let plain = name.split(':').next().unwrap_or(name);
        match way.known.values.get(plain) {
            Some(value) if value.len() < room => value.clone(),
            Some(_) => String::new(),
            None if is_open(name) => format!("${{{name}}}"),
            None if BUILTIN.contains(&plain) || plain.contains('/') => format!("${{{plain}}}"),
            None => {
                if !is_asked && self.unset.insert(plain.to_owned()) {
                    // A later iPXE, or a script before this one, may know it.
                    self.menu.guess(number, format!("nothing here sets the variable {plain}"));
                }
                String::new()
            }
        }
    }
}

/// Takes what is loaded out of a way.
fn loaded(way: &mut Way) -> Option<Entry> {
    let (mut entry, _) = way.kernel.take()?;
    entry.initrds = std::mem::take(&mut way.images).into_iter().map(Image::loaded).collect();
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

/// Parts the options in front of an address from it and what follows; returns what the image is to be called, too.
fn options<'a, 'b>(args: &'b [&'a str]) -> (Option<&'a str>, &'b [&'a str]) {
    let (mut called, mut rest) = (None, args);
    while let [option, next @ ..] = rest
        && option.starts_with('-')
    {
        if matches!(*option, "--name" | "-n") {
            called = next.first().copied();
        }
        called = option.strip_prefix("--name=").or(called);
        rest = if takes_value(option) { next.get(1..).unwrap_or_default() } else { next };
    }
    (called, rest)
}

/// Returns the last part of a file's address.
fn file_of(named: &Named) -> &str {
    named.form.rsplit('/').next().unwrap_or(&named.form)
}

/// Tells whether a name is that of the image that is started.
fn is_kernel(entry: &Entry, called: Option<&str>, name: &str) -> bool {
    called == Some(name) || file_of(&entry.kernel) == name
}
