//! `stagegraph store`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache::Store;
use cache::collect::Limits;
use cache::usage::Amount;
use clap::{Args, Subcommand};

use super::args::StoreArgs;
use super::failure::{DONE, ENVIRONMENT, Failure, complain, print};

#[derive(Debug, Args)]
pub(super) struct StoreVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says what the space is spent on, by kind of step and by spec
    Stat {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Reads every object and names those that are damaged
    Verify {
        /// Drop what is damaged, so that the next build makes it again
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Removes what nothing that is published needs
    ///
    /// What is kept: all that the published folders were built from, as long as they are there, and whatever a running
    /// build uses. Builds may go on meanwhile.
    Gc {
        /// Remove only what was not used for that long: a number and s, m, h, d or w, such as 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        older_than: Option<Duration>,
        /// Remove only as much, the longest unused first, until the store is that small: a number and K, M, G or T
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// Remove nothing; say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Offers an upstream all that specs gave when they were last built
    #[cfg(feature = "remote")]
    Push {
        /// The upstream
        #[arg(long, value_name = "ADDRESS")]
        to: String,
        #[command(flatten)]
        transfer: super::upstreams::Transfer,
    },
    /// Fetches the bytes of all that specs gave when they were last built, so that no upstream is needed any more
    #[cfg(feature = "remote")]
    Pull {
        /// The upstream
        #[arg(long, value_name = "ADDRESS")]
        from: String,
        #[command(flatten)]
        transfer: super::upstreams::Transfer,
    },
}

/// Splits a number from its unit.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = number(text).and_then(|(number, unit)| {
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a number and s, m, h, d or w, such as 30d".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = number(text).and_then(|(number, unit)| {
        let shift = match unit.trim_end_matches("iB") {
            // A number alone would be bytes, and a forgotten G would empty the store.
            "B" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift)
    });
    bytes.ok_or_else(|| "expected a number and K, M, G or T, such as 20G".to_owned())
}

/// Writes a number of bytes as people read it.
fn bytes(number: u64) -> String {
    indicatif::HumanBytes(number).to_string()
}

impl StoreVerb {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self.verb {
            Verb::Stat { store } => stat(&store.open_existing()?),
            Verb::Verify { repair, store } => verify(&store.open_existing()?, repair),
            Verb::Gc { older_than, max_size, dry_run, store } => {
                gc(&store.open_existing()?, &Limits { older_than, max_size, dry_run })
            }
            #[cfg(feature = "remote")]
            Verb::Push { to, transfer } => transfer.push(&to),
            #[cfg(feature = "remote")]
            Verb::Pull { from, transfer } => transfer.pull(&from),
        }
    }
}

fn stat(store: &Store) -> Result<u8, Failure> {
    let usage = store.usage()?;
    let mut text = format!("store {}\n\n", store.dir().display());
    let mut table = |title: &str, rows: Vec<(String, Amount)>| {
        let _ = writeln!(text, "{title:<32} {:>8} {:>12}", "objects", "size");
        for (name, amount) in rows {
            let _ = writeln!(text, "  {name:<30} {:>8} {:>12}", amount.objects, bytes(amount.bytes));
        }
        text.push('\n');
    };
    let by_size = |amounts: std::collections::BTreeMap<String, Amount>| {
        let mut rows: Vec<_> = amounts.into_iter().collect();
        rows.sort_by_key(|(_, amount)| std::cmp::Reverse(amount.bytes));
        rows
    };
    table("by kind of step", by_size(usage.kinds));
    let mut specs = by_size(usage.specs);
    if usage.shared.objects > 0 {
        specs.push(("(of several specs)".to_owned(), usage.shared));
    }
    table("by spec", specs);
    let overhead = Amount { objects: 0, bytes: usage.overhead };
    table(
        "in all",
        vec![
            ("objects".to_owned(), usage.all),
            ("of them needed by no result".to_owned(), usage.unneeded),
            ("elsewhere, and not here".to_owned(), usage.elsewhere),
            ("toolboxes laid out".to_owned(), usage.checkouts),
            ("index, logs, scratch".to_owned(), overhead),
        ],
    );
    let roots = store.roots()?;
    let _ = writeln!(text, "{} results; kept by {} published folders:", usage.actions, roots.len());
    for root in roots {
        let gone = if root.path.exists() { "" } else { " (gone)" };
        let _ = writeln!(text, "  {}{gone}", root.path.display());
    }
    print(text.as_bytes())
}

fn verify(store: &Store, repair: bool) -> Result<u8, Failure> {
    let done = AtomicU64::new(0);
    let bar = indicatif::ProgressBar::new_spinner();
    let progress = |read: u64| {
        let all = done.fetch_add(read, Ordering::Relaxed) + read;
        bar.set_message(format!("{} read", bytes(all)));
        bar.tick();
    };
    let found = store.verify(repair, &progress)?;
    bar.finish_and_clear();
    for damage in &found.damages {
        complain(&format!("damage: {damage}"));
    }
    let mut text =
        format!("{} objects ({}) and {} results: ", found.objects, bytes(found.bytes), found.actions);
    let code = match (found.damages.len(), repair) {
        (0, _) => {
            text.push_str("all sound\n");
            DONE
        }
        (number, true) => {
            let _ = writeln!(text, "{number} damaged, and dropped; the next build makes them again");
            DONE
        }
        (number, false) => {
            let _ = writeln!(text, "{number} damaged; `stagegraph store verify --repair` drops them");
            ENVIRONMENT
        }
    };
    if !found.strays.is_empty() {
        let number = found.strays.len();
        let _ = writeln!(
            text,
            "{number} files are left by processes that were ended; `stagegraph store gc` removes them"
        );
    }
    print(text.as_bytes())?;
    Ok(code)
}

fn gc(store: &Store, limits: &Limits) -> Result<u8, Failure> {
    let done = store.collect(limits)?;
    let verb = if limits.dry_run { "would remove" } else { "removed" };
    let mut text = format!(
        "{verb} {} results and {} objects, {}; {} objects stay, {}\n",
        done.actions,
        done.objects,
        bytes(done.bytes),
        done.kept_objects,
        bytes(done.kept_bytes)
    );
    for root in &done.roots {
        let _ = writeln!(text, "  kept for {}", root.display());
    }
    for root in &done.lost_roots {
        let _ = writeln!(text, "  {} is gone and keeps nothing any more", root.display());
    }
    if done.checkouts > 0 {
        let _ = writeln!(text, "  {} toolboxes that were laid out among them", done.checkouts);
    }
    if done.running > 0 {
        let _ = writeln!(text, "  {} running: what it uses was left alone", done.running);
    }
    if let Some(size) = limits.max_size.filter(|size| done.kept_bytes > *size) {
        let _ = writeln!(
            text,
            "  what is kept is larger than {}: remove published folders, or use the store less at once",
            bytes(size)
        );
    }
    print(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(size("20G"), Ok(20 << 30));
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("3MiB"), Ok(3 << 20));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for wrong in ["", "G", "20", "20X", "-1G", "99999999999999999999", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "d", "30", "30y", "99999999999999999999w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
