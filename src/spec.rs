//! Specs: what an image is, read from TOML into typed steps.
//!
//! A spec extends another one, down to the graph of `specs/livecd.toml`. Every value remembers the file
//! and place it came from, so that an error can point there, whichever file it was and however deep.

mod load;
mod lock;
mod nodes;
mod resolved;
mod settings;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cache::name::RelPath;
use graph::dag::{Dag, DagError, Derivation};
use graph::sandbox::Limits;
use graph::{NodeName, OutputRef};

use self::load::Loaded;
pub use self::load::{Finder, Overrides};
use self::lock::InUse;
pub use self::lock::{Locking, read_file as read_lock};
use self::nodes::Nodes;
pub use self::resolved::without_places;
use self::settings::{
    Origins, check_inputs, packing, parse_output, point_at, published_places, read_input, step_settings,
    without_other_steps,
};
use crate::config::{Archive, Fields, Item, Locked, Mirror, Packing, SpecError, SpecErrors};
use crate::image::{Image, Timestamp};
use crate::steps::{self, AUTO, HOST, LOADERS, Made, TOOLBOX, TOOLS};

/// A spec, read and checked.
pub struct Spec {
    /// Its name: that of its file without the ending.
    pub name: String,
    /// The image it describes.
    pub image: Image,
    /// The graph.
    pub dag: Dag,
    /// Outputs that are folders of plain files.
    folders: BTreeSet<OutputRef>,
    /// What is published: the outputs, and the folder below the output folder each goes to (`None`: the top).
    pub publish: Vec<(Option<RelPath>, OutputRef)>,
    /// What was decided for the user and must be said aloud.
    pub remarks: Vec<(NodeName, String)>,
    /// What is asked for and cannot be made, where all else can: a build of it fails, with the rest published.
    pub refused: Option<String>,
    /// Where its lock is, or would be. Whether it counts is in the image.
    pub lock: PathBuf,
    /// The command that makes the lock.
    pub lock_command: String,
    /// What tools may use of the machine. It is no part of any key: it changes whether there is a result, not which.
    pub limits: Limits,
}

impl Spec {
    /// Finds, reads and checks a spec.
    ///
    /// # Errors
    /// [`SpecErrors`]: all that is wrong with it, each with its place in the file.
    pub fn load(finder: &Finder, spec: &str, overrides: &Overrides) -> Result<Spec, SpecErrors> {
        let Loaded { name, file, item, refused, errors } = finder.load(spec, overrides)?;
        let command = lock::command(spec, &overrides.set, &overrides.lock);
        let in_use = InUse::read(&overrides.lock, &command, &file)?;
        let lock = in_use.as_ref().map_or_else(|| lock::path_of(&file), |lock| lock.name.clone().into());
        let reader = Reader {
            finder,
            errors,
            remarks: Vec::new(),
            kinds: BTreeMap::new(),
            items: BTreeMap::new(),
            hosts: BTreeSet::new(),
            origins: Origins::new(),
            locking: &overrides.lock,
            lock: in_use,
            mirrors: overrides.mirrors.clone(),
            command: command.clone(),
            epoch: overrides.epoch.clone(),
            is_inner: overrides.is_inner,
        };
        Ok(Spec { refused, lock, lock_command: command, ..reader.read(name, &item)? })
    }

    /// Returns the nodes whose outputs are published.
    pub fn published(&self) -> BTreeSet<NodeName> {
        self.publish.iter().map(|(_, output)| output.node.clone()).collect()
    }
}

struct Reader<'a> {
    finder: &'a Finder,
    /// What is wrong so far.
    errors: SpecErrors,
    remarks: Vec<(NodeName, String)>,
    /// The kind of step each node runs.
    kinds: BTreeMap<NodeName, &'static steps::Kind>,
    /// What is written of each node.
    items: BTreeMap<NodeName, &'a Item>,
    /// The nodes that stand for this machine's own programs.
    hosts: BTreeSet<NodeName>,
    origins: Origins,
    locking: &'a Locking,
    lock: Option<InUse>,
    mirrors: Vec<Mirror>,
    /// The command that makes the lock.
    command: String,
    /// `SOURCE_DATE_EPOCH`.
    epoch: Option<String>,
    /// Whether another spec takes it in.
    is_inner: bool,
}

