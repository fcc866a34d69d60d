//! TOML values that remember where they came from.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::SpecError;
use super::origin::{Origin, Source};

/// A table.
pub type Table = BTreeMap<String, Item>;

/// A value.
#[derive(Debug, Clone)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Bool(bool),
    /// A list.
    List(Vec<Item>),
    /// A table.
    Table(Table),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Integer(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub struct Item {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

impl Item {
    /// Reads a TOML text.
    ///
    /// # Errors
    /// [`SpecError`]: it is no TOML, or has a kind of value that specs do not use.
    pub fn parse(source: &Arc<Source>) -> Result<Item, Box<SpecError>> {
        let parsed = DeTable::parse(&source.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            SpecError::at(&Origin { source: Arc::clone(source), span }, error.message()).label("not TOML")
        })?;
        let span = parsed.span();
        let value = read_table(parsed.into_inner(), source)?;
        Ok(Item { value, origin: Origin { source: Arc::clone(source), span } })
    }

    /// Returns the value without where it came from.
    pub fn plain(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Bool(is_true) => (*is_true).into(),
            Value::List(items) => items.iter().map(Item::plain).collect(),
            Value::Table(table) => table
                .iter()
                .map(|(key, item)| (key.clone(), item.plain()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn wrong(&self, expected: &str) -> Box<SpecError> {
        SpecError::at(&self.origin, format!("expected {expected}, found {}", self.value.kind()))
            .label(format!("not {expected}"))
    }

    /// Returns the text.
    ///
    /// # Errors
    /// It is something else.
    pub fn as_text(&self) -> Result<&str, Box<SpecError>> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong("a text")),
        }
    }

    /// Returns the number.
    ///
    /// # Errors
    /// It is something else.
    pub fn as_integer(&self) -> Result<i64, Box<SpecError>> {
        match self.value {
            Value::Integer(number) => Ok(number),
            _ => Err(self.wrong("a number")),
        }
    }

    /// Returns the truth value.
    ///
    /// # Errors
    /// It is something else.
    pub fn as_bool(&self) -> Result<bool, Box<SpecError>> {
        match self.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// Returns the list.
    ///
    /// # Errors
    /// It is something else.
    pub fn as_list(&self) -> Result<&[Item], Box<SpecError>> {
        match &self.value {
            Value::List(list) => Ok(list),
            _ => Err(self.wrong("a list")),
        }
    }

    /// Returns the entries of the table.
    ///
    /// # Errors
    /// It is something else.
    pub fn entries(&self) -> Result<impl Iterator<Item = (&str, &Item)>, Box<SpecError>> {
        match &self.value {
            Value::Table(table) => Ok(table.iter().map(|(key, item)| (key.as_str(), item))),
            _ => Err(self.wrong("a table")),
        }
    }

    /// Returns the value at `key`, if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Item> {
        match &self.value {
            Value::Table(table) => table.get(key),
            _ => None,
        }
    }

    /// As [`Item::get`], to change the value.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Item> {
        match &mut self.value {
            Value::Table(table) => table.get_mut(key),
            _ => None,
        }
    }

    /// Lays this value over `base`: tables are merged key by key, anything else replaces. A merged table was written where
    /// this one was.
    ///
    /// # Errors
    /// A table would replace something that is none, or the other way round.
    pub fn overlaid_on(self, base: Item) -> Result<Item, Box<SpecError>> {
        self.overlaid(base, |own, _| own)
    }

    /// As [`Item::overlaid_on`], for settings of a whole: a merged table was written where `base` was.
    ///
    /// # Errors
    /// As there.
    pub fn set_in(self, base: Item) -> Result<Item, Box<SpecError>> {
        self.overlaid(base, |_, base| base)
    }

    fn overlaid(self, base: Item, origin: fn(Origin, Origin) -> Origin) -> Result<Item, Box<SpecError>> {
        match (self.value, base.value) {
            (Value::Table(own), Value::Table(mut merged)) => {
                for (key, item) in own {
                    let item = match merged.remove(&key) {
                        Some(below) => item.overlaid(below, origin)?,
                        None => item,
                    };
                    merged.insert(key, item);
                }
                Ok(Item { value: Value::Table(merged), origin: origin(self.origin, base.origin) })
            }
            (own @ Value::Table(_), below) | (own, below @ Value::Table(_)) => {
                let item = Item { value: own, origin: self.origin };
                Err(item.wrong(below.kind()).hint("where it was set before, it is that"))
            }
            (own, _) => Ok(Item { value: own, origin: self.origin }),
        }
    }
}

fn read_table(table: DeTable<'_>, source: &Arc<Source>) -> Result<Value, Box<SpecError>> {
    let entries = table.into_iter().map(|(key, value)| {
        // A table written as `[node.iso]` is best pointed at by its key.
        let span = if value.get_ref().is_table() { key.span() } else { value.span() };
        let item =
            Item { value: read_value(value, source)?, origin: Origin { source: Arc::clone(source), span } };
        Ok((key.into_inner().into_owned(), item))
    });
    Ok(Value::Table(entries.collect::<Result<_, Box<SpecError>>>()?))
}

fn read_value(value: Spanned<DeValue<'_>>, source: &Arc<Source>) -> Result<Value, Box<SpecError>> {
    let origin = Origin { source: Arc::clone(source), span: value.span() };
    Ok(match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.map_err(|_| SpecError::at(&origin, "this number is too large"))?)
        }
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Array(list) => {
            let items = list.into_iter().map(|value| {
                let origin = Origin { source: Arc::clone(source), span: value.span() };
                Ok(Item { value: read_value(value, source)?, origin })
            });
            Value::List(items.collect::<Result<_, Box<SpecError>>>()?)
        }
        DeValue::Table(table) => read_table(table, source)?,
        DeValue::Float(_) | DeValue::Datetime(_) => {
            return Err(SpecError::at(&origin, "specs have no fractions and no dates")
                .hint("write it as a text, in quotes"));
        }
    })
}
