//! The software that is in a root, by what its package manager says, and the boot loaders of an ISO.

use std::collections::BTreeMap;
use std::io::Read;

use cache::name::RelPath;
use cache::{Node, Objects, RootTree};
use graph::{Job, StepError};
use serde::Deserialize;

use super::super::loaders::LOADER;
use super::super::toolbox;
use crate::formats::installed::{DPKG, Deb, of_dpkg, of_portage};
use crate::formats::spdx::{NOASSERTION, purl_part};

/// Files of a package manager that are longer are not read.
const MAX_TEXT: u64 = 256 << 20;

/// How Debian's packages with boot loaders begin: what the steps `grub` and `netboot` put into images.
const LOADERS: [&str; 5] = ["grub-", "ipxe", "pxelinux", "shim-", "syslinux-"];

/// The kind of node whose sources are packages.
const TOOLBOX: &str = toolbox::KIND.name;

/// A piece of software.
pub(super) struct Component {
    pub(super) name: String,
    pub(super) version: String,
    architecture: Option<String>,
    pub(super) supplier: String,
    pub(super) source: Option<String>,
    pub(super) homepage: Option<String>,
    pub(super) licence: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) purl: String,
}

impl Component {
    /// Tells it from all others.
    pub(super) fn key(&self) -> (String, String, Option<String>) {
        (self.name.clone(), self.version.clone(), self.architecture.clone())
    }

    /// Returns the same as one text, which is not only its own.
    pub(super) fn shown(&self) -> String {
        let parts = [Some(self.name.as_str()), Some(&self.version), self.architecture.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join("-")
    }
}

/// What the graph knows of packages.
pub(super) struct Kept {
    /// SHA-256, by name and version.
    hashes: BTreeMap<(String, String), String>,
    loaders: Vec<Component>,
}

/// A package, as the steps that use some list them for the manifest.
#[derive(Deserialize)]
struct Listed {
    name: String,
    version: String,
    sha256: Option<String>,
}

impl Kept {
    pub(super) fn of(job: &Job<'_>) -> Result<Self, StepError> {
        let mut hashes = BTreeMap::new();
        if job.inputs.contains_key("packages") {
            let text = job.objects.read(&job.blob("packages")?.digest)?;
            let listed: Vec<Listed> = serde_json::from_slice(&text).map_err(|error| {
                StepError::action(format!(
                    "the input \"packages\" of {} is no list of packages: {error}",
                    job.node
                ))
            })?;
            for package in listed {
                if let Some(sha256) = package.sha256 {
                    hashes.insert((package.name, package.version), sha256);
                }
            }
        }
        let mut loaders = BTreeMap::new();
        for action in job.provenance.values().map(|below| &below.action) {
            for (name, pinned) in &action.sources {
                let found = match (name.strip_prefix(LOADER), pinned.split_once(' ')) {
                    (Some(name), Some((_, version))) => Some(loader_of_machine(name, version)),
                    (None, Some((version, hash)))
                        if action.step == TOOLBOX && LOADERS.iter().any(|start| name.starts_with(start)) =>
                    {
                        Some(loader_of_package(name, version, hash.strip_prefix("sha256:")))
                    }
                    _ => None,
                };
                loaders.extend(found.map(|component| (component.key(), component)));
            }
        }
        Ok(Self { hashes, loaders: loaders.into_values().collect() })
    }

