//! `netboot`: the files that boot servers serve.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cache::file::OnFile;
use cache::objects::Part;
use cache::{Blob, Output};
use graph::{Job, Resolved, Resolving, Step, StepError, Toolbox};
use serde::Serialize;

use super::boot::{check_loaders, given};
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::menu::{Menu, least_ram};
use crate::boot::{BootEntry, Kernels};
use crate::cmdline::{Medium, SQUASHFS, SQUASHFS_IN_INITRD};
use crate::formats::cpio;
use crate::memory::Load;

/// The version of the bytes: raised in the commit that changes them, with the digests in `pins.rs`.
pub(super) const VERSION: u32 = 3;

/// Gives `beside`, the loose files that lie beside the ISO, `folder`, all that a boot server serves, and `ways`, how the squashfs
/// gets to the kernel.
pub(super) const KIND: Kind = Kind {
    name: "netboot",
    inputs: Inputs::Named {
        required: &["kernel", "initrd", "facts", "squashfs"],
        optional: &["lean", "net-bios", "net-efi", "tools"],
    },
    make: |fields, image| {
        let step = Netboot {
            iso: image.iso_name(),
            menu: Menu::of(fields, image),
            loaders: fields.bool("loaders", true),
        };
        Some(Made::new(step, &["beside/", "folder/", "ways"]))
    },
};

/// Some boot loaders and TFTP servers count bytes with 31 bits.
const TFTP_LIMIT: u64 = 1 << 31;

/// A boot loader of the host: its name in the netboot folder, and where packages put it.
struct Loader {
    name: &'static str,
    places: [&'static str; 2],
    package: &'static str,
}

const fn loader(
    name: &'static str,
    debian: &'static str,
    gentoo: &'static str,
    package: &'static str,
) -> Loader {
    Loader { name, places: [debian, gentoo], package }
}

/// The package of iPXE's loaders.
const IPXE: &str = "ipxe";

const LOADERS: [Loader; 7] = [
    loader("pxelinux.0", "/usr/lib/PXELINUX/pxelinux.0", "/usr/share/syslinux/pxelinux.0", "pxelinux"),
    loader(
        "ldlinux.c32",
        "/usr/lib/syslinux/modules/bios/ldlinux.c32",
        "/usr/share/syslinux/ldlinux.c32",
        "syslinux-common",
    ),
    loader(
        "libutil.c32",
        "/usr/lib/syslinux/modules/bios/libutil.c32",
        "/usr/share/syslinux/libutil.c32",
        "syslinux-common",
    ),
    loader(
        "menu.c32",
        "/usr/lib/syslinux/modules/bios/menu.c32",
        "/usr/share/syslinux/menu.c32",
        "syslinux-common",
    ),
    loader("undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe", "/usr/share/ipxe/undionly.kpxe", IPXE),
    loader("ipxe.efi", "/usr/lib/ipxe/ipxe.efi", "/usr/share/ipxe/ipxe.efi", IPXE),
    loader("snponly.efi", "/usr/lib/ipxe/snponly.efi", "/usr/share/ipxe/snponly.efi", IPXE),
];

/// What `ways` says: the squashfs may be inside the initrd, or it has to be fetched.
const WITH_INITRD: &[u8] = b"initrd http\n";
pub(super) const HTTP_ALONE: &[u8] = b"http\n";

/// GRUB's images among the inputs, and what they are called.
const LOADER_INPUTS: [(&str, &str); 2] =
    [("net-bios", "grub/i386-pc/core.0"), ("net-efi", "grub/x86_64-efi/core.efi")];

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

