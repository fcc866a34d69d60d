//! Statements: a result with all its objects, as it travels and is signed.
//!
//! A statement names the action, what it gave, and for every object the chunks it travels as; objects that are made of pieces of
//! others ([`crate::objects`]) are said to be that, and do not travel. It is JSON, in one line, with keys in the order below; what
//! is signed are its bytes.
//!
//! ```text
//! {"statement": 1,
//!  "action": KEY,
//!  "result": {"outputs": {NAME: {"object": {"blob": {"digest": …, "size": …}} | {"tree": …}, "bytes": …}}, …},
//!  "objects": {DIGEST: [[BLAKE3, SHA-256, SIZE], …]},
//!  "compositions": {DIGEST: [[OBJECT, START, LENGTH], …]}}
//! ```

use std::collections::BTreeMap;

use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::actions::{ActionResult, Object};
use crate::digest::{ActionDigest, BlobDigest, Sha256};
use crate::objects::upstream::{Chunk, Signed, Signer, Upstream, UpstreamError};
use crate::objects::{Blob, Composition, Objects, StoreError};
use crate::source::Bytes;
use crate::store::Store;

/// The version of the format.
const VERSION: u32 = 1;

/// Bytes of a chunk, at most: it is held in memory.
const LARGEST: u64 = 64 << 20;

/// Objects up to this many bytes come along with a result: trees that are looked into at once are among them.
const SMALL: u64 = 64 << 10;

/// A result with all its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    statement: u32,
    /// The action.
    pub action: ActionDigest,
    /// What it gave.
    pub result: ActionResult,
    /// The objects, and the chunks that each travels as.
    objects: BTreeMap<BlobDigest, Vec<(BlobDigest, Sha256, u64)>>,
    /// Objects made of pieces of those.
    compositions: BTreeMap<BlobDigest, Composition>,
}

/// Why bytes are no statement that can be used.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// It is not JSON of this form.
    #[error("it is no statement: {0}")]
    Json(#[from] serde_json::Error),
    /// A version that is not known here.
    #[error("it is of version {0}; this program reads {VERSION}")]
    Version(u32),
    /// It is of another action.
    #[error("it is about action {0}")]
    OtherAction(ActionDigest),
    /// It has other outputs than the step.
    #[error("it has the outputs {found}, and the step gives {wanted}")]
    OtherOutputs {
        /// Those it has.
        found: String,
        /// Those it should have.
        wanted: String,
    },
    /// It does not say where the bytes of something are, or says it of a place of another machine.
    #[error("it does not say what {0} is made of")]
    Incomplete(String),
}

/// Where a result came from that was not made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The upstream.
    pub upstream: String,
    /// Who signed it, if that was asked for.
    pub signer: Option<String>,
}

/// A result that was found elsewhere.
#[derive(Debug)]
pub struct Fetched {
    /// The result.
    pub result: ActionResult,
    /// Where it came from.
    pub origin: Origin,
}

fn chunk(&(digest, sha256, size): &(BlobDigest, Sha256, u64)) -> Chunk {
    Chunk { digest, sha256, size }
}

