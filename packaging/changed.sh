#!/bin/sh
# changed.sh PROGRAM SPEC OUT : changes what this machine has installed (a library of GRUB's, Perl's modules, xorriso, mmdebstrap) in a
# mount namespace, builds SPEC again with the usual store, and fails if any node runs. As root.
set -eu
program=$1 spec=$2 out=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
said=$(unshare -m --propagation private sh -eu -c '
	work=$1
	shift
	for path in /usr/lib/*/libpcre2-8.so.0 /usr/bin/xorriso /usr/bin/mmdebstrap /usr/bin/grub-mkimage /usr/bin/perl; do
		[ -e "$path" ] || continue
		cp "$path" "$work/changed"
		echo changed >> "$work/changed"
		cp "$work/changed" "$work/${path##*/}"
		mount --bind "$work/${path##*/}" "$path"
	done
	for path in /usr/share/perl /usr/lib/grub; do
		[ ! -d "$path" ] || mount -t tmpfs none "$path"
	done
	exec "$@"' _ "$work" "$program" build "$spec" --out "$out")
echo "$said" | grep -E '^[0-9]+ nodes: [0-9]+ cached$' || { echo "changed: nodes ran: $said" >&2; exit 1; }
