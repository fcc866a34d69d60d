//! `manifest`: one JSON file that says what everything is made of.

use std::collections::BTreeMap;

use cache::{BlobDigest, Object, Output};
use graph::{Job, Step, StepError};
use rayon::prelude::*;
use serde::Serialize;

use super::boot::{decode, decode_lean};
use super::kind::{Inputs, Kind, Made, folder, identity, json};
use super::menu::{Menu, least_ram};
use crate::arch::Arch;
use crate::boot::Kernels;
use crate::cmdline::{Choice, Medium, NFS_OPTIONS};
use crate::manifest::{ENDING, FileFacts, ImageFacts, LockFacts, Manifest, NodeFacts, SCHEMA, Way};
use crate::memory::{Load, WAYS};

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 7;

/// Gives `files`, a folder with the manifest under its published name. Inputs beside `facts`, `squashfs` and
/// `packages` are folders whose files it names, as far as they are published.
pub(super) const KIND: Kind = Kind {
    name: "manifest",
    inputs: Inputs::Any,
    make: |fields, image| {
        Some(Made::new(
            WriteManifest {
                folders: fields.published().clone(),
                generator: GENERATOR,
                iso: image.iso_name(),
                title: image.title(fields),
                volume_id: image.volume_id(fields),
                timestamp: image.timestamp.text(),
                epoch: image.timestamp.epoch(),
                menu: Menu::of(fields, image),
                lock: image.lock,
                spec: image.spec.clone(),
            },
            &["files/"],
        ))
    },
};

#[derive(Serialize)]
struct WriteManifest {
    /// The inputs that are published, and the folder each goes to.
    folders: BTreeMap<String, String>,
    generator: &'static str,
    iso: String,
    title: String,
    volume_id: String,
    timestamp: String,
    epoch: u32,
    menu: Menu,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<cache::Sha256>,
    spec: serde_json::Value,
}

/// The program that writes the manifest.
const GENERATOR: &str = concat!("stagegraph ", env!("CARGO_PKG_VERSION"));

/// Stands for the address of the folder a client boots from.
const ADDRESS: &str = "http://SERVER/FOLDER/image.squashfs";
const EXPORT: &str = "SERVER:/FOLDER";

impl WriteManifest {
    fn ways(&self, kernels: &Kernels, lean: &Kernels, squashfs: u64) -> Result<Vec<Way>, StepError> {
        let mut ways = Vec::new();
        for full in &kernels.0 {
            for (way, load) in WAYS {
                let lean = lean.0.iter().find(|lean| lean.label == full.label).filter(|_| load.is_lean());
                let entry = lean.unwrap_or(full);
                if load.is_of_pc() && !entry.may_be(Arch::is_pc)
                    || load.is_in_initrd() && !kernels.can_hold(squashfs)
                {
                    continue;
                }
                let (medium, choice) = match load {
                    Load::Medium | Load::Cached => {
                        let choice = if load == Load::Cached { Choice::Cached } else { Choice::Default };
                        (Medium::Iso { volume_id: self.volume_id.clone() }, choice)
                    }
                    Load::InInitrdBios | Load::InInitrdUefi => (Medium::InInitrd, Choice::Default),
                    Load::LeanHttp if lean.is_none() => continue,
                    Load::Http | Load::LeanHttp if !entry.has_livenet() => continue,
                    Load::Http | Load::LeanHttp => {
                        (Medium::Http { url: ADDRESS.to_owned() }, Choice::Default)
                    }
                    Load::Nfs if !kernels.mount_nfs() => continue,
                    Load::Nfs => {
                        let (options, folder) = (NFS_OPTIONS.to_owned(), EXPORT.to_owned());
                        (Medium::Nfs { options, folder }, Choice::Default)
                    }
                };
                ways.push(Way {
                    way: way.to_owned(),
                    kernel: entry.label.clone(),
                    choice,
                    command_line: self.menu.line(entry, &medium, choice, None)?.to_string(),
                    least_ram_mib: least_ram(load, entry, squashfs),
                });
            }
        }
        Ok(ways)
    }
}

impl Step for WriteManifest {
    identity!(version VERSION);

    fn wants_provenance(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let read = |name: &str| Ok::<_, StepError>(job.objects.read(&job.blob(name)?.digest)?);
        let kernels = decode(job)?;
        let lean = kernels.all_lean(decode_lean(job)?);
        let packages = match job.inputs.contains_key("packages") {
            true => serde_json::from_slice(&read("packages")?).map_err(|error| {
                StepError::action(format!("the input \"packages\" of {} is not JSON: {error}", job.node))
            })?,
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
        let document = Manifest {
            schema: SCHEMA,
            generator: self.generator.to_owned(),
            image: ImageFacts {
                name: self.iso.clone(),
                title: self.title.clone(),
                volume_id: self.volume_id.clone(),
                timestamp: self.timestamp.clone(),
                epoch: self.epoch,
            },
            lock: self.lock.map(|sha256| LockFacts { sha256 }),
            spec: self.spec.clone(),
            boot: self.ways(&kernels, &lean, squashfs.size)?,
            kernels: kernels.0,
            lean: lean.0,
            squashfs,
            files,
            nodes: nodes.collect(),
            packages,
        };
        let files = [(format!("{}{ENDING}", self.iso), job.objects.put(&json(&document))?)];
        Ok(BTreeMap::from([("files".to_owned(), folder(job.objects, files)?)]))
    }
}
