//! What GRUB boots by itself: the variable `default` names an entry by its number, its title or its id (GRUB manual, 15.1.11); what
//! it does not find, it takes the first entry for (`grub-core/normal/menu.c`).

use crate::formats::menus::ways::is_open;

/// One thing to choose in a menu.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Choice {
    /// The line, counted from 1.
    pub(super) line: usize,
    pub(super) title: String,
    id: Option<String>,
    /// What else stands behind the title.
    pub(super) args: Vec<String>,
    /// Which block is run.
    pub(super) block: usize,
    pub(super) is_submenu: bool,
}

impl Choice {
    /// Takes in `menuentry` or `submenu`: options stand in front of the title or behind it.
    pub(super) fn of(line: usize, args: &[String], block: usize, is_submenu: bool) -> Self {
        let mut choice = Self { line, title: String::new(), id: None, args: Vec::new(), block, is_submenu };
        let mut plain = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // grub-mkconfig writes the option in a variable, for versions that lack it.
                "--id" | "${menuentry_id_option}" => choice.id = args.next().cloned(),
                "--class" | "--users" | "--hotkey" | "--source" => drop(args.next()),
                "--" => plain.extend(args.by_ref().cloned()),
                option if option.starts_with("--") => {
                    choice.id = option.strip_prefix("--id=").map(str::to_owned).or(choice.id.take());
                }
                _ => plain.push(arg.clone()),
            }
        }
        let mut plain = plain.into_iter();
        choice.title = plain.next().unwrap_or_default();
        choice.args = plain.collect();
        choice
    }
}

/// What a variable `default` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chosen<'a> {
    /// An entry by its number, and what is behind the `>`: an entry of that submenu.
    Entry(usize, Option<&'a str>),
    /// None that is there.
    Nothing(&'a str),
    /// Only the machine knows.
    Open,
}

/// Finds what is booted where nobody chooses.
pub(super) fn chosen<'a>(choices: &[Choice], default: Option<&'a str>) -> Chosen<'a> {
    let default = default.unwrap_or("0");
    let (first, inside) = match default.split_once('>') {
        Some((first, inside)) => (first, Some(inside)),
        None => (default, None),
    };
    let is_meant = |choice: &Choice| choice.title == first || choice.id.as_deref() == Some(first);
    let found = match first.parse::<usize>() {
        Ok(number) => Some(number).filter(|number| *number < choices.len()),
        Err(_) => choices.iter().position(is_meant),
    };
    match found {
        _ if is_open(default) => Chosen::Open,
        // grub-set-default may have written a title that has a > of its own.
        None if inside.is_some() || choices.is_empty() => Chosen::Open,
        None => Chosen::Nothing(default),
        Some(at) => Chosen::Entry(at, inside),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use crate::formats::menus::Handed;

    #[test]
    fn what_is_booted_by_itself_is_found_by_number_title_and_id() {
        let entries = "menuentry 'Disk' { exit }\nmenuentry --class os --id live 'Live' {\n linux /k\n initrd /i\n}\n\
                       submenu 'More' {\n menuentry 'Other' {\n linux /k x\n }\n}\n";
        for (before, says, booted) in [
            ("", Some("\"Disk\", boots no Linux"), None),
            ("set default=1\n", None, Some("Live")),
            ("set default=live\n", None, Some("Live")),
            ("set default='Live'\n", None, Some("Live")),
            ("set default=2\n", None, Some("Other")),
            ("set default=3\n", Some("names no entry \"3\""), None),
            ("set default=Other\n", Some("names no entry \"Other\""), None),
            ("set default=\"${saved_entry}\"\nload_env\nset default=\"${saved_entry}\"\n", None, None),
            ("set default='2>0'\n", None, Some("Other")),
            ("if [ x ]; then\n menuentry 'First' { linux /k }\nfi\n", None, Some("First")),
            (
                "if [ $grub_platform = efi ]; then\n menuentry 'Setup' { fwsetup }\nfi\n",
                Some("\"Disk\""),
                None,
            ),
        ] {
            let menu = parse(&format!("{before}{entries}"), &Handed::new(), &mut |_| None);
            let found = menu.problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>();
            match says {
                None => assert!(found.is_empty(), "{before}: {found:?}"),
                Some(says) => assert!(found.iter().any(|what| what.contains(says)), "{before}: {found:?}"),
            }
            assert!(menu.problems.iter().all(|problem| !problem.is_certain));
            let default = menu.entries.iter().find(|entry| entry.is_default);
            assert_eq!(default.map(|entry| entry.title.as_str()), booted, "{before}");
        }
    }
}
