//! GRUB's menus: `boot/grub/grub.cfg` on an ISO, `grub/grub.cfg` on a boot server.
//!
//! Commands from the GRUB manual, 2.06: `menuentry`, `submenu`, `linux`, `initrd` (with `newc:NAME:FILE`), `search`,
//! `set`, `export`, `test`, `configfile`, `source`, and the conditions, loops and functions of its shell.

mod commands;
mod default;
mod run;
mod test;
mod tree;
mod words;

use self::run::Runner;
use self::words::{Commands, Variables};
use super::ways::Known;
use super::{Handed, IsThere, MAX_LINES, Menu};

/// Reads a menu; `handed` are the variables that the menu before it set, `is_there` tells whether a file is there that a condition
/// asks for.
pub fn parse(text: &str, handed: &Handed, is_there: IsThere<'_>) -> Menu {
    let Commands { commands, mistakes, open_quote } = words::split(text, MAX_LINES);
    let (statements, problems) = tree::read(commands);
    let mut runner = Runner::new(&statements, is_there);
    for (line, what) in mistakes {
        runner.state.menu.problem(line, what);
    }
    if let Some(line) = open_quote {
        runner.state.menu.problem(line, "a quote is opened and not closed: GRUB refuses the whole menu");
    }
    for (line, what) in problems {
        runner.state.menu.problem(line, what);
    }
    let variables = Variables {
        known: Known::of(handed.clone()),
        exported: handed.keys().cloned().collect(),
        // Whoever goes on to another menu may have set more than can be told.
        are_open: !handed.is_empty(),
    };
    runner.menu(&statements, variables, true, None);
    let mut menu = runner.state.menu;
    menu.entries.sort_by_key(|entry| entry.line);
    menu
}

#[cfg(test)]
mod tests {
    use super::super::{By, Searched};
    use super::*;

    #[test]
    fn entries_of_menus_and_submenus_are_read() {
        let text = "set default=0\nset label=Gentoo-1\nif serial; then\n  x\nfi\n\
                    menuentry 'Boot LiveCD (kernel: gentoo)' --class os {\n\tsearch --no-floppy --set=root --label $label\n\
                    \tlinux /boot/gentoo dokeymap root=live:CDLABEL=${label} 'a;b'\n\tinitrd /boot/gentoo.igz\n}\n\
                    submenu 'Consoles' {\nmenuentry 'tty1' {\n\tlinux ($root)/boot/gentoo console=tty1 # end\n\
                    \tinitrd /boot/gentoo.igz newc:image.squashfs.img:/image.squashfs\n}\n}\n\
                    menuentry \"Memtest\" {\n\tlinux /boot/memtest86\n}\n";
        let menu = parse(text, &Handed::new(), &mut |_| None);
        assert_eq!(menu.entries.len(), 3, "{menu:?}");
        assert_eq!(menu.entries[0].title, "Boot LiveCD (kernel: gentoo)");
        assert_eq!(menu.entries[0].words, ["dokeymap", "root=live:CDLABEL=Gentoo-1", "a;b"]);
        let label = Searched { line: 7, by: By::Label, value: "Gentoo-1".to_owned() };
        assert_eq!(menu.searched, [label]);
        assert_eq!(menu.entries[1].kernel.form, "/boot/gentoo");
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
            &mut |_| None,
        );
        assert_eq!(menu.entries.len(), 1, "{menu:?}");
        assert_eq!(menu.entries[0].kernel.form, "/gentoo");
        assert_eq!(menu.entries[0].words, ["a="]);
        assert_eq!(menu.entries[0].initrds[0].file.form, "/i");
        assert!(menu.problems.is_empty(), "{menu:?}");
    }

    #[test]
    fn blocks_and_quotes_that_are_not_closed_are_named() {
        let line = |text: &str| {
            parse(text, &Handed::new(), &mut |_| None).problems.first().map(|problem| problem.line)
        };
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
            let found = parse(line, &Handed::new(), &mut |_| None).searched;
            let label = found.iter().find(|searched| searched.by == By::Label);
            assert_eq!(label.map(|searched| searched.value.as_str()), expected, "{line}");
        }
    }

    #[test]
    fn every_way_through_a_menu_is_an_entry_with_what_belongs_together() {
        let text = "if [ \"$grub_platform\" = efi ]; then set k=a; else set k=b; fi\n\
                    if [ $grub_platform = efi ]; then\n set m=efi\nelse\n set m=pc\nfi\n\
                    if loadfont x; then set font=y; fi\n\
                    function boot {\n linux /$1 mode=$m $2\n initrd /$1.igz\n}\n\
                    menuentry A { boot $k quiet; }\nfor n in c d; do\n boot $n\ndone\n\
                    if [ -f /gone ]; then\n menuentry B { linux /gone\n }\nfi\n\
                    if [ -f /there ]; then\n menuentry C { linux /there $late\n }\nfi\n\
                    submenu S {\n menuentry D { linux /k $late [$shared]\n }\n}\n\
                    set late=1\nset shared=2\nexport shared\nmenuentry E { exit; linux /never\n }\n";
        let menu = parse(text, &Handed::new(), &mut |path| Some(path == "/there"));
        assert!(menu.problems.iter().all(|problem| !problem.is_certain), "{menu:?}");
        let shown = |entry: &super::super::Entry| {
            let initrds = entry.initrds.iter().map(|loaded| loaded.file.form.clone()).collect::<String>();
            format!("{} {} {}", entry.kernel.form, entry.words.join(" "), initrds)
        };
        let entries: Vec<String> = menu.entries.iter().map(shown).collect();
        assert!(entries.contains(&"/a mode=efi quiet /a.igz".to_owned()), "{entries:?}");
        assert!(entries.contains(&"/b mode=pc quiet /b.igz".to_owned()), "{entries:?}");
        assert!(entries.contains(&"/there 1 ".to_owned()), "{entries:?}");
        assert!(entries.contains(&"/k [2] ".to_owned()), "{entries:?}");
        assert!(
            !entries.iter().any(|entry| entry.contains("never") || entry.contains("gone")),
            "{entries:?}"
        );
        assert!(!entries.iter().any(|entry| entry.contains("/a mode=pc")), "{entries:?}");
    }

    #[test]
    fn conditions_without_end_lose_no_entry() {
        let mut text = String::new();
        for number in 0..12 {
            text.push_str(&format!(
                "if probe{number}; then\n menuentry {number} {{ linux /k{number}\n }}\nfi\n"
            ));
        }
        let menu = parse(&text, &Handed::new(), &mut |_| None);
        assert_eq!(menu.entries.len(), 12);
        assert!(menu.problems.iter().any(|problem| problem.what.contains("more ways than are read")));
    }

    #[test]
    fn a_menu_whose_variables_would_fill_the_memory_is_named() {
        let text = format!("set a={}\n{}", "x".repeat(60_000), "linux /k $a $a $a $a\n".repeat(2000));
        let menu = parse(&text, &Handed::new(), &mut |_| None);
        assert!(menu.problems.iter().any(|problem| problem.what.contains("more than any real menu's")));
    }

    #[test]
    fn an_initrd_without_a_kernel_and_a_kernel_without_a_name_are_named() {
        let menu = parse("initrd /x\nlinux\n", &Handed::new(), &mut |_| None);
        assert_eq!(menu.problems.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 2]);
    }
}
