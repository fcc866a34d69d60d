//! catalyst's target: requests as it writes them, replayed over small trees.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::live::{Live, RELEASE, hashes, write_dracut_initrd, write_initrd, write_kernel};
use crate::world::{run, run_in};

const ISO: &str = "install-amd64-minimal-20250101T000000Z.iso";

/// A chroot and a medium's files, as catalyst leaves them, and the request.
struct Catalyst {
    live: Live,
    request: Value,
}

fn entry(name: &str, line: &str) -> String {
    format!(
        "menuentry 'Boot LiveCD (kernel: {name})' --class gnu-linux --class os {{\n\tsearch --no-floppy --set=root -l Gentoo-amd64-20250101\n\
         \tlinux /boot/{name} dokeymap nodhcp {line}\n\tinitrd /boot/{name}.igz\n}}\n"
    )
}

const DRACUT: &str =
    "root=live:CDLABEL=Gentoo-amd64-20250101 rd.live.dir=/ rd.live.squashimg=image.squashfs cdroot";
const GENKERNEL: &str = "looptype=squashfs loop=/image.squashfs cdroot";

impl Catalyst {
    /// `kernels` are names and families.
    fn new(kernels: &[(&str, &str)]) -> Self {
        let live = Live::bare();
        let (stage, medium) = (live.world.path("chroot"), live.world.path("medium"));
        for folder in ["chroot/etc", "chroot/boot", "medium/boot/grub/themes", "builds"] {
            fs::create_dir_all(live.world.path(folder)).unwrap();
        }
        fs::write(stage.join("etc/motd"), "hello\n").unwrap();
        for (name, text) in [("livecd", ""), ("README.txt", "x"), ("boot/grub/themes/theme.txt", "x")] {
            fs::write(medium.join(name), text).unwrap();
        }
        let mut menu = "set timeout=10\ninsmod png\nset theme=/boot/grub/themes/theme.txt\n".to_owned();
        for (name, family) in kernels {
            write_kernel(&medium.join("boot").join(name), RELEASE);
            let initrd = medium.join(format!("boot/{name}.igz"));
            if *family == "dracut" {
                write_dracut_initrd(&initrd, RELEASE);
                menu.push_str(&entry(name, DRACUT));
            } else {
                write_initrd(&initrd, &[("etc/initrd.scripts", ""), (name, "")], "xz --check=crc32");
                menu.push_str(&entry(name, GENKERNEL));
            }
        }
        fs::write(medium.join("boot/grub/grub.cfg"), menu).unwrap();
        let path = |name: &str| live.world.path(name).display().to_string();
        let kernels: Vec<Value> = kernels
            .iter()
            .map(|(name, family)| json!({"name": name, "family": family, "consoles": []}))
            .collect();
        let request = json!({
            "schema": 1, "catalyst": "4.1.1", "stage_path": path("chroot"), "iso_root": path("medium"),
            "image": {
                "iso": path(&format!("builds/{ISO}")), "volume_id": "Gentoo-amd64-20250101", "arch": "amd64",
                "interpreter": null, "fstype": "squashfs", "fsops": [], "verify": false, "extra_partition_kib": null,
                "bootargs": ["dokeymap", "nodhcp"], "kernels": kernels, "netboot": ["ipxe"],
                "digests": ["blake2b", "sha512"], "digest_format": "linux", "version_stamp": "20250101T000000Z",
            },
            "store": path("store"), "set": [], "result": path("result.json"),
        });
        Self { live, request }
    }

    fn finish(&self) -> (Option<i32>, String) {
        self.finish_with(&[])
    }

    fn finish_with(&self, more: &[&str]) -> (Option<i32>, String) {
        let file = self.live.world.path("request.json");
        fs::write(&file, self.request.to_string()).unwrap();
        let words = ["catalyst", "finish", "--request", file.to_str().unwrap()];
        let output = self.live.stagegraph(&[&words[..], more].concat());
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    }

    fn finished(&self) {
        let (code, text) = self.finish();
        assert_eq!(code, Some(0), "{text}");
    }

    fn builds(&self) -> std::path::PathBuf {
        self.live.world.path("builds")
    }

    /// Unpacks the ISO.
    fn unpacked(&self) -> std::path::PathBuf {
        let (iso, out) = (self.builds().join(ISO), self.live.world.path("unpacked"));
        let paths = [iso.to_str().unwrap(), "-extract", "/", out.to_str().unwrap()];
        run("xorriso", &[&["-osirrox", "on", "-indev"][..], &paths].concat());
        out
    }

