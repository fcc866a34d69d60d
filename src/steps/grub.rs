//! `grub`: GRUB's images for the firmware of an architecture, from CD, from disk and over the network.
//!
//! Each image is made by an explicit `grub-mkimage` with all modules it needs inside: `grub-mkrescue` and
//! `grub-mkstandalone` take the clock and their input's times in. Modules are data, of any architecture. For machines that verify what
//! they start (Secure Boot), images that somebody signed stand in for those of UEFI: a signature cannot be made here.

mod efi;
mod images;
mod signed;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use cache::Output;
use cache::file::OnFile;
use graph::sandbox::Invocation;
use graph::tool::ToolSpec;
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use self::efi::Partition;
use self::images::Images;
use self::signed::Signed;
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::loaders::{self, Source, are_of_machine, pin};
use crate::arch::{Arch, Firmware, Platform};
use crate::cmdline::CommandLine;
use crate::config::SpecError;

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 3;

/// Gives `medium`, the images that a CD or a stick is started by, and `network`, those that a boot server has, by their names in the netboot
/// folder.
pub(super) const KIND: Kind = Kind {
    name: "grub",
    inputs: Inputs::Named { required: &[], optional: &[loaders::INPUT, "tools"] },
    make: |fields, image| {
        let arch = image.arch;
        if arch.platforms().next().is_none() {
            let error = SpecError::at(fields.origin(), format!("there is no GRUB for {arch}"));
            fields.wrong(
                error
                    .label("this step makes its images")
                    .hint("extend \"netboot\" for a set of kernel, initrd and squashfs alone"),
            );
        }
        let signed = Signed::read(fields, arch);
        let step = Grub { arch, volume_id: image.volume_id(fields), epoch: image.timestamp.epoch(), signed };
        Some(Made::new(step, &["medium/", "network/"]))
    },
};

/// Images for media, by their names: for the BIOS of PCs from CD and from disk (as GRUB's packages call it), for UEFI, for Open Firmware.
pub(super) const ELTORITO: &str = "eltorito.img";
pub(super) const MBR: &str = "boot_hybrid.img";
pub(super) const EFI: &str = "efi.img";
pub(super) const POWERPC: &str = "powerpc.elf";

/// Modules every image has; `gzio` for kernels that are packed as a whole (Image.gz).
const MODULES: [&str; 31] = [
    "all_video",
    "boot",
    "cat",
    "configfile",
    "echo",
    "fat",
    "gfxmenu",
    "gfxterm",
    "gfxterm_background",
    "gzio",
    "halt",
    "help",
    "iso9660",
    "linux",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "png",
    "reboot",
    "search",
    "search_fs_file",
    "search_fs_uuid",
    "search_label",
    "serial",
    "sleep",
    "terminal",
    "test",
    "true",
    "videoinfo",
];

/// Where packages put GRUB's modules, and beside them what else GRUB needs.
const MODULES_FOLDER: &str = "/usr/lib/grub";

/// The C library's character set in which FAT has names, and where the library looks that up.
const GCONV: [&str; 4] = ["IBM850.so", "gconv-modules", "gconv-modules.cache", "gconv-modules.d"];

/// Returns the places of these: in the folders of Debian's multiarch, Gentoo's multilib and of all others.
fn gconv_places() -> Vec<String> {
    let own = Arch::of_machine().multiarch().map(|triplet| format!("/usr/lib/{triplet}"));
    let folders = own.into_iter().chain(["/usr/lib64".to_owned(), "/usr/lib".to_owned()]);
    folders.flat_map(|folder| GCONV.map(|name| format!("{folder}/gconv/{name}"))).collect()
}

const MKIMAGE: ToolSpec<'_> =
    ToolSpec { name: "grub-mkimage", programs: &[], data: &[], data_places: &[], package: "grub-common" };
const MKFS: ToolSpec<'_> =
    ToolSpec { name: "mkfs.vfat", programs: &[], data: &[], data_places: &[], package: "dosfstools" };
const MCOPY: ToolSpec<'_> =
    ToolSpec { name: "mcopy", programs: &["mtools"], data: &[], data_places: &[], package: "mtools" };
