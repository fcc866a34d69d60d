//! Signatures that firmware with Secure Boot verifies: made by sbsign, shipped by Debian, and read by the audit.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::live::Live;
use crate::world::{run, unpack_packages};

/// The settings by which an image has Debian's signed programs, which are unpacked in a folder.
fn signed(folder: &Path) -> String {
    unpack_packages(folder, &["shim-signed", "shim-helpers-amd64-signed", "grub-efi-amd64-signed"]);
    let top = folder.display();
    format!(
        "\n[node.grub.signed]\nshim = \"{top}/usr/lib/shim/shimx64.efi.signed\"\n\
         mok = \"{top}/usr/lib/shim/mmx64.efi.signed\"\n\
         grub = \"{top}/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed\"\n\
         grub_net = \"{top}/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed\"\n"
    )
}

/// Writes a kernel that is a program of UEFI as well: nothing in it runs.
fn write_program(path: &Path) {
    let mut bytes = vec![0u8; 0x2000];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x44..0x46].copy_from_slice(&0x8664u16.to_le_bytes());
    bytes[0x46] = 1;
    let mut half = |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    // The optional header's length and what the program is, its width, what runs it; where the kernel's header has its text.
    for (at, value) in
        [(0x54, 0xf0), (0x56, 0x206), (0x58, 0x20b), (0x9c, 10), (0x20e, 0x1000), (0x206, 0x20f)]
    {
        half(at, value);
    }
    let mut word = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    // Alignment in memory and in the file, sizes in memory and of the headers, the number of directories.
    for (at, value) in [(0x78, 0x1000), (0x7c, 0x200), (0x90, 0x3000), (0x94, 0x400), (0xc4, 16)] {
        word(at, value);
    }
    // Where its one section is in memory and in the file.
    for (at, value) in
        [(0x150, 0x1c00), (0x154, 0x1000), (0x158, 0x1c00), (0x15c, 0x400), (0x16c, 0x6000_0020)]
    {
        word(at, value);
    }
    bytes[0x148..0x14d].copy_from_slice(b".text");
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x236] = 1;
    bytes[0x1200..0x120a].copy_from_slice(b"6.1.0-test");
    fs::write(path, bytes).unwrap();
}

struct World {
    live: Live,
    kernel: PathBuf,
}

impl World {
    /// Makes a spec with signed programs, whose settings are changed.
    fn signed(change: fn(String) -> String) -> Self {
        let live = Live::new();
        let settings = change(signed(&live.world.path("packages")));
        Self::of(live, &settings)
    }

    fn of(live: Live, more: &str) -> Self {
        live.write_spec("path = \"root\"\n", more);
        let kernel = live.root().join("boot/vmlinuz-test");
        write_program(&kernel);
        Self { live, kernel }
    }

    /// Has sbsign sign the kernel by a key of this name.
    fn sign(&self, name: &str) {
        self.sign_file(name, &self.kernel);
    }

    fn sign_file(&self, name: &str, file: &Path) {
        let (key, certificate) = (self.live.world.path("db.key"), self.live.world.path("db.crt"));
        let [key, certificate, file] =
            [key.as_path(), certificate.as_path(), file].map(|path| path.to_str().unwrap());
        let subject = format!("/CN={name}");
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                key,
                "-out",
                certificate,
                "-subj",
                &subject,
                "-days",
                "9",
            ],
        );
        run("sbsign", &["--key", key, "--cert", certificate, "--output", file, file]);
        run("sbverify", &["--cert", certificate, file]);
    }

    fn build(&self) {
        self.live.build(&["--set", "audit.allow=[\"secure-boot\"]"]);
    }

    /// Audits what is published; returns the exit code and what the check says.
    fn audit(&self) -> (i32, Value) {
        let out = self.live.out().display().to_string();
        let output = self.live.stagegraph(&["audit", &out, "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == "secure-boot").unwrap().clone();
        (output.status.code().unwrap(), check)
    }
}

/// Returns what a check found, each as the file's last name and the text.
fn findings(check: &Value) -> Vec<(String, String)> {
    let list = check["findings"].as_array().unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let short = |name: String| name.rsplit(['/', ':']).next().unwrap().to_owned();
    list.iter().map(|finding| (short(text(finding, "subject")), text(finding, "what"))).collect()
}

#[test]
fn a_shim_and_what_it_knows_are_read_with_their_signers() {
    let world = World::signed(|settings| settings);
    world.build();
    for file in ["netboot/shimx64.efi", "netboot/grubx64.efi", "netboot/mmx64.efi"] {
        assert!(world.live.published(file).is_file(), "{file}");
    }
    let (code, check) = world.audit();
    assert_eq!(code, 0, "{check}");
    let said = check["says"].as_str().unwrap();
    for signer in ["Debian Secure Boot Signer 2022 - grub2", "Microsoft", "2 shims"] {
        assert!(said.contains(signer), "{said}");
    }
    // GRUB is known to the shim, and the kernel is not.
    let found = findings(&check);
    assert!(!found.is_empty());
    for (_, what) in &found {
        assert!(
            what.contains("is signed by nobody;") && what.contains("knows Debian Secure Boot CA alone"),
            "{what}"
        );
    }
    assert!(found.iter().all(|(name, _)| name == "gentoo" || name.ends_with("vmlinuz")), "{found:?}");
}

#[test]
fn a_kernel_of_another_signer_is_named_and_one_that_was_changed_is_a_difference() {
    let world = World::signed(|settings| settings);
    world.sign("Example kernels");
    world.build();
    let (code, check) = world.audit();
    assert_eq!(code, 0, "{check}");
    assert!(
        findings(&check).iter().all(|(_, what)| what.contains("is signed by Example kernels;")),
        "{check}"
    );

    let published = world.live.published("netboot/gentoo.vmlinuz");
    let good = fs::read(&published).unwrap();
    for at in [0x70, 0x300, 0x1fff] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&published, &bytes).unwrap();
        let (code, check) = world.audit();
        let found = findings(&check);
        let is_said = |(name, what): &(String, String)| {
            name == "gentoo.vmlinuz" && what.contains("this one was changed")
        };
        assert!(code == 1 && found.iter().any(is_said), "{at:#x}: {check}");
    }
    // The signature itself.
    for (back, expected) in [(300, "was not made by Example kernels"), (900, "")] {
        let mut bytes = good.clone();
        let at = bytes.len() - back;
        bytes[at] ^= 0x20;
        fs::write(&published, &bytes).unwrap();
        let (_, check) = world.audit();
        let found = findings(&check);
        let of_file: Vec<_> =
            found.iter().filter(|(name, what)| name == "gentoo.vmlinuz" && what.contains(expected)).collect();
        assert!(!of_file.is_empty(), "{back}: {check}");
    }
}

