#!/usr/bin/python3
"""Runs the real catalyst with the target livecd-stagegraph, and stagegraph with the real catalyst; checks what comes out.

    run.py --catalyst DIR --stagegraph PROGRAM [--image DIR] [--work DIR] [--only TEXT]

DIR is a checkout of catalyst (4.0.1 or later); it is copied, not changed. With --image, a folder that `stagegraph build
amd64-minimal` published, catalyst makes a medium of that system, for the boots that `make test-catalyst` runs next. Root
is needed. Exit code 0: all checks passed.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import seed as seeds

HERE = pathlib.Path(__file__).resolve().parent
STAMP = "20250101T000000Z"
NAME = f"install-amd64-minimal-{STAMP}.iso"
PYTHON_PACKAGES = ("snakeoil==0.11.4", "fasteners==0.20", "tomli==2.5.0", "portage==3.0.83")
PROGRAMS = ("lbzip2", "rsync", "busybox", "cpio", "setcap", "git", "xorriso", "gensquashfs", "unsquashfs", "mount", "unshare")

failures = []


def check(is_right, what):
    print(("ok    " if is_right else "FAIL  ") + what, flush=True)
    if not is_right:
        failures.append(what)


def run(*words, **options):
    return seeds.run(*words, capture_output=True, text=True, **options)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Place:
    """catalyst, made ready to run: its source with the target, Python, the users it wants, a snapshot, a seed."""

    def __init__(self, options):
        self.work = pathlib.Path(options.work).resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.program = pathlib.Path(options.stagegraph).resolve()
        self.source = self.work / "catalyst"
        shutil.rmtree(self.source, ignore_errors=True)
        shutil.copytree(options.catalyst, self.source, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        self.python = self.work / "python/bin/python"
        self.make_python()
        run(self.program, "catalyst", "install", "--catalyst-dir", self.source)
        for name in ("passwd", "group"):
            lines = [line for line in pathlib.Path("/etc", name).read_text().splitlines() if not line.startswith("portage:")]
            lines.append("portage:x:250:" + ("250::/var/tmp/portage:/bin/false" if name == "passwd" else ""))
            (self.work / name).write_text("\n".join(lines) + "\n")
        self.seed = self.work / "small.tar"
        seeds.small(self.seed, self.work)
        self.treeish, self.snapshot = self.make_snapshot()

    def make_python(self):
        done = self.work / "python" / " ".join(PYTHON_PACKAGES)
        if not done.exists():
            shutil.rmtree(self.work / "python", ignore_errors=True)
            run("/usr/bin/python3", "-m", "venv", self.work / "python")
            run(self.python, "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES)
            done.touch()

    def make_snapshot(self):
        """An almost empty repository of ebuilds, through catalyst's own target for snapshots."""
        repo, bare = self.work / "repo", self.work / "repos/gentoo.git"
        for folder in (repo, bare):
            shutil.rmtree(folder, ignore_errors=True)
        for profile in ("23.0", "23.0/no-multilib"):
            seeds.write(repo / "profiles/default/linux/amd64" / profile / "eapi", "8\n")
        seeds.write(repo / "profiles/repo_name", "gentoo\n")
        seeds.write(repo / "metadata/layout.conf", "masters =\n")
        date = {**os.environ, "GIT_AUTHOR_DATE": "@1700000000 +0000", "GIT_COMMITTER_DATE": "@1700000000 +0000"}
        git = ("git", "-C", repo, "-c", "user.name=x", "-c", "user.email=x@x")
        run(*git, "init", "-q", "-b", "stable")
        run(*git, "add", "-A")
        run(*git, "commit", "-qm", "x", env=date)
        run("git", "clone", "-q", "--bare", repo, bare)
        treeish = run("git", "-C", repo, "rev-parse", "HEAD").stdout.strip()
        store = Store(self, "snapshot", seed=False)
        shutil.copytree(self.work / "repos", store.path / "repos")
        store.catalyst("-s", treeish, expect=0)
        return treeish, store.path / f"snapshots/gentoo-{treeish}.sqfs"

    def isolated(self, words, env):
        """Words that run others with catalyst's users, in a mount namespace of their own."""
        script = 'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@"'
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb", **env}
        env = [f"{name}={value}" for name, value in env.items()]
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(self.work), "env", "-i", *env, *words]

    def python_path(self):
        return f"{self.source}:{HERE / 'python'}"