const MMD: ToolSpec<'_> = ToolSpec { name: "mmd", ..MCOPY };

#[derive(Serialize)]
struct Grub {
    arch: Arch,
    volume_id: String,
    epoch: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<Signed>,
}

/// What an image is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Medium,
    Network,
}

impl Use {
    fn name(self) -> &'static str {
        if self == Use::Medium { "medium" } else { "network" }
    }
}

/// Returns the format that `grub-mkimage` calls an image of that use.
fn format(platform: &Platform, of: Use) -> String {
    match (platform.firmware, of) {
        (Firmware::Bios, Use::Medium) => format!("{}-eltorito", platform.name),
        (Firmware::Bios, Use::Network) => format!("{}-pxe", platform.name),
        _ => platform.name.to_owned(),
    }
}

/// Returns what a network image is called in the netboot folder, as `grub-mknetdir` calls it.
fn network_name(platform: &Platform) -> String {
    let ending = match platform.firmware {
        Firmware::Bios => "0",
        Firmware::Uefi => "efi",
        Firmware::OpenFirmware => "elf",
    };
    format!("grub/{}/core.{ending}", platform.name)
}

/// Returns where a platform's modules are in packages.
fn modules_of(platform: &Platform) -> String {
    format!("{MODULES_FOLDER}/{}", platform.name)
}

/// Returns where what loads its El Torito image from a disk is in packages.
fn mbr_of(platform: &Platform) -> String {
    format!("{}/{MBR}", modules_of(platform))
}

impl Grub {
    /// The first commands of an image: find the medium, or the boot server, and read its menu.
    fn early_config(&self, of: Use) -> String {
        if of == Use::Network {
            return "configfile $prefix/grub.cfg\n".to_owned();
        }
        let search = CommandLine::grub_search(&self.volume_id);
        format!("{search}set prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
    }

    /// Makes an image; returns its name in the work folder.
    fn image(
        &self,
        job: &Job<'_>,
        work: &Path,
        platform: &Platform,
        modules: &str,
        of: Use,
    ) -> Result<String, StepError> {
        let stem = format!("{}-{}", of.name(), platform.name);
        let (config, output) = (format!("{stem}.cfg"), format!("{stem}.img"));
        fs::write(work.join(&config), self.early_config(of)).on_file("write", work.join(&config))?;
        let prefix = if of == Use::Network { "/grub" } else { "/boot/grub" };
        let own = if of == Use::Network { platform.network } else { platform.medium };
        let format = format(platform, of);
        let fixed = ["-d", modules, "-O", &format, "-p", prefix, "-c", &config, "-o", &output];
        let words = fixed.into_iter().chain(MODULES).chain(own.iter().copied());
        job.run(&Invocation {
            tool: job.tool("grub-mkimage")?,
            args: words.map(OsString::from).collect(),
            env: BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), self.epoch.to_string())]),
            inputs: BTreeMap::new(),
            mounts: BTreeMap::new(),
            work,
            privileged: false,
            foreign: None,
        })?;
        Ok(output)
    }

    /// Returns where `grub-mkimage` finds a platform's modules: those of an input are laid out in the work folder.
    fn modules(
        &self,
        job: &Job<'_>,
        source: &Source<'_>,
        work: &Path,
        platform: &Platform,
    ) -> Result<Option<String>, StepError> {
        let folder = modules_of(platform);
        let number = match (source.input(), job.toolbox()) {
            (Some(root), _) => {
                let here = work.join(platform.name);
                fs::create_dir(&here).on_file("make", &here)?;
                loaders::lay_out(job.objects, root, &folder, &here)?
            }
            (None, Some(toolbox)) => usize::from(toolbox.root().find(Path::new(&folder)).is_some()),
            (None, None) => usize::from(Path::new(&folder).is_dir()),
        };
        if number == 0 && platform.is_optional {
            job.remark(format!(
                "there are no images for {}: {} has no folder {folder} ({} on Debian)",
                platform.name,
                source.name(),
                platform.package
            ));
            return Ok(None);
        }
        if number == 0 {
            let what =
                format!("{} has no modules of GRUB for {}: no folder {folder}", source.name(), self.arch);
            return Err(StepError::spec(what).with_hint(format!("add {} to its packages", platform.package)));
        }
        Ok(Some(if source.input().is_some() { platform.name.to_owned() } else { folder }))
    }

    /// Makes the images of a platform: what is for media goes to `medium` or into the EFI partition.
    fn platform(
        &self,
        job: &Job<'_>,
        source: &Source<'_>,
        work: &Path,
        platform: &Platform,
        made: &mut Images,
    ) -> Result<(), StepError> {
        let Some(modules) = self.modules(job, source, work, platform)? else { return Ok(()) };
        let image = self.image(job, work, platform, &modules, Use::Network)?;
        made.network.push((network_name(platform), job.take(work, &image)?));
        let image = self.image(job, work, platform, &modules, Use::Medium)?;
        match platform.firmware {
            Firmware::Bios => {
                made.medium.push((ELTORITO.to_owned(), job.take(work, &image)?));
                let place = mbr_of(platform);
                let mbr = source.take(MBR, &[&place])?.ok_or_else(|| {
                    StepError::spec(format!("{} has no {place}", source.name()))
                        .with_hint(format!("on Debian it is in {}", platform.package))
                })?;
                made.medium.push((MBR.to_owned(), mbr));
            }
            Firmware::Uefi if self.signed.is_some() && platform.arch == self.arch => {}
            Firmware::Uefi => {
                let name = platform.arch.removable().unwrap_or_default();
                made.partition.push((format!("EFI/BOOT/{name}"), image));
            }
            Firmware::OpenFirmware => made.medium.push((POWERPC.to_owned(), job.take(work, &image)?)),
        }
        Ok(())
    }
}

