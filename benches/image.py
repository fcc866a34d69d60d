#!/usr/bin/python3
"""image.py PROGRAM [ROOT]: what whole images cost, against the commands one would otherwise run.

First the image after one file of its root changed: `stagegraph build` gives squashfs, ISO, netboot set, lists of digests and an audit
of it all; the other side is what catalyst runs for an ISO (gensquashfs, grub-mkrescue, lists of its files and digests), and the commands
with which people take it apart for the network. Then what is written when everything is known, against cp; and what audit and
extract cost on amd64-minimal, against the tools that hash and unpack the same files.

ROOT is as for squashfs.py. amd64-minimal is built or found in the default store. Every figure is the median of REPEAT runs (5).
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from measure import REPEAT, files_of, head, make_root, measure, median, row, shell

SPEC = """
extends = "livecd"
[image]
name = "bench"
title = "Bench"
label = "bench"
volume_id = "BENCH"
timestamp = "20380101T000000Z"
[node.stage2]
step = "import"
path = "root"
boot = "boot"
[node.squashfs]
exclude = []
"""

# What catalyst 4 runs for an ISO by its own scripts, with the same compressor, level and block size.
CATALYST = """
rm -rf iso bench.iso
mkdir -p iso/boot/grub
cp boot/vmlinuz-bench iso/boot/bench
cp boot/initrd.img-bench iso/boot/bench.igz
printf 'menuentry bench {\\n linux /boot/bench root=live:CDLABEL=BENCH\\n initrd /boot/bench.igz\\n}\\n' > iso/boot/grub/grub.cfg
gensquashfs -c COMPRESSOR LEVEL -b 131072 -j $(nproc) -x -k -q -D root iso/image.squashfs
grub-mkrescue --mbr-force-bootable -volid BENCH -joliet -o bench.iso iso > /dev/null 2>&1
isoinfo -R -f -i bench.iso | gzip -9 > bench.iso.CONTENTS.gz
b2sum bench.iso bench.iso.CONTENTS.gz > bench.iso.DIGESTS
sha512sum bench.iso bench.iso.CONTENTS.gz >> bench.iso.DIGESTS
sha256sum bench.iso > bench.iso.sha256
"""

# What people do to boot it from the network.
BY_HAND = """
rm -rf set
mkdir set
xorriso -osirrox on -indev bench.iso -extract /boot/bench set/vmlinuz -extract /boot/bench.igz set/initrd \
    -extract /image.squashfs set/image.squashfs > /dev/null 2>&1
