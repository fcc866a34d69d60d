//! Upstreams on the command line: `--remote`, `stagegraph store push` and `pull`, what workers run.

use std::path::PathBuf;
use std::sync::Arc;

use cache::{ActionDigest, Store};
use clap::Args;
use graph::explain;
use graph::sandbox::Mode;

use super::args::{self, SpecArgs, StoreArgs, finder};
use super::failure::{DONE, ENVIRONMENT, Failure, WRONG, complain, note, print, stopped};
use crate::machine::Machine;
use crate::spec::Spec;
use crate::squashfs::answer_shard;
pub(super) use crate::upstreams::{Summary, Upstreams};
use crate::upstreams::{WishError, Wishes};

/// How upstreams are used.
#[derive(Debug, Args)]
#[command(next_help_heading = "Upstreams")]
pub(super) struct Settings {
    /// Whose results count: a file with trusted public keys, or `all`
    #[arg(
        long = "remote-trust",
        value_name = "FILE | all",
        env = "STAGEGRAPH_REMOTE_TRUST",
        hide_env = true
    )]
    trust: Option<PathBuf>,
    /// The private key that signs what is offered
    #[arg(long = "remote-key", value_name = "FILE", env = "STAGEGRAPH_REMOTE_KEY", hide_env = true)]
    key: Option<PathBuf>,
    /// Authorities that the certificate of a server may come from, in PEM [default: the system's]
    #[arg(long = "remote-ca", value_name = "FILE", env = "STAGEGRAPH_REMOTE_CA", hide_env = true)]
    ca: Option<PathBuf>,
    /// The certificate that this client shows, in PEM
    #[arg(long = "remote-cert", value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(long = "remote-cert-key", value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
    /// A file with a token, for `Authorization: Bearer`
    #[arg(long = "remote-token", value_name = "FILE", env = "STAGEGRAPH_REMOTE_TOKEN", hide_env = true)]
    token: Option<PathBuf>,
    /// One more header of each request, such as `x-team: media`; secrets belong into a settings file; may be repeated
    #[arg(long = "remote-header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A word that is part of every key there: another one abandons all results
    #[arg(long = "remote-salt", value_name = "WORD", env = "STAGEGRAPH_REMOTE_SALT", hide_env = true)]
    salt: Option<String>,
}

/// Which upstreams a build uses.
#[derive(Debug, Args)]
#[command(next_help_heading = "Upstreams")]
pub(super) struct Remotes {
    /// Where results come from that the store does not have: grpc://HOST:PORT[/INSTANCE], grpcs://…, unix:PATH, file:DIR, or
    /// https://…; asked in order, may be repeated; none: not those of the settings file
    #[arg(
        long = "remote",
        value_name = "ADDRESS",
        env = "STAGEGRAPH_REMOTE",
        hide_env = true,
        value_delimiter = ' '
    )]
    remotes: Vec<String>,
    /// Whether what is made here is offered there [default: yes with a key]
    #[arg(long = "remote-upload", value_name = "yes | no", num_args = 0..=1, default_missing_value = "yes", require_equals = true, value_parser = yes_no)]
    upload: Option<bool>,
    /// How long to wait in the end for what is offered, in seconds [default: 60]
    #[arg(long = "remote-wait", value_name = "SECONDS")]
    wait: Option<u64>,
    /// Fail with 3 where an upstream cannot be used
    #[arg(long = "remote-required")]
    required: bool,
    /// Have the workers of the first server among them compress as well
    #[arg(long = "remote-execute")]
    execute: bool,
    /// How many parts of the work are at workers at once [default: 8]
    #[arg(long = "remote-jobs", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    remote_jobs: Option<u64>,
    /// What workers are chosen by: a property of their platform; may be repeated
    #[arg(long = "remote-property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    #[command(flatten)]
    settings: Settings,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Stands for no upstream, where a settings file names some.
const NONE: &str = "none";

fn yes_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("expected yes or no".to_owned()),
    }
}

/// Splits a header. What is none is not repeated: it may be a secret.
fn header(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| Failure::wrong("--remote-header: this is no header; expected NAME: VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl From<WishError> for Failure {
    fn from(error: WishError) -> Self {
        match error {
            WishError::Wrong(why) => Self::wrong(why),
            WishError::Settings(errors) => errors.into(),
            WishError::Key(error) if error.is_of_the_machine() => Self::of(ENVIRONMENT, &error),
            WishError::Key(error) => Self::of(WRONG, &error),
            WishError::Store(error) => error.into(),
            WishError::Program(error) => Self::of(ENVIRONMENT, &error),
            WishError::Unusable { ref name, .. } => {
                let hint = format!("`stagegraph remote check {name}` says more");
                Self::of(ENVIRONMENT, &error).with_hint(hint)
            }
        }
    }
}

/// Reads the user's settings file, or else the system's.
fn of_file() -> Result<Wishes, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let user = user.map(|folder| folder.join("stagegraph/remote.toml"));
    for path in user.into_iter().chain([PathBuf::from("/etc/stagegraph/remote.toml")]) {
        // Of a folder that is closed to this user, nobody can tell.
        if path.metadata().is_err() {
            continue;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Wishes::read(&path.display().to_string(), &text)?),
            Err(error) => {
                return Err(Failure::environment(format!("read {}: {error}", path.display())));
            }
        }
    }
    Ok(Wishes::default())
}

