// The plugin in a DAW: it sends samples to 'bsmamba2 serve' and receives a stem.
//
//     audio thread ── input ring ──► socket thread ── socket ──► server
//     audio thread ◄── wet ring ──── socket thread ◄── socket ── server
//
// The rings are addressed by time. A sample of the stem is used if it has arrived by the time it is
// due; otherwise the input passes through unprocessed, with the same latency. The level of the stem
// follows the number of buffered samples, so it fades out when they run out and fades in when they
// return. The audio thread takes no lock, allocates nothing and makes no system call, except when
// the user has switched on waiting for the stem in offline processing.
//
// The protocol of the socket, little-endian, audio planar float32:
//
//     hello      "bsm2", version u32, sample rate f64, channels u32, 0 u32, token 32 bytes
//     welcome    "bsm2", refused u32, latency in samples u32, outputs u32
//     request    output u32, samples u32, audio …
//     response   samples u32, audio …        in total as many samples as requested, in order

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "backend.h"
#include "ring.h"
#include "socket.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint32_t version = 1;
constexpr int fade = 256;             // samples in which the stem fades in or out
constexpr uint32_t max_latency = 1 << 24;
constexpr int max_block = 8192;       // the most samples in one message
// How long offline processing waits: for a chunk on a slow machine, for a server that is loading
// its model, and without a server.
constexpr auto response_timeout = std::chrono::minutes(5);
constexpr auto startup_timeout = std::chrono::minutes(2);
constexpr auto no_server_timeout = std::chrono::minutes(0);

struct Hello {
  char magic[4];
  uint32_t version;
  double sample_rate;
  uint32_t channels, zero;
  unsigned char token[32];
};
static_assert(sizeof(Hello) == 56);

struct Welcome {
  char magic[4];
  uint32_t refused, latency, outputs;
};
static_assert(sizeof(Welcome) == 16);

class ServerBackend : public Backend {
 public:
  ~ServerBackend() override { stop(); }

  void set_rate(double sample_rate) override {
    sample_rate_ = sample_rate;
    latency_ = last_server_latency();
  }

  void start(int channels, int max_samples) override {
    stop();
    channels_ = channels;
    // A running server answers immediately; otherwise one is launched, which takes a while.
    if (!connect(milliseconds(1000))) starting_ = launch_server();
    const int64_t capacity = int64_t(latency_) + 4 * int64_t(max_samples) + 4 * max_block;
    input_.resize(channels, capacity);
    wet_.resize(channels, capacity);
    position_ = input_end_ = output_end_ = stem_begin_ = stem_end_ = 0;
    level_ = 0;
    gave_up_ = false;
    sent_ = 0;
    running_ = true;
    thread_ = std::thread([this] {
      try {
        run();
      } catch (...) {  // out of memory or threads: the input passes through until the next start
        drop();
      }
    });
  }

  void stop() override {
    running_ = false;
    if (thread_.joinable()) thread_.join();
    socket_.close();
    connected_ = false;
  }

  uint32_t latency_samples() const override { return latency_; }

  void process(const float* const* in, float* const* out, int channels, int samples,
               const Settings& settings, bool offline) override {
    stem_.store(settings.stem, std::memory_order_relaxed);
    const bool waits = offline && settings.wait;
    waits_.store(waits, std::memory_order_relaxed);
    for (int done = 0; done < samples; done += max_block)
      block(in, out, channels, done, std::min(max_block, samples - done), settings, waits);
  }

 private:
  void block(const float* const* in, float* const* out, int channels, int start, int samples,
             const Settings& settings, bool waits) {
    for (int c = 0; c < channels; ++c)
      for (int i = 0; i < samples; ++i) input_.put(c, position_ + i, in[c][start + i]);
    const int64_t time = position_ - int64_t(latency_);  // of the first output sample
    position_ += samples;
    input_end_.store(position_, std::memory_order_release);
    if (waits) wait_for(time + samples + fade);

    const int64_t begin = stem_begin_.load(std::memory_order_acquire);
    const int64_t end = stem_end_.load(std::memory_order_acquire);
    const float gain = float(std::pow(10.0, settings.gain_db / 20)), mix = float(settings.mix);
    const float gain_step = (gain - gain_) / samples, mix_step = (mix - mix_) / samples;
    for (int i = 0; i < samples; ++i) {
      const int64_t now = time + i;
      // Before time 0 the level already rises if the start of the stem has arrived.
      const int64_t supply = std::max<int64_t>(now, 0) >= begin ? std::max<int64_t>(0, end - now) : 0;
      level_ = std::min(level_ + 1.0f / fade, std::min(1.0f, float(supply) / fade));
      gain_ += gain_step;
      mix_ += mix_step;
      for (int c = 0; c < channels; ++c) {
        const float dry = now >= 0 ? input_.get(c, now) : 0.0f;
        const float wet = now >= 0 && supply > 0 ? gain_ * wet_.get(c, now) : dry;
        out[c][start + i] = dry + level_ * mix_ * (wet - dry);
      }
    }
    gain_ = gain;
    mix_ = mix;
    output_end_.store(time + samples, std::memory_order_release);
  }

