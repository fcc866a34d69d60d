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
}

/// Reads a menu.
pub fn parse(text: &str) -> Menu {
    let mut menu = Menu::default();
    let mut globals = String::new();
    let mut label: Option<Label> = None;
    let mut seen = std::collections::BTreeSet::new();
    let mut in_help = false;
    for (index, line) in text.lines().take(MAX_LINES).enumerate() {
        let number = index + 1;
        let line = line.trim();
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
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
                label = Some(Label { name: rest.to_owned(), ..Label::default() });
            }
            "TEXT" if rest.eq_ignore_ascii_case("help") => in_help = true,
            "MENU" => {
                let (what, title) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
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
            "UI" | "COM32" | "INCLUDE" | "CONFIG" => {
                let file = rest.split_whitespace().next().unwrap_or_default();
                menu.others.push(Named { line: number, forms: vec![file.to_owned()], role: Role::Next });
            }
            _ => {}
        }
    }
    finish(label, &globals, &mut menu);
    menu
}

fn finish(label: Option<Label>, globals: &str, menu: &mut Menu) {
    let Some(label) = label else { return };
    let Some((line, kernel)) = label.kernel else { return };
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
    for word in append.split_whitespace() {
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
            .map(|initrd| Loaded { file: named(initrd, Role::Initrd), inside: None })
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
        assert_eq!(parse("LABEL a\nLABEL a\n").problems[0].line, 2);
    }
}
