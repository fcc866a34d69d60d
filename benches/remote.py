#!/usr/bin/python3
"""remote.py PROGRAM: what upstreams save and cost: a second builder, a family of specs, and what a dead server costs.

Over buildbox-casd on loopback (SERVERS names its folder; `make packages-test` fetches it). amd64-minimal is built once from
nothing, with a lock, and offered; WORK keeps what is made, and what is there already is not made again. FAMILY=no leaves out the
twenty variants. Every figure is the median of REPEAT runs (5); ratios are of one run of this program.
"""
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPEAT = int(os.environ.get("REPEAT", "5"))
WORK = pathlib.Path(os.environ.get("WORK", "/var/tmp/stagegraph-bench-remote"))
SERVERS = pathlib.Path(os.environ.get("SERVERS", ROOT / "target/servers"))


def free_port():
    """Returns a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Casd:
    """A server, while the block lasts."""

    def __init__(self, folder, runner=SERVERS / "buildbox-run", jobs=2):
        self.folder, self.runner, self.jobs, self.port = folder, runner, jobs, free_port()
        self.address = f"grpc://127.0.0.1:{self.port}"

    def __enter__(self):
        self.process = subprocess.Popen(
            [SERVERS / "buildbox-casd", f"--bind=127.0.0.1:{self.port}", f"--buildbox-run={self.runner}", f"--jobs={self.jobs}",
             "--cache-failures=false", "--quota-high=20G", self.folder],
            env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def run(words, code=0):
    """Runs a command; returns wall and CPU seconds, and its events."""
    began = time.monotonic()
    child = subprocess.Popen([str(word) for word in words], cwd=WORK, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != code:
        sys.exit(f"{words}: {err.decode()}{out.decode()[-2000:]}")
    lines = out.decode().splitlines()
    return time.monotonic() - began, used.ru_utime + used.ru_stime, [json.loads(line) for line in lines if line.startswith("{")], lines


def median(runs):
    return statistics.median(runs)


def clear(*names):
    for name in names:
        shutil.rmtree(WORK / name, ignore_errors=True)


def ran(events):
    return sum(event["event"] == "finished" and event["milliseconds"] is not None for event in events)


def remote(events):
    return next((event for event in events if event["event"] == "remote"), {})


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    WORK.mkdir(parents=True, exist_ok=True)
    trust, key = WORK / "trust", WORK / "key"
    if not key.exists():
        trust.write_text(subprocess.run([program, "remote", "keygen", "bench", "--out", key], check=True, capture_output=True, text=True).stdout)
    if not (WORK / "amd64-minimal.lock").exists():
        run([program, "lock", "amd64-minimal", "--store", "first"])
    build = [program, "build", "amd64-minimal", "--json"]
    with Casd(WORK / "cas") as casd:
        to = ["--remote", casd.address, "--remote-trust", trust]
        sign = [*to, "--remote-key", key]
        print("| what | figure |\n|---|---|")
        if not (WORK / "out-first").exists():
            wall, cpu, events, _ = run([*build, "--store", "first", "--out", "out-first"])
            print(f"| from nothing | {wall:.1f} s, CPU {cpu:.1f} s, {ran(events)} nodes |")
        push = [program, "store", "push", "amd64-minimal", "--store", "first", "--to", casd.address, "--remote-trust", trust, "--remote-key", key]
        wall, cpu, _, lines = run(push)
        print(f"| cold offer | {wall:.2f} s: {lines[-1]} |")
        print(f"| warm offer | {1000 * median([run(push)[0] for _ in range(REPEAT)]):.0f} ms |")
        second = []
        for _ in range(REPEAT):
            clear("second", "out-second")
            wall, cpu, events, _ = run([*build, "--store", "second", "--out", "out-second", *to])
            second.append((wall, cpu, ran(events), remote(events)["fetched_bytes"]))
        print(f"| second builder | {median([row[0] for row in second]):.2f} s, CPU {median([row[1] for row in second]):.2f} s, "
              f"{second[0][2]} nodes, {second[0][3] / 1e6:.0f} MB |")
        same = subprocess.run(["diff", "-rq", "-x", ".stagegraph.json", WORK / "out-first", WORK / "out-second"], check=False)
        print(f"| its files | {'the same' if same.returncode == 0 else 'others'} |")
        nothing = {"without": [], "with": []}
        for _ in range(REPEAT * 8):
            for name, more in (("without", []), ("with", to)):
                nothing[name].append(run([*build, "--store", "second", "--out", "out-second", *more])[0])
        less, more = median(nothing["without"]), median(nothing["with"])
        print(f"| nothing to do | {1000 * less:.1f} ms; with an upstream set {1000 * more:.1f} ms |")
        variant = ["--set", "image.title=Variant"]
        figures = {}
        for name, args in (("alone", []), ("refused", ["--remote", f"grpc://127.0.0.1:{free_port()}", "--remote-trust", trust])):
            figures[name] = []
            for _ in range(REPEAT):
                clear("variant", "out-variant")
                shutil.copytree(WORK / "first", WORK / "variant", symlinks=True)
                figures[name].append(run([*build, "--store", "variant", "--out", "out-variant", *variant, *args])[0])
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(16)
            clear("variant", "out-variant")
            shutil.copytree(WORK / "first", WORK / "variant", symlinks=True)
            address = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
            frozen = run([*build, "--store", "variant", "--out", "out-variant", *variant, "--remote", address, "--remote-trust", trust])[0]
        alone, refused = median(figures["alone"]), median(figures["refused"])
        print(f"| a variant | {alone:.2f} s; server refuses {refused:.2f} s; server is silent {frozen:.2f} s |")
        changed(program, to, sign)
        if os.environ.get("FAMILY") != "no":
            family(program, to, sign)


def changed(program, to, sign):
    """One file of the root is changed: what has to be sent, and what a builder with an empty store saves by an upstream."""
    root = WORK / "root"
    if not root.exists():
        tar = subprocess.run(["unsquashfs", "-q", "-n", "-d", root, WORK / "out-first/amd64-minimal/netboot/image.squashfs"],
                             stdout=subprocess.DEVNULL, check=False)
        if tar.returncode:
            sys.exit("unsquashfs failed")
    (WORK / "changed.toml").write_text(
        '[image]\nname = "x"\ntitle = "x"\nlabel = "x"\nvolume_id = "x"\ntimestamp = "20380101T000000Z"\n'
        '[node.stage2]\nstep = "import"\npath = "root"\n[node.squashfs]\nstep = "squashfs"\ninput = { root = "stage2.root" }\n')
    build = [program, "build", "./changed.toml", "--json", "--to", "squashfs", "--store"]
    file = root / "usr/bin/rsync"
    before = file.read_bytes()
    half = len(before) // 2

    def change(word):
        file.write_bytes(before[:half] + word + before[half:])

    run([*build, "first", *sign])
    change(b"nine more")
    wall, _, events, _ = run([*build, "first", *sign])
    print(f"| one file of the root changed | {remote(events)['sent_bytes'] / 1e6:.2f} MB sent, the build {wall:.2f} s |")
    # Another change: nobody has that image, and the store is empty.
    change(b"ten more")
    figures = {}
    for name, more in (("without", []), ("with", to)):
        clear("fresh")
        wall, cpu, events, _ = run([*build, "fresh", *more])
        figures[name] = (wall, cpu, remote(events))
    file.write_bytes(before)
    (wall, cpu, _), (with_wall, with_cpu, said) = figures["without"], figures["with"]
    print(f"| one file changed, an empty store | {wall:.1f} s, CPU {cpu:.1f} s; with an upstream {with_wall:.1f} s, CPU {with_cpu:.1f} s: "
          f"{said['slices']} slices, {said['fetched_bytes'] / 1e6:.0f} MB |")


def family(program, to, sign):
    """Builds all variants at once: from what amd64-minimal left, from nothing, and on a second builder."""
    specs = sorted((ROOT / "specs/family").glob("*.toml"))
    for spec in specs:
        shutil.copy(spec, WORK)
    shutil.copy(ROOT / "specs/amd64-minimal.toml", WORK)
    names = [f"./{spec.name}" for spec in specs]
    for name in names:
        shutil.copy(WORK / "amd64-minimal.lock", WORK / name.replace(".toml", ".lock"))
    clear("one", "out-one", "all", "out-all", "other", "out-other")
    wall, cpu, events, _ = run([program, "build", "amd64-minimal", "--json", "--store", "one", "--out", "out-one"])
    print(f"| one, from nothing | {wall:.1f} s, CPU {cpu:.1f} s, {ran(events)} nodes |")
    some = [name for name in names if not re.search("xz|gzip|lz4|two-kernels", name)] if os.environ.get("FAMILY") == "shared" else names
    all_wall, cpu, events, _ = run([program, "build", *some, "--json", "--store", "all", "--out", "out-all"])
    print(f"| {len(some)} variants, from nothing | {all_wall:.1f} s, CPU {cpu:.1f} s, {ran(events)} nodes: {all_wall / wall:.2f} x one |")
    run([program, "store", "push", *some, "--store", "all", "--to", *sign[1:]])
    wall, cpu, events, _ = run([program, "build", *some, "--json", "--store", "other", "--out", "out-other", *to])
    print(f"| {len(some)} variants, second builder | {wall:.1f} s, CPU {cpu:.1f} s, {ran(events)} nodes |")


if __name__ == "__main__":
    main()