class Store:
    """A storedir of catalyst's, and a spec."""

    def __init__(self, place, name, seed=True, keys=None, kernels="dracut", options=("autoresume",)):
        self.place = place
        self.path = place.work / "stores" / name
        shutil.rmtree(self.path, ignore_errors=True)
        self.builds = self.path / "builds/test"
        for folder in (self.builds, self.path / "snapshots", place.work / "distfiles"):
            folder.mkdir(parents=True, exist_ok=True)
        self.log = self.path / "log"
        self.conf = self.path / "catalyst.conf"
        self.conf.write_text(f'digests = ["blake2b", "sha512"]\noptions = {json.dumps(list(options))}\n'
                             f'sharedir = "{place.source}"\nstoredir = "{self.path}"\ndistdir = "{place.work}/distfiles"\n')
        self.spec = self.path / "test.spec"
        if seed:
            self.take_seed(place.seed)
            shutil.copy(place.snapshot, self.path / "snapshots")
            self.write_spec(keys or {}, kernels)

    def take_seed(self, seed):
        path = self.builds / f"livecd-stage1-amd64-{STAMP}.tar"
        path.unlink(missing_ok=True)
        os.link(seed, path)

    def write_spec(self, keys, kernels):
        lines = {
            "subarch": "amd64", "version_stamp": STAMP, "target": "livecd-stagegraph", "rel_type": "test",
            "profile": "default/linux/amd64/23.0", "snapshot_treeish": self.place.treeish,
            "source_subpath": f"test/livecd-stage1-amd64-{STAMP}", "livecd/bootargs": "dokeymap nodhcp",
            "livecd/iso": NAME, "livecd/volid": "Gentoo-amd64-20250101", "livecd/type": "generic-livecd",
            "livecd/empty": "/boot /tmp /usr/src /var/cache /var/log /var/tmp", "livecd/rm": "/usr/bin/portageq",
            "livecd/unmerge": "app-arch/cpio", "boot/kernel": "gentoo",
        }
        if kernels == "dracut":
            lines["boot/kernel/gentoo/distkernel"] = "yes"
        lines.update(keys)
        self.spec.write_text("".join(f"{key}: {value}\n" for key, value in lines.items() if value))

    def words(self, *arguments, program=None):
        words = [str(self.place.python), str(self.place.source / "bin/catalyst"), "-c", str(self.conf), *map(str, arguments)]
        env = {"PYTHONPATH": self.place.python_path(), "PYTHONDONTWRITEBYTECODE": "1",
               "STAGEGRAPH": str(program or self.place.program)}
        return self.place.isolated(words, env)

    def catalyst(self, *arguments, expect, program=None):
        """Runs catalyst; returns what it printed."""
        words = self.words(*arguments, program=program)
        done = subprocess.run(words, cwd=self.place.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        self.log.write_text(done.stdout)
        if done.returncode != expect:
            print("\n".join(done.stdout.splitlines()[-25:]))
            check(False, f"{self.path.name}: catalyst ends with {expect} (it was {done.returncode}; {self.log})")
        return done.stdout

    def build(self, expect=0, program=None):
        return self.catalyst("-f", self.spec, expect=expect, program=program)

    def stagegraph(self, *arguments):
        words = self.place.isolated([str(self.place.program), *map(str, arguments)], {})
        return subprocess.run(words, cwd=self.path, capture_output=True, text=True, check=False)

    def sets(self):
        """Where catalyst is, for a node that runs it."""
        where = {"conf": self.conf, "python": self.place.python, "dir": self.place.python_path()}
        return [word for name, value in where.items() for word in ("--set", f"stage2.{name}={value}")]

    def build_from_here(self, *more):
        """Runs stagegraph on the spec: it runs catalyst."""
        return self.stagegraph("build", self.spec, "--store", self.path / "stagegraph", "--out", self.path / "out", *self.sets(), *more)

    def lock(self, *more):
        """Makes the lock of the spec, or renews it."""
        return self.stagegraph("lock", self.spec, "--store", self.path / "stagegraph", *self.sets(), *more)

    def published(self, folder=None):
        folder = folder or self.builds
        names = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith(("livecd-stage1", ".")))
        return {path.name: sha256(path) for path in sorted(names)}

    def audit(self, what):
        done = self.stagegraph("audit", self.builds / NAME, self.builds / f"{NAME}.ipxe")
        check(done.returncode == 0, f"{what}: the ISO and the netboot set match" + (done.stdout if done.returncode else ""))

    def iso_file(self, path):
        out = self.path / "from-iso"
        out.unlink(missing_ok=True)
        run("xorriso", "-osirrox", "on", "-indev", self.builds / NAME, "-extract", path, out)
        return out.read_text()

    def chroot(self):
        return self.path / f"tmp/test/livecd-stagegraph-amd64-{STAMP}"


