//! `kernel`: the kernels of a boot folder, found by content.

use std::collections::BTreeMap;

use cache::Output;
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::boot;
use super::kind::{Inputs, Kind, Made, folder, identity};

/// Gives `images`, a folder with one file for each kernel, named by its label.
pub(super) const KIND: Kind = Kind {
    name: "kernel",
    inputs: Inputs::Named { required: &["boot"], optional: &[] },
    make: |fields, image| Some(Made::new(Kernel { hints: boot::Hints::read(fields, image) }, &["images/"])),
};

#[derive(Serialize)]
struct Kernel {
    hints: boot::Hints,
}

impl Step for Kernel {
    identity!(version 6);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let found = boot::find(job.objects, &job.tree("boot")?, &self.hints)?;
        let files = found.kernels.into_iter().map(|kernel| (kernel.label, kernel.kernel));
        Ok(BTreeMap::from([("images".to_owned(), folder(job.objects, files)?)]))
    }
}