  // Called only in offline processing, and only if the user has switched it on.
  void wait_for(int64_t time) {
    // It cannot wait for samples that have not been sent yet.
    const int64_t needed = std::min(time, input_end_ - int64_t(server_latency_) + 2 * fade);
    auto last_progress = Clock::now();
    int64_t last_end = stem_end_;
    while (!gave_up_ && stem_end_.load(std::memory_order_acquire) < needed) {
      const auto limit = connected_  ? response_timeout
                         : starting_ ? startup_timeout
                                     : no_server_timeout;
      if (Clock::now() - last_progress > limit) break;
      std::this_thread::sleep_for(milliseconds(1));
      if (stem_end_ != last_end) last_progress = Clock::now();
      last_end = stem_end_;
    }
    gave_up_ = stem_end_ < needed;  // so that later blocks do not wait again
  }

  // The functions below run on the socket thread.

  void run() {
    auto next_try = Clock::now();
    if (connected_) accept_server();
    while (running_) {
      if (connected_) {
        if (!exchange()) drop();
      } else if (Clock::now() < next_try) {
        std::this_thread::sleep_for(milliseconds(5));
      } else if (connect(milliseconds(2000))) {
        next_try = Clock::now() + milliseconds(accept_server() ? 500 : 5000);
      } else {
        starting_ = launch_server();
        next_try = Clock::now() + milliseconds(500);
      }
    }
  }

  // Returns false if responses would be later than the latency that the host knows. They are
  // useless until the host has restarted the plugin.
  bool accept_server() {
    starting_ = false;
    notify_host();
    if (server_latency_ > latency_) {
      drop();
      return false;
    }
    begin();
    return true;
  }

  bool connect(milliseconds timeout) {
    Hello hello{{'b', 's', 'm', '2'}, version, sample_rate_, uint32_t(channels_), 0, {}};
    Welcome welcome;
    if (!socket_.open(hello.token)) return false;
    const auto deadline = Clock::now() + timeout;
    connected_ = socket_.send(&hello, sizeof hello) == sizeof hello &&
                 receive_all(&welcome, sizeof welcome, deadline) &&
                 !std::memcmp(welcome.magic, hello.magic, sizeof hello.magic) &&
                 welcome.refused == 0 && welcome.latency <= max_latency;
    if (connected_)
      server_latency_ = welcome.latency;
    else
      socket_.close();
    return connected_;
  }

  bool receive_all(void* bytes, size_t size, Clock::time_point deadline) {
    for (size_t got = 0; got < size;) {
      if (Clock::now() >= deadline) return false;
      socket_.wait(false, 5);
      const long count = socket_.receive(static_cast<char*>(bytes) + got, size - got);
      if (count < 0) return false;
      got += count;
    }
    return true;
  }

  // The responses start with the input from now on or, if the host waits, with the samples that it
  // has not output yet.
  void begin() {
    const int64_t now = input_end_.load(std::memory_order_acquire);
    sent_ = waits_ ? std::max<int64_t>(0, output_end_) : now;
    received_ = sent_;
    stem_begin_.store(sent_, std::memory_order_release);
    stem_end_.store(sent_, std::memory_order_release);
    outgoing_.clear();
    incoming_.clear();
    outgoing_sent_ = 0;
  }

  // Notifies the host on a separate thread, which nothing waits for: the host may stop the socket
  // thread in response, or wait until its main thread, which may be in stop, has restarted the
  // plugin. While a notification is running there is no second one: the next attempt notifies.
  void notify_host() {
    if (server_latency_ == latency_ || notified_latency_ == server_latency_) return;
    if (!on_latency_changed || *notifying_) return;
    notified_latency_ = server_latency_;
    *notifying_ = true;
    std::thread([notify = on_latency_changed, notifying = notifying_] {
      notify();
      *notifying = false;
    }).detach();
  }

  void drop() {
    socket_.close();
    connected_ = false;
  }

