// The interface of the two backends that process the plugin's audio: Python in the same process,
// and the server that all DAWs share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

struct Settings {
  double gain_db = 0, mix = 1;  // gain of the stem; mix 0 is the input, 1 the stem
  uint32_t stem = 0;            // index into the model's outputs
  bool wait = false;            // in offline processing, block until the stem arrives
};

class Backend {
 public:
  virtual ~Backend() = default;

  // These three are not called on the audio thread. Only stop is called while a signal runs.
  // set_rate sets the rate of later signals. It determines the latency, which hosts query before
  // start.
  virtual void set_rate(double sample_rate) = 0;
  virtual void start(int channels, int max_samples) = 0;
  virtual void stop() = 0;

  virtual uint32_t latency_samples() const = 0;
  // Writes as many samples as it reads; in and out may be the same.
  virtual void process(const float* const* in, float* const* out, int channels, int samples,
                       const Settings& settings, bool offline) = 0;
  // The backend's part of the state in a host's project; the plugin adds its own settings.
  virtual std::string state() { return {}; }
  virtual void set_state(const std::string&) {}
  // Whether the host sees parameters.
  virtual bool has_parameters() const { return true; }

  // Called on a thread of its own when the latency will change at the next start. It may still be
  // running when the backend has stopped or is gone.
  std::function<void()> on_latency_changed;
};

// The Python backend, if this thread is loading a plugin for Python's Separate; else null.
std::unique_ptr<Backend> python_backend();
// The server backend.
std::unique_ptr<Backend> server_backend();
