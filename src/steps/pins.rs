//! The bytes of every format we write, of a small world that never changes, pinned by hand.
//!
//! A step's version is part of its key. Bytes that change without it are other bytes under the same key: whoever has the old
//! ones goes on using them. So each digest stands beside the version that the step uses, and changes with it.

use std::collections::BTreeMap;

use cache::testing::assert_pinned;
use cache::tree::{Meta, Node, TreeBuilder};
use cache::{BlobDigest, Bytes, Object, Output, RelPath};
use graph::testing::{Bench, Ran, provenance};

use super::*;
use crate::config::{Item, Source};
use crate::image::Image;
use crate::squashfs as writer;

const TIME: &str = "20260102T030405Z";

/// Makes a step of a spec's words.
fn step(kind: &Kind, words: &str) -> std::sync::Arc<dyn graph::Step> {
    let parse = |text: String| {
        Item::parse(&std::sync::Arc::new(Source { name: "pins".to_owned(), text })).expect("TOML")
    };
    let image = parse(format!(
        "name = 'pinned'\ntitle = 'Pinned'\nlabel = 'linux'\nvolume_id = 'Pinned-1'\ntimestamp = '{TIME}'\n\
         bootargs = ['dokeymap']\nconsoles = ['ttyS0,115200']\n"
    ));
    let mut errors = crate::config::SpecErrors::default();
    let image =
        Image::read(&image, &Default::default(), Err("no lock".to_owned()), &mut errors).expect("an image");
    let words = parse(words.to_owned());
    let published = BTreeMap::from([("loose".to_owned(), String::new())]);
    let fields = crate::config::Fields::of(&words, "it").expect("a table").with_published(published);
    let made = (kind.make)(&fields, &image).expect("a step");
    errors.check(fields.finish());
    assert!(errors.is_empty(), "{errors}");
    made.step
}

fn run(bench: &Bench, kind: &Kind, words: &str, inputs: &[(&str, Output)]) -> Ran {
    bench.run(&*step(kind, words), inputs).expect("the step runs")
}

/// Bytes that compress, but not to nothing.
fn text(length: u32) -> Vec<u8> {
    (0..length).flat_map(|number| (number / 5).to_string().into_bytes()).collect()
}

/// A root with one of everything that squashfs tells apart.
fn root(bench: &Bench) -> Output {
    let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
    let owned = |mode, uid, mtime| Meta { mode, uid, gid: uid + 1, mtime, xattrs: BTreeMap::new() };
    let file = |bytes: &[u8]| {
        let blob = bench.store.put(bytes).expect("stored");
        Node::File { digest: blob.digest, size: blob.size }
    };
    let noise: Vec<u8> =
        (0u32..9000).flat_map(|number| *BlobDigest::of(&number.to_le_bytes()).as_bytes()).collect();
    let holes = [&[0; 131_072][..], &text(30_000), &[0; 200_000]].concat();
    let mut tree = TreeBuilder::new(owned(0o755, 0, 1_600_000_000));
    let with_xattr = Meta {
        xattrs: BTreeMap::from([(b"user.note".to_vec(), b"a note".to_vec())]),
        ..owned(0o4755, 1000, 1_500_000_000)
    };
    let entries = [
        ("etc", owned(0o755, 0, 1_600_000_000), Node::Dir),
        ("etc/link", owned(0o777, 0, 1), Node::Symlink(b"../text".to_vec())),
        ("etc/suid", with_xattr, file(b"#!/bin/sh\n")),
        ("fifo", owned(0o600, 0, 2), Node::Fifo),
        ("holes", owned(0o644, 0, 3), file(&holes)),
        ("noise", owned(0o644, 0, 4), file(&noise)),
        ("null", owned(0o666, 0, 5), Node::CharDevice { major: 1, minor: 3 }),
        ("text", owned(0o644, 7, 2_000_000_000), file(&text(90_000))),
    ];
    for (name, meta, node) in entries {
        tree.insert(path(name), meta, node).expect("an entry");
    }
    tree.link(path("same"), path("etc/suid")).expect("a link");
    for number in 0..300u32 {
        let name = path(&format!("many-{number:03}"));
        tree.insert(name, owned(0o644, number % 3, 6), file(&text(number))).expect("an entry");
    }
    tree.insert(path("zfile"), owned(0o644, 0, 7), file(b"")).expect("an entry");
    let tree = tree.finish().expect("a tree");
    Output { object: Object::Tree(bench.store.put_tree(&tree).expect("stored")), bytes: Bytes::Store }
}

