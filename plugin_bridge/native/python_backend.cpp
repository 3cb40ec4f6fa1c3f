// The plugin inside Python: the SeparationEffect of its slot processes each block.
//
// Pedalboard calls it on threads that Python started, with the interpreter lock released. On any
// other thread (AudioStream's), taking that lock would deadlock, because AudioStream holds it while
// it waits for the thread. There the audio passes through unprocessed, with no latency.

#include "python.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "backend.h"

namespace {

std::atomic<int32_t> instances{0};
std::atomic<bool> attached{false};
Bsmamba2Python python;

thread_local int32_t loading_slot = 0;
// An exception is pending until this thread is back in Python. Until then no callback runs, because
// the exception would interrupt it.
thread_local bool raising = false;

struct Slot {
  bool open = false;
  std::string state;
};
std::mutex slots_mutex;  // never held while Python is called
std::map<int32_t, Slot> slots;
std::vector<int32_t> closed;  // not yet reported to Python

// Running calls into Python; Python waits for them before it exits.
std::atomic<int> calls{0};

// Whether Python can be called. Python does not exit while this object exists.
class PythonCall {
 public:
  PythonCall() {
    ++calls;
    possible_ = attached && python.thread_state();
  }
  ~PythonCall() { --calls; }
  PythonCall(const PythonCall&) = delete;
  PythonCall& operator=(const PythonCall&) = delete;
  explicit operator bool() const { return possible_; }

 private:
  bool possible_;
};

void raise_in_python(void* exception) {
  raising = true;
  const int lock = python.acquire();
  python.raise_later(python.thread(), exception);
  python.release(lock);
}

void warn_once_about_live_audio() {
  static std::once_flag once;
  std::call_once(once, [] {
    std::fputs(
        "bsmamba2: Separate passes audio through unprocessed on threads that Python did not start, "
        "such as AudioStream's; for live audio load the plugin itself, whose model runs in "
        "'bsmamba2 serve': pedalboard.load_plugin(str(bsmamba2_pedalboard.plugin_path()))\n",
        stderr);
  });
}

int report_closed(void*) {
  if (raising) return 0;  // bsmamba2_raised calls this again
  std::vector<int32_t> reported;
  {
    std::lock_guard lock(slots_mutex);
    reported.swap(closed);
  }
  if (attached)
    for (const int32_t slot : reported) python.closed(slot);
  return 0;
}

class PythonBackend : public Backend {
 public:
  explicit PythonBackend(int32_t slot) : slot_(slot) {}

  ~PythonBackend() override {
    bool report = false;
    {
      std::lock_guard lock(slots_mutex);
      report = slots[slot_].open && attached;
      slots.erase(slot_);
      if (report) closed.push_back(slot_);
    }
    // Python is called later, because the host holds locks that the thread with Python's lock may
    // be waiting for. If Python's queue is full, the next instance to be destroyed reports this one.
    if (report) python.call_later(report_closed, nullptr);
  }

  void set_rate(double sample_rate, bool) override {
    sample_rate_ = sample_rate;
    latency_ = 0;
    if (!is_open()) return;
    const PythonCall call;
    if (!call) return warn_once_about_live_audio();
    if (!raising) latency_ = python.latency_samples(slot_, sample_rate);
  }

  void start(int channels, int max_samples) override {
    stop();
    const PythonCall call;
    if (!is_open() || !call || raising) return;
    block_.resize(size_t(channels) * max_samples);
    python.start(slot_, sample_rate_, channels);
    started_ = true;
  }

  void stop() override { started_ = failed_ = false; }

  uint32_t latency_samples() override { return latency_; }

  void process(const Block& host_block) override {
    const float* const* const in = host_block.in;
    float* const* const out = host_block.out[0];
    const int channels = host_block.channels, samples = host_block.samples;
    if (!out) return;
    if (!is_open()) return silence(out, channels, samples);  // the host is probing the plugin
    const PythonCall call;
    if (!call) {
      for (int c = 0; c < channels; ++c)
        if (in[c] != out[c]) std::copy_n(in[c], samples, out[c]);
      return;
    }
    if (raising || failed_) return silence(out, channels, samples);
    const size_t size = size_t(channels) * samples;
    if (block_.size() < size) block_.resize(size);
    for (int c = 0; c < channels; ++c)
      std::copy_n(in[c], samples, block_.data() + size_t(c) * samples);
    float* const block = started_ ? block_.data() : nullptr;
    if (void* exception = python.process(slot_, block, channels, samples)) {
      failed_ = true;
      raise_in_python(exception);
      return silence(out, channels, samples);
    }
    for (int c = 0; c < channels; ++c)
      std::copy_n(block_.data() + size_t(c) * samples, samples, out[c]);
  }

  std::string state() override {
    std::lock_guard lock(slots_mutex);
    return slots[slot_].state;
  }

  void set_state(const std::string& state) override {
    std::lock_guard lock(slots_mutex);
    slots[slot_].state = state;
  }

  bool is_for_hosts() const override { return false; }

 private:
  bool is_open() {
    if (!known_open_) {
      std::lock_guard lock(slots_mutex);
      known_open_ = slots[slot_].open;
    }
    return known_open_;
  }

  static void silence(float* const* out, int channels, int samples) {
    for (int c = 0; c < channels; ++c) std::fill_n(out[c], samples, 0.0f);
  }

  const int32_t slot_;
  bool known_open_ = false, started_ = false, failed_ = false;
  double sample_rate_ = 0;
  uint32_t latency_ = 0;
  std::vector<float> block_;
};

}  // namespace

std::unique_ptr<Backend> python_backend() {
  if (!loading_slot) return nullptr;
  return std::make_unique<PythonBackend>(loading_slot);
}

void count_instance(int change) { instances += change; }

extern "C" {

#define EXPORT __attribute__((visibility("default")))

EXPORT void bsmamba2_attach(const Bsmamba2Python* functions) {
  python = *functions;
  attached = true;
}

EXPORT void bsmamba2_detach() {
  attached = false;
  // While Python exits, it kills every thread that requests its lock, which here would be in the
  // middle of the host's code. Therefore this waits for the threads that are in Python now, at most
  // 5 s.
  for (int waited_ms = 0; calls && waited_ms < 5000; ++waited_ms)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

EXPORT void bsmamba2_load(int32_t slot) { loading_slot = slot; }

EXPORT void bsmamba2_open(int32_t slot) {
  loading_slot = 0;
  std::lock_guard lock(slots_mutex);
  slots[slot].open = true;
}

EXPORT void bsmamba2_raised() {
  raising = false;
  python.call_later(report_closed, nullptr);
}

EXPORT int32_t bsmamba2_instances() { return instances; }

EXPORT void bsmamba2_set_state(int32_t slot, const char* bytes, int32_t size) {
  std::lock_guard lock(slots_mutex);
  slots[slot].state.assign(bytes, size);
}

EXPORT int32_t bsmamba2_get_state(int32_t slot, char* bytes, int32_t size) {
  std::lock_guard lock(slots_mutex);
  const std::string& state = slots[slot].state;
  std::memcpy(bytes, state.data(), std::min<size_t>(state.size(), size));
  return int32_t(state.size());
}
}
