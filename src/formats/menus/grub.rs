//! GRUB's menus: `boot/grub/grub.cfg` on an ISO, `grub/grub.cfg` on a boot server.
//!
//! Commands from the GRUB manual, 2.06: `menuentry`, `submenu`, `linux`, `initrd` (with `newc:NAME:FILE`), `search`,
//! `set`, `configfile`, `source`, `chainloader`. Both branches of an `if` are read.

mod default;
mod words;

use self::default::Choices;
use self::words::{Command, Commands, Variables, What, Word};
use super::{Continued, Entry, Handed, Loaded, MAX_ENTRIES, MAX_LINES, Menu, Named, Role};

/// Blocks inside each other that are read before a file counts as hostile.
const MAX_DEPTH: usize = 64;

/// Bytes of all words of a menu, with the values of variables in them, that are read before it counts as hostile.
const MAX_EXPANDED: usize = 16 << 20;

/// Reads a menu; `handed` are the variables that the menu before it set.
pub fn parse(text: &str, handed: &Handed) -> Menu {
    let mut script = Script {
        // Whoever goes on to another menu may have set more than can be told.
        variables: Variables { values: handed.clone(), are_open: !handed.is_empty() },
        ..Script::default()
    };
    let Commands { commands, stray_dollars, open_quote } = words::split(text, MAX_LINES);
    for line in stray_dollars {
        script.menu.problem(line, "a $ names no variable: GRUB refuses the command");
    }
    if let Some(line) = open_quote {
        script.menu.problem(line, "a quote is opened and not closed: GRUB refuses the whole menu");
    }
    for Command { line, what } in commands {
        match what {
            What::Opens => {
                script.choices.open(script.blocks.len());
                script.blocks.push((line, script.opening.take()));
            }
            What::Closes => script.close(line),
            What::Words(words) => script.command(line, &words),
        }
        if script.blocks.len() > MAX_DEPTH {
            script.menu.problem(line, "its blocks go deeper than any real menu's");
            break;
        }
    }
    script.finish()
}

#[derive(Default)]
struct Script {
    menu: Menu,
    variables: Variables,
    /// The blocks that are open: the line of each, and the title where it is an entry of a menu.
    blocks: Vec<(usize, Option<String>)>,
    /// The title of the entry whose block opens next.
    opening: Option<String>,
    entry: Option<Entry>,
    /// What the open entry looks for, before it loads a kernel.
    searched: Vec<(usize, String)>,
    /// Bytes of all words, once variables are put in.
    expanded: usize,
    choices: Choices,
}

impl Script {
    /// Takes in one command.
    fn command(&mut self, number: usize, words: &[Word]) {
        if self.expanded > MAX_EXPANDED {
            return;
        }
        let mut expanded = Vec::new();
        for word in words {
            if self.expanded > MAX_EXPANDED {
                break;
            }
            let words = self.variables.expand(word);
            self.expanded += words.iter().map(|word| word.len() + 1).sum::<usize>();
            expanded.extend(words);
        }
        if self.expanded > MAX_EXPANDED {
            return self
                .menu
                .problem(number, "its words are more than any real menu's; what follows is not read");
        }
        let words = expanded;
        // "if a; then linux …": what stands in front of a command does not matter here.
        let start = words.iter().take_while(|word| matches!(word.as_str(), "then" | "else" | "do")).count();
        let Some(command) = words.get(start) else { return };
        let args = &words[start + 1..];
        match command.as_str() {
            "menuentry" => {
                self.opening = Some(args.first().cloned().unwrap_or_default());
                self.choices.begin(args, false);
            }
            "submenu" => {
                self.opening = None;
                self.choices.begin(args, true);
            }
            "set" => {
                if let Some((name, value)) = args.first().and_then(|word| word.split_once('=')) {
                    self.choices.set(number, name);
                    self.variables.values.insert(name.to_owned(), value.to_owned());
                }
            }
            "unset" => drop(args.first().map(|name| self.variables.values.remove(name))),
            // Each of them sets variables from what is on the machine.
            "load_env" | "probe" | "regexp" | "smbios" | "read" | "for" | "rdmsr" | "cpuid" => {
                self.variables.are_open = true;
            }
            "linux" | "linux16" | "linuxefi" => self.kernel(number, command, args),
            "initrd" | "initrd16" | "initrdefi" => self.initrd(number, command, args),
            "search" => self.search(number, args),
            "configfile" | "normal" | "source" | "." => self.go_on(number, args),
            "blscfg" => self.menu.takes_entries = Some(number),
            // GRUB takes a command of no such name for an assignment.
            _ => drop(
                command
                    .split_once('=')
                    .map(|(name, value)| self.variables.values.insert(name.to_owned(), value.to_owned())),
            ),
        }
    }

