//! Toolboxes and locks, with a real apt and an archive of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cache::testing::{Need, needs};

use crate::http::Nginx;
use crate::live::Live;
use crate::world::{run, run_in};
use crate::wrong::check;

/// A spec with a toolbox of the package `box`, and a node that says which version of it runs.
const SPEC: &str = "[image]\nname = \"x\"\ntimestamp = \"20260102T030405Z\"\n\n[node.tools]\nstep = \"toolbox\"\npackages = [\"box\"]\n\
    links = { sh = \"boxed-sh\" }\n\n[node.report]\nstep = \"run\"\ninput = { tools = \"tools.root\" }\n\
    argv = [\"sh\", \"-c\", \"mkdir out/made && cat /usr/share/box/version > out/made/version && ls / >> out/made/version\"]\n\
    outputs = { folder = \"made/\" }\n\n[publish]\n\".\" = [\"report.folder\"]\n";

/// A flat archive, and an apt that knows no other: both in a mount namespace of the program that is run.
struct Archive {
    live: Live,
}

impl Archive {
    fn new() -> Self {
        let live = Live::bare();
        for folder in
            ["repo", "old", "lists/partial", "apt/apt.conf.d", "apt/preferences.d", "apt/sources.list.d"]
        {
            fs::create_dir_all(live.world.path(folder)).unwrap();
        }
        let source = format!("deb [trusted=yes] file:{} ./\n", live.world.path("repo").display());
        fs::write(live.world.path("apt/sources.list"), source).unwrap();
        let settings =
            "Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\nAPT::Sandbox::User \"root\";\n";
        fs::write(live.world.path("apt/apt.conf"), settings).unwrap();
        fs::write(live.world.path("box.toml"), SPEC).unwrap();
        Self { live }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.live.world.path(name)
    }

    /// Puts a version of `box` into the archive, in the place of the last one: a shell of this machine and what it runs here.
    fn publish(&self, version: &str) {
        let top = self.path(&format!("box_{version}"));
        let script = r#"mkdir -p "$0/DEBIAN" "$0/usr/bin" "$0/usr/share/box"
            printf 'Package: box\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody <x@example.org>\nDescription: a box\n' "$1" \
                > "$0/DEBIAN/control"
            echo "$1" > "$0/usr/share/box/version"
            cp /bin/dash "$0/usr/bin/boxed-sh"
            cp /bin/cat /bin/mkdir /bin/ls "$0/usr/bin"
            for library in $(ldd /bin/dash /bin/ls /bin/cat | grep -o '/[^ ]*' | grep -v ':$' | sort -u); do
                mkdir -p "$0$(dirname "$library")"; cp -L "$library" "$0$library"
            done
            find "$0" -exec touch -d @1700000000 {} +"#;
        run("sh", &["-ec", script, top.to_str().unwrap(), version]);
        run("sh", &["-c", "rm -f \"$0\"/*", self.path("repo").to_str().unwrap()]);
        self.pack(&top);
        self.index();
    }

    /// Makes a package of a folder, in the archive.
    fn pack(&self, top: &Path) {
        let package =
            self.path("repo").join(format!("{}_amd64.deb", top.file_name().unwrap().to_str().unwrap()));
        let (top, package) = (top.to_str().unwrap(), package.to_str().unwrap());
        run("dpkg-deb", &["--root-owner-group", "-Zgzip", "--build", top, package]);
    }

