//! `stagegraph provenance`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{DONE, Failure, print};
use crate::manifest::{ENDING, Manifest};
use crate::provenance::{Statement, UNNAMED};

/// Prints what a published set was built of, as an unsigned statement (in-toto, SLSA provenance v1).
///
/// It is a rendering of the manifest. `stagegraph sign` signs it, by the builder's key.
///
/// Exit codes: 0 it is printed; 2 there is no manifest, or it is none; 3 it could not be read.
#[derive(Debug, Args)]
pub(super) struct Provenance {
    /// A folder that was published, or a manifest
    #[arg(value_name = "FOLDER|MANIFEST")]
    place: PathBuf,
    /// What the builder is called: an address; nothing needs to be there
    #[arg(long, value_name = "ADDRESS", default_value = UNNAMED)]
    builder: String,
}

impl Provenance {
    pub(super) fn run(self) -> Result<u8, Failure> {
        if let Err(error) = url::Url::parse(&self.builder) {
            return Err(Failure::wrong(format!("--builder {}: {error}", self.builder))
                .with_hint("a builder is called by an address: https://… or urn:…"));
        }
        let path = match self.place.is_dir() {
            true => manifest_in(&self.place)?,
            false => self.place.clone(),
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::environment(format!("read {}: {error}", path.display())))?;
        let manifest =
            Manifest::read(&text).map_err(|error| Failure::wrong(format!("{} {error}", path.display())))?;
        let mut bytes = Statement::of(&manifest, &self.builder).encode();
        bytes.push(b'\n');
        print(&bytes)?;
        Ok(DONE)
    }
}

/// Finds the one manifest of a published folder.
pub(super) fn manifest_in(folder: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("list {}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(ENDING) {
            found.push(path);
        }
    }
    found.sort();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::wrong(format!("{} has no manifest (*{ENDING})", folder.display()))
            .with_hint("name a folder that was published: out/SPEC")),
        several => Err(Failure::wrong(format!(
            "{} has {} manifests; name one of them",
            folder.display(),
            several.len()
        ))),
    }
}