    fn published(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.builds())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_request_gives_iso_netboot_set_and_digests_that_match_and_a_second_one_does_nothing() {
    let catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    catalyst.finished();
    let kinds = ["", ".initrd", ".ipxe", ".manifest.json", ".spdx.json", ".squashfs", ".vmlinuz"];
    let mut expected: Vec<String> = kinds
        .iter()
        .flat_map(|kind| ["", ".DIGESTS", ".sha256"].map(|more| format!("{ISO}{kind}{more}")))
        .chain([format!("{ISO}.CONTENTS.gz")])
        .collect();
    expected.sort();
    assert_eq!(catalyst.published(), expected);
    let iso = catalyst.builds().join(ISO).display().to_string();
    let output = catalyst.live.stagegraph(&["audit", &iso, &format!("{iso}.ipxe")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("The ISO and the netboot set match.\n"), "{text}");
    // catalyst's own files are on the medium as they were.
    let out = catalyst.unpacked();
    for name in ["boot/grub/grub.cfg", "boot/grub/themes/theme.txt", "README.txt", "boot/gentoo"] {
        let medium = catalyst.live.world.path("medium").join(name);
        assert!(fs::read(out.join(name)).unwrap() == fs::read(medium).unwrap(), "{name}");
    }
    let result: Value =
        serde_json::from_slice(&fs::read(catalyst.live.world.path("result.json")).unwrap()).unwrap();
    assert_eq!(result["outputs"].as_array().unwrap().len(), expected.len());
    // Again, at another time: nothing runs, and the bytes are the same.
    let before = hashes(&catalyst.builds());
    run("touch", &[catalyst.live.world.path("chroot/etc/motd").to_str().unwrap()]);
    let (code, text) = catalyst.finish();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("12 nodes: 12 cached"), "{text}");
    assert_eq!(hashes(&catalyst.builds()), before);
    // And from nothing, elsewhere.
    let mut other = Catalyst::new(&[("gentoo", "dracut")]);
    for name in ["gentoo", "gentoo.igz"] {
        fs::copy(
            catalyst.live.world.path("medium/boot").join(name),
            other.live.world.path("medium/boot").join(name),
        )
        .unwrap();
    }
    other.finished();
    assert_eq!(hashes(&other.builds()), before);
    other.request["set"] = json!(["squashfs.compressor=zstd"]);
    other.finished();
    assert_ne!(hashes(&other.builds()), before);
}

#[test]
fn several_kernels_of_both_families_verify_and_other_digests_are_carried_over() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut"), ("old", "genkernel")]);
    catalyst.request["image"]["verify"] = json!(true);
    catalyst.request["image"]["digests"] = json!(["sha512"]);
    catalyst.request["image"]["digest_format"] = json!("bsd");
    catalyst.request["image"]["fsops"] = json!(["-c", "zstd", "-X", "level=3", "-b", "64K"]);
    // As livecd/overlay does.
    fs::write(catalyst.live.world.path("medium/extra file=1.txt"), "x").unwrap();
    catalyst.finished();
    let names = catalyst.published();
    for kind in ["gentoo.vmlinuz", "gentoo.initrd", "old.vmlinuz", "old.initrd"] {
        assert!(names.contains(&format!("{ISO}.{kind}")), "{names:?}");
    }
    let iso = catalyst.builds().join(ISO).display().to_string();
    let output = catalyst.live.stagegraph(&["audit", "--json", &iso, &format!("{iso}.ipxe")]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    let says = |id: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == id).unwrap()["says"].as_str().unwrap().to_owned()
    };
    assert_eq!(says("iso-checksums"), "all 10 checksums hold");
    assert!(says("initramfs").ends_with("made by dracut and genkernel"));
    let digests = fs::read_to_string(catalyst.builds().join(format!("{ISO}.DIGESTS"))).unwrap();
    assert!(digests.starts_with(&format!("# SHA512 HASH\nSHA512 ({ISO}) = ")), "{digests}");
    assert!(!digests.contains("BLAKE2B"));
    let squashfs = catalyst.builds().join(format!("{ISO}.squashfs")).display().to_string();
    let about = run("unsquashfs", &["-s", &squashfs]);
    assert!(about.contains("Compression zstd") && about.contains("Block size 65536"), "{about}");
}

