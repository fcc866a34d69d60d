//! `sbom`: what software is in the image, as SPDX 2.3 (a software bill of materials).

mod components;

use std::collections::{BTreeMap, BTreeSet};

use cache::{BlobDigest, Object, Output};
use graph::{Job, Step, StepError};
use serde::Serialize;

use self::components::{Component, Kept};
use super::kind::{Inputs, Kind, Made, folder, identity, json};
use crate::config::SpecError;
use crate::formats::spdx::{
    Checksum, CreationInfo, Document, ExternalRef, NOASSERTION, Package, Relationship, id,
};

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 3;

/// Gives `files`, a folder with the document under its published name. `root` is the root that the squashfs is made of, `packages` what
/// whoever made it lists; of the nodes below, those say which boot loaders are on the ISO.
///
/// `supplier` is who gives the image to others: `Organization: NAME`, or `Person: NAME (ADDRESS)`.
pub(super) const KIND: Kind = Kind {
    name: "sbom",
    inputs: Inputs::Named { required: &["iso", "squashfs", "root"], optional: &["packages"] },
    make: |fields, image| {
        let supplier = fields.read("supplier", |item| {
            let text = item.as_text()?;
            let is_one = ["Organization: ", "Person: "]
                .iter()
                .any(|kind| text.len() > kind.len() && text.starts_with(kind));
            is_one.then(|| text.to_owned()).ok_or_else(|| {
                SpecError::at(&item.origin, "a supplier is an organization or a person")
                    .label("expected \"Organization: NAME\" or \"Person: NAME (ADDRESS)\"")
            })
        });
        let step = Sbom {
            iso: image.iso_name(),
            tool: TOOL,
            created: image.timestamp.text(),
            date: image.timestamp.rfc3339(),
            supplier,
        };
        Some(Made::new(step, &["files/"]))
    },
};

#[derive(Serialize)]
struct Sbom {
    iso: String,
    tool: &'static str,
    /// `YYYYMMDDTHHMMSSZ`.
    created: String,
    /// The same as SPDX has dates.
    #[serde(skip)]
    date: String,
    supplier: Option<String>,
}

/// The program that writes the document.
const TOOL: &str = concat!("Tool: stagegraph-", env!("CARGO_PKG_VERSION"));

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const ISO: &str = "SPDXRef-iso";
const SQUASHFS: &str = "SPDXRef-squashfs";

impl Sbom {
    /// The ISO or the squashfs.
    fn own(&self, id: &str, name: &str, purpose: &'static str, sha256: cache::Sha256) -> Package {
        let supplier = self.supplier.clone().unwrap_or_else(|| NOASSERTION.to_owned());
        Package {
            version_info: Some(self.created.clone()),
            checksums: vec![Checksum::sha256(sha256)],
            primary_package_purpose: Some(purpose),
            ..Package::new(id.to_owned(), name.to_owned(), supplier)
        }
    }

    /// Renders the document, but for its address.
    fn document(
        &self,
        iso: Package,
        squashfs: Package,
        inside: &[Component],
        loaders: &[Component],
    ) -> Document {
        let relation = |one: &str, relationship_type, other: &str| Relationship {
            spdx_element_id: one.to_owned(),
            relationship_type,
            related_spdx_element: other.to_owned(),
        };
        let mut relationships =
            vec![relation(DOCUMENT, "DESCRIBES", ISO), relation(ISO, "CONTAINS", SQUASHFS)];
        let mut packages = vec![iso, squashfs];
        let mut ids = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (holder, components) in [(SQUASHFS, inside), (ISO, loaders)] {
            for component in components {
                let own = ids.entry(component.key()).or_insert_with(|| {
                    let mut own = id(&component.shown());
                    while !taken.insert(own.clone()) {
                        own.push_str("-x");
                    }
                    packages.push(package(own.clone(), component));
                    own
                });
                relationships.push(relation(holder, "CONTAINS", own));
            }
        }
        Document {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: DOCUMENT,
            name: self.iso.clone(),
            document_namespace: String::new(),
            creation_info: CreationInfo { created: self.date.clone(), creators: vec![self.tool.to_owned()] },
            packages,
            relationships,
        }
    }
}

fn package(id: String, component: &Component) -> Package {
    Package {
        version_info: Some(component.version.clone()),
        homepage: component.homepage.clone(),
        source_info: component.source.clone().map(|source| format!("built of the source package {source}")),
        checksums: component.sha256.iter().map(Checksum::sha256).collect(),
        license_comments: component.licence.clone().map(|licence| format!("Portage says: {licence}")),
        external_refs: vec![ExternalRef::purl(component.purl.clone())],
        ..Package::new(id, component.name.clone(), component.supplier.clone())
    }
}

impl Step for Sbom {
    identity!(version VERSION);

    fn wants_provenance(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let iso = job.tree("iso")?;
        let name = self.iso.as_str();
        let found = iso.tree.files().find(|(path, ..)| path.as_bytes() == name.as_bytes());
        let (_, iso, _) = found
            .ok_or_else(|| StepError::spec(format!("the input \"iso\" of {} has no {name}", job.node)))?;
        let iso = self.own(ISO, name, "OPERATING_SYSTEM", job.objects.sha256(&iso)?);
        let squashfs = job.blob("squashfs")?.digest;
        let squashfs = self.own(SQUASHFS, "image.squashfs", "ARCHIVE", job.objects.sha256(&squashfs)?);
        let kept = Kept::of(job)?;
        let inside = match job.input("root")?.object {
            Object::Tree(_) => components::of_root(job.objects, &job.tree("root")?, &kept)?,
            Object::Blob(_) => Vec::new(),
        };
        if inside.is_empty() {
            job.remark("no package manager says what is in the root: the list of its software is empty");
        }
        let loaders = kept.loaders();
        let mut document = self.document(iso, squashfs, &inside, &loaders);
        let content = BlobDigest::of(&json(&document));
        document.document_namespace = format!("https://spdx.org/spdxdocs/{name}-{content}");
        let files = [(format!("{name}.spdx.json"), job.objects.put(&json(&document))?)];
        Ok(BTreeMap::from([("files".to_owned(), folder(job.objects, files)?)]))
    }
}
