//! `stagegraph sign`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{DONE, ENVIRONMENT, FAILED, Failure, WRONG, print};
use trust::cms::CertificateError;
use trust::sign::SignError;

use crate::publish;
use crate::signing::{self, Signed, Signers, SignersError, SigningError};

/// Who signs.
#[derive(Debug, Args)]
pub(super) struct SignersArg {
    /// Who signs: a TOML file with `[openpgp] key = "FINGERPRINT"`, `[cms] certificate = "FILE"`, or both
    #[arg(long, value_name = "FILE", env = "STAGEGRAPH_SIGNERS", hide_env_values = true)]
    signers: Option<PathBuf>,
}

impl SignersArg {
    /// Reads the file, and finds out whether the keys are there.
    pub(super) fn read(&self) -> Result<Signers, Failure> {
        let signers = Signers::read(self.signers.as_ref()).map_err(|error| match &error {
            SignersError::File(_) => Failure::of(ENVIRONMENT, &error),
            SignersError::Wrong(_) => Failure::of(WRONG, &error),
            SignersError::Key { source, .. } => Failure::of(
                if matches!(source, SignError::Certificate(CertificateError::Bad { .. })) { WRONG } else { ENVIRONMENT },
                &error,
            ),
            SignersError::None => Failure::of(WRONG, &error).with_hint(
                "write [openpgp] and key = \"FINGERPRINT\" into a file, and name it with --signers or STAGEGRAPH_SIGNERS",
            ),
        })?;
        if let Some(gpg) = &signers.openpgp {
            gpg.keyring().map_err(|error| Failure::of(ENVIRONMENT, &error))?;
        }
        Ok(signers)
    }
}

/// Signs a published folder: its lists of checksums in place, its ISO by a file beside it, and what iPXE loads by files that its
/// imgverify takes.
///
/// gpg and openssl hold the keys, or the card that they ask; what they give is verified before it has its name. What has a good signature
/// by the key is left alone, so that signing twice changes nothing. A folder that was copied to another machine can be signed there: no
/// store is used. docs/trust.md has all of it.
///
/// Exit codes: 0 all is signed; 1 a signature is not good, or was made and does not verify; 2 the file of signers is wrong; 3 gpg or its
/// key is not there.
#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The folder
    folder: PathBuf,
    #[command(flatten)]
    signers: SignersArg,
}

impl Sign {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let folder = self.folder.components().collect::<PathBuf>();
        if !folder.is_dir() {
            let message = format!("{} is no folder", folder.display());
            return Err(Failure::wrong(message).with_hint("name a folder that was published: out/SPEC"));
        }
        let signers = self.signers.read()?;
        let before = publish::signatures(&folder)?;
        let signed = signing::sign(&folder, &signers, &before).map_err(|error| failure(&error))?;
        publish::note(&folder, &signed.records)?;
        print(text(&folder, &signed).as_bytes())?;
        Ok(DONE)
    }
}

fn text(folder: &Path, signed: &Signed) -> String {
    let mut text = String::new();
    for name in &signed.made {
        text.push_str(&format!("signed   {}\n", folder.join(name).display()));
    }
    for name in &signed.kept {
        text.push_str(&format!("is good  {}\n", folder.join(name).display()));
    }
    text
}

/// Signs what is being published.
pub(super) fn signing(signers: &Signers) -> Box<publish::Signing<'_>> {
    Box::new(|folder, before| match signing::sign(folder, signers, before) {
        Ok(signed) => Ok(signed.records),
        Err(SigningError::Nothing(_)) => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    })
}

fn failure(error: &SigningError) -> Failure {
    match error {
        SigningError::File(_) | SigningError::Sign(_) => Failure::of(ENVIRONMENT, error),
        SigningError::Nothing(_) => {
            Failure::of(WRONG, error).with_hint("name a folder that was published: out/SPEC")
        }
        SigningError::Unverified { .. } => {
            Failure::of(FAILED, error).with_hint("see that nobody writes to the folder meanwhile")
        }
        SigningError::Odd(_) => {
            Failure::of(FAILED, error).with_hint("take it away: a signature is made anew")
        }
        SigningError::Signed { .. } => Failure::of(FAILED, error).with_hint(
            "remove the list and build again, which makes it anew; or sign with the key that signed it",
        ),
    }
}
