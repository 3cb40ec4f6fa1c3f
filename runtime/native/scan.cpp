// The loop over sequences, time and heads.
//
// Many sequences are shared out one by one, each with one chunk's workspace. Few sequences are
// shared out by chunks, in three passes over a stretch of time: every chunk by itself, with the
// state that its own tokens add up to; then, head by head, the state that each chunk starts from;
// then every chunk's outputs. A state does not depend on which of the two ways computed it.
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

// From this many sequences on, they are shared out one by one whatever the machine; on machines of
// few threads, from fewer on, which is faster there and gives the same bits. With fewer, this many
// chunks are prepared before a state is handed on.
constexpr int64_t many = 32;

bool enough_sequences(int64_t batch) {
  static const int64_t threads = std::max(1u, std::thread::hardware_concurrency());
  return batch >= std::min(many, 2 * threads);
}

// From this many values on (32 MB), y will have left the caches before it is read.
constexpr int64_t large = 8 << 20;

Pool pool;

// Decays below 1e-38 count as zero: computing with denormal numbers costs a hundred times more.
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

// What every part of a call needs to know.
struct Plan {
  const Call& call;
  const Isa& isa;
  const Shape& shape = call.shape;
  const int64_t past = shape.taps - 1;
  const int64_t chunks = (call.length + chunk_length - 1) / chunk_length;
  const int64_t state_size = shape.inner() * shape.state;
  const size_t block_floats = isa.block_floats(shape);
  const size_t rows_floats =
      size_t(past * shape.channels() +
             (call.half ? (past + chunk_length) * shape.row() + chunk_length * shape.inner() : 0));
  const size_t state_floats = isa.state_floats(shape);
  const bool past_caches = !call.half && call.batch * call.length * shape.inner() >= large &&
                           shape.inner() % 16 == 0 && reinterpret_cast<uintptr_t>(call.y) % 64 == 0;

  // Token t of sequence b, in scan order, in a tensor with `width` columns.
  int64_t at(int64_t b, int64_t t, int64_t width) const {
    return (b * call.length + (call.reverse ? call.length - 1 - t : t)) * width;
  }
  const float* conv_state(int64_t b) const {
    return call.conv_state + (call.conv_state_is_shared ? 0 : b) * shape.channels() * past;
  }
  const float* ssm_state(int64_t b) const {
    return call.ssm_state + (call.ssm_state_is_shared ? 0 : b) * state_size;
  }
  bool state_is_read(int64_t chunk) const { return chunk + 1 < chunks || call.ssm_state_out; }
};

// The rows of one chunk as the instruction sets want them: pointers in scan order, to float32. What
// comes before the first token is the state of the convolution, transposed into rows.
struct Rows {
  int count = 0;
  const float* xbc_and_past[max_taps - 1 + chunk_length];
  const float* z[chunk_length];
  float* out[chunk_length];
  const float* const* xbc = nullptr;

