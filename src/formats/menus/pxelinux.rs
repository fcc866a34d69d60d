//! PXELINUX's and other SYSLINUX menus: `pxelinux.cfg/default`.
//!
//! Keywords from SYSLINUX's `doc/syslinux.txt` and `doc/menu.txt`; they are the same in any case.

use std::collections::BTreeSet;

use super::{Entry, Loaded, MAX_ENTRIES, MAX_LINES, Menu, Named, Role};

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

/// Reads a menu.
pub fn parse(text: &str) -> Menu {
    let mut script = Script::default();
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
                if !name.contains('.') && !name.is_empty() {
                    self.wanted.push((number, name.to_owned()));
                }
            }
            "TEXT" if rest.eq_ignore_ascii_case("help") => self.in_help = true,
            "MENU" => self.menu_command(rest),
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
            "UI" | "COM32" | "INCLUDE" | "CONFIG" => {
                self.does_else();
                let file = rest.split_whitespace().next().unwrap_or_default();
                self.next_file(number, file);
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

    /// Takes in `MENU …`.
    fn menu_command(&mut self, rest: &str) {
        let (what, title) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
        let Some(label) = &mut self.label else { return };
        let goes_on = ["exit", "quit", "goto", "separator", "begin", "end", "disable", "hide"];
        if goes_on.iter().any(|word| what.eq_ignore_ascii_case(word)) {
            label.does_else = true;
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
        self.menu.others.push(Named { line, forms: vec![file.to_owned()], role: Role::Next });
    }

    /// Ends the label that is open, if one is.
    fn end(&mut self) {
        let Some(label) = self.label.take() else { return };
        let Some((line, kernel)) = label.kernel else {
            if !label.does_else {
                self.menu.problem(label.line, format!("the label {} boots nothing", label.name));
            }
            return;
        };
        if kernel.to_ascii_lowercase().ends_with(".c32") {
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
        let named = |(line, name): (usize, String), role| Named { line, forms: vec![name], role };
        self.menu.entries.push(Entry {
            title: label.title.unwrap_or(label.name),
            line,
            kernel: named((line, kernel), Role::Kernel),
            initrds: initrds
                .into_iter()
                .map(|initrd| Loaded { file: named(initrd, Role::Initrd), inside: None, called: None })
                .collect(),
            words,
        });
    }

    fn finish(mut self) -> Menu {
        self.end();
        for (line, name) in self.wanted {
            if !self.labels.contains(&name) {
                self.menu.problem(line, format!("there is no label {name}"));
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
        let menu = parse(text);
        assert_eq!(menu.entries.len(), 2, "{menu:?}");
        let [first, second] = &menu.entries[..] else { unreachable!() };
        assert_eq!((first.title.as_str(), first.line), ("1 Live", 7));
        assert_eq!(first.words, ["root=live:/x.img", "quiet"]);
        assert_eq!(first.initrds[0].file.forms, ["combined.igz"]);
        assert_eq!(second.initrds.len(), 2);
        assert_eq!(menu.others.len(), 2);
        assert!(menu.problems.is_empty());
    }

    #[test]
    fn a_label_that_is_there_twice_is_named() {
        assert_eq!(parse("LABEL a\nKERNEL k\nLABEL a\nKERNEL k\n").problems[0].line, 3);
    }

    #[test]
    fn labels_that_boot_nothing_and_defaults_that_are_not_there_are_named() {
        let menu = parse("DEFAULT live\nLABEL gentoo\nKERNAL k\nLABEL disk\nLOCALBOOT 0\n");
        let lines: Vec<_> = menu.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [2, 1], "{menu:?}");
    }
}
