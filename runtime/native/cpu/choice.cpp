// Chooses the products of this machine.
//
//     instruction set          exact      fast
//     AMX                      bf16x3     bf16
//     AVX512-BF16              float32    bf16
//     AVX512-VNNI, AVX-VNNI    float32    int8
//     any other                float32    float32
//
// The first row that the machine has counts. Three bf16 products should be faster than one of
// float32 only with AMX: a vector instruction multiplies twice as many bf16 values as float32
// values. None of this has been timed yet.
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "cpu/product.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bsmamba2 {

extern const TileProducts portable_products, amx_products, avx512_bf16_products,
    avx512_vnni_products, avx_vnni_products;

namespace {

constexpr const char* kind_names[] = {"bf16x3", "bf16", "int8"};

#if defined(__x86_64__)

// The instruction sets of this machine that have products. BSMAMBA2_ISA restricts them too: avx2
// leaves AVX-VNNI, and portable none.
struct Features {
  bool amx = false, avx512_bf16 = false, avx512_vnni = false, avx_vnni = false;

  Features() {
    unsigned leaves = 0, b = 0, c = 0, d = 0, a1 = 0, b1 = 0, c1 = 0, d1 = 0;
    if (!__get_cpuid_count(7, 0, &leaves, &b, &c, &d)) return;
    if (leaves >= 1) __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    const bool has_avx2 = std::strcmp(isa().name, "portable");
    const bool has_avx512 = !std::strcmp(isa().name, "avx512") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    avx_vnni = has_avx2 && (a1 >> 4 & 1);
    avx512_bf16 = has_avx512 && (a1 >> 5 & 1);
    avx512_vnni = has_avx512 && (c >> 11 & 1);
    amx = has_avx512 && (d >> 22 & 1) && (d >> 24 & 1) && tiles_are_permitted();
  }

 private:
  // Asks Linux, once per process, to keep the tile registers of its threads.
  static bool tiles_are_permitted() {
#if defined(__linux__)
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
  }
};

#endif

// Best first.
std::vector<const TileProducts*> sets_of_this_machine() {
  std::vector<const TileProducts*> sets;
#if defined(__x86_64__)
  [[maybe_unused]] const Features has;
#if defined(BSMAMBA2_AMX)
  if (has.amx) sets.push_back(&amx_products);
#endif
#if defined(BSMAMBA2_AVX512_BF16)
  if (has.avx512_bf16) sets.push_back(&avx512_bf16_products);
#endif
#if defined(BSMAMBA2_AVX512_VNNI)
  if (has.avx512_vnni) sets.push_back(&avx512_vnni_products);
#endif
#if defined(BSMAMBA2_AVX_VNNI)
  if (has.avx_vnni) sets.push_back(&avx_vnni_products);
#endif
#endif
  sets.push_back(&portable_products);
  return sets;
}

// The kinds of product of a speed, best first. BSMAMBA2_PRODUCTS replaces them for both speeds, for
// tests and as a way out: then the portable products may run too, slowly.
struct Kinds {
  std::vector<ProductKind> kinds;
  bool may_be_portable = false;

  explicit Kinds(Speed speed) {
    const char* name = std::getenv("BSMAMBA2_PRODUCTS");
    if (!name || !*name) {
      if (speed == Speed::exact) kinds = {ProductKind::bf16x3};
      if (speed == Speed::fast) kinds = {ProductKind::bf16, ProductKind::int8};
      return;
    }
    may_be_portable = true;
    for (int i = 0; i < 3; ++i)
      if (!std::strcmp(name, kind_names[i])) kinds = {ProductKind(i)};
    if (kinds.empty() && std::strcmp(name, "float32"))
      throw std::runtime_error("BSMAMBA2_PRODUCTS must be float32, bf16x3, bf16 or int8; got " +
                               std::string(name) + ".");
  }
};

struct Chosen {
  ProductChoice choice;
  std::string refused;

  explicit Chosen(Speed speed) {
    const Kinds allowed(speed);
    for (const ProductKind kind : allowed.kinds)
      for (const TileProducts* set : product_sets()) {
        if (!multiply_of(*set, kind)) continue;
        if (set == &portable_products && !allowed.may_be_portable) continue;
        if (agree_with_portable(*set, kind)) {
          choice = {set, kind};
          return;
        }
        refused += (refused.empty() ? "" : ", ") + std::string(set->name);
      }
  }
};

const Chosen& chosen(Speed speed) {
  static const Chosen exact(Speed::exact), fast(Speed::fast);
  return speed == Speed::exact ? exact : fast;
}

}  // namespace

const std::vector<const TileProducts*>& product_sets() {
  static const std::vector<const TileProducts*> sets = sets_of_this_machine();
  return sets;
}

Speed speed_of(const std::string& name) {
  if (name == "fast") return Speed::fast;
  if (name.empty() || name == "exact") return Speed::exact;
  throw std::runtime_error("speed must be exact or fast; got " + name + ".");
}

bool agree_with_portable(const TileProducts& tiles, ProductKind kind) {
  // Partial tiles in every direction, and values with two parts: the sums stay below 2²⁴.
  constexpr int64_t rows = 37, columns = 41, width = 70;
  std::vector<float> a(rows * width), w(columns * width), got(rows * columns), expected = got;
  uint32_t state = 1;
  for (std::vector<float>* values : {&a, &w})
    for (float& value : *values) {
      state = state * 1664525 + 1013904223;
      value = float(int32_t(state >> 16 & 511) - 255);
    }
  const PackedWeights weights(kind, w.data(), columns, width);
  const Parallel alone = [](int64_t n, const std::function<void(int64_t)>& body) {
    for (int64_t i = 0; i < n; ++i) body(i);
  };
  multiply(tiles, weights, a.data(), rows, got.data(), alone);
  multiply(portable_products, weights, a.data(), rows, expected.data(), alone);
  return got == expected;
}

const ProductChoice& products_of(Speed speed) { return chosen(speed).choice; }

std::string describe_products(Speed speed) {
  const auto& [choice, refused] = chosen(speed);
  std::string text = "float32";
  if (choice.tiles)
    text = kind_names[int(choice.kind)] + std::string(" (") + choice.tiles->name + ")";
  return refused.empty() ? text : text + "; wrong results, so not used: " + refused;
}

}  // namespace bsmamba2
