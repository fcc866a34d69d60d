#!/bin/sh
# release.sh RELEASE PROGRAM SPEC OUT : builds SPEC in a root of another release of Debian (trixie, say), with nothing installed there
# but what `make image` installs; what is published goes to OUT. As root.
set -eu
release=$1 program=$(readlink -f "$2") spec=$3 out=$4
. packaging/root.sh
root=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'rm -rf --one-file-system "$root"' EXIT
make_root "$release" "$root" "$program"
in_root "$root" "apt-get -qq update && stagegraph build $spec --store /work/store --out /work/out"
mkdir -p "$out"
cp -a "$root/work/out/." "$out"
