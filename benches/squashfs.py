#!/usr/bin/python3
"""squashfs.py PROGRAM [ROOT]: what a squashfs costs, from nothing and again after a change, against mksquashfs and gensquashfs.

ROOT is a folder, made of Debian packages where it is not there (as root). It is copied, and the copy is edited. Every figure is
the median of REPEAT runs (5), and every ratio is of one run of this program. Compare on a quiet machine: wall time has the disk in
it, which stagegraph waits for and the other two do not.
"""
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from measure import REPEAT, files_of, head, make_root, measure, median, row

LEVELS = {"zstd": 15, "xz": 6, "gzip": 9}
BLOCK = 131072
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


class Bench:
    def __init__(self, program, source, work):
        self.program, self.work = pathlib.Path(program).resolve(), work
        self.root = work / "root"
        subprocess.run(["cp", "-a", source, self.root], check=True)
        (work / "boot").mkdir()
        for name in ("vmlinuz", "initrd.img"):
            (work / "boot" / name).write_bytes(b"not looked at here")
        (work / "bench.toml").write_text(SPEC)
        self.files = files_of(self.root)

    def build(self, compressor, block=BLOCK):
        return measure([self.program, "build", "./bench.toml", "--to", "squashfs", "--store", "store", "--set",
                        f"squashfs.compressor={compressor}", "--set", f"squashfs.block_size={block}"], self.work)

    def cold(self, compressor, block=BLOCK):
        shutil.rmtree(self.work / "store", ignore_errors=True)
        return self.build(compressor, block)

    def memory(self, compressor, block):
        """Returns the most memory, in MB, that a build from nothing takes."""
        shutil.rmtree(self.work / "store", ignore_errors=True)
        words = ["/usr/bin/time", "-f", "%M", self.program, "build", "./bench.toml", "--to", "squashfs", "--store", "store", "--set",
                 f"squashfs.compressor={compressor}", "--set", f"squashfs.block_size={block}", "--json"]
        said = subprocess.run(words, cwd=self.work, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return int(said.stderr.split()[-1]) / 1000

    def other(self, tool, compressor, block=BLOCK):
        image = self.work / "image"
        image.unlink(missing_ok=True)
        level = LEVELS[compressor]
        if tool == "mksquashfs":
            words = [tool, "root", "image", "-comp", compressor, "-b", block, "-processors", os.cpu_count(), "-noappend",
                     "-quiet", "-no-progress"] + ([] if compressor == "xz" else ["-Xcompression-level", level])
        else:
            words = [tool, "-c", compressor, "-b", block, "-j", os.cpu_count(), "-x", "-k", "-q", "-D", "root", "image"]
            words += [] if compressor == "xz" else ["-X", f"level={level}"]
        seconds = measure(words, self.work)
        return seconds, image.stat().st_size

    def image_size(self):
        objects = (self.work / "store/objects").glob("*/*")
        return max(path.stat().st_size for path in objects)

    def edit(self, what, number):
        """Changes files; what was changed a moment ago is read again, so this waits."""
        if what == "one file":
            changed = [self.files[len(self.files) // 3]]
        elif what == "1 % of the files":
            changed = self.files[number % 100::100]
        elif what == "kernel and modules":
            changed = [path for path in self.files if "modules" in path.parts or "boot" in path.parts]
        else:
            changed = []
        for path in changed:
            content = path.read_bytes()
            # A new kernel's modules have nothing in its old place; edits are small.
            path.write_bytes(bytes([number % 256]) + content if what.startswith("kernel") else content + b"\n")
        time.sleep(4)


def compare(bench, compressor, block):
    """Prints the row of an image from nothing; returns what the other tools take at least, wall and CPU."""
    # In turns, so that a slow minute of the machine is everybody's.
    own, others, sizes = [], {"mksquashfs": [], "gensquashfs": []}, []
    for _ in range(REPEAT):
        own.append(bench.cold(compressor, block))
        own_size = bench.image_size()
        for tool, runs in others.items():
            seconds, size = bench.other(tool, compressor, block)
            runs.append(seconds)
            sizes.append(size)
    own, medians = median(own), {tool: median(runs) for tool, runs in others.items()}
    best = [min(seconds[column] for seconds in medians.values()) for column in range(2)]
    shown = [f"{wall:.1f} / {cpu:.1f}" for wall, cpu in medians.values()]
    row(f"{compressor} {LEVELS[compressor]}, {block >> 10} KiB", f"{own[0]:.1f} / {own[1]:.1f}", *shown, f"{own[0] / best[0]:.2f}",
        f"{own[1] / best[1]:.2f}", f"{own_size / min(sizes):.4f}", f"{bench.memory(compressor, block):.0f}")
    return medians["mksquashfs"]


def rebuilt(bench, full):
    head("rebuilt after a change", "stagegraph, wall / CPU", "wall, times faster than mksquashfs", "CPU, times less")
    for compressor in ("zstd", "xz"):
        bench.cold(compressor)
        for what in ("nothing", "one file", "1 % of the files", "kernel and modules"):
            runs = []
            for number in range(REPEAT):
                bench.edit(what, number)
                runs.append(bench.build(compressor))
            wall, cpu = median(runs)
            row(f"{compressor}: {what}", f"{wall:.2f} / {cpu:.2f}", f"{full[compressor][0] / wall:.1f}",
                f"{full[compressor][1] / cpu:.1f}")


def growth(program, work):
    """Prints what folders of more and more files cost: the same small files, so that names and stat data are all there is."""
    head("files of 100 bytes", "from nothing, wall / CPU", "exponent of CPU", "again, wall / CPU", "exponent of CPU")
    last = None
    for count in (1000, 10000, 100000):
        folder = work / f"small-{count}"
        root = folder / "root"
        for number in range(count):
            if number % 100 == 0:
                (root / f"{number // 100:04}").mkdir(parents=True)
            (root / f"{number // 100:04}" / f"{number:06}").write_bytes(f"{number:099}\n".encode())
        (folder / "boot").mkdir()
        for name in ("vmlinuz", "initrd.img"):
            (folder / "boot" / name).write_bytes(b"not looked at here")
        (folder / "bench.toml").write_text(SPEC)
        words = [program, "build", "./bench.toml", "--to", "squashfs", "--store", "store"]
        time.sleep(4)
        first, again = [], []
        for _ in range(REPEAT):
            shutil.rmtree(folder / "store", ignore_errors=True)
            first.append(measure(words, folder))
            again.append(measure(words, folder))
        costs = median(first), median(again)
        grows = [f"{math.log10(now[1] / before[1]):.2f}" for now, before in zip(costs, last)] if last else ["–", "–"]
        shown = [f"{wall:.2f} / {cpu:.2f}" for wall, cpu in costs]
        row(count, shown[0], grows[0], shown[1], grows[1])
        last = costs


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        work = pathlib.Path(folder)
        source = make_root(pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else work / "source")
        bench = Bench(sys.argv[1], source, work)
        size = sum(path.stat().st_size for path in bench.files) / 1e6
        print(f"A root of {len(bench.files)} files, {size:.0f} MB; seconds of wall and of CPU time, median of {REPEAT}.")
        head("from nothing", "stagegraph", "mksquashfs", "gensquashfs", "wall, against the faster", "CPU, against the lesser",
             "size, against the smaller", "stagegraph's memory, MB")
        full = {compressor: compare(bench, compressor, BLOCK) for compressor in LEVELS}
        print(f"\nWith blocks of 1 MiB, stagegraph takes {bench.memory('xz', 1 << 20):.0f} MB for xz and "
              f"{bench.memory('zstd', 1 << 20):.0f} MB for zstd.")
        rebuilt(bench, full)
        growth(bench.program, work)


if __name__ == "__main__":
    main()
