//! Finds spec files, follows `extends`, and lays `--set` on top.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::causes;

use super::lock::Locking;
use crate::catalyst;
use crate::config::{Item, Mirror, Origin, Source, SpecError, SpecErrors, Table, Value};
use crate::image::Timestamp;
use crate::steps;

/// The specs inside the program.
const BUILT_IN: [(&str, &str); 11] = [
    ("amd64-minimal", include_str!("../../specs/amd64-minimal.toml")),
    ("amd64-secureboot", include_str!("../../specs/amd64-secureboot.toml")),
    ("arm64-minimal", include_str!("../../specs/arm64-minimal.toml")),
    ("catalyst", include_str!("../../specs/catalyst.toml")),
    ("catalyst-netboot", include_str!("../../specs/catalyst-netboot.toml")),
    ("livecd", include_str!("../../specs/livecd.toml")),
    ("multi", include_str!("../../specs/multi.toml")),
    ("netboot", include_str!("../../specs/netboot.toml")),
    ("ppc64le-minimal", include_str!("../../specs/ppc64le-minimal.toml")),
    ("riscv-minimal", include_str!("../../specs/riscv-minimal.toml")),
    ("x86-minimal", include_str!("../../specs/x86-minimal.toml")),
];

/// Specs that extend each other, at most.
const MAX_DEPTH: usize = 16;

/// Where specs are looked for.
#[derive(Debug, Clone, Default)]
pub struct Finder {
    /// Folders, in order; the specs inside the program come last.
    pub folders: Vec<PathBuf>,
    /// Whether a catalyst program is installed.
    pub has_catalyst: bool,
    /// Whether apt is installed.
    pub has_apt: bool,
    /// Whether tools run without a sandbox: then none comes from a toolbox.
    pub is_unboxed: bool,
}

/// What the command line sets on top of a spec.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `KEY=VALUE`, in order; `NAME=VALUE` with a name in capitals stands for a placeholder.
    pub set: Vec<String>,
    /// `SOURCE_DATE_EPOCH`; an explicit setting of the timestamp wins over it.
    pub epoch: Option<String>,
    /// What becomes of its lock.
    pub lock: Locking,
    /// Archives where packages may be that apt does not have.
    pub mirrors: Vec<Mirror>,
    /// Whether another spec takes it in.
    pub is_inner: bool,
}

impl Overrides {
    /// Returns what stands for placeholders (`TREEISH=…`), and the settings.
    fn split(&self) -> (BTreeMap<String, String>, Vec<&str>) {
        let mut fill = BTreeMap::new();
        let mut set = Vec::new();
        for text in &self.set {
            match text.split_once('=').filter(|(name, _)| catalyst::is_placeholder(name)) {
                Some((name, value)) => drop(fill.insert(name.to_owned(), value.to_owned())),
                None => set.push(text.as_str()),
            }
        }
        (fill, set)
    }
}

/// A spec with all it extends.
pub(super) struct Loaded {
    pub(super) name: String,
    /// The path of its file, or what stands for that.
    pub(super) file: String,
    pub(super) item: Item,
    /// What is asked for and cannot be made.
    pub(super) refused: Option<String>,
    /// What is wrong with tables for steps.
    pub(super) errors: SpecErrors,
}

impl Finder {
    /// Reads a spec with all it extends and the overrides.
    pub(super) fn load(&self, name: &str, overrides: &Overrides) -> Result<Loaded, SpecErrors> {
        let mut errors = SpecErrors::default();
        let (stem, source) = self.find(name, None)?;
        let (mut fill, set) = overrides.split();
        let mut refused = None;
        let mut item;
        let mut own = Vec::new();
        if is_release_spec(name) {
            if let Some(epoch) = &overrides.epoch {
                fill.entry("TIMESTAMP".to_owned()).or_insert(from_epoch(epoch)?.text());
            }
            let configuration = catalyst::Configuration::read(configured_in(&set))
                .map_err(|error| SpecError::nowhere(causes(&error).join(": ")))?;
            let read = catalyst::read_spec(&source, &fill, &configuration)?;
            refused = read.refused;
            own = read.set;
            item = self.extended(read.item, &source, 0, &mut errors)?;
        } else {
            item = self.extended(Item::parse(&source)?, &source, 0, &mut errors)?;
            if let Some(epoch) = &overrides.epoch {
                let text = format!("image.timestamp={}", from_epoch(epoch)?.text());
                errors.check(lay_over(&mut item, &text, "SOURCE_DATE_EPOCH"));
            }
            for (name, text) in &fill {
                errors.check(put_in(&mut item, name, text));
            }
        }
        for text in &own {
            errors.check(lay_over(&mut item, text, "livecd/stagegraph_set"));
        }
        for text in set {
            errors.check(lay_over(&mut item, text, "--set"));
        }
        Ok(Loaded { name: stem, file: source.name.clone(), item, refused, errors })
    }

