#!/bin/sh
# run.sh SECONDS [TARGET…] : fuzzes each target that long; needs a nightly compiler, cargo-fuzz, and seeds (seeds.sh).
set -eu
cd "$(dirname "$0")"
seconds=$1
shift
export STAGEGRAPH_FUZZ_ISO="$PWD/seed.iso" STAGEGRAPH_FUZZ_KEYRING="$PWD/seed.gpg"
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
for target; do
	echo "== $target"
	# One allocation of 300 MiB and ten seconds are beyond anything an input of a megabyte may take.
	cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 -malloc_limit_mb=300 -timeout=10 -max_len=1048576 -print_final_stats=1
done
