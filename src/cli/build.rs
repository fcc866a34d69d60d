//! `stagegraph build`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use graph::NodeName;
use graph::build::{Built, Options, Outcome};
use graph::dag::Dag;
use graph::sandbox::Mode;

use super::args::{self, SpecArgs, StoreArgs, finder};
use super::failure::{DONE, ENVIRONMENT, Failure, WRONG, code_of, complain, note, refused, stopped};
use super::sign::{self, SignersArg};
use super::upstreams::{self, Remotes};
use crate::config::{Mirror, SpecErrors};
use crate::machine::{self, Machine};
use crate::manifest::{Manifest, Way};
use crate::publish;
use crate::report::{Reporter, Style};
use crate::signing::Signers;
use crate::spec::{Finder, Locking, Overrides, Spec};
use crate::steps;

#[derive(Debug, Args)]
pub(super) struct Build {
    /// Specs: a name such as `amd64-minimal`, a path with a slash in it, or a .spec file of catalyst
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<String>,
    /// Where images are published: DIR/<spec>/
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// How many nodes run at once, and how many threads each may use [default: all cores]
    #[arg(short, long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    #[command(flatten)]
    spec: SpecArgs,
    /// Build only these nodes and what they need, and publish nothing; may be repeated
    #[arg(long, value_name = "NODE")]
    to: Vec<String>,
    /// Run every node again and compare: tells whether the build is reproducible here
    #[arg(long)]
    check: bool,
    /// Fail where there is no lock, or it does not fit the spec
    #[arg(long)]
    locked: bool,
    /// The lock [default: SPEC.lock beside the spec, where it is there; of a built-in spec, in the current folder]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// An archive with packages that apt does not have (any more): an address or a folder; may be repeated
    #[arg(long, value_name = "ARCHIVE")]
    mirror: Vec<String>,
    /// Do not use the network
    #[arg(long)]
    offline: bool,
    /// Whether tools run in a sandbox; without one, results are kept apart and marked
    #[arg(long, value_enum, default_value_t = SandboxMode::On)]
    sandbox: SandboxMode,
    /// Print events as JSON, one a line
    #[arg(long)]
    json: bool,
    /// Print what tools print
    #[arg(short, long)]
    verbose: bool,
    /// End when the input ends: the process that started this one holds the other end of it
    #[arg(long, hide = true)]
    ends_with_parent: bool,
    /// Sign what is published, before it has its name
    #[arg(long, conflicts_with = "to")]
    sign: bool,
    #[command(flatten)]
    signers: SignersArg,
    #[command(flatten)]
    remotes: Remotes,
}

/// A spec, and the nodes of it that are to be built.
struct Wanted<'a> {
    spec: &'a Spec,
    nodes: Vec<NodeName>,
}

/// What is built with.
struct With<'a> {
    store: Arc<cache::Store>,
    machine: &'a Machine,
    upstreams: upstreams::Upstreams,
    signers: Option<Signers>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SandboxMode {
    On,
    Off,
}

/// Says of a spec without a lock that its packages are those of today.
fn unpinned(spec: &Spec, wanted: &[NodeName]) -> Option<(NodeName, String)> {
    if spec.image.lock.is_some() {
        return None;
    }
    let closure = spec.dag.closure(wanted);
    let mut nodes = spec.dag.nodes().iter().filter(|(node, _)| closure.contains(*node));
    let (node, _) = nodes.find(|(_, node)| steps::has_packages(node.step.kind()))?;
    Some((node.clone(), format!("packages are those of today; `{}` pins them", spec.lock_command)))
}

/// Returns the name that a node has in this build.
fn full_name(spec: &Spec, node: &NodeName, is_one: bool) -> NodeName {
    if is_one { node.clone() } else { node.within(&spec.name) }
}

/// Tells whether a path, of which the end need not be there yet, is a folder or lies in it.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let real = |path: &Path| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let there = absolute.ancestors().find_map(|above| Some((above.canonicalize().ok()?, above)));
        there.map_or(absolute.clone(), |(real, above)| {
            absolute.strip_prefix(above).map_or(real.clone(), |rest| real.join(rest))
        })
    };
    real(path).starts_with(real(folder))
}

