//! `iso`: the hybrid ISO, for CDs and USB sticks, BIOS and UEFI.
//!
//! xorriso writes it, with every date, identifier and order fixed. The layout is that of the ISOs that
//! catalyst makes: `/boot/<label>`, `/boot/<label>.igz`, `/boot/grub/grub.cfg`, `/image.squashfs`, `/livecd`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use cache::file::OnFile;
use cache::objects::{Held, WorkDir};
use cache::{Blob, Output};
use graph::sandbox::Invocation;
use graph::tool::ToolSpec;
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use super::boot::{check_loaders, given};
use super::grub;
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::menu::Menu;
use crate::arch::Arch;
use crate::cmdline::{Medium, SQUASHFS};
use crate::config::Fields;
use crate::formats;
use crate::image::Image;

/// Gives `files`, a folder with the ISO under its published name.
pub(super) const KIND: Kind = Kind {
    name: "iso",
    inputs: Inputs::Named {
        required: &["kernel", "initrd", "facts", "squashfs", GRUB],
        optional: &["tools"],
    },
    make: |fields, image| {
        let (menu, volume) = (Menu::of(fields, image), Volume::of(fields, image));
        Some(Made::new(Iso { arch: image.arch, name: image.iso_name(), menu, volume }, &["files/"]))
    },
};

pub(super) const XORRISO: ToolSpec<'_> =
    ToolSpec { name: "xorriso", programs: &[], data: &[], data_places: &[], package: "xorriso" };

#[derive(Serialize)]
struct Iso {
    arch: Arch,
    name: String,
    menu: Menu,
    volume: Volume,
}

/// The input with GRUB's images.
pub(super) const GRUB: &str = "grub";
/// Boot images, by their paths on the ISO: for the BIOS of PCs, UEFI, and the Open Firmware of PowerPC, which reads the last one for what
/// it starts (CHRP ISO 9660 binding).
pub(super) const ELTORITO: &str = "boot/grub/eltorito.img";
pub(super) const EFI: &str = "boot/grub/efi.img";
pub(super) const POWERPC: &str = "boot/grub/powerpc.elf";
pub(super) const BOOTINFO: &str = "ppc/bootinfo.txt";
const CHRP: &[u8] =
    b"<chrp-boot>\n<description>GRUB</description>\n<os-name>GRUB</os-name>\n<boot-script>boot \
    &device;:\\boot\\grub\\powerpc.elf</boot-script>\n</chrp-boot>\n";
/// The menu.
pub(super) const MENU: &str = "boot/grub/grub.cfg";

/// Returns where GRUB finds the kernel and the initrd of a label.
pub(super) fn paths(label: &str) -> (String, String) {
    (format!("/boot/{label}"), format!("/boot/{label}.igz"))
}

/// catalyst counts the boot partition and an HFS+ before it.
const PARTITION_NUMBER: &str = "3";
/// The GPT's type of a Linux file system, as the UEFI specification writes it.
const LINUX_DATA: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

/// What only some ISOs have.
#[derive(Default)]
pub(super) struct Extra {
    /// More files that the tool may read, below `in/`.
    pub(super) inputs: BTreeMap<String, PathBuf>,
    /// Files of the ISO that may be objects of the store, by the paths on it.
    pub(super) objects: BTreeMap<String, Blob>,
    /// A partition behind the ISO, by its name in the work folder.
    pub(super) partition: Option<String>,
}

/// What is fixed of a volume.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Volume {
    pub(super) volume_id: String,
    /// The one date, as ISO 9660 has it.
    date: String,
    epoch: u32,
}

impl Volume {
    pub(super) fn of(fields: &Fields<'_>, image: &Image) -> Self {
        Self {
            volume_id: image.volume_id(fields),
            date: image.timestamp.iso9660(),
            epoch: image.timestamp.epoch(),
        }
    }

