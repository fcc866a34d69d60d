//! Looks at every object and every row, and says what is wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rayon::prelude::*;
use rusqlite::params;

use crate::digest::{ActionDigest, BlobDigest, BlobHasher, TreeDigest};
use crate::file::causes;
use crate::objects::StoreError;
use crate::objects::files::object_files;
use crate::store::Store;

/// Something wrong in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// An object does not hold what its name says.
    Bytes(BlobDigest),
    /// The index has an object that is not there.
    Missing(BlobDigest),
    /// An object has another size than the index says.
    Size(BlobDigest),
    /// A result needs objects that are missing or damaged.
    Result(ActionDigest),
    /// The checkout of a tree is not what the tree says.
    Checkout(TreeDigest),
    /// An object could not be read.
    Unreadable(BlobDigest, String),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Damage::Bytes(digest) => {
                write!(f, "object {digest} is damaged: its bytes are not those it is named by")
            }
            Damage::Missing(digest) => write!(f, "object {digest} is in the index, but not in the store"),
            Damage::Size(digest) => write!(f, "object {digest} is cut off, or has grown"),
            Damage::Result(action) => {
                write!(f, "the result of action {action} needs objects that are missing or damaged")
            }
            Damage::Checkout(tree) => write!(f, "the checkout of tree {tree} is not what the tree says"),
            Damage::Unreadable(digest, why) => write!(f, "object {digest} cannot be read: {why}"),
        }
    }
}

/// What a look at the whole store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Objects that were looked at.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Results that were looked at.
    pub actions: usize,
    /// What is wrong.
    pub damages: Vec<Damage>,
    /// Files among the objects that the index does not know: a process ended before it entered them. They harm nobody, and go with the
    /// next collection.
    pub strays: Vec<PathBuf>,
}