def left_behind(place):
    """Mounts and processes that belong to catalyst's runs."""
    with open("/proc/mounts", encoding="utf-8") as mounts:
        found = [line for line in mounts if str(place.work) in line]
    pids = subprocess.run(["pgrep", "-f", f"{place.work}/stores"], capture_output=True, text=True, check=False)
    return found + pids.stdout.split()


# Each of these is one test; its first argument is the place.

def publishes_iso_and_netboot_set_with_lists_of_every_file(place):
    store = Store(place, "basic", options=("keepwork",))
    store.build()
    names = store.published()
    kinds = ("", ".initrd", ".ipxe", ".manifest.json", ".spdx.json", ".squashfs", ".vmlinuz")
    expected = {NAME + kind + end for kind in kinds for end in ("", ".DIGESTS", ".sha256")} | {NAME + ".CONTENTS.gz"}
    check(set(names) == expected, f"basic: 22 files, and no others {sorted(set(names) ^ expected)}")
    store.audit("basic")
    lists = subprocess.run(f"cd {store.builds} && for f in *.sha256; do sha256sum --quiet -c $f || exit 1; done && "
                           "grep -hA1 BLAKE2B *.DIGESTS | grep -v '^#\\|^--' | b2sum --quiet -c && "
                           "grep -hA1 SHA512 *.DIGESTS | grep -v '^#\\|^--' | sha512sum --quiet -c", shell=True, check=False)
    check(lists.returncode == 0, "bug 8: every published file has lists, and they hold")
    again = Store(place, "again")
    again.build()
    check(again.published() == names, "bug 8: two runs from one seed publish the same bytes, lists and all")

    request = f"{store.chroot()}.stagegraph-request.json"
    began = time.monotonic()
    done = store.stagegraph("catalyst", "finish", "--request", request)
    seconds = time.monotonic() - began
    check(done.returncode == 0 and "12 nodes: 12 cached" in done.stdout + done.stderr,
          "an unchanged chroot: every node is cached")
    check(seconds < 5, f"an unchanged chroot: {seconds:.2f} s in stagegraph, under 5")
    from_here = Store(place, "from-here", options=("autoresume",))
    from_here.write_spec({"target": "livecd-stage2"}, "dracut")
    done = from_here.build_from_here()
    check(done.returncode == 0, "stagegraph runs catalyst" + (done.stderr if done.returncode else ""))
    same = {name: from_here.published(from_here.path / "out/test").get(name) for name in names}
    # The manifest tells how the root was made, and so do its lists and the list of all.
    told = [name for name in names if same[name] != names[name] and "manifest" not in name and name != f"{NAME}.DIGESTS"]
    check(not told, f"stagegraph runs catalyst: the same bytes as with the target {told}")
    check(not from_here.chroot().exists(), "stagegraph runs catalyst: the chroot is gone")
    os.rename(place.source / "bin", place.source / "bin-away")
    done = from_here.build_from_here()
    os.rename(place.source / "bin-away", place.source / "bin")
    check(done.returncode == 0 and "12 nodes: 12 cached" in done.stdout + done.stderr, "the same again: catalyst is not started")
    overlay = from_here.path / "overlay"
    seeds.write(overlay / "etc/added", "one\n")
    keys = {"target": "livecd-stage2", "livecd/root_overlay": overlay}
    from_here.write_spec(keys, "dracut")
    check(from_here.build_from_here().returncode == 0, "with an overlay it runs")
    done = from_here.lock()
    check(done.returncode == 0 and done.stdout.endswith("test.lock: 1 other source\n"), f"what catalyst reads is locked {done.stderr}")
    done = from_here.build_from_here("--locked")
    check(done.returncode == 0 and "stage2           cached" in done.stdout, "the lock fits what is there")
    seeds.write(overlay / "etc/added", "two\n")
    done = from_here.build_from_here("--locked")
    check(done.returncode == 2 and "stage2: " in done.stderr and "--update stage2" in done.stderr,
          "a file the spec names has changed: the lock notices it")
    check(from_here.lock("--update", "stage2").returncode == 0, "the lock goes on to it")
    done = from_here.build_from_here("--json")
    ran = [json.loads(line) for line in done.stdout.splitlines()]
    ran = {event["node"] for event in ran if event["event"] == "finished" and event["milliseconds"] is not None}
    check("stage2" in ran and "grub" not in ran, "a file the spec names has changed: catalyst runs again")