/// What other nodes and `[publish]` say of a node.
struct Around {
    /// The folder that each published output goes to.
    places: BTreeMap<OutputRef, String>,
    /// What becomes of each node's root.
    packings: BTreeMap<NodeName, Packing>,
}

impl<'a> Reader<'a> {
    /// Reads a spec to its end, whatever is wrong in between.
    fn read(mut self, name: String, table: &'a Item) -> Result<Spec, SpecErrors> {
        let top = Fields::of(table, "a spec")?;
        top.text("extends");
        let (image, nodes) = (top.required_table("image"), top.required_table("node"));
        let publish = top.read("publish", |item| item.entries().map(|_| item));
        let limits = top.read("limits", |item| item.entries().map(|_| item));
        let packages = top.read("packages", |item| item.entries().map(|_| item));
        let taken_in = top.texts("specs");
        self.errors.check(top.finish());
        let limits = limits.map(|item| self.limits(item)).unwrap_or_default();
        packages.into_iter().for_each(|item| self.read_mirrors(item));
        let (Some(image), Some(nodes)) = (image, nodes) else { return Err(self.errors) };
        self.read_kinds(nodes)?;
        self.drop_unused_toolboxes();
        let kinds: BTreeSet<&str> = self.kinds.values().map(|kind| kind.name).collect();
        let image = without_other_steps(image, &kinds);
        let date = self.lock_date();
        let Some(mut image) = Image::read(&image, &kinds, date, &mut self.errors) else {
            return Err(self.errors);
        };
        image.spec = resolved::resolved(table, &self.kinds, &self.hosts, image.timestamp);
        if let Some(lock) = &self.lock {
            image.lock = Some(lock.sha256);
            let names = nodes.entries()?.map(|(name, _)| name).collect();
            lock.check_nodes(&names, &mut self.errors);
        }
        let around =
            Around { places: publish.map(published_places).unwrap_or_default(), packings: self.packings() };
        let mut read = Nodes::default();
        for (node, kind) in self.kinds.clone() {
            let item = self.items[&node];
            let Some((derivation, folders)) = self.derivation(&node, item, kind, &image, &around) else {
                continue;
            };
            read.folders.extend(folders.into_iter().map(|output| OutputRef { node: node.clone(), output }));
            read.derivations.insert(node, derivation);
        }
        let mut names = BTreeSet::new();
        for (spec, item) in taken_in {
            self.take_in(spec, item, &mut names, &mut read);
        }
        let publish =
            publish.map(|item| read.publish(item, &self.items, &mut self.errors)).unwrap_or_default();
        let known: BTreeSet<NodeName> = read.derivations.keys().cloned().collect();
        match Dag::new(read.derivations) {
            Ok(dag) if self.errors.is_empty() => {
                let (lock, lock_command, remarks) = (PathBuf::new(), String::new(), self.remarks);
                let spec = Spec {
                    name,
                    image,
                    dag,
                    folders: read.folders,
                    publish,
                    remarks,
                    refused: None,
                    lock,
                    lock_command,
                    limits,
                };
                spec.check_unused(nodes)?;
                Ok(spec)
            }
            Ok(_) => Err(self.errors),
            Err(errors) => {
                for error in errors {
                    // A node that is there and could not be read is not missing.
                    let is_unread = |node| self.items.contains_key(node) && !known.contains(node);
                    if !matches!(&error, DagError::UnknownNode { wanted, .. } if is_unread(&wanted.node)) {
                        self.errors.push(point_at(error, &self.origins, nodes));
                    }
                }
                Err(self.errors)
            }
        }
    }