impl Statement {
    /// Returns the bytes that are signed and sent.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn encode(&self) -> Result<Vec<u8>, StatementError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads a statement, and checks that it is complete.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        #[derive(Deserialize)]
        struct Head {
            statement: u32,
        }
        let Head { statement } = serde_json::from_slice(bytes)?;
        if statement != VERSION {
            return Err(StatementError::Version(statement));
        }
        let statement: Self = serde_json::from_slice(bytes)?;
        statement.check()?;
        Ok(statement)
    }

    /// Returns the chunks of all objects, in order.
    pub fn chunks(&self) -> impl Iterator<Item = (&BlobDigest, Chunk)> {
        self.objects.iter().flat_map(|(digest, chunks)| chunks.iter().map(move |row| (digest, chunk(row))))
    }

    /// Says what an action gave whose objects travel as one chunk each.
    pub(crate) fn of_whole(action: ActionDigest, result: ActionResult, chunks: &[Chunk]) -> Self {
        let row = |chunk: &Chunk| (chunk.digest, vec![(chunk.digest, chunk.sha256, chunk.size)]);
        let objects = chunks.iter().map(row).collect();
        Self { statement: VERSION, action, result, objects, compositions: BTreeMap::new() }
    }

    /// Returns an output that is a blob and travels as one chunk.
    pub(crate) fn whole(&self, output: &str) -> Option<Chunk> {
        let Object::Blob(blob) = self.result.outputs.get(output)?.object else { return None };
        match &self.objects.get(&blob.digest)?[..] {
            [only] => Some(chunk(only)),
            _ => None,
        }
    }

    fn has(&self, digest: &BlobDigest) -> bool {
        self.objects.contains_key(digest) || self.compositions.contains_key(digest)
    }

    /// Checks all that can be told without the objects.
    fn check(&self) -> Result<(), StatementError> {
        let incomplete = |digest: &BlobDigest| StatementError::Incomplete(digest.to_string());
        for (digest, chunks) in &self.objects {
            // One chunk is the object, and has its name.
            let is_named = chunks.len() != 1 || chunks[0].0 == *digest;
            let size = chunks.iter().try_fold(0_u64, |sum, (_, _, size)| sum.checked_add(*size));
            let is_large = chunks.iter().any(|(_, _, size)| *size > LARGEST);
            if chunks.is_empty()
                || !is_named
                || is_large
                || size.is_none_or(|size| i64::try_from(size).is_err())
            {
                return Err(incomplete(digest));
            }
        }
        for (digest, composition) in &self.compositions {
            let is_inside = |&(object, start, length): &(BlobDigest, u64, u64)| {
                let size = self.objects.contains_key(&object).then(|| self.size(&object)).flatten();
                size.is_some_and(|size| start.checked_add(length).is_some_and(|end| end <= size))
            };
            if !composition.pieces().all(is_inside) || composition.size().is_none_or(|size| size == 0) {
                return Err(incomplete(digest));
            }
        }
        for (name, output) in self.result.outputs.iter() {
            let needed = match (&output.object, &output.bytes) {
                (Object::Blob(blob), Bytes::Store) => vec![blob.digest],
                (Object::Tree(tree), Bytes::Store) => vec![tree.encoding()],
                (Object::Tree(tree), Bytes::Pack { pack, index }) => vec![tree.encoding(), *pack, *index],
                _ => return Err(StatementError::Incomplete(name.clone())),
            };
            if let Some(lacking) = needed.iter().find(|digest| !self.has(digest)) {
                return Err(incomplete(lacking));
            }
            if let Object::Blob(Blob { digest, size }) = &output.object
                && self.size(digest) != Some(*size)
            {
                return Err(incomplete(digest));
            }
        }
        Ok(())
    }

    /// Tells whether another one says the same of the same action: all but how long it took, and what it had to say.
    pub fn agrees(&self, other: &Self) -> bool {
        self.action == other.action
            && self.result.outputs == other.result.outputs
            && self.objects == other.objects
            && self.compositions == other.compositions
    }

    fn size(&self, digest: &BlobDigest) -> Option<u64> {
        match self.objects.get(digest) {
            Some(chunks) => Some(chunks.iter().map(|(_, _, size)| size).sum()),
            None => self.compositions.get(digest)?.size(),
        }
    }

    /// Checks that it says what was asked for: what this action gave, all of it.
    pub(crate) fn answers(&self, action: &ActionDigest, outputs: &[String]) -> Result<(), StatementError> {
        if self.action != *action {
            return Err(StatementError::OtherAction(self.action));
        }
        let found: Vec<&str> = self.result.outputs.iter().map(|(name, _)| name.as_str()).collect();
        let mut wanted: Vec<&str> = outputs.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        if found != wanted {
            let (found, wanted) = (found.join(", "), wanted.join(", "));
            return Err(StatementError::OtherOutputs { found, wanted });
        }
        Ok(())
    }
}