def builds_amd64_minimal(place):
    """The spec that comes with stagegraph, on a machine that has catalyst."""
    store = Store(place, "minimal")
    builds = store.path / "builds/23.0-default"
    builds.mkdir()
    os.link(place.seed, builds / f"livecd-stage1-amd64-{STAMP}.tar")
    releng = place.work / "releng"
    seeds.write(releng / "releases/portage/isos/package.use", "sys-apps/busybox static\n")
    seeds.write(releng / "releases/kconfig/amd64/dist-amd64-livecd.config", "CONFIG_SQUASHFS=y\n")
    theme = place.source / "livecd/cdtar/grub-theme-gentoo_frosted.tar.bz2"
    if not theme.exists():
        theme = next((place.source / "livecd/cdtar").iterdir())
    where = {"stage2.step": "catalyst", "stage2.conf": store.conf, "stage2.python": place.python, "stage2.dir": place.python_path(),
             "stage2.values.livecd/cdtar": theme, "image.timestamp": STAMP, "TREEISH": place.treeish, "REPO_DIR": releng}
    sets = [word for name, value in where.items() for word in ("--set", f"{name}={value}")]
    done = store.stagegraph("build", "amd64-minimal", "--store", store.path / "stagegraph", "--out", store.path / "out", *sets)
    check(done.returncode == 0, "amd64-minimal by catalyst" + (done.stdout[-900:] + done.stderr[-900:] if done.returncode else ""))
    out = store.path / "out/amd64-minimal"
    names = {path.name for path in out.iterdir()}
    check(NAME in names and (out / "netboot/gentoo.vmlinuz").exists(), "amd64-minimal by catalyst: Gentoo's names")


def bug_1_a_resumed_build_has_its_kernel(place):
    store = Store(place, "resume")
    store.build(expect=2, program="/bin/false")
    check(store.published() == {}, "bug 1: a build that failed leaves nothing under the final names")
    store.build()
    store.audit("bug 1: resumed")
    listing = run("xorriso", "-indev", store.builds / NAME, "-find", "/boot", "-type", "f").stdout
    check("/boot/gentoo'" in listing and "/boot/gentoo.igz'" in listing, "bug 1: the resumed ISO has kernel and initrd")