#[test]
fn kernels_that_are_the_same_but_for_their_names_are_all_published() {
    let catalyst = Catalyst::new(&[("gentoo", "dracut"), ("other", "dracut")]);
    catalyst.finished();
    let names = catalyst.published();
    for kind in ["gentoo.vmlinuz", "gentoo.initrd", "other.vmlinuz", "other.initrd"] {
        assert!(names.contains(&format!("{ISO}.{kind}")), "{names:?}");
    }
}

#[test]
fn the_iso_has_all_that_the_medium_has() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    catalyst.request["image"]["verify"] = json!(true);
    let medium = catalyst.live.world.path("medium");
    // As livecd/overlay does.
    let script = "mkdir -p tools/empty 'deep/a b'; printf '#!/bin/sh\\n' > tools/run; chmod 755 tools/run; echo x > tools/plain; chmod 600 tools/plain
        ln -s run tools/link; ln -s /nowhere dangling; ln tools/plain tools/second; mkfifo tools/pipe; ln -s ../tools 'deep/a b/up'";
    run_in(&medium, "sh", &["-ec", script]);
    catalyst.finished();
    let iso = catalyst.builds().join(ISO).display().to_string();
    let list =
        run("xorriso", &["-indev", &iso, "-lsdl", "/tools", "--", "-find", "/", "-exec", "lsdl", "--"]);
    let line = |name: &str| {
        let found = list.lines().find(|line| line.contains(name));
        found.unwrap_or_else(|| panic!("{name}: {list}")).to_owned()
    };
    assert!(line("'/tools/run'").starts_with("-r-xr-xr-x"), "{list}");
    assert!(line("'/tools/plain'").starts_with("-r--r--r--"), "{list}");
    assert!(line("'/tools/second'").starts_with("-r--r--r--"), "{list}");
    assert!(line("'/tools/empty'").starts_with("dr-x"), "{list}");
    assert!(line("'/tools/link'").ends_with("-> 'run'"), "{list}");
    assert!(line("'/dangling'").ends_with("-> '/nowhere'"), "{list}");
    assert!(line("'/deep/a b/up'").ends_with("-> '../tools'"), "{list}");
    assert!(!list.contains("pipe"), "{list}");
}

#[test]
fn files_of_any_name_are_on_the_iso_and_in_its_sums() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    catalyst.request["image"]["verify"] = json!(true);
    let names: [&[u8]; 7] =
        [b"back\\slash", b"line\nbreak", b"car\rriage", b"\xe4.txt", b"\xf6.txt", b"a=b", b"both\\n\n"];
    for name in names {
        fs::write(catalyst.live.world.path("medium").join(OsStr::from_bytes(name)), name).unwrap();
    }
    catalyst.finished();
    let out = catalyst.unpacked();
    for name in names {
        assert_eq!(fs::read(out.join(OsStr::from_bytes(name))).unwrap(), name);
    }
    run("sh", &["-c", &format!("cd '{}' && b2sum --quiet -c isoroot_b2sums", out.display())]);
}

#[test]
fn a_second_set_of_fewer_kernels_leaves_nothing_of_the_first() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut"), ("old", "genkernel")]);
    catalyst.finished();
    assert!(catalyst.published().iter().any(|name| name.contains("old")));
    fs::write(catalyst.builds().join(format!("{ISO}.asc")), "a signer's").unwrap();
    for name in ["boot/old", "boot/old.igz"] {
        fs::remove_file(catalyst.live.world.path("medium").join(name)).unwrap();
    }
    let menu = catalyst.live.world.path("medium/boot/grub/grub.cfg");
    let text = fs::read_to_string(&menu).unwrap();
    let kept: String = text.split_inclusive("}\n").filter(|entry| !entry.contains("/boot/old")).collect();
    fs::write(&menu, kept).unwrap();
    let first = catalyst.request["image"]["kernels"][0].clone();
    catalyst.request["image"]["kernels"] = json!([first]);
    let (code, text) = catalyst.finish();
    assert_eq!(code, Some(0), "{text}");
    let names = catalyst.published();
    assert!(!names.iter().any(|name| name.contains("old")), "{names:?}");
    assert!(names.contains(&format!("{ISO}.asc")), "what somebody else put there stays");
}

