#!/bin/sh
# Install Debian packages: scripts/apt-install.sh PACKAGE…
# Fails with the remedy when this is not root on a machine with apt-get.
set -eu

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Please install with your system's package manager: $*" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Please run as root: apt-get install $*" >&2
    exit 1
fi
echo "Installing with apt-get (once): $*"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# One at a time: set-up runs its steps in parallel, and apt-get does not wait for the lock of its package lists.
exec 9<"$0"
if command -v flock >/dev/null 2>&1; then flock 9; fi
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
    >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "apt-get could not install: $*" >&2
    exit 1
fi
