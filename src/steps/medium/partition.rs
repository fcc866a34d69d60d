//! The empty XFS behind an ISO, where people keep what they change.
//!
//! mkfs.xfs takes three inodes' times from the clock; they are set to the one date afterwards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cache::file::OnFile;
use cache::objects::WorkDir;
use graph::sandbox::Invocation;
use graph::tool::ToolSpec;
use graph::{Job, StepError};
use serde::Serialize;

use crate::image::Timestamp;
/// 200 GiB: tools write no file of more than 256 GiB unless the spec allows it.
pub(super) const MOST_KIB: i64 = 200 << 20;

pub(super) const MKFS: ToolSpec<'_> =
    ToolSpec { name: "mkfs.xfs", programs: &[], data: &[], data_places: &[], package: "xfsprogs" };
pub(super) const XFS_DB: ToolSpec<'_> =
    ToolSpec { name: "xfs_db", programs: &[], data: &[], data_places: &[], package: "xfsprogs" };

/// Its name in the work folder.
const FILE: &str = "partition.img";

/// Seconds from the first time an XFS with `bigtime` can hold (1901-12-13) to 1970: `XFS_BIGTIME_EPOCH_OFFSET` of
/// the kernel's `xfs_format.h`.
const BIGTIME_OFFSET: u64 = 1 << 31;

/// Where the superblock has the numbers of the inodes that mkfs.xfs makes: root, realtime bitmap, realtime summary.
const INODES: [u64; 3] = [56, 64, 72];
/// Where it has the size of an inode.
const INODE_SIZE: u64 = 104;
/// Times of an inode: where they are in it, and what xfs_db calls them.
const TIMES: [(u64, &str); 4] =
    [(32, "core.atime"), (40, "core.mtime"), (48, "core.ctime"), (144, "v3.crtime")];

#[derive(Debug, Serialize)]
pub(super) struct Partition {
    kib: i64,
    uuid: String,
    epoch: u32,
}

impl Partition {
    pub(super) fn new(kib: i64, volume_id: &str, timestamp: Timestamp) -> Self {
        let name = format!("{volume_id} {} {kib}", timestamp.text());
        let hash = cache::BlobDigest::of(name.as_bytes()).to_string();
        // Version 8: of the vendor's own making.
        let uuid = format!(
            "{}-{}-8{}-8{}-{}",
            &hash[..8],
            &hash[8..12],
            &hash[12..15],
            &hash[15..18],
            &hash[18..30]
        );
        Self { kib, uuid, epoch: timestamp.epoch() }
    }

    /// Makes it in the work folder; returns its name there.
    pub(super) fn make(&self, job: &Job<'_>, work: &WorkDir) -> Result<String, StepError> {
        let path = work.path().join(FILE);
        let size = u64::try_from(self.kib).unwrap_or(0) << 10;
        File::create(&path).and_then(|file| file.set_len(size)).on_file("make", &path)?;
        let run = |tool: &str, args: &[String]| {
            job.run(&Invocation {
                tool: job.tool(tool)?,
                args: args.iter().map(OsString::from).collect(),
                env: BTreeMap::new(),
                inputs: BTreeMap::new(),
                mounts: BTreeMap::new(),
                work: work.path(),
                privileged: false,
                foreign: None,
            })
        };
        let text = str::to_owned;
        run("mkfs.xfs", &[text("-q"), text("-m"), format!("bigtime=1,uuid={}", self.uuid), text(FILE)])?;
        let time = (u64::from(self.epoch) + BIGTIME_OFFSET) * 1_000_000_000;
        let inodes = inodes(&path).on_file("read", &path)?;
        for (inode, _) in &inodes {
            let mut args = vec![text("-x"), text("-c"), format!("inode {inode}")];
            args.extend(TIMES.iter().flat_map(|(_, name)| [text("-c"), format!("write {name}.sec {time}")]));
            run("xfs_db", &[&args[..], &[text(FILE)]].concat())?;
        }
        // xfs_db ends well whatever it did.
        let is_set = inodes.iter().try_fold(true, |is_set, (_, offset)| {
            Ok::<_, io::Error>(is_set && has_times(&path, *offset, time)?)
        });
        if !is_set.on_file("read", &path)? {
            return Err(StepError::environment("this version of xfs_db did not set the times of an XFS")
                .with_hint("without livecd/iso_extra_partition the ISO can be made"));
        }
        Ok(FILE.to_owned())
    }
}

/// Returns the inodes that mkfs.xfs made, and where they are. All are at the front of the first allocation group.
fn inodes(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let mut size = [0; 2];
    file.read_exact_at(&mut size, INODE_SIZE)?;
    let number = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at)?;
        let number = u64::from_be_bytes(bytes);
        Ok((number, number * u64::from(u16::from_be_bytes(size))))
    };
    INODES.into_iter().map(number).collect()
}

fn has_times(path: &Path, inode: u64, time: u64) -> io::Result<bool> {
    let file = File::open(path)?;
    for (at, _) in TIMES {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, inode + at)?;
        if u64::from_be_bytes(bytes) != time {
            return Ok(false);
        }
    }
    Ok(true)
}
