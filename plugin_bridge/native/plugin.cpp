// The effect as a host sees it: one audio bus in, one out, both mono or both stereo.
//
// Component and controller are one object. Its backend processes the audio.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <locale>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "backend.h"
#include "plugin.h"
#include "python.h"

namespace {

using namespace vst3;

constexpr size_t max_state = 1 << 16;

struct Parameter {
  const char *title, *unit;
  double low, high, initial;
  int32_t steps, flags;
};

enum { gain_db, mix, stem, wait, num_parameters };
constexpr Parameter parameters[num_parameters] = {
    {"Gain", "dB", -60, 20, 0, 0, can_automate},
    {"Mix", "%", 0, 100, 100, 0, can_automate},
    {"Stem", "", 1, 17, 1, 16, is_list},  // the model's outputs; the residual is last
    {"Wait when rendering", "", 0, 1, 0, 1, 0},
};

double to_plain(int p, double normalised) {
  const Parameter& parameter = parameters[p];
  // The comparison is false for NaN, which a host may send.
  const double value = normalised >= 0 ? std::min(normalised, 1.0) : 0.0;
  const double steps = parameter.steps;
  const double placed = steps ? std::min(steps, std::floor(value * (steps + 1))) / steps : value;
  return parameter.low + placed * (parameter.high - parameter.low);
}

double to_normalised(int p, double plain) {
  const double value = (plain - parameters[p].low) / (parameters[p].high - parameters[p].low);
  return value >= 0 ? std::min(value, 1.0) : 0.0;
}

void put(char16_t* place, const char* text) {  // room for 128 characters; ASCII
  int i = 0;
  for (; text[i] && i < 127; ++i) place[i] = static_cast<unsigned char>(text[i]);
  place[i] = 0;
}

// No exception may reach the host. The only possible ones are out-of-memory errors.
template <typename Work>
Result guarded(Work work) {
  try {
    return work();
  } catch (...) {
    return not_implemented;
  }
}

// The host's handler. A notification holds it too, because it may outlive the effect: the host may
// stop or delete the effect before it returns from a notification.
struct Handler {
  std::mutex mutex;
  ComponentHandler* handler = nullptr;
};

class Effect final : public Component, public AudioProcessor, public EditController {
 public:
  Effect() : backend_(python_backend()) {
    if (!backend_) backend_ = server_backend();
    backend_->set_rate(setup_.sample_rate);
    for (int p = 0; p < num_parameters; ++p) values_[p] = to_normalised(p, parameters[p].initial);
    backend_->on_latency_changed = [shared = handler_] {
      ComponentHandler* handler;
      {
        std::lock_guard lock(shared->mutex);
        handler = shared->handler;
        if (handler) handler->add_ref();
      }
      if (!handler) return;
      handler->restart_component(vst3::latency_changed);
      handler->release();
    };
    count_instance(1);
  }

  // Unknown

  Result query(const void* id, void** object) override {
    if (!object) return invalid;
    if (Unknown::id.is(id) || PluginBase::id.is(id) || Component::id.is(id))
      *object = static_cast<Component*>(this);
    else if (AudioProcessor::id.is(id))
      *object = static_cast<AudioProcessor*>(this);
    else if (EditController::id.is(id))
      *object = static_cast<EditController*>(this);
    else {
      *object = nullptr;
      return no_interface;
    }
    add_ref();
    return ok;
  }

  uint32_t add_ref() override { return ++references_; }

  uint32_t release() override {
    const uint32_t left = --references_;
    if (!left) delete this;
    return left;
  }

  // PluginBase

  Result initialize(Unknown*) override { return ok; }

  Result terminate() override {
    set_active(false);
    return set_component_handler(nullptr);
  }

  // Component

  Result controller_class(void*) override { return no; }  // this object itself
  Result set_io_mode(int32_t) override { return not_implemented; }

  int32_t bus_count(int32_t media, int32_t direction) override {
    return media == audio && (direction == input || direction == output);
  }

  Result bus_info(int32_t media, int32_t direction, int32_t index, BusInfo* info) override {
    if (!info || index || !bus_count(media, direction)) return invalid;
    *info = {media, direction, channels_, {}, 0, bus_default_active};
    put(info->name, direction == input ? "Mixture" : "Stem");
    return ok;
  }

