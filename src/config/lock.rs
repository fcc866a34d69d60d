//! The lock: what the sources of a spec were when somebody wrote it down, to be committed beside the spec and read in a diff.
//!
//! ```toml
//! lock = 1
//! date = "20261129T005313Z"
//!
//! [node.tools]
//! step = "toolbox"
//! asked = ["amd64", "xorriso"]
//! packages = [
//!     { name = "xorriso", version = "1.5.4-4", architecture = "amd64", size = 322052, sha256 = "96…", file = "pool/main/…" },
//! ]
//!
//! [node.stage2]
//! step = "import"
//! sources = { root = "6d…" }
//! ```
//! Tables are in order of name, and so are packages, one a line.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::Sha256;
use cache::name::RelPath;

use super::error::{SpecError, SpecErrors};
use super::fields::Fields;
use super::origin::{Origin, Source};
use super::package::Package;
use super::value::Item;

/// The version of the format: another one is refused.
const VERSION: i64 = 1;

/// How a line begins that git leaves where two versions of a file contradict each other.
const CONFLICT: [&str; 3] = ["<<<<<<< ", "=======", ">>>>>>> "];

/// Says what a lock is to whoever opens it.
const HEAD: &str =
    "# Written by `stagegraph lock`: what the sources of the spec are. Commit it beside the spec.\n";

/// What the lock says of a node.
#[derive(Debug, Clone, Default)]
pub struct Locked {
    /// The step that the node ran.
    pub step: String,
    /// What apt was asked for; in order.
    pub asked: Vec<String>,
    /// What that came to; in order of name.
    pub packages: Vec<Package>,
    /// What came from outside otherwise: digests, and other text that pins it.
    pub sources: BTreeMap<String, String>,
    /// Where that is written.
    pub origin: Option<Origin>,
}

/// A lock.
#[derive(Debug, Clone, Default)]
pub struct Lock {
    /// The date of the newest package lists, `YYYYMMDDTHHMMSSZ`, where there are packages.
    pub date: Option<String>,
    /// The nodes, by name.
    pub nodes: BTreeMap<String, Locked>,
}

impl Lock {
    /// Reads a lock.
    ///
    /// # Errors
    /// [`SpecErrors`]: all that is wrong with it, each with its place.
    pub fn read(source: &Arc<Source>) -> Result<Self, SpecErrors> {
        if let Some(error) = conflict(source).or_else(|| control(source)) {
            return Err(error.into());
        }
        let item = Item::parse(source)?;
        let mut errors = SpecErrors::default();
        let fields = Fields::of(&item, "a lock")?;
        let version = fields.required("lock").and_then(|item| {
            let error = |label: &str| {
                let message = "this lock is of another version than this program reads";
                SpecError::at(&item.origin, message).label(label)
            };
            match fields.check(item.as_integer())? {
                VERSION => Some(()),
                _ => fields.check(Err(error("expected lock = 1"))),
            }
        });
        let date = fields.read("date", |item| {
            let text = item.as_text()?;
            let is_date = text.len() == 16
                && text.bytes().enumerate().all(|(at, byte)| match at {
                    8 => byte == b'T',
                    15 => byte == b'Z',
                    _ => byte.is_ascii_digit(),
                });
            let wrong =
                || SpecError::at(&item.origin, "this is not a date").label("expected YYYYMMDDTHHMMSSZ");
            if is_date { Ok(text.to_owned()) } else { Err(wrong()) }
        });
        let mut nodes = BTreeMap::new();
        // Of another version nothing else need be right.
        if version.is_some() {
            for (name, item) in fields.entries("node") {
                if graph::NodeName::new(name).is_none() {
                    let error = SpecError::at(&item.origin, format!("{name:?} is not a node's name"));
                    errors.push(error.label("lower-case letters, digits and dashes"));
                    continue;
                }
                nodes.extend(errors.check(node(name, item)).map(|node| (name.to_owned(), node)));
            }
            errors.check(fields.finish());
        } else {
            fields.get("node");
            errors.check(fields.finish());
        }
        errors.or(Self { date, nodes })
    }

