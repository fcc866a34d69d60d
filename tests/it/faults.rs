//! A build that nothing can break: killed, out of space, in a crowd, over a damaged store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cache::BlobDigest;
use cache::testing::{Need, needs};
use serde_json::Value;

use crate::live::{Live, hashes};
use crate::world::run;

/// Random moments, the same in every run of a test.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Asserts that a published folder is whole: every file is there and holds what the listing says.
fn assert_whole(folder: &Path, when: &str) {
    let listing: Value = serde_json::from_slice(&fs::read(folder.join(".stagegraph.json")).unwrap()).unwrap();
    let files = listing["files"].as_object().unwrap();
    assert!(files.len() > 20, "{when}");
    for (name, digest) in files {
        let bytes = fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{when}: {name}: {error}"));
        assert_eq!(BlobDigest::of(&bytes).to_string(), digest.as_str().unwrap(), "{when}: {name}");
    }
}

/// Changes a file's bytes as a failing disk does: nobody wrote to it, so its time stays.
fn rot(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Returns the processes that have a path below `folder` among their arguments, open or mounted.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().into_string().unwrap_or_default();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == std::process::id().to_string() {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if line.contains(folder) || cwd.to_string_lossy().starts_with(folder) {
            found.push(format!("{pid}: {line}"));
        }
    }
    found
}

