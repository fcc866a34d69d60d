//! Reads files from HTTP servers: with time-outs, redirects, and a reading that goes on where it broke off.
//!
//! TLS is rustls with the system's certificates (`SSL_CERT_FILE` names others). Bodies are taken as they are: no
//! content encoding is asked for.

use std::io::{self, Read};
use std::sync::mpsc;
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};
use url::Url;

use crate::formats::ReadAt;

/// How long a server may take to accept a connection, and to begin an answer.
const CONNECT: Duration = Duration::from_secs(15);
const RESPOND: Duration = Duration::from_secs(30);

/// How long a body may stand still.
const STALL: Duration = Duration::from_secs(30);

/// How often a reading is taken up again before it counts as failed.
const ATTEMPTS: u32 = 4;

/// Redirects that are followed.
const REDIRECTS: u32 = 8;

/// Bytes that are read at once.
const PIECE: usize = 1 << 16;

/// How long a server may take. Tests have less patience.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To accept a connection.
    pub connect: Duration,
    /// To begin an answer.
    pub respond: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: CONNECT, respond: RESPOND, stall: STALL }
    }
}

/// Why something could not be read from a server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server was not reached, or broke off.
    #[error("{url}: {source}")]
    Transport {
        /// The address.
        url: Url,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// The server said no.
    #[error("{url}: the server says {status}")]
    Status {
        /// The address.
        url: Url,
        /// Its answer.
        status: StatusCode,
    },
    /// The server packs what it sends, though it was asked not to: sizes and places are of no use then.
    #[error("{url}: the server sends it packed ({encoding}); expected the file as it is")]
    Encoded {
        /// The address.
        url: Url,
        /// How it is packed.
        encoding: String,
    },
}

impl HttpError {
    /// Tells whether there is no such file. Storage services say "forbidden" of what is not there: nobody can boot either.
    pub fn is_missing(&self) -> bool {
        let HttpError::Status { status, .. } = self else { return false };
        matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN)
    }
}

/// Bytes of a file whose size the server does not tell, before it counts as one without end.
const MAX_UNTOLD: u64 = 16 << 30;

/// A file on a server, as it was when it was first asked for.
#[derive(Debug, Clone)]
pub struct HttpFile {
    agent: Agent,
    stall: Duration,
    url: Url,
    /// Number of bytes, where the server says.
    pub size: Option<u64>,
    /// The entity tag or date by which a later answer is told to be of the same file.
    validator: Option<String>,
}

/// Asks servers.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    stall: Duration,
}

impl Client {
    /// Makes a client.
    pub fn new(patience: Patience) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(REDIRECTS)
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.respond))
            .user_agent(concat!("stagegraph/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), stall: patience.stall }
    }

    /// Finds out whether a file is there and how large it is.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn find(&self, url: &Url) -> Result<HttpFile, HttpError> {
        let transport = |source| HttpError::Transport { url: url.clone(), source: Box::new(source) };
        let head = self.agent.head(url.as_str()).header(header::ACCEPT_ENCODING, "identity");
        let mut response = head.call().map_err(transport)?;
        // Some servers answer no HEAD, or forbid it: what counts is what they say to a reader. One byte is asked for.
        if !response.status().is_success()
            && !matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE)
        {
            let get = self.agent.get(url.as_str()).header(header::ACCEPT_ENCODING, "identity");
            response = get.header(header::RANGE, "bytes=0-0").call().map_err(transport)?;
        }
        let status = response.status();
        // There is no first byte of an empty file.
        let is_empty = status == StatusCode::RANGE_NOT_SATISFIABLE && total(&response) == Some(0);
        if !status.is_success() && !is_empty {
            return Err(HttpError::Status { url: url.clone(), status });
        }
        not_packed(&response, url)?;
        let size = match status {
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => total(&response),
            _ => header_text(&response, header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        };
        let validator = validator(&response);
        Ok(HttpFile { agent: self.agent.clone(), stall: self.stall, url: url.clone(), size, validator })
    }
}

fn header_text<T>(response: &Response<T>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Returns the size of the whole file, as an answer to a request for a part says it.
fn total<T>(response: &Response<T>) -> Option<u64> {
    header_text(response, header::CONTENT_RANGE)?.rsplit_once('/')?.1.parse().ok()
}

fn not_packed<T>(response: &Response<T>, url: &Url) -> Result<(), HttpError> {
    match header_text(response, header::CONTENT_ENCODING) {
        None | Some("" | "identity") => Ok(()),
        Some(encoding) => Err(HttpError::Encoded { url: url.clone(), encoding: encoding.to_owned() }),
    }
}

fn validator<T>(response: &Response<T>) -> Option<String> {
    let tag = header_text(response, header::ETAG).filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| header_text(response, header::LAST_MODIFIED)).map(str::to_owned)
}

