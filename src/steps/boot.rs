//! Finds the kernels and the initrds that go with them, by content.

mod folder;
mod pair;

use std::collections::{BTreeMap, BTreeSet};

use cache::{Blob, Objects, RootTree};
use graph::{Job, StepError};
use serde::Serialize;

use self::folder::{Candidate, Folder};
pub(super) use self::folder::{is_kernel_by_name, is_memtest, is_menu};
use self::pair::{By, Pair, Pairing, stem};
use crate::arch::{Arch, one_of};
use crate::boot::{BootEntry, Kernels};
use crate::config::{Fields, SpecError};
use crate::formats::initramfs::{Family, Initramfs};
use crate::image::{Image, NamedKernel, is_plain, is_plain_name};

/// Reads the input `facts` of a node.
pub(super) fn decode(job: &Job<'_>) -> Result<Kernels, StepError> {
    decode_from(job, "facts", "initrd")
}

/// The input that has what is known of lean initrds.
pub(super) const LEAN: &str = "lean-facts";

/// Reads the input of a node that says what lean initrds there are; none, where it has no such input.
pub(super) fn decode_lean(job: &Job<'_>) -> Result<Kernels, StepError> {
    match job.inputs.contains_key(LEAN) {
        true => decode_from(job, LEAN, "lean"),
        false => Ok(Kernels(Vec::new())),
    }
}

fn decode_from(job: &Job<'_>, input: &str, step: &str) -> Result<Kernels, StepError> {
    let bytes = job.objects.read(&job.blob(input)?.digest)?;
    Kernels::decode(&bytes).map_err(|error| {
        StepError::action(format!(
            "the input {input:?} of {} is not what the step {step} gives: {error}",
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
            let blob = labelled(job, input, &images, &entry.label)?;
            *(if is_kernel { &mut entry.kernel } else { &mut entry.initrd }) = blob;
        }
    }
    Ok(kernels)
}

/// Returns the file of a kernel in `images`, the folder that the node has as that input: it has the kernel's label as its name.
pub(super) fn labelled(
    job: &Job<'_>,
    input: &str,
    images: &RootTree,
    label: &str,
) -> Result<Blob, StepError> {
    let found = images.tree.files().find(|(path, ..)| path.as_bytes() == label.as_bytes());
    let (_, digest, size) = found.ok_or_else(|| {
        StepError::action(format!("the input {input:?} of {} has no file {label}", job.node))
    })?;
    Ok(Blob { digest, size })
}

/// Refuses kernels that the boot loaders of an image for `arch` cannot start.
pub(super) fn check_loaders(kernels: &Kernels, arch: Arch) -> Result<(), StepError> {
    let starts = |kernel: &Arch| arch.platforms().any(|platform| kernel.starts_by(platform.arch));
    let is_right = |kernel: &Arch| *kernel == arch || starts(kernel);
    let is_foreign = |entry: &&BootEntry| !entry.archs.is_empty() && !entry.archs.iter().any(is_right);
    match kernels.0.iter().find(is_foreign) {
        None => Ok(()),
        Some(BootEntry { label, archs, .. }) => Err(StepError::action(format!(
            "the kernel {label} is for {}; the image is for {arch}, and so are its boot loaders",
            one_of(archs)
        ))
        .with_hint(format!(
            "write arch = \"{}\" into [image], and have the node \"loaders\" take boot loaders for it, as specs/arm64-minimal.toml \
             does; a set without boot loaders: extends = \"netboot\", and [node.netboot] loaders = false",
            archs.first().copied().unwrap_or(arch)
        ))),
    }
}

/// What a spec says of the kernels in a boot folder.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Hints {
    /// The label of a single kernel; several are named by their files.
    label: String,
    /// Who made a kernel's initrd, where the initrd does not tell.
    family: BTreeMap<String, Family>,
    /// The kernels that are meant, where the spec names them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kernels: BTreeMap<String, NamedKernel>,
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
        Self { label: image.label(fields), family, kernels: image.kernels.clone() }
    }
}

/// A kernel that is to be booted, and all that is known of it.
pub(super) struct Bootable {
    pub(super) label: String,
    pub(super) kernel: Blob,
    pub(super) release: Option<String>,
    pub(super) archs: Vec<Arch>,
    /// Its initrds, in the order in which they are loaded.
    pub(super) initrds: Vec<Blob>,
    pub(super) family: Family,
    pub(super) initramfs: Initramfs,
}

impl Bootable {
    /// Returns what other steps are told of it; `initrd` is all of its initrds in one.
    pub(super) fn entry(self, initrd: Blob) -> BootEntry {
        let Self { label, kernel, release, archs, initrds: _, family, initramfs } = self;
        BootEntry { label, kernel, release, archs, initrd, family, initramfs, without: Vec::new() }
    }
}

/// The kernels of a boot folder, and what is said of those that are left out.
pub(super) struct Found {
    pub(super) kernels: Vec<Bootable>,
    pub(super) remarks: Vec<String>,
}

