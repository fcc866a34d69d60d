"""measure.py: what the benchmarks share: running commands, medians, the root they work on."""
import os
import pathlib
import statistics
import subprocess
import sys
import time

REPEAT = int(os.environ.get("REPEAT", "5"))

# A system with a compiler, Python and git: about 27,000 files and 600 MB, a quarter of it the kernel and its modules.
PACKAGES = "linux-image-amd64,linux-headers-amd64,gcc,python3,git"
LEFT_OUT = ["/usr/share/locale/*", "/usr/share/doc/*"] + [
    f"/lib/modules/*/kernel/{folder}/*" for folder in
    ("drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/net", "drivers/scsi", "drivers/staging", "sound", "fs")]


def make_root(folder):
    """Makes the root, as root; where the folder is, it is taken as it is."""
    if not folder.exists():
        options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *options, "bookworm", folder],
                       check=True)
    return folder


def measure(words, cwd):
    """Runs a command; returns wall and CPU seconds."""
    began = time.monotonic()
    child = subprocess.Popen([str(word) for word in words], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{words}: {said.decode()}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime


def shell(script, cwd):
    """Runs a script that ends at its first error; returns wall and CPU seconds."""
    return measure(["bash", "-euo", "pipefail", "-c", script], cwd)


def median(runs):
    """Returns the medians of wall and of CPU seconds."""
    return tuple(statistics.median(run[column] for run in runs) for column in range(2))


def files_of(root):
    return sorted(path for path in pathlib.Path(root).rglob("*") if path.is_file() and not path.is_symlink())


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*titles):
    print()
    row(*titles)
    row(*["---"] * len(titles))
