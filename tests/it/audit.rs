//! `stagegraph audit`: every damage is found and named, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cache::testing::{Need, needs};
use serde_json::Value;
use stagegraph::formats::cpio;
use stagegraph::formats::iso9660::{Iso, Platform};

use trust::testing::Gpg;

use crate::live::{Live, RELEASE, change, write_able, write_dracut_initrd, write_initrd, write_kernel};
use crate::world::{run, run_in, unpack_packages};

const ISO: &str = "install-tiny-20260102T030405Z.iso";

/// A published set that may be damaged.
struct Published {
    world: Live,
    dir: PathBuf,
}

/// Runs the audit; returns its exit code and report.
fn audit(live: &Live, args: &[&str]) -> (i32, Value) {
    let output = live.stagegraph(&[&["audit", "--json"], args].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// Returns the findings of a report: the check, how bad it is, and what it says.
fn findings(report: &Value) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for check in report["checks"].as_array().unwrap() {
        for finding in check["findings"].as_array().unwrap() {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            assert!(!text("hint").is_empty(), "{finding}");
            let says = format!("{}: {}", text("subject"), text("what"));
            all.push((check["check"].as_str().unwrap().to_owned(), text("verdict"), says));
        }
    }
    all
}

impl Published {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn iso(&self) -> PathBuf {
        self.path(ISO)
    }

    /// A program that Microsoft signed.
    fn shim(&self) -> Vec<u8> {
        let folder = self.world.world.path("packages");
        unpack_packages(&folder, &["shim-signed"]);
        fs::read(folder.join("usr/lib/shim/shimx64.efi.signed")).unwrap()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        // Published files are read-only and may be links to the store.
        let _ = fs::remove_file(self.path(name));
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Replaces text, which must be there.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}:\n{text}");
        self.write(name, text.replace(from, to));
    }

    /// Flips one bit.
    fn flip(&self, name: &str, at: usize) {
        let mut bytes = self.read(name);
        bytes[at] ^= 1;
        self.write(name, bytes);
    }

    /// Flips one bit of a file inside the ISO.
    fn flip_in_iso(&self, path: &str, at: usize) {
        let start = Iso::open(&self.iso()).unwrap().file(path).unwrap().extents[0].0;
        self.flip(ISO, start as usize + at);
    }

    /// Replaces bytes of the ISO by as many others, wherever they are.
    fn patch_iso(&self, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        let mut bytes = self.read(ISO);
        let places: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|at| bytes[*at..*at + to.len()].copy_from_slice(to));
        self.write(ISO, bytes);
    }

    /// Writes the combined initrd anew: initrd, padding, and images under these names.
    fn combine(&self, padding: usize, images: &[&str]) {
        let mut bytes = self.read("netboot/gentoo.initrd");
        bytes.resize(bytes.len().next_multiple_of(4) + padding, 0);
        let squashfs = self.read("netboot/image.squashfs");
        for name in images {
            bytes.extend(archive(name, &squashfs));
        }
        self.write("netboot/gentoo.combined", bytes);
    }

    /// Puts archives behind the combined initrd.
    fn append(&self, archives: &[Vec<u8>]) {
        let mut bytes = self.read("netboot/gentoo.combined");
        for archive in archives {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend_from_slice(archive);
        }
        self.write("netboot/gentoo.combined", bytes);
    }

    /// Returns where El Torito's entry for a platform has the place of its image, and the place; in bytes of the ISO.
    fn boot_entry(&self, platform: Platform) -> (usize, usize) {
        let bytes = self.read(ISO);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize * 2048;
        let catalog = word(17 * 2048 + 0x47);
        let images = Iso::open(&self.iso()).unwrap().boot_images.unwrap();
        let start = images.iter().find(|image| image.platform == platform).unwrap().start as usize;
        let entry = (catalog..catalog + 2048).step_by(32).find(|at| word(at + 8) == start).unwrap();
        (entry + 8, start)
    }

    /// Overwrites bytes of the ISO.
    fn overwrite_iso(&self, at: usize, with: &[u8]) {
        let mut bytes = self.read(ISO);
        bytes[at..at + with.len()].copy_from_slice(with);
        self.write(ISO, bytes);
    }

    /// Has mtools change the EFI system partition of the ISO.
    fn change_esp(&self, script: &str) {
        self.write(ISO, self.read(ISO));
        let (_, start) = self.boot_entry(Platform::Uefi);
        let script = format!("export MTOOLS_SKIP_CHECK=1; I='{}'@@{start}; {script}", self.iso().display());
        run_in(&self.dir, "sh", &["-ec", &script]);
    }

    /// Puts a menu of GRUB on the EFI system partition of the ISO.
    fn esp_menu(&self, text: &str) {
        fs::write(self.path("esp.cfg"), text).unwrap();
        self.change_esp("mcopy -i \"$I\" esp.cfg ::EFI/BOOT/grub.cfg; rm esp.cfg");
    }

    /// Writes another architecture into an EFI program.
    fn retarget(&self, name: &str, machine: u16) {
        let mut bytes = self.read(name);
        let at = u32::from_le_bytes(bytes[0x3c..0x40].try_into().unwrap()) as usize + 4;
        bytes[at..at + 2].copy_from_slice(&machine.to_le_bytes());
        self.write(name, bytes);
    }

    /// Signs lists, as of a day; from then on the audit has the key.
    fn sign(&self, lists: &[&str]) {
        let gpg = Gpg::new();
        let day = |day: &'static str| ["--faked-system-time", day];
        let [option, made] = day("20260101T000000!");
        let key = gpg.key("release <release@example.org>", "ed25519", &["never", option, made]);
        for list in lists {
            let [option, signed] = day("20260102T000000!");
            let args = [option, signed, "--local-user", &key, "--clearsign"];
            self.write(list, gpg.run(&args, &self.read(list)));
        }
        fs::write(self.keyring(), gpg.export(&[&key])).unwrap();
    }

    fn keyring(&self) -> PathBuf {
        self.world.world.path("keyring.asc")
    }

    /// Changes a byte of a file behind the last place where something stands.
    fn change(&self, name: &str, behind: &[u8], at: usize) {
        let mut bytes = self.read(name);
        change(&mut bytes, behind, at, 1);
        self.write(name, bytes);
    }

    fn audit(&self) -> (i32, Value) {
        let mut args = vec![self.iso().display().to_string(), self.dir.display().to_string()];
        if self.keyring().exists() {
            args.extend(["--keyring".to_owned(), self.keyring().display().to_string()]);
        }
        audit(&self.world, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// What is in an initrd that mounts a root over NFS: some of it, a lean one is without.
fn files_for_nfs() -> Vec<(&'static str, &'static str)> {
    vec![
        ("init", "#!/bin/sh\n"),
        ("etc/protocols", "tcp 6 TCP\n"),
        ("usr/bin/tool", "a tool"),
        ("usr/lib/dracut/modules.txt", "base\ndmsquash-live\nlivenet\nnfs\n"),
        (
            "usr/lib/modules/6.1.0-test/modules.dep",
            "kernel/sound/a.ko:\nkernel/net/b.ko:\nkernel/fs/nfs/nfs.ko: kernel/fs/netfs.ko\n",
        ),
        ("usr/lib/modules/6.1.0-test/kernel/fs/netfs.ko", "what it depends on"),
        ("usr/lib/modules/6.1.0-test/kernel/fs/nfs/nfs.ko", "a file system"),
        ("usr/lib/modules/6.1.0-test/kernel/net/b.ko", "a network"),
        ("usr/lib/modules/6.1.0-test/kernel/sound/a.ko", "a sound"),
        ("usr/sbin/mount.nfs", "#!/bin/sh\n"),
    ]
}

/// Makes the lean initrd of a set anew, with those files alone and as they are changed: nothing for as it is, no text for gone.
fn write_lean(set: &Published, change: impl Fn(&str) -> Option<&'static str>) {
    let mut files = files_for_nfs();
    files.retain(|(name, _)| !name.ends_with("/a.ko") && change(name) != Some(""));
    for (name, content) in &mut files {
        *content = change(name).unwrap_or(content);
    }
    fs::remove_file(set.path("netboot/gentoo.lean")).unwrap();
    write_initrd(&set.path("netboot/gentoo.lean"), &files, "gzip -n");
}

/// Sets to damage, built once.
struct Bases {
    one: Live,
    two: Live,
    without_livenet: Live,
    lean: Live,
    checked: Live,
}

impl Bases {
    fn new() -> Self {
        let one = Live::new();
        one.build(&[]);
        let two = Live::new();
        let boot = two.root().join("boot");
        write_kernel(&boot.join("vmlinuz-old"), "5.0.0");
        write_dracut_initrd(&boot.join("initramfs-old.img"), "5.0.0");
        two.build(&[]);
        let without_livenet = Live::new();
        let files = [
            ("init", "#!/bin/sh\n"),
            ("usr/lib/dracut/modules.txt", "base\ndmsquash-live\n"),
            ("usr/lib/modules/6.1.0-test/x", ""),
        ];
        write_initrd(&without_livenet.root().join("boot/initramfs-test.img"), &files, "gzip -n");
        without_livenet.build(&[]);
        let lean = Live::new();
        let boot = lean.root().join("boot/initramfs-test.img");
        write_initrd(&boot, &files_for_nfs(), "gzip -n");
        lean.build(&[]);
        let checked = Live::new();
        write_able(&checked.root().join("boot/initramfs-test.img"), "");
        checked.build(&[]);
        Self { one, two, without_livenet, lean, checked }
    }

    fn copy(&self, base: Base) -> Published {
        let from = match base {
            Base::One => &self.one,
            Base::Two => &self.two,
            Base::WithoutLivenet => &self.without_livenet,
            Base::Lean => &self.lean,
            Base::Checked => &self.checked,
        };
        let world = Live::bare();
        let dir = world.world.path("set");
        run("cp", &["-r", from.out().to_str().unwrap(), dir.to_str().unwrap()]);
        Published { world, dir }
    }
}

#[derive(Clone, Copy)]
enum Base {
    One,
    Two,
    WithoutLivenet,
    /// With a lean initrd, and a root over NFS.
    Lean,
    /// With an initrd that has the squashfs checked.
    Checked,
}

/// A damage: the check that finds it, how it is done, and a part of what the check says.
struct Damage {
    check: &'static str,
    how: &'static str,
    base: Base,
    damage: fn(&Published),
    says: &'static str,
    /// It works, but is not as it should be.
    is_warning: bool,
}

const fn damage(
    check: &'static str,
    how: &'static str,
    damage: fn(&Published),
    says: &'static str,
) -> Damage {
    Damage { check, how, base: Base::One, damage, says, is_warning: false }
}

const fn warning(
    check: &'static str,
    how: &'static str,
    damage: fn(&Published),
    says: &'static str,
) -> Damage {
    Damage { check, how, base: Base::One, damage, says, is_warning: true }
}

impl Damage {
    const fn of(self, base: Base) -> Self {
        Self { base, ..self }
    }
}

const MENU: &str = "netboot/pxelinux.cfg/default";
const LINE: &str = "root=live:/image.squashfs.img";

const DAMAGES: &[Damage] = &[
    warning(
        "readable",
        "a pipe is among the files",
        |set| {
            run("mkfifo", &[set.path("netboot/pipe").to_str().unwrap()]);
        },
        "is no plain file",
    ),
    damage(
        "iso-structure",
        "the ISO is cut off",
        |set| {
            let bytes = set.read(ISO);
            set.write(ISO, &bytes[..bytes.len() / 2]);
        },
        "cut off",
    ),
    damage(
        "iso-structure",
        "the ISO's last kilobyte is missing",
        |set| {
            let bytes = set.read(ISO);
            let volume = Iso::open(&set.iso()).unwrap().volume_size as usize;
            set.write(ISO, &bytes[..volume - 1024]);
        },
        "cut off",
    ),
    damage(
        "iso-structure",
        "the ISO is a page that says \"not found\"",
        |set| {
            set.write(ISO, "<html>404</html>");
        },
        "no ISO 9660 image",
    ),
    damage(
        "iso-boot",
        "one bit of the boot catalog is flipped",
        |set| {
            let bytes = set.read(ISO);
            let descriptor =
                bytes.windows(23).position(|window| window == b"EL TORITO SPECIFICATION").unwrap() - 7;
            let sector = u32::from_le_bytes(bytes[descriptor + 0x47..descriptor + 0x4b].try_into().unwrap());
            set.flip(ISO, sector as usize * 2048 + 8);
        },
        "checksum of its boot catalog",
    ),
    damage(
        "iso-boot",
        "there is no boot catalog",
        |set| {
            set.patch_iso(b"EL TORITO SPECIFICATION", b"EL-TORITO-SPECIFICATION");
        },
        "no El Torito catalog",
    ),
    damage(
        "volume-id",
        "the volume id was changed after the menu was written",
        |set| {
            let mut bytes = set.read(ISO);
            assert!(bytes[16 * 2048 + 40..].starts_with(b"Tiny-20260102"));
            bytes[16 * 2048 + 52] = b'3';
            set.write(ISO, bytes);
        },
        "it looks for the volume \"Tiny-20260102\", but the ISO's volume id is \"Tiny-20260103\"",
    ),
    warning(
        "volume-id",
        "the volume id has a blank",
        |set| {
            let mut bytes = set.read(ISO);
            bytes[16 * 2048 + 44] = b' ';
            set.write(ISO, bytes);
        },
        "characters that a kernel command line cannot hold",
    ),
    damage(
        "iso-contents",
        "the ISO's menu names a kernel that is not on it",
        |set| {
            set.patch_iso(b"linux /boot/gentoo ", b"linux /boot/gentto ");
        },
        "it names /boot/gentto, which is not on the ISO",
    ),
    damage(
        "iso-checksums",
        "a list on the ISO has a stale hash",
        |set| {
            set.write("sums", format!("{}  ./livecd\n", "ab".repeat(64)));
            let (iso, sums) = (set.iso().display().to_string(), set.path("sums").display().to_string());
            let new = set.path("new.iso").display().to_string();
            run(
                "xorriso",
                &[
                    "-indev",
                    &iso,
                    "-outdev",
                    &new,
                    "-map",
                    &sums,
                    "/isoroot_b2sums",
                    "-boot_image",
                    "any",
                    "replay",
                ],
            );
            fs::remove_file(sums).unwrap();
            fs::remove_file(&iso).unwrap();
            fs::rename(new, iso).unwrap();
        },
        "livecd has other bytes",
    ),
    damage(
        "kernel",
        "one bit of the loose kernel is flipped",
        |set| set.flip("netboot/gentoo.vmlinuz", 0x3000),
        "other bytes",
    ),
    damage(
        "kernel",
        "one bit of the kernel beside the ISO is flipped",
        |set| set.flip(&format!("{ISO}.vmlinuz"), 0x3000),
        "other bytes",
    ),
    damage(
        "kernel",
        "one bit of the kernel on the ISO is flipped",
        |set| set.flip_in_iso("boot/gentoo", 0x3000),
        "other bytes",
    ),
    damage(
        "kernel",
        "the kernel is that of another build",
        |set| {
            fs::remove_file(set.path("netboot/gentoo.vmlinuz")).unwrap();
            write_kernel(&set.path("netboot/gentoo.vmlinuz"), "6.2.0-other");
        },
        "it is Linux 6.2.0-other, that one 6.1.0-test",
    ),
    damage(
        "kernel",
        "the kernels are missing",
        |set| {
            fs::remove_file(set.path("netboot/gentoo.vmlinuz")).unwrap();
            fs::remove_file(set.path(&format!("{ISO}.vmlinuz"))).unwrap();
        },
        "there is no kernel",
    ),
    damage(
        "initrd",
        "one bit of the loose initrd is flipped",
        |set| set.flip("netboot/gentoo.initrd", 5),
        "other bytes",
    ),
    damage(
        "initrd",
        "one bit of the initrd beside the ISO is flipped",
        |set| set.flip(&format!("{ISO}.initrd"), 5),
        "other bytes",
    ),
    damage(
        "initrd",
        "one bit of the initrd on the ISO is flipped",
        |set| set.flip_in_iso("boot/gentoo.igz", 5),
        "other bytes",
    ),
    damage(
        "initrd",
        "an initrd of another build, packed with zstd, lies where no script names it",
        |set| {
            for name in ["autoexec", "boot", "inject", "combined", "http"] {
                fs::remove_file(set.path(&format!("netboot/{name}.ipxe"))).unwrap();
            }
            for name in [
                MENU,
                "netboot/grub/grub.cfg",
                "install-tiny-20260102T030405Z.iso.ipxe",
                "netboot/gentoo.initrd",
            ] {
                fs::remove_file(set.path(name)).unwrap();
            }
            write_initrd(
                &set.path("netboot/gentoo.initrd"),
                &[("usr/lib/dracut/modules.txt", "other\n")],
                "zstd -q",
            );
        },
        "netboot/gentoo.initrd: is not /boot/gentoo.igz",
    ),
    damage(
        "squashfs",
        "one bit of the loose squashfs is flipped",
        |set| set.flip("netboot/image.squashfs", 200),
        "other bytes",
    ),
    damage(
        "squashfs",
        "one bit of the squashfs beside the ISO is flipped",
        |set| set.flip(&format!("{ISO}.squashfs"), 200),
        "other bytes",
    ),
    damage(
        "squashfs",
        "one bit of the squashfs on the ISO is flipped",
        |set| set.flip_in_iso("image.squashfs", 200),
        "other bytes",
    ),
    damage(
        "combined",
        "one bit of the initrd inside the combined one is flipped",
        |set| set.flip("netboot/gentoo.combined", 5),
        "does not begin with the bytes of /boot/gentoo.igz",
    ),
    damage(
        "combined",
        "one bit of the squashfs inside the combined initrd is flipped",
        |set| {
            let squashfs = set.read("netboot/image.squashfs").len();
            let at = set.read("netboot/gentoo.combined").len() - squashfs;
            set.flip("netboot/gentoo.combined", at);
        },
        "the squashfs inside, image.squashfs.img, is not /image.squashfs",
    ),
    warning(
        "combined",
        "the combined initrd holds the squashfs twice",
        |set| set.combine(0, &["image.squashfs.img", "image.squashfs"]),
        "holds 2 images",
    ),
    damage(
        "pairs",
        "a script boots a kernel with the other kernel's initrd",
        |set| set.edit("netboot/inject.ipxe", "initrd old.initrd", "initrd test.initrd"),
        "boots netboot/old.vmlinuz with netboot/test.initrd",
    )
    .of(Base::Two),
    damage(
        "initramfs",
        "the combined initrd lacks the padding",
        |set| set.combine(1, &["image.squashfs.img"]),
        "must start on a multiple of four",
    ),
    damage(
        "initramfs",
        "the loose initrd is cut off",
        |set| {
            let bytes = set.read("netboot/gentoo.initrd");
            set.write("netboot/gentoo.initrd", &bytes[..bytes.len() - 9]);
        },
        "cannot be unpacked",
    ),
    damage(
        "initramfs",
        "the initrd is packed by plain xz, whose check the kernel lacks",
        |set| {
            let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
            xz.write_all(&initrd_of_nobody()).unwrap();
            set.write("netboot/gentoo.initrd", xz.finish().unwrap());
        },
        "its xz check is CRC64; the kernel takes CRC32 or none",
    ),
    damage(
        "initramfs",
        "rubbish is behind the combined initrd",
        |set| {
            let bytes = set.read("netboot/gentoo.combined");
            set.write("netboot/gentoo.combined", [&bytes[..], b"rubbish"].concat());
        },
        "neither a cpio archive nor compressed",
    ),
    damage(
        "initramfs",
        "an entry of the initrd claims a name of 4 GiB",
        |set| {
            let header = format!("070701{}fffffff0{:08x}", "00000000".repeat(11), 0);
            set.write("netboot/gentoo.initrd", header + &"x".repeat(4096));
        },
        "a name of 4294967280 bytes",
    ),
    damage(
        "initramfs",
        "an entry of the initrd claims 4 GiB that are not there",
        |set| {
            let header =
                format!("070701{}ffffffff{}00000002{:08x}a\0", "00000000".repeat(6), "00000000".repeat(4), 0);
            set.write("netboot/gentoo.initrd", header);
        },
        "cannot be unpacked",
    ),
    warning(
        "initramfs",
        "the initrd was made by nobody known",
        |set| {
            let bytes = initrd_of_nobody();
            set.write("netboot/gentoo.initrd", bytes);
        },
        "neither dracut nor genkernel",
    ),
    damage(
        "squashfs-image",
        "the first byte of the loose squashfs is damaged",
        |set| set.flip("netboot/image.squashfs", 0),
        "does not begin with \"hsqs\"",
    ),
    damage(
        "squashfs-image",
        "the loose squashfs is cut off",
        |set| {
            let bytes = set.read("netboot/image.squashfs");
            set.write("netboot/image.squashfs", &bytes[..bytes.len() / 2]);
        },
        "it is cut off",
    ),
    damage(
        "squashfs-image",
        "the first byte of the squashfs inside the combined initrd is damaged",
        |set| {
            let bytes = set.read("netboot/gentoo.combined");
            let at = bytes.windows(4).rposition(|window| window == b"hsqs").unwrap();
            set.flip("netboot/gentoo.combined", at);
        },
        "inside it is no sound squashfs",
    ),
    damage(
        "modules",
        "kernel and initrd, on both media, are of two releases",
        |set| {
            set.patch_iso(RELEASE.as_bytes(), b"6.9.9-test");
            for name in ["netboot/gentoo.vmlinuz", "install-tiny-20260102T030405Z.iso.vmlinuz"] {
                fs::remove_file(set.path(name)).unwrap();
                write_kernel(&set.path(name), "6.9.9-test");
            }
        },
        "which has modules for 6.1.0-test",
    ),
    damage(
        "iso-menu",
        "the ISO's menu looks for another volume",
        |set| {
            set.patch_iso(b"CDLABEL=Tiny-20260102", b"CDLABEL=Tiny-20250102");
        },
        "it must be root=live:CDLABEL=Tiny-20260102",
    ),
    damage(
        "iso-menu",
        "the ISO's menu lost cdroot",
        |set| set.patch_iso(b" cdroot", b" xdroot"),
        "cdroot is missing",
    ),
    damage(
        "ipxe",
        "a script boots with the words of its last line",
        |set| {
            set.edit(
                "netboot/combined.ipxe",
                "\nboot ",
                "\nboot gentoo.vmlinuz initrd=gentoo.combined root=/dev/sda9 ",
            );
        },
        "root=/dev/sda9: it must be root=live:/image.squashfs.img",
    ),
    damage(
        "ipxe",
        "the squashfs is put into the initrd as /image.squashfs, which dracut does not take",
        |set| {
            set.edit("netboot/inject.ipxe", "/image.squashfs.img", "/image.squashfs");
        },
        "ends in .img or .iso",
    ),
    damage(
        "ipxe",
        "the script puts the squashfs under another name than the line says",
        |set| {
            set.edit("netboot/inject.ipxe", "image.squashfs /image.squashfs.img", "image.squashfs /root.img");
        },
        "it must be root=live:/root.img",
    ),
    damage(
        "ipxe",
        "initrd= names a file that is not loaded",
        |set| {
            set.edit("netboot/inject.ipxe", "initrd=gentoo.initrd", "initrd=gentoo.igz");
        },
        "initrd=gentoo.igz names no file that is loaded",
    ),
    warning(
        "ipxe",
        "the kernel's line has no initrd=",
        |set| {
            set.edit("netboot/inject.ipxe", " initrd=gentoo.initrd", "");
        },
        "has no initrd=",
    ),
    damage(
        "ipxe",
        "the squashfs is loaded as an initrd, without a name",
        |set| {
            set.edit(
                "netboot/inject.ipxe",
                "initrd image.squashfs /image.squashfs.img",
                "initrd image.squashfs",
            );
        },
        "which the kernel cannot unpack",
    ),
    damage(
        "ipxe",
        "the kernel is put into the initrd in the squashfs's place",
        |set| {
            set.edit("netboot/inject.ipxe", "initrd image.squashfs /", "initrd gentoo.vmlinuz /");
        },
        "which is no squashfs",
    ),
    damage(
        "ipxe",
        "a script loads no initrd",
        |set| {
            set.edit("netboot/combined.ipxe", "initrd gentoo.combined || goto failed_initrd\n", "");
        },
        "loads no initrd",
    ),
    damage(
        "ipxe",
        "http.ipxe fetches a file that is no squashfs",
        |set| {
            set.edit("netboot/http.ipxe", "${base}/image.squashfs", "${base}/gentoo.vmlinuz");
        },
        "is no squashfs of this set",
    ),
    damage(
        "ipxe",
        "the squashfs is to be fetched by an initrd without livenet",
        |set| {
            set.write("netboot/http.ipxe", "#!ipxe\nkernel gentoo.vmlinuz initrd=gentoo.initrd ip=dhcp root=live:http://10.0.0.1/image.squashfs\n\
            initrd gentoo.initrd\nboot\n");
        },
        "no livenet module",
    )
    .of(Base::WithoutLivenet),
    damage(
        "initrd",
        "a file of the lean initrd has other bytes",
        |set| write_lean(set, |name| (name == "usr/bin/tool").then_some("another")),
        "has other bytes, or more: /usr/bin/tool",
    )
    .of(Base::Lean),
    damage(
        "initrd",
        "the lean initrd lacks more than modules",
        |set| write_lean(set, |name| (name == "usr/bin/tool").then_some("")),
        "lacks: /usr/bin and /usr/bin/tool",
    )
    .of(Base::Lean),
    damage(
        "initrd",
        "the lean initrd lacks a module that mounts the root",
        |set| write_lean(set, |name| name.ends_with("nfs.ko").then_some("")),
        "nfs.ko",
    )
    .of(Base::Lean),
    damage(
        "initrd",
        "the lean initrd lacks a module that another one depends on",
        |set| write_lean(set, |name| name.ends_with("netfs.ko").then_some("")),
        "netfs.ko",
    )
    .of(Base::Lean),
    damage(
        "initrd",
        "the lean initrd is published as the full one",
        |set| set.write("netboot/gentoo.initrd", set.read("netboot/gentoo.lean")),
        "is not /boot/gentoo.igz of the ISO",
    )
    .of(Base::Lean),
    damage(
        "initrd",
        "two files of the lean initrd are one, of which the second has the bytes",
        |set| {
            let script = "mkdir t; cd t; gzip -dc ../netboot/gentoo.lean | cpio -idm --quiet; ln -f usr/bin/tool init; \
                          find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -n > ../netboot/new; cd ..; rm -r t; mv netboot/new netboot/gentoo.lean";
            run_in(&set.dir, "sh", &["-ec", script]);
        },
        "/init",
    )
    .of(Base::Lean),
    damage(
        "ipxe",
        "lean.ipxe boots the initrd",
        |set| set.edit("netboot/lean.ipxe", "kernel gentoo.vmlinuz", "kernel gentoo.lean"),
        "boots netboot/gentoo.lean, which is no kernel",
    )
    .of(Base::Lean),
    damage(
        "ipxe",
        "nfs.ipxe has no slash between the folder and the file",
        |set| set.edit("netboot/nfs.ipxe", "${nfs}/image.squashfs", "${nfs}image.squashfs"),
        "it must be root=live:nfs:OPTIONS:HOST:/FOLDER/image.squashfs",
    )
    .of(Base::Lean),
    damage(
        "ipxe",
        "the root is to be mounted over NFS by an initrd that does not know the protocol",
        |set| set.edit("netboot/http.ipxe", "root=live:${base}/", "root=live:nfs:vers=3:10.0.0.1:/srv/"),
        "no nfs module",
    ),
    damage(
        "ipxe",
        "nfs.ipxe names a file that is no squashfs",
        |set| set.edit("netboot/nfs.ipxe", "${nfs}/image.squashfs", "${nfs}/gentoo.vmlinuz"),
        "is no squashfs of this set",
    )
    .of(Base::Lean),
    damage(
        "ipxe",
        "the root is a server's block device, and the initrd cannot mount one",
        |set| set.edit("netboot/http.ipxe", "root=live:${base}/image.squashfs", "root=nbd:10.0.0.1:live"),
        "no nbd module",
    ),
    damage(
        "ipxe",
        "http.ipxe fetches the ISO, and its words do not say where the squashfs is on it",
        |set| {
            set.write("netboot/live.iso", set.read(ISO));
            set.edit("netboot/http.ipxe", "${base}/image.squashfs", "${base}/live.iso");
        },
        "rd.live.dir=/ rd.live.squashimg=image.squashfs",
    ),
    damage(
        "ipxe",
        "http.ipxe fetches an ISO that is not the one",
        |set| {
            set.write("netboot/live.iso", set.read(ISO));
            set.flip("netboot/live.iso", 40_000);
            set.edit("netboot/http.ipxe", "${base}/image.squashfs", "${base}/live.iso");
        },
        "is not the ISO",
    ),
    damage(
        "ipxe",
        "a script puts an ISO into the initrd that is not the one",
        |set| {
            set.write("netboot/live.iso", set.read(ISO));
            set.flip("netboot/live.iso", 40_000);
            set.edit("netboot/inject.ipxe", "initrd image.squashfs /image.squashfs.img", "initrd live.iso /live.iso");
        },
        "puts netboot/live.iso into the initrd, which is not the ISO",
    ),
    damage(
        "ipxe",
        "the network is off, and the squashfs is to be fetched",
        |set| {
            set.edit("netboot/http.ipxe", "ip=dhcp", "ip=off");
        },
        "ip=off: the initramfs needs the network",
    ),
    damage(
        "ipxe",
        "a no-break space parts two words",
        |set| {
            set.edit("netboot/combined.ipxe", " root=live", "\u{a0}root=live");
        },
        "characters that are not ASCII",
    ),
    damage(
        "pxelinux",
        "genkernel's arguments for dracut's initrd",
        |set| {
            set.edit(MENU, LINE, "looptype=squashfs loop=/image.squashfs cdroot");
        },
        "this is genkernel's",
    ),
    damage(
        "pxelinux",
        "the root is missing",
        |set| set.edit(MENU, LINE, "quiet"),
        "root=live:/image.squashfs.img is missing",
    ),
    damage(
        "pxelinux",
        "rd.live.ram=1 with the squashfs in the initrd",
        |set| {
            set.edit(MENU, LINE, &format!("{LINE} rd.live.ram=1"));
        },
        "this makes a second copy",
    ),
    damage(
        "pxelinux",
        "the squashfs has a wrong name in the cpio",
        |set| set.combine(0, &["system.img"]),
        "it must be root=live:/system.img",
    ),
    damage(
        "pxelinux",
        "the squashfs is in the cpio without .img, which dracut needs",
        |set| set.combine(0, &["image.squashfs"]),
        "ends in .img or .iso",
    ),
    damage(
        "pxelinux",
        "a menu that the first one includes has another root",
        |set| {
            set.write(MENU, "INCLUDE more.txt\n");
            set.write(
                "netboot/more.txt",
                "LABEL x\nKERNEL gentoo.vmlinuz\nAPPEND initrd=gentoo.combined root=/dev/sda9\n",
            );
        },
        "root=/dev/sda9: it must be root=live:/image.squashfs.img",
    ),
    damage(
        "pxelinux",
        "the menu boots the initrd without the squashfs",
        |set| {
            set.edit(MENU, "initrd=gentoo.combined", "initrd=gentoo.initrd");
        },
        "it must be root=live:http://HOST/image.squashfs",
    ),
    damage(
        "grub-net",
        "the menu has the ISO's line",
        |set| {
            set.edit(
                "netboot/grub/grub.cfg",
                LINE,
                "root=live:CDLABEL=Tiny-20260102 rd.live.dir=/ rd.live.squashimg=image.squashfs cdroot",
            );
        },
        "it must be root=live:/image.squashfs.img",
    ),
    damage(
        "grub-net",
        "an entry on one line has another root",
        |set| {
            let text = String::from_utf8(set.read("netboot/grub/grub.cfg")).unwrap();
            let more = "menuentry \"efi\" { linuxefi /gentoo.vmlinuz root=/dev/sda9 ; initrdefi /gentoo.combined }\n";
            set.write("netboot/grub/grub.cfg", text + more);
        },
        "root=/dev/sda9: it must be root=live:/image.squashfs.img",
    ),
    warning(
        "drift",
        "a script lost one of the image's own arguments",
        |set| {
            set.edit("netboot/combined.ipxe", " ${keymap}", "");
        },
        "lacks dokeymap",
    ),
    damage(
        "references",
        "a script names a file that is not there",
        |set| {
            set.edit("netboot/combined.ipxe", "kernel gentoo.vmlinuz", "kernel gentoo");
        },
        "names the kernel gentoo, which is not there",
    ),
    damage(
        "references",
        "a script names a file outside the set",
        |set| {
            set.edit("netboot/combined.ipxe", "kernel gentoo.vmlinuz", "kernel ../../../gentoo.vmlinuz");
        },
        "climbs out of the set",
    ),
    damage(
        "references",
        "GRUB goes on to a menu of another name, whose kernel is not there",
        |set| {
            set.write("netboot/grub/grub.cfg", "source /menus/live\n");
            fs::create_dir(set.path("netboot/menus")).unwrap();
            set.write(
                "netboot/menus/live",
                format!("menuentry x {{\nlinux /gentto {LINE}\ninitrd /gentoo.combined\n}}\n"),
            );
        },
        "names the kernel /gentto, which is not there",
    ),
    damage(
        "references",
        "a word in a menu is a dollar without a name, which GRUB refuses",
        |set| set.edit("netboot/grub/grub.cfg", "dokeymap", "price=5$"),
        "a $ names no variable",
    ),
    damage(
        "references",
        "a script goes to a label that is not there",
        |set| {
            set.edit("netboot/combined.ipxe", ":failed_kernel", ":failed_kernal");
        },
        "goto failed_kernel: there is no such label",
    ),
    warning(
        "references",
        "a script uses a variable that nothing sets",
        |set| {
            set.edit("netboot/combined.ipxe", "kernel gentoo", "kernel ${base}gentoo");
        },
        "nothing here sets the variable base",
    ),
    damage(
        "references",
        "a script lost its first line",
        |set| set.edit("netboot/combined.ipxe", "#!ipxe\n", ""),
        "begins with \"#!ipxe\"",
    ),
    warning(
        "references",
        "there is neither a script nor a menu",
        |set| {
            for name in ["autoexec", "boot", "inject", "combined", "http"] {
                fs::remove_file(set.path(&format!("netboot/{name}.ipxe"))).unwrap();
            }
            for name in [MENU, "netboot/grub/grub.cfg", "install-tiny-20260102T030405Z.iso.ipxe"] {
                fs::remove_file(set.path(name)).unwrap();
            }
        },
        "neither a script nor a menu",
    ),
    warning(
        "references",
        "a script has a misspelt command",
        |set| {
            set.edit("netboot/combined.ipxe", "initrd gentoo.combined ||", "initr gentoo.combined ||");
        },
        "initr is not a command of iPXE that is known here",
    ),
    warning(
        "references",
        "a menu's default is a label that is not there",
        |set| {
            let text = String::from_utf8(set.read(MENU)).unwrap();
            set.write(MENU, format!("DEFAULT live\n{text}"));
        },
        "there is no label live: the menu begins with another one",
    ),
    damage(
        "references",
        "a block of GRUB's menu is not closed",
        |set| {
            let text = String::from_utf8(set.read("netboot/grub/grub.cfg")).unwrap();
            set.write("netboot/grub/grub.cfg", text.trim_end().strip_suffix('}').unwrap());
        },
        "is opened and not closed",
    ),
    damage(
        "references",
        "every script and menu lost its kernel",
        |set| {
            for name in ["autoexec", "boot", "inject", "combined", "http"] {
                fs::remove_file(set.path(&format!("netboot/{name}.ipxe"))).unwrap();
            }
            fs::remove_file(set.path("install-tiny-20260102T030405Z.iso.ipxe")).unwrap();
            set.write(MENU, "PROMPT 0\n");
            set.write("netboot/grub/grub.cfg", "set timeout=3\n");
        },
        "boot nothing",
    ),
    damage(
        "references",
        "a comment in the middle of a line takes boot away",
        |set| {
            for name in ["boot", "inject", "http"] {
                fs::remove_file(set.path(&format!("netboot/{name}.ipxe"))).unwrap();
            }
            set.edit("netboot/combined.ipxe", "\nboot ||", "\n# boot ||");
        },
        "the kernel is loaded and never started",
    ),
    damage(
        "references",
        "GRUB's menu begins with itself",
        |set| {
            let text = String::from_utf8(set.read("netboot/grub/grub.cfg")).unwrap();
            set.write("netboot/grub/grub.cfg", format!("source /grub/grub.cfg\n{text}"));
        },
        "reads itself, without end",
    ),
    damage(
        "grub-net",
        "GRUB's second initrd command takes the place of the first",
        |set| {
            set.write(
                "netboot/grub/grub.cfg",
                "menuentry \"Live\" {\nlinux /gentoo.vmlinuz dokeymap root=live:/image.squashfs.img\ninitrd /gentoo.initrd\n\
                 initrd newc:image.squashfs.img:/image.squashfs\n}\n",
            );
        },
        "loads no initrd",
    ),
    damage(
        "arch",
        "an entry of systemd-boot says that it is for another machine",
        |set| {
            set.write(
                "netboot/loader/entries/live.conf",
                "architecture aa64\nlinux /gentoo.vmlinuz\ninitrd /gentoo.combined\noptions dokeymap root=live:/image.squashfs.img\n",
            );
        },
        "is for aa64, and its kernel for",
    ),
    damage(
        "combined",
        "a name with a zero in it replaces the initrd's init",
        |set| {
            let mut bytes = set.read("netboot/gentoo.combined");
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(archive("init\0x", b"#!/bin/evil\n"));
            set.write("netboot/gentoo.combined", bytes);
        },
        "replaces /init of the ISO's initrd",
    ),
    damage(
        "initramfs",
        "the init of an appended archive is a link to nothing",
        |set| {
            let mut bytes = set.read("netboot/gentoo.combined");
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let link = ::cpio::newc::Builder::new("init").mode(0o120_777);
            let mut writer = link.write(Vec::new(), 8);
            std::io::Write::write_all(&mut writer, b"/nowhere").unwrap();
            bytes.extend(::cpio::newc::trailer(writer.finish().unwrap()).unwrap());
            set.write("netboot/gentoo.combined", bytes);
        },
        "its /init is a link to nothing",
    ),
    damage(
        "digests",
        "a hash is stale",
        |set| {
            let text = String::from_utf8(set.read("netboot/DIGESTS")).unwrap();
            let hex = text.lines().nth(1).unwrap()[..16].to_owned();
            set.edit("netboot/DIGESTS", &hex, "0123456789abcdef");
        },
        "0123456789ab… in the list",
    ),
    damage(
        "digests",
        "a list names another file",
        |set| set.edit("netboot/DIGESTS", "  gentoo.initrd", "  gentoo.igz"),
        "names gentoo.igz, which is not there",
    ),
    damage(
        "digests",
        "a list names a file outside its folder",
        |set| set.edit("netboot/DIGESTS", "  gentoo.initrd", "  /etc/passwd"),
        "which is not in its folder",
    ),
    damage(
        "digests",
        "a file that the list names was removed",
        |set| fs::remove_file(set.path("netboot/undionly.kpxe")).unwrap(),
        "names undionly.kpxe, which is not there",
    ),
    damage(
        "digests",
        "a clear-signed list is cut off",
        |set| {
            let text = String::from_utf8(set.read("netboot/DIGESTS")).unwrap();
            set.write(
                "netboot/DIGESTS",
                format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}"),
            );
        },
        "has no end",
    ),
    damage(
        "digests",
        "the ISO's .sha256 is of another build",
        |set| {
            set.write(&format!("{ISO}.sha256"), format!("# SHA256 HASH\n{}  {ISO}\n", "12".repeat(32)));
        },
        "another SHA-256: 121212121212… in the list",
    ),
    damage(
        "digests",
        "a list is a page that says \"not found\"",
        |set| set.write("netboot/DIGESTS", "<html>404</html>\n"),
        "line 1 is no checksum",
    ),
    warning(
        "digests",
        "a file was added that no list names",
        |set| set.write("netboot/extra.efi", "x"),
        "no list of checksums names netboot/extra.efi",
    ),
    damage(
        "manifest",
        "the manifest is of another build",
        |set| {
            set.edit(&format!("{ISO}.manifest.json"), "Tiny-20260102", "Tiny-20260101");
        },
        "says the volume id is \"Tiny-20260101\"",
    ),
    damage(
        "manifest",
        "a file is not what the manifest says",
        |set| {
            set.edit("netboot/boot.ipxe", "# Tiny", "# Tony");
        },
        "netboot/boot.ipxe is not what it says",
    ),
    damage(
        "manifest",
        "a menu lost an argument that the build gave it",
        |set| set.edit(MENU, "dokeymap ", ""),
        "lacks dokeymap",
    ),
    damage(
        "memory",
        "the manifest promises too little memory",
        |set| {
            set.edit(&format!("{ISO}.manifest.json"), "\"least_ram_mib\": 256", "\"least_ram_mib\": 64");
        },
        "says 64 MiB are enough",
    ),
    warning(
        "limits",
        "the combined initrd is larger than 2 GiB",
        |set| {
            set.write("netboot/gentoo.combined", set.read("netboot/gentoo.combined"));
            fs::File::options()
                .write(true)
                .open(set.path("netboot/gentoo.combined"))
                .unwrap()
                .set_len((2 << 30) + 4)
                .unwrap();
        },
        "stop at 2 GiB",
    ),
    damage(
        "limits",
        "a command line is longer than kernels read",
        |set| {
            set.edit(MENU, "dokeymap ", &format!("dokeymap {} ", "x=123456789 ".repeat(180)));
        },
        "kernels cut it off at 2048",
    ),
    damage(
        "names",
        "a script beside the ISO has a name that mirrors put elsewhere",
        |set| {
            set.write("install-tiny-20260102T030405Z-netboot.ipxe", "#!ipxe\n");
        },
        "into a folder of its own",
    ),
    damage(
        "names",
        "a tar beside the ISO would become the latest image",
        |set| set.write("install-tiny-20260102T030405Z.iso.netboot.tar.xz", "x"),
        "in the ISO's place",
    ),
    warning(
        "names",
        "a script beside the ISO has a name that mirrors leave out",
        |set| {
            set.write("install-tiny-20260102T030405Z.ipxe", "#!ipxe\n");
        },
        "leaves it out of the current folder",
    ),
    warning(
        "names",
        "a name has a blank",
        |set| set.write("netboot/read me.txt", "x"),
        "an address cannot hold",
    ),
    damage(
        "links",
        "a link leads out of the set",
        |set| symlink("/etc/hostname", set.path("netboot/host")).unwrap(),
        "is a link to",
    ),
    damage(
        "links",
        "a link leads nowhere",
        |set| symlink("gone", set.path("netboot/host")).unwrap(),
        "is a link to gone",
    ),
    warning(
        "leftovers",
        "an editor left a copy behind",
        |set| set.write("netboot/boot.ipxe~", "#!ipxe\n"),
        "left behind",
    ),
    warning(
        "leftovers",
        "an initrd is there that nothing names",
        |set| {
            set.write("netboot/old.initrd", initrd_of_nobody());
        },
        "is an initrd, but no script",
    ),
    damage(
        "iso-menu",
        "a block of the ISO's menu is not closed",
        |set| set.patch_iso(b"\tinitrd /boot/gentoo.igz\n}\n", b"\tinitrd /boot/gentoo.igz\n \n"),
        "a block is opened and not closed",
    ),
    warning(
        "drift",
        "a later entry of a menu has a word that no entry of the ISO has",
        |set| {
            let text = String::from_utf8(set.read("netboot/grub/grub.cfg")).unwrap();
            let at = text.rfind("dokeymap").unwrap();
            set.write("netboot/grub/grub.cfg", format!("{}mitigations=off {}", &text[..at], &text[at..]));
        },
        "has mitigations=off, which",
    ),
    warning(
        "references",
        "GRUB boots the disk by itself",
        |set| {
            set.edit(
                "netboot/grub/grub.cfg",
                "set default=0\n",
                "set default=disk\nmenuentry 'Disk' --id disk {\n\texit\n}\n",
            )
        },
        "the entry that is booted by itself, \"Disk\", boots no Linux",
    ),
    warning(
        "references",
        "PXELINUX boots the disk by itself",
        |set| set.edit(MENU, "PROMPT 0\n", "PROMPT 0\nONTIMEOUT disk\nLABEL disk\nLOCALBOOT 0\n"),
        "it goes to disk by itself, which boots no Linux",
    ),
    damage(
        "pxelinux",
        "a small initrd in front hides that the root is wrong",
        |set| {
            set.write("netboot/ucode.img", archive("kernel.bin", b"x"));
            set.edit(MENU, "initrd=gentoo.combined", "initrd=ucode.img,gentoo.combined");
            set.edit(MENU, LINE, "root=/dev/sda9");
        },
        "root=/dev/sda9: it must be root=live:/image.squashfs.img",
    ),
    damage(
        "initrd",
        "an initrd that is loaded behind the ISO's adds words to the command line",
        |set| {
            let words =
                [folder("etc"), folder("etc/cmdline.d"), archive("etc/cmdline.d/x.conf", b"root=/dev/sda9")];
            set.write("netboot/more.img", words.concat());
            set.edit(MENU, "initrd=gentoo.combined", "initrd=gentoo.combined,more.img");
        },
        "netboot/more.img: adds words to the command line",
    ),
    damage(
        "arch",
        "the ISO's EFI system partition has a program for another architecture under the name of this one",
        |set| {
            set.change_esp("mcopy -i \"$I\" ::EFI/BOOT/BOOTX64.EFI x.efi");
            set.retarget("x.efi", 0xaa64);
            set.change_esp("mcopy -o -i \"$I\" x.efi ::EFI/BOOT/BOOTX64.EFI; rm x.efi");
        },
        ":/EFI/BOOT/BOOTX64.EFI: is for arm64; by its name it is for amd64",
    ),
    damage(
        "references",
        "a script lost its boot",
        |set| set.edit("netboot/combined.ipxe", "boot || goto failed_boot\n", ""),
        "the kernel is loaded and never started",
    ),
    warning(
        "references",
        "a script goes to another server first",
        |set| set.edit("netboot/boot.ipxe", "#!ipxe\n", "#!ipxe\nchain http://192.0.2.9/evil.ipxe ||\n"),
        "is on another server: what it boots is not judged",
    ),
    damage(
        "grub-net",
        "the menu for one machine has another root",
        |set| {
            let text = String::from_utf8(set.read("netboot/grub/grub.cfg")).unwrap();
            set.write("netboot/grub/grub.cfg-01-52-54-00-12-34-56", text.replace(LINE, "root=/dev/sda9"));
        },
        "netboot/grub/grub.cfg-01-52-54-00-12-34-56:11: root=/dev/sda9",
    ),
    damage(
        "initrd",
        "a script has iPXE replace a file of the initrd",
        |set| {
            set.write("netboot/evil", "base");
            set.edit(
                "netboot/inject.ipxe",
                "imgstat\n",
                "initrd evil /usr/lib/dracut/modules.txt\nimgstat\n",
            );
        },
        "netboot/inject.ipxe:9: replaces /usr/lib/dracut/modules.txt of the ISO's initrd",
    ),
    damage(
        "combined",
        "a folder behind the squashfs takes the place of a file of the ISO's initrd",
        |set| set.append(&[folder("usr/lib/dracut/modules.txt")]),
        "replaces /usr/lib/dracut/modules.txt of the ISO's initrd",
    ),
    damage(
        "loaders",
        "a loader is the page of a server that lacks it",
        |set| set.write("netboot/pxelinux.0", "<!DOCTYPE html><title>404 Not Found</title>"),
        "is no program: it is a page for people",
    ),
    damage(
        "secure-boot",
        "a signed program was changed",
        |set| {
            let mut bytes = set.shim();
            bytes[0x2_5000] ^= 1;
            set.write("netboot/shimx64.efi", &bytes[..]);
        },
        "signed another program: this one was changed",
    ),
    warning(
        "secure-boot",
        "a shim has nothing to start",
        |set| set.write("netboot/shimx64.efi", &set.shim()[..]),
        "is a shim without a boot loader beside it",
    ),
    damage(
        "loaders",
        "an EFI program is empty",
        |set| set.write("netboot/ipxe.efi", ""),
        "is no EFI program: it is empty",
    ),
    damage(
        "loaders",
        "an EFI program is cut off",
        |set| {
            let bytes = set.read("netboot/grub/x86_64-efi/core.efi");
            set.write("netboot/grub/x86_64-efi/core.efi", &bytes[..bytes.len() - 4096]);
        },
        "is cut off: it should have",
    ),
    damage(
        "arch",
        "the folder of GRUB's image names another architecture than it is for",
        |set| set.retarget("netboot/grub/x86_64-efi/core.efi", 0xaa64),
        "is for arm64; by its name it is for amd64",
    ),
    damage(
        "arch",
        "the EFI programs are all for another architecture",
        |set| {
            fs::remove_file(set.path("netboot/grub/x86_64-efi/core.efi")).unwrap();
            set.retarget("netboot/ipxe.efi", 0xaa64);
            set.retarget("netboot/snponly.efi", 0xaa64);
        },
        "is for arm64; the kernels are for amd64 or x86",
    ),
    warning(
        "arch",
        "one of several EFI programs is for another architecture",
        |set| set.retarget("netboot/snponly.efi", 0xaa64),
        "is for arm64; the kernels are for amd64 or x86",
    ),
    damage(
        "arch",
        "the kernel is that of another architecture",
        |set| {
            let mut kernel = vec![0; 0x4000];
            kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
            set.write("netboot/gentoo.vmlinuz", &kernel);
            set.write(&format!("{ISO}.vmlinuz"), &kernel);
        },
        "netboot/grub/x86_64-efi/core.efi: is for amd64; the kernels are for arm64",
    ),
    damage(
        "arch",
        "the initrd has programs of another architecture",
        |set| {
            let init = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0";
            set.write("netboot/gentoo.initrd", archive("init", init));
        },
        "with netboot/gentoo.initrd, whose init is for arm64",
    ),
    damage(
        "iso-structure",
        "two files of a folder have one name",
        |set| {
            // Of its two names, the one of Rock Ridge counts.
            set.patch_iso(b"NM\x0b\x01\x00livecd", b"NM\x0b\x01\x00README");
            set.patch_iso(b"NM\x0f\x01\x00README.txt", b"NM\x0b\x01\x00README\0\0\0\0");
        },
        "stands several times in its folder",
    ),
    damage(
        "iso-boot",
        "El Torito offers the squashfs to BIOS",
        |set| {
            let squashfs = Iso::open(&set.iso()).unwrap().file("image.squashfs").unwrap().extents[0].0;
            let (entry, _) = set.boot_entry(Platform::Bios);
            set.overwrite_iso(entry, &((squashfs / 2048) as u32).to_le_bytes());
        },
        "its boot image for BIOS, /image.squashfs, is a squashfs, which no firmware starts",
    ),
    damage(
        "iso-boot",
        "the EFI system partition is all zeros",
        |set| {
            let (_, start) = set.boot_entry(Platform::Uefi);
            set.overwrite_iso(start, &[0; 65536]);
        },
        "is no FAT file system",
    ),
    damage(
        "iso-boot",
        "the image for BIOS is all zeros",
        |set| {
            let (_, start) = set.boot_entry(Platform::Bios);
            set.overwrite_iso(start, &[0; 2048]);
        },
        "is no program: it begins with zeros",
    ),
    damage(
        "iso-boot",
        "the EFI system partition lost its program",
        |set| set.change_esp("mdel -i \"$I\" ::EFI/BOOT/BOOTX64.EFI"),
        "has no EFI/BOOT/BOOTX64.EFI",
    ),
    warning(
        "iso-boot",
        "the boot sector has no code",
        |set| set.overwrite_iso(0, &[0; 440]),
        "BIOS starts it from a disc alone",
    ),
    damage(
        "volume-id",
        "a menu in the EFI system partition looks for another volume",
        |set| {
            let text = "menuentry 'Gentoo' {\n linux /boot/gentoo dokeymap root=live:CDLABEL=Tiny-20250102 rd.live.dir=/ \
                        rd.live.squashimg=image.squashfs cdroot\n initrd /boot/gentoo.igz\n}\n";
            set.esp_menu(text);
        },
        ":/EFI/BOOT/grub.cfg:2: it looks for the volume",
    ),
    damage(
        "kernel",
        "the kernels of both are cut off",
        |set| {
            // Their headers say more.
            set.flip_in_iso("boot/gentoo", 0x1f6);
            set.flip("netboot/gentoo.vmlinuz", 0x1f6);
            set.flip(&format!("{ISO}.vmlinuz"), 0x1f6);
        },
        "is cut off: by its header it has",
    ),
    damage(
        "combined",
        "an archive behind the squashfs replaces a file of the ISO's initrd",
        |set| set.append(&[archive("usr/lib/dracut/modules.txt", b"base evil")]),
        "replaces /usr/lib/dracut/modules.txt of the ISO's initrd",
    ),
    damage(
        "combined",
        "an archive behind the squashfs adds words to the command line",
        |set| {
            set.append(&[
                folder("etc"),
                folder("etc/cmdline.d"),
                archive("etc/cmdline.d/x.conf", b"root=/dev/sda9"),
            ])
        },
        "adds words to the command line",
    ),
    damage(
        "references",
        "a script loads what the user chooses, and one choice is not there",
        |set| {
            let line = "initrd=gentoo.combined dokeymap root=live:/image.squashfs.img cdroot";
            let text = format!(
                "#!ipxe\nmenu Live\nitem one One\nitem two Two\nchoose os && goto ${{os}}\n:one\nset k gentoo\ngoto load\n\
                 :two\nset k gentto\ngoto load\n:load\nkernel ${{k}}.vmlinuz {line}\ninitrd gentoo.combined\nboot\n"
            );
            set.write("netboot/menu.ipxe", text);
        },
        "netboot/menu.ipxe:13: names the kernel gentto.vmlinuz, which is not there",
    ),
    damage(
        "pairs",
        "a script loads what belongs to the firmware, and takes it for the other",
        |set| {
            let line = "dokeymap root=live:/image.squashfs.img cdroot";
            let text = format!(
                "#!ipxe\niseq ${{platform}} efi && set k test || set k old\niseq ${{platform}} efi && set i old || set i test\n\
                 kernel ${{k}}.vmlinuz initrd=${{i}}.combined {line}\ninitrd ${{i}}.combined\nboot\n"
            );
            set.write("netboot/menu.ipxe", text);
        },
        "netboot/menu.ipxe:4: boots netboot/test.vmlinuz with netboot/old.combined",
    )
    .of(Base::Two),
    damage(
        "references",
        "GRUB's menu sets a name in both branches of a condition, one of them wrong",
        |set| {
            set.edit("netboot/grub/grub.cfg", "menuentry", "if [ $grub_platform = efi ]; then\n set k=gentto\nelse\n set k=gentoo\nfi\nmenuentry");
            set.edit("netboot/grub/grub.cfg", "gentoo.vmlinuz", "${k}.vmlinuz");
        },
        "gentto.vmlinuz, which is not there",
    ),
    damage(
        "grub-net",
        "an entry of a submenu takes its line from a variable that is not exported",
        |set| {
            set.edit("netboot/grub/grub.cfg", LINE, "$live");
            let text = String::from_utf8(set.read("netboot/grub/grub.cfg")).unwrap();
            let (before, entries) = text.split_once("menuentry").unwrap();
            let text = format!("set live={LINE}\n{before}submenu 'More' {{\nmenuentry{entries}}}\n");
            set.write("netboot/grub/grub.cfg", text);
        },
        "is missing",
    ),
    damage(
        "references",
        "GRUB's menu joins commands as a shell does",
        |set| set.edit("netboot/grub/grub.cfg", "menuentry", "insmod all_video && insmod gfxterm\nmenuentry"),
        "GRUB knows neither & nor |",
    ),
    damage(
        "iso-contents",
        "the menu in the EFI system partition goes on to one that is not there",
        |set| set.esp_menu("search --set=root --label Tiny-20260102\nconfigfile /boot/grub/gone.cfg\n"),
        ":/EFI/BOOT/grub.cfg:2: it names /boot/grub/gone.cfg, which is not on the ISO",
    ),
    warning(
        "iso-menu",
        "the menu in the EFI system partition boots nothing",
        |set| set.esp_menu("exit\n"),
        ":/EFI/BOOT/grub.cfg:1: boots nothing and goes on to no other menu",
    ),
    warning(
        "iso-menu",
        "the menu in the EFI system partition looks for a file that is not there",
        |set| set.esp_menu("search --set=root --file /.disk/gone\nconfigfile /boot/grub/grub.cfg\n"),
        "it looks for the volume that has /.disk/gone, which is not on this one",
    ),
    warning(
        "volume-id",
        "the menu in the EFI system partition looks for the UUID of another ISO",
        |set| set.esp_menu("search --set=root --fs-uuid 2025-01-02-03-04-05-00\nconfigfile /boot/grub/grub.cfg\n"),
        "looks for the volume 2025-01-02-03-04-05-00, but the ISO's UUID is 20",
    ),
    damage(
        "ipxe",
        "a script puts the squashfs into a folder that nobody makes",
        |set| {
            set.edit("netboot/inject.ipxe", " /image.squashfs.img", " /live/image.squashfs.img");
            set.edit("netboot/inject.ipxe", LINE, "root=live:/live/image.squashfs.img");
        },
        "into /live, which no initrd before it has: iPXE makes no folders",
    ),
    damage(
        "loaders",
        "PXELINUX lacks the module that it loads first",
        |set| fs::remove_file(set.path("netboot/ldlinux.c32")).unwrap(),
        "netboot/pxelinux.0: does nothing without ldlinux.c32",
    ),
    damage(
        "loaders",
        "an EFI program ends within its table of sections",
        |set| {
            let bytes = set.read("netboot/grub/x86_64-efi/core.efi");
            let at = u32::from_le_bytes(bytes[0x3c..0x40].try_into().unwrap()) as usize;
            set.write("netboot/grub/x86_64-efi/core.efi", &bytes[..at + 24 + 240 + 50]);
        },
        "is cut off: it ends before its table of sections does",
    ),
    damage(
        "iso-boot",
        "the image for BIOS is a picture",
        |set| {
            let (_, start) = set.boot_entry(Platform::Bios);
            set.overwrite_iso(start, b"\x89PNG\r\n\x1a\n");
        },
        "is no program: it is a picture (PNG)",
    ),
    damage(
        "iso-boot",
        "the partition table's EFI system partition is another place than El Torito's",
        |set| {
            let bytes = set.read(ISO);
            let entry = (446..510).step_by(16).find(|at| bytes[at + 4] == 0xef);
            match entry {
                Some(at) => set.overwrite_iso(at + 8, &4u32.to_le_bytes()),
                None => set.overwrite_iso(446 + 48 + 4, &[0xef, 0, 0, 0, 4, 0, 0, 0]),
            }
        },
        "its EFI system partition at byte 2048 is no FAT file system",
    ),
    damage(
        "squashfs-image",
        "the inodes of both squashfs are zeros, with lengths as they were",
        |set| {
            let iso = Iso::open(&set.iso()).unwrap();
            let start = iso.file("image.squashfs").unwrap().extents[0].0 as usize;
            let mut bytes = set.read(ISO);
            let long = |at: usize| u64::from_le_bytes(bytes[start + at..start + at + 8].try_into().unwrap()) as usize;
            let at = start + long(64);
            let length = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]) & 0x7fff);
            bytes[at + 2..at + 2 + length].fill(0);
            let image = bytes[start..start + iso.file("image.squashfs").unwrap().size() as usize].to_vec();
            set.write(ISO, bytes);
            set.write("netboot/image.squashfs", &image);
            set.write(&format!("{ISO}.squashfs"), &image);
            set.combine(0, &["image.squashfs.img"]);
        },
        "its inode table is damaged at byte",
    ),
    damage(
        "combined",
        "a later entry empties the squashfs",
        |set| set.append(&[archive("image.squashfs.img", b"")]),
        "there is no squashfs in what follows",
    ),
    warning(
        "combined",
        "an archive behind the squashfs adds a file",
        |set| set.append(&[archive("authorized_keys", b"ssh-ed25519 x")]),
        "has 1 file that the ISO's initrd lacks: /authorized_keys",
    ),
    warning(
        "initramfs",
        "a file of the initrd lies in a folder that no entry makes",
        |set| set.append(&[archive("lost/file", b"x")]),
        "the kernel does not make lost/file: no entry makes the folder",
    ),
    damage(
        "squashfs-image",
        "the squashfs lies in a folder that no entry of the initrd makes",
        |set| set.combine(0, &["live/image.squashfs.img"]),
        "no entry makes the folder that it lies in",
    ),
    damage(
        "squashfs-image",
        "the tables of the squashfs are zeros",
        |set| {
            let bytes = set.read("netboot/image.squashfs");
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            let (inodes, used) = (word(64), word(40));
            let start = Iso::open(&set.iso()).unwrap().file("image.squashfs").unwrap().extents[0].0;
            set.overwrite_iso((start + inodes) as usize, &vec![0; (used - inodes) as usize]);
        },
        "/image.squashfs: is no sound squashfs: its inode table is damaged",
    ),
    damage(
        "verity",
        "one bit of the hash tree in an initrd is flipped",
        |set| set.change("netboot/gentoo.initrd", b"verity\0\0", 6),
        "is not the hash tree of the squashfs",
    )
    .of(Base::Checked),
    damage(
        "verity",
        "an initrd has the root hash of another squashfs",
        |set| set.change("netboot/gentoo.initrd", b"\nroot=", 6),
        "netboot/gentoo.initrd: has the squashfs checked by the root hash",
    )
    .of(Base::Checked),
    damage(
        "verity",
        "nothing in an initrd uses the hash tree",
        |set| set.change("netboot/gentoo.initrd", b"00-stagegraph-verity.sh", 22),
        "which would use it: nothing is checked",
    )
    .of(Base::Checked),
    damage(
        "signatures",
        "a line of a signed list is changed, and there is a keyring",
        |set| {
            set.sign(&[LIST]);
            set.edit(LIST, "SHA512", "SHA-512");
        },
        "the signature of 2026-01-02 is bad",
    ),
    damage(
        "unsigned",
        "only the list of the ISO's folder is signed, and does not have the script",
        |set| {
            let text = String::from_utf8(set.read(LIST)).unwrap();
            let lines = text.lines().filter(|line| !line.contains("ipxe") && !line.contains("manifest"));
            set.write(LIST, lines.collect::<Vec<_>>().join("\n") + "\n");
            set.sign(&[LIST]);
        },
        "boot.ipxe: is a script or a menu that no good signature covers",
    ),
    damage(
        "code-signatures",
        "what is called a signature for iPXE is none",
        |set| set.write("netboot/gentoo.vmlinuz.ipxe.sig", "no signature"),
        "netboot/gentoo.vmlinuz.ipxe.sig: is no signature of netboot/gentoo.vmlinuz that iPXE takes: it is no CMS signature",
    ),
    damage(
        "provenance",
        "what is called a builder's statement is none",
        |set| set.write("install-tiny-20260102T030405Z.iso.intoto.jsonl", "{}\n"),
        "intoto.jsonl:1: is no envelope",
    ),
];

