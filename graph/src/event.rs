//! Everything the outside may learn while a graph is built.

use serde::Serialize;

use crate::explain::Reason;
use crate::name::NodeName;

/// Something happened. Events of one node come in order; those of different nodes may mix.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The build begins.
    Planned {
        /// How many nodes are wanted.
        nodes: usize,
    },
    /// A node began to run.
    Started {
        /// Which.
        node: NodeName,
        /// Why it runs.
        reason: Reason,
        /// Its action.
        action: cache::ActionDigest,
    },
    /// A running node got further.
    Progress {
        /// Which.
        node: NodeName,
        /// What it is doing.
        doing: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
    /// A tool printed a line.
    Output {
        /// Whose tool.
        node: NodeName,
        /// The line.
        line: String,
    },
    /// A node has something to say that people should read.
    Remark {
        /// Which.
        node: NodeName,
        /// What.
        text: String,
    },
    /// A node's outputs are there.
    Finished {
        /// Which.
        node: NodeName,
        /// Why it ran, or did not.
        reason: Reason,
        /// Its action.
        action: cache::ActionDigest,
        /// How long it ran, in milliseconds; nothing where the result was in the store.
        milliseconds: Option<u64>,
    },
    /// A node failed.
    Failed {
        /// Which.
        node: NodeName,
        /// Why, each cause after the one it explains.
        causes: Vec<String>,
        /// What to do next.
        hint: Option<String>,
        /// Where what its tools printed is kept.
        log: Option<std::path::PathBuf>,
    },
    /// A node did not run, because one it needs failed.
    Skipped {
        /// Which.
        node: NodeName,
        /// The one that failed.
        because: NodeName,
    },
}
