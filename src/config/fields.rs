//! Reads the keys of a table one by one, and refuses those nobody asked for.
//!
//! A value that is wrong does not end the reading: it is noted, something harmless is returned in its place, and
//! [`Fields::finish`] gives all that was noted. Nobody may use what was read before that.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::error::{SpecError, SpecErrors};
use super::mirror::Mirror;
use super::origin::Origin;
use super::package::Package;
use super::value::{Item, Table, Value};

/// A table being read.
pub struct Fields<'a> {
    item: &'a Item,
    table: &'a Table,
    what: String,
    asked: RefCell<BTreeSet<&'static str>>,
    errors: RefCell<SpecErrors>,
    published: BTreeMap<String, String>,
    packing: Packing,
    archive: Archive,
}

/// What is known of the archives that packages come from, and which packages are meant.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    /// The packages of the node, where a lock says.
    pub locked: Option<Vec<Package>>,
    /// Packages of the node that stay as they are where they can.
    pub kept: Vec<Package>,
    /// Archives where packages are looked for that apt does not have.
    pub mirrors: Vec<Mirror>,
    /// The command that makes a lock of the spec.
    pub command: String,
}

/// What all nodes that take a node's root do with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packing {
    /// Patterns of the paths that they leave out.
    pub excluded: Vec<String>,
    /// Whether they take later times for the image's.
    pub clamps_mtime: bool,
}

impl<'a> Fields<'a> {
    /// Starts reading a table; `what` names it in errors.
    ///
    /// # Errors
    /// It is not a table.
    pub fn of(item: &'a Item, what: &str) -> Result<Self, Box<SpecError>> {
        let Value::Table(table) = &item.value else {
            return Err(SpecError::at(&item.origin, format!("{what} must be a table")).label("not a table"));
        };
        Ok(Self {
            item,
            table,
            what: what.to_owned(),
            asked: RefCell::default(),
            errors: RefCell::default(),
            published: BTreeMap::new(),
            packing: Packing::default(),
            archive: Archive::default(),
        })
    }

    /// Says where the inputs of a node are published.
    pub(crate) fn with_published(mut self, published: BTreeMap<String, String>) -> Self {
        self.published = published;
        self
    }

    /// Returns the inputs of the node that are published, and the folder each goes to: empty for the top, else with
    /// a slash at its end.
    pub fn published(&self) -> &BTreeMap<String, String> {
        &self.published
    }

    /// Says what becomes of the node's root.
    pub(crate) fn with_packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Returns what becomes of the node's root.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Says which packages are meant, and where they are.
    pub(crate) fn with_archive(mut self, archive: Archive) -> Self {
        self.archive = archive;
        self
    }

