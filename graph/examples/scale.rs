//! `scale STORE GRAPH`: builds a graph of trivial steps, to measure the engine alone; `benches/graph.py` runs it.
//!
//! GRAPH is a file with a line for each node: its name, and the names of the nodes it takes. The step runs no tool:
//! it puts a few bytes into the store, and counts for nothing beside what the engine does for a node.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use cache::{Object, Output, Store};
use graph::build::{Backend, Options, Outcome, build};
use graph::dag::{Dag, Derivation};
use graph::name::{NodeName, OutputRef};
use graph::sandbox::{Mode, Sandbox};
use graph::{Cancel, Event, Job, Step, StepError, Tools};

/// Gives its seed and the digests of what it takes.
struct Trivial {
    seed: String,
}

impl Step for Trivial {
    fn kind(&self) -> &'static str {
        "trivial"
    }

    fn version(&self) -> u32 {
        1
    }

    fn params(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("seed".to_owned(), self.seed.clone())])
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let mut bytes = self.seed.clone().into_bytes();
        for output in job.inputs.values() {
            if let Object::Blob(blob) = output.object {
                bytes.extend_from_slice(blob.digest.as_bytes());
            }
        }
        Ok(BTreeMap::from([("out".to_owned(), job.objects.put(&bytes)?.into())]))
    }
}

fn read_graph(text: &str) -> Result<Dag, Box<dyn Error>> {
    let name = |word: &str| NodeName::new(word).ok_or_else(|| format!("{word:?} is not a node's name"));
    let mut nodes = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let node = name(words.next().unwrap_or_default())?;
        let mut inputs = BTreeMap::new();
        for word in words {
            inputs.insert(word.to_owned(), OutputRef { node: name(word)?, output: "out".to_owned() });
        }
        let step = Arc::new(Trivial { seed: node.to_string() });
        nodes.push((node, Derivation::new(step, inputs, BTreeSet::from(["out".to_owned()]))));
    }
    Dag::new(nodes.into_iter().collect()).map_err(|errors| errors[0].to_string().into())
}

fn run(store: &Path, file: &Path) -> Result<bool, Box<dyn Error>> {
    let dag = read_graph(&std::fs::read_to_string(file)?)?;
    let wanted: Vec<_> = dag.nodes().keys().cloned().collect();
    let backend = Backend {
        store: &Store::open(store)?,
        sandbox: &Sandbox::new(Mode::On, None),
        tools: &Tools::new(Vec::new()),
        workers: None,
        cancel: &Cancel::default(),
        listener: &|_: Event| {},
        hints: &|_| None,
    };
    let jobs = std::thread::available_parallelism()?.get();
    let graph = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let built = build(&dag, &wanted, &backend, &Options { graph, jobs, check: false, offline: true })?;
    let ran =
        built.nodes.values().filter(|outcome| matches!(outcome, Outcome::Done(done) if done.ran)).count();
    println!("{} nodes, {ran} ran", built.nodes.len());
    let good = built.fault().is_none();
    // The process ends: nobody needs the memory back.
    std::mem::forget((dag, built));
    Ok(good)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let [_, store, file] = &arguments[..] else {
        eprintln!("usage: scale STORE GRAPH");
        return ExitCode::from(2);
    };
    match run(Path::new(store), Path::new(file)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