    /// Writes it down.
    pub fn render(&self) -> String {
        let mut text = format!("{HEAD}lock = {VERSION}\n");
        self.date.iter().for_each(|date| text.push_str(&format!("date = {}\n", quoted(date))));
        for (name, node) in &self.nodes {
            text.push_str(&format!("\n[node.{name}]\nstep = {}\n", quoted(&node.step)));
            if !node.asked.is_empty() {
                text.push_str("asked = [\n");
                node.asked.iter().for_each(|asked| text.push_str(&format!("    {},\n", quoted(asked))));
                text.push_str("]\n");
            }
            if !node.packages.is_empty() {
                text.push_str("packages = [\n");
                node.packages.iter().for_each(|package| text.push_str(&line(package)));
                text.push_str("]\n");
            }
            if !node.sources.is_empty() {
                text.push_str(&format!("\n[node.{name}.sources]\n"));
                for (source, value) in &node.sources {
                    text.push_str(&format!("{} = {}\n", quoted(source), quoted(value)));
                }
            }
        }
        text
    }
}

fn line(package: &Package) -> String {
    let Package { name, version, architecture, size, sha256, file } = package;
    let [name, version, architecture, file] = [name, version, architecture, file].map(|text| quoted(text));
    format!(
        "    {{ name = {name}, version = {version}, architecture = {architecture}, size = {size}, sha256 = \"{sha256}\", \
         file = {file} }},\n"
    )
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Finds a mark that git left.
fn conflict(source: &Arc<Source>) -> Option<Box<SpecError>> {
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let text = line.trim_end();
        if CONFLICT.iter().any(|mark| line.starts_with(mark) && (mark.ends_with(' ') || text == *mark)) {
            let origin = Origin { source: Arc::clone(source), span: start..start + text.len() };
            let error = SpecError::at(&origin, "two versions of this lock contradict each other");
            return Some(
                error.label("git's mark of a conflict").hint(
                    "take one of the two (git checkout --ours or --theirs), then: stagegraph lock SPEC",
                ),
            );
        }
        start += line.len();
    }
    None
}

/// Finds a byte that no text has: a terminal is not to be shown it.
fn control(source: &Arc<Source>) -> Option<Box<SpecError>> {
    let is_control = |c: char| c.is_control() && !['\n', '\r', '\t'].contains(&c);
    let at = source.text.find(is_control)?;
    let line = source.text[..at].matches('\n').count() + 1;
    Some(SpecError::nowhere(format!("{} is not a lock: line {line} has a control character", source.name)))
}

fn node(name: &str, item: &Item) -> Result<Locked, SpecErrors> {
    let fields = Fields::of(item, &format!("[node.{name}]"))?;
    let texts = |key| fields.texts(key).into_iter().map(|(text, _)| text.to_owned()).collect();
    let mut locked = Locked {
        step: fields.required_text("step").unwrap_or_default().to_owned(),
        asked: texts("asked"),
        origin: Some(item.origin.clone()),
        ..Locked::default()
    };
    for item in fields.read("packages", Item::as_list).unwrap_or_default() {
        locked.packages.extend(fields.check(package(item)));
    }
    for (source, item) in fields.entries("sources") {
        let value = fields.check(item.as_text()).unwrap_or_default();
        locked.sources.insert(source.to_owned(), value.to_owned());
    }
    if let Some(twice) = locked.packages.windows(2).find(|pair| pair[0].name >= pair[1].name) {
        let name = &twice[1].name;
        fields.wrong(
            SpecError::at(&item.origin, format!("the package {name} is twice here, or out of order"))
                .label("packages are in order of name"),
        );
    }
    fields.finish().map(|()| locked)
}

fn package(item: &Item) -> Result<Package, SpecErrors> {
    let fields = Fields::of(item, "a package of a lock")?;
    let text = |key: &'static str, is_right: fn(&str) -> bool, expected: &'static str| {
        fields.required(key);
        let text = fields.read(key, |item| {
            let text = item.as_text()?;
            let wrong = || SpecError::at(&item.origin, format!("{text:?} is not the {key} of a package"));
            if is_right(text) { Ok(text.to_owned()) } else { Err(wrong().label(expected)) }
        });
        text.unwrap_or_default()
    };
    // As Debian's policy has them (5.6.1, 5.6.12): they become words of a command line and names of files.
    let is_word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:~".contains(&byte))
    };
    let package = Package {
        name: text("name", is_word, "letters, digits, '+', '-' and '.'"),
        version: text("version", is_word, "letters, digits, '+', '-', '.', ':' and '~'"),
        architecture: text("architecture", is_word, "letters and digits"),
        size: fields.integer("size", 0..=i64::MAX).unwrap_or_default().unsigned_abs(),
        sha256: fields
            .read("sha256", |item| {
                item.as_text()?.parse().map_err(|_| {
                    SpecError::at(&item.origin, "this is not a SHA-256")
                        .label("expected 64 hexadecimal digits")
                })
            })
            .unwrap_or_else(unread),
        file: text("file", is_file, "a path below the archive's address, of printable ASCII"),
    };
    fields.required("size");
    fields.required("sha256");
    fields.finish().map(|()| package)
}

