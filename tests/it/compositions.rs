//! What holds a squashfs is kept without it, and written out where it is published.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::statvfs;

use cache::testing::{Need, needs};

use crate::live::{Live, hashes};
use crate::world::run;

/// Bytes of a file that cannot be compressed: most of the squashfs.
const NOISE: usize = 24 << 20;

fn with_a_large_file() -> Live {
    let live = Live::new();
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(NOISE)
    .collect();
    fs::write(live.root().join("etc/noise"), noise).unwrap();
    live
}

fn bytes_of_objects(live: &Live) -> u64 {
    let text =
        run("find", &[live.world.path("store/objects").to_str().unwrap(), "-type", "f", "-printf", "%s\\n"]);
    text.lines().map(|size| size.parse::<u64>().unwrap()).sum()
}

#[test]
fn the_squashfs_is_stored_once() {
    let live = with_a_large_file();
    live.build(&["--to", "squashfs", "--to", "kernel", "--to", "initrd", "--to", "grub"]);
    let parts = bytes_of_objects(&live);
    live.build(&[]);
    let squashfs = fs::metadata(live.published("netboot/image.squashfs")).unwrap();
    let combined = fs::metadata(live.published("netboot/gentoo.combined")).unwrap();
    let iso = fs::metadata(live.iso()).unwrap();
    assert!(iso.len() > squashfs.len() && combined.len() > squashfs.len());
    // Boot loaders, the ISO's frame, scripts, lists and reports.
    let grown = bytes_of_objects(&live) - parts;
    assert!(grown < squashfs.len() / 4, "{grown} of {}", squashfs.len());
    assert!(squashfs.nlink() > 1, "a link to the object");
    assert_eq!((iso.nlink(), combined.nlink()), (1, 1), "files of their own");
    let again = live.stagegraph(&["build", &live.spec()]);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.contains("15 nodes: 15 cached") && text.contains("unchanged"), "{text}");
    assert_eq!(live.stagegraph(&["store", "verify"]).status.code(), Some(0));
}

#[test]
fn a_published_file_that_is_gone_is_written_out_again_and_one_that_stays_is_kept() {
    let live = Live::new();
    live.build(&[]);
    let before = hashes(&live.out());
    let inode = || fs::metadata(live.published("netboot/gentoo.combined")).unwrap().ino();
    let kept = inode();
    fs::remove_file(live.iso()).unwrap();
    assert_eq!(live.build(&[]), Vec::<String>::new(), "nothing runs");
    assert_eq!(hashes(&live.out()), before);
    assert_eq!(inode(), kept);
    fs::remove_dir_all(live.out()).unwrap();
    assert_eq!(live.build(&[]), Vec::<String>::new());
    assert_eq!(hashes(&live.out()), before);
}

#[test]
fn where_the_file_system_can_a_combined_initrd_shares_the_squashfss_blocks() {
    if !needs(Need::Root) {
        return;
    }
    let live = with_a_large_file();
    let (disk, mounted) = (live.world.path("disk.img"), live.world.path("mounted"));
    fs::create_dir(&mounted).unwrap();
    let (disk, mounted_text) = (disk.display().to_string(), mounted.display().to_string());
    run("truncate", &["-s", "400M", &disk]);
    run("mkfs.xfs", &["-q", "-m", "reflink=1", &disk]);
    run("mount", &["-o", "loop", &disk, &mounted_text]);
    let used = || {
        rustix::fs::sync();
        let found = statvfs(&mounted).unwrap();
        (found.f_blocks - found.f_bfree) * found.f_frsize
    };
    let args = ["--store", "mounted/store", "--out", "mounted/out"];
    live.build(&[&["--to", "squashfs"], &args[..]].concat());
    let before = used();
    live.build(&args);
    let grown = used() - before;
    let squashfs = fs::metadata(mounted.join("out/tiny/netboot/image.squashfs")).unwrap().len();
    let same = hashes(&mounted.join("out/tiny"));
    run("umount", &[&mounted_text]);
    // The ISO's own copy, and no second one.
    assert!(grown < squashfs * 7 / 4, "{grown} of {squashfs}");
    live.build(&[]);
    assert_eq!(same, hashes(&live.out()), "the same bytes, shared or not");
}