cd set
cp initrd combined
chmod u+w *
truncate -s %4 combined
echo image.squashfs | cpio -o -H newc --quiet >> combined
"""
LEVELS = {"zstd": "-X level=15", "xz": ""}


class Bench:
    def __init__(self, program, source, live, work):
        self.program, self.work = program, work
        subprocess.run(["cp", "-a", source, work / "root"], check=True)
        (work / "boot").mkdir()
        # A kernel and an initrd that go together; the modules are the root's, which the audit takes for a difference.
        shutil.copy(live / "netboot/debian.vmlinuz", work / "boot/vmlinuz-bench")
        shutil.copy(live / "netboot/debian.initrd", work / "boot/initrd.img-bench")
        (work / "bench.toml").write_text(SPEC)
        self.files = files_of(work / "root")

    def build(self, compressor):
        return measure([self.program, "build", "./bench.toml", "--store", "store", "--out", "out", "--set",
                        f"squashfs.compressor={compressor}"], self.work)

    def change(self):
        path = self.files[len(self.files) // 3]
        path.write_bytes(path.read_bytes() + b"\n")
        time.sleep(4)

    def stored(self):
        return sum(path.stat().st_size for path in (self.work / "store/objects").glob("*/*"))

    def catalyst(self, compressor):
        return shell(CATALYST.replace("COMPRESSOR", compressor).replace("LEVEL", LEVELS[compressor]) + BY_HAND, self.work)


def after_a_change(bench, compressor):
    bench.build(compressor)
    own, others, grown = [], [], []
    for _ in range(REPEAT):
        bench.change()
        before = bench.stored()
        # What one side left unwritten is not the other's to wait for.
        os.sync()
        own.append(bench.build(compressor))
        grown.append((bench.stored() - before) / (bench.work / "out/bench/netboot/image.squashfs").stat().st_size)
        os.sync()
        others.append(bench.catalyst(compressor))
    own, others = median(own), median(others)
    row(f"{compressor}: all of an image, one file changed", f"{own[0]:.2f} / {own[1]:.2f}", f"{others[0]:.2f} / {others[1]:.2f}",
        f"{others[0] / own[0]:.1f} times faster")
    return sorted(grown)[len(grown) // 2]


def written_out(bench, compressor):
    """ISO and combined initrd, when everything is known but nothing published."""
    out = bench.work / "out/bench"
    sizes = [path.stat().st_size for path in (out / "bench.iso", out / "netboot/bench.combined")]
    own, others = [], []
    for _ in range(REPEAT):
        shutil.copytree(out, bench.work / "kept")
        shutil.rmtree(out)
        os.sync()
        own.append(bench.build(compressor))
        os.sync()
        others.append(shell("mkdir copies; cp kept/bench.iso kept/netboot/bench.combined copies; sync -d copies/*", bench.work))
        shutil.rmtree(bench.work / "copies")
        shutil.rmtree(bench.work / "kept")
    nothing = median([bench.build(compressor) for _ in range(REPEAT)])
    own, others = median(own), median(others)
    row(f"ISO and combined initrd written and synced ({sum(sizes) / 1e6:.0f} MB), against cp", f"{own[0]:.2f} / {own[1]:.2f}",
        f"{others[0]:.2f} / {others[1]:.2f}", f"{own[0] / others[0]:.2f}")
    row("… without what a build with nothing to do takes", f"{own[0] - nothing[0]:.2f} / {own[1] - nothing[1]:.2f}", "",
        f"{(own[0] - nothing[0]) / others[0]:.2f}")


def readers(program, live, work):
    """The audit and extract, with the files in memory. Published files are links; copies make every name a file of its own."""
    shutil.copytree(live, work / "copies")
    iso = next((work / "copies").glob("*.iso"))
    shutil.copy(iso, work / "alone.iso")
    (work / "parts").mkdir()
    for path in (work / "copies/netboot").iterdir():
        if path.name.startswith("debian.") or path.suffix in (".squashfs", ".ipxe"):
            shutil.copy(path, work / "parts")
    lists = [(f"{iso.name}.DIGESTS", ""), ("netboot/DIGESTS", "netboot/")]
    named = sorted({prefix + line.split("  ", 1)[1] for name, prefix in lists
                    for line in (work / "copies" / name).read_text().splitlines() if not line.startswith("#")})
    all_of = " ".join(f"'{name}'" for name in named)
    extract = f"""xorriso -osirrox on -indev {iso} -extract /boot boot -extract /image.squashfs image.squashfs
        chmod -R u+w . && cp boot/debian.igz combined && truncate -s %4 combined && ln image.squashfs image.squashfs.img
        echo image.squashfs.img | cpio -o -H newc --quiet >> combined
        b2sum boot/debian* combined image.squashfs && sha512sum boot/debian* combined image.squashfs"""
    for what, own, other in [
        ("audit without lists, against sha256sum of the same files", f"{program} audit alone.iso parts",
         "sha256sum alone.iso parts/debian.* parts/image.squashfs"),
        ("audit with lists, against b2sum, sha512sum and sha256sum of all they name", f"{program} audit copies",
         f"cd copies && b2sum {all_of} && sha512sum {all_of} && sha256sum {all_of}"),
        ("extract, against xorriso, cat, cpio and sums by hand",
         f"rm -rf set && {program} extract {iso} set",
         f"rm -rf hand && mkdir hand && cd hand && {{ {extract}; }} > /dev/null 2>&1"),
    ]:
        for script in (own, other):
            shell(script, work)
        runs = [(shell(own, work), shell(other, work)) for _ in range(REPEAT)]
        ours, theirs = (median([run[side] for run in runs]) for side in range(2))
        row(what, f"{ours[0]:.2f} / {ours[1]:.2f}", f"{theirs[0]:.2f} / {theirs[1]:.2f}", f"{ours[0] / theirs[0]:.2f}")
    # Nobody audits by hand: what is left of extract without its audit is what the commands do as well.
    audits = [shell(f"{program} audit {iso} set", work) for _ in range(REPEAT)]
    rest = ours[0] - median(audits)[0]
    row("… without its audit", f"{rest:.2f}", f"{theirs[0]:.2f}", f"{rest / theirs[0]:.2f}")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        work = pathlib.Path(folder)
        measure([program, "build", "amd64-minimal", "--out", work / "live"], work)
        live = work / "live/amd64-minimal"
        source = make_root(pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else work / "source")
        bench = Bench(program, source, live, work)
        print(f"Whole images: seconds of wall and of CPU time, median of {REPEAT}.")
        head("what", "stagegraph, wall / CPU", "the other", "ratio")
        grown = {compressor: after_a_change(bench, compressor) for compressor in LEVELS}
        written_out(bench, "xz")
        readers(program, live, work)
        print("\nWhat the store grew by in a build after one file changed, in sizes of the squashfs: "
              + ", ".join(f"{compressor} {times:.3f}" for compressor, times in grown.items()) + ".")


if __name__ == "__main__":
    main()
