#!/bin/sh
# Turns a fresh Debian root into a live system. $1 is the root; runs outside of it, as root, in the sandbox.
set -eu
root=$1
recipe=/build/in/recipe
in_root() { chroot "$root" "$@"; }
# What the node is said to have failed of.
fail() {
	echo "stagegraph: $1" >&2
	exit 1
}

# Our own files: mode 644 and root's, whatever they are outside.
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/etc/dracut.conf.d/11-ifcfg.conf"
(cd "$recipe/root" && find . -type f) | LC_ALL=C sort | while read -r file; do
	install -D -m 644 "$recipe/root/$file" "$root/$file"
done
find "$root/etc/systemd" "$root/etc/ssh/sshd_config.d" "$root/etc/dracut.conf.d" -type d -exec chmod 755 {} +
ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
chmod 700 "$root/root"

# Root logs in on the consoles without a password; sshd wants one, or a key.
in_root passwd -q -d root
in_root systemctl -q enable systemd-networkd.service systemd-resolved.service ssh.service ssh-hostkeys.service
# What a live system has no use for, as far as it is installed.
for unit in systemd-networkd-wait-online.service rpcbind.service rpcbind.socket smartmontools.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
	mdcheck_start.timer mdcheck_continue.timer mdmonitor-oneshot.timer xfs_scrub_all.timer nfs-client.target \
	nvmf-autoconnect.service nvmefc-boot-connections.service uuidd.socket lvm2-monitor.service; do
	if [ -e "$root/usr/lib/systemd/system/$unit" ] || [ -e "$root/lib/systemd/system/$unit" ]; then
		in_root systemctl -q disable "$unit"
	fi
done
ln -sf /dev/null "$root/etc/systemd/system/dracut-shutdown.service"
in_root systemctl -q set-default multi-user.target

# An initramfs for each kernel.
releases=$(ls "$root/usr/lib/modules" 2> /dev/null || :)
[ -n "$releases" ] || fail "there is no kernel: no package among the node's packages has one"

# Of a module that dracut refuses, it says neither that it comes first nor what it lacks. $1 is what dracut printed.
why_no_initramfs() {
	module=$(sed -n "s/.*depends on module '\([^']*\)', which can't be installed.*/\1/p; \
		s/.*Module '\([^']*\)' cannot be [a-z]*.*/\1/p" "$1" | head -n 1)
	[ -n "$module" ] || fail "dracut could not make the initramfs; the log has its words"
	setup=$(ls "$root"/usr/lib/dracut/modules.d/[0-9][0-9]"$module"/module-setup.sh 2> /dev/null) ||
		fail "this dracut has no module $module; a package that has it is to be among the node's packages"
	lacks=
	for program in $(sed -n 's/.*require_binaries \([a-z0-9 _-]*\).*/\1/p' "$setup"); do
		in_root sh -c 'command -v "$0" > /dev/null' "$program" || lacks="$lacks $program"
	done
	fail "dracut cannot install its module $module${lacks:+, which needs$lacks}; a package that has what it needs is to be among the node's packages"
}
make_initramfs() { # RELEASE
	log=/build/tmp/dracut-$1.log
	{
		in_root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TZ=UTC HOME=/root SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
			dracut --force ${EMULATED:+--no-compress} --tmpdir /tmp "/boot/initrd.img-$1" "$1" 2>&1 || : > "$log.failed"
	} | while IFS= read -r line; do
		echo "$line"
		echo "$line" >> "$log"
	done
	[ ! -e "$log.failed" ] || why_no_initramfs "$log"
	# As dracut.conf says. Emulated, it would take five times as long.
	if [ "$EMULATED" ]; then
		zstd -15 -q -T1 -f -o "$root/boot/initrd.packed" "$root/boot/initrd.img-$1"
		mv "$root/boot/initrd.packed" "$root/boot/initrd.img-$1"
	fi
}

# The sandbox makes no device nodes, and dracut puts none into the initramfs then: they go into an archive (newc) behind its own.
entry() { # NAME MODE INODE MAJOR MINOR
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' "$3" "$2" 0 0 1 "$SOURCE_DATE_EPOCH" 0 0 0 "$4" "$5" \
		$((${#1} + 1)) 0 "$1"
	head -c $(((4 - (111 + ${#1}) % 4) % 4)) /dev/zero
}
add_nodes() { # RELEASE
	{
		cat "$root/boot/initrd.img-$1"
		head -c $(((4 - $(stat -c %s "$root/boot/initrd.img-$1") % 4) % 4)) /dev/zero
		entry dev/console $((020644)) 1 5 1
		entry dev/kmsg $((020644)) 2 1 11
		entry dev/null $((020644)) 3 1 3
		entry dev/random $((020644)) 4 1 8
		entry dev/urandom $((020644)) 5 1 9
		entry 'TRAILER!!!' 0 0 0 0
	} > "$root/boot/initrd.new"
	mv "$root/boot/initrd.new" "$root/boot/initrd.img-$1"
	# vmlinuz, or vmlinux where kernels are ELF files.
	chmod 644 "$root/boot/initrd.img-$1" "$root"/boot/vmlinu[xz]-"$1"
}
for release in $releases; do
	make_initramfs "$release"
	add_nodes "$release"
done
rm -f "$root"/vmlinu[xz] "$root"/vmlinu[xz].old "$root/initrd.img" "$root/initrd.img.old"

# What differs from run to run, or must not be shared by all who boot this.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/nvme/hostid" "$root/etc/nvme/hostnqn" "$root/var/lib/dbus/machine-id" \
	"$root/var/lib/systemd/random-seed" "$root/var/lib/systemd/credential.secret"
: > "$root/etc/machine-id"
if [ -e "$root/etc/mdadm/mdadm.conf" ]; then
	sed -i '/^# This configuration was auto-generated on/d' "$root/etc/mdadm/mdadm.conf"
fi
find "$root/usr" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$root/var/log" -type f -exec rm -f {} +
rm -rf "$root/var/cache/ldconfig" "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root/var/lib/dracut" \
	"$root/etc/passwd-" "$root/etc/group-" "$root/etc/shadow-" "$root/etc/gshadow-" "$root/etc/subuid-" \
	"$root/etc/subgid-" "$root/etc/.pwd.lock" "$root/var/log/journal" "$root"/tmp/* "$root"/var/tmp/* "$root"/run/*

# apt: no list and no archive of this machine; the booted system gets its sources from whoever uses it.
rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt" "$root/etc/apt/apt.conf.d/99mmdebstrap" \
	"$root/etc/apt/sources.list"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
