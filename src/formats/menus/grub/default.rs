//! What GRUB boots by itself: the variable `default` names an entry by its number, its title or its id (GRUB manual, 15.1.11); what
//! it does not find, it takes the first entry for (`grub-core/normal/menu.c`).

/// One thing to choose at the top of a menu.
#[derive(Debug, Default, Clone)]
struct Choice {
    title: String,
    id: Option<String>,
    /// Whether a kernel is loaded in it; of a submenu that is not known.
    boots: bool,
}

/// The choices of a menu.
#[derive(Debug, Default)]
pub(super) struct Choices {
    all: Vec<Choice>,
    /// The one whose block opens next.
    next: Option<Choice>,
    /// How deep the block of the last one is, while it is open.
    open: Option<usize>,
    /// Whether some are there only where a condition holds: then numbers say nothing.
    is_conditional: bool,
    /// The line that sets `default`.
    line: usize,
}

impl Choices {
    /// Takes in `menuentry` or `submenu`.
    pub(super) fn begin(&mut self, args: &[String], is_submenu: bool) {
        let mut args = args.iter();
        let title = args.next().cloned().unwrap_or_default();
        let id = args.find_map(|arg| match arg.strip_prefix("--id") {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix('=').map(|id| Some(id.to_owned())),
            None => None,
        });
        // With a blank between, the id is the next word.
        let id = id.and_then(|id| id.or_else(|| args.next().cloned()));
        self.next = Some(Choice { title, id, boots: is_submenu });
    }

    /// Takes in a variable that is set.
    pub(super) fn set(&mut self, line: usize, name: &str) {
        if name == "default" {
            self.line = line;
        }
    }

    /// Takes in a block that opens, with so many around it.
    pub(super) fn open(&mut self, depth: usize) {
        let Some(choice) = self.next.take() else { return };
        // What is in a submenu is no choice of the menu's own.
        if self.open.is_none() {
            self.is_conditional |= depth > 0;
            self.open = Some(depth);
            self.all.push(choice);
        }
    }

    /// Takes in a block that closes, with so many open before that.
    pub(super) fn close(&mut self, depth: usize) {
        if self.open.is_some_and(|open| open + 1 == depth) {
            self.open = None;
        }
    }

    /// Takes in a kernel.
    pub(super) fn boots(&mut self) {
        if let (Some(_), Some(last)) = (self.open, self.all.last_mut()) {
            last.boots = true;
        }
    }

    /// Says what is odd about the entry that is booted where nobody chooses.
    pub(super) fn judge(&self, default: Option<&str>) -> Option<(usize, String)> {
        let default = default.unwrap_or("0");
        if default.contains("${") || default.contains('>') || self.all.is_empty() {
            return None;
        }
        let number = default.parse::<usize>().ok();
        let is_meant = |choice: &&Choice| choice.title == default || choice.id.as_deref() == Some(default);
        let found = match number {
            Some(_) if self.is_conditional => return None,
            Some(number) => self.all.get(number),
            None => self.all.iter().find(is_meant),
        };
        match found {
            None => {
                let first = &self.all[0].title;
                Some((
                    self.line.max(1),
                    format!("default names no entry {default:?}: GRUB takes the first, {first:?}"),
                ))
            }
            Some(choice) if !choice.boots => Some((
                self.line.max(1),
                format!("the entry that is booted by itself, {:?}, boots no Linux", choice.title),
            )),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use crate::formats::menus::Handed;

    #[test]
    fn what_is_booted_by_itself_is_found_by_number_title_and_id() {
        let entries = "menuentry 'Disk' { exit }\nmenuentry 'Live' --class os --id live {\n linux /k\n initrd /i\n}\n\
                       submenu 'More' {\n menuentry 'Other' {\n linux /k\n }\n}\n";
        for (before, says) in [
            ("", Some("\"Disk\", boots no Linux")),
            ("set default=1\n", None),
            ("set default=live\n", None),
            ("set default='Live'\n", None),
            ("set default=2\n", None),
            ("set default=3\n", Some("names no entry \"3\"")),
            ("set default=Other\n", Some("names no entry \"Other\"")),
            ("set default=\"${saved_entry}\"\nload_env\nset default=\"${saved_entry}\"\n", None),
            ("set default='2>0'\n", None),
            ("if [ x ]; then\n menuentry 'First' { linux /k }\nfi\n", None),
        ] {
            let menu = parse(&format!("{before}{entries}"), &Handed::new());
            let found = menu.problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>();
            match says {
                None => assert!(found.is_empty(), "{before}: {found:?}"),
                Some(says) => assert!(found.iter().any(|what| what.contains(says)), "{before}: {found:?}"),
            }
            assert!(menu.problems.iter().all(|problem| !problem.is_certain));
        }
    }
}