  Result routing_info(RoutingInfo*, RoutingInfo*) override { return not_implemented; }

  Result activate_bus(int32_t media, int32_t direction, int32_t index, uint8_t) override {
    return !index && bus_count(media, direction) ? ok : invalid;
  }

  Result set_active(uint8_t on) override {
    return guarded([&] {
      if (bool(on) == active_) return ok;
      if (on)
        backend_->start(channels_, setup_.max_samples);
      else
        backend_->stop();
      active_ = on;
      return ok;
    });
  }

  // The parameters and the backend's state. The controller has the same state.
  Result get_state(Stream* stream) override {
    return guarded([&] {
      if (!stream) return invalid;
      std::ostringstream lines;
      lines.imbue(std::locale::classic());  // hosts may set a locale with decimal commas
      lines.precision(17);
      lines << "bsmamba2 1\n";
      for (const auto& value : values_) lines << value.load() << '\n';
      const std::string text = lines.str() + backend_->state();
      int32_t written = 0;
      stream->write(text.data(), int32_t(text.size()), &written);
      return written == int32_t(text.size()) ? ok : not_implemented;
    });
  }

  Result set_state(Stream* stream) override {
    return guarded([&] {
      if (!stream) return invalid;
      std::string text;
      char buffer[1024];
      for (int32_t got = 0; text.size() <= max_state; text.append(buffer, got)) {
        got = 0;
        if (stream->read(buffer, sizeof buffer, &got) != ok || got <= 0 || got > 1024) break;
      }
      double values[num_parameters];
      const char head[] = "bsmamba2 1\n";
      if (text.size() > max_state || text.compare(0, sizeof head - 1, head)) return invalid;
      std::istringstream lines(text.substr(sizeof head - 1));
      lines.imbue(std::locale::classic());
      for (double& value : values)
        if (!(lines >> value) || lines.get() != '\n' || !(value >= 0 && value <= 1)) return invalid;
      const size_t at = sizeof head - 1 + size_t(lines.tellg());
      for (int p = 0; p < num_parameters; ++p) values_[p] = values[p];
      backend_->set_state(text.substr(at));
      return ok;
    });
  }

  // AudioProcessor

  Result set_bus_arrangements(Arrangement* in, int32_t ins, Arrangement* out,
                              int32_t outs) override {
    if (active_ || ins != 1 || outs != 1 || !in || !out) return no;
    if (*in != *out || (*in != mono && *in != stereo)) return no;
    channels_ = *in == mono ? 1 : 2;
    return ok;
  }

  Result bus_arrangement(int32_t direction, int32_t index, Arrangement* arrangement) override {
    if (!arrangement || index || !bus_count(audio, direction)) return invalid;
    *arrangement = channels_ == 1 ? mono : stereo;
    return ok;
  }

  Result can_process(int32_t sample_size) override { return sample_size == float32 ? ok : no; }

  uint32_t latency_samples() override { return backend_->latency_samples(); }

  Result setup_processing(ProcessSetup* setup) override {
    return guarded([&] {
      if (active_ || !setup || setup->sample_size != float32) return no;
      if (!(setup->sample_rate >= 1 && setup->sample_rate <= 1e7)) return invalid;
      if (setup->max_samples < 1 || setup->max_samples > 1 << 24) return invalid;
      setup_ = *setup;
      backend_->set_rate(setup_.sample_rate);
      return ok;
    });
  }

  Result set_processing(uint8_t) override { return ok; }

  Result process(ProcessData* data) override {
    return guarded([&] {
      if (!data || data->sample_size != float32) return invalid;
      follow(data->changes_in);
      if (!active_ || data->samples <= 0 || data->output_count < 1 || !data->outputs) return ok;
      AudioBus& out = data->outputs[0];
      if (!out.samples || out.channels < channels_) return ok;
      const bool has_input = data->input_count > 0 && data->inputs && data->inputs[0].samples &&
                             data->inputs[0].channels >= channels_;
      if (!has_input)  // no input means silence
        for (int c = 0; c < channels_; ++c) std::fill_n(out.samples[c], data->samples, 0.0f);
      float* const* in = has_input ? data->inputs[0].samples : out.samples;
      out.silence = 0;
      Settings settings;
      settings.gain_db = plain(gain_db);
      settings.mix = plain(mix) / 100;
      settings.stem = uint32_t(plain(stem)) - 1;
      settings.wait = plain(wait) > 0.5;
      backend_->process(in, out.samples, channels_, data->samples, settings,
                        setup_.mode == offline || data->mode == offline);
      return ok;
    });
  }

