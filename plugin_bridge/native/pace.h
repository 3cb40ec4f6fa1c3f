// Tells a render from live playback.
//
// A host says whether it renders, but some always say the same. So their behaviour counts too. Live,
// blocks come as fast as they are played, on average; a render that runs ahead of the clock cannot
// be live. The time in which this plugin itself kept the host waiting does not count.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  void start(double sample_rate, double latency_seconds) {
    const bool says_both = says_both_;  // what a host has shown holds for its later signals
    *this = Pace();
    says_both_ = says_both;
    rate_ = sample_rate;
    lead_limit_ = std::clamp(latency_seconds / 2, 0.1, 0.5);
  }

  // Called when a block arrives. offline is what the host says.
  bool is_render(int samples, bool offline, Clock::time_point now) {
    const double seconds = samples / rate_;
    // A host that says live at times says offline only when it renders.
    says_both_ = says_both_ || !offline;
    if (was_offline_ && !offline) forget();
    was_offline_ = offline;
    if (has_ended_) add(std::chrono::duration<double>(now - ended_).count() - waited_by_others());
    block_seconds_ = seconds;
    if (offline) return says_both_ || !is_live_like();
    return seconds > 0.5 || (lead_ > lead_limit_ && !is_live_like());
  }

  // Called when the block has been processed, with the time in it that was spent waiting.
  void end_block(Clock::time_point now, double waited_seconds) {
    own_wait_ += waited_seconds;
    if (waited_seconds > 0) all_waits_us() += long(1e6 * waited_seconds);
    others_wait_us_ = all_waits_us() - long(1e6 * own_wait_);
    ended_ = now;
    has_ended_ = true;
  }

 private:
  static std::atomic<long>& all_waits_us() {  // of all instances in this process
    static std::atomic<long> microseconds{0};
    return microseconds;
  }

  double waited_by_others() const {
    return 1e-6 * double(all_waits_us() - long(1e6 * own_wait_) - others_wait_us_);
  }

  // Adds the time between two blocks, in which a live host plays the earlier one.
  void add(double gap_seconds) {
    const double gap = std::max(0.0, gap_seconds), keep = std::exp(-block_seconds_ / window);
    audio_ = keep * audio_ + block_seconds_;
    clock_ = keep * clock_ + gap;
    lead_ = std::clamp(lead_ + 0.9 * block_seconds_ - gap, 0.0, 2 * lead_limit_);
    const bool keeps_pace = clock_ > 0.9 * audio_ && clock_ < 1.2 * audio_;
    steady_ = keeps_pace ? steady_ + block_seconds_ : 0;
  }

  // A render may pass through the speed of playback, but only playback keeps it.
  bool is_live_like() const { return steady_ > lead_limit_; }

  void forget() { audio_ = clock_ = lead_ = steady_ = 0; }

  static constexpr double window = 1;  // second
  double rate_ = 44100, lead_limit_ = 0.5;
  double audio_ = 0, clock_ = 0;  // seconds of audio and of time in the window
  double steady_ = 0;             // for how long the two have agreed, in seconds
  double lead_ = 0;               // how far the blocks have run ahead of the clock, in seconds
  double block_seconds_ = 0, own_wait_ = 0;
  long others_wait_us_ = 0;
  bool says_both_ = false, was_offline_ = false, has_ended_ = false;
  Clock::time_point ended_;
};
