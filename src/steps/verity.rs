//! `verity`: initrds that have the kernel check each block of the squashfs when it is read (dm-verity).
//!
//! An initramfs is a row of archives: behind the published one goes a small one with the hash tree of the squashfs, its root hash and
//! a hook of dracut's. Neither the squashfs nor a byte of the initramfs changes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use cache::file::OnFile;
use cache::objects::Part;
use cache::{Blob, Output};
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::boot;
use super::kind::{Inputs, Kind, Made, folder, identity};
use crate::boot::{BootEntry, Kernels};
use crate::formats::cpio;
use crate::formats::initramfs::Segment;
use crate::formats::verity::{Builder, Checks, Tree};

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 1;

/// Entries of the archive.
const ENTRIES: usize = 5;

/// Gives `images` and `facts` as the step `initrd` does, and of the inputs `lean` and `lean-facts` the same.
///
/// `verify = true` makes it an error that an initramfs cannot do it, `false` leaves all as it is; without it, those that can do it do.
pub(super) const KIND: Kind = Kind {
    name: "verity",
    inputs: Inputs::Named { required: &["squashfs", "images", "facts"], optional: &["lean", boot::LEAN] },
    make: |fields, image| {
        let verify = fields.get("verify").is_some().then(|| fields.bool("verify", true));
        let step = Verity { image: image.iso_name(), verify };
        Some(Made::new(step, &["images/", "facts", "lean/", "lean-facts"]))
    },
};

#[derive(Serialize)]
struct Verity {
    /// What the image is called.
    image: String,
    verify: Option<bool>,
}

impl Verity {
    /// Makes the hash tree of the squashfs.
    fn tree(job: &Job<'_>) -> Result<Option<Tree>, StepError> {
        const PIECE: usize = 4 << 20;
        let path = job.path("squashfs")?;
        let mut file = File::open(&path).on_file("open", &path)?;
        let mut builder = Builder::default();
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            piece.clear();
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).on_file("read", &path)?;
            if read == 0 {
                return Ok(builder.finish());
            }
            builder.update(&piece);
        }
    }

    /// Says why an initramfs cannot have the squashfs checked.
    fn obstacle(entry: &BootEntry, tree: Option<&Tree>) -> Option<String> {
        let verity = &entry.initramfs.verity;
        match (tree, &verity.checks) {
            (None, _) => Some("the squashfs is no whole number of blocks of 4096 bytes".to_owned()),
            (Some(tree), Some(checks)) if checks.root != tree.root => {
                Some("it has another squashfs checked already".to_owned())
            }
            _ if !verity.lacks.is_empty() => Some(format!("it lacks {}", verity.lacks.join(", "))),
            _ => None,
        }
    }

    /// Puts the archive behind an initrd, if that helps.
    fn entry(
        &self,
        job: &Job<'_>,
        entry: BootEntry,
        initrd: Blob,
        tree: Option<&Tree>,
    ) -> Result<BootEntry, StepError> {
        let mut entry = BootEntry { initrd, ..entry };
        let obstacle = Self::obstacle(&entry, tree);
        let (tree, hooks) = match (obstacle, tree, &entry.initramfs.verity.hooks) {
            (None, Some(tree), Some(hooks)) => (tree, hooks.clone()),
            (why, ..) => {
                let why = why.unwrap_or_else(|| "it has no hooks".to_owned());
                let what = format!("the initrd of {} does not have the squashfs checked: {why}", entry.label);
                if self.verify == Some(true) {
                    return Err(StepError::action(what).with_hint(
                        "make the initrd with dracut's module dmsquash-live, dmsetup, losetup and dm-verity.ko; or set verify = false",
                    ));
                }
                job.remark(what);
                return Ok(entry);
            }
        };
        if entry.initramfs.verity.checks.is_some() {
            return Ok(entry);
        }
        let checks = Checks { image: self.image.clone(), blocks: tree.blocks, root: tree.root.clone() };
        let archive = checks.archive(&tree.bytes, &hooks).map_err(StepError::action)?;
        let padding = vec![0; (cpio::aligned(initrd.size) - initrd.size) as usize];
        let mut parts = vec![Part::Object(initrd), Part::Own(&padding), Part::Own(&archive)];
        parts.retain(|part| !matches!(part, Part::Own([])));
        entry.initrd = job.objects.compose(&parts)?;
        let offset = cpio::aligned(initrd.size);
        let initramfs = &mut entry.initramfs;
        initramfs.segments.push(Segment { offset, compression: None, entries: ENTRIES, microcode: false });
        initramfs.unpacked += archive.len() as u64;
        initramfs.verity.checks = Some(checks);
        Ok(entry)
    }
}

impl Step for Verity {
    identity!(version VERSION);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let is_wanted = self.verify != Some(false);
        if is_wanted {
            job.progress("hashing blocks", 0, None);
        }
        let tree = if is_wanted { Self::tree(job)? } else { None };
        let mut outputs = BTreeMap::new();
        let rows = [("images", boot::decode(job)?, "facts"), ("lean", boot::decode_lean(job)?, boot::LEAN)];
        for (input, kernels, facts) in rows {
            let mut entries = Vec::new();
            for entry in kernels.0 {
                let image = boot::labelled(job, input, &job.tree(input)?, &entry.label)?;
                entries.push(match is_wanted {
                    true => self.entry(job, entry, image, tree.as_ref())?,
                    false => entry,
                });
            }
            let kernels = Kernels(entries);
            outputs.insert(facts.to_owned(), job.objects.put(&kernels.encode())?.into());
            let files = kernels.0.into_iter().map(|entry| (entry.label, entry.initrd));
            outputs.insert(input.to_owned(), folder(job.objects, files)?);
        }
        Ok(outputs)
    }
}
