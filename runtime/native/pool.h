// A pool of reusable workspace, so that after the first calls no call pays for fresh pages. The
// pool grows to the largest number of blocks in use at the same time, and keeps them until the
// library is unloaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace bsmamba2 {

class Pool {
  struct Block {
    float* data = nullptr;
    size_t floats = 0;
  };
  std::mutex mutex;
  std::vector<Block> idle;

 public:
  // At least this many floats, aligned to a cache line, for the lifetime of this object.
  class Loan {
    Pool& pool;
    Block block;

   public:
    Loan(Pool& from, size_t floats) : pool(from), block(from.take()) {
      if (block.floats >= floats) return;
      if (floats > PTRDIFF_MAX / 8) throw std::bad_alloc();
      std::free(block.data);
      block.data = static_cast<float*>(std::aligned_alloc(64, (floats * 4 + 63) / 64 * 64));
      block.floats = block.data ? floats : 0;
      if (!block.data) throw std::bad_alloc();
    }
    ~Loan() { pool.give_back(block); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    float* data() const { return block.data; }
  };

  ~Pool() {
    for (Block& block : idle) std::free(block.data);
  }

 private:
  Block take() {
    std::lock_guard<std::mutex> lock(mutex);
    if (idle.empty()) return {};
    Block block = idle.back();
    idle.pop_back();
    return block;
  }
  void give_back(Block block) noexcept {
    std::lock_guard<std::mutex> lock(mutex);
    try {
      idle.push_back(block);
    } catch (const std::bad_alloc&) {
      std::free(block.data);
    }
  }
};

}  // namespace bsmamba2
