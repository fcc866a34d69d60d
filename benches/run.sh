#!/bin/sh
# run.sh PROGRAM : compares stagegraph with the tools one would otherwise run, on the image amd64-minimal, in one run.
#
# Every figure is the median of REPEAT runs (5), wall seconds; every row is a ratio within this run. Run it on a quiet
# machine. What images of a root cost, from nothing and again, is in rebuild.py.
set -eu
program=$1
repeat=${REPEAT:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cores=$(nproc)

"$program" build amd64-minimal --out "$work/out" > /dev/null

# median COMMAND : runs it REPEAT times, prints the median of the wall seconds.
median() {
	for run in $(seq "$repeat"); do
		rm -rf "$work/store"
		start=$(date +%s.%N)
		sh -c "$1" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
		end=$(date +%s.%N)
		echo "$end $start" | awk '{ printf "%.3f\n", $1 - $2 }'
	done | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'
}
row() { printf '| %s | %s | %s | %.2f |\n' "$1" "$2" "$3" "$(echo "$2 $3" | awk '{ print $1 / $2 }')"; }

echo "Wall seconds on $cores cores, median of $repeat."
echo
echo '| what | stagegraph | the other | ratio |'
echo '|---|---|---|---|'

# A second build of everything, against ninja on a graph of as many nodes with nothing to do.
mkdir "$work/ninja"
{
	printf 'rule touch\n  command = touch $out\n'
	for node in 2 3 4 5 6 7 8 9 10 11 12; do printf 'build n%s: touch n%s\n' "$node" "$((node - 1))"; done
} > "$work/ninja/build.ninja"
touch "$work/ninja/n1"
ninja -C "$work/ninja" > /dev/null
row 'nothing to do, 12 nodes, against ninja' \
	"$(median "$program build amd64-minimal --out $work/out")" "$(median "ninja -C $work/ninja")"

# The audit, with the files in memory. Published files are links; copies make every name a file of its own.
out=$work/copies
cp -r "$work/out/amd64-minimal" "$out"
iso=$(ls "$out"/*.iso)
mkdir "$work/parts"
cp "$out"/netboot/debian.* "$out"/netboot/image.squashfs "$out"/netboot/*.ipxe "$work/parts/"
cp "$iso" "$work/alone.iso"
cat "$work"/parts/* "$work/alone.iso" "$out"/* "$out"/netboot/* > /dev/null 2>&1 || true
row 'audit without lists, against sha256sum of the same files' \
	"$(median "$program audit $work/alone.iso $work/parts")" \
	"$(median "sha256sum $work/alone.iso $work/parts/debian.* $work/parts/image.squashfs")"
named=$(cd "$out" && { sed -n 's/^[0-9a-f]\{128\}  //p' ./*.iso.DIGESTS; sed -n 's|^[0-9a-f]\{128\}  |netboot/|p' netboot/DIGESTS; } | sort -u | tr '\n' ' ')
row 'audit with lists, against b2sum, sha512sum and sha256sum of all they name' \
	"$(median "$program audit $out")" \
	"$(median "cd $out && b2sum $named && sha512sum $named && sha256sum $named")"
row 'extract, against xorriso, cat and cpio by hand' \
	"$(median "$program extract $iso $work/store/set")" \
	"$(median "mkdir $work/store && cd $work/store && xorriso -osirrox on -indev $iso -extract /boot boot -extract /image.squashfs image.squashfs &&
		cp boot/debian.igz combined && truncate -s %4 combined && ln image.squashfs image.squashfs.img &&
		echo image.squashfs.img | cpio -o -H newc --quiet >> combined && b2sum boot/debian* combined image.squashfs && sha512sum boot/debian* combined image.squashfs")"