#[test]
fn a_kernel_that_is_none_is_not_published() {
    for content in ["", "no kernel at all\n"] {
        let catalyst = Catalyst::new(&[("gentoo", "dracut")]);
        fs::write(catalyst.live.world.path("medium/boot/gentoo"), content).unwrap();
        let (code, text) = catalyst.finish();
        assert_eq!(code, Some(1), "{content:?}: {text}");
        assert!(text.contains("gentoo"), "{text}");
        assert_eq!(catalyst.published(), [""; 0]);
    }
}

#[test]
fn a_request_that_fails_leaves_nothing_and_what_was_published_stays() {
    let catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    fs::rename(catalyst.live.world.path("medium/boot/gentoo.igz"), catalyst.live.world.path("kept.igz"))
        .unwrap();
    let (code, text) = catalyst.finish();
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("no initrd goes with the kernel boot/gentoo")
            || text.contains("no initrd goes with the kernel gentoo"),
        "{text}"
    );
    assert_eq!(catalyst.published(), [""; 0]);
    fs::rename(catalyst.live.world.path("kept.igz"), catalyst.live.world.path("medium/boot/gentoo.igz"))
        .unwrap();
    catalyst.finished();
    let before = hashes(&catalyst.builds());
    // A menu whose lines do not fit the initrd is not published.
    let menu = catalyst.live.world.path("medium/boot/grub/grub.cfg");
    let text = fs::read_to_string(&menu).unwrap() + &entry("gentoo", &format!("{GENKERNEL} console=ttyS0"));
    fs::write(&menu, text).unwrap();
    let (code, text) = catalyst.finish();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("iso-menu: /boot/grub/grub.cfg") && text.contains("this is genkernel's"), "{text}");
    assert_eq!(hashes(&catalyst.builds()), before);
}

#[test]
fn consoles_of_a_dracut_kernel_get_the_arguments_of_dracut() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut"), ("old", "genkernel")]);
    catalyst.request["image"]["kernels"][0]["consoles"] = json!(["ttyS0,115200", "ttyS1"]);
    // Those of genkernel's are in catalyst's own menu.
    catalyst.request["image"]["kernels"][1]["consoles"] = json!(["ttyS0"]);
    catalyst.request["image"]["verify"] = json!(true);
    catalyst.finished();
    let out = catalyst.unpacked();
    let menu = fs::read_to_string(out.join("boot/grub/grub.cfg")).unwrap();
    let own = fs::read_to_string(catalyst.live.world.path("medium/boot/grub/grub.cfg")).unwrap();
    let added = menu.strip_prefix(&own).unwrap();
    assert_eq!(added.matches("menuentry").count(), 2, "{added}");
    for console in ["ttyS0,115200", "ttyS1"] {
        let line = format!("\tlinux /boot/gentoo dokeymap nodhcp {DRACUT} console={console}\n");
        assert!(added.contains(&line), "{added}");
        assert!(added.contains(&format!("'Boot LiveCD (kernel: gentoo console={console})'")), "{added}");
    }
    // What the medium says of itself is said of the menu as it is there.
    run("sh", &["-c", &format!("cd '{}' && b2sum --quiet -c isoroot_b2sums", out.display())]);
}

#[test]
fn a_partition_behind_the_iso_is_an_xfs_and_always_the_same() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    catalyst.request["image"]["extra_partition_kib"] = json!(300 << 10);
    catalyst.finished();
    let iso = catalyst.builds().join(ISO);
    let table = run("sfdisk", &["--dump", iso.to_str().unwrap()]);
    let row = table.lines().find(|line| line.contains("0FC63DAF-8483-4772-8E79-3D69D8477DE4"));
    let row = row.unwrap_or_else(|| panic!("{table}"));
    let number = |key: &str| -> u64 {
        let (_, rest) = row.split_once(key).unwrap();
        rest.trim_start().split(',').next().unwrap().trim().parse().unwrap()
    };
    assert_eq!(number("size="), 300 << 11);
    let image = catalyst.live.world.path("partition.img");
    let (from, to) = (iso.to_str().unwrap(), image.to_str().unwrap());
    let skip = format!("skip={}", number("start="));
    run("dd", &[&format!("if={from}"), &format!("of={to}"), "bs=512", &skip, "count=614400", "status=none"]);
    run("xfs_repair", &["-n", to]);
    let inode = run("xfs_db", &["-r", "-c", "inode 128", "-c", "print core.mtime.sec v3.crtime.sec", to]);
    assert_eq!(inode.matches("Jan  1 00:00:00 2025").count(), 2, "{inode}");
    let before = hashes(&catalyst.builds());
    fs::remove_dir_all(catalyst.live.world.path("store")).unwrap();
    fs::remove_dir_all(catalyst.builds()).unwrap();
    fs::create_dir(catalyst.builds()).unwrap();
    catalyst.finished();
    assert_eq!(hashes(&catalyst.builds()), before);
}