    /// Takes in a menu in another file: it begins with the variables of this one, and may set others.
    fn go_on(&mut self, number: usize, args: &[String]) {
        let Some(path) = args.first() else { return };
        let file = Named { line: number, forms: vec![device_less(path)], role: Role::Next };
        self.menu.continued.push(Continued { file, handed: self.variables.values.clone() });
        self.variables.are_open = true;
    }

    fn close(&mut self, number: usize) {
        self.push();
        self.choices.close(self.blocks.len());
        let closed = self.blocks.pop();
        if closed.as_ref().is_some_and(|(_, title)| title.is_some()) {
            self.searched.clear();
        }
        if closed.is_none() {
            self.menu.problem(number, "a block is closed that nobody opened: GRUB refuses the whole menu");
        }
    }

    fn kernel(&mut self, number: usize, command: &str, args: &[String]) {
        self.push();
        self.choices.boots();
        self.menu.searched.append(&mut self.searched);
        let [kernel, rest @ ..] = args else {
            return self.menu.problem(number, format!("{command} names no kernel"));
        };
        let title = self.blocks.iter().rev().find_map(|(_, title)| title.clone()).unwrap_or_default();
        let kernel = Named { line: number, forms: vec![device_less(kernel)], role: Role::Kernel };
        self.entry = Some(Entry { title, line: number, kernel, initrds: Vec::new(), words: rest.to_vec() });
    }

    fn initrd(&mut self, number: usize, command: &str, args: &[String]) {
        let Some(entry) = &mut self.entry else {
            return self.menu.problem(number, format!("{command} stands before any kernel"));
        };
        for word in args {
            let (inside, path) = match word.strip_prefix("newc:").and_then(|rest| rest.split_once(':')) {
                Some((inside, path)) => (Some(format!("/{}", inside.trim_start_matches('/'))), path),
                None => (None, word.as_str()),
            };
            let role = if inside.is_some() { Role::Injected } else { Role::Initrd };
            let file = Named { line: number, forms: vec![device_less(path)], role };
            entry.initrds.push(Loaded { file, inside, called: None });
        }
    }

    /// Takes in `search`: of its words, the first that is neither an option nor the value of one is what it looks for.
    fn search(&mut self, number: usize, args: &[String]) {
        let mut is_label = false;
        let mut value = None;
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--label" | "-l" => is_label = true,
                "--set" | "-s" => {
                    let _variable = args.next_if(|next| !next.starts_with('-'));
                }
                hint if hint == "-h" || hint.starts_with("--hint") && !hint.contains('=') => {
                    let _device = args.next();
                }
                option if option.starts_with('-') => {}
                _ if value.is_none() => value = Some(arg.clone()),
                _ => {}
            }
        }
        let Some(value) = value.filter(|_| is_label) else { return };
        // What an entry looks for counts if it boots a kernel: others start the disk, or another loader.
        let is_in_entry = self.blocks.iter().any(|(_, title)| title.is_some());
        if is_in_entry && self.entry.is_none() {
            self.searched.push((number, value));
        } else {
            self.menu.searched.push((number, value));
        }
    }

    /// Ends the entry that is open, if one is.
    fn push(&mut self) {
        if let Some(entry) = self.entry.take()
            && self.menu.entries.len() < MAX_ENTRIES
        {
            self.menu.entries.push(entry);
        }
    }

    fn finish(mut self) -> Menu {
        self.push();
        if let Some((line, _)) = self.blocks.first() {
            self.menu.problem(*line, "a block is opened and not closed: GRUB refuses the whole menu");
        }
        let default = self.variables.values.get("default").map(String::as_str);
        // A menu that goes on has entries elsewhere as well.
        let is_whole = !self.menu.entries.is_empty() && self.menu.continued.is_empty();
        if let Some((line, what)) = self.choices.judge(default).filter(|_| is_whole) {
            self.menu.guess(line, what);
        }
        self.menu
    }
}

