//! `--keyring`: what gpg signed is believed, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use trust::testing::Gpg;

use crate::http::Nginx;
use crate::live::Live;
use crate::world::{run, run_in};

const ISO: &str = "install-tiny-20260102T030405Z.iso";

/// Lists that a build makes.
const LISTS: [&str; 2] = ["install-tiny-20260102T030405Z.iso.DIGESTS", "netboot/DIGESTS"];

/// A published folder that is signed, and who signed it.
struct Signed {
    live: Live,
    dir: PathBuf,
    gpg: Gpg,
    key: String,
    keyring: String,
}

impl Signed {
    /// A copy of a published folder, with nothing signed.
    fn copy(of: &Path) -> Self {
        let live = Live::bare();
        let dir = live.world.path("set");
        run("cp", &["-r", of.to_str().unwrap(), dir.to_str().unwrap()]);
        let gpg = Gpg::new();
        let key = gpg.key("release <release@example.org>", "ed25519", &[]);
        let keyring = live.world.path("keyring.asc");
        fs::write(&keyring, gpg.export(&[&key])).unwrap();
        let keyring = keyring.display().to_string();
        Self { live, dir, gpg, key, keyring }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let _ = fs::remove_file(self.dir.join(name));
        fs::write(self.dir.join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join(name)).unwrap()
    }

    fn sign_list(&self, name: &str) {
        self.write(name, &self.gpg.clear(&self.key, &self.read(name)));
    }

    fn sign_lists(&self) {
        LISTS.iter().for_each(|name| self.sign_list(name));
    }

    fn sign_iso(&self) {
        self.write(&format!("{ISO}.asc"), &self.gpg.detached(&self.key, &["--armor"], &self.read(ISO)));
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}: {text}");
        self.write(name, text.replacen(from, to, 1).as_bytes());
    }

    /// Audits the folder; returns the exit code, and of the checks named what they say and find.
    fn audit(&self, args: &[&str]) -> (i32, Vec<(String, String)>) {
        let folder = self.dir.display().to_string();
        let iso = self.dir.join(ISO).display().to_string();
        self.audit_of(&[&[iso.as_str(), folder.as_str()], args].concat())
    }

    fn audit_of(&self, args: &[&str]) -> (i32, Vec<(String, String)>) {
        let output = self.live.stagegraph(&[&["audit", "--json"], args].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
        let mut said = Vec::new();
        for check in report["checks"].as_array().unwrap() {
            let name = check["check"].as_str().unwrap();
            for finding in check["findings"].as_array().unwrap() {
                let text = |key: &str| finding[key].as_str().unwrap();
                said.push((
                    name.to_owned(),
                    format!("{}: {}: {}", text("verdict"), text("subject"), text("what")),
                ));
            }
            if ["signatures", "unsigned"].contains(&name) && check["findings"].as_array().unwrap().is_empty()
            {
                said.push((name.to_owned(), check["says"].as_str().unwrap().to_owned()));
            }
        }
        (output.status.code().unwrap(), said)
    }

    fn with_key(&self) -> (i32, Vec<(String, String)>) {
        self.audit(&["--keyring", &self.keyring])
    }
}

