#!/bin/sh
# Says "yes" where the sandbox can run programs of other machines: Linux has registrations of a user namespace's own since 6.7.
set -eu
release=$(uname -r)
major=${release%%.*}
rest=${release#*.}
minor=${rest%%[!0-9]*}
if [ "$major" -gt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -ge 7 ]; }; then
	echo yes
else
	echo "images for other machines than PCs are left out: they need Linux 6.7, and this is $release" >&2
fi
