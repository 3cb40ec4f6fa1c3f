// The interface of the two backends that process the plugin's audio: Python in the same process,
// and the server that all DAWs share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "choices.h"

// What a sample is processed with.
struct Settings {
  float gain = 1, mix = 1;  // gain of the stem; mix 0 is the input, 1 the stem
  int stem = 0;             // of the model's stems, or their number for the mixture
};

// Settings from a sample of a block on.
struct TimedSettings {
  int offset;
  Settings settings;
};

// What is heard where no stem has arrived.
enum class Fallback { unprocessed, silence_in_renders, silence };

// The stems beyond the last of these buses are added to it.
constexpr int stem_buses = 8;

// A block of audio from the host.
struct Block {
  int channels = 0, samples = 0;
  const float* const* in = nullptr;
  // The main output and an output for each stem; null where the host wants none. The input may be
  // in the same memory as one of them.
  float* const* out[1 + stem_buses] = {};
  const TimedSettings* settings = nullptr;  // in order; the first offset is 0
  int settings_count = 0;
  bool settings_of_output = false;  // their offsets count from the first output sample, not input
  bool offline = false;             // what the host says
  bool wait = true;                 // in a render, block until the stems arrive
  Fallback fallback = Fallback::silence_in_renders;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // These three are not called on the audio thread. Only stop is called while a signal runs.
  // set_rate sets the rate of later signals. It determines the latency, which hosts query before
  // start. With offline it may ask a server that is still starting.
  virtual void set_rate(double sample_rate, bool offline) = 0;
  virtual void start(int channels, int max_samples) = 0;
  virtual void stop() = 0;

  virtual uint32_t latency_samples() = 0;
  // Writes as many samples as it reads.
  virtual void process(const Block& block) = 0;
  // The blocks of the current render or playback that had to be output without a stem.
  virtual int missed_blocks() const { return 0; }
  // The backend's part of the state in a host's project; the plugin adds its own settings.
  virtual std::string state() { return {}; }
  virtual void set_state(const std::string&) {}
  // Whether the host sees parameters and the outputs of the stems.
  virtual bool is_for_hosts() const { return true; }

  // Called on a thread of its own with the flags of restart_component, when the latency will be
  // another at the next start or the choices are others. It may still be running when the backend
  // has stopped or is gone.
  std::function<void(int32_t)> on_changed;
};

// The Python backend, if this thread is loading a plugin for Python's Separate; else null.
std::unique_ptr<Backend> python_backend();
// The server backend. It connects for the model and the lookahead that are chosen.
std::unique_ptr<Backend> server_backend(std::shared_ptr<Choices> choices);
