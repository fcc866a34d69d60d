//! Boots what was published, unmodified, in QEMU, and compares what runs with the manifest.
//!
//! `STAGEGRAPH_BOOT_DIR` names the published folder. Each guest is steered through the boot loader's own
//! menu over the serial line; a shell inside then reports size and ends of the squashfs it runs from.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod grub;
mod http;
mod pxelinux;
mod room;
mod verity;
mod vm;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::http::Server;
use crate::vm::{Firmware, Vm};

/// How much of each end of the squashfs the guest hashes: emulated, all of it would take minutes.
const END: u64 = 1 << 20;

/// A published folder and what its manifest says.
struct Published {
    dir: PathBuf,
    manifest: serde_json::Value,
}

impl Published {
    /// Finds the folder; `None` where none was named, which is an error where nothing may be skipped.
    fn find() -> Option<Self> {
        let Some(dir) = std::env::var_os("STAGEGRAPH_BOOT_DIR").map(PathBuf::from) else {
            assert!(std::env::var_os("STAGEGRAPH_NO_SKIP").is_none(), "STAGEGRAPH_BOOT_DIR is not set");
            eprintln!("SKIPPED: STAGEGRAPH_BOOT_DIR names no published folder");
            return None;
        };
        Some(Self::at(&dir))
    }

    fn at(dir: &Path) -> Self {
        let dir = dir.canonicalize().unwrap();
        let named = |end: &str| {
            let entries = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
            entries.into_iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap()
        };
        let manifest = std::fs::read(named(".manifest.json")).unwrap();
        Self { manifest: serde_json::from_slice(&manifest).unwrap(), dir }
    }

    /// The squashfs: in the netboot folder, or beside the ISO where there is none.
    fn squashfs(&self) -> File {
        let paths =
            [self.dir.join("netboot/image.squashfs"), PathBuf::from(format!("{}.squashfs", self.iso()))];
        File::open(paths.iter().find(|path| path.exists()).unwrap()).unwrap()
    }

    fn iso(&self) -> String {
        self.dir.join(self.manifest["image"]["name"].as_str().unwrap()).display().to_string()
    }

    fn netboot(&self) -> String {
        self.dir.join("netboot").display().to_string()
    }

    fn way(&self, name: &str) -> &serde_json::Value {
        self.manifest["boot"].as_array().unwrap().iter().find(|way| way["way"] == name).unwrap()
    }

    /// The memory the manifest says is enough.
    fn memory(&self, way: &str) -> u64 {
        self.way(way)["least_ram_mib"].as_u64().unwrap()
    }

