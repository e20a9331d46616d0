#!/bin/sh
# Make sure that the tests of the example services find a PostgreSQL: installed, or named by MESSAGING_TEST_POSTGRES.
set -eu

cd "$(dirname "$0")/.."
if [ -n "${MESSAGING_TEST_POSTGRES:-}" ] || command -v initdb >/dev/null 2>&1; then
    exit 0
fi
for program in /usr/lib/postgresql/*/bin/initdb; do
    if [ -x "$program" ]; then
        exit 0
    fi
done
if ! scripts/apt-install.sh postgresql; then
    echo "The tests of the example services need a real PostgreSQL, which they start and stop themselves:" >&2
    echo "install it, or set MESSAGING_TEST_POSTGRES to postgresql://user:password@host/name." >&2
    exit 1
fi
