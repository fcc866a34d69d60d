//! `initrd`: the initrds of a boot folder, and what is inside them.

use std::collections::BTreeMap;

use cache::Output;
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::boot;
use super::kind::{Inputs, Kind, Made, folder, identity};

/// Gives `images`, a folder with one file for each initrd, named by its label, and `facts`, what is inside
/// them as JSON.
pub(super) const KIND: Kind = Kind {
    name: "initrd",
    inputs: Inputs::Named { required: &["boot"], optional: &[] },
    make: |fields, image| {
        Some(Made::new(Initrd { hints: boot::Hints::read(fields, image) }, &["images/", "facts"]))
    },
};

#[derive(Serialize)]
struct Initrd {
    hints: boot::Hints,
}

impl Step for Initrd {
    identity!(version 2);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let kernels = boot::find(job.objects, &job.tree("boot")?, &self.hints)?;
        let facts = job.objects.put(&kernels.encode())?;
        let files = kernels.0.into_iter().map(|entry| (entry.label, entry.initrd));
        let images = folder(job.objects, files)?;
        Ok(BTreeMap::from([("images".to_owned(), images), ("facts".to_owned(), facts.into())]))
    }
}
