//! `grub`: GRUB's images for BIOS and UEFI, from CD, from disk and over the network.
//!
//! Each image is made by an explicit `grub-mkimage` with all modules it needs inside: `grub-mkrescue` and
//! `grub-mkstandalone` take the clock and their input's times in.

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

use super::kind::{Inputs, Kind, Made, identity};
use crate::cmdline::CommandLine;

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 2;

/// Gives `eltorito` (BIOS, CD), `mbr` (BIOS, disk), `efi` (a FAT image for UEFI), and the network images
/// `net-bios` and `net-efi`.
pub(super) const KIND: Kind = Kind {
    name: "grub",
    inputs: Inputs::Named { required: &[], optional: &["tools"] },
    make: |fields, image| {
        let step = Grub { volume_id: image.volume_id(fields), epoch: image.timestamp.epoch() };
        Some(Made::new(step, &["eltorito", "mbr", "efi", "net-bios", "net-efi"]))
    },
};

/// Modules every image has.
const MODULES: [&str; 31] = [
    "all_video",
    "boot",
    "cat",
    "chain",
    "configfile",
    "echo",
    "fat",
    "gfxmenu",
    "gfxterm",
    "gfxterm_background",
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

/// What an image is for.
struct Target {
    output: &'static str,
    format: &'static str,
    modules: &'static [&'static str],
    network: bool,
}

const TARGETS: [Target; 4] = [
    Target {
        output: "eltorito",
        format: "i386-pc-eltorito",
        modules: &["biosdisk", "vbe", "vga"],
        network: false,
    },
    Target { output: "bootx64", format: "x86_64-efi", modules: &["efi_gop", "efi_uga"], network: false },
    Target {
        output: "net-bios",
        format: "i386-pc-pxe",
        modules: &["pxe", "tftp", "http", "vbe", "vga"],
        network: true,
    },
    Target {
        output: "net-efi",
        format: "x86_64-efi",
        modules: &["efinet", "tftp", "http", "efi_gop", "efi_uga"],
        network: true,
    },
];

/// The C library's character set in which FAT has names, and where the library looks that up; in the folders of Debian's multiarch,
/// Gentoo's multilib and of all others.
const GCONV: [&str; 12] = [
    "/usr/lib/x86_64-linux-gnu/gconv/IBM850.so",
    "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
    "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
    "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.d",
    "/usr/lib64/gconv/IBM850.so",
    "/usr/lib64/gconv/gconv-modules",
    "/usr/lib64/gconv/gconv-modules.cache",
    "/usr/lib64/gconv/gconv-modules.d",
    "/usr/lib/gconv/IBM850.so",
    "/usr/lib/gconv/gconv-modules",
    "/usr/lib/gconv/gconv-modules.cache",
    "/usr/lib/gconv/gconv-modules.d",
];

const MKIMAGE: ToolSpec<'_> = ToolSpec {
    name: "grub-mkimage",
    programs: &[],
    data: &["/usr/lib/grub/i386-pc", "/usr/lib/grub/x86_64-efi"],
    data_places: &[],
    package: "grub-common grub-pc-bin grub-efi-amd64-bin",
};
const MKFS: ToolSpec<'_> =
    ToolSpec { name: "mkfs.vfat", programs: &[], data: &[], data_places: &GCONV, package: "dosfstools" };
const MCOPY: ToolSpec<'_> =
    ToolSpec { name: "mcopy", programs: &["mtools"], data: &[], data_places: &GCONV, package: "mtools" };
