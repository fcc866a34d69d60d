# root.sh : for the scripts beside it, which include it. Roots of releases of Debian, with nothing in them but what `make image` installs.

# make_root RELEASE FOLDER PROGRAM : makes one; packages come from where this machine's come from.
make_root() {
	packages=$(sed -n 's/^IMAGE_PACKAGES := *//p' Makefile | tr ' ' ',')
	mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort | uniq -c | sort -rn | awk '{ print $2; exit }')
	mmdebstrap --quiet --variant=minbase --include="$packages,ca-certificates" "$1" "$2" "deb $mirror $1 main"
	install "$3" "$2/usr/local/bin/stagegraph"
	mkdir "$2/work" "$2/before"
}

# in_root FOLDER COMMAND : runs a line of shell in one, in its folder /work.
in_root() {
	# No chroot: in one, nobody may make a user namespace.
	unshare -m --propagation private sh -eu -c '
		mount --bind "$1" "$1"
		cd "$1"
		mount --rbind /dev dev
		mount --rbind /sys sys
		mount -t proc proc proc
		cat /etc/resolv.conf > etc/resolv.conf
		pivot_root . before
		cd /work
		umount -l /before
		exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/work LC_ALL=C.UTF-8 sh -euc "$2"' _ "$1" "$2"
}
