// The loop over sequences, time and heads.
//
// If there are many sequences, each one is a unit of work and has the workspace of one segment. If
// there are few, the unit is a segment, in three passes over a group of segments: the first
// computes the state after each segment as if it started from zero; the second, head by head, the
// state before each segment; the third the outputs. Both ways give the states the same bits.
#include "scan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "pool.h"

namespace bsmamba2 {
namespace {

// With at least this many sequences, each one is a unit of work. On machines with few threads,
// fewer sequences are enough, which is faster there and gives the same bits. With fewer sequences,
// this is the number of segments that are processed in parallel.
constexpr int64_t parallel_units = 32;

bool enough_sequences(int64_t batch) {
  static const int64_t threads = std::max(1u, std::thread::hardware_concurrency());
  return batch >= std::min(parallel_units, 2 * threads);
}

// With at least this many values (32 MB), y has left the caches before it is read.
constexpr int64_t larger_than_caches = 8 << 20;

Pool pool;

// Treats decays below 1e-38 as zero: arithmetic with denormal numbers is a hundred times slower.
class FlushToZero {
#if defined(__x86_64__)
  const unsigned saved = _mm_getcsr();

 public:
  FlushToZero() { _mm_setcsr(saved | 0x8040); }
  ~FlushToZero() { _mm_setcsr(saved); }
#elif defined(__aarch64__)
  uint64_t saved;

 public:
  FlushToZero() {
    asm volatile("mrs %0, fpcr" : "=r"(saved));
    asm volatile("msr fpcr, %0" ::"r"(saved | uint64_t(1) << 24));
  }
  ~FlushToZero() { asm volatile("msr fpcr, %0" ::"r"(saved)); }
#endif
};

// The call and the sizes derived from it.
struct Plan {
  const Call& call;
  const Isa& isa;
  const Shape& shape = call.shape;
  const int64_t past = shape.taps - 1;
  const int64_t row = call.row ? call.row : shape.row();  // of zxbcdt, with padding
  const int64_t segments = (call.length + segment_length - 1) / segment_length;
  const int64_t state_size = shape.inner() * shape.state;
  const size_t block_floats = isa.block_floats(shape);
  const size_t rows_floats =
      size_t(past * shape.channels() +
             (call.half
                  ? (past + segment_length) * shape.row() + segment_length * shape.inner()
                  : 0));
  const size_t state_floats = isa.state_floats(shape);
  const bool past_caches = !call.half && shape.inner() % 16 == 0 &&
                           call.batch * call.length * shape.inner() >= larger_than_caches &&
                           reinterpret_cast<uintptr_t>(call.y) % 64 == 0;

  // The offset of token t (in scan order) of sequence b in a tensor with `width` columns.
  int64_t at(int64_t b, int64_t t, int64_t width) const {
    return (b * call.length + (call.reverse ? call.length - 1 - t : t)) * width;
  }
  const float* conv_state(int64_t b) const {
    return call.conv_state + (call.conv_state_is_shared ? 0 : b) * shape.channels() * past;
  }
  const float* ssm_state(int64_t b) const {
    return call.ssm_state + (call.ssm_state_is_shared ? 0 : b) * state_size;
  }
  bool state_is_needed(int64_t segment) const {
    return segment + 1 < segments || call.ssm_state_out;
  }
};

// The rows of one segment in the format that the instruction sets take: pointers to float32, in
// scan order. Rows before the first token are the state of the convolution, transposed.
struct Rows {
  int count = 0;
  const float* xbc_and_past[max_taps - 1 + segment_length];
  const float* z[segment_length];
  float* out[segment_length];
  const float* const* xbc = nullptr;

