//! `stagegraph why`.

use clap::Args;
use graph::NodeName;
use graph::explain::{self, Change, Reason};

use super::args::{SpecArgs, StoreArgs, finder};
use super::failure::{Failure, print};
use crate::spec::Spec;

#[derive(Debug, Args)]
pub(super) struct Why {
    /// The spec
    #[arg(value_name = "SPEC")]
    name: String,
    /// The node; all nodes without it
    node: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl Why {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let spec = Spec::load(&finder(), &self.name, &self.spec.overrides())?;
        let nodes = match &self.node {
            None => spec.dag.order(),
            Some(name) => match NodeName::new(name).filter(|node| spec.dag.nodes().contains_key(node)) {
                Some(node) => vec![node],
                None => {
                    let message = format!("{} has no node {name:?}", spec.name);
                    return Err(Failure::wrong(message));
                }
            },
        };
        let store = cache::Store::open(&self.store.dir()?)?;
        let mut text = String::new();
        for node in nodes {
            match explain::last(&store, &spec.name, &node)? {
                None => text.push_str(&format!("{node}: never built in this store\n")),
                Some(last) => {
                    text.push_str(&format!("{node}: {}\n", last.reason));
                    if let Reason::Changed(changes) | Reason::CachedFromBefore(changes) = &last.reason {
                        changes.iter().for_each(|change| text.push_str(&line(change)));
                    }
                }
            }
        }
        print(text.as_bytes())
    }
}

fn line(change: &Change) -> String {
    let value = |value: &Option<String>| value.as_deref().map_or_else(|| "(nothing)".to_owned(), shortened);
    format!("    {} {}: {} → {}\n", change.kind, change.name, value(&change.before), value(&change.after))
}

/// Shortens digests, which nobody compares by eye.
fn shortened(text: &str) -> String {
    let short = |word: &str| {
        let (kind, hex) = word.rsplit_once(':').map_or(("", word), |(kind, hex)| (kind, hex));
        let is_digest = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (is_digest, kind) {
            (false, _) => word.to_owned(),
            (true, "") => format!("{}…", &hex[..12]),
            (true, kind) => format!("{kind}:{}…", &hex[..12]),
        }
    };
    text.split(' ').map(short).collect::<Vec<_>>().join(" ")
}
