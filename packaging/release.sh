#!/bin/sh
# release.sh RELEASE PROGRAM SPEC OUT : builds SPEC in a root of another release of Debian (trixie, say), with nothing installed there
# but what `make image` installs; what is published goes to OUT. As root. Packages come from where this machine's come from.
set -eu
release=$1 program=$(readlink -f "$2") spec=$3 out=$4
image_packages=$(sed -n 's/^IMAGE_PACKAGES := *//p' Makefile | tr ' ' ',')
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort | uniq -c | sort -rn | awk '{ print $2; exit }')
root=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'rm -rf --one-file-system "$root"' EXIT
mmdebstrap --quiet --variant=minbase --include="$image_packages,ca-certificates" "$release" "$root" "deb $mirror $release main"
install "$program" "$root/usr/local/bin/stagegraph"
mkdir "$root/work" "$root/before"
# No chroot: in one, nobody may make a user namespace.
unshare -m --propagation private sh -eu -c '
	root=$1 spec=$2
	mount --bind "$root" "$root"
	cd "$root"
	mount --rbind /dev dev
	mount --rbind /sys sys
	mount -t proc proc proc
	cat /etc/resolv.conf > etc/resolv.conf
	pivot_root . before
	cd /work
	umount -l /before
	exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/work LC_ALL=C.UTF-8 sh -c \
		"apt-get -qq update && stagegraph build $spec --store /work/store --out /work/out"' _ "$root" "$spec"
mkdir -p "$out"
cp -a "$root/work/out/." "$out"