  void open(const Plan& plan, int64_t b, int64_t segment, float* memory) {
    const Shape& s = plan.shape;
    const int64_t first = segment * segment_length, channels = s.channels();
    count = int(std::min<int64_t>(segment_length, plan.call.length - first));
    xbc = xbc_and_past + plan.past;
    float* widened = memory + plan.past * channels;
    float* outputs = widened + (plan.past + segment_length) * s.row();
    for (int64_t i = -plan.past; i < count; ++i) {
      const int64_t t = first + i;
      if (t < 0) {
        float* row = memory + (plan.past + t) * channels;
        for (int64_t c = 0; c < channels; ++c)
          row[c] = plan.conv_state(b)[c * plan.past + plan.past + t];
        xbc_and_past[plan.past + i] = row;
        continue;
      }
      const float* row = static_cast<const float*>(plan.call.zxbcdt) + plan.at(b, t, plan.row);
      if (plan.call.half) {
        plan.isa.widen(static_cast<const uint16_t*>(plan.call.zxbcdt) + plan.at(b, t, plan.row),
                       widened, s.row());
        row = widened;
        widened += s.row();
      }
      xbc_and_past[plan.past + i] = row + s.inner();
      if (i < 0) continue;
      z[i] = row;
      out[i] = plan.call.half ? outputs + i * s.inner()
                              : static_cast<float*>(plan.call.y) + plan.at(b, t, s.inner());
    }
  }

  void close(const Plan& plan, int64_t b, int64_t segment) const {
    if (!plan.call.half) return;
    for (int i = 0; i < count; ++i)
      plan.isa.narrow(out[i],
                      static_cast<uint16_t*>(plan.call.y) +
                          plan.at(b, segment * segment_length + i, plan.shape.inner()),
                      plan.shape.inner());
  }
};

// Writes the convolution's state after the last token: the last inputs or, if the sequence is
// shorter than the state, also part of the state before it.
void store_conv_state(const Plan& plan, int64_t b) {
  if (!plan.call.conv_state_out) return;
  const int64_t channels = plan.shape.channels(), past = plan.past;
  const float* before = plan.conv_state(b);
  float* after = plan.call.conv_state_out + b * channels * past;
  Pool::Loan memory(pool, size_t(channels));
  for (int64_t k = 0; k < past; ++k) {
    const int64_t t = plan.call.length - past + k;
    const int64_t at = plan.at(b, t, plan.row) + plan.shape.inner();
    const float* from = static_cast<const float*>(plan.call.zxbcdt) + at;
    if (plan.call.half && t >= 0) {
      plan.isa.widen(static_cast<const uint16_t*>(plan.call.zxbcdt) + at, memory.data(), channels);
      from = memory.data();
    }
    for (int64_t c = 0; c < channels; ++c)
      after[c * past + k] = t < 0 ? before[c * past + past + t] : from[c];
  }
}

void store_ssm_state(const Plan& plan, int64_t b, const float* panels) {
  if (!plan.call.ssm_state_out) return;
  float* after = plan.call.ssm_state_out + b * plan.state_size;
  if (plan.segments)
    plan.isa.store_state(plan.shape, panels, after);
  else
    std::memcpy(after, plan.ssm_state(b), size_t(plan.state_size) * 4);
}

// Loads the initial states.
class InitialState {
  const Plan& plan;
  bool shared_is_zero;

  bool is_zero(int64_t b) const {
    const float* state = plan.ssm_state(b);
    return std::all_of(state, state + plan.state_size, [](float v) { return v == 0; });
  }

 public:
  explicit InitialState(const Plan& plan)
      : plan(plan), shared_is_zero(plan.call.ssm_state_is_shared && is_zero(0)) {}

