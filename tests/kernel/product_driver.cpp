// Tests the products of cpu/product.h without ONNX Runtime, for emulators, sanitizers and machines
// without it: random shapes with every instruction set of this machine, compared with double and
// with the portable products, split into rows and on 4 threads.
//
//     product_driver [rounds]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/product.h"
#include "threads.h"

using namespace bsmamba2;
using Floats = std::vector<float>;

static std::mt19937 random_bits(0);

static int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_bits);
}

static Floats values(int64_t count, bool integers) {
  std::normal_distribution<float> draw(0, integers ? 30 : 1);
  Floats out(static_cast<size_t>(count));
  for (float& value : out) value = integers ? std::round(draw(random_bits)) : draw(random_bits);
  return out;
}

// The factors of a product.
struct Case {
  int64_t rows, columns, width;
  Floats a, weights;

  Case(int64_t rows, int64_t columns, int64_t width, bool integers)
      : rows(rows),
        columns(columns),
        width(width),
        a(values(rows * width, integers)),
        weights(values(columns * width, integers)) {}

  Floats multiply(const TileProducts& tiles, ProductKind kind, int threads = 1) const {
    return part(tiles, kind, 0, rows, threads);
  }

  Floats part(const TileProducts& tiles, ProductKind kind, int64_t first, int64_t count,
              int threads = 1) const {
    Floats out(size_t(count * columns), 7.0f);
    bsmamba2::multiply(tiles, *pack(kind, weights.data(), columns, width),
                       a.data() + first * width, count, out.data(), on_threads(threads));
    return out;
  }

  double snr_db(const Floats& out) const {
    double power = 0, error = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        double sum = 0;
        for (int64_t k = 0; k < width; ++k)
          sum += double(a[size_t(r * width + k)]) * weights[size_t(c * width + k)];
        power += sum * sum;
        error += (sum - out[size_t(r * columns + c)]) * (sum - out[size_t(r * columns + c)]);
      }
    return error > 0 || error != error ? 10 * std::log10(power / error) : 300;
  }
};

// Products that are wrong in one value, as an instruction set with a fault could be.
static const TileProducts* correct;
static void wrong_bf16(const TileCall& call) {
  correct->bf16(call);
  call.out[call.out_stride + 1] += 1;
}

static bool test(const TileProducts& tiles, ProductKind kind, int rounds) {
  const char* names[] = {"bf16x3", "bf16", "int8"};
  const double least_db[] = {95, 45, 30};  // few values can cancel; the large products below cannot
  const double least_large_db[] = {106, 52, 38};
  auto fail = [&](const char* what) {
    std::printf("%s, %s: %s\n", tiles.name, names[int(kind)], what);
    return false;
  };
  const TileProducts& portable = *product_sets().back();
  for (int round = 0; round < rounds; ++round) {
    const Case c(between(1, 150), between(1, 70), between(1, 200), false);
    const Floats out = c.multiply(tiles, kind);
    if (!(c.snr_db(out) >= least_db[int(kind)])) return fail("too far from double");
    if (out != c.multiply(tiles, kind, 4)) return fail("other bits on 4 threads");
    const int64_t first = between(0, c.rows - 1), count = c.rows - first;
    const Floats part = c.part(tiles, kind, first, count);
    if (std::memcmp(part.data(), out.data() + first * c.columns, part.size() * 4))
      return fail("other bits for fewer rows");
    const Case integers(between(1, 150), between(1, 70), between(1, 64), true);
    if (integers.multiply(tiles, kind) != integers.multiply(portable, kind))
      return fail("integers differ from the portable products");
  }
  Case infinite(40, 20, 70, false);
  infinite.a[17 * 70 + 3] = INFINITY;
  infinite.a[18 * 70 + 3] = NAN;
  const Floats out = infinite.multiply(tiles, kind);
  for (int64_t c = 0; c < 20; ++c) {
    const float weight = infinite.weights[size_t(c * 70 + 3)];
    if (!(out[size_t(17 * 20 + c)] == (weight > 0 ? INFINITY : -INFINITY)) &&
        kind != ProductKind::int8)  // a small weight can round to zero
      return fail("an infinity is lost");
    if (!std::isnan(out[size_t(18 * 20 + c)])) return fail("a NaN is lost");
    if (!std::isfinite(out[size_t(16 * 20 + c)])) return fail("an infinity spreads");
  }
  const Case large(64, 128, 1024, false);
  const double snr_db = large.snr_db(large.multiply(tiles, kind));
  std::printf("%s, %s: %d rounds; 64 x 1024 x 128: %.2f dB\n", tiles.name, names[int(kind)], rounds,
              snr_db);
  return snr_db >= least_large_db[int(kind)] || fail("a large product is too far from double");
}

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 20;
  bool passed = true;
  for (const TileProducts* tiles : product_sets())
    for (const ProductKind kind : {ProductKind::bf16x3, ProductKind::bf16, ProductKind::int8}) {
      if (!multiply_of(*tiles, kind)) continue;
      passed &= test(*tiles, kind, rounds);
      if (!agree_with_portable(*tiles, kind)) passed = false, std::puts("refused");
    }
  correct = product_sets().back();
  TileProducts wrong = *correct;
  wrong.bf16 = wrong_bf16;
  if (agree_with_portable(wrong, ProductKind::bf16)) passed = false, std::puts("a fault passed");
  std::printf("exact: %s, fast: %s\n", describe_products(Speed::exact).c_str(),
              describe_products(Speed::fast).c_str());
  std::puts(passed ? "passed" : "FAILED");
  return !passed;
}
