//! The EFI system partition: a FAT image, as UEFI looks for it on a medium.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use cache::Blob;
use cache::file::OnFile;
use graph::sandbox::Invocation;
use graph::{Job, StepError};

/// What it is made of.
pub(super) struct Partition<'a> {
    /// The one date, in seconds since 1970.
    pub(super) epoch: u32,
    /// Its files by their paths, and what they are called in the work folder.
    pub(super) files: &'a [(String, String)],
}

/// FAT images are made larger than their content by this, for tables and folders.
const FAT_EXTRA: u64 = 512 << 10;

/// FAT of 12 bits counts so many clusters, and one of 16 at least one more.
const FAT12_MOST: u64 = 4084;

/// Clusters have 2 KiB: of smaller ones there would be too many.
const SECTORS_PER_CLUSTER: &str = "4";
const CLUSTER: u64 = 2048;

impl Partition<'_> {
    /// Makes the image.
    pub(super) fn make(&self, job: &Job<'_>, work: &Path) -> Result<Blob, StepError> {
        let environment = BTreeMap::from([
            ("SOURCE_DATE_EPOCH".to_owned(), self.epoch.to_string()),
            ("MTOOLS_SKIP_CHECK".to_owned(), "1".to_owned()),
        ]);
        let run = |tool: &str, words: &[&str]| {
            job.run(&Invocation {
                tool: job.tool(tool)?,
                args: words.iter().map(OsString::from).collect(),
                env: environment.clone(),
                inputs: BTreeMap::new(),
                mounts: BTreeMap::new(),
                work,
                privileged: false,
                foreign: None,
            })
        };
        let time = UNIX_EPOCH + Duration::from_secs(self.epoch.into());
        let mut content = 0;
        for (_, file) in self.files {
            let path = work.join(file);
            let open = fs::File::options().write(true).open(&path).on_file("open", &path)?;
            open.set_modified(time).on_file("date", &path)?;
            content += open.metadata().on_file("read", &path)?.len().next_multiple_of(CLUSTER);
        }
        let mut kib = (content + FAT_EXTRA).div_ceil(64 << 10) * 64;
        let is_small = (kib << 10) / CLUSTER <= FAT12_MOST;
        if !is_small {
            // Tables and folders take some: so many clusters are left for sure.
            kib = kib.max(((FAT12_MOST + 128) * CLUSTER) >> 10).div_ceil(64) * 64;
        }
        let bits = if is_small { "12" } else { "16" };
        let serial = format!("{:08x}", self.epoch);
        let size = kib.to_string();
        run(
            "mkfs.vfat",
            &[
                "-C",
                "--invariant",
                "-i",
                &serial,
                "-n",
                "ESP",
                "-F",
                bits,
                "-s",
                SECTORS_PER_CLUSTER,
                "efi.img",
                &size,
            ],
        )?;
        let mut folders = BTreeSet::new();
        for (path, _) in self.files {
            let parents = path.match_indices('/').map(|(at, _)| format!("::{}", &path[..at]));
            folders.extend(parents);
        }
        let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
        run("mmd", &[&["-i", "efi.img"][..], &folders].concat())?;
        for (path, file) in self.files {
            run("mcopy", &["-m", "-i", "efi.img", file, &format!("::{path}")])?;
        }
        job.take(work, "efi.img")
    }
}