impl Store {
    /// Reads every object and compares it with its name. With `repair`, what is damaged is dropped, so that
    /// the next build makes it again.
    ///
    /// # Errors
    /// [`StoreError`]: the index or a folder could not be read, or something could not be removed.
    pub fn verify(&self, repair: bool, progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = self.index(|index| {
            let mut query = index.prepare("SELECT digest, size FROM objects ORDER BY digest")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let rows: Vec<(BlobDigest, u64)> = rows
            .into_iter()
            .map(|(digest, size)| Some((BlobDigest::from_slice(&digest)?, size as u64)))
            .collect::<Option<_>>()
            .ok_or_else(|| StoreError::Row("an object".to_owned()))?;
        let look = |(digest, size): &(BlobDigest, u64)| {
            let path = self.object_path(digest);
            let found = match fs::metadata(&path) {
                Ok(found) => found.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return self.look_at_composition(digest);
                }
                Err(error) => return Some(Damage::Unreadable(*digest, causes(&error).join(": "))),
            };
            progress(found);
            if found != *size {
                return Some(Damage::Size(*digest));
            }
            match BlobHasher::file(&path) {
                Ok(hashed) if hashed == *digest => None,
                Ok(_) => Some(Damage::Bytes(*digest)),
                Err(error) => Some(Damage::Unreadable(*digest, causes(&error).join(": "))),
            }
        };
        let mut strays = Vec::new();
        let mut damages: Vec<Damage> = rows.par_iter().filter_map(look).collect();
        let away = self.all_elsewhere()?;
        let known: BTreeSet<BlobDigest> = rows.iter().chain(&away).map(|(digest, _)| *digest).collect();
        let bad: BTreeSet<BlobDigest> = damages
            .iter()
            .filter_map(|damage| match damage {
                Damage::Bytes(digest) | Damage::Missing(digest) | Damage::Size(digest) => Some(*digest),
                _ => None,
            })
            .collect();
        for (digest, path) in object_files(self.dir())? {
            if digest.is_none_or(|digest| !known.contains(&digest)) {
                strays.push(path);
            }
        }
        let actions = self.all_actions()?;
        for (action, (result, _)) in &actions {
            let needed = self.objects_of(result)?;
            if needed.iter().any(|digest| bad.contains(digest) || !known.contains(digest)) {
                damages.push(Damage::Result(*action));
            }
        }
        damages.extend(self.verify_checkouts(repair)?.into_iter().map(Damage::Checkout));
        if repair {
            self.repair(&damages)?;
        }
        let bytes = rows.iter().map(|(_, size)| size).sum();
        Ok(Verified { objects: rows.len(), bytes, actions: actions.len(), damages, strays })
    }

    /// Compares what a composition's pieces give with its name; a piece that is missing or damaged is told of itself.
    fn look_at_composition(&self, digest: &BlobDigest) -> Option<Damage> {
        let is_whole = self.is_composed(digest).map(|whole| whole.then(|| self.pieces(digest)));
        let pieces = match is_whole.and_then(Option::transpose) {
            Ok(pieces) => pieces.flatten(),
            Err(error) => return Some(Damage::Unreadable(*digest, causes(&error).join(": "))),
        };
        let Some(pieces) = pieces else {
            // It was here, and an upstream still has it.
            return (!self.is_elsewhere(digest).unwrap_or(false)).then_some(Damage::Missing(*digest));
        };
        // What has to be fetched first is looked at then.
        if pieces.iter().any(|piece| !self.object_path(&piece.object).exists()) {
            return None;
        }
        match self.composed_digest(&pieces) {
            Ok(hashed) => (hashed != *digest).then_some(Damage::Bytes(*digest)),
            Err(error) => Some(Damage::Unreadable(*digest, causes(&error).join(": "))),
        }
    }

    /// Drops what is damaged. Looking at a whole store takes a while, so each is looked at again: a build may have made it
    /// anew meanwhile.
    fn repair(&self, damages: &[Damage]) -> Result<(), StoreError> {
        for damage in damages {
            if let Damage::Bytes(digest) | Damage::Size(digest) = damage {
                match self.verified_again(digest) {
                    Ok(_) | Err(StoreError::Damaged(_) | StoreError::Missing(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for damage in damages {
            match damage {
                // A composition among them may have lost a piece only now.
                Damage::Bytes(digest) | Damage::Size(digest) | Damage::Missing(digest) => {
                    if !self.contains(digest)? {
                        self.forget(digest)?;
                    }
                }
                Damage::Result(action) => {
                    if self.action(action)?.is_none() {
                        let delete = "DELETE FROM actions WHERE digest = ?1";
                        self.change(|index| index.execute(delete, params![action.as_bytes()]).map(drop))?;
                    }
                }
                // A stray may be of a process that is about to enter it; the collector knows which are old.
                Damage::Unreadable(..) => {}
                // It went when it was found.
                Damage::Checkout(_) => {}
            }
        }
        Ok(())
    }

    /// Removes the rows of an object that has no file.
    fn forget(&self, digest: &BlobDigest) -> Result<(), StoreError> {
        self.change(|index| {
            if !self.object_path(digest).exists() {
                for table in ["compositions", "objects"] {
                    index.execute(
                        &format!("DELETE FROM {table} WHERE digest = ?1"),
                        params![digest.as_bytes()],
                    )?;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::testing::{Folder, damage};

    #[test]
    fn every_kind_of_damage_is_found_and_repaired() {
        let dir = Folder::new();
        let store = dir.store();
        let [fine, bytes, size, missing] =
            ["fine", "bytes", "size", "missing"].map(|text| store.put(text.as_bytes()).unwrap().digest);
        damage(&store, &bytes, b"bytez");
        damage(&store, &size, b"si");
        fs::remove_file(store.object_path(&missing)).unwrap();
        let action = ActionDigest::of_encoding(b"action");
        let outputs = [("x".to_owned(), crate::Blob { digest: bytes, size: 5 }.into())];
        let outputs = std::collections::BTreeMap::from(outputs).into();
        store.set_action(&action, &crate::ActionResult { outputs, ..Default::default() }).unwrap();
        let found = store.verify(true, &|_| ()).unwrap();
        let mut expected =
            vec![Damage::Bytes(bytes), Damage::Size(size), Damage::Missing(missing), Damage::Result(action)];
        let mut damages = found.damages.clone();
        let key = |damage: &Damage| damage.to_string();
        expected.sort_by_key(key);
        damages.sort_by_key(key);
        assert_eq!((found.objects, damages), (4, expected));
        let again = store.verify(false, &|_| ()).unwrap();
        assert_eq!((again.objects, again.damages), (1, Vec::new()));
        assert!(store.contains(&fine).unwrap());
        assert_eq!(store.put(b"bytes").unwrap().digest, bytes, "it can be stored again");
    }
}
