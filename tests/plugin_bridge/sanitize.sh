#!/usr/bin/env bash
# The VST3 under the address, undefined-behaviour and thread sanitizers, in our own host.
# Python itself is not instrumented, so only the plugin's own accesses are watched.
set -euo pipefail
cd "$(dirname "$0")/../.."
for sanitizer in address,undefined thread; do
  build=$(mktemp -d)
  cmake -S . -B "$build" -DBSMAMBA2_SANITIZE=$sanitizer -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
  cmake --build "$build" --target bsmamba2_vst3 >/dev/null
  inside="$build/bsmamba2.vst3/Contents/$(uname -m)-linux"
  mkdir -p "$inside"
  cp "$build/plugin_bridge/native/bsmamba2.so" "$inside"
  case $sanitizer in
    address*) runtime=$(g++ -print-file-name=libasan.so) ;;
    thread) runtime=$(g++ -print-file-name=libtsan.so) ;;
  esac
  echo "== $sanitizer"
  BSMAMBA2_TEST_BUNDLE="$build/bsmamba2.vst3" LD_PRELOAD="$runtime" \
    ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=report_signal_unsafe=0:ignore_noninstrumented_modules=1 \
    "${PYTHON:-python}" -m pytest tests/plugin_bridge/test_{vst3,serve,serve_entry}.py \
      -q -p no:cacheprovider "$@"
  rm -r "$build"
done
