//! Nothing stale is ever used: inputs on file systems whose times are made, and not kept.
//!
//! Each image has other bytes in files of the same name, inode, size and times, as people get them who build images reproducibly and mount
//! the next one in the place of the last.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cache::testing::{Need, needs};

use crate::live::Live;
use crate::world::{run, run_in};

/// A file system in a file, mounted; it goes when dropped.
struct Mounted {
    image: PathBuf,
    at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, options: &str, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        run("mount", &["-o", options, image.to_str().unwrap(), at.to_str().unwrap()]);
        Self { image: image.to_owned(), at: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
        // A sandbox of another test may have it in a namespace of its own: until that ends, the same file would be the same mount.
        for _ in 0..1000 {
            let used = Command::new("losetup").arg("-j").arg(&self.image).output();
            if used.is_ok_and(|used| used.stdout.is_empty()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Makes an image of a folder in which all times are one.
fn squashfs(folder: &Path, image: &Path) {
    let script = format!(
        "mksquashfs '{}' '{}' -noappend -all-time 1000 -mkfs-time 1000 -quiet -no-progress > /dev/null",
        folder.display(),
        image.display()
    );
    run("sh", &["-ec", &script]);
}

fn ext4(folder: &Path, image: &Path) {
    let script = format!(
        "rm -f '{1}'; find '{0}' -exec touch -h -d @1000 {{}} +; truncate -s 8M '{1}'
         E2FSPROGS_FAKE_TIME=1000 mke2fs -q -t ext4 -U 12345678-1234-1234-1234-123456789012 -E hash_seed=12345678-1234-1234-1234-123456789012 -d '{0}' '{1}'",
        folder.display(),
        image.display()
    );
    run("sh", &["-ec", &script]);
}

type Make = fn(&Path, &Path);

const SYSTEMS: [(&str, Make, &str); 3] =
    [("squashfs", squashfs, "loop,ro"), ("ext4", ext4, "loop,ro"), ("ext4, writable", ext4, "loop,noatime")];

/// Builds with two images, one mounted after the other at one place; returns what ran each time, and what was published.
fn twice(
    live: &Live,
    make: Make,
    options: &str,
    change: &dyn Fn(&Path),
    more: &[&str],
) -> [(Vec<String>, String); 2] {
    let (folder, image, at) = (live.world.path("tree"), live.world.path("image"), live.world.path("mnt"));
    let build = || {
        make(&folder, &image);
        let _mounted = Mounted::new(&image, options, &at);
        (live.build(more), crate::live::hashes(&live.out()))
    };
    let first = build();
    change(&folder);
    [first, build()]
}

#[test]
fn an_import_from_an_image_with_made_times_is_read_again_when_another_one_is_mounted() {
    if !needs(Need::Root) {
        return;
    }
    for (name, make, options) in SYSTEMS {
        for form in ["folder", "tar", "tar.gz"] {
            let live = Live::new();
            run("cp", &["-a", live.root().to_str().unwrap(), live.world.path("tree").to_str().unwrap()]);
            let pack = |tree: &Path| {
                if form != "folder" {
                    let (top, kind) =
                        (tree.with_extension("packed"), if form == "tar" { "cat" } else { "gzip -n" });
                    let script = format!(
                        "mkdir -p '{0}'; tar -C ../root --sort=name --mtime=@1000 --owner=0 --group=0 -c . | {kind} > '{0}/root.tar'; rm -rf ./*; mv '{0}/root.tar' .",
                        top.display()
                    );
                    run_in(tree, "sh", &["-ec", &script]);
                }
            };
            let path = if form == "folder" { "mnt" } else { "mnt/root.tar" };
            pack(&live.world.path("tree"));
            live.write_spec(&format!("path = \"{path}\"\n"), "");
            let change = |tree: &Path| {
                let top = if form == "folder" { tree.to_owned() } else { live.root() };
                fs::write(top.join("etc/motd"), "HELLO\n").unwrap();
                pack(tree);
            };
            let [(_, first), (ran, second)] = twice(&live, make, options, &change, &[]);
            assert!(ran.contains(&"squashfs".to_owned()), "{name}, {form}: {ran:?}");
            assert_ne!(first, second, "{name}, {form}");
        }
    }
}

#[test]
fn a_tool_on_an_image_with_made_times_is_looked_at_again_when_another_one_is_mounted() {
    if !needs(Need::Root) {
        return;
    }
    for (name, make, options) in SYSTEMS {
        let live = Live::new();
        let node = "[node.r]\nstep = \"run\"\nargv = [\"mytool\"]\ntools = [\"mkdir\", \"sh\"]\noutputs = { x = \"x/\" }\n[publish]\nx = [\"r.x\"]\n";
        live.write_spec("path = \"root\"\n", node);
        let tree = live.world.path("tree");
        let write = |tree: &Path, word: &str| {
            fs::create_dir_all(tree).unwrap();
            fs::write(tree.join("mytool"), format!("#!/bin/sh\nmkdir out/x; echo {word} > out/x/file\n"))
                .unwrap();
            run("chmod", &["755", tree.join("mytool").to_str().unwrap()]);
        };
        write(&tree, "one");
        let (image, at) = (live.world.path("image"), live.world.path("mnt"));
        for word in ["one", "two"] {
            write(&tree, word);
            make(&tree, &image);
            let _mounted = Mounted::new(&image, options, &at);
            let output =
                live.command(&["build", &live.spec()]).env("STAGEGRAPH_TOOLS", &at).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(fs::read_to_string(live.out().join("x/file")).unwrap(), format!("{word}\n"), "{name}");
        }
    }
}

#[test]
fn a_boot_loader_on_an_image_with_made_times_is_looked_at_again_when_another_one_is_mounted() {
    const LOADERS: &str = "/usr/lib/ipxe";
    if !needs(Need::Root) {
        return;
    }
    for (name, make, options) in SYSTEMS {
        let live = Live::new();
        let (tree, image) = (live.world.path("tree"), live.world.path("image"));
        let loader = tree.join("undionly.kpxe");
        for last in [b'1', b'2'] {
            let _ = fs::remove_dir_all(&tree);
            run("cp", &["-rL", LOADERS, tree.to_str().unwrap()]);
            let mut bytes = fs::read(&loader).unwrap();
            *bytes.last_mut().unwrap() = last;
            fs::write(&loader, &bytes).unwrap();
            // The largest are not asked for, and an image of ext4 has 8 MiB.
            for entry in fs::read_dir(&tree).unwrap() {
                let path = entry.unwrap().path();
                if !["undionly.kpxe", "ipxe.efi", "snponly.efi"].iter().any(|kept| path.ends_with(kept)) {
                    let _ = fs::remove_file(&path);
                }
            }
            make(&tree, &image);
            let script = format!(
                "mount -o {options} '{}' {LOADERS}; exec '{}' build '{}' > /dev/null",
                image.display(),
                env!("CARGO_BIN_EXE_stagegraph"),
                live.spec()
            );
            let output = Command::new("unshare")
                .args(["-m", "--propagation", "private", "sh", "-ec", &script])
                .current_dir(live.world.dir.path())
                .env("STAGEGRAPH_STORE", live.world.path("store"))
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(fs::read(live.published("netboot/undionly.kpxe")).unwrap(), bytes, "{name}");
        }
    }
}