#[test]
fn a_shim_that_somebody_else_signed_is_named_and_one_that_is_longer_is_a_difference() {
    let world = World::signed(|settings| settings);
    world.build();
    let shim = world.live.published("netboot/shimx64.efi");
    let good = fs::read(&shim).unwrap();
    // Whoever changes a program can sign it, and call himself as he likes.
    let mut bytes = good.clone();
    bytes[0x2_5000] ^= 1;
    fs::write(&shim, bytes).unwrap();
    run("sbattach", &["--remove", shim.to_str().unwrap()]);
    run("sbattach", &["--remove", shim.to_str().unwrap()]);
    world.sign_file("Microsoft Windows UEFI Driver Publisher", &shim);
    let (_, check) = world.audit();
    let said = |(name, what): &(String, String)| {
        name == "shimx64.efi" && what.contains("alone, for whom Microsoft does not vouch")
    };
    assert!(findings(&check).iter().any(said), "{check}");
    // What is behind its end is not signed.
    fs::write(&shim, [&good[..], b"x"].concat()).unwrap();
    let (code, check) = world.audit();
    let said = |(name, what): &(String, String)| name == "shimx64.efi" && what.contains("and changed since");
    assert!(code == 1 && findings(&check).iter().any(said), "{check}");
    // What the signature says of its program, and not the program.
    let mut bytes = good.clone();
    let hash = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
        0x04, 0x20,
    ];
    let at = (0..bytes.len() - 64).find(|at| bytes[*at..].starts_with(&hash)).expect("a hash");
    bytes[at + hash.len()] ^= 1;
    fs::write(&shim, bytes).unwrap();
    let (code, check) = world.audit();
    let said = |(name, what): &(String, String)| {
        name == "shimx64.efi" && what.contains("of its program was changed")
    };
    assert!(code == 1 && findings(&check).iter().any(said), "{check}");
}

#[test]
fn without_a_shim_it_is_said_that_secure_boot_starts_nothing() {
    let world = World::of(Live::new(), "");
    world.live.build(&[]);
    let (code, check) = world.audit();
    assert_eq!((code, check["findings"].as_array().unwrap().len()), (0, 0), "{check}");
    assert_eq!(check["says"], "nothing is signed: machines with Secure Boot do not start it");
}

#[test]
fn signed_loaders_that_are_not_there_or_not_for_uefi_are_named() {
    let world = World::signed(|settings| settings.replace("mmx64", "mmx65"));
    let said = |args: &[&str]| world.live.said(&[&["build", &world.live.spec()], args].concat());
    let (code, text) = said(&[]);
    assert!(code == 3 && text.contains("/usr/lib/shim/mmx65.efi.signed"), "{code}: {text}");
    let (code, text) = said(&["--set", "image.arch=ppc64le"]);
    assert!(code == 2 && text.contains("machines of ppc64le have no UEFI"), "{code}: {text}");
    let (code, text) = said(&["--set", "grub.signed.shin=x"]);
    assert!(code == 2 && text.contains("no key \"shin\""), "{code}: {text}");
    let (code, text) = said(&["--set", "image.arch=vax"]);
    assert!(
        code == 2 && text.contains("\"vax\" is no architecture") && text.contains("arm64"),
        "{code}: {text}"
    );
}