impl Settings {
    fn wishes(&self) -> Result<Wishes, Failure> {
        // A variable that is set to nothing says nothing.
        let set = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        Ok(Wishes {
            trust: set(&self.trust),
            key: set(&self.key),
            ca: set(&self.ca),
            client: self.cert.clone().zip(self.cert_key.clone()),
            token: set(&self.token),
            headers: self.headers.iter().map(|text| header(text)).collect::<Result<_, _>>()?,
            salt: self.salt.clone(),
            ..Wishes::default()
        })
    }

    /// Returns what is asked for of these upstreams.
    pub(super) fn of(&self, addresses: &[String]) -> Result<Wishes, Failure> {
        let below = Wishes { addresses: Vec::new(), is_required: false, ..of_file()? };
        Ok(Wishes { addresses: addresses.to_vec(), ..self.wishes()? }.over(below))
    }
}

impl Remotes {
    /// Makes the upstreams ready that were asked for, and their workers for this machine.
    pub(super) fn open(
        &self,
        store: &Store,
        machine: &mut Machine,
        offline: bool,
    ) -> Result<Upstreams, Failure> {
        let stop = machine.stop();
        let own = Wishes {
            addresses: self.remotes.iter().filter(|text| !text.is_empty()).cloned().collect(),
            upload: self.upload,
            wait: self.wait,
            is_required: self.required,
            executes: self.execute,
            jobs: self.remote_jobs,
            properties: self.properties.clone(),
            ..self.settings.wishes()?
        };
        let wishes = own.over(of_file()?);
        let is_none = wishes.addresses.iter().any(|address| address == NONE);
        let wishes = Wishes { addresses: if is_none { Vec::new() } else { wishes.addresses }, ..wishes };
        if offline && self.required {
            return Err(Failure::wrong("--remote-required and --offline exclude each other"));
        }
        // Also where nobody is asked: what is here may be of somebody who no longer counts.
        wishes.distrust(store)?;
        let wishes = if offline { Wishes::default() } else { wishes };
        let upstreams = Upstreams::open(&wishes, store, stop, note)?;
        if let Some(workers) = upstreams.workers(&wishes, store, note)? {
            machine.use_workers(workers);
        }
        Ok(upstreams)
    }
}

/// Says what was done with upstreams.
pub(super) fn line(summary: &Summary) -> String {
    let bytes = |number: u64| indicatif::HumanBytes(number).to_string();
    let mut text = format!("remote: {} found", summary.found);
    if summary.fetched > 0 {
        text.push_str(&format!(
            ", {} fetched in {:.1} s",
            bytes(summary.fetched),
            summary.fetching.as_secs_f64()
        ));
    }
    if summary.slices > 0 {
        text.push_str(&format!(", {} parts of others' images", summary.slices));
    }
    if summary.done > 0 {
        text.push_str(&format!(", {} shards compressed there", summary.done));
    }
    let sent = &summary.sent;
    if sent.results + sent.there + sent.failed > 0 || !summary.is_complete {
        text.push_str(&format!(", {} offered", sent.results));
        text.push_str(&format!(" ({} sent)", bytes(sent.bytes)));
        if sent.there > 0 {
            text.push_str(&format!(", {} were there", sent.there));
        }
        if sent.failed > 0 {
            text.push_str(&format!(", {} not", sent.failed));
        }
        if !summary.is_complete {
            text.push_str(", and the rest not in time: see --remote-wait");
        }
    }
    text
}

/// Returns the same for programs.
pub(super) fn json(summary: &Summary) -> serde_json::Value {
    let failure = |(name, why): &(String, String)| serde_json::json!({ "upstream": name, "why": why });
    let failures: Vec<_> = summary.failures.iter().map(failure).collect();
    serde_json::json!({
        "event": "remote", "found": summary.found, "slices": summary.slices, "fetched_bytes": summary.fetched,
        "fetching_milliseconds": u64::try_from(summary.fetching.as_millis()).unwrap_or(u64::MAX),
        "shards": summary.done, "offered": summary.sent.results, "sent_bytes": summary.sent.bytes, "there": summary.sent.there,
        "not_offered": summary.sent.failed, "complete": summary.is_complete,
        "failures": failures,
    })
}

/// Returns what the nodes of these specs gave last with a store.
pub(super) fn last_actions(
    store: &Store,
    specs: &[String],
    args: &SpecArgs,
) -> Result<Vec<ActionDigest>, Failure> {
    let mut actions = Vec::new();
    for name in specs {
        let spec = Spec::load(&finder(), name, &args.overrides())?;
        for node in spec.dag.order() {
            let last = explain::last(store, &spec.name, &node)?;
            let known = last
                .map(|last| last.action)
                .filter(|action| store.action(action).is_ok_and(|found| found.is_some()));
            actions.push(known.ok_or_else(|| {
                Failure::environment(format!("{node} of {} has no result in this store", spec.name))
                    .with_hint(format!("build it first: stagegraph build {name}"))
            })?);
        }
    }
    actions.sort_unstable();
    actions.dedup();
    Ok(actions)
}

