//! Other people's files, folders and locks: none of them is lost, followed, or waited for without a word.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cache::testing::{Need, needs};

use crate::live::{Live, hashes};
use crate::world::run;

#[test]
fn a_folder_that_is_no_store_is_refused_and_loses_nothing() {
    for (name, content) in [
        ("scratch", Some("mine")),
        ("objects", Some("mine")),
        ("notes", None),
        ("version", None),
        ("version.txt", None),
    ] {
        let live = Live::new();
        let folder = live.world.path("mine");
        fs::create_dir(&folder).unwrap();
        match content {
            Some(inside) => {
                fs::create_dir(folder.join(name)).unwrap();
                fs::write(folder.join(name).join(inside), "mine").unwrap();
            }
            None => fs::write(folder.join(name), "mine").unwrap(),
        }
        let before = hashes(&folder);
        for args in [
            &["build", &live.spec(), "--store", "mine"][..],
            &["store", "gc", "--store", "mine"],
            &["store", "verify", "--store", "mine"],
        ] {
            let output = live.stagegraph(args);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{name}: {args:?}: {text}");
            assert!(text.contains("mine"), "{text}");
        }
        assert_eq!(hashes(&folder), before, "{name}");
    }
}

#[test]
fn root_makes_nothing_in_a_store_of_somebody_else() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    live.build(&[]);
    run("chown", &["1234:1234", live.world.path("store").to_str().unwrap()]);
    let output = live.stagegraph(&["build", &live.spec()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("belongs to the user 1234"), "{text}");
}

