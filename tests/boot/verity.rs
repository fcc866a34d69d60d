//! A squashfs that is not what was built: nothing of it is used.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};

use crate::Published;
use crate::http::Server;
use crate::vm::{self, Firmware, Vm};

/// Boots over HTTP from a folder whose squashfs was changed; the initramfs is to end it, saying `until`. Returns all that it says.
fn boot(words: &str, change: impl Fn(&fs::File, u64), until: &str) -> Option<String> {
    let published = Published::find()?;
    let checks = &published.manifest["kernels"][0]["initramfs"]["verity"]["checks"];
    assert!(!checks.is_null(), "the image has the squashfs checked");
    let folder = tempfile::tempdir().unwrap();
    let netboot = folder.path().join("netboot");
    fs::create_dir(&netboot).unwrap();
    for entry in fs::read_dir(published.netboot()).unwrap().flatten() {
        symlink(entry.path(), netboot.join(entry.file_name())).unwrap();
    }
    let squashfs = netboot.join("image.squashfs");
    fs::remove_file(&squashfs).unwrap();
    fs::copy(format!("{}/image.squashfs", published.netboot()), &squashfs).unwrap();
    let mut permissions = squashfs.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&squashfs, permissions).unwrap();
    let file = fs::File::options().read(true).write(true).open(&squashfs).unwrap();
    change(&file, squashfs.metadata().unwrap().len());
    let parent = |port| {
        format!(
            "#!ipxe\nset cmdline console=ttyS0,115200 {words}\nset base http://10.0.2.2:{port}/netboot\nchain netboot/http.ipxe\n"
        )
    };
    let server = Server::start(folder.path(), &parent);
    let network = format!("user,id=n0,bootfile=http://10.0.2.2:{}/test.ipxe", server.port);
    let devices = ["-netdev", &network, "-device", "virtio-net-pci,netdev=n0,bootindex=0"];
    let mut vm = Vm::start(Firmware::Bios, published.memory("netboot-http"), &devices);
    let before = vm.wait_for("dracut: FATAL", vm::BOOTED);
    Some(before + &vm.wait_for(until, vm::ANSWERED))
}

/// Flips one bit.
fn flip(file: &fs::File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn one_flipped_bit_anywhere_ends_the_boot_where_all_is_read_first() {
    let said = boot(
        "stagegraph.verify.full=1",
        |file, size| flip(file, size / 2),
        "is damaged, or is not the squashfs of",
    );
    assert!(said.is_none_or(|said| said.contains("corrupted")), "the kernel names the block");
}

#[test]
fn a_squashfs_of_another_build_ends_the_boot_with_a_sentence() {
    boot("", |file, size| file.set_len(size + 4096).unwrap(), "is it of another build?");
}
