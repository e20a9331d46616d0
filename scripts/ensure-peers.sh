#!/bin/sh
# Make what the benchmarks need beside .venv: the extra for pictures, and an environment for each peer in .bench;
# with --extra-only the first alone.
set -eu

cd "$(dirname "$0")/.."
if ! { .venv/bin/python -c 'import matplotlib, psutil, sqlalchemy' && [ -x .venv/bin/py-spy ]; } 2>/dev/null; then
    echo "Installing the extra for benchmarks into .venv"
    .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --no-build-isolation \
        --constraint constraints.txt --editable '.[bench]'
fi
if [ "${1:-}" = --extra-only ]; then
    exit 0
fi
exec .venv/bin/python -m benchmarks.environments