    /// Writes the ISO `name`: `files`, by the paths on it and below the work folder, and the node's inputs `squashfs` and `grub`.
    pub(super) fn write(
        &self,
        job: &Job<'_>,
        name: &str,
        work: &WorkDir,
        mut files: BTreeMap<OsString, String>,
        Extra { mut inputs, mut objects, partition }: Extra,
    ) -> Result<BTreeMap<String, Output>, StepError> {
        inputs.insert("squashfs".to_owned(), job.path("squashfs")?);
        files.insert(SQUASHFS.into(), "in/squashfs".to_owned());
        objects.insert(SQUASHFS.to_owned(), job.blob("squashfs")?);
        let mut ways = Vec::new();
        for (path, digest, size) in job.tree(GRUB)?.tree.files() {
            let image = path.to_string();
            let here = work.path().join(&image);
            match image.as_str() {
                grub::ELTORITO => {
                    // xorriso writes a table into this one, so it gets a copy.
                    fs::write(&here, job.objects.read(&digest)?).on_file("write", &here)?;
                    files.insert(ELTORITO.into(), image.clone());
                }
                grub::MBR => drop(inputs.insert(image.clone(), job.objects.verified(&digest)?)),
                grub::EFI | grub::POWERPC => {
                    let on_iso = if image == grub::EFI { EFI } else { POWERPC };
                    inputs.insert(image.clone(), job.objects.verified(&digest)?);
                    files.insert(on_iso.into(), format!("in/{image}"));
                    objects.insert(on_iso.to_owned(), Blob { digest, size });
                }
                _ => {
                    let what =
                        format!("the input {GRUB:?} of {} has a file {image}, which no ISO has", job.node);
                    return Err(
                        StepError::action(what).with_hint("it is the output \"medium\" of a step grub")
                    );
                }
            }
            ways.push(image);
        }
        if ways.iter().any(|image| image == grub::POWERPC) {
            fs::write(work.path().join("bootinfo"), CHRP).on_file("write", work.path().join("bootinfo"))?;
            files.insert(BOOTINFO.into(), "bootinfo".to_owned());
        }
        job.progress("writing", 0, None);
        job.run(&Invocation {
            tool: job.tool("xorriso")?,
            args: self.xorriso_args(&files, &ways, partition.as_deref()),
            env: BTreeMap::new(),
            inputs,
            mounts: BTreeMap::new(),
            work: work.path(),
            privileged: false,
            foreign: None,
        })?;
        let image = job.take_composed(work.path(), "image.iso", |path| {
            let iso = formats::iso9660::Iso::open(path).map_err(StepError::action)?;
            Ok(objects.iter().filter_map(|(on_iso, blob)| held(&iso, on_iso, *blob)).collect())
        })?;
        Ok(BTreeMap::from([("files".to_owned(), folder(job.objects, [(name.to_owned(), image)])?)]))
    }