impl HttpFile {
    /// Returns its address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Finds a file of that name in the same folder of the server.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn beside(&self, name: &str) -> Result<HttpFile, HttpError> {
        let mut url = self.url.clone();
        url.set_query(None);
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop().push(name);
        }
        Client { agent: self.agent.clone(), stall: self.stall }.find(&url)
    }

    /// Reads the file from its start, and again from where a connection broke.
    pub fn reader(&self) -> HttpReader {
        HttpReader { file: self.clone(), at: 0, end: self.size, body: None, failures: 0 }
    }

    /// Asks for the bytes from `start` to before `end`.
    fn request(&self, start: u64, end: Option<u64>) -> io::Result<Pieces> {
        let mut request = self.agent.get(self.url.as_str()).header(header::ACCEPT_ENCODING, "identity");
        let ranged = start > 0 || end != self.size;
        if ranged {
            let end = end.map_or_else(String::new, |end| (end - 1).to_string());
            request = request.header(header::RANGE, format!("bytes={start}-{end}"));
            if let Some(validator) = &self.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let failed = |source| HttpError::Transport { url: self.url.clone(), source: Box::new(source) };
        let response = request.call().map_err(|error| io::Error::other(failed(error)))?;
        let status = response.status();
        if self.validator.is_some() && validator(&response) != self.validator && status.is_success() {
            return Err(io::Error::other(format!("{} changed while it was read", self.url)));
        }
        not_packed(&response, &self.url).map_err(io::Error::other)?;
        let said = match status {
            StatusCode::PARTIAL_CONTENT => total(&response),
            _ => header_text(&response, header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        };
        if let (Some(size), Some(said)) = (self.size, said)
            && size != said
            && status.is_success()
        {
            let problem = format!("{}: the server said {size} bytes, and says {said} now", self.url);
            return Err(io::Error::other(problem));
        }
        let skip = match status {
            StatusCode::PARTIAL_CONTENT => {
                let range = header_text(&response, header::CONTENT_RANGE).unwrap_or_default();
                if !range.starts_with(&format!("bytes {start}-")) {
                    let problem = format!("{}: asked for bytes from {start}, got {range:?}", self.url);
                    return Err(io::Error::other(problem));
                }
                0
            }
            // A server that knows no ranges begins anew.
            status if status.is_success() => start,
            status => {
                return Err(io::Error::other(HttpError::Status { url: self.url.clone(), status }));
            }
        };
        Ok(Pieces::start(response.into_body(), skip, self.stall))
    }
}

impl ReadAt for HttpFile {
    fn size(&self) -> io::Result<u64> {
        self.size.ok_or_else(|| io::Error::other(format!("{}: the server does not tell its size", self.url)))
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let end = at + buffer.len() as u64;
        if end > ReadAt::size(self)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut reader = HttpReader { file: self.clone(), at, end: Some(end), body: None, failures: 0 };
        reader.read_exact(buffer)
    }
}

/// A body, read by a thread of its own so that a server that falls silent is noticed.
#[derive(Debug)]
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
    stall: Duration,
}

impl Pieces {
    fn start(body: Body, skip: u64, stall: Duration) -> Self {
        let (sender, pieces) = mpsc::sync_channel(4);
        // It ends with the body, or when nobody listens any more.
        std::thread::spawn(move || {
            let mut body = body.into_with_config().limit(u64::MAX).reader();
            if let Err(error) = io::copy(&mut body.by_ref().take(skip), &mut io::sink()) {
                drop(sender.send(Err(error)));
                return;
            }
            loop {
                // What has come is passed on at once: who waits is to know that something comes.
                let mut piece = vec![0; PIECE];
                let read = match body.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read,
                };
                let last = read.as_ref().map_or(true, |read| *read == 0);
                let sent = sender.send(read.map(|read| {
                    piece.truncate(read);
                    piece
                }));
                if last || sent.is_err() {
                    return;
                }
            }
        });
        Self { pieces, piece: io::Cursor::default(), stall }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            match self.pieces.recv_timeout(self.stall) {
                Ok(Ok(piece)) if piece.is_empty() => return Ok(0),
                Ok(piece) => self.piece = io::Cursor::new(piece?),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(0),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let seconds = self.stall.as_secs_f32();
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("nothing came for {seconds} s"),
                    ));
                }
            }
        }
    }
}

/// Reads a file or a part of it; see [`HttpFile::reader`].
#[derive(Debug)]
pub struct HttpReader {
    file: HttpFile,
    at: u64,
    end: Option<u64>,
    body: Option<Pieces>,
    failures: u32,
}

impl HttpReader {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.body.is_none() {
            self.body = Some(self.file.request(self.at, self.end)?);
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        let read = body.read(buffer)?;
        if read == 0
            && let Some(end) = self.end
            && self.at < end
        {
            let text = format!("the server ended the file before byte {end}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(read)
    }
}

impl HttpReader {
    /// Refuses a file that goes on where the server said that it ends.
    fn end_is_the_end(&mut self) -> io::Result<()> {
        let Some(body) = self.body.as_mut().filter(|_| self.end == self.file.size) else { return Ok(()) };
        match body.read(&mut [0])? {
            0 => Ok(()),
            _ => {
                let (url, at) = (&self.file.url, self.at);
                Err(io::Error::other(format!("{url}: the server said {at} bytes, and sends more")))
            }
        }
    }
}

impl Read for HttpReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = match self.end {
            Some(end) => usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len()),
            None => buffer.len(),
        };
        if room == 0 {
            return self.end_is_the_end().map(|()| 0);
        }
        loop {
            match self.try_read(&mut buffer[..room]) {
                Ok(read) => {
                    self.at += read as u64;
                    if self.at > MAX_UNTOLD && self.file.size.is_none() {
                        let url = &self.file.url;
                        let text = format!(
                            "{url}: the server does not tell its size, and sends more than {} GiB",
                            MAX_UNTOLD >> 30
                        );
                        return Err(io::Error::other(text));
                    }
                    if read > 0 {
                        self.failures = 0;
                    }
                    return Ok(read);
                }
                Err(error) if self.failures + 1 >= ATTEMPTS => {
                    let kind = error.kind();
                    let (url, at) = (&self.file.url, self.at);
                    let text = format!("{url}: at byte {at}: {error}; tried {ATTEMPTS} times");
                    return Err(io::Error::new(kind, text));
                }
                Err(_) => {
                    self.failures += 1;
                    self.body = None;
                    std::thread::sleep(Duration::from_millis(100 << self.failures));
                }
            }
        }
    }
}
