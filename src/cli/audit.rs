//! `stagegraph audit`.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use trust::cms::{Authorities, CertificateError};
use trust::dsse::{PublicKey, PublicKeyError};
use trust::openpgp::{Keyring, KeyringError};

use super::args::known_checks;
use super::failure::{DONE, ENVIRONMENT, FAILED, Failure, WRONG, print};
use crate::audit::{self, Place, Report, Set, SetError, Trusted, Verdict};
use crate::http::{Client, Patience};

/// Compares a published ISO with a published netboot set, whoever made them.
///
/// Kernel, initrd and squashfs are read out of the ISO itself and compared byte for byte with the loose files and with
/// what is inside the combined initrd; every command line is compared with what the initramfs in the initrd needs; and
/// everything that scripts, menus, lists of checksums and a manifest name is looked at. Nothing is built and no store is
/// used. docs/audit.md has all checks.
///
/// Exit codes: 0 they match; 1 there is a difference; 2 the command line is wrong; 3 something could not be read.
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// What is published for a spec, or lies in a folder; or an ISO (a file or an http(s) address), and a NETBOOT set
    #[arg(value_name = "SPEC|FOLDER|ISO")]
    first: String,
    /// A folder, an .ipxe script, or the http(s) address of either
    #[arg(value_name = "NETBOOT")]
    netboot: Option<String>,
    /// Where images are published, with SPEC: DIR/<spec>/
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Take differences of this check for warnings; may be repeated
    #[arg(long, value_name = "CHECK")]
    allow: Vec<String>,
    /// Public keys of OpenPGP that releases are signed with; then all that boots has to be signed. May be repeated
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// Certificates of who says who may sign code for iPXE; then all that iPXE loads has to be signed so. May be repeated
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// A folder of public keys of builders; then some of them have to say what the set is made of
    #[arg(long, value_name = "DIR")]
    builders: Option<PathBuf>,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 1, requires = "builders", value_parser = clap::value_parser!(u16).range(1..))]
    threshold: u16,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Columns of a report where standard output is no terminal.
const WIDTH: usize = 80;

impl Audit {
    pub(super) fn run(self) -> Result<u8, Failure> {
        known_checks(&self.allow)?;
        let trusted = Trusted {
            authorities: authorities(&self.ca)?,
            builders: self.builders.as_deref().map(builders).transpose()?,
            threshold: self.threshold.into(),
            ..trusted(&self.keyring)?
        };
        let client = Client::new(Patience::default());
        let (iso, netboot) = match &self.netboot {
            Some(netboot) => (self.first.clone(), netboot.clone()),
            None => self.published()?,
        };
        let place = place(&iso, &client)?;
        let set = Set::open(&netboot, &client).map_err(set_failure)?;
        let mut report =
            audit::audit(&iso, &place, set, &trusted).map_err(|error| Failure::of(ENVIRONMENT, &error))?;
        report.allow(&self.allow);
        self.show(&report)
    }

    fn show(&self, report: &Report) -> Result<u8, Failure> {
        let text = if self.json {
            let mut text = serde_json::to_string_pretty(report)
                .map_err(|error| Failure::environment(error.to_string()))?;
            text.push('\n');
            text
        } else {
            report.text(WIDTH)
        };
        print(text.as_bytes())?;
        Ok(match report.verdict {
            Verdict::None | Verdict::Ok | Verdict::Warning => DONE,
            Verdict::Different => FAILED,
            Verdict::Unreadable => ENVIRONMENT,
        })
    }

    /// Finds the ISO that was published for a spec; the set is the whole folder.
    fn published(&self) -> Result<(String, String), Failure> {
        let wrong = |message| Failure::wrong(message);
        let named = Path::new(&self.first);
        let folder = if named.is_dir() {
            named.to_owned()
        } else if named.extension().is_some_and(|extension| extension == "iso") || self.first.contains("://")
        {
            return Err(wrong(format!(
                "{} is an ISO; name the netboot set to compare it with as well",
                self.first
            )));
        } else {
            self.out.join(named.file_stem().unwrap_or_default())
        };
        let entries = std::fs::read_dir(&folder).map_err(|error| {
            wrong(format!(
                "nothing is published for {}: {}: {error}; build it, or name an ISO and a netboot set",
                self.first,
                folder.display()
            ))
        })?;
        let mut isos: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "iso"))
            .collect();
        isos.sort();
        match &isos[..] {
            [iso] => Ok((iso.display().to_string(), folder.display().to_string())),
            [] => Err(wrong(format!("{} has no ISO; name one and a netboot set", folder.display()))),
            several => Err(wrong(format!(
                "{} has {} ISOs; name one of them and a netboot set",
                folder.display(),
                several.len()
            ))),
        }
    }
}

/// Reads whom to believe.
pub(super) fn trusted(keyrings: &[PathBuf]) -> Result<Trusted, Failure> {
    let keyring = match keyrings {
        [] => None,
        files => Some(Arc::new(Keyring::read(files).map_err(|error| {
            let code = if matches!(error, KeyringError::Read { .. }) { ENVIRONMENT } else { WRONG };
            Failure::of(code, &error)
        })?)),
    };
    Ok(Trusted { keyring, ..Trusted::default() })
}

/// Reads the keys of builders.
fn builders(folder: &Path) -> Result<Vec<PublicKey>, Failure> {
    PublicKey::read_all(folder).map_err(|error| {
        let code = if matches!(error, PublicKeyError::Read { .. }) { ENVIRONMENT } else { WRONG };
        Failure::of(code, &error)
    })
}

/// Reads who says who may sign code.
fn authorities(files: &[PathBuf]) -> Result<Option<Arc<Authorities>>, Failure> {
    if files.is_empty() {
        return Ok(None);
    }
    let found = Authorities::read(files).map_err(|error| {
        let code = if matches!(error, CertificateError::Read { .. }) { ENVIRONMENT } else { WRONG };
        Failure::of(code, &error)
    })?;
    Ok(Some(Arc::new(found)))
}

/// Finds an ISO: a file, or one on a server.
pub(super) fn place(iso: &str, client: &Client) -> Result<Place, Failure> {
    if !iso.starts_with("http://") && !iso.starts_with("https://") {
        let path = PathBuf::from(iso);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() || found.file_type().is_block_device() => {}
            Ok(_) => {
                return Err(Failure::wrong(format!("{iso} is neither a file nor a block device"))
                    .with_hint("name an ISO"));
            }
            Err(error) => return Err(Failure::environment(format!("read {iso}: {error}"))),
        }
        return Ok(Place::Local(path));
    }
    let url = url::Url::parse(iso).map_err(|error| Failure::wrong(format!("{iso}: {error}")))?;
    let file = client.find(&url).map_err(|error| Failure::of(ENVIRONMENT, &error))?;
    Ok(Place::Remote(Box::new(file)))
}

fn set_failure(error: SetError) -> Failure {
    let code = match &error {
        SetError::Neither(_) | SetError::TooMany(_) => WRONG,
        SetError::Io { .. } | SetError::Http(_) | SetError::Empty(_) => ENVIRONMENT,
    };
    Failure::of(code, &error)
}
