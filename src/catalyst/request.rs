//! What the target hands over: a JSON file that says where things are and what is wanted of them.
//!
//! It can be run again by hand, as long as catalyst keeps its work folder. `docs/catalyst.md` has the schema.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use cache::FileError;
use cache::file::OnFile;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::wanted::{Wanted, WantedError};

/// The version of the request that this program reads.
pub const SCHEMA: u32 = 1;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the schema.
    pub schema: u32,
    /// catalyst's version, for the record.
    pub catalyst: String,
    /// The cleaned chroot.
    pub stage_path: PathBuf,
    /// The files of the medium: catalyst's target path.
    pub iso_root: PathBuf,
    /// What is to be made of them.
    pub image: Wanted,
    /// The store.
    pub store: PathBuf,
    /// More settings, `KEY=VALUE`.
    pub set: Vec<String>,
    /// Where the result is written.
    pub result: PathBuf,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestResult {
    /// The version of the schema.
    pub schema: u32,
    /// Every published file and its BLAKE3, sorted by name.
    pub outputs: Vec<RequestOutput>,
    /// Why nothing was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Default for RequestResult {
    /// Nothing was published.
    fn default() -> Self {
        Self { schema: SCHEMA, outputs: Vec::new(), error: None }
    }
}

impl RequestResult {
    /// Writes it: it has its name once it is whole, in the place of nothing but an earlier one.
    ///
    /// # Errors
    /// It cannot be written there, or something else is there.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let write = || {
            let mut fresh = fresh_beside(path)?;
            serde_json::to_writer_pretty(&mut fresh, self)?;
            fresh.write_all(b"\n")?;
            fresh.persist(path).map_err(|error| error.error)
        };
        write().map(drop).on_file("write", path)
    }

    /// Finds out whether one can be written.
    ///
    /// # Errors
    /// As [`RequestResult::write`].
    pub fn try_to_write(path: &Path) -> Result<(), FileError> {
        fresh_beside(path).map(drop).on_file("write", path)
    }
}

/// Makes a file beside `path` that may take its place; it goes where it does not.
fn fresh_beside(path: &Path) -> io::Result<NamedTempFile> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) => {
            let is_result = || serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from);
            let is_ours = found.is_file() && is_result().is_ok_and(|json: Value| json["outputs"].is_array());
            if !is_ours {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "it is there, and is no result of an earlier run; name another place",
                ));
            }
        }
    }
    let folder = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    tempfile::Builder::new().prefix(".stagegraph-result-").tempfile_in(folder)
}

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestOutput {
    /// Where it is.
    pub path: PathBuf,
    /// Its digest.
    pub blake3: cache::BlobDigest,
}

/// Why a request cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no request.
    #[error("{path} is no request of the target livecd-stagegraph")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It was written by another version of the target.
    #[error(
        "{path} has the schema {found}; this version of stagegraph reads {SCHEMA}: run `stagegraph catalyst install`"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// A place in it depends on the folder that it is run in.
    #[error("{name}: {path} is not an absolute path")]
    Relative {
        /// The member.
        name: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// Something in it cannot be done.
    #[error(transparent)]
    Wanted(#[from] WantedError),
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn read(path: &Path) -> Result<Self, RequestError> {
        let bytes =
            std::fs::read(path).map_err(|source| RequestError::Read { path: path.to_owned(), source })?;
        let syntax = |source| RequestError::Syntax { path: path.to_owned(), source };
        // The schema counts before anything else does.
        let document: Value = serde_json::from_slice(&bytes).map_err(syntax)?;
        if let Some(found) = document["schema"].as_u64().filter(|found| *found != u64::from(SCHEMA)) {
            return Err(RequestError::Schema { path: path.to_owned(), found });
        }
        let mut request: Self = serde_json::from_value(document).map_err(syntax)?;
        // Before anything is built it is not there.
        request.image.root = Some(request.stage_path.clone()).filter(|root| root.join("usr").is_dir());
        let places = [
            ("stage_path", &request.stage_path),
            ("iso_root", &request.iso_root),
            ("image.iso", &request.image.iso),
            ("store", &request.store),
            ("result", &request.result),
        ];
        if let Some((name, path)) = places.into_iter().find(|(_, path)| path.is_relative()) {
            return Err(RequestError::Relative { name, path: path.clone() });
        }
        Ok(request)
    }

    /// Returns the text of the spec that stands for the request: the graph over catalyst's folders.
    ///
    /// # Errors
    /// [`RequestError::Wanted`]: something cannot be done.
    pub fn spec(&self) -> Result<String, RequestError> {
        let path = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned());
        let stage2 = toml::Table::from_iter([
            ("step".to_owned(), "import".into()),
            ("path".to_owned(), path(&self.stage_path)),
            ("boot".to_owned(), path(&self.iso_root.join("boot"))),
            ("medium".to_owned(), path(&self.iso_root)),
            // What this run of catalyst wrote has the time of this run.
            ("clamp_mtime".to_owned(), true.into()),
        ]);
        Ok(self.image.spec(stage2, &self.set)?.to_string())
    }
}
