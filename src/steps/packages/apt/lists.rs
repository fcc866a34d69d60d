//! Package lists that this machine's apt does not keep: of other architectures, and of other releases of Debian.
//!
//! apt fetches and verifies them as it does its own, into a folder of ours; nothing of this machine changes. They are kept in the store
//! until apt's own lists or sources change: whoever runs `apt-get update` renews all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use cache::{BlobDigest, FileName};
use graph::StepError;
use serde::{Deserialize, Serialize};

use super::call::{Apt, LISTS, Lists, problems, run, stamp};
use crate::arch::Arch;

/// Where it is remembered which lists there are.
const SPACE: &str = "apt-lists 1";

/// The keys of Debian's archives, where the machine's sources name none.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What apt is asked about its sources.
const FORMAT: &str = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(LABEL)|$(ORIGIN)";

/// Settings of the machine that do not count.
const QUIET: &str = "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
                     #clear APT::Update::Post-Invoke-Success;\n";

/// Releases of Debian without updates and security beside them.
const ALONE: [&str; 3] = ["sid", "unstable", "experimental"];

/// A list in the store.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    digest: BlobDigest,
}

impl Apt<'_> {
    /// Returns the lists that a question is about, below `work` where they are not this machine's own.
    pub(super) fn lists(self, work: &Path) -> Result<Lists, StepError> {
        if self.suite.is_none() && Arch::of_machine().debian() == Some(self.architecture) {
            return Ok(Lists { folder: LISTS.into(), sources: None });
        }
        let folder = work.join("lists");
        fs::create_dir_all(folder.join("partial")).on_file("make", &folder)?;
        let sources = self.suite.map(|suite| self.sources(work, suite)).transpose()?;
        let lists = Lists { folder, sources };
        let suite = self.suite.unwrap_or("-");
        let key = format!("{} {suite} {}", self.architecture, stamp().on_file("list", LISTS)?);
        if let Some(known) = self.objects.memo(SPACE, &key)?
            && let Ok(kept) = serde_json::from_str::<Vec<Kept>>(&known)
            && self.lay_out(&kept, &lists.folder)?
        {
            return Ok(lists);
        }
        self.update(work, &lists)?;
        let kept = self.keep(&lists.folder)?;
        let text = serde_json::to_string(&kept).expect("lists are plain values");
        self.objects.set_memo(SPACE, &key, &text)?;
        Ok(lists)
    }

    /// Puts kept lists where apt reads them; tells whether all were there.
    fn lay_out(self, kept: &[Kept], folder: &Path) -> Result<bool, StepError> {
        for Kept { name, digest } in kept {
            if FileName::new(name.as_bytes()).is_err() || !self.objects.contains(digest)? {
                return Ok(false);
            }
            let (from, to) = (self.objects.verified(digest)?, folder.join(name));
            fs::copy(&from, &to).on_file("copy", &from)?;
        }
        Ok(!kept.is_empty())
    }

    fn keep(self, folder: &Path) -> Result<Vec<Kept>, StepError> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(folder).on_file("list", folder)? {
            let path = entry.on_file("list", folder)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_file() && name != "lock" {
                let bytes = fs::read(&path).on_file("read", &path)?;
                kept.push(Kept { name, digest: self.objects.put(&bytes)?.digest });
            }
        }
        Ok(kept)
    }

    /// Has apt fetch lists.
    fn update(self, work: &Path, lists: &Lists) -> Result<(), StepError> {
        let what = match self.suite {
            Some(suite) => format!("{suite}, for {}", self.architecture),
            None => self.architecture.to_owned(),
        };
        if self.offline {
            let message =
                format!("the package lists of {what} are not here, and the network must not be used");
            return Err(
                StepError::environment(message).with_hint("build once without --offline, or with a lock")
            );
        }
        // Nothing of the machine's own is to run: such hooks tell others of its lists.
        let quiet = work.join("quiet.conf");
        fs::write(&quiet, QUIET).on_file("write", &quiet)?;
        let mut command = self.apt_get(work, lists);
        command.arg("-c").arg(&quiet);
        for setting in [
            // Or a source that does not answer would be one without packages.
            "APT::Update::Error-Mode=any",
            "APT::Sandbox::User=root",
            "Acquire::GzipIndexes=true",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false",
            "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false",
            "Acquire::IndexTargets::deb::DEP-11-icons-hidpi::DefaultEnabled=false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
        ] {
            command.args(["-o", setting]);
        }
        command.args(["-q", "update"]);
        let output = run(command, self.cancel)?;
        let has_packages = fs::read_dir(&lists.folder)
            .on_file("list", &lists.folder)?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
        if output.status.success() && has_packages {
            return Ok(());
        }
        let problems = problems(&output).join("; ");
        let why = if problems.is_empty() { "the sources have none".to_owned() } else { problems };
        Err(StepError::environment(format!("the package lists of {what} cannot be fetched: {why}"))
            .with_hint(
                "look at the network, and at apt's sources: they need an archive that has them, signed by Debian's keys where it is another release",
            ))
    }

    /// Writes sources of another release: those of Debian that this machine has, under that release's name.
    fn sources(self, work: &Path, suite: &str) -> Result<PathBuf, StepError> {
        let own = Lists { folder: LISTS.into(), sources: None };
        let mut command = self.apt_get(work, &own);
        let machine = Arch::of_machine().debian().unwrap_or(self.architecture);
        command.args(["-o", &format!("APT::Architecture={machine}")]);
        command.args(["-o", &format!("APT::Architectures={machine}")]);
        command.args(["indextargets", "--format", FORMAT, "Created-By: Packages"]);
        let output = run(command, self.cancel)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let text = of_suite(&text, suite).ok_or_else(|| {
            let what =
                format!("apt's sources here name no release of Debian, so that {suite} cannot be found");
            StepError::environment(what)
                .with_hint("add a source of Debian's to /etc/apt, or use a lock and --mirror")
        })?;
        let path = work.join("sources.list");
        fs::write(&path, text).on_file("write", &path)?;
        Ok(path)
    }
}

