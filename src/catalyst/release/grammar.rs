//! The grammar of catalyst's specs, read and written.
//!
//! It is that of catalyst's `SpecParser`: `key: words`, more words on the lines that follow, `#` to the end of the line,
//! `%(key)s` for what an earlier key says. Placeholders such as `@TREEISH@` are Gentoo's release engineering's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Origin, Source, SpecError};
use crate::image::Timestamp;

/// What stands at the keys of a spec: words, in order.
pub type Values = BTreeMap<String, Vec<String>>;

/// The words at each key, and where the key stands.
pub(super) type Keys = BTreeMap<String, (Origin, Vec<Word>)>;

/// A word and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What stands for placeholders.
pub(super) struct Fill<'a> {
    given: &'a BTreeMap<String, String>,
    /// The day of `@TIMESTAMP@`, which is `@DATESTAMP@` where that is not given.
    day: Option<String>,
}

impl<'a> Fill<'a> {
    pub(super) fn new(given: &'a BTreeMap<String, String>) -> Self {
        let day = given.get("TIMESTAMP").and_then(|text| Timestamp::parse(text)).map(Timestamp::day);
        Self { given, day }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let day = (name == "DATESTAMP").then_some(self.day.as_deref()).flatten();
        self.given.get(name).map(String::as_str).or(day)
    }

    /// Fills the placeholders of a text; else the first that nothing stands for.
    fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, name, after)) = placeholder(rest) {
            filled.push_str(before);
            filled.push_str(self.get(name).ok_or_else(|| name.to_owned())?);
            rest = after;
        }
        Ok(filled + rest)
    }
}

/// Finds the first placeholder: returns what stands before it, its name, and what stands behind it.
pub(super) fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('@').map(|at| from + at) {
        let inner = &text[at + 1..];
        let length = inner.bytes().take_while(|byte| is_placeholder_byte(*byte)).count();
        if length > 0 && inner[length..].starts_with('@') {
            return Some((&text[..at], &inner[..length], &inner[length + 1..]));
        }
        from = at + 1;
    }
    None
}

fn is_placeholder_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// Tells whether a text is the name of a placeholder: `TREEISH`, `REPO_DIR`.
pub fn is_placeholder(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(is_placeholder_byte)
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Reads a spec's keys.
///
/// # Errors
/// [`SpecError`], which points to what is no spec of catalyst's, or to a placeholder that nothing stands for.
pub(super) fn parse(source: &Arc<Source>, fill: &Fill<'_>) -> Result<Keys, Box<SpecError>> {
    let at = |span| Origin { source: Arc::clone(source), span };
    // Python ends lines and words at these; nobody means them.
    let strange = |(place, c): &(usize, char)| {
        matches!(c, '\x1c'..='\x1f') || (*c == '\r' && !source.text[place + 1..].starts_with('\n'))
    };
    if let Some((place, c)) = source.text.char_indices().find(strange) {
        return Err(SpecError::at(&at(place..place + 1), format!("the control character {c:?}"))
            .label("no spec has this"));
    }
    let mut keys = Keys::new();
    let mut last: Option<String> = None;
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let begin = start;
        start += line.len();
        let text = line.split_once('#').map_or(line, |(text, _)| text);
        if text.trim().is_empty() {
            continue;
        }
        let word = |(from, text): (usize, &str), offset: usize| {
            let origin = at(offset + from..offset + from + text.len());
            let text = fill.fill(text).map_err(|name| unfilled(&origin, &name, &source.text, fill))?;
            Ok::<Word, Box<SpecError>>(Word { text, origin })
        };
        let Some((key, value)) = text.split_once(':') else {
            let words = split_words(text).map(|found| word(found, begin));
            let words = words.collect::<Result<Vec<_>, Box<SpecError>>>()?;
            let Some((_, row)) = last.as_ref().and_then(|key| keys.get_mut(key)) else {
                let from = words.first().map_or(at(begin..begin), |word| word.origin.clone());
                return Err(SpecError::at(&from, "these words belong to no key").label("expected KEY: WORDS"));
            };
            row.extend(words);
            continue;
        };
        let name = key.trim_start();
        let origin = at(begin + key.len() - name.len()..begin + key.len());
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(SpecError::at(&origin, format!("{name:?} is not a key"))
                .label("expected KEY: WORDS, and no blank in front of the colon")
                .hint("catalyst takes every line with a colon for a key, in a list as well"));
        }
        // Quotes around the whole of it go, and what earlier keys say is put in, the same key's own words too.
        let inner = value.trim().trim_matches('"');
        let offset = begin + key.len() + 1 + (inner.as_ptr() as usize - value.as_ptr() as usize);
        let words = if inner.contains('%') {
            let whole = at(offset..offset + inner.len());
            let filled = fill.fill(inner).map_err(|name| unfilled(&whole, &name, &source.text, fill))?;
            let texts = substitute(&filled, &keys, &whole)?.into_iter();
            texts.map(|text| Word { text, origin: whole.clone() }).collect()
        } else {
            let words = split_words(inner).map(|found| word(found, offset));
            words.collect::<Result<Vec<_>, Box<SpecError>>>()?
        };
        // The last of several counts, as for catalyst.
        keys.insert(name.to_owned(), (origin, words));
        last = Some(name.to_owned());
    }
    // A key without words is no key, and `none` stands for none.
    keys.retain(|_, (_, words)| !words.is_empty());
    for (_, words) in keys.values_mut() {
        if matches!(&words[..], [word] if word.text.eq_ignore_ascii_case("none")) {
            words.clear();
        }
    }
    Ok(keys)
}

