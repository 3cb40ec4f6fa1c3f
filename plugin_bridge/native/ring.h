// A buffer that passes samples between two threads, addressed by time, without a lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

// Holds the last capacity() samples of each channel. The sample at time t is stored at t modulo the
// capacity; the reader must make sure that it has not been overwritten.
class Ring {
 public:
  void resize(int channels, int64_t min_capacity) {
    capacity_ = 1;
    while (capacity_ < min_capacity) capacity_ *= 2;
    samples_ = std::vector<std::atomic<float>>(size_t(channels) * capacity_);
  }

  int64_t capacity() const { return capacity_; }

  float get(int channel, int64_t time) const {
    return samples_[index(channel, time)].load(std::memory_order_relaxed);
  }

  void put(int channel, int64_t time, float sample) {
    samples_[index(channel, time)].store(sample, std::memory_order_relaxed);
  }

 private:
  size_t index(int channel, int64_t time) const {
    return size_t(channel * capacity_ + (time & (capacity_ - 1)));
  }

  int64_t capacity_ = 0;
  std::vector<std::atomic<float>> samples_;
};
