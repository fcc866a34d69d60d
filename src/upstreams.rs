//! Where results are fetched from and offered: what is asked for, and what came of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cache::upstream::Upstream;
use cache::{Store, StoreError};
use graph::tool::{ToolError, ToolSpec};
use graph::{Event, Tools, Workers};
use remote::{Address, Execution, Key, KeyError, Offers, Program, Remote, Sent, Settings, Tls, Trust};

use crate::config::{Fields, Item, Source, SpecError, SpecErrors};

/// How long a build waits in the end for what it offers.
pub const WAIT: Duration = Duration::from_secs(60);

/// What is asked for, by files, the environment and the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The addresses, in the order in which they are asked.
    pub addresses: Vec<String>,
    /// A list of trusted keys, or `all`.
    pub trust: Option<PathBuf>,
    /// The private key that signs what is offered.
    pub key: Option<PathBuf>,
    /// Whether results are offered; where nobody says, if there is a key.
    pub upload: Option<bool>,
    /// Authorities for TLS.
    pub ca: Option<PathBuf>,
    /// This client's certificate and its private key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// A file with a bearer token.
    pub token: Option<PathBuf>,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// Another word abandons all results there.
    pub salt: Option<String>,
    /// How long to wait in the end, in seconds.
    pub wait: Option<u64>,
    /// Whether a build fails without its upstreams.
    pub is_required: bool,
    /// Whether their workers compress as well.
    pub executes: bool,
    /// How many parts of the work are at workers at once.
    pub jobs: Option<u64>,
    /// What workers are chosen by.
    pub properties: Vec<(String, String)>,
}

/// The verb of this program that workers run.
const SHARD: &str = "shard";

/// Parts of the work that are at workers at once, where nobody says.
const JOBS: u64 = 8;

/// Workers of a server.
#[derive(Debug)]
struct Elsewhere {
    execution: Execution,
    lanes: usize,
    /// Parts that were done there.
    done: Arc<AtomicU64>,
}

