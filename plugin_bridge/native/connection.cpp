#include "connection.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr uint32_t version = 2;
constexpr uint32_t max_stems = 64;

struct Hello {
  char magic[4];
  uint32_t version;
  double sample_rate;
  uint32_t channels, lookahead_ms;
  unsigned char token[32];
  char model[128];
};
static_assert(sizeof(Hello) == 184 && sizeof(Connection::Welcome) == 24);

bool is_valid(const Connection::Welcome& welcome) {
  return !std::memcmp(welcome.magic, "bsm2", 4) && welcome.refused == 0 &&
         welcome.latency <= max_latency && welcome.needed <= welcome.latency &&
         welcome.stems >= 1 && welcome.stems <= max_stems && welcome.buses >= 1 &&
         welcome.buses <= welcome.stems;
}

}  // namespace

bool Connection::open(const Choices::Choice& choice, double sample_rate, int channels) {
  close();
  channels_ = channels;
  Hello hello{{'b', 's', 'm', '2'}, version, sample_rate, uint32_t(channels), choice.lookahead_ms,
              {}, {}};
  const size_t length = std::min(choice.model.size(), sizeof hello.model - 1);
  std::memcpy(hello.model, choice.model.data(), length);
  if (!socket_.open(hello.token)) return false;
  if (socket_.send(&hello, sizeof hello) == sizeof hello) return true;
  close();
  return false;
}

void Connection::close() {
  socket_.close();
  welcome_ = {};
  received_welcome_.clear();
}

Connection::Answer Connection::receive_welcome() {
  socket_.wait(false, 5);
  char bytes[sizeof welcome_];
  const long count = socket_.receive(bytes, sizeof bytes - received_welcome_.size());
  if (count >= 0) {
    received_welcome_.append(bytes, size_t(count));
    if (received_welcome_.size() < sizeof welcome_) return Answer::pending;
    std::memcpy(&welcome_, received_welcome_.data(), sizeof welcome_);
    if (is_valid(welcome_)) return Answer::accepted;
  }
  const bool answered = !received_welcome_.empty();
  close();
  return answered ? Answer::refused : Answer::lost;
}

void Connection::begin(Mixer& mixer, int64_t time) {
  sent_ = received_ = time;
  mixer.begin_stems(time);
  outgoing_.clear();
  incoming_.clear();
  outgoing_sent_ = 0;
}

bool Connection::exchange(Mixer& mixer, int missed) {
  if (mixer.input_end() - sent_ > mixer.capacity() - 2 * Mixer::max_block) return false;
  if (outgoing_sent_ == outgoing_.size()) prepare_request(mixer, missed);
  const bool to_write = outgoing_sent_ < outgoing_.size();
  socket_.wait(to_write, 2);
  if (to_write) {
    const size_t left = outgoing_.size() - outgoing_sent_;
    const long sent = socket_.send(outgoing_.data() + outgoing_sent_, left);
    if (sent < 0) return false;
    outgoing_sent_ += size_t(sent);
  }
  char buffer[65536];
  const long received = socket_.receive(buffer, sizeof buffer);
  if (received < 0) return false;
  incoming_.insert(incoming_.end(), buffer, buffer + received);
  return take_responses(mixer);
}

void Connection::prepare_request(const Mixer& mixer, int missed) {
  const int samples = int(std::min<int64_t>(Mixer::max_block, mixer.input_end() - sent_));
  if (!samples) return;
  const uint32_t head[2] = {uint32_t(samples), uint32_t(missed)};
  outgoing_.resize(sizeof head + sizeof(float) * size_t(channels_ * samples));
  std::memcpy(outgoing_.data(), head, sizeof head);
  char* place = outgoing_.data() + sizeof head;
  for (int c = 0; c < channels_; ++c)
    for (int i = 0; i < samples; ++i, place += sizeof(float)) {
      const float sample = mixer.input(c, sent_ + i);
      // One bad sample from another plugin must not end the stream.
      const float finite = std::isfinite(sample) ? sample : 0.0f;
      std::memcpy(place, &finite, sizeof finite);
    }
  sent_ += samples;
  outgoing_sent_ = 0;
}

// Returns false if the received bytes are not a response.
bool Connection::take_responses(Mixer& mixer) {
  size_t at = 0;
  for (uint32_t samples; incoming_.size() - at >= sizeof samples;) {
    std::memcpy(&samples, incoming_.data() + at, sizeof samples);
    if (int64_t(samples) > sent_ - received_) return false;  // this also bounds incoming_
    const size_t values = size_t(welcome_.stems) * size_t(channels_) * samples;
    const size_t size = sizeof samples + sizeof(float) * values;
    if (incoming_.size() - at < size) break;
    const char* place = incoming_.data() + at + sizeof samples;
    for (int s = 0; s < int(welcome_.stems); ++s)
      for (int c = 0; c < channels_; ++c)
        for (uint32_t i = 0; i < samples; ++i, place += sizeof(float)) {
          float sample;
          std::memcpy(&sample, place, sizeof sample);
          mixer.put(s, c, received_ + i, std::isfinite(sample) ? sample : 0.0f);
        }
    received_ += samples;
    mixer.stem_end.store(received_, std::memory_order_release);
    at += size;
  }
  incoming_.erase(incoming_.begin(), incoming_.begin() + long(at));
  return true;
}
