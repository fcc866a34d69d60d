//! `stagegraph extract`.

use std::path::PathBuf;

use clap::Args;
use graph::sandbox::Mode;

use super::args::finder;
use super::failure::{DONE, ENVIRONMENT, FAILED, Failure, WRONG, complain, print, with_causes};
use super::machine::{self, Machine};
use crate::audit::{self, Place, Set, Verdict};
use crate::extract::{self, ExtractError};
use crate::formats::iso9660::IsoError;
use crate::http::{Client, Patience};
use crate::publish;
use crate::report::{Reporter, Style};
use crate::spec::{Overrides, Spec};

/// Writes the netboot set of an ISO that is published already.
///
/// Kernel, initrd and squashfs are those of the ISO, byte for byte; the combined initrd, scripts for iPXE and a list of
/// checksums are made for them, with the arguments of the ISO's own menu. There are no boot loaders and no menus of
/// PXELINUX or GRUB in the set. It is then audited against the ISO. No store is used; while it runs, it needs room for the
/// set beside DIR.
#[derive(Debug, Args)]
pub(super) struct Extract {
    /// The ISO
    iso: PathBuf,
    /// The folder to write: new, empty, or written by stagegraph before
    dir: PathBuf,
}

impl Extract {
    pub(super) fn run(self) -> Result<u8, Failure> {
        if self.iso.to_string_lossy().contains("://") {
            let message = format!("{} is an address; fetch the ISO first", self.iso.display());
            return Err(Failure { code: WRONG, message });
        }
        // Without a slash at its end, which would show in what is printed.
        let dir: PathBuf = self.dir.components().collect();
        publish::check(&dir)?;
        let text = extract::spec(&self.iso).map_err(|error| {
            let code = match &error {
                ExtractError::Iso(IsoError::Read { .. }) => ENVIRONMENT,
                ExtractError::Iso(_) | ExtractError::NoMenu(_) | ExtractError::Token { .. } => FAILED,
            };
            Failure { code, message: with_causes(&error) }
        })?;
        let Some(name) = dir.file_name() else {
            let message = format!("{} is not a folder's name", dir.display());
            return Err(Failure { code: WRONG, message });
        };
        // Beside the folder, so that its files are links to what is made here.
        let work = Work(dir.with_file_name(format!(".{}.extract", name.to_string_lossy())));
        let failed =
            |error: std::io::Error| Failure::environment(format!("write {}: {error}", work.0.display()));
        std::fs::create_dir_all(&work.0).map_err(failed)?;
        let file = work.0.join("extract.toml");
        std::fs::write(&file, text).map_err(failed)?;
        let spec = Spec::load(&finder(), &file.to_string_lossy(), &Overrides::default())?;
        let store = cache::Store::open(&work.0.join("store"))?;
        let machine = Machine::new(Mode::Off)?;
        let reporter = Reporter::new(Style { json: false, verbose: false });
        let wanted: Vec<_> = spec.dag.nodes().keys().cloned().collect();
        let built = machine.build(&store, &spec, &wanted, &reporter, &machine::usual(spec.name.clone()))?;
        if let Some(code) = machine.stopped() {
            complain("error: stopped; nothing was written");
            return Ok(code);
        }
        if let Some(fault) = built.fault() {
            return Ok(machine::code(fault));
        }
        let published = publish::publish(&store, &spec, &built, &dir)?;
        reporter.published(&dir, &published);
        let set = Set::open(&dir.to_string_lossy(), &Client::new(Patience::default()))
            .map_err(|error| Failure::environment(with_causes(&error)))?;
        let iso = self.iso.to_string_lossy();
        let report = audit::audit(&iso, &Place::Local(self.iso.clone()), set)
            .map_err(|error| Failure::environment(with_causes(&error)))?;
        if report.verdict > Verdict::Warning {
            print(report.text(80).as_bytes())?;
            return Ok(if report.verdict == Verdict::Different { FAILED } else { ENVIRONMENT });
        }
        reporter.say("audit: the ISO and the netboot set match");
        for (check, finding) in report.findings() {
            reporter.say(&format!("note: {check}: {}: {}", finding.subject, finding.what));
        }
        Ok(DONE)
    }
}

/// A folder that goes away, whatever happens.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        // What a killed process left is removed by the next one.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