/// Asserts that nothing of a killed build is left but its scratch folder, which the next one sweeps.
fn assert_nothing_runs(live: &Live, when: &str) {
    let folder = live.world.dir.path();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !processes(folder).is_empty() {
        assert!(Instant::now() < deadline, "{when}: {:?}", processes(folder));
        std::thread::sleep(Duration::from_millis(20));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{when}: {mounts}");
}

fn start(live: &Live, args: &[&str]) -> Child {
    let mut command = live.command(&[&["build", &live.spec()], args].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_build_killed_at_any_moment_harms_nothing() {
    let live = Live::new();
    live.build(&[]);
    let expected = hashes(&live.out());
    let began = Instant::now();
    live.build(&["--set", "image.title=timed"]);
    let mut whole = began.elapsed().as_millis() as u64;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut killed = 0;
    for round in 0..200 {
        // Each title makes five nodes run anew, and the set is published anew.
        let title = format!("image.title=T{round}");
        let mut build = start(&live, &["--set", &title]);
        std::thread::sleep(Duration::from_millis(random.below(whole)));
        build.kill().unwrap();
        let was_killed = build.wait().unwrap().signal() == Some(9);
        killed += usize::from(was_killed);
        // How long a build takes depends on what else the machine does.
        whole = if was_killed { whole * 51 / 50 } else { whole * 19 / 20 }.max(20);
        assert_whole(&live.out(), &title);
    }
    assert!(killed > 100, "only {killed} of 200 builds were killed before they ended");
    assert_nothing_runs(&live, "after 200 kills");
    // The next build is right, and sweeps what the others left.
    live.build(&[]);
    assert_whole(&live.out(), "at last");
    assert_eq!(hashes(&live.out()), expected);
    let left = run("find", &[live.world.path("store/scratch").to_str().unwrap()]);
    assert_eq!(left.lines().count(), 1, "{left}");
    assert_eq!(fs::read_dir(live.world.path("out")).unwrap().count(), 1, "only the published folder");
    let output = live.stagegraph(&["store", "verify"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let only_strays = text.lines().all(|line| line.ends_with("is not in the index"));
    assert!(only_strays, "{text}");
    live.stagegraph(&["store", "gc"]);
    assert_eq!(live.stagegraph(&["store", "verify"]).status.code(), Some(0));
}

#[test]
fn signals_stop_tools_and_leave_nothing() {
    for (signal, code, sandbox) in [
        ("INT", 130, "on"),
        ("TERM", 143, "on"),
        ("TERM", 143, "off"),
        ("HUP", 129, "on"),
        ("KILL", 137, "on"),
    ] {
        let live = Live::new();
        let node = "[node.slow]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"mkdir out/x; echo $$ > out/x/pid; sleep 77 & sleep 77\"]\n\
                    tools = [\"mkdir\", \"sleep\"]\noutputs = { x = \"x/\" }\n[publish]\nx = [\"slow.x\"]\n";
        live.write_spec("path = \"root\"\n", node);
        let mut build = start(&live, &["--to", "slow", "--sandbox", sandbox]);
        let is_up = || {
            live.world.path("store/scratch").read_dir().is_ok_and(|mut entries| {
                entries.any(|entry| {
                    let folder = entry.unwrap().path();
                    let found = std::process::Command::new("find")
                        .args([folder.to_str().unwrap(), "-name", "pid", "-size", "+0"])
                        .output()
                        .unwrap();
                    !found.stdout.is_empty()
                })
            })
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_up() {
            assert!(Instant::now() < deadline, "the tool did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        run("kill", &[&format!("-{signal}"), &build.id().to_string()]);
        let status = build.wait().unwrap();
        assert_eq!(status.code().or_else(|| status.signal().map(|n| 128 + n)), Some(code), "{signal}");
        assert_nothing_runs(&live, signal);
        if signal != "KILL" {
            let left = run("find", &[live.world.path("store/scratch").to_str().unwrap()]);
            assert_eq!(left.lines().count(), 1, "{signal}, sandbox {sandbox}: {left}");
        }
    }
}

#[test]
fn eight_builds_at_once_give_the_same() {
    let live = Live::new();
    let mut builds: Vec<Child> = (0..8).map(|n| start(&live, &["--out", &format!("out{}", n % 3)])).collect();
    for build in &mut builds {
        assert!(build.wait().unwrap().success());
    }
    let first = hashes(&live.world.path("out0/tiny"));
    assert_eq!(first, hashes(&live.world.path("out1/tiny")));
    assert_eq!(first, hashes(&live.world.path("out2/tiny")));
}

#[test]
fn the_collector_takes_nothing_from_running_builds() {
    let live = Live::new();
    live.build(&[]);
    for round in 0..6 {
        let titles: Vec<String> = (0..2).map(|n| format!("image.title=R{round}x{n}")).collect();
        let mut builds: Vec<Child> = titles
            .iter()
            .enumerate()
            .map(|(n, title)| start(&live, &["--set", title, "--out", &format!("out{n}")]))
            .collect();
        while builds.iter_mut().any(|build| build.try_wait().unwrap().is_none()) {
            let output = live.stagegraph(&["store", "gc"]);
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        }
        for build in &mut builds {
            assert!(build.wait().unwrap().success(), "round {round}");
        }
    }
    live.stagegraph(&["store", "gc"]);
    // What is published is kept whole.
    assert_eq!(live.build(&[]), [""; 0]);
    let text = String::from_utf8(live.stagegraph(&["store", "stat"]).stdout).unwrap();
    assert!(text.contains("kept by 3 published folders") && text.contains("squashfs"), "{text}");
    for folder in ["out", "out0", "out1"] {
        fs::remove_dir_all(live.world.path(folder)).unwrap();
    }
    let text = String::from_utf8(live.stagegraph(&["store", "gc"]).stdout).unwrap();
    assert!(text.contains("; 0 objects stay, 0 B"), "{text}");
    assert_eq!(live.build(&[]).len(), 15);
}

#[test]
fn whatever_object_is_damaged_cut_off_or_missing_the_next_builds_are_right() {
    let live = Live::new();
    live.build(&[]);
    let expected = hashes(&live.out());
    let list = || -> Vec<PathBuf> {
        let text = run("find", &[live.world.path("store/objects").to_str().unwrap(), "-type", "f"]);
        let mut paths: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
        paths.sort();
        paths
    };
    for (number, object) in list().into_iter().enumerate() {
        // The published folder is another link to the same bytes: what is damaged there counts as well.
        let length = fs::metadata(&object).unwrap().len() as usize;
        let how = match number % 3 {
            0 if length > 0 => {
                rot(&object, |bytes| bytes[number % length] ^= 1);
                "damaged"
            }
            1 if length > 0 => {
                rot(&object, |bytes| bytes.truncate(length / 2));
                "cut off"
            }
            _ => {
                fs::remove_file(&object).unwrap();
                "removed"
            }
        };
        // At worst the first build says what it took out of the store, and the second makes it again.
        let args = ["build", &live.spec()];
        let first = live.stagegraph(&args);
        let text = String::from_utf8_lossy(&first.stderr).into_owned();
        if first.status.code() != Some(0) {
            assert_eq!(first.status.code(), Some(3), "{how}: {text}");
            assert!(
                text.contains("damaged") || text.contains("changed") || text.contains("not in the store"),
                "{text}"
            );
        }
        let mut tries = 0;
        while live.stagegraph(&args).status.code() != Some(0) {
            tries += 1;
            assert!(tries < 4, "{how} {}: {text}", object.display());
        }
        assert_eq!(hashes(&live.out()), expected, "{how} {}", object.display());
    }
}

#[test]
fn a_full_disk_leaves_what_was_published_as_it_was() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    live.build(&[]);
    let image = live.world.path("disk.img");
    let small = live.world.path("small");
    fs::create_dir(&small).unwrap();
    let (image, small_text) = (image.display().to_string(), small.display().to_string());
    run("truncate", &["-s", "40M", &image]);
    run("mkfs.ext4", &["-q", &image]);
    run("mount", &["-o", "loop", &image, &small_text]);
    let args = ["--store", "small/store", "--out", "small/out"];
    let mut full = 0;
    for round in 0..40 {
        let title = format!("image.title=T{round}");
        let output = live.stagegraph(&[&["build", &live.spec(), "--set", &title], &args[..]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_whole(&small.join("out/tiny"), &text);
        if output.status.code() == Some(0) {
            continue;
        }
        full += 1;
        // xorriso says it by itself: then it is the tool that failed.
        assert!(matches!(output.status.code(), Some(1 | 3)), "{text}");
        let says = ["No space left on device", "disk is full", "exceeds free space"];
        assert!(says.iter().any(|says| text.contains(says)), "{text}");
        if full == 3 {
            break;
        }
    }
    let collected = live.stagegraph(&["store", "gc", "--store", "small/store"]);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&collected.stdout),
        String::from_utf8_lossy(&collected.stderr)
    );
    let again = live.stagegraph(&[&["build", &live.spec()], &args[..]].concat());
    let errors = String::from_utf8_lossy(&again.stderr).into_owned();
    let same = again.status.success() && hashes(&small.join("out/tiny")) == hashes(&live.out());
    run("umount", &[&small_text]);
    assert_eq!(full, 3, "the disk never was full");
    assert_eq!(collected.status.code(), Some(0), "{text}");
    assert!(same, "where there is room again, the build is right: {errors}");
}

#[test]
fn folders_on_a_read_only_file_system_are_an_error_that_names_them() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    live.build(&[]);
    let before = hashes(&live.out());
    let mounted = live.world.path("ro");
    fs::create_dir(&mounted).unwrap();
    let text = mounted.display().to_string();
    run("mount", &["-t", "tmpfs", "none", &text]);
    run("mount", &["-o", "remount,ro", &text]);
    let read_only = [&["--out", "ro/out"][..], &["--store", "ro/store"], &["--out", "ro"]]
        .map(|args| live.stagegraph(&[&["build", &live.spec()], args].concat()));
    run("umount", &[&text]);
    for output in read_only {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains("Read-only file system") && text.contains("ro"), "{text}");
    }
    assert_eq!(hashes(&live.out()), before);
}

#[test]
fn folders_that_permissions_forbid_are_an_error_that_names_them() {
    if !needs(Need::User) {
        return;
    }
    let live = Live::new();
    live.build(&[]);
    let before = hashes(&live.out());
    fs::create_dir(live.world.path("forbidden")).unwrap();
    let mode =
        |mode| fs::set_permissions(live.world.path("forbidden"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    for args in [&["--out", "forbidden/out"][..], &["--store", "forbidden/store"], &["--out", "forbidden"]] {
        let output = live.stagegraph(&[&["build", &live.spec()], args].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains("Permission denied") && text.contains("forbidden"), "{text}");
    }
    mode(0o755);
    assert_eq!(hashes(&live.out()), before);
}

#[test]
fn a_store_that_vanishes_is_an_error_that_loses_nothing() {
    let live = Live::new();
    live.build(&[]);
    let before = hashes(&live.out());
    // The store goes away while it is used.
    for pause in [20, 100, 300] {
        let mut build = start(&live, &["--set", &format!("image.title=P{pause}"), "--store", "vanishing"]);
        std::thread::sleep(Duration::from_millis(pause));
        let _ = fs::remove_dir_all(live.world.path("vanishing"));
        let code = build.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 1 | 3)), "{code:?}");
        assert_whole(&live.out(), "the store vanished");
        let _ = fs::remove_dir_all(live.world.path("vanishing"));
    }
    live.build(&[]);
    assert_eq!(hashes(&live.out()), before);
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let live = Live::new();
    live.build(&[]);
    fs::write(live.world.path("store/version"), "stagegraph store 99\n").unwrap();
    for args in [
        &["build", &live.spec()][..],
        &["why", &live.spec()],
        &["store", "stat"],
        &["store", "gc"],
        &["store", "verify", "--repair"],
    ] {
        let output = live.stagegraph(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {text}");
        assert!(text.contains("written by another version") && text.contains("store 5"), "{text}");
    }
    assert_whole(&live.out(), "a newer store");
}

#[test]
fn damage_in_a_store_is_found_and_repaired() {
    let live = Live::new();
    live.build(&[]);
    rot(&live.published("netboot/image.squashfs"), |bytes| bytes[99] ^= 1);
    let verify = |more: &[&str]| {
        let output = live.stagegraph(&[&["store", "verify"], more].concat());
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = verify(&[]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("is damaged") && text.contains("the result of action") && text.contains("--repair"),
        "{text}"
    );
    let (code, text) = verify(&["--repair"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(verify(&[]).0, Some(0));
    assert!(live.build(&[]).contains(&"squashfs".to_owned()));
    let output = live.stagegraph(&["store", "stat", "--store", "no-store"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!live.world.path("no-store").exists(), "looking makes nothing");
}
