//! PXELINUX's and other SYSLINUX menus: `pxelinux.cfg/default`.
//!
//! Keywords from SYSLINUX's `doc/syslinux.txt` and `doc/menu.txt`; they are the same in any case.

use std::collections::BTreeSet;

use super::{Continued, Entry, Handed, Loaded, MAX_ENTRIES, MAX_LINES, Menu, Named, Role};

#[derive(Default)]
struct Label {
    name: String,
    title: Option<String>,
    kernel: Option<(usize, String)>,
    append: Option<String>,
    initrds: Vec<(usize, String)>,
    line: usize,
    /// It boots a disk, goes back, or loads another menu.
    does_else: bool,
}

/// What is handed over for the line in front of all labels.
const GLOBALS: &str = "APPEND";

/// Reads a menu; `handed` is what the menu that includes it has in front of all labels.
pub fn parse(text: &str, handed: &Handed) -> Menu {
    let globals = handed.get(GLOBALS).cloned().unwrap_or_default();
    let mut script = Script { globals, ..Script::default() };
    for (index, line) in text.lines().take(MAX_LINES).enumerate() {
        script.line(index + 1, line.trim());
    }
    script.finish()
}

#[derive(Default)]
struct Script {
    menu: Menu,
    /// The APPEND in front of all labels.
    globals: String,
    label: Option<Label>,
    labels: BTreeSet<String>,
    /// Labels that the menu goes to by itself.
    wanted: Vec<(usize, String)>,
    /// Labels that boot something else than a kernel: the disk, another menu.
    elsewhere: BTreeSet<String>,
    /// The labels of the entries, in order.
    booted: Vec<String>,
    in_help: bool,
}

