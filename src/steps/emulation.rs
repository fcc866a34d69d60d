//! Programs of the machines that boot the image, run on this one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cache::RootTree;
use cache::file::OnFile;
use graph::sandbox::Foreign;
use graph::{Job, StepError};

use crate::arch::Arch;
use crate::config::{Fields, SpecError};

/// Returns the program that runs those of an architecture here, which is noted as an error where there is none; nothing where the machine
/// does it by itself.
pub(super) fn emulator(fields: &Fields<'_>, arch: Arch) -> Option<String> {
    let machine = Arch::of_machine();
    // PCs of 64 bits run programs of 32; of other machines, not all do.
    if machine == arch || machine == Arch::Amd64 && arch.is_pc() {
        return None;
    }
    let found = arch.emulator();
    if found.is_none() {
        let error = SpecError::at(fields.origin(), format!("no program runs those for {arch} on {machine}"));
        fields.wrong(error.label("import a root that was made elsewhere (step = \"import\")"));
    }
    found
}

/// Lays out the program that runs others, from a tree with packages: links are followed inside the tree alone. Returns where it is.
pub(super) fn lay_out(
    job: &Job<'_>,
    root: &RootTree,
    emulator: &str,
    folder: &Path,
) -> Result<PathBuf, StepError> {
    let inside = Path::new("/usr/bin").join(emulator);
    let bytes = root.read(job.objects, &inside)?.ok_or_else(|| {
        StepError::spec(format!("the tools of {} have no {}", job.node, inside.display()))
            .with_hint("add qemu-user-static to their packages")
    })?;
    let place = folder.join(format!(".{emulator}"));
    fs::write(&place, bytes).on_file("write", &place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).on_file("chmod", &place)?;
    Ok(place)
}

/// Returns how programs of an architecture run in a sandbox: by `interpreter`, a path outside of it.
pub(super) fn foreign(arch: Arch, interpreter: PathBuf) -> Option<Foreign> {
    let (magic, mask) = arch.program_start()?;
    Some(Foreign { name: arch.name().to_owned(), interpreter, magic: magic.to_vec(), mask: mask.to_vec() })
}
