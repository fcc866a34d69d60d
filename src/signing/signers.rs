//! Who signs: a file of names of keys. It is no part of a spec, and no key is in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::FileError;
use cache::file::OnFile;
use trust::sign::Gpg;

use crate::config::{Fields, Item, Source, SpecError, SpecErrors};

/// Who signs what.
#[derive(Debug, Clone)]
pub struct Signers {
    /// Lists and ISOs.
    pub openpgp: Gpg,
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
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, SignersError> {
        let source = Arc::new(Source::of_file(path.display().to_string(), text));
        let item = Item::parse(&source).map_err(SpecErrors::from)?;
        let fields = Fields::of(&item, "the file of signers").map_err(SpecErrors::from)?;
        let openpgp = fields.required_table("openpgp").and_then(|table| fields.check(openpgp(table)));
        fields.finish()?;
        // What is missing was noted, and is an error above.
        openpgp.map(|openpgp| Self { openpgp }).ok_or(SignersError::None)
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
        let parse = |text: &str| Signers::parse(Path::new("signers.toml"), text);
        let key = "0123456789ABCDEF0123456789ABCDEF01234567";
        for text in [
            key.to_owned(),
            format!("{key}!"),
            "0123 4567 89AB CDEF 0123  4567 89ab cdef 0123 4567".to_owned(),
        ] {
            let signers = parse(&format!("[openpgp]\nkey = \"{text}\"\n")).unwrap();
            assert!(signers.openpgp.key().starts_with(key), "{text}");
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
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