impl Script {
    fn line(&mut self, number: usize, line: &str) {
        let (keyword, rest) = line.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((line, ""));
        let (keyword, rest) = (keyword.to_ascii_uppercase(), rest.trim());
        if self.in_help {
            self.in_help = keyword != "ENDTEXT";
            return;
        }
        match keyword.as_str() {
            "LABEL" => self.begin(number, rest),
            "DEFAULT" | "ONTIMEOUT" | "ONERROR" => {
                let name = rest.split_ascii_whitespace().next().unwrap_or_default();
                // It may name a file as well: a kernel, or a menu program.
                if name.to_ascii_lowercase().ends_with(".c32") {
                    let named = Named { line: number, form: name.to_owned(), role: Role::Program };
                    self.menu.others.push(named);
                } else if !name.contains('.') && !name.is_empty() {
                    self.wanted.push((number, name.to_owned()));
                }
            }
            "TEXT" if rest.eq_ignore_ascii_case("help") => self.in_help = true,
            "MENU" => self.menu_command(number, rest),
            "KERNEL" | "LINUX" => match &mut self.label {
                Some(label) => label.kernel = Some((number, rest.to_owned())),
                None => self.menu.problem(number, format!("{keyword} stands before any LABEL")),
            },
            "APPEND" => match &mut self.label {
                Some(label) => label.append = Some(rest.to_owned()),
                None => self.globals = rest.to_owned(),
            },
            "INITRD" => {
                if let Some(label) = &mut self.label {
                    label.initrds = rest.split(',').map(|name| (number, name.to_owned())).collect();
                }
            }
            "LOCALBOOT" | "BOOT" | "PXE" | "BSS" | "FDIMAGE" | "COMBOOT" => self.does_else(),
            "INCLUDE" | "CONFIG" => {
                self.does_else();
                self.go_on(number, rest);
            }
            "UI" | "COM32" => {
                self.does_else();
                let (file, menu) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
                let role = if keyword == "UI" { Role::Program } else { Role::Next };
                self.menu.others.push(Named { line: number, form: file.to_owned(), role });
                // The menu programs take the menu's file as their argument.
                if file.rsplit('/').next().is_some_and(|name| name.contains("menu.c32")) {
                    self.go_on(number, menu);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, number: usize, name: &str) {
        self.end();
        if !self.labels.insert(name.to_owned()) {
            self.menu.problem(number, format!("the label {name} is there twice"));
        }
        self.label = Some(Label { name: name.to_owned(), line: number, ..Label::default() });
    }

    /// Takes in a menu in another file.
    fn go_on(&mut self, line: usize, rest: &str) {
        let Some(file) = rest.split_ascii_whitespace().next() else { return };
        let file = Named { line, form: file.to_owned(), role: Role::Next };
        let handed = Handed::from([(GLOBALS.to_owned(), self.globals.clone())]);
        self.menu.continued.push(Continued { file, handed });
    }

    /// Takes in `MENU …`.
    fn menu_command(&mut self, number: usize, rest: &str) {
        let (what, title) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
        if what.eq_ignore_ascii_case("include") {
            return self.go_on(number, title);
        }
        let Some(label) = &mut self.label else { return };
        let goes_on = ["exit", "quit", "goto", "separator", "begin", "end", "disable", "hide"];
        if goes_on.iter().any(|word| what.eq_ignore_ascii_case(word)) {
            label.does_else = true;
        }
        if what.eq_ignore_ascii_case("default") {
            self.wanted.push((number, label.name.clone()));
        }
        if what.eq_ignore_ascii_case("label") {
            label.title = Some(title.trim().replace('^', ""));
        }
    }

    fn does_else(&mut self) {
        if let Some(label) = &mut self.label {
            label.does_else = true;
        }
    }

    fn next_file(&mut self, line: usize, file: &str) {
        self.menu.others.push(Named { line, form: file.to_owned(), role: Role::Next });
    }

    /// Ends the label that is open, if one is.
    fn end(&mut self) {
        let Some(label) = self.label.take() else { return };
        if label.kernel.is_none() && label.does_else {
            self.elsewhere.insert(label.name);
            return;
        }
        // Without KERNEL, the label's name is the kernel's.
        let (line, kernel) = label.kernel.unwrap_or_else(|| (label.line, label.name.clone()));
        if kernel.to_ascii_lowercase().ends_with(".c32") {
            self.elsewhere.insert(label.name);
            return self.next_file(line, &kernel);
        }
        if self.menu.entries.len() >= MAX_ENTRIES {
            return;
        }
        // A label's own APPEND takes the place of the global one; "-" means none.
        let append = match label.append.as_deref() {
            Some("-") => "",
            Some(own) => own,
            None => &self.globals,
        };
        let mut words = Vec::new();
        let mut initrds = label.initrds;
        for word in append.split_ascii_whitespace() {
            match word.strip_prefix("initrd=") {
                Some(names) => initrds = names.split(',').map(|name| (line, name.to_owned())).collect(),
                None => words.push(word.to_owned()),
            }
        }
        let named = |(line, name): (usize, String), role| Named { line, form: name, role };
        self.menu.entries.push(Entry {
            title: label.title.unwrap_or_else(|| label.name.clone()),
            line,
            kernel: named((line, kernel), Role::Kernel),
            initrds: initrds
                .into_iter()
                .map(|initrd| Loaded {
                    file: named(initrd, Role::Initrd),
                    inside: None,
                    makes_folders: usize::MAX,
                    called: None,
                })
                .collect(),
            words,
            is_default: false,
        });
        self.booted.push(label.name);
    }

    fn finish(mut self) -> Menu {
        self.end();
        // Of several, the last one counts; without any, a menu begins at the top.
        let default = self.wanted.last().map(|(_, name)| name.as_str());
        let place = match default {
            Some(default) => self.booted.iter().position(|name| name == default),
            None => Some(0),
        };
        if let Some(entry) = place.and_then(|at| self.menu.entries.get_mut(at)) {
            entry.is_default = true;
        }
        for (line, name) in self.wanted {
            // It may be in a menu that this one goes on to; and what is no label is a kernel's file.
            if !self.labels.contains(&name) && self.menu.continued.is_empty() {
                self.menu.problem(line, format!("there is no label {name}"));
            } else if self.elsewhere.contains(&name) && !self.menu.entries.is_empty() {
                self.menu.guess(line, format!("it goes to {name} by itself, which boots no Linux"));
            }
        }
        self.menu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_their_kernels_initrds_and_words_are_read() {
        let text = "UI menu.c32\nLABEL a\n  MENU LABEL ^1 Live\n  TEXT HELP\n  KERNEL is no keyword here\n  ENDTEXT\n  \
                    KERNEL gentoo\n  APPEND initrd=combined.igz root=live:/x.img quiet\nlabel b\nlinux other\ninitrd a,b\nlabel c\nkernel chain.c32\n";
        let menu = parse(text, &Handed::new());
        assert_eq!(menu.entries.len(), 2, "{menu:?}");
        let [first, second] = &menu.entries[..] else { unreachable!() };
        assert_eq!((first.title.as_str(), first.line), ("1 Live", 7));
        assert_eq!(first.words, ["root=live:/x.img", "quiet"]);
        assert_eq!(first.initrds[0].file.form, "combined.igz");
        assert_eq!(second.initrds.len(), 2);
        assert_eq!(menu.others.len(), 2);
        assert!(menu.problems.is_empty());
    }

    #[test]
    fn a_label_that_is_there_twice_is_named() {
        assert_eq!(parse("LABEL a\nKERNEL k\nLABEL a\nKERNEL k\n", &Handed::new()).problems[0].line, 3);
    }

    #[test]
    fn a_label_without_a_kernel_is_one_and_a_default_that_is_not_there_is_named() {
        let menu = parse("DEFAULT live\nLABEL gentoo\nKERNAL k\nLABEL disk\nLOCALBOOT 0\n", &Handed::new());
        let lines: Vec<_> = menu.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1], "{menu:?}");
        // A label without a kernel boots the file of its own name.
        assert_eq!((menu.entries.len(), menu.entries[0].kernel.form.as_str()), (1, "gentoo"));
    }

    #[test]
    fn menus_go_on_in_other_files_with_the_line_in_front_of_all_labels() {
        let menu = parse(
            "APPEND quiet\nINCLUDE live.cfg\nUI vesamenu.c32 /menus/other\nMENU INCLUDE more.cfg Title\nDEFAULT elsewhere\n",
            &Handed::new(),
        );
        let files: Vec<_> = menu.continued.iter().map(|next| next.file.form.as_str()).collect();
        assert_eq!(files, ["live.cfg", "/menus/other", "more.cfg"]);
        assert!(menu.problems.is_empty(), "{menu:?}");
        let next = parse("LABEL a\nKERNEL k\nLABEL b\nKERNEL k\nAPPEND -\n", &menu.continued[0].handed);
        assert_eq!((&next.entries[0].words[..], next.entries[1].words.len()), (&["quiet".to_owned()][..], 0));
    }
}
