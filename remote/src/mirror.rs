//! An upstream that is a folder, or the same files on a web server: what a distribution puts on its mirrors.
//!
//! ```text
//! <mirror>/results/ab/cdef…        the statement of the action with that key
//! <mirror>/results/ab/cdef….sig    its signatures
//! <mirror>/objects/ab/cdef…        a chunk, by its BLAKE3
//! ```
//! Files get their names when they are whole, chunks before results, and are never changed. A web server is only read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache::upstream::{Chunk, Offer, Offered, Signed, Take, Upstream, UpstreamError};
use cache::{ActionDigest, BlobDigest, StoreError, causes};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

use crate::address::Address;
use crate::counts::Counts;
use crate::gate::Gate;
use crate::settings::Settings;
use crate::sign::distrusted;
use crate::upstream::Remote;

/// How long a web server may take for one file of the largest size that there is.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long it may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Files that are fetched at once.
const AT_ONCE: usize = 4;

/// Bytes of a statement, before it counts as something else.
const MAX_STATEMENT: u64 = 16 << 20;

/// Where the files are.
enum Place {
    Folder(PathBuf),
    Web(Box<Agent>, Url),
}

/// A mirror.
pub(crate) struct Mirror {
    name: String,
    place: Place,
    settings: Settings,
    gate: Gate,
    counts: Counts,
    distrusted: Once,
}

/// Returns the name of a file of a mirror.
fn file_name(kind: &str, hex: &str, ending: &str) -> String {
    format!("{kind}/{}/{}{ending}", &hex[..2], &hex[2..])
}

