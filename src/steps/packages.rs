//! Debian's packages: which are meant, where they come from, what is in them.
//!
//! A lock says which they are; without one, apt does, out of its own lists. Either way their hashes are part of the key, and a package
//! is taken from wherever it can be had with that hash: the store, apt's sources, archives that the spec or the command line names.

mod apt;
pub(super) mod deb;
mod mirror;
mod stored;

use std::sync::Arc;

use cache::file::OnFile;
use cache::{BlobDigest, Objects};
use graph::{Cancel, Job, Resolved, Resolving, StepError};
use serde::Serialize;

use self::apt::Apt;
use self::mirror::Mirrors;
use crate::arch::Arch;
use crate::config::{Archive, Fields, Item, Package, SpecError};
use crate::image::{TARGET, Timestamp, is_plain_name};

/// apt's pattern for the packages that are nobody's dependency, because every system has them.
pub(super) const ESSENTIAL: &str = "?essential";

/// Stands for the package of a kernel for the architecture.
const KERNEL: &str = "?kernel";

/// The packages that a spec asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    arch: Arch,
    architecture: String,
    /// The release of Debian that they are of; nothing for that of this machine.
    suite: Option<String>,
    with_dependencies: bool,
    /// What apt is asked for.
    names: Vec<String>,
    archive: Archive,
}

/// A package in the store.
pub(super) struct Fetched {
    pub(super) package: Package,
    pub(super) blob: BlobDigest,
    /// The text of its control file.
    pub(super) control: String,
}

/// What the manifest says of a package.
#[derive(Serialize)]
struct Listing<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    sha256: cache::Sha256,
}

impl<'a> From<&'a Fetched> for Listing<'a> {
    fn from(Fetched { package, .. }: &'a Fetched) -> Self {
        let Package { name, version, architecture, sha256, .. } = package;
        Self { name, version, architecture, sha256: *sha256 }
    }
}

/// Writes the list of packages for the manifest.
pub(super) fn listing(fetched: &[Fetched]) -> Vec<u8> {
    super::kind::json(&fetched.iter().map(Listing::from).collect::<Vec<_>>())
}

/// Returns the text that pins a package in a key.
fn pinned(package: &Package) -> String {
    format!("{} sha256:{}", package.version, package.sha256)
}

impl Fetched {
    /// Returns the name of the package's file, as archives have it; a colon cannot be in it everywhere.
    pub(super) fn file_name(&self) -> String {
        let Package { name, version, architecture, .. } = &self.package;
        format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"))
    }
}

impl Wanted {
    /// Reads the settings `packages`, `architecture` and `suite`; `always` is asked for as well.
    ///
    /// `target` is the architecture of the image, and `own` that of the packages where the setting is missing.
    pub(super) fn read(fields: &Fields<'_>, [target, own]: [Arch; 2], always: &[&str]) -> Self {
        let arch = architecture(fields, target, own);
        let kernel = arch.kernel_package().unwrap_or_default();
        if let Some((_, item)) =
            fields.texts("packages").into_iter().find(|(name, _)| *name == KERNEL && kernel.is_empty())
        {
            let error =
                SpecError::at(&item.origin, format!("which of Debian's kernels is for {arch} is not known"));
            fields.wrong(error.label("name its package"));
        }
        let names: Vec<String> = names(fields)
            .into_iter()
            .map(|name| if name == KERNEL { kernel } else { name }.to_owned())
            .collect();
        let always = always.iter().map(ToString::to_string);
        Self {
            arch,
            architecture: debian_name(fields, arch),
            suite: suite(fields),
            with_dependencies: true,
            names: always.chain(names).collect(),
            archive: fields.archive().clone(),
        }
    }

    /// Returns the architecture.
    pub(super) fn arch(&self) -> Arch {
        self.arch
    }

    /// Returns Debian's name of it.
    pub(super) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Returns the release of Debian, where it is not that of this machine.
    pub(super) fn suite(&self) -> Option<&str> {
        self.suite.as_deref()
    }

