//! Tells what the times of files say on a file system: whether a file that has the times of the last look has its bytes.
//!
//! Most file systems set a file's change time by their own clock whenever it changes, and nobody sets it otherwise. Images that are made
//! (squashfs, EROFS, ISO 9660, and any file system that lies in a file) have whatever times their maker wrote, and the next image may have
//! the same ones. On those, a look holds for one mount. On all others (servers' file systems, FUSE, FAT) times are as somebody else
//! says, and nothing is remembered.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, StatVfsMountFlags, StatxFlags, major, statx};

use crate::digest::BlobDigest;

/// What a file system's times are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// A file that has the same times is the same.
    Times,
    /// The same, as long as it is mounted; the number tells one mount from all others.
    Mount(i64),
    /// Nothing.
    Nothing,
}

/// File systems that set change times themselves (`linux/magic.h`, and the sources of ZFS, F2FS and bcachefs).
const KEEPS_TIMES: [u64; 11] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x3153_464a, // JFS
    0x5265_4973, // ReiserFS
    0x3434,      // NILFS2
];

/// File systems whose files do not change while they are mounted, or not without their times: images, and overlayfs, whose lower layers
/// may be such.
const MADE: [u64; 7] = [
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // EROFS
    0x9660,      // ISO 9660
    0x28cd_3d45, // cramfs
    0x7275,      // romfs
    0x1501_3346, // UDF
    0x794c_7630, // overlayfs
];

/// The major number of loop devices: the file system lies in a file, which may be another one the next time.
const LOOP: u32 = 7;

/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: a number that no other mount gets until the machine starts again.
const MOUNT: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// How long what was found of a device is good for: something else may be mounted.
const FRESH: Duration = Duration::from_secs(1);

/// Finds out what the times of a file are good for; `device` is the one it is on.
pub(crate) fn of(folder: BorrowedFd<'_>, name: &CStr, device: u64) -> Keeping {
    static KNOWN: OnceLock<RwLock<HashMap<u64, (Instant, Keeping)>>> = OnceLock::new();
    let known = KNOWN.get_or_init(RwLock::default);
    let found = known.read().unwrap_or_else(PoisonError::into_inner).get(&device).copied();
    if let Some((_, keeping)) = found.filter(|(when, _)| when.elapsed() < FRESH) {
        return keeping;
    }
    let keeping = look(folder, name, device);
    known.write().unwrap_or_else(PoisonError::into_inner).insert(device, (Instant::now(), keeping));
    keeping
}

fn look(folder: BorrowedFd<'_>, name: &CStr, device: u64) -> Keeping {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty()) else {
        return Keeping::Nothing;
    };
    let (Ok(system), Ok(mount)) = (rustix::fs::fstatfs(&file), rustix::fs::fstatvfs(&file)) else {
        return Keeping::Nothing;
    };
    let kind = system.f_type as u64;
    let is_read_only = mount.f_flag.contains(StatVfsMountFlags::RDONLY);
    if KEEPS_TIMES.contains(&kind) && !is_read_only && !is_in_a_file(device) {
        Keeping::Times
    } else if KEEPS_TIMES.contains(&kind) || MADE.contains(&kind) {
        mount_of(file.as_fd()).map_or(Keeping::Nothing, Keeping::Mount)
    } else {
        Keeping::Nothing
    }
}

/// Tells whether a device is a file of another file system. Some have a number of their own, and say what they lie on elsewhere.
fn is_in_a_file(device: u64) -> bool {
    if major(device) != 0 {
        return major(device) == LOOP;
    }
    let number = format!("0:{}", rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // proc(5): the device is the third field; what is mounted stands behind the dash.
    mounts.lines().filter(|line| line.split(' ').nth(2) == Some(&number)).any(|line| {
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        source.is_some_and(|source| source.starts_with("/dev/loop"))
    })
}

/// Returns what tells a mount from all others, here and after the machine started again.
fn mount_of(file: BorrowedFd<'_>) -> Option<i64> {
    let found = statx(file, c"", AtFlags::EMPTY_PATH, MOUNT).ok()?;
    let is_told = found.stx_mask & MOUNT.bits() != 0;
    let start = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let whole = BlobDigest::of(format!("{} {}", start.trim(), found.stx_mnt_id).as_bytes());
    let number = i64::from_le_bytes(whole.as_bytes()[..8].try_into().ok()?);
    // Zero stands for times that count by themselves.
    is_told.then_some(number & i64::MAX | 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::CWD;

    use super::*;

    fn of_path(path: &str) -> Keeping {
        let found = fs::metadata(path).unwrap();
        let path = std::ffi::CString::new(path).unwrap();
        of(CWD, &path, found.dev())
    }

    #[test]
    fn what_the_kernel_makes_up_is_not_remembered() {
        assert_eq!(of_path("/proc/version"), Keeping::Nothing);
        let dir = tempfile::tempdir().unwrap();
        let here = of_path(dir.path().to_str().unwrap());
        assert_ne!(here, Keeping::Nothing, "the folder of tests is on a file system that is not known");
        assert_eq!(of_path(dir.path().to_str().unwrap()), here);
    }
}
