#include "training.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <new>
#include <vector>

#include "adjoint.h"
#include "pool.h"
#include "scan.h"
#include "threads.h"

namespace bsmamba2 {
namespace {

Pool pool;

Call call_of(const Sizes& n, float epsilon, const Inputs& in) {
  Call call{};
  call.shape = {n.heads, n.head_dim, n.state, n.taps};
  call.batch = n.batch, call.length = n.length, call.reverse = n.reverse, call.epsilon = epsilon;
  call.zxbcdt = in.zxbcdt, call.conv_weight = in.conv_weight, call.conv_bias = in.conv_bias;
  call.dt_bias = in.dt_bias, call.A_log = in.A_log, call.D = in.D;
  call.norm_weight = in.norm_weight;
  call.conv_state = in.conv_state, call.ssm_state = in.ssm_state;
  call.conv_state_is_shared = n.conv_states == 1, call.ssm_state_is_shared = n.ssm_states == 1;
  return call;
}

template <class Body>
int guarded(Body body) {
  try {
    body();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

// Sums over sequences are computed in this many parts, which are added in order, so that the bits
// of the result do not depend on the number of threads.
constexpr int64_t parts = 16;

struct Sums {
  const Shape& s;
  size_t floats() const {
    return size_t((s.taps + 1) * s.channels() + 3 * s.heads + s.inner());
  }
  WeightSums at(float* memory) const {
    WeightSums w{};
    w.taps = memory, memory += s.taps * s.channels();
    w.conv_bias = memory, memory += s.channels();
    w.norm = memory, memory += s.inner();
    w.dt_bias = memory, w.A_log = memory + s.heads, w.D = memory + 2 * s.heads;
    return w;
  }
};

void gradients(const Sizes& n, const Call& call, const Inputs& in, const OutputGradients& dout,
               const InputGradients& out) {
  const Shape& s = call.shape;
  const int64_t channels = s.channels(), conv = channels * (s.taps - 1), ssm = s.inner() * s.state;
  Pool::Loan prepared(pool, size_t(s.taps * channels + s.heads));
  float *by_tap = prepared.data(), *A = by_tap + s.taps * channels;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = 0; k < s.taps; ++k) by_tap[k * channels + c] = in.conv_weight[c * s.taps + k];
  for (int64_t h = 0; h < s.heads; ++h) A[h] = -std::exp(in.A_log[h]);
  const Weights weights{by_tap, in.conv_bias, in.dt_bias, A, in.D, in.norm_weight, call.epsilon};
  const bool from_zero = n.ssm_states == 1 && std::all_of(in.ssm_state, in.ssm_state + ssm,
                                                          [](float v) { return v == 0; });
  const Sums sums{s};
  Pool::Loan all(pool, parts * sums.floats());
  std::fill_n(all.data(), parts * sums.floats(), 0.0f);
  on_threads(n.threads)(parts, [&](int64_t part) {
    Pool::Loan memory(pool, isa().adjoint->floats(s, n.length));
    for (int64_t b = n.batch * part / parts; b < n.batch * (part + 1) / parts; ++b) {
      const int64_t first = b * n.length + (n.reverse ? n.length - 1 : 0);
      const int64_t step = n.reverse ? -1 : 1;
      const Sequence q{n.length,
                       in.zxbcdt + first * s.row(),
                       step * s.row(),
                       in.conv_state + (n.conv_states == 1 ? 0 : b * conv),
                       from_zero ? nullptr : in.ssm_state + (n.ssm_states == 1 ? 0 : b * ssm),
                       dout.y + first * s.inner(),
                       step * s.inner(),
                       dout.conv_state ? dout.conv_state + b * conv : nullptr,
                       dout.ssm_state ? dout.ssm_state + b * ssm : nullptr,
                       out.zxbcdt + first * s.row(),
                       out.conv_state + b * conv,
                       out.ssm_state ? out.ssm_state + b * ssm : nullptr};
      isa().adjoint->run(s, weights, q, sums.at(all.data() + size_t(part) * sums.floats()),
                       memory.data());
    }
  });
  float* total = all.data();
  for (int64_t part = 1; part < parts; ++part)
    for (size_t i = 0; i < sums.floats(); ++i) total[i] += total[size_t(part) * sums.floats() + i];
  const WeightSums w = sums.at(total);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = 0; k < s.taps; ++k) out.conv_weight[c * s.taps + k] = w.taps[k * channels + c];
  std::copy_n(w.conv_bias, channels, out.conv_bias);
  std::copy_n(w.dt_bias, s.heads, out.dt_bias);
  std::copy_n(w.A_log, s.heads, out.A_log);
  std::copy_n(w.D, s.heads, out.D);
  std::copy_n(w.norm, s.inner(), out.norm_weight);
}

}  // namespace
}  // namespace bsmamba2

using namespace bsmamba2;

int bsmamba2_scan(const Sizes* sizes, float epsilon, const Inputs* in, const Outputs* out) {
  return guarded([&] {
    Call call = call_of(*sizes, epsilon, *in);
    call.y = out->y, call.conv_state_out = out->conv_state, call.ssm_state_out = out->ssm_state;
    scan(call, isa(), on_threads(sizes->threads));
  });
}

int bsmamba2_scan_gradients(const Sizes* sizes, float epsilon, const Inputs* in,
                            const OutputGradients* dout, const InputGradients* out) {
  return guarded([&] { gradients(*sizes, call_of(*sizes, epsilon, *in), *in, *dout, *out); });
}