/// The list of the ISO and what lies beside it.
const LIST: &str = "install-tiny-20260102T030405Z.iso.DIGESTS";

fn initrd_of_nobody() -> Vec<u8> {
    archive("init", b"x")
}

/// Returns an archive with one file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let (before, behind) = cpio::around(name, content.len() as u64).unwrap();
    [before, content.to_vec(), behind].concat()
}

/// Returns an archive with one folder.
fn folder(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ::cpio::newc::Builder::new(name).mode(0o040_755).write(&mut bytes, 0).finish().unwrap();
    ::cpio::newc::trailer(bytes).unwrap()
}

/// Returns a message without what depends on versions of compressors: sizes and hashes.
fn steady(text: &str) -> String {
    let word = |word: &str| {
        let plain = word.trim_matches(|c: char| "(),:;".contains(c));
        if !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_digit()) {
            word.replace(plain, "N")
        } else if plain.ends_with('…') {
            word.replace(plain, "HEX…")
        } else {
            word.to_owned()
        }
    };
    text.replace('|', "\\|").replace('<', "&lt;").split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_damage_is_found_and_named_as_the_documentation_says() {
    let bases = Bases::new();
    for base in [Base::One, Base::Two, Base::WithoutLivenet] {
        let (code, report) = bases.copy(base).audit();
        assert_eq!((code, findings(&report)), (0, Vec::new()));
    }
    let mut table =
        String::from("| check | what it looks at | how it is broken | what it says |\n|---|---|---|---|\n");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let mut last = "";
    for Damage { check, how, base, damage, says, is_warning } in DAMAGES {
        assert!(seen.insert((check, how)), "{check}: {how} is there twice");
        let set = bases.copy(*base);
        damage(&set);
        let (code, report) = set.audit();
        let verdict = if *is_warning { "warning" } else { "different" };
        let all = findings(&report);
        let found = all.iter().find(|(c, v, text)| c == check && v == verdict && text.contains(says));
        match found {
            Some((_, _, text)) if *is_warning || code == 1 => {
                let text = steady(&text.replace(&set.dir.display().to_string(), "DIR").replace(ISO, "X.iso"));
                let what = stagegraph::audit::CHECKS.iter().find(|c| c.id == *check).unwrap().what;
                let (id, what) =
                    if last == *check { (String::new(), "") } else { (format!("`{check}`"), what) };
                last = check;
                table.push_str(&format!("| {id} | {what} | {how} | {text} |\n"));
            }
            _ => wrong.push(format!("{check}: {how}: {says:?} is not among ({code}) {all:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let broken: BTreeSet<&str> = DAMAGES.iter().map(|damage| damage.check).collect();
    assert_eq!(broken, stagegraph::audit::CHECKS.iter().map(|check| check.id).collect());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md");
    let page = fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- table -->\n", "<!-- end of table -->\n");
    let (before, rest) = page.split_once(start).unwrap();
    let (old, after) = rest.split_once(end).unwrap();
    if old != table {
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, format!("{before}{start}{table}{end}{after}")).unwrap();
        } else {
            panic!("the table of docs/audit.md is stale: run this test with UPDATE_DOCS=1");
        }
    }
}

/// Unpacks an ISO by hand, as people do, and writes a script for it.
fn by_hand(live: &Live, iso: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (on_iso, name) in [
        ("/boot/gentoo", "gentoo"),
        ("/boot/gentoo.igz", "gentoo.igz"),
        ("/image.squashfs", "image.squashfs"),
    ] {
        let to = to.join(name).display().to_string();
        run("xorriso", &["-osirrox", "on", "-indev", iso.to_str().unwrap(), "-extract", on_iso, &to]);
    }
    let script =
        "cp --no-preserve=mode gentoo.igz combined.igz && truncate -s %4 combined.igz && cp image.squashfs image.squashfs.img &&
        echo image.squashfs.img | cpio -o -H newc --quiet >> combined.igz && rm image.squashfs.img";
    run_in(to, "sh", &["-ec", script]);
    fs::write(
        to.join("boot.ipxe"),
        "#!ipxe\nset base http://boot.example.org/gentoo\n\
         kernel ${base}/gentoo initrd=combined.igz root=live:/image.squashfs.img cdroot dokeymap\n\
         initrd ${base}/combined.igz\nboot\n",
    )
    .unwrap();
    let _ = live;
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of sets, or one set from its making to its damage")]
fn an_iso_of_catalyst_and_a_set_unpacked_by_hand_match_and_its_own_checksums_count() {
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
    let root =
        "root=live:CDLABEL=Gentoo-amd64-20260102 rd.live.dir=/ rd.live.squashimg=image.squashfs cdroot";
    let entry = |title: &str, more: &str| {
        // As GRUB has it: a value is split at its blanks, a line goes on, what nothing sets is empty.
        format!(
            "set live=\"nodhcp {root}\"\nmenuentry '{title}' --class gnu-linux --class os {{\n\tlinux /boot/gentoo dokeymap $live \\\n\t\t\
             iso-scan/filename=${{iso_path}}{more}\n\tinitrd /boot/gentoo.igz\n}}\n"
        )
    };
    let menu = format!(
        "set default=0\nset gfxpayload=keep\nset timeout=10\ninsmod all_video\n\n{}\n{}\nsubmenu 'Special console options' {{\n{}}}\n\
         if [ \"x$grub_platform\" = xpc ]; then\nmenuentry \"Memtest86+\" {{\n\tlinux \"/boot/memtest86.bin\"\n}}\nfi\n",
        entry("Boot LiveCD (kernel: gentoo)", ""),
        entry("Boot LiveCD (kernel: gentoo) (cached)", " rd.live.ram=1"),
        entry("Boot LiveCD (kernel: gentoo) console=ttyS0", " console=ttyS0,115200n8"),
    );
    for (name, text) in [
        ("livecd", ""),
        ("README.txt", "x"),
        ("boot/gentoo-config", "CONFIG_X=y\n"),
        ("boot/memtest86.bin", "x"),
        ("boot/grub/grub.cfg", &menu),
    ] {
        fs::write(tree.join(name), text).unwrap();
    }
    let make = |name: &str| {
        run_in(
            &tree,
            "sh",
            &[
                "-c",
                "rm -f isoroot_b2sums && find -type f -exec b2sum {} + > ../sums && mv ../sums isoroot_b2sums",
            ],
        );
        let iso = live.world.path(name);
        let (iso_text, tree) = (iso.display().to_string(), tree.display().to_string());
        run(
            "grub-mkrescue",
            &[
                "--mbr-force-bootable",
                "-volid",
                "Gentoo-amd64-20260102",
                "-joliet",
                "-iso-level",
                "3",
                "-o",
                &iso_text,
                &tree,
            ],
        );
        iso
    };
    let iso = make("catalyst.iso");
    let set = live.world.path("by-hand");
    by_hand(&live, &iso, &set);
    let gpg = Gpg::new();
    let key = gpg.key("releng <releng@example.org>", "ed25519", &[]);
    let signed = |folder: &Path, name: &str, of: &str| {
        let script = format!("echo '# SHA512 HASH'; sha512sum {of}; echo '# BLAKE2B HASH'; b2sum --tag {of}");
        let list = run_in(folder, "bash", &["-c", &script]);
        fs::write(folder.join(name), gpg.clear(&key, list.as_bytes())).unwrap();
    };
    signed(live.world.dir.path(), "catalyst.iso.DIGESTS", "catalyst.iso");
    signed(&set, "DIGESTS", "gentoo gentoo.igz image.squashfs combined.igz boot.ipxe");
    let iso_text = iso.display().to_string();
    let clean = |netboot: &str| {
        let (code, report) = audit(&live, &[&iso_text, netboot]);
        assert_eq!((code, findings(&report)), (0, Vec::new()), "{netboot}");
        report
    };
    let report = clean(&set.display().to_string());
    let verdict = |id: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == id).unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    for id in ["iso-checksums", "combined", "digests", "ipxe", "modules"] {
        assert_eq!(verdict(id), "ok", "{id}");
    }
    clean(&set.join("boot.ipxe").display().to_string());

    // What `extract` makes of it matches as well, and boots with the ISO's own arguments.
    let output = live.stagegraph(&["extract", &iso_text, "extracted"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    clean(&live.world.path("extracted").display().to_string());
    let script = fs::read_to_string(live.world.path("extracted/inject.ipxe")).unwrap();
    assert!(
        script.contains(
            "kernel gentoo.vmlinuz initrd=gentoo.initrd ${keymap} nodhcp root=live:/image.squashfs.img"
        ),
        "{script}"
    );
    for (name, on_iso) in [
        ("gentoo.vmlinuz", "boot/gentoo"),
        ("gentoo.initrd", "boot/gentoo.igz"),
        ("image.squashfs", "image.squashfs"),
    ] {
        assert!(
            fs::read(live.world.path("extracted").join(name)).unwrap()
                == fs::read(tree.join(on_iso)).unwrap()
        );
    }
    let left: Vec<_> =
        fs::read_dir(live.world.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".extract")), "{left:?}");

    // The ISO's own checksums.
    let mut bytes = fs::read(&iso).unwrap();
    let start = Iso::open(&iso).unwrap().file("README.txt").unwrap().extents[0].0 as usize;
    bytes[start] = b'y';
    fs::write(&iso, bytes).unwrap();
    let (code, report) = audit(&live, &[&iso_text, &set.display().to_string()]);
    let found = findings(&report);
    assert_eq!(code, 1);
    assert!(
        found
            .iter()
            .any(|(check, _, text)| check == "iso-checksums" && text.contains("README.txt has other bytes")),
        "{found:?}"
    );
}

/// A folder for an ISO whose squashfs lies where most distributions have it: without menu and image.
fn foreign_tree(live: &Live) -> PathBuf {
    let tree = live.world.path("tree");
    for folder in ["boot/grub", "LiveOS", "a"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    for (from, to) in
        [("netboot/gentoo.vmlinuz", "boot/gentoo"), ("netboot/gentoo.initrd", "boot/gentoo.igz")]
    {
        fs::copy(live.published(from), tree.join(to)).unwrap();
    }
    tree
}

#[test]
fn what_only_the_machine_knows_is_not_judged_and_what_stands_there_is() {
    let live = Live::new();
    live.build(&[]);
    let tree = foreign_tree(&live);
    fs::copy(live.published("netboot/image.squashfs"), tree.join("LiveOS/squashfs.img")).unwrap();
    for (line, code) in [("$kernelopts", 0), ("root=/dev/sda9 $kernelopts", 1)] {
        let menu =
            format!("load_env\nmenuentry x {{\n linux /boot/gentoo {line}\n initrd /boot/gentoo.igz\n}}\n");
        fs::write(tree.join("boot/grub/grub.cfg"), menu).unwrap();
        let iso = live.world.path("open.iso").display().to_string();
        run(
            "xorriso",
            &["-as", "mkisofs", "-quiet", "-r", "-V", "Live-1", "-o", &iso, tree.to_str().unwrap()],
        );
        let set = live.published("netboot").display().to_string();
        let (found, report) = audit(&live, &["--allow", "iso-boot", &iso, &set]);
        assert_eq!(found, code, "{line}: {report}");
        let found = findings(&report);
        let of_menu: Vec<_> =
            found.iter().filter(|(check, ..)| check == "iso-menu" || check == "drift").collect();
        assert!(of_menu[0].2.contains("is not judged: only the machine knows ${kernelopts}"), "{of_menu:?}");
        assert_eq!(of_menu.len(), 1 + usize::try_from(code).unwrap(), "{of_menu:?}");
    }
}

#[test]
fn what_extract_would_write_is_audited_first() {
    let live = Live::new();
    live.build(&[]);
    let tree = foreign_tree(&live);
    // More small files in front, by name, than are looked at.
    for number in 0..600 {
        fs::write(tree.join(format!("a/{number}")), [b'x'; 600]).unwrap();
    }
    let image = fs::read(live.published("netboot/image.squashfs")).unwrap();
    let mut erofs = vec![0; 1 << 16];
    erofs[1024..1028].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
    let extract = |image: &[u8], label: &str, words: &str, args: &[&str]| {
        fs::write(tree.join("LiveOS/squashfs.img"), image).unwrap();
        let menu = format!(
            "menuentry 'Live' {{\n linux /boot/gentoo root=live:CDLABEL={label} rd.live.image dokeymap {words}\n initrd /boot/gentoo.igz\n}}\n"
        );
        fs::write(tree.join("boot/grub/grub.cfg"), menu).unwrap();
        let (iso, root) = (live.world.path("live.iso").display().to_string(), tree.display().to_string());
        run(
            "xorriso",
            &["-as", "mkisofs", "-quiet", "-r", "-J", "-iso-level", "3", "-V", "Live-1", "-o", &iso, &root],
        );
        let output = live.stagegraph(&[&["extract", &iso, "set"], args].concat());
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for (image, label, args, says) in [
        (&erofs[..], "Live-1", &[][..], "it is an image of EROFS, not a squashfs"),
        (&image[..image.len() / 2], "Live-1", &[], "it is cut off"),
        (&image, "Live-2", &[], "it looks for the volume \"Live-2\""),
    ] {
        let (code, text) = extract(image, label, "", args);
        assert_eq!(code, Some(1), "{says}: {text}");
        assert!(text.contains(says), "{says}: {text}");
        assert!(!live.world.path("set").exists(), "{says}: {text}");
    }
    // The audit of such an ISO says what lies there.
    fs::write(tree.join("LiveOS/squashfs.img"), &erofs).unwrap();
    let (_, report) = audit(
        &live,
        &[
            &{
                let iso = live.world.path("erofs.iso").display().to_string();
                run(
                    "xorriso",
                    &["-as", "mkisofs", "-quiet", "-r", "-V", "Live-1", "-o", &iso, tree.to_str().unwrap()],
                );
                iso
            },
            &live.published("netboot").display().to_string(),
        ],
    );
    assert!(
        format!("{:?}", findings(&report)).contains("/LiveOS/squashfs.img is an image of EROFS"),
        "{report}"
    );

    // What is known may pass; and what no other boot loader could be told is left out.
    let (code, text) =
        extract(&image, "Live-2", "a='$(x)'", &["--allow", "volume-id", "--allow", "iso-menu"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("grub.cfg:2: left out: \"a=$(x)\""), "{text}");
    let script = fs::read_to_string(live.world.path("set/boot.ipxe")).unwrap();
    assert!(!script.contains("$(x)"), "{script}");
    assert_eq!(live.stagegraph(&["extract", "x.iso", "y", "--allow", "volume"]).status.code(), Some(2));
}

/// A loop device, as a stick or a burned disc is one.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Self {
        let output =
            std::process::Command::new("losetup").args(["-r", "-f", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_stick_or_a_disc_is_read_as_a_file_is() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    live.build(&[]);
    // Sticks are larger than what is written to them.
    let stick = live.world.path("stick");
    let mut bytes = fs::read(live.iso()).unwrap();
    bytes.resize(bytes.len() + (3 << 20), 0xff);
    fs::write(&stick, bytes).unwrap();
    let device = Loop::over(&stick);
    let set = live.published("netboot").display().to_string();
    let (code, report) = audit(&live, &[&device.0, &set]);
    assert_eq!((code, findings(&report)), (0, Vec::new()));
    let output = live.stagegraph(&["extract", &device.0, "from-stick"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        fs::read(live.world.path("from-stick/image.squashfs")).unwrap()
            == fs::read(live.published("netboot/image.squashfs")).unwrap()
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of sets, or one set from its making to its damage")]
fn what_people_really_write_is_no_difference() {
    let live = Live::new();
    live.build(&[]);
    let iso = live.iso().display().to_string();
    let base = live.world.path("base");
    by_hand(&live, &live.iso(), &base);
    let script = |extra: &str| {
        format!(
            "#!ipxe\n{extra}\nkernel gentoo initrd=gentoo.igz dokeymap root=live:/image.squashfs.img\ninitrd gentoo.igz\n\
                 initrd image.squashfs /image.squashfs.img\nboot\n"
        )
    };
    type Make<'a> = &'a dyn Fn(&Path);
    let good: &[(&str, Make<'_>)] = &[
        ("a menu with gaps and keys", &|set| {
            let menu = "menu Live\nitem --gap -- Systems\nitem --key g go Gentoo\nchoose --default go x && goto ${x}\n:go\nimgfree";
            fs::write(set.join("boot.ipxe"), script(menu)).unwrap();
        }),
        ("comments in lines, commands behind labels, variables in variables", &|set| {
            let text = "#!ipxe\nset which live\nset args_live dokeymap root=live:/image.squashfs.img\n\
                        goto go\n:go kernel gentoo initrd=combined.igz ${args_${which}} # quiet\ninitrd combined.igz # more\nboot\n";
            fs::write(set.join("boot.ipxe"), text).unwrap();
        }),
        ("words for images, before they are chosen", &|set| {
            let text = "#!ipxe\nimgfetch --name k gentoo\ninitrd combined.igz\ninitrd gentoo.igz\nimgfree gentoo.igz\n\
                        imgargs k initrd=combined.igz dokeymap root=live:/image.squashfs.img\nimgexec k\n";
            fs::write(set.join("boot.ipxe"), text).unwrap();
        }),
        ("a kernel that a script goes on to", &|set| {
            let text = "#!ipxe\ninitrd combined.igz\nchain gentoo initrd=combined.igz dokeymap root=live:/image.squashfs.img\n";
            fs::write(set.join("boot.ipxe"), text).unwrap();
        }),
        ("GRUB's loops, negations and shifted arguments", &|set| {
            fs::remove_file(set.join("boot.ipxe")).unwrap();
            fs::create_dir(set.join("grub")).unwrap();
            let text = "for x in combined.igz other; do\n set ini=$x\n break\ndone\nset n=gone\nwhile [ \"$n\" = gone ]; do set n=gentoo; done\n\
                        function second { shift; set word=$1; }\nsecond a dokeymap\nif ! [ -f /gone ]; then set root_=live:/image.squashfs.img; fi\n\
                        menuentry 'Gentoo' {\n linux /$n $word root=$root_\n initrd /$ini\n}\n";
            fs::write(set.join("grub/grub.cfg"), text).unwrap();
        }),
        ("a kernel that only the machine knows", &|set| {
            fs::remove_file(set.join("boot.ipxe")).unwrap();
            fs::create_dir(set.join("grub")).unwrap();
            let text = "for k in /gen*; do true; done\nmenuentry 'Gentoo' {\n linux $k dokeymap root=live:/image.squashfs.img\n initrd /combined.igz\n}\n";
            fs::write(set.join("grub/grub.cfg"), text).unwrap();
        }),
        ("images with names", &|set| {
            let text = "#!ipxe\nimgfetch --name kernel gentoo\ninitrd --name initrd.img combined.igz\n\
                        imgexec kernel initrd=initrd.img dokeymap root=live:/image.squashfs.img\n";
            fs::write(set.join("boot.ipxe"), text).unwrap();
        }),
        ("GRUB from a server in a variable", &|set| {
            fs::remove_file(set.join("boot.ipxe")).unwrap();
            fs::create_dir(set.join("grub")).unwrap();
            let text = "set root=(tftp,192.0.2.1)\nmenuentry \"Gentoo\" { linux ($root)/gentoo dokeymap root=live:/image.squashfs.img ; \
                        initrd ($root)/gentoo.igz newc:image.squashfs.img:/image.squashfs }\n";
            fs::write(set.join("grub/grub.cfg"), text).unwrap();
        }),
        ("a link to the folder of a release", &|set| {
            fs::create_dir(set.join("2026")).unwrap();
            for name in ["gentoo", "gentoo.igz", "image.squashfs"] {
                fs::rename(set.join(name), set.join("2026").join(name)).unwrap();
            }
            fs::remove_file(set.join("combined.igz")).unwrap();
            run_in(
                set,
                "sh",
                &["-c", "sha256sum 2026/gentoo 2026/gentoo.igz 2026/image.squashfs > SHA256SUMS"],
            );
            symlink("2026", set.join("latest")).unwrap();
            symlink("..", set.join("2026/up")).unwrap();
            let text = script("")
                .replace("kernel gentoo", "kernel latest/gentoo")
                .replace("initrd gentoo", "initrd latest/gentoo")
                .replace("initrd image", "initrd latest/image");
            fs::write(set.join("boot.ipxe"), text).unwrap();
        }),
        ("another file put into the initrd", &|set| {
            fs::write(set.join("authorized_keys"), "ssh-ed25519 x\n").unwrap();
            let text = script("").replace(
                "boot\n",
                "initrd authorized_keys /root/.ssh/authorized_keys mode=600 mkdir=2\nboot\n",
            );
            fs::write(set.join("boot.ipxe"), text).unwrap();
        }),
        ("names that iPXE sets itself, and those that only a machine knows", &|set| {
            let more = "chain http://boot.example.org/boot.php?uuid=${uuid}&mac=${net0/mac:hexhyp} ||\niseq ${bios} x ||\necho \u{e9}";
            let mut bytes = script(more).into_bytes();
            // As Latin-1 has it.
            let at = bytes.windows(2).position(|pair| pair == [0xc3, 0xa9]).unwrap();
            bytes.splice(at..at + 2, [0xe9]);
            fs::write(set.join("boot.ipxe"), bytes).unwrap();
        }),
        ("boot with the words of the line", &|set| {
            let text = "#!ipxe\nkernel gentoo\ninitrd combined.igz\nboot gentoo initrd=combined.igz dokeymap root=live:/image.squashfs.img\n";
            fs::write(set.join("boot.ipxe"), text).unwrap();
        }),
        ("a script that goes on to another one with its variables", &|set| {
            fs::write(set.join("boot.ipxe"), "#!ipxe\nset image combined.igz\nchain menus/live\n").unwrap();
            fs::create_dir(set.join("menus")).unwrap();
            let text = "#!ipxe\nkernel ../gentoo initrd=${image} dokeymap root=live:/image.squashfs.img\ninitrd ../${image}\nboot\n";
            fs::write(set.join("menus/live"), text).unwrap();
        }),
        ("GRUB's words in variables, over several lines, from Windows", &|set| {
            fs::remove_file(set.join("boot.ipxe")).unwrap();
            fs::create_dir(set.join("grub")).unwrap();
            let text = "set live=\"dokeymap root=live:/image.squashfs.img\"\r\nmenuentry 'Gentoo' {\r\n linux /gentoo \\\r\n\
                        # quiet\r\n  ${live} $debug_words\r\n initrd /combined.igz\r\n}\r\n";
            fs::write(set.join("grub/grub.cfg"), text).unwrap();
        }),
        ("GRUB's words that only the machine knows", &|set| {
            fs::create_dir(set.join("grub")).unwrap();
            let text = "load_env\nmenuentry 'Gentoo' {\n linux /gentoo dokeymap $kernelopts\n initrd /combined.igz\n}\n";
            fs::write(set.join("grub/grub.cfg"), text).unwrap();
        }),
        ("GRUB goes on to a menu of another name", &|set| {
            fs::remove_file(set.join("boot.ipxe")).unwrap();
            fs::create_dir_all(set.join("grub")).unwrap();
            fs::create_dir(set.join("menus")).unwrap();
            fs::write(
                set.join("grub/grub.cfg"),
                "set words='dokeymap root=live:/image.squashfs.img'\nsource /menus/live\n",
            )
            .unwrap();
            let text = "menuentry 'Gentoo' {\n linux /gentoo $words\n initrd /combined.igz\n}\n";
            fs::write(set.join("menus/live"), text).unwrap();
        }),
        ("PXELINUX goes on to a menu of another name", &|set| {
            fs::remove_file(set.join("boot.ipxe")).unwrap();
            fs::create_dir(set.join("pxelinux.cfg")).unwrap();
            fs::write(
                set.join("pxelinux.cfg/default"),
                "DEFAULT live\nAPPEND initrd=combined.igz dokeymap root=live:/image.squashfs.img\nINCLUDE systems.txt\n",
            )
            .unwrap();
            fs::write(set.join("systems.txt"), "LABEL live\nKERNEL gentoo\n").unwrap();
        }),
        ("lists of other tools, from Windows, with detached signatures", &|set| {
            let script = "openssl dgst -sha512 gentoo gentoo.igz > openssl.sha512; sha256sum -z gentoo gentoo.igz > SHA256SUMS
                printf '\\357\\273\\277' > B2SUMS; b2sum gentoo gentoo.igz | sed 's/$/\\r/' >> B2SUMS
                (echo '# gentoo: 1 bytes'; sha256sum --tag gentoo) > Live-1-CHECKSUM";
            run_in(set, "sh", &["-ec", script]);
            let gpg = Gpg::new();
            let key = gpg.key("them <them@example.org>", "ed25519", &[]);
            for (list, end, how) in [
                ("SHA256SUMS", "asc", "--armor"),
                ("B2SUMS", "asc", "--armor"),
                ("SHA256SUMS", "gpg", "--no-armor"),
            ] {
                let signature = gpg.detached(&key, &[how], &fs::read(set.join(list)).unwrap());
                fs::write(set.join(format!("{list}.{end}")), signature).unwrap();
            }
        }),
        ("lists in other forms", &|set| {
            fs::write(set.join("boot.ipxe"), script("set space:hex 20\necho a${space:string}b")).unwrap();
            let script = "sha512sum gentoo | cut -d' ' -f1 > gentoo.sha512; sha256sum --tag gentoo gentoo.igz image.squashfs > SHA256SUMS
                md5sum gentoo > MD5SUMS";
            run_in(set, "sh", &["-ec", script]);
        }),
    ];
    for (name, make) in good {
        let set = live.world.path("set");
        run("cp", &["-r", base.to_str().unwrap(), set.to_str().unwrap()]);
        make(&set);
        let (code, report) = audit(&live, &[&iso, &set.display().to_string()]);
        let found = findings(&report);
        let wrong: Vec<_> = found.iter().filter(|(_, verdict, _)| verdict != "warning").collect();
        assert_eq!((code, wrong), (0, Vec::new()), "{name}");
        if name.contains("link") {
            let only = found.iter().filter(|(_, _, text)| !text.contains("boot.ipxe")).collect::<Vec<_>>();
            assert!(only.is_empty(), "one file under two names counts once: {only:?}");
        }
        fs::remove_dir_all(&set).unwrap();
    }
}

#[test]
fn every_kind_of_spec_gives_a_set_without_findings() {
    for more in [
        &["--set", "squashfs.compressor=xz"][..],
        &["--set", "netboot.loaders=false"],
        &[
            "--set",
            "image.bootargs=[\"dokeymap\", \"nodhcp\", \"quiet\"]",
            "--set",
            "image.consoles=[\"tty0\", \"ttyS1,9600n8\"]",
        ],
        &["--set", "image.label=live", "--set", "image.title=A system"],
    ] {
        let live = Live::new();
        live.build(more);
        let (code, report) = audit(&live, &["tiny"]);
        assert_eq!((code, findings(&report)), (0, Vec::new()), "{more:?}");
        let iso = live.iso().display().to_string();
        let (code, report) = audit(&live, &[&iso, &format!("{iso}.ipxe")]);
        assert_eq!((code, findings(&report)), (0, Vec::new()), "{more:?}");
    }
    // genkernel, alone and beside dracut.
    for both in [false, true] {
        let live = Live::new();
        let boot = live.root().join("boot");
        let genkernel = [("init", "#!/bin/sh\n"), ("etc/initrd.scripts", ""), ("lib/modules/5.0/x", "")];
        if both {
            write_kernel(&boot.join("vmlinuz-old"), "5.0");
            write_initrd(&boot.join("initramfs-old.img"), &genkernel, "xz --check=crc32");
        } else {
            write_kernel(&boot.join("vmlinuz-test"), "5.0");
            write_initrd(&boot.join("initramfs-test.img"), &genkernel, "xz --check=crc32");
        }
        live.build(&[]);
        let (code, report) = audit(&live, &["tiny"]);
        assert_eq!((code, findings(&report)), (0, Vec::new()), "both: {both}");
    }
}

#[test]
fn a_build_that_would_publish_what_does_not_match_fails_and_publishes_nothing() {
    let live = Live::new();
    live.build(&[]);
    let before = crate::live::hashes(&live.out());
    // A name that the mirrors' script would misplace, made by a node of the user's own.
    let node = "[node.odd]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"mkdir out/odd; echo '#!ipxe' > out/odd/install-tiny-20260102T030405Z-x.ipxe\"]\n\
                tools = [\"mkdir\"]\noutputs = { folder = \"odd/\" }\n[node.audit.input]\nodd = \"odd.folder\"\n[publish]\n\".\" = [\"iso.files\", \"netboot.beside\", \"ipxe.beside\", \"manifest.files\", \"digests.files\", \"odd.folder\"]\n";
    live.write_spec("path = \"root\"\n", node);
    let output = live.stagegraph(&["build", &live.spec()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("names: install-tiny-20260102T030405Z-x.ipxe")
            && text.contains("nothing was published"),
        "{text}"
    );
    assert_eq!(crate::live::hashes(&live.out()), before);
    live.write_spec("path = \"root\"\n", &format!("{node}[node.audit]\nallow = [\"names\"]\n"));
    live.build(&[]);
}

#[test]
fn the_report_for_people_fits_eighty_columns_and_ends_in_what_to_do() {
    let live = Live::new();
    live.build(&[]);
    let text =
        |args: &[&str]| String::from_utf8(live.stagegraph(&[&["audit"], args].concat()).stdout).unwrap();
    let fine = text(&["tiny"]);
    assert!(fine.ends_with("The ISO and the netboot set match.\n"), "{fine}");
    let copy = live.world.path("copy");
    run("cp", &["-r", live.out().to_str().unwrap(), copy.to_str().unwrap()]);
    fs::remove_file(copy.join("netboot/gentoo.vmlinuz")).unwrap();
    let broken = text(&["copy"]);
    assert!(broken.contains("FAIL") && broken.contains("→") && broken.contains("DO NOT match"), "{broken}");
    for line in fine.lines().chain(broken.lines()) {
        let words = line.split_whitespace().count();
        assert!(line.chars().count() <= 80 || words <= 3, "{line}");
    }
}

#[test]
fn what_cannot_be_read_is_no_match() {
    let live = Live::new();
    live.build(&[]);
    let iso = live.iso().display().to_string();
    let codes: BTreeMap<&str, Option<i32>> = [
        ("gone", live.stagegraph(&["audit", "gone.iso", "out/tiny"])),
        ("no set", live.stagegraph(&["audit", &iso, "gone"])),
        ("no spec", live.stagegraph(&["audit", "gone"])),
        ("one iso", live.stagegraph(&["audit", &iso])),
        ("no script", live.stagegraph(&["audit", &iso, &iso])),
        ("no check", live.stagegraph(&["audit", "tiny", "--allow", "kernal"])),
    ]
    .map(|(name, output)| (name, output.status.code()))
    .into();
    let expected =
        [("gone", 3), ("no check", 2), ("no script", 2), ("no set", 3), ("no spec", 2), ("one iso", 2)];
    assert_eq!(codes, expected.map(|(name, code)| (name, Some(code))).into());
}
