//! Images for other machines than the builder: what starts them, what is published, and programs of theirs that run here.

use std::fs;
use std::process::Command;

use cache::testing::{Need, needs};
use serde_json::Value;

use crate::kernels::arm64_image;
use crate::live::{Live, RELEASE, hashes};
use crate::world::run;

/// A machine that is not the builder's, and what is expected of images for it.
struct Machine {
    arch: &'static str,
    kernel: fn() -> Vec<u8>,
    /// Settings of the node `loaders`.
    loaders: &'static str,
    /// What UEFI starts on the medium.
    removable: &'static [&'static str],
    /// Files of the netboot folder.
    has: &'static [&'static str],
    lacks: &'static [&'static str],
}

fn riscv() -> Vec<u8> {
    let mut bytes = arm64_image(RELEASE);
    bytes[0x38..0x3c].copy_from_slice(b"RSC\x05");
    bytes
}

fn ppc64le() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x15\0".to_vec();
    bytes.resize(4096, 0);
    bytes.extend(format!("Linux version {RELEASE} (x) #1\n").bytes());
    bytes.resize(8192, 0);
    bytes
}

fn x86() -> Vec<u8> {
    let mut bytes = vec![0u8; 0x4000];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    bytes[0x20e..0x210].copy_from_slice(&0x1000u16.to_le_bytes());
    bytes[0x1200..0x1200 + RELEASE.len()].copy_from_slice(RELEASE.as_bytes());
    bytes
}

const MACHINES: [Machine; 4] = [
    Machine {
        arch: "arm64",
        kernel: || arm64_image(RELEASE),
        loaders: "suite = \"trixie\"\npackages = [\"grub-efi-arm64-bin\", \"ipxe\"]",
        removable: &["BOOTAA64.EFI"],
        has: &["grub/arm64-efi/core.efi", "ipxe-arm64.efi", "autoexec.ipxe", "boot.ipxe"],
        lacks: &["pxelinux.0", "undionly.kpxe", "ipxe.efi", "grub/i386-pc/core.0"],
    },
    Machine {
        arch: "riscv",
        kernel: riscv,
        loaders: "suite = \"trixie\"\npackages = [\"grub-efi-riscv64-bin\", \"ipxe\"]",
        removable: &["BOOTRISCV64.EFI"],
        has: &["grub/riscv64-efi/core.efi", "ipxe-riscv64.efi"],
        lacks: &["pxelinux.0", "ipxe.efi"],
    },
    Machine {
        arch: "x86",
        kernel: x86,
        loaders: "architecture = \"amd64\"\npackages = [\"grub-pc-bin\", \"grub-efi-ia32-bin\", \"grub-efi-amd64-bin\", \
                  \"pxelinux\", \"syslinux-common\", \"ipxe\"]",
        removable: &["BOOTIA32.EFI", "BOOTX64.EFI"],
        has: &[
            "grub/i386-pc/core.0",
            "grub/i386-efi/core.efi",
            "grub/x86_64-efi/core.efi",
            "pxelinux.0",
            "undionly.kpxe",
        ],
        lacks: &["ipxe.efi"],
    },
    Machine {
        arch: "ppc64le",
        kernel: ppc64le,
        loaders: "packages = [\"grub-ieee1275-bin\"]",
        removable: &[],
        has: &["grub/powerpc-ieee1275/core.elf", "grub/grub.cfg"],
        lacks: &["pxelinux.0", "boot.ipxe", "autoexec.ipxe"],
    },
];

impl Machine {
    fn live(&self) -> Live {
        let live = Live::new();
        let loaders = match self.loaders.contains("architecture") {
            true => self.loaders.to_owned(),
            false => format!("architecture = \"target\"\n{}", self.loaders),
        };
        live.write_spec("path = \"root\"\n", "");
        let text = fs::read_to_string(live.spec()).unwrap();
        let text = text.replace("[image]\n", &format!("[image]\narch = \"{}\"\n", self.arch));
        let node = format!("[node.loaders]\nstep = \"toolbox\"\ndependencies = false\n{loaders}\n");
        let text = text.replace("[node.loaders]\nstep = \"host\"\n", &node);
        fs::write(live.spec(), text).unwrap();
        fs::write(live.root().join("boot/vmlinuz-test"), (self.kernel)()).unwrap();
        live
    }
}

