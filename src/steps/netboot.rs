//! `netboot`: the files that boot servers serve.

use std::collections::BTreeMap;

use cache::objects::Part;
use cache::{Blob, Output};
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use super::boot::{check_loaders, given};
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::loaders::{INPUT, LOADER, Source, are_of_machine, pin};
use super::menu::{Menu, least_ram};
use crate::arch::{Arch, Loader};
use crate::boot::{BootEntry, Kernels};
use crate::cmdline::{Medium, SQUASHFS, SQUASHFS_IN_INITRD};
use crate::formats::cpio;
use crate::memory::Load;

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 5;

/// Gives `beside`, the loose files that lie beside the ISO, `folder`, all that a boot server serves, and `ways`, how the squashfs
/// gets to the kernel.
pub(super) const KIND: Kind = Kind {
    name: "netboot",
    inputs: Inputs::Named {
        required: &["kernel", "initrd", "facts", "squashfs"],
        optional: &["lean", GRUB, INPUT, "tools"],
    },
    make: |fields, image| {
        let step = Netboot {
            arch: image.arch,
            iso: image.iso_name(),
            menu: Menu::of(fields, image),
            loaders: fields.bool("loaders", true),
        };
        Some(Made::new(step, &["beside/", "folder/", "ways"]))
    },
};

/// Some boot loaders and TFTP servers count bytes with 31 bits.
const TFTP_LIMIT: u64 = 1 << 31;

/// PXELINUX, and its menu.
const PXELINUX: &str = "pxelinux.0";
pub(super) const PXELINUX_MENU: &str = "pxelinux.cfg/default";

/// What `ways` says: the squashfs may be inside the initrd, or it has to be fetched.
const WITH_INITRD: &[u8] = b"initrd http\n";
pub(super) const HTTP_ALONE: &[u8] = b"http\n";

/// The input with GRUB's images and what firmware starts beside them, by their names in the folder.
const GRUB: &str = "grub";

/// What else can be done where a boot loader is missing.
const OR_NONE: &str = "or set netboot.loaders = false to go without loaders";

/// What the files of a netboot set are called.
pub(super) struct Names {
    prefix: String,
    labelled: bool,
}

impl Names {
    /// In the netboot folder.
    pub(super) fn folder() -> Self {
        Self { prefix: String::new(), labelled: true }
    }

    /// Beside the ISO: names that begin with the ISO's go where it goes on mirrors.
    pub(super) fn beside(iso: &str, several: bool) -> Self {
        Self { prefix: format!("{iso}."), labelled: several }
    }

    fn named(&self, label: &str, what: &str) -> String {
        let Self { prefix, labelled } = self;
        if *labelled { format!("{prefix}{label}.{what}") } else { format!("{prefix}{what}") }
    }

    pub(super) fn kernel(&self, label: &str) -> String {
        self.named(label, "vmlinuz")
    }

    pub(super) fn initrd(&self, label: &str) -> String {
        self.named(label, "initrd")
    }

    /// The initrd with the squashfs inside.
    pub(super) fn combined(&self, label: &str) -> String {
        self.named(label, "combined")
    }

    /// The initrd without what a root over the network does not need.
    pub(super) fn lean(&self, label: &str) -> String {
        self.named(label, "lean")
    }

    pub(super) fn squashfs(&self) -> String {
        if self.prefix.is_empty() { SQUASHFS.to_owned() } else { format!("{}squashfs", self.prefix) }
    }
}

#[derive(Serialize)]
struct Netboot {
    arch: Arch,
    iso: String,
    menu: Menu,
    loaders: bool,
}

impl Netboot {
    /// Puts together initrd, padding and an archive with the squashfs.
    fn combined(job: &Job<'_>, entry: &BootEntry, squashfs: Blob) -> Result<Blob, StepError> {
        let (before, behind) = cpio::around(SQUASHFS_IN_INITRD, squashfs.size).map_err(StepError::action)?;
        let padding = vec![0; cpio::padding(entry.initrd.size, before.len() as u64) as usize];
        job.progress("combining", 0, None);
        Ok(job.objects.compose(&[
            Part::Object(entry.initrd),
            Part::Own(&padding),
            Part::Own(&before),
            Part::Object(squashfs),
            Part::Own(&behind),
        ])?)
    }

    /// Takes the loaders that are wanted into the store.
    fn loaders(
        &self,
        job: &Job<'_>,
        is_wanted: impl Fn(&Loader) -> bool,
    ) -> Result<Vec<(String, Blob)>, StepError> {
        let source = Source::of(job)?;
        let wanted = self.arch.loaders().filter(|loader| self.loaders && is_wanted(loader));
        let taken = wanted.map(|Loader { name, places, package, .. }| {
            let blob = source.take(&format!("{LOADER}{name}"), places)?.ok_or_else(|| {
                let (source, places) = (source.name(), places.join(" nor at "));
                StepError::spec(format!("{source} has no boot loader {name} at {places}"))
                    .with_hint(format!("add {package} to its packages; {OR_NONE}"))
            })?;
            Ok(((*name).to_owned(), blob))
        });
        taken.collect()
    }

