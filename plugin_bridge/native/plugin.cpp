// The effect as a host sees it: one audio bus in, and out the chosen stem and a bus for each stem, all
// mono or all stereo.
//
// Component and controller are one object. Its backend processes the audio.

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "backend.h"
#include "parameters.h"
#include "plugin.h"
#include "python.h"

namespace {

using namespace vst3;

constexpr size_t max_state = 1 << 16;
constexpr int max_changes = 256;  // of settings in a block; later ones replace the last

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
    if (!backend_) backend_ = server_backend(choices_);
    backend_->on_changed = [shared = handler_](int32_t flags) {
      ComponentHandler* handler;
      {
        std::lock_guard lock(shared->mutex);
        handler = shared->handler;
        if (handler) handler->add_ref();
      }
      if (!handler) return;
      handler->restart_component(flags);
      handler->release();
    };
    backend_->set_rate(setup_.sample_rate, false);
    for (int b = 0; b <= stem_buses; ++b) {
      is_present_[b] = true;
      is_enabled_[b] = b == 0;
    }
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

  Result initialize(Unknown* context) override {
    automates_output_ = is_ardour(context);
    parameters_.write_units(automates_output_);
    return ok;
  }

  Result terminate() override {
    set_active(false);
    return set_component_handler(nullptr);
  }

  // Component

  Result controller_class(void*) override { return no; }  // this object itself
  Result set_io_mode(int32_t) override { return not_implemented; }

  int32_t bus_count(int32_t media, int32_t direction) override {
    if (media != audio) return 0;
    if (direction == input) return 1;
    return direction == output ? (backend_->is_for_hosts() ? 1 + stem_buses : 1) : 0;
  }

  Result bus_info(int32_t media, int32_t direction, int32_t index, BusInfo* info) override {
    return guarded([&] {
      if (!info || !has_bus(media, direction, index)) return invalid;
      const int channels = direction == output && !is_present_[index] ? 0 : channels_;
      *info = {media, direction, channels, {}, index ? aux_bus : main_bus,
               index ? 0 : bus_default_active};
      put(info->name, direction == input ? "Mixture" : index ? stem_bus_name(index - 1) : "Stem");
      return ok;
    });
  }

  Result routing_info(RoutingInfo*, RoutingInfo*) override { return not_implemented; }