#[test]
fn images_for_every_machine_have_its_boot_loaders_and_no_others() {
    for machine in &MACHINES {
        let arch = machine.arch;
        let live = machine.live();
        live.build(&[]);
        for name in machine.has {
            assert!(live.published(&format!("netboot/{name}")).is_file(), "{arch}: {name}");
        }
        for name in machine.lacks {
            assert!(!live.published(&format!("netboot/{name}")).exists(), "{arch}: {name}");
        }
        let iso = live.iso().display().to_string();
        let listing =
            run("xorriso", &["-indev", &iso, "-report_el_torito", "plain", "-find", "/", "-exec", "lsdl"]);
        let is_pc = arch == "x86";
        assert_eq!(listing.contains("eltorito.img"), is_pc, "{arch}: {listing}");
        assert_eq!(
            listing.contains("powerpc.elf") && listing.contains("bootinfo.txt"),
            arch == "ppc64le",
            "{listing}"
        );
        if !machine.removable.is_empty() {
            let esp = live.world.path("esp");
            let esp = esp.to_str().unwrap();
            run("xorriso", &["-osirrox", "on", "-indev", &iso, "-extract", "/boot/grub/efi.img", esp]);
            let files = run("mdir", &["-i", esp, "-b", "::EFI/BOOT"]);
            let names: Vec<_> = files.lines().filter_map(|line| line.rsplit('/').next()).collect();
            assert_eq!(names, machine.removable, "{arch}");
        }
        // The serial port of a PC is asked for on PCs alone.
        let menu = fs::read_to_string(live.published("netboot/grub/grub.cfg")).unwrap();
        assert_eq!(menu.contains("serial --unit=0"), is_pc, "{arch}: {menu}");
        let output = live.stagegraph(&["audit", &live.out().display().to_string(), "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_ne!(report["verdict"], "different", "{arch}: {report}");
        assert_eq!(output.status.code(), Some(0), "{arch}: {report}");
        let ways: Vec<_> =
            report["memory"].as_array().unwrap().iter().map(|way| way["way"].as_str().unwrap()).collect();
        assert_eq!(ways.contains(&"netboot-bios"), is_pc, "{arch}: {ways:?}");
        // The same bytes, made anew.
        let before = hashes(&live.out());
        fs::remove_dir_all(live.world.path("store")).unwrap();
        live.build(&[]);
        assert_eq!(hashes(&live.out()), before, "{arch}");
    }
}

#[test]
fn what_is_of_another_machine_is_found_and_named() {
    let arm64 = MACHINES[0].live();
    arm64.build(&[]);
    let audit = |live: &Live| {
        let output = live.stagegraph(&["audit", &live.out().display().to_string(), "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == "arch").unwrap();
        (output.status.code(), check["findings"].to_string())
    };
    assert_eq!(audit(&arm64), (Some(0), "[]".to_owned()));
    let loader = arm64.published("netboot/grub/arm64-efi/core.efi");
    let good = fs::read(&loader).unwrap();
    let other = MACHINES[1].live();
    other.build(&[]);
    fs::copy(other.published("netboot/grub/riscv64-efi/core.efi"), &loader).unwrap();
    let (code, found) = audit(&arm64);
    assert!(code == Some(1) && found.contains("is for riscv; by its name it is for arm64"), "{found}");
    fs::write(&loader, good).unwrap();
    fs::write(arm64.published("netboot/gentoo.vmlinuz"), riscv()).unwrap();
    let (code, found) = audit(&arm64);
    assert!(code == Some(1) && found.contains("riscv"), "{found}");
}

#[test]
fn a_machine_without_boot_loaders_and_a_tree_without_its_own_are_named() {
    let live = MACHINES[3].live();
    let said = |set: &[&str]| live.said(&[&["build", &live.spec()], set].concat());
    let (code, text) = said(&["--set", "image.arch=sparc"]);
    assert!(code == 2 && text.contains("there is no GRUB for sparc"), "{code}: {text}");
    let (code, text) = said(&["--set", "loaders.packages=[\"tzdata\"]"]);
    assert!(
        code == 2 && text.contains("no modules of GRUB for ppc64le") && text.contains("grub-ieee1275-bin"),
        "{text}"
    );
    let (code, text) = said(&["--set", "loaders.architecture=vax"]);
    assert!(code == 2 && text.contains("Debian has no architecture \"vax\""), "{code}: {text}");
    let (code, text) = said(&["--set", "loaders.suite=no/suite"]);
    assert!(code == 2 && text.contains("\"no/suite\" is no release of Debian"), "{code}: {text}");
    let (code, text) = said(&["--set", "loaders.suite=nosuchsuite"]);
    assert!(
        code == 3 && text.contains("the package lists of nosuchsuite, for ppc64el cannot be fetched"),
        "{code}: {text}"
    );
    let (code, text) = said(&["--offline", "--set", "loaders.suite=sid"]);
    assert!(code == 3 && text.contains("are not here, and the network must not be used"), "{code}: {text}");
}

const FOREIGN: &str = "[image]\nname = \"x\"\narch = \"arm64\"\ntimestamp = \"20260102T030405Z\"\n\n\
    [node.box]\nstep = \"toolbox\"\narchitecture = \"target\"\ndependencies = false\npackages = [\"busybox-static\"]\n\n\
    [node.emulators]\nstep = \"toolbox\"\ndependencies = false\npackages = [\"qemu-user-static\"]\n\n\
    [node.report]\nstep = \"run\"\narch = \"target\"\ninput = { tools = \"box.root\", emulator = \"emulators.root\" }\n\
    argv = [\"busybox\", \"sh\", \"-c\", \"mkdir out/of; busybox uname -m > out/of/machine; busybox sh -c 'busybox id -u' >> out/of/machine; \
     busybox grep -c binfmt /proc/mounts >> out/of/machine || busybox true\"]\n\
    outputs = { folder = \"of/\" }\n\n[publish]\nof = [\"report.folder\"]\n";

#[test]
fn programs_of_another_machine_run_in_the_sandbox_and_nothing_is_registered_outside() {
    let live = Live::bare();
    let spec = live.world.path("foreign.toml");
    fs::write(&spec, FOREIGN).unwrap();
    let spec = spec.to_str().unwrap();
    let said = |args: &[&str]| live.said(&[&["build", spec], args].concat());
    let registered = || {
        let output = Command::new("sh")
            .args(["-c", "cat /proc/sys/fs/binfmt_misc/* /proc/mounts | grep -e binfmt -e qemu"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    if !needs(Need::Root) {
        let (code, text) = said(&[]);
        assert!(
            code == 3 && text.contains("only root can run programs for arm64 in a sandbox"),
            "{code}: {text}"
        );
        return;
    }
    let release = run("uname", &["-r"]);
    let numbers: Vec<u32> = release.split('.').take(2).filter_map(|number| number.parse().ok()).collect();
    if numbers < vec![6, 7] {
        let (code, text) = said(&[]);
        assert!(code == 3 && text.contains("which needs Linux 6.7; this is"), "{code}: {text}");
        return;
    }
    let before = registered();
    let (code, text) = said(&[]);
    assert_eq!(code, 0, "{text}");
    let machine = fs::read_to_string(live.world.path("out/foreign/of/machine")).unwrap();
    // What runs it was registered by a file system that is not there.
    assert_eq!(machine, "aarch64\n0\n0\n");
    assert_eq!(registered(), before);
    // Without what runs them, it is said what is missing.
    fs::write(spec, FOREIGN.replace("emulator = ", "other = ").replace("uname -m", "uname -a")).unwrap();
    let (code, text) = said(&[]);
    assert!(
        code == 2 && text.contains("give it an input \"emulator\"") && text.contains("qemu-aarch64-static"),
        "{text}"
    );
    fs::write(spec, FOREIGN.replace("tools = \"box.root\", ", "also = \"box.root\", ")).unwrap();
    let (code, text) = said(&[]);
    assert!(code == 2 && text.contains("give the node an input \"tools\""), "{code}: {text}");
    let (code, text) = said(&["--set", "report.arch=arm64"]);
    assert!(code == 2 && text.contains("expected \"target\""), "{code}: {text}");
}

#[test]
fn sets_that_cannot_share_a_folder_are_named() {
    let live = Live::bare();
    let spec = live.world.path("sets.toml");
    let node = |name: &str, text: &str| {
        format!(
            "[node.{name}]\nstep = \"run\"\ntools = [\"mkdir\"]\noutputs = {{ folder = \"of/\" }}\n\
             argv = [\"sh\", \"-c\", \"mkdir out/of; echo {text} > out/of/pxelinux.0\"]\n\n"
        )
    };
    for (inputs, says) in [
        ("amd64 = \"a.folder\", x86 = \"b.folder\"", "pxelinux.0 of the set x86 is not that of the others"),
        (
            "amd64 = \"a.folder\", mine = \"b.folder\"",
            "the input \"mine\" of menus is not called as an architecture is",
        ),
    ] {
        let text = format!(
            "[image]\nname = \"x\"\ntitle = \"X\"\ntimestamp = \"20260102T030405Z\"\n\n{}{}[node.menus]\nstep = \"sets\"\n\
             input = {{ {inputs} }}\n\n[publish]\n\".\" = [\"menus.folder\"]\n",
            node("a", "one"),
            node("b", "another")
        );
        fs::write(&spec, text).unwrap();
        let (code, text) = live.said(&["build", spec.to_str().unwrap()]);
        assert!(matches!(code, 1 | 2) && text.contains(says), "{text}");
    }
}

#[test]
fn a_spec_takes_in_others_as_they_are() {
    let live = Live::bare();
    let inner = "[image]\nname = \"inner\"\ntimestamp = \"20260102T030405Z\"\n\n[node.made]\nstep = \"run\"\ntools = [\"mkdir\"]\n\
        argv = [\"sh\", \"-c\", \"mkdir out/of; echo made > out/of/it\"]\noutputs = { folder = \"of/\" }\n\n\
        [publish]\n\".\" = [\"made.folder\"]\n";
    let outer = "specs = [\"./inner.toml\"]\n[image]\nname = \"outer\"\ntimestamp = \"20260102T030405Z\"\n\n[node.lists]\nstep = \"digests\"\n\
        input = { files = \"inner:made.folder\" }\n\n[publish]\nin = [\"inner:made.folder\", \"lists.files\"]\n";
    fs::write(live.world.path("inner.toml"), inner).unwrap();
    fs::write(live.world.path("outer.toml"), outer).unwrap();
    let said = |args: &[&str]| live.said(&[&["build"], args].concat());
    assert_eq!(said(&["./inner.toml"]).0, 0);
    let (code, text) = said(&["./outer.toml"]);
    assert!(code == 0 && text.contains("2 nodes: 1 cached, 1 built"), "{text}");
    assert_eq!(fs::read_to_string(live.world.path("out/outer/in/it")).unwrap(), "made\n");
    assert!(live.world.path("out/outer/in/DIGESTS").is_file());
    // Both at once, and what is wrong.
    fs::remove_dir_all(live.world.path("out")).unwrap();
    let (code, text) = said(&["./inner.toml", "./outer.toml"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read_to_string(live.world.path("out/outer/in/it")).unwrap(), "made\n");
    // What fails in a spec that is taken in publishes nothing of the one that takes it in.
    fs::write(live.world.path("inner.toml"), inner.replace("echo made", "exit 7; echo made")).unwrap();
    fs::remove_dir_all(live.world.path("out")).unwrap();
    for specs in [&["./outer.toml"][..], &["./inner.toml", "./outer.toml"]] {
        let (code, text) = said(specs);
        assert!(code == 1 && !live.world.path("out/outer").exists(), "{text}");
    }
    fs::write(live.world.path("inner.toml"), inner).unwrap();
    for (from, to, says) in [
        ("inner:made", "inner:maid", "no such node"),
        ("./inner.toml", "./nobody.toml", "nobody"),
        ("./inner.toml", "./outer.toml", "takes in none itself"),
        ("[\"./inner.toml\"]", "[\"./inner.toml\", \"./inner.toml\"]", "two specs are called inner"),
    ] {
        fs::write(live.world.path("outer.toml"), outer.replace(from, to)).unwrap();
        let (code, text) = said(&["./outer.toml"]);
        assert!(code == 2 && text.contains(says), "{says}: {text}");
    }
}