/// Returns lines for another release, from what apt says of its own sources: one a line, in the form of [`FORMAT`].
fn of_suite(targets: &str, suite: &str) -> Option<String> {
    let rows: Vec<Vec<&str>> = targets.lines().map(|line| line.split('|').collect()).collect();
    let debian = rows.iter().filter(|row| row.len() == 5 && row[4] == "Debian");
    let base = debian.clone().find(|row| row[3] == "Debian" && !row[1].contains('-')).map(|row| row[1])?;
    let signed = if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let lines: BTreeSet<String> = debian
        .filter_map(|row| {
            let rest = row[1].strip_prefix(base).filter(|rest| rest.is_empty() || !ALONE.contains(&suite))?;
            Some(format!("deb {signed}{} {suite}{rest} {}\n", row[0], row[2]))
        })
        .collect();
    Some(lines.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_another_release_are_those_of_this_one_under_its_name() {
        let targets = "http://d/debian/|bookworm|main|Debian|Debian\n\
            http://d/debian/|bookworm-updates|main|Debian|Debian\n\
            http://d/debian-security/|bookworm-security|main|Debian-Security|Debian\n\
            https://n/node/|nodistro|main|. nodistro|. nodistro\n";
        let text = of_suite(targets, "trixie").unwrap();
        let plain = text.replace(&format!("[signed-by={KEYRING}] "), "");
        assert_eq!(
            plain,
            "deb http://d/debian-security/ trixie-security main\ndeb http://d/debian/ trixie main\n\
             deb http://d/debian/ trixie-updates main\n"
        );
        assert_eq!(of_suite(targets, "sid").unwrap().lines().count(), 1);
        assert_eq!(of_suite("https://n/node/|nodistro|main|x|x\n", "trixie"), None);
    }
}
