#!/bin/sh
# lock.sh PROGRAM SPEC RELEASE… : builds SPEC with one lock, made on this machine, in a root of each release of Debian, and compares every
# key and every published file. Then the last root builds with the store of the first: nothing is left to do. As root.
#
# A root's own apt has other packages than the lock: those come from the archives of this machine.
set -eu
program=$(readlink -f "$1") spec=$2
shift 2
. packaging/root.sh
work=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'rm -rf --one-file-system "$work"' EXIT
"$program" lock "$spec" --store "$work/store" --lock "$work/lock"
mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u | sed 's/^/--mirror /' | tr '\n' ' ')
list() { (cd "$1/work/out/$spec" && find . -type f ! -name .stagegraph.json -exec sha256sum {} + | LC_ALL=C sort -k2); }
keys() { grep -h '"action"' "$1"/work/out/"$spec"/*.manifest.json; }
first=
for release in "$@"; do
	root=$work/$release
	make_root "$release" "$root" "$program"
	cp "$work/lock" "$root/work/lock"
	in_root "$root" "stagegraph build $spec --locked --lock lock $mirrors --store store --out out"
	list "$root" > "$work/$release.list"
	keys "$root" > "$work/$release.keys"
	first=${first:-$release}
	diff "$work/$first.keys" "$work/$release.keys" || { echo "lock: $first and $release have other keys" >&2; exit 1; }
	diff "$work/$first.list" "$work/$release.list" || { echo "lock: $first and $release have other files" >&2; exit 1; }
done
rm -rf "$root/work/store" "$root/work/out"
cp -a "$work/$first/work/store" "$root/work/store"
said=$(in_root "$root" "stagegraph build $spec --locked --lock lock --offline --store store --out out")
echo "$said" | grep -E '^[0-9]+ nodes: [0-9]+ cached$' || { echo "lock: with the store of $first, $release built something: $said" >&2; exit 1; }
echo "lock: $(wc -l < "$work/$first.list") files and $(wc -l < "$work/$first.keys") keys, the same in $*"
