//! Signatures by CMS, which iPXE verifies: made by `stagegraph sign` with the real openssl, and judged by the audit.

use std::fs;
use std::path::Path;

use trust::testing::{Asks, Certificates};

use crate::live::Live;
use crate::world::run;

/// A set whose scripts ask for signatures, and who may make them.
struct World {
    live: Live,
    made: Certificates,
}

impl World {
    fn new() -> Self {
        let live = Live::new();
        live.write_spec("path = \"root\"\n", "[node.ipxe]\nverify = true\n");
        let made = Certificates::new();
        made.signer("release", "ca", Asks::default());
        let world = Self { live, made };
        world.name_signer("release.key");
        world
    }

    fn name_signer(&self, key: &str) {
        let text = format!("[cms]\ncertificate = \"release.crt\"\nchain = [\"ca.crt\"]\nkey = \"{key}\"\n");
        fs::write(self.made.path("signers.toml"), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let mut command = self.live.command(args);
        command.env("STAGEGRAPH_SIGNERS", self.made.path("signers.toml"));
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        (output.status.code().unwrap(), said)
    }

    fn done(&self, args: &[&str]) -> String {
        let (code, said) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    }

    fn audit(&self, more: &[&str]) -> (i32, String) {
        let out = self.live.out().display().to_string();
        self.run(&[&["audit", &out], more].concat())
    }
}

fn signatures(folder: &Path) -> Vec<String> {
    let list = run("sh", &["-c", &format!("cd '{}' && find . -name '*.ipxe.sig' | sort", folder.display())]);
    list.lines().map(str::to_owned).collect()
}

#[test]
fn what_ipxe_loads_is_signed_and_the_audit_wants_it_so() {
    let world = World::new();
    world.done(&["build", &world.live.spec()]);
    let out = world.live.out();
    // Scripts name signatures that nobody made yet: the build goes through, a set that is published so does not.
    let (code, text) = world.audit(&[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("names the signature gentoo.vmlinuz.ipxe.sig, which is not there"), "{text}");

    let said = world.done(&["sign", out.to_str().unwrap()]);
    let signed = signatures(&out);
    assert_eq!(said.matches("signed ").count(), signed.len(), "{said}");
    for name in [
        "gentoo.vmlinuz",
        "gentoo.initrd",
        "image.squashfs",
        "boot.ipxe",
        "inject.ipxe",
        "combined.ipxe",
        "http.ipxe",
    ] {
        let file = out.join("netboot").join(name);
        let signature = format!("{}.ipxe.sig", file.display());
        let verify = ["cms", "-verify", "-binary", "-inform", "DER", "-in", &signature, "-content"];
        let more = [file.to_str().unwrap(), "-CAfile", "ca.crt", "-purpose", "any", "-out", "/dev/null"];
        world.made.run(&[&verify[..], &more[..]].concat());
    }
    let (code, text) = world.audit(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("are good: by release"), "{text}");
    let ca = world.made.path("ca.crt").display().to_string();
    let (code, text) = world.audit(&["--ca", &ca]);
    assert_eq!(code, 0, "{text}");

    // Once more, nothing changes; nor does a build that has nothing to do.
    let before: Vec<_> = signed.iter().map(|name| fs::read(out.join(name)).unwrap()).collect();
    let said = world.done(&["sign", out.to_str().unwrap()]);
    assert_eq!(said.matches("is good ").count(), signed.len(), "{said}");
    assert!(world.done(&["build", &world.live.spec()]).contains("unchanged"));
    assert_eq!(before, signed.iter().map(|name| fs::read(out.join(name)).unwrap()).collect::<Vec<_>>());
    // The same set, built and signed at once, is the same.
    let other = world.live.world.path("other");
    world.done(&["build", &world.live.spec(), "--sign", "--out", other.to_str().unwrap()]);
    assert_eq!(
        run(
            "diff",
            &["-r", "-x", ".stagegraph.json", out.to_str().unwrap(), other.join("tiny").to_str().unwrap()]
        ),
        ""
    );

    // What changes loses its signature, and nothing else does.
    let said =
        world.done(&["build", &world.live.spec(), "--set", "image.bootargs=[\"dokeymap\", \"nosound\"]"]);
    assert!(said.contains("signatures are gone"), "{said}");
    let left = signatures(&out);
    assert!(left.contains(&"./netboot/gentoo.vmlinuz.ipxe.sig".to_owned()), "{left:?}");
    assert!(!left.contains(&"./netboot/inject.ipxe.ipxe.sig".to_owned()), "{left:?}");
    let (code, text) = world.audit(&["--ca", &ca]);
    assert_eq!(code, 1, "{text}");
}

#[test]
fn every_damage_of_a_code_signature_is_a_difference() {
    let world = World::new();
    world.done(&["build", &world.live.spec(), "--sign"]);
    let netboot = world.live.out().join("netboot");
    let ca = world.made.path("ca.crt").display().to_string();
    world.made.root("other");
    let other = world.made.path("other.crt").display().to_string();
    let check = |damage: &dyn Fn(), mend: &dyn Fn(), args: &[&str], code: i32, says: &str| {
        damage();
        let (found, text) = world.audit(args);
        assert!(found == code && text.contains(says), "{says}: {found}: {text}");
        mend();
    };
    let kernel = netboot.join("gentoo.vmlinuz.ipxe.sig");
    let good = fs::read(&kernel).unwrap();
    let put = |bytes: &[u8]| {
        fs::remove_file(&kernel).unwrap();
        fs::write(&kernel, bytes).unwrap();
    };
    let other_file = fs::read(netboot.join("gentoo.initrd.ipxe.sig")).unwrap();
    let back = || put(&good);
    check(&|| (), &|| (), &["--ca", &other], 1, "is by release, and no authority that --ca names");
    check(&|| put(&other_file), &back, &[], 1, "release signed other bytes");
    check(
        &|| put(&good[..good.len() - 1]),
        &back,
        &[],
        1,
        "is no signature of netboot/gentoo.vmlinuz that iPXE takes",
    );
    check(&|| put(b""), &back, &[], 1, "or a damaged one");
    let bare = netboot.join("http.ipxe.ipxe.sig");
    let script = fs::read(&bare).unwrap();
    check(
        &|| fs::remove_file(&bare).unwrap(),
        &|| fs::write(&bare, &script).unwrap(),
        &["--ca", &ca],
        1,
        "netboot/http.ipxe: is a script that iPXE loads, and no good netboot/http.ipxe.ipxe.sig is beside it",
    );
    let stray = netboot.join("nothing.ipxe.sig");
    check(
        &|| fs::write(&stray, &good).unwrap(),
        &|| fs::remove_file(&stray).unwrap(),
        &[],
        0,
        "is a signature of nothing that is here",
    );
    assert_eq!(world.audit(&["--ca", &ca]).0, 0);
    for (file, code, says) in
        [("none.crt", 3, "read the certificates of"), ("signers.toml", 2, "has no certificate")]
    {
        let path = world.made.path(file).display().to_string();
        check(&|| (), &|| (), &["--ca", &path], code, says);
    }
}

#[test]
fn a_token_signs_the_same_bytes_and_nobody_else_reads_the_key() {
    let world = World::new();
    world.done(&["build", &world.live.spec(), "--sign"]);
    let folder = world.live.out();
    let names = signatures(&folder);
    let by_file: Vec<_> = names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect();
    // A token of SoftHSM's, with the same key.
    let tokens = world.made.path("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = world.made.path("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display()))
        .unwrap();
    fs::write(world.made.path("pin"), "1234").unwrap();
    let hsm = |args: &[&str]| {
        let output =
            std::process::Command::new("softhsm2-util").args(args).env("SOFTHSM2_CONF", &conf).output();
        let output = output.expect("softhsm2 is installed");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    hsm(&["--init-token", "--free", "--label", "release", "--pin", "1234", "--so-pin", "5678"]);
    let key = world.made.path("release.key").display().to_string();
    hsm(&["--import", &key, "--token", "release", "--label", "netboot", "--id", "01", "--pin", "1234"]);
    fs::remove_file(world.made.path("release.key")).unwrap();
    let pin = world.made.path("pin").display().to_string();
    world.name_signer(&format!("pkcs11:token=release;object=netboot;type=private;pin-source=file:{pin}"));
    for name in &names {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let module = run(
        "sh",
        &["-c", "ls /usr/lib/*/softhsm/libsofthsm2.so /usr/lib/softhsm/libsofthsm2.so 2>/dev/null | head -1"],
    );
    let mut command = world.live.command(&["sign", folder.to_str().unwrap()]);
    command.env("STAGEGRAPH_SIGNERS", world.made.path("signers.toml"));
    command.env("SOFTHSM2_CONF", &conf).env("PKCS11_MODULE_PATH", module.trim());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(by_file, names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect::<Vec<_>>());
}

#[test]
fn who_cannot_sign_says_why_and_nothing_is_signed() {
    let world = World::new();
    world.done(&["build", &world.live.spec()]);
    let out = world.live.out().display().to_string();
    let fails = |key: &str, code: i32, says: &str| {
        world.name_signer(key);
        let (found, text) = world.run(&["sign", &out]);
        assert!(found == code && text.contains(says), "{key}: {found}: {text}");
        assert_eq!(signatures(&world.live.out()), [""; 0]);
    };
    fails("none.key", 3, "cannot be found");
    fails("ca.key", 3, "openssl did not sign");
    fails("pkcs11:token=x;pin-value=1234", 2, "the PIN is in it");
    let server = Asks {
        extensions: "keyUsage = digitalSignature\nextendedKeyUsage = serverAuth\n",
        ..Asks::default()
    };
    world.made.signer("release", "ca", server);
    fails("release.key", 2, "may not sign code");
    let text = "[cms]\ncertificate = \"release.crt\"\nkey = \"release.key\"\nchains = []\n";
    fs::write(world.made.path("signers.toml"), text).unwrap();
    let (code, text) = world.run(&["sign", &out]);
    assert!(code == 2 && text.contains("chains"), "{text}");
}
