//! Names of nodes and of their outputs.

use std::fmt;

/// What stands between the name of a graph and that of a node of it, where several are built at once.
const OF: char = ':';

/// A node's name: lower-case letters, digits and dashes; where several graphs are built at once, the graph's name and a colon
/// stand before them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct NodeName(String);

impl NodeName {
    /// Checks a name; `None` where it is not one.
    pub fn new(text: &str) -> Option<Self> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (!text.is_empty() && text.len() <= 64 && text.chars().all(good)).then(|| Self(text.to_owned()))
    }

    /// Returns the name it has where several graphs are built at once.
    pub fn within(&self, graph: &str) -> Self {
        Self(format!("{graph}{OF}{}", self.0))
    }

    /// Returns the graph that it says it is of.
    pub fn graph(&self) -> Option<&str> {
        self.0.rsplit_once(OF).map(|(graph, _)| graph)
    }

    /// Returns the name it has in a graph that it is of, or that has taken in the graph that it is of.
    pub fn in_graph(&self, graph: &str) -> Option<Self> {
        self.0.strip_prefix(graph)?.strip_prefix(OF).map(|name| Self(name.to_owned()))
    }

    /// Returns the name it has in its graph.
    pub fn local(&self) -> Self {
        self.0.rsplit_once(OF).map_or_else(|| self.clone(), |(_, name)| Self(name.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One output of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputRef {
    /// The node.
    pub node: NodeName,
    /// The name of its output.
    pub output: String,
}

impl fmt::Display for OutputRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.output)
    }
}