  Result activate_bus(int32_t media, int32_t direction, int32_t index, uint8_t on) override {
    if (!has_bus(media, direction, index)) return invalid;
    if (direction == output) is_enabled_[index] = on;
    return ok;
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
      const std::string text = parameters_.state() + backend_->state();
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
      const size_t used = text.size() > max_state ? 0 : parameters_.restore(text);
      if (!used) return invalid;
      backend_->set_state(text.substr(used));
      return ok;
    });
  }

  // AudioProcessor

  Result set_bus_arrangements(Arrangement* in, int32_t ins, Arrangement* out,
                              int32_t outs) override {
    if (active_ || ins != 1 || outs < 1 || outs > bus_count(audio, output) || !in || !out) return no;
    if (*in != *out || (*in != mono && *in != stereo)) return no;
    const auto fits = [&](Arrangement bus) { return bus == *in || bus == empty; };
    if (!std::all_of(out, out + outs, fits)) return no;
    channels_ = *in == mono ? 1 : 2;
    for (int i = 0; i < outs; ++i) is_present_[i] = out[i] != empty;
    return ok;
  }

  Result bus_arrangement(int32_t direction, int32_t index, Arrangement* arrangement) override {
    if (!arrangement || !has_bus(audio, direction, index)) return invalid;
    const bool present = direction == input || is_present_[index];
    *arrangement = !present ? empty : channels_ == 1 ? mono : stereo;
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
      backend_->set_rate(setup_.sample_rate, setup_.mode == offline);
      return ok;
    });
  }

  Result set_processing(uint8_t) override { return ok; }

  Result process(ProcessData* data) override {
    return guarded([&] {
      if (!data || data->sample_size != float32) return invalid;
      Block block;
      TimedSettings changes[max_changes];
      block.settings = changes;
      block.settings_count = follow(data->changes_in, changes);
      if (!active_ || data->samples <= 0 || data->output_count < 1 || !data->outputs) return ok;
      float* const* spare = nullptr;
      for (int b = 0; b < std::min(data->output_count, bus_count(audio, output)); ++b) {
        AudioBus& bus = data->outputs[b];
        if (!bus.samples || bus.channels < channels_ || !has_samples(bus)) continue;
        bus.silence = 0;
        if (is_enabled_[b])
          block.out[b] = bus.samples;
        else
          for (int c = 0; c < channels_; ++c) std::fill_n(bus.samples[c], data->samples, 0.0f);
        if (!spare) spare = bus.samples;
      }
      if (!spare) return ok;
      const bool has_input = data->input_count > 0 && data->inputs && data->inputs[0].samples &&
                             data->inputs[0].channels >= channels_ && has_samples(data->inputs[0]);
      if (!has_input)  // no input means silence
        for (int c = 0; c < channels_; ++c) std::fill_n(spare[c], data->samples, 0.0f);
      block.in = has_input ? data->inputs[0].samples : spare;
      block.channels = channels_;
      block.samples = data->samples;
      block.offline = setup_.mode == offline || data->mode == offline;
      block.wait = parameters_.waits();
      block.fallback = parameters_.fallback();
      block.settings_of_output = automates_output_;
      backend_->process(block);
      report_missed(data->changes_out);
      return ok;
    });
  }

  uint32_t tail_samples() override { return 0; }

  // EditController

  Result set_component_state(Stream* stream) override { return set_state(stream); }

  int32_t parameter_count() override { return backend_->is_for_hosts() ? Parameters::count : 0; }

  Result parameter_info(int32_t index, ParameterInfo* info) override {
    if (!info || index < 0 || index >= parameter_count()) return invalid;
    *info = parameters_.info(index);
    return ok;
  }

  Result text_of(uint32_t id, double value, char16_t* text) override {
    return guarded([&] {
      if (!has(id) || !text) return invalid;
      put(text, parameters_.text_of(int(id), value));
      return ok;
    });
  }

  Result value_of(uint32_t id, char16_t* text, double* value) override {
    return guarded([&] {
      if (!has(id) || !text || !value) return invalid;
      return parameters_.value_of(int(id), text, value) ? ok : no;
    });
  }

  double plain_of(uint32_t id, double value) override {
    return has(id) ? parameters_.to_plain(int(id), value) : 0;
  }
  double normalised_of(uint32_t id, double plain) override {
    return has(id) ? parameters_.to_normalised(int(id), plain) : 0;
  }
  double get_parameter(uint32_t id) override { return has(id) ? parameters_.get(int(id)) : 0; }

  Result set_parameter(uint32_t id, double value) override {
    return guarded([&] {
      if (!has(id) || !parameters_.set(int(id), value)) return invalid;
      if (id == Parameters::model) choices_->follow_model();
      return ok;
    });
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

  // Ardour, and Mixbus, which is made from it, align automation with the plugin's output; other
  // hosts with its input. They also show a parameter's text without its unit.
  static bool is_ardour(Unknown* context) {
    HostApplication* host = nullptr;
    char16_t name[128] = {};
    if (!context || context->query(&HostApplication::id, reinterpret_cast<void**>(&host)) != ok ||
        !host)
      return false;
    host->name(name);
    host->release();
    const std::u16string text(name, std::find(name, name + 128, u'\0'));
    return !text.compare(0, 6, u"Ardour") || !text.compare(0, 6, u"Mixbus");
  }

  bool has(uint32_t id) { return id < uint32_t(parameter_count()); }
  bool has_bus(int32_t media, int32_t direction, int32_t index) {
    return index >= 0 && index < bus_count(media, direction);
  }
  bool has_samples(const AudioBus& bus) const {
    return std::all_of(bus.samples, bus.samples + channels_, [](float* row) { return row; });
  }

  std::string stem_bus_name(int bus) {
    const auto names = choices_->buses();
    if (bus >= int(names.size())) return "unused " + std::to_string(bus + 1);
    const std::string name = names[size_t(bus)].empty() ? "default" : names[size_t(bus)];
    return bus == stem_buses - 1 && int(names.size()) > stem_buses ? name + " and others" : name;
  }

  // Applies the changes in order; returns the number of settings that they lead to.
  int follow(ParameterChanges* changes, TimedSettings* settings) {
    int count = 0;
    for (int offset = 0; offset >= 0;) {
      const int next = apply(changes, offset);
      if (count < max_changes) ++count;
      settings[count - 1] = {count == 1 ? 0 : offset, parameters_.settings()};
      offset = next;
    }
    return count;
  }

  // Applies the changes at an offset; returns the offset of the next change, or -1.
  int apply(ParameterChanges* changes, int at) {
    int next = -1;
    const int32_t queues = changes ? changes->parameter_count() : 0;
    for (int32_t q = 0; q < queues; ++q) {
      ParameterQueue* queue = changes->queue(q);
      const int32_t points = queue ? queue->point_count() : 0;
      for (int32_t p = 0; p < points; ++p) {
        int32_t offset;
        double value;
        if (queue->point(p, &offset, &value) != ok) continue;
        if (offset == at || (at == 0 && offset < 0)) parameters_.set(int(queue->parameter()), value);
        if (offset > at && (next < 0 || offset < next)) next = offset;
      }
    }
    return next;
  }

  void report_missed(ParameterChanges* changes) {
    if (!parameters_.set_missed(backend_->missed_blocks()) || !changes) return;
    const uint32_t id = Parameters::missed;
    int32_t index = 0;
    ParameterQueue* queue = changes->add_queue(&id, &index);
    if (queue) queue->add_point(0, parameters_.get(Parameters::missed), &index);
  }

  std::atomic<uint32_t> references_{1};
  const std::shared_ptr<Choices> choices_ = std::make_shared<Choices>();
  Parameters parameters_{choices_};
  std::unique_ptr<Backend> backend_;
  const std::shared_ptr<Handler> handler_ = std::make_shared<Handler>();
  bool automates_output_ = false;
  ProcessSetup setup_{0, float32, 1024, 44100};
  int32_t channels_ = 2;
  std::atomic<bool> active_{false};
  bool is_present_[1 + stem_buses];  // has an arrangement
  std::atomic<bool> is_enabled_[1 + stem_buses];
};

}  // namespace

vst3::Component* make_effect() {
  try {
    return new Effect;
  } catch (...) {
    return nullptr;
  }
}
