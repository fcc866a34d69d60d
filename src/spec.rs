//! Specs: what an image is, read from TOML into typed steps.
//!
//! A spec extends another one, down to the graph of `specs/livecd.toml`. Every value remembers the file
//! and place it came from, so that an error can point there, whichever file it was and however deep.

mod load;

use std::collections::{BTreeMap, BTreeSet};

use cache::name::{FileName, RelPath};
use graph::dag::{Dag, DagError, Derivation};
use graph::{NodeName, OutputRef};

use self::load::Loaded;
pub use self::load::{Finder, Overrides};
use crate::config::{Fields, Item, Origin, SpecError, Value};
use crate::image::Image;
use crate::steps::{self, Inputs};

/// A spec, read and checked.
pub struct Spec {
    /// Its name: that of its file without the ending.
    pub name: String,
    /// The image it describes.
    pub image: Image,
    /// The graph.
    pub dag: Dag,
    /// What is published: the outputs, and the folder below the output folder each goes to (`None`: the top).
    pub publish: Vec<(Option<RelPath>, OutputRef)>,
    /// What was decided for the user and must be said aloud.
    pub remarks: Vec<(NodeName, String)>,
    /// What is asked for and cannot be made, where all else can: a build of it fails, with the rest published.
    pub refused: Option<String>,
}

impl Spec {
    /// Finds, reads and checks a spec.
    ///
    /// # Errors
    /// [`SpecError`], which points into the file.
    pub fn load(finder: &Finder, name: &str, overrides: &Overrides) -> Result<Spec, Box<SpecError>> {
        let Loaded { name, item, refused } = finder.load(name, overrides)?;
        let spec = Reader { finder, remarks: Vec::new(), kinds: BTreeMap::new() }.read(name, &item)?;
        Ok(Spec { refused, ..spec })
    }

    /// Returns the nodes whose outputs are published.
    pub fn published(&self) -> BTreeSet<NodeName> {
        self.publish.iter().map(|(_, output)| output.node.clone()).collect()
    }
}

struct Reader<'a> {
    finder: &'a Finder,
    remarks: Vec<(NodeName, String)>,
    /// The kind of step each node runs.
    kinds: BTreeMap<NodeName, &'static steps::Kind>,
}

impl Reader<'_> {
    fn read(mut self, name: String, table: &Item) -> Result<Spec, Box<SpecError>> {
        let top = Fields::of(table, "a spec")?;
        let nodes = top.required_table("node")?;
        let node_fields = Fields::of(nodes, "the nodes of a spec")?;
        for (node, item) in node_fields.tables()? {
            let (key, origin) = (node, &item.origin);
            let node = NodeName::new(key).ok_or_else(|| {
                SpecError::at(origin, format!("{key:?} is not a node's name"))
                    .label("lower-case letters, digits and dashes")
            })?;
            let kind = self.kind(&node, item)?;
            self.kinds.insert(node, kind);
        }
        let kinds: BTreeSet<&str> = self.kinds.values().map(|kind| kind.name).collect();
        let image = Image::read(top.required_table("image")?, steps::names(), &kinds)?;
        let places = top.table("publish")?.map(published_places).transpose()?.unwrap_or_default();
        let mut derivations = BTreeMap::new();
        let mut origins = BTreeMap::new();
        let mut folders = BTreeSet::new();
        for (key, item) in node_fields.tables()? {
            let Some(node) = NodeName::new(key) else { continue };
            let kind = self.kinds[&node];
            let (derivation, own) = derivation(&node, item, kind, (&image, &places), &mut origins)?;
            folders.extend(own.into_iter().map(|output| OutputRef { node: node.clone(), output }));
            derivations.insert(node, derivation);
        }
        let publish = match top.table("publish")? {
            Some(item) => read_publish(item, &derivations, &folders)?,
            None => Vec::new(),
        };
        top.text("extends")?;
        top.finish()?;
        let dag = Dag::new(derivations).map_err(|error| point_at(error, &origins, nodes))?;
        let spec = Spec { name, image, dag, publish, remarks: self.remarks, refused: None };
        spec.check_unused(nodes)?;
        Ok(spec)
    }

    /// Decides which kind of step a node runs.
    fn kind(&mut self, node: &NodeName, item: &Item) -> Result<&'static steps::Kind, Box<SpecError>> {
        let fields = Fields::of(item, "a node")?;
        let step = fields.required("step")?;
        let name = step.as_text()?;
        let name = match name {
            "auto" if self.finder.has_catalyst => "catalyst",
            "auto" => {
                let why = "made of Debian's packages: catalyst is not installed here";
                self.remarks.push((node.clone(), why.to_owned()));
                "debian"
            }
            other => other,
        };
        steps::kind(name).ok_or_else(|| {
            SpecError::at(&step.origin, format!("there is no step {name:?}"))
                .label("not a step")
                .help(format!("steps are: auto, {}", steps::names().collect::<Vec<_>>().join(", ")))
        })
    }
}

