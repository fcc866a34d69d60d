//! PXELINUX's and other SYSLINUX menus: `pxelinux.cfg/default`.
//!
//! Keywords from SYSLINUX's `doc/syslinux.txt` and `doc/menu.txt`; they are the same in any case, and labels are not. What the
//! documents leave open is as PXELINUX 6.04 does it in QEMU: a label is one word; what stands behind a kernel's or a
//! label's name are words of its command line; what `DEFAULT` names and is no label is a kernel, without the line in
//! front of all labels; without `DEFAULT` nothing is booted, unless a program shows a menu.

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
    /// What `DEFAULT` says, what is booted when nobody answers, and the label that the menu's program begins with.
    default: Option<(usize, Vec<String>)>,
    ontimeout: Option<(usize, Vec<String>)>,
    menu_default: Option<String>,
    /// Whether a program shows a menu, and whether PXELINUX itself asks.
    has_program: bool,
    prompts: bool,
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
            "LABEL" => self.begin(number, rest.split_ascii_whitespace().next().unwrap_or_default()),
            "DEFAULT" | "ONTIMEOUT" | "ONERROR" => self.goes_to(number, &keyword, rest),
            "PROMPT" => self.prompts = rest != "0",
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
                self.has_program |= keyword == "UI";
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

    /// Takes in what is booted by itself: a label, a kernel, or a program that shows a menu.
    fn goes_to(&mut self, number: usize, keyword: &str, rest: &str) {
        let words: Vec<String> = rest.split_ascii_whitespace().map(str::to_owned).collect();
        let Some(name) = words.first().cloned() else { return };
        if name.to_ascii_lowercase().ends_with(".c32") {
            self.has_program = true;
            self.menu.others.push(Named { line: number, form: name, role: Role::Program });
            return;
        }
        match keyword {
            "DEFAULT" => self.default = Some((number, words)),
            "ONTIMEOUT" => self.ontimeout = Some((number, words)),
            _ => {}
        }
        self.wanted.push((number, name));
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
        self.menu.continued.push(Continued { file, handed, program: None, includes: false });
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
            self.menu_default = Some(label.name.clone());
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
        // What stands behind the kernel's name comes first.
        let (kernel, options) = kernel.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((&kernel, ""));
        let words = options.split_ascii_whitespace().chain(append.split_ascii_whitespace());
        let mut entry = entry(line, kernel, words);
        entry.title = label.title.unwrap_or_else(|| label.name.clone());
        // INITRD stands behind APPEND's, and the last one counts.
        if !label.initrds.is_empty() {
            let named = |(line, form)| Named { line, form, role: Role::Initrd };
            entry.initrds = label.initrds.into_iter().map(named).map(Loaded::initrd).collect();
        }
        self.menu.entries.push(entry);
        self.booted.push(label.name);
    }

    /// Marks what is booted where nobody chooses.
    fn choose(&mut self) {
        let default = match self.ontimeout.take().filter(|_| self.prompts) {
            Some(ontimeout) => Some(ontimeout),
            None => self.default.take(),
        };
        let label = match (&default, &self.menu_default) {
            (Some((_, words)), _) => words.first().cloned(),
            (None, Some(label)) if self.has_program => Some(label.clone()),
            (None, _) => None,
        };
        let place = match label.filter(|label| self.labels.contains(label)) {
            Some(label) => self.booted.iter().position(|name| *name == label),
            // A menu begins at the top.
            None if self.has_program => Some(0),
            None => None,
        };
        let Some((line, words)) = default else {
            if let Some(entry) = place.and_then(|at| self.menu.entries.get_mut(at)) {
                entry.is_default = true;
            }
            return;
        };
        let [name, more @ ..] = &words[..] else { return };
        let is_elsewhere = self.labels.contains(name) || !self.menu.continued.is_empty();
        if self.has_program && !is_elsewhere {
            self.menu.guess(line, format!("there is no label {name}: the menu begins with another one"));
        }
        if let Some(entry) = place.and_then(|at| self.menu.entries.get_mut(at)) {
            entry.is_default = true;
            if !self.has_program {
                entry.words.extend(more.iter().cloned());
            }
        } else if !is_elsewhere && !self.has_program {
            let entry = entry(line, name, more.iter().map(String::as_str));
            self.menu.entries.push(Entry { is_default: true, ..entry });
        }
    }

    fn finish(mut self) -> Menu {
        self.end();
        self.choose();
        for (line, name) in self.wanted {
            // It may be in a menu that this one goes on to; and what is no label is a kernel's file.
            if self.elsewhere.contains(&name) && !self.menu.entries.is_empty() {
                self.menu.guess(line, format!("it goes to {name} by itself, which boots no Linux"));
            }
        }
        self.menu
    }
}

/// Returns what a kernel is booted with by the words of its line; of several `initrd=` the last one counts. Its title is its name.
fn entry<'w>(line: usize, kernel: &str, words: impl Iterator<Item = &'w str>) -> Entry {
    let named = |form: &str, role| Named { line, form: form.to_owned(), role };
    let (initrds, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("initrd="));
    let names = initrds.last().into_iter().flat_map(|word| word["initrd=".len()..].split(','));
    Entry {
        title: kernel.to_owned(),
        line,
        kernel: named(kernel, Role::Kernel),
        initrds: names.map(|name| Loaded::initrd(named(name, Role::Initrd))).collect(),
        words: words.into_iter().map(str::to_owned).collect(),
        is_default: false,
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
    fn a_label_without_a_kernel_is_one_and_so_is_a_default_that_is_no_label() {
        let menu = parse("DEFAULT live x\nLABEL gentoo\nKERNAL k\nLABEL disk\nLOCALBOOT 0\n", &Handed::new());
        assert!(menu.problems.is_empty(), "{menu:?}");
        let default = menu.entries.iter().find(|entry| entry.is_default).unwrap();
        assert_eq!((default.kernel.form.as_str(), &default.words[..]), ("live", &["x".to_owned()][..]));
        // A label without a kernel boots the file of its own name.
        assert_eq!((menu.entries.len(), menu.entries[0].kernel.form.as_str()), (2, "gentoo"));
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
