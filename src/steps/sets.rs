//! `sets`: what lets one folder serve several netboot sets, each in a folder of its own: menus that choose by the machine, and the boot
//! loaders of all.
//!
//! An input is the folder of a set, and is called as its architecture is; it is published below that name. The sets stay as they are.

use std::collections::BTreeMap;

use cache::{Blob, Output};
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::ipxe::{AUTOEXEC, CHOOSER};
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::netboot::PXELINUX_MENU;
use crate::arch::{Arch, Platform};
use crate::config::Fields;
use crate::image::Image;

/// The version of the bytes: raised in the commit that changes them, with the digest in `pins.rs`.
pub(super) const VERSION: u32 = 1;

/// Gives `folder`: `boot.ipxe`, `autoexec.ipxe`, GRUB's and PXELINUX's menus, and the boot loaders of all sets.
pub(super) const KIND: Kind = Kind {
    name: "sets",
    inputs: Inputs::Any,
    make: |fields: &Fields<'_>, image: &Image| {
        Some(Made::new(Sets { title: image.title(fields) }, &["folder/"]))
    },
};

#[derive(Serialize)]
struct Sets {
    title: String,
}

/// A script that has iPXE go on in the folder of the machine's set, whichever iPXE it is; `archs` are those there are.
fn ipxe(title: &str, archs: &[Arch]) -> String {
    let mut text = format!("#!ipxe\n# {title}\n\n");
    // By its processor, iPXE for BIOS tells PCs of 64 bits from those of 32.
    let (wide, narrow) = (archs.contains(&Arch::Amd64), archs.contains(&Arch::X86));
    for (name, arch) in archs.iter().filter_map(|arch| Some((arch.ipxe_name()?, *arch))) {
        if arch != Arch::X86 {
            text.push_str(&format!("iseq ${{buildarch}} {name} && goto {arch} ||\n"));
        }
    }
    if wide || narrow {
        let pc = match (wide, narrow) {
            (true, true) => format!("cpuid --ext 29 && goto {} || goto {}", Arch::Amd64, Arch::X86),
            (true, false) => format!("goto {}", Arch::Amd64),
            _ => format!("goto {}", Arch::X86),
        };
        let bios = Arch::X86.ipxe_name().unwrap_or_default();
        text.push_str(&format!("iseq ${{buildarch}} {bios} || goto none\n{pc}\n"));
    }
    text.push_str("goto none\n\n");
    for arch in archs.iter().filter(|arch| arch.ipxe_name().is_some()) {
        text.push_str(&format!(":{arch}\nchain {arch}/{CHOOSER} || goto failed\nexit\n\n"));
    }
    text.push_str(
        ":none\necho There is no system here for machines of ${buildarch}.\nshell\nexit\n\n\
         :failed\necho The script of the system for this machine could not be loaded.\nshell\n",
    );
    text
}

/// A menu that has GRUB go on in the folder of the machine's set: what is there begins its paths with `$folder`.
fn grub(archs: &[Arch]) -> String {
    let mut text = String::new();
    for platform in Platform::all() {
        let starts = |arch: &&Arch| arch.platforms().any(|own| own == platform);
        // PCs of 64 bits are started by BIOS as well, where there is nothing for those of 32.
        let exact = archs.iter().find(|arch| **arch == platform.arch);
        let Some(arch) = exact.or_else(|| archs.iter().find(starts)) else { continue };
        text.push_str(&format!(
            "if [ \"$grub_cpu-$grub_platform\" = {} ]; then\n\
             \tset folder=/{arch}\n\texport folder\n\tconfigfile /{arch}/grub/grub.cfg\nfi\n",
            platform.name
        ));
    }
    text
}

/// A menu that has PXELINUX go on in the folder of a set for PCs: the only one, or the one that is picked.
fn pxelinux(title: &str, archs: &[Arch]) -> String {
    let mut text = format!("SERIAL 0 115200\nUI menu.c32\nPROMPT 0\nTIMEOUT 100\nMENU TITLE {title}\n");
    for arch in archs {
        text.push_str(&format!(
            "\nLABEL {arch}\n  MENU LABEL ^{arch}\n  CONFIG {arch}/{PXELINUX_MENU} {arch}/\n"
        ));
    }
    text
}

/// Tells whether a file of a set is a boot loader, which firmware looks for at the top.
fn is_loader(path: &str) -> bool {
    let is_image = path.starts_with("grub/") && path.matches('/').count() == 2;
    is_image || !path.contains('/') && [".efi", ".0", ".c32", ".kpxe"].iter().any(|end| path.ends_with(end))
}

impl Step for Sets {
    identity!(version VERSION);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let mut files: BTreeMap<String, Blob> = BTreeMap::new();
        let (mut archs, mut with_pxelinux) = (Vec::new(), Vec::new());
        for name in job.inputs.keys() {
            let arch = Arch::named(name).ok_or_else(|| {
                StepError::spec(format!(
                    "the input {name:?} of {} is not called as an architecture is",
                    job.node
                ))
                .with_hint("it is the name of the folder that the set is published in, as amd64 or arm64")
            })?;
            archs.push(arch);
            for (path, digest, size) in job.tree(name)?.tree.files() {
                let path = path.to_string();
                if path == PXELINUX_MENU {
                    with_pxelinux.push(arch);
                }
                let blob = Blob { digest, size };
                if is_loader(&path) && files.insert(path.clone(), blob).is_some_and(|other| other != blob) {
                    let what = format!("{path} of the set {name} is not that of the others");
                    return Err(StepError::action(what)
                        .with_hint("take the boot loaders of all sets from the same packages"));
                }
            }
        }
        let mut add = |name: &str, text: String| {
            files.insert(name.to_owned(), job.objects.put(text.as_bytes())?);
            Ok::<(), StepError>(())
        };
        add(CHOOSER, ipxe(&self.title, &archs))?;
        let (name, text) = AUTOEXEC;
        add(name, text.to_owned())?;
        add("grub/grub.cfg", grub(&archs))?;
        if !with_pxelinux.is_empty() {
            add(PXELINUX_MENU, pxelinux(&self.title, &with_pxelinux))?;
        }
        Ok(BTreeMap::from([("folder".to_owned(), folder(job.objects, files)?)]))
    }
}