    /// Tells whether what the packages depend on is meant too.
    pub(super) fn has_dependencies(&self) -> bool {
        self.with_dependencies
    }

    /// Leaves out what the packages depend on.
    pub(super) fn without_dependencies(self) -> Self {
        Self { with_dependencies: false, ..self }
    }

    /// Returns what apt is asked for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Returns what a lock says was asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        let mut asked: Vec<String> = self.names.iter().cloned().chain([self.architecture.clone()]).collect();
        asked.extend(self.suite.iter().map(|suite| format!("suite:{suite}")));
        asked.extend((!self.with_dependencies).then(|| "dependencies:false".to_owned()));
        asked.sort();
        asked.dedup();
        asked
    }

    fn apt<'a>(&'a self, objects: &'a Objects, cancel: &'a Cancel, offline: bool) -> Apt<'a> {
        let Self { architecture, suite, with_dependencies, .. } = self;
        let suite = suite.as_deref();
        Apt { objects, architecture, suite, with_dependencies: *with_dependencies, offline, cancel }
    }

    /// Returns the packages, in order of name; the network is not used.
    fn packages(&self, resolving: &Resolving<'_>) -> Result<Vec<Package>, StepError> {
        if let Some(locked) = &self.archive.locked {
            let own = [self.architecture.as_str(), "all"];
            if let Some(other) = locked.iter().find(|package| !own.contains(&package.architecture.as_str())) {
                let Package { name, version, architecture, .. } = other;
                let message = format!(
                    "the lock has {name} {version} for {architecture}; expected {}",
                    own.join(" or ")
                );
                return Err(StepError::spec(message));
            }
            return Ok(locked.clone());
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let apt = self.apt(resolving.objects, resolving.cancel, resolving.offline);
        let candidates = apt.resolve(&names, &self.archive.kept)?;
        Ok(candidates.into_iter().map(|candidate| candidate.package).collect())
    }

    /// Pins the packages: their versions and hashes are sources.
    pub(super) fn pin(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let packages = self.packages(resolving)?;
        let mut resolved = Resolved::default();
        resolved.sources = packages.iter().map(|package| (package.name.clone(), pinned(package))).collect();
        resolved.found = Some(Arc::new(Found { asked: self.asked(), packages }));
        Ok(resolved)
    }

    /// Returns the packages in the store; those that are not there are fetched and compared with their hashes.
    pub(super) fn fetch(&self, job: &Job<'_>) -> Result<Vec<Fetched>, StepError> {
        let packages = &found(job.resolved)
            .ok_or_else(|| StepError::environment(format!("the packages of {} were not pinned", job.node)))?
            .packages;
        let mut missing = Vec::new();
        for package in packages {
            if stored::find(job.objects, package)?.is_none() {
                missing.push(package);
            }
        }
        self.get(job, &missing)?;
        let mut fetched = Vec::new();
        for package in packages {
            let blob = stored::find(job.objects, package)?
                .ok_or_else(|| StepError::environment(format!("{} was not fetched", package.name)))?;
            let path = job.objects.verified(&blob)?;
            let control = stored::checked(package, &std::fs::read(&path).on_file("read", &path)?)?;
            fetched.push(Fetched { package: package.clone(), blob, control });
        }
        Ok(fetched)
    }

    /// Fetches packages: from apt's sources, as far as those have them, and else from the archives that are named.
    fn get(&self, job: &Job<'_>, missing: &[&Package]) -> Result<(), StepError> {
        if missing.is_empty() {
            return Ok(());
        }
        let total = missing.iter().map(|package| package.size).sum();
        let known = match job.offline {
            true => Default::default(),
            false => self.apt(job.objects, job.cancel, false).locate(missing)?,
        };
        let (of_apt, others): (Vec<&Package>, Vec<&Package>) =
            missing.iter().partition(|package| known.contains_key(&package.sha256));
        let mut done = 0;
        // A few at a time, so that progress can be told.
        for some in of_apt.chunks(16) {
            job.check_cancelled()?;
            job.progress("fetching packages", done, Some(total));
            apt::download(job, some, &known)?;
            done += some.iter().map(|package| package.size).sum::<u64>();
        }
        if others.is_empty() {
            return Ok(());
        }
        job.progress("fetching packages", done, Some(total));
        let Archive { mirrors, command, .. } = &self.archive;
        let mirrors = Mirrors::new(mirrors, job.offline, command);
        mirror::fetch(job, &others, mirrors, |package| {
            done += package.size;
            job.progress("fetching packages", done, Some(total));
        })
    }
}

