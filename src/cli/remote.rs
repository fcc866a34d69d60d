//! `remote`: keys, and what upstreams can.

use std::path::PathBuf;
use std::sync::Arc;

use ::remote::{Key, Probe};
use cache::ActionDigest;
use clap::{Args, Subcommand};

use super::args::{SpecArgs, StoreArgs};
use super::failure::{DONE, ENVIRONMENT, Failure, print};
use super::upstreams::{Settings, last_actions};
use crate::upstreams::WishError;

#[derive(Debug, Args)]
pub(super) struct RemoteVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes a key that signs results, and prints the line by which others trust it
    Keygen {
        /// The name of the key, such as ci-2026
        name: String,
        /// The file of the private key; it must not be there yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Says what an upstream can, how fast it is, and whose results count
    Check(Box<Check>),
}

#[derive(Debug, Args)]
struct Check {
    /// The upstreams
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Send 4 MiB there as well, and read them again
    #[arg(long)]
    write: bool,
    /// Read all that it has of a spec which was built with this store, and name the blobs that are gone or altered; may be repeated
    #[arg(long, value_name = "SPEC")]
    verify: Vec<String>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    store: StoreArgs,
}

impl RemoteVerb {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self.verb {
            Verb::Keygen { name, out } => {
                let key = Key::generate(&name, &out).map_err(WishError::from)?;
                print(format!("{}\n", key.public()).as_bytes())
            }
            Verb::Check(check) => check.run(),
        }
    }
}

impl Check {
    fn run(&self) -> Result<u8, Failure> {
        let wishes = self.settings.of(&self.addresses)?;
        let actions = match self.verify.is_empty() {
            true => Vec::new(),
            false => {
                let store = self.store.open_existing()?;
                let mut actions = last_actions(&store, &self.verify, &self.spec)?;
                for action in actions.clone() {
                    actions.extend(store.slices_of(&action)?);
                }
                actions
            }
        };
        let mut settings = wishes.settings(Arc::default(), |_| ())?;
        settings.examines = true;
        let mut code = DONE;
        for address in wishes.addresses()? {
            let probe = Probe::of(&address, &settings, self.write).map_err(WishError::from)?;
            let mut text = format!("{address}\n");
            for row in &probe.rows {
                let mark = if row.is_fine { "" } else { "  <- a build goes on without it" };
                text.push_str(&format!("  {:<20} {}{mark}\n", row.what, row.found));
            }
            print(text.as_bytes())?;
            if !probe.is_fine() || !is_whole(&address, &settings, &actions)? {
                code = ENVIRONMENT;
            }
        }
        Ok(code)
    }
}

/// Reads all that an upstream has of these results; says what cannot be had, and tells whether it is nothing.
fn is_whole(
    address: &::remote::Address,
    settings: &::remote::Settings,
    actions: &[ActionDigest],
) -> Result<bool, Failure> {
    if actions.is_empty() {
        return Ok(true);
    }
    let upstream = ::remote::open(address, settings).map_err(WishError::from)?;
    let failed = |error: cache::upstream::UpstreamError| Failure::environment(format!("{address}: {error}"));
    let found = ::remote::examine(&*upstream, actions).map_err(failed)?;
    let whole =
        format!("{} results, {} chunks, {}", found.results, found.chunks, indicatif::HumanBytes(found.bytes));
    let mut text = format!("  {:<20} {whole}\n", "verified");
    for action in &found.without {
        text.push_str(&format!("  {:<20} {action}: none that counts\n", "no result"));
    }
    for ::remote::Damage { object, chunk, is_gone } in &found.damages {
        let what = if *is_gone { "gone" } else { "altered" };
        let names = format!("SHA-256 {}, BLAKE3 {}", chunk.sha256, chunk.digest);
        text.push_str(&format!("  {what:<20} {names}, {} bytes of object {object}\n", chunk.size));
    }
    if !found.damages.is_empty() {
        text.push_str("  remove these blobs there; then `stagegraph store push` sends them again\n");
    }
    print(text.as_bytes())?;
    Ok(found.damages.is_empty())
}
