//! Entries of the Boot Loader Specification, as systemd-boot and GRUB's `blscfg` read them: one file each, a key and its value on
//! a line (UAPI.1, "Type #1"). `initrd` and `options` may come several times.

use super::{Entry, Handed, Loaded, MAX_LINES, Menu, Named, Role};

/// Reads one entry. Variables of GRUB in it are left as they are, unless they are handed over.
pub fn parse(text: &str, handed: &Handed) -> Menu {
    let mut menu = Menu::default();
    let (mut title, mut kernel, mut initrds, mut words) = (String::new(), None, Vec::new(), Vec::new());
    for (number, line) in text.trim_start_matches('\u{feff}').lines().take(MAX_LINES).enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let value = value.trim();
        let named = |role, path: &str| Named { line: number + 1, form: path.to_owned(), role };
        match key {
            "title" => value.clone_into(&mut title),
            "linux" => kernel = Some(named(Role::Kernel, value)),
            // GRUB takes several on one line.
            "initrd" => {
                initrds.extend(value.split_whitespace().map(|path| Loaded::initrd(named(Role::Initrd, path))))
            }
            "options" => words.extend(value.split_whitespace().flat_map(|word| expanded(word, handed))),
            "architecture" => menu.machine = Some((number + 1, value.to_owned())),
            "efi" | "uki" | "devicetree" | "devicetree-overlay" => menu.others.push(named(Role::Next, value)),
            _ => {}
        }
    }
    if let Some(kernel) = kernel {
        menu.entries.push(Entry { title, line: kernel.line, kernel, initrds, words, is_default: false });
    }
    menu
}

/// Returns what a word stands for: GRUB's variables are whole words there, as `$kernelopts`.
fn expanded(word: &str, handed: &Handed) -> Vec<String> {
    let Some(name) = word.strip_prefix('$') else { return vec![word.to_owned()] };
    let name = name.trim_start_matches('{').trim_end_matches('}');
    match handed.get(name) {
        Some(value) => value.split_whitespace().map(str::to_owned).collect(),
        None => vec![format!("${{{name}}}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_with_all_its_initrds_and_options() {
        let text = "# made by kernel-install\ntitle\tGentoo Linux\nversion 6.6.1\nlinux  /0123/6.6.1/linux\r\n\
                    initrd /0123/ucode.img\ninitrd /0123/6.6.1/initrd\noptions root=live:CDLABEL=X quiet\noptions $kernelopts ${more}\n";
        let handed = Handed::from([("more".to_owned(), "a b".to_owned())]);
        let menu = parse(text, &handed);
        let [entry] = &menu.entries[..] else { panic!("{menu:?}") };
        assert_eq!((entry.title.as_str(), entry.line), ("Gentoo Linux", 4));
        assert_eq!(entry.kernel.form, "/0123/6.6.1/linux");
        let initrds: Vec<_> = entry.initrds.iter().map(|loaded| &loaded.file.form).collect();
        assert_eq!(initrds, ["/0123/ucode.img", "/0123/6.6.1/initrd"]);
        assert_eq!(entry.words, ["root=live:CDLABEL=X", "quiet", "${kernelopts}", "a", "b"]);
        assert!(parse("title EFI shell\nefi /shell.efi\n", &handed).entries.is_empty());
    }
}
