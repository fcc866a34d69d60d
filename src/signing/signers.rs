//! Who signs: a file of names of keys. It is no part of a spec, and no key is in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::FileError;
use cache::file::OnFile;
use trust::sign::{BuilderKey, Gpg, Openssl, PrivateKey, SignError};

use crate::config::{Fields, Item, Source, SpecError, SpecErrors};

/// Who signs what.
#[derive(Debug, Clone)]
pub struct Signers {
    /// Lists and ISOs.
    pub openpgp: Option<Gpg>,
    /// What iPXE loads.
    pub cms: Option<Openssl>,
    /// What was built of what.
    pub builder: Option<Builder>,
}

/// Who says what was built of what.
#[derive(Debug, Clone)]
pub struct Builder {
    /// The key.
    pub key: BuilderKey,
    /// What the builder is called: an address.
    pub id: String,
}

/// Why the file of signers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignersError {
    /// It could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It says something wrong.
    #[error("{0}")]
    Wrong(String),
    /// A certificate or a key that it names cannot be used.
    #[error("{path}: [{table}] cannot sign")]
    Key {
        /// The file of signers.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// Why.
        source: SignError,
    },
    /// Nobody said where it is.
    #[error("nobody is named who signs")]
    None,
}

impl From<SpecErrors> for SignersError {
    fn from(errors: SpecErrors) -> Self {
        Self::Wrong(errors.render())
    }
}

impl Signers {
    /// Reads the file that is named, or that the environment names.
    ///
    /// # Errors
    /// [`SignersError`].
    pub fn read(named: Option<&PathBuf>) -> Result<Self, SignersError> {
        let path = named.ok_or(SignersError::None)?;
        let text = std::fs::read_to_string(path).on_file("read", path)?;
        let Named { openpgp, cms, provenance } = Named::parse(path, &text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let failed = |table| move |source| SignersError::Key { path: path.to_owned(), table, source };
        let cms = cms.map(|cms| cms.open(folder)).transpose().map_err(failed("cms"))?;
        let builder = provenance.map(|Provenance { key, builder: id }| {
            Ok(Builder { key: BuilderKey::new(key.seen_from(folder), &id)?, id })
        });
        let builder = builder.transpose().map_err(failed("provenance"))?;
        Ok(Self { openpgp, cms, builder })
    }
}

/// What the file says; nothing that it names was looked at.
#[derive(Debug)]
struct Named {
    openpgp: Option<Gpg>,
    cms: Option<Cms>,
    provenance: Option<Provenance>,
}

/// A certificate that signs code, and its key.
#[derive(Debug)]
struct Cms {
    certificate: PathBuf,
    chain: Vec<PathBuf>,
    key: PrivateKey,
}

impl Cms {
    /// Finds the files, which are meant as seen from `folder`.
    fn open(self, folder: &Path) -> Result<Openssl, SignError> {
        let chain: Vec<PathBuf> = self.chain.iter().map(|path| folder.join(path)).collect();
        Openssl::new(folder.join(self.certificate), &chain, self.key.seen_from(folder))
    }
}

impl Named {
    fn parse(path: &Path, text: &str) -> Result<Self, SignersError> {
        let source = Arc::new(Source::of_file(path.display().to_string(), text));
        let item = Item::parse(&source).map_err(SpecErrors::from)?;
        let fields = Fields::of(&item, "the file of signers").map_err(SpecErrors::from)?;
        let openpgp = fields.get("openpgp").and_then(|table| fields.check(openpgp(table)));
        let cms = fields.get("cms").and_then(|table| fields.check(cms(table)));
        let provenance = fields.get("provenance").and_then(|table| fields.check(provenance(table)));
        fields.finish()?;
        match (&openpgp, &cms, &provenance) {
            (None, None, None) => Err(SignersError::Wrong(format!(
                "{}: names nobody who signs; there are [openpgp], for lists and ISOs, [cms], for what iPXE loads, and \
                 [provenance], for what was built of what\n",
                path.display()
            ))),
            _ => Ok(Self { openpgp, cms, provenance }),
        }
    }
}

fn cms(item: &Item) -> Result<Cms, SpecErrors> {
    let fields = Fields::of(item, "[cms]").map_err(SpecErrors::from)?;
    let certificate = fields.required_text("certificate").map(PathBuf::from);
    let chain = fields.texts("chain").into_iter().map(|(path, _)| PathBuf::from(path)).collect();
    let key = private_key(&fields);
    fields.finish()?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Cms { certificate, chain, key }),
        _ => Err(SpecErrors::from(SpecError::nowhere("[cms] names no certificate, or no key"))),
    }
}