/// Writes a file, which is whole when it has its name, in the place of one that is there.
fn write(top: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let path = top.join(name);
    let folder = path.parent().unwrap_or(top);
    fs::create_dir_all(folder)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let fresh = folder.join(format!(".{}-{number}.new", std::process::id()));
    let mut file = File::create_new(&fresh)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_data()).and_then(|()| fs::rename(&fresh, &path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

impl Mirror {
    pub(crate) fn new(address: &Address, settings: &Settings) -> Self {
        let place = match address {
            Address::Web(url) => {
                let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
                let config = Agent::config_builder()
                    .tls_config(tls)
                    .http_status_as_error(false)
                    .timeout_connect(Some(CONNECT))
                    .timeout_global(Some(DEADLINE))
                    .user_agent(concat!("stagegraph/", env!("CARGO_PKG_VERSION")))
                    .build();
                Place::Web(Box::new(config.into()), url.clone())
            }
            Address::Folder(folder) => Place::Folder(folder.clone()),
            Address::Server { text, .. } => Place::Folder(text.into()),
        };
        let name = address.to_string();
        let gate = Gate::new(name.clone(), "this build goes on without it", settings.say.clone());
        let (settings, counts, distrusted) = (settings.clone(), Counts::default(), Once::new());
        Self { name, place, settings, gate, counts, distrusted }
    }

    /// Reads a file; `None` where there is none.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, UpstreamError> {
        self.gate.enter().map_err(UpstreamError::Failed)?;
        let began = Instant::now();
        let read = match &self.place {
            Place::Folder(top) => {
                read_file(&top.join(name), limit).map_err(|error| (error.to_string(), true))
            }
            Place::Web(agent, url) => self.read_web(agent, url, name, limit),
        };
        match read {
            Ok(bytes) => {
                self.gate.worked();
                Ok(bytes)
            }
            Err((why, is_certain)) => {
                self.gate.failed(&why, began, is_certain);
                Err(UpstreamError::Failed(why))
            }
        }
    }

    /// Reads a file of a web server; why not, otherwise, and whether it is useless to try once more.
    fn read_web(
        &self,
        agent: &Agent,
        url: &Url,
        name: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, (String, bool)> {
        let url = url.join(name).map_err(|error| (error.to_string(), true))?;
        let mut request = agent.get(url.as_str()).header("accept-encoding", "identity");
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        if let Some(path) = &self.settings.token {
            let token =
                fs::read_to_string(path).map_err(|error| (format!("{}: {error}", path.display()), true))?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        let response = request.call().map_err(|error| {
            let is_certain = !matches!(error, ureq::Error::Timeout(_));
            (causes(&error).join(": "), is_certain)
        })?;
        let status = response.status();
        // Storage services say "forbidden" of what is not there.
        if matches!(status.as_u16(), 403 | 404 | 410) {
            return Ok(None);
        }
        if !status.is_success() {
            return Err((format!("{url}: the server says {status}"), false));
        }
        let body = response.into_body().into_with_config().limit(limit + 1).read_to_vec();
        body.map(Some).map_err(|error| (format!("{url}: {}", causes(&error).join(": ")), false))
    }

    fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, UpstreamError> {
        let name = file_name("objects", &chunk.digest.to_string(), "");
        let bytes = self.read(&name, chunk.size)?.ok_or(UpstreamError::Gone(chunk.digest))?;
        if BlobDigest::of(&bytes) != chunk.digest {
            self.gate.altered(&name);
            return Err(UpstreamError::Altered(chunk.digest));
        }
        self.counts.fetched(bytes.len() as u64);
        Ok(bytes)
    }

    /// Returns the folder, where results may be put.
    fn folder(&self) -> Result<&Path, UpstreamError> {
        match &self.place {
            Place::Folder(folder) => Ok(folder),
            Place::Web(..) => {
                let why = "a mirror on a web server is only read; push to its folder, file:DIR";
                self.gate.refused(why);
                Err(UpstreamError::Failed(why.to_owned()))
            }
        }
    }
}

fn read_file(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Upstream for Mirror {
    fn name(&self) -> &str {
        &self.name
    }

    fn result(&self, action: &ActionDigest) -> Result<Option<Signed>, UpstreamError> {
        let read = |ending| self.read(&file_name("results", &action.to_string(), ending), MAX_STATEMENT);
        let Some(statement) = read("")? else { return Ok(None) };
        let signatures = read(".sig")?.unwrap_or_default();
        match self.settings.trust.judge(&statement, &signatures) {
            Ok(signer) => {
                self.counts.found();
                Ok(Some(Signed { statement, signer }))
            }
            Err(names) => {
                self.distrusted.call_once(|| (self.settings.say)(&distrusted(&self.name, &names)));
                Ok(None)
            }
        }
    }

    fn missing(&self, chunks: &[Chunk]) -> Result<Vec<usize>, UpstreamError> {
        let top = self.folder()?;
        let name = |chunk: &Chunk| file_name("objects", &chunk.digest.to_string(), "");
        let is_there =
            |chunk: &Chunk| top.join(name(chunk)).metadata().is_ok_and(|found| found.len() == chunk.size);
        Ok((0..chunks.len()).filter(|number| !is_there(&chunks[*number])).collect())
    }

    fn fetch(&self, chunks: &[Chunk], take: Take<'_>) -> Result<(), UpstreamError> {
        let _fetching = self.counts.fetching();
        for (start, window) in chunks.chunks(AT_ONCE).enumerate() {
            if self.settings.stop.load(Ordering::Relaxed) {
                return Err(StoreError::Stopped.into());
            }
            let read: Vec<_> = std::thread::scope(|scope| {
                let reads: Vec<_> = window.iter().map(|chunk| scope.spawn(|| self.chunk(chunk))).collect();
                let failed = |_| Err(UpstreamError::Failed("the thread that fetches failed".to_owned()));
                reads.into_iter().map(|read| read.join().unwrap_or_else(failed)).collect()
            });
            for (number, bytes) in read.into_iter().enumerate() {
                take(start * AT_ONCE + number, bytes?)?;
            }
        }
        Ok(())
    }

    fn offer(&self, offer: &Offer<'_>) -> Result<Offered, UpstreamError> {
        let top = self.folder()?;
        let key = offer.action.to_string();
        let read = |ending| self.read(&file_name("results", &key, ending), MAX_STATEMENT);
        if let Some(statement) = read("")? {
            let signatures = read(".sig")?.unwrap_or_default();
            if self.settings.trust.judge(&statement, &signatures).is_ok() {
                return Ok(Offered::There(statement));
            }
        }
        let failed = |error: io::Error| {
            let why = format!("{}: {error}", top.display());
            self.gate.refused(&why);
            UpstreamError::Failed(why)
        };
        let mut sent = 0;
        let mut seen = std::collections::HashSet::new();
        for number in self.missing(offer.chunks)? {
            let Chunk { digest, size, .. } = offer.chunks[number];
            if seen.insert(digest) {
                let name = file_name("objects", &digest.to_string(), "");
                write(top, &name, &(offer.read)(number)?).map_err(failed)?;
                sent += size;
            }
        }
        self.counts.sent(sent);
        // The signatures first: a statement without them counts for nobody.
        if let Some(key_file) = &self.settings.key {
            write(top, &file_name("results", &key, ".sig"), key_file.sign(offer.statement).as_bytes())
                .map_err(failed)?;
        }
        write(top, &file_name("results", &key, ""), offer.statement).map_err(failed)?;
        Ok(Offered::Taken { sent })
    }
}

impl Remote for Mirror {
    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn greet(&self) -> Result<(), String> {
        match &self.place {
            Place::Folder(folder) if !folder.is_dir() => {
                Err(format!("there is no folder {}", folder.display()))
            }
            Place::Folder(_) => Ok(()),
            // Any name will do: a server that answers is there.
            Place::Web(..) => self.read("results/", 1 << 10).map(drop).map_err(|error| error.to_string()),
        }
    }

    fn failure(&self) -> Option<String> {
        self.gate.failure()
    }
}
