#!/usr/bin/env bash
# Installs bsmamba2 into .venv, and separates a song: the one you name, or a free one.
# No trained weights are shipped yet. This makes random ones from a seed, in the size `tiny`, so
# everything runs as it will, and the stems sum to the song, but they are not yet vocals.
set -euo pipefail
song=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
python3 -m venv .venv
.venv/bin/pip install --quiet -c constraints.txt ".[cpu,network]"
mkdir -p stems
.venv/bin/python -c 'from bsmamba2_network import BSMamba2; BSMamba2.untrained("tiny", seed=0).save("stems/tiny.safetensors")'
song=${song:-$(bash examples/real_song.sh stems)}
.venv/bin/bsmamba2 separate "$song" -m stems/tiny.safetensors -o stems --overwrite