impl Spec {
    /// Refuses nodes that nothing published needs: they would never run, and nobody would notice.
    fn check_unused(&self, nodes: &Item) -> Result<(), Box<SpecError>> {
        let published = self.published();
        if published.is_empty() {
            return Ok(());
        }
        // Audits give nothing to publish; they decide whether anything is.
        let audits = self.dag.nodes().iter().filter(|(_, derivation)| derivation.step.kind() == steps::AUDIT);
        let wanted: BTreeSet<NodeName> =
            published.into_iter().chain(audits.map(|(node, _)| node.clone())).collect();
        let used = self.dag.closure(&wanted);
        match self.dag.nodes().keys().find(|node| !used.contains(*node)) {
            None => Ok(()),
            Some(unused) => {
                let origin = nodes.get(unused.as_str()).map_or(&nodes.origin, |item| &item.origin);
                Err(SpecError::at(origin, format!("nothing that is published needs the node {unused}"))
                    .label("never runs")
                    .help("publish one of its outputs under [publish], or remove it"))
            }
        }
    }
}

/// Where each input of each node was written.
type Origins = BTreeMap<(NodeName, String), Origin>;

fn derivation(
    node: &NodeName,
    item: &Item,
    kind: &steps::Kind,
    (image, places): (&Image, &BTreeMap<OutputRef, String>),
    origins: &mut Origins,
) -> Result<(Derivation, BTreeSet<String>), Box<SpecError>> {
    // Settings of a step stand in the node, or in a table named after the step; those of other steps wait.
    let mut merged = item.clone();
    if let Value::Table(table) = &mut merged.value {
        let own = table.get(kind.name).filter(|item| matches!(item.value, Value::Table(_))).cloned();
        table.retain(|key, item| {
            let is_step = steps::kind(key).is_some();
            !(is_step && matches!(item.value, Value::Table(_)))
        });
        if let Some(own) = own {
            merged = merged.overlaid_on(own)?;
        }
    }
    let fields = Fields::of(&merged, &format!("the step {}", kind.name))?;
    fields.text("step")?;
    let mut inputs = BTreeMap::new();
    if let Some(table) = fields.table("input")? {
        for (name, item) in table.entries()? {
            let text = item.as_text()?;
            let output = parse_output(text).ok_or_else(|| {
                SpecError::at(&item.origin, format!("{text:?} is not an output"))
                    .label("expected NODE.OUTPUT, such as \"squashfs.image\"")
            })?;
            // Inputs become file names where a tool runs.
            FileName::new(name.as_bytes()).map_err(|error| {
                SpecError::at(&item.origin, error.to_string()).label("the input's name is not a file name")
            })?;
            origins.insert((node.clone(), name.to_owned()), item.origin.clone());
            inputs.insert(name.to_owned(), output);
        }
    }
    check_inputs(node, kind, &inputs, &merged, origins)?;
    let published =
        inputs.iter().filter_map(|(name, output)| Some((name.clone(), places.get(output)?.clone())));
    let fields = fields.with_published(published.collect());
    let made = (kind.make)(&fields, image)?;
    fields.finish()?;
    Ok((Derivation::new(made.step, inputs, made.outputs), made.folders))
}

