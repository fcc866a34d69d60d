//! `lean`: the initrds without what a root over the network does not need, for machines with little memory.
//!
//! No second initramfs is made: the published one is copied without modules and firmware, and what is left has the bytes that it had. Once
//! the root is there, it has all of them.

mod choice;

use std::collections::BTreeMap;
use std::io::{self, Read};

use cache::{Blob, Output};
use graph::{Job, Step, StepError};
use serde::Serialize;

use self::choice::{Kept, LEFT_OUT, STAYS};
use super::boot;
use super::kind::{Inputs, Kind, Made, folder, identity};
use crate::boot::{BootEntry, Kernels};
use crate::config::{Fields, SpecError};
use crate::formats::compression::Compression;
use crate::formats::initramfs::{self, Copied, Initramfs, contents, copy};
use crate::formats::modules::{self, Modules};

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 4;

/// Gives `images`, a folder with one file for each initrd, named by its label, and `facts`, what is inside them as JSON: as the step
/// `initrd` does.
pub(super) const KIND: Kind = Kind {
    name: "lean",
    inputs: Inputs::Named { required: &["images", "facts"], optional: &[] },
    make: |fields, _| {
        let without = match fields.get("without") {
            None => LEFT_OUT.map(str::to_owned).to_vec(),
            Some(_) => {
                named(fields, "without", is_folder, "a folder below the kernel's, such as \"drivers/scsi\"")
            }
        };
        let mut keep = named(fields, "keep", is_module, "the name of a module, such as \"mlx5_core\"");
        keep = keep.into_iter().map(|name| name.replace('_', "-")).chain(STAYS.map(str::to_owned)).collect();
        keep.sort();
        keep.dedup();
        Some(Made::new(Lean { without, keep }, &["images/", "facts"]))
    },
};

/// Tells whether a text is a folder of modules below the kernel's own.
fn is_folder(text: &str) -> bool {
    let is_name =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['*', '?', '[']);
    text.split('/').all(is_name)
        && text != "kernel"
        && !text.starts_with("kernel/")
        && modules::name(text).is_none()
}

/// Tells whether a text is the name of a module.
fn is_module(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Reads a list of names; `what` is what they are to be.
fn named(fields: &Fields<'_>, key: &'static str, is_right: fn(&str) -> bool, what: &str) -> Vec<String> {
    let given = fields.texts(key);
    for (name, item) in given.iter().filter(|(name, _)| !is_right(name)) {
        let wrong = SpecError::at(&item.origin, format!("{name:?} is not what {key} takes"));
        fields.wrong(wrong.label(format!("expected {what}")));
    }
    given.into_iter().map(|(name, _)| name.to_owned()).collect()
}

#[derive(Serialize)]
struct Lean {
    /// Folders of modules that are left out.
    without: Vec<String>,
    /// Modules that stay all the same.
    keep: Vec<String>,
}

/// Bytes of a module, unpacked, and of lists of modules, at most.
const LARGEST: u64 = 64 << 20;

/// Reads all of something small.
fn all(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Lean {
    /// Finds out what stays of an initramfs.
    fn kept(&self, bytes: &[u8], facts: &Initramfs) -> io::Result<Kept> {
        let files = &facts.files;
        let mut modules = Modules::default();
        let mut has_firmware = false;
        contents(bytes, facts, &mut |name, content| {
            if modules::is_list(name) {
                modules.add(name, &String::from_utf8_lossy(&all(content)?));
            }
            has_firmware |= choice::is_firmware(name);
            Ok(())
        })?;
        let mut kept = Kept::new(files, &modules, &self.without, &self.keep);
        let mut is_known = true;
        if has_firmware {
            contents(bytes, facts, &mut |name, content| {
                if name.ends_with("/modules.builtin.modinfo") {
                    kept.asks(&all(content)?);
                } else if kept.is_kept_module(files, name) {
                    let packed = all(content)?;
                    match Compression::detect(&packed).map(|how| unpacked(how, &packed)) {
                        None => kept.asks(&packed),
                        Some(Ok(module)) => kept.asks(&module),
                        // What a module that cannot be read asks for is not known.
                        Some(Err(_)) => is_known = false,
                    }
                }
                Ok(())
            })?;
        }
        if is_known {
            kept.choose_firmware(files, &facts.kernels);
        }
        Ok(kept)
    }

    /// Makes the lean one of an initrd; nothing where it would help nobody, and a remark says why.
    fn entry(&self, job: &Job<'_>, entry: BootEntry, initrd: Blob) -> Result<Option<BootEntry>, StepError> {
        let label = &entry.label;
        let none = |why: &str| {
            job.remark(format!("{label} has no lean initrd: {why}"));
            Ok(None)
        };
        if !entry.has_livenet() {
            return none("its own cannot reach a root over the network");
        }
        let failed = |error: io::Error| StepError::action(format!("the initrd {label}: {error}"));
        let bytes = job.objects.read(&initrd.digest)?;
        let facts = initramfs::read(&bytes[..]).map_err(failed)?;
        let kept = self.kept(&bytes, &facts).map_err(failed)?;
        let mut lean = Vec::new();
        let copied =
            copy(&bytes, &facts, &mut |name| kept.has(&facts.files, name), &mut lean).map_err(failed)?;
        if let Copied::NotWritten(compression) = copied {
            return none(&format!(
                "its own is compressed with {}, which is not written here",
                compression.name()
            ));
        }
        let initramfs = initramfs::read(&lean[..]).map_err(failed)?;
        if initramfs.unpacked == facts.unpacked {
            return none("nothing of its own could be left out");
        }
        if lean.len() as u64 >= initrd.size {
            return none("it would be the larger one: its own is compressed harder");
        }
        let without = kept.without_drivers();
        let initrd = job.objects.put(&lean)?;
        Ok(Some(BootEntry { initrd, initramfs, without, ..entry }))
    }
}

fn unpacked(how: Compression, packed: &[u8]) -> io::Result<Vec<u8>> {
    all(&mut how.decoder_to_end(packed)?)
}

impl Step for Lean {
    identity!(version VERSION);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let kernels = boot::decode(job)?;
        let images = job.tree("images")?;
        let mut lean = Vec::new();
        for entry in kernels.0 {
            let image = boot::labelled(job, "images", &images, &entry.label)?;
            job.progress("leaving out modules", 0, None);
            lean.extend(self.entry(job, entry, image)?);
        }
        let lean = Kernels(lean);
        let facts = job.objects.put(&lean.encode())?;
        let images = folder(job.objects, lean.0.into_iter().map(|entry| (entry.label, entry.initrd)))?;
        Ok(BTreeMap::from([("images".to_owned(), images), ("facts".to_owned(), facts.into())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_do_nothing_are_refused() {
        for folder in ["drivers/scsi", "sound", "fs/9p", "extra"] {
            assert!(is_folder(folder), "{folder}");
        }
        for wrong in
            ["", "/drivers", "drivers/", "kernel/sound", "kernel", "../sound", ".", "fs/*", "fs/nfs/nfs.ko"]
        {
            assert!(!is_folder(wrong), "{wrong}");
        }
        for module in ["mlx5_core", "dm-mod", "8021q"] {
            assert!(is_module(module), "{module}");
        }
        for wrong in ["", "a.ko", "a/b", "sn*"] {
            assert!(!is_module(wrong), "{wrong}");
        }
        assert!(LEFT_OUT.iter().all(|folder| is_folder(folder)) && STAYS.iter().all(|name| is_module(name)));
    }
}