    /// Reads a spec that this one takes in, as it is by itself, with its own lock.
    fn take_in(&mut self, name: &str, item: &Item, names: &mut BTreeSet<String>, read: &mut Nodes) {
        if self.is_inner {
            let error = SpecError::at(&item.origin, "a spec that another one takes in takes in none itself");
            self.errors.push(error.label("taken in here"));
            return;
        }
        let lock = match self.locking {
            Locking::Ignored => Locking::Ignored,
            Locking::Required(_) => Locking::Required(None),
            Locking::IfThere(_) | Locking::Kept(..) => Locking::IfThere(None),
        };
        let (epoch, mirrors) = (self.epoch.clone(), self.mirrors.clone());
        let overrides = Overrides { lock, is_inner: true, epoch, mirrors, ..Overrides::default() };
        let Some(inner) = self.errors.check(Spec::load(self.finder, name, &overrides)) else { return };
        if let Some(why) = &inner.refused {
            self.errors.push(SpecError::at(&item.origin, why.clone()).label("it cannot be taken in"));
        }
        if !names.insert(inner.name.clone()) {
            let error = SpecError::at(&item.origin, format!("two specs are called {}", inner.name));
            self.errors.push(error.label("the second one").hint("call the file of one of them otherwise"));
            return;
        }
        let within = |output: &OutputRef| OutputRef {
            node: output.node.within(&inner.name),
            output: output.output.clone(),
        };
        read.folders.extend(inner.folders.iter().map(within));
        self.remarks.extend(inner.remarks.into_iter().map(|(node, text)| (node.within(&inner.name), text)));
        match Dag::together([(inner.name.as_str(), &inner.dag)]) {
            Ok(dag) => read.derivations.extend(dag.nodes().clone()),
            Err(errors) => errors.into_iter().for_each(|error| {
                self.errors.push(SpecError::at(&item.origin, error.to_string()));
            }),
        }
    }

    /// Leaves out toolboxes that no node takes here: those of a step that `auto` does not stand for on this machine.
    fn drop_unused_toolboxes(&mut self) {
        let mut taken = BTreeSet::new();
        for (taker, kind) in &self.kinds {
            let Ok(settings) = step_settings(self.items[taker], kind.name) else { continue };
            let inputs = settings.get("input").and_then(|inputs| inputs.entries().ok()).into_iter().flatten();
            taken.extend(inputs.filter_map(|(_, input)| Some(parse_output(input.as_text().ok()?)?.node)));
        }
        let is_auto =
            |item: &Item| item.get("step").is_some_and(|step| step.as_text().is_ok_and(|step| step == AUTO));
        let is_unused = |(node, kind): &(&NodeName, &&steps::Kind)| {
            kind.name == TOOLBOX && !taken.contains(*node) && is_auto(self.items[*node])
        };
        let unused: Vec<NodeName> =
            self.kinds.iter().filter(is_unused).map(|(node, _)| node.clone()).collect();
        for node in unused {
            self.kinds.remove(&node);
            self.items.remove(&node);
        }
    }

    /// Reads what tools may use.
    fn limits(&mut self, item: &Item) -> Limits {
        let mut limits = Limits::default();
        let Some(fields) = self.errors.check(Fields::of(item, "[limits]")) else { return limits };
        let number = |key, largest: i64| {
            fields.integer(key, 1..=largest).and_then(|number| u64::try_from(number).ok())
        };
        let mib = |key| number(key, 1 << 40).map(|mib| mib << 20);
        limits.processes = number("processes", 1 << 22).unwrap_or(limits.processes);
        limits.memory = mib("memory_mib").unwrap_or(limits.memory);
        limits.file = mib("file_mib").unwrap_or(limits.file);
        limits.unpacked = mib("unpacked_mib");
        self.errors.check(fields.finish());
        limits
    }

    /// Finds out which kind of step each node runs.
    fn read_kinds(&mut self, nodes: &'a Item) -> Result<(), SpecErrors> {
        for (key, item) in nodes.entries()? {
            let Some(node) = NodeName::new(key) else {
                let error = SpecError::at(&item.origin, format!("{key:?} is not a node's name"));
                self.errors.push(error.label("lower-case letters, digits and dashes"));
                continue;
            };
            self.items.insert(node.clone(), item);
            if self.errors.check(item.entries().map(drop)).is_none() {
                continue;
            }
            match self.kind(&node, item) {
                Ok(Some(kind)) => drop(self.kinds.insert(node, kind)),
                Ok(None) => {
                    if let Some(lock) =
                        self.lock.as_ref().filter(|lock| lock.lock.nodes.contains_key(node.as_str()))
                    {
                        let other = lock.entry(&node, HOST, None).map(drop);
                        self.errors.check(other);
                    }
                    self.items.remove(&node);
                    self.hosts.insert(node);
                }
                Err(error) => self.errors.push(error),
            }
        }
        Ok(())
    }

