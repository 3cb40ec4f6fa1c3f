// The part of the VST3 binary interface that an audio effect needs, declared without the SDK.
//
// A host requests an interface by its id and calls it through a table of functions. So the order of
// the methods and the layout of the structures are fixed; the names are free. The layout is the
// platform's 64-bit default. Nothing here throws.
#pragma once

#include <cstdint>
#include <cstring>

namespace vst3 {

using Result = int32_t;
constexpr Result ok = 0, no_interface = -1, no = 1, invalid = 2, not_implemented = 3,
                 out_of_memory = 6;

// 16 bytes: four 32-bit words, each big-endian.
struct Id {
  uint8_t bytes[16];

  constexpr Id(uint32_t a, uint32_t b, uint32_t c, uint32_t d) : bytes{} {
    const uint32_t words[4] = {a, b, c, d};
    for (int i = 0; i < 16; ++i) bytes[i] = uint8_t(words[i / 4] >> (24 - 8 * (i % 4)));
  }
  bool is(const void* other) const { return other && !std::memcmp(bytes, other, sizeof bytes); }
};

struct Unknown {
  virtual Result query(const void* id, void** object) = 0;
  virtual uint32_t add_ref() = 0;
  virtual uint32_t release() = 0;
  static constexpr Id id{0x00000000, 0x00000000, 0xC0000000, 0x00000046};
};

struct Stream : Unknown {
  virtual Result read(void* buffer, int32_t bytes, int32_t* read) = 0;
  virtual Result write(const void* buffer, int32_t bytes, int32_t* written) = 0;
  virtual Result seek(int64_t position, int32_t mode, int64_t* result) = 0;
  virtual Result tell(int64_t* position) = 0;
};

struct PluginBase : Unknown {
  virtual Result initialize(Unknown* context) = 0;
  virtual Result terminate() = 0;
  static constexpr Id id{0x22888DDB, 0x156E45AE, 0x8358B348, 0x08190625};
};

struct HostApplication : Unknown {
  virtual Result name(char16_t* text) = 0;  // of 128 characters
  static constexpr Id id{0x58E595CC, 0xDB2D4969, 0x8B6AAF8C, 0x36A664E5};
};

enum Media { audio = 0, event = 1 };
enum Direction { input = 0, output = 1 };
constexpr int32_t main_bus = 0, aux_bus = 1;  // BusInfo::type
constexpr uint32_t bus_default_active = 1;
using Arrangement = uint64_t;
constexpr Arrangement empty = 0, stereo = 3, mono = 1ull << 19;

struct BusInfo {
  int32_t media, direction, channels;
  char16_t name[128];
  int32_t type;
  uint32_t flags;
};

struct RoutingInfo {
  int32_t media, bus, channel;
};

struct Component : PluginBase {
  virtual Result controller_class(void* id) = 0;
  virtual Result set_io_mode(int32_t mode) = 0;
  virtual int32_t bus_count(int32_t media, int32_t direction) = 0;
  virtual Result bus_info(int32_t media, int32_t direction, int32_t index, BusInfo* info) = 0;
  virtual Result routing_info(RoutingInfo* in, RoutingInfo* out) = 0;
  virtual Result activate_bus(int32_t media, int32_t direction, int32_t index, uint8_t on) = 0;
  virtual Result set_active(uint8_t on) = 0;
  virtual Result set_state(Stream* stream) = 0;
  virtual Result get_state(Stream* stream) = 0;
  static constexpr Id id{0xE831FF31, 0xF2D54301, 0x928EBBEE, 0x25697802};
};

struct ProcessSetup {
  int32_t mode, sample_size, max_samples;
  double sample_rate;
};
constexpr int32_t offline = 2;      // ProcessSetup::mode
constexpr int32_t float32 = 0;      // ProcessSetup::sample_size

struct AudioBus {
  int32_t channels;
  uint64_t silence;  // one bit a channel
  float** samples;
};

struct ParameterQueue : Unknown {
  virtual uint32_t parameter() = 0;
  virtual int32_t point_count() = 0;
  virtual Result point(int32_t index, int32_t* offset, double* value) = 0;
  virtual Result add_point(int32_t offset, double value, int32_t* index) = 0;
};

struct ParameterChanges : Unknown {
  virtual int32_t parameter_count() = 0;
  virtual ParameterQueue* queue(int32_t index) = 0;
  virtual ParameterQueue* add_queue(const uint32_t* parameter, int32_t* index) = 0;
};

struct ProcessData {
  int32_t mode, sample_size, samples, input_count, output_count;
  AudioBus *inputs, *outputs;
  ParameterChanges *changes_in, *changes_out;
  void *events_in, *events_out, *context;
};

struct AudioProcessor : Unknown {
  virtual Result set_bus_arrangements(Arrangement* in, int32_t ins, Arrangement* out,
                                      int32_t outs) = 0;
  virtual Result bus_arrangement(int32_t direction, int32_t index, Arrangement* arrangement) = 0;
  virtual Result can_process(int32_t sample_size) = 0;
  virtual uint32_t latency_samples() = 0;
  virtual Result setup_processing(ProcessSetup* setup) = 0;
  virtual Result set_processing(uint8_t on) = 0;
  virtual Result process(ProcessData* data) = 0;
  virtual uint32_t tail_samples() = 0;
  static constexpr Id id{0x42043F99, 0xB7DA453C, 0xA569E79D, 0x9AAEC33D};
};

struct ParameterInfo {
  uint32_t id;
  char16_t title[128], short_title[128], units[128];
  int32_t steps;
  double initial;  // normalised
  int32_t unit, flags;
};
constexpr int32_t can_automate = 1 << 0, is_read_only = 1 << 1, is_list = 1 << 3;  // flags

struct ComponentHandler : Unknown {
  virtual Result begin_edit(uint32_t parameter) = 0;
  virtual Result perform_edit(uint32_t parameter, double value) = 0;
  virtual Result end_edit(uint32_t parameter) = 0;
  virtual Result restart_component(int32_t flags) = 0;
};
// For restart_component.
constexpr int32_t values_changed = 1 << 2, latency_changed = 1 << 3, parameters_changed = 1 << 4,
                  bus_names_changed = 1 << 7;

struct EditController : PluginBase {
  virtual Result set_component_state(Stream* stream) = 0;
  virtual Result set_state(Stream* stream) = 0;
  virtual Result get_state(Stream* stream) = 0;
  virtual int32_t parameter_count() = 0;
  virtual Result parameter_info(int32_t index, ParameterInfo* info) = 0;
  virtual Result text_of(uint32_t parameter, double value, char16_t* text) = 0;
  virtual Result value_of(uint32_t parameter, char16_t* text, double* value) = 0;
  virtual double plain_of(uint32_t parameter, double normalised) = 0;
  virtual double normalised_of(uint32_t parameter, double plain) = 0;
  virtual double get_parameter(uint32_t parameter) = 0;
  virtual Result set_parameter(uint32_t parameter, double value) = 0;
  virtual Result set_component_handler(ComponentHandler* handler) = 0;
  virtual void* create_view(const char* name) = 0;
  static constexpr Id id{0xDCD7BBE3, 0x7742448D, 0xA874AACC, 0x979C759E};
};

struct FactoryInfo {
  char vendor[64], url[256], email[128];
  int32_t flags;
};
constexpr int32_t factory_unicode = 1 << 4;

struct ClassInfo {
  uint8_t id[16];
  int32_t cardinality;
  char category[32], name[64];
};
constexpr int32_t many_instances = 0x7FFFFFFF;

struct ClassInfo2 : ClassInfo {
  uint32_t flags;
  char subcategories[128], vendor[64], version[64], sdk_version[64];
};

struct Factory : Unknown {
  virtual Result factory_info(FactoryInfo* info) = 0;
  virtual int32_t class_count() = 0;
  virtual Result class_info(int32_t index, ClassInfo* info) = 0;
  virtual Result create(const char* class_id, const char* interface_id, void** object) = 0;
  static constexpr Id id{0x7A4D811C, 0x52114A1F, 0xAED9D2EE, 0x0B43BF9F};
};

struct Factory2 : Factory {
  virtual Result class_info2(int32_t index, ClassInfo2* info) = 0;
  static constexpr Id id{0x0007B650, 0xF24B4C0B, 0xA464EDB9, 0xF00B2ABB};
};

static_assert(sizeof(BusInfo) == 276 && sizeof(ParameterInfo) == 792 && sizeof(ClassInfo) == 116);
static_assert(sizeof(ClassInfo2) == 440 && sizeof(ProcessSetup) == 24 && sizeof(AudioBus) == 24);
static_assert(sizeof(ProcessData) == 80);

}  // namespace vst3
