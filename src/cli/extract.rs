//! `stagegraph extract`.

use std::path::{Path, PathBuf};

use clap::Args;
use graph::sandbox::Mode;

use super::args::{finder, known_checks, machine};
use super::audit::trusted;
use super::failure::{DONE, ENVIRONMENT, FAILED, Failure, WRONG, code_of, note, print, stopped};
use crate::audit::{self, ReleaseError, Verdict};
use crate::extract::{self, ExtractError, Extracted, MenuError, Wanted};
use crate::formats::iso9660::IsoError;
use crate::report::{Reporter, Style};

/// Writes the netboot set of an ISO that is published already.
///
/// Kernel, initrd and squashfs are those of the ISO, byte for byte; the combined initrd, scripts for iPXE and a list of
/// checksums are made for them, with the arguments of the ISO's own menu. There are no boot loaders and no menus of
/// PXELINUX or GRUB in the set. It is audited against the ISO before anything is written to DIR; whether the ISO itself boots
/// is of no weight there. No store is used; while it runs, it needs room for the set beside DIR.
#[derive(Debug, Args)]
pub(super) struct Extract {
    /// The ISO
    iso: PathBuf,
    /// The folder to write: new, empty, or written by stagegraph before
    dir: PathBuf,
    /// Take differences of this check of the audit for warnings; may be repeated
    #[arg(long, value_name = "CHECK")]
    allow: Vec<String>,
    /// Public keys of OpenPGP; nothing of the ISO is used unless they signed it, or a list beside it. May be repeated
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
}

impl Extract {
    pub(super) fn run(self) -> Result<u8, Failure> {
        if self.iso.to_string_lossy().contains("://") {
            let message = format!("{} is an address; fetch the ISO first", self.iso.display());
            return Err(Failure::wrong(message));
        }
        known_checks(&self.allow)?;
        if let Some(keyring) = trusted(&self.keyring)?.keyring {
            let (_, by) = audit::verify(&self.iso, &keyring).map_err(|error| match error {
                ReleaseError::Read { .. } => Failure::of(ENVIRONMENT, &error),
                ReleaseError::Bad { .. } | ReleaseError::Unsigned(_) => Failure::of(FAILED, &error)
                    .with_hint("fetch the ISO and what is signed beside it again: X.iso.asc, X.iso.DIGESTS, X.iso.sha256"),
            })?;
            let names: Vec<String> = by.iter().map(|path| path.display().to_string()).collect();
            note(&format!("the ISO is signed: {}", names.join(", ")));
        }
        // Without a slash at its end, which would show in what is printed.
        write(&self.iso, &self.dir.components().collect::<PathBuf>(), &self.allow)
    }
}

/// Writes the set of an ISO; returns the exit code.
pub(super) fn write(iso: &Path, dir: &Path, allow: &[String]) -> Result<u8, Failure> {
    let reporter = Reporter::new(Style { json: false, verbose: false });
    let machine = machine(Mode::Off)?;
    let wanted = Wanted { iso, dir, allow };
    let report = match extract::extract(wanted, &finder(), &machine, &reporter) {
        Ok(Extracted::Written(report)) => report,
        Ok(Extracted::Refused(report)) => {
            print(report.text(80).as_bytes())?;
            reporter.say("nothing was written");
            return Ok(if report.verdict == Verdict::Different { FAILED } else { ENVIRONMENT });
        }
        Ok(Extracted::Failed(fault)) => return Ok(code_of(fault)),
        Ok(Extracted::Stopped) => {
            return Ok(stopped(machine.signal().unwrap_or(0), "nothing was written"));
        }
        Err(error) => return Err(failure(error)),
    };
    reporter.say("audit: the ISO and the netboot set match");
    for (check, finding) in report.findings() {
        reporter.say(&format!("note: {check}: {}: {}", finding.subject, finding.what));
    }
    Ok(DONE)
}

fn failure(error: ExtractError) -> Failure {
    let code = match error {
        ExtractError::Spec(error) => return error.into(),
        ExtractError::Publish(error) => return error.into(),
        ExtractError::NoName(_) => WRONG,
        ExtractError::Menu(MenuError::Iso(IsoError::Read { .. })) => ENVIRONMENT,
        ExtractError::Menu(_) => FAILED,
        ExtractError::File(_) | ExtractError::Store(_) | ExtractError::Set(_) | ExtractError::Gather(_) => {
            ENVIRONMENT
        }
    };
    Failure::of(code, &error)
}
