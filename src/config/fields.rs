//! Reads the keys of a table one by one, and refuses those nobody asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::error::SpecError;
use super::value::{Item, Table, Value};

/// A table being read.
pub struct Fields<'a> {
    item: &'a Item,
    table: &'a Table,
    what: String,
    asked: RefCell<BTreeSet<&'static str>>,
    published: BTreeMap<String, String>,
}

impl<'a> Fields<'a> {
    /// Starts reading a table; `what` names it in errors.
    ///
    /// # Errors
    /// It is no table.
    pub fn of(item: &'a Item, what: &str) -> Result<Self, Box<SpecError>> {
        let Value::Table(table) = &item.value else {
            return Err(SpecError::at(&item.origin, format!("{what} must be a table")).label("not a table"));
        };
        Ok(Self { item, table, what: what.to_owned(), asked: RefCell::default(), published: BTreeMap::new() })
    }

    /// Says where the inputs of a node are published.
    pub(crate) fn with_published(self, published: BTreeMap<String, String>) -> Self {
        Self { published, ..self }
    }

    /// Returns the inputs of the node that are published, and the folder each goes to: empty for the top, else with
    /// a slash at its end.
    pub fn published(&self) -> &BTreeMap<String, String> {
        &self.published
    }

    /// Returns the value at `key`, if there is one.
    pub fn get(&self, key: &'static str) -> Option<&'a Item> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    /// Returns the value at `key`.
    ///
    /// # Errors
    /// There is none.
    pub fn required(&self, key: &'static str) -> Result<&'a Item, Box<SpecError>> {
        self.get(key).ok_or_else(|| {
            SpecError::at(&self.item.origin, format!("{} needs {key:?}", self.what))
                .label("it is missing here")
        })
    }

    /// Returns the text at `key`.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self, key: &'static str) -> Result<Option<&'a str>, Box<SpecError>> {
        self.get(key).map(Item::as_text).transpose()
    }

    /// Returns the text at `key`, which must be there.
    ///
    /// # Errors
    /// It is missing or something else.
    pub fn required_text(&self, key: &'static str) -> Result<&'a str, Box<SpecError>> {
        self.required(key)?.as_text()
    }

    /// Returns the truth value at `key`, or `default`.
    ///
    /// # Errors
    /// It is something else.
    pub fn bool(&self, key: &'static str, default: bool) -> Result<bool, Box<SpecError>> {
        self.get(key).map_or(Ok(default), Item::as_bool)
    }

    /// Returns the number at `key`.
    ///
    /// # Errors
    /// It is something else, or out of range.
    pub fn integer(
        &self,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Box<SpecError>> {
        let Some(item) = self.get(key) else { return Ok(None) };
        let number = item.as_integer()?;
        if range.contains(&number) {
            return Ok(Some(number));
        }
        Err(SpecError::at(&item.origin, format!("{key} must be from {} to {}", range.start(), range.end()))
            .label("out of range"))
    }

    /// Returns the texts of the list at `key`; none where it is missing.
    ///
    /// # Errors
    /// It is something else.
    pub fn texts(&self, key: &'static str) -> Result<Vec<(&'a str, &'a Item)>, Box<SpecError>> {
        let Some(item) = self.get(key) else { return Ok(Vec::new()) };
        item.as_list()?.iter().map(|item| Ok((item.as_text()?, item))).collect()
    }

    /// Returns the table at `key`.
    ///
    /// # Errors
    /// It is something else.
    pub fn table(&self, key: &'static str) -> Result<Option<&'a Item>, Box<SpecError>> {
        let Some(item) = self.get(key) else { return Ok(None) };
        drop(item.entries()?);
        Ok(Some(item))
    }

    /// Returns the table at `key`, which must be there.
    ///
    /// # Errors
    /// It is missing or something else.
    pub fn required_table(&self, key: &'static str) -> Result<&'a Item, Box<SpecError>> {
        let item = self.required(key)?;
        drop(item.entries()?);
        Ok(item)
    }

    /// Returns all entries, each of which must be a table.
    ///
    /// # Errors
    /// One is something else.
    pub fn tables(&self) -> Result<Vec<(&'a str, &'a Item)>, Box<SpecError>> {
        let entries = self.table.iter().map(|(key, item)| {
            drop(item.entries()?);
            Ok((key.as_str(), item))
        });
        entries.collect()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// There is a key that nobody asked for.
    pub fn finish(&self) -> Result<(), Box<SpecError>> {
        let asked = self.asked.borrow();
        let Some((key, item)) = self.table.iter().find(|(key, _)| !asked.contains(key.as_str())) else {
            return Ok(());
        };
        let known: Vec<&str> = asked.iter().copied().collect();
        let near = known.iter().min_by_key(|known| distance(known, key)).filter(|n| distance(n, key) <= 2);
        let help = match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("it knows: {}", known.join(", ")),
        };
        Err(SpecError::at(&item.origin, format!("{} has no key {key:?}", self.what))
            .label("unknown key")
            .help(help))
    }
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