/// Has this process stop, as by SIGTERM, once its input ends: whoever holds the other end is gone then, and need not have the right to send
/// a signal.
fn end_with_input() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    });
}

impl Build {
    pub(super) fn run(self) -> Result<u8, Failure> {
        if self.ends_with_parent {
            end_with_input();
        }
        let is_unboxed = matches!(self.sandbox, SandboxMode::Off);
        let finder = Finder { is_unboxed, ..finder() };
        let overrides = self.overrides()?;
        // All specs are read before anything runs: a mistake in the last one costs nothing.
        let mut errors = SpecErrors::default();
        let specs = self.specs.iter().map(|name| errors.check(Spec::load(&finder, name, &overrides)));
        let specs: Vec<Spec> = specs.collect::<Vec<_>>().into_iter().flatten().collect();
        let specs = errors.or(specs)?;
        if let Some(twice) =
            specs.iter().enumerate().find(|(i, spec)| specs[..*i].iter().any(|s| s.name == spec.name))
        {
            let message =
                format!("two specs are called {}; both would be published in one folder", twice.1.name);
            return Err(Failure::wrong(message));
        }
        let signers = self.sign.then(|| self.signers.read()).transpose()?;
        let wanted = specs.iter().map(|spec| self.wanted(spec)).collect::<Result<Vec<_>, Failure>>()?;
        if self.to.is_empty() {
            self.check_out(&specs)?;
        }
        let store = Arc::new(cache::Store::open(&self.store.dir()?)?);
        store.say_waits(complain);
        if self.to.is_empty() {
            store.add_output(&self.out)?;
        }
        let mut machine = args::machine(match self.sandbox {
            SandboxMode::On => Mode::On,
            SandboxMode::Off => Mode::Off,
        })?;
        let upstreams = self.remotes.open(&store, &mut machine, self.offline)?;
        // What is made again is compared with what is here, and what was made without a sandbox is nobody else's business.
        let upstreams = if self.check || is_unboxed { upstreams.without_uploads() } else { upstreams };
        let with = With { store, machine: &machine, upstreams, signers };
        let mut code = DONE;
        let mut left: Vec<Wanted<'_>> =
            specs.iter().zip(wanted).map(|(spec, nodes)| Wanted { spec, nodes }).collect();
        // All at once, as far as the same may be unpacked for them.
        while let Some(limits) = left.first().map(|wanted| wanted.spec.limits) {
            let (now, later) = left.into_iter().partition(|wanted| wanted.spec.limits == limits);
            left = later;
            let reporter = Reporter::new(Style { json: self.json, verbose: self.verbose });
            code = code.max(self.build(now, &reporter, &with)?);
            if let Some(signal) = machine.signal() {
                return Ok(stopped(signal, "what was finished is kept"));
            }
            if let Some(why) = reporter.lost() {
                complain(&format!("error: standard output could not be written: {why}"));
                code = code.max(ENVIRONMENT);
            }
        }
        std::mem::forget(specs);
        let upstreams = self.say_upstreams(with.upstreams, &with.store)?;
        if let Some(signal) = machine.signal() {
            return Ok(stopped(signal, "what was published stays, and what was sent"));
        }
        Ok(code.max(upstreams))
    }

    /// Builds specs in one graph and publishes each.
    fn build(&self, mut left: Vec<Wanted<'_>>, reporter: &Reporter, with: &With<'_>) -> Result<u8, Failure> {
        let is_one = left.len() == 1;
        for Wanted { spec, nodes } in &left {
            for (node, text) in spec.remarks.iter().chain(&unpinned(spec, nodes)) {
                reporter
                    .event(graph::Event::Remark { node: full_name(spec, node, is_one), text: text.clone() });
            }
        }
        let mut code = DONE;
        while !left.is_empty() {
            let (worst, again) = self.build_once(left, is_one, reporter, with)?;
            code = code.max(worst);
            left = again;
        }
        Ok(code)
    }

