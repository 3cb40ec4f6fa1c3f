#!/usr/bin/env bash
# Trains in legs (sessions) on a GPU machine that has torch but no network access.
#
#   leg.sh pack SET MEGABYTES LEG PACK      here: packs data and wheels
#   leg.sh run PACK RUN OUT [OPTIONS]       there: starts or resumes RUN, writes OUT/run.tar.* in
#                                           parts of 15 MB; OPTIONS are those of bsmamba2 train and
#                                           must be the same for each leg
#   leg.sh join OUT RUN                     here: unpacks OUT into RUN
#
# To resume, copy RUN to the GPU machine too; it may contain the packed run.tar.* files. Each LEG
# number draws other excerpts of the data.
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
    python3 -m bsmamba2_training train "$pack" -o "$run" "$@"
    mkdir -p "$out"
    local packed
    packed=$(mktemp -d)
    python3 -m bsmamba2_training.packing state "$run" "$packed/state.pt"
    cp "$run/plan.json" "$run/curve.csv" "$run/model.safetensors" "$packed"
    tar c -C "$packed" . | split -b 15000000 - "$out/run.tar."
    cp "$run/curve.png" "$out"
    ls -l "$out"
}

"$@"