/// Reads `key`, and where its passphrase comes from.
fn private_key(fields: &Fields<'_>) -> Option<PrivateKey> {
    let passphrase = fields.text("passphrase");
    let key = fields.required("key")?;
    let text = fields.check(key.as_text())?;
    let found =
        PrivateKey::new(text, passphrase).map_err(|why| SpecError::at(&key.origin, why).label("the key"));
    fields.check(found)
}

/// A builder's key, and what the builder is called.
#[derive(Debug)]
struct Provenance {
    key: PrivateKey,
    builder: String,
}

fn provenance(item: &Item) -> Result<Provenance, SpecErrors> {
    let fields = Fields::of(item, "[provenance]").map_err(SpecErrors::from)?;
    let key = private_key(&fields);
    let builder = fields.required("builder").and_then(|builder| {
        let text = fields.check(builder.as_text())?;
        let is_address = url::Url::parse(text).is_ok();
        let wrong = || {
            SpecError::at(&builder.origin, "a builder is called by an address")
                .label("expected https://… or urn:…")
        };
        fields.check(is_address.then(|| text.to_owned()).ok_or_else(wrong))
    });
    fields.finish()?;
    match (key, builder) {
        (Some(key), Some(builder)) => Ok(Provenance { key, builder }),
        _ => Err(SpecErrors::from(SpecError::nowhere("[provenance] names no key, or no builder"))),
    }
}

fn openpgp(item: &Item) -> Result<Gpg, SpecErrors> {
    let fields = Fields::of(item, "[openpgp]").map_err(SpecErrors::from)?;
    let key = fields.required("key").and_then(|key| {
        let text = fields.check(key.as_text())?;
        let gpg = Gpg::new(text).map_err(|why| {
            SpecError::at(&key.origin, why).label("a fingerprint has 40 or 64 hexadecimal digits")
        });
        fields.check(gpg)
    });
    fields.finish()?;
    key.ok_or_else(|| SpecErrors::from(SpecError::nowhere("[openpgp] names no key")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_fingerprint() {
        let parse = |text: &str| Named::parse(Path::new("signers.toml"), text);
        let key = "0123456789ABCDEF0123456789ABCDEF01234567";
        for text in [
            key.to_owned(),
            format!("{key}!"),
            "0123 4567 89AB CDEF 0123  4567 89ab cdef 0123 4567".to_owned(),
        ] {
            let signers = parse(&format!("[openpgp]\nkey = \"{text}\"\n")).unwrap();
            assert!(signers.openpgp.unwrap().key().starts_with(key), "{text}");
        }
        for (text, says) in [
            ("", "openpgp"),
            ("[openpgp]\n", "key"),
            ("[openpgp]\nkey = \"0x01234567\"\n", "no fingerprint"),
            ("[openpgp]\nkey = \"release@example.org\"\n", "no fingerprint"),
            ("[openpgp]\nkey = 7\n", "key"),
            ("[openpgp]\nkee = \"x\"\n", "kee"),
            ("[openpgpp]\n", "openpgpp"),
            ("[openpgp\n", "signers.toml"),
            ("[cms]\nkey = \"k\"\n", "certificate"),
            ("[cms]\ncertificate = \"c\"\n", "key"),
            ("[cms]\ncertificate = \"c\"\nkey = \"pkcs11:object=o;pin-value=1234\"\n", "the PIN is in it"),
            ("[cms]\ncertificate = \"c\"\nkey = \"pkcs11:object=o?pin-value=1234\"\n", "the PIN is in it"),
            ("[cms]\ncertificate = \"c\"\nkey = \"k\"\npassphrase = \"pass:secret\"\n", "env:NAME"),
            ("[cms]\ncertificate = \"c\"\nkey = \"k\"\nchain = \"ca.crt\"\n", "chain"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