#[test]
fn where_no_iso_can_be_made_the_netboot_set_is_and_the_iso_is_refused_by_name() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    catalyst.request["image"]["arch"] = json!("sparc");
    let kinds = [".initrd", ".ipxe", ".squashfs", ".vmlinuz"];
    let expected: Vec<String> = kinds
        .iter()
        .flat_map(|kind| ["", ".DIGESTS", ".sha256"].map(|more| format!("{ISO}{kind}{more}")))
        .collect();
    let (code, text) = catalyst.finish();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("error: livecd/iso: {ISO} cannot be made for sparc")), "{text}");
    assert_eq!(catalyst.published(), expected);
    for name in expected.iter().filter(|name| name.ends_with(".sha256")) {
        run("sh", &["-c", &format!("cd '{}' && sha256sum --quiet -c {name}", catalyst.builds().display())]);
    }
    // Where it is not asked for, all is well.
    catalyst.request["image"]["netboot"] = json!(["ipxe", "no-iso"]);
    catalyst.finished();
    catalyst.request["image"]["arch"] = json!("amd64");
    catalyst.finished();
    assert_eq!(catalyst.published(), expected);
    // Beside an ISO of an earlier run it would not match.
    catalyst.request["image"]["netboot"] = json!(["ipxe"]);
    catalyst.finished();
    let before = hashes(&catalyst.builds());
    catalyst.request["image"]["netboot"] = json!(["ipxe", "no-iso"]);
    let (code, text) = catalyst.finish();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("of an earlier run"), "{text}");
    assert_eq!(hashes(&catalyst.builds()), before);
}

