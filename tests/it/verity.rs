//! The step `verity`, and the audit's check of that name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stagegraph::formats::initramfs;

use crate::live::{Live, change, write_able};
use crate::world::run;

fn able() -> Live {
    let live = Live::new();
    write_able(&live.root().join("boot/initramfs-test.img"), "");
    live
}

fn audit(live: &Live, iso: &Path, set: &Path) -> (i32, Value) {
    let output = live.stagegraph(&["audit", "--json", iso.to_str().unwrap(), set.to_str().unwrap()]);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// Returns what a check says, and what it finds.
fn said(report: &Value, check: &str) -> String {
    let found = report["checks"].as_array().unwrap().iter().find(|found| found["check"] == check).unwrap();
    let findings = found["findings"].as_array().unwrap().iter();
    let findings = findings.map(|finding| format!("{}: {}", finding["subject"], finding["what"]));
    findings.chain([found["says"].as_str().unwrap().to_owned()]).collect::<Vec<_>>().join("\n")
}

/// Unpacks an initrd, as far as its archives are bare or packed with gzip.
fn unpacked(initrd: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let bytes = fs::read(initrd).unwrap();
    let facts = initramfs::read(&bytes[..]).unwrap();
    let ends = facts.segments.iter().skip(1).map(|segment| segment.offset as usize).chain([bytes.len()]);
    for (segment, end) in facts.segments.iter().zip(ends) {
        let archive = to.with_extension("cpio");
        fs::write(&archive, &bytes[segment.offset as usize..end]).unwrap();
        let how = if segment.compression.is_some() { "gzip -dc" } else { "cat" };
        let script = format!("{how} '{}' 2>&1 | cpio -idm --quiet", archive.display());
        crate::world::run_in(to, "sh", &["-c", &script]);
    }
}

#[test]
fn initrds_have_the_squashfs_checked_by_what_veritysetup_makes_of_it() {
    let live = able();
    live.build(&[]);
    let (code, report) = audit(&live, &live.iso(), &live.out());
    assert_eq!(code, 0, "{report:#}");
    assert!(said(&report, "verity").starts_with("4 initrds have the squashfs checked"), "{report:#}");

    let inside = live.world.path("inside");
    unpacked(&live.published("netboot/gentoo.initrd"), &inside);
    let text = fs::read_to_string(inside.join("etc/stagegraph/verity")).unwrap();
    let root = text.lines().find_map(|line| line.strip_prefix("root=")).unwrap();
    let tree = inside.join("etc/stagegraph/verity.tree");
    let squashfs = live.published("netboot/image.squashfs");
    assert!(inside.join("usr/lib/dracut/hooks/pre-mount/00-stagegraph-verity.sh").is_file());
    assert!(inside.join("usr/sbin/dmsetup").is_file(), "what was there still is");

    // The same tree, byte for byte but its UUID, and the same root.
    let other = live.world.path("other.tree");
    let made = run(
        "veritysetup",
        &[
            "format",
            "--salt=-",
            "--uuid=00000000-0000-0000-0000-000000000000",
            squashfs.to_str().unwrap(),
            other.to_str().unwrap(),
        ],
    );
    assert!(made.contains(root), "{made}");
    assert_eq!(fs::read(&tree).unwrap(), fs::read(&other).unwrap());
    let verified = |image: &Path| {
        let args = ["verify", image.to_str().unwrap(), tree.to_str().unwrap(), root];
        std::process::Command::new("veritysetup").args(args).output().unwrap().status.success()
    };
    assert!(verified(&squashfs));
    let flipped = live.world.path("flipped");
    let mut bytes = fs::read(&squashfs).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&flipped, bytes).unwrap();
    assert!(!verified(&flipped));
}

#[test]
fn an_initramfs_that_cannot_is_left_as_it_is_and_the_spec_may_want_more() {
    for without in ["dmsetup", "losetup", "dm-verity", "hooks"] {
        let live = Live::new();
        write_able(&live.root().join("boot/initramfs-test.img"), without);
        let output = live.stagegraph(&["build", &live.spec()]);
        let errors = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
        assert_eq!(output.status.code(), Some(0), "{errors}");
        let (_, report) = audit(&live, &live.iso(), &live.out());
        assert_eq!(said(&report, "verity"), "no initrd has the squashfs checked block by block", "{without}");
        let own = fs::read(live.root().join("boot/initramfs-test.img")).unwrap();
        assert_eq!(fs::read(live.published("netboot/gentoo.initrd")).unwrap(), own);

        live.write_spec("path = \"root\"\n", "[node.verity]\nverify = true\n");
        let output = live.stagegraph(&["build", &live.spec()]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("does not have the squashfs checked"), "{without}: {errors}");
    }
    let live = able();
    live.write_spec("path = \"root\"\n", "[node.verity]\nverify = false\n");
    live.build(&[]);
    let own = fs::read(live.root().join("boot/initramfs-test.img")).unwrap();
    assert_eq!(fs::read(live.published("netboot/gentoo.initrd")).unwrap(), own);
}

/// What is changed, how, and what the audit says then.
type Damage = (&'static str, fn(&mut Vec<u8>), &'static str);

#[test]
fn a_set_taken_of_an_iso_that_has_nothing_of_it_has_it_and_matches() {
    let live = able();
    live.write_spec("path = \"root\"\n", "[node.verity]\nverify = false\n");
    live.build(&[]);
    let set = live.world.path("set");
    let output = live.stagegraph(&["extract", live.iso().to_str().unwrap(), set.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (code, report) = audit(&live, &live.iso(), &set);
    assert_eq!(code, 0, "{report:#}");
    assert!(said(&report, "verity").starts_with("2 initrds have the squashfs checked"), "{report:#}");
    assert!(said(&report, "initrd").contains("the ISO's, byte for byte"), "{report:#}");

    // What stands behind the ISO's initrd is that archive, and nothing else.
    let initrd = set.join("gentoo.initrd");
    let sound = fs::read(&initrd).unwrap();
    let rows: [Damage; 3] = [
        (
            "a block of the tree",
            |bytes| change(bytes, b"verity\0\0", 6, 1),
            "is not the hash tree of the squashfs",
        ),
        ("the root hash", |bytes| change(bytes, b"\nroot=", 6, b'0' ^ b'1'), "no machine boots it"),
        ("the hook", |bytes| change(bytes, b"stagegraph_verity() {", 3, 1), "is not this version's"),
    ];
    for (what, damage, says) in rows {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        let _ = fs::remove_file(&initrd);
        fs::write(&initrd, &bytes).unwrap();
        let (_, report) = audit(&live, &live.iso(), &set);
        assert!(said(&report, "verity").contains(says), "{what}: {}", said(&report, "verity"));
    }
}

#[test]
fn a_set_of_one_that_has_it_already_gets_it_once() {
    let live = able();
    live.build(&[]);
    let set: PathBuf = live.world.path("set");
    run(env!("CARGO_BIN_EXE_stagegraph"), &["extract", live.iso().to_str().unwrap(), set.to_str().unwrap()]);
    let (of_set, of_iso) = (set.join("gentoo.initrd"), live.published("netboot/gentoo.initrd"));
    assert_eq!(fs::read(of_set).unwrap(), fs::read(of_iso).unwrap());
}
