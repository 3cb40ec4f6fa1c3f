// Runs work on threads of its own, for hosts that have none.
#pragma once

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "scan.h"

namespace bsmamba2 {

inline Parallel on_threads(int64_t threads) {
  return [threads](int64_t n, const std::function<void(int64_t)>& body) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto work = [&] {
      try {
        for (int64_t i; (i = next++) < n;) body(i);
      } catch (const std::bad_alloc&) {
        failed = true;
      }
    };
    std::vector<std::thread> others;
    try {
      for (int64_t t = 1; t < std::min(threads, n); ++t) others.emplace_back(work);
    } catch (const std::system_error&) {
      // The system allows no more threads, so the existing ones do the work.
    }
    work();
    for (std::thread& other : others) other.join();
    if (failed) throw std::bad_alloc();
  };
}

}  // namespace bsmamba2
