#include "mixer.h"

#include <algorithm>

void Mixer::start(int channels, int stems, int buses, uint32_t latency, int max_samples) {
  channels_ = channels;
  stems_ = stems;
  buses_ = std::min(buses, stems);
  const int64_t capacity = int64_t(latency) + 4 * int64_t(max_samples) + 4 * max_block;
  input_.resize(channels, capacity);
  wet_.resize(channels * stems, capacity);
  settings_.assign(size_t(input_.capacity()), {});
  begin_stems(0);
  input_end_ = output_end_ = 0;
  position_ = 0;
  due_ = -int64_t(latency);
  level_ = 0;
  glide_left_ = cross_left_ = 0;
}

void Mixer::take(const Block& block, int start, int samples) {
  const size_t mask = settings_.size() - 1;
  const int64_t first = block.settings_of_output ? due_ : position_;
  int next = 0;
  while (next + 1 < block.settings_count && block.settings[next + 1].offset <= start) ++next;
  for (int i = 0; i < samples; ++i) {
    if (next + 1 < block.settings_count && block.settings[next + 1].offset <= start + i) ++next;
    if (first + i >= 0) settings_[size_t(first + i) & mask] = block.settings[next].settings;
  }
  for (int c = 0; c < channels_; ++c)
    for (int i = 0; i < samples; ++i) input_.put(c, position_ + i, block.in[c][start + i]);
  position_ += samples;
  input_end_.store(position_, std::memory_order_release);
}

bool Mixer::mix(const Block& block, int start, int samples, bool silent) {
  const int64_t first = stem_begin_;
  const int64_t end = stem_end;
  // If the stems began again in between, the two do not belong together.
  const int64_t begin = stem_begin_ == first ? first : never;
  const size_t mask = settings_.size() - 1;
  bool missed = false;
  for (int i = 0; i < samples; ++i) {
    const int64_t now = due_ + i;
    // Before time 0 the level already rises if the start of the stems has arrived.
    const int64_t supply = std::max<int64_t>(now, 0) >= begin ? std::max<int64_t>(0, end - now) : 0;
    level_ = std::min(level_ + 1.0f / fade, std::min(1.0f, float(supply) / fade));
    missed = missed || (now >= 0 && level_ < 1);
    if (now == 0) now_ = target_ = settings_[0], glide_left_ = cross_left_ = 0;
    if (now >= 0) glide(settings_[size_t(now) & mask]);
    const bool has_stems = now >= 0 && supply > 0;
    const float crossing = float(cross_left_) / fade;
    for (int c = 0; c < channels_; ++c) {
      const float dry = now >= 0 ? input_.get(c, now) : 0.0f;
      const float missing = silent ? 0.0f : (1 - level_) * dry;
      if (block.out[0]) {
        float wet = has_stems ? stem(now_.stem, c, now) : 0.0f;
        if (has_stems && cross_left_)
          wet += crossing * (stem(previous_stem_, c, now) - wet);
        block.out[0][c][start + i] =
            (1 - now_.mix) * dry + now_.mix * (level_ * now_.gain * wet + missing);
      }
      for (int b = 0; b < stem_buses; ++b) {
        if (!block.out[1 + b]) continue;
        const bool last = b == std::min(buses_, stem_buses) - 1;
        float wet = has_stems && b < buses_ ? wet_.get(b * channels_ + c, now) : 0.0f;
        for (int more = b + 1; last && has_stems && more < buses_; ++more)
          wet += wet_.get(more * channels_ + c, now);
        // The outputs of the stems sum to the input, so one of them has the part without stems.
        block.out[1 + b][c][start + i] = level_ * wet + (last ? missing : 0.0f);
      }
    }
  }
  due_ += samples;
  output_end_.store(due_, std::memory_order_release);
  return missed;
}

// Moves the settings in effect one sample towards the target.
void Mixer::glide(const Settings& target) {
  if (target.stem != now_.stem) {
    previous_stem_ = now_.stem;
    now_.stem = target.stem;
    cross_left_ = fade;
  } else if (cross_left_) {
    --cross_left_;
  }
  if (target.gain != target_.gain || target.mix != target_.mix) {
    target_ = target;
    glide_left_ = fade;
  }
  if (glide_left_ > 1) {
    now_.gain += (target_.gain - now_.gain) / float(glide_left_);
    now_.mix += (target_.mix - now_.mix) / float(glide_left_);
    --glide_left_;
  } else if (glide_left_) {
    now_.gain = target_.gain;
    now_.mix = target_.mix;
    glide_left_ = 0;
  }
}

float Mixer::stem(int index, int channel, int64_t time) const {
  if (index >= stems_) return input_.get(channel, time);
  return wet_.get(std::max(index, 0) * channels_ + channel, time);
}
