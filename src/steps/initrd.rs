//! `initrd`: the initrds of a boot folder, and what is inside them.

use std::collections::BTreeMap;

use cache::objects::Part;
use cache::{Blob, Output};
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::boot;
use super::kind::{Inputs, Kind, Made, folder, identity};
use crate::boot::Kernels;
use crate::formats::cpio;

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
    identity!(version 8);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let found = boot::find(job.objects, &job.tree("boot")?, &self.hints)?;
        found.remarks.into_iter().for_each(|remark| job.remark(remark));
        let mut kernels = Vec::new();
        for kernel in found.kernels {
            let initrd = joined(job, &kernel.initrds)?;
            kernels.push(kernel.entry(initrd));
        }
        let kernels = Kernels(kernels);
        let facts = job.objects.put(&kernels.encode())?;
        let files = kernels.0.into_iter().map(|entry| (entry.label, entry.initrd));
        let images = folder(job.objects, files)?;
        Ok(BTreeMap::from([("images".to_owned(), images), ("facts".to_owned(), facts.into())]))
    }
}

/// Returns initrds as one, in the way in which boot loaders load several: each begins on a multiple of four.
fn joined(job: &Job<'_>, initrds: &[Blob]) -> Result<Blob, StepError> {
    if let [only] = initrds {
        return Ok(*only);
    }
    let zeros = [0; 4];
    let mut parts = Vec::new();
    let mut at = 0;
    for initrd in initrds {
        let padding = cpio::aligned(at) - at;
        parts.push(Part::Own(&zeros[..padding as usize]));
        parts.push(Part::Object(*initrd));
        at += padding + initrd.size;
    }
    parts.retain(|part| !matches!(part, Part::Own([])));
    Ok(job.objects.compose(&parts)?)
}
