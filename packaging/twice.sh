#!/bin/sh
# twice.sh PROGRAM SPEC OUT : builds SPEC again with nothing cached, in another folder, at another time, with
# other settings, and compares every published file with those in OUT.
set -eu
program=$1 spec=$2 out=$3
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
list() { (cd "$1" && find . -type f ! -name .stagegraph.json -exec sha256sum {} + | LC_ALL=C sort -k2); }
list "$out/$spec" > "$again/first"
# Packages that are in a store already need not be fetched again; results do need to be made again.
(umask 077 && cd "$again" && TZ=Asia/Tokyo "$program" build "$spec" -j 1 --store "$again/store" --out "$again/out")
list "$again/out/$spec" > "$again/second"
diff "$again/first" "$again/second" || { echo "twice: these files differ" >&2; exit 1; }
echo "twice: $(wc -l < "$again/first") files, every one the same"
