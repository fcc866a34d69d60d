#!/bin/sh
# run.sh PROGRAM : all benchmarks; what they print goes into benches/RESULTS.md, with the machine and the versions, and is drawn.
#
# As root, on a quiet machine, for about an hour. REPEAT (5) is how often each figure is taken; ROOT, a folder, keeps the root that
# images are made of from one run to the next.
set -eu
program=$1
here=$(dirname "$0")
work=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'rm -rf "$work"' EXIT
root=${ROOT:-$work/root}

first() { "$@" 2>&1 | head -n 1; }
{
	echo '# Results'
	echo
	echo "What \`make bench\` printed. $(sed -n 's/^model name\t*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, \
$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), $(. /etc/os-release && echo "$PRETTY_NAME")."
	echo "$("$program" --version), $(first mksquashfs -version | cut -d' ' -f1-3), $(first gensquashfs --version), \
$(first grub-mkrescue --version), $(xorriso -version 2> /dev/null | sed -n 's/^xorriso version *: *//p' | sed 's/^/xorriso /'), \
ninja $(ninja --version)$(command -v n2 > /dev/null && echo ', n2' || true). What the figures say is in README.md."
	echo
	echo '![what a change costs](rebuild.svg)'
	echo
	echo '![what a node costs](scale.svg)'
} > "$work/RESULTS.md"
for bench in squashfs image; do
	printf '\n## %s.py\n\n' "$bench" >> "$work/RESULTS.md"
	python3 "$here/$bench.py" "$program" "$root" > "$work/$bench"
	cat "$work/$bench" >> "$work/RESULTS.md"
done
printf '\n## graph.py\n\n' >> "$work/RESULTS.md"
python3 "$here/graph.py" "$program" > "$work/graph"
cat "$work/graph" >> "$work/RESULTS.md"
printf '\n## remote.py\n\nUpstreams, over buildbox-casd on loopback.\n\n' >> "$work/RESULTS.md"
WORK=$work/remote python3 "$here/remote.py" "$program" >> "$work/RESULTS.md"
printf '\n## workers.py\n\nA squashfs, packed by this machine and with eight workers that are simulated.\n\n' >> "$work/RESULTS.md"
WORK=$work/workers python3 "$here/workers.py" "$program" "$work/remote/root" >> "$work/RESULTS.md"
printf '\n## serve.py\n\nWhat several clients are given at once, over loopback.\n\n' >> "$work/RESULTS.md"
python3 "$here/serve.py" "$program" >> "$work/RESULTS.md"
cp "$work/RESULTS.md" "$here/RESULTS.md"
python3 "$here/plot.py" "$here"
cat "$here/RESULTS.md"
