//! What an audit found, for people and for programs.

use std::collections::BTreeMap;

use cache::BlobDigest;
use serde::Serialize;

use super::facts::{Kind, Part};

/// The version of the report's schema, which `docs/audit.md` documents.
pub const SCHEMA: u32 = 2;

/// One of the things an audit looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Its name: in reports, in `--allow`, in `docs/audit.md`.
    pub id: &'static str,
    /// What it looks at, in a few words.
    pub what: &'static str,
}

/// How a check ended; the worst of its findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// There was nothing to look at.
    None,
    /// All is right.
    Ok,
    /// It works, and is not as it should be.
    Warning,
    /// Something could not be read.
    Unreadable,
    /// Something does not match or does not work.
    Different,
}

/// One thing that is not right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// The file, with the line of a menu or list behind a colon.
    pub subject: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The check.
    pub check: &'static str,
    /// The worst finding.
    pub verdict: Verdict,
    /// What was looked at, in one sentence.
    pub says: String,
    /// What is not right.
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// Begins a check that has found nothing yet.
    pub(super) fn new(check: &Check) -> Self {
        Self { check: check.id, verdict: Verdict::None, says: String::new(), findings: Vec::new() }
    }

    /// Notes that something was looked at.
    pub(super) fn looked(&mut self) {
        self.verdict = self.verdict.max(Verdict::Ok);
    }

    pub(super) fn differs(
        &mut self,
        subject: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Verdict::Different, subject.into(), what.into(), hint.into());
    }

    pub(super) fn warns(
        &mut self,
        subject: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Verdict::Warning, subject.into(), what.into(), hint.into());
    }

    pub(super) fn unreadable(&mut self, subject: impl Into<String>, what: impl Into<String>) {
        self.add(
            Verdict::Unreadable,
            subject.into(),
            what.into(),
            "see that it can be read, and audit again".to_owned(),
        );
    }

    fn add(&mut self, verdict: Verdict, subject: String, what: String, hint: String) {
        // Names come from files that anybody made: nothing in them may reach a terminal as a command.
        let [subject, what] = [subject, what].map(|text| plain(&text));
        self.verdict = self.verdict.max(verdict);
        self.findings.push(Finding { verdict, subject, what, hint });
    }

    /// Ends a check: what to say if all is right, or if there was nothing.
    pub(super) fn says(mut self, ok: impl Into<String>, none: &str) -> Self {
        self.says = if self.verdict == Verdict::None { none.to_owned() } else { plain(&ok.into()) };
        self
    }
}

/// A file, as the report lists it.
#[derive(Debug, Clone, Serialize)]
pub struct FileLine {
    /// What it is.
    pub kind: Kind,
    /// Number of bytes.
    pub size: u64,
    /// Its digest, where it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<BlobDigest>,
}

/// Memory that a way to boot needs.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// The way, as in the manifest.
    pub way: &'static str,
    /// The initrd it is about.
    pub initrd: String,
    /// The least memory.
    pub least_ram_mib: u64,
}

/// Everything an audit found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version of this schema.
    pub schema: u32,
    /// The ISO's file name.
    pub iso: String,
    /// What the netboot set was called.
    pub netboot: String,
    /// The worst of all checks.
    pub verdict: Verdict,
    /// The checks, in the order of `docs/audit.md`.
    pub checks: Vec<Outcome>,
    /// Kernels, initrds and squashfs of the ISO, by path.
    pub iso_parts: BTreeMap<String, FileLine>,
    /// The files of the set.
    pub netboot_files: BTreeMap<String, FileLine>,
    /// Least memory, by the sizes found.
    pub memory: Vec<Memory>,
}

impl Report {
    /// Turns the differences of these checks into warnings: somebody knows of them.
    pub fn allow(&mut self, checks: &[String]) {
        // Nothing was compared with an ISO of which nothing could be read.
        let is_usable = !self.iso_parts.is_empty();
        let allowed = |outcome: &&mut Outcome| is_usable && checks.iter().any(|id| id == outcome.check);
        for outcome in self.checks.iter_mut().filter(allowed) {
            for finding in outcome.findings.iter_mut().filter(|f| f.verdict == Verdict::Different) {
                finding.verdict = Verdict::Warning;
            }
            if outcome.verdict == Verdict::Different {
                outcome.verdict = outcome.findings.iter().map(|f| f.verdict).max().unwrap_or(Verdict::Ok);
            }
        }
        self.verdict = self.checks.iter().map(|outcome| outcome.verdict).max().unwrap_or(Verdict::None);
    }

