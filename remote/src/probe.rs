//! Finds out what an upstream can, and how fast it is.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use cache::upstream::{Chunk, Upstream};
use cache::{ActionDigest, BlobDigest, Sha256};
use sha2::Digest as _;

use crate::address::Address;
use crate::channel::told;
use crate::content::Blob;
use crate::mirror::Mirror;
use crate::reapi::{Abilities, Reapi};
use crate::settings::Settings;
use crate::sign::{KeyError, Trust};
use crate::upstream::Remote;

/// Bytes that are sent and read again to tell the throughput.
const SAMPLE: usize = 4 << 20;

/// Questions of which the median tells the latency.
const QUESTIONS: usize = 9;

/// A thing that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// Whether a build could use it.
    pub is_fine: bool,
}

/// What was found out about an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// In the order in which it was asked.
    pub rows: Vec<Row>,
}

impl Probe {
    /// Asks an upstream; `may_write` where something may be sent.
    ///
    /// # Errors
    /// A file that the settings name cannot be used.
    pub fn of(address: &Address, settings: &Settings, may_write: bool) -> Result<Self, KeyError> {
        let mut probe = Self::default();
        match address {
            Address::Server(server) => probe.server(&Reapi::new(server, settings)?, may_write),
            Address::Mirror(mirror) => probe.mirror(&Mirror::new(mirror, settings)),
        }
        probe.row(
            "trusted",
            true,
            match &settings.trust {
                Trust::All => "everybody who can write there".to_owned(),
                Trust::Keys(keys) => keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", "),
            },
        );
        if let Some(key) = &settings.key {
            probe.row("signs as", true, key.name().to_owned());
        }
        Ok(probe)
    }

    /// Tells whether a build could use it.
    pub fn is_fine(&self) -> bool {
        self.rows.iter().all(|row| row.is_fine)
    }

    fn row(&mut self, what: &'static str, is_fine: bool, found: String) {
        self.rows.push(Row { what, found, is_fine });
    }

    fn mirror(&mut self, mirror: &Mirror) {
        match mirror.greet() {
            Ok(()) => self.row("reached", true, "yes".to_owned()),
            Err(why) => self.row("reached", false, why),
        }
        let key = ActionDigest::of_encoding(b"stagegraph asks for this");
        let (_, took) = timed(|| mirror.result(&key));
        self.row("latency", true, milliseconds(took));
    }

    fn server(&mut self, server: &Reapi, may_write: bool) {
        let (abilities, took) = timed(|| server.link.wait(server.abilities()));
        let Abilities { function, batch, takes_results, executes } = match abilities {
            Ok(abilities) => abilities,
            Err(failure) => return self.row("reached", false, told(&failure)),
        };
        self.row("reached", true, format!("yes, in {}", milliseconds(took)));
        self.row("names blobs by", true, function.name().to_owned());
        self.row("bytes in a message", true, batch.to_string());
        let yes_no = |is: bool| if is { "yes" } else { "no" }.to_owned();
        self.row("takes results", true, yes_no(takes_results));
        self.row("runs actions", true, yes_no(executes));
        let key = ActionDigest::of_encoding(b"stagegraph asks for this");
        let mut times = Vec::new();
        for _ in 0..QUESTIONS {
            let (answer, took) = timed(|| server.result(&key));
            if let Err(error) = answer {
                return self.row("action cache", false, error.to_string());
            }
            times.push(took);
        }
        times.sort_unstable();
        self.row("action cache", true, format!("answers in {}", milliseconds(times[QUESTIONS / 2])));
        if may_write {
            self.throughput(server);
        }
    }

    /// Sends bytes that nobody has yet, and reads them again.
    fn throughput(&mut self, server: &Reapi) {
        let mut bytes = vec![0; SAMPLE];
        let seed = uuid::Uuid::new_v4();
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        let pieces: Vec<&[u8]> = bytes.chunks(1 << 20).collect();
        let chunk = |bytes: &&[u8]| Chunk {
            digest: BlobDigest::of(bytes),
            sha256: Sha256::from(sha2::Sha256::new_with_prefix(bytes)),
            size: bytes.len() as u64,
        };
        let chunks: Vec<Chunk> = pieces.iter().map(chunk).collect();
        let (sent, took) = timed(|| {
            server.link.wait(async {
                let content = server.content().await?;
                for (chunk, bytes) in chunks.iter().zip(&pieces) {
                    let digest = content.function.of_chunk(chunk);
                    content.send_blobs(vec![Blob { digest, bytes: bytes.to_vec() }]).await?;
                }
                Ok(())
            })
        });
        match sent {
            Ok(()) => self.row("takes blobs", true, rate(took)),
            // One may only read; that is enough for a build.
            Err(failure) => {
                return self.row("takes blobs", true, format!("no: {}", told(&failure)));
            }
        }
        let read = Mutex::new(0);
        let (fetched, took) = timed(|| {
            server.fetch(&chunks, &mut |_, bytes| {
                *read.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += bytes.len();
                Ok(())
            })
        });
        match fetched {
            Ok(()) => self.row("gives blobs", true, rate(took)),
            Err(error) => self.row("gives blobs", false, error.to_string()),
        }
    }
}

/// Returns what a call gave, and how long it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn rate(time: Duration) -> String {
    let rate = SAMPLE as f64 / time.as_secs_f64().max(1e-6) / 1e6;
    format!("{rate:.0} MB/s")
}