def bug_2_purging_leaves_what_is_finished(place):
    store = Store(place, "purge", options=("keepwork",))
    store.build()
    before = store.published()
    medium = store.builds / f"livecd-stagegraph-amd64-{STAMP}"
    check((medium / "boot/gentoo").exists(), "bug 2: the medium's files are there")
    store.catalyst("-T", "-f", store.spec, expect=0)
    check((medium / "boot/gentoo").exists() and store.published() == before, "bug 2: -T leaves what is finished")
    check(not store.chroot().exists() or not any(store.chroot().iterdir()), "bug 2: -T empties the chroot")
    store.catalyst("-P", "-f", store.spec, expect=0)
    check(store.published() == before, "bug 2: -P leaves what is published")


def bug_3_dracut_is_given_the_kernels_image(place):
    store = Store(place, "image")
    # The seed's dracut fails where --kernel-image names nothing.
    text = store.build()
    check("there is no kernel image" not in text, "bug 3: --kernel-image names a file")


def bug_4_several_distkernels(place):
    config = place.work / "kernel.config"
    config.write_text("CONFIG_ONE=y\n")
    other = place.work / "other.config"
    other.write_text("CONFIG_OTHER=y\n")
    keys = {"boot/kernel": "gentoo other", "boot/kernel/gentoo/config": config, "boot/kernel/other/distkernel": "yes",
            "boot/kernel/other/config": other, "livecd/rm": ""}
    store = Store(place, "kernels", keys=keys)
    store.build()
    names = store.published()
    check({f"{NAME}.{kernel}.{kind}" for kernel in ("gentoo", "other") for kind in ("vmlinuz", "initrd")} <= set(names),
          "bug 4: two distkernels with configurations")
    out = store.path / "unpacked"
    run("unsquashfs", "-n", "-q", "-d", out, store.builds / f"{NAME}.squashfs", "usr/lib/seed")
    check((out / "usr/lib/seed/built-with").read_text() == "CONFIG_OTHER=y\n",
          "bug 4: the second one has its own configuration alone")
    keys = {"boot/kernel": "gentoo-dist", "boot/kernel/gentoo-dist/distkernel": "yes"}
    text = Store(place, "dash", keys=keys).build(expect=2)
    check("boot/kernel: 'gentoo-dist' has more than letters" in text and "Running action sequence" not in text,
          "bug 4: a kernel whose settings would be lost is refused before anything is done")


def bug_5_consoles(place):
    keys = {"boot/kernel": "gentoo old", "boot/kernel/gentoo/console": "ttyS0,115200 ttyS1", "boot/kernel/old/console": "ttyS0"}
    store = Store(place, "consoles", keys=keys)
    store.build()
    menu = store.iso_file("/boot/grub/grub.cfg")
    lines = [line for line in menu.splitlines() if line.startswith("\tlinux ") and "console=" in line]
    right = {"/boot/gentoo": "root=live:CDLABEL=", "/boot/old": "looptype=squashfs"}
    check(len(lines) == 3 and all(right[line.split()[1]] in line for line in lines),
          "bug 5: each console has the arguments of its kernel's initramfs")
    store.audit("bug 5: dracut and genkernel on one medium")


def bug_6_volume_ids(place):
    store = Store(place, "no-volid", keys={"livecd/volid": ""})
    store.build()
    found = run("xorriso", "-indev", store.builds / NAME, "-pvd_info").stdout
    check("Gentoo-amd64-20250101" in found, "bug 6: a volume id that dracut finds")
    store = Store(place, "blanks", keys={"livecd/volid": "Gentoo amd64 2025"}, kernels="genkernel")
    store.build()
    store.audit("bug 6: blanks in a volume id that no initramfs looks for")


