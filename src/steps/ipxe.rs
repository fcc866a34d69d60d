//! `ipxe`: the scripts that boot the system from an HTTP server.
//!
//! Addresses are relative: a script works wherever it lies, beside the files it names. A parent script
//! may set `keymap` and `cmdline`.

mod verify;

use std::collections::BTreeMap;

use cache::Output;
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::boot::{LEAN, decode, decode_lean};
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::menu::Menu;
use crate::arch::Arch;
use crate::boot::{BootEntry, Kernels};
use crate::cmdline::{Choice, KEYMAP, Medium, NFS_OPTIONS, SQUASHFS_IN_INITRD, Token};
use crate::steps::netboot::{HTTP_ALONE, Names};

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 7;

/// Gives `beside`, the script that lies beside the ISO, and `folder`, the scripts of the netboot folder.
pub(super) const KIND: Kind = Kind {
    name: "ipxe",
    inputs: Inputs::Named { required: &["facts"], optional: &[LEAN, "ways"] },
    make: |fields, image| {
        let step = Ipxe {
            iso: image.iso_name(),
            menu: Menu::of(fields, image),
            keymap: has_keymap(&image.bootargs),
            verify: fields.bool("verify", false),
        };
        Some(Made::new(step, &["beside/", "folder/"]))
    },
};

/// The netboot folder's first script.
pub(super) const CHOOSER: &str = "boot.ipxe";

/// What iPXE looks for beside itself since 2023, where it was started by UEFI from there: no DHCP server has to know of scripts then. What
/// DHCP says may have it look at a TFTP server, so that the folder is noted before.
pub(super) const AUTOEXEC: (&str, &str) =
    ("autoexec.ipxe", "#!ipxe\nset here ${cwduri} ||\ndhcp\nchain ${here}boot.ipxe || shell\n");

fn has_keymap(bootargs: &[Token]) -> bool {
    bootargs.iter().any(|token| token.as_str() == KEYMAP)
}

#[derive(Serialize)]
struct Ipxe {
    iso: String,
    menu: Menu,
    keymap: bool,
    /// Whether scripts have iPXE verify what they load.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    verify: bool,
}

/// How a script gets the squashfs to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// iPXE puts it into the initrd.
    Inject,
    /// It is inside the combined initrd.
    Combined,
    /// The initramfs fetches it.
    Http,
    /// As [`How::Http`], with the lean initrd.
    Lean,
    /// The initramfs mounts the folder that it is in.
    Nfs {
        /// With the lean initrd.
        is_lean: bool,
    },
}

impl Ipxe {
    /// Renders a script for every kernel, each with the ways `how`, the first one by default.
    fn script(&self, kernels: &Kernels, names: &Names, how: How) -> Result<String, StepError> {
        let mut text = format!("#!ipxe\n# {}\n\n", self.menu.title());
        if self.keymap {
            text.push_str(&format!("isset ${{keymap}} || set keymap {KEYMAP}\n"));
        }
        text.push_str("isset ${cmdline} || set cmdline\n");
        match how {
            How::Nfs { .. } => text.push_str(&format!(
                "# The squashfs stays on a server: a parent script sets nfs to HOST:/FOLDER, the folder as the server exports it, and\n\
                 # nfsopts to what else mounting takes.\n\
                 isset ${{nfs}} || goto failed_nfs\n\
                 isset ${{nfsopts}} || set nfsopts {NFS_OPTIONS}\n\n",
            )),
            How::Http | How::Lean => text.push_str(
                "# The initramfs needs the folder's whole address. iPXE knows it since 2024; for older ones, a parent\n\
                 # script sets base, without a slash at its end.\n\
                 isset ${base} || isset ${cwduri} || goto failed_base\n\
                 # Its own ends in a slash; the dot stands for the folder, so that no name begins with two.\n\
                 isset ${base} || set base ${cwduri}.\n\n",
            ),
            How::Inject | How::Combined => text.push('\n'),
        }
        if self.verify {
            text.push_str(verify::HEAD);
        }
        if let [_, _, ..] = &kernels.0[..] {
            text.push_str(&format!("menu {}\n", self.menu.title()));
            for entry in &kernels.0 {
                text.push_str(&format!("item {0} {0}\n", entry.label));
            }
            text.push_str("choose --timeout 10000 label && goto ${label} || goto failed_choice\n\n");
        }
        for entry in &kernels.0 {
            text.push_str(&self.boot(entry, names, how)?);
        }
        if self.verify {
            text.push_str(verify::TAIL);
        }
        for (label, message) in [
            ("failed_kernel", "The kernel could not be loaded."),
            ("failed_initrd", "The initrd could not be loaded."),
            ("failed_squashfs", "The squashfs could not be loaded."),
            (
                "failed_base",
                "This iPXE does not tell the folder's address. Set base to it, without a slash at its end.",
            ),
            (
                "failed_nfs",
                "Nobody says where the squashfs is. Set nfs to HOST:/FOLDER, the exported folder with image.squashfs.",
            ),
            ("failed_choice", "No kernel was chosen."),
            ("failed_boot", "The kernel could not be started."),
            ("failed_verify", verify::REFUSED),
        ] {
            let jumps = [format!("goto {label}\n"), format!("goto {label} ")];
            if jumps.iter().any(|jump| text.contains(jump)) {
                text.push_str(&format!(":{label}\necho {message}\ngoto failed\n\n"));
            }
        }
        text.push_str(":failed\necho Here is a shell; exit goes on with the next boot device.\nshell\n");
        Ok(text)
    }