impl Store {
    /// Returns what can be said of a result elsewhere; `None` where there is none, or the bytes of a tree lie in a place of this
    /// machine's.
    ///
    /// # Errors
    /// [`StoreError`]: an object is missing or damaged.
    pub fn statement(&self, action: &ActionDigest) -> Result<Option<Statement>, StoreError> {
        let Some(result) = self.action(action)? else { return Ok(None) };
        let is_here = |bytes: &Bytes| matches!(bytes, Bytes::Store | Bytes::Pack { .. });
        if !result.outputs.values().all(|output| is_here(&output.bytes)) {
            return Ok(None);
        }
        let (mut objects, mut compositions) = (BTreeMap::new(), BTreeMap::new());
        for digest in self.objects_of(&result)? {
            // What lies in the store as a file travels as one, also if it could be put together.
            match self.composition(&digest)?.filter(|_| !self.object_path(&digest).exists()) {
                Some(composition) => drop(compositions.insert(digest, composition)),
                None => {
                    let chunks = self.chunks(&digest)?;
                    let rows = chunks.iter().map(|chunk| (chunk.digest, chunk.sha256, chunk.size)).collect();
                    objects.insert(digest, rows);
                }
            }
        }
        Ok(Some(Statement { statement: VERSION, action: *action, result, objects, compositions }))
    }

    /// Asks the upstreams for what an action gave, and takes it in; `outputs` are the names that it must have. Of an upstream that
    /// fails or says nonsense, there is nothing; `complain` is told of nonsense.
    ///
    /// # Errors
    /// [`StoreError`]: the store itself failed.
    pub fn ask(
        &self,
        action: &ActionDigest,
        outputs: &[String],
        complain: &dyn Fn(String),
    ) -> Result<Option<Fetched>, StoreError> {
        if self.is_barred(action) {
            return Ok(None);
        }
        for upstream in self.upstreams() {
            let Signed { statement, signer } = match upstream.result(action) {
                Ok(Some(signed)) => signed,
                Ok(None) => continue,
                Err(UpstreamError::Store(error)) => return Err(error),
                // It has said so itself.
                Err(_) => continue,
            };
            let read = Statement::decode(&statement)
                .and_then(|statement| statement.answers(action, outputs).map(|()| statement));
            let statement = match read {
                Ok(statement) => statement,
                Err(error) => {
                    complain(format!(
                        "{}: the result of action {action} does not count: {error}",
                        upstream.name()
                    ));
                    continue;
                }
            };
            if self.take_in(&*upstream, &statement, signer.as_ref())? {
                let origin =
                    Origin { upstream: upstream.name().to_owned(), signer: signer.map(|signer| signer.name) };
                return Ok(Some(Fetched { result: statement.result, origin }));
            }
        }
        Ok(None)
    }