const MMD: ToolSpec<'_> = ToolSpec { name: "mmd", ..MCOPY };
const SPECS: [ToolSpec<'_>; 4] = [MKIMAGE, MKFS, MCOPY, MMD];

/// The master boot record that loads the El Torito image from a disk.
const MBR: &str = "/usr/lib/grub/i386-pc/boot_hybrid.img";

/// FAT images are made larger than their content by this, for tables and folders.
const FAT_EXTRA: u64 = 512 << 10;

#[derive(Serialize)]
struct Grub {
    volume_id: String,
    epoch: u32,
}

impl Grub {
    /// The first commands of an image: find the medium, or the boot server, and read its menu.
    fn early_config(&self, target: &Target) -> String {
        if target.network {
            return "configfile $prefix/grub.cfg\n".to_owned();
        }
        let search = CommandLine::grub_search(&self.volume_id);
        format!("{search}set prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
    }

    fn mkimage_args(target: &Target) -> Vec<OsString> {
        let directory = match target.format {
            "x86_64-efi" => "/usr/lib/grub/x86_64-efi",
            _ => "/usr/lib/grub/i386-pc",
        };
        let prefix = if target.network { "/grub" } else { "/boot/grub" };
        let config = format!("early-{}.cfg", target.output);
        let output = format!("{}.img", target.output);
        let fixed = ["-d", directory, "-O", target.format, "-p", prefix, "-c", &config, "-o", &output];
        fixed.into_iter().chain(MODULES).chain(target.modules.iter().copied()).map(OsString::from).collect()
    }

    /// Packs the UEFI image into a FAT file system, as firmware looks for it.
    fn efi_partition(&self, job: &Job<'_>, work: &Path) -> Result<(), StepError> {
        let environment = BTreeMap::from([
            ("SOURCE_DATE_EPOCH".to_owned(), self.epoch.to_string()),
            ("MTOOLS_SKIP_CHECK".to_owned(), "1".to_owned()),
        ]);
        let run = |tool: &str, words: &[&str]| {
            job.run(&Invocation {
                tool: job.tool(tool)?,
                args: words.iter().map(OsString::from).collect(),
                env: environment.clone(),
                inputs: BTreeMap::new(),
                mounts: BTreeMap::new(),
                work,
                privileged: false,
            })
        };
        let image = work.join("bootx64.img");
        let content = fs::metadata(&image).on_file("read", &image)?.len();
        let kib = (content + FAT_EXTRA).div_ceil(64 << 10) * 64;
        let serial = format!("{:08x}", self.epoch);
        let kib = kib.to_string();
        run("mkfs.vfat", &["-C", "--invariant", "-i", &serial, "-n", "ESP", "-F", "12", "efi.img", &kib])?;
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.epoch.into());
        fs::File::options()
            .write(true)
            .open(&image)
            .and_then(|file| file.set_modified(time))
            .on_file("date", &image)?;
        run("mmd", &["-i", "efi.img", "::EFI", "::EFI/BOOT"])?;
        run("mcopy", &["-m", "-i", "efi.img", "bootx64.img", "::EFI/BOOT/BOOTX64.EFI"])
    }
}

impl Step for Grub {
    identity!(version VERSION);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        Ok(Resolved::with_tools(resolving, &SPECS)?)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let work = job.objects.work_dir()?;
        for target in &TARGETS {
            let config = work.path().join(format!("early-{}.cfg", target.output));
            fs::write(&config, self.early_config(target)).on_file("write", &config)?;
            job.run(&Invocation {
                tool: job.tool("grub-mkimage")?,
                args: Self::mkimage_args(target),
                env: BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), self.epoch.to_string())]),
                inputs: BTreeMap::new(),
                mounts: BTreeMap::new(),
                work: work.path(),
                privileged: false,
            })?;
        }
        self.efi_partition(job, work.path())?;
        let mbr = match job.toolbox() {
            Some(toolbox) => toolbox.read(job.objects, Path::new(MBR))?.ok_or_else(|| {
                StepError::spec(format!("the toolbox has no {MBR}, which is in grub-pc-bin on Debian"))
            })?,
            None => fs::read(MBR).on_file("read", MBR)?,
        };
        let mut outputs = BTreeMap::from([("mbr".to_owned(), job.objects.put(&mbr)?.into())]);
        for name in ["eltorito", "efi", "net-bios", "net-efi"] {
            outputs.insert(name.to_owned(), job.take(work.path(), &format!("{name}.img"))?.into());
        }
        Ok(outputs)
    }
}