    /// Builds xorriso's command line; `ways` are the images by which firmware starts it.
    fn xorriso_args(
        &self,
        files: &BTreeMap<OsString, String>,
        ways: &[String],
        partition: Option<&str>,
    ) -> Vec<OsString> {
        let date = format!("--modification-date={}", self.date);
        // Files are objects of the store, whose own times are those of the build.
        let file_dates = format!("={}", self.epoch);
        let mut args: Vec<OsString> = [
            // xorriso looks whether its writer is done as often as it reports on it: once a second by itself.
            "-pacifier",
            "interval=0.1",
            "-as",
            "mkisofs",
            "-quiet",
            "-iso-level",
            "3",
            "-r",
            "-J",
            "-joliet-long",
            "-V",
            &self.volume_id,
            "-A",
            "",
            "-p",
            "",
            "-publisher",
            "",
            &date,
            "--set_all_file_dates",
            &file_dates,
            "--gpt_disk_guid",
            "modification-date",
        ]
        .map(OsString::from)
        .to_vec();
        let has = |image: &str| ways.iter().any(|way| way == image);
        let mbr = format!("in/{}", grub::MBR);
        if has(grub::ELTORITO) {
            args.extend(["-b", ELTORITO, "-no-emul-boot", "-boot-load-size", "4"].map(OsString::from));
            args.extend(["-boot-info-table", "--grub2-boot-info", "--grub2-mbr", &mbr].map(OsString::from));
        }
        if has(grub::POWERPC) {
            args.push("-chrp-boot-part".into());
        } else {
            args.push("--protective-msdos-label".into());
        }
        if has(grub::EFI) {
            if has(grub::ELTORITO) {
                args.push("-eltorito-alt-boot".into());
            }
            args.extend(["--efi-boot", EFI, "-efi-boot-part", "--efi-boot-image"].map(OsString::from));
        }
        if let Some(partition) = partition {
            args.extend(["-append_partition", PARTITION_NUMBER, LINUX_DATA, partition].map(OsString::from));
        }
        args.extend(["-o", "image.iso", "-graft-points"].map(OsString::from));
        // A graft point is PATH=FILE; what would be taken for the sign in between is escaped.
        args.extend(files.iter().map(|(on_iso, here)| {
            let mut point = b"/".to_vec();
            for byte in on_iso.as_bytes() {
                point.extend((b"\\=".contains(byte)).then_some(b'\\'));
                point.push(*byte);
            }
            point.extend([b"=", here.as_bytes()].concat());
            OsString::from_vec(point)
        }));
        args
    }
}

/// Returns where an ISO has the bytes of a file, if they lie in one piece.
fn held(iso: &formats::iso9660::Iso, on_iso: &str, blob: Blob) -> Option<Held> {
    let extents = &iso.file(on_iso)?.extents;
    let (at, _) = *extents.first()?;
    let is_one_piece = extents.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0);
    is_one_piece.then_some(Held { at, blob })
}

impl Iso {
    fn readme(&self) -> String {
        format!(
            "This is {}, {}.\n\nThe kernel and the initrd are in /boot, the system is in /{SQUASHFS}. The same files are \
             published\nloose, for booting over the network; the manifest beside this image names their digests.\n",
            self.menu.title(),
            self.name
        )
    }
}

impl Step for Iso {
    identity!(version 3);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        Ok(Resolved::with_tools(resolving, &[XORRISO])?)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let kernels = given(job)?;
        check_loaders(&kernels, self.arch)?;
        let medium = Medium::Iso { volume_id: self.volume.volume_id.clone() };
        let config = self.menu.grub(&kernels, &medium, Some(&self.volume.volume_id), &paths)?;

        let work = job.objects.work_dir()?;
        let mut inputs: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut files: BTreeMap<OsString, String> = BTreeMap::new();
        let mut objects: BTreeMap<String, Blob> = BTreeMap::new();
        for entry in &kernels.0 {
            let label = &entry.label;
            let (kernel, initrd) = paths(label);
            for (on_iso, kind, blob) in [(kernel, "kernel", entry.kernel), (initrd, "initrd", entry.initrd)] {
                let on_iso = on_iso.trim_start_matches('/').to_owned();
                let name = format!("{kind}-{label}");
                files.insert(on_iso.clone().into(), format!("in/{name}"));
                objects.insert(on_iso, blob);
                inputs.insert(name, job.objects.verified(&blob.digest)?);
            }
        }
        let written =
            [(MENU, config.into_bytes()), ("livecd", Vec::new()), ("README.txt", self.readme().into_bytes())];
        for (number, (on_iso, bytes)) in written.into_iter().enumerate() {
            let name = format!("own-{number}");
            fs::write(work.path().join(&name), bytes).on_file("write", work.path().join(&name))?;
            files.insert(on_iso.into(), name);
        }
        self.volume.write(job, &self.name, &work, files, Extra { inputs, objects, partition: None })
    }
}