    /// Takes in what a statement says; tells whether all its objects are here or can be had.
    fn take_in(
        &self,
        upstream: &dyn Upstream,
        statement: &Statement,
        signer: Option<&Signer>,
    ) -> Result<bool, StoreError> {
        let mut small = Vec::new();
        let mut away = Vec::new();
        for (digest, chunks) in &statement.objects {
            if self.object_path(digest).exists() {
                continue;
            }
            let chunks: Vec<Chunk> = chunks.iter().map(chunk).collect();
            if let [only] = chunks[..]
                && only.size <= SMALL
            {
                small.push(only);
            }
            away.push((digest, chunks));
        }
        let mut composed = Vec::new();
        for (digest, composition) in &statement.compositions {
            if !self.contains(digest)? {
                composed.push((digest, composition));
            }
        }
        self.change(|index| {
            for (digest, chunks) in &away {
                Objects::enter_elsewhere(index, digest, chunks, upstream.name())?;
            }
            composed.iter().try_for_each(|(digest, composition)| composition.enter(index, digest))
        })?;
        let brought = upstream.fetch(&small, &mut |number, bytes| {
            let blob = self.put(&bytes)?;
            // The upstream has compared it with the server's digest; the name is the store's own.
            if blob.digest == small[number].digest {
                Ok(())
            } else {
                Err(StoreError::Damaged(small[number].digest))
            }
        });
        match brought {
            Ok(()) => {}
            Err(UpstreamError::Gone(digest) | UpstreamError::Altered(digest)) => {
                // What cannot be had is missed at once, not when it is read.
                self.forget_elsewhere(&[digest])?;
                return Ok(false);
            }
            Err(UpstreamError::Failed(_)) => return Ok(false),
            Err(UpstreamError::Store(error)) => return Err(error),
        }
        if !self.has_objects(&statement.result, |blob| self.contains(&blob.digest))? {
            return Ok(false);
        }
        // What it only mentions is nothing of its business.
        let needed = self.objects_of(&statement.result)?;
        let is_other = |digest: &BlobDigest| !needed.contains(digest);
        let others: Vec<BlobDigest> = away.iter().map(|(digest, _)| **digest).filter(is_other).collect();
        self.forget_elsewhere(&others)?;
        let others = composed.iter().map(|(digest, _)| *digest).filter(|digest| is_other(digest));
        others.into_iter().try_for_each(|digest| self.remove(digest))?;
        let (name, key) = signer.map_or(("", ""), |signer| (&*signer.name, &*signer.key));
        self.record(&statement.action, &statement.result, |index| {
            index
                .prepare_cached(
                    "INSERT OR REPLACE INTO origins(action, upstream, signer, key) VALUES(?1, ?2, ?3, ?4)",
                )?
                .execute(params![statement.action.as_bytes(), upstream.name(), name, key])?;
            let mut claim =
                index.prepare_cached("INSERT OR IGNORE INTO claims(digest, action) VALUES(?1, ?2)")?;
            let action = statement.action.as_bytes();
            let mut composed = statement.compositions.keys();
            composed.try_for_each(|digest| claim.execute(params![digest.as_bytes(), action]).map(drop))
        })?;
        Ok(true)
    }

