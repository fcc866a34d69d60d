#!/usr/bin/python3
"""workers.py PROGRAM ROOT: what workers save: a squashfs of ROOT, packed by this machine alone and with eight workers.

Eight machines are not here, so workers are simulated: a real server (buildbox-casd) hands shards to eight workers, each of which
sleeps for as long as a core worked on that shard before, and then gives what it gave. Their times are CPU seconds, taken when
buildbox-run did the same shards with nothing else to do. Server, workers' scripts and the program share this machine's cores, and
blobs go over loopback; what a network takes is not in it. Medians of REPEAT (3); WORK keeps what was recorded; COMPRESSORS names them.
"""
import os
import pathlib
import shutil
import statistics
import sys

from remote import SERVERS, Casd, remote, run
import remote as common

REPEAT = int(os.environ.get("REPEAT", "3"))
WORK = pathlib.Path(os.environ.get("WORK", "/var/tmp/stagegraph-bench-workers"))
COMPRESSORS = os.environ.get("COMPRESSORS", "zstd-15 xz-6 gzip-9").split()
WORKERS = 8
# What a shard that goes to a worker begins with; what comes back has no head.
SHARD = b"stagegraph shard 1\n{"

RECORD = r"""#!/bin/bash
for word; do case $word in --action=*) action=${word#*=};; --action-result=*) result=${word#*=};; esac; done
name=$(sha256sum < "$action" | cut -c1-64)
TIMEFORMAT='%U %S'
{ time RUN "$@" 2>&3; } 3>&2 2> "RECORDS/$name.time" || exit
cp "$result" "RECORDS/$name.result"
"""
REPLAY = r"""#!/bin/sh
for word; do case $word in --action=*) action=${word#*=};; --action-result=*) result=${word#*=};; esac; done
name=$(sha256sum < "$action" | cut -c1-64)
read -r seconds < "RECORDS/$name.sum" 2> /dev/null || { echo "$name" >> RECORDS/unknown; exec RUN "$@"; }
sleep "$seconds"
exec cp "RECORDS/$name.result" "$result"
"""


def script(name, text, records):
    path = WORK / name
    path.write_text(text.replace("RUN", str(SERVERS / "buildbox-run")).replace("RECORDS", str(records)))
    path.chmod(0o755)
    return path


def pack(program, name, more):
    """Packs the root with an empty store; returns seconds of wall time and of CPU, those of the node, and what was said of workers."""
    shutil.rmtree(WORK / "store", ignore_errors=True)
    wall, cpu, events, _ = run([program, "build", f"./{name}.toml", "--to", "squashfs", "--json", "--store", "store", *more])
    node = next(event for event in events if event["event"] == "finished" and event["node"] == "squashfs")
    return wall, cpu, node["milliseconds"] / 1000, remote(events).get("shards", 0)


def measure(program, name):
    records = WORK / name
    records.mkdir(exist_ok=True)
    to = lambda casd: ["--remote", casd.address, "--remote-trust", "all", "--remote-upload=no", "--remote-execute", "--remote-jobs"]
    if not any(records.glob("*.sum")):
        # What this machine does itself is not recorded, so again, until little is left to it.
        for _ in range(4):
            with Casd(WORK / "record", script("record.sh", RECORD, records), 1) as casd:
                pack(program, name, [*to(casd), "16", "-j", "1"])
        for path in records.glob("*.time"):
            path.with_suffix(".sum").write_text(f"{sum(map(float, path.read_text().split()[-2:])):.3f}\n")
    alone = [pack(program, name, []) for _ in range(REPEAT)]
    with_workers = []
    for _ in range(REPEAT):
        # The server has what workers gave, and nothing that they were given.
        shutil.rmtree(WORK / "replay", ignore_errors=True)
        shutil.copytree(WORK / "record/cas", WORK / "replay/cas")
        for path in (WORK / "replay/cas").rglob("*"):
            if path.is_file() and path.open("rb").read(len(SHARD)) == SHARD:
                path.unlink()
        with Casd(WORK / "replay", script("replay.sh", REPLAY, records), WORKERS) as casd:
            with_workers.append(pack(program, name, [*to(casd), str(2 * WORKERS)]))
    one, eight = (statistics.median(row[2] for row in rows) for rows in (alone, with_workers))
    unknown = records / "unknown"
    missed = len(unknown.read_text().splitlines()) if unknown.exists() else 0
    unknown.unlink(missing_ok=True)
    print(f"| {name} | {one:.1f} s | {eight:.1f} s | {one / eight:.2f} | {statistics.median(row[1] for row in with_workers):.1f} s "
          f"| {with_workers[-1][3]} | {missed / REPEAT:.0f} |")


def main():
    program, root = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    WORK.mkdir(parents=True, exist_ok=True)
    common.WORK = WORK
    print("| compressor | alone | with 8 workers | times faster | CPU of the program | shards at workers | not simulated |\n|---|---|---|---|---|---|---|")
    for name in COMPRESSORS:
        compressor, level = name.split("-")
        (WORK / f"{name}.toml").write_text(
            '[image]\nname = "x"\ntitle = "x"\nlabel = "x"\nvolume_id = "x"\ntimestamp = "20380101T000000Z"\n'
            f'[node.stage2]\nstep = "import"\npath = "{root}"\n[node.squashfs]\nstep = "squashfs"\ncompressor = "{compressor}"\n'
            f'level = {level}\ninput = {{ root = "stage2.root" }}\n')
        measure(program, name)


if __name__ == "__main__":
    main()