  uint32_t tail_samples() override { return 0; }

  // EditController

  Result set_component_state(Stream* stream) override { return set_state(stream); }

  int32_t parameter_count() override { return backend_->has_parameters() ? num_parameters : 0; }

  Result parameter_info(int32_t index, ParameterInfo* info) override {
    if (!info || index < 0 || index >= parameter_count()) return invalid;
    const Parameter& parameter = parameters[index];
    *info = {};
    info->id = uint32_t(index);
    put(info->title, parameter.title);
    put(info->short_title, parameter.title);
    put(info->units, parameter.unit);
    info->steps = parameter.steps;
    info->initial = to_normalised(index, parameter.initial);
    info->flags = parameter.flags;
    return ok;
  }

  Result text_of(uint32_t id, double value, char16_t* text) override {
    if (!has(id) || !text) return invalid;
    char buffer[32];
    if (id == wait)
      put(text, to_plain(wait, value) > 0.5 ? "On" : "Off");
    else {
      std::snprintf(buffer, sizeof buffer, id == stem ? "%.0f" : "%.1f", to_plain(int(id), value));
      put(text, buffer);
    }
    return ok;
  }

  Result value_of(uint32_t id, char16_t* text, double* value) override {
    if (!has(id) || !text || !value) return invalid;
    char buffer[32];
    size_t i = 0;
    for (; i < sizeof buffer - 1 && text[i]; ++i) buffer[i] = text[i] < 128 ? char(text[i]) : '?';
    buffer[i] = 0;
    char* end = nullptr;
    double plain = std::strtod(buffer, &end);
    if (id == wait && end == buffer) plain = buffer[0] == 'O' && buffer[1] == 'n';
    else if (end == buffer) return no;
    *value = to_normalised(int(id), plain);
    return ok;
  }

  double plain_of(uint32_t id, double value) override { return has(id) ? to_plain(int(id), value) : 0; }
  double normalised_of(uint32_t id, double plain) override {
    return has(id) ? to_normalised(int(id), plain) : 0;
  }
  double get_parameter(uint32_t id) override { return has(id) ? values_[id].load() : 0; }

  Result set_parameter(uint32_t id, double value) override {
    if (!has(id) || !(value >= 0 && value <= 1)) return invalid;
    values_[id] = value;
    return ok;
  }

  Result set_component_handler(ComponentHandler* handler) override {
    if (handler) handler->add_ref();
    {
      std::lock_guard lock(handler_->mutex);
      std::swap(handler, handler_->handler);
    }
    if (handler) handler->release();
    return ok;
  }

  void* create_view(const char*) override { return nullptr; }  // hosts show their own

 private:
  ~Effect() {
    backend_.reset();
    set_component_handler(nullptr);
    count_instance(-1);
  }

  bool has(uint32_t id) { return id < uint32_t(parameter_count()); }
  double plain(int p) const { return to_plain(p, values_[p]); }

  void follow(ParameterChanges* changes) {
    const int32_t queues = changes ? changes->parameter_count() : 0;
    for (int32_t q = 0; q < queues; ++q) {
      ParameterQueue* queue = changes->queue(q);
      int32_t offset;
      double value;
      if (queue && queue->point_count() > 0 &&
          queue->point(queue->point_count() - 1, &offset, &value) == ok)
        set_parameter(queue->parameter(), value);
    }
  }

  std::atomic<uint32_t> references_{1};
  std::unique_ptr<Backend> backend_;
  const std::shared_ptr<Handler> handler_ = std::make_shared<Handler>();
  ProcessSetup setup_{0, float32, 1024, 44100};
  int32_t channels_ = 2;
  std::atomic<bool> active_{false};
  std::atomic<double> values_[num_parameters];  // normalised
};

}  // namespace

vst3::Component* make_effect() {
  try {
    return new Effect;
  } catch (...) {
    return nullptr;
  }
}