/// Finds kernels and the initrds that go with them.
///
/// # Errors
/// There is none that can be booted, or one that the spec names is not there.
pub(super) fn find(objects: &Objects, boot: &RootTree, hints: &Hints) -> Result<Found, StepError> {
    let named = hints.kernels.values().flat_map(|named| named.initrds.iter().cloned()).collect();
    let folder = Folder::read(objects, boot, named)?;
    let mut pairing = Pairing::new(&folder);
    let mut kernels = Vec::new();
    let mut left_out = Vec::new();
    if hints.kernels.is_empty() {
        for image in &folder.images {
            match pairing.of(image)? {
                Ok(pair) => kernels.push(pair),
                Err(error) => left_out.push((image.file.blob, error)),
            }
        }
        once(&mut kernels, hints);
        // A kernel that has an initrd under one of its names is there.
        left_out.retain(|(blob, _)| !kernels.iter().any(|pair| pair.image.file.blob == *blob));
    }
    let mut left_out: Vec<StepError> = left_out.into_iter().map(|(_, error)| error).collect();
    for (label, named) in &hints.kernels {
        kernels.push(meant(&folder, &mut pairing, label, named)?);
    }
    if folder.images.is_empty() {
        let listing = folder.listing();
        let what = format!("the root has no kernel: its boot folder has {listing}");
        return Err(StepError::action(what).with_hint(
            "expected a Linux kernel (bzImage, Image, EFI zboot, vmlinux) and its initrd under /boot",
        ));
    }
    let mut found = Vec::new();
    let labels: Vec<Option<&String>> = match hints.kernels.is_empty() {
        true => vec![None; kernels.len()],
        false => hints.kernels.keys().map(Some).collect(),
    };
    let file_labels = labels_of(&kernels);
    for ((pair, label), file_label) in kernels.into_iter().zip(labels).zip(file_labels) {
        // Who made its initrd is said by the name that it has where it is one of several, or by its only name.
        let known = [label.or(Some(&file_label)), Some(&hints.label)];
        let family = known.into_iter().flatten().find_map(|label| hints.family.get(label).copied());
        match bootable(pair, label.cloned().unwrap_or(file_label), family) {
            Ok(bootable) => found.push(bootable),
            Err(error) if label.is_some() => return Err(error),
            Err(error) => left_out.push(error),
        }
    }
    if found.is_empty() {
        let first = left_out.into_iter().next();
        return Err(first.unwrap_or_else(|| StepError::action("the root has no kernel that can be booted")));
    }
    if let [only] = &mut found[..]
        && hints.kernels.is_empty()
    {
        only.label.clone_from(&hints.label);
    }
    check_labels(&found, hints, &left_out)?;
    found.sort_by(|a, b| a.label.cmp(&b.label));
    let mut remarks = pairing.remarks;
    remarks.extend(left_out.iter().map(|error| format!("a kernel is left out: {error}")));
    Ok(Found { kernels: found, remarks })
}

/// Leaves out what is there under another name as well: the same kernel with the same initrds, and what was guessed of a kernel
/// that a menu has. What the spec names by its label stays.
fn once(pairs: &mut Vec<Pair<'_>>, hints: &Hints) {
    let kernel = |pair: &Pair<'_>| pair.image.file.blob;
    let initrds = |pair: &Pair<'_>| pair.initrds.iter().map(|initrd| initrd.blob).collect::<Vec<_>>();
    let in_menus: Vec<Blob> = pairs.iter().filter(|pair| pair.by == By::Menu).map(kernel).collect();
    let mut seen = Vec::new();
    pairs.retain(|pair| {
        let is_known = seen.contains(&(kernel(pair), initrds(pair)));
        let stays = match pair.by {
            By::Names => true,
            _ if hints.family.contains_key(&stem(pair.image.path())) => true,
            By::Menu => !is_known,
            By::Guess => !is_known && !in_menus.contains(&kernel(pair)),
        };
        if stays {
            seen.push((kernel(pair), initrds(pair)));
        }
        stays
    });
}

/// Returns the pair that a spec names.
fn meant<'f>(
    folder: &'f Folder<'f>,
    pairing: &mut Pairing<'f>,
    label: &str,
    named: &NamedKernel,
) -> Result<Pair<'f>, StepError> {
    let missing = |what: &str, path: &str| {
        let listing = folder.listing();
        StepError::action(format!("[image.kernels.{label}]: there is no {what} {path}; there are {listing}"))
            .with_hint("paths begin in the boot folder")
    };
    let is = |file: &Candidate, path: &str| file.path.as_bytes() == path.as_bytes();
    let image = folder.images.iter().find(|image| is(&image.file, &named.kernel));
    let image = image.ok_or_else(|| missing("kernel", &named.kernel))?;
    if named.initrds.is_empty() {
        return pairing.of(image)?;
    }
    let initrd = |path: &String| folder.initrds.iter().find(|file| is(file, path)).cloned();
    let initrds = named.initrds.iter().map(|path| initrd(path).ok_or_else(|| missing("initrd", path)));
    pairing.join(image, By::Menu, initrds.collect::<Result<_, _>>()?)?
}

