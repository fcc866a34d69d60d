//! Which kernel is meant, and with which initrds: layouts of boot folders and of ISOs as people have them.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::live::{Live, RELEASE, dracut, write_dracut_initrd, write_initrd, write_kernel};
use crate::world::{run, run_in};

/// What a layout gives: labels and releases of the kernels, and words that are said.
struct Expected<'a> {
    kernels: &'a [(&'a str, &'a str)],
    says: &'a [&'a str],
}

fn boot(live: &Live, path: &str) -> std::path::PathBuf {
    let path = live.root().join("boot").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

fn kernel(live: &Live, path: &str, release: &str) {
    write_kernel(&boot(live, path), release);
}

fn initrd(live: &Live, path: &str, release: &str) {
    write_dracut_initrd(&boot(live, path), release);
}

/// Writes an Image of arm64, and says its release far behind its header.
pub(crate) fn arm64_image(release: &str) -> Vec<u8> {
    let mut bytes = vec![0; 200_000];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x38..0x3c].copy_from_slice(b"ARM\x64");
    bytes.extend_from_slice(format!("Linux version {release} (x@y) #1\0").as_bytes());
    bytes
}

/// Builds the netboot half of the graph; returns its output.
fn build(live: &Live, more: &str) -> Output {
    live.write_spec("path = \"root\"\n", more);
    let spec =
        fs::read_to_string(live.spec()).unwrap().replace("extends = \"livecd\"", "extends = \"netboot\"");
    fs::write(live.spec(), spec).unwrap();
    live.stagegraph(&["build", &live.spec()])
}

/// Returns what was found, by the facts of the node `initrd`.
fn check(live: &Live, name: &str, output: &Output, expected: &Expected<'_>) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{name}: {text}");
    for says in expected.says {
        assert!(text.contains(says), "{name}: {says:?} is not in {text}");
    }
    let mut kernels: Vec<String> = fs::read_dir(live.out())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|file| file.strip_suffix(".vmlinuz").map(str::to_owned))
        .collect();
    kernels.sort();
    let labels: Vec<&str> = expected.kernels.iter().map(|(label, _)| *label).collect();
    assert_eq!(kernels, labels, "{name}: {text}");
    for (label, release) in expected.kernels {
        let bytes = fs::read(live.published(&format!("{label}.vmlinuz"))).unwrap();
        let found = stagegraph::formats::kernel::detect_named(&bytes).unwrap();
        let found = found.release.clone().or_else(|| found.look_inside(&bytes[..]).unwrap().release);
        assert_eq!(found.as_deref(), Some(*release), "{name}: {label}");
        let initrd = fs::read(live.published(&format!("{label}.initrd"))).unwrap();
        let initramfs = stagegraph::formats::initramfs::read(&initrd[..]).unwrap();
        assert!(initramfs.kernels.contains(*release), "{name}: {label}: {:?}", initramfs.kernels);
    }
}

type Layout<'a> = (&'a str, &'a dyn Fn(&Live), Expected<'a>);

