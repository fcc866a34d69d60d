//! The connection to a server of the Remote Execution API: TLS, headers, deadlines, a second try.
//!
//! Every call has a deadline of its own, and none is set on the connection. Callers are threads that block; what is under way is
//! driven by one thread.

use std::future::Future;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use cache::{BlobDigest, StoreError};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};

use crate::settings::{Settings, Tls};
use crate::sign::KeyError;

/// How long a server may take to accept a connection, and to answer a short question.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Bytes in a second below which a server counts as too slow.
const SLOWEST: u64 = 256 << 10;

/// How long a stream may stand still.
pub(crate) const STALL: Duration = Duration::from_secs(10);

/// How often a call is tried that the server was too busy for.
const TRIES: u32 = 3;

/// Calls that are under way at once.
const IN_FLIGHT: usize = 16;

/// How often somebody who waits looks whether to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// Why something asked of a server did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server said no.
    #[error("the server says {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// Nothing came in time.
    #[error("the server does not answer: {0} took longer than {seconds} s", seconds = .1.as_secs())]
    Late(&'static str, Duration),
    /// There is no connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It failed a moment ago.
    #[error("{0}")]
    Before(String),
    /// It answers what no server should.
    #[error("the server answers nonsense: {0}")]
    Nonsense(String),
    /// It has no such chunk.
    #[error("it does not have {0}")]
    Gone(BlobDigest),
    /// It has other bytes under that name.
    #[error("it has other bytes as {0}")]
    Altered(BlobDigest),
    /// The store failed, or everything is to stop.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Failure::Status(Box::new(status))
    }
}

impl Failure {
    /// Returns what the server said, if it said something.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Failure::Status(status) => Some(status.code()),
            _ => None,
        }
    }
}

/// A connection, made when it is first needed.
pub(crate) struct Link {
    endpoint: String,
    /// The name of the instance.
    pub(crate) instance: String,
    tls: ClientTlsConfig,
    settings: Settings,
    headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    runtime: OnceLock<Result<Runtime, String>>,
    channel: tokio::sync::OnceCell<Channel>,
    in_flight: Semaphore,
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|source| KeyError::File { what: "read", path: path.to_owned(), source })
}

fn tls_config(tls: &Tls) -> Result<ClientTlsConfig, KeyError> {
    let mut config = match &tls.authorities {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    if let Some((certificate, key)) = &tls.client {
        config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(config)
}

impl Link {
    pub(crate) fn new(endpoint: &str, instance: &str, settings: &Settings) -> Result<Self, KeyError> {
        let header = |(name, value): &(String, String)| {
            let wrong = |_| KeyError::Content {
                path: name.into(),
                why: "this is no header that can be sent".to_owned(),
            };
            let key = AsciiMetadataKey::from_str(&name.to_lowercase()).map_err(|_| wrong(()))?;
            Ok((key, AsciiMetadataValue::from_str(value).map_err(|_| wrong(()))?))
        };
        let headers = settings.headers.iter().map(header).collect::<Result<_, KeyError>>()?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            instance: instance.to_owned(),
            tls: tls_config(&settings.tls)?,
            settings: settings.clone(),
            headers,
            runtime: OnceLock::new(),
            channel: tokio::sync::OnceCell::new(),
            in_flight: Semaphore::new(IN_FLIGHT),
        })
    }

    /// Waits for what is under way, or until everything is to stop.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.wait_unless(work, &|| false)
    }

    /// As [`Link::wait`], and no longer than until `stop` says so.
    pub(crate) fn wait_unless<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<T, Failure> {
        let make = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).thread_name("remote").enable_all();
            builder.build().map_err(|error| error.to_string())
        };
        let runtime = self.runtime.get_or_init(make).as_ref();
        let runtime = runtime.map_err(|error| Failure::Unreachable(format!("no thread for it: {error}")))?;
        let stopped = async {
            while !self.settings.stop.load(Ordering::Relaxed) && !stop() {
                tokio::time::sleep(STOP_INTERVAL).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                done = work => done,
                () = stopped => Err(StoreError::Stopped.into()),
            }
        })
    }

    /// Returns the connection.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        let connect = || async {
            let unreachable = |error: tonic::transport::Error| Failure::Unreachable(told(&error));
            let mut endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(unreachable)?;
            if self.endpoint.starts_with("https:") {
                endpoint = endpoint.tls_config(self.tls.clone()).map_err(unreachable)?;
            }
            let endpoint = endpoint.connect_timeout(DEADLINE).tcp_nodelay(true).http2_adaptive_window(true);
            // Name servers and handshakes have no deadline of their own.
            let connected = tokio::time::timeout(DEADLINE, endpoint.connect()).await;
            connected.map_err(|_| Failure::Late("to connect", DEADLINE))?.map_err(unreachable)
        };
        self.channel.get_or_try_init(connect).await.cloned()
    }

    /// Makes a request of a message: with the token and the headers.
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        if let Some(path) = &self.settings.token {
            let failed = |why: String| Failure::Unreachable(format!("{}: {why}", path.display()));
            let token =
                std::fs::read_to_string(path).map_err(|error: io::Error| failed(error.to_string()))?;
            let value = AsciiMetadataValue::from_str(&format!("Bearer {}", token.trim()));
            let value = value.map_err(|_| failed("this is no token that can be sent".to_owned()))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }

    /// Calls the server, once more where it was too busy; `call` is given the connection.
    pub(crate) async fn call<T, F>(
        &self,
        what: &'static str,
        deadline: Duration,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Failure>>,
    {
        let mut tried = 0;
        loop {
            let channel = self.channel().await?;
            let permit = self.in_flight.acquire().await;
            let answer = tokio::time::timeout(deadline, call(channel)).await;
            drop(permit);
            tried += 1;
            let failure = match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(Failure::Late(what, deadline)),
            };
            let is_busy =
                matches!(failure.code(), Some(Code::ResourceExhausted | Code::Unavailable | Code::Aborted));
            if !is_busy || tried == TRIES {
                return Err(failure);
            }
            if failure.code() == Some(Code::ResourceExhausted) {
                // Two are left in any case.
                let fewer = self.in_flight.available_permits().saturating_sub(2) / 2;
                self.in_flight.forget_permits(fewer);
            }
            tokio::time::sleep(pause(tried)).await;
        }
    }
}

/// Returns how long so many bytes may take.
pub(crate) fn deadline_of(bytes: u64) -> Duration {
    DEADLINE + Duration::from_millis(bytes * 1000 / SLOWEST)
}

/// Returns how long to wait before the next try: not all clients the same.
fn pause(tried: u32) -> Duration {
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    let jitter = Duration::from_micros(u64::from(nanos / 1000 % 100_000));
    Duration::from_millis(100) * (1 << tried.min(4)) / 2 + jitter
}

/// Returns an error with all that caused it, in one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    cache::causes(error).join(": ")
}
