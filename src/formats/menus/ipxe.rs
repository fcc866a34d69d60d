//! iPXE's scripts.
//!
//! Commands from iPXE's documentation (ipxe.org/cmd). A script is read from top to bottom, both sides of every
//! condition; a variable that is set on both sides has both values.

mod names;

use std::collections::{BTreeMap, BTreeSet};

use self::names::{BUILTIN, COMMANDS};
use super::{Continued, Entry, Handed, Loaded, MAX_ENTRIES, MAX_LINES, Menu, Named, Role};

/// Forms a text may have; more than this no real script needs.
const MAX_FORMS: usize = 16;

/// The longest text that variables may grow to.
const MAX_TEXT: usize = 1 << 14;

/// Reads a script; `handed` are the variables that the script before it set.
pub fn parse(text: &str, handed: &Handed) -> Menu {
    let variables = handed.iter().map(|(name, value)| (name.clone(), vec![value.clone()])).collect();
    let mut script = Script { variables, ..Script::default() };
    if !text.starts_with("#!ipxe") {
        script.menu.problem(1, "an iPXE script begins with \"#!ipxe\"");
    }
    let mut continued = String::new();
    for (index, line) in text.lines().take(MAX_LINES).enumerate() {
        // A backslash at the end joins two lines.
        if let Some(line) = line.strip_suffix('\\')
            && continued.len() < MAX_TEXT
        {
            continued.push_str(line);
            continue;
        }
        let line = std::mem::take(&mut continued) + line;
        script.line(index + 1, &line);
    }
    script.finish()
}

#[derive(Default)]
struct Script {
    menu: Menu,
    variables: BTreeMap<String, Vec<String>>,
    labels: BTreeSet<String>,
    jumps: Vec<(usize, String)>,
    /// Names of the variables that were complained about.
    unset: BTreeSet<String>,
    label: String,
    kernel: Option<Entry>,
    initrds: Vec<Loaded>,
    items: Vec<String>,
}

