//! Bad input: one clear error, the right exit code, nothing lost.

use std::fs;
use std::process::Output;

use cache::testing::{Need, needs};

use crate::live::{Live, write_dracut_initrd, write_initrd};
use crate::world::{run, run_in};

/// Builds, expects the exit code, and that the message has all of these; what was published stays.
fn refused(live: &Live, args: &[&str], code: i32, expected: &[&str]) {
    let output = live.stagegraph(&[&["build", &live.spec()], args].concat());
    check(&output, code, expected);
}

pub(crate) fn check(output: &Output, code: i32, expected: &[&str]) {
    // miette breaks long messages into lines with a bar in front.
    let text = String::from_utf8_lossy(&output.stderr).replace('│', " ");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(code), "{text}");
    for expected in expected {
        assert!(words.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn mistakes_in_a_spec_are_pointed_at() {
    let live = Live::new();
    let run = |more: &str| {
        format!("[node.r]\nstep = \"run\"\nargv = [\"true\"]\noutputs = {{ x = \"x/\" }}\n{more}\n")
    };
    let runs = [
        run("tools = [\"\"]"),
        run("tools = [\"../etc/shadow\"]"),
        run("env = { A = \"b\\u0000c\" }"),
        run("env = { \"A=B\" = \"c\" }"),
    ];
    let cases: [(&str, &str, &[&str]); 23] = [
        ("path = \"root\"\n", &runs[0], &["\"\" is not a program's name"]),
        ("path = \"root\"\n", &runs[1], &["\"../etc/shadow\" is not a program's name"]),
        ("path = \"root\"\n", &runs[2], &["\"A\" cannot be a variable"]),
        ("path = \"root\"\n", &runs[3], &["\"A=B\" cannot be a variable"]),
        ("pth = \"root\"\npath = \"root\"\n", "", &["no key \"pth\"", "did you mean \"path\"?", "tiny.toml"]),
        ("path = 7\n", "", &["expected a text, found a number"]),
        ("path = \"gone\"\n", "", &["gone is not there"]),
        ("", "", &["the step import needs \"path\""]),
        ("path = \"root\"\n", "[node.squashfs]\nlevel = 99\n", &["level must be from 1 to 22"]),
        ("path = \"root\"\n", "[node.squashfs]\nblock_size = 5000\n", &["power of two"]),
        (
            "path = \"root\"\n",
            "[node.squashfs]\ncompressor = \"zip\"\n",
            &["no such compressor", "gzip, xz, lz4 or zstd"],
        ),
        ("path = \"root\"\n", "[node.squashfs]\nexclude = [\"a[\"]\n", &["not a pattern"]),
        (
            "path = \"root\"\n",
            "[node.iso.input]\nkernal = \"kernel.images\"\n",
            &["no input \"kernal\"", "it takes kernel"],
        ),
        (
            "path = \"root\"\n",
            "[node.iso.input]\nkernel = \"kernel.image\"\n",
            &["kernel gives images", "no such output"],
        ),
        ("path = \"root\"\n", "[node.iso.input]\nkernel = \"karnel.images\"\n", &["no node \"karnel\""]),
        (
            "path = \"root\"\n",
            "[node.squashfs.input]\nroot = \"again.image\"\n[node.again]\nstep = \"squashfs\"\ninput = { root = \"squashfs.image\" }\n",
            &["round in a circle: again → squashfs → again"],
        ),
        (
            "path = \"root\"\n",
            "[node.more]\nstep = \"grub\"\n",
            &["nothing that is published needs the node more"],
        ),
        ("path = \"root\"\n", "[node.more]\nstep = \"grab\"\n", &["there is no step \"grab\"", "steps are:"]),
        (
            "path = \"root\"\n",
            "[publish]\nx = [\"squashfs.image\"]\n",
            &["squashfs.image is not a folder of plain files"],
        ),
        ("path = \"root\"\n", "[publish]\n\"../up\" = [\"iso.files\"]\n", &["only go down"]),
        (
            "path = \"root\"\n",
            "[node.r]\nstep = \"run\"\nargv = [\"true\"]\noutputs = { x = \"../x\" }\n[publish]\nx = [\"r.x\"]\n",
            &["only go down", "outputs are paths below out/"],
        ),
        ("path = \"root\"\nx = 1.5\n", "", &["no fractions"]),
        (
            "path = \"root\"\n",
            "[node.r]\nstep = \"run\"\nargv = [\"true\"]\ninput = { \"../x\" = \"squashfs.image\" }\noutputs = { x = \"x/\" }\n[publish]\nx = [\"r.x\"]\n",
            &["the input's name is not a file name"],
        ),
    ];
    for (import, more, expected) in cases {
        live.write_spec(import, more);
        refused(&live, &[], 2, expected);
    }
    fs::write(live.world.path("tiny.toml"), "extends = \"livecd\"\n[image\n").unwrap();
    refused(&live, &[], 2, &["tiny.toml:2", "not TOML"]);
    fs::write(live.world.path("tiny.toml"), "extends = \"tiny.toml\"\n").unwrap();
    refused(&live, &[], 2, &["extend each other in a circle"]);
    assert!(!live.out().exists());
}

#[test]
fn mistakes_in_the_image_are_pointed_at() {
    let live = Live::new();
    for (set, expected) in [
        ("image.volume_id=a-volume-id-of-more-than-32-letters", "has 35 characters; ISO 9660 holds 32"),
        ("image.volume_id=two words", "cannot be found by an initramfs"),
        ("image.name=../../etc/passwd", "cannot be the stem of published names"),
        ("image.name=stage3.tar.xz", "no \".tar\""),
        ("image.timestamp=yesterday", "this is not a date"),
        ("image.bootargs=[\"a b\"]", "cannot stand on a kernel command line"),
        ("image.bootargs=[\"x=$y\"]", "boot loaders would read"),
        ("image.titel=x", "did you mean \"title\"?"),
        ("nonsense", "--set takes KEY=VALUE"),
        ("nothing.here=1", "neither image.KEY nor NODE.KEY"),
        ("stage2.step=catalyst", "the step catalyst needs \"values\""),
    ] {
        refused(&live, &["--set", set], 2, &[expected]);
    }
    check(
        &live.stagegraph(&["build", "no-such-spec"]),
        2,
        &["there is no spec \"no-such-spec\"", "amd64-minimal"],
    );
    check(&live.stagegraph(&["build", "./no/such.toml"]), 2, &["cannot read the spec ./no/such.toml"]);
    check(&live.stagegraph(&["build", &live.spec(), "--to", "nowhere"]), 2, &["has no node \"nowhere\""]);
    fs::create_dir(live.world.path("sub")).unwrap();
    fs::copy(live.world.path("tiny.toml"), live.world.path("sub/tiny.toml")).unwrap();
    fs::write(live.world.path("sub/root"), "").unwrap();
    check(&live.stagegraph(&["build", &live.spec(), "sub/tiny.toml"]), 2, &["two specs are called tiny"]);
    check(&live.stagegraph(&["biuld"]), 2, &["unrecognized subcommand"]);
    let epoch = live.command(&["build", &live.spec()]).env("SOURCE_DATE_EPOCH", "soon").output().unwrap();
    check(&epoch, 2, &["SOURCE_DATE_EPOCH is \"soon\""]);
}

#[test]
fn roots_that_cannot_boot_are_refused_by_what_they_lack() {
    let live = Live::new();
    let boot = live.root().join("boot");
    let initrd = boot.join("initramfs-test.img");
    write_initrd(&initrd, &[("init", "")], "cat");
    refused(&live, &[], 1, &["made by neither dracut nor genkernel"]);
    write_dracut_initrd(&initrd, "9.9.9");
    refused(&live, &[], 1, &["is 6.1.0-test, but the initrd", "9.9.9"]);
    fs::write(&initrd, b"\x1f\x8brubbish").unwrap();
    refused(&live, &[], 1, &["the initrd initramfs-test.img"]);
    fs::remove_file(&initrd).unwrap();
    refused(&live, &[], 1, &["no initrd goes with the kernel vmlinuz-test"]);
    fs::remove_file(boot.join("vmlinuz-test")).unwrap();
    refused(&live, &[], 1, &["the root has no kernel", "no files at all"]);
}

#[test]
fn tars_and_isos_that_are_none_are_refused() {
    let live = Live::new();
    let import = |name: &str, bytes: &[u8]| {
        fs::write(live.world.path(name), bytes).unwrap();
        live.write_spec(&format!("path = \"{name}\"\n"), "");
    };
    import("text", b"just text");
    refused(&live, &[], 2, &["neither a folder nor a tar nor an ISO 9660 image"]);
    let mut iso = vec![0; 0x9000];
    iso[0x8001..0x8006].copy_from_slice(b"CD001");
    import("false.iso", &iso);
    refused(&live, &[], 1, &["no ISO 9660 image"]);
    let script = "mkdir -p t/x && echo evil > t/evil && tar -cf hostile.tar -C t/x -P ../evil";
    run_in(live.world.dir.path(), "sh", &["-c", script]);
    live.write_spec("path = \"hostile.tar\"\n", "");
    refused(&live, &[], 1, &["only go down", "at byte 0"]);
    live.write_spec("path = \"root\"\n", "");
    live.build(&[]);
    let iso = fs::read(live.iso()).unwrap();
    import("cut.iso", &iso[..iso.len() / 2]);
    refused(&live, &["--out", "elsewhere"], 1, &["it is cut off"]);
    run_in(live.world.dir.path(), "sh", &["-c", "tar -cf whole.tar root; head -c 30000 whole.tar > cut.tar"]);
    live.write_spec("path = \"cut.tar\"\n", "");
    refused(&live, &[], 1, &["read the archive at byte"]);
}

#[test]
fn without_a_place_for_the_store_the_error_says_so() {
    let live = Live::new();
    let output = live.command(&["build", &live.spec()]).env_remove("STAGEGRAPH_STORE").output().unwrap();
    check(&output, 3, &["neither STAGEGRAPH_STORE, XDG_CACHE_HOME nor HOME is set", "--store"]);
}

#[test]
fn a_missing_tool_is_named_with_its_package() {
    let live = Live::new();
    let node = "[node.r]\nstep = \"run\"\nargv = [\"no-such-tool\"]\noutputs = { x = \"x/\" }\n[publish]\nx = [\"r.x\"]\n";
    live.write_spec("path = \"root\"\n", node);
    refused(&live, &[], 3, &["the program no-such-tool is not installed"]);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_half_made() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    let small = live.world.path("small");
    fs::create_dir(&small).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=2m", "none", small.to_str().unwrap()]);
    let output = live.stagegraph(&["build", &live.spec(), "--store", "small/store", "--out", "small/out"]);
    let published = small.join("out/tiny").exists();
    let scratch = fs::read_dir(small.join("store/scratch")).unwrap().count();
    run("umount", &[small.to_str().unwrap()]);
    // Whoever writes first says so: the operating system, or the index.
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("No space left on device") || text.contains("disk is full"), "{text}");
    check(&output, 3, &[]);
    assert!(!published && scratch <= 1, "{scratch} left in scratch");
    assert_eq!(live.build(&[]).len(), 15, "the same spec builds where there is room");
}

#[test]
fn what_was_published_survives_a_failed_build() {
    let live = Live::new();
    live.build(&[]);
    let before = crate::live::hashes(&live.out());
    fs::remove_file(live.root().join("boot/vmlinuz-test")).unwrap();
    refused(&live, &[], 1, &["no kernel"]);
    assert_eq!(crate::live::hashes(&live.out()), before);
}

#[test]
fn a_folder_that_cannot_be_published_into_is_refused_before_anything_is_built() {
    let live = Live::new();
    fs::create_dir_all(live.world.path("out/tiny/theirs")).unwrap();
    let check_nothing_built = |output: &std::process::Output, code: i32, says: &str| {
        check(output, code, &[says]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(!told.contains("built"), "{told}");
    };
    check_nothing_built(&live.stagegraph(&["build", &live.spec()]), 3, "stagegraph did not make it");
    fs::remove_dir_all(live.world.path("out")).unwrap();
    let inside = live.stagegraph(&["build", &live.spec(), "--store", "out/tiny/deep/store"]);
    check_nothing_built(&inside, 2, "which holds what is published and nothing else");
    std::os::unix::fs::symlink("out", live.world.path("link")).unwrap();
    let inside = live.stagegraph(&["build", &live.spec(), "--store", "link/tiny/store"]);
    check_nothing_built(&inside, 2, "which holds what is published and nothing else");
    // Beside it is right.
    let beside = live.stagegraph(&["build", &live.spec(), "--store", "out/store"]);
    assert_eq!(beside.status.code(), Some(0), "{}", String::from_utf8_lossy(&beside.stderr));
}

#[test]
fn where_the_machine_forbids_namespaces_the_error_names_the_settings() {
    let live = Live::new();
    let tools = live.world.path("tools");
    fs::create_dir(&tools).unwrap();
    // This machine allows them; a bubblewrap that says what it says elsewhere stands in.
    let script =
        "#!/bin/sh\necho 'bwrap: Creating new namespace failed: Operation not permitted' >&2\nexit 1\n";
    fs::write(tools.join("bwrap"), script).unwrap();
    run("chmod", &["755", tools.join("bwrap").to_str().unwrap()]);
    let output = live.command(&["build", &live.spec()]).env("STAGEGRAPH_TOOLS", &tools).output().unwrap();
    check(
        &output,
        3,
        &[
            "does not let bubblewrap make a sandbox",
            "Operation not permitted",
            "user.max_user_namespaces",
            "--sandbox=off",
        ],
    );
}

#[test]
fn an_offline_build_that_needs_packages_says_which() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    let output = live.stagegraph(&["build", "amd64-minimal", "--to", "stage2", "--offline"]);
    check(&output, 3, &["it is not in the store, and the build is offline", "build once without --offline"]);
    let packages = "stage2.debian.packages=[\"no-such-package\"]";
    let output = live.stagegraph(&["build", "amd64-minimal", "--to", "stage2", "--set", packages]);
    check(&output, 3, &["Unable to locate package no-such-package", "apt-get update"]);
}

#[test]
fn an_output_folder_that_cannot_be_used_is_noticed_before_anything_runs() {
    let live = Live::new();
    let output = live.stagegraph(&["build", &live.spec(), "--out", "/dev/null"]);
    check(&output, 3, &["the output folder /dev/null cannot be written to", "--out"]);
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn what_the_command_line_says_of_the_image_wins_over_a_steps_own_table() {
    let live = Live::new();
    let plan = |set: &str| live.stagegraph(&["plan", "amd64-minimal", "--format", "json", "--set", set]);
    let text = String::from_utf8(plan("image.volume_id=MINE").stdout).unwrap();
    assert!(text.contains("\"volume_id\": \"MINE\""), "{text}");
    check(&plan("image.volume_id=has space"), 2, &["cannot be found by an initramfs"]);
}

#[test]
fn all_mistakes_of_a_spec_are_told_at_once() {
    let live = Live::new();
    live.write_spec(
        "path = 7\n",
        "[node.squashfs]\nlevel = 99\ncomprssor = \"xz\"\nexclude = [3, \"a[\"]\n[node.squashfs.input]\nroot = \"stage2\"\n\
         [node.more]\nstep = \"grab\"\n[node.iso.input]\nkernel = \"karnel.images\"\ngrub = \"more.efi\"\n\
         [publish]\nx = [\"squashfs.image\", \"iso.nothing\", \"stage2.boot\"]\n[nodes]\n",
    );
    let output = live.stagegraph(&[
        "build",
        &live.spec(),
        "--set",
        "image.titel=x",
        "--set",
        "image.volume_id=two words",
    ]);
    check(
        &output,
        2,
        &[
            "expected a text, found a number",
            "level must be from 1 to 22",
            "no key \"comprssor\"",
            "did you mean \"compressor\"?",
            "not a pattern",
            "\"stage2\" is not an output",
            "there is no step \"grab\"",
            "there is no node \"karnel\"",
            "there is no output \"iso.nothing\"",
            "a spec has no key \"nodes\"",
            "did you mean \"title\"?",
            "cannot be found by an initramfs",
        ],
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    // What is wrong only because something else is wrong is not told.
    assert!(text.matches(" × ").count() == 12 && text.contains("\n12 errors\n"), "{text}");
    // Two specs: the mistakes of both.
    fs::write(live.world.path("other.toml"), "extends = \"no-such\"\n").unwrap();
    let both = live.stagegraph(&["build", &live.spec(), "./other.toml"]);
    check(&both, 2, &["level must be from 1 to 22", "there is no spec \"no-such\""]);
}

#[test]
fn one_mistake_is_one_error_and_two_are_two() {
    let live = Live::new();
    let spec = live.spec();
    for (set, expected) in [
        (&["node.more=5"][..], &["expected a table, found a number"][..]),
        (&["image.title=1"], &["expected a text, found a number"]),
        (&["image.title=1", "image.label=1"], &["expected a text, found a number"; 2]),
        (&["squashfs.input=5"], &["expected a table, found a number"]),
        (&["squashfs.compressor=xzz", "squashfs.level=0"], &["no such compressor"]),
        (
            &["a.b=1", "image.volume_id=two words", "c.d=2"],
            &["\"a.b\" is neither", "found by an initramfs", "\"c.d\" is neither"],
        ),
        (&["iso.step=ios"], &["there is no step \"ios\""]),
        (&["image.iso=5"], &["expected a table, found a number"]),
    ] {
        let sets = set.iter().flat_map(|set| ["--set", set]);
        let output = live.stagegraph(&["plan", &spec].into_iter().chain(sets).collect::<Vec<_>>());
        check(&output, 2, expected);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(text.matches(" × ").count(), expected.len(), "{set:?}: {text}");
    }
    // What is missing in a table is missing where that stands, not where something else in it was set.
    fs::write(live.world.path("bare.toml"), "extends = \"./tiny.toml\"\n[node.more]\nstep = \"run\"\n")
        .unwrap();
    let output = live.stagegraph(&["plan", "./bare.toml", "--set", "more.tools=[]"]);
    check(&output, 2, &["the step run needs \"argv\"", "bare.toml:2"]);
}

#[test]
fn an_empty_path_is_no_folder_and_a_byte_order_mark_is_no_key() {
    let live = Live::new();
    live.write_spec("path = \"\"\n", "");
    check(
        &live.stagegraph(&["plan", &live.spec()]),
        2,
        &["the path is empty", "the spec's own folder is \".\""],
    );
    // Catalyst's specs and our own say the same with and without the mark.
    for (name, text) in
        [("a.spec", "subarch: amd64\nversion_stamp: 1\n"), ("a.toml", "extends = \"livecd\"\nnmae = 1\n")]
    {
        let plan = |text: String| {
            fs::write(live.world.path(name), text).unwrap();
            let output = live.stagegraph(&["plan", &format!("./{name}")]);
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let plain = plan(text.to_owned());
        assert_eq!(plain.0, Some(2), "{}", plain.1);
        assert_eq!(plan(format!("\u{feff}{text}")), plain);
    }
}

#[test]
fn a_table_named_after_a_step_counts_where_that_step_can_run_and_is_refused_elsewhere() {
    let live = Live::new();
    for (import, more, expected) in [
        ("path = \"root\"\nmedium = { what = \"ever\" }\n", "", "expected a text, found a table"),
        ("path = \"root\"\n", "[node.squashfs.iso]\nnonsense = 1\n", "the step squashfs has no key \"iso\""),
        (
            "path = \"root\"\n[node.stage2.debian]\npackages = []\n",
            "",
            "the step import has no key \"debian\"",
        ),
        ("path = \"root\"\n", "[image.medium]\ntitle = \"x\"\n", "no node runs the step medium"),
        ("path = \"root\"\n", "[image.iso]\ntilte = \"x\"\n", "did you mean \"title\"?"),
    ] {
        live.write_spec(import, more);
        refused(&live, &[], 2, &[expected]);
    }
    live.write_spec("path = \"root\"\n", "");
    refused(&live, &["--set", "squashfs.iso.nonsense=1"], 2, &["the step squashfs has no key \"iso\""]);
    // Of a spec whose nodes run other steps here, the settings of those it ran stay behind.
    fs::write(
        live.world.path("mine.toml"),
        "extends = \"amd64-minimal\"\n[node.stage2]\nstep = \"import\"\npath = \"root\"\n[image.import]\ntitle = \"Mine\"\n",
    )
    .unwrap();
    let plan = live.stagegraph(&["plan", "./mine.toml", "--format", "json"]);
    assert_eq!(plan.status.code(), Some(0), "{}", String::from_utf8_lossy(&plan.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(
        (&plan["image"]["title"], &plan["image"]["volume_id"]),
        (&"Mine".into(), &"Gentoo-amd64-20261101".into())
    );
    let set = ["plan", "amd64-minimal", "--set", "stage2.step=import", "--set", "stage2.path=root"];
    assert_eq!(live.stagegraph(&set).status.code(), Some(0));
}

#[test]
fn names_of_the_image_are_asked_for_by_the_steps_that_use_them() {
    let live = Live::new();
    let image = "[image]\nname = \"x\"\ntimestamp = \"20260102T030405Z\"\n";
    let write = |text: String| fs::write(live.world.path("tiny.toml"), text).unwrap();
    write(format!("extends = \"livecd\"\n{image}[node.stage2]\nstep = \"import\"\npath = \"root\"\n"));
    refused(
        &live,
        &[],
        2,
        &[
            "[image] needs \"title\"",
            "[image] needs \"label\"",
            "[image] needs \"volume_id\"",
            "hint: the step",
        ],
    );
    // A netboot set has no volume id, and a squashfs alone has no names at all.
    let named = format!(
        "extends = \"netboot\"\n{image}title = \"X\"\nlabel = \"x\"\n[node.stage2]\npath = \"root\"\n"
    );
    write(named);
    assert_eq!(live.stagegraph(&["build", &live.spec()]).status.code(), Some(0));
    write(format!(
        "{image}[node.stage2]\nstep = \"import\"\npath = \"root\"\n[node.squashfs]\nstep = \"squashfs\"\ninput = {{ root = \
         \"stage2.root\" }}\n"
    ));
    let output = live.stagegraph(&["build", &live.spec(), "--to", "squashfs"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