impl Step for Grub {
    identity!(version VERSION);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let is_of_machine = are_of_machine(resolving);
        let platforms: Vec<&Platform> = self.arch.platforms().collect();
        let is_meant =
            |platform: &&&Platform| !platform.is_optional || Path::new(&modules_of(platform)).is_dir();
        let folders: Vec<String> =
            platforms.iter().filter(is_meant).map(|platform| modules_of(platform)).collect();
        let data: Vec<&str> = folders.iter().filter(|_| is_of_machine).map(String::as_str).collect();
        let packages: Vec<&str> =
            [MKIMAGE.package].into_iter().chain(platforms.iter().map(|platform| platform.package)).collect();
        let package = packages.join(" ");
        let mkimage = ToolSpec { data: &data, package: &package, ..MKIMAGE };
        let places = gconv_places();
        let data_places: Vec<&str> = places.iter().map(String::as_str).collect();
        let with_names = |spec| ToolSpec { data_places: &data_places, ..spec };
        let specs = [mkimage, with_names(MKFS), with_names(MCOPY), with_names(MMD)];
        let mut resolved = Resolved::with_tools(resolving, &specs)?;
        if is_of_machine {
            for platform in platforms.iter().filter(|platform| platform.firmware == Firmware::Bios) {
                let package = (platform.package, "or have the node take a toolbox");
                pin(resolving, &mut resolved, MBR, &[&mbr_of(platform)], package)?;
            }
            if let Some(signed) = &self.signed {
                signed.pin(resolving, &mut resolved)?;
            }
        }
        Ok(resolved)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let work = job.objects.work_dir()?;
        let source = Source::of(job)?;
        let mut made = Images::default();
        for platform in self.arch.platforms() {
            self.platform(job, &source, work.path(), platform, &mut made)?;
        }
        if let Some(signed) = &self.signed {
            signed.add(job, &source, (work.path(), &self.early_config(Use::Medium)), &mut made)?;
        }
        if !made.partition.is_empty() {
            let partition = Partition { epoch: self.epoch, files: &made.partition };
            made.medium.push((EFI.to_owned(), partition.make(job, work.path())?));
        }
        Ok(BTreeMap::from([
            ("medium".to_owned(), folder(job.objects, made.medium)?),
            ("network".to_owned(), folder(job.objects, made.network)?),
        ]))
    }
}
