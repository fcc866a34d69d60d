//! `stagegraph reproduce`: a set is built again from its manifest, and the first node that differs is named.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use trust::testing::Certificates;

use crate::live::Live;
use crate::world::run_in;

/// A published set whose root is a tar.
struct World {
    live: Live,
}

impl World {
    fn new(more: &str) -> Self {
        let live = Live::new();
        run_in(&live.root(), "tar", &["--sort=name", "-cf", "../root.tar", "."]);
        live.write_spec("path = \"root.tar\"\n", more);
        live.build(&["--set", "squashfs.compressor=xz"]);
        // Only the set and the tar are left, as elsewhere.
        fs::remove_file(live.spec()).unwrap();
        fs::remove_dir_all(live.root()).unwrap();
        Self { live }
    }

    fn out(&self) -> String {
        self.live.out().display().to_string()
    }

    fn reproduce(&self, place: &str, more: &[&str]) -> (i32, String) {
        let root = format!("stage2.path={}", self.live.world.path("root.tar").display());
        let output = self.live.stagegraph(&[&["reproduce", place, "--set", &root], more].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// A copy of the manifest with something changed.
    fn altered(&self, change: impl FnOnce(&mut Value)) -> String {
        let folder = fs::read_dir(self.live.out()).unwrap();
        let paths = folder.map(|entry| entry.unwrap().path());
        let is_it = |path: &PathBuf| path.to_string_lossy().ends_with(".manifest.json");
        let path = paths.filter(is_it).last().unwrap();
        let mut manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        change(&mut manifest);
        let altered = self.live.world.path("altered.manifest.json");
        fs::write(&altered, serde_json::to_vec(&manifest).unwrap()).unwrap();
        altered.display().to_string()
    }
}

#[test]
fn a_set_is_built_again_from_its_manifest_alone_and_a_builder_signs_that() {
    let world = World::new("");
    let made = Certificates::new();
    made.key("two", &["-algorithm", "ED25519"]);
    let signers = "[provenance]\nkey = \"two.key\"\nbuilder = \"https://example.org/two\"\n";
    fs::write(made.path("signers.toml"), signers).unwrap();
    let signers = made.path("signers.toml").display().to_string();
    let line = world.live.world.path("line").display().to_string();
    let store = fs::read_dir(world.live.world.path("store/objects")).unwrap().count();
    let (code, text) = world.reproduce(&world.out(), &["--sign", &line, "--signers", &signers]);
    assert!(code == 0 && text.contains(" files are the same. signed "), "{text}");
    assert_eq!(fs::read_dir(world.live.world.path("store/objects")).unwrap().count(), store);
    let envelope = fs::read_to_string(&line).unwrap();
    let envelope = trust::dsse::Envelope::parse(envelope.trim(), "application/vnd.in-toto+json").unwrap();
    let said: Value = serde_json::from_slice(&envelope.payload().unwrap()).unwrap();
    assert_eq!(said["predicate"]["runDetails"]["builder"]["id"], "https://example.org/two");
    assert_eq!(
        said["predicate"]["buildDefinition"]["externalParameters"]["spec"]["node"]["squashfs"]["compressor"],
        "xz"
    );
    // Whoever publishes appends the line, and the audit counts it.
    let statements = world.live.published("install-tiny-20260102T030405Z.iso.intoto.jsonl");
    fs::copy(&line, &statements).unwrap();
    fs::create_dir(made.path("builders")).unwrap();
    made.run(&["pkey", "-in", "two.key", "-pubout", "-out", "builders/two.pem"]);
    let builders = made.path("builders").display().to_string();
    let output = world.live.stagegraph(&["audit", &world.out(), "--builders", &builders]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));

    let (code, text) = world.reproduce(&world.out(), &["--sign", &line, "--signers", &signers]);
    assert!(code == 2 && text.contains("the file is there already"), "{text}");
}

#[test]
fn the_first_node_that_differs_is_named() {
    let world = World::new("");
    let zeros = "0".repeat(64);
    let blob = format!("blob {zeros}");
    // What came out before was something else, as if another machine had made it.
    let manifest = world.altered(|manifest| {
        manifest["nodes"]["squashfs"]["outputs"]["image"] = blob.as_str().into();
        for node in ["iso", "verity", "netboot", "sbom"] {
            if let Some(input) = manifest["nodes"][node]["inputs"].get_mut("squashfs") {
                *input = blob.as_str().into();
            }
        }
        manifest["nodes"]["iso"]["outputs"]["files"] = format!("tree {zeros}").into();
        let files = manifest["files"].as_object_mut().unwrap();
        files.iter_mut().for_each(|(_, file)| file["blake3"] = zeros.as_str().into());
    });
    let (code, text) = world.reproduce(&manifest, &[]);
    assert!(code == 1 && text.contains("squashfs gave other bytes of the same inputs: image."), "{text}");
    let manifest = world.altered(|manifest| {
        manifest["nodes"]["stage2"]["sources"]["root"] = zeros.as_str().into();
        manifest["nodes"]["stage2"]["outputs"]["root"] = format!("tree {zeros}").into();
        let files = manifest["files"].as_object_mut().unwrap();
        files.iter_mut().for_each(|(_, file)| file["blake3"] = zeros.as_str().into());
    });
    let (code, text) = world.reproduce(&manifest, &[]);
    assert!(
        code == 3 && text.contains("stage2 was made of something else: the source root differ"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_built_again_says_why() {
    let world = World::new("");
    let fails = |place: &str, more: &[&str], code: i32, says: &str| {
        let (found, text) = world.reproduce(place, more);
        assert!(found == code && text.contains(says), "{place} {more:?}: {found}: {text}");
    };
    fails(
        &world.altered(|manifest| drop(manifest.as_object_mut().unwrap().remove("spec"))),
        &[],
        2,
        "has no spec",
    );
    let catalyst = world.altered(|manifest| {
        manifest["spec"]["node"]["stage2"] =
            serde_json::json!({ "step": "catalyst", "python": "/bin/false" });
    });
    fails(&catalyst, &[], 2, "stage2 runs catalyst, as root and without a sandbox");
    let lock = serde_json::json!({ "sha256": "0".repeat(64) });
    let locked = world.altered(|manifest| manifest["lock"] = lock);
    fails(&locked, &[], 2, "name it: --lock FILE");
    fails(&locked, &["--lock", "root.tar"], 2, "the set was made with the lock that has 000");
    fails(&world.out(), &["--lock", "root.tar"], 2, "made without a lock");
    fails("/nonexistent", &[], 3, "/nonexistent");
    fails("root.tar", &[], 3, "root.tar");
    fs::write(world.live.world.path("text"), "text\n").unwrap();
    fails("text", &[], 2, "error: text is not a manifest");
    fails("/", &[], 2, "has no manifest");
    fails(&world.out(), &["--sign", "line"], 2, "nobody is named who signs");
    // Where the root is, nobody said.
    let output = world.live.stagegraph(&["reproduce", &world.out()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("path"), "{text}");
}
