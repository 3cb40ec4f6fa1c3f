#!/usr/bin/env bash
# Installs bsmamba2 into .venv and separates a song, yours or a free one, with the shipped model.
set -euo pipefail
if [ $# -gt 0 ] && [ ! -e "$1" ]; then
  echo "first_song.sh: there is no song $1" >&2
  exit 2
fi
song=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
python3 -m venv .venv
.venv/bin/pip install --quiet -c constraints.txt ".[cpu]"
mkdir -p stems
song=${song:-$(bash examples/real_song.sh stems)}
.venv/bin/bsmamba2 separate "$song" -o stems --overwrite
