// Chooses the instruction set.
#include "scan.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace bsmamba2 {

extern const Isa portable;
#if defined(__x86_64__)
extern const Isa avx2, avx512;
#endif

// Best first.
static std::vector<const Isa*> isas_of_this_machine() {
  std::vector<const Isa*> isas;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // Every processor with AVX2 also has F16C, which not every compiler's builtin can test for.
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && __builtin_cpu_supports("avx512f")) isas.push_back(&avx512);
  if (has_avx2) isas.push_back(&avx2);
#endif
  isas.push_back(&portable);
  return isas;
}

const Isa* choose_isa(const char* name) {
  for (const Isa* isa : isas_of_this_machine())
    if (!name || !*name || !std::strcmp(name, isa->name)) return isa;
  return nullptr;
}

std::string isa_names() {
  std::string names;
  for (const Isa* isa : isas_of_this_machine())
    names += (names.empty() ? "" : ", ") + std::string(isa->name);
  return names;
}

const Isa& isa() {
  static const Isa* const chosen = [] {
    const char* name = std::getenv("BSMAMBA2_ISA");
    if (const Isa* isa = choose_isa(name)) return isa;
    throw std::runtime_error("BSMAMBA2_ISA must be one of " + isa_names() + " here; got " + name +
                             ".");
  }();
  return *chosen;
}

}  // namespace bsmamba2