impl Workers for Elsewhere {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn run(&self, input: &[u8], stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u8>, String> {
        let output = self.execution.run(input, stop)?;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(output)
    }

    fn gave_wrong(&self, why: &str) {
        self.execution.gave_wrong(why);
    }
}

/// Why upstreams cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// Something that was written is wrong.
    #[error("{0}")]
    Wrong(String),
    /// A settings file is wrong.
    #[error(transparent)]
    Settings(#[from] SpecErrors),
    /// A key, a list or a certificate cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The libraries of this program cannot be found.
    #[error("this program cannot be sent to workers")]
    Program(#[from] ToolError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An upstream that is required cannot be used.
    #[error("{name}: {why}")]
    Unusable {
        /// The upstream.
        name: String,
        /// Why.
        why: String,
    },
}

impl Wishes {
    /// Reads a settings file.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn read(name: &str, text: &str) -> Result<Self, SpecErrors> {
        let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
        let item = Item::parse(&source)?;
        let fields = Fields::of(&item, "the settings of upstreams")?;
        // A path is meant from where the file is.
        let folder = Path::new(name).parent().unwrap_or(Path::new("")).to_owned();
        let path = |key| fields.text(key).map(|path| folder.join(path));
        let (certificate, key) = (path("cert"), path("cert_key"));
        for (one, other, name) in [(&certificate, &key, "cert"), (&key, &certificate, "cert_key")] {
            if let (Some(_), None, Some(item)) = (one, other, item.get(name)) {
                let error = SpecError::at(&item.origin, "cert and cert_key belong together");
                fields.wrong(error.label("the other one is missing"));
            }
        }
        // A path is meant from where the file is, in an address as well.
        let address = |text: &str| match text.split_once(':') {
            Some((scheme @ ("file" | "unix"), path)) if !path.starts_with('/') => {
                format!("{scheme}:{}", folder.join(path).display())
            }
            _ => text.to_owned(),
        };
        let seconds = fields.integer("wait", 0..=86_400).and_then(|seconds| u64::try_from(seconds).ok());
        let pairs = |key| {
            let text = |(name, item): (&str, &Item)| {
                Some((name.to_owned(), fields.check(item.as_text())?.to_owned()))
            };
            fields.entries(key).into_iter().filter_map(text).collect()
        };
        let trust = fields.text("trust").map(|trust| match trust {
            "all" => PathBuf::from("all"),
            path => folder.join(path),
        });
        let wishes = Self {
            addresses: fields.texts("remote").into_iter().map(|(text, _)| address(text)).collect(),
            trust,
            key: path("key"),
            upload: fields.read("upload", Item::as_bool),
            ca: path("ca"),
            client: certificate.zip(key),
            token: path("token"),
            headers: pairs("headers"),
            salt: fields.text("salt").map(str::to_owned),
            wait: seconds,
            is_required: fields.bool("required", false),
            executes: fields.bool("execute", false),
            jobs: fields.integer("jobs", 1..=4096).and_then(|jobs| u64::try_from(jobs).ok()),
            properties: pairs("properties"),
        };
        fields.finish()?;
        Ok(wishes)
    }

    /// Returns these, and where they say nothing, what others say.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            addresses: if self.addresses.is_empty() { below.addresses } else { self.addresses },
            trust: self.trust.or(below.trust),
            key: self.key.or(below.key),
            upload: self.upload.or(below.upload),
            ca: self.ca.or(below.ca),
            client: self.client.or(below.client),
            token: self.token.or(below.token),
            headers: [below.headers, self.headers].concat(),
            salt: self.salt.or(below.salt),
            wait: self.wait.or(below.wait),
            is_required: self.is_required || below.is_required,
            executes: self.executes || below.executes,
            jobs: self.jobs.or(below.jobs),
            properties: [below.properties, self.properties].concat(),
        }
    }

    /// Reads the addresses.
    ///
    /// # Errors
    /// One is none.
    pub fn addresses(&self) -> Result<Vec<Address>, WishError> {
        let parse = |text: &String| text.parse().map_err(|error| WishError::Wrong(format!("{error}")));
        self.addresses.iter().map(parse).collect()
    }

    /// Has a store forget what was signed by somebody who is no longer trusted.
    ///
    /// # Errors
    /// The list cannot be read, or the store failed.
    pub fn distrust(&self, store: &Store) -> Result<(), WishError> {
        if let Some(trust) = self.trust()? {
            store.distrust(&|signer| trust.has(signer))?;
        }
        Ok(())
    }

    /// Reads whose results count; `None` where nothing says so.
    fn trust(&self) -> Result<Option<Trust>, WishError> {
        Ok(match &self.trust {
            None => None,
            Some(all) if all == Path::new("all") => Some(Trust::All),
            Some(path) => Some(Trust::read(path)?),
        })
    }

    /// Reads keys and lists.
    ///
    /// # Errors
    /// One cannot be used, or nothing says whose results count.
    pub fn settings(&self, stop: Arc<AtomicBool>, say: fn(&str)) -> Result<Settings, WishError> {
        let trust = match self.trust()? {
            None => {
                let why = "nothing says whose results count; name a list of trusted keys with --remote-trust FILE, or \
                           `--remote-trust all` for an upstream that nobody else can write to";
                return Err(WishError::Wrong(why.to_owned()));
            }
            Some(trust) => trust,
        };
        let key = self.key.as_deref().map(Key::read).transpose()?.map(Arc::new);
        if self.upload == Some(true) && key.is_none() && trust != Trust::All {
            let why = "results that nobody signed count for nobody; sign them with --remote-key FILE, which \
                       `stagegraph remote keygen` makes";
            return Err(WishError::Wrong(why.to_owned()));
        }
        let mut settings = Settings::new(trust);
        settings.key = key;
        settings.tls = Tls { authorities: self.ca.clone(), client: self.client.clone() };
        settings.token = self.token.clone();
        settings.headers = self.headers.clone();
        settings.salt = self.salt.clone().unwrap_or_default();
        settings.stop = stop;
        settings.say = Arc::new(say);
        Ok(settings)
    }
}

/// Returns this program with its libraries, as workers run it.
fn own_program(store: &Store) -> Result<Program, WishError> {
    let own = |error| WishError::Wrong(format!("this program does not find itself: {error}"));
    let file = std::env::current_exe().map_err(own)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let spec = ToolSpec { name: &name, package: "", programs: &[], data: &[], data_places: &[] };
    let tool = Tools::new(file.parent().map(Path::to_owned).into_iter().collect()).find(store, &spec)?;
    // By the names under which the program asks for them.
    let libraries = tool.files.keys().filter(|shown| **shown != tool.program).cloned().collect();
    Ok(Program { file, libraries, verb: SHARD.to_owned() })
}

/// The upstreams of one run of the program.
pub struct Upstreams {
    remotes: Vec<Arc<dyn Remote>>,
    uploads: bool,
    wait: Duration,
    is_required: bool,
    /// Begun when there is something to offer.
    offers: OnceLock<Offers>,
    stop: Arc<AtomicBool>,
    /// Parts of the work that workers did.
    done: Arc<AtomicU64>,
}

/// What was done with upstreams, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Results that were found there.
    pub found: u64,
    /// Parts of a squashfs that were taken from images which others wrote.
    pub slices: u64,
    /// Bytes that came.
    pub fetched: u64,
    /// For how long somebody waited for them.
    pub fetching: Duration,
    /// Parts of the work that workers did.
    pub done: u64,
    /// What was offered.
    pub sent: Sent,
    /// Whether all that was to be offered was.
    pub is_complete: bool,
    /// Upstreams that failed, and why.
    pub failures: Vec<(String, String)>,
}

