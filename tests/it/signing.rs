//! `stagegraph sign` and `build --sign`, with the real gpg.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use trust::testing::Gpg;

use crate::live::Live;
use crate::world::run;

const ISO: &str = "install-tiny-20260102T030405Z.iso";
const LISTS: [&str; 3] = [
    "install-tiny-20260102T030405Z.iso.DIGESTS",
    "install-tiny-20260102T030405Z.iso.sha256",
    "netboot/DIGESTS",
];

/// A spec, a key, and the file that names it.
struct World {
    live: Live,
    gpg: Gpg,
    key: String,
}

impl World {
    fn new() -> Self {
        let live = Live::new();
        let gpg = Gpg::new();
        let key = gpg.key("release <release@example.org>", "ed25519", &[]);
        let world = Self { live, gpg, key };
        world.name_signer(&world.key);
        fs::write(world.live.world.path("keyring.asc"), world.gpg.export(&[&world.key])).unwrap();
        world
    }

    fn name_signer(&self, key: &str) {
        fs::write(self.signers(), format!("[openpgp]\nkey = \"{key}\"\n")).unwrap();
    }

    fn signers(&self) -> PathBuf {
        self.live.world.path("signers.toml")
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.live.command(args);
        command.env("GNUPGHOME", self.gpg.home()).env("STAGEGRAPH_SIGNERS", self.signers());
        command.output().unwrap()
    }

    /// Runs something that is to go well; returns what it prints.
    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
        said
    }

    fn sign(&self) -> String {
        self.done(&["sign", self.live.out().to_str().unwrap()])
    }

    fn build(&self, more: &[&str]) -> String {
        self.done(&[&["build", &self.live.spec()], more].concat())
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.live.published(name)).unwrap()
    }

    /// Audits what is published, with the key.
    fn audit(&self) -> (i32, String) {
        let keyring = self.live.world.path("keyring.asc").display().to_string();
        let output = self.run(&["audit", self.live.out().to_str().unwrap(), "--keyring", &keyring]);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }
}

/// Returns every file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let list =
        run("sh", &["-c", &format!("cd '{}' && find . -type f ! -name .stagegraph.json", folder.display())]);
    list.lines().map(|name| (name.to_owned(), fs::read(folder.join(name)).unwrap())).collect()
}

#[test]
fn a_signed_folder_is_what_gpg_verifies_and_the_audit_believes() {
    let world = World::new();
    world.build(&[]);
    let unsigned = files(&world.live.out());
    let said = world.sign();
    assert_eq!(said.matches("signed   ").count(), 4, "{said}");
    for name in LISTS {
        world.gpg.run(&["--verify", world.live.published(name).to_str().unwrap()], b"");
    }
    let iso = world.live.iso().display().to_string();
    world.gpg.run(&["--verify", &format!("{iso}.asc"), &iso], b"");
    let (code, text) = world.audit();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("4 signatures are good"), "{text}");

    // Nothing else changed, and of lists, only what stands around them.
    let signed = files(&world.live.out());
    for (name, bytes) in &unsigned {
        let now = &signed[name];
        if LISTS.iter().any(|list| name.ends_with(list)) {
            let text = String::from_utf8_lossy(bytes).replace("\n-", "\n- -");
            assert!(String::from_utf8_lossy(now).contains(text.trim_end()), "{name}");
        } else {
            assert_eq!(now, bytes, "{name}");
        }
    }
    // Once more, it changes nothing.
    let said = world.sign();
    assert_eq!(said.matches("is good  ").count(), 4, "{said}");
    assert_eq!(files(&world.live.out()), signed);
    // Nor does a build that has nothing to do.
    let said = world.build(&[]);
    assert!(said.contains("unchanged"), "{said}");
    assert_eq!(files(&world.live.out()), signed);
}

#[test]
#[cfg(feature = "serve")]
fn what_is_served_of_a_signed_folder_is_known_by_the_signed_bytes() {
    let world = World::new();
    world.build(&["--sign"]);
    let set = stagegraph::serving::Served::of(&world.live.out()).unwrap().read().unwrap().unwrap();
    for name in LISTS.iter().chain([&"netboot/boot.ipxe"]) {
        let known = set.files[*name].digests.unwrap().blake3;
        assert_eq!(known, cache::BlobDigest::of(&world.read(name)), "{name}");
    }
}

