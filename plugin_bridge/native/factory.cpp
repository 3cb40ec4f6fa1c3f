// The exported functions: a factory with one class.

#include <cstdio>

#include "plugin.h"

#ifndef BSMAMBA2_VERSION
#define BSMAMBA2_VERSION "0"
#endif

namespace {

using namespace vst3;

constexpr Id class_id{0x62736D61, 0x6D626132, 0x53657061, 0x72617465};  // "bsmamba2Separate"
constexpr char class_name[] = "bsmamba2 Separate", category[] = "Audio Module Class";

template <size_t size>
void put(char (&place)[size], const char* text) {
  std::snprintf(place, size, "%s", text);
}

class PluginFactory final : public Factory2 {
 public:
  Result query(const void* id, void** object) override {
    if (!object) return invalid;
    const bool known = Unknown::id.is(id) || Factory::id.is(id) || Factory2::id.is(id);
    *object = known ? this : nullptr;
    return known ? ok : no_interface;
  }

  // The only instance is static, so it needs no reference count.
  uint32_t add_ref() override { return 1; }
  uint32_t release() override { return 1; }

  Result factory_info(FactoryInfo* info) override {
    if (!info) return invalid;
    *info = {};
    put(info->vendor, "bsmamba2");
    info->flags = factory_unicode;
    return ok;
  }

  int32_t class_count() override { return 1; }

  Result class_info(int32_t index, ClassInfo* info) override {
    if (!info || index) return invalid;
    *info = {};
    std::memcpy(info->id, class_id.bytes, sizeof info->id);
    info->cardinality = many_instances;
    put(info->category, category);
    put(info->name, class_name);
    return ok;
  }

  Result class_info2(int32_t index, ClassInfo2* info) override {
    if (!info || index) return invalid;
    *info = {};
    class_info(index, info);
    put(info->subcategories, "Fx|Restoration");
    put(info->vendor, "bsmamba2");
    put(info->version, BSMAMBA2_VERSION);
    put(info->sdk_version, "VST 3.7");
    return ok;
  }

  Result create(const char* id, const char* interface_id, void** object) override {
    if (!object) return invalid;
    *object = nullptr;
    if (!class_id.is(id)) return no;
    Component* effect = make_effect();
    if (!effect) return out_of_memory;
    const Result result = effect->query(interface_id, object);
    effect->release();
    return result;
  }
};

}  // namespace

extern "C" {
__attribute__((visibility("default"))) vst3::Unknown* GetPluginFactory() {
  static PluginFactory factory;
  return &factory;
}
__attribute__((visibility("default"))) bool ModuleEntry(void*) { return true; }
__attribute__((visibility("default"))) bool ModuleExit() { return true; }
}