#[test]
#[expect(clippy::too_many_lines, reason = "one table of layouts")]
fn kernels_are_found_by_what_is_inside_them_and_by_menus() {
    let only: &[(&str, &str)] = &[("gentoo", RELEASE)];
    let layouts: &[Layout<'_>] = &[
        (
            "a rescue kernel without an initrd beside a good one",
            &|live| kernel(live, "vmlinuz-0-rescue-0123", "6.1.0-rescue"),
            Expected {
                kernels: only,
                says: &["a kernel is left out: no initrd goes with the kernel vmlinuz-0-rescue-0123"],
            },
        ),
        (
            "kernel-install: two versions, each in its folder",
            &|live| {
                for file in ["vmlinuz-test", "initramfs-test.img"] {
                    fs::remove_file(boot(live, file)).unwrap();
                }
                for release in ["6.1.0-a", "6.6.0-b"] {
                    kernel(live, &format!("0123/{release}/linux"), release);
                    initrd(live, &format!("0123/{release}/initrd"), release);
                }
            },
            Expected { kernels: &[("6.1.0-a", "6.1.0-a"), ("6.6.0-b", "6.6.0-b")], says: &[] },
        ),
        (
            "names that say nothing, and initrds that do",
            &|live| {
                kernel(live, "bzImage", "6.6.0-b");
                initrd(live, "one.img", "6.6.0-b");
                initrd(live, "two.img", "6.9.0-c");
            },
            Expected { kernels: &[("6.6.0-b", "6.6.0-b"), ("test", RELEASE)], says: &[] },
        ),
        (
            "entries of the Boot Loader Specification say which one, with microcode",
            &|live| {
                fs::rename(boot(live, "initramfs-test.img"), boot(live, "x.img")).unwrap();
                initrd(live, "y.img", RELEASE);
                write_initrd(
                    &boot(live, "ucode.img"),
                    &[("kernel/x86/microcode/AuthenticAMD.bin", "code")],
                    "cat",
                );
                fs::write(
                    boot(live, "loader/entries/test.conf"),
                    "title Test\nlinux /vmlinuz-test\ninitrd /ucode.img\ninitrd /y.img\noptions quiet\n",
                )
                .unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "a menu whose first entry is stale",
            &|live| {
                initrd(live, "old.img", "5.0.0");
                let entry = |initrd: &str| {
                    format!("menuentry x {{\n linux /boot/vmlinuz-test\n initrd /boot/{initrd}\n}}\n")
                };
                fs::write(boot(live, "grub/grub.cfg"), entry("old.img") + &entry("initramfs-test.img"))
                    .unwrap();
            },
            Expected { kernels: only, says: &["the first that fit are taken: initramfs-test.img"] },
        ),
        (
            "a menu that is stale as a whole",
            &|live| {
                initrd(live, "old.img", "5.0.0");
                let entry = "menuentry x {\n linux /boot/vmlinuz-test\n initrd /boot/old.img\n}\n";
                fs::write(boot(live, "grub/grub.cfg"), entry).unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "a link out of /boot, inside the root",
            &|live| {
                let modules = live.root().join("usr/lib/modules").join(RELEASE);
                fs::create_dir_all(&modules).unwrap();
                fs::rename(boot(live, "vmlinuz-test"), modules.join("vmlinuz")).unwrap();
                let target = format!("../usr/lib/modules/{RELEASE}/vmlinuz");
                std::os::unix::fs::symlink(target, boot(live, "vmlinuz-test")).unwrap();
                std::os::unix::fs::symlink("/gone", boot(live, "vmlinuz-old")).unwrap();
            },
            Expected {
                kernels: only,
                says: &["boot/vmlinuz-old is a link that leads to nothing in the root"],
            },
        ),
        (
            "/boot itself is an absolute link",
            &|live| {
                fs::create_dir(live.root().join("usr")).unwrap();
                fs::rename(live.root().join("boot"), live.root().join("usr/boot")).unwrap();
                std::os::unix::fs::symlink("/usr/boot", live.root().join("boot")).unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "the same kernel under two names",
            &|live| {
                fs::copy(boot(live, "vmlinuz-test"), boot(live, "vmlinuz")).unwrap();
                fs::hard_link(boot(live, "vmlinuz-test"), boot(live, "kernel")).unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "an installer's initrd, which is for no live system",
            &|live| {
                kernel(live, "install/vmlinuz", "6.6.1-inst");
                write_initrd(&boot(live, "install/initrd.gz"), &[("init", "#!/bin/sh\n")], "gzip -n");
            },
            Expected {
                kernels: only,
                says: &["a kernel is left out: the initrd install/initrd.gz was made by neither"],
            },
        ),
        (
            "an Image of arm64, packed by gzip",
            &|live| {
                fs::write(live.world.path("image"), arm64_image(RELEASE)).unwrap();
                let to = boot(live, "vmlinuz-test").display().to_string();
                run("sh", &["-c", &format!("gzip -n < '{}' > '{to}'", live.world.path("image").display())]);
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "an Image of riscv",
            &|live| {
                let mut image = arm64_image(RELEASE);
                image[0x38..0x3c].copy_from_slice(b"RSC\x05");
                fs::write(boot(live, "vmlinuz-test"), image).unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "an ELF kernel, as PowerPC starts it",
            &|live| {
                let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x15\0".to_vec();
                image.extend(&arm64_image(RELEASE)[100..]);
                fs::write(boot(live, "vmlinux-test"), image).unwrap();
                fs::remove_file(boot(live, "vmlinuz-test")).unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "an initrd that only a menu calls so",
            &|live| {
                fs::rename(boot(live, "initramfs-test.img"), boot(live, "rd.gz")).unwrap();
                fs::write(
                    boot(live, "grub/grub.cfg"),
                    "menuentry x {\n linux /boot/vmlinuz-test\n initrd /boot/rd.gz\n}\n",
                )
                .unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "an initrd of a name that pictures have",
            &|live| fs::rename(boot(live, "initramfs-test.img"), boot(live, "rd.gz")).unwrap(),
            Expected { kernels: only, says: &[] },
        ),
        (
            "kernels of one name and release, in two folders",
            &|live| {
                for folder in ["a", "b"] {
                    kernel(live, &format!("{folder}/linux"), "6.6.0-b");
                    initrd(live, &format!("{folder}/initrd"), "6.6.0-b");
                    fs::write(
                        boot(live, &format!("{folder}/linux")),
                        [fs::read(boot(live, &format!("{folder}/linux"))).unwrap(), folder.into()].concat(),
                    )
                    .unwrap();
                }
                for file in ["vmlinuz-test", "initramfs-test.img"] {
                    fs::remove_file(boot(live, file)).unwrap();
                }
            },
            Expected { kernels: &[("a-6.6.0-b", "6.6.0-b"), ("b-6.6.0-b", "6.6.0-b")], says: &[] },
        ),
        (
            "the kernel before, with its initrd",
            &|live| {
                kernel(live, "vmlinuz-test.old", "6.0.0-old");
                initrd(live, "initramfs-test.img.old", "6.0.0-old");
            },
            Expected { kernels: &[("test", RELEASE), ("test.old", "6.0.0-old")], says: &[] },
        ),
        (
            "a menu that names files by a link to their folder",
            &|live| {
                for file in ["vmlinuz-test", "initramfs-test.img"] {
                    let to = boot(live, &format!("6.1/{file}"));
                    fs::rename(boot(live, file), to).unwrap();
                }
                initrd(live, "6.1/initramfs-other.img", RELEASE);
                std::os::unix::fs::symlink("6.1", boot(live, "latest")).unwrap();
                let entry = "menuentry x {\n linux /boot/latest/vmlinuz-test\n initrd /boot/latest/initramfs-test.img\n}\n";
                fs::write(boot(live, "grub/grub.cfg"), entry).unwrap();
            },
            Expected { kernels: only, says: &[] },
        ),
        (
            "a name that no menu can have",
            &|live| {
                kernel(live, "vmlinuz-6.6.0~rc1", "6.6.0-rc1");
                initrd(live, "initramfs-6.6.0~rc1.img", "6.6.0-rc1");
            },
            Expected { kernels: &[("6.6.0-rc1", "6.6.0-rc1"), ("test", RELEASE)], says: &[] },
        ),
        (
            "a kernel that is cut off",
            &|live| {
                kernel(live, "vmlinuz-6.6.0", "6.6.0");
                initrd(live, "initramfs-6.6.0.img", "6.6.0");
                let bytes = fs::read(boot(live, "vmlinuz-6.6.0")).unwrap();
                fs::write(boot(live, "vmlinuz-6.6.0"), &bytes[..bytes.len() - 100]).unwrap();
                let mut bytes = fs::read(boot(live, "vmlinuz-6.6.0")).unwrap();
                bytes[0x1f6] = 1;
                fs::write(boot(live, "vmlinuz-6.6.0"), bytes).unwrap();
            },
            Expected { kernels: only, says: &["a kernel is left out: the kernel vmlinuz-6.6.0 is cut off"] },
        ),
    ];
    for (name, make, expected) in layouts {
        let live = Live::new();
        make(&live);
        check(&live, name, &build(&live, ""), expected);
    }
}

#[test]
fn microcode_is_no_initrd_by_itself() {
    let live = Live::new();
    fs::remove_file(boot(&live, "initramfs-test.img")).unwrap();
    // It does not say for which kernel it is.
    write_initrd(
        &boot(&live, "live.img"),
        &[("usr/lib/dracut/modules.txt", "base\ndmsquash-live\n")],
        "gzip -n",
    );
    write_initrd(&boot(&live, "amd-uc.img"), &[("kernel/x86/microcode/AuthenticAMD.bin", "code")], "cat");
    let output = build(&live, "");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let published = fs::read(live.published("gentoo.initrd")).unwrap();
    assert_eq!(published, fs::read(boot(&live, "live.img")).unwrap());
}

#[test]
fn several_initrds_of_an_entry_become_one_file_in_their_order() {
    let live = Live::new();
    write_initrd(&boot(&live, "ucode.img"), &[("kernel/x86/microcode/AuthenticAMD.bin", "code")], "cat");
    fs::write(
        boot(&live, "grub/grub.cfg"),
        "menuentry x {\n linux /boot/vmlinuz-test quiet\n initrd /boot/ucode.img /boot/initramfs-test.img\n}\n",
    )
    .unwrap();
    let output = build(&live, "");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected = fs::read(boot(&live, "ucode.img")).unwrap();
    expected.resize(expected.len().next_multiple_of(4), 0);
    expected.extend(fs::read(boot(&live, "initramfs-test.img")).unwrap());
    assert_eq!(fs::read(live.published("gentoo.initrd")).unwrap(), expected);
}

#[test]
fn a_spec_names_what_is_meant_and_what_is_not_there_is_an_error() {
    let live = Live::new();
    kernel(&live, "vmlinuz-other", "6.6.0-b");
    initrd(&live, "other.img", "6.6.0-b");
    let named = "[image.kernels.rescue]\nkernel = \"vmlinuz-other\"\ninitrd = [\"other.img\"]\n";
    let output = build(&live, named);
    check(&live, "named", &output, &Expected { kernels: &[("rescue", "6.6.0-b")], says: &[] });
    for (more, code, says) in [
        (
            "[image.kernels.rescue]\nkernel = \"vmlinuz-gone\"\n",
            1,
            "there is no kernel vmlinuz-gone; there are",
        ),
        (
            "[image.kernels.rescue]\nkernel = \"vmlinuz-other\"\ninitrd = \"gone\"\n",
            1,
            "there is no initrd gone",
        ),
        (
            "[image.kernels.rescue]\nkernel = \"vmlinuz-other\"\ninitrd = \"initramfs-test.img\"\n",
            1,
            "is 6.6.0-b, but the initrd initramfs-test.img has modules for 6.1.0-test",
        ),
        ("[image.kernels.rescue]\ninitrd = \"other.img\"\n", 2, "kernel"),
        ("[image.kernels.\"a b\"]\nkernel = \"vmlinuz-other\"\n", 2, "cannot be a kernel's file name"),
        ("[image.kernels.rescue]\nkernel = \"vmlinuz-other\"\ninitrds = \"x\"\n", 2, "initrds"),
    ] {
        let output = build(&live, more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{more}{text}");
        assert!(text.contains(says), "{more}: {says:?} is not in {text}");
    }
}

#[test]
fn foreign_kernels_are_refused_where_boot_loaders_for_pcs_are_made_and_so_are_foreign_initrds() {
    let live = Live::new();
    fs::write(boot(&live, "vmlinuz-test"), arm64_image(RELEASE)).unwrap();
    let output = live.stagegraph(&["build", &live.spec()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("the kernel gentoo is for arm64; the image is for amd64, and so are its boot loaders"),
        "{text}"
    );
    assert!(text.contains("write arch = \"arm64\" into [image]"), "{text}");
    assert!(!live.out().exists());

    // An initrd with programs for another machine than its kernel's is no initrd of it.
    let mut files = dracut(RELEASE);
    files.push(("init".to_owned(), "\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x16\0".to_owned()));
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    write_initrd(&boot(&live, "initramfs-test.img"), &files, "gzip -n");
    let output = build(&live, "");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the kernel vmlinuz-test is for arm64, but init in the initrd"), "{text}");
}

/// Makes an ISO of a folder.
fn make_iso(tree: &Path, iso: &Path) {
    let args = [
        "-as",
        "mkisofs",
        "-quiet",
        "-r",
        "-V",
        "MyLive",
        "-o",
        iso.to_str().unwrap(),
        tree.to_str().unwrap(),
    ];
    run("xorriso", &args);
}

#[test]
fn the_set_of_an_iso_has_the_kernel_that_its_menu_boots_with_all_its_initrds() {
    let live = Live::new();
    let tree = live.world.path("tree");
    let script = "mkdir -p tree/isolinux tree/images/pxeboot tree/LiveOS tree/EFI/BOOT tree/install tree/boot
        mksquashfs root tree/LiveOS/squashfs.img -quiet -no-progress >/dev/null
        for d in isolinux images/pxeboot; do cp root/boot/vmlinuz-test tree/$d/vmlinuz; cp root/boot/initramfs-test.img tree/$d/initrd.img; done
        ln -s ../images/pxeboot/vmlinuz tree/boot/linux; ln -s ../gone tree/boot/old
        mkdir -p k/kernel/x86/microcode; echo code > k/kernel/x86/microcode/AuthenticAMD.bin; (cd k; find . | cpio -o -H newc --quiet > ../tree/boot/uc.img)
        echo x | cpio -o -H newc --quiet 2>/dev/null </dev/null | gzip > tree/install/initrd.gz";
    run_in(live.world.dir.path(), "sh", &["-ec", script]);
    write_kernel(&tree.join("install/vmlinuz"), "6.6.1-inst");
    let line = "root=live:CDLABEL=MyLive rd.live.image quiet";
    fs::write(
        tree.join("EFI/BOOT/grub.cfg"),
        format!(
            "menuentry 'Start Live' {{\n linux /boot/linux {line}\n initrd /boot/uc.img /images/pxeboot/initrd.img\n}}\n\
             menuentry 'Install' {{\n linux /install/vmlinuz vga=788\n initrd /install/initrd.gz\n}}\n"
        ),
    )
    .unwrap();
    let iso = live.world.path("x.iso");
    make_iso(&tree, &iso);
    let output = live.stagegraph(&["extract", iso.to_str().unwrap(), "set"]);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("/boot/old: is a link that leads to nothing"), "{text}");
    let set = live.world.path("set");
    let initrds: Vec<_> = fs::read_dir(&set).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let initrds: Vec<_> = initrds.iter().filter(|name| name.to_string_lossy().ends_with(".initrd")).collect();
    let [initrd] = &initrds[..] else { panic!("{initrds:?}: {text}") };
    let bytes = fs::read(set.join(initrd)).unwrap();
    assert!(bytes.starts_with(&fs::read(tree.join("boot/uc.img")).unwrap()));

    // A set that lost the microcode is another one.
    let plain = fs::read(tree.join("images/pxeboot/initrd.img")).unwrap();
    let path = set.join(initrd);
    fs::remove_file(&path).unwrap();
    fs::write(&path, plain).unwrap();
    let args = ["audit", "--json", "--allow", "iso-boot", iso.to_str().unwrap(), set.to_str().unwrap()];
    let output = live.stagegraph(&args);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pairs = report["checks"].as_array().unwrap().iter().find(|check| check["check"] == "pairs").unwrap();
    assert_eq!(pairs["verdict"], "different", "{pairs}");
    let what = pairs["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains("the ISO boots it with /boot/uc.img and /images/pxeboot/initrd.img"), "{what}");
}
