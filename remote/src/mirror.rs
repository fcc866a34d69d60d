//! An upstream that is a folder, or the same files on a web server: what a distribution puts on its mirrors.
//!
//! ```text
//! <mirror>/results/ab/cdef…        the statement of the action with that key
//! <mirror>/results/ab/cdef….sig    its signatures
//! <mirror>/objects/ab/cdef…        a chunk, by its BLAKE3
//! <mirror>/mirror                  "stagegraph mirror 1\n"
//! ```
//! Files get their names when they are whole, chunks before results, and are never changed. A web server is only read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use cache::upstream::{Chunk, Offer, Offered, Signed, Take, Upstream, UpstreamError};
use cache::{ActionDigest, BlobDigest, StoreError, causes};
use rayon::prelude::*;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

use crate::address::MirrorAddress;
use crate::counts::Counts;
use crate::gate::Gate;
use crate::settings::{Offering, Settings};
use crate::upstream::Remote;

/// How long a web server may take for one file of the largest size that there is.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long it may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Redirects that are followed, where nothing secret is sent.
const REDIRECTS: u32 = 4;

/// Files that are fetched at once.
const AT_ONCE: usize = 4;

/// Bytes of a statement, before it counts as something else.
const MAX_STATEMENT: u64 = 16 << 20;

/// The file that says that a folder is a mirror, and what it holds.
const MARK: &str = "mirror";
const MARK_TEXT: &[u8] = b"stagegraph mirror 1\n";

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
    /// Whether it was seen to be a mirror.
    is_mirror: OnceLock<()>,
}

/// Returns the name of a file of a mirror.
fn file_name(kind: &str, hex: &str, ending: &str) -> String {
    format!("{kind}/{}/{}{ending}", &hex[..2], &hex[2..])
}

