//! PXELINUX's and other SYSLINUX menus: `pxelinux.cfg/default`.
//!
//! Keywords from SYSLINUX's `doc/syslinux.txt` and `doc/menu.txt`; they are the same in any case.

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
    let mut menu = Menu::default();
    let mut globals = String::new();
    let mut label: Option<Label> = None;
    let mut seen = std::collections::BTreeSet::new();
    let mut in_help = false;
    let mut wanted: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().take(MAX_LINES).enumerate() {
        let number = index + 1;
        let line = line.trim();
        let (keyword, rest) = line.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((line, ""));
        let (keyword, rest) = (keyword.to_ascii_uppercase(), rest.trim());
        if in_help {
            in_help = keyword != "ENDTEXT";
            continue;
        }
        match keyword.as_str() {
            "LABEL" => {
                finish(label.take(), &globals, &mut menu);
                if !seen.insert(rest.to_owned()) {
                    menu.problem(number, format!("the label {rest} is there twice"));
                }
                label = Some(Label { name: rest.to_owned(), line: number, ..Label::default() });
            }
            "DEFAULT" | "ONTIMEOUT" | "ONERROR" => {
                let name = rest.split_ascii_whitespace().next().unwrap_or_default();
                // It may name a file as well: a kernel, or a menu program.
                if !name.contains('.') && !name.is_empty() {
                    wanted.push((number, name.to_owned()));
                }
            }
            "TEXT" if rest.eq_ignore_ascii_case("help") => in_help = true,
            "MENU" => {
                let (what, title) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
                let goes_on = ["exit", "quit", "goto", "separator", "begin", "end", "disable", "hide"];
                if let Some(label) = &mut label
                    && goes_on.iter().any(|word| what.eq_ignore_ascii_case(word))
                {
                    label.does_else = true;
                }
                if what.eq_ignore_ascii_case("label")
                    && let Some(label) = &mut label
                {
                    label.title = Some(title.trim().replace('^', ""));
                }
            }
            "KERNEL" | "LINUX" => match &mut label {
                Some(label) => label.kernel = Some((number, rest.to_owned())),
                None => menu.problem(number, format!("{keyword} stands before any LABEL")),
            },
            "APPEND" => match &mut label {
                Some(label) => label.append = Some(rest.to_owned()),
                None => globals = rest.to_owned(),
            },
            "INITRD" => {
                if let Some(label) = &mut label {
                    label.initrds = rest.split(',').map(|name| (number, name.to_owned())).collect();
                }
            }
            "LOCALBOOT" | "BOOT" | "PXE" | "BSS" | "FDIMAGE" | "COMBOOT" => {
                if let Some(label) = &mut label {
                    label.does_else = true;
                }
            }
            "UI" | "COM32" | "INCLUDE" | "CONFIG" => {
                if let Some(label) = &mut label {
                    label.does_else = true;
                }
                let file = rest.split_whitespace().next().unwrap_or_default();
                menu.others.push(Named { line: number, forms: vec![file.to_owned()], role: Role::Next });
            }
            _ => {}
        }
    }
    finish(label, &globals, &mut menu);
    for (line, name) in wanted {
        if !seen.contains(&name) {
            menu.problem(line, format!("there is no label {name}"));
        }
    }
    menu
}

fn finish(label: Option<Label>, globals: &str, menu: &mut Menu) {
    let Some(label) = label else { return };
    let Some((line, kernel)) = label.kernel else {
        if !label.does_else {
            menu.problem(label.line, format!("the label {} boots nothing", label.name));
        }
        return;
    };
    if kernel.to_ascii_lowercase().ends_with(".c32") {
        menu.others.push(Named { line, forms: vec![kernel], role: Role::Next });
        return;
    }
    if menu.entries.len() >= MAX_ENTRIES {
        return;
    }
    // A label's own APPEND takes the place of the global one; "-" means none.
    let append = match label.append.as_deref() {
        Some("-") => "",
        Some(own) => own,
        None => globals,
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
    menu.entries.push(Entry {
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