    /// Returns all findings with their checks, the worst first.
    pub fn findings(&self) -> Vec<(&'static str, &Finding)> {
        let mut all: Vec<_> = self
            .checks
            .iter()
            .flat_map(|outcome| outcome.findings.iter().map(|finding| (outcome.check, finding)))
            .collect();
        all.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.verdict));
        all
    }

    /// Renders it for a terminal of that many columns.
    pub fn text(&self, width: usize) -> String {
        let mut text = format!(
            "ISO      {}\nnetboot  {} ({} files)\n\n",
            self.iso,
            self.netboot,
            self.netboot_files.len()
        );
        let column = self.checks.iter().map(|outcome| outcome.check.len()).max().unwrap_or_default();
        for outcome in &self.checks {
            let mark = mark(outcome.verdict);
            let indent = " ".repeat(8 + column + 2);
            let first = format!("  {mark:<6}{:<column$}  ", outcome.check);
            let says = if outcome.findings.is_empty() { outcome.says.as_str() } else { "" };
            let mut paragraphs: Vec<(String, String)> = Vec::new();
            if !says.is_empty() {
                paragraphs.push((String::new(), says.to_owned()));
            }
            for finding in &outcome.findings {
                let sub = mark_of_finding(finding.verdict, outcome.verdict);
                paragraphs.push((sub.to_owned(), format!("{}: {}", finding.subject, finding.what)));
                paragraphs.push(("→ ".to_owned(), finding.hint.clone()));
            }
            for (index, (lead, paragraph)) in paragraphs.iter().enumerate() {
                let initial = if index == 0 { format!("{first}{lead}") } else { format!("{indent}{lead}") };
                let rest = format!("{indent}{}", " ".repeat(lead.chars().count()));
                let options = textwrap::Options::new(width)
                    .initial_indent(&initial)
                    .subsequent_indent(&rest)
                    .word_separator(textwrap::WordSeparator::AsciiSpace)
                    .word_splitter(textwrap::WordSplitter::NoHyphenation)
                    .break_words(false);
                text.push_str(&textwrap::fill(paragraph, options));
                text.push('\n');
            }
        }
        let count = |verdict| self.checks.iter().filter(|outcome| outcome.verdict == verdict).count();
        let mut counts = vec![format!("{} ok", count(Verdict::Ok))];
        for (verdict, name) in [
            (Verdict::Warning, "with warnings"),
            (Verdict::Unreadable, "not readable"),
            (Verdict::Different, "FAILED"),
            (Verdict::None, "with nothing to look at"),
        ] {
            if count(verdict) > 0 {
                counts.push(format!("{} {name}", count(verdict)));
            }
        }
        let sum = match self.verdict {
            Verdict::None | Verdict::Ok => "The ISO and the netboot set match.",
            Verdict::Warning => "The ISO and the netboot set match; mind the warnings.",
            Verdict::Unreadable => "Not all could be read: whether they match is not known.",
            Verdict::Different => "They DO NOT match, or do not boot: do not publish them.",
        };
        text.push_str(&format!("\n{} checks: {}\n{sum}\n", self.checks.len(), counts.join(", ")));
        text
    }
}

/// Returns a text with its control characters escaped.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::None => "-",
        Verdict::Ok => "ok",
        Verdict::Warning => "warn",
        Verdict::Unreadable => "ERROR",
        Verdict::Different => "FAIL",
    }
}

/// A finding that is less bad than its check says so.
fn mark_of_finding(finding: Verdict, check: Verdict) -> &'static str {
    if finding == Verdict::Warning && check != Verdict::Warning { "(only a warning) " } else { "" }
}

/// Lists files for a report.
pub(super) fn file_lines<'a>(parts: impl Iterator<Item = &'a Part>) -> BTreeMap<String, FileLine> {
    let line = |part: &Part| FileLine { kind: part.kind, size: part.size, blake3: part.digest() };
    parts.map(|part| (part.name.clone(), line(part))).collect()
}