    /// Fetches all bytes of a result that are elsewhere; returns the objects that could not be had.
    ///
    /// # Errors
    /// [`StoreError`]: the store itself failed.
    pub fn bring_all(&self, action: &ActionDigest) -> Result<Vec<BlobDigest>, StoreError> {
        let Some(result) = self.action(action)? else { return Ok(Vec::new()) };
        let mut lost = Vec::new();
        for digest in self.objects_of(&result)? {
            if self.composition(&digest)?.is_some() {
                continue;
            }
            match self.located(&digest) {
                Ok(_) => {}
                Err(StoreError::Missing(digest)) => lost.push(digest),
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// Removes the results that came from elsewhere and were signed by somebody who is no longer trusted, or by nobody: they are
    /// asked for anew. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn distrust(&self, is_trusted: &dyn Fn(&Signer) -> bool) -> Result<usize, StoreError> {
        let signers: Vec<(String, String)> = self.index(|index| {
            let mut query = index.prepare("SELECT DISTINCT signer, key FROM origins")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let mut removed = 0;
        for (name, key) in signers {
            if is_trusted(&Signer { name: name.clone(), key: key.clone() }) {
                continue;
            }
            removed += self.change(|index| {
                let of = "SELECT action FROM origins WHERE signer = ?1 AND key = ?2";
                let count = index
                    .execute(&format!("DELETE FROM actions WHERE digest IN ({of})"), params![name, key])?;
                index.execute("DELETE FROM origins WHERE signer = ?1 AND key = ?2", params![name, key])?;
                Ok(count)
            })?;
        }
        for signer in self.helpers()?.iter().filter(|signer| !is_trusted(signer)) {
            removed += self.forget_helped(signer)?;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::objects::Part;
    use crate::offering::Offering;
    use crate::testing::{Folder, Memory, damage, result};

    /// Two stores, and an upstream that both use.
    struct World {
        dirs: [Folder; 2],
        upstream: Arc<Memory>,
    }

    impl World {
        fn new() -> Self {
            Self { dirs: [Folder::new(), Folder::new()], upstream: Arc::default() }
        }

        fn store(&self, number: usize) -> Store {
            let store = self.dirs[number].store();
            store.set_upstreams(vec![Arc::clone(&self.upstream) as Arc<dyn Upstream>]);
            store
        }
    }

    fn ask(store: &Store, action: &ActionDigest) -> Option<ActionResult> {
        let nonsense = |text| panic!("{text}");
        store.ask(action, &["x".to_owned()], &nonsense).unwrap().map(|fetched| fetched.result)
    }

    /// Records an action that gave a large image, and another one that gave what holds it.
    fn image_and_iso(store: &Store) -> [(ActionDigest, Blob); 2] {
        let mut bytes = vec![0; 3 << 20];
        blake3::Hasher::new().update(b"an image").finalize_xof().fill(&mut bytes);
        let image = store.put(&bytes).unwrap();
        let iso = store.compose(&[Part::Own(b"head"), Part::Object(image), Part::Own(b"tail")]).unwrap();
        [("image", image), ("iso", iso)].map(|(name, blob)| {
            let action = ActionDigest::of_encoding(name.as_bytes());
            let outputs = BTreeMap::from([("x".to_owned(), blob.into())]).into();
            store.set_action(&action, &ActionResult { outputs, ..ActionResult::default() }).unwrap();
            (action, blob)
        })
    }

    #[test]
    fn a_result_is_taken_in_without_the_bytes_and_they_come_when_they_are_read() {
        let world = World::new();
        let (one, other) = (world.store(0), world.store(1));
        let [(image, _), (iso, blob)] = image_and_iso(&one);
        let sent = |action| match one.offer(&*world.upstream, &action).unwrap() {
            Offering::Sent(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(sent(image), 3 << 20);
        assert_eq!(sent(iso), 8, "only the frame: what it holds is there");
        assert_eq!(one.offer(&*world.upstream, &iso).unwrap(), Offering::There);
        assert!(ask(&other, &iso).is_some());
        assert_eq!(other.action(&iso).unwrap(), one.action(&iso).unwrap());
        let usage = other.usage().unwrap();
        assert_eq!((usage.elsewhere.objects, usage.elsewhere.bytes), (1, 3 << 20), "the frame came along");
        assert_eq!(other.read(&blob.digest).unwrap(), one.read(&blob.digest).unwrap());
        assert_eq!(other.usage().unwrap().elsewhere.objects, 0);
        assert!(other.verify(false, &|_| ()).unwrap().damages.is_empty());
        assert_eq!(ask(&other, &ActionDigest::of_encoding(b"nobody's")), None);
    }

    #[test]
    fn what_is_elsewhere_counts_as_there_until_it_is_read_in_vain() {
        let world = World::new();
        let (action, _, blob) = result(&world.store(0), "one");
        let large = image_and_iso(&world.store(0));
        world.store(0).offer(&*world.upstream, &large[0].0).unwrap();
        assert!(ask(&world.store(1), &large[0].0).is_some());
        let alone = world.dirs[1].store();
        assert!(alone.action(&large[0].0).unwrap().is_some(), "nobody need be asked");
        assert_eq!(alone.lost(), 0);
        assert!(matches!(alone.read(&large[0].1.digest), Err(StoreError::Missing(_))));
        assert_eq!((alone.lost(), alone.action(&large[0].0).unwrap()), (1, None));
        drop(alone);
        let store = world.store(1);
        assert!(store.action(&large[0].0).unwrap().is_some(), "another process may reach the upstream");
        assert_eq!(store.read(&large[0].1.digest).unwrap().len(), 3 << 20);
        assert!(ask(&store, &action).is_none() && !store.contains(&blob.digest).unwrap());
    }

    #[test]
    fn what_an_upstream_no_longer_has_or_has_otherwise_is_forgotten() {
        for fault in ["gone", "altered"] {
            let world = World::new();
            let [(action, blob), _] = image_and_iso(&world.store(0));
            world.store(0).offer(&*world.upstream, &action).unwrap();
            let store = world.store(1);
            assert!(ask(&store, &action).is_some());
            world.upstream.spoil(|bytes| if fault == "gone" { None } else { Some(vec![1; bytes.len()]) });
            assert!(store.read(&blob.digest).is_err(), "{fault}");
            drop(store);
            assert!(
                world.store(1).action(&action).unwrap().is_none(),
                "{fault}: not even for another process"
            );
        }
    }

    #[test]
    fn a_small_object_that_is_gone_voids_the_result_at_once() {
        let world = World::new();
        let (action, ..) = result(&world.store(0), "one");
        world.store(0).offer(&*world.upstream, &action).unwrap();
        world.upstream.spoil(|_| None);
        assert_eq!(ask(&world.store(1), &action), None);
    }

    #[test]
    fn what_is_damaged_here_is_fetched_again() {
        let world = World::new();
        let [(action, blob), _] = image_and_iso(&world.store(0));
        world.store(0).offer(&*world.upstream, &action).unwrap();
        let store = world.store(1);
        assert!(ask(&store, &action).is_some());
        let bytes = store.read(&blob.digest).unwrap();
        damage(&store, &blob.digest, b"rot");
        assert!(matches!(store.verified_again(&blob.digest), Err(StoreError::Damaged(_))));
        assert_eq!(store.read(&blob.digest).unwrap(), bytes);
    }

    #[test]
    fn nonsense_is_told_and_counts_for_nothing() {
        let world = World::new();
        let store = world.store(0);
        let (action, ..) = result(&store, "one");
        let (other, ..) = result(&store, "two");
        let good = store.statement(&action).unwrap().unwrap().encode().unwrap();
        let text = String::from_utf8(good.clone()).unwrap();
        let ask = |key: &ActionDigest, output: &str, statement: &[u8]| {
            world.upstream.set_result(key, statement);
            let told = std::cell::RefCell::new(Vec::new());
            let found = world.store(1).ask(key, &[output.to_owned()], &|text| told.borrow_mut().push(text));
            (found.unwrap().is_some(), told.into_inner())
        };
        let wrong = [
            ask(&other, "x", &good),
            ask(&action, "y", &good),
            ask(&action, "x", b"{}"),
            ask(&action, "x", text.replace("\"statement\":1", "\"statement\":2").as_bytes()),
            ask(&action, "x", text.replace("\"size\":3", "\"size\":4").as_bytes()),
            ask(&action, "x", text.replace("\"objects\":{", "\"objects\":{},\"rest\":{").as_bytes()),
        ];
        for (found, told) in wrong {
            assert!(!found && told.len() == 1 && told[0].contains("does not count"), "{told:?}");
        }
    }

    #[test]
    fn results_of_who_is_no_longer_trusted_are_asked_for_anew() {
        let world = World::new();
        let (action, ..) = result(&world.store(0), "one");
        let (own, ..) = result(&world.store(1), "own");
        world.store(0).offer(&*world.upstream, &action).unwrap();
        let store = world.store(1);
        assert!(ask(&store, &action).is_some());
        assert_eq!(store.distrust(&|_| true).unwrap(), 0);
        assert_eq!(store.distrust(&|signer| !signer.name.is_empty()).unwrap(), 1);
        assert!(store.action(&action).unwrap().is_none() && store.action(&own).unwrap().is_some());
        // Made here since, it is nobody else's.
        assert!(ask(&store, &action).is_some());
        store.set_action(&action, &store.action(&action).unwrap().unwrap()).unwrap();
        assert_eq!(store.distrust(&|_| false).unwrap(), 0);
    }

    #[test]
    fn the_bytes_of_a_statement_are_pinned() {
        let world = World::new();
        let store = world.store(0);
        let [_, (iso, _)] = image_and_iso(&store);
        let statement = store.statement(&iso).unwrap().unwrap();
        let bytes = statement.encode().unwrap();
        assert_eq!(Statement::decode(&bytes).unwrap(), statement);
        assert_eq!(
            BlobDigest::of(&bytes).to_string(),
            "d94e9e6302deca6421f1ed98784e757d2a2e1c88409caaeb73ad91780bacf55a",
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }

    #[test]
    fn the_collector_forgets_what_is_elsewhere_and_not_needed() {
        let world = World::new();
        let [(action, blob), _] = image_and_iso(&world.store(0));
        world.store(0).offer(&*world.upstream, &action).unwrap();
        assert!(ask(&world.store(1), &action).is_some());
        crate::testing::tick();
        let store = world.store(1);
        assert_eq!(store.all_elsewhere().unwrap(), [(blob.digest, 3 << 20)]);
        store.collect(&crate::collect::Limits::default()).unwrap();
        assert!(!store.has_elsewhere().unwrap());
    }

    /// What is said otherwise.
    type Lie = Box<dyn FnOnce(&mut Statement)>;

    /// Has an upstream say something else of an action's result, as somebody would who is trusted and lies.
    fn lie(world: &World, action: &ActionDigest, lie: impl FnOnce(&mut Statement)) {
        let mut statement = world.store(0).statement(action).unwrap().unwrap();
        lie(&mut statement);
        world.upstream.set_result(action, &statement.encode().unwrap());
    }

    #[test]
    fn what_a_statement_says_of_sizes_and_pieces_has_to_be_possible() {
        let world = World::new();
        let one = world.store(0);
        let [(image, blob), (iso, whole)] = image_and_iso(&one);
        for action in [image, iso] {
            one.offer(&*world.upstream, &action).unwrap();
        }
        let pieces = |change: fn(&mut Vec<(BlobDigest, u64, u64)>)| {
            move |statement: &mut Statement| {
                let composition = statement.compositions.values_mut().next().unwrap();
                let mut pieces: Vec<_> = composition.pieces().copied().collect();
                change(&mut pieces);
                *composition = Composition::of(pieces);
            }
        };
        let impossible: [Lie; 6] = [
            Box::new(pieces(|pieces| pieces[1].2 += 1)),
            Box::new(pieces(|pieces| pieces[1].1 = u64::MAX - 5)),
            Box::new(pieces(|pieces| pieces[0].2 = 1 << 62)),
            Box::new(pieces(Vec::clear)),
            Box::new(pieces(|pieces| pieces.truncate(2))),
            Box::new(|statement| {
                statement.objects.values_mut().for_each(|chunks| chunks[0].2 = 1 << 62);
            }),
        ];
        for change in impossible {
            lie(&world, &iso, change);
            let told = std::cell::RefCell::new(0);
            let store = world.store(1);
            assert!(store.ask(&iso, &["x".to_owned()], &|_| *told.borrow_mut() += 1).unwrap().is_none());
            assert_eq!((told.into_inner(), store.contains(&whole.digest).unwrap()), (1, false));
        }
        // An object that would have another size than its bytes have.
        lie(&world, &image, |statement| {
            let chunks = statement.objects.values_mut().next().unwrap();
            chunks[0].2 -= 1;
            let outputs = BTreeMap::from([("x".to_owned(), Blob { size: blob.size - 1, ..blob }.into())]);
            statement.result.outputs = outputs.into();
        });
        let store = world.store(1);
        assert!(ask(&store, &image).is_some(), "nobody can tell before the bytes come");
        assert!(store.read(&blob.digest).is_err());
        assert_eq!((store.lost(), store.action(&image).unwrap()), (1, None));
    }

    #[test]
    fn a_result_that_its_bytes_contradict_is_forgotten_and_not_asked_for_again() {
        let world = World::new();
        let one = world.store(0);
        let [(image, blob), (iso, whole)] = image_and_iso(&one);
        one.offer(&*world.upstream, &image).unwrap();
        one.offer(&*world.upstream, &iso).unwrap();
        // Pieces in another order give other bytes.
        lie(&world, &iso, |statement| {
            let composition = statement.compositions.values_mut().next().unwrap();
            let pieces: Vec<_> = composition.pieces().copied().collect();
            *composition = Composition::of(pieces.into_iter().rev().collect());
        });
        let store = world.store(1);
        assert!(ask(&store, &iso).is_some());
        assert!(matches!(store.verified(&whole.digest), Err(StoreError::Damaged(_))));
        assert_eq!((store.lost(), store.action(&iso).unwrap()), (1, None));
        assert!(ask(&store, &iso).is_none(), "not in this process");
        // The same where a folder has it.
        let folder =
            crate::Tree::of_files([(crate::RelPath::new(b"x.iso").unwrap(), whole.digest, whole.size)]);
        let folder = one.put_tree(&folder.unwrap()).unwrap();
        let outputs = [("x".to_owned(), crate::Output { object: Object::Tree(folder), bytes: Bytes::Store })];
        let files = ActionDigest::of_encoding(b"files");
        let outputs = BTreeMap::from(outputs).into();
        one.set_action(&files, &ActionResult { outputs, ..ActionResult::default() }).unwrap();
        one.offer(&*world.upstream, &files).unwrap();
        lie(&world, &files, |statement| {
            let composition = statement.compositions.values_mut().next().unwrap();
            let pieces: Vec<_> = composition.pieces().copied().collect();
            *composition = Composition::of(pieces.into_iter().rev().collect());
        });
        assert!(ask(&store, &files).is_some());
        assert!(store.verified(&whole.digest).is_err() && store.action(&files).unwrap().is_none());
        // A tree whose pack is none.
        let tree =
            crate::Tree::of_files([(crate::RelPath::new(b"a").unwrap(), blob.digest, blob.size)]).unwrap();
        let tree = one.put_tree(&tree).unwrap();
        let other = one.put(b"no list of slices").unwrap();
        let bytes = Bytes::Pack { pack: blob.digest, index: other.digest };
        let output = crate::Output { object: Object::Tree(tree), bytes: bytes.clone() };
        let action = ActionDigest::of_encoding(b"tree");
        let outputs = BTreeMap::from([("x".to_owned(), output)]).into();
        one.set_action(&action, &ActionResult { outputs, ..ActionResult::default() }).unwrap();
        one.offer(&*world.upstream, &action).unwrap();
        assert!(ask(&store, &action).is_some());
        assert!(store.open_tree(&tree, &bytes).is_err());
        assert!(store.action(&action).unwrap().is_none() && ask(&store, &action).is_none());
        // What was made here is nobody else's claim: it stays, and says that it is damaged.
        assert!(one.open_tree(&tree, &bytes).is_err() && one.action(&action).unwrap().is_some());
    }

    #[test]
    fn what_a_statement_only_mentions_is_not_taken_in() {
        let world = World::new();
        let one = world.store(0);
        let [(image, blob), _] = image_and_iso(&one);
        let (small, ..) = result(&one, "one");
        let own = one.statement(&image).unwrap().unwrap();
        one.offer(&*world.upstream, &small).unwrap();
        lie(&world, &small, |statement| {
            let mut chunks = own.objects[&blob.digest].clone();
            chunks.swap(0, 1);
            statement.objects.insert(blob.digest, chunks);
        });
        let store = world.store(1);
        assert!(ask(&store, &small).is_some());
        assert!(!store.contains(&blob.digest).unwrap());
        // Made here, and offered, it travels as what it is.
        let [(image, _), _] = image_and_iso(&store);
        assert_eq!(store.statement(&image).unwrap().unwrap(), own);
    }
}
