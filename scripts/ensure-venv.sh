#!/bin/sh
# Make .venv with everything that the demo, the tests and the checks need. Quick when nothing changed.
set -eu

cd "$(dirname "$0")/.."
supported='import sys; sys.exit(sys.version_info < (3, 11))'

find_python() {
    for candidate in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$supported" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python 3.11 or newer found; install one and try again, or name it: make PYTHON=/path/to/python3" >&2
    return 1
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    # Debian ships the part of Python that makes virtual environments as a package of its own.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        scripts/apt-install.sh "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    echo "Creating .venv"
    "$python" -m venv --clear .venv
fi

echo "Installing the packages of constraints.txt into .venv"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
pip() {
    if ! .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --no-compile \
        --constraint constraints.txt "$@" >"$log" 2>&1; then
        cat "$log" >&2
        return 1
    fi
}
# The build tools first and without isolation, so that their versions are pinned as well.
pip hatchling editables
pip --no-build-isolation --editable '.[services,dev]'
