#!/usr/bin/env bash
# Builds Triton's ONNX Runtime backend for CPUs, for tests/campaigns/triton_server.py:
#   tests/campaigns/triton_backend.sh SOURCES HEADERS LIBRARY OUT
# SOURCES: a folder with checkouts of triton-inference-server's core, common, backend and
#   onnxruntime_backend, all of the release of the server (r24.10 for the one in nvidia-pytriton 0.7).
# HEADERS: a folder with onnxruntime_c_api.h, not newer than LIBRARY, and rapidjson/.
# LIBRARY: libonnxruntime.so.1, e.g. of the npm package onnxruntime-node.
# OUT: the folder of backends to write; give it to triton_server.py as --backends.
set -euo pipefail
sources=$1 headers=$2 library=$3 out=$4/onnxruntime
objects=$(mktemp -d)
trap 'rm -r "$objects"' EXIT
mkdir -p "$out"
cp "$library" "$out/libonnxruntime.so.1"
files=(
  onnxruntime_backend/src/onnxruntime{,_loader,_utils}.cc
  backend/src/backend_{common,input_collector,memory,model,model_instance,output_responder}.cc
  common/src/{async_work_queue,error,thread_pool}.cc
)
for file in "${files[@]}"; do
  g++ -std=c++17 -O1 -fPIC -w -DTRITON_ENABLE_STATS=1 -I "$headers" \
    -I "$sources"/common/include -I "$sources"/core/include -I "$sources"/backend/include \
    -c "$sources/$file" -o "$objects/$(basename "$file" .cc).o"
done
# Its calls of the server are resolved when the server loads it.
g++ -shared -o "$out/libtriton_onnxruntime.so" "$objects"/*.o "$out/libonnxruntime.so.1" \
  -Wl,-rpath,'$ORIGIN' -lpthread -ldl \
  -Wl,--version-script="$sources/onnxruntime_backend/src/libtriton_onnxruntime.ldscript"
