//! An upstream that is a server of the Remote Execution API.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2::capabilities_client::CapabilitiesClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    GetCapabilitiesRequest, ServerCapabilities, digest_function,
};
use cache::ActionDigest;
use cache::upstream::{Chunk, Offer, Offered, Signed, Take, Upstream, UpstreamError};
use tonic::Code;

use crate::address::ServerAddress;
use crate::channel::{DEADLINE, Failure, Link, told};
use crate::content::Content;
use crate::counts::Counts;
use crate::function::Function;
use crate::gate::Gate;
use crate::settings::{Offering, Settings};
use crate::sign::KeyError;
use crate::upstream::Remote;

/// Bytes of a message that every server takes (gRPC's default is 4 MiB), where one does not say.
const USUAL_BATCH: u64 = 3 << 20;

/// How long it counts that a server did not say what it can: until those who wait as well have heard of it.
const ASKED: Duration = Duration::from_secs(1);

/// When something failed, and why.
type Failed = Option<(Instant, String)>;

/// What a server can.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities {
    pub(crate) function: Function,
    pub(crate) batch: u64,
    /// Whether results may be entered.
    pub(crate) takes_results: bool,
    /// Whether it runs actions.
    pub(crate) executes: bool,
}

/// A server.
pub(crate) struct Reapi {
    name: String,
    pub(crate) link: Link,
    settings: Settings,
    reading: Gate,
    writing: Gate,
    abilities: tokio::sync::OnceCell<Abilities>,
    /// When the server did not say what it can, and why.
    failed: Mutex<Failed>,
    counts: Counts,
    /// Whether it was said that results do not count.
    distrusted: std::sync::Once,
}

impl Reapi {
    pub(crate) fn new(address: &ServerAddress, settings: &Settings) -> Result<Self, KeyError> {
        let name = address.text.clone();
        let gate = |without| Gate::new(name.clone(), without, settings);
        Ok(Self {
            link: Link::new(&address.endpoint, &address.instance, settings)?,
            settings: settings.clone(),
            reading: gate("this build goes on without it"),
            writing: gate("nothing more is sent there"),
            abilities: tokio::sync::OnceCell::new(),
            failed: Mutex::default(),
            counts: Counts::default(),
            distrusted: std::sync::Once::new(),
            name,
        })
    }

    /// Asks what the server can, once.
    pub(crate) async fn abilities(&self) -> Result<Abilities, Failure> {
        let ask = || async {
            let said = self.link.call("a question for capabilities", DEADLINE, |channel| async {
                let instance_name = self.link.instance.clone();
                let request = self.link.request(GetCapabilitiesRequest { instance_name })?;
                Ok(CapabilitiesClient::new(channel).get_capabilities(request).await?)
            });
            let said = match said.await {
                // A server that does not say is as simple as can be.
                Err(failure) if failure.code() == Some(Code::Unimplemented) => ServerCapabilities::default(),
                said => said?,
            };
            self.abilities_of(said).await
        };
        let ask = || async {
            // Those who waited for the first one do not ask again.
            let failure =
                |failed: &Failed| failed.as_ref().filter(|(when, _)| when.elapsed() < ASKED).cloned();
            let recent = failure(&self.failed.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some((_, why)) = recent {
                return Err(Failure::Before(why));
            }
            let asked = ask().await;
            if let Err(failure) = &asked {
                let failed = (Instant::now(), told(failure));
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
            }
            asked
        };
        self.abilities.get_or_try_init(ask).await.copied()
    }

    async fn abilities_of(&self, said: ServerCapabilities) -> Result<Abilities, Failure> {
        let cache = said.cache_capabilities.unwrap_or_default();
        let knows = |function: digest_function::Value| cache.digest_functions.contains(&(function as i32));
        let batch = u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0);
        let batch = if batch == 0 { USUAL_BATCH } else { batch };
        let mut abilities = Abilities {
            function: Function::Sha256,
            batch,
            takes_results: cache.action_cache_update_capabilities.is_none_or(|update| update.update_enabled),
            executes: said.execution_capabilities.is_some_and(|execution| execution.exec_enabled),
        };
        if knows(digest_function::Value::Blake3) {
            // Some list it and refuse it: readers and writers ask the same, and get to the same.
            let content = Content { link: &self.link, function: Function::Blake3, batch };
            match content.missing(&[Function::Blake3.of(b"stagegraph asks for this")]).await {
                Ok(_) => abilities.function = Function::Blake3,
                Err(Failure::Status(status))
                    if matches!(
                        status.code(),
                        Code::InvalidArgument
                            | Code::Unimplemented
                            | Code::FailedPrecondition
                            | Code::Internal
                    ) => {}
                Err(failure) => return Err(failure),
            }
        } else if !cache.digest_functions.is_empty() && !knows(digest_function::Value::Sha256) {
            return Err(Failure::Nonsense("it knows neither SHA-256 nor BLAKE3".to_owned()));
        }
        Ok(abilities)
    }