    /// Returns which packages are meant, and where they are.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Returns what the table is, as errors name it.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns where the table is written.
    pub fn origin(&self) -> &'a Origin {
        &self.item.origin
    }

    /// Notes an error.
    pub fn wrong(&self, error: Box<SpecError>) {
        self.errors.borrow_mut().push(error);
    }

    /// Notes what went wrong, if something did; returns what went well.
    pub fn check<T, E: Into<SpecErrors>>(&self, result: Result<T, E>) -> Option<T> {
        self.errors.borrow_mut().check(result)
    }

    /// Returns the value at `key`, if there is one.
    pub fn get(&self, key: &'static str) -> Option<&'a Item> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    /// Returns the value at `key`; notes where there is none.
    pub fn required(&self, key: &'static str) -> Option<&'a Item> {
        let found = self.get(key);
        if found.is_none() {
            self.wrong(
                SpecError::at(&self.item.origin, format!("{} needs {key:?}", self.what))
                    .label("it is missing here"),
            );
        }
        found
    }

    /// Returns what `read` makes of the value at `key`; `None` where there is none, or it cannot be read.
    pub fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a Item) -> Result<T, Box<SpecError>>,
    ) -> Option<T> {
        self.check(read(self.get(key)?))
    }

    /// Returns the text at `key`, if there is one.
    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        self.read(key, Item::as_text)
    }

    /// Returns the text at `key`; notes where there is none.
    pub fn required_text(&self, key: &'static str) -> Option<&'a str> {
        self.check(self.required(key)?.as_text())
    }

    /// Returns the truth value at `key`, or `default`.
    pub fn bool(&self, key: &'static str, default: bool) -> bool {
        self.read(key, Item::as_bool).unwrap_or(default)
    }

    /// Returns the number at `key`, which must be in `range`.
    pub fn integer(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        self.read(key, |item| {
            let number = item.as_integer()?;
            if range.contains(&number) {
                return Ok(number);
            }
            Err(SpecError::at(
                &item.origin,
                format!("{key} must be from {} to {}", range.start(), range.end()),
            )
            .label("out of range"))
        })
    }

    /// Returns the texts of the list at `key`; none where it is missing.
    pub fn texts(&self, key: &'static str) -> Vec<(&'a str, &'a Item)> {
        let items = self.read(key, Item::as_list).unwrap_or_default();
        items.iter().filter_map(|item| Some((self.check(item.as_text())?, item))).collect()
    }

    /// Returns the entries of the table at `key`; none where it is missing.
    pub fn entries(&self, key: &'static str) -> Vec<(&'a str, &'a Item)> {
        self.read(key, Item::entries).into_iter().flatten().collect()
    }

    /// Returns the table at `key`, which must be there.
    pub fn required_table(&self, key: &'static str) -> Option<&'a Item> {
        let item = self.required(key)?;
        self.check(item.entries().map(|_| item))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All that was noted, and every key that nobody asked for.
    pub fn finish(self) -> Result<(), SpecErrors> {
        let asked = self.asked.take();
        let mut errors = self.errors.take();
        for (key, item) in self.table.iter().filter(|(key, _)| !asked.contains(key.as_str())) {
            errors.push(unknown(&self.what, key, item, &asked));
        }
        errors.or(())
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let is_lost = !self.errors.get_mut().is_empty() && !std::thread::panicking();
        debug_assert!(!is_lost, "what is wrong with {} was noted and never told", self.what);
    }
}

/// Returns the error about a key that nobody asked for.
fn unknown(what: &str, key: &str, item: &Item, known: &BTreeSet<&'static str>) -> Box<SpecError> {
    let near = known.iter().min_by_key(|known| distance(known, key)).filter(|n| distance(n, key) <= 2);
    let hint = match near {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("it knows: {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    SpecError::at(&item.origin, format!("{what} has no key {key:?}")).label("unknown key").hint(hint)
}

/// Returns how many characters must be changed, added or removed to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Source;

    #[test]
    fn all_that_is_wrong_with_a_table_is_told_at_once() {
        let text = "name = 1\nflag = 'yes'\nsize = 99\nlist = ['a', 2, 'c']\nnmae = 'x'\n";
        let source = Arc::new(Source { name: "spec".to_owned(), text: text.to_owned() });
        let item = Item::parse(&source).unwrap();
        let fields = Fields::of(&item, "it").unwrap();
        assert_eq!(fields.required_text("name"), None);
        assert!(fields.bool("flag", true));
        assert_eq!(fields.integer("size", 1..=9), None);
        let list: Vec<_> = fields.texts("list").into_iter().map(|(text, _)| text).collect();
        assert_eq!(list, ["a", "c"]);
        assert_eq!(fields.required_text("other"), None);
        let errors = fields.finish().unwrap_err().render();
        for says in [
            "expected a text, found a number",
            "expected true or false, found a text",
            "size must be from 1 to 9",
            "it needs \"other\"",
            "it has no key \"nmae\"",
            "hint: did you mean \"name\"?",
        ] {
            assert!(errors.contains(says), "{says}\n{errors}");
        }
        // The place of each: the first two of the list are the wrong type of `name` and of an element.
        assert_eq!(errors.matches("expected a text, found a number").count(), 2, "{errors}");
    }
}
