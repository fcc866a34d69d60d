//! `manifest`: one JSON file that says what everything is made of.

use std::collections::BTreeMap;

use cache::{BlobDigest, Object, Output, Sha256};
use graph::{Job, Step, StepError};
use rayon::prelude::*;
use serde::Serialize;

use super::boot::{BootEntry, Kernels};
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::menu::{Menu, least_ram};
use crate::cmdline::{Choice, Medium};
use crate::manifest::SCHEMA;
use crate::memory::{Load, WAYS};

/// Gives `files`, a folder with the manifest under its published name. Inputs beside `facts`, `squashfs` and
/// `packages` are folders whose files it names, as far as they are published.
pub(super) const KIND: Kind = Kind {
    name: "manifest",
    inputs: Inputs::Any,
    make: |fields, image| {
        Ok(Made::new(
            Manifest {
                folders: fields.published().clone(),
                generator: GENERATOR,
                iso: image.iso_name(),
                title: image.title.clone(),
                volume_id: image.volume_id.clone(),
                timestamp: image.timestamp.text(),
                epoch: image.timestamp.epoch(),
                menu: Menu::of(image),
            },
            &["files/"],
        ))
    },
};

#[derive(Serialize)]
struct Manifest {
    /// The inputs that are published, and the folder each goes to.
    folders: BTreeMap<String, String>,
    generator: &'static str,
    iso: String,
    title: String,
    volume_id: String,
    timestamp: String,
    epoch: u32,
    menu: Menu,
}

/// The program that writes the manifest.
const GENERATOR: &str = concat!("stagegraph ", env!("CARGO_PKG_VERSION"));

/// The whole document. Every member is described in `docs/manifest.md`.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    generator: &'static str,
    image: ImageFacts<'a>,
    kernels: &'a [BootEntry],
    squashfs: FileFacts,
    boot: Vec<Way<'a>>,
    files: BTreeMap<String, FileFacts>,
    nodes: BTreeMap<String, NodeFacts>,
    packages: serde_json::Value,
}

#[derive(Serialize)]
struct ImageFacts<'a> {
    name: &'a str,
    title: &'a str,
    volume_id: &'a str,
    timestamp: &'a str,
    epoch: u32,
}

#[derive(Serialize, Clone, Copy)]
struct FileFacts {
    size: u64,
    blake3: BlobDigest,
    sha256: Sha256,
}

/// One way to boot.
#[derive(Serialize)]
struct Way<'a> {
    way: &'static str,
    kernel: &'a str,
    choice: Choice,
    command_line: String,
    least_ram_mib: u64,
}

#[derive(Serialize)]
struct NodeFacts {
    step: String,
    version: u32,
    action: cache::ActionDigest,
    sandboxed: bool,
    params: BTreeMap<String, String>,
    inputs: BTreeMap<String, String>,
    sources: BTreeMap<String, String>,
    tools: BTreeMap<String, BlobDigest>,
    outputs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<String>,
}

/// Stands for the address of the folder a client boots from.
const ADDRESS: &str = "http://SERVER/FOLDER/image.squashfs";

impl Manifest {
    fn ways<'a>(&self, kernels: &'a Kernels, squashfs: u64) -> Result<Vec<Way<'a>>, StepError> {
        let mut ways = Vec::new();
        for entry in &kernels.0 {
            for (way, load) in WAYS {
                let (medium, choice) = match load {
                    Load::Medium | Load::Cached => {
                        let choice = if load == Load::Cached { Choice::Cached } else { Choice::Default };
                        (Medium::Iso { volume_id: self.volume_id.clone() }, choice)
                    }
                    Load::InInitrdBios | Load::InInitrdUefi => (Medium::InInitrd, Choice::Default),
                    Load::Http if !entry.initramfs.has_livenet() => continue,
                    Load::Http => (Medium::Http { url: ADDRESS.to_owned() }, Choice::Default),
                };
                ways.push(Way {
                    way,
                    kernel: &entry.label,
                    choice,
                    command_line: self.menu.line(entry, &medium, choice, None)?.to_string(),
                    least_ram_mib: least_ram(load, entry, squashfs),
                });
            }
        }
        Ok(ways)
    }
}

impl Step for Manifest {
    identity!(version 2);

    fn wants_provenance(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let read = |name: &str| Ok::<_, StepError>(job.objects.read(&job.blob(name)?.digest)?);
        let kernels = Kernels::decode(&read("facts")?)?;
        let packages = match job.inputs.contains_key("packages") {
            true => serde_json::from_slice(&read("packages")?).map_err(StepError::environment)?,
            false => serde_json::Value::Array(Vec::new()),
        };
        let facts = |digest: BlobDigest, size| {
            Ok::<_, StepError>(FileFacts { size, blake3: digest, sha256: job.objects.sha256(&digest)? })
        };
        let squashfs = job.blob("squashfs")?;
        let mut named = Vec::new();
        for (input, prefix) in &self.folders {
            let files = job.tree(input)?;
            named.extend(
                files.tree.files().map(|(path, digest, size)| (format!("{prefix}{path}"), digest, size)),
            );
        }
        let squashfs = facts(squashfs.digest, squashfs.size)?;
        // A SHA-256 is of one thread, and large files are several.
        let files = named.into_par_iter().map(|(path, digest, size)| Ok((path, facts(digest, size)?)));
        let files = files.collect::<Result<BTreeMap<_, _>, StepError>>()?;
        let nodes = job.provenance.iter().map(|(node, below)| {
            let action = &below.action;
            let shown = |objects: &BTreeMap<String, Object>| {
                objects.iter().map(|(name, object)| (name.clone(), object.to_string())).collect()
            };
            let facts = NodeFacts {
                step: action.step.clone(),
                version: action.version,
                action: action.digest(),
                sandboxed: action.sandboxed,
                params: action.params.clone(),
                inputs: shown(&action.inputs),
                sources: action.sources.clone(),
                tools: action.tools.clone(),
                outputs: shown(&below.outputs),
                remarks: below.remarks.clone(),
            };
            (node.to_string(), facts)
        });
        let document = Document {
            schema: SCHEMA,
            generator: self.generator,
            image: ImageFacts {
                name: &self.iso,
                title: &self.title,
                volume_id: &self.volume_id,
                timestamp: &self.timestamp,
                epoch: self.epoch,
            },
            kernels: &kernels.0,
            squashfs,
            boot: self.ways(&kernels, squashfs.size)?,
            files,
            nodes: nodes.collect(),
            packages,
        };
        let mut text = serde_json::to_vec_pretty(&document).map_err(StepError::environment)?;
        text.push(b'\n');
        let files = [(format!("{}.manifest.json", self.iso), job.objects.put(&text)?)];
        Ok(BTreeMap::from([("files".to_owned(), folder(job.objects, files)?)]))
    }
}