    pub(crate) async fn content(&self) -> Result<Content<'_>, Failure> {
        let Abilities { function, batch, .. } = self.abilities().await?;
        Ok(Content { link: &self.link, function, batch })
    }

    /// Does something behind a gate.
    fn through<T>(
        &self,
        gate: &Gate,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, UpstreamError> {
        gate.enter().map_err(UpstreamError::Failed)?;
        let began = Instant::now();
        let failure = match self.link.wait(work) {
            Ok(done) => {
                gate.worked();
                return Ok(done);
            }
            Err(failure) => failure,
        };
        let why = told(&failure);
        tracing::debug!(upstream = self.name, why, "failed");
        match failure {
            Failure::Gone(digest) => Err(UpstreamError::Gone(digest)),
            Failure::Altered(digest) => {
                gate.altered(&digest.to_string());
                Err(UpstreamError::Altered(digest))
            }
            Failure::Store(error) => Err(error.into()),
            failure => {
                match failure.code() {
                    Some(Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented) => {
                        gate.refused(&why);
                    }
                    _ => {
                        let is_certain = matches!(failure, Failure::Unreachable(_) | Failure::Nonsense(_))
                            || self.abilities.get().is_none();
                        gate.failed(&why, began, is_certain);
                    }
                }
                Err(UpstreamError::Failed(why))
            }
        }
    }
}

impl Upstream for Reapi {
    fn name(&self) -> &str {
        &self.name
    }

    fn result(&self, action: &ActionDigest) -> Result<Option<Signed>, UpstreamError> {
        let found = self.through(&self.reading, async {
            self.content().await?.result(action, &self.settings.salt).await
        })?;
        let Some(found) = found else { return Ok(None) };
        let counts = self.settings.counts(&self.name, &self.distrusted, found.statement, &found.signatures);
        counts.iter().for_each(|_| self.counts.found());
        Ok(counts)
    }

    fn fetch(&self, chunks: &[Chunk], take: Take<'_>) -> Result<(), UpstreamError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let _fetching = self.counts.fetching();
        self.through(&self.reading, async {
            let mut take = |number: usize, bytes: Vec<u8>| {
                self.counts.fetched(bytes.len() as u64);
                take(number, bytes)
            };
            self.content().await?.fetch(chunks, &mut take).await
        })
    }

    fn offer(&self, offer: &Offer<'_>) -> Result<Offered, UpstreamError> {
        self.through(&self.writing, async {
            let content = self.content().await?;
            let word = &self.settings.salt;
            let found = content.result(&offer.action, word).await?;
            // Some servers keep a result whose blobs they dropped.
            let wanted = missing(&content, offer.chunks).await?;
            let there = found.map(|found| (found.statement, found.signatures));
            let offering = self.settings.offering(offer.statement, there);
            if let (Offering::There(_), true) = (&offering, wanted.is_empty()) {
                return Ok(Offered::There(offering.into_parts().0));
            }
            if !self.abilities().await?.takes_results {
                let why = "results may not be entered there";
                return Err(tonic::Status::permission_denied(why).into());
            }
            content.send(offer.chunks, &wanted, offer.read).await?;
            let sent = wanted.iter().map(|number| offer.chunks[*number].size).sum();
            self.counts.sent(sent);
            if let Offering::Put(statement, signatures) = offering {
                content.set_result(&offer.action, word, &statement, &signatures, offer.chunks).await?;
            }
            Ok(Offered::Taken { sent })
        })
    }
}

/// Returns the places of the chunks that a server does not have, each chunk once.
async fn missing(content: &Content<'_>, chunks: &[Chunk]) -> Result<Vec<usize>, Failure> {
    let names: Vec<_> = chunks.iter().map(|chunk| content.function.of_chunk(chunk)).collect();
    let mut lacking = content.missing(&names).await?;
    let is_lacking = |number: &usize| lacking.remove(&names[*number].hash);
    Ok((0..chunks.len()).filter(is_lacking).collect())
}

impl Remote for Reapi {
    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn greet(&self) -> Result<(), String> {
        let greeted = self.through(&self.reading, async { self.abilities().await.map(drop) });
        greeted.map_err(|error| error.to_string())
    }

    fn failure(&self) -> Option<String> {
        self.reading.failure().or_else(|| self.writing.failure())
    }
}
