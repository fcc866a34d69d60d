#!/bin/sh
# Runs a command as somebody who is not root: sh packaging/as-user.sh COMMAND [ARGUMENT...]
# Root becomes user 1000 of a namespace of its own: it still owns its files, and nothing of root's powers is left.
set -eu
if [ "$(id -u)" != 0 ]; then
	exec "$@"
fi
exec unshare --user --map-user=1000 --map-group=1000 -- "$@"