/// What workers run: compresses the blocks of a shard.
#[derive(Debug, Args)]
pub(super) struct ShardVerb {
    /// The blocks
    input: PathBuf,
    /// What became of them
    output: PathBuf,
}

impl ShardVerb {
    pub(super) fn run(&self) -> Result<u8, Failure> {
        let failed = |what: &str, path: &PathBuf, error: std::io::Error| {
            Failure::environment(format!("{what} {}: {error}", path.display()))
        };
        let input = std::fs::read(&self.input).map_err(|error| failed("read", &self.input, error))?;
        let output = answer_shard(&input).map_err(|error| Failure::of(WRONG, &error))?;
        std::fs::write(&self.output, output).map_err(|error| failed("write", &self.output, error))?;
        Ok(DONE)
    }
}

/// What `store push` and `store pull` take.
#[derive(Debug, Args)]
pub(super) struct Transfer {
    /// Specs that were built with this store
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<String>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    store: StoreArgs,
}

impl Transfer {
    /// Returns what the nodes of the specs gave last.
    fn actions(&self, store: &Store) -> Result<Vec<ActionDigest>, Failure> {
        last_actions(store, &self.specs, &self.spec)
    }

    fn prepared(&self, address: &str) -> Result<(Arc<Store>, crate::machine::Machine, Upstreams), Failure> {
        let wishes = self.settings.of(&[address.to_owned()])?;
        let wishes = Wishes { upload: Some(false), is_required: true, wait: Some(u64::MAX / 4), ..wishes };
        let store = Arc::new(self.store.open_existing()?);
        let machine = args::machine(Mode::On)?;
        store.stop_by(machine.stop());
        let upstreams = Upstreams::open(&wishes, &store, machine.stop(), note)?;
        Ok((store, machine, upstreams))
    }

    /// Makes the folder of a mirror that is to be one.
    fn make_mirror(&self, wishes: &Wishes) -> Result<(), Failure> {
        for address in wishes.addresses()? {
            let Some(folder) = ::remote::folder(&address) else { continue };
            ::remote::begin_mirror(folder).map_err(|error| {
                Failure::environment(format!("{} cannot become a mirror: {error}", folder.display()))
            })?;
        }
        Ok(())
    }

    /// Offers what the specs gave last.
    pub(super) fn push(&self, to: &str) -> Result<u8, Failure> {
        let wishes = self.settings.of(&[to.to_owned()])?;
        if wishes.key.is_none() && wishes.trust.as_deref() != Some(std::path::Path::new("all")) {
            return Err(Failure::wrong("results that nobody signed count for nobody").with_hint(
                "sign them with --remote-key FILE, which `stagegraph remote keygen` makes; or say `--remote-trust all`",
            ));
        }
        let store = Arc::new(self.store.open_existing()?);
        let actions = self.actions(&store)?;
        drop(store);
        self.make_mirror(&wishes)?;
        let (store, machine, upstreams) = self.prepared(to)?;
        upstreams.offer(&store, actions);
        let (summary, failed) = upstreams.finish(&store);
        if let Some(signal) = machine.signal() {
            return Ok(stopped(signal, "what was sent stays there"));
        }
        let summary = summary.unwrap_or_default();
        for remark in &summary.sent.remarks {
            complain(&format!("note: {remark}"));
        }
        print(format!("{}\n", line(&summary)).as_bytes())?;
        match failed {
            Some(why) => Err(Failure::environment(why)),
            None if summary.sent.failed > 0 => {
                if store.has_elsewhere()? {
                    complain(
                        "  hint: fetch what is elsewhere first: stagegraph store pull SPEC --from ADDRESS",
                    );
                }
                Ok(ENVIRONMENT)
            }
            None => Ok(DONE),
        }
    }

    /// Fetches the bytes of all that the specs gave last.
    pub(super) fn pull(&self, from: &str) -> Result<u8, Failure> {
        let (store, machine, upstreams) = self.prepared(from)?;
        let mut lost = Vec::new();
        for action in self.actions(&store)? {
            lost.extend(store.bring_all(&action)?);
            if let Some(signal) = machine.signal() {
                return Ok(stopped(signal, "what was fetched is kept"));
            }
        }
        let (summary, failed) = upstreams.finish(&store);
        print(format!("{}\n", line(&summary.unwrap_or_default())).as_bytes())?;
        if let Some(first) = lost.first() {
            let why = failed.map_or_else(String::new, |why| format!(" ({why})"));
            let message = format!("{} objects could not be fetched, such as {first}{why}", lost.len());
            return Err(Failure::environment(message)
                .with_hint("a build makes again what it needs of them, or fetches it when it is reached"));
        }
        Ok(DONE)
    }
}