/// A kernel, by its header.
fn a_kernel() -> Vec<u8> {
    let mut kernel = vec![0u8; 0x4000];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x1000u16.to_le_bytes());
    kernel[0x1200..0x120a].copy_from_slice(b"6.1.0-test");
    kernel
}

/// A folder with a kernel and a dracut initrd, by its names.
fn boot(bench: &Bench) -> Output {
    let mut initrd = Vec::new();
    for (name, content) in [
        ("usr/lib/dracut/modules.txt", &b"base\ndmsquash-live\nlivenet\n"[..]),
        ("usr/lib/modules/6.1.0-test/modules.dep", b""),
    ] {
        let entry = cpio::newc::Builder::new(name).mode(0o100_644);
        let mut entry = entry.write(initrd, content.len() as u32);
        std::io::Write::write_all(&mut entry, content).expect("memory");
        initrd = entry.finish().expect("memory");
    }
    let initrd = cpio::newc::trailer(initrd).expect("memory");
    bench.files(&[("vmlinuz-test", &a_kernel()), ("initramfs-test.img", &initrd)])
}

/// The inputs that steps take of kernels, initrds and the squashfs.
fn inputs(bench: &Bench) -> BTreeMap<&'static str, Output> {
    let boot = boot(bench);
    let kernel = run(bench, &kernel::KIND, "", &[("boot", boot.clone())]);
    let initrd = run(bench, &initrd::KIND, "", &[("boot", boot)]);
    BTreeMap::from([
        ("kernel", kernel.outputs["images"].clone()),
        ("initrd", initrd.outputs["images"].clone()),
        ("facts", initrd.outputs["facts"].clone()),
        ("squashfs", bench.blob(&text(20_000))),
    ])
}

fn some(inputs: &BTreeMap<&'static str, Output>, names: &[&'static str]) -> Vec<(&'static str, Output)> {
    names.iter().map(|name| (*name, inputs[name].clone())).collect()
}

/// All files of an output, one behind the other with their names.
fn joined(bench: &Bench, ran: &Ran, output: &str) -> Vec<u8> {
    let files = bench.read_files(ran, output);
    files.iter().flat_map(|(name, bytes)| [name.as_bytes(), b"\n", bytes].concat()).collect()
}

#[test]
fn squashfs_images() {
    let bench = Bench::new();
    let root = root(&bench);
    for (words, digest) in [
        (
            "compressor = 'zstd'\nlevel = 9",
            "77316d0c03fd203dedef66a6184defc7a26e042a93d8d756f69769d4361d8ee6",
        ),
        (
            "compressor = 'xz'\nlevel = 2\nblock_size = 65536",
            "138fa175c3e1fb14ba7680a70fcaea2292cc9b36a641d18a808adaa759359935",
        ),
        (
            "compressor = 'gzip'\nblock_size = 4096",
            "18d0ac8f6fe586d40129948eb0c6a82d384259373f7c876b89e4c5a88bb3d31c",
        ),
        (
            "compressor = 'lz4'\nexclude = ['etc/*']",
            "97abe4e681724fad297884fc663cb7812817088976278c4ba2975a6c83e75198",
        ),
    ] {
        let ran = run(&bench, &squashfs::KIND, words, &[("root", root.clone())]);
        assert_pinned(words, writer::VERSION, &bench.read(&ran, "image"), (4, digest));
    }
}

