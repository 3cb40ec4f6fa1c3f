#include "cpu/product.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <tuple>

#include "cpu/rounding.h"
#include "pool.h"

namespace bsmamba2 {
namespace {

// Rows that one thread packs and multiplies with all weights. Enough that a weight is read from
// memory rarely, and few enough that the packed rows stay in the second cache: 512 KB for a width
// of 1024 in bf16x3.
constexpr int64_t block_rows = 128;

// Longer sums could overflow the 32 bits of an int8 product.
constexpr int64_t max_int8_width = 65536;

Pool packed_rows;

int parts(ProductKind kind) { return kind == ProductKind::bf16x3 ? 2 : 1; }
int step_values(ProductKind kind) { return kind == ProductKind::int8 ? 64 : 32; }

// The position of a value in the tiles of its column, in bytes.
int64_t position(ProductKind kind, int64_t column, int64_t k) {
  const int64_t bytes = kind == ProductKind::int8 ? 1 : 2, in_step = k % step_values(kind) * bytes;
  return k / step_values(kind) * parts(kind) * tile_bytes + in_step / 4 * 64 +
         column % tile_columns * 4 + in_step % 4;
}

uint16_t bf16_at(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}

float widened(uint16_t bf16) { return float_of(uint32_t(bf16) << 16); }

// Fills one column's tiles in bf16x3 or bf16.
void split_column(ProductKind kind, const float* weights, int64_t width, int64_t column,
                  uint8_t* tiles) {
  for (int64_t k = 0; k < width; ++k) {
    const uint32_t first = to_bf16(bits_of(weights[k]));
    const uint32_t second = to_bf16(bits_of(weights[k] - float_of(first)));
    const uint16_t high = uint16_t(first >> 16), low = uint16_t(second >> 16);
    uint8_t* to = tiles + position(kind, column, k);
    std::memcpy(to, &high, 2);
    if (kind == ProductKind::bf16x3) std::memcpy(to + tile_bytes, &low, 2);
  }
}

// Fills one column's tiles in int8. Returns the column's scale and adds its values to `sum`.
float round_column(const float* weights, int64_t width, int64_t column, uint8_t* tiles,
                   int32_t& sum) {
  float largest = 0;
  for (int64_t k = 0; k < width; ++k) largest = std::max(largest, std::fabs(weights[k]));
  if (largest < smallest_scaled) return 0;
  for (int64_t k = 0; k < width; ++k) {
    const int32_t value = nearest(weights[k] * (127.0f / largest));
    tiles[position(ProductKind::int8, column, k)] = uint8_t(int8_t(value));
    sum += value;
  }
  return largest / 127.0f;
}

// The output of a row that is not finite, as float32 gives it: finite terms do not matter.
void multiply_infinite(const PackedWeights& weights, const float* row, float* out) {
  std::fill(out, out + weights.columns, 0.0f);
  for (int64_t k = 0; k < weights.width; ++k) {
    if (std::isfinite(row[k])) continue;
    for (int64_t c = 0; c < weights.columns; ++c) out[c] += row[k] * weights.value(c, k);
    if (std::isnan(row[k])) return;
  }
}

// Calls enter and leave around the products of one thread.
class Entered {
  const TileProducts& tiles;

