//! What is in an image, and what it was built of: SPDX and SLSA provenance, by the programs that people check them with.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use trust::testing::Certificates;

use crate::live::Live;
use crate::world::run;

const ISO: &str = "install-tiny-20260102T030405Z.iso";

/// Where `packaging/servers.sh` puts the validators.
fn validator(name: &str) -> String {
    let set = std::env::var_os("STAGEGRAPH_TEST_SERVERS").map(PathBuf::from);
    let folder = set.unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target")).join("servers")
    });
    let path = folder.join("validators/bin").join(name);
    assert!(path.exists(), "{path:?} is not there; run `make packages-test`");
    path.display().to_string()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// A root with packages of Debian's, by its list.
fn with_debian(live: &Live) {
    let root = live.root();
    fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    let status = "Package: bash\nStatus: install ok installed\nMaintainer: M <m@example.org>\nArchitecture: amd64\n\
        Version: 5.2.15-2+b7\nHomepage: http://tiswww.case.edu/php/chet/bash/bashtop.html\n\n\
        Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nSource: gcc-12\nVersion: 12.2.0-14\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n";
    fs::write(root.join("var/lib/dpkg/status"), status).unwrap();
    fs::write(root.join("etc/os-release"), "NAME=\"Debian GNU/Linux\"\nID=debian\n").unwrap();
}

fn sbom(live: &Live) -> PathBuf {
    live.published(&format!("{ISO}.spdx.json"))
}

