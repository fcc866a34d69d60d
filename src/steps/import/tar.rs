//! A root in a tar: read once, and known again as long as the tar stays the same.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use cache::file::OnFile;
use cache::ingest::{Tar, TarError};
use cache::stat::Stat;
use cache::tree::Tree;
use cache::{Bytes, TreeDigest};
use graph::{Fault, Resolving, StepError};
use serde::{Deserialize, Serialize};

use super::super::watched::Watched;
use crate::formats::compression::Compression;

/// What becomes of the tree that is in a tar.
pub(super) struct Trim<'a> {
    /// Tells it from others.
    pub(super) key: String,
    /// Leaves out and changes what is to be.
    pub(super) trimmed: &'a dyn Fn(Tree) -> Tree,
}

/// A tar that was read, as long as it stays the same.
#[derive(Serialize, Deserialize)]
pub(super) struct KnownTar {
    pub(super) tree: TreeDigest,
    pub(super) bytes: Bytes,
    /// What is in it and not in the tree, in words.
    #[serde(default)]
    pub(super) left_out: Vec<String>,
}

/// Reads the tar at `path`.
///
/// # Errors
/// [`StepError`]: it is none, or unpacks to more than the limits allow.
pub(super) fn read(
    resolving: &Resolving<'_>,
    path: &Path,
    compression: Option<Compression>,
    trim: &Trim<'_>,
) -> Result<KnownTar, StepError> {
    let Resolving { objects, limits, cancel, .. } = resolving;
    let failed = |error: io::Error| StepError::spec(format!("{}: {error}", path.display()));
    let found = std::fs::metadata(path).map_err(failed)?;
    let real = path.canonicalize().map_err(failed)?;
    let stat = Stat::of(&real, &found);
    let key = format!("{} {stat:?} {}", real.display(), trim.key);
    // The stat data of a device say nothing about the medium in it.
    if found.is_file()
        && let Some(known) =
            objects.memo("tars", &key)?.and_then(|text| serde_json::from_str::<KnownTar>(&text).ok())
        && let Ok(root) = objects.open_tree(&known.tree, &known.bytes)
    {
        drop(root);
        return Ok(known);
    }
    let now = std::time::SystemTime::now();
    let input = BufReader::with_capacity(1 << 20, File::open(&real).map_err(failed)?);
    let wrong = |error| {
        let fault = if matches!(error, TarError::Copy(_)) { Fault::Environment } else { Fault::Action };
        StepError::new(fault, error).with_hint(format!("while reading {}", path.display()))
    };
    let known = match compression {
        None => {
            let input = Watched { inner: input, read: 0, most: u64::MAX, cancel };
            let Tar { tree, slices, left_out } = cache::ingest::tar(input, io::sink()).map_err(wrong)?;
            let index = objects.put(&slices.encode())?.digest;
            let tree = objects.put_tree(&(trim.trimmed)(tree))?;
            KnownTar { tree, bytes: Bytes::Tar { path: real, index }, left_out }
        }
        Some(compression) => {
            // Slices need the uncompressed bytes, so they are kept.
            let unpacked = compression.decoder_to_end(input).map_err(failed)?;
            let unpacked = Watched { inner: unpacked, read: 0, most: limits.unpacked(found.len()), cancel };
            let mut pack = objects.writer()?;
            let Tar { tree, slices, left_out } = cache::ingest::tar(unpacked, &mut pack).map_err(wrong)?;
            let pack = pack.commit()?.digest;
            let index = objects.put(&slices.encode())?.digest;
            let tree = objects.put_tree(&(trim.trimmed)(tree))?;
            KnownTar { tree, bytes: Bytes::Pack { pack, index }, left_out }
        }
    };
    if found.is_file() && stat.is_settled(now) {
        let text = serde_json::to_string(&known).map_err(io::Error::from).on_file("remember", path)?;
        objects.set_memo("tars", &key, &text)?;
    }
    Ok(known)
}