    /// Waits for the guest's shell and compares what it reports with the manifest.
    fn check(&self, mut vm: Vm, way: &str) {
        vm.wait_for("root@live:~# ", vm::BOOTED);
        vm.send(
            "L=$(findmnt -nro SOURCE /run/rootfsbase || losetup -nlO NAME | head -n1); \
             printf 'RE''PORT size=%s\\n' \"$(blockdev --getsize64 $L)\"; \
             printf 'RE''PORT checked=%s\\n' \"$(cat /sys/class/block/$(basename $(readlink -f $L))/dm/name)\"; \
             printf 'RE''PORT first=%s\\n' \"$(head -c 1048576 $L | sha256sum | cut -c1-64)\"; \
             printf 'RE''PORT last=%s\\n' \"$(tail -c 1048576 $L | sha256sum | cut -c1-64)\"; \
             printf 'RE''PORT root=%s\\n' \"$(findmnt -nro FSTYPE /)\"; \
             printf 'RE''PORT release=%s\\n' \"$(uname -r)\"; \
             printf 'RE''PORT cmdline=%s\\n' \"$(cat /proc/cmdline)\"; printf 'RE''PORT %s\\n' end\r",
        );
        let text = vm.wait_for("REPORT end", vm::ANSWERED);
        let value = |key: &str| {
            let mark = format!("REPORT {key}=");
            let line = text.lines().find_map(|line| line.split_once(&mark).map(|(_, value)| value.trim()));
            line.unwrap_or_else(|| panic!("the guest did not report {key}:\n{text}")).to_owned()
        };
        let squashfs = self.squashfs();
        let size = squashfs.metadata().unwrap().len();
        assert_eq!(Some(size), self.manifest["squashfs"]["size"].as_u64());
        let end = |at| {
            let mut bytes = vec![0; END as usize];
            squashfs.read_exact_at(&mut bytes, at).unwrap();
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(value("size"), size.to_string());
        assert_eq!(value("first"), end(0));
        assert_eq!(value("last"), end(size - END));
        assert_eq!(value("root"), "overlay");
        // What was read above went through the hash tree.
        let is_checked = !self.manifest["kernels"][0]["initramfs"]["verity"]["checks"].is_null();
        assert_eq!(value("checked"), if is_checked { "stagegraph-root" } else { "" });
        assert_eq!(Some(value("release").as_str()), self.manifest["kernels"][0]["release"].as_str());
        let running = value("cmdline");
        let expected = self.way(way)["command_line"].as_str().unwrap();
        for token in expected.split(' ').filter(|token| !token.contains("SERVER")) {
            assert!(running.split(' ').any(|word| word == token), "{token} is not in {running}");
        }
    }

    /// Boots the ISO: picks the serial console in GRUB's menu.
    fn boot_iso(&self, firmware: Firmware, drive: &[&str]) {
        let mut vm = Vm::start(firmware, self.memory("iso"), drive);
        pick_in_grub(&mut vm, firmware);
        self.check(vm, "iso");
    }

    /// Boots the ISO from the disc or the disk that the machine has for it.
    fn boot_disc(&self, firmware: Firmware) {
        let disc = firmware.disc(&self.iso());
        self.boot_iso(firmware, &disc.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Boots where firmware starts nothing that is not signed: shim, then GRUB, whose menu is steered.
    fn boot_secure(&self, devices: &[&str], way: &str) {
        let mut vm = Vm::start(Firmware::SecureUefi, self.memory(way), devices);
        pick_in_grub(&mut vm, Firmware::SecureUefi);
        vm.wait_for(IS_SECURE, vm::LOADED);
        self.check(vm, way);
    }

    /// Boots over HTTP with a script that sets the console and goes on with a published one.
    fn boot_ipxe(&self, firmware: Firmware, way: &str, script: &str) {
        self.boot_ipxe_from(&self.dir, firmware, way, script);
    }

    fn boot_ipxe_from(&self, dir: &Path, firmware: Firmware, way: &str, script: &str) {
        // Debian's iPXE is too old to know the folder's address by itself.
        let console = firmware.console();
        let parent = |port| {
            format!(
                "#!ipxe\nset cmdline console={console}\nset base http://10.0.2.2:{port}/netboot\nchain {script}\n"
            )
        };
        let server = Server::start(dir, &parent);
        let network = format!("user,id=n0,bootfile=http://10.0.2.2:{}/test.ipxe", server.port);
        let vm = Vm::start(
            firmware,
            self.memory(way),
            &["-netdev", &network, "-device", "virtio-net-pci,netdev=n0,bootindex=0"],
        );
        self.check(vm, way);
        let asked = server.requests();
        assert!(asked.iter().any(|path| path == &format!("/{script}")), "{asked:?}");
    }

    /// Boots by UEFI's own HTTP client: iPXE goes on with `autoexec.ipxe` beside itself, and nobody tells it anything.
    fn boot_by_http(&self, dir: &Path, firmware: Firmware, way: &str, loader: &str) {
        let server = Server::start(dir, &|_| String::new());
        let network = format!("user,id=n0,bootfile=http://10.0.2.2:{}/{loader}", server.port);
        let device = "virtio-net-pci,netdev=n0,bootindex=0,romfile=";
        let vm = Vm::start(firmware, self.memory(way), &["-netdev", &network, "-device", device]);
        self.check(vm, way);
        let asked = server.requests();
        assert!(asked.iter().any(|path| path.ends_with("/autoexec.ipxe")), "{asked:?}");
    }

    /// Boots over TFTP with one of the published loaders.
    fn boot_tftp(&self, firmware: Firmware, way: &str, loader: &str, pick: impl FnOnce(&mut Vm)) {
        self.boot_tftp_from(&self.dir.join("netboot"), firmware, way, loader, pick);
    }

    fn boot_tftp_from(
        &self,
        dir: &Path,
        firmware: Firmware,
        way: &str,
        loader: &str,
        pick: impl FnOnce(&mut Vm),
    ) {
        let network = format!("user,id=n0,tftp={},bootfile={loader}", dir.display());
        let device = match firmware {
            Firmware::Bios | Firmware::BiosWithScreen => "virtio-net-pci,netdev=n0,bootindex=0",
            // UEFI's own PXE, not the card's iPXE.
            _ => "virtio-net-pci,netdev=n0,bootindex=0,romfile=",
        };
        let mut vm = Vm::start(firmware, self.memory(way), &["-netdev", &network, "-device", device]);
        pick(&mut vm);
        self.check(vm, way);
    }
}

fn pick_in_grub(vm: &mut Vm, firmware: Firmware) {
    vm.wait_for("Special console options", vm::LOADED);
    vm.send("s");
    vm.wait_for(&format!("console={}", firmware.console()), vm::LOADED);
    vm.send("\r");
}

fn pick_in_pxelinux(vm: &mut Vm) {
    vm.wait_for("console=ttyS0", vm::LOADED);
    vm.send("2");
    vm.send("\r");
}

#[test]
fn the_iso_boots_by_bios_from_cd() {
    let Some(published) = Published::find() else { return };
    published.boot_iso(Firmware::Bios, &["-cdrom", &published.iso()]);
}

#[test]
fn the_iso_boots_by_uefi_from_cd() {
    let Some(published) = Published::find() else { return };
    published.boot_iso(Firmware::Uefi, &["-cdrom", &published.iso()]);
}

/// QEMU's words for a USB stick.
fn stick(iso: &str) -> [String; 6] {
    let drive = format!("if=none,id=stick,format=raw,readonly=on,file={iso}");
    ["-drive", &drive, "-device", "qemu-xhci", "-device", "usb-storage,drive=stick,bootindex=0"]
        .map(str::to_owned)
}

#[test]
fn the_iso_boots_by_bios_from_a_usb_stick() {
    let Some(published) = Published::find() else { return };
    let stick = stick(&published.iso());
    published.boot_iso(Firmware::Bios, &stick.each_ref().map(String::as_str));
}

#[test]
fn the_iso_boots_by_uefi_from_a_usb_stick() {
    let Some(published) = Published::find() else { return };
    let stick = stick(&published.iso());
    published.boot_iso(Firmware::Uefi, &stick.each_ref().map(String::as_str));
}

#[test]
fn ipxe_boots_the_set_by_bios_with_the_squashfs_injected() {
    let Some(published) = Published::find() else { return };
    published.boot_ipxe(Firmware::Bios, "netboot-bios", "netboot/boot.ipxe");
}

#[test]
fn ipxe_boots_the_script_beside_the_iso() {
    let Some(published) = Published::find() else { return };
    let script = format!("{}.ipxe", published.manifest["image"]["name"].as_str().unwrap());
    published.boot_ipxe(Firmware::Bios, "netboot-bios", &script);
}

#[test]
fn ipxe_boots_the_set_by_uefi_from_the_combined_initrd() {
    let Some(published) = Published::find() else { return };
    published.boot_ipxe(Firmware::Uefi, "netboot-uefi", "netboot/boot.ipxe");
}

#[test]
fn ipxe_boots_the_combined_initrd_by_bios() {
    let Some(published) = Published::find() else { return };
    published.boot_ipxe(Firmware::Bios, "netboot-bios", "netboot/combined.ipxe");
}

#[test]
fn ipxe_boots_the_squashfs_over_http_by_bios() {
    let Some(published) = Published::find() else { return };
    published.boot_ipxe(Firmware::Bios, "netboot-http", "netboot/http.ipxe");
}

#[test]
fn ipxe_boots_the_squashfs_over_http_by_uefi() {
    let Some(published) = Published::find() else { return };
    published.boot_ipxe(Firmware::Uefi, "netboot-http", "netboot/http.ipxe");
}

#[test]
fn pxelinux_boots_the_set_over_tftp() {
    let Some(published) = Published::find() else { return };
    published.boot_tftp(Firmware::BiosWithScreen, "netboot-bios", "pxelinux.0", pick_in_pxelinux);
}

#[test]
fn grub_boots_the_set_over_tftp_by_bios() {
    let Some(published) = Published::find() else { return };
    published.boot_tftp(Firmware::Bios, "netboot-bios", "grub/i386-pc/core.0", |vm| {
        pick_in_grub(vm, Firmware::Bios)
    });
}

#[test]
fn grub_boots_the_set_over_tftp_by_uefi() {
    let Some(published) = Published::find() else { return };
    published.boot_tftp(Firmware::Uefi, "netboot-uefi", "grub/x86_64-efi/core.efi", |vm| {
        pick_in_grub(vm, Firmware::Uefi)
    });
}

/// What was published beside that from another spec.
fn of_spec(name: &str) -> Option<Published> {
    folder_of_spec(name).map(|dir| Published::at(&dir))
}

fn folder_of_spec(name: &str) -> Option<PathBuf> {
    let published = Published::find()?;
    let dir = published.dir.parent().unwrap().join(name);
    assert!(dir.is_dir(), "{} is not there: `make test-boot` builds it", dir.display());
    Some(dir)
}

const SECURE: &str = "amd64-secureboot";
const IS_SECURE: &str = "UEFI Secure Boot is enabled";

#[test]
fn the_iso_boots_with_secure_boot() {
    let Some(published) = of_spec(SECURE) else { return };
    published.boot_secure(&["-cdrom", &published.iso()], "iso");
}

#[test]
fn the_iso_boots_with_secure_boot_from_a_usb_stick() {
    let Some(published) = of_spec(SECURE) else { return };
    let stick = stick(&published.iso());
    published.boot_secure(&stick.each_ref().map(String::as_str), "iso");
}

#[test]
fn shim_boots_the_set_over_tftp_with_secure_boot() {
    let Some(published) = of_spec(SECURE) else { return };
    let network = format!("user,id=n0,tftp={},bootfile=shimx64.efi", published.netboot());
    let device = "virtio-net-pci,netdev=n0,bootindex=0,romfile=";
    published.boot_secure(&["-netdev", &network, "-device", device], "netboot-uefi");
}

#[test]
fn what_is_not_signed_is_not_started_with_secure_boot() {
    let Some(published) = Published::find() else { return };
    let iso = published.iso();
    let mut vm = Vm::start(Firmware::SecureUefi, published.memory("iso"), &["-cdrom", &iso]);
    vm.wait_for("Access Denied", vm::LOADED);
}

const ARM64: &str = "arm64-minimal";

#[test]
fn the_iso_for_arm64_boots_from_cd() {
    let Some(published) = of_spec(ARM64) else { return };
    published.boot_disc(Firmware::Arm64);
}

#[test]
fn the_iso_for_arm64_boots_from_a_usb_stick() {
    let Some(published) = of_spec(ARM64) else { return };
    let stick = stick(&published.iso());
    published.boot_iso(Firmware::Arm64, &stick.each_ref().map(String::as_str));
}

#[test]
fn grub_boots_the_set_for_arm64_over_tftp() {
    let Some(published) = of_spec(ARM64) else { return };
    let pick = |vm: &mut Vm| pick_in_grub(vm, Firmware::Arm64);
    published.boot_tftp(Firmware::Arm64, "netboot-uefi", "grub/arm64-efi/core.efi", pick);
}

#[test]
fn uefi_of_arm64_fetches_ipxe_over_http_which_finds_its_way_by_itself() {
    let Some(published) = of_spec(ARM64) else { return };
    published.boot_by_http(&published.dir, Firmware::Arm64, "netboot-uefi", "netboot/ipxe-arm64.efi");
}

const MULTI: &str = "multi";

#[test]
fn one_folder_boots_arm64_over_http() {
    let (Some(multi), Some(published)) = (folder_of_spec(MULTI), of_spec(ARM64)) else { return };
    published.boot_by_http(&multi, Firmware::Arm64, "netboot-uefi", "ipxe-arm64.efi");
}

#[test]
fn one_folder_boots_arm64_by_grub_over_tftp() {
    let (Some(multi), Some(published)) = (folder_of_spec(MULTI), of_spec(ARM64)) else { return };
    let pick = |vm: &mut Vm| pick_in_grub(vm, Firmware::Arm64);
    published.boot_tftp_from(&multi, Firmware::Arm64, "netboot-uefi", "grub/arm64-efi/core.efi", pick);
}

#[test]
fn one_folder_boots_pcs_by_ipxe() {
    let (Some(multi), Some(published)) = (folder_of_spec(MULTI), Published::find()) else { return };
    published.boot_ipxe_from(&multi, Firmware::Bios, "netboot-bios", "boot.ipxe");
}

#[test]
fn one_folder_boots_pcs_by_pxelinux() {
    let (Some(multi), Some(published)) = (folder_of_spec(MULTI), Published::find()) else { return };
    let pick = |vm: &mut Vm| {
        vm.wait_for("Rescue media", vm::LOADED);
        vm.send("\r");
        pick_in_pxelinux(vm);
    };
    published.boot_tftp_from(&multi, Firmware::BiosWithScreen, "netboot-bios", "pxelinux.0", pick);
}

const X86: &str = "x86-minimal";

#[test]
fn the_iso_for_x86_boots_by_bios() {
    let Some(published) = of_spec(X86) else { return };
    published.boot_iso(Firmware::Bios, &["-cdrom", &published.iso()]);
}

#[test]
fn the_iso_for_x86_boots_by_uefi_of_64_bits() {
    let Some(published) = of_spec(X86) else { return };
    published.boot_iso(Firmware::Uefi, &["-cdrom", &published.iso()]);
}

#[test]
fn the_iso_for_x86_boots_by_uefi_of_32_bits() {
    let Some(published) = of_spec(X86) else { return };
    published.boot_iso(Firmware::NarrowUefi, &["-cdrom", &published.iso()]);
}

#[test]
fn the_iso_for_riscv_boots() {
    let Some(published) = of_spec("riscv-minimal") else { return };
    published.boot_disc(Firmware::Riscv);
}

#[test]
fn the_iso_for_ppc64le_boots() {
    let Some(published) = of_spec("ppc64le-minimal") else { return };
    published.boot_disc(Firmware::Power);
}

/// What catalyst published: its menu goes to a screen, and boots by itself after a while.
fn of_catalyst() -> Published {
    let dir = std::env::var_os("STAGEGRAPH_CATALYST_DIR").expect("`make test-catalyst` names the folder");
    Published::at(Path::new(&dir))
}

#[test]
#[ignore = "needs what catalyst made: make test-catalyst"]
fn catalysts_iso_boots_through_its_own_menu() {
    let published = of_catalyst();
    let vm = Vm::start(Firmware::BiosWithScreen, published.memory("iso"), &["-cdrom", &published.iso()]);
    published.check(vm, "iso");
}

#[test]
#[ignore = "needs what catalyst made: make test-catalyst"]
fn catalysts_netboot_set_boots_through_ipxe() {
    let published = of_catalyst();
    let script = format!("{}.ipxe", published.manifest["image"]["name"].as_str().unwrap());
    published.boot_ipxe(Firmware::Bios, "netboot-bios", &script);
}
