//! The engine by itself: two nodes, the second of which takes what the first gives.
//!
//! ```text
//! $ cargo run -p stagegraph-graph --example hello
//! world: hello ran, shout ran: HELLO, WORLD
//! world: hello kept, shout kept: HELLO, WORLD
//! World: hello ran, shout kept: HELLO, WORLD
//! ```
//! In the last line `hello` has another key, and gives the same bytes: nothing above it runs. Nobody wrote a rule for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cache::{Output, Store};
use graph::build::{Backend, Options, build};
use graph::sandbox::{Mode, Sandbox};
use graph::{Cancel, Dag, Derivation, Job, NodeName, OutputRef, Step, StepError, Tools};

/// Gives a greeting.
struct Hello {
    name: String,
}

/// Gives its input in capitals.
struct Shout;

impl Step for Hello {
    fn kind(&self) -> &'static str {
        "hello"
    }

    fn version(&self) -> u32 {
        1
    }

    /// What is not in here is not part of the key, and so must not have an influence on the outputs.
    fn params(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("name".to_owned(), self.name.clone())])
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let text = format!("hello, {}", self.name.to_lowercase());
        Ok(BTreeMap::from([("text".to_owned(), job.objects.put(text.as_bytes())?.into())]))
    }
}

impl Step for Shout {
    fn kind(&self) -> &'static str {
        "shout"
    }

    fn version(&self) -> u32 {
        1
    }

    fn params(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let text = job.objects.read(&job.blob("text")?.digest)?;
        let loud = text.to_ascii_uppercase();
        Ok(BTreeMap::from([("text".to_owned(), job.objects.put(&loud)?.into())]))
    }
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a node's name")
}

/// The graph: what `hello` gives as `text` is what `shout` takes as `text`.
fn graph_for(who: &str) -> Result<Dag, String> {
    let outputs = || BTreeSet::from(["text".to_owned()]);
    let text = OutputRef { node: name("hello"), output: "text".to_owned() };
    let hello = Derivation::new(Arc::new(Hello { name: who.to_owned() }), BTreeMap::new(), outputs());
    let shout = Derivation::new(Arc::new(Shout), BTreeMap::from([("text".to_owned(), text)]), outputs());
    Dag::new(BTreeMap::from([(name("hello"), hello), (name("shout"), shout)]))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in hello()? {
        println!("{line}");
    }
    Ok(())
}

fn hello() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path())?;
    let backend = Backend {
        store: &store,
        sandbox: &Sandbox::new(Mode::On, None),
        tools: &Tools::new(Vec::new()),
        workers: None,
        cancel: &Cancel::default(),
        listener: &|_| {},
        hints: &|_| None,
    };
    let options = Options { graph: "hello".to_owned(), jobs: 2, check: false, offline: true };
    let mut lines = Vec::new();
    for who in ["world", "world", "World"] {
        let built = build(&graph_for(who)?, &[name("shout")], &backend, &options)?;
        let how = |node| match built.done(&name(node)) {
            Some(done) if done.ran => "ran",
            Some(_) => "kept",
            None => "failed",
        };
        let blob = built.blob("shout", "text").ok_or("shout gave no text")?;
        let text = store.read(&blob.digest)?;
        let text = String::from_utf8_lossy(&text);
        lines.push(format!("{who}: hello {}, shout {}: {text}", how("hello"), how("shout")));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_says_what_its_documentation_says() {
        let text = include_str!("hello.rs");
        for line in super::hello().expect("the example runs") {
            assert!(text.contains(&format!("//! {line}\n")), "{line}");
        }
    }
}