    /// Decides which kind of step a node runs: none where it stands for this machine's programs.
    fn kind(&mut self, node: &NodeName, item: &Item) -> Result<Option<&'static steps::Kind>, Box<SpecError>> {
        let step = item.get("step").ok_or_else(|| {
            SpecError::at(&item.origin, format!("the node {node} needs \"step\"")).label("it is missing here")
        })?;
        let name = match step.as_text()? {
            HOST => return Ok(None),
            AUTO if item.get(TOOLBOX).is_some() => match self.lacks_for_toolbox(node) {
                None => TOOLBOX,
                Some(why) => {
                    let text = format!("this machine's own programs make the images: {why}");
                    self.remarks.push((node.clone(), text));
                    return Ok(None);
                }
            },
            AUTO if self.finder.has_catalyst => "catalyst",
            AUTO => {
                let why = "made of Debian's packages: catalyst is not installed here";
                self.remarks.push((node.clone(), why.to_owned()));
                "debian"
            }
            other => other,
        };
        steps::kind(name).map(Some).ok_or_else(|| {
            SpecError::at(&step.origin, format!("there is no step {name:?}"))
                .label("not a step")
                .hint(format!("steps are: auto, host, {}", steps::names().collect::<Vec<_>>().join(", ")))
        })
    }

    /// Reads a node; notes what is wrong.
    fn derivation(
        &mut self,
        node: &NodeName,
        item: &Item,
        kind: &steps::Kind,
        image: &Image,
        around: &Around,
    ) -> Option<(Derivation, BTreeSet<String>)> {
        let merged = self.errors.check(step_settings(item, kind.name))?;
        let fields = self.errors.check(Fields::of(&merged, &format!("the step {}", kind.name)))?;
        fields.text("step");
        let mut inputs = BTreeMap::new();
        for (name, item) in fields.entries("input") {
            if let Some(output) = fields.check(read_input(name, item)) {
                if [TOOLS, LOADERS].contains(&name) && self.hosts.contains(&output.node) {
                    continue;
                }
                self.origins.insert((node.clone(), name.to_owned()), item.origin.clone());
                inputs.insert(name.to_owned(), output);
            }
        }
        check_inputs(node, kind, &inputs, &fields, &merged);
        let published = inputs
            .iter()
            .filter_map(|(name, output)| Some((name.clone(), around.places.get(output)?.clone())));
        let packing = around.packings.get(node).cloned().unwrap_or_default();
        let entry = self.locked(node, kind, &fields, image);
        let archive = Archive {
            locked: entry.as_ref().map(|entry| entry.packages.clone()),
            kept: self.locking.kept(node),
            mirrors: self.mirrors.clone(),
            command: self.command.clone(),
        };
        let fields = fields.with_published(published.collect()).with_packing(packing).with_archive(archive);
        let made = (kind.make)(&fields, image);
        self.errors.check(fields.finish())?;
        let Made { mut step, outputs, folders } = made?;
        if let (Some(lock), Some(entry)) = (&self.lock, entry.filter(|entry| entry.packages.is_empty())) {
            step = lock.holding(node, step, &entry);
        }
        Some((Derivation::new(step, inputs, outputs), folders))
    }

    /// Returns why this machine can have no toolbox; nothing where it can.
    fn lacks_for_toolbox(&self, node: &NodeName) -> Option<&'static str> {
        match self.finder {
            Finder { is_unboxed: true, .. } => Some("tools run without a sandbox"),
            Finder { has_apt: false, .. } if !self.is_locked(node) => Some("apt is not installed here"),
            _ => None,
        }
    }

    /// Tells whether the lock has packages of a node: then they can be had without apt.
    fn is_locked(&self, node: &NodeName) -> bool {
        let lock = match (&self.lock, self.locking) {
            (Some(in_use), _) => &in_use.lock,
            (None, Locking::Kept(lock, _)) => lock,
            (None, _) => return false,
        };
        lock.nodes.get(node.as_str()).is_some_and(|entry| entry.step == TOOLBOX)
    }

    /// Returns what the lock says of a node, which it must where there is one and the node takes something from outside.
    fn locked(
        &self,
        node: &NodeName,
        kind: &steps::Kind,
        fields: &Fields<'_>,
        image: &Image,
    ) -> Option<Locked> {
        let lock = self.lock.as_ref().filter(|_| steps::is_source(kind.name))?;
        let asked = steps::asked(kind.name, fields, image);
        fields.check(lock.entry(node, kind.name, asked.as_deref())).cloned()
    }

    /// Returns the date that a spec gets which takes the lock's, or why there is none.
    fn lock_date(&self) -> Result<Timestamp, String> {
        let lock = match (&self.lock, self.locking) {
            (Some(in_use), _) => &in_use.lock,
            (None, Locking::Kept(lock, _)) => lock,
            (None, _) => {
                return Err(format!("there is no lock to take it from; write one: {}", self.command));
            }
        };
        let date = lock.date.as_ref().ok_or("the lock has no date: only packages have one")?;
        Timestamp::parse(date)
            .ok_or_else(|| format!("the date of the lock, {date}, is none from 1970 to 2105"))
    }

    /// Reads where packages may be that apt's own sources do not have.
    fn read_mirrors(&mut self, item: &Item) {
        let Some(fields) = self.errors.check(Fields::of(item, "[packages]")) else { return };
        for (text, item) in fields.texts("mirrors") {
            let folder = Path::new(&item.origin.source.name).parent().unwrap_or(Path::new(""));
            let mirror = Mirror::parse(text, folder).ok_or_else(|| {
                SpecError::at(&item.origin, format!("{text:?} is no archive"))
                    .label("expected an http or https address, or the path of a folder")
            });
            self.mirrors.extend(fields.check(mirror));
        }
        self.errors.check(fields.finish());
    }

    /// Returns what all nodes that take a node's root do with it: nothing in common where one takes it as it is.
    fn packings(&self) -> BTreeMap<NodeName, Packing> {
        let mut packings: BTreeMap<NodeName, Packing> = BTreeMap::new();
        for (taker, kind) in &self.kinds {
            // It reads what a package manager noted, and is content with what is packed.
            if kind.name == steps::SBOM {
                continue;
            }
            let Ok(settings) = step_settings(self.items[taker], kind.name) else { continue };
            let inputs = settings.get("input").and_then(|inputs| inputs.entries().ok()).into_iter().flatten();
            let roots = inputs.filter_map(|(_, input)| parse_output(input.as_text().ok()?));
            for root in roots.filter(|output| output.output == steps::ROOT) {
                let own = if kind.name == steps::SQUASHFS { packing(&settings) } else { Packing::default() };
                match packings.entry(root.node) {
                    Entry::Vacant(entry) => drop(entry.insert(own)),
                    Entry::Occupied(mut entry) => {
                        let common = entry.get_mut();
                        common.excluded.retain(|pattern| own.excluded.contains(pattern));
                        common.clamps_mtime &= own.clamps_mtime;
                    }
                }
            }
        }
        packings
    }
}

impl Spec {
    /// Refuses nodes that nothing published needs: they would never run, and nobody would notice.
    fn check_unused(&self, nodes: &Item) -> Result<(), SpecErrors> {
        let published = self.published();
        let mut errors = SpecErrors::default();
        if published.is_empty() {
            return Ok(());
        }
        // Audits give nothing to publish; they decide whether anything is.
        let audits = self.dag.nodes().iter().filter(|(_, derivation)| derivation.step.kind() == steps::AUDIT);
        let wanted: BTreeSet<NodeName> =
            published.into_iter().chain(audits.map(|(node, _)| node.clone())).collect();
        let used = self.dag.closure(&wanted);
        // Of a spec that is taken in, some nodes may be of no use here.
        let is_own = |node: &&NodeName| node.graph().is_none();
        for unused in self.dag.nodes().keys().filter(is_own).filter(|node| !used.contains(*node)) {
            let origin = nodes.get(unused.as_str()).map_or(&nodes.origin, |item| &item.origin);
            errors.push(
                SpecError::at(origin, format!("nothing that is published needs the node {unused}"))
                    .label("never runs")
                    .hint("publish one of its outputs under [publish], or remove it"),
            );
        }
        errors.or(())
    }
}