def refuses_before_anything_is_built(place):
    """What stagegraph cannot do is said at once, and not when the chroot is done."""
    here = place.work / "programs"
    programs = {
        "folder": None, "no-program": "no program\n", "says-nothing": "#!/bin/sh\nexit 0\n", "killed": "#!/bin/sh\nkill -9 $$\n",
        "of-another-version": f'#!/bin/sh\nfor last; do :; done\nsed -i \'s/"schema": 1/"schema": 7/\' "$last"\nexec {place.program} "$@"\n',
        "without-check": "#!/bin/sh\necho \"error: unexpected argument '--check' found\" >&2\nexit 2\n",
    }
    for name, text in programs.items():
        if text is None:
            (here / name).mkdir(parents=True, exist_ok=True)
        else:
            seeds.write(here / name, text, 0o755)
    refused = [
        ({"livecd/volid": "Gentoo Linux"}, "livecd/volid"), ({"livecd/volid": "x" * 33}, "33 characters"),
        ({"livecd/volid": "Gentoo*"}, "cannot be a volume id"), ({"livecd/bootargs": "a $x"}, "kernel command line"),
        ({"livecd/bootargs": "{1} a;b"}, "livecd/bootargs"), ({"livecd/iso": "a=b+c,d.iso"}, "a=b+c,d"),
        ({"livecd/iso": "x.img"}, "does not end in .iso"), ({"version_stamp": "20251301T000000Z"}, "has no date"),
        ({"livecd/stagegraph_set": "squashfs.nosuch=1"}, "nosuch"), ({"livecd/stagegraph_set": "foo.bar=1"}, "foo.bar"),
        ({"livecd/fsops": "-comp xz"}, 'livecd/fsops: "-comp" is not known'), ({"livecd/fsops": "-c lzma"}, "lzma"),
        ({"livecd/stagegraph_store": "relative"}, "one absolute path"), ({"livecd/stagegraph_store": "/a /b"}, "one absolute path"),
        ({"livecd/iso_extra_partition": "4096"}, "too few"), ({"livecd/iso_extra_partition": "1099511627776"}, "extra_partition_kib"),
        ({"livecd/netboot": "pxe"}, "livecd/netboot"), ({"livecd/fstype": "jffs2"}, "livecd/fstype"),
        *(({"livecd/stagegraph": here / name}, name) for name in programs),
    ]
    for keys, says in refused:
        store = Store(place, "refused", keys=keys)
        text = store.build(expect=2)
        check(says in text and "Running action sequence" not in text, f"refused before anything is built: {keys}")
    for digests, says in ((["sha1"], "sha1"), (["blake2b"], "foo")):
        store = Store(place, "refused")
        format = "linux" if says == "sha1" else "foo"
        more = f'digests = {json.dumps(digests)}\ndigest_format = "{format}"\n'
        store.conf.write_text(more + store.conf.read_text().split("\n", 1)[1])
        text = store.build(expect=2)
        check(says in text and "Running action sequence" not in text, f"refused before anything is built: {says}")


def both_ways_take_what_catalyst_is_configured_to_do(place):
    names = []
    for name in ("configured", "configured-here"):
        store = Store(place, name)
        more = 'digests = ["sha256"]\ndigest_format = "bsd"\n'
        store.conf.write_text(more + store.conf.read_text().split("\n", 1)[1])
        store.write_spec({"subarch": "nocona", "livecd/volid": "", "source_subpath": f"test/livecd-stage1-amd64-{STAMP}"}, "dracut")
        if name == "configured":
            store.build()
            names.append(store.published())
        else:
            done = store.build_from_here()
            check(done.returncode == 0, "configured: built from here" + (done.stderr if done.returncode else ""))
            names.append(store.published(store.path / "out/test"))
    # The manifest says which step made the root, and the list of all files names it.
    made = [{name: sum for name, sum in found.items() if "manifest" not in name and name != f"{NAME}.DIGESTS"} for found in names]
    check(len(made[0]) == 15 and names[0].keys() == names[1].keys() and made[0] == made[1], "digests, their format and the machine of a subarch: the same lists both ways")