/// Splits at white space; returns each word and where it begins.
fn split_words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_whitespace().map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// The error for a placeholder without a value: it names all of them, so that one more try is enough.
fn unfilled(origin: &Origin, name: &str, text: &str, fill: &Fill<'_>) -> Box<SpecError> {
    let mut missing: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut rest = line.split('#').next().unwrap_or_default();
        while let Some((_, name, after)) = placeholder(rest) {
            // The date stamp follows from the time stamp.
            let name = if name == "DATESTAMP" { "TIMESTAMP" } else { name };
            if fill.get(name).is_none() && !missing.iter().any(|known| known == name) {
                missing.push(name.to_owned());
            }
            rest = after;
        }
    }
    if missing.is_empty() {
        return SpecError::at(origin, format!("nothing stands for @{name}@")).label("a placeholder").hint(
            "TIMESTAMP is no YYYYMMDDTHHMMSSZ, from which it would follow: give --set DATESTAMP=… too",
        );
    }
    let options: Vec<String> = missing.iter().map(|name| format!("--set {name}=…")).collect();
    SpecError::at(origin, format!("nothing stands for @{name}@"))
        .label("a placeholder")
        .hint(format!("give it: {}", options.join(" ")))
}

/// Puts in what earlier keys say: `%(key)s`, and `%%` for a percent sign, as Python's `%` does.
fn substitute(text: &str, keys: &Keys, origin: &Origin) -> Result<Vec<String>, Box<SpecError>> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        filled.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            filled.push('%');
            rest = after;
            continue;
        }
        let named = after.strip_prefix('(').and_then(|after| after.split_once(")s"));
        let (key, after) = named.ok_or_else(|| {
            SpecError::at(origin, "a percent sign that stands for nothing")
                .label("expected %(key)s, or %% for the sign itself")
        })?;
        let (_, words) = keys.get(key).ok_or_else(|| {
            SpecError::at(origin, format!("no earlier key is called {key:?}")).label("put in here")
        })?;
        // Of a list, catalyst would put in the way Python prints one.
        let [word] = &words[..] else {
            return Err(SpecError::at(origin, format!("{key} has {} words; one can be put in", words.len()))
                .label("put in here"));
        };
        filled.push_str(&word.text);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled.split_whitespace().map(str::to_owned).collect())
}

/// Writes values as a spec of catalyst.
///
/// # Errors
/// The word that catalyst's grammar cannot hold.
pub fn render(values: &Values) -> Result<String, String> {
    let mut text = String::new();
    for (key, words) in values {
        let is_plain =
            |word: &&String| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c == '#');
        if let Some(word) = words.iter().find(|word| !is_plain(word)) {
            return Err(word.clone());
        }
        // On a line of their own, words are taken as they are, but for a colon, which would make a key of it.
        match words.iter().find(|word| word.contains(':')) {
            None if words.is_empty() => text.push_str(&format!("{key}: none\n")),
            None => text.push_str(&format!("{key}:\n\t{}\n", words.join(" "))),
            Some(colon) => {
                let line = words.join(" ");
                if line.starts_with('"') || line.ends_with('"') {
                    return Err(colon.clone());
                }
                text.push_str(&format!("{key}: {}\n", line.replace('%', "%%")));
            }
        }
    }
    Ok(text)
}
