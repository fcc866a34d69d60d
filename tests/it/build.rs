//! `stagegraph build`: what runs, what does not, and what is published.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use cache::testing::{Need, needs};
use serde_json::Value;

use crate::live::{Live, RELEASE, hashes, write_initrd, write_kernel};
use crate::world::{run, run_in};

const ALL: [&str; 15] = [
    "audit",
    "digests",
    "grub",
    "initrd",
    "ipxe",
    "iso",
    "kernel",
    "lean",
    "manifest",
    "netboot",
    "netboot-digests",
    "sbom",
    "squashfs",
    "stage2",
    "verity",
];

#[test]
fn a_second_build_runs_nothing_and_says_so() {
    let live = Live::new();
    assert_eq!(live.build(&[]), ALL);
    assert_eq!(live.build(&[]), [""; 0]);
    let output = live.stagegraph(&["build", &live.spec()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("15 nodes: 15 cached") && text.contains("unchanged"), "{text}");
}

#[test]
fn a_change_runs_exactly_what_depends_on_it_and_why_names_it() {
    let live = Live::new();
    live.build(&[]);
    let ran = live.build(&["--set", "squashfs.compressor=xz"]);
    assert_eq!(
        ran,
        ["audit", "digests", "iso", "manifest", "netboot", "netboot-digests", "sbom", "squashfs", "verity"]
    );
    let why = live.stagegraph(&["why", &live.spec(), "squashfs"]);
    let text = String::from_utf8(why.stdout).unwrap();
    assert!(text.contains("squashfs: param compressor changed"), "{text}");
    assert!(text.contains("zstd") && text.contains("xz"), "{text}");
    let why = live.stagegraph(&["why", &live.spec(), "iso"]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("iso: input squashfs changed"));
    let ran = live.build(&["--set", "image.title=Other"]);
    assert_eq!(ran, ["audit", "digests", "ipxe", "iso", "manifest", "netboot", "netboot-digests", "sbom"]);
}

#[test]
fn a_node_that_yields_the_same_bytes_stops_the_wave() {
    let live = Live::new();
    live.build(&[]);
    // Later than the epoch before and after: the image has the epoch both times, and so has the root that is packed.
    run("touch", &["-d", "@1900000000", live.root().join("etc/motd").to_str().unwrap()]);
    assert_eq!(live.build(&[]), Vec::<String>::new());
    // Nothing has this name.
    live.write_spec("path = \"root\"\n", "[node.squashfs]\nexclude = [\"boot/*\", \"dev/*\", \"proc/*\", \"sys/*\", \"run/*\", \"tmp/*\", \"no\"]\n");
    assert_eq!(live.build(&[]), ["audit", "digests", "manifest", "sbom", "squashfs"]);
}

#[test]
fn replacing_a_tool_runs_the_nodes_that_run_it_and_no_others() {
    let live = Live::new();
    live.build(&[]);
    let own = live.world.path("tools");
    fs::create_dir(&own).unwrap();
    let mut xorriso = fs::read("/usr/bin/xorriso").unwrap();
    xorriso.push(0);
    fs::write(own.join("xorriso"), xorriso).unwrap();
    fs::set_permissions(own.join("xorriso"), fs::Permissions::from_mode(0o755)).unwrap();
    let output = live.command(&["build", &live.spec()]).env("STAGEGRAPH_TOOLS", &own).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    // The ISO's bytes are the same, but the manifest names its tool, and digests name the manifest.
    let summary = "15 nodes: 10 cached, 5 built (iso because tool xorriso changed; 4 more depend on it)";
    assert!(text.contains(summary), "{text}");
}

#[test]
fn every_published_file_is_the_same_in_another_folder_with_other_settings() {
    let live = Live::new();
    live.build(&["-j", "4"]);
    let expected = hashes(&live.out());
    assert!(expected.lines().count() > 25, "{expected}");
    let other = live.world.path("elsewhere");
    fs::create_dir(&other).unwrap();
    run("chmod", &["777", other.to_str().unwrap()]);
    let script = format!(
        "umask 077; export TZ=Asia/Tokyo LC_ALL=C.UTF-8; cd '{0}' && '{1}' build '{2}' -j 1 --store '{0}/store' --out '{0}/out'",
        other.display(),
        env!("CARGO_BIN_EXE_stagegraph"),
        live.spec()
    );
    std::thread::sleep(std::time::Duration::from_millis(1100));
    run("sh", &["-c", &script]);
    assert_eq!(hashes(&other.join("out/tiny")), expected);
}

#[test]
fn every_published_file_is_the_same_when_another_user_builds_it_from_a_tar() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    // The same tree for both: a tar says who owns what, whoever reads it.
    run_in(live.world.dir.path(), "tar", &["--sort=name", "-cf", "root.tar", "-C", "root", "."]);
    live.write_spec("path = \"root.tar\"\n", "");
    live.build(&[]);
    let other = live.world.path("theirs");
    fs::create_dir(&other).unwrap();
    for path in [live.world.dir.path(), &other] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // The program itself may lie where others cannot look.
    let program = other.join("stagegraph");
    fs::copy(env!("CARGO_BIN_EXE_stagegraph"), &program).unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["build", &live.spec(), "--store", "store", "--out", "out"])
        .current_dir(&other)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    assert_eq!(hashes(&other.join("out/tiny")), hashes(&live.out()));
}