    fn pxelinux(&self, kernels: &Kernels, squashfs: Blob) -> Result<String, StepError> {
        let names = Names::folder();
        let mut text = format!(
            "SERIAL 0 115200\nUI menu.c32\nPROMPT 0\nTIMEOUT 100\nMENU WIDTH 78\nMENU MARGIN 4\nMENU TITLE {}\n",
            self.menu.title()
        );
        for (number, entry) in self.menu.entries(kernels, &Medium::InInitrd)?.into_iter().enumerate() {
            let label = &entry.kernel.label;
            let what = match entry.console {
                Some(console) => format!(" console={console}"),
                None => entry.choice.suffix().to_owned(),
            };
            let ram = least_ram(Load::InInitrdBios, entry.kernel, squashfs.size);
            text.push_str(&format!(
                "\nLABEL {label}-{number}\n  MENU LABEL ^{number} {}, kernel {label}{what}\n  TEXT HELP\n  Needs {ram} MiB of \
                 memory.\n  ENDTEXT\n  KERNEL {}\n  APPEND initrd={} {}\n",
                self.menu.title(),
                names.kernel(label),
                names.combined(label),
                entry.line.pxelinux()
            ));
        }
        Ok(text)
    }

    /// Renders GRUB's menu. A menu above it may set `folder`, where the set is not at the server's top.
    fn grub(&self, kernels: &Kernels) -> Result<String, StepError> {
        let names = Names::folder();
        let paths = |label: &str| {
            (format!("$folder/{}", names.kernel(label)), format!("$folder/{}", names.combined(label)))
        };
        self.menu.grub(kernels, &Medium::InInitrd, None, &paths)
    }
}

impl Step for Netboot {
    identity!(version VERSION);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let mut resolved = Resolved::default();
        if self.loaders && are_of_machine(resolving) {
            for Loader { name, places, package, .. } in self.arch.loaders() {
                pin(resolving, &mut resolved, &format!("{LOADER}{name}"), places, (package, OR_NONE))?;
            }
        }
        Ok(resolved)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let kernels = given(job)?;
        if self.loaders || job.inputs.contains_key(GRUB) {
            check_loaders(&kernels, self.arch)?;
        }
        let squashfs = job.blob("squashfs")?;
        let is_inside = kernels.can_hold(squashfs.size);
        if !is_inside {
            job.remark(format!(
                "the squashfs has {} bytes, and no initrd holds 4 GiB: there is no combined initrd, and PXELINUX and GRUB have \
                 nothing to boot; it boots from the ISO or over HTTP",
                squashfs.size
            ));
        }
        let names = Names::folder();
        let outside = Names::beside(&self.iso, kernels.0.len() > 1);
        let mut files = vec![(names.squashfs(), squashfs)];
        let mut beside = vec![(outside.squashfs(), squashfs)];
        for entry in &kernels.0 {
            let label = &entry.label;
            files.push((names.kernel(label), entry.kernel));
            files.push((names.initrd(label), entry.initrd));
            if is_inside {
                let combined = Self::combined(job, entry, squashfs)?;
                if combined.size >= TFTP_LIMIT {
                    job.remark(format!(
                        "the combined initrd has {} bytes; some TFTP servers and boot loaders stop at 2 GiB",
                        combined.size
                    ));
                }
                files.push((names.combined(label), combined));
            }
            beside.push((outside.kernel(label), entry.kernel));
            beside.push((outside.initrd(label), entry.initrd));
        }
        if job.inputs.contains_key("lean") {
            let lean = job.tree("lean")?;
            // Scripts are for all kernels: a lean one that some lack is loaded by none.
            let is_whole = lean.tree.files().count() == kernels.0.len();
            for (path, digest, size) in lean.tree.files().filter(|_| is_whole) {
                files.push((names.lean(&path.to_string()), Blob { digest, size }));
            }
        }
        // iPXE's scripts have the initramfs fetch what no initrd holds.
        let loaders = self.loaders(job, |loader| is_inside || loader.is_ipxe())?;
        if loaders.iter().any(|(name, _)| name == PXELINUX) {
            let text = self.pxelinux(&kernels, squashfs)?;
            files.push((PXELINUX_MENU.to_owned(), job.objects.put(text.as_bytes())?));
        }
        files.extend(loaders);
        if is_inside && job.inputs.contains_key(GRUB) {
            let images = job.tree(GRUB)?;
            files.extend(
                images.tree.files().map(|(path, digest, size)| (path.to_string(), Blob { digest, size })),
            );
            let text = self.grub(&kernels)?;
            files.push(("grub/grub.cfg".to_owned(), job.objects.put(text.as_bytes())?));
        }
        let ways = job.objects.put(if is_inside { WITH_INITRD } else { HTTP_ALONE })?;
        Ok(BTreeMap::from([
            ("beside".to_owned(), folder(job.objects, beside)?),
            ("folder".to_owned(), folder(job.objects, files)?),
            ("ways".to_owned(), ways.into()),
        ]))
    }
}
