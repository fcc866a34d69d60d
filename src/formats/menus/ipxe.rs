//! iPXE's scripts.
//!
//! Commands from iPXE's documentation (ipxe.org/cmd). A script is run on every way through it: a command that may fail,
//! or a choice of the user, parts the ways where the script itself makes a difference of it. As in iPXE, a script ends at
//! a line that fails; what is loaded when it ends is not booted (iPXE of 2019, seen in QEMU).

mod commands;
mod lines;
mod names;
mod run;

use std::collections::{BTreeMap, BTreeSet};

use self::lines::lines_of;
use self::names::COMMANDS;
use self::run::Runner;
use super::{Handed, Menu};

/// Reads a script; `handed` are the variables that the script before it set.
pub fn parse(text: &str, handed: &Handed) -> Menu {
    let mut menu = Menu::default();
    if !text.starts_with("#!ipxe") {
        menu.problem(1, "an iPXE script begins with \"#!ipxe\"");
    }
    let lines = lines_of(text);
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some(label) = line.label.as_deref()
            && labels.contains_key(label)
        {
            menu.guess(line.number, format!("the label {label} is there twice: the first one counts"));
        } else if let Some(label) = line.label.as_deref() {
            labels.insert(label, at);
        }
        for name in line.commands.iter().filter_map(|(_, words)| words.first()) {
            if !COMMANDS.contains(&name.as_str()) && !name.contains("${") && unknown.insert(name) {
                menu.guess(line.number, format!("{name} is not a command of iPXE that is known here"));
            }
        }
    }
    for line in &lines {
        for (_, words) in &line.commands {
            if let [goto, label, ..] = &words[..]
                && goto == "goto"
                && !label.contains("${")
                && !labels.contains_key(label.as_str())
            {
                menu.problem(line.number, format!("goto {label}: there is no such label"));
            }
        }
    }
    let mut menu = Runner::new(menu, &lines, &labels).run(handed);
    menu.entries.sort_by_key(|entry| entry.line);
    menu.problems.sort_by_key(|problem| problem.line);
    menu
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
        assert_eq!(entry.kernel.form, "http://host/x/gentoo");
        assert_eq!(entry.words, ["initrd=gentoo.igz", "dokeymap", "root=live:/image.squashfs.img"]);
        assert_eq!(entry.initrds[0].inside, None);
        assert_eq!(entry.initrds[1].inside.as_deref(), Some("/image.squashfs.img"));
    }

    fn shown(menu: &Menu) -> Vec<String> {
        let entry = |entry: &super::super::Entry| {
            let initrds = entry.initrds.iter().map(|loaded| loaded.file.form.as_str());
            let all = std::iter::once(entry.kernel.form.as_str()).chain(initrds);
            all.chain(entry.words.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
        };
        menu.entries.iter().map(entry).collect()
    }

    #[test]
    fn every_way_through_a_script_is_an_entry_with_what_belongs_together() {
        let menu = parse(
            "#!ipxe\niseq ${platform} efi && set arch x64 || set arch x86\nkernel k-${arch} a\n\
             iseq ${platform} efi && initrd i-efi || initrd i-pc\ninitrd more ||\nboot || goto failed\n\
             :failed\niseq ${platform} efi && chain combined.ipxe || chain inject.ipxe || shell\n",
            &Handed::new(),
        );
        assert_eq!(shown(&menu), ["k-x64 i-efi more a", "k-x86 i-pc more a"]);
        assert_eq!(menu.continued.len(), 2);
        assert!(menu.problems.is_empty(), "{menu:?}");
    }

    #[test]
    fn what_a_user_chooses_decides_what_is_loaded() {
        let menu = parse(
            "#!ipxe\n:start\nmenu Live\nitem one One\nitem two Two\nitem text Text\nchoose os && goto ${os} || goto start\n\
             :one\nset k first\ngoto load\n:two\nset k second\nset w quiet\ngoto load\n:text\nset k third\n\
             isset ${w} || set w text\ngoto load\n:load\nkernel ${k} ${w} || goto start\ninitrd ${k}.igz\nboot\n\
             :never\nkernel gone\nboot\n",
            &Handed::from([("w".to_owned(), String::new())]),
        );
        assert_eq!(shown(&menu), ["first first.igz", "second second.igz quiet", "third third.igz text"]);
        assert!(menu.problems.is_empty(), "{menu:?}");
    }

    #[test]
    fn scripts_without_end_are_read_to_some_end() {
        let endless = "#!ipxe\nset a x\n:again\nset a ${a}y\ngoto again\n";
        let many = (0..40).map(|n| format!("iseq ${{net{n}/mac}} x && set v{n} 1 || set v{n} 2\n"));
        let many = format!("#!ipxe\n{}kernel k\ninitrd i\nboot\n", many.collect::<String>());
        assert!(parse(endless, &Handed::new()).entries.is_empty());
        let menu = parse(&many, &Handed::new());
        assert!(menu.problems.iter().any(|problem| problem.what.contains("more ways")), "{menu:?}");
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
        assert_eq!(menu.entries[0].kernel.form, "files/gentoo");
        assert_eq!(menu.entries[0].initrds[0].called.as_deref(), Some("initrd.img"));
        assert_eq!(menu.entries[0].words, ["initrd=initrd.img", "a"]);
        assert_eq!(
            parse("#!ipxe\nkernell x\n", &Handed::new()).problems[0].what,
            "kernell is not a command of iPXE that is known here"
        );
    }

    #[test]
    fn many_large_variables_on_many_ways_are_cut() {
        let mut text = format!("#!ipxe\nset a {}\n", "x".repeat(3900));
        (0..2000).for_each(|n| text.push_str(&format!("set v{n} ${{a}}\n")));
        (0..300)
            .for_each(|n| text.push_str(&format!("isset ${{net{n}/mac}} && chain m{n}.ipxe || set w 1\n")));
        let menu = parse(&text, &Handed::new());
        assert!(menu.problems.iter().any(|problem| problem.what.contains("more variables")), "{menu:?}");
        let handed: usize =
            menu.continued.iter().flat_map(|next| next.handed.values()).map(String::len).sum();
        assert!(handed < 64 << 20, "{handed}");
    }

    #[test]
    fn images_have_command_lines_before_one_of_them_is_started() {
        let menu = parse(
            "#!ipxe\nimgfetch --name k x/kernel a b\ninitrd i /inside mkdir=2\nimgargs i /other\nimgselect k\nboot\n\
             imgfree\ngoto next\n:next kernel l # c\ninitrd j\ninitrd gone\nimgfree gone\nimgargs l d e\nboot\n",
            &Handed::new(),
        );
        assert_eq!(shown(&menu), ["x/kernel i a b"]);
        assert_eq!(menu.entries[0].initrds[0].inside.as_deref(), Some("/other"));
        let menu = parse(
            "#!ipxe\n:a kernel l # c\ninitrd j\ninitrd gone\nimgfree gone\nimgargs l d e\nboot\n",
            &Handed::new(),
        );
        assert_eq!(shown(&menu), ["l j d e"]);
        assert!(menu.problems.is_empty(), "{menu:?}");
        let menu = parse("#!ipxe\ninitrd i\nchain k a\n", &Handed::new());
        let program = menu.continued[0].program.as_ref().unwrap();
        assert_eq!(
            (program.kernel.form.as_str(), program.initrds.len(), &program.words[..]),
            ("k", 1, &["a".to_owned()][..])
        );
    }

    #[test]
    fn variables_that_grow_without_end_are_cut() {
        let mut text = "#!ipxe\nset a x\n".to_owned();
        (0..64).for_each(|_| text.push_str("set a ${a}${a}\n"));
        parse(&text, &Handed::new());
    }
}