    /// Adds an empty package beside what is there.
    fn add(&self, name: &str, version: &str, depends: &str) {
        let top = self.path(&format!("{name}_{version}"));
        fs::create_dir_all(top.join("DEBIAN")).unwrap();
        let depends = if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: x <x@example.org>\n{depends}Description: x\n"
        );
        fs::write(top.join("DEBIAN/control"), control).unwrap();
        self.pack(&top);
        self.index();
    }

    /// Lists what is in the archive, and has apt read that.
    fn index(&self) {
        let script = r#"for package in *.deb; do
                dpkg-deb -f "$package"
                printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$package" "$(stat -c %s "$package")" \
                    "$(sha256sum < "$package" | cut -d' ' -f1)"
            done > Packages
            printf 'Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n %s %s Packages\n' \
                "$(sha256sum < Packages | cut -d' ' -f1)" "$(wc -c < Packages)" > Release
            cp ./*.deb ../old"#;
        run_in(&self.path("repo"), "sh", &["-ec", script]);
        self.within("apt-get -qq update", &[]);
    }

    /// Runs a line of shell where apt knows the archive alone.
    fn within(&self, script: &str, args: &[&str]) -> Output {
        let script = format!("mount --bind lists /var/lib/apt/lists; mount --bind apt /etc/apt; {script}");
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-ec", &script, "sh"]).args(args);
        command.current_dir(self.live.world.dir.path());
        command.env("STAGEGRAPH_STORE", self.path("store")).output().unwrap()
    }

    fn stagegraph(&self, args: &[&str]) -> Output {
        self.within("exec \"$@\"", &[&[env!("CARGO_BIN_EXE_stagegraph")], args].concat())
    }

    /// Runs the program, which is to succeed; returns what it printed.
    fn says(&self, args: &[&str]) -> String {
        let output = self.stagegraph(args);
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{args:?}: {text}\n{errors}");
        format!("{text}{errors}")
    }

    /// Returns what the image made by the toolbox says.
    fn made(&self) -> String {
        fs::read_to_string(self.path("out/box/version")).unwrap()
    }

    /// Forgets the store, and all packages in it.
    fn forget(&self) {
        let _ = fs::remove_dir_all(self.path("store"));
    }
}

const BUILD: [&str; 2] = ["build", "./box.toml"];

#[test]
fn tools_come_from_packages_and_nothing_of_the_machine_counts() {
    if !needs(Need::Root) {
        return;
    }
    let archive = Archive::new();
    archive.publish("1");
    let text = archive.says(&BUILD);
    assert!(text.contains("2 built") && text.contains("`stagegraph lock ./box.toml` pins them"), "{text}");
    assert_eq!(archive.made(), "1\nbin\nbuild\ndev\netc\nlib\nlib64\nproc\ntmp\nusr\nvar\n");
    // Another shell, another C library and another tool on this machine: none of it is seen.
    let changed = "cp /bin/cat cat; echo x >> cat; for path in /bin/cat /bin/dash /usr/bin/xorriso /usr/share/perl; do \
        [ -d $path ] && mount -t tmpfs none $path || mount --bind cat $path; done; exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let output = archive.within(changed, &[program, "build", "./box.toml"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("2 nodes: 2 cached"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    archive.publish("2");
    let text = archive.says(&BUILD);
    assert!(text.contains("2 built"), "{text}");
    assert!(archive.made().starts_with("2\n"));
    let why = archive.says(&["why", "./box.toml", "report"]);
    assert!(why.contains("report: input tools changed") && why.contains("\n        box 1 → 2\n"), "{why}");
    // Laid out once for all builds, and gone with what nobody uses.
    let stat = archive.says(&["store", "stat"]);
    assert!(stat.contains("toolboxes laid out"), "{stat}");
    let text = archive.says(&["store", "gc"]);
    assert!(text.contains("2 toolboxes that were laid out"), "{text}");
    assert!(archive.says(&["build", "./box.toml", "--check"]).contains("2 built"));
}

#[test]
fn what_is_changed_under_a_running_tool_is_not_recorded() {
    if !needs(Need::Root) {
        return;
    }
    let archive = Archive::new();
    archive.publish("1");
    let slow =
        SPEC.replace("mkdir out/made", "mkdir out/made; i=0; while [ $i -lt 2000000 ]; do i=$((i+1)); done");
    fs::write(archive.path("box.toml"), slow).unwrap();
    let script = "( while [ ! -e \"$(echo store/checkouts/*/usr/share/box/version)\" ]; do sleep 0.02; done; sleep 0.3; \
        for file in store/checkouts/*/usr/share/box/version; do echo evil > $file; done ) & \"$@\"";
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let output = archive.within(script, &[program, "build", "./box.toml"]);
    check(
        &output,
        3,
        &["report: the toolbox in", "was changed while a tool of it ran", "nothing it gave was recorded"],
    );
    assert!(archive.says(&BUILD).contains("1 built"));
    assert!(archive.made().starts_with("1\n"));
}

