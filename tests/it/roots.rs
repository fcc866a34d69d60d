//! Roots as people have them: with mounts and caches in them, with holes, as tars of other programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use cache::testing::{Need, needs};

use crate::live::Live;
use crate::world::{run, run_in};

#[test]
fn what_nobody_packs_is_neither_read_nor_part_of_the_key() {
    let live = Live::new();
    let tmp = live.root().join("tmp");
    fs::create_dir_all(tmp.join("folder")).unwrap();
    fs::create_dir_all(live.root().join("var/cache/deep")).unwrap();
    live.write_spec(
        "path = \"root\"\n",
        "[node.squashfs]\nexclude = [\"boot/*\", \"tmp/*\", \"var/cache/**\"]\n",
    );
    // Nobody but root could list it.
    fs::set_permissions(tmp.join("folder"), fs::Permissions::from_mode(0o0)).unwrap();
    live.build(&[]);
    fs::write(tmp.join("new"), "x").unwrap();
    fs::write(live.root().join("var/cache/deep/new"), "x").unwrap();
    assert_eq!(live.build(&[]), Vec::<String>::new(), "what is left out is part of a key");
    let listing = run("unsquashfs", &["-l", live.published("netboot/image.squashfs").to_str().unwrap()]);
    assert!(listing.contains("/tmp\n") && !listing.contains("/new"), "{listing}");
    fs::set_permissions(tmp.join("folder"), fs::Permissions::from_mode(0o755)).unwrap();

    // A node that takes the root as it is counts all of it.
    let copy = "[node.copy]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"mkdir out/x; ls in/root/tmp > out/x/list\"]\n\
                tools = [\"ls\", \"mkdir\"]\ninput = { root = \"stage2.root\" }\noutputs = { x = \"x/\" }\n\
                [publish]\nx = [\"copy.x\"]\n";
    live.write_spec("path = \"root\"\n", copy);
    live.build(&[]);
    assert!(fs::read_to_string(live.published("x/list")).unwrap().contains("new"));
}

#[test]
fn a_root_in_use_is_packed_without_what_the_kernel_mounted() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    fs::create_dir(live.root().join("proc")).unwrap();
    let proc = live.root().join("proc").display().to_string();
    run("mount", &["-t", "proc", "proc", &proc]);
    let output = live.stagegraph(&["build", &live.spec()]);
    run("umount", &[&proc]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_signal_ends_the_hashing_of_a_file_without_an_end() {
    for place in ["etc/lastlog", "boot/image"] {
        let live = Live::new();
        // To read it would take hours.
        fs::File::create(live.root().join(place)).unwrap().set_len(8 << 40).unwrap();
        let mut command = live.command(&["build", &live.spec(), "--json"]);
        let mut build = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // Once it says what it is about to do, it does it.
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(build.stdout.take().unwrap()));
        lines.next().unwrap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        run("kill", &["-TERM", &build.id().to_string()]);
        let status = build.wait().unwrap();
        assert_eq!(status.code().or_else(|| status.signal().map(|n| 128 + n)), Some(143), "{place}");
        let left = run("find", &[live.world.path("store/scratch").to_str().unwrap()]);
        assert_eq!(left.lines().count(), 1, "{place}: {left}");
    }
}

#[test]
fn tars_of_all_makers_are_roots() {
    let live = Live::new();
    let script = "tar -C root -cf label.tar -V mylabel .
        tar -C root -cPf absolute.tar --transform 's,^\\.,/,' .
        tar -C root -cf v7.tar --format=v7 .
        tar -C root -cf pax.tar --format=pax --pax-option=comment=hello .
        tar -C root -cf dumped.tar -G .
        (cd root && find . | cpio -o -H ustar --quiet > ../cpio.tar)
        tar -C root -cf - -V label . | zstd -q > label.tar.zst";
    run_in(live.world.dir.path(), "sh", &["-ec", script]);
    let mut images = std::collections::BTreeSet::new();
    for tar in ["label.tar", "absolute.tar", "v7.tar", "pax.tar", "dumped.tar", "cpio.tar", "label.tar.zst"] {
        live.write_spec(&format!("path = \"{tar}\"\n"), "[node.squashfs]\nexclude = [\"**/.*\"]\n");
        live.build(&[]);
        let image = live.published("netboot/image.squashfs").display().to_string();
        let listing = run("unsquashfs", &["-l", &image]);
        images.insert(listing);
    }
    assert_eq!(images.len(), 1, "{images:#?}");
}

#[test]
fn what_of_a_tar_squashfs_has_no_room_for_is_named() {
    let live = Live::new();
    // GNU tar writes such records of file systems that have them.
    let script = "import tarfile
def f(t):
    t.uid = t.gid = 0
    if t.name.endswith('motd'):
        t.pax_headers = {'RHT.security.selinux': 'system_u:object_r:etc_t:s0', 'SCHILY.acl.access': 'user::rw-,user:7:r--',
                         'SCHILY.xattr.system.nfs4_acl': 'x', 'LIBARCHIVE.xattr.user.note': 'aGVsbG8'}
    return t
t = tarfile.open('r.tar', 'w', format=tarfile.PAX_FORMAT)
t.add('root', '.', filter=f)
t.close()";
    run_in(live.world.dir.path(), "python3", &["-c", script]);
    live.write_spec("path = \"r.tar\"\n", "");
    let output = live.stagegraph(&["build", &live.spec()]);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}");
    for says in
        ["access lists of ./etc/motd are left out", "squashfs has no place for system.nfs4_acl of etc/motd"]
    {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
}
