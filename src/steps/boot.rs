//! Finds the kernels and the initrds that go with them, by content.

use std::collections::BTreeMap;
use std::io::Read;

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{Blob, Objects, RootTree};
use graph::{Job, StepError};
use serde::Serialize;

use crate::boot::{BootEntry, Kernels};
use crate::config::{Fields, SpecError};
use crate::formats::compression::Compression;
use crate::formats::initramfs::{self, Family, Initramfs};
use crate::formats::kernel;
use crate::image::{Image, is_plain_name};

/// Reads the input `facts` of a node.
pub(super) fn decode(job: &Job<'_>) -> Result<Kernels, StepError> {
    let bytes = job.objects.read(&job.blob("facts")?.digest)?;
    Kernels::decode(&bytes).map_err(|error| {
        StepError::action(format!(
            "the input \"facts\" of {} is not what the step initrd gives: {error}",
            job.node
        ))
    })
}

/// Returns what the inputs `facts`, `kernel` and `initrd` of a node say: what is known of the kernels,
/// and the files themselves.
pub(super) fn given(job: &Job<'_>) -> Result<Kernels, StepError> {
    let mut kernels = decode(job)?;
    for (input, is_kernel) in [("kernel", true), ("initrd", false)] {
        let images = job.tree(input)?;
        for entry in &mut kernels.0 {
            let found = images.tree.files().find(|(path, ..)| path.as_bytes() == entry.label.as_bytes());
            let (_, digest, size) = found.ok_or_else(|| {
                StepError::action(format!("the input {input:?} of {} has no file {}", job.node, entry.label))
            })?;
            *(if is_kernel { &mut entry.kernel } else { &mut entry.initrd }) = Blob { digest, size };
        }
    }
    Ok(kernels)
}

/// A file of the boot folder.
struct Candidate<'a> {
    path: &'a RelPath,
    blob: Blob,
}

/// What a spec says of the kernels in a boot folder.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Hints {
    /// The label of a single kernel; several are named by their files.
    label: String,
    /// Who made a kernel's initrd, where the initrd does not tell.
    family: BTreeMap<String, Family>,
}

impl Hints {
    /// Reads the setting `family`, a table of labels.
    pub(super) fn read(fields: &Fields<'_>, image: &Image) -> Self {
        let mut family = BTreeMap::new();
        for (label, item) in fields.entries("family") {
            let Some(name) = fields.check(item.as_text()) else { continue };
            let known = [Family::Dracut, Family::Genkernel].into_iter().find(|known| known.name() == name);
            match known {
                Some(known) => drop(family.insert(label.to_owned(), known)),
                None => fields.wrong(
                    SpecError::at(&item.origin, format!("{name:?} makes no initrds"))
                        .label("dracut or genkernel"),
                ),
            }
        }
        Self { label: image.label(fields), family }
    }
}

/// Finds kernels and initrds in a boot folder.
pub(super) fn find(objects: &Objects, boot: &RootTree, hints: &Hints) -> Result<Kernels, StepError> {
    let mut kernels = Vec::new();
    let mut initrds = Vec::new();
    for (path, digest, size) in boot.tree.files() {
        let blob = Blob { digest, size };
        let mut head = Vec::new();
        let reader = boot.open_file(objects, path, &digest, size)?;
        // A head is not the whole file, so its digest is not compared here; the readers below do that.
        reader.take(kernel::HEAD as u64).read_to_end(&mut head).on_file("read", path.to_string())?;
        let candidate = Candidate { path, blob };
        if is_memtest(path) {
            continue;
        }
        let named = || is_kernel_by_name(path, |name| boot.tree.inode(name).is_some());
        if let Some(found) = kernel::detect(&head) {
            kernels.push((candidate, found.release));
        } else if named() {
            kernels.push((candidate, None));
        } else if head.starts_with(b"07070") || (Compression::detect(&head).is_some() && !is_text_like(path))
        {
            initrds.push(candidate);
        }
    }
    let listing = || {
        let names: Vec<_> = boot.tree.files().map(|(path, ..)| path.to_string()).collect();
        if names.is_empty() { "no files at all".to_owned() } else { names.join(", ") }
    };
    if kernels.is_empty() {
        return Err(StepError::action(format!("the root has no kernel: its boot folder has {}", listing()))
            .with_hint("expected a Linux kernel image (bzImage or Image) and its initrd under /boot"));
    }
    let single = kernels.len() == 1;
    let mut entries = Vec::new();
    for (kernel, release) in kernels {
        let initrd = pick_initrd(&kernel, &initrds, single).ok_or_else(|| {
            StepError::action(format!(
                "no initrd goes with the kernel {}; there are {}",
                kernel.path,
                listing()
            ))
            .with_hint(
                "name it like the kernel: vmlinuz-VERSION and initrd.img-VERSION, or LABEL and LABEL.igz",
            )
        })?;
        let label = if single { hints.label.clone() } else { stem(kernel.path).to_owned() };
        if !is_plain_name(&label) {
            return Err(StepError::action(format!(
                "the kernel {} cannot be named in menus: letters, digits, '.', '_', '+' and '-' only",
                kernel.path
            )));
        }
        let reader = boot.open_file(objects, initrd.path, &initrd.blob.digest, initrd.blob.size)?;
        let initramfs = initramfs::read(reader)
            .map_err(|error| StepError::action(format!("the initrd {}: {error}", initrd.path)))?;
        entries.push(pair(&kernel, release, initrd, initramfs, label, hints)?);
    }
    entries.sort_by(|a, b| a.label.cmp(&b.label));
    let labels: BTreeMap<_, _> = entries.iter().map(|entry| (&entry.label, ())).collect();
    if labels.len() != entries.len() {
        return Err(StepError::action("two kernels have the same name, in different folders"));
    }
    Ok(Kernels(entries))
}