/// What a node with packages found out.
#[derive(Debug)]
pub struct Found {
    /// What apt was asked for, and for which architecture; in order.
    pub asked: Vec<String>,
    /// What that came to, in order of name.
    pub packages: Vec<Package>,
}

/// Returns what a node with packages found out; nothing for other nodes.
pub fn found(resolved: &Resolved) -> Option<&Found> {
    resolved.found.as_ref()?.downcast_ref()
}

/// Returns the date of the newest package lists of this machine; nothing where there are none.
pub fn date_of_lists() -> Option<Timestamp> {
    apt::date()
}

/// Reads the setting `packages`: names, with `=VERSION` where a version is meant.
fn names<'a>(fields: &Fields<'a>) -> Vec<&'a str> {
    if let Some(item) = fields.required("packages")
        && item.as_list().is_ok_and(<[Item]>::is_empty)
    {
        let error = SpecError::at(&item.origin, format!("{} needs a package at least", fields.what()));
        fields.wrong(error.label("none"));
    }
    let packages: Vec<(&str, &Item)> = fields.texts("packages");
    for (name, item) in &packages {
        if ![ESSENTIAL, KERNEL].contains(name) && !is_asked(name) {
            fields.wrong(
                SpecError::at(&item.origin, format!("{name:?} is not the name of a package"))
                    .label("expected NAME or NAME=VERSION"),
            );
        }
    }
    packages.into_iter().map(|(name, _)| name).collect()
}

/// Tells whether a text names a package, and perhaps its version (Debian's policy, 5.6.1 and 5.6.12). With a dash at its end it would
/// have apt leave the package out.
fn is_asked(text: &str) -> bool {
    let is_of = |text: &str, more: &[u8]| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
    is_of(name, b"+-.:") && !name.ends_with('-') && version.is_none_or(|version| is_of(version, b"+-.:~"))
}

/// Reads the setting `architecture`: a name of Debian's, or [`TARGET`].
fn architecture(fields: &Fields<'_>, target: Arch, own: Arch) -> Arch {
    let known = fields.read("architecture", |item| match item.as_text()? {
        TARGET => Ok(target),
        name => Arch::of_debian(name).ok_or_else(|| {
            let error = SpecError::at(&item.origin, format!("Debian has no architecture {name:?}"));
            error.label("expected Debian's name of one, as amd64 or arm64, or \"target\"")
        }),
    });
    known.unwrap_or(own)
}

/// Returns Debian's name of an architecture, or notes that it has none.
fn debian_name(fields: &Fields<'_>, arch: Arch) -> String {
    arch.debian().map(str::to_owned).unwrap_or_else(|| {
        let error = SpecError::at(fields.origin(), format!("Debian has no packages for {arch}"));
        fields.wrong(error.label("this takes packages of Debian's"));
        String::new()
    })
}

/// Reads the setting `suite`: a release of Debian.
fn suite(fields: &Fields<'_>) -> Option<String> {
    fields.read("suite", |item| match item.as_text()? {
        name if is_plain_name(name) && !name.contains(['-', '_']) => Ok(name.to_owned()),
        name => Err(SpecError::at(&item.origin, format!("{name:?} is no release of Debian"))
            .label("expected the name of one, as trixie")),
    })
}