    /// Builds specs in one graph and publishes each; returns the worst exit code, and those of which something that was to be
    /// published turned out to be nowhere: it is made the next time.
    fn build_once<'a>(
        &self,
        wanted: Vec<Wanted<'a>>,
        is_one: bool,
        reporter: &Reporter,
        with: &With<'_>,
    ) -> Result<(u8, Vec<Wanted<'a>>), Failure> {
        let With { store, machine, upstreams, signers } = with;
        let (mut code, mut again) = (DONE, Vec::new());
        let Some(first) = wanted.first().map(|wanted| wanted.spec) else { return Ok((code, again)) };
        let graphs = wanted.iter().map(|wanted| (&*wanted.spec.name, &wanted.spec.dag));
        let failed = |errors: Vec<graph::dag::DagError>| Failure::of(WRONG, &errors[0]);
        let together = if is_one { None } else { Some(Dag::together(graphs).map_err(failed)?) };
        let dag = together.as_ref().unwrap_or(&first.dag);
        let options = Options {
            graph: first.name.clone(),
            jobs: self.jobs.map_or_else(machine::cores, usize::from),
            check: self.check,
            offline: self.offline,
        };
        let nodes = wanted
            .iter()
            .flat_map(|wanted| wanted.nodes.iter().map(|node| full_name(wanted.spec, node, is_one)));
        let listener = |event| {
            upstreams.event(store, &event);
            reporter.event(event);
        };
        let lost = store.lost();
        let all =
            machine.build(store, (dag, first.limits), &nodes.collect::<Vec<_>>(), &listener, &options)?;
        reporter.finish(&all);
        for wanted in wanted {
            let spec = wanted.spec;
            let own = (!is_one).then(|| all.of_graph(&spec.name));
            let built = own.as_ref().unwrap_or(&all);
            let published = match built.fault() {
                None => self.publish(store, spec, built, signers.as_ref(), reporter),
                Some(fault) => Ok(code_of(fault)),
            };
            match published {
                Err(_) if machine.signal().is_some() => break,
                Err(_) if store.lost() > lost => again.push(wanted),
                Err(failure) => return Err(failure),
                Ok(DONE) => code = code.max(refused(spec.refused.as_deref())),
                Ok(failed) => code = code.max(failed),
            }
        }
        // The process ends soon: nobody needs the memory back.
        std::mem::forget((all, together));
        Ok((code, again))
    }

    /// Waits for what is being offered, and says what was done with upstreams; returns the exit code.
    fn say_upstreams(&self, upstreams: upstreams::Upstreams, store: &cache::Store) -> Result<u8, Failure> {
        let (summary, failed) = upstreams.finish(store);
        if let Some(summary) = summary {
            for remark in &summary.sent.remarks {
                note(remark);
            }
            let reporter = Reporter::new(Style { json: self.json, verbose: self.verbose });
            reporter.tell(&upstreams::line(&summary), &upstreams::json(&summary));
        }
        match failed {
            None => Ok(DONE),
            Some(why) => Err(Failure::environment(why)),
        }
    }

    /// Returns what the command line says on top of the specs.
    fn overrides(&self) -> Result<Overrides, Failure> {
        if self.lock.is_some() && self.specs.len() > 1 {
            return Err(Failure::wrong("--lock names one lock, and there are several specs"));
        }
        let mirror = |text: &String| {
            Mirror::parse(text, Path::new("")).ok_or_else(|| {
                Failure::wrong(format!("--mirror {text}: this is no archive"))
                    .with_hint("give an http or https address, or the path of a folder")
            })
        };
        let mirrors = self.mirror.iter().map(mirror).collect::<Result<_, Failure>>()?;
        let lock = match self.locked {
            true => Locking::Required(self.lock.clone()),
            false => Locking::IfThere(self.lock.clone()),
        };
        Ok(Overrides { lock, mirrors, ..self.spec.overrides() })
    }

    /// Finds out before anything runs whether something is published, and whether it can be.
    fn check_out(&self, specs: &[Spec]) -> Result<(), Failure> {
        if let Some(spec) = specs.iter().find(|spec| spec.publish.is_empty()) {
            let message =
                format!("{} publishes nothing; name outputs under [publish], or nodes with --to", spec.name);
            return Err(Failure::wrong(message));
        }
        std::fs::create_dir_all(&self.out)
            .and_then(|()| Ok(rustix::fs::access(&self.out, rustix::fs::Access::WRITE_OK)?))
            .map_err(|error| {
                let out = self.out.display();
                Failure::environment(format!(
                    "the output folder {out} cannot be written to: {error}; name another with --out"
                ))
            })?;
        let store = self.store.dir()?;
        for folder in specs.iter().map(|spec| self.out.join(&spec.name)) {
            publish::check(&folder)?;
            if is_inside(&store, &folder) {
                let (store, folder) = (store.display(), folder.display());
                let message = format!(
                    "the store {store} is in {folder}, which holds what is published and nothing else"
                );
                return Err(Failure::wrong(message).with_hint("name another place with --store or --out"));
            }
        }
        Ok(())
    }

    /// Returns the nodes to build: those named, or all.
    fn wanted(&self, spec: &Spec) -> Result<Vec<NodeName>, Failure> {
        if self.to.is_empty() {
            return Ok(spec.dag.nodes().keys().cloned().collect());
        }
        let known = |name: &String| {
            NodeName::new(name).filter(|node| spec.dag.nodes().contains_key(node)).ok_or_else(|| {
                let nodes: Vec<_> = spec.dag.nodes().keys().map(NodeName::as_str).collect();
                Failure::wrong(format!("{} has no node {name:?}", spec.name))
                    .with_hint(format!("its nodes are {}", nodes.join(", ")))
            })
        };
        self.to.iter().map(known).collect()
    }

    fn publish(
        &self,
        store: &cache::Store,
        spec: &Spec,
        built: &Built,
        signers: Option<&Signers>,
        reporter: &Reporter,
    ) -> Result<u8, Failure> {
        if !self.to.is_empty() {
            for node in self.to.iter().filter_map(|name| NodeName::new(name)) {
                let Some(Outcome::Done(done)) = built.nodes.get(&node) else { continue };
                for (name, output) in done.result.outputs.iter() {
                    reporter.say(&format!("{node}.{name}: {}", output.object));
                }
            }
            return Ok(DONE);
        }
        let folder = self.out.join(&spec.name);
        let sign = signers.map(sign::signing);
        let published = publish::publish(store, spec, built, &folder, sign.as_deref())?;
        store.set_root(&folder, &spec.name, &built.actions())?;
        reporter.published(&folder, &published);
        self.say_memory(store, built, reporter, &folder);
        Ok(DONE)
    }

    /// Repeats from the manifest how much memory each way to boot needs.
    fn say_memory(&self, store: &cache::Store, built: &Built, reporter: &Reporter, folder: &Path) {
        let manifests = built.nodes.values().filter_map(|outcome| match outcome {
            Outcome::Done(done) if done.step == "manifest" => done.result.outputs.get("files"),
            _ => None,
        });
        for output in manifests {
            let cache::Object::Tree(tree) = output.object else { continue };
            let Ok(tree) = store.tree(&tree) else { continue };
            for (path, digest, _) in tree.files() {
                let text = store.read(&digest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let Some(Ok(manifest)) = text.map(|text| Manifest::read(&text)) else { continue };
                let line = |way: &Way| format!("{:>6} MiB  {}", way.least_ram_mib, way.way);
                let ways: Vec<String> = manifest.boot.iter().map(line).collect();
                reporter.say(&format!("least memory:\n{}", ways.join("\n")));
                reporter.say(&format!("manifest: {}", path.below(folder).display()));
            }
        }
    }
}