    /// Lays a spec over what it extends.
    fn extended(
        &self,
        item: Item,
        source: &Arc<Source>,
        depth: usize,
        errors: &mut SpecErrors,
    ) -> Result<Item, Box<SpecError>> {
        let Some(extends) = item.get("extends") else {
            check_image_tables(&item, &item, errors);
            return Ok(item);
        };
        if depth == MAX_DEPTH {
            return Err(SpecError::at(&extends.origin, "specs extend each other in a circle, or too deep"));
        }
        let (_, base_source) = self.find(extends.as_text()?, Some((&extends.origin, source)))?;
        let mut base = self.extended(Item::parse(&base_source)?, &base_source, depth + 1, errors)?;
        drop_step_tables(&item, &mut base);
        let own = item.clone();
        let merged = item.overlaid_on(base)?;
        check_image_tables(&own, &merged, errors);
        Ok(merged)
    }

    /// Finds a spec by path (with a slash or `.toml`) or by name.
    fn find(
        &self,
        name: &str,
        from: Option<(&Origin, &Arc<Source>)>,
    ) -> Result<(String, Arc<Source>), Box<SpecError>> {
        let error = |message: String| match from {
            Some((origin, _)) => SpecError::at(origin, message),
            None => SpecError::nowhere(message),
        };
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path)
                .map_err(|why| error(format!("cannot read the spec {}: {why}", path.display())))?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = path.display().to_string();
            Ok((stem, Arc::new(Source::of_file(name, &text))))
        };
        if name.contains('/') || name.ends_with(".toml") || is_release_spec(name) {
            // Relative to the spec that names it.
            let folder = from.and_then(|(_, source)| Path::new(&source.name).parent().map(Path::to_owned));
            return read(&folder.unwrap_or_default().join(name));
        }
        let file = format!("{name}.toml");
        if let Some(path) = self.folders.iter().map(|folder| folder.join(&file)).find(|path| path.is_file()) {
            return read(&path);
        }
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            let name = format!("<built-in>/{file}");
            return Ok((
                file.trim_end_matches(".toml").to_owned(),
                Arc::new(Source { name, text: (*text).to_owned() }),
            ));
        }
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        Err(error(format!("there is no spec {name:?}")).hint(format!(
            "looked for {file} in {}, and among the built-in ones ({}); a path needs a slash in it",
            folders.join(", "),
            BUILT_IN.map(|(name, _)| name).join(", ")
        )))
    }
}

/// Returns the step that a spec's node says it runs.
fn step_of<'a>(spec: &'a Item, node: &str) -> Option<&'a str> {
    spec.get("node")?.get(node)?.get("step")?.as_text().ok()
}

/// Returns the entries of a table that are tables named after a step.
fn step_tables(table: Option<&Item>) -> impl Iterator<Item = (&str, &Item)> {
    let entries = table.and_then(|table| table.entries().ok()).into_iter().flatten();
    entries.filter(|(key, item)| steps::kind(key).is_some() && matches!(item.value, Value::Table(_)))
}

/// Where a spec has a node run another step than the spec below does, the settings of the step below go.
fn drop_step_tables(own: &Item, base: &mut Item) {
    let Some(nodes) = own.get("node").and_then(|nodes| nodes.entries().ok()) else { return };
    for (node, _) in nodes {
        let (Some(step), Some(before)) = (step_of(own, node), step_of(base, node).map(str::to_owned)) else {
            continue;
        };
        let of_base = base.get_mut("node").and_then(|nodes| nodes.get_mut(node));
        if let Some(Value::Table(table)) = of_base.map(|node| &mut node.value) {
            table.retain(|key, item| {
                let is_settings = matches!(item.value, Value::Table(_)) && steps::can_run(&before, key);
                !is_settings || steps::can_run(step, key)
            });
        }
    }
}

/// Refuses tables in `[image]` for steps that no node can run: they would count for nothing. (Of a node, such a table is a
/// key that the node's step does not know.)
fn check_image_tables(own: &Item, merged: &Item, errors: &mut SpecErrors) {
    let nodes = merged.get("node").and_then(|nodes| nodes.entries().ok()).into_iter().flatten();
    let steps: Option<Vec<&str>> = nodes.map(|(node, _)| step_of(merged, node)).collect();
    // Where the step of a node cannot be read, which is told, it may be any.
    let is_known = |step: &&str| [steps::AUTO, steps::HOST].contains(step) || steps::kind(step).is_some();
    let Some(nodes) = steps.filter(|steps| steps.iter().all(is_known)) else { return };
    // A spec without nodes leaves them to those that extend it.
    if nodes.is_empty() {
        return;
    }
    for (name, item) in step_tables(own.get("image")) {
        if !nodes.iter().any(|step| steps::can_run(step, name)) {
            let error = SpecError::at(&item.origin, format!("no node runs the step {name}"));
            errors.push(error.label(format!("[image.{name}] would count for nothing")));
        }
    }
}

