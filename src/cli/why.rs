//! `stagegraph why`.

use clap::Args;
use graph::NodeName;
use graph::explain::{self, Change, Reason};

use super::args::{SpecArgs, StoreArgs, finder};
use super::failure::{Failure, print};
use crate::difference::{self, Difference};
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
                        for change in changes {
                            text.push_str(&line(change));
                            text.push_str(&difference(&store, change)?);
                        }
                    }
                }
            }
        }
        print(text.as_bytes())
    }
}

/// Says which packages or files make the difference.
fn difference(store: &cache::Store, change: &Change) -> Result<String, Failure> {
    Ok(match difference::of(store, change)? {
        None => String::new(),
        Some(Difference::Gone) => "        what it was is no longer in the store\n".to_owned(),
        Some(Difference::Lines(lines, more)) => {
            let rest = (more > 0).then(|| format!("and {more} more"));
            lines.into_iter().chain(rest).map(|line| format!("        {line}\n")).collect()
        }
    })
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
