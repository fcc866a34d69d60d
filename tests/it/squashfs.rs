//! Squashfs images, read back by squashfs-tools, by libsquashfs and by the kernel.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache::slices::Slice;
use cache::testing::{Memory, Need, needs};
use cache::{ActionDigest, ActionResult, BlobDigest, Bytes, RelPath, RootTree, Store};
use graph::Workers;
use proptest::prelude::*;
use stagegraph::squashfs::{self, Compressor, CompressorKind, Help, Options, Summary};

use crate::world::{World, is_root, run};

/// Fills a folder with everything a root can have.
fn fill(top: &Path) {
    fs::create_dir_all(top.join("etc/deep/er")).unwrap();
    fs::create_dir(top.join("many")).unwrap();
    for i in 0..3000 {
        fs::write(top.join(format!("many/a-file-with-a-rather-long-name-{i:05}")), format!("{i}\n")).unwrap();
    }
    let text: Vec<u8> = (0..400_000u32).flat_map(|i| (i / 7).to_string().into_bytes()).collect();
    fs::write(top.join("large"), &text).unwrap();
    fs::write(top.join("copy-of-large"), &text).unwrap();
    // The blocks of another file to their end, and to one that differs.
    fs::write(top.join("part-of-large"), &text[131_072..131_072 * 3 + 5]).unwrap();
    fs::write(top.join("large-that-parts"), [&text[..131_072 * 2], &text[..1000], &text[131_072..]].concat())
        .unwrap();
    fs::write(top.join("exact"), vec![7; 131_072 * 2]).unwrap();
    fs::write(top.join("empty"), "").unwrap();
    let sparse = File::create(top.join("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    sparse.write_at(b"in the middle", 3_000_000).unwrap();
    fs::write(top.join("etc/suid"), "#!").unwrap();
    // unsquashfs gives setuid bits back to root alone.
    let mode = if is_root() { 0o4755 } else { 0o755 };
    fs::set_permissions(top.join("etc/suid"), fs::Permissions::from_mode(mode)).unwrap();
    fs::set_permissions(top.join("etc/deep"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::hard_link(top.join("etc/suid"), top.join("etc/deep/er/same")).unwrap();
    fs::hard_link(top.join("etc/suid"), top.join("a-third-name")).unwrap();
    symlink("../große/ünïcode", top.join("etc/link")).unwrap();
    fs::write(top.join("große-ünïcode-файл"), "x").unwrap();
    fs::write(top.join(std::ffi::OsStr::from_bytes(b"not-\xff\xfe-utf8")), "y").unwrap();
    run("mkfifo", &[top.join("fifo").to_str().unwrap()]);
    if is_root() {
        run("mknod", &[top.join("null").to_str().unwrap(), "c", "1", "3"]);
        run("mknod", &[top.join("disk").to_str().unwrap(), "b", "259", "300"]);
        run("setcap", &["cap_net_raw,cap_dac_override,cap_fowner+ep", top.join("large").to_str().unwrap()]);
        run("setfattr", &["-n", "user.note", "-v", "a note", top.join("etc").to_str().unwrap()]);
        std::os::unix::fs::chown(top.join("etc/suid"), Some(1234), Some(70_000)).unwrap();
        // Changing the owner takes the setuid bit away.
        fs::set_permissions(top.join("etc/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    }
}

fn options(kind: CompressorKind, block_size: u32, threads: usize) -> Options {
    let compressor = Compressor { kind, level: kind.levels().1.min(6) };
    Options { compressor, block_size, epoch: 1_700_000_000, clamp_mtime: false, threads }
}

fn image(world: &World, options: &Options, name: &str, exclude: &[&str]) -> std::path::PathBuf {
    let path = world.path(name);
    fs::write(&path, write(&world.store, &world.path("top"), options, exclude)).unwrap();
    path
}

/// Writes an image of a folder, with the store's blocks, and lets the store have it.
fn write(store: &Store, top: &Path, options: &Options, exclude: &[&str]) -> Vec<u8> {
    let root = root(store, top);
    write_root(store, &root, options, exclude)
}

fn root(store: &Store, top: &Path) -> RootTree {
    let tree = cache::ingest::directory(store, top).unwrap();
    let digest = store.put_tree(&tree).unwrap();
    store.open_tree(&digest, &Bytes::Directory { path: top.to_owned() }).unwrap()
}

fn write_root(store: &Store, root: &RootTree, options: &Options, exclude: &[&str]) -> Vec<u8> {
    write_with(store, root, options, exclude, Help::default()).0
}

fn write_with(
    store: &Store,
    root: &RootTree,
    options: &Options,
    exclude: &[&str],
    help: Help<'_>,
) -> (Vec<u8>, Summary) {
    let work = store.work_dir().unwrap();
    let path = work.path().join("image");
    let mut out = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    let excluded = |path: &RelPath| exclude.iter().any(|name| path.as_bytes() == name.as_bytes());
    let summary = squashfs::write(&mut out, root, store, options, &excluded, help, &|_, _| true).unwrap();
    let bytes = fs::read(&path).unwrap();
    let blob = store.adopt(&path).unwrap();
    store.enter_runs(&blob.digest, &summary.runs).unwrap();
    store.enter_slices(&blob.digest, &summary.slices).unwrap();
    (bytes, summary)
}

/// Everything `find` and `getfattr` tell of a folder, and the hash of every file.
fn listing(top: &Path) -> String {
    let format = "%p|%y|%m|%U|%G|%s|%n|%T@|%l\\n";
    let inner = |script: &str| run("sh", &["-c", &format!("cd '{}' && {script}", top.display())]);
    let found =
        inner(&format!("find . ! -path . -printf '{format}' | sed 's/\\.[0-9]*|/|/' | LC_ALL=C sort"));
    // A folder's own size is the file system's business.
    let found: Vec<_> = found
        .lines()
        .map(|line| {
            let mut fields: Vec<_> = line.split('|').collect();
            if fields[1] == "d" {
                fields[5] = "-";
                fields[6] = "-";
            }
            fields.join("|")
        })
        .collect();
    let hashes = inner("find . -type f -exec sha256sum {} + | LC_ALL=C sort -k2");
    let devices = inner("find . \\( -type c -o -type b \\) -exec stat -c '%n %t:%T' {} + | LC_ALL=C sort");
    let xattrs = inner("find . ! -type l -exec getfattr -h -d -m - -e hex {} + | LC_ALL=C sort");
    format!("{}\n{hashes}\n{devices}\n{xattrs}", found.join("\n"))
}

#[test]
fn everything_in_a_tree_arrives_with_every_compressor() {
    let world = World::new();
    fill(&world.path("top"));
    let expected = listing(&world.path("top"));
    for (kind, block_size) in [
        (CompressorKind::Zstd, 131_072),
        (CompressorKind::Xz, 1 << 20),
        (CompressorKind::Gzip, 4096),
        (CompressorKind::Lz4, 65536),
    ] {
        let image = image(&world, &options(kind, block_size, 2), "image", &[]);
        let out = world.path("unpacked");
        run("unsquashfs", &["-q", "-n", "-d", out.to_str().unwrap(), image.to_str().unwrap()]);
        pretty_eq(&listing(&out), &expected, kind.name());
        fs::remove_dir_all(&out).unwrap();
        let info = run("unsquashfs", &["-s", image.to_str().unwrap()]);
        assert!(info.contains(kind.name()), "{info}");
    }
}

/// Compares listings line by line: a difference in thousands of lines is to be readable.
fn pretty_eq(found: &str, expected: &str, what: &str) {
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{what}");
}

#[test]
fn the_kernel_mounts_an_image_and_finds_everything() {
    if !needs(Need::Root) {
        return;
    }
    let world = World::new();
    fill(&world.path("top"));
    let image = image(&world, &options(CompressorKind::Zstd, 131_072, 2), "image", &[]);
    let mount = world.path("mount");
    fs::create_dir(&mount).unwrap();
    run("mount", &["-o", "loop,ro", image.to_str().unwrap(), mount.to_str().unwrap()]);
    let found = listing(&mount);
    let sparse_blocks = fs::metadata(mount.join("sparse")).unwrap().blocks();
    // The index of a large folder is used for looking up one name.
    let one = fs::read_to_string(mount.join("many/a-file-with-a-rather-long-name-02999"));
    run("umount", &[mount.to_str().unwrap()]);
    pretty_eq(&found, &listing(&world.path("top")), "kernel");
    assert_eq!(one.unwrap(), "2999\n");
    assert!(sparse_blocks < 1000, "holes count as {sparse_blocks} blocks");
}

/// Through libsquashfs, by its own program; docs/dependencies.md says why not through the crate squashfs-ng.
#[test]
fn libsquashfs_finds_every_file_owner_attribute_and_device() {
    let world = World::new();
    let top = world.path("top");
    fill(&top);
    for kind in [CompressorKind::Xz, CompressorKind::Zstd, CompressorKind::Gzip, CompressorKind::Lz4] {
        let image = image(&world, &options(kind, 131_072, 2), "image", &[]);
        let out = world.path("unpacked");
        fs::create_dir(&out).unwrap();
        let script = format!(
            "sqfs2tar '{}' | tar -xp --same-owner --numeric-owner --xattrs --xattrs-include='*' -C '{}'",
            image.display(),
            out.display()
        );
        run("bash", &["-o", "pipefail", "-c", &script]);
        pretty_eq(&listing(&out), &listing(&top), kind.name());
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let world = World::new();
    fill(&world.path("top"));
    let read = |threads| {
        let mut bytes = Vec::new();
        let path = image(&world, &options(CompressorKind::Gzip, 16384, threads), "image", &[]);
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let one = read(1);
    assert_eq!(one.len() % 4096, 0);
    assert!(one == read(2) && one == read(7));
}

#[test]
fn an_excluded_folder_goes_with_all_below_it_and_links_into_it_stay_whole() {
    let world = World::new();
    fill(&world.path("top"));
    let options = options(CompressorKind::Zstd, 131_072, 2);
    let image = image(&world, &options, "image", &["many", "a-third-name"]);
    let out = world.path("unpacked");
    run("unsquashfs", &["-q", "-n", "-d", out.to_str().unwrap(), image.to_str().unwrap()]);
    assert!(!out.join("many").exists() && !out.join("a-third-name").exists());
    assert_eq!(fs::read(out.join("etc/suid")).unwrap(), b"#!");
    assert_eq!(fs::metadata(out.join("etc/suid")).unwrap().nlink(), 2);
}

#[test]
fn times_after_the_epoch_become_the_epoch_and_earlier_ones_stay() {
    let world = World::new();
    let top = world.path("top");
    fs::create_dir(&top).unwrap();
    for (name, date) in [("old", "@1000"), ("new", "@1800000000")] {
        fs::write(top.join(name), "").unwrap();
        run("touch", &["-d", date, top.join(name).to_str().unwrap()]);
    }
    let options = Options { clamp_mtime: true, ..options(CompressorKind::Gzip, 131_072, 1) };
    let image = image(&world, &options, "image", &[]);
    let out = world.path("unpacked");
    run("unsquashfs", &["-q", "-n", "-d", out.to_str().unwrap(), image.to_str().unwrap()]);
    assert_eq!(fs::metadata(out.join("old")).unwrap().mtime(), 1000);
    assert_eq!(fs::metadata(out.join("new")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn a_file_with_the_blocks_of_another_takes_no_room_for_them() {
    let world = World::new();
    let top = world.path("top");
    fs::create_dir(&top).unwrap();
    let noise: Vec<u8> =
        (0..10_000u32).flat_map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect();
    fs::write(top.join("new"), &noise).unwrap();
    let options = options(CompressorKind::Zstd, 32_768, 2);
    let alone = write(&world.store, &top, &options, &[]).len();
    fs::write(top.join("old"), &noise[..300_000]).unwrap();
    fs::write(top.join("part"), &noise[32_768..290_000]).unwrap();
    let path = image(&world, &options, "image", &[]);
    let ends = 300_000 % 32_768 + (290_000 - 32_768) % 32_768;
    let more = fs::metadata(&path).unwrap().len() as usize - alone;
    assert!(more < ends + 4096, "{more} bytes more, of which {ends} are in other ends");
    let out = world.path("unpacked");
    run("unsquashfs", &["-q", "-n", "-d", out.to_str().unwrap(), path.to_str().unwrap()]);
    assert!(fs::read(out.join("old")).unwrap() == noise[..300_000]);
    assert!(fs::read(out.join("part")).unwrap() == noise[32_768..290_000]);
}

#[test]
fn files_that_share_blocks_around_holes_are_whole() {
    let world = World::new();
    let top = world.path("top");
    fs::create_dir(&top).unwrap();
    let block = |seed: u32| -> Vec<u8> {
        (0..1024u32).flat_map(|n| *blake3::hash(&(seed * 1024 + n).to_le_bytes()).as_bytes()).collect()
    };
    let (hole, x, y, z) = (vec![0; 32_768], block(1), block(2), block(3));
    // Each with the blocks of one before it, up to a hole, behind one, or to another block.
    let files =
        [[&hole, &x, &y], [&x, &y, &z], [&x, &hole, &y], [&x, &y, &hole], [&hole, &hole, &x], [&y, &x, &y]];
    for (number, blocks) in files.iter().enumerate() {
        fs::write(top.join(format!("file-{number}")), blocks.map(Vec::as_slice).concat()).unwrap();
    }
    let options = options(CompressorKind::Zstd, 32_768, 2);
    let path = image(&world, &options, "image", &[]);
    let out = world.path("unpacked");
    run("unsquashfs", &["-q", "-n", "-d", out.to_str().unwrap(), path.to_str().unwrap()]);
    for (number, blocks) in files.iter().enumerate() {
        let found = fs::read(out.join(format!("file-{number}"))).unwrap();
        assert!(found == blocks.map(Vec::as_slice).concat(), "file-{number}");
    }
    assert!(
        write(&world.store, &top, &options, &[]) == fs::read(&path).unwrap(),
        "made of the blocks of the first"
    );
}

/// A file of a random tree: where it is, how long, of what.
#[derive(Debug, Clone)]
struct Made {
    name: String,
    length: usize,
    seed: u8,
}

impl Made {
    fn write(&self, top: &Path) {
        let path = top.join(&self.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Compressible text, noise and zeros, in turn.
        let byte = |at: usize| match (at / 5000) % 3 {
            0 => (at / 40) as u8 ^ self.seed,
            1 => (at * at * 31 / 7 + at * usize::from(self.seed)) as u8,
            _ => 0,
        };
        fs::write(path, (0..self.length).map(byte).collect::<Vec<u8>>()).unwrap();
    }
}

fn made() -> impl Strategy<Value = Made> {
    let length = prop_oneof![0..300usize, 0..9000usize, 4096..60_000usize, Just(4096), Just(32_768)];
    // Few names, so that files are often replaced.
    (0..3u8, 0..25u8, length, 0..3u8).prop_map(|(folder, name, length, seed)| Made {
        name: format!("d{folder}/f{name}"),
        length,
        seed,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the store has, is damaged or lost, and whatever was edited: the image is the one that is made from nothing.
    #[test]
    fn an_image_made_from_an_older_one_is_the_one_made_from_nothing(
        first in prop::collection::vec(made(), 1..60),
        edits in prop::collection::vec((prop::collection::vec(made(), 1..6), any::<u8>(), 1..3usize), 1..4),
        block_size in prop_oneof![Just(4096u32), Just(32_768)],
        kind in prop_oneof![Just(CompressorKind::Zstd), Just(CompressorKind::Gzip)],
    ) {
        let world = World::new();
        let top = world.path("top");
        fs::create_dir(&top).unwrap();
        first.iter().for_each(|made| made.write(&top));
        let warm = |threads| write(&world.store, &top, &options(kind, block_size, threads), &[]);
        warm(2);
        for (number, (changed, harm, threads)) in edits.iter().enumerate() {
            changed.iter().for_each(|made| made.write(&top));
            if harm % 3 == 0 {
                let _ = fs::remove_file(top.join(format!("d1/f{}", harm % 25)));
            }
            if harm % 4 == 1 {
                damage_objects(&world.store, *harm);
            }
            let cold = Store::open(&world.path(&format!("cold-{number}"))).unwrap();
            let expected = write(&cold, &top, &options(kind, block_size, 1), &[]);
            prop_assert!(warm(*threads) == expected);
        }
    }
}

/// Flips a byte in every large object of a store.
fn damage_objects(store: &Store, seed: u8) {
    for folder in fs::read_dir(store.dir().join("objects")).unwrap() {
        for object in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            if !bytes.starts_with(b"hsqs") {
                continue;
            }
            let at = bytes.len() * usize::from(seed) / 256;
            bytes[at] ^= 0x40;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn what_is_in_an_older_image_is_neither_read_nor_compressed() {
    let world = World::new();
    let top = world.path("top");
    fill(&top);
    let options = options(CompressorKind::Zstd, 131_072, 2);
    let before = write(&world.store, &top, &options, &[]);
    let opened = root(&world.store, &top);
    // Nothing of the files is there any more: whatever is read fails.
    fs::rename(&top, world.path("away")).unwrap();
    assert!(write_root(&world.store, &opened, &options, &[]) == before);
    fs::rename(world.path("away"), &top).unwrap();
    // One file more in a folder of thousands: a few fragments are made anew, and the files in them read.
    fs::write(top.join("many/a-file-more"), "more\n").unwrap();
    let cold = Store::open(&world.path("cold")).unwrap();
    let expected = write(&cold, &top, &options, &[]);
    let opened = root(&world.store, &top);
    fs::rename(top.join("large"), world.path("large-away")).unwrap();
    assert!(write_root(&world.store, &opened, &options, &[]) == expected);
    fs::rename(world.path("large-away"), top.join("large")).unwrap();
    // Other settings find nothing, and are not misled.
    let other = self::options(CompressorKind::Zstd, 65_536, 2);
    assert!(write(&world.store, &top, &other, &[]) == write(&cold, &top, &other, &[]));
}

/// Workers that are threads of this process, and do what they are made to.
#[derive(Debug)]
struct Threads {
    lanes: usize,
    /// What becomes of the part with that number.
    conduct: fn(usize) -> Conduct,
    asked: AtomicUsize,
    wrong: AtomicUsize,
}

/// What workers do, and its name.
type Row = (&'static str, fn(usize) -> Conduct);

#[derive(Debug, Clone, Copy)]
enum Conduct {
    Honest,
    Late(u64),
    Refuses,
    Alters,
    CutsOff,
    /// Compresses less: what comes back can be undone, and is not what it should be.
    Cheats,
    Panics,
    Hangs,
}

impl Threads {
    fn new(lanes: usize, conduct: fn(usize) -> Conduct) -> Self {
        Self { lanes, conduct, asked: AtomicUsize::new(0), wrong: AtomicUsize::new(0) }
    }
}

impl Workers for Threads {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn run(&self, input: &[u8], stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u8>, String> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = |input: &[u8]| squashfs::answer_shard(input).map_err(|error| error.to_string());
        match (self.conduct)(number) {
            Conduct::Honest => answer(input),
            Conduct::Late(milliseconds) => {
                std::thread::sleep(Duration::from_millis(milliseconds));
                answer(input)
            }
            Conduct::Refuses => Err("no".to_owned()),
            Conduct::Alters => answer(input).map(|mut output| {
                let middle = output.len() / 2;
                output[middle] ^= 1;
                output
            }),
            Conduct::CutsOff => answer(input).map(|output| output[..output.len() / 2].to_vec()),
            Conduct::Cheats => {
                let end = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
                let head = String::from_utf8(input[..end].to_vec()).unwrap();
                answer(&[head.replace("\"level\":6", "\"level\":1").as_bytes(), &input[end..]].concat())
            }
            Conduct::Panics => panic!("asked to panic"),
            Conduct::Hangs => {
                while !stop() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err("stopped".to_owned())
            }
        }
    }

    fn gave_wrong(&self, _: &str) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
    }
}

fn of_workers(workers: &Threads) -> Help<'_> {
    Help { workers: Some(workers), asks: false }
}

#[test]
fn whatever_workers_do_the_image_is_the_same() {
    let world = World::new();
    let top = world.path("top");
    fill(&top);
    let text: Vec<u8> = (0..5_000_000u32).flat_map(|i| (i / 3 * 7).to_string().into_bytes()).collect();
    fs::write(top.join("much"), &text).unwrap();
    fs::write(
        top.join("noise"),
        text.chunks(32).flat_map(|part| *BlobDigest::of(part).as_bytes()).collect::<Vec<u8>>(),
    )
    .unwrap();
    let options = options(CompressorKind::Zstd, 131_072, 2);
    let alone = write(&world.store, &top, &options, &[]);
    let conducts: [Row; 10] = [
        ("all are honest", |_| Conduct::Honest),
        ("one of five is late", |number| if number % 5 == 4 { Conduct::Late(3000) } else { Conduct::Honest }),
        ("all refuse", |_| Conduct::Refuses),
        ("some refuse", |number| if number % 2 == 0 { Conduct::Refuses } else { Conduct::Honest }),
        ("all alter", |_| Conduct::Alters),
        ("some alter", |number| if number % 3 == 1 { Conduct::Alters } else { Conduct::Honest }),
        ("all cut off", |_| Conduct::CutsOff),
        ("all cheat", |_| Conduct::Cheats),
        ("some panic", |number| if number % 3 == 0 { Conduct::Panics } else { Conduct::Honest }),
        ("all hang", |_| Conduct::Hangs),
    ];
    for (what, conduct) in conducts {
        let workers = Threads::new(4, conduct);
        // Each has a store of its own: nothing is found.
        let own = World::new();
        let root = root(&own.store, &top);
        let image = write_with(&own.store, &root, &options, &[], of_workers(&workers)).0;
        assert!(image == alone, "{what}");
        assert!(workers.asked.into_inner() > 0, "{what}");
        let wrong = workers.wrong.into_inner();
        let lies = ["all alter", "some alter", "all cut off", "all cheat"].contains(&what);
        assert_eq!(wrong > 0, lies, "{what}: {wrong}");
        // And once more with the blocks of the image that was made.
        let again = Threads::new(4, conduct);
        let image = write_with(&own.store, &root, &options, &[], of_workers(&again)).0;
        assert!(image == alone, "{what}, again");
        assert_eq!(again.asked.into_inner(), 0, "{what}: all blocks are in the store");
    }
}

/// A folder with text, noise and repeats, of about 25 MB.
fn much(top: &Path) {
    fs::create_dir_all(top).unwrap();
    let text: Vec<u8> = (0..2_500_000u32).flat_map(|i| (i / 3 * 7).to_string().into_bytes()).collect();
    let noise: Vec<u8> = text.chunks(64).flat_map(|part| *BlobDigest::of(part).as_bytes()).collect();
    for (name, bytes) in
        [("a-text", &text), ("b-noise", &noise), ("c-again", &text), ("d-more", &text[1..].to_vec())]
    {
        fs::write(top.join(name), bytes).unwrap();
    }
    for number in 0..400usize {
        let part = &text[number * 5000..][..3000 + number * 20];
        fs::write(top.join(format!("e-small-{number}")), part).unwrap();
    }
}

/// Has an upstream have an image with these slices.
fn offer(store: &Store, upstream: &Memory, image: &[u8], slices: &[Slice]) {
    let blob = store.put(image).unwrap();
    store.enter_slices(&blob.digest, slices).unwrap();
    let action = ActionDigest::of_encoding(blob.digest.as_bytes());
    let outputs = BTreeMap::from([("image".to_owned(), blob.into())]).into();
    store.set_action(&action, &ActionResult { outputs, ..ActionResult::default() }).unwrap();
    store.offer(upstream, &action).unwrap();
}

#[test]
fn an_image_that_differs_a_little_is_made_of_slices_that_others_wrote() {
    const ASKING: Help<'_> = Help { workers: None, asks: true };
    let world = World::new();
    let top = world.path("top");
    much(&top);
    let options = options(CompressorKind::Zstd, 131_072, 2);
    let (before, Summary { slices, .. }) =
        write_with(&world.store, &root(&world.store, &top), &options, &[], Help::default());
    // What a lazy builder would sign: the same blocks, compressed less.
    let lazy = Options { compressor: Compressor { level: 1, ..options.compressor }, ..options.clone() };
    let lazy_world = World::new();
    let (lazy_image, Summary { slices: lazy_slices, .. }) =
        write_with(&lazy_world.store, &root(&lazy_world.store, &top), &lazy, &[], Help::default());
    assert_eq!(slices.len(), lazy_slices.len());
    let lies: Vec<Slice> =
        slices.iter().zip(lazy_slices).map(|(slice, lazy)| Slice { action: slice.action, ..lazy }).collect();

    fs::write(top.join("b-noise-and-one"), b"one file more").unwrap();
    let alone = World::new();
    let wanted = write(&alone.store, &top, &options, &[]);
    type Row = (&'static str, fn(&Memory), bool, bool);
    let rows: [Row; 6] = [
        ("sound", |_| (), false, true),
        ("gone", |upstream| upstream.spoil(|_| None), false, false),
        ("cut off", |upstream| upstream.spoil(|bytes| Some(bytes[..bytes.len() / 2].to_vec())), false, false),
        (
            "fails at times",
            |upstream| {
                let mut calls = 0;
                *upstream.fails.lock().unwrap() = Some(Box::new(move || {
                    calls += 1;
                    calls % 7 == 0
                }));
            },
            false,
            true,
        ),
        ("dead", |upstream| *upstream.fails.lock().unwrap() = Some(Box::new(|| true)), false, false),
        ("lies", |_| (), true, false),
    ];
    for (what, spoil, lied, takes) in rows {
        let upstream = Arc::new(Memory::default());
        if lied {
            offer(&lazy_world.store, &upstream, &lazy_image, &lies);
        } else {
            offer(&world.store, &upstream, &before, &slices);
        }
        spoil(&upstream);
        let own = World::new();
        own.store.set_upstreams(vec![upstream]);
        let (image, Summary { taken, .. }) =
            write_with(&own.store, &root(&own.store, &top), &options, &[], ASKING);
        assert!(image == wanted, "{what}");
        assert_eq!(taken > 0, takes, "{what}: {taken} of {}", slices.len());
    }
}
