// The signals of the server backend: the input, the stems that have arrived, and the outputs that
// are mixed from them.
//
// Samples are addressed by time. A sample of a stem is used if it has arrived by the time it is due;
// otherwise the fallback is heard. The level of the stems follows the number of buffered samples, so
// they fade out when they run out and fade in when they return. Settings belong to a sample of the
// input, and are delayed with it, or to one of the output, as the host says.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "backend.h"
#include "ring.h"

class Mixer {
 public:
  static constexpr int fade = 256;        // samples in which anything fades in or out
  static constexpr int max_block = 8192;  // the most samples that take and mix accept

  void start(int channels, int stems, int buses, uint32_t latency, int max_samples);
  int channels() const { return channels_; }
  int stems() const { return stems_; }
  int buses() const { return buses_; }
  int64_t capacity() const { return input_.capacity(); }

  // Audio thread: stores a part of a block.
  void take(const Block& block, int start, int samples);
  // Audio thread: up to which time the stems are needed by the next mix.
  int64_t needed(int samples) const { return due_ + samples + fade; }
  // Audio thread: outputs the next samples; returns whether any had to be output without a stem.
  bool mix(const Block& block, int start, int samples, bool silent);

  // Socket thread.
  float input(int channel, int64_t time) const { return input_.get(channel, time); }
  void put(int stem, int channel, int64_t time, float sample) {
    wet_.put(stem * channels_ + channel, time, sample);
  }
  int64_t input_end() const { return input_end_.load(std::memory_order_acquire); }
  int64_t output_end() const { return output_end_.load(std::memory_order_acquire); }

  // From now on the stems that arrive start at this time.
  void begin_stems(int64_t time) {
    stem_begin_ = never;  // the audio thread may be reading both
    stem_end = time;
    stem_begin_ = time;
  }
  int64_t stem_begin() const { return stem_begin_; }
  // The end of the stems that have arrived.
  std::atomic<int64_t> stem_end{0};

  // Whether the stems of the next mix are there, from the first sample that is due.
  bool is_ready(int64_t needed_end) const {
    return stem_end >= needed_end && stem_begin_ <= std::max<int64_t>(0, output_end());
  }

 private:
  static constexpr int64_t never = INT64_MAX;

  void glide(const Settings& target);
  float stem(int index, int channel, int64_t time) const;

  int channels_ = 2, stems_ = 1, buses_ = 1;
  Ring input_, wet_;
  std::atomic<int64_t> stem_begin_{0};
  std::vector<Settings> settings_;  // a ring, like the input
  std::atomic<int64_t> input_end_{0}, output_end_{0};

  // Used only by the audio thread.
  int64_t position_ = 0, due_ = 0;  // times of the next input and output sample
  float level_ = 0;
  Settings now_, target_;  // the settings in effect glide to the target
  int previous_stem_ = 0, glide_left_ = 0, cross_left_ = 0;
};