#[test]
fn what_changes_loses_its_signature_and_what_is_built_with_one_has_it_at_once() {
    let world = World::new();
    world.build(&["--sign"]);
    let before = files(&world.live.out());
    assert_eq!(world.audit().0, 0);
    // The same unsigned bytes as without.
    let other = world.live.world.path("other");
    world.build(&["--out", other.to_str().unwrap()]);
    for (name, bytes) in files(&other.join("tiny")) {
        assert!(LISTS.iter().any(|list| name.ends_with(list)) || before[&name] == bytes, "{name}");
    }
    let said = world.build(&["--sign"]);
    assert!(said.contains("unchanged"), "{said}");
    assert_eq!(files(&world.live.out()), before);

    // Another word on the command line: the ISO's menu changes, and all lists.
    let said = world.build(&["--set", "image.bootargs=[\"dokeymap\", \"nosound\"]"]);
    assert!(
        said.contains("signatures are gone: what they were on changed: ")
            && said.contains(&format!(", {ISO}, ")),
        "{said}"
    );
    assert!(!world.live.published(&format!("{ISO}.asc")).exists());
    assert_eq!(world.audit().0, 1);
    let said = world.build(&["--set", "image.bootargs=[\"dokeymap\", \"nosound\"]", "--sign"]);
    assert!(!said.contains("signatures are gone"), "{said}");
    assert_eq!(world.audit().0, 0);
}

#[test]
fn a_copy_without_a_listing_is_signed_and_what_people_put_there_stays() {
    let world = World::new();
    world.build(&[]);
    let copy = world.live.world.path("copy");
    run("cp", &["-r", world.live.out().to_str().unwrap(), copy.to_str().unwrap()]);
    fs::remove_file(copy.join(".stagegraph.json")).unwrap();
    fs::write(copy.join("README"), "by hand\n").unwrap();
    let said = world.done(&["sign", copy.to_str().unwrap()]);
    assert_eq!(said.matches("signed   ").count(), 4, "{said}");
    assert_eq!(fs::read_to_string(copy.join("README")).unwrap(), "by hand\n");
    // The objects of the store are untouched: a list there is a file of its own.
    assert!(!trust::openpgp::is_clear_signed(&world.read(LISTS[0])));
}

#[test]
fn no_byte_of_the_secret_key_is_anywhere() {
    let world = World::new();
    world.build(&["--sign"]);
    let folder = world.gpg.home().join("private-keys-v1.d");
    let file = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(file).unwrap().replace([' ', '\n'], "");
    let (_, rest) = text.split_once("(d#").expect("an unprotected key");
    let hex = rest.split('#').next().unwrap();
    assert!(hex.len() >= 64, "{hex}");
    let digits: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let run_of = &digits[digits.len() - 16..];
    for (name, bytes) in files(world.live.world.dir.path()) {
        assert!(!bytes.windows(16).any(|window| window == run_of), "{name}");
        let text = String::from_utf8_lossy(&bytes).to_uppercase();
        assert!(!text.contains(&hex[hex.len() - 32..].to_uppercase()), "{name}");
    }
}

#[test]
fn what_cannot_be_signed_says_why_and_changes_nothing() {
    let world = World::new();
    world.build(&[]);
    let before = files(&world.live.out());
    let out = world.live.out().display().to_string();
    let empty = world.live.world.path("empty");
    fs::create_dir(&empty).unwrap();
    let old = ["--faked-system-time", "20200101T000000!"];
    let expired = world.gpg.key("old <old@example.org>", "ed25519", &["1d", old[0], old[1]]);
    let fails = |args: &[&str], code: i32, says: &str| {
        let output = world.run(args);
        let errors = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(says) && errors.starts_with("error: "), "{args:?}: {errors}");
        assert_eq!(files(&world.live.out()), before);
    };
    fails(&["sign", empty.to_str().unwrap()], 2, "has nothing to sign");
    fails(&["sign", "/nonexistent"], 2, "is no folder");
    world.name_signer("0123456789ABCDEF0123456789ABCDEF01234567");
    fails(&["sign", &out], 3, "gpg has no public key 0123456789ABCDEF0123456789ABCDEF01234567");
    world.name_signer(&expired);
    fails(&["sign", &out], 3, "gpg did not sign");
    fails(&["build", &world.live.spec(), "--sign", "--set", "image.title=Other"], 3, "nothing was published");
    world.name_signer("release");
    fails(&["sign", &out], 2, "is no fingerprint of a key");
    fails(&["build", &world.live.spec(), "--sign"], 2, "is no fingerprint of a key");
    fs::remove_file(world.signers()).unwrap();
    fails(&["sign", &out], 3, "signers.toml");

    // A list that was changed after it was signed is not signed again over that.
    world.name_signer(&world.key);
    world.sign();
    let place = world.live.published(LISTS[2]);
    let text = fs::read_to_string(&place).unwrap().replacen("boot.ipxe", "boot.ipxx", 1);
    fs::remove_file(&place).unwrap();
    fs::write(&place, text).unwrap();
    let output = world.run(&["sign", &out]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("netboot/DIGESTS is signed already, and not well by"), "{errors}");
}