impl Upstreams {
    /// Makes them ready and has the store use them.
    ///
    /// # Errors
    /// [`WishError`].
    pub fn open(
        wishes: &Wishes,
        store: &Store,
        stop: Arc<AtomicBool>,
        say: fn(&str),
    ) -> Result<Self, WishError> {
        let addresses = wishes.addresses()?;
        let mut remotes = Vec::new();
        let mut uploads = false;
        if !addresses.is_empty() {
            let settings = wishes.settings(Arc::clone(&stop), say)?;
            if let Some(key) = settings.key.as_ref().filter(|key| !settings.trust.has(&key.signer())) {
                let name = key.name();
                say(&format!(
                    "what the key {name} signs does not count here: it is not among the trusted keys; add `{}`",
                    key.public()
                ));
            }
            uploads = wishes.upload.unwrap_or(settings.key.is_some());
            for address in &addresses {
                remotes.push(remote::open(address, &settings)?);
            }
        }
        if wishes.is_required {
            if remotes.is_empty() {
                return Err(WishError::Wrong(
                    "there is no upstream, and one is required; name it with --remote".to_owned(),
                ));
            }
            for remote in &remotes {
                let unusable = |why| WishError::Unusable { name: remote.name().to_owned(), why };
                remote.greet().map_err(unusable)?;
            }
        }
        store.set_upstreams(remotes.iter().map(|remote| Arc::clone(remote) as Arc<dyn Upstream>).collect());
        let wait = wishes.wait.map_or(WAIT, Duration::from_secs);
        let is_required = wishes.is_required;
        let (offers, done) = (OnceLock::new(), Arc::default());
        Ok(Self { remotes, uploads, wait, is_required, offers, stop, done })
    }

    /// Returns the workers of the first server among the addresses, where they are asked for.
    ///
    /// # Errors
    /// [`WishError`]: none of them is a server, or this program cannot be sent there.
    pub fn workers(
        &self,
        wishes: &Wishes,
        store: &Store,
        say: fn(&str),
    ) -> Result<Option<Box<dyn Workers>>, WishError> {
        if !wishes.executes || wishes.addresses.is_empty() {
            return Ok(None);
        }
        let addresses = wishes.addresses()?;
        let server = addresses.iter().find_map(|address| match address {
            Address::Server(server) => Some(server),
            Address::Mirror(_) => None,
        });
        let Some(server) = server else {
            let why = "--remote-execute needs a server among the upstreams: --remote grpc://HOST:PORT";
            return Err(WishError::Wrong(why.to_owned()));
        };
        let settings = wishes.settings(Arc::clone(&self.stop), say)?;
        let execution = Execution::new(server, &settings, own_program(store)?, wishes.properties.clone())?;
        let lanes = usize::try_from(wishes.jobs.unwrap_or(JOBS)).unwrap_or(usize::MAX);
        Ok(Some(Box::new(Elsewhere { execution, lanes, done: Arc::clone(&self.done) })))
    }

    /// Offers what ran here.
    pub fn event(&self, store: &Arc<Store>, event: &Event) {
        if let Event::Finished { action, milliseconds: Some(_), .. } = event
            && self.uploads
        {
            self.offers.get_or_init(|| Offers::new(Arc::clone(store), self.remotes.clone())).push(*action);
        }
    }

    /// Offers these results.
    pub fn offer(&self, store: &Arc<Store>, actions: impl IntoIterator<Item = cache::ActionDigest>) {
        let offers = self.offers.get_or_init(|| Offers::new(Arc::clone(store), self.remotes.clone()));
        actions.into_iter().for_each(|action| offers.push(action));
    }

    /// Has nothing offered any more.
    pub fn without_uploads(mut self) -> Self {
        self.uploads = false;
        self
    }

    /// Waits for what is being offered; `None` where nothing was asked of anybody.
    pub fn finish(self, store: &Store) -> (Option<Summary>, Option<String>) {
        let mut summary = Summary { is_complete: true, ..Summary::default() };
        if let Some(offers) = self.offers.into_inner() {
            let stop = || self.stop.load(Ordering::Relaxed);
            (summary.sent, summary.is_complete) = offers.finish(self.wait, &stop);
        }
        summary.done = self.done.load(Ordering::Relaxed);
        for remote in &self.remotes {
            let total = remote.counts().total();
            summary.found += total.found;
            summary.fetched += total.fetched;
            summary.fetching += total.fetching;
        }
        summary.slices = store.slices_taken();
        summary.found = summary.found.saturating_sub(store.asides());
        let failure = |remote: &Arc<dyn Remote>| Some((remote.name().to_owned(), remote.failure()?));
        summary.failures = self.remotes.iter().filter_map(failure).collect();
        let failed = summary.failures.first().filter(|_| self.is_required);
        let failed = failed.map(|(name, why)| format!("{name}, which is required: {why}"));
        let nothing = Summary { is_complete: true, ..Summary::default() };
        ((summary != nothing).then_some(summary), failed)
    }
}