/// Puts a kernel and its initrd together, if they fit.
fn pair(
    kernel: &Candidate<'_>,
    release: Option<String>,
    initrd: &Candidate<'_>,
    initramfs: Initramfs,
    label: String,
    hints: &Hints,
) -> Result<BootEntry, StepError> {
    let family = initramfs.family.or_else(|| hints.family.get(&label).copied()).ok_or_else(|| {
        StepError::action(format!("the initrd {} was made by neither dracut nor genkernel", initrd.path))
            .with_hint(
                "live media need dracut's dmsquash-live module or genkernel's live support in the initrd",
            )
    })?;
    if let Some(release) = &release
        && !initramfs.kernels.is_empty()
        && !initramfs.kernels.contains(release)
    {
        let other: Vec<_> = initramfs.kernels.iter().map(String::as_str).collect();
        return Err(StepError::action(format!(
            "the kernel {} is {release}, but the initrd {} has modules for {}",
            kernel.path,
            initrd.path,
            other.join(", ")
        )));
    }
    Ok(BootEntry { label, kernel: kernel.blob, release, initrd: initrd.blob, family, initramfs })
}

/// Tells whether a file is a memory test: those have a kernel's header, but no initrd.
pub(super) fn is_memtest(path: &RelPath) -> bool {
    String::from_utf8_lossy(path.file_name()).to_lowercase().contains("memtest")
}

/// Tells whether a file is a kernel by catalyst's layout, whatever its architecture: `LABEL`, with `LABEL.igz` beside it.
pub(super) fn is_kernel_by_name(path: &RelPath, exists: impl Fn(&RelPath) -> bool) -> bool {
    RelPath::new(&[path.as_bytes(), b".igz"].concat()).is_ok_and(|initrd| exists(&initrd))
}

/// Compressed files that lie in boot folders and are no initrds.
fn is_text_like(path: &RelPath) -> bool {
    let name = String::from_utf8_lossy(path.file_name()).into_owned();
    [".gz", ".svgz", ".map", ".mod", ".pf2", ".png", ".jpg"].iter().any(|end| name.ends_with(end))
        && !name.starts_with("init")
}

/// Returns what is left of a kernel's or initrd's name without the usual beginnings and endings.
fn stem(path: &RelPath) -> &str {
    let name = std::str::from_utf8(path.file_name()).unwrap_or_default();
    let starts = ["vmlinuz-", "kernel-", "linux-", "bzImage-", "initrd.img-", "initramfs-", "initrd-"];
    let ends = [".igz", ".img", ".gz", ".xz", ".initrd"];
    let name = starts.iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name);
    ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

fn pick_initrd<'a>(
    kernel: &Candidate<'_>,
    initrds: &'a [Candidate<'a>],
    single: bool,
) -> Option<&'a Candidate<'a>> {
    let same_folder = |initrd: &&Candidate<'_>| initrd.path.parent() == kernel.path.parent();
    let named = initrds.iter().filter(same_folder).find(|initrd| stem(initrd.path) == stem(kernel.path));
    match initrds {
        [only] if single => Some(only),
        _ => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_initrds_go_together_by_name() {
        let stems =
            ["boot/vmlinuz-6.1", "initrd.img-6.1", "initramfs-6.1.img", "kernel-6.1", "gentoo", "gentoo.igz"];
        let stems = stems.map(|path| stem(&RelPath::new(path.as_bytes()).unwrap()).to_owned());
        assert_eq!(stems, ["6.1", "6.1", "6.1", "6.1", "gentoo", "gentoo"]);
    }
}
