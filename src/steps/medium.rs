//! `medium`: the ISO of a folder that somebody else filled: menu, theme, README, whatever is on it.
//!
//! catalyst's target tree is one. Its menu is kept as it is; boot images and the squashfs are added.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use blake2::{Blake2b512, Digest};
use cache::Output;
use graph::sandbox::Invocation;
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use super::iso::{Volume, XORRISO};
use super::{Inputs, Kind, Made, folder, identity};
use crate::cmdline::SQUASHFS;

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

/// Boot images that are added, by their paths on the ISO.
const ELTORITO: &str = "boot/grub/eltorito.img";
const EFI: &str = "boot/grub/efi.img";

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
        let mut inputs: BTreeMap<String, PathBuf> = BTreeMap::new();
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
            let mut hasher = Blake2b512::new();
            copy(&mut reader, &mut file, &mut hasher)?;
            sums.insert(name.clone(), hex(&hasher.finalize()));
            files.insert(name, here);
        }
        if !files.keys().any(|name| name.ends_with("grub.cfg")) {
            return Err(StepError::action("the medium's folder has no boot/grub/grub.cfg")
                .with_help("catalyst's bootloader action writes it; run it again without autoresume"));
        }
        let squashfs = job.path("squashfs")?;
        let mut hasher = Blake2b512::new();
        if self.verify {
            let mut image = fs::File::open(&squashfs).map_err(StepError::environment)?;
            copy(&mut image, &mut std::io::sink(), &mut hasher)?;
            sums.insert(SQUASHFS.to_owned(), hex(&hasher.finalize()));
            // As `find -type f -exec b2sum {} +` writes them, in a fixed order.
            let text: String = sums.iter().map(|(name, hex)| format!("{hex}  ./{name}\n")).collect();
            fs::write(work.path().join("sums"), text).map_err(StepError::environment)?;
            files.insert(SUMS.to_owned(), "sums".to_owned());
        }
        inputs.insert("squashfs".to_owned(), squashfs);
        inputs.insert("efi".to_owned(), job.path("efi")?);
        inputs.insert("mbr".to_owned(), job.path("mbr")?);
        files.insert(SQUASHFS.to_owned(), "in/squashfs".to_owned());
        files.insert(EFI.to_owned(), "in/efi".to_owned());
        // xorriso writes a table into this one, so it gets a copy.
        let eltorito = job.store.read(&job.blob("eltorito")?.digest)?;
        fs::write(work.path().join("eltorito"), eltorito).map_err(StepError::environment)?;
        files.insert(ELTORITO.to_owned(), "eltorito".to_owned());
        job.progress("writing", 0, None);
        job.run(&Invocation {
            tool: job.tool("xorriso")?,
            args: self.volume.xorriso_args(&files),
            env: BTreeMap::new(),
            inputs,
            mounts: BTreeMap::new(),
            work: work.path(),
            privileged: false,
        })?;
        let image = job.take(work.path(), "image.iso")?;
        Ok(BTreeMap::from([("files".to_owned(), folder(job.store, [(self.name.clone(), image)])?)]))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn copy(
    from: &mut impl std::io::Read,
    to: &mut impl std::io::Write,
    hasher: &mut Blake2b512,
) -> Result<(), StepError> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut buffer).map_err(StepError::environment)?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read]).map_err(StepError::environment)?;
    }
}