  // The initial state of sequence b in panels, or null if it is zero and needs no products.
  const float* load(int64_t b, float* panels) const {
    if (plan.call.ssm_state_is_shared ? shared_is_zero : is_zero(b)) return nullptr;
    plan.isa.load_state(plan.shape, plan.ssm_state(b), panels);
    return panels;
  }
};

void many_sequences(const Plan& plan, const Weights& weights, const Parallel& parallel) {
  const InitialState initial(plan);
  parallel(plan.call.batch, [&](int64_t b) {
    Pool::Loan memory(pool, plan.block_floats + plan.state_floats + plan.rows_floats);
    float *block = memory.data(), *panels = block + plan.block_floats;
    const float* state = plan.segments ? initial.load(b, panels) : nullptr;
    Rows rows;
    for (int64_t segment = 0; segment < plan.segments; ++segment) {
      rows.open(plan, b, segment, panels + plan.state_floats);
      plan.isa.prepare(plan.shape, weights, rows.xbc, rows.count, block);
      plan.isa.finish(plan.shape, weights, rows.z, rows.out, rows.count, plan.past_caches, block,
                      state, plan.state_is_needed(segment) ? panels : nullptr);
      rows.close(plan, b, segment);
      state = panels;
    }
    store_conv_state(plan, b);
    store_ssm_state(plan, b, panels);
  });
}

void few_sequences(const Plan& plan, const Weights& weights, const Parallel& parallel) {
  const int64_t batch = plan.call.batch, heads = plan.shape.heads;
  const int64_t group = std::min(plan.segments, std::max<int64_t>(1, parallel_units / batch));
  const size_t segment_floats = plan.block_floats + plan.state_floats + plan.rows_floats;
  Pool::Loan memory(pool, size_t(batch) * (size_t(group) * segment_floats + plan.state_floats));
  auto running = [&](int64_t b) { return memory.data() + size_t(b) * plan.state_floats; };
  auto block = [&](int64_t i) {
    return memory.data() + size_t(batch) * plan.state_floats + size_t(i) * segment_floats;
  };
  auto own_state = [&](int64_t i) { return block(i) + plan.block_floats; };
  std::vector<Rows> rows(size_t(batch * group));
  std::vector<char> from_zero(static_cast<size_t>(batch));

  const InitialState initial(plan);
  parallel(batch, [&](int64_t b) {
    from_zero[size_t(b)] = !initial.load(b, running(b));
    if (from_zero[size_t(b)]) std::fill_n(running(b), plan.state_floats, 0.0f);
  });
  for (int64_t first = 0; first < plan.segments; first += group) {
    const int64_t count = std::min(group, plan.segments - first);
    parallel(batch * count, [&](int64_t i) {
      const int64_t b = i / count, segment = first + i % count;
      Rows& r = rows[size_t(i)];
      r.open(plan, b, segment, own_state(i) + plan.state_floats);
      plan.isa.prepare(plan.shape, weights, r.xbc, r.count, block(i));
      if (plan.state_is_needed(segment))
        plan.isa.advance(plan.shape, r.count, block(i), own_state(i));
      else
        std::fill_n(own_state(i), plan.state_floats, 0.0f);
    });
    parallel(batch * heads, [&](int64_t i) {
      const int64_t b = i / heads, head = i % heads;
      for (int64_t c = b * count; c < (b + 1) * count; ++c)
        plan.isa.combine(plan.shape, head, rows[size_t(c)].count, block(c), running(b),
                         own_state(c));
    });
    parallel(batch * count, [&](int64_t i) {
      const int64_t b = i / count, segment = first + i % count;
      const Rows& r = rows[size_t(i)];
      const bool is_zero = segment == 0 && from_zero[size_t(b)];
      plan.isa.finish(plan.shape, weights, r.z, r.out, r.count, plan.past_caches, block(i),
                      is_zero ? nullptr : own_state(i), nullptr);
      r.close(plan, b, segment);
    });
  }
  parallel(batch, [&](int64_t b) {
    store_conv_state(plan, b);
    store_ssm_state(plan, b, running(b));
  });
}

}  // namespace

void scan(const Call& call, const Isa& isa, const Parallel& host) {
  if (call.batch == 0) return;
  if (call.length == 0 && !call.conv_state_out && !call.ssm_state_out) return;
  const Plan plan{call, isa};
  const int64_t channels = plan.shape.channels(), taps = plan.shape.taps;
  Pool::Loan memory(pool, size_t(taps * channels + plan.shape.heads));
  float *by_tap = memory.data(), *A = by_tap + taps * channels;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = 0; k < taps; ++k) by_tap[k * channels + c] = call.conv_weight[c * taps + k];
  for (int64_t h = 0; h < plan.shape.heads; ++h) A[h] = -std::exp(call.A_log[h]);
  const Weights weights{by_tap, call.conv_bias,   call.dt_bias, A,
                        call.D, call.norm_weight, call.epsilon};
  const Parallel parallel = [&host](int64_t n, const std::function<void(int64_t)>& body) {
    host(n, [&body](int64_t i) {
      const FlushToZero guard;
      body(i);
    });
  };
  if (!enough_sequences(call.batch) && plan.segments)
    few_sequences(plan, weights, parallel);
  else
    many_sequences(plan, weights, parallel);
}

}  // namespace bsmamba2