/// Tells whether a name is that of one of catalyst's specs.
fn is_release_spec(name: &str) -> bool {
    name.ends_with(".spec")
}

/// Returns where catalyst's configuration is, by the settings of the node that runs it.
fn configured_in<'a>(set: &[&'a str]) -> &'a Path {
    let keys = ["stage2.conf=", "node.stage2.conf="];
    let named = set.iter().rev().find_map(|text| keys.iter().find_map(|key| text.strip_prefix(key)));
    Path::new(named.unwrap_or(catalyst::CONF))
}

fn from_epoch(epoch: &str) -> Result<Timestamp, Box<SpecError>> {
    Timestamp::from_epoch(epoch).ok_or_else(|| {
        SpecError::nowhere(format!("SOURCE_DATE_EPOCH is {epoch:?}; expected seconds since 1970"))
    })
}

/// Puts a text in for a placeholder, `@NAME@`, wherever it stands.
fn put_in(item: &mut Item, name: &str, text: &str) -> Result<(), Box<SpecError>> {
    if name == "TIMESTAMP" {
        // The dates of an image follow from its own.
        return lay_over(item, &format!("image.timestamp={text}"), "--set");
    }
    if replace(item, &format!("@{name}@"), text) {
        return Ok(());
    }
    Err(SpecError::nowhere(format!("--set {name}: nothing in the spec says @{name}@"))
        .hint("a name in capitals stands for a placeholder; settings are image.KEY and NODE.KEY"))
}

/// Replaces a text in all texts; tells whether it was there.
fn replace(item: &mut Item, from: &str, to: &str) -> bool {
    match &mut item.value {
        Value::Text(text) => {
            let found = text.contains(from);
            *text = text.replace(from, to);
            found
        }
        Value::List(items) => items.iter_mut().fold(false, |found, item| replace(item, from, to) | found),
        Value::Table(table) => table.values_mut().fold(false, |found, item| replace(item, from, to) | found),
        Value::Integer(_) | Value::Bool(_) => false,
    }
}

/// Lays one `KEY=VALUE` over a spec: `image.KEY`, or `NODE.KEY` for a setting of a node. On an error the spec is as it was.
fn lay_over(item: &mut Item, text: &str, option: &str) -> Result<(), Box<SpecError>> {
    let source = Arc::new(Source { name: option.to_owned(), text: text.to_owned() });
    let origin = |span| Origin { source: Arc::clone(&source), span };
    let Some((key, value)) = text.split_once('=') else {
        return Err(
            SpecError::at(&origin(0..text.len()), format!("{option} takes KEY=VALUE")).label("no '='")
        );
    };
    let start = key.len() + 1;
    let value = parse_value(value, &origin(start..text.len()));
    let keys: Vec<&str> = key.split('.').collect();
    let path: Vec<&str> = match keys[..] {
        ["image" | "publish" | "node", ..] => keys,
        [node, ..] if item.get("node").is_some_and(|nodes| nodes.get(node).is_some()) => {
            [&["node"], &keys[..]].concat()
        }
        _ => {
            let message = format!("{key:?} is neither image.KEY nor NODE.KEY of a node of this spec");
            return Err(SpecError::at(&origin(0..key.len()), message).label("unknown"));
        }
    };
    if path.len() < 2 || path.iter().any(|key| key.is_empty()) {
        return Err(
            SpecError::at(&origin(0..key.len()), format!("{key:?} names no setting")).label("incomplete")
        );
    }
    let nested = path.iter().rev().fold(value, |item, key| Item {
        value: Value::Table(Table::from([((*key).to_owned(), item)])),
        origin: origin(0..start - 1),
    });
    let mut below = item.clone();
    drop_step_tables(&nested, &mut below);
    *item = nested.set_in(below)?;
    // What the command line says of the image overrides what a step's own table says.
    if let (["image", key], Value::Table(top)) = (&path[..], &mut item.value)
        && let Some(Value::Table(image)) = top.get_mut("image").map(|image| &mut image.value)
    {
        for table in image.values_mut() {
            if let Value::Table(table) = &mut table.value {
                table.remove(*key);
            }
        }
    }
    Ok(())
}

/// Reads a value as TOML; what is no TOML is a text.
fn parse_value(text: &str, origin: &Origin) -> Item {
    let source = Arc::new(Source { name: String::new(), text: format!("value = {text}") });
    let parsed = Item::parse(&source).ok().and_then(|item| item.get("value").cloned());
    let value = match parsed {
        Some(Item { value: value @ (Value::Integer(_) | Value::Bool(_) | Value::Text(_)), .. }) => value,
        Some(Item { value: Value::List(items), .. }) => {
            let moved = items.into_iter().map(|item| Item { origin: origin.clone(), ..item });
            Value::List(moved.collect())
        }
        Some(Item { value: Value::Table(_), .. }) | None => Value::Text(text.to_owned()),
    };
    Item { value, origin: origin.clone() }
}