/// Returns a path without the device in front: `(cd0)/boot/gentoo`, `($root)/boot/gentoo`.
fn device_less(path: &str) -> String {
    // A device in a variable may bring brackets of its own.
    let rest = path.strip_prefix('(').and_then(|rest| Some(rest.split_once(')')?.1));
    rest.unwrap_or(path).trim_start_matches(')').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_menus_and_submenus_are_read() {
        let text = "set default=0\nset label=Gentoo-1\nif serial; then\n  x\nfi\n\
                    menuentry 'Boot LiveCD (kernel: gentoo)' --class os {\n\tsearch --no-floppy --set=root --label $label\n\
                    \tlinux /boot/gentoo dokeymap root=live:CDLABEL=${label} 'a;b'\n\tinitrd /boot/gentoo.igz\n}\n\
                    submenu 'Consoles' {\nmenuentry 'tty1' {\n\tlinux ($root)/boot/gentoo console=tty1 # end\n\
                    \tinitrd /boot/gentoo.igz newc:image.squashfs.img:/image.squashfs\n}\n}\n\
                    menuentry \"Memtest\" {\n\tlinux /boot/memtest86\n}\n";
        let menu = parse(text, &Handed::new());
        assert_eq!(menu.entries.len(), 3, "{menu:?}");
        assert_eq!(menu.entries[0].title, "Boot LiveCD (kernel: gentoo)");
        assert_eq!(menu.entries[0].words, ["dokeymap", "root=live:CDLABEL=Gentoo-1", "a;b"]);
        assert_eq!(menu.searched, [(7, "Gentoo-1".to_owned())]);
        assert_eq!(menu.entries[1].kernel.forms, ["/boot/gentoo"]);
        assert_eq!(menu.entries[1].words, ["console=tty1"]);
        assert_eq!(menu.entries[1].initrds[1].inside.as_deref(), Some("/image.squashfs.img"));
        assert!(menu.entries[2].initrds.is_empty());
        assert!(menu.problems.is_empty());
    }

    #[test]
    fn entries_on_one_line_and_devices_in_variables_are_read() {
        let menu = parse(
            "set root=(tftp,10.0.0.1)\nmenuentry \"efi\" { linuxefi ($root)/gentoo a=${b} ; initrdefi /i }\n",
            &Handed::new(),
        );
        assert_eq!(menu.entries.len(), 1, "{menu:?}");
        assert_eq!(menu.entries[0].kernel.forms, ["/gentoo"]);
        assert_eq!(menu.entries[0].words, ["a="]);
        assert_eq!(menu.entries[0].initrds[0].file.forms, ["/i"]);
        assert!(menu.problems.is_empty(), "{menu:?}");
    }

    #[test]
    fn blocks_and_quotes_that_are_not_closed_are_named() {
        let line = |text: &str| parse(text, &Handed::new()).problems.first().map(|problem| problem.line);
        assert_eq!(line("\nmenuentry 'a' {\nlinux /k\n"), Some(2));
        assert_eq!(line("menuentry 'a {\nlinux /k\n}\n"), Some(1));
        assert_eq!(line("menuentry a {\n}\n}\n"), Some(3));
        assert_eq!(line("function f {\n  set x=${y}\n}\nif [ a ]; then\n  linux /k\nfi\n"), None);
    }

    #[test]
    fn what_is_searched_is_told_from_the_values_of_options() {
        for (line, expected) in [
            ("search --no-floppy --set=root --label Live --hint hd0", Some("Live")),
            ("search --no-floppy --label Live --set root", Some("Live")),
            ("search -l -s root Live", Some("Live")),
            ("search --set root --file /.disk", None),
            ("menuentry 'Disk' { search --set=root --label EFI; chainloader /x.efi; }", None),
            ("menuentry 'Live' { search --set=root --label Live; linux /k; }", Some("Live")),
        ] {
            let found = parse(line, &Handed::new()).searched;
            assert_eq!(found.first().map(|(_, label)| label.as_str()), expected, "{line}");
        }
    }

    #[test]
    fn a_menu_whose_variables_would_fill_the_memory_is_named() {
        let text = format!("set a={}\n{}", "x".repeat(60_000), "linux /k $a $a $a $a\n".repeat(2000));
        let menu = parse(&text, &Handed::new());
        assert!(menu.problems.iter().any(|problem| problem.what.contains("more than any real menu's")));
    }

    #[test]
    fn an_initrd_without_a_kernel_and_a_kernel_without_a_name_are_named() {
        let menu = parse("initrd /x\nlinux\n", &Handed::new());
        assert_eq!(menu.problems.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 2]);
    }
}
