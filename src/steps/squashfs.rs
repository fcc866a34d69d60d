//! `squashfs`: the root as one compressed image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{Object, Output};
use graph::{Job, Step, StepError};
use serde::Serialize;

use super::exclude::{self, Excluded};
use super::kind::{Inputs, Kind, Made, identity};
use crate::config::{Fields, SpecError};
use crate::formats::squashfs::superblock;
use crate::image::Image;
use crate::squashfs::{self, Compressor, CompressorKind, Help, Options, WriteError};

/// Gives `image`. A root that already is a squashfs image is taken as it is.
pub(super) const KIND: Kind =
    Kind { name: "squashfs", inputs: Inputs::Named { required: &["root"], optional: &[] }, make };

/// How much of an image is looked at: the magic numbers of other file systems are in it.
const HEAD: u64 = 128 << 10;

/// The block sizes squashfs has.
const BLOCK_SIZES: std::ops::RangeInclusive<i64> = 4096..=1 << 20;

#[derive(Serialize)]
struct Squashfs {
    #[serde(serialize_with = "with_libraries")]
    compressor: Compressor,
    block_size: u32,
    exclude: Vec<String>,
    clamp_mtime: bool,
    epoch: u32,
}

/// Writes a compressor down with its libraries: another zstd may write other bytes.
fn with_libraries<S: serde::Serializer>(compressor: &Compressor, serializer: S) -> Result<S::Ok, S::Error> {
    let Compressor { kind, level } = compressor;
    serializer.collect_str(&format_args!("{} at level {level}, by {}", kind.name(), kind.libraries()))
}

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let kind = fields.read("compressor", |item| {
        CompressorKind::parse(item.as_text()?).ok_or_else(|| {
            SpecError::at(&item.origin, "there is no such compressor here")
                .label("expected gzip, xz, lz4 or zstd")
        })
    });
    // Which levels there are is not known where the compressor is not.
    let is_known = kind.is_some() || fields.get("compressor").is_none();
    let kind = kind.unwrap_or(CompressorKind::Zstd);
    let (levels, default) = kind.levels();
    let levels = match is_known {
        true => i64::from(*levels.start())..=i64::from(*levels.end()),
        false => 0..=i64::from(i32::MAX),
    };
    let level = fields.integer("level", levels).map_or(default, |level| level as i32);
    let block_size = fields.integer("block_size", BLOCK_SIZES).unwrap_or(1 << 17) as u32;
    if let Some(item) = fields.get("block_size").filter(|_| !block_size.is_power_of_two()) {
        fields
            .wrong(SpecError::at(&item.origin, "block_size must be a power of two").label("4096 to 1048576"));
    }
    let step = Squashfs {
        compressor: Compressor { kind, level },
        block_size,
        exclude: exclude::read(fields),
        clamp_mtime: fields.bool("clamp_mtime", true),
        epoch: image.timestamp.epoch(),
    };
    Some(Made::new(step, &["image"]))
}

impl Step for Squashfs {
    identity!(version squashfs::VERSION);

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let input = job.input("root")?;
        if let Object::Blob(image) = input.object {
            let path = job.objects.verified(&image.digest)?;
            let mut head = Vec::new();
            let read = File::open(&path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
            read.on_file("read", &path)?;
            if let Err(why) = superblock(&head, image.size) {
                return Err(StepError::action(format!("the root is one image, which cannot be used: {why}"))
                    .with_hint(
                        "give a squashfs 4.0 image that is whole, or the root itself as a folder or a tar",
                    ));
            }
            job.remark("the squashfs is taken as it is, not packed again");
            return Ok(BTreeMap::from([("image".to_owned(), image.into())]));
        }
        let root = job.tree("root")?;
        let work = job.objects.work_dir()?;
        let path = work.path().join("image.squashfs");
        let mut out =
            File::options().create_new(true).read(true).write(true).open(&path).on_file("make", &path)?;
        let options = Options {
            compressor: self.compressor,
            block_size: self.block_size,
            epoch: self.epoch,
            clamp_mtime: self.clamp_mtime,
            threads: job.threads,
        };
        let excluded = Excluded::new(&self.exclude)?;
        let is_excluded = |path: &RelPath| excluded.has(path);
        let progress = |done, total| {
            job.progress("compressing", done, Some(total));
            !job.cancel.is_cancelled()
        };
        let help = Help { workers: job.workers, asks: job.asks };
        let summary = squashfs::write(&mut out, &root, job.objects, &options, &is_excluded, help, &progress)
            .map_err(|error| match error {
                WriteError::Store(error) => error.into(),
                WriteError::Write(_) | WriteError::Read { .. } => StepError::environment(error),
                other => StepError::action(other),
            })?;
        lost(&summary.dropped_xattrs).into_iter().for_each(|text| job.remark(text));
        drop(out);
        let image = job.objects.adopt(&path)?;
        job.objects.enter_runs(&image.digest, &summary.runs)?;
        job.objects.enter_slices(&image.digest, &summary.slices)?;
        if summary.taken > 0 {
            job.objects.enter_helpers(&image.digest, &summary.signers)?;
            job.objects.count_slices(summary.taken);
        }
        Ok(BTreeMap::from([("image".to_owned(), image.into())]))
    }
}

/// Says which extended attributes are not in the image: each name once, with the first path that has it.
fn lost(dropped: &BTreeMap<RelPath, Vec<u8>>) -> Vec<String> {
    let mut names: BTreeMap<String, (&RelPath, usize)> = BTreeMap::new();
    for (path, all) in dropped {
        for name in String::from_utf8_lossy(all).split(", ") {
            names.entry(name.to_owned()).or_insert((path, 0)).1 += 1;
        }
    }
    let said = names.into_iter().map(|(name, (path, number))| {
        let more = if number > 1 { format!(" and {} more", number - 1) } else { String::new() };
        format!("squashfs has no place for {name} of {path}{more}; it is left out")
    });
    said.collect()
}