  void open(const Plan& plan, int64_t b, int64_t chunk, float* memory) {
    const Shape& s = plan.shape;
    const int64_t first = chunk * chunk_length, channels = s.channels();
    count = int(std::min<int64_t>(chunk_length, plan.call.length - first));
    xbc = xbc_and_past + plan.past;
    float* widened = memory + plan.past * channels;
    float* outputs = widened + (plan.past + chunk_length) * s.row();
    for (int64_t i = -plan.past; i < count; ++i) {
      const int64_t t = first + i;
      if (t < 0) {
        float* row = memory + (plan.past + t) * channels;
        for (int64_t c = 0; c < channels; ++c)
          row[c] = plan.conv_state(b)[c * plan.past + plan.past + t];
        xbc_and_past[plan.past + i] = row;
        continue;
      }
      const float* row = static_cast<const float*>(plan.call.zxbcdt) + plan.at(b, t, s.row());
      if (plan.call.half) {
        plan.isa.widen(static_cast<const uint16_t*>(plan.call.zxbcdt) + plan.at(b, t, s.row()),
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

  void close(const Plan& plan, int64_t b, int64_t chunk) const {
    if (!plan.call.half) return;
    for (int i = 0; i < count; ++i)
      plan.isa.narrow(out[i],
                      static_cast<uint16_t*>(plan.call.y) +
                          plan.at(b, chunk * chunk_length + i, plan.shape.inner()),
                      plan.shape.inner());
  }
};

// The convolution's state after the last token, from its inputs or, in a short sequence, from what
// was there before.
void store_conv_state(const Plan& plan, int64_t b) {
  if (!plan.call.conv_state_out) return;
  const int64_t channels = plan.shape.channels(), past = plan.past, row = plan.shape.row();
  const float* before = plan.conv_state(b);
  float* after = plan.call.conv_state_out + b * channels * past;
  Pool::Loan memory(pool, size_t(channels));
  for (int64_t k = 0; k < past; ++k) {
    const int64_t t = plan.call.length - past + k;
    const int64_t at = plan.at(b, t, row) + plan.shape.inner();
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
  if (plan.chunks)
    plan.isa.store_state(plan.shape, panels, after);
  else
    std::memcpy(after, plan.ssm_state(b), size_t(plan.state_size) * 4);
}

// The state that sequence b starts from, in panels, or null if it is zero and needs no products.
class Start {
  const Plan& plan;
  bool shared_is_zero;

  bool is_zero(int64_t b) const {
    const float* state = plan.ssm_state(b);
    return std::all_of(state, state + plan.state_size, [](float v) { return v == 0; });
  }

 public:
  explicit Start(const Plan& plan)
      : plan(plan), shared_is_zero(plan.call.ssm_state_is_shared && is_zero(0)) {}

  const float* load(int64_t b, float* panels) const {
    if (plan.call.ssm_state_is_shared ? shared_is_zero : is_zero(b)) return nullptr;
    plan.isa.load_state(plan.shape, plan.ssm_state(b), panels);
    return panels;
  }
};

void many_sequences(const Plan& plan, const Weights& weights, const Parallel& parallel) {
  const Start start(plan);
  parallel(plan.call.batch, [&](int64_t b) {
    Pool::Loan memory(pool, plan.block_floats + plan.state_floats + plan.rows_floats);
    float *block = memory.data(), *panels = block + plan.block_floats;
    const float* state = plan.chunks ? start.load(b, panels) : nullptr;
    Rows rows;
    for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
      rows.open(plan, b, chunk, panels + plan.state_floats);
      plan.isa.prepare(plan.shape, weights, rows.xbc, rows.count, block);
      plan.isa.finish(plan.shape, weights, rows.z, rows.out, rows.count, plan.past_caches, block,
                      state, plan.state_is_read(chunk) ? panels : nullptr);
      rows.close(plan, b, chunk);
      state = panels;
    }
    store_conv_state(plan, b);
    store_ssm_state(plan, b, panels);
  });
}

void few_sequences(const Plan& plan, const Weights& weights, const Parallel& parallel) {
  const int64_t batch = plan.call.batch, heads = plan.shape.heads;
  const int64_t stretch = std::min(plan.chunks, std::max<int64_t>(1, many / batch));
  const size_t chunk_floats = plan.block_floats + plan.state_floats + plan.rows_floats;
  Pool::Loan memory(pool, size_t(batch) * (size_t(stretch) * chunk_floats + plan.state_floats));
  auto running = [&](int64_t b) { return memory.data() + size_t(b) * plan.state_floats; };
  auto block = [&](int64_t i) {
    return memory.data() + size_t(batch) * plan.state_floats + size_t(i) * chunk_floats;
  };
  auto own_state = [&](int64_t i) { return block(i) + plan.block_floats; };
  std::vector<Rows> rows(size_t(batch * stretch));
  std::vector<char> from_zero(static_cast<size_t>(batch));

  const Start start(plan);
  parallel(batch, [&](int64_t b) {
    from_zero[size_t(b)] = !start.load(b, running(b));
    if (from_zero[size_t(b)]) std::fill_n(running(b), plan.state_floats, 0.0f);
  });
  for (int64_t first = 0; first < plan.chunks; first += stretch) {
    const int64_t count = std::min(stretch, plan.chunks - first);
    parallel(batch * count, [&](int64_t i) {
      const int64_t b = i / count, chunk = first + i % count;
      Rows& r = rows[size_t(i)];
      r.open(plan, b, chunk, own_state(i) + plan.state_floats);
      plan.isa.prepare(plan.shape, weights, r.xbc, r.count, block(i));
      if (plan.state_is_read(chunk))
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
      const int64_t b = i / count, chunk = first + i % count;
      const Rows& r = rows[size_t(i)];
      const bool is_zero = chunk == 0 && from_zero[size_t(b)];
      plan.isa.finish(plan.shape, weights, r.z, r.out, r.count, plan.past_caches, block(i),
                      is_zero ? nullptr : own_state(i), nullptr);
      r.close(plan, b, chunk);
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
      const FlushToZero here;
      body(i);
    });
  };
  if (!enough_sequences(call.batch) && plan.chunks)
    few_sequences(plan, weights, parallel);
  else
    many_sequences(plan, weights, parallel);
}

}  // namespace bsmamba2