  // Sends and receives once; returns false if the connection is no longer usable.
  bool exchange() {
    if (outgoing_sent_ == outgoing_.size() && !next_message()) return false;
    const bool to_write = outgoing_sent_ < outgoing_.size();
    socket_.wait(to_write, 2);
    if (to_write) {
      const size_t left = outgoing_.size() - outgoing_sent_;
      const long sent = socket_.send(outgoing_.data() + outgoing_sent_, left);
      if (sent < 0) return false;
      outgoing_sent_ += sent;
    }
    char buffer[16384];
    const long received = socket_.receive(buffer, sizeof buffer);
    if (received < 0) return false;
    incoming_.insert(incoming_.end(), buffer, buffer + received);
    return take_responses();
  }

  // Returns false if the server is too slow: then its pending responses are useless.
  bool next_message() {
    const int64_t end = input_end_.load(std::memory_order_acquire);
    const int64_t output_end = output_end_.load(std::memory_order_acquire);
    const int64_t late = output_end - stem_end_ - int64_t(sample_rate_);
    if (end - sent_ > input_.capacity() - 2 * max_block || (late > 0 && sent_ > stem_begin_))
      return false;
    const int samples = int(std::min<int64_t>(max_block, end - sent_));
    if (!samples) return true;
    const uint32_t head[2] = {stem_.load(std::memory_order_relaxed), uint32_t(samples)};
    outgoing_.resize(sizeof head + sizeof(float) * channels_ * samples);
    std::memcpy(outgoing_.data(), head, sizeof head);
    char* place = outgoing_.data() + sizeof head;
    for (int c = 0; c < channels_; ++c)
      for (int i = 0; i < samples; ++i, place += sizeof(float)) {
        const float sample = input_.get(c, sent_ + i);
        // One bad sample from another plugin must not end the stream.
        const float finite = std::isfinite(sample) ? sample : 0.0f;
        std::memcpy(place, &finite, sizeof finite);
      }
    sent_ += samples;
    outgoing_sent_ = 0;
    return true;
  }

  // Returns false if the received bytes are not a response.
  bool take_responses() {
    size_t at = 0;
    for (uint32_t samples; incoming_.size() - at >= sizeof samples;) {
      std::memcpy(&samples, incoming_.data() + at, sizeof samples);
      if (int64_t(samples) > sent_ - received_) return false;  // this also bounds incoming_
      const size_t size = sizeof samples + sizeof(float) * channels_ * samples;
      if (incoming_.size() - at < size) break;
      const char* place = incoming_.data() + at + sizeof samples;
      for (int c = 0; c < channels_; ++c)
        for (uint32_t i = 0; i < samples; ++i, place += sizeof(float)) {
          float sample;
          std::memcpy(&sample, place, sizeof sample);
          wet_.put(c, received_ + i, std::isfinite(sample) ? sample : 0.0f);
        }
      received_ += samples;
      stem_end_.store(received_, std::memory_order_release);
      at += size;
    }
    incoming_.erase(incoming_.begin(), incoming_.begin() + at);
    return true;
  }

  // A server writes its latency to a file, which it leaves in place when it stops.
  uint32_t last_server_latency() const {
    const std::string text = read_own_file(server_folder() + "/latency_ms", 40);
    const double samples = std::ceil(std::atof(text.c_str()) * sample_rate_ / 1000);
    return samples > 0 && samples <= max_latency ? uint32_t(samples) : 0;
  }

  double sample_rate_ = 44100;
  int channels_ = 2;
  uint32_t latency_ = 0;                     // reported to the host
  std::atomic<uint32_t> server_latency_{0};  // reported by the server

  Ring input_, wet_;
  // Times, in samples since start.
  std::atomic<int64_t> input_end_{0}, output_end_{0};
  std::atomic<int64_t> stem_begin_{0}, stem_end_{0};  // start and end of the responses

  // Used only by the audio thread.
  int64_t position_ = 0;
  float level_ = 0, gain_ = 1, mix_ = 1;
  bool gave_up_ = false;

  std::atomic<uint32_t> stem_{0};
  std::atomic<bool> running_{false}, connected_{false}, waits_{false};
  std::atomic<bool> starting_{false};  // a server that this plugin has launched
  std::thread thread_;
  // Whether a notification is running; it may outlive this object.
  const std::shared_ptr<std::atomic<bool>> notifying_ = std::make_shared<std::atomic<bool>>(false);
  uint32_t notified_latency_ = 0;
  Socket socket_;
  int64_t sent_ = 0, received_ = 0;
  std::vector<char> outgoing_, incoming_;
  size_t outgoing_sent_ = 0;
};

}  // namespace

std::unique_ptr<Backend> server_backend() { return std::make_unique<ServerBackend>(); }
