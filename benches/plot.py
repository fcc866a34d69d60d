#!/usr/bin/python3
"""plot.py FOLDER: draws the tables of FOLDER/RESULTS.md: rebuild.svg, what is left to do after a change; scale.svg, what a node costs.

Both have logarithmic axes, because their figures go from milliseconds to minutes.
"""
import math
import pathlib
import sys

INK, PALE, OWN, OTHERS = "#24292f", "#d0d7de", "#54487a", ["#8c959f", "#b08800", "#1a7f37"]
STYLE = f'<style>text {{ font: 13px sans-serif; fill: {INK} }} .title {{ font-size: 16px; font-weight: bold }} .small {{ font-size: 11px }}</style>'


def tables(text):
    """Returns every table as rows of cells, the titles first."""
    found, rows = [], []
    for line in text.splitlines() + [""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            found.append([rows[0]] + rows[2:])
            rows = []
    return found


def table(text, title):
    return next(rows for rows in tables(text) if rows[0][0].startswith(title))


def wall(cell):
    return float(cell.split("/")[0])


def said(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def svg(width, height, title, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    white = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, STYLE, white, f'<text x="20" y="28" class="title">{title}</text>', *parts, "</svg>", ""])


def rebuild(text):
    """Bars: an image from nothing by each tool, and what is left after a change."""
    cold = {row[0].split()[0]: row for row in table(text, "from nothing")[1:] if "128 KiB" in row[0]}
    bars = []
    for compressor in ("zstd", "xz"):
        row = cold[compressor]
        bars.append((f"{compressor}: all of it, mksquashfs", wall(row[2]), OTHERS[0]))
        bars.append((f"{compressor}: all of it, gensquashfs", wall(row[3]), OTHERS[0]))
        bars.append((f"{compressor}: all of it", wall(row[1]), OWN))
        for again in table(text, "rebuilt after a change")[1:]:
            if again[0].startswith(f"{compressor}:"):
                bars.append((again[0], wall(again[1]), OWN))
        bars.append(None)
    left, right, top, step = 240, 720, 62, 24
    low, high = 0.1, max(bar[1] for bar in bars if bar)
    scale = (right - left) / math.log10(high / low)
    parts, at = [], top
    for power in range(-1, math.floor(math.log10(high)) + 1):
        x = left + scale * (power + 1)
        parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top - 8}" y2="{top + step * len(bars) - 30}" stroke="{PALE}"/>')
        parts.append(f'<text x="{x:.0f}" y="{top - 13}" text-anchor="middle" class="small">{said(10 ** power)}</text>')
    for bar in bars:
        if bar:
            name, seconds, colour = bar
            length = max(2, scale * math.log10(max(seconds, low) / low))
            parts.append(f'<text x="{left - 8}" y="{at + 13}" text-anchor="end">{name}</text>')
            parts.append(f'<rect x="{left}" y="{at}" width="{length:.0f}" height="{step - 7}" fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 6:.0f}" y="{at + 13}">{said(seconds)}</text>')
        at += step
    return svg(800, top + step * len(bars), "A squashfs from nothing, and again after a change (seconds, logarithmic)", parts)


def scale(text):
    """Lines: a build with nothing to do, by the number of nodes."""
    rows = table(text, "nodes")
    names = [rows[0][1]] + [name for name in rows[0] if name in ("ninja", "n2")]
    plan = next(found for found in tables(text) if found[0][1] == "plan")
    lines = {name: [(int(row[0]), wall(row[rows[0].index(name)]) / 1000) for row in rows[1:]] for name in names}
    lines["plan"] = [(int(row[0]), wall(row[1]) / 1000) for row in plan[1:]]
    points = [point for line in lines.values() for point in line]
    left, right, top, bottom = 80, 660, 60, 380
    (x0, x1), (y0, y1) = ([f(point[axis] for point in points) for f in (min, max)] for axis in range(2))
    y0, y1 = 10 ** math.floor(math.log10(y0)), 10 ** math.ceil(math.log10(y1))

    def place(nodes, seconds):
        x = left + (right - left) * math.log10(nodes / x0) / math.log10(x1 / x0)
        return x, bottom - (bottom - top) * math.log10(seconds / y0) / math.log10(y1 / y0)
    parts = []
    for power in range(round(math.log10(y0)), round(math.log10(y1)) + 1):
        _, y = place(x0, 10 ** power)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.0f}" y2="{y:.0f}" stroke="{PALE}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end" class="small">{said(10 ** power)}</text>')
    for nodes in sorted({10 ** round(math.log10(nodes)) for nodes, _ in points}):
        x, _ = place(max(nodes, x0), y0)
        parts.append(f'<text x="{x:.0f}" y="{bottom + 20}" text-anchor="middle" class="small">{nodes:,} nodes</text>')
    colours = {names[0]: OWN, "plan": OTHERS[2], "ninja": OTHERS[0], "n2": OTHERS[1]}
    ends = []
    for name, line in lines.items():
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2.5"/>')
        for point in line:
            x, y = place(*point)
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="{colours[name]}"/>')
        ends.append((y, name, line[-1][1]))
    last = -100
    for y, name, seconds in sorted(ends):
        # Names that would lie on each other are moved apart.
        last = max(y + 4, last + 16)
        parts.append(f'<text x="{right + 10}" y="{last:.0f}">{name} {said(seconds)}</text>')
    return svg(800, 420, "A build with nothing to do, by the number of nodes (logarithmic)", parts)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    text = (folder / "RESULTS.md").read_text()
    (folder / "rebuild.svg").write_text(rebuild(text))
    (folder / "scale.svg").write_text(scale(text))


if __name__ == "__main__":
    main()
