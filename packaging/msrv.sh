#!/bin/sh
# Checks that the oldest Rust that Cargo.toml promises compiles everything: sh packaging/msrv.sh
set -eu
promised=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
case $(rustc --version) in
"rustc $promised."*)
	echo "rust-version $promised: it is the compiler that is in use"
	;;
*)
	exec cargo "+$promised" check --locked --workspace --all-targets
	;;
esac