fn check_inputs(
    node: &NodeName,
    kind: &steps::Kind,
    inputs: &BTreeMap<String, OutputRef>,
    item: &Item,
    origins: &Origins,
) -> Result<(), Box<SpecError>> {
    let Inputs::Named { required, optional } = kind.inputs else { return Ok(()) };
    let known: Vec<&str> = required.iter().chain(optional).copied().collect();
    for name in inputs.keys() {
        if !known.contains(&name.as_str()) {
            let origin = origins.get(&(node.clone(), name.clone())).unwrap_or(&item.origin);
            let takes = if known.is_empty() { "no inputs".to_owned() } else { known.join(", ") };
            return Err(SpecError::at(origin, format!("the step {} has no input {name:?}", kind.name))
                .label("not an input")
                .help(format!("it takes {takes}")));
        }
    }
    for name in required {
        if !inputs.contains_key(*name) {
            return Err(SpecError::at(&item.origin, format!("{node} lacks the input {name:?}"))
                .label(format!("the step {} needs it", kind.name))
                .help(format!("add it: input.{name} = \"NODE.OUTPUT\"")));
        }
    }
    Ok(())
}

fn parse_output(text: &str) -> Option<OutputRef> {
    let (node, output) = text.split_once('.')?;
    let named = !output.is_empty() && output.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    Some(OutputRef { node: NodeName::new(node)?, output: named.then(|| output.to_owned())? })
}

/// Returns the folder that each published output goes to, before anything about them is checked.
fn published_places(item: &Item) -> Result<BTreeMap<OutputRef, String>, Box<SpecError>> {
    let mut places = BTreeMap::new();
    for (folder, outputs) in item.entries()? {
        let prefix = if folder == "." { String::new() } else { format!("{folder}/") };
        for output in outputs.as_list()? {
            if let Some(output) = parse_output(output.as_text()?) {
                places.insert(output, prefix.clone());
            }
        }
    }
    Ok(places)
}

/// Reads `[publish]`: a folder (`.` is the top) and the outputs that go there.
fn read_publish(
    item: &Item,
    derivations: &BTreeMap<NodeName, Derivation>,
    folders: &BTreeSet<OutputRef>,
) -> Result<Vec<(Option<RelPath>, OutputRef)>, Box<SpecError>> {
    let mut publish = Vec::new();
    for (folder, outputs) in item.entries()? {
        let path = match folder {
            "." => None,
            other => Some(RelPath::new(other.as_bytes()).map_err(|error| {
                SpecError::at(&outputs.origin, error.to_string())
                    .label("folders are published below the output folder")
            })?),
        };
        for output in outputs.as_list()? {
            let text = output.as_text()?;
            let parsed = parse_output(text).filter(|parsed| {
                derivations.get(&parsed.node).is_some_and(|giver| giver.outputs().contains(&parsed.output))
            });
            let parsed = parsed.ok_or_else(|| {
                SpecError::at(&output.origin, format!("there is no output {text:?} to publish"))
                    .label("expected NODE.OUTPUT of a node of this spec")
            })?;
            if !folders.contains(&parsed) {
                return Err(SpecError::at(&output.origin, format!("{text} is not a folder of plain files"))
                    .label("only such folders can be published")
                    .help("a node of your own (step = \"run\") can put a file into one"));
            }
            publish.push((path.clone(), parsed));
        }
    }
    Ok(publish)
}

fn point_at(error: DagError, origins: &Origins, nodes: &Item) -> Box<SpecError> {
    let (origin, label) = match &error {
        DagError::UnknownNode { node, input, .. } => {
            (origins.get(&(node.clone(), input.clone())), "no such node")
        }
        DagError::UnknownOutput { node, input, .. } => {
            (origins.get(&(node.clone(), input.clone())), "no such output")
        }
        DagError::Cycle(cycle) => {
            let first = cycle.first().and_then(|node| nodes.get(node.as_str()));
            (first.map(|item| &item.origin), "one of them")
        }
    };
    SpecError::at(origin.unwrap_or(&nodes.origin), error.to_string()).label(label)
}
