#!/bin/sh
# need.sh PACKAGE… : installs the Debian packages that are missing; elsewhere lists them and stops.
set -eu
missing=
for package in "$@"; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
command -v cargo >/dev/null || {
	echo "need: cargo is missing; install the Rust toolchain (rustup, stable)" >&2
	exit 1
}
# apt's lists are needed to find packages, here and in the step that makes a root of them.
have_lists() { find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | grep -q .; }
if ! command -v apt-get >/dev/null; then
	[ -z "$missing" ] && exit 0
	echo "need: there is no apt here. Install what these Debian packages hold:$missing" >&2
	exit 1
fi
[ -z "$missing" ] && have_lists && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "need: as root, run: apt-get update && apt-get install --no-install-recommends$missing" >&2
	exit 1
fi
# Some packages bring servers along, for tests to start: installing them starts none.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' > "$policy"
	chmod 755 "$policy"
fi
apt-get update -qq
[ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
