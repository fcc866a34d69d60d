#!/usr/bin/python3
"""rebuild.py PROGRAM [ROOT]: what a rebuild of a squashfs costs, against mksquashfs and gensquashfs making it anew.

ROOT is a folder; without one, a root of about 27,000 files and 700 MB is made of Debian packages (as root). It is copied, and
the copy is edited. Every figure is the median of REPEAT runs (5), and every ratio is of one run of this program. Compare on
a quiet machine: wall time has the disk in it, which these rows write 200 MB to.
"""
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPEAT = int(os.environ.get("REPEAT", "5"))
PACKAGES = "linux-image-amd64,linux-headers-amd64,python3-minimal"
LEVELS = {"zstd": 15, "xz": 6, "gzip": 9}
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


def measure(words, cwd):
    """Runs a command; returns wall and CPU seconds."""
    began = time.monotonic()
    child = subprocess.Popen([str(word) for word in words], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{words}: {said.decode()}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime


def median(runs):
    return tuple(statistics.median(run[column] for run in runs) for column in range(2))


class Bench:
    def __init__(self, program, source, work):
        self.program, self.work = pathlib.Path(program).resolve(), work
        self.root = work / "root"
        subprocess.run(["cp", "-a", source, self.root], check=True)
        (work / "boot").mkdir()
        for name in ("vmlinuz", "initrd.img"):
            (work / "boot" / name).write_bytes(b"not looked at here")
        (work / "bench.toml").write_text(SPEC)
        self.files = sorted(path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())

    def build(self, compressor):
        return measure([self.program, "build", "./bench.toml", "--to", "squashfs", "--store", "store", "--set",
                        f"squashfs.compressor={compressor}"], self.work)

    def cold(self, compressor):
        shutil.rmtree(self.work / "store", ignore_errors=True)
        return self.build(compressor)

    def other(self, tool, compressor):
        image = self.work / "image"
        image.unlink(missing_ok=True)
        level = LEVELS[compressor]
        if tool == "mksquashfs":
            words = [tool, "root", "image", "-comp", compressor, "-b", "131072", "-processors", os.cpu_count(), "-noappend",
                     "-quiet", "-no-progress"] + ([] if compressor == "xz" else ["-Xcompression-level", level])
        else:
            words = [tool, "-c", compressor, "-b", "131072", "-j", os.cpu_count(), "-x", "-k", "-q", "-D", "root", "image"]
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


def table(bench):
    size = sum(path.stat().st_size for path in bench.files) / 1e6
    print(f"A root of {len(bench.files)} files, {size:.0f} MB; {os.cpu_count()} cores, {platform.machine()}, Linux "
          f"{platform.release()}; median of {REPEAT}; blocks of 128 KiB; seconds of wall and of CPU time.\n")
    print("| what | stagegraph | mksquashfs | gensquashfs | wall, against the faster | CPU, against the lesser | size, against the smaller |")
    print("|---|---|---|---|---|---|---|")
    full = {}
    for compressor in LEVELS:
        own = median([bench.cold(compressor) for _ in range(REPEAT)])
        own_size = bench.image_size()
        others = {}
        for tool in ("mksquashfs", "gensquashfs"):
            runs = [bench.other(tool, compressor) for _ in range(REPEAT)]
            others[tool] = (median([seconds for seconds, _ in runs]), runs[0][1])
        full[compressor] = others["mksquashfs"][0]
        best = [min(other[0][column] for other in others.values()) for column in range(2)]
        shown = " | ".join(f"{wall:.1f} / {cpu:.1f}" for (wall, cpu), _ in others.values())
        smallest = min(other[1] for other in others.values())
        print(f"| {compressor} {LEVELS[compressor]}, from nothing | {own[0]:.1f} / {own[1]:.1f} | {shown} | {own[0] / best[0]:.2f} | "
              f"{own[1] / best[1]:.2f} | {own_size / smallest:.4f} |", flush=True)
    print("\n| rebuilt after a change | stagegraph | wall, times faster than mksquashfs | CPU, times less |")
    print("|---|---|---|---|")
    for compressor in ("zstd", "xz"):
        bench.cold(compressor)
        for what in ("nothing", "one file", "1 % of the files", "kernel and modules"):
            runs = []
            for number in range(REPEAT):
                bench.edit(what, number)
                runs.append(bench.build(compressor))
            wall, cpu = median(runs)
            times = [full[compressor][0] / wall, full[compressor][1] / cpu]
            print(f"| {compressor}: {what} | {wall:.2f} / {cpu:.2f} | {times[0]:.0f} | {times[1]:.0f} |", flush=True)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        work = pathlib.Path(folder)
        source = sys.argv[2] if len(sys.argv) == 3 else work / "source"
        if len(sys.argv) == 2:
            options = [f"--dpkgopt=path-exclude={path}" for path in
                       ("/usr/share/locale/*", "/usr/share/doc/*", "/lib/modules/*/kernel/drivers/gpu/*",
                        "/lib/modules/*/kernel/drivers/media/*", "/lib/modules/*/kernel/drivers/infiniband/*")]
            subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *options, "bookworm", source],
                           check=True)
        table(Bench(sys.argv[1], source, work))


if __name__ == "__main__":
    main()
