//! `medium`: the ISO of a folder that somebody else filled: menu, theme, README, whatever is on it.
//!
//! catalyst's target tree is one. Its menu is kept as it is; boot images and the squashfs are added.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};

use blake2::{Blake2b512, Digest};
use cache::Output;
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use super::iso::{EFI, ELTORITO, Volume, XORRISO};
use super::{Inputs, Kind, Made, identity};
use crate::cmdline::SQUASHFS;
use crate::formats::checksums::hex;

/// Gives `files`, a folder with the ISO under its published name.
///
/// With `verify = true` the ISO carries `isoroot_b2sums`, the checksums of all its files, which genkernel's initramfs
/// compares.
pub(super) const KIND: Kind = Kind {
    name: "medium",
    inputs: Inputs::Named { required: &["tree", "squashfs", "eltorito", "mbr", "efi"], optional: &[] },
    make: |fields, image| {
        let step = Medium {
            name: image.iso_name(),
            volume: Volume::of(image),
            verify: fields.bool("verify", false)?,
        };
        Ok(Made::new(step, &["files/"]))
    },
};

/// The file with the checksums of all others.
const SUMS: &str = "isoroot_b2sums";

#[derive(Serialize)]
struct Medium {
    name: String,
    volume: Volume,
    verify: bool,
}

impl Step for Medium {
    identity!(version 1);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        Ok(Resolved::with_tools(resolving, &[XORRISO])?)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let work = job.store.work_dir()?;
        let tree = job.tree("tree")?;
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        let mut sums: BTreeMap<String, String> = BTreeMap::new();
        for (path, digest, size) in tree.tree.files() {
            let name = path.to_string();
            // What an earlier run left there is made anew.
            if [SQUASHFS, SUMS, ELTORITO, EFI].contains(&name.as_str()) {
                continue;
            }
            let here = format!("tree-{}", files.len());
            let mut reader = tree.open_file(job.store, path, &digest, size)?;
            let mut file = fs::File::create(work.path().join(&here)).map_err(StepError::environment)?;
            let sum = copy(&mut reader, &mut file, self.verify)?;
            sums.extend(sum.map(|sum| (name.clone(), sum)));
            files.insert(name, here);
        }
        if !files.keys().any(|name| name.ends_with("grub.cfg")) {
            return Err(StepError::action("the medium's folder has no boot/grub/grub.cfg")
                .with_help("catalyst's bootloader action writes it; run it again without autoresume"));
        }
        if self.verify {
            let mut image = fs::File::open(job.path("squashfs")?).map_err(StepError::environment)?;
            let sum = copy(&mut image, &mut std::io::sink(), true)?;
            sums.extend(sum.map(|sum| (SQUASHFS.to_owned(), sum)));
            // As `find -type f -exec b2sum {} +` writes them, in a fixed order.
            let text: String = sums.iter().map(|(name, hex)| format!("{hex}  ./{name}\n")).collect();
            fs::write(work.path().join("sums"), text).map_err(StepError::environment)?;
            files.insert(SUMS.to_owned(), "sums".to_owned());
        }
        self.volume.write(job, &self.name, &work, files, BTreeMap::new())
    }
}

/// Copies a file; returns its BLAKE2b if that is wanted.
fn copy(from: &mut impl Read, to: &mut impl Write, is_summed: bool) -> Result<Option<String>, StepError> {
    let mut hasher = is_summed.then(Blake2b512::new);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut buffer).map_err(StepError::environment)?;
        if read == 0 {
            return Ok(hasher.map(|hasher| hex(&hasher.finalize())));
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..read]);
        }
        to.write_all(&buffer[..read]).map_err(StepError::environment)?;
    }
}