/// Returns what kernels are called by their files: what is left of the name; of one that has none of its own the release, or the
/// folder. Where several would be called the same, the release and the folder are part of it.
fn labels_of(kernels: &[Pair<'_>]) -> Vec<String> {
    let folder = |pair: &Pair<'_>| {
        let folder = pair.image.path().parent()?;
        Some(String::from_utf8_lossy(folder.file_name()).into_owned())
    };
    let by_file = |pair: &Pair<'_>| {
        let stem = stem(pair.image.path());
        match stem.to_ascii_lowercase().as_str() {
            "vmlinuz" | "vmlinux" | "linux" | "kernel" | "bzimage" | "image" => {
                pair.image.release().map(str::to_owned).or_else(|| folder(pair)).unwrap_or(stem)
            }
            _ => stem,
        }
    };
    let mut labels: Vec<String> = kernels.iter().map(|pair| plain(&by_file(pair))).collect();
    lengthen(kernels, &mut labels, |pair, label| {
        let release = pair.image.release().filter(|release| !label.contains(release))?;
        Some(format!("{label}-{release}"))
    });
    lengthen(kernels, &mut labels, |pair, label| Some(format!("{}-{label}", folder(pair)?)));
    labels
}

/// Makes the labels longer that are there several times.
fn lengthen(kernels: &[Pair<'_>], labels: &mut [String], longer: impl Fn(&Pair<'_>, &str) -> Option<String>) {
    let before = labels.to_vec();
    for (pair, label) in kernels.iter().zip(labels) {
        let is_repeated = before.iter().filter(|other| *other == label).count() > 1;
        if let Some(longer) = longer(pair, label).filter(|_| is_repeated) {
            *label = plain(&longer);
        }
    }
}

/// Returns a name that menus can have: what they cannot becomes a hyphen.
fn plain(name: &str) -> String {
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    let plain = plain.trim_start_matches(['.', '-']);
    if plain.is_empty() { "linux".to_owned() } else { plain.to_owned() }
}

/// Puts together what is known of a kernel and its initrds, if they fit.
fn bootable(pair: Pair<'_>, label: String, family: Option<Family>) -> Result<Bootable, StepError> {
    let Pair { image, initrds, initramfs, .. } = pair;
    let (path, release) = (image.path(), image.release());
    let names: Vec<String> = initrds.iter().map(|initrd| initrd.path.to_string()).collect();
    let names = names.join(" with ");
    let family = initramfs.family.or(family).ok_or_else(|| {
        StepError::action(format!("the initrd {names} was made by neither dracut nor genkernel")).with_hint(
            "live media need dracut's dmsquash-live module or genkernel's live support in the initrd",
        )
    })?;
    if let Some(release) = release
        && !initramfs.kernels.is_empty()
        && !initramfs.kernels.contains(release)
    {
        let other: Vec<_> = initramfs.kernels.iter().map(String::as_str).collect();
        return Err(StepError::action(format!(
            "the kernel {path} is {release}, but the initrd {names} has modules for {}",
            other.join(", ")
        )));
    }
    let archs = image.kernel.as_ref().map(|kernel| kernel.archs.clone()).unwrap_or_default();
    if let Some(program) = &initramfs.program
        && !archs.is_empty()
        && !archs.iter().any(|arch| arch.runs(program.arch))
    {
        return Err(StepError::action(format!(
            "the kernel {path} is for {}, but {} in the initrd {names} is for {}",
            one_of(&archs),
            program.name,
            program.arch
        )));
    }
    Ok(Bootable {
        label,
        kernel: image.file.blob,
        release: release.map(str::to_owned),
        archs,
        initrds: initrds.iter().map(|initrd| initrd.blob).collect(),
        family,
        initramfs: (*initramfs).clone(),
    })
}

/// Checks that menus can name each kernel, that no two have one name, and that those the spec asks for are there.
fn check_labels(found: &[Bootable], hints: &Hints, left_out: &[StepError]) -> Result<(), StepError> {
    for Bootable { label, .. } in found {
        if !is_plain_name(label) {
            return Err(StepError::action(format!(
                "the kernel {label} cannot be named in menus: letters, digits, '.', '_', '+' and '-' only"
            )));
        }
    }
    let labels: BTreeSet<&String> = found.iter().map(|kernel| &kernel.label).collect();
    if labels.len() != found.len() {
        return Err(StepError::action("two kernels have the same name, in different folders")
            .with_hint("name them in the spec: [image.kernels.LABEL] kernel = \"…\""));
    }
    if let Some(missing) = hints.family.keys().find(|label| !labels.contains(label))
        && hints.family.len() > 1
    {
        let why: String = left_out.iter().map(|error| format!("; {error}")).collect();
        return Err(StepError::action(format!(
            "the kernel {missing}, which the spec names, is not there{why}"
        )));
    }
    Ok(())
}
