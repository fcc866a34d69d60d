//! Programs of the machines that boot the image, run on this one.

use std::path::PathBuf;

use graph::sandbox::Foreign;

use crate::arch::Arch;
use crate::config::{Fields, SpecError};

/// Returns the program that runs those of an architecture here, which is noted as an error where there is none; nothing where the machine
/// does it by itself.
pub(super) fn emulator(fields: &Fields<'_>, arch: Arch) -> Option<String> {
    let machine = Arch::of_machine();
    if machine.runs(arch) {
        return None;
    }
    let found = arch.emulator();
    if found.is_none() {
        let error = SpecError::at(fields.origin(), format!("no program runs those for {arch} on {machine}"));
        fields.wrong(error.label("import a root that was made elsewhere (step = \"import\")"));
    }
    found
}

/// Returns how programs of an architecture run in a sandbox: by `interpreter`, a path outside of it.
pub(super) fn foreign(arch: Arch, interpreter: PathBuf) -> Option<Foreign> {
    let (magic, mask) = arch.program_start()?;
    Some(Foreign { name: arch.name().to_owned(), interpreter, magic: magic.to_vec(), mask: mask.to_vec() })
}
