#!/usr/bin/env bash
# Tests the VST3 in our own host with the address, undefined-behaviour and thread sanitizers.
# Python is not instrumented, so they only check the plugin's own memory accesses.
set -euo pipefail
cd "$(dirname "$0")/../.."
for sanitizer in address,undefined thread; do
  build=$(mktemp -d)
  cmake -S . -B "$build" -DBSMAMBA2_SANITIZE=$sanitizer -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
  cmake --build "$build" --target bsmamba2_vst3 >/dev/null
  machine_folder="$build/bsmamba2.vst3/Contents/$(uname -m)-linux"
  mkdir -p "$machine_folder"
  cp "$build/plugin_bridge/native/bsmamba2.so" "$machine_folder"
  case $sanitizer in
    address*) runtime=$(g++ -print-file-name=libasan.so) ;;
    thread) runtime=$(g++ -print-file-name=libtsan.so) ;;
  esac
  echo "== $sanitizer"
  BSMAMBA2_TEST_BUNDLE="$build/bsmamba2.vst3" LD_PRELOAD="$runtime" \
    ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=report_signal_unsafe=0:ignore_noninstrumented_modules=1 \
    "${PYTHON:-python}" -m pytest tests/plugin_bridge/vst3 tests/plugin_bridge/test_{serve,serve_entry,renders,stem_buses}.py \
      -q -p no:cacheprovider "$@"
  rm -r "$build"
done