 public:
  explicit Entered(const TileProducts& tiles) : tiles(tiles) {
    if (tiles.enter) tiles.enter();
  }
  ~Entered() {
    if (tiles.leave) tiles.leave();
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
};

// Multiplies up to block_rows rows.
void multiply_block(const TileProducts& tiles, const PackedWeights& w, const float* a, int rows,
                    float* out) {
  const int64_t row_tiles = (rows + tile_rows - 1) / tile_rows, stride = w.stride();
  const Pool::Loan memory(packed_rows, size_t(row_tiles * stride / 4));
  uint8_t* const packed = reinterpret_cast<uint8_t*>(memory.data());
  float scales[block_rows];
  unsigned not_finite[block_rows / tile_rows];
  for (int64_t i = 0; i < row_tiles; ++i)
    not_finite[i] = tiles.pack_rows(w.kind, a + i * tile_rows * w.width,
                                    int(std::min<int64_t>(tile_rows, rows - i * tile_rows)),
                                    w.width, packed + i * stride, scales + i * tile_rows);

  alignas(64) float edge[2 * tile_rows][2 * tile_columns];
  const TileFunction multiply = multiply_of(tiles, w.kind);
  const Entered entered(tiles);
  for (int64_t j = 0; j < w.column_tiles(); j += 2)
    for (int64_t i = 0; i < row_tiles; i += 2) {
      const int64_t row = i * tile_rows, column = j * tile_columns;
      const int64_t height = std::min<int64_t>(2 * tile_rows, rows - row);
      const int64_t breadth = std::min<int64_t>(2 * tile_columns, w.columns - column);
      TileCall call{};
      call.rows = packed + i * stride, call.rows_stride = stride;
      call.weights = w.tiles() + j * stride, call.weights_stride = stride;
      call.row_tiles = height > tile_rows ? 2 : 1;
      call.column_tiles = breadth > tile_columns ? 2 : 1;
      call.steps = w.steps();
      call.row_scales = scales + row;
      if (w.kind == ProductKind::int8)
        call.column_scales = w.scales() + column, call.offsets = w.offsets() + column;
      // Tiles that reach beyond the output are written elsewhere and copied.
      const bool fits = height % tile_rows == 0 && breadth % tile_columns == 0;
      call.out = fits ? out + row * w.columns + column : edge[0];
      call.out_stride = fits ? w.columns : 2 * tile_columns;
      multiply(call);
      if (!fits)
        for (int64_t r = 0; r < height; ++r)
          std::memcpy(out + (row + r) * w.columns + column, edge[r], size_t(breadth) * 4);
    }
  for (int r = 0; r < rows; ++r)
    if (not_finite[r / tile_rows] >> r % tile_rows & 1)
      multiply_infinite(w, a + r * w.width, out + r * w.columns);
}

// FNV-1a, four bytes at a time: tells arrays apart that have had the same address.
uint64_t hash_of(const float* values, int64_t count) {
  uint64_t hash = 14695981039346656037u;
  for (int64_t i = 0; i < count; ++i) hash = (hash ^ bits_of(values[i])) * 1099511628211u;
  return hash;
}

}  // namespace

TileFunction multiply_of(const TileProducts& tiles, ProductKind kind) {
  if (kind == ProductKind::bf16x3) return tiles.bf16x3;
  return kind == ProductKind::bf16 ? tiles.bf16 : tiles.int8;
}

PackedWeights::PackedWeights(ProductKind kind, const float* weights, int64_t columns,
                             int64_t width)
    : kind(kind), columns(columns), width(width), data(nullptr, std::free) {
  const int64_t padded = column_tiles() * tile_columns;
  const size_t bytes = size_t(column_tiles() * stride());
  data.reset(static_cast<uint8_t*>(std::aligned_alloc(64, std::max<size_t>(bytes, 64))));
  if (!data) throw std::bad_alloc();
  std::memset(data.get(), 0, bytes);
  if (kind == ProductKind::int8) {
    column_scales.resize(size_t(padded));
    column_offsets.resize(size_t(padded));
  }
  for (int64_t c = 0; c < columns; ++c) {
    uint8_t* const to = data.get() + c / tile_columns * stride();
    if (kind != ProductKind::int8) {
      split_column(kind, weights + c * width, width, c, to);
      continue;
    }
    int32_t sum = 0;
    column_scales[size_t(c)] = round_column(weights + c * width, width, c, to, sum);
    column_offsets[size_t(c)] = 128 * sum;
  }
}

int64_t PackedWeights::steps() const { return (width + step_values(kind) - 1) / step_values(kind); }
int64_t PackedWeights::stride() const { return steps() * parts(kind) * tile_bytes; }

float PackedWeights::value(int64_t column, int64_t k) const {
  const uint8_t* at = data.get() + column / tile_columns * stride() + position(kind, column, k);
  if (kind == ProductKind::int8) return float(int8_t(*at)) * column_scales[size_t(column)];
  const float first = widened(bf16_at(at));
  return kind == ProductKind::bf16 ? first : first + widened(bf16_at(at + tile_bytes));
}

std::shared_ptr<const PackedWeights> pack(ProductKind kind, const float* weights, int64_t columns,
                                          int64_t width) {
  const int64_t count = columns * width;
  if (kind == ProductKind::int8 && width > max_int8_width) return nullptr;
  if (!std::all_of(weights, weights + count, [](float w) { return std::isfinite(w); }))
    return nullptr;
  using Key = std::tuple<const float*, uint64_t, ProductKind, int64_t, int64_t>;
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<const PackedWeights>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto entry = known.begin(); entry != known.end();)
    entry = entry->second.expired() ? known.erase(entry) : std::next(entry);
  std::weak_ptr<const PackedWeights>& place =
      known[{weights, hash_of(weights, count), kind, columns, width}];
  std::shared_ptr<const PackedWeights> packed = place.lock();
  if (!packed) place = packed = std::make_shared<PackedWeights>(kind, weights, columns, width);
  return packed;
}

void multiply(const TileProducts& tiles, const PackedWeights& weights, const float* a,
              int64_t rows, float* out, const Parallel& parallel) {
  parallel((rows + block_rows - 1) / block_rows, [&](int64_t block) {
    const int64_t first = block * block_rows;
    multiply_block(tiles, weights, a + first * weights.width,
                   int(std::min(block_rows, rows - first)), out + first * weights.columns);
  });
}

}  // namespace bsmamba2