#[test]
fn the_netboot_set_and_its_combined_initrd() {
    let bench = Bench::new();
    let inputs = some(&inputs(&bench), &["kernel", "initrd", "facts", "squashfs"]);
    let ran = run(&bench, &netboot::KIND, "loaders = false", &inputs);
    let files = bench.read_files(&ran, "folder");
    assert_pinned(
        "the combined initrd",
        netboot::VERSION,
        &files["linux.combined"],
        (5, "1650941bd013b472097c736058c24db11353656976f4b17f89f381a882090564"),
    );
    assert_pinned(
        "the netboot folder",
        netboot::VERSION,
        &joined(&bench, &ran, "folder"),
        (5, "766258fe25ba4ec07c3ac35e132e6d8b82faf7ffb9f2910975a8e815f5ca849c"),
    );
    // GRUB's menu is there where one of its images is.
    let mut with_grub = inputs.clone();
    with_grub.push(("grub", bench.files(&[("grub/i386-pc/core.0", b"no image")])));
    let ran = run(&bench, &netboot::KIND, "loaders = false", &with_grub);
    assert_pinned(
        "GRUB's menu for the network",
        netboot::VERSION,
        &bench.read_files(&ran, "folder")["grub/grub.cfg"],
        (5, "bbfff79a2261d4f96fb6d5d097ea9108630c5eada27bc445a356eb2db476c28d"),
    );
    let (before, behind) = crate::formats::cpio::around("image.squashfs.img", 7).expect("it is small");
    let archive = [before, b"content".to_vec(), behind].concat();
    assert_pinned(
        "the archive behind an initrd",
        netboot::VERSION,
        &archive,
        (5, "4440e43a6aae081f16e5ef554b92d966a306487d196a94e5840ed10ccd60da43"),
    );
}

#[test]
fn ipxe_scripts() {
    let bench = Bench::new();
    let ran = run(&bench, &ipxe::KIND, "", &some(&inputs(&bench), &["facts"]));
    assert_pinned(
        "the scripts of the folder",
        ipxe::VERSION,
        &joined(&bench, &ran, "folder"),
        (7, "4aecb317a6022baddf2e755dd147401dade1222b40735af660c9c86763d14f9f"),
    );
    assert_pinned(
        "the script next to the ISO",
        ipxe::VERSION,
        &joined(&bench, &ran, "beside"),
        (7, "c0375e10f8e80617e4e7991d3b28b3c013bf18bdf25b400f605a3894f42fbfdd"),
    );
}

#[test]
fn ipxe_scripts_that_verify() {
    let bench = Bench::new();
    let inputs = some(&inputs(&bench), &["facts"]);
    let ran = run(&bench, &ipxe::KIND, "verify = true", &inputs);
    let both = [joined(&bench, &ran, "folder"), joined(&bench, &ran, "beside")].concat();
    assert_pinned(
        "the scripts that have iPXE verify",
        ipxe::VERSION,
        &both,
        (7, "fddaeb4b567884c76a9d050eba73021dc98c30d505c3b5f09677dff6579d37b3"),
    );
}