#[test]
fn several_at_once_share_a_store() {
    let mut all: Vec<Catalyst> = (0..3).map(|_| Catalyst::new(&[("gentoo", "dracut")])).collect();
    let store = all[0].live.world.path("store").display().to_string();
    for (number, catalyst) in all.iter_mut().enumerate() {
        catalyst.request["store"] = json!(store);
        fs::write(catalyst.live.world.path("chroot/etc/motd"), format!("hello {number}\n")).unwrap();
    }
    std::thread::scope(|scope| {
        for catalyst in &all {
            scope.spawn(|| catalyst.finished());
        }
    });
    let published: std::collections::BTreeSet<String> =
        all.iter().map(|catalyst| hashes(&catalyst.builds())).collect();
    assert_eq!(published.len(), 3, "each has its own root");
    for catalyst in &all {
        let iso = catalyst.builds().join(ISO).display().to_string();
        let output = catalyst.live.stagegraph(&["audit", &iso, &format!("{iso}.ipxe")]);
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_made() {
    let catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    for (key, value, code, says) in [
        ("fsops", json!(["-comp", "xz"]), 2, "livecd/fsops: \"-comp\" is not known"),
        ("extra_partition_kib", json!(4096), 2, "livecd/iso_extra_partition: 4096 KiB are too few"),
        ("netboot", json!(["pxe"]), 2, "livecd/netboot: \"pxe\" is not known"),
        ("volume_id", json!("Gentoo Linux"), 2, "livecd/volid: \"Gentoo Linux\" has a blank"),
        ("digests", json!(["md5"]), 2, "\"md5\" is not a hash"),
        ("schema", json!(2), 2, "has the schema 2; this version of stagegraph reads 1"),
        ("surprise", json!(1), 2, "unknown field `surprise`"),
        ("stage_path", json!("/no/such/chroot"), 2, "/no/such/chroot is not there"),
        ("iso", json!("x.iso"), 2, "image.iso: x.iso is not an absolute path"),
        ("result", json!("/no/such/folder/r.json"), 3, "write /no/such/folder/r.json"),
    ] {
        let mut request = catalyst.request.clone();
        let place = if request["image"].get(key).is_some() { &mut request["image"] } else { &mut request };
        place[key] = value;
        let refused = Catalyst { live: Live::bare(), request };
        let (found, text) = refused.finish();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("│ ", "");
        assert_eq!(found, Some(code), "{key}: {text}");
        assert!(text.contains(says), "{key}: {text}");
    }
    assert_eq!(catalyst.published(), [""; 0]);
}

#[test]
fn what_cannot_be_done_is_refused_before_there_is_a_chroot() {
    let mut catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    for folder in ["chroot", "medium"] {
        fs::remove_dir_all(catalyst.live.world.path(folder)).unwrap();
    }
    let right = catalyst.request.clone();
    let (code, text) = catalyst.finish_with(&["--check"]);
    assert_eq!(code, Some(0), "{text}");
    let result = catalyst.live.world.path("result.json");
    let read = || serde_json::from_slice::<Value>(&fs::read(&result).unwrap()).unwrap();
    assert_eq!(read(), json!({"schema": 1, "outputs": []}));
    assert_eq!(catalyst.published(), [""; 0]);
    fs::remove_file(&result).unwrap();
    fs::create_dir_all(catalyst.live.world.path("builds/folder.iso")).unwrap();
    let top = catalyst.live.world.dir.path().to_owned();
    let path = |name: &str| top.join(name).display().to_string();
    let wrong = [
        ("/image/volume_id", json!("Gentoo*amd64"), 2, "cannot be a volume id"),
        ("/image/volume_id", json!("Gentoo amd64"), 2, "livecd/volid"),
        ("/image/bootargs", json!(["foo=\"a\""]), 2, "cannot stand on a kernel command line"),
        ("/image/bootargs", json!(["a;b"]), 2, "livecd/bootargs"),
        ("/image/bootargs", json!(["root=/dev/sda1"]), 2, "livecd/bootargs"),
        ("/image/bootargs", json!(["x".repeat(1700)]), 2, "livecd/bootargs"),
        ("/image/volume_id", json!("@TIMESTAMP@"), 2, "livecd/volid"),
        ("/image/iso", json!("/proc/x.iso"), 3, "/proc"),
        ("/image/iso", json!(path("request.json/x.iso")), 3, "request.json"),
        ("/image/iso", json!(path("builds/folder.iso")), 3, "folder.iso"),
        ("/store", json!(path("chroot/var/store")), 2, "livecd/stagegraph_store"),
        ("/set", json!(["image.volume_id=x"]), 2, "livecd/stagegraph_set"),
        ("/set", json!(["initrd.family.other=dracut"]), 2, "boot/kernel has no \"other\""),
        ("/set", json!(["publish.x=[\"iso.files\"]"]), 2, "livecd/stagegraph_set"),
        ("/image/extra_partition_kib", json!(1_000_000_000), 2, "extra_partition_kib"),
        ("/image/iso", json!("/builds/a=b,c.iso"), 2, "cannot be the stem of published names"),
        ("/image/digests", json!(["sha3_512"]), 2, "sha3_512"),
        ("/image/digest_format", json!("foo"), 2, "digest_format"),
        ("/image/version_stamp", json!("20251301T000000Z"), 2, "has no date"),
        ("/image/extra_partition_kib", json!(1_u64 << 50), 2, "extra_partition_kib"),
        ("/image/fsops", json!(["-c", "lzma"]), 2, "lzma"),
        ("/image/fsops", json!(["-c", "zstd", "-X", "level=23"]), 2, "level"),
        ("/set", json!(["squashfs.nosuch=1"]), 2, "nosuch"),
        ("/set", json!(["foo.bar=1"]), 2, "foo.bar"),
        ("/store", json!("relative"), 2, "not an absolute path"),
        ("/store", json!("/proc/stagegraph"), 3, "/proc/stagegraph"),
        ("/schema", json!(2), 2, "stagegraph catalyst install"),
        ("/result", json!("/dev/null"), 3, "no result of an earlier run"),
        ("/result", json!("/no/such/folder/r.json"), 3, "write /no/such/folder/r.json"),
    ];
    for (at, value, expected, says) in wrong {
        *catalyst.request.pointer_mut(at).unwrap() = value;
        let (code, text) = catalyst.finish_with(&["--check"]);
        assert_eq!(code, Some(expected), "{at}: {text}");
        assert!(text.contains(says), "{at}: {text}");
        assert!(!result.exists(), "{at}");
        catalyst.request = right.clone();
    }
    // A machine without a sandbox. (Here all tools are there; that one is missing is a test of the engine's.)
    assert_eq!(catalyst.finish_with(&["--check"]).0, Some(0));
    let file = catalyst.live.world.path("request.json");
    let words = ["catalyst", "finish", "--check", "--request", file.to_str().unwrap()];
    let tools = catalyst.live.world.path("tools");
    fs::create_dir(&tools).unwrap();
    fs::write(tools.join("bwrap"), "#!/bin/sh\nexit 1\n").unwrap();
    run("chmod", &["755", tools.join("bwrap").to_str().unwrap()]);
    let output = catalyst.live.command(&words).env("STAGEGRAPH_TOOLS", &tools).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("does not let bubblewrap make a sandbox"), "{text}");
}

#[test]
fn why_nothing_is_published_is_told_to_catalyst_as_well() {
    let catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    fs::remove_file(catalyst.live.world.path("medium/boot/gentoo.igz")).unwrap();
    assert_eq!(catalyst.finish().0, Some(1));
    let result = fs::read(catalyst.live.world.path("result.json")).unwrap();
    let result: Value = serde_json::from_slice(&result).unwrap();
    assert!(result["error"].as_str().unwrap().starts_with("error: initrd: no initrd goes with"), "{result}");
    assert_eq!(result["outputs"], json!([]));
}

#[test]
fn a_volume_id_may_have_blanks_where_nothing_looks_for_it() {
    let mut catalyst = Catalyst::new(&[("gentoo", "genkernel")]);
    let menu = catalyst.live.world.path("medium/boot/grub/grub.cfg");
    let text =
        fs::read_to_string(&menu).unwrap().replace("-l Gentoo-amd64-20250101", "-l Gentoo amd64 20250101");
    fs::write(&menu, text).unwrap();
    catalyst.request["image"]["volume_id"] = json!("Gentoo amd64 20250101");
    catalyst.finished();
    let menu = fs::read_to_string(catalyst.unpacked().join("boot/grub/grub.cfg")).unwrap();
    assert!(menu.contains("-l 'Gentoo amd64 20250101'\n"), "{menu}");
}

#[test]
fn the_target_is_installed_and_removed_and_nothing_else_is() {
    let live = Live::bare();
    let install = |verb: &str| live.stagegraph(&["catalyst", verb, "--catalyst-dir", "there"]);
    let target = live.world.path("there/catalyst/targets/livecd_stagegraph.py");
    assert_eq!(install("install").status.code(), Some(0));
    assert_eq!(install("install").status.code(), Some(0), "again is an update");
    run("python3", &["-m", "py_compile", target.to_str().unwrap()]);
    assert_eq!(install("uninstall").status.code(), Some(0));
    assert!(!target.exists());
    // Another folder than was meant.
    let wrong = live.stagegraph(&["catalyst", "install", "--catalyst-dir", "there/catalyst"]);
    assert_eq!(wrong.status.code(), Some(3));
    fs::write(&target, "mine").unwrap();
    for verb in ["install", "uninstall"] {
        assert_eq!(install(verb).status.code(), Some(3));
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
}

#[test]
fn it_ends_with_the_process_that_called_it() {
    let catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    let slow = catalyst.live.world.path("tools");
    fs::create_dir(&slow).unwrap();
    fs::write(slow.join("xorriso"), "#!/bin/sh\nwhile :; do :; done\n").unwrap();
    run("chmod", &["755", slow.join("xorriso").to_str().unwrap()]);
    let file = catalyst.live.world.path("request.json");
    fs::write(&file, catalyst.request.to_string()).unwrap();
    // A stand-in for catalyst: it starts the program, and is killed.
    let script = format!(
        "STAGEGRAPH_TOOLS={} {} catalyst finish --request {} & wait",
        slow.display(),
        env!("CARGO_BIN_EXE_stagegraph"),
        file.display()
    );
    let mut parent = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
    let running = || {
        let found =
            std::process::Command::new("pgrep").args(["-f", file.to_str().unwrap()]).output().unwrap();
        !found.stdout.is_empty()
    };
    wait(&running);
    // It is at work, and would go on.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(running() && parent.try_wait().unwrap().is_none());
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait(&|| !running());
    assert_eq!(catalyst.published(), [""; 0]);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(catalyst.live.world.dir.path().to_str().unwrap()));
}

fn wait(until: &dyn Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !until() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
