// What stands behind the plugin: Python in the same process, or the server that DAWs share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

struct Settings {
  double gain_db = 0, mix = 1;  // of the stem; 0 is dry, 1 is the stem alone
  uint32_t stem = 0;            // by its place among the model's outputs
  bool wait = false;            // block for the answer in offline processing
};

class Backend {
 public:
  virtual ~Backend() = default;

  // None of these three is called on the audio thread, nor while a signal runs but for stop.
  // The rate of the signals to come, which settles the latency: hosts ask for it before they start.
  virtual void set_rate(double sample_rate) = 0;
  virtual void start(int channels, int max_samples) = 0;
  virtual void stop() = 0;

  virtual uint32_t latency_samples() const = 0;
  // Fills out with as many samples as came; in and out may be the same.
  virtual void process(const float* const* in, float* const* out, int channels, int samples,
                       const Settings& settings, bool offline) = 0;
  // What a host keeps in its project; the plugin's own settings are kept beside it.
  virtual std::string state() { return {}; }
  virtual void set_state(const std::string&) {}
  // Whether the host is offered parameters.
  virtual bool has_parameters() const { return true; }

  // Called on a thread of the backend's when the latency will be another after the next start.
  std::function<void()> on_latency_changed;
};

// Python's, if this thread is loading a plugin for Python's Separate; else null.
std::unique_ptr<Backend> python_backend();
// The server's.
std::unique_ptr<Backend> server_backend();