#[test]
fn the_list_of_software() {
    let mut bench = Bench::new();
    let mut inputs = inputs(&bench);
    let status =
        b"Package: a\nVersion: 1:2\nArchitecture: amd64\nStatus: install ok installed\nSource: b (2)\n";
    let blob = bench.store.put(status).expect("stored");
    let mut tree = TreeBuilder::new(Meta::plain(0o755));
    for path in ["var", "var/lib", "var/lib/dpkg"] {
        tree.insert(path_of(path), Meta::plain(0o755), Node::Dir).expect("an entry");
    }
    let node = Node::File { digest: blob.digest, size: blob.size };
    tree.insert(path_of("var/lib/dpkg/status"), Meta::plain(0o644), node).expect("an entry");
    let tree = bench.store.put_tree(&tree.finish().expect("a tree")).expect("stored");
    inputs.insert("root", Output { object: Object::Tree(tree), bytes: Bytes::Store });
    inputs.insert("iso", bench.files(&[("pinned.iso", b"an ISO")]));
    let sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let packages = format!("[{{\"name\": \"a\", \"version\": \"1:2\", \"sha256\": \"{sha256}\"}}]");
    inputs.insert("packages", bench.blob(packages.as_bytes()));
    let mut below = provenance("toolbox", &[]);
    let mut action = (*below.action).clone();
    action.sources = BTreeMap::from([("ipxe".to_owned(), format!("1.0 sha256:{sha256}"))]);
    below.action = std::sync::Arc::new(action);
    bench.provenance.insert(graph::NodeName::new("tools").expect("a name"), below);
    let inputs = some(&inputs, &["iso", "squashfs", "root", "packages"]);
    let ran = run(&bench, &sbom::KIND, "supplier = 'Organization: Example'", &inputs);
    let text = bench.read_files(&ran, "files").remove("pinned.iso.spdx.json").expect("a document");
    let text = String::from_utf8(text).expect("JSON").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    // Its address has the hash of all else, the program's version too.
    let text: String = text
        .lines()
        .filter(|line| !line.contains("documentNamespace"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_pinned(
        "the list of software",
        sbom::VERSION,
        text.as_bytes(),
        (3, "7a57d9fc8b92effc617a827e94ca3cb30418d19329ea28f140511d0af218c0d2"),
    );
}

/// A folder with a kernel and an initrd that can mount over NFS, and has a module which that does not take.
fn boot_over_nfs(bench: &Bench, compress: fn(&[u8]) -> Vec<u8>) -> Output {
    let mut initrd = Vec::new();
    let modules = "usr/lib/modules/6.1.0-test";
    for (name, mode, content) in [
        ("etc", 0o040_755, &b""[..]),
        ("etc/protocols", 0o100_644, b"tcp 6 TCP\n"),
        ("usr", 0o040_755, b""),
        ("usr/lib", 0o040_755, b""),
        ("usr/lib/dracut", 0o040_755, b""),
        ("usr/lib/dracut/modules.txt", 0o100_644, b"base\ndmsquash-live\nlivenet\nnfs\n"),
        ("usr/lib/modules", 0o040_755, b""),
        (modules, 0o040_755, b""),
        (&format!("{modules}/modules.dep"), 0o100_644, b"kernel/sound/a.ko:\nkernel/net/b.ko:\n"),
        (&format!("{modules}/kernel"), 0o040_755, b""),
        (&format!("{modules}/kernel/net"), 0o040_755, b""),
        (&format!("{modules}/kernel/net/b.ko"), 0o100_644, b"firmware=b.bin\0"),
        (&format!("{modules}/kernel/sound"), 0o040_755, b""),
        (&format!("{modules}/kernel/sound/a.ko"), 0o100_644, b"firmware=a.bin\0"),
        ("usr/lib/firmware", 0o040_755, b""),
        ("usr/lib/firmware/a.bin", 0o100_644, b"of the sound"),
        ("usr/lib/firmware/b.bin", 0o100_644, b"of the network"),
        ("usr/sbin", 0o040_755, b""),
        ("usr/sbin/mount.nfs", 0o100_755, b"#!/bin/sh\n"),
    ] {
        let entry = cpio::newc::Builder::new(name).mode(mode).nlink(1);
        let mut entry = entry.write(initrd, content.len() as u32);
        std::io::Write::write_all(&mut entry, content).expect("memory");
        initrd = entry.finish().expect("memory");
    }
    let initrd = compress(&cpio::newc::trailer(initrd).expect("memory"));
    bench.files(&[("vmlinuz-test", &a_kernel()), ("initramfs-test.img", &initrd)])
}

/// A way to compress, its name, and the digest of what comes out.
type Pinned = (fn(&[u8]) -> Vec<u8>, &'static str, &'static str);

#[test]
fn lean_initrds_and_their_scripts() {
    let bench = Bench::new();
    let zstd: fn(&[u8]) -> Vec<u8> = |bytes| zstd::encode_all(bytes, 1).expect("memory");
    let bare: fn(&[u8]) -> Vec<u8> = <[u8]>::to_vec;
    let ways: [Pinned; 2] = [
        (zstd, "a lean initrd of zstd", "c89523f84a015faccfac2c65b4f21db5a48be3c0c7eca82c8837ba6b98f87a59"),
        (
            bare,
            "a lean initrd that is bare",
            "283a9971bac8b4c2f202e1b533e297da7ebfb415dd7b3da72e1f15332cf514b9",
        ),
    ];
    for (compress, what, digest) in ways {
        let boot = boot_over_nfs(&bench, compress);
        let initrd = run(&bench, &initrd::KIND, "", &[("boot", boot)]);
        let [images, facts] = ["images", "facts"].map(|name| initrd.outputs[name].clone());
        let ran = run(&bench, &lean::KIND, "", &[("images", images), ("facts", facts.clone())]);
        let lean = bench.read_files(&ran, "images").remove("linux").expect("a lean initrd");
        assert_pinned(what, lean::VERSION, &lean, (4, digest));
        let found = crate::formats::initramfs::read(&lean[..]).expect("an initramfs");
        let has = |path: &str| found.files.get(&path_of(path)).is_some();
        let modules = "usr/lib/modules/6.1.0-test/kernel";
        assert!(has(&format!("{modules}/net/b.ko")) && !has(&format!("{modules}/sound/a.ko")));
        assert!(has("usr/lib/firmware/b.bin") && !has("usr/lib/firmware/a.bin"));
        let inputs = [("facts", facts), ("lean-facts", ran.outputs["facts"].clone())];
        let ran = run(&bench, &ipxe::KIND, "", &inputs);
        let scripts = bench.read_files(&ran, "folder");
        let both = [&scripts["lean.ipxe"][..], &scripts["nfs.ipxe"]].concat();
        assert_pinned(
            "the scripts of little memory",
            ipxe::VERSION,
            &both,
            (7, "9d3382e92f065c5374000b31d62edce2e1a7159f84ec8b87a97d17ba5445383b"),
        );
    }
}

/// The hash tree and its hook, as they stand behind an initrd.
#[test]
fn what_has_the_squashfs_checked() {
    let mut builder = crate::formats::verity::Builder::default();
    builder.update(&(0..300u32 * 4096).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    let tree = builder.finish().expect("whole blocks");
    let checks = crate::formats::verity::Checks {
        image: "pinned.iso".to_owned(),
        blocks: tree.blocks,
        root: tree.root.clone(),
    };
    let archive = checks.archive(&tree.bytes, "usr/lib/dracut/hooks").expect("it is small");
    assert_pinned(
        "the archive with the hash tree",
        verity::VERSION,
        &archive,
        (1, "2f4cdd0254b95ecb24d9d14329dbfa0745bee33b1351c0c403ce81fdab33984b"),
    );
}

fn path_of(path: &str) -> cache::name::RelPath {
    cache::name::RelPath::new(path.as_bytes()).expect("a path")
}

/// With dosfstools 4.2 and mtools 4.0.32, those of Debian 12; what runs them is ours.
#[test]
fn the_fat_image_for_uefi() {
    let bench = Bench::new();
    bench.tool("grub-mkimage", "while [ \"$1\" != -o ]; do shift; done; echo 'not an image' > \"$2\"");
    let ran = run(&bench, &grub::KIND, "", &[]);
    assert_pinned(
        "the FAT image",
        grub::VERSION,
        &bench.read_files(&ran, "medium")["efi.img"],
        (3, "953660b0ab3e6c26c61aa3856b947c394380d7b0c6803752bbd331093c056fdc"),
    );
}

#[test]
fn menus_of_several_sets() {
    let bench = Bench::new();
    let pc: [(&str, &[u8]); 4] = [
        ("pxelinux.0", b"PXELINUX"),
        ("pxelinux.cfg/default", b"DEFAULT x"),
        ("grub/i386-pc/core.0", b"GRUB"),
        ("grub/grub.cfg", b"of the set"),
    ];
    let arm64: [(&str, &[u8]); 2] = [("ipxe-arm64.efi", b"iPXE"), ("image.squashfs", b"a system")];
    let inputs = [("amd64", bench.files(&pc)), ("arm64", bench.files(&arm64)), ("x86", bench.files(&pc))];
    let ran = run(&bench, &sets::KIND, "", &inputs);
    let names: Vec<_> = bench.read_files(&ran, "folder").into_keys().collect();
    let expected = [
        "autoexec.ipxe",
        "boot.ipxe",
        "grub/grub.cfg",
        "grub/i386-pc/core.0",
        "ipxe-arm64.efi",
        "pxelinux.0",
        "pxelinux.cfg/default",
    ];
    assert_eq!(names, expected);
    assert_pinned(
        "menus of several sets",
        sets::VERSION,
        &joined(&bench, &ran, "folder"),
        (1, "dbb09d796d4f5f86bb28769f51f4e09893b37a391dc57accff525a6667a2aecb"),
    );
}

#[test]
fn lists_of_checksums() {
    let bench = Bench::new();
    let files = bench.files(&[("a", b"one"), ("b/c", b"two")]);
    let inputs = [("loose", files)];
    let ran = run(&bench, &digests::KIND, "hashes = ['blake2b', 'sha512', 'sha256']", &inputs);
    assert_pinned(
        "the list",
        digests::VERSION,
        &joined(&bench, &ran, "files"),
        (2, "444bb2eb0d44dac0737510b5f8c87fc7021ce5beb5d1eabdff738567ca8a8a80"),
    );
    let ran = run(&bench, &digests::KIND, "each = true\nformat = 'bsd'", &inputs);
    assert_pinned(
        "lists of single files",
        digests::VERSION,
        &joined(&bench, &ran, "files"),
        (2, "929eb99760c5b1e27ad905f71a71338254381ade7d00e5cbac55feec17886cf0"),
    );
}

#[test]
fn the_listing_of_an_iso() {
    let listing =
        (0..3000).map(|number| format!("/a/folder/{}/file-{number}\n", number / 7)).collect::<String>();
    assert_pinned(
        "a .CONTENTS.gz",
        digests::VERSION,
        &digests::gzipped(listing.as_bytes()),
        (2, "a54728bf5dd2c65ecdc84e769a81bc4338c76c1f837a5d66d928f20687a80865"),
    );
}

#[test]
fn the_manifest() {
    let mut bench = Bench::new();
    let mut inputs = inputs(&bench);
    inputs.insert("packages", bench.blob(b"[{\"name\": \"a\", \"version\": \"1\"}]"));
    inputs.insert("loose", bench.files(&[("pinned.iso.vmlinuz", b"kernel"), ("pinned.iso.ipxe", b"#!ipxe")]));
    let squashfs = inputs["squashfs"].object;
    let node = graph::NodeName::new("squashfs").expect("a name");
    bench.provenance.insert(node, provenance("squashfs", &[("image", squashfs)]));
    let inputs = some(&inputs, &["facts", "squashfs", "packages", "loose"]);
    let ran = run(&bench, &manifest::KIND, "", &inputs);
    let text = bench.read_files(&ran, "files").remove("pinned.iso.manifest.json").expect("a manifest");
    // Another release of the program writes another manifest; its name is a setting of the step.
    let text = String::from_utf8(text).expect("JSON").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_pinned(
        "the manifest",
        manifest::VERSION,
        text.as_bytes(),
        (7, "a282e742b27b289d075b0a8d0c00a2ad5de402f18feee44b9d4cd088300e883c"),
    );
}

#[test]
fn a_squashfs_that_no_initrd_holds_is_booted_over_http_alone() {
    let bench = Bench::new();
    let mut inputs = inputs(&bench);
    // Nobody reads it: that it is too large is known by its size.
    let large = cache::Blob { digest: BlobDigest::of(b"large"), size: (1 << 32) - 1 };
    inputs.insert("squashfs", large.into());
    let set = some(&inputs, &["kernel", "initrd", "facts", "squashfs"]);
    let ran = run(&bench, &netboot::KIND, "loaders = false", &set);
    assert!(ran.remarks.iter().any(|text| text.contains("no initrd holds 4 GiB")), "{:?}", ran.remarks);
    let names = |ran: &Ran, output: &str| {
        let Object::Tree(digest) = ran.outputs[output].object else { panic!("a tree") };
        let tree = bench.store.tree(&digest).expect("stored");
        tree.files().map(|(path, ..)| path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&ran, "folder"), ["image.squashfs", "linux.initrd", "linux.vmlinuz"]);
    inputs.insert("ways", ran.outputs["ways"].clone());
    let ran = run(&bench, &ipxe::KIND, "", &some(&inputs, &["facts", "ways"]));
    assert_eq!(names(&ran, "folder"), ["autoexec.ipxe", "boot.ipxe", "http.ipxe"]);
    let scripts = bench.read_files(&ran, "folder");
    assert_eq!(scripts["boot.ipxe"], scripts["http.ipxe"]);
    let beside = bench.read_files(&ran, "beside").remove("pinned.iso.ipxe").expect("a script");
    assert!(String::from_utf8_lossy(&beside).contains("root=live:${base}/pinned.iso.squashfs"));
}