impl Script {
    fn line(&mut self, number: usize, line: &str) {
        let line = line.trim();
        if let Some(label) = line.strip_prefix(':') {
            let label = label.split_whitespace().next().unwrap_or_default();
            if !self.labels.insert(label.to_owned()) {
                self.menu.problem(number, format!("the label {label} is there twice"));
            }
            self.label = label.to_owned();
            return;
        }
        if line.starts_with('#') {
            return;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // One line is a row of commands: "a || b && c".
        let mut first: Option<Vec<&str>> = None;
        for command in words.split(|word| matches!(*word, "||" | "&&" | ";")) {
            let guard = first.clone();
            self.command(number, command, guard.as_deref());
            first.get_or_insert_with(|| command.to_vec());
        }
    }

    /// Takes in one command; `guard` is the first of its line, where it is not this one.
    fn command(&mut self, number: usize, words: &[&str], guard: Option<&[&str]>) {
        let [name, args @ ..] = words else { return };
        match *name {
            "set" => self.set(number, args, guard),
            "clear" => drop(args.first().and_then(|name| self.variables.remove(*name))),
            "isset" => {}
            "read" | "choose" | "prompt" => self.ask(args),
            "item" => self.item(args),
            "goto" => {
                let Some(label) = args.first() else { return };
                for label in self.expand(number, label) {
                    self.jumps.push((number, label));
                }
            }
            "kernel" => self.kernel(number, args),
            "imgselect" | "imgload" => self.select(number, args),
            "initrd" | "module" | "imgfetch" | "imgget" => self.initrd(number, args),
            "imgargs" => {
                if let [_, args @ ..] = args {
                    let words = self.words(number, args);
                    if let Some(kernel) = &mut self.kernel {
                        kernel.words = words;
                    }
                }
            }
            "imgverify" => {
                let files: Vec<_> = self.plain(args);
                if let Some(signature) = files.get(1) {
                    let forms = self.expand(number, signature);
                    self.menu.others.push(Named { line: number, forms, role: Role::Signature });
                }
            }
            "chain" | "imgexec" => self.chain(number, args),
            "boot" => self.boot_image(number, args),
            "imgfree" => {
                self.kernel = None;
                self.initrds.clear();
            }
            "echo" | "menu" => {}
            other if !COMMANDS.contains(&other) && !other.contains("${") => {
                self.menu.guess(number, format!("{other} is not a command of iPXE that is known here"));
            }
            _ => {
                for word in args {
                    self.expand(number, word);
                }
            }
        }
    }

    /// Takes in `chain`, which is also called `imgexec`: it starts an image that was loaded, or fetches one: a script goes on
    /// with the variables of this one.
    fn chain(&mut self, number: usize, args: &[&str]) {
        let plain = self.plain(args);
        let Some(file) = plain.first() else { return self.boot() };
        let is_loaded = |loaded: &Loaded| {
            loaded.called.as_deref() == Some(*file)
                || loaded.file.forms.iter().any(|form| form.rsplit('/').next() == Some(*file))
        };
        if self.initrds.iter().any(is_loaded) {
            self.select(number, args);
            return self.boot();
        }
        let forms = self.expand(number, file);
        let only = |(name, values): (&String, &Vec<String>)| match &values[..] {
            [value] => Some((name.clone(), value.clone())),
            _ => None,
        };
        let handed = self.variables.iter().filter_map(only).collect();
        let file = Named { line: number, forms, role: Role::Next };
        self.menu.continued.push(Continued { file, handed });
    }

    fn set(&mut self, number: usize, args: &[&str], guard: Option<&[&str]>) {
        let [variable, value @ ..] = args else { return };
        // "set x:hex 20" says how the value is written.
        let variable = &variable.split(':').next().unwrap_or(variable);
        let value = self.expand(number, &value.join(" "));
        // "isset ${x} || set x y" does nothing where x has a value.
        let is_default =
            guard.is_some_and(|guard| guard[..] == ["isset", format!("${{{variable}}}").as_str()]);
        let is_choice = guard.is_some() && !is_default;
        let values = self.variables.entry((*variable).to_owned()).or_default();
        if is_choice {
            values.extend(value);
            values.dedup();
            values.truncate(MAX_FORMS);
        } else if values.is_empty() || !is_default {
            *values = value;
        }
    }

    /// Takes in what a user picks: one of the menu's items, or anything.
    fn ask(&mut self, args: &[&str]) {
        if let Some(variable) = args.iter().rfind(|arg| !arg.starts_with('-')) {
            let items = std::mem::take(&mut self.items);
            let values = if items.is_empty() { vec![String::new()] } else { items };
            self.variables.insert((*variable).to_owned(), values);
        }
    }

    /// Takes in an item of a menu: its label is what a user may choose.
    fn item(&mut self, args: &[&str]) {
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--gap" | "-g" => return,
                "--key" | "-k" | "--menu" | "-m" => drop(args.next()),
                arg if arg.starts_with('-') => {}
                label => {
                    self.items.push(label.to_owned());
                    self.items.truncate(MAX_FORMS);
                    return;
                }
            }
        }
    }

    /// Makes an image that was fetched before the kernel; without a name, what is the kernel stays it.
    fn select(&mut self, number: usize, args: &[&str]) {
        let plain = self.plain(args);
        let Some((name, words)) = plain.split_first() else { return };
        let is_named = |loaded: &Loaded| {
            loaded.called.as_deref() == Some(*name)
                || loaded.file.forms.iter().any(|form| form.rsplit('/').next() == Some(*name))
        };
        let Some(place) = self.initrds.iter().position(is_named) else {
            if self.kernel.is_none() {
                self.kernel(number, args);
            }
            return;
        };
        let fetched = self.initrds.remove(place);
        let words = self.words(number, words);
        self.kernel = Some(Entry {
            title: self.label.clone(),
            line: number,
            kernel: Named { role: Role::Kernel, ..fetched.file },
            initrds: Vec::new(),
            words,
        });
    }

    /// Returns the arguments that are no options; some options take a value.
    fn plain<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let mut plain = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--name" | "-n" | "--timeout" | "-t" | "--signer" | "-s" => drop(args.next()),
                arg if arg.starts_with("--") => {}
                "-a" | "-r" | "-k" => {}
                arg => plain.push(arg),
            }
        }
        plain
    }

    fn words(&mut self, number: usize, args: &[&str]) -> Vec<String> {
        let mut words = Vec::new();
        for arg in args {
            // A variable that stands for nothing leaves no word, one with blanks leaves several.
            let form = self.expand(number, arg).into_iter().next().unwrap_or_default();
            words.extend(form.split_ascii_whitespace().map(str::to_owned));
        }
        words
    }

    fn kernel(&mut self, number: usize, args: &[&str]) {
        // The options come before the address; all behind it are the kernel's.
        let mut rest = args;
        while let [option, next @ ..] = rest
            && option.starts_with('-')
        {
            rest = if matches!(*option, "--name" | "-n" | "--timeout" | "-t") {
                next.get(1..).unwrap_or_default()
            } else {
                next
            };
        }
        let [address, words @ ..] = rest else { return };
        let forms = self.expand(number, address);
        let words = self.words(number, words);
        self.kernel = Some(Entry {
            title: self.label.clone(),
            line: number,
            kernel: Named { line: number, forms, role: Role::Kernel },
            initrds: Vec::new(),
            words,
        });
    }

    fn initrd(&mut self, number: usize, args: &[&str]) {
        let plain = self.plain(args);
        let Some(address) = plain.first() else { return };
        let forms = self.expand(number, address);
        // "initrd URI /path": the path is a command line to iPXE, and the file's name in the initrd.
        let inside = plain.get(1).and_then(|path| self.expand(number, path).into_iter().next());
        let inside = inside.map(|path| format!("/{}", path.trim_start_matches('/')));
        let role = if inside.is_some() { Role::Injected } else { Role::Initrd };
        let named = args.iter().position(|arg| matches!(*arg, "--name" | "-n"));
        let called = named.and_then(|at| args.get(at + 1)).map(|name| (*name).to_owned());
        if self.initrds.len() < MAX_ENTRIES {
            self.initrds.push(Loaded { file: Named { line: number, forms, role }, inside, called });
        }
    }

    /// Takes in `boot`, which may name the image, and then the whole command line.
    fn boot_image(&mut self, number: usize, args: &[&str]) {
        if let [name, words @ ..] = &self.plain(args)[..] {
            let is_kernel = self.kernel.as_ref().is_some_and(|kernel| {
                kernel.kernel.forms.iter().any(|form| form.rsplit('/').next() == Some(*name))
            });
            if !is_kernel {
                self.select(number, args);
            } else if !words.is_empty() {
                let words = self.words(number, words);
                if let Some(kernel) = &mut self.kernel {
                    (kernel.words, kernel.line) = (words, number);
                }
            }
        }
        self.boot();
    }

    fn boot(&mut self) {
        let Some(mut entry) = self.kernel.take() else { return };
        entry.initrds = std::mem::take(&mut self.initrds);
        if self.menu.entries.len() < MAX_ENTRIES {
            self.menu.entries.push(entry);
        }
    }

    /// Puts in the values of variables; one nobody sets is complained about once.
    fn expand(&mut self, number: usize, text: &str) -> Vec<String> {
        let mut forms = vec![String::new()];
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, next)) = after.split_once('}') else { break };
            let plain = name.split(':').next().unwrap_or(name);
            let values = match self.variables.get(plain) {
                Some(values) => values.clone(),
                None => {
                    let known = BUILTIN.contains(&plain) || plain.contains('/');
                    if !known && self.unset.insert(plain.to_owned()) {
                        // A later iPXE, or a script before this one, may know it.
                        self.menu.guess(number, format!("nothing here sets the variable {plain}"));
                    }
                    vec![if known { format!("${{{plain}}}") } else { String::new() }]
                }
            };
            let mut next_forms = Vec::new();
            for form in &forms {
                for value in &values {
                    if next_forms.len() < MAX_FORMS && form.len() + before.len() + value.len() < MAX_TEXT {
                        next_forms.push(format!("{form}{before}{value}"));
                    }
                }
            }
            forms = next_forms;
            rest = next;
        }
        forms
            .iter_mut()
            .filter(|form| form.len() + rest.len() < MAX_TEXT)
            .for_each(|form| form.push_str(rest));
        forms
    }

    fn finish(mut self) -> Menu {
        // A script that ends starts nothing of what was loaded (iPXE of 2019, seen in QEMU): the firmware goes on. A script that
        // it goes on to may.
        if let Some(line) = self.kernel.as_ref().map(|entry| entry.line)
            && self.menu.continued.is_empty()
        {
            self.menu.problem(line, "the kernel is loaded and never started: the script ends without boot");
        }
        self.boot();
        for (line, label) in std::mem::take(&mut self.jumps) {
            if !self.labels.contains(&label) && !label.contains("${") && !label.is_empty() {
                self.menu.problem(line, format!("goto {label}: there is no such label"));
            }
        }
        self.menu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "#!ipxe\nisset ${keymap} || set keymap dokeymap\nisset ${cmdline} || set cmdline\n\
        set base http://host/x\nmenu Live\nitem gentoo gentoo\nchoose label && goto ${label} || goto failed\n\
        :gentoo\nimgfree\nkernel ${base}/gentoo initrd=gentoo.igz ${keymap} root=live:/image.squashfs.img ${cmdline} || goto failed\n\
        initrd ${base}/gentoo.igz || goto failed\ninitrd ${base}/image.squashfs /image.squashfs.img || goto failed\nboot || goto failed\n\
        :failed\nshell\n";

    #[test]
    fn a_script_is_read_with_its_variables_and_initrds() {
        let menu = parse(SCRIPT, &Handed::new());
        assert!(menu.problems.is_empty(), "{menu:?}");
        let [entry] = &menu.entries[..] else { panic!("{menu:?}") };
        assert_eq!(entry.kernel.forms, ["http://host/x/gentoo"]);
        assert_eq!(entry.words, ["initrd=gentoo.igz", "dokeymap", "root=live:/image.squashfs.img"]);
        assert_eq!(entry.initrds[0].inside, None);
        assert_eq!(entry.initrds[1].inside.as_deref(), Some("/image.squashfs.img"));
    }

    #[test]
    fn both_sides_of_a_condition_count() {
        let menu = parse(
            "#!ipxe\niseq ${platform} efi && set arch x64 || set arch x86\nkernel k-${arch} a\ninitrd i\nboot\n\
             iseq ${platform} efi && chain combined.ipxe || chain inject.ipxe || goto failed\n:failed\nshell\n",
            &Handed::new(),
        );
        assert_eq!(menu.entries[0].kernel.forms, ["k-x64", "k-x86"]);
        assert_eq!(menu.continued.len(), 2);
        assert!(menu.problems.is_empty(), "{menu:?}");
    }

    #[test]
    fn unset_variables_missing_labels_and_a_missing_first_line_are_named() {
        let menu = parse("kernel ${bse}/k\ngoto nowhere\nboot\n", &Handed::new());
        let lines: Vec<_> =
            menu.problems.iter().map(|problem| (problem.line, problem.what.as_str())).collect();
        assert_eq!(
            lines,
            [
                (1, "an iPXE script begins with \"#!ipxe\""),
                (1, "nothing here sets the variable bse"),
                (2, "goto nowhere: there is no such label")
            ]
        );
    }

    #[test]
    fn menus_names_and_types_are_read_and_misspelt_commands_are_named() {
        let menu = parse(
            "#!ipxe\nset space:hex 20\nmenu Live\nitem --gap Systems\nitem --key g gentoo Gentoo ${space:string}\nitem -k x exit Leave\n\
             choose --default gentoo os && goto ${os}\n:gentoo\nimgfetch --name kernel files/gentoo\ninitrd --name initrd.img files/gentoo.igz\n\
             imgexec kernel initrd=initrd.img a\n:exit\nexit 0\n",
            &Handed::new(),
        );
        assert!(menu.problems.is_empty(), "{menu:?}");
        assert_eq!(menu.entries[0].kernel.forms, ["files/gentoo"]);
        assert_eq!(menu.entries[0].initrds[0].called.as_deref(), Some("initrd.img"));
        assert_eq!(menu.entries[0].words, ["initrd=initrd.img", "a"]);
        assert_eq!(
            parse("#!ipxe\nkernell x\n", &Handed::new()).problems[0].what,
            "kernell is not a command of iPXE that is known here"
        );
    }

    #[test]
    fn variables_that_grow_without_end_are_cut() {
        let mut text = "#!ipxe\nset a x\n".to_owned();
        (0..64).for_each(|_| text.push_str("set a ${a}${a}\n"));
        parse(&text, &Handed::new());
    }
}
