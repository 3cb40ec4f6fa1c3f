#!/usr/bin/env bash
# Training in legs, on a machine with a GPU that has torch and no network.
#
#   leg.sh pack SET MEGABYTES LEG PACK      here: data and wheels to take along
#   leg.sh run PACK RUN OUT [OPTIONS]       there: goes on with RUN, leaves OUT/run.tar.* of 15 MB;
#                                           options are those of bsmamba2 train, the same every time
#   leg.sh join OUT RUN                     here: makes RUN of what came back
#
# RUN travels too, if there is one; it may hold run.tar.* as they came back. Another LEG is another
# draw of the data.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root/runtime:$root/network:$root/training${PYTHONPATH:+:$PYTHONPATH}"

pack() {
    local set=$1 megabytes=$2 leg=$3 pack=$4
    rm -rf "$pack/train" "$pack/valid"
    python3 -m bsmamba2_training.packing data "$set" "$pack" --megabytes "$megabytes" --leg "$leg"
    [ -d "$pack/wheels" ] || python3 -m pip download -q --no-deps --only-binary=:all: \
        --python-version "${WHEELS_FOR:-3.12}" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --platform manylinux1_x86_64 -d "$pack/wheels" soundfile cffi pycparser soxr pedalboard mutagen platformdirs
    du -sh "$pack"
}

join() {
    mkdir -p "$2"
    cat "$1"/run.tar.* | tar x -C "$2"
}

run() {
    local pack=$1 run=$2 out=$3
    shift 3
    local site
    site=$(mktemp -d)
    python3 -m pip install -q --no-index --no-deps --target "$site" "$pack"/wheels/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
    if compgen -G "$run/run.tar.*" > /dev/null; then
        join "$run" "$run"
        rm "$run"/run.tar.*
    fi
    # Options belong to a new run; --minutes and the like to every leg.
    python3 -m bsmamba2_training train "$pack" -o "$run" "$@"
    mkdir -p "$out"
    local small
    small=$(mktemp -d)
    python3 -m bsmamba2_training.packing state "$run" "$small/state.pt"
    cp "$run/plan.json" "$run/curve.csv" "$run/model.safetensors" "$small"
    tar c -C "$small" . | split -b 15000000 - "$out/run.tar."
    cp "$run/curve.png" "$out"
    ls -l "$out"
}

"$@"