/// Tells whether a text can be where an archive has a package.
fn is_file(text: &str) -> bool {
    RelPath::new(text.as_bytes()).is_ok() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Stands for a hash that could not be read, which is noted.
fn unread() -> Sha256 {
    Sha256::from_slice(&[0; 32]).expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Lock, SpecErrors> {
        Lock::read(&Arc::new(Source { name: "x.lock".to_owned(), text: text.to_owned() }))
    }

    fn lock() -> Lock {
        let package = |name: &str, version: &str| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            size: 7,
            sha256: Sha256::from_slice(&[0xab; 32]).unwrap(),
            file: format!("pool/main/{name}.deb"),
        };
        let tools = Locked {
            step: "toolbox".to_owned(),
            asked: vec!["?essential".to_owned(), "x".to_owned()],
            packages: vec![package("a", "1:2~rc1"), package("x", "2")],
            ..Locked::default()
        };
        let sources = BTreeMap::from([("root \"of\" it".to_owned(), "6d".to_owned())]);
        let stage2 = Locked { step: "import".to_owned(), sources, ..Locked::default() };
        Lock {
            date: Some("20260102T030405Z".to_owned()),
            nodes: BTreeMap::from([("tools".to_owned(), tools), ("stage2".to_owned(), stage2)]),
        }
    }

    #[test]
    fn a_lock_reads_back_as_it_was_written_one_package_a_line() {
        let text = lock().render();
        let again = read(&text).unwrap();
        assert_eq!(again.render(), text);
        assert_eq!(again.nodes["tools"].packages, lock().nodes["tools"].packages);
        assert_eq!(text.lines().filter(|line| line.contains("sha256")).count(), 2, "{text}");
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_of_any_edit_is_written_and_read_again(at in 0..1200usize, with in "[ -~\n]{0,9}", gone in 0..40usize) {
            let mut text = lock().render();
            let at = at.min(text.len());
            text.replace_range(at..(at + gone).min(text.len()), &with);
            if let Ok(read_once) = read(&text) {
                let written = read_once.render();
                proptest::prop_assert_eq!(read(&written).unwrap().render(), written);
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_lock_is_told_where_it_stands() {
        let good = lock().render();
        let sha256 = "ab".repeat(32);
        for (from, to, says) in [
            ("lock = 1", "lock = 2", "another version than this program reads"),
            ("lock = 1\n", "", "a lock needs \"lock\""),
            ("[node.tools]", "<<<<<<< HEAD\n[node.tools]", "git's mark of a conflict"),
            ("lock = 1", "lock = 1\n=======\n", "git's mark of a conflict"),
            ("version = \"2\"", "version = \"2; rm\"", "\"2; rm\" is not the version of a package"),
            ("name = \"x\"", "name = \"-o\"", "\"-o\" is not the name of a package"),
            ("name = \"x\"", "name = \"a\"", "the package a is twice here"),
            ("pool/main/x.deb", "../x.deb", "\"../x.deb\" is not the file of a package"),
            (sha256.as_str(), "abc", "this is not a SHA-256"),
            ("size = 7", "size = -7", "size must be from 0"),
            ("[node.tools]", "[node.\"to ols\"]", "\"to ols\" is not a node's name"),
            ("step = \"toolbox\"", "stpe = \"toolbox\"", "has no key \"stpe\""),
            ("step = ", "step ", "not TOML"),
        ] {
            let text = read(&good.replacen(from, to, 1)).unwrap_err().render();
            assert!(text.contains(says) && text.contains("x.lock"), "{from} → {to}: {text}");
        }
    }
}