#[test]
fn a_store_whose_first_file_was_lost_with_the_power_is_used_again() {
    let live = Live::new();
    live.build(&[]);
    fs::write(live.world.path("store/version"), "").unwrap();
    assert_eq!(live.build(&[]), [""; 0]);
    // Before anything else was there.
    let fresh = live.world.path("fresh");
    fs::create_dir_all(fresh.join("objects")).unwrap();
    fs::write(fresh.join("version"), "").unwrap();
    let output = live.stagegraph(&["build", &live.spec(), "--store", "fresh"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // What is not ours in a folder of ours stays.
    let mine = live.world.path("store/scratch/mine");
    fs::create_dir(&mine).unwrap();
    fs::write(live.world.path("store/objects/mine"), "mine").unwrap();
    live.build(&[]);
    assert_eq!(live.stagegraph(&["store", "gc"]).status.code(), Some(0));
    assert!(mine.is_dir() && live.world.path("store/objects/mine").exists());
}

#[test]
fn names_that_others_had_first_are_neither_followed_nor_removed() {
    let live = Live::new();
    live.build(&[]);
    let secret = live.world.path("secret");
    fs::write(&secret, "secret").unwrap();
    for name in [".set.extract", ".set.new", ".set.old"] {
        let place = live.world.path(name);
        fs::create_dir(&place).unwrap();
        symlink(&secret, place.join("extract.toml")).unwrap();
        symlink(&secret, place.join(".stagegraph.json")).unwrap();
    }
    for name in [".set.extract-a", ".set.new-a", ".set.old-a"] {
        fs::create_dir(live.world.path(name)).unwrap();
        fs::write(live.world.path(name).join("mine"), "mine").unwrap();
    }
    let iso = live.iso().display().to_string();
    for _ in 0..2 {
        let output = live.stagegraph(&["extract", &iso, "set"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    let mut left: Vec<String> = fs::read_dir(live.world.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    left.sort();
    assert_eq!(left, [".set.extract", ".set.extract-a", ".set.new", ".set.new-a", ".set.old", ".set.old-a"]);
    // The lock's own name, taken by a link.
    symlink(&secret, live.world.path("out/.stagegraph.lock")).unwrap();
    let output = live.stagegraph(&["build", &live.spec(), "--set", "image.title=Other"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains(".stagegraph.lock"));
}

#[test]
fn published_folders_keep_the_store_whatever_bytes_their_names_have() {
    let live = Live::new();
    let name = OsString::from_vec(b"caf\xe9".to_vec());
    let out = live.world.dir.path().join(&name).join("out");
    fs::create_dir_all(&out).unwrap();
    let mut build = live.command(&["build", &live.spec(), "--out"]);
    assert!(build.arg(&out).stdout(Stdio::null()).status().unwrap().success());
    let output = live.stagegraph(&["store", "gc"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("removed 0 results"), "{text}");
    let mut again = live.command(&["build", &live.spec(), "--out"]);
    let output = again.arg(&out).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("15 cached"));
}

#[test]
fn what_is_made_is_the_callers_and_nobody_else_may_write_to_it_whatever_the_umask() {
    let live = Live::new();
    let script =
        format!("umask 000; exec '{}' build '{}' > /dev/null", env!("CARGO_BIN_EXE_stagegraph"), live.spec());
    let made = Command::new("sh")
        .args(["-c", &script])
        .current_dir(live.world.dir.path())
        .env("STAGEGRAPH_STORE", live.world.path("store"))
        .status();
    assert!(made.unwrap().success());
    let find = |folder: &str| {
        run("find", &[live.world.path(folder).to_str().unwrap(), "-perm", "/022", "!", "-type", "l"])
    };
    assert_eq!((find("store"), find("out")), (String::new(), String::new()));
    // Tools run as somebody else, and what they wrote is not theirs any more.
    let own = rustix::process::geteuid().as_raw().to_string();
    let others = |folder: &str| run("find", &[live.world.path(folder).to_str().unwrap(), "!", "-uid", &own]);
    assert_eq!((others("store"), others("out")), (String::new(), String::new()));
    let locks =
        run("find", &[live.world.path("store/locks").to_str().unwrap(), "-type", "f", "-perm", "/077"]);
    assert_eq!(locks, "", "whoever can open a lock can hold it");
}

#[test]
fn what_is_waited_for_and_who_holds_it_is_said() {
    let live = Live::new();
    live.build(&[]);
    let lock = live.world.path("out/.stagegraph.lock");
    let mut holder =
        Command::new("flock").args(["--no-fork", lock.to_str().unwrap(), "sleep", "30"]).spawn().unwrap();
    while !lock.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let build = live
        .command(&["build", &live.spec(), "--set", "image.title=Other"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(6));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let output = build.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("waiting for") && text.contains(".stagegraph.lock, which process"), "{text}");
    assert!(!lock.exists());
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let live = Live::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = live.command(&["build", &live.spec(), "--json"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output could not be written"));
    let limited = format!(
        "ulimit -f 100; exec '{}' build '{}' --set image.title=Two",
        env!("CARGO_BIN_EXE_stagegraph"),
        live.spec()
    );
    let output = Command::new("sh")
        .args(["-c", &limited])
        .current_dir(live.world.dir.path())
        .env("STAGEGRAPH_STORE", live.world.path("store"))
        .output()
        .unwrap();
    assert!(matches!(output.status.code(), Some(1 | 3)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("error:"), "{output:?}");
}

/// Mounts; gone when dropped.
struct Mount(String);

impl Mount {
    fn new(args: &[&str], at: &Path) -> Self {
        let at = at.to_str().unwrap().to_owned();
        run("mount", &[args, &[&at]].concat());
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Publishes two sets into a folder, and files of somebody's beside; returns what was there each time.
fn publish_twice(live: &Live, out: &str) -> [String; 2] {
    let titles = ["One", "Two"];
    titles.map(|title| {
        let title = format!("image.title={title}");
        let output = live.stagegraph(&["build", &live.spec(), "--out", out, "--set", &title]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        hashes(&live.world.path(out).join("tiny"))
    })
}

#[test]
fn folders_that_cannot_be_exchanged_are_published_into_all_the_same() {
    if !needs(Need::Root) {
        return;
    }
    // What is right, where they can be.
    let live = Live::new();
    let expected = publish_twice(&live, "out");
    assert_ne!(expected[0], expected[1]);
    // The published folder is a mount point.
    for name in ["lower", "upper", "work", "merged", "point/tiny", "disk"] {
        fs::create_dir_all(live.world.path(name)).unwrap();
    }
    let at = |name: &str| live.world.path(name);
    {
        let _point = Mount::new(&["-t", "tmpfs", "none"], &at("point/tiny"));
        assert_eq!(publish_twice(&live, "point"), expected);
        // Somebody's own file stays, and one in the way is named.
        fs::write(at("point/tiny/mine"), "mine").unwrap();
        let output = live.stagegraph(&["build", &live.spec(), "--out", "point"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(at("point/tiny/mine").exists());
        let names: Vec<_> =
            fs::read_dir(at("point/tiny")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains(".stagegraph.new")), "{names:?}");
    }
    // The folder is in the lower layer of an overlay: an image layer of a container.
    let first = live.stagegraph(&["build", &live.spec(), "--out", "lower", "--set", "image.title=Zero"]);
    assert_eq!(first.status.code(), Some(0));
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let _overlay = Mount::new(&["-t", "overlay", "overlay", "-o", &layers], &at("merged"));
    assert_eq!(publish_twice(&live, "merged"), expected);
}

#[test]
fn an_exchange_of_files_that_was_broken_off_is_gone_on_with_from_any_point() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    let at = |name: &str| live.world.path(name);
    let publish = |title: &str, out: &str| {
        let title = format!("image.title={title}");
        let output = live.stagegraph(&["build", &live.spec(), "--out", out, "--set", &title]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        hashes(&at(out).join("tiny"))
    };
    fs::create_dir_all(at("point/tiny")).unwrap();
    let _point = Mount::new(&["-t", "tmpfs", "none"], &at("point/tiny"));
    let one = publish("One", "other");
    let scripts = ["boot.ipxe", "combined.ipxe", "http.ipxe", "inject.ipxe"];
    for (done, title) in (0..=scripts.len()).flat_map(|done| [(done, "One"), (done, "Two"), (done, "Three")])
    {
        let two = publish("Two", "point");
        assert_ne!(one, two);
        // As a process leaves it that is ended behind its first renames.
        fs::copy(at("other/tiny/.stagegraph.json"), at("point/tiny/.stagegraph.json.next")).unwrap();
        for script in &scripts[..done] {
            let path = format!("tiny/netboot/{script}");
            fs::copy(at("other").join(&path), at("point").join(&path)).unwrap();
        }
        let found = publish(title, "point");
        match title {
            "One" => assert_eq!(found, one, "{done}"),
            "Two" => assert_eq!(found, two, "{done}"),
            _ => assert!(found != one && found != two, "{done}"),
        }
        // What is somebody's is somebody's, in either state.
        fs::copy(at("other/tiny/.stagegraph.json"), at("point/tiny/.stagegraph.json.next")).unwrap();
        fs::write(at("point/tiny/netboot/boot.ipxe"), "mine").unwrap();
        let refused = live.stagegraph(&["build", &live.spec(), "--out", "point", "--set", "image.title=One"]);
        assert_eq!(refused.status.code(), Some(3), "{done}");
        assert_eq!(fs::read_to_string(at("point/tiny/netboot/boot.ipxe")).unwrap(), "mine");
        fs::remove_file(at("point/tiny/netboot/boot.ipxe")).unwrap();
    }
}

#[test]
fn a_set_that_is_exchanged_file_by_file_is_whole_after_the_next_build_whenever_the_first_is_killed() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    fs::create_dir_all(live.world.path("point/tiny")).unwrap();
    let _point = Mount::new(&["-t", "tmpfs", "none"], &live.world.path("point/tiny"));
    let expected = publish_twice(&live, "point");
    for moment in 0..30u64 {
        let mut build = live
            .command(&["build", &live.spec(), "--out", "point", "--set", "image.title=One"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(moment * 4));
        build.kill().unwrap();
        build.wait().unwrap();
        assert_eq!(publish_twice(&live, "point"), expected, "killed after {} ms", moment * 4);
    }
    let mode = fs::metadata(live.world.path("point/tiny/netboot")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o755);
    assert_eq!(mode.uid(), 0);
}

#[test]
fn a_root_that_a_build_writes_into_is_refused_by_name() {
    let live = Live::new();
    for (flag, folder) in [("--out", "root/out"), ("--store", "root/var/store")] {
        for run in 0..2 {
            let output = live.stagegraph(&["build", &live.spec(), flag, folder]);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{flag}, {run}: {text}");
            assert!(text.contains(folder) && text.contains("each image would hold the last one"), "{text}");
        }
    }
    // What nobody packs is no matter.
    let output =
        live.stagegraph(&["build", &live.spec(), "--out", "root/out", "--set", "squashfs.exclude=[\"out\"]"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
