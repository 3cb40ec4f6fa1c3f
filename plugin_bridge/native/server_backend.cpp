// The plugin in a DAW: it sends samples to 'bsmamba2 serve' and receives the stems.
//
//     audio thread ── input ──► socket thread ── socket ──► server
//     audio thread ◄── stems ── socket thread ◄── socket ── server
//
// Live, the audio thread takes no lock that it would have to wait for, allocates nothing and makes
// no system call. In a render it waits for the stems, if the user has not switched that off.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <mutex>
#include <thread>

#include "backend.h"
#include "connection.h"
#include "mixer.h"
#include "pace.h"
#include "socket.h"
#include "vst3.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How long a render waits without progress: for a chunk on a slow machine, and for a server that is
// loading its model.
constexpr auto response_timeout = std::chrono::minutes(5);
constexpr auto startup_timeout = std::chrono::minutes(2);

// starting: a server that is loading its model; unavailable: there is none, or it has refused.
enum class Link { connecting, starting, connected, unavailable };

class ServerBackend : public Backend {
 public:
  explicit ServerBackend(std::shared_ptr<Choices> choices)
      : choices_(std::move(choices)), known_lists_(choices_->revision()) {}
  ~ServerBackend() override { stop(); }

  void set_rate(double sample_rate, bool offline) override {
    sample_rate_ = sample_rate;
    choices_->refresh();
    latency_ = known_latency();
    // Only the first server of a user has a latency that nobody knows yet.
    if (!latency_ && offline && !running_) {
      running_ = true;
      if (wait_for_server(startup_timeout)) latency_ = server().latency;
      running_ = false;
      connection_.close();
    }
  }

  void start(int channels, int max_samples) override {
    stop();
    std::lock_guard lock(signal_mutex_);
    choices_->refresh();
    latency_ = known_latency();
    channels_ = channels;
    running_ = true;
    const bool answers =
        open_connection() && receive_welcome(milliseconds(1000)) == Connection::Answer::accepted;
    if (!latency_ && answers) latency_ = server().latency;
    const Choices::Choice choice = choices_->choice();
    mixer_.start(channels, answers ? int(server().stems) : choice.stems,
                 answers ? int(server().buses) : choice.buses, latency_, max_samples);
    pace_.start(sample_rate_, latency_ / sample_rate_);
    missed_ = 0;
    gave_up_ = waits_ = was_render_ = must_restart_ = false;
    wanted_latency_ = latency_;
    if (notified_latency_ != latency_) notified_latency_ = unreported;
    link_ = Link::connecting;
    thread_ = std::thread([this] {
      try {
        run();
      } catch (...) {  // out of memory or threads: nothing is separated until the next start
        connection_.close();
        link_ = Link::unavailable;
      }
    });
  }

  void stop() override {
    running_ = false;
    if (thread_.joinable()) thread_.join();
    std::lock_guard lock(signal_mutex_);
    connection_.close();
  }

  uint32_t latency_samples() override {
    if (!running_) latency_ = known_latency();
    reported_latency_ = latency_.load();
    return latency_;
  }

  int missed_blocks() const override { return missed_; }

  void process(const Block& block) override {
    // Some hosts restart the plugin while they process.
    std::unique_lock lock(signal_mutex_, std::try_to_lock);
    if (!lock || !running_ || block.channels != mixer_.channels()) return silence(block);
    const bool render = pace_.is_render(block.samples, block.offline, Clock::now());
    if (render && !was_render_) missed_ = 0;
    was_render_ = render;
    const bool waits = render && block.wait;
    waits_ = waits;
    last_block_ms_ = now_ms();
    const bool silent = block.fallback == Fallback::silence ||
                        (block.fallback == Fallback::silence_in_renders && render);
    bool missed = false;
    double waited = 0;
    for (int start = 0; start < block.samples; start += Mixer::max_block) {
      const int samples = std::min(Mixer::max_block, block.samples - start);
      mixer_.take(block, start, samples);
      if (waits) waited += wait_for(mixer_.needed(samples));
      missed |= mixer_.mix(block, start, samples, silent);
    }
    if (missed && !missed_++ && render)
      std::fputs("bsmamba2: a part of this render could not be separated\n", stderr);
    pace_.end_block(Clock::now(), waited);
  }

