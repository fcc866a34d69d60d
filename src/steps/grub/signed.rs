//! Boot loaders that somebody signed, for machines with Secure Boot: shim, which firmware verifies, and GRUB, which shim verifies.

use std::fs;
use std::path::Path;

use cache::Blob;
use cache::file::OnFile;
use graph::{Job, Resolved, Resolving, StepError};
use serde::Serialize;

use super::images::Images;
use crate::arch::Arch;
use crate::config::{Fields, SpecError};
use crate::steps::loaders::{LOADER, Source, pin};

/// The setting.
const KEY: &str = "signed";

/// Where the signed programs are, by paths in the packages' tree.
#[derive(Serialize)]
pub(super) struct Signed {
    shim: String,
    /// GRUB for media: it looks for its menu in `/boot/grub`.
    grub: String,
    /// GRUB for the network: it looks for its menu in `/grub` of the boot server.
    grub_net: Option<String>,
    /// shim's program that enrols keys.
    mok: Option<String>,
    /// What ends the names that these have, as `x64`.
    ending: String,
}

impl Signed {
    /// Reads the setting `signed`, a table.
    pub(super) fn read(fields: &Fields<'_>, arch: Arch) -> Option<Self> {
        let item = fields.get(KEY)?;
        let own = fields.check(Fields::of(item, "[signed]"))?;
        let text = |key| own.text(key).map(str::to_owned);
        let ending = arch.uefi_ending();
        if ending.is_none() {
            let error = SpecError::at(&item.origin, format!("machines of {arch} have no UEFI"));
            fields.wrong(error.label("signed boot loaders are for UEFI"));
        }
        let signed = Self {
            shim: own.required_text("shim").unwrap_or_default().to_owned(),
            grub: own.required_text("grub").unwrap_or_default().to_owned(),
            grub_net: text("grub_net"),
            mok: text("mok"),
            ending: ending.unwrap_or_default(),
        };
        fields.check(own.finish());
        Some(signed)
    }

    /// Returns each program by its name, and where it is.
    fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("shim", Some(&self.shim)),
            ("grub", Some(&self.grub)),
            ("grub_net", self.grub_net.as_ref()),
            ("mok", self.mok.as_ref()),
        ];
        all.into_iter().filter_map(|(name, path)| Some((name, path?.as_str())))
    }

    /// Pins those of this machine.
    pub(super) fn pin(&self, resolving: &Resolving<'_>, resolved: &mut Resolved) -> Result<(), StepError> {
        self.all().try_for_each(|(name, path)| {
            pin(
                resolving,
                resolved,
                &format!("{LOADER}{name}"),
                &[path],
                ("shim-signed", "or correct the table [signed]"),
            )
        })
    }

    fn take(source: &Source<'_>, name: &str, path: &str) -> Result<Blob, StepError> {
        source.take(&format!("{LOADER}{name}"), &[path])?.ok_or_else(|| {
            StepError::spec(format!("{} has no {path}, which signed.{name} names", source.name())).with_hint(
                "add the package that has it; on Debian these are shim-signed and grub-efi-amd64-signed",
            )
        })
    }

    /// Adds them to what is made: to the EFI partition, and beside the files of the netboot folder.
    ///
    /// `config` are the first commands for media: GRUB reads them beside itself, as it is on a partition of its own.
    pub(super) fn add(
        &self,
        job: &Job<'_>,
        source: &Source<'_>,
        (work, config): (&Path, &str),
        made: &mut Images,
    ) -> Result<(), StepError> {
        let Self { ending, .. } = self;
        let here = "signed.cfg";
        fs::write(work.join(here), config).on_file("write", work.join(here))?;
        made.partition.push(("boot/grub/grub.cfg".to_owned(), here.to_owned()));
        for (name, path) in self.all() {
            let blob = Self::take(source, name, path)?;
            // shim looks for the others beside itself, by these names.
            let [grub, mok] = ["grub", "mm"].map(|start| Some(format!("{start}{ending}.efi")));
            let (on_medium, in_folder) = match name {
                "shim" => {
                    let removable = format!("BOOT{}.EFI", ending.to_ascii_uppercase());
                    (Some(removable), Some(format!("shim{ending}.efi")))
                }
                "grub" => (grub, None),
                "grub_net" => (None, grub),
                _ => (mok.clone(), mok),
            };
            if let Some(file) = on_medium {
                let here = format!("signed-{name}");
                let bytes = job.objects.read(&blob.digest)?;
                fs::write(work.join(&here), bytes).on_file("write", work.join(&here))?;
                made.partition.push((format!("EFI/BOOT/{file}"), here));
            }
            if let Some(file) = in_folder.filter(|_| self.grub_net.is_some()) {
                made.network.push((file, blob));
            }
        }
        Ok(())
    }
}
