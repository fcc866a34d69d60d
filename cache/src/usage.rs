//! What the space of a store is spent on.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{ActionDigest, BlobDigest};
use crate::file::bytes_below;
use crate::objects::StoreError;
use crate::store::Store;

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What the space of a store is spent on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// All objects.
    pub all: Amount,
    /// Results.
    pub actions: usize,
    /// By the kind of step that made them: of several that gave an object, the one that gave the least beside it.
    pub kinds: BTreeMap<String, Amount>,
    /// By the spec they were made for; an object of several specs counts for each.
    pub specs: BTreeMap<String, Amount>,
    /// Objects of several specs.
    pub shared: Amount,
    /// Objects that no result needs, such as fetched packages.
    pub unneeded: Amount,
    /// Folders that trees are laid out in, for programs that run from them. The collector removes those that no build uses.
    pub checkouts: Amount,
    /// Objects that are known, and whose bytes an upstream has.
    pub elsewhere: Amount,
    /// Bytes of the index, locks, logs and scratch folders.
    pub overhead: u64,
}

impl Store {
    /// Finds out what the space is spent on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = self.index(|index| {
            // The bytes of a composition are those of its pieces.
            let mut query = index.prepare(
                "SELECT objects.digest, CASE WHEN pieces IS NULL THEN size ELSE 0 END
                 FROM objects LEFT JOIN compositions USING (digest)",
            )?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let owners: Vec<(Vec<u8>, String, String)> = self.index(|index| {
            let mut query = index.prepare("SELECT action, spec, kind FROM owners")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })?;
        let mut of_action: BTreeMap<ActionDigest, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
        for (action, spec, kind) in &owners {
            let Some(action) = ActionDigest::from_slice(action) else { continue };
            let (kinds, specs) = of_action.entry(action).or_default();
            kinds.insert(kind);
            specs.insert(spec);
        }
        let actions = self.all_actions()?;
        // For each object: how much its likeliest maker gave, and that maker's kind; all specs.
        let mut of_object: BTreeMap<BlobDigest, (usize, &str, BTreeSet<&str>)> = BTreeMap::new();
        let nobody = (BTreeSet::from(["(unknown)"]), BTreeSet::from(["(unknown)"]));
        for (action, (result, _)) in &actions {
            let (kinds, specs) = of_action.get(action).unwrap_or(&nobody);
            let objects = self.objects_of(result)?;
            let (given, kind) = (objects.len(), kinds.first().copied().unwrap_or("(unknown)"));
            for digest in objects {
                let (least, maker, own_specs) =
                    of_object.entry(digest).or_insert((usize::MAX, "(unknown)", BTreeSet::new()));
                if given < *least {
                    (*least, *maker) = (given, kind);
                }
                own_specs.extend(specs);
            }
        }
        let mut usage = Usage { actions: actions.len(), ..Usage::default() };
        for (digest, size) in rows {
            let Some(digest) = BlobDigest::from_slice(&digest) else { continue };
            let add = |amount: &mut Amount| {
                amount.objects += 1;
                amount.bytes += size as u64;
            };
            add(&mut usage.all);
            let Some((_, kind, specs)) = of_object.get(&digest) else {
                add(&mut usage.unneeded);
                continue;
            };
            add(usage.kinds.entry((*kind).to_owned()).or_default());
            for spec in specs {
                add(usage.specs.entry((*spec).to_owned()).or_default());
            }
            if specs.len() > 1 {
                add(&mut usage.shared);
            }
        }
        let away = self.all_elsewhere()?;
        usage.elsewhere = Amount { objects: away.len(), bytes: away.iter().map(|(_, size)| size).sum() };
        let (objects, bytes) = self.checkouts_size()?;
        usage.checkouts = Amount { objects, bytes };
        for name in
            ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "locks", "logs", "scratch", "reserve"]
        {
            usage.overhead += bytes_below(&self.dir().join(name));
        }
        Ok(usage)
    }
}