#[test]
fn whole_images_are_made_with_tools_from_packages_by_any_user() {
    let live = Live::new();
    let text = fs::read_to_string(live.spec()).unwrap().replace("[node.tools]\nstep = \"host\"\n", "");
    let text = text.replace("[node.loaders]\nstep = \"host\"\n", "");
    fs::write(live.spec(), text).unwrap();
    let ran = live.build(&[]);
    assert!(ran.contains(&"tools".to_owned()) && !ran.contains(&"stage2-tools".to_owned()), "{ran:?}");
    let files = fs::read_dir(live.out()).unwrap().map(|entry| entry.unwrap().path());
    let manifests = files.filter(|path| path.display().to_string().ends_with(".manifest.json"));
    let manifest = fs::read(manifests.last().unwrap()).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for (name, node) in manifest["nodes"].as_object().unwrap() {
        assert_eq!(node["tools"], serde_json::json!({}), "{name} has tools of this machine in its key");
    }
    assert!(manifest["nodes"]["tools"]["sources"]["xorriso"].as_str().unwrap().contains(" sha256:"));
    assert_eq!(live.build(&[]), [""; 0]);
    // Without a sandbox there is no toolbox: then the programs are this machine's own.
    let output = live.stagegraph(&["build", &live.spec(), "--sandbox=off"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("this machine's own programs make the images: tools run without a sandbox"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // The input may be any tree: that of an import is asked in the same way for what it has.
    let nothing = ["--set", "tools.step=import", "--set", "tools.path=root"];
    let output = live.stagegraph(&[&["build", &live.spec()], &nothing[..]].concat());
    check(&output, 2, &["grub: the toolbox has no grub-mkimage", "grub-pc-bin"]);
}

#[test]
fn what_a_toolbox_lacks_is_named_with_what_to_do() {
    if !needs(Need::Root) {
        return;
    }
    let archive = Archive::new();
    archive.publish("1");
    let output = archive.stagegraph(&["build", "./box.toml", "--set", "report.argv=[\"awk\"]"]);
    check(&output, 2, &["report: the toolbox has no awk", "the node whose root is the input \"tools\""]);
    let output = archive.stagegraph(&["build", "./box.toml", "--sandbox=off"]);
    check(&output, 2, &["run in a sandbox or not at all", "--set NODE.step=host"]);
    let noexec = "mkdir bare; mount -t tmpfs -o noexec none bare; exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let output = archive.within(noexec, &[program, "build", "./box.toml", "--store", "bare/store"]);
    check(&output, 3, &["on a file system that is mounted noexec", "--store", "--set NODE.step=host"]);
    let output =
        archive.stagegraph(&["build", "./box.toml", "--set", "tools.packages=[\"box\", \"nosuch\"]"]);
    check(&output, 3, &["Unable to locate package nosuch", "apt-get update"]);
    let text = SPEC.replace("links = { sh", "links = { cat");
    fs::write(archive.path("box.toml"), text).unwrap();
    check(&archive.stagegraph(&BUILD), 2, &["links: box has /usr/bin/cat already"]);
    for (packages, says) in [
        ("[]", "needs a package at least"),
        ("[\"box-\"]", "\"box-\" is not"),
        ("[\"box=\"]", "\"box=\" is not"),
    ] {
        let output =
            archive.stagegraph(&["build", "./box.toml", "--set", &format!("tools.packages={packages}")]);
        check(&output, 2, &[says]);
    }
}

#[test]
fn a_lock_holds_what_the_archive_has_moved_on_from() {
    if !needs(Need::Root) {
        return;
    }
    let archive = Archive::new();
    archive.publish("1");
    check(&archive.stagegraph(&["build", "./box.toml", "--locked"]), 2, &["stagegraph lock ./box.toml"]);
    assert_eq!(archive.says(&["lock", "./box.toml"]), "./box.lock: 1 package of 1 node\n");
    let first = fs::read_to_string(archive.path("box.lock")).unwrap();
    assert!(archive.says(&["build", "./box.toml", "--locked"]).contains("2 built"));
    archive.publish("2");
    assert!(archive.says(&BUILD).contains("2 cached"), "the lock counts, not the archive");
    assert_eq!(archive.says(&["lock", "./box.toml"]), "./box.lock: 1 package of 1 node\n");
    assert_eq!(fs::read_to_string(archive.path("box.lock")).unwrap(), first, "what fits stays");
    let moved = archive.says(&["lock", "./box.toml", "--update", "box"]);
    assert_eq!(moved, "tools:\n    box  1 → 2\n./box.lock: 1 package of 1 node\n");
    assert!(archive.says(&BUILD).contains("2 built"));
    assert!(archive.made().starts_with("2\n"));
    // What stands beside a hash is compared with what has the hash.
    let lock = fs::read_to_string(archive.path("box.lock")).unwrap();
    for (from, to, says) in [
        ("version = \"2\"", "version = \"7\"", "is box 2 for amd64, of"),
        ("name = \"box\"", "name = \"cube\"", "it should be cube 2 for amd64, of"),
        ("\"amd64\", size", "\"arm64\", size", "the lock has box 2 for arm64; expected amd64 or all"),
        ("\"amd64\", size", "\"all\", size", "it should be box 2 for all, of"),
        ("size = ", "size = 9", "it should be box 2 for amd64, of 9"),
    ] {
        archive.forget();
        fs::write(archive.path("box.lock"), lock.replace(from, to)).unwrap();
        check(&archive.stagegraph(&["build", "./box.toml", "--mirror", "old"]), 2, &[says]);
    }
}

/// Makes an archive that has moved on from the lock, and a store without the locked package.
fn moved_on() -> Archive {
    let archive = Archive::new();
    archive.publish("1");
    archive.says(&["lock", "./box.toml"]);
    archive.publish("2");
    archive.forget();
    archive
}

#[test]
fn archives_of_old_packages_are_asked_one_after_the_other_and_believed_for_their_hashes() {
    if !needs(Need::Root) {
        return;
    }
    let archive = moved_on();
    let says = [
        "box 1 is not to be had",
        "apt's sources have no package of that version and hash",
        "--mirror ARCHIVE",
        "stagegraph lock ./box.toml --update",
    ];
    check(&archive.stagegraph(&BUILD), 3, &says);
    fs::create_dir(archive.path("damaged")).unwrap();
    let whole = fs::read(archive.path("old/box_1_amd64.deb")).unwrap();
    let short = whole.len() - 1;
    for (bytes, says) in [
        (whole[..short].to_vec(), format!("has {short} bytes there; it should have {}", whole.len())),
        ([&whole[..], b"x"].concat(), "has more bytes there".to_owned()),
        ([&whole[..short], b"x"].concat(), "is another file there, with the SHA-256".to_owned()),
    ] {
        fs::write(archive.path("damaged/box_1_amd64.deb"), bytes).unwrap();
        let output = archive.stagegraph(&["build", "./box.toml", "--mirror", "damaged"]);
        check(&output, 3, &[&format!("damaged: box_1_amd64.deb {says}")]);
    }
    let offline =
        archive.stagegraph(&["build", "./box.toml", "--offline", "--mirror", "http://127.0.0.1:1/"]);
    check(&offline, 3, &["it is not in the store, and the build is offline", "build once without --offline"]);
    // What is wrong with the first ones holds nobody up. Folders need no network.
    let mirrors =
        ["missing", "http://127.0.0.1:1/", "damaged", "old"].map(|archive| ["--mirror", archive]).concat();
    let others = archive.stagegraph(&[&BUILD[..], &mirrors[..6]].concat());
    check(&others, 3, &["missing: it is not a folder; http://127.0.0.1:1/", "damaged: box_1_amd64.deb is"]);
    assert!(archive.says(&[&BUILD[..], &mirrors].concat()).contains("2 built"));
    assert!(archive.made().starts_with("1\n"));
    archive.forget();
    assert!(archive.says(&["build", "./box.toml", "--offline", "--mirror", "old"]).contains("2 built"));
}

#[test]
fn a_spec_names_archives_and_needs_no_apt_then() {
    if !needs(Need::Root) {
        return;
    }
    let archive = moved_on();
    // Paths begin in the spec's folder.
    fs::create_dir(archive.path("sub")).unwrap();
    let nearby = format!("{SPEC}\n[packages]\nmirrors = [\"../old\"]\n");
    fs::write(archive.path("sub/near.toml"), nearby).unwrap();
    fs::copy(archive.path("box.lock"), archive.path("sub/near.lock")).unwrap();
    assert!(archive.says(&["build", "sub/near.toml"]).contains("2 built"));
    archive.forget();
    let nginx = Nginx::start(&archive.path("nginx"), &archive.path("old"));
    let address = format!("http://127.0.0.1:{}/", nginx.plain);
    let text = format!("{SPEC}\n[packages]\nmirrors = [\"{address}not/here\", \"{address}\"]\n");
    let text = text.replace("step = \"toolbox\"", "step = \"auto\"\n[node.tools.toolbox]");
    fs::write(archive.path("box.toml"), text).unwrap();
    let without_apt = "mount --bind /dev/null /usr/bin/apt-get; exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let output = archive.within(without_apt, &[program, "build", "./box.toml"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 built"), "{output:?}");
    assert!(archive.made().starts_with("1\n"));
}

#[test]
fn a_package_moves_with_those_it_needs_and_what_nobody_needs_goes() {
    if !needs(Need::Root) {
        return;
    }
    let archive = Archive::new();
    let version = |name: &str| {
        let lock = fs::read_to_string(archive.path("box.lock")).unwrap();
        let start = format!("{{ name = \"{name}\", version = \"");
        let line = lock.lines().find_map(|line| line.trim().strip_prefix(&start))?;
        line.split_once('"').map(|(version, _)| version.to_owned())
    };
    let spec = |packages: &str| {
        let text = SPEC.replace("packages = [\"box\"]", &format!("packages = [{packages}]"));
        fs::write(archive.path("box.toml"), text).unwrap();
    };
    archive.publish("1");
    for (name, depends) in [("apart", ""), ("libq", ""), ("needs-q", "libq (= 1)")] {
        archive.add(name, "1", depends);
    }
    spec("\"box\", \"needs-q\", \"apart\"");
    assert!(archive.says(&["lock", "./box.toml"]).contains("4 packages"));
    for (name, depends) in [("apart", ""), ("libq", ""), ("needs-q", "libq (= 2)")] {
        archive.add(name, "2", depends);
    }
    let moved = archive.says(&["lock", "./box.toml", "--update", "libq"]);
    assert_eq!(
        (version("libq").as_deref(), version("needs-q").as_deref()),
        (Some("2"), Some("2")),
        "{moved}"
    );
    spec("\"box\", \"apart\"");
    archive.says(&["lock", "./box.toml"]);
    assert_eq!((version("libq"), version("box").as_deref()), (None, Some("1")));
    // Another step than the lock's is another step, whatever it is called.
    let host = ["--locked", "--set", "tools.step=host"];
    let output = archive.stagegraph(&[&BUILD[..], &host].concat());
    check(&output, 2, &["where it ran the step toolbox; here it runs host"]);
    // Without apt nothing can be looked up, and nothing is lost.
    let auto = fs::read_to_string(archive.path("box.toml")).unwrap();
    let auto = auto.replace("step = \"toolbox\"", "step = \"auto\"\n[node.tools.toolbox]");
    fs::write(archive.path("box.toml"), auto).unwrap();
    let before = fs::read_to_string(archive.path("box.lock")).unwrap();
    archive.forget();
    let without_apt = "mount --bind /dev/null /usr/bin/apt-get; exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let output = archive.within(without_apt, &[program, "lock", "./box.toml", "--update"]);
    check(&output, 3, &["run /usr/bin/apt-get", "without it they come from a lock and an archive"]);
    assert_eq!(fs::read_to_string(archive.path("box.lock")).unwrap(), before);
}

#[test]
fn a_signal_is_heard_while_apt_is_slow() {
    if !needs(Need::Root) {
        return;
    }
    let archive = Archive::new();
    archive.publish("1");
    let script = "printf '#!/bin/sh\\nsleep 60\\n' > slow; chmod +x slow; mount --bind slow /usr/bin/apt-get; \
        \"$@\" & sleep 1; kill -TERM $!; wait $!";
    let began = std::time::Instant::now();
    let program = env!("CARGO_BIN_EXE_stagegraph");
    for verb in ["lock", "build"] {
        let output = archive.within(script, &[program, verb, "./box.toml"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(143), "{verb}: {text}");
        assert!(!text.contains("apt names no packages"), "{text}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(40), "{:?}", began.elapsed());
}

#[test]
fn a_signal_is_heard_while_a_server_is_slow() {
    if !needs(Need::Root) {
        return;
    }
    let archive = moved_on();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    // It accepts, and says nothing.
    std::thread::spawn(move || {
        let held = listener.accept();
        std::thread::sleep(std::time::Duration::from_secs(60));
        drop(held);
    });
    let script = "\"$@\" & sleep 1; kill -TERM $!; wait $!";
    let began = std::time::Instant::now();
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let output = archive.within(script, &[program, "build", "./box.toml", "--mirror", &address]);
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_lock_that_does_not_fit_says_what_does_not_and_what_to_do() {
    if !needs(Need::Root) {
        return;
    }
    let archive = Archive::new();
    archive.publish("1");
    archive.says(&["lock", "./box.toml"]);
    let lock = fs::read_to_string(archive.path("box.lock")).unwrap();
    let with = |from: &str, to: &str| {
        fs::write(archive.path("box.lock"), lock.replacen(from, to, 1)).unwrap();
        archive.stagegraph(&BUILD)
    };
    check(&with("lock = 1", "<<<<<<< HEAD\nlock = 1"), 2, &["git's mark of a conflict", "./box.lock:"]);
    check(&with("lock = 1", "lock = 9"), 2, &["another version", "--update"]);
    check(
        &with("\"box\",", "\"box\",\n    \"more\","),
        2,
        &["not asked for any more, more", "up to date: stagegraph lock ./box.toml"],
    );
    check(&with("\"toolbox\"", "\"import\""), 2, &["where it ran the step import; here it runs toolbox"]);
    check(&with("[node.tools]", "[node.others]"), 2, &["has no entry for the node tools", "no node others"]);
    check(
        &with("lock = 1", "lock = 1\n#\0"),
        2,
        &["./box.lock is not a lock: line 3 has a control character"],
    );
    check(
        &with("sha256 = \"", "sha256 = \"x"),
        2,
        &["not a SHA-256", "write it anew: stagegraph lock ./box.toml --update"],
    );
    // Edited by hand, and right: it is used, and `lock` writes it as it writes locks.
    let edited = format!("\u{feff}{}", lock.replace('\n', "\r\n"));
    fs::write(archive.path("box.lock"), edited).unwrap();
    check(&archive.stagegraph(&BUILD), 0, &[]);
    archive.says(&["lock", "./box.toml"]);
    assert_eq!(fs::read_to_string(archive.path("box.lock")).unwrap(), lock);
    // A node without its packages is made anew; a link to a lock stays one.
    let packages = lock.find("packages = [").unwrap();
    fs::rename(archive.path("box.lock"), archive.path("shared.lock")).unwrap();
    std::os::unix::fs::symlink("shared.lock", archive.path("box.lock")).unwrap();
    fs::write(archive.path("shared.lock"), &lock[..packages]).unwrap();
    archive.says(&["lock", "./box.toml"]);
    assert_eq!(fs::read_to_string(archive.path("shared.lock")).unwrap(), lock);
    assert!(archive.path("box.lock").is_symlink());
    fs::remove_file(archive.path("box.lock")).unwrap();
    run("mkfifo", &[archive.path("box.lock").to_str().unwrap()]);
    for args in [&["lock", "./box.toml"], &BUILD] {
        check(&archive.stagegraph(args), 2, &["cannot read the lock ./box.lock: expected a plain file"]);
    }
    fs::remove_file(archive.path("box.lock")).unwrap();
    // What to do is said as the caller would write it.
    let set = "tools.packages=[\"box\", \"cat\"]";
    fs::write(archive.path("my lock"), &lock).unwrap();
    let output = archive.stagegraph(&["build", "./box.toml", "--lock", "my lock", "--set", set]);
    let command = format!("stagegraph lock ./box.toml --set '{set}' --lock 'my lock'");
    check(&output, 2, &["has nothing of cat", &command]);
    fs::write(archive.path("box.lock"), &lock).unwrap();
    let text = SPEC.replace("packages = [\"box\"]", "packages = [\"box\", \"cat\"]");
    fs::write(archive.path("box.toml"), text).unwrap();
    check(&archive.stagegraph(&BUILD), 2, &["has nothing of cat", "up to date: stagegraph lock ./box.toml"]);
    // The date of the image may be the lock's.
    fs::write(archive.path("box.toml"), SPEC.replace("20260102T030405Z", "lock")).unwrap();
    assert!(lock.contains("\ndate = \"20260101T000000Z\"\n"), "{lock}");
    check(&archive.stagegraph(&BUILD), 0, &[]);
    check(&with("date = ", "# "), 2, &["the lock has no date"]);
    assert_eq!(archive.says(&["lock", "./box.toml"]), "./box.lock: 1 package of 1 node\n");
    assert_eq!(fs::read_to_string(archive.path("box.lock")).unwrap(), lock, "it has one again");
    check(
        &with("20260101T000000Z", "yesterday"),
        2,
        &["./box.lock:", "this is not a date", "YYYYMMDDTHHMMSSZ"],
    );
    fs::remove_file(archive.path("box.lock")).unwrap();
    check(
        &archive.stagegraph(&BUILD),
        2,
        &["there is no lock to take it from; write one: stagegraph lock ./box.toml"],
    );
    check(
        &archive.stagegraph(&["lock", "./box.toml", "--update", "nosuch"]),
        2,
        &["neither a node", "tools"],
    );
    check(&archive.stagegraph(&["build", "./box.toml", "--mirror", "ftp://x/"]), 2, &["this is no archive"]);
}

#[test]
fn the_lock_of_an_import_notices_another_root_and_its_hash_is_in_the_manifest() {
    let live = Live::new();
    let lock = |more: &[&str]| {
        let output = live.stagegraph(&[&["lock", &live.spec()], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        (text, String::from_utf8(output.stderr).unwrap())
    };
    let (text, note) = lock(&[]);
    assert!(text.ends_with("tiny.lock: 1 other source\n"), "{text}");
    assert!(note.contains("grub, iso, netboot run this machine's own programs"), "{note}");
    live.build(&["--locked"]);
    let mut files = fs::read_dir(live.out()).unwrap().map(|entry| entry.unwrap().path());
    let manifest = files.find(|path| path.display().to_string().ends_with(".manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let sha256 = run("sha256sum", &[live.world.path("tiny.lock").to_str().unwrap()]);
    assert_eq!(manifest["lock"]["sha256"].as_str(), sha256.split(' ').next());
    assert_eq!(live.build(&[]), [""; 0], "it is the same lock");
    fs::write(live.root().join("etc/motd"), "another").unwrap();
    let build = || live.stagegraph(&["build", &live.spec()]);
    check(&build(), 2, &["stage2: root is", "tiny.lock has", "--update stage2"]);
    let (_, note) = lock(&[]);
    assert!(note.contains("stage2 is not what the lock has") && note.contains("--update stage2"), "{note}");
    check(&build(), 2, &["stage2: root is"]);
    let (text, _) = lock(&["--update", "stage2"]);
    assert!(text.starts_with("stage2:\n    root  "), "{text}");
    check(&build(), 0, &[]);
}

#[test]
fn a_lock_is_made_under_the_limits_of_the_spec() {
    let live = Live::new();
    let archive = live.world.path("root.tar.gz");
    fs::write(live.root().join("etc/zeros"), vec![0; 2 << 20]).unwrap();
    run_in(&live.root(), "tar", &["-czf", archive.to_str().unwrap(), "."]);
    live.write_spec("path = \"root.tar.gz\"\n", "[limits]\nunpacked_mib = 1\n");
    for verb in ["lock", "build"] {
        check(&live.stagegraph(&[verb, &live.spec()]), 1, &["it unpacks to more than 1 MiB", "unpacked_mib"]);
    }
}