#[test]
fn the_software_of_an_image_is_listed_as_validators_want_it() {
    let live = Live::new();
    with_debian(&live);
    live.write_spec("path = \"root\"\n", "[node.sbom]\nsupplier = \"Organization: Example\"\n");
    live.build(&[]);
    let path = sbom(&live);
    run(&validator("pyspdxtools"), &["-i", path.to_str().unwrap()]);
    let said = run(&validator("ntia-checker"), &[path.to_str().unwrap(), "-v"]);
    assert!(!said.contains("False"), "{said}");
    let document = json(&fs::read(&path).unwrap());
    let packages = document["packages"].as_array().unwrap();
    let named = |name: &str| packages.iter().find(|package| package["name"] == name);
    let library = named("libstdc++6").unwrap();
    assert_eq!(
        library["externalRefs"][0]["referenceLocator"],
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64"
    );
    assert_eq!(library["supplier"], "Organization: Debian GNU/Linux");
    assert_eq!(library["sourceInfo"], "built of the source package gcc-12");
    assert!(named("bash").is_some() && named("gone").is_none());
    let iso = run("sha256sum", &[live.iso().to_str().unwrap()]);
    assert_eq!(named(ISO).unwrap()["checksums"][0]["checksumValue"], iso.split(' ').next().unwrap());
    assert_eq!(document["creationInfo"]["created"], "2026-01-02T03:04:05Z");
    // A damaged one is no document to them.
    let bad = live.world.path("bad.spdx.json");
    fs::write(&bad, fs::read_to_string(&path).unwrap().replacen("CC0-1.0", "CC0-9", 1)).unwrap();
    let output = std::process::Command::new(validator("pyspdxtools")).arg("-i").arg(&bad).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn portages_packages_are_listed_and_a_root_that_nobody_knows_has_a_remark() {
    let live = Live::new();
    live.build(&[]);
    assert_eq!(json(&fs::read(sbom(&live)).unwrap())["packages"].as_array().unwrap().len(), 2);
    let said = String::from_utf8(live.stagegraph(&["build", &live.spec()]).stdout).unwrap();
    assert!(
        said.split_whitespace().collect::<Vec<_>>().join(" ").contains("no package manager says"),
        "{said}"
    );

    let folder = live.root().join("var/db/pkg/app-shells/bash-5.2_p37-r1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("LICENSE"), "GPL-3+\n").unwrap();
    fs::write(folder.join("repository"), "gentoo\n").unwrap();
    live.build(&[]);
    run(&validator("pyspdxtools"), &["-i", sbom(&live).to_str().unwrap()]);
    let document = json(&fs::read(sbom(&live)).unwrap());
    let bash = &document["packages"][2];
    assert_eq!((&bash["name"], &bash["versionInfo"]), (&"app-shells/bash".into(), &"5.2_p37-r1".into()));
    assert_eq!(bash["supplier"], "Organization: Gentoo");
    assert_eq!(bash["licenseComments"], "Portage says: GPL-3+");
}

/// A published set, and two builders with a key each.
struct Builders {
    live: Live,
    made: Certificates,
}

impl Builders {
    fn new() -> Self {
        let (live, made) = (Live::new(), Certificates::new());
        live.build(&[]);
        fs::create_dir(made.path("builders")).unwrap();
        for name in ["one", "two"] {
            made.key(name, &["-algorithm", "ED25519"]);
            let public = format!("builders/{name}.pem");
            made.run(&["pkey", "-in", &format!("{name}.key"), "-pubout", "-out", &public]);
            let signers = format!(
                "[provenance]\nkey = \"{name}.key\"\nbuilder = \"https://example.org/builders/{name}\"\n"
            );
            fs::write(made.path(&format!("{name}.toml")), signers).unwrap();
        }
        Self { live, made }
    }

    fn out(&self) -> String {
        self.live.out().display().to_string()
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.live.stagegraph(args);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn sign(&self, name: &str) -> String {
        let signers = self.made.path(&format!("{name}.toml")).display().to_string();
        let (code, text) = self.run(&["sign", &self.out(), "--signers", &signers]);
        assert_eq!(code, 0, "{text}");
        text
    }

    fn audit(&self, threshold: &str) -> (i32, String) {
        let builders = self.made.path("builders").display().to_string();
        self.run(&["audit", &self.out(), "--builders", &builders, "--threshold", threshold])
    }

    fn file(&self) -> PathBuf {
        self.live.published(&format!("{ISO}.intoto.jsonl"))
    }

    fn lines(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Puts other lines there.
    fn put(&self, text: &str) {
        fs::remove_file(self.file()).unwrap();
        fs::write(self.file(), text).unwrap();
    }
}

/// Changes a word of the first line's payload.
fn altered(lines: &str) -> String {
    let payload = json(lines.lines().next().unwrap().as_bytes())["payload"].as_str().unwrap().to_owned();
    let at = payload.find('A').unwrap();
    let other = format!("{}B{}", &payload[..at], &payload[at + 1..]);
    lines.replacen(&payload, &other, 1)
}

#[test]
fn builders_sign_what_it_was_built_of_and_are_counted() {
    let world = Builders::new();
    let (code, text) = world.audit("1");
    assert!(
        code == 1 && text.contains("0 keys of --builders signed what it is made of; 1 are wanted"),
        "{text}"
    );
    assert!(world.sign("one").contains("signed "));
    assert!(world.sign("one").contains("is good "));
    let first = world.lines();
    let (code, text) = world.run(&["audit", &world.out()]);
    assert!(
        code == 0 && text.contains("1 builder says so: https://example.org/builders/one; not checked"),
        "{text}"
    );
    assert_eq!(world.audit("1").0, 0);
    let (code, text) = world.audit("2");
    assert!(code == 1 && text.contains("1 key of --builders signed"), "{text}");
    world.sign("two");
    let both = world.lines();
    assert!(both.starts_with(&first) && both.lines().count() == 2);
    let (code, text) = world.audit("2");
    assert!(code == 0 && text.contains("2 trusted builders signed"), "{text}");
    assert!(world.run(&["build", &world.live.spec()]).1.contains("unchanged"));
    assert_eq!(world.lines(), both);

    // What no build made, and a machine would boot all the same.
    let odd = world.live.published("netboot/another.ipxe");
    fs::write(&odd, "#!ipxe\nchain boot.ipxe\n").unwrap();
    let (code, text) = world.audit("1");
    assert!(code == 1 && text.contains("netboot/another.ipxe: is of no build that enough trusted"), "{text}");
    fs::remove_file(odd).unwrap();

    // What says something else, what is no statement, and what is signed by nobody.
    for (text, says) in [
        (altered(&both), "intoto.jsonl:1: "),
        (format!("{both}{{}}\n"), "intoto.jsonl:3: is no envelope"),
        (both.replacen("\"sig\":\"", "\"sig\":\"AAAA", 1), "1 key of --builders"),
    ] {
        world.put(&text);
        let (code, text) = world.audit("2");
        assert!(code == 1 && text.contains(says), "{says}: {text}");
    }
}

#[test]
fn no_line_of_something_else_is_published_with_a_statement() {
    let world = Builders::new();
    std::os::unix::fs::symlink(world.made.path("one.key"), world.file()).unwrap();
    let signers = world.made.path("one.toml").display().to_string();
    let (code, text) = world.run(&["sign", &world.out(), "--signers", &signers]);
    assert!(code == 1 && text.contains("is no plain file, and a signature is to be there"), "{text}");
    assert!(world.file().is_symlink());
    fs::remove_file(world.file()).unwrap();
    fs::write(world.file(), "a note\n{}\n").unwrap();
    world.sign("one");
    assert_eq!(world.lines().lines().count(), 1, "what is no statement is not carried on");
}

#[test]
fn what_others_programs_read_of_a_statement_is_what_is_printed() {
    let world = Builders::new();
    world.sign("one");
    let lines = world.lines();
    let script = world.made.path("check.py");
    fs::write(&script, CHECK).unwrap();
    let check = |line: &str| {
        let path = world.made.path("line.json");
        fs::write(&path, line.trim()).unwrap();
        let mut command = std::process::Command::new(validator("python3"));
        command.args([&script, &path, &world.made.path("builders/one.pem")]);
        command.output().unwrap()
    };
    let output = check(&lines);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!check(&altered(&lines)).status.success());
    let builder = "https://example.org/builders/one";
    let printed = world.live.stagegraph(&["provenance", &world.out(), "--builder", builder]).stdout;
    let envelope = trust::dsse::Envelope::parse(lines.trim(), "application/vnd.in-toto+json").unwrap();
    assert_eq!(json(&printed), json(&envelope.payload().unwrap()));
    let said = json(&printed);
    let iso = said["subject"].as_array().unwrap().iter().find(|one| one["name"] == ISO).unwrap();
    let sum = run("sha256sum", &[world.live.iso().to_str().unwrap()]);
    assert!(sum.starts_with(iso["digest"]["sha256"].as_str().unwrap()));
    for (args, says) in [
        (&["provenance", "/"][..], "has no manifest"),
        (&["provenance", &world.out(), "--builder", "me"], "called by an address"),
        (&["audit", &world.out(), "--threshold", "2"], "--builders"),
    ] {
        let (code, text) = world.run(args);
        assert!(code == 2 && text.contains(says), "{args:?}: {text}");
    }
}

/// Reads an envelope as securesystemslib does, and the statement in it as in-toto's own classes do.
const CHECK: &str = r#"
import base64, json, sys
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1.statement import Statement
import in_toto_attestation.v1.statement_pb2 as statement_pb2
import in_toto_attestation.predicates.provenance.v1.provenance_pb2 as provenance_pb2
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
text = open(sys.argv[1], "rb").read()
envelope = Envelope.from_dict(json.loads(text))
key = SSlibKey.from_crypto(load_pem_public_key(open(sys.argv[2], "rb").read()))
key.keyid = next(iter(envelope.signatures))
envelope.verify([key], 1)
said = json.loads(envelope.payload)
Statement.copy_from_pb(ParseDict(said, statement_pb2.Statement())).validate()
ParseDict(said["predicate"], provenance_pb2.Provenance())
"#;
