//! A small live root and its spec: enough for every node to run in a second.
//!
//! The kernel has a real header and nothing behind it; the initrd is a real cpio archive with the files by
//! which families are told apart. What boots is tested in `tests/boot`, with the real ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::{World, run, run_in};

/// The release the kernel and the initrds name.
pub(crate) const RELEASE: &str = "6.1.0-test";

/// Writes a file that is a kernel by its header.
pub(crate) fn write_kernel(path: &Path, release: &str) {
    let mut bytes = vec![0u8; 0x4000];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&0x1000u16.to_le_bytes());
    bytes[0x1200..0x1200 + release.len()].copy_from_slice(release.as_bytes());
    fs::write(path, bytes).unwrap();
}

/// Writes an initrd with these empty files, packed by cpio and `compressor`.
pub(crate) fn write_initrd(path: &Path, files: &[(&str, &str)], compressor: &str) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        if *name == "init" {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let script =
        format!("find . | LC_ALL=C sort | cpio -o -H newc --quiet | {compressor} > '{}'", path.display());
    run_in(dir.path(), "bash", &["-o", "pipefail", "-c", &script]);
}

pub(crate) fn dracut(release: &str) -> Vec<(String, String)> {
    vec![
        ("init".to_owned(), "#!/bin/sh\n".to_owned()),
        ("usr/lib/dracut/modules.txt".to_owned(), "base\ndmsquash-live\nlivenet\n".to_owned()),
        (format!("usr/lib/modules/{release}/modules.dep"), String::new()),
    ]
}

pub(crate) fn write_dracut_initrd(path: &Path, release: &str) {
    let files = dracut(release);
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    write_initrd(path, &files, "gzip -n");
}

/// Writes an initrd that can have its squashfs checked, but for what is named.
pub(crate) fn write_able(path: &Path, without: &str) {
    let module = format!("usr/lib/modules/{RELEASE}/kernel/drivers/md/dm-verity.ko.xz");
    let dep = format!("usr/lib/modules/{RELEASE}/modules.dep");
    let files = [
        ("etc/os-release", ""),
        ("init", "#!/bin/sh\n"),
        ("usr/lib/dracut/modules.txt", "base\ndm\ndmsquash-live\nlivenet\n"),
        ("usr/lib/dracut/hooks/mount/x.sh", ""),
        ("usr/sbin/dmsetup", "#!/bin/sh\n"),
        ("usr/sbin/losetup", "#!/bin/sh\n"),
        (dep.as_str(), "kernel/drivers/md/dm-verity.ko.xz:\n"),
        (module.as_str(), "a module"),
    ];
    let files: Vec<_> =
        files.into_iter().filter(|(name, _)| without.is_empty() || !name.contains(without)).collect();
    write_initrd(path, &files, "gzip -n");
}

/// Changes the byte that is so far behind the last place where something stands.
pub(crate) fn change(bytes: &mut [u8], behind: &[u8], at: usize, bits: u8) {
    let place = (0..bytes.len() - behind.len()).rev().find(|at| bytes[*at..].starts_with(behind)).unwrap();
    bytes[place + at] ^= bits;
}

/// A spec over a small root, with a store and an output folder.
pub(crate) struct Live {
    pub(crate) world: World,
}

impl Live {
    pub(crate) fn new() -> Self {
        let live = Self { world: World::new() };
        let root = live.root();
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/motd"), "hello\n").unwrap();
        fs::write(root.join("etc/numbers"), (0..9999).map(|n| n.to_string()).collect::<String>()).unwrap();
        write_kernel(&root.join("boot/vmlinuz-test"), RELEASE);
        write_dracut_initrd(&root.join("boot/initramfs-test.img"), RELEASE);
        live.write_spec("path = \"root\"\n", "");
        live
    }

    /// A folder and a store, and nothing in them.
    pub(crate) fn bare() -> Self {
        Self { world: World::new() }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.world.path("root")
    }

    pub(crate) fn spec(&self) -> String {
        self.world.path("tiny.toml").display().to_string()
    }

    /// Writes the spec with these settings of the import, and more at its end.
    pub(crate) fn write_spec(&self, import: &str, more: &str) {
        let text = format!(
            "extends = \"livecd\"\n\n[image]\nname = \"install-tiny-@TIMESTAMP@\"\ntitle = \"Tiny\"\nlabel = \"gentoo\"\n\
             volume_id = \"Tiny-@DATESTAMP@\"\ntimestamp = \"20260102T030405Z\"\nbootargs = [\"dokeymap\"]\n\
             consoles = [\"ttyS0,115200\"]\n\n[node.tools]\nstep = \"host\"\n\n\
             [node.loaders]\nstep = \"host\"\n\n[node.stage2]\nstep = \"import\"\n{import}\n{more}"
        );
        fs::write(self.world.path("tiny.toml"), text).unwrap();
    }

    /// Returns the program, ready for more arguments, in a known environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_stagegraph")), args)
    }

    /// Returns a copy of the program, ready for more arguments, in a known environment.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        command.env("STAGEGRAPH_STORE", self.world.path("store")).current_dir(self.world.dir.path());
        command
    }

    pub(crate) fn stagegraph(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the program to its end; returns its exit code, and all that it said as words with one blank between them.
    pub(crate) fn said(&self, args: &[&str]) -> (i32, String) {
        let output = self.stagegraph(args);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        (output.status.code().unwrap(), text)
    }

    /// Builds the spec; returns the nodes that ran.
    pub(crate) fn build(&self, more: &[&str]) -> Vec<String> {
        let output = self.stagegraph(&[&["build", &self.spec(), "--json"], more].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
        let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut ran: Vec<_> = events
            .filter(|event| event["event"] == "finished" && !event["milliseconds"].is_null())
            .map(|event| event["node"].as_str().unwrap().to_owned())
            .collect();
        ran.sort();
        ran
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.world.path("out/tiny")
    }

    pub(crate) fn published(&self, name: &str) -> PathBuf {
        self.out().join(name)
    }

    pub(crate) fn iso(&self) -> PathBuf {
        self.published("install-tiny-20260102T030405Z.iso")
    }
}

/// Returns the hash of every published file below a folder, by path.
pub(crate) fn hashes(folder: &Path) -> String {
    let script = "find . -type f ! -name .stagegraph.json -exec sha256sum {} + | LC_ALL=C sort -k2";
    run("sh", &["-c", &format!("cd '{}' && {script}", folder.display())])
}