    /// Takes the loaders that are wanted into the store, from the toolbox or from this machine.
    fn loaders(
        &self,
        job: &Job<'_>,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, Blob)>, StepError> {
        let of_toolbox = |toolbox: &Toolbox, loader: &Loader| {
            let places = loader.places.map(Path::new);
            let found = places.into_iter().find_map(|path| toolbox.read(job.objects, path).transpose());
            let bytes = found.transpose()?.ok_or_else(|| {
                let Loader { name, places, package } = loader;
                let places = places.join(" nor at ");
                StepError::spec(format!("the toolbox has no boot loader {name} at {places}")).with_hint(
                    format!(
                        "add {package} to its packages; or set netboot.loaders = false to go without loaders"
                    ),
                )
            })?;
            Ok((loader.name.to_owned(), job.objects.put(&bytes)?))
        };
        if let Some(toolbox) = job.toolbox() {
            return LOADERS
                .iter()
                .filter(|loader| self.loaders && is_wanted(loader.name))
                .map(|loader| of_toolbox(toolbox, loader))
                .collect();
        }
        let of_machine = |(name, path): (&String, &PathBuf)| {
            let blob = job.objects.put(&std::fs::read(path).on_file("read", path)?)?;
            let pinned = job.action.sources.get(&format!("loader {name}"));
            if pinned.is_none_or(|pinned| !pinned.starts_with(&blob.digest.to_string())) {
                return Err(cache::StoreError::Changed { path: path.clone() }.into());
            }
            Ok((name.clone(), blob))
        };
        job.resolved.paths.iter().filter(|(name, _)| is_wanted(name)).map(of_machine).collect()
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

    fn grub(&self, kernels: &Kernels) -> Result<String, StepError> {
        let names = Names::folder();
        let paths =
            |label: &str| (format!("/{}", names.kernel(label)), format!("/{}", names.combined(label)));
        self.menu.grub(kernels, &Medium::InInitrd, None, &paths)
    }
}

/// Where versions of packages are remembered. In the space before this one, what was asked when a signal came was of no version.
const VERSIONS: &str = "package-versions 2";

/// Returns the version of the package that a file belongs to, as the host's package manager knows it; `None` where it knows of none, or
/// there is no such manager.
///
/// # Errors
/// The manager could not be asked, or did not come to an end: then nothing is known.
fn package_version(path: &Path) -> Result<Option<String>, StepError> {
    let output = |program: &str, args: &[&str]| {
        let unknown =
            |why: String| StepError::environment(format!("{program} cannot be asked for versions: {why}"));
        let output = match Command::new(program).args(args).env("LC_ALL", "C").output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            output => output.map_err(|error| unknown(error.to_string()))?,
        };
        if output.status.code().is_none() {
            return Err(unknown(output.status.to_string()));
        }
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(text))
    };
    let Some(path) = path.to_str() else { return Ok(None) };
    match output("dpkg-query", &["-S", path])? {
        Some(found) => match found.split_once(": ") {
            Some((package, _)) => output("dpkg-query", &["-W", "-f", "${Package} ${Version}", package]),
            None => Ok(None),
        },
        None => output("qfile", &["-qCv", path]),
    }
}

impl Step for Netboot {
    identity!(version VERSION);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let mut resolved = Resolved::default();
        if resolving.has_toolbox {
            return Ok(resolved);
        }
        for Loader { name, places, package } in LOADERS.iter().filter(|_| self.loaders) {
            let path = places.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
                StepError::environment(format!("the boot loader {name} is not at {}", places.join(" nor at ")))
                    .with_hint(format!(
                        "on Debian: apt-get install {package}; or set netboot.loaders = false to go without loaders"
                    ))
            })?;
            let digest = resolving.objects.file_digest(&path)?;
            // Asking the package manager takes a while; the answer holds as long as the file does.
            let key = format!("{} {digest}", path.display());
            let version = match resolving.objects.memo(VERSIONS, &key)? {
                Some(version) => version,
                None => {
                    let version = package_version(&path)?.unwrap_or_else(|| "unknown version".to_owned());
                    resolving.objects.set_memo(VERSIONS, &key, &version)?;
                    version
                }
            };
            resolved.sources.insert(format!("loader {name}"), format!("{digest} {version}"));
            resolved.paths.insert((*name).to_owned(), path);
        }
        Ok(resolved)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let kernels = given(job)?;
        if self.loaders || LOADER_INPUTS.iter().any(|(input, _)| job.inputs.contains_key(*input)) {
            check_loaders(&kernels)?;
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
        let is_ipxe = |name: &str| LOADERS.iter().any(|own| own.name == name && own.package == IPXE);
        let is_wanted = |name: &str| is_inside || is_ipxe(name);
        files.extend(self.loaders(job, is_wanted)?);
        if self.loaders && is_inside {
            let text = self.pxelinux(&kernels, squashfs)?;
            files.push(("pxelinux.cfg/default".to_owned(), job.objects.put(text.as_bytes())?));
        }
        let mut has_grub = false;
        for (input, name) in LOADER_INPUTS {
            if is_inside && job.inputs.contains_key(input) {
                files.push((name.to_owned(), job.blob(input)?));
                has_grub = true;
            }
        }
        if has_grub {
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
