//! `toolbox`: the programs that other nodes run, from Debian's packages.
//!
//! The packages, and all that they depend on, are unpacked into one tree, here and not by dpkg: nothing of theirs runs, and nobody needs
//! to be root. What their maintainer scripts would have made is left to the setting `links`. A node that takes the tree as its input
//! `tools` sees it as its whole root.

mod unpack;

use std::collections::BTreeMap;
use std::fs;

use cache::file::OnFile;
use cache::{Object, Output};
use graph::{Job, Resolved, Resolving, Step, StepError};
use rayon::prelude::*;
use serde::Serialize;

use self::unpack::{Unpacked, Unpacking};
use super::exclude::{self, Excluded};
use super::kind::{Inputs, Kind, Made, identity};
use super::packages::{self, Fetched, Wanted};
use crate::arch::Arch;
use crate::config::{Fields, Package, SpecError};
use crate::image::Image;

/// Gives `root`, a tree, and `packages`, the list of packages as JSON.
pub(super) const KIND: Kind =
    Kind { name: "toolbox", inputs: Inputs::Named { required: &[], optional: &[] }, make };

/// The version of the tree: raised in the commit that changes it, with the digest in `unpack.rs`.
const VERSION: u32 = 1;

/// Packages that are unpacked at once.
const AT_ONCE: usize = 8;

#[derive(Serialize)]
struct Toolbox {
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    suite: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_alone: bool,
    packages: Vec<String>,
    /// Names in `/usr/bin`, or absolute paths, and where they lead.
    links: BTreeMap<String, String>,
    exclude: Vec<String>,
    #[serde(skip)]
    wanted: Wanted,
}

/// Reads which packages are meant: this machine's runs them, where nothing else is said.
pub(super) fn wanted(fields: &Fields<'_>, image: &Image) -> Wanted {
    let wanted = Wanted::read(fields, [image.arch, Arch::of_machine()], &[]);
    if fields.bool("dependencies", true) { wanted } else { wanted.without_dependencies() }
}

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let mut links = BTreeMap::new();
    for (name, item) in fields.entries("links") {
        let Some(target) = fields.check(item.as_text()) else { continue };
        let is_path = |text: &str| !text.is_empty() && !text.contains('\0');
        let is_name = is_path(name) && (name.starts_with('/') || !name.contains('/'));
        if !is_name || !is_path(target) || unpack::link_path(name).is_err() {
            let error = SpecError::at(&item.origin, format!("{name:?} cannot be a link to {target:?}"));
            fields.wrong(error.label("expected NAME = \"TARGET\": a name in /usr/bin, or an absolute path"));
        }
        links.insert(name.to_owned(), target.to_owned());
    }
    let wanted = wanted(fields, image);
    let step = Toolbox {
        architecture: wanted.architecture().to_owned(),
        suite: wanted.suite().map(str::to_owned),
        is_alone: !wanted.has_dependencies(),
        packages: wanted.names().map(str::to_owned).collect(),
        links,
        exclude: exclude::read(fields),
        wanted,
    };
    Some(Made::new(step, &["root", "packages"]))
}

/// Reads a package to its end.
fn unpack(job: &Job<'_>, fetched: &Fetched) -> Result<Unpacked, StepError> {
    let path = job.objects.verified(&fetched.blob)?;
    let bytes = fs::read(&path).on_file("read", &path)?;
    let Package { name, size, .. } = &fetched.package;
    Ok(Unpacked::read(name, &bytes, job.may_unpack_to(*size), job.cancel)?)
}

impl Step for Toolbox {
    identity!(version VERSION);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        self.wanted.pin(resolving)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let packages = self.wanted.fetch(job)?;
        let excluded = Excluded::new(&self.exclude)?;
        let mut unpacking = Unpacking::new(job.objects, &excluded)?;
        let total: u64 = packages.iter().map(|fetched| fetched.package.size).sum();
        let mut done = 0;
        // All of them at once would be hundreds of megabytes in memory.
        for some in packages.chunks(AT_ONCE) {
            job.check_cancelled()?;
            job.progress("unpacking packages", done, Some(total));
            let unpacked = some.par_iter().map(|package| unpack(job, package));
            for package in unpacked.collect::<Result<Vec<_>, _>>()? {
                unpacking.add(package)?;
            }
            done += some.iter().map(|fetched| fetched.package.size).sum::<u64>();
        }
        for (name, target) in &self.links {
            unpacking.link(name, target)?;
        }
        let (tree, bytes) = unpacking.finish()?;
        Ok(BTreeMap::from([
            ("root".to_owned(), Output { object: Object::Tree(job.objects.put_tree(&tree)?), bytes }),
            ("packages".to_owned(), job.objects.put(&packages::listing(&packages))?.into()),
        ]))
    }
}