 private:
  static constexpr uint32_t unreported = ~0u;

  static int64_t now_ms() {
    return std::chrono::duration_cast<milliseconds>(Clock::now().time_since_epoch()).count();
  }

  static void silence(const Block& block) {
    for (float* const* out : block.out)
      for (int c = 0; out && c < block.channels; ++c) std::fill_n(out[c], block.samples, 0.0f);
  }

  const Connection::Welcome& server() const { return connection_.welcome(); }

  uint32_t known_latency() {
    const double samples = std::ceil(choices_->choice().latency_ms * sample_rate_ / 1000);
    return samples <= max_latency ? uint32_t(samples) : 0;
  }

  // Called only in a render. Returns the seconds that it took.
  double wait_for(int64_t time) {
    const auto begin = Clock::now();
    auto last_progress = begin;
    int64_t last_end = mixer_.stem_end;
    bool ready = false;
    while (running_ && !gave_up_ && !(ready = mixer_.is_ready(time))) {
      const Link link = link_;
      if (link == Link::unavailable) break;
      std::this_thread::sleep_for(milliseconds(1));
      const auto now = Clock::now();
      const int64_t end = mixer_.stem_end;
      if (end != last_end) last_progress = now;
      last_end = end;
      const auto limit = link == Link::connected ? response_timeout : startup_timeout;
      gave_up_ = now - last_progress > limit;  // so that later blocks do not wait again
    }
    if (ready) gave_up_ = false;
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  // The functions below run on the socket thread, or while there is none.

  void run() {
    next_try_ = Clock::now();
    if (connection_.is_accepted() && !accept_server()) connection_.close();  // it has answered in start
    while (running_) {
      follow_choice();
      send_notices();
      if (link_ == Link::connected) {
        const bool is_of_use = !is_too_late() && !begins_too_late();
        if (is_of_use && connection_.exchange(mixer_, missed_)) continue;
        connection_.close();
        link_ = Link::connecting;
        next_try_ = Clock::now();
      } else if (Clock::now() < next_try_) {
        std::this_thread::sleep_for(milliseconds(5));
      } else if (!connect(startup_timeout)) {
        next_try_ = Clock::now() + milliseconds(link_ == Link::starting ? 50 : 500);
      } else if (!accept_server()) {
        connection_.close();
        link_ = Link::unavailable;
        next_try_ = Clock::now() + milliseconds(1000);
      }
    }
  }

  bool wait_for_server(milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    while (Clock::now() < deadline) {
      if (connect(limit)) return true;
      if (link_ == Link::unavailable) return false;
      std::this_thread::sleep_for(milliseconds(20));
    }
    return false;
  }

  // Connects, or launches a server. Afterwards link_ says why not.
  bool connect(milliseconds limit) {
    if (connection_.is_open() || open_connection()) {
      link_ = Link::starting;
      const auto answer = receive_welcome(limit);
      if (answer == Connection::Answer::accepted) return true;
      connection_.close();
      if (answer != Connection::Answer::lost) {
        link_ = Link::unavailable;
        return false;
      }
    }
    link_ = launch_server() == Launch::starting ? Link::starting : Link::unavailable;
    return false;
  }

  bool open_connection() {
    asked_ = choices_->choice();
    return connection_.open(asked_, sample_rate_, channels_);
  }

  // A server that loads the model first takes a while. Returns pending, with the connection open, if
  // it has not answered in that time.
  Connection::Answer receive_welcome(milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    auto answer = Connection::Answer::pending;
    while (answer == Connection::Answer::pending) {
      if (!running_ || Clock::now() >= deadline || !is_asked()) return answer;
      answer = connection_.receive_welcome();
    }
    if (answer == Connection::Answer::accepted) {
      choices_->refresh();
      if (asked_.model.empty()) asked_ = choices_->choice();
    }
    return answer;
  }

  bool is_asked() {
    const Choices::Choice choice = choices_->choice();
    return choice.model == asked_.model && choice.lookahead_ms == asked_.lookahead_ms;
  }

  // Connects again if another model or lookahead has been chosen.
  void follow_choice() {
    choices_->follow_model();
    if (is_asked()) return;
    asked_ = choices_->choice();
    if (const uint32_t latency = known_latency()) wanted_latency_ = latency;
    connection_.close();
    link_ = Link::connecting;
    next_try_ = Clock::now();
  }

  // Returns false if the host must restart the plugin first.
  bool accept_server() {
    wanted_latency_ = server().latency;
    const bool fits = server().needed <= latency_ && int(server().stems) == mixer_.stems() &&
                      int(server().buses) == mixer_.buses();
    if (fits) {
      begin();
    } else if (!must_restart_) {
      must_restart_ = true;
      notified_latency_ = unreported;
    }
    return fits;
  }

  // In a render the stems start with the samples that have not been output yet. In playback they
  // start with the input that the server needs before it can answer, so that it is not late.
  void begin() {
    const int64_t recent = mixer_.input_end() - int64_t(server().needed);
    connection_.begin(mixer_, waits_ ? next_output() : std::max(next_output(), recent));
    link_ = Link::connected;
  }

  int64_t next_output() const { return std::max<int64_t>(0, mixer_.output_end()); }

  // Whether a render has begun and needs stems of earlier input than those that arrive.
  bool begins_too_late() const { return waits_ && mixer_.stem_begin() > next_output(); }

  // Whether the stems are so late in live playback that those to come are useless.
  bool is_too_late() const {
    const int64_t late = mixer_.output_end() - mixer_.stem_end - int64_t(sample_rate_);
    return !waits_ && late > 0 && connection_.sent() > mixer_.stem_begin();
  }

  // Notifies the host on a separate thread, which nothing waits for: the host may stop the socket
  // thread in response, or wait until its main thread, which may be in stop, has restarted the
  // plugin. There is no notice in a render, which a restart would break.
  void send_notices() {
    const uint32_t reported = reported_latency_;
    const bool restart = must_restart_ || (reported != unreported && reported != wanted_latency_);
    if (restart && notified_latency_ != wanted_latency_) notices_ |= vst3::latency_changed;
    if (choices_->revision() != known_lists_) notices_ |= lists_changed;
    known_lists_ = choices_->revision();
    const bool in_render = waits_ && now_ms() - last_block_ms_ < 1000;
    if (!notices_ || *notifying_ || in_render || !on_changed) return;
    if (notices_ & vst3::latency_changed) notified_latency_ = wanted_latency_;
    *notifying_ = true;
    std::thread([notify = on_changed, flags = notices_, notifying = notifying_] {
      notify(flags);
      *notifying = false;
    }).detach();
    notices_ = 0;
  }

  static constexpr int32_t lists_changed =
      vst3::values_changed | vst3::parameters_changed | vst3::bus_names_changed;

  const std::shared_ptr<Choices> choices_;
  double sample_rate_ = 44100;
  int channels_ = 2;
  std::atomic<uint32_t> latency_{0};  // of this signal
  std::atomic<uint32_t> reported_latency_{unreported};

  std::mutex signal_mutex_;  // held while a signal is started, stopped or processed
  Mixer mixer_;
  std::thread thread_;

  // Used only by the audio thread.
  Pace pace_;
  bool was_render_ = false;

  std::atomic<bool> running_{false}, waits_{false}, gave_up_{false};
  std::atomic<int> missed_{0};
  std::atomic<int64_t> last_block_ms_{0};
  std::atomic<Link> link_{Link::connecting};

  // Used only by the socket thread, or while there is none.
  Choices::Choice asked_{};
  int known_lists_;  // the revision of the choices that the host knows
  Connection connection_;
  Clock::time_point next_try_;
  int32_t notices_ = 0;
  uint32_t wanted_latency_ = 0, notified_latency_ = unreported;
  bool must_restart_ = false;
  // Whether a notification is running; it may outlive this object.
  const std::shared_ptr<std::atomic<bool>> notifying_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace

std::unique_ptr<Backend> server_backend(std::shared_ptr<Choices> choices) {
  return std::make_unique<ServerBackend>(std::move(choices));
}