def bug_7_capabilities_and_links(place):
    store = Store(place, "rare")
    store.build()
    out = store.path / "unpacked"
    run("unsquashfs", "-n", "-q", "-d", out, store.builds / f"{NAME}.squashfs", "opt")
    rare = out / "opt/rare"
    check("cap_net_raw" in run("getcap", rare / "capable").stdout, "bug 7: file capabilities are kept")
    check(os.lstat(rare / "one").st_ino == os.lstat(rare / "other").st_ino, "bug 7: hard links are kept")


def carries_over_options_and_keys(place):
    overlay = place.work / "overlay"
    seeds.write(overlay / "extra file.txt", "x\n")
    keys = {"livecd/verify": "blake2", "livecd/overlay": overlay, "livecd/fsops": "-c zstd -X level=3",
            "livecd/iso_extra_partition": "307200 /mnt/data", "livecd/gk_mainargs": "--x --y", "boot/kernel/gentoo/distkernel": ""}
    store = Store(place, "keys", keys=keys, kernels="genkernel")
    store.build()
    store.audit("genkernel, verify, overlay, fsops, a partition")
    check("extra file.txt" in store.iso_file("/isoroot_b2sums"), "livecd/verify covers what livecd/overlay added")
    partitions = run("sfdisk", "--dump", store.builds / NAME).stdout
    check('name="Appended3"' in partitions, "livecd/iso_extra_partition: by the name that the chroot's fstab has")
    about = run("unsquashfs", "-s", store.builds / f"{NAME}.squashfs").stdout
    check("zstd" in about, "livecd/fsops: the compressor")
    store = Store(place, "caches", kernels="genkernel", options=("pkgcache", "kerncache"))
    store.build()
    cached = {str(path.relative_to(store.path)) for kind in ("packages", "kerncache") for path in (store.path / kind).rglob("*-amd64")}
    check(cached == {"packages/test/livecd-stage2-amd64", "kerncache/test/livecd-stage2-amd64"}, "pkgcache and kerncache are livecd-stage2's")
    store = Store(place, "fetch")
    store.catalyst("-F", "-f", store.spec, expect=0)
    check(store.published() == {}, "-F: only fetches")
    store = Store(place, "log")
    log = store.path / "of-catalyst"
    log.touch()  # catalyst wants it to be there
    store.catalyst("--log-file", log, "-f", store.spec, expect=0)
    check(f"{NAME}.squashfs" in log.read_text(), "--log-file: says what is published")
    store = Store(place, "emulated", keys={"livecd/netboot": "ipxe no-iso"})
    store.build()
    check(NAME not in store.published() and f"{NAME}.ipxe" in store.published(), "livecd/netboot: without the ISO")


