#!/usr/bin/env bash
# Builds the site into site/; any warning is an error. It needs the extras whose commands the pages show:
# PYTHON names the interpreter: pip install ".[cpu,docs,export,pedalboard,training]"
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
PYTHONPATH=docs "${PYTHON:-python3}" -m zensical build --clean --strict 2>&1 | tee "$log"
# Zensical's --strict does not cover what Griffe finds in docstrings.
if grep '^griffe:' "$log" >/dev/null; then
    echo "docs/build.sh: Griffe warned, see above" >&2
    exit 1
fi