/// What is done to a signed folder, and what the audit says of it then.
type Row = (&'static str, fn(&Signed), i32, &'static str, &'static str);

const ROWS: [Row; 17] = [
    ("signed lists", Signed::sign_lists, 0, "unsigned", "the ISO and "),
    (
        "signed lists and a signed ISO",
        |set| {
            set.sign_lists();
            set.sign_iso();
        },
        0,
        "signatures",
        "3 signatures are good: ",
    ),
    ("nothing is signed", |_| (), 1, "unsigned", "is covered by no good signature"),
    (
        "only the ISO is signed: its own files are, scripts are not",
        Signed::sign_iso,
        1,
        "unsigned",
        "different: netboot/boot.ipxe: is a script or a menu that no good signature covers",
    ),
    (
        "a line of a list is changed",
        |set| {
            set.sign_lists();
            set.edit(LISTS[1], "  boot.ipxe", "  boot.ipxx");
        },
        1,
        "signatures",
        "netboot/DIGESTS: the signature",
    ),
    (
        "a line is put in front of the signed text",
        |set| {
            set.sign_lists();
            let line = format!("{}  boot.ipxe\n", "a".repeat(64));
            set.write(LISTS[1], &[line.as_bytes(), &set.read(LISTS[1])].concat());
        },
        1,
        "digests",
        "there is text in front of the signed one",
    ),
    (
        "a line is put behind the signed text",
        |set| {
            set.sign_lists();
            let line = format!("{}  boot.ipxe\n", "a".repeat(64));
            set.write(LISTS[1], &[&set.read(LISTS[1]), line.as_bytes()].concat());
        },
        1,
        "digests",
        "there is text behind the signature",
    ),
    (
        "a signed list is cut off",
        |set| {
            set.sign_lists();
            let signed = set.read(LISTS[1]);
            set.write(LISTS[1], &signed[..signed.len() - 60]);
        },
        1,
        "digests",
        "cut off",
    ),
    (
        "the script is changed after its list was signed",
        |set| {
            set.sign_lists();
            set.edit("netboot/boot.ipxe", "#!ipxe", "#!ipxe\n# more");
        },
        1,
        "unsigned",
        "netboot/boot.ipxe",
    ),
    (
        "somebody else signed",
        |set| {
            let other = set.gpg.key("other <other@example.org>", "ed25519", &[]);
            LISTS.iter().for_each(|name| set.write(name, &set.gpg.clear(&other, &set.read(name))));
        },
        1,
        "signatures",
        "is by a key that the keyring lacks",
    ),
    (
        "somebody else signed as well",
        |set| {
            set.sign_lists();
            let other = set.gpg.key("other <other@example.org>", "ed25519", &[]);
            let of = set.read(ISO);
            let both = [set.gpg.detached(&set.key, &[], &of), set.gpg.detached(&other, &[], &of)].concat();
            set.write(&format!("{ISO}.sig"), &both);
        },
        0,
        "signatures",
        "warning: install-tiny-20260102T030405Z.iso.sig: the signature of ",
    ),
    (
        "the signature is of another ISO",
        |set| {
            set.sign_lists();
            set.write(&format!("{ISO}.asc"), &set.gpg.detached(&set.key, &["--armor"], b"another"));
        },
        1,
        "signatures",
        "iso.asc: the signature of install-tiny-20260102T030405Z.iso",
    ),
    (
        "SHA-1",
        |set| {
            set.sign_lists();
            let weak = set.gpg.detached(&set.key, &["--digest-algo", "SHA1"], &set.read(ISO));
            set.write(&format!("{ISO}.asc"), &weak);
        },
        1,
        "signatures",
        "SHA1",
    ),
    (
        "a signature is a page that says \"not found\"",
        |set| {
            set.sign_lists();
            set.write(&format!("{ISO}.asc"), b"<html>404</html>");
        },
        1,
        "signatures",
        "iso.asc: ",
    ),
    (
        "a detached signature of a list",
        |set| {
            set.sign_list(LISTS[0]);
            set.write("netboot/DIGESTS.asc", &set.gpg.detached(&set.key, &["--armor"], &set.read(LISTS[1])));
        },
        0,
        "unsigned",
        "the ISO and ",
    ),
    (
        "a detached signature of a list that was changed",
        |set| {
            set.sign_list(LISTS[0]);
            set.write("netboot/DIGESTS.asc", &set.gpg.detached(&set.key, &["--armor"], &set.read(LISTS[1])));
            set.write(LISTS[1], &[&set.read(LISTS[1])[..], b"# more\n"].concat());
        },
        1,
        "signatures",
        "netboot/DIGESTS.asc: the signature of netboot/DIGESTS",
    ),
    (
        "a signature of what is not there",
        |set| {
            set.sign_lists();
            set.write("netboot/gone.asc", &set.gpg.detached(&set.key, &["--armor"], b"gone"));
        },
        0,
        "signatures",
        "netboot/gone.asc: is a signature of nothing that is here",
    ),
];

#[test]
fn what_is_signed_is_believed_and_every_damage_of_a_signature_is_a_difference() {
    let live = Live::new();
    live.build(&[]);
    for (how, damage, code, check, says) in ROWS {
        let set = Signed::copy(&live.out());
        damage(&set);
        let (found, said) = set.with_key();
        assert_eq!(found, code, "{how}: {said:#?}");
        let is_said = said.iter().any(|(name, text)| name == check && text.contains(says));
        assert!(is_said, "{how}: {check} does not say {says:?}: {said:#?}");
    }
}

#[test]
fn without_a_keyring_it_is_said_who_claims_to_have_signed_and_nothing_is_believed() {
    let live = Live::new();
    live.build(&[]);
    let set = Signed::copy(&live.out());
    let says = |said: &[(String, String)]| {
        said.iter().find(|(check, _)| check == "signatures").map(|(_, text)| text.clone()).unwrap()
    };
    assert_eq!(says(&set.audit(&[]).1), "nothing is signed");
    set.sign_lists();
    let (code, said) = set.audit(&[]);
    assert_eq!(code, 0, "{said:#?}");
    let text = says(&said);
    assert!(text.starts_with(&format!("signed by {} on 20", set.key)), "{text}");
    assert!(text.ends_with("; not checked: give the key with --keyring"), "{text}");
    // A script that is changed is a difference by its hash, and `--allow` makes what is unsigned a warning.
    let (code, said) = set.audit(&["--keyring", &set.keyring, "--allow", "unsigned"]);
    assert_eq!(code, 0, "{said:#?}");
}

#[test]
fn an_iso_and_a_set_behind_servers_are_verified_by_what_lies_beside_them() {
    let live = Live::new();
    live.build(&[]);
    let set = Signed::copy(&live.out());
    set.sign_lists();
    set.sign_iso();
    let work = set.live.world.path("nginx");
    fs::create_dir_all(&work).unwrap();
    let nginx = Nginx::start(&work, &set.dir);
    let base = format!("http://127.0.0.1:{}/", nginx.plain);
    let args = |iso: &str, set: &str| [format!("{base}{iso}"), format!("{base}{set}")];
    let [iso, folder] = args(ISO, "netboot/");
    let (code, said) = set.audit_of(&[&iso, &folder, "--keyring", &set.keyring]);
    assert_eq!(code, 0, "{said:#?}");
    let good =
        said.iter().any(|(check, text)| check == "signatures" && text.starts_with("3 signatures are good"));
    assert!(good, "{said:#?}");
    // A mirror that changes a script, and the list with it.
    set.edit("netboot/boot.ipxe", "#!ipxe", "#!ipxe\n# more");
    let (code, said) = set.audit_of(&[&iso, &folder, "--keyring", &set.keyring]);
    assert_eq!(code, 1, "{said:#?}");
}

#[test]
fn a_keyring_that_is_none_says_so_and_nothing_is_audited() {
    let live = Live::new();
    live.build(&[]);
    let set = Signed::copy(&live.out());
    let rows: [(&str, &[u8], i32, &str); 4] = [
        ("empty.asc", b"", 2, "empty.asc is no keyring: it is empty"),
        ("text.asc", b"hello\n", 2, "text.asc is no keyring"),
        ("box.kbx", &fs::read(set.gpg.home().join("pubring.kbx")).unwrap(), 2, "gpg --export"),
        ("", b"", 3, "read the keyring"),
    ];
    for (name, bytes, code, says) in rows {
        let path = set.live.world.path(if name.is_empty() { "gone.asc" } else { name });
        if !name.is_empty() {
            fs::write(&path, bytes).unwrap();
        }
        let output =
            set.live.stagegraph(&["audit", set.dir.to_str().unwrap(), "--keyring", path.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.split_whitespace().collect::<Vec<_>>().join(" ").contains(says), "{errors}");
        assert!(output.stdout.is_empty());
    }
}

/// What is done to a folder, how extracting ends then, and what it says.
type Case = (&'static str, fn(&Signed), i32, &'static str);

#[test]
fn nothing_is_extracted_of_an_iso_that_nobody_signed() {
    let live = Live::new();
    live.build(&[]);
    let rows: [Case; 7] = [
        ("a signature", Signed::sign_iso, 0, "the ISO is signed: "),
        ("a signed list", |set| set.sign_list(LISTS[0]), 0, "iso.DIGESTS"),
        (
            "a list with a signature beside it",
            |set| {
                let list = format!("{ISO}.sha256");
                set.write(
                    &format!("{list}.asc"),
                    &set.gpg.detached(&set.key, &["--armor"], &set.read(&list)),
                );
            },
            0,
            "iso.sha256",
        ),
        ("nothing", |_| (), 1, "is not signed: there is no good signature beside it"),
        (
            "other bytes than those that were signed",
            |set| {
                set.sign_iso();
                set.write(ISO, &[&set.read(ISO)[..], b"more"].concat());
            },
            1,
            "iso.asc: the signature is bad",
        ),
        (
            "other bytes than those of the list",
            |set| {
                set.sign_list(LISTS[0]);
                set.write(ISO, &[&set.read(ISO)[..], b"more"].concat());
            },
            1,
            "it has another hash of the ISO",
        ),
        (
            "a foreign key",
            |set| {
                let other = set.gpg.key("other <other@example.org>", "ed25519", &[]);
                set.write(&format!("{ISO}.asc"), &set.gpg.detached(&other, &["--armor"], &set.read(ISO)));
            },
            1,
            "is by a key that the keyring lacks",
        ),
    ];
    for (what, sign, code, says) in rows {
        let set = Signed::copy(&live.out());
        sign(&set);
        let (iso, to) = (set.dir.join(ISO).display().to_string(), set.live.world.path("to"));
        let output = set.live.stagegraph(&["extract", &iso, to.to_str().unwrap(), "--keyring", &set.keyring]);
        let errors = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(code), "{what}: {errors}");
        assert!(errors.contains(says), "{what}: {errors}");
        assert_eq!(to.exists(), code == 0, "{what}");
    }
}

#[test]
fn what_is_imported_is_verified_before_it_is_used() {
    let live = Live::new();
    let gpg = Gpg::new();
    let (key, other) =
        (gpg.key("r <r@example.org>", "ed25519", &[]), gpg.key("o <o@example.org>", "ed25519", &[]));
    fs::write(live.world.path("keys.gpg"), gpg.export(&[&key])).unwrap();
    run_in(&live.root(), "tar", &["-cf", "../root.tar", "."]);
    live.write_spec("path = \"root.tar\"\nkeyring = [\"keys.gpg\"]\n", "");
    let build = || {
        let output = live.stagegraph(&["build", &live.spec()]);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let (code, text) = build();
    assert!(code == 1 && text.contains("root.tar is not signed"), "{text}");
    let tar = fs::read(live.world.path("root.tar")).unwrap();
    let beside = live.world.path("root.tar.asc");
    fs::write(&beside, gpg.detached(&other, &[], &tar)).unwrap();
    let (code, text) = build();
    assert!(code == 1 && text.contains("a key that the keyring lacks"), "{text}");
    fs::write(&beside, gpg.detached(&key, &[], &tar)).unwrap();
    let (code, text) = build();
    assert!(code == 0 && text.contains("root.tar is signed: "), "{text}");
    assert!(build().1.contains("15 cached"));
    // Other bytes under the same signature, also where the root was known before.
    fs::write(live.world.path("root.tar"), [&tar[..], &[0; 512]].concat()).unwrap();
    let (code, text) = build();
    assert!(code == 1 && text.contains("the signature is bad"), "{text}");
    live.write_spec("path = \"root\"\nkeyring = [\"keys.gpg\"]\n", "");
    let (code, text) = build();
    assert!(code == 2 && text.contains("a folder has no signature"), "{text}");
    live.write_spec("path = \"root.tar\"\nkeyring = [\"none.gpg\"]\n", "");
    let (code, text) = build();
    assert!(code == 3 && text.contains("none.gpg"), "{text}");
}