    fn boot(&self, entry: &BootEntry, names: &Names, how: How) -> Result<String, StepError> {
        let label = &entry.label;
        let url = format!("${{base}}/{}", names.squashfs());
        let medium = match how {
            How::Inject | How::Combined => Medium::InInitrd,
            How::Http | How::Lean => Medium::Http { url },
            How::Nfs { .. } => Medium::Nfs { options: "${nfsopts}".to_owned(), folder: "${nfs}".to_owned() },
        };
        let line = self.menu.line(entry, &medium, Choice::Default, None)?.ipxe();
        let kernel = names.kernel(label);
        let initrd = match how {
            How::Combined => names.combined(label),
            How::Lean | How::Nfs { is_lean: true } => names.lean(label),
            How::Inject | How::Http | How::Nfs { is_lean: false } => names.initrd(label),
        };
        // UEFI kernels and old versions of iPXE find the initrd by this name.
        let mut loaded = vec![kernel.clone(), initrd.clone()];
        let mut text = format!(
            ":{label}\nimgfree\nkernel {kernel} initrd={initrd} {line} || goto failed_kernel\n\
             initrd {initrd} || goto failed_initrd\n"
        );
        if how == How::Inject {
            let squashfs = names.squashfs();
            text.push_str(&format!("initrd {squashfs} /{SQUASHFS_IN_INITRD} || goto failed_squashfs\n"));
            loaded.push(squashfs);
        }
        // Nothing checks what the initramfs gets by itself, unless it has the kernel do it.
        let is_fetched = matches!(how, How::Http | How::Lean | How::Nfs { .. });
        let fetched = (is_fetched && entry.initramfs.verity.checks.is_none()).then(|| names.squashfs());
        text.push_str("imgstat\n");
        if self.verify {
            text.push_str(&verify::images(label, &loaded, fetched.as_deref()));
        }
        text.push_str("boot || goto failed_boot\n\n");
        Ok(text)
    }

    /// Renders the netboot folder's first script: what works best with the firmware at hand.
    fn chooser(&self) -> String {
        if self.verify {
            return verify::chooser(self.menu.title());
        }
        format!(
            "#!ipxe\n# {}\n\n\
             # By BIOS, iPXE puts the squashfs into the initrd. By UEFI, not every version can.\n\
             iseq ${{platform}} efi && chain combined.ipxe || chain inject.ipxe || goto failed\n\n\
             :failed\necho The boot script could not be loaded.\nshell\n",
            self.menu.title()
        )
    }
}

impl Step for Ipxe {
    identity!(version VERSION);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let kernels = decode(job)?;
        if !kernels.0.iter().any(|entry| entry.may_be(Arch::has_ipxe)) {
            job.remark("there are no scripts for iPXE, which does not exist for these machines");
            let nothing = || folder(job.objects, []);
            return Ok(BTreeMap::from([
                ("beside".to_owned(), nothing()?),
                ("folder".to_owned(), nothing()?),
            ]));
        }
        let several = kernels.0.len() > 1;
        let folder_names = Names::folder();
        let beside_names = Names::beside(&self.iso, several);
        let is_inside = match job.inputs.contains_key("ways") {
            true => job.objects.read(&job.blob("ways")?.digest)? != HTTP_ALONE,
            false => true,
        };
        let mut scripts = BTreeMap::new();
        let mut beside_how = Some(How::Inject);
        if is_inside {
            scripts.insert(CHOOSER, self.chooser());
            scripts.insert("inject.ipxe", self.script(&kernels, &folder_names, How::Inject)?);
            scripts.insert("combined.ipxe", self.script(&kernels, &folder_names, How::Combined)?);
        }
        if kernels.have_livenet() {
            let http = self.script(&kernels, &folder_names, How::Http)?;
            if !is_inside {
                scripts.insert(CHOOSER, http.clone());
                beside_how = Some(How::Http);
            }
            scripts.insert("http.ipxe", http);
        } else {
            job.remark("there is no http.ipxe: the initramfs has no livenet module");
            if !is_inside {
                job.remark("no script boots from the network: the squashfs is too large for an initrd, and the initramfs cannot fetch it");
                beside_how = None;
            }
        }
        let lean = kernels.all_lean(decode_lean(job)?);
        let is_lean = !lean.0.is_empty();
        if is_lean && lean.have_livenet() {
            scripts.insert("lean.ipxe", self.script(&kernels, &folder_names, How::Lean)?);
        }
        for entry in kernels.0.iter().filter(|entry| !entry.initramfs.nfs_lacks.is_empty()) {
            let lacks = entry.initramfs.nfs_lacks.join(" and no ");
            job.remark(format!("there is no nfs.ipxe: the initrd {} has no {lacks}", entry.label));
        }
        if kernels.mount_nfs() {
            scripts.insert("nfs.ipxe", self.script(&kernels, &folder_names, How::Nfs { is_lean })?);
        }
        if scripts.contains_key(CHOOSER) {
            let (name, text) = AUTOEXEC;
            scripts.insert(name, text.to_owned());
        }
        let mut files = Vec::new();
        for (name, text) in scripts {
            files.push((name.to_owned(), job.objects.put(text.as_bytes())?));
        }
        let mut beside = Vec::new();
        if let Some(how) = beside_how {
            let text = self.script(&kernels, &beside_names, how)?;
            beside.push((format!("{}.ipxe", self.iso), job.objects.put(text.as_bytes())?));
        }
        Ok(BTreeMap::from([
            ("beside".to_owned(), folder(job.objects, beside)?),
            ("folder".to_owned(), folder(job.objects, files)?),
        ]))
    }
}