def ends_with_its_parent(place):
    for how, sent in (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
        slow = place.work / "slow"
        marker = place.work / "slow.started"
        marker.unlink(missing_ok=True)
        # In the sandbox there is nothing but the shell.
        seeds.write(slow / "xorriso", "#!/bin/sh\nwhile :; do :; done\n", 0o755)
        program = place.work / "stagegraph-slow"
        seeds.write(program, f'#!/bin/sh\ntouch {marker}\nSTAGEGRAPH_TOOLS={slow} exec {place.program} "$@"\n', 0o755)
        store = Store(place, "ended")
        child = subprocess.Popen(store.words("-f", store.spec, program=program), cwd=place.work, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait(marker.exists)
        busy = wait(lambda: subprocess.run(["pgrep", "-f", "xorriso -pacifier"], capture_output=True,
                                           check=False).returncode == 0)
        check(busy and child.poll() is None, f"{how} to catalyst: it is at work")
        child.send_signal(sent)
        child.wait()
        check(wait(lambda: not left_behind(place)), f"{how} to catalyst: nothing is left {left_behind(place)}")
        check(store.published() == {}, f"{how} to catalyst: nothing is published")
    # And the other way round: stagegraph runs catalyst, and is killed.
    store = Store(place, "killed")
    slow_emerge = place.work / "slow-script"
    seeds.write(slow_emerge, "#!/bin/bash\ntouch /slow.started\nsleep 301\n", 0o755)
    store.write_spec({"target": "livecd-stage2", "livecd/fsscript": slow_emerge}, "dracut")
    words = store.place.isolated([str(place.program), "build", str(store.spec), "--store", str(store.path / "stagegraph"), "--out",
                                  str(store.path / "out"), "--set", f"stage2.conf={store.conf}", "--set",
                                  f"stage2.python={place.python}", "--set", f"stage2.dir={place.python_path()}"], {})
    child = subprocess.Popen(words, cwd=store.path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    started = wait((store.chroot() / "slow.started").exists)
    check(started, "a script of the spec runs in the chroot")
    child.kill()
    child.wait()
    check(wait(lambda: not left_behind(place)), f"SIGKILL to stagegraph: catalyst is gone {left_behind(place)}")


def wait(until, limit=60):
    deadline = time.monotonic() + limit
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def several_at_once(place):
    stores = []
    for number in range(3):
        keys = {"livecd/stagegraph_store": place.work / "shared-store", "livecd/volid": f"Gentoo-{number}"}
        stores.append(Store(place, f"at-once-{number}", keys=keys))
    shutil.rmtree(place.work / "shared-store", ignore_errors=True)
    children = [subprocess.Popen(store.words("-f", store.spec), cwd=place.work, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for store in stores]
    check([child.wait() for child in children] == [0, 0, 0], "three catalysts at once on one store")
    for store in stores:
        store.audit(store.path.name)
    squashfs = {store.published()[f"{NAME}.squashfs"] for store in stores}
    check(len(squashfs) == 1, "three catalysts at once: one squashfs")


def makes_a_medium_that_boots(place, image):
    """Leaves the published files for the boots: see tests/boot."""
    seed = place.work / "bootable.tar"
    seeds.bootable(seed, place.work, image)
    keys = {"livecd/bootargs": "console=ttyS0,115200 rd.live.overlay.overlayfs=1", "livecd/fsops": "-c zstd"}
    store = Store(place, "bootable", keys=keys)
    store.take_seed(seed)
    store.build()
    store.audit("a system that boots")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, needed in (("catalyst", True), ("stagegraph", True), ("image", False), ("only", False)):
        parser.add_argument("--" + name, required=needed)
    parser.add_argument("--work", default="/var/tmp/stagegraph-test-catalyst")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("catalyst needs root")
    if not pathlib.Path(options.catalyst, "catalyst/main.py").is_file():
        parser.error(f"--catalyst: there is no catalyst/main.py below {options.catalyst}")
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        parser.error("not installed: " + " ".join(missing))
    place = Place(options)
    tests = [publishes_iso_and_netboot_set_with_lists_of_every_file, builds_amd64_minimal, bug_1_a_resumed_build_has_its_kernel,
             bug_2_purging_leaves_what_is_finished, bug_3_dracut_is_given_the_kernels_image, bug_4_several_distkernels,
             bug_5_consoles, bug_6_volume_ids, refuses_before_anything_is_built,
             both_ways_take_what_catalyst_is_configured_to_do, bug_7_capabilities_and_links, carries_over_options_and_keys,
             several_at_once, ends_with_its_parent]
    for test in tests:
        if not options.only or options.only in test.__name__:
            print(f"--    {test.__name__}", flush=True)
            test(place)
    if options.image and not options.only:
        makes_a_medium_that_boots(place, options.image)
    found = left_behind(place)
    check(not found, f"no mounts and no processes are left {found}")
    print(f"{len(failures)} failed", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
