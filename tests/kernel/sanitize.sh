#!/bin/sh
# Builds and runs the kernels' test drivers with each sanitizer, and for aarch64 if the cross compiler
# and qemu are installed:   tests/kernel/sanitize.sh [rounds]
set -eu
rounds=${1:-100}
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

drive() { # NAME RUNNER CMAKE_DEFINITIONS...
  name=$1 runner=$2
  shift 2
  cmake -S "$root" -B "$folder/$name" -DBSMAMBA2_DRIVER=ON "$@" >/dev/null
  cmake --build "$folder/$name" --parallel --target kernel_driver product_driver >/dev/null
  printf '%s: ' "$name"
  $runner "$folder/$name/runtime/native/kernel_driver" "$rounds"
  $runner "$folder/$name/runtime/native/product_driver" "$rounds"
}

drive address,undefined "" -DBSMAMBA2_SANITIZE=address,undefined
drive thread "" -DBSMAMBA2_SANITIZE=thread
if command -v aarch64-linux-gnu-g++ qemu-aarch64 >/dev/null; then
  drive aarch64 "qemu-aarch64 -L /usr/aarch64-linux-gnu" \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
fi
