//! Provenance of a published set: in-toto's statement (<https://github.com/in-toto/attestation>, v1) with SLSA's predicate
//! (<https://slsa.dev/spec/v1.0/provenance>). It is a rendering of the manifest, and has nothing that the manifest has not, but who built.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::formats::spdx::purl_part;
use crate::manifest::{Manifest, NodeFacts};

/// How a payload of this kind is called in an envelope (DSSE).
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The endings of the names of statements, one for each line: envelopes with one builder's signature.
pub const STATEMENTS: &str = ".intoto.jsonl";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// The parameters mean what the members of the same names of a manifest do (docs/manifest.md).
const BUILD_TYPE: &str = "urn:stagegraph:build:1";

/// Stands for a builder that does not say who it is.
pub const UNNAMED: &str = "urn:stagegraph:unnamed-builder";

/// A statement: what is said of which files.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Subject>,
    predicate_type: &'static str,
    predicate: Value,
}

/// A file that something is said of.
#[derive(Debug, Serialize)]
struct Subject {
    name: String,
    digest: BTreeMap<&'static str, String>,
}

impl Statement {
    /// Says of all files of a manifest how they were built, and by whom: `builder` is an address that stands for a builder; nothing
    /// needs to be there.
    pub fn of(manifest: &Manifest, builder: &str) -> Self {
        let subject = manifest.files.iter().map(|(name, facts)| Subject {
            name: name.clone(),
            digest: BTreeMap::from([("sha256", facts.sha256.to_string())]),
        });
        let dependencies: Vec<Value> =
            manifest.nodes.iter().flat_map(|(node, facts)| materials(node, facts)).collect();
        let nodes: BTreeMap<&String, Value> =
            manifest.nodes.iter().map(|(name, node)| (name, internal(node))).collect();
        let predicate = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "image": manifest.image,
                    "lock": manifest.lock,
                    "spec": manifest.spec,
                },
                "internalParameters": { "nodes": nodes },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": builder, "version": { "stagegraph": manifest.generator } },
            },
        });
        Self { kind: STATEMENT, subject: subject.collect(), predicate_type: PREDICATE, predicate }
    }

    /// Writes it as it is signed: one line.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("statements are made of plain values, and of maps with texts for keys")
    }
}

/// What the graph decided by itself.
fn internal(node: &NodeFacts) -> Value {
    json!({
        "step": node.step, "version": node.version, "action": node.action, "sandboxed": node.sandboxed,
        "params": node.params, "inputs": node.inputs, "outputs": node.outputs,
    })
}

/// What a node took from outside.
fn materials(node: &str, facts: &NodeFacts) -> Vec<Value> {
    let sources = facts.sources.iter().map(|(name, pinned)| source(node, name, pinned));
    let tools = facts.tools.iter().map(|(name, listing)| {
        json!({
            "name": format!("{node}: program {name}"),
            "digest": { "blake3": listing.to_string() },
            "annotations": { "what": "the program, its libraries and its data, each by its hash" },
        })
    });
    sources.chain(tools).collect()
}

/// A source is pinned as its step does: `VERSION sha256:HEX` is a package, `DIGEST WORDS` a file, all else a text.
fn source(node: &str, name: &str, pinned: &str) -> Value {
    let (first, rest) = pinned.split_once(' ').unwrap_or((pinned, ""));
    if let Some(sha256) = rest.strip_prefix("sha256:") {
        return json!({
            "name": format!("{node}: {name}"),
            "uri": format!("pkg:deb/debian/{}@{}", purl_part(name), purl_part(first)),
            "digest": { "sha256": sha256 },
        });
    }
    let words: Vec<&str> = pinned.split(' ').collect();
    let digest =
        words.iter().find(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let mut found = json!({ "name": format!("{node}: {name}") });
    match digest {
        Some(digest) => {
            found["digest"] = json!({ "blake3": digest });
            let others: Vec<&str> = words.iter().copied().filter(|word| word != digest).collect();
            if !others.is_empty() {
                found["annotations"] = json!({ "pinned": others.join(" ") });
            }
        }
        // A descriptor has an address, a digest or its content.
        None => found["uri"] = format!("urn:stagegraph:pinned:{}", purl_part(pinned)).into(),
    }
    found
}
