#!/usr/bin/python3
"""graph.py PROGRAM: what a build with nothing to do costs, by the size of the graph, against ninja (and n2, if on the PATH).

The same layered graph for all: each node takes one to three outputs of the two layers before, and a tree, ten wide, gathers
what nobody took. First the engine alone, with a step that runs no tool (graph/examples/scale.rs, built by cargo); its store is
filled in memory (/dev/shm), where syncing costs nothing, and then copied to the disk. Then the program itself: `plan`, and
builds of `run` nodes, as many as can be filled with sandboxed tools in a while. Last, amd64-minimal, which needs the network
once; STORE and OUT name folders where it was built before. SIZES and RUNS set the sizes.

Every figure is the median of REPEAT runs (5), which take turns; every ratio is of one run of this program.
"""
import json
import math
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPEAT = int(os.environ.get("REPEAT", "5"))
SIZES = [int(size) for size in os.environ.get("SIZES", "1000,10000,100000").split(",")]
RUNS = [int(size) for size in os.environ.get("RUNS", "100,1000").split(",")]
LAYERS, WIDTH = 20, 10
ROOT = pathlib.Path(__file__).resolve().parent.parent
SPEC = """[image]
name = "bench"
title = "Bench"
label = "bench"
volume_id = "BENCH"
timestamp = "20380101T000000Z"
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


def medians(commands, cwd):
    """Runs commands in turns; returns the medians of wall and CPU seconds of each."""
    for words in commands.values():
        measure(words, cwd)
    runs = {name: [] for name in commands}
    for _ in range(REPEAT):
        for name, words in commands.items():
            runs[name].append(measure(words, cwd))
    return {name: tuple(statistics.median(run[column] for run in own) for column in range(2)) for name, own in runs.items()}


def layered(body):
    """Returns the nodes of a graph and what each takes."""
    rng, width, nodes, untaken = random.Random(42), max(1, body // LAYERS), {}, {}
    for number in range(body):
        before = number // width * width
        takes = {rng.randrange(max(0, before - 2 * width), before) for _ in range(rng.randint(1, 3))} if before else ()
        name = f"n{number:06}"
        nodes[name] = [f"n{taken:06}" for taken in sorted(takes)]
        for taken in nodes[name]:
            untaken.pop(taken, None)
        untaken[name] = None
    row, level = list(untaken), 0
    while len(row) > 1:
        gathered = [row[at:at + WIDTH] for at in range(0, len(row), WIDTH)]
        row = [f"t{level}-{number:06}" for number in range(len(gathered))]
        nodes.update(zip(row, gathered))
        level += 1
    return nodes


def graph(size):
    """Returns a graph of as many nodes, or one more or less where none comes out even."""
    body = size
    for _ in range(20):
        nodes = layered(body)
        if len(nodes) == size:
            break
        body -= len(nodes) - size
    return nodes


def others(nodes, folder):
    """Has ninja and n2 make every node, each in a folder of its own; returns what builds nothing from then on."""
    edges = "".join(f"build {name}: touch {' '.join(takes)}\n" for name, takes in nodes.items())
    commands = {}
    for tool in filter(shutil.which, ("ninja", "n2")):
        own = folder.with_name(f"{folder.name}-{tool}")
        own.mkdir()
        (own / "build.ninja").write_text("rule touch\n  command = touch $out\n" + edges)
        commands[tool] = [tool, "-C", own]
        subprocess.run(commands[tool], check=True, stdout=subprocess.DEVNULL)
    return commands


def write_spec(nodes, path):
    def node(name, takes):
        inputs = "".join(f'input.{taken} = "{taken}.file"\n' for taken in takes)
        return f'[node.{name}]\nstep = "run"\nargv = ["touch", "out/file"]\noutputs.file = "file"\n{inputs}'
    path.write_text(SPEC + "".join(node(name, takes) for name, takes in nodes.items()))


def exponents(sizes, walls):
    """Returns how cost grows from each size to the next: 1 is in proportion."""
    grows = [math.log(walls[at + 1] / walls[at]) / math.log(sizes[at + 1] / sizes[at]) for at in range(len(sizes) - 1)]
    return ["–"] + [f"{exponent:.2f}" for exponent in grows]


def shown(seconds):
    wall, cpu = seconds
    return f"{wall * 1000:.1f} / {cpu * 1000:.1f}"


def table(title, own, rows):
    """Prints rows of (nodes, medians): `own` against ninja and, where it is there, n2."""
    others = [name for name in rows[0][1] if name != own]
    columns = [title, own, "exponent", "of CPU"] + others + [f"against {name}" for name in others]
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    sizes = [nodes for nodes, _ in rows]
    growths = [exponents(sizes, [seconds[own][column] for _, seconds in rows]) for column in range(2)]
    for (nodes, seconds), wall, cpu in zip(rows, *growths):
        ratios = [f"{seconds[own][0] / seconds[name][0]:.2f}" for name in others]
        cells = [str(nodes), shown(seconds[own]), wall, cpu] + [shown(seconds[name]) for name in others] + ratios
        print("| " + " | ".join(cells) + " |", flush=True)


def engine(work):
    told = subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "stagegraph-graph", "--example", "scale",
                           "--message-format", "json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in told.splitlines()]
    scale = next(line["executable"] for line in built if line.get("executable"))
    rows = []
    for size in SIZES:
        nodes = graph(size)
        file, store = work / f"{size}.graph", work / f"engine-{size}"
        file.write_text("".join(" ".join([name, *takes]) + "\n" for name, takes in sorted(nodes.items())))
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as memory:
            measure([scale, pathlib.Path(memory) / "store", file], work)
            shutil.copytree(pathlib.Path(memory) / "store", store, ignore=shutil.ignore_patterns("locks", "scratch"))
        rows.append((len(nodes), medians({"engine": [scale, store, file], **others(nodes, work / f"graph-{size}")}, work)))
    table("nodes", "engine", rows)


def program(stagegraph, work):
    rows = []
    for size in SIZES:
        write_spec(graph(size), work / f"plan{size}.toml")
        rows.append((size, medians({"plan": [stagegraph, "plan", f"./plan{size}.toml"]}, work)))
    table("nodes", "plan", rows)
    rows = []
    for size in RUNS:
        nodes = graph(size)
        write_spec(nodes, work / f"run{size}.toml")
        words = [stagegraph, "build", f"./run{size}.toml", "--store", "store", "--to", next(reversed(nodes))]
        rows.append((len(nodes), medians({"build": words, **others(nodes, work / f"run-{size}")}, work)))
    table("`run` nodes", "build", rows)


def image(stagegraph, work):
    store, out = os.environ.get("STORE", work / "image-store"), os.environ.get("OUT", work / "image-out")
    words = [stagegraph, "build", "amd64-minimal", "--store", store, "--out", out]
    first = subprocess.run([*words, "--json"], stdout=subprocess.PIPE, text=True)
    if first.returncode:
        print("\namd64-minimal could not be built here; its row is left out.")
        return
    events = [json.loads(line) for line in first.stdout.splitlines()]
    count = next(event["nodes"] for event in events if event["event"] == "planned")
    names = [f"n{number}" for number in range(count)]
    chain = {name: names[at - 1:at] if at else [] for at, name in enumerate(names)}
    table("amd64-minimal, nodes", "build", [(count, medians({"build": words, **others(chain, work / "image")}, work))])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    stagegraph = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        print(f"Nothing to do: milliseconds of wall and of CPU time, median of {REPEAT}; {os.cpu_count()} cores, "
              f"{platform.machine()}, Linux {platform.release()}.")
        engine(pathlib.Path(folder))
        program(stagegraph, pathlib.Path(folder))
        image(stagegraph, pathlib.Path(folder))


if __name__ == "__main__":
    main()
