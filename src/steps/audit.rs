//! `audit`: reads the published files back, as a user would download them, and fails where they do not match.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cache::Output;
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::kind::{Inputs, Kind, Made, folder, identity, json};
use crate::audit::{self, Place, Set, Trusted, Verdict};
use crate::config::{Fields, SpecError};
use crate::image::Image;

/// The step's name.
pub const NAME: &str = "audit";

/// Gives `report`, a folder with the report as JSON. Its inputs are the published folders.
///
/// `allow` names checks whose differences are warnings.
pub(super) const KIND: Kind = Kind { name: NAME, inputs: Inputs::Any, make };

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let mut allow = Vec::new();
    for (id, item) in fields.texts("allow") {
        if !audit::is_check(id) {
            let known: Vec<&str> = audit::CHECKS.iter().map(|check| check.id).collect();
            fields.wrong(
                SpecError::at(&item.origin, format!("there is no check {id:?}"))
                    .label("not a check of the audit")
                    .hint(format!("there are {}", known.join(", "))),
            );
        }
        allow.push(id.to_owned());
    }
    let step = Audit { iso: image.iso_name(), folders: fields.published().clone(), allow };
    Some(Made::new(step, &["report/"]))
}

#[derive(Serialize)]
struct Audit {
    iso: String,
    /// The inputs that are published, and the folder each goes to.
    folders: BTreeMap<String, String>,
    allow: Vec<String>,
}

impl Step for Audit {
    identity!(version 4);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut objects = Vec::new();
        for (input, prefix) in &self.folders {
            for (path, digest, _) in job.tree(input)?.tree.files() {
                files.insert(format!("{prefix}{path}"), job.objects.located(&digest)?);
                objects.push(digest);
            }
        }
        let iso = files.remove(&self.iso).ok_or_else(|| {
            StepError::spec(format!("no input of {} that is published has the ISO {}", job.node, self.iso))
        })?;
        job.progress("reading back", 0, None);
        let mut set = Set::given("the published files", files);
        set.stop = job.cancel.flag();
        let trusted = Trusted { is_before_signing: true, ..Trusted::default() };
        let mut report =
            audit::audit(&self.iso, &Place::Local(iso), set, &trusted).map_err(StepError::environment)?;
        job.check_cancelled()?;
        report.allow(&self.allow);
        let findings = report.findings();
        if report.verdict > Verdict::Warning {
            // Where an object is damaged, that is the reason, and it is taken out of the store.
            for digest in &objects {
                job.objects.verified_again(digest)?;
            }
            let lines: Vec<String> = findings
                .iter()
                .filter(|(_, finding)| finding.verdict > Verdict::Warning)
                .map(|(check, finding)| {
                    format!("{check}: {}: {}\n    → {}", finding.subject, finding.what, finding.hint)
                })
                .collect();
            let message =
                format!("what was built does not match or does not boot:\n  {}", lines.join("\n  "));
            return Err(StepError::action(message)
                .with_hint("nothing was published; audit.allow takes differences of a check for warnings"));
        }
        for (check, finding) in &findings {
            job.remark(format!("{check}: {}: {}", finding.subject, finding.what));
        }
        let report = [(format!("{}.audit.json", self.iso), job.objects.put(&json(&report))?)];
        Ok(BTreeMap::from([("report".to_owned(), folder(job.objects, report)?)]))
    }
}