#[test]
fn a_folder_a_tar_and_a_compressed_tar_are_the_same_root() {
    let live = Live::new();
    live.build(&[]);
    let expected = hashes(&live.out());
    for (compress, name) in
        [("cat", "root.tar"), ("xz -T1", "root.tar.xz"), ("zstd -q", "root.tar.zst"), ("gzip", "root.tgz")]
    {
        let script = format!("tar --format=pax --xattrs -C root -cf - . | {compress} > {name}");
        run_in(live.world.dir.path(), "bash", &["-o", "pipefail", "-c", &script]);
        live.write_spec(&format!("path = \"{name}\"\n"), "");
        // The tree is the same, and so everything is but the import's own action.
        assert_eq!(live.build(&[]), [""; 0], "{name}");
        assert_eq!(hashes(&live.out()), expected, "{name}");
    }
}

#[test]
fn a_tar_that_unpacks_to_far_more_than_its_size_is_refused_unless_the_spec_allows_it() {
    let live = Live::new();
    let build = |limits: &str| {
        live.write_spec("path = \"root.tgz\"\n", limits);
        let output = live.stagegraph(&["build", &live.spec()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let pack = |zeros: &str| {
        let script = format!(
            "truncate -s {zeros} root/etc/zeros; tar --format=pax --xattrs -C root -cf - . | gzip > root.tgz; rm root/etc/zeros"
        );
        run_in(live.world.dir.path(), "bash", &["-o", "pipefail", "-c", &script]);
    };
    pack("1100M");
    let (code, text) = build("");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("root.tgz") && text.contains("more than 1024 MiB") && text.contains("unpacked_mib"),
        "{text}"
    );
    let kept = run("du", &["-sm", live.world.path("store").to_str().unwrap()]);
    let kept: u32 = kept.split('\t').next().unwrap().parse().unwrap();
    assert!(kept < 100, "nothing of it is kept: {kept}");
    // One that is cut off is the archive's fault, and not the machine's.
    let whole = fs::read(live.world.path("root.tgz")).unwrap();
    fs::write(live.world.path("root.tgz"), &whole[..whole.len() / 2]).unwrap();
    let (code, text) = build("");
    assert_eq!(code, Some(1), "{text}");
    pack("3M");
    let (code, text) = build("[limits]\nunpacked_mib = 2\n");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("more than 2 MiB"), "{text}");
    assert_eq!(build("[limits]\nunpacked_mib = 8\n").0, Some(0));
}

#[test]
fn an_iso_gives_a_netboot_set_with_its_own_kernel_initrd_and_squashfs() {
    let live = Live::new();
    live.build(&[]);
    let set = |name: &str| fs::read(live.published(name)).unwrap();
    let names = [
        "netboot/gentoo.vmlinuz",
        "netboot/gentoo.initrd",
        "netboot/image.squashfs",
        "netboot/gentoo.combined",
    ];
    let before = names.map(set);
    fs::rename(live.iso(), live.world.path("published.iso")).unwrap();
    live.write_spec("path = \"published.iso\"\n", "");
    let output =
        live.stagegraph(&["build", &live.spec(), "--store", "another-store", "--out", "another-out"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("taken as it is"), "{text}");
    for (name, before) in names.iter().zip(before) {
        assert!(fs::read(live.world.path("another-out/tiny").join(name)).unwrap() == before, "{name}");
    }
}

#[test]
fn the_iso_reads_back_with_xorriso() {
    let live = Live::new();
    live.build(&[]);
    let iso = live.iso().display().to_string();
    let report =
        run("xorriso", &["-indev", &iso, "-report_el_torito", "plain", "-report_system_area", "plain"]);
    for expected in ["BIOS  y", "UEFI  y", "grub2-mbr", "GPT"] {
        assert!(report.contains(expected), "{expected} is not in\n{report}");
    }
    let id = run("xorriso", &["-indev", &iso, "-pvd_info"]);
    assert!(id.contains("Volume Id    : Tiny-20260102"), "{id}");
    let out = live.world.path("unpacked");
    run("xorriso", &["-osirrox", "on", "-indev", &iso, "-extract", "/", out.to_str().unwrap()]);
    for (on_iso, published) in [
        ("boot/gentoo", "netboot/gentoo.vmlinuz"),
        ("boot/gentoo.igz", "netboot/gentoo.initrd"),
        ("image.squashfs", "netboot/image.squashfs"),
    ] {
        assert!(
            fs::read(out.join(on_iso)).unwrap() == fs::read(live.published(published)).unwrap(),
            "{on_iso}"
        );
    }
    let config = fs::read_to_string(out.join("boot/grub/grub.cfg")).unwrap();
    insta::assert_snapshot!("grub-cfg", config);
    assert!(out.join("livecd").exists());
    let contents =
        run("zcat", &[live.published("install-tiny-20260102T030405Z.iso.CONTENTS.gz").to_str().unwrap()]);
    let found =
        run("sh", &["-c", &format!("cd '{}' && find . -type f | cut -c2- | LC_ALL=C sort", out.display())]);
    assert_eq!(contents.lines().count(), found.lines().count(), "{contents}");
    // Joliet, for systems that know no Rock Ridge.
    let joliet = run("isoinfo", &["-J", "-f", "-i", &iso]);
    assert!(joliet.contains("/image.squashfs") && joliet.contains("/boot/grub/grub.cfg"), "{joliet}");
}

#[test]
fn the_combined_initrd_reads_back_with_cpio() {
    let live = Live::new();
    live.build(&[]);
    let combined = fs::read(live.published("netboot/gentoo.combined")).unwrap();
    let initrd = fs::read(live.published("netboot/gentoo.initrd")).unwrap();
    assert_eq!(combined[..initrd.len()], initrd);
    let start = initrd.len().next_multiple_of(4);
    fs::write(live.world.path("appended.cpio"), &combined[start..]).unwrap();
    run_in(live.world.dir.path(), "sh", &["-c", "cpio -i --quiet < appended.cpio"]);
    let squashfs = fs::read(live.published("netboot/image.squashfs")).unwrap();
    assert!(fs::read(live.world.path("image.squashfs.img")).unwrap() == squashfs);
}

#[test]
fn published_digests_are_right_by_the_usual_programs() {
    let live = Live::new();
    live.build(&[]);
    let iso = "install-tiny-20260102T030405Z.iso";
    for (program, folder, file) in [
        ("sha256sum", live.out(), format!("{iso}.sha256")),
        ("sha512sum", live.out(), format!("{iso}.DIGESTS")),
        ("b2sum", live.out(), format!("{iso}.DIGESTS")),
        ("sha512sum", live.published("netboot"), "DIGESTS".to_owned()),
    ] {
        let wanted = if program == "b2sum" { "BLAKE2B" } else { "SHA" };
        let script =
            format!("grep -A1 '^# {wanted}' {file} | grep -v -e ^# -e ^-- | {program} -c --strict --quiet");
        run_in(&folder, "bash", &["-o", "pipefail", "-c", &script]);
    }
    let digests = fs::read_to_string(live.published(&format!("{iso}.DIGESTS"))).unwrap();
    let names: Vec<_> =
        digests.lines().filter(|line| !line.starts_with('#')).map(|line| &line[130..]).collect();
    assert_eq!(names[..4], [iso, iso, &format!("{iso}.CONTENTS.gz"), &format!("{iso}.CONTENTS.gz")]);
    for file in fs::read_dir(live.out()).unwrap().map(|entry| entry.unwrap()) {
        let name = file.file_name().into_string().unwrap();
        let is_digest =
            [".DIGESTS", ".sha256", "netboot", ".stagegraph.json"].iter().any(|end| name.ends_with(end));
        assert!(is_digest || names.contains(&name.as_str()), "{name} has no digest");
    }
}

#[test]
fn published_files_are_the_stores_own_bytes() {
    let live = Live::new();
    live.build(&[]);
    let inode = |name: &str| fs::metadata(live.published(name)).unwrap().ino();
    assert_eq!(inode("netboot/image.squashfs"), inode("install-tiny-20260102T030405Z.iso.squashfs"));
    assert!(fs::metadata(live.published("netboot/image.squashfs")).unwrap().nlink() > 2);
}

#[test]
fn what_somebody_put_into_the_published_folder_is_kept_and_another_folder_is_refused() {
    let live = Live::new();
    live.build(&[]);
    fs::write(live.published("netboot/notes.txt"), "mine").unwrap();
    live.build(&["--set", "image.timestamp=20260203T040506Z"]);
    assert_eq!(fs::read_to_string(live.published("netboot/notes.txt")).unwrap(), "mine");
    assert!(!live.iso().exists() && live.published("install-tiny-20260203T040506Z.iso").exists());
    let theirs = live.world.path("theirs/tiny");
    fs::create_dir_all(&theirs).unwrap();
    fs::write(theirs.join("thesis.txt"), "mine").unwrap();
    let output = live.stagegraph(&["build", &live.spec(), "--out", "theirs"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did not make it"));
    assert_eq!(fs::read_dir(live.world.path("theirs")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(theirs.join("thesis.txt")).unwrap(), "mine");
}

#[test]
fn several_kernels_of_both_families_get_an_entry_each() {
    let live = Live::new();
    let boot = live.root().join("boot");
    write_kernel(&boot.join("vmlinuz-old"), "5.0");
    write_initrd(
        &boot.join("initramfs-old.img"),
        &[("etc/initrd.scripts", ""), ("lib/modules/5.0/x", "")],
        "xz --check=crc32",
    );
    live.build(&[]);
    let manifest: serde_json::Value = serde_json::from_slice(
        &fs::read(live.published("install-tiny-20260102T030405Z.iso.manifest.json")).unwrap(),
    )
    .unwrap();
    let line = |kernel: &str, way: &str| {
        let ways = manifest["boot"].as_array().unwrap();
        let found = ways.iter().find(|found| found["kernel"] == kernel && found["way"] == way);
        found.map(|found| found["command_line"].as_str().unwrap().to_owned())
    };
    assert_eq!(line("test", "netboot-bios").unwrap(), "dokeymap root=live:/image.squashfs.img cdroot");
    assert!(line("old", "iso").unwrap().contains("looptype=squashfs loop=/image.squashfs cdroot"));
    assert_eq!(line("old", "netboot-http"), None);
    assert!(live.published("install-tiny-20260102T030405Z.iso.old.vmlinuz").exists());
    assert!(!live.published("netboot/http.ipxe").exists(), "genkernel cannot fetch over HTTP");
    insta::assert_snapshot!(
        "two-kernels-ipxe",
        fs::read_to_string(live.published("netboot/inject.ipxe")).unwrap()
    );
    insta::assert_snapshot!(
        "two-kernels-pxelinux",
        fs::read_to_string(live.published("netboot/pxelinux.cfg/default")).unwrap()
    );
    insta::assert_snapshot!(
        "two-kernels-grub",
        fs::read_to_string(live.published("netboot/grub/grub.cfg")).unwrap()
    );
}

#[test]
fn a_users_own_node_runs_in_the_sandbox_and_is_published() {
    let live = Live::new();
    let node = "[node.report]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"wc -c < in/image > out/report/size.txt; ls / > out/report/seen.txt\"]\n\
                tools = [\"wc\", \"ls\", \"mkdir\"]\ninput = { image = \"squashfs.image\" }\noutputs = { folder = \"report/\" }\n\n\
                [publish]\nreports = [\"report.folder\"]\n";
    let node = node.replace("wc -c <", "mkdir out/report; wc -c <");
    live.write_spec("path = \"root\"\n", &node);
    live.build(&[]);
    let size = fs::metadata(live.published("netboot/image.squashfs")).unwrap().len();
    assert_eq!(fs::read_to_string(live.published("reports/size.txt")).unwrap().trim(), size.to_string());
    let seen = fs::read_to_string(live.published("reports/seen.txt")).unwrap();
    assert!(!seen.contains("home") && !seen.contains("root"), "{seen}");
}

#[test]
fn a_spec_limits_its_tools_and_the_limits_are_in_no_key() {
    let live = Live::new();
    let spec = |limits: &str, script: &str| {
        let more = format!(
            "[node.r]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"{script}\"]\ntools = [\"head\", \"mkdir\"]\n\
             outputs = {{ x = \"x/\" }}\n[publish]\nx = [\"r.x\"]\n[limits]\n{limits}\n"
        );
        live.write_spec("path = \"root\"\n", &more);
        let output = live.stagegraph(&["build", &live.spec()]);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let write = "mkdir out/x && head -c 3000000 /dev/zero > out/x/large";
    let (code, text) = spec("file_mib = 2", write);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("limits.file_mib"), "{text}");
    assert_eq!(spec("file_mib = 3", write).0, Some(0));
    assert_eq!(spec("file_mib = 4\nprocesses = 900", write).0, Some(0));
    assert_eq!(live.build(&[]), [""; 0]);
    let (_, text) = spec("file_mib = 5", write);
    assert!(text.contains("16 cached"), "{text}");
    let (code, text) = spec("memory = 3", write);
    assert!(code == Some(2) && text.contains("memory"), "{text}");
    let (code, text) = spec("processes = 0", write);
    assert!(code == Some(2) && text.contains("processes must be from 1"), "{text}");
}

#[test]
fn a_folder_that_a_tool_closed_to_its_owner_is_swept_and_names_of_our_own_are_not_published() {
    let live = Live::new();
    let node = |script: &str, publish: &str| {
        let node = format!(
            "[node.r]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"{script}\"]\ntools = [\"chmod\", \"mkdir\"]\n\
             outputs = {{ x = \"x/\" }}\n[publish]\n{publish}\n"
        );
        live.write_spec("path = \"root\"\n", &node);
        let output = live.stagegraph(&["build", &live.spec()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let closes = "mkdir -p out/x out/closed/deep; chmod 000 out/closed; exit 1";
    let (code, text) = node(closes, "x = [\"r.x\"]");
    assert_eq!(code, Some(1), "{text}");
    let left: Vec<_> = fs::read_dir(live.world.path("store/scratch")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let all = "[\"iso.files\", \"netboot.beside\", \"ipxe.beside\", \"manifest.files\", \"sbom.files\", \"digests.files\", \"r.x\"]";
    let (code, text) = node("mkdir out/x; echo 1 > out/x/.stagegraph.json", &format!("\".\" = {all}"));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(".stagegraph.json"), "{text}");
}

#[test]
fn results_without_a_sandbox_are_marked_and_kept_apart() {
    let live = Live::new();
    live.build(&[]);
    let expected = hashes(&live.published("netboot"));
    assert_eq!(live.build(&["--sandbox", "off"]), ALL);
    assert_eq!(hashes(&live.published("netboot")), expected, "the bytes are the same");
    let manifest =
        fs::read_to_string(live.published("install-tiny-20260102T030405Z.iso.manifest.json")).unwrap();
    assert!(manifest.contains("\"sandboxed\": false") && !manifest.contains("\"sandboxed\": true"));
}

#[test]
fn a_check_finds_the_build_reproducible_and_a_node_that_is_not() {
    let live = Live::new();
    live.build(&[]);
    assert_eq!(live.build(&["--check"]), ALL);
    let node = "[node.dice]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"mkdir out/x; cat /proc/uptime > out/x/time\"]\n\
                tools = [\"cat\", \"mkdir\"]\noutputs = { x = \"x/\" }\n\n[publish]\ndice = [\"dice.x\"]\n";
    live.write_spec("path = \"root\"\n", node);
    live.build(&[]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let output = live.stagegraph(&["build", &live.spec(), "--check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("dice") && text.contains("not reproducible"), "{text}");
}

#[test]
fn source_date_epoch_drives_every_date_unless_the_timestamp_is_set() {
    let live = Live::new();
    let build = |args: &[&str]| {
        let spec = live.spec();
        let output = live
            .command(&[&["build", &spec], args].concat())
            .env("SOURCE_DATE_EPOCH", "1767323045")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
    };
    build(&[]);
    assert!(live.published("install-tiny-20260102T030405Z.iso").exists());
    build(&["--set", "image.timestamp=20250102T030405Z"]);
    assert!(live.published("install-tiny-20250102T030405Z.iso").exists());
    let date = run(
        "xorriso",
        &["-indev", live.published("install-tiny-20250102T030405Z.iso").to_str().unwrap(), "-pvd_info"],
    );
    assert!(date.contains("2025010203040500"), "{date}");
}

#[test]
fn the_release_in_the_manifest_is_the_kernels() {
    let live = Live::new();
    live.build(&[]);
    let manifest: serde_json::Value = serde_json::from_slice(
        &fs::read(live.published("install-tiny-20260102T030405Z.iso.manifest.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(manifest["kernels"][0]["release"], RELEASE);
    assert_eq!(manifest["schema"], 1);
    let loader = &manifest["nodes"]["netboot"]["sources"]["loader undionly.kpxe"];
    assert!(loader.as_str().unwrap().contains("ipxe"), "{loader}");
}

#[test]
fn a_tool_that_leaves_a_link_for_its_output_has_failed() {
    let live = Live::new();
    for (script, output) in
        [("mkdir out/x; ln -s /etc/passwd out/x/y", "x/"), ("ln -s /etc out/x", "x/"), ("true", "x/")]
    {
        let node = format!(
            "[node.r]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"{script}\"]\ntools = [\"ln\", \"mkdir\"]\noutputs = {{ x = \"{output}\" }}\n\
             [publish]\nx = [\"r.x\"]\n"
        );
        live.write_spec("path = \"root\"\n", &node);
        let output = live.stagegraph(&["build", &live.spec(), "--to", "r"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{script}: {text}");
        assert!(text.contains("x"), "{text}");
    }
}

#[test]
fn two_builds_at_once_share_a_store_and_publish_one_whole_set() {
    let live = Live::new();
    let spec = live.spec();
    let start = |out: &str| {
        live.command(&["build", &spec, "--out", out]).stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut builds: Vec<_> = ["out", "out", "out", "other"].map(start).into_iter().collect();
    for build in &mut builds {
        assert!(build.wait().unwrap().success());
    }
    assert_eq!(hashes(&live.out()), hashes(&live.world.path("other/tiny")));
    assert_eq!(live.build(&[]), [""; 0]);
}

#[test]
fn an_iso_made_as_catalyst_makes_it_is_read() {
    let live = Live::new();
    live.build(&[]);
    let tree = live.world.path("tree");
    fs::create_dir_all(tree.join("boot/grub")).unwrap();
    for (from, to) in [
        ("netboot/gentoo.vmlinuz", "boot/gentoo"),
        ("netboot/gentoo.initrd", "boot/gentoo.igz"),
        ("netboot/image.squashfs", "image.squashfs"),
    ] {
        fs::copy(live.published(from), tree.join(to)).unwrap();
    }
    for (name, text) in [
        ("livecd", ""),
        ("README.txt", "x"),
        ("boot/gentoo-config", "CONFIG_X=y"),
        ("boot/grub/grub.cfg", ""),
    ] {
        fs::write(tree.join(name), text).unwrap();
    }
    let iso = live.world.path("catalyst.iso");
    run(
        "grub-mkrescue",
        &[
            "--mbr-force-bootable",
            "-volid",
            "Gentoo-amd64",
            "-joliet",
            "-iso-level",
            "3",
            "-o",
            iso.to_str().unwrap(),
            tree.to_str().unwrap(),
        ],
    );
    live.write_spec("path = \"catalyst.iso\"\n", "");
    let before = fs::read(live.published("netboot/gentoo.combined")).unwrap();
    live.build(&[]);
    assert!(fs::read(live.published("netboot/gentoo.combined")).unwrap() == before);
}

#[test]
fn a_plan_is_printed_in_every_format_and_builds_nothing() {
    let live = Live::new();
    let plan = |format: &str| {
        let output = live.stagegraph(&["plan", &live.spec(), "--format", format]);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!("plan-text", plan("text"));
    insta::assert_snapshot!("plan-dot", plan("dot"));
    let document: serde_json::Value = serde_json::from_str(&plan("json")).unwrap();
    assert_eq!(document["nodes"].as_array().unwrap().len(), 15);
    let svg = plan("svg");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert_eq!(svg.matches("<rect").count(), 16);
    assert!(!live.out().exists() && !live.world.path("store").exists());
}

#[test]
fn the_manual_and_the_completions_are_printed() {
    let live = Live::new();
    let print = |args: &[&str]| String::from_utf8(live.stagegraph(args).stdout).unwrap();
    assert!(print(&["man"]).contains(".TH stagegraph 1"));
    assert!(print(&["completions", "bash"]).contains("_stagegraph"));
}

#[test]
fn a_root_that_moved_is_read_where_it_is_now() {
    let live = Live::new();
    live.build(&[]);
    run_in(live.world.dir.path(), "cp", &["-a", "root", "moved"]);
    fs::write(live.root().join("etc/motd"), "another\n").unwrap();
    live.write_spec("path = \"moved\"\n", "");
    assert_eq!(live.build(&[]), [""; 0], "the same tree, elsewhere");
    let ran = live.build(&["--set", "squashfs.level=4"]);
    assert!(ran.contains(&"squashfs".to_owned()), "{ran:?}");
}

#[test]
fn a_damaged_object_is_taken_out_and_made_again() {
    let live = Live::new();
    run_in(live.world.dir.path(), "sh", &["-c", "tar -C root -cf - . | zstd -q > root.tar.zst"]);
    live.write_spec("path = \"root.tar.zst\"\n", "");
    live.build(&[]);
    // The largest object but the images is the unpacked tar.
    let objects =
        run("find", &[live.world.path("store/objects").to_str().unwrap(), "-type", "f", "-size", "+1k"]);
    let is_tar = |path: &&str| fs::read(path).is_ok_and(|bytes| bytes.get(257..262) == Some(b"ustar"));
    let pack = objects.lines().find(is_tar).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    let place = bytes.windows(6).position(|window| window == b"hello\n").unwrap();
    bytes[place] = b'j';
    fs::set_permissions(pack, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(pack, bytes).unwrap();
    let level = ["build", &live.spec(), "--set", "squashfs.level=5"];
    let output = live.stagegraph(&level);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("was damaged, and was removed") && text.contains("hint: build again"), "{text}");
    assert_eq!(live.stagegraph(&level).status.code(), Some(0), "the next build is right");
}

#[test]
fn a_published_file_that_was_written_to_is_noticed_and_made_again() {
    let live = Live::new();
    live.build(&[]);
    let before = hashes(&live.out());
    let script = live.published("netboot/boot.ipxe");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    let mut text = fs::read(&script).unwrap();
    text[3] ^= 1;
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&script, text).unwrap();
    let output = live.stagegraph(&["build", &live.spec()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was damaged"));
    fs::remove_file(&script).unwrap();
    live.build(&[]);
    assert_eq!(hashes(&live.out()), before);
}

#[test]
fn a_file_put_in_the_place_of_a_published_one_and_an_empty_folder_are_not_lost() {
    let live = Live::new();
    live.build(&[]);
    let config = live.published("netboot/grub/grub.cfg");
    fs::remove_file(&config).unwrap();
    fs::write(&config, "# my own menu\n").unwrap();
    fs::create_dir(live.published("netboot/images")).unwrap();
    let output = live.stagegraph(&["build", &live.spec(), "--set", "image.title=Other"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is in the way"));
    assert_eq!(fs::read_to_string(&config).unwrap(), "# my own menu\n");
    fs::rename(&config, live.published("netboot/grub/mine.cfg")).unwrap();
    live.build(&["--set", "image.title=Other"]);
    assert!(live.published("netboot/images").is_dir() && live.published("netboot/grub/mine.cfg").is_file());
}

#[test]
fn published_folders_can_be_served_whatever_the_umask_and_a_link_to_one_stays() {
    let live = Live::new();
    fs::create_dir_all(live.world.path("served")).unwrap();
    fs::create_dir_all(live.world.path("out")).unwrap();
    std::os::unix::fs::symlink(live.world.path("served"), live.out()).unwrap();
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let script = format!("umask 077; '{program}' build '{}' --store store", live.spec());
    run_in(live.world.dir.path(), "sh", &["-c", &script]);
    assert!(fs::symlink_metadata(live.out()).unwrap().is_symlink());
    for folder in ["served", "served/netboot", "served/netboot/grub"] {
        let mode = fs::metadata(live.world.path(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{folder}");
    }
}

#[test]
fn a_memory_test_beside_the_kernel_is_no_kernel() {
    let live = Live::new();
    write_kernel(&live.root().join("boot/memtest86+x64.bin"), "7");
    live.build(&[]);
    assert!(live.published("netboot/gentoo.vmlinuz").exists());
}

#[test]
fn several_specs_are_built_in_one_graph_and_give_what_each_gives_alone() {
    let live = Live::new();
    let spec = |title: &str, squashfs: &str| {
        live.write_spec("path = \"root\"\n", squashfs);
        let text = fs::read_to_string(live.world.path("tiny.toml"))
            .unwrap()
            .replace("Tiny\"\n", &format!("{title}\"\n"));
        fs::write(live.world.path(&format!("{title}.toml")), text).unwrap();
        live.world.path(&format!("{title}.toml")).display().to_string()
    };
    let specs = [spec("one", ""), spec("two", ""), spec("xz", "[node.squashfs]\ncompressor = \"xz\"\n")];
    let build = |store: &str, out: &str, specs: &[String]| {
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        let output =
            live.stagegraph(&[&["build", "--json", "--store", store, "--out", out], &specs[..]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ran = |event: &&Value| event["event"] == "finished" && !event["milliseconds"].is_null();
        let ran = events.iter().filter(ran).map(|event| event["node"].as_str().unwrap().to_owned());
        (ran.collect::<Vec<_>>(), events.iter().filter(|event| event["event"] == "planned").count())
    };
    let (ran, planned) = build("store-together", "together", &specs);
    assert_eq!(planned, 1);
    // What they share runs once, for the first that comes to it.
    let times = |node: &str| ran.iter().filter(|name| name.split(':').nth(1) == Some(node)).count();
    let counts = ["kernel", "initrd", "grub", "squashfs", "iso", "audit"].map(times);
    assert_eq!(counts, [1, 1, 1, 2, 3, 3], "{ran:?}");
    assert!(build("store-together", "together", &specs).0.is_empty());
    for (number, name) in ["one", "two", "xz"].into_iter().enumerate() {
        // Alone, each is what it was, and in a store of its own as well.
        assert!(build("store-together", "together", &specs[number..=number]).0.is_empty(), "{name}");
        build(&format!("store-{name}"), "alone", &specs[number..=number]);
        let published = |out: &str| hashes(&live.world.path(out).join(name));
        assert_eq!(published("together"), published("alone"), "{name}");
    }
    // One that fails takes nothing from the others.
    fs::write(live.root().join("etc/motd"), "changed\n").unwrap();
    let broken = spec(
        "broken",
        "[node.squashfs]\nexclude = [\"boot/*\"]\n[node.bad]\nstep = \"run\"\nargv = [\"false\"]\ntools = [\"false\"]\noutputs = { x = \"x/\" }\n[publish]\nx = [\"bad.x\"]\n",
    );
    let all = [&specs[..], &[broken]].concat();
    let args: Vec<&str> = all.iter().map(String::as_str).collect();
    let output =
        live.stagegraph(&[&["build", "--store", "store-together", "--out", "together"], &args[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("error: broken:bad: "), "{errors}");
    assert_eq!(text.lines().filter(|line| line.starts_with("published: ")).count(), 3, "{text}");
}

#[test]
fn every_spec_of_the_family_is_a_variant_of_amd64_minimal() {
    let live = Live::bare();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/family");
    let mut specs: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    specs.sort();
    assert!(specs.len() >= 20, "{specs:?}");
    let plan = |spec: &str| {
        let output = live.stagegraph(&["plan", spec, "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{spec}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let base = plan("amd64-minimal");
    let mut seen = std::collections::BTreeSet::from([base]);
    for spec in &specs {
        assert!(seen.insert(plan(spec.to_str().unwrap())), "{spec:?} differs in nothing");
    }
}