/// Writes a file, which is whole when it has its name, in the place of one that is there. Everybody may read it, whatever the umask:
/// a web server is somebody else.
fn write(top: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = top.join(name);
    let folder = path.parent().unwrap_or(top);
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let made: Vec<&Path> = folder.ancestors().take_while(is_new).collect();
    fs::create_dir_all(folder)?;
    for folder in made {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    // Other machines write there as well, and processes of other containers that have the same number.
    let fresh = folder.join(format!(".{}.new", uuid::Uuid::new_v4()));
    let mut file = File::create_new(&fresh)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_data()).and_then(|()| fs::rename(&fresh, &path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Makes a folder a mirror, if it is none: a new folder, or an empty one.
///
/// # Errors
/// It cannot be made, or has something else in it.
pub fn begin(folder: &Path) -> io::Result<()> {
    if read_file(&folder.join(MARK), MARK_TEXT.len() as u64)?.is_some_and(|mark| mark == MARK_TEXT) {
        return Ok(());
    }
    let entries = fs::read_dir(folder);
    if entries.is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(io::Error::other("it has something else in it; name a new or an empty folder"));
    }
    write(folder, MARK, MARK_TEXT)
}

impl Mirror {
    pub(crate) fn new(address: &MirrorAddress, settings: &Settings) -> Self {
        let place = match address {
            MirrorAddress::Web(url) => {
                // What is secret is for this server, and for none that it leads to.
                let has_secrets = settings.token.is_some() || !settings.headers.is_empty();
                let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
                let config = Agent::config_builder()
                    .tls_config(tls)
                    .http_status_as_error(false)
                    .max_redirects(if has_secrets { 0 } else { REDIRECTS })
                    .max_redirects_will_error(false)
                    .timeout_connect(Some(CONNECT))
                    .timeout_global(Some(DEADLINE))
                    .user_agent(concat!("stagegraph/", env!("CARGO_PKG_VERSION")))
                    .build();
                Place::Web(Box::new(config.into()), url.clone())
            }
            MirrorAddress::Folder(folder) => Place::Folder(folder.clone()),
        };
        let name = address.to_string();
        let gate = Gate::new(name.clone(), "this build goes on without it", settings);
        let (settings, counts, distrusted) = (settings.clone(), Counts::default(), Once::new());
        Self { name, place, settings, gate, counts, distrusted, is_mirror: OnceLock::new() }
    }

    /// Returns the name that an action's result has there.
    fn result_name(&self, action: &ActionDigest, ending: &str) -> String {
        let key = match self.settings.salt.as_str() {
            "" => *action,
            word => ActionDigest::of_encoding(format!("{action}\n{word}").as_bytes()),
        };
        file_name("results", &key.to_string(), ending)
    }

    /// Makes sure that there is a mirror, and not a folder or a page of somebody else's.
    fn check(&self) -> Result<(), UpstreamError> {
        if self.is_mirror.get().is_some() {
            return Ok(());
        }
        let mark = self.read(MARK, MARK_TEXT.len() as u64)?;
        if mark.as_deref() == Some(MARK_TEXT) {
            self.is_mirror.get_or_init(|| ());
            return Ok(());
        }
        // Whoever signs begins it with what is offered.
        if mark.is_none() && matches!(self.place, Place::Folder(_)) && self.settings.key.is_some() {
            return Err(UpstreamError::Failed("there is no mirror yet".to_owned()));
        }
        let why = match mark {
            None => format!("there is no mirror: it has no file {MARK:?}, or does not let it be read"),
            Some(_) => {
                format!("there is no mirror that this version reads: its file {MARK:?} says something else")
            }
        };
        self.gate.refused(&why);
        Err(UpstreamError::Failed(why))
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
        let failed = |why: String, is_certain| Err((why, is_certain));
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
        if status.is_redirection() {
            let why = "it leads elsewhere, and tokens and headers are for it alone; give the address where it leads";
            return failed(why.to_owned(), true);
        }
        if !status.is_success() {
            return failed(format!("the server says {status}"), status.as_u16() == 401);
        }
        let body = response.into_body().into_with_config().limit(limit + 1).read_to_vec();
        body.map(Some).map_err(|error| (causes(&error).join(": "), false))
    }

    fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, UpstreamError> {
        let name = file_name("objects", &chunk.digest.to_string(), "");
        let bytes = self.read(&name, chunk.size)?.ok_or(UpstreamError::Gone(chunk.digest))?;
        if BlobDigest::of(&bytes) != chunk.digest || bytes.len() as u64 != chunk.size {
            self.gate.altered(&name);
            return Err(UpstreamError::Altered(chunk.digest));
        }
        self.counts.fetched(bytes.len() as u64);
        Ok(bytes)
    }

    /// Returns the places of the chunks that a folder does not have, or has damaged.
    fn missing(&self, chunks: &[Chunk]) -> Result<Vec<usize>, UpstreamError> {
        let top = self.folder()?;
        // What is altered there would stay so for ever: a folder's files are read.
        let is_there = |chunk: &Chunk| {
            let path = top.join(file_name("objects", &chunk.digest.to_string(), ""));
            let read = read_file(&path, chunk.size);
            read.is_ok_and(|bytes| bytes.is_some_and(|bytes| BlobDigest::of(&bytes) == chunk.digest))
        };
        Ok((0..chunks.len()).into_par_iter().filter(|number| !is_there(&chunks[*number])).collect())
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
    // Opening a pipe would wait for whoever writes to it.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match File::options().read(true).custom_flags(nonblocking).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Upstream for Mirror {
    fn name(&self) -> &str {
        &self.name
    }

    fn result(&self, action: &ActionDigest) -> Result<Option<Signed>, UpstreamError> {
        self.check()?;
        let read = |ending| self.read(&self.result_name(action, ending), MAX_STATEMENT);
        let Some(statement) = read("")? else { return Ok(None) };
        let signatures = read(".sig")?.unwrap_or_default();
        let counts = self.settings.counts(&self.name, &self.distrusted, statement, &signatures);
        counts.iter().for_each(|_| self.counts.found());
        Ok(counts)
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
        // The first who offers something begins it.
        if !top.join(MARK).exists() {
            begin(top).map_err(|error| {
                let why = format!("{} cannot become a mirror: {error}", top.display());
                self.gate.refused(&why);
                UpstreamError::Failed(why)
            })?;
        }
        self.check()?;
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
        let read = |ending| self.read(&self.result_name(&offer.action, ending), MAX_STATEMENT);
        let there = match read("")? {
            Some(statement) => Some((statement, read(".sig")?.unwrap_or_default())),
            None => None,
        };
        let offering = self.settings.offering(offer.statement, there);
        if let Offering::There(statement) = offering {
            return Ok(if sent > 0 { Offered::Taken { sent } } else { Offered::There(statement) });
        }
        let (statement, signatures) = offering.into_parts();
        // The signatures first: a statement without them counts for nobody.
        if !signatures.is_empty() {
            write(top, &self.result_name(&offer.action, ".sig"), &signatures).map_err(failed)?;
        }
        write(top, &self.result_name(&offer.action, ""), &statement).map_err(failed)?;
        Ok(Offered::Taken { sent })
    }
}

impl Remote for Mirror {
    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn greet(&self) -> Result<(), String> {
        self.check().map_err(|error| error.to_string())
    }

    fn failure(&self) -> Option<String> {
        self.gate.failure()
    }
}
