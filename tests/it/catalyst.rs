//! catalyst's target: requests as it writes them, replayed over small trees.

use std::fs;

use serde_json::{Value, json};

use crate::live::{Live, RELEASE, hashes, write_dracut_initrd, write_initrd, write_kernel};
use crate::world::run;

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
            "iso": path(&format!("builds/{ISO}")), "volume_id": "Gentoo-amd64-20250101", "arch": "amd64",
            "interpreter": null, "fstype": "squashfs", "fsops": [], "verify": false, "extra_partition_kib": null,
            "bootargs": ["dokeymap", "nodhcp"], "kernels": kernels, "netboot": ["ipxe"],
            "digests": ["blake2b", "sha512"], "digest_format": "linux", "version_stamp": "20250101T000000Z",
            "store": path("store"), "set": [], "result": path("result.json"),
        });
        Self { live, request }
    }

    fn finish(&self) -> (Option<i32>, String) {
        let file = self.live.world.path("request.json");
        fs::write(&file, self.request.to_string()).unwrap();
        let output = self.live.stagegraph(&["catalyst", "finish", "--request", file.to_str().unwrap()]);
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
    let kinds = ["", ".initrd", ".ipxe", ".manifest.json", ".squashfs", ".vmlinuz"];
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
    let out = catalyst.live.world.path("unpacked");
    run("xorriso", &["-osirrox", "on", "-indev", &iso, "-extract", "/", out.to_str().unwrap()]);
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
    catalyst.request["verify"] = json!(true);
    catalyst.request["digests"] = json!(["sha512"]);
    catalyst.request["digest_format"] = json!("bsd");
    catalyst.request["fsops"] = json!(["-c", "zstd", "-X", "level=3", "-b", "64K"]);
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
    // catalyst gives the consoles of a dracut kernel genkernel's words: that is not published.
    let menu = catalyst.live.world.path("medium/boot/grub/grub.cfg");
    let text = fs::read_to_string(&menu).unwrap() + &entry("gentoo", &format!("{GENKERNEL} console=ttyS0"));
    fs::write(&menu, text).unwrap();
    let (code, text) = catalyst.finish();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("iso-menu: /boot/grub/grub.cfg") && text.contains("this is genkernel's"), "{text}");
    assert_eq!(hashes(&catalyst.builds()), before);
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_made() {
    let catalyst = Catalyst::new(&[("gentoo", "dracut")]);
    for (key, value, code, says) in [
        ("fsops", json!(["-comp", "xz"]), 2, "livecd/fsops: \"-comp\" is not known"),
        ("arch", json!("arm64"), 2, "subarch: no ISO is made for \"arm64\""),
        ("extra_partition_kib", json!(4096), 2, "livecd/iso_extra_partition"),
        ("volume_id", json!("Gentoo Linux"), 2, "volume_id"),
        ("digests", json!(["md5"]), 2, "\"md5\" is no hash"),
        ("schema", json!(2), 2, "has the schema 2; this version of stagegraph reads 1"),
        ("surprise", json!(1), 2, "unknown field `surprise`"),
        ("stage_path", json!("/no/such/chroot"), 2, "/no/such/chroot is not there"),
    ] {
        let mut request = catalyst.request.clone();
        request[key] = value;
        let refused = Catalyst { live: Live::bare(), request };
        let (found, text) = refused.finish();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("│ ", "");
        assert_eq!(found, Some(code), "{key}: {text}");
        assert!(text.contains(says), "{key}: {text}");
    }
    assert_eq!(catalyst.published(), [""; 0]);
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
    fs::write(slow.join("xorriso"), "#!/bin/sh\nexec sleep 60\n").unwrap();
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
    std::thread::sleep(std::time::Duration::from_millis(500));
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
