//! catalyst's own specs. What catalyst makes of them is tested where there is a catalyst: tests/catalyst.

use std::fs;

use crate::live::Live;
use crate::wrong::check;

const SPEC: &str = "\
subarch: amd64
version_stamp: @TIMESTAMP@
target: livecd-stage2
rel_type: 23.0-default
profile: default/linux/amd64/23.0
snapshot_treeish: @TREEISH@
source_subpath: %(rel_type)s/livecd-stage1-%(subarch)s-@TIMESTAMP@
livecd/iso: install-amd64-minimal-@TIMESTAMP@.iso
livecd/volid: Gentoo-amd64-@DATESTAMP@
boot/kernel: gentoo
boot/kernel/gentoo/distkernel: yes
";
const SETS: [&str; 4] = ["--set", "TIMESTAMP=20250101T000000Z", "--set", "TREEISH=abc"];

fn with(text: &str) -> Live {
    let live = Live::bare();
    fs::write(live.world.path("minimal.spec"), text).unwrap();
    live
}

#[test]
fn a_release_spec_is_a_graph() {
    let live = with(SPEC);
    let plan =
        |live: &Live, more: &[&str]| live.stagegraph(&[&["plan", "minimal.spec"], &SETS[..], more].concat());
    let output = plan(&live, &["--set", "squashfs.compressor=zstd"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("minimal → install-amd64-minimal-20250101T000000Z.iso\n"), "{text}");
    for line in ["stage2 (catalyst) gives boot, medium, packages, root", "    takes tree from stage2.medium"]
    {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    let json = plan(&live, &["--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    let stage2 = nodes.iter().find(|node| node["node"] == "stage2").unwrap();
    let values: serde_json::Value =
        serde_json::from_str(stage2["params"]["values"].as_str().unwrap()).unwrap();
    assert_eq!(values["source_subpath"][0], "23.0-default/livecd-stage1-amd64-20250101T000000Z");

    let text = SPEC.replace("linux/amd64", "linux/sparc");
    let output = plan(&with(&text), &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("cannot be made for sparc") && !text.contains("(medium)"), "{text}");

    let text = SPEC.replace("livecd-stage2", "livecd-stage1").replace("livecd/iso", "livecd/packages");
    let text = text.lines().filter(|line| !line.starts_with("boot/") && !line.contains("volid"));
    let output = plan(&with(&text.collect::<Vec<_>>().join("\n")), &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("stage1 (catalyst) gives files\n"), "{text}");
}

#[test]
fn mistakes_in_a_release_spec_are_pointed_at() {
    let live = with(SPEC);
    check(
        &live.stagegraph(&["plan", "minimal.spec"]),
        2,
        &["nothing stands for @TIMESTAMP@", "minimal.spec:2:16", "--set TIMESTAMP=… --set TREEISH=…"],
    );
    let build = |text: &str, more: &[&str]| {
        with(text).stagegraph(&[&["build", "minimal.spec"], &SETS[..], more].concat())
    };
    let unknown = format!("{SPEC}livecd/botargs: x\n");
    check(&build(&unknown, &[]), 2, &["catalyst has no key \"livecd/botargs\"", "minimal.spec:12:1"]);
    // Of another target that is said first, whatever else it lacks.
    for target in ["netboot", "stage3"] {
        let text = SPEC.replace("livecd-stage2", target);
        let text = text.lines().filter(|line| !line.starts_with("livecd/") && !line.starts_with("boot/"));
        let expected = format!("the target \"{target}\" makes no live medium");
        check(&build(&text.collect::<Vec<_>>().join("\n"), &[]), 2, &[&expected, "minimal.spec:3:9"]);
    }
    let volid = SPEC.replace("@DATESTAMP@", "a-name-that-is-too-long");
    check(&build(&volid, &[]), 2, &["36 characters; ISO 9660 holds 32", "minimal.spec:9:15"]);
    check(&build(SPEC, &["--set", "squashfs.levl=3"]), 2, &["did you mean \"level\"?"]);
    check(
        &live.stagegraph(&["plan", "amd64-minimal", "--set", "NOTHING=x"]),
        2,
        &["nothing in the spec says @NOTHING@"],
    );
    check(
        &live.stagegraph(&["plan", "amd64-minimal", "--set", "stage2.step=catalyst"]),
        2,
        &["nothing stands for @", "--set", "step = \"debian\""],
    );
}

#[test]
fn without_catalyst_it_says_what_is_missing() {
    let live = with(SPEC);
    let build = |more: &[&str]| {
        live.stagegraph(&[&["build", "minimal.spec", "--to", "stage2"], &SETS[..], more].concat())
    };
    check(&build(&["--set", "stage2.conf=/no/such.conf"]), 3, &["/no/such.conf is not there", "`conf`"]);
    let conf = live.world.path("catalyst.conf");
    fs::write(&conf, "options = []\n").unwrap();
    let conf = format!("stage2.conf={}", conf.display());
    let empty = format!("stage2.dir={}", live.world.dir.path().display());
    check(
        &build(&["--set", &conf, "--set", &empty]),
        3,
        &["python3 does not run catalyst: ModuleNotFoundError: No module named 'catalyst'", "`dir`"],
    );
    check(&build(&["--set", &conf, "--set", "stage2.python=/no/python"]), 3, &["/no/python", "`python`"]);
}