    /// Returns the boot loaders.
    pub(super) fn loaders(self) -> Vec<Component> {
        self.loaders
    }
}

fn loader_of_package(name: &str, version: &str, sha256: Option<&str>) -> Component {
    Component {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: None,
        supplier: "Organization: Debian".to_owned(),
        source: None,
        homepage: None,
        licence: None,
        sha256: sha256.map(str::to_owned),
        purl: format!("pkg:deb/debian/{}@{}", purl_part(name), purl_part(version)),
    }
}

/// A boot loader that lay on this machine; of its package, only the version is known.
fn loader_of_machine(name: &str, version: &str) -> Component {
    Component {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: None,
        supplier: NOASSERTION.to_owned(),
        source: None,
        homepage: None,
        licence: None,
        sha256: None,
        purl: format!("pkg:generic/{}@{}", purl_part(name), purl_part(version)),
    }
}

/// Returns the software of a root, by dpkg's list, or else by Portage's folders.
pub(super) fn of_root(objects: &Objects, root: &RootTree, kept: &Kept) -> Result<Vec<Component>, StepError> {
    let release = ["etc/os-release", "usr/lib/os-release"];
    let mut system = String::new();
    for path in release {
        if system.is_empty() {
            system = text(objects, root, path)?.unwrap_or_default();
        }
    }
    let said = |key: &str| {
        let line = system.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    let supplier = said("NAME").map_or(NOASSERTION.to_owned(), |name| format!("Organization: {name}"));
    match text(objects, root, DPKG)? {
        Some(status) => {
            Ok(of_debian(&status, &said("ID").unwrap_or_else(|| "debian".to_owned()), &supplier, kept))
        }
        None => of_gentoo(objects, root),
    }
}

fn of_debian(status: &str, system: &str, supplier: &str, kept: &Kept) -> Vec<Component> {
    let component = |deb: Deb<'_>| Component {
        name: deb.name.to_owned(),
        version: deb.version.to_owned(),
        architecture: Some(deb.architecture.to_owned()),
        supplier: supplier.to_owned(),
        source: deb.source.map(str::to_owned),
        homepage: deb.homepage.map(str::to_owned),
        licence: None,
        sha256: kept.hashes.get(&(deb.name.to_owned(), deb.version.to_owned())).cloned(),
        purl: format!(
            "pkg:deb/{}/{}@{}?arch={}",
            purl_part(system),
            purl_part(deb.name),
            purl_part(deb.version),
            purl_part(deb.architecture)
        ),
    };
    of_dpkg(status).map(component).collect()
}

fn of_gentoo(objects: &Objects, root: &RootTree) -> Result<Vec<Component>, StepError> {
    let mut components = Vec::new();
    for (path, _) in root.tree.entries() {
        let Ok(path) = std::str::from_utf8(path.as_bytes()) else { continue };
        let Some((name, version)) = of_portage(path) else { continue };
        let said = |file: &str| {
            let found = text(objects, root, &format!("{path}/{file}"))?;
            Ok::<_, StepError>(found.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")))
        };
        let supplier = match said("repository")?.as_deref() {
            Some("gentoo") => "Organization: Gentoo".to_owned(),
            Some(other) => format!("Organization: the repository {other}"),
            None => NOASSERTION.to_owned(),
        };
        let (category, short) = name.split_once('/').unwrap_or(("", &name));
        components.push(Component {
            version: version.to_owned(),
            architecture: None,
            supplier,
            source: None,
            homepage: None,
            licence: said("LICENSE")?.filter(|licence| !licence.is_empty()),
            sha256: None,
            purl: format!("pkg:ebuild/{}/{}@{}", purl_part(category), purl_part(short), purl_part(version)),
            name,
        });
    }
    Ok(components)
}

/// Reads a text of the root; nothing where there is none, or no plain file.
fn text(objects: &Objects, root: &RootTree, path: &str) -> Result<Option<String>, StepError> {
    let Ok(path) = RelPath::new(path.as_bytes()) else { return Ok(None) };
    let Some(Node::File { digest, size }) = root.tree.inode(&path).map(|inode| &inode.node) else {
        return Ok(None);
    };
    if *size > MAX_TEXT {
        return Err(StepError::action(format!("/{path} has {size} bytes: no list of packages has")));
    }
    let mut bytes = Vec::new();
    let mut file = root.open_file(objects, &path, digest, *size)?;
    file.read_to_end(&mut bytes)
        .map_err(|error| StepError::environment(format!("read /{path} of the root: {error}")))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
