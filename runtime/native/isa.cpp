// The choice of the instruction set.
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
  std::vector<const Isa*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // Every processor with AVX2 converts float16 too, which not every compiler can be asked about.
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && __builtin_cpu_supports("avx512f")) found.push_back(&avx512);
  if (has_avx2) found.push_back(&avx2);
#endif
  found.push_back(&portable);
  return found;
}

const Isa* choose_isa(const char* asked) {
  for (const Isa* isa : isas_of_this_machine())
    if (!asked || !*asked || !std::strcmp(asked, isa->name)) return isa;
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
    const char* asked = std::getenv("BSMAMBA2_ISA");
    if (const Isa* found = choose_isa(asked)) return found;
    throw std::runtime_error("BSMAMBA2_ISA must be one of " + isa_names() + " here; got " + asked +
                             ".");
  }();
  return *chosen;
}

}  // namespace bsmamba2
