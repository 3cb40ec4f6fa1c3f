// Tests the kernels without ONNX Runtime, for sanitizers and for machines without it: random shapes
// on every instruction set, compared with the recurrence in double, and with the same bits on 1 and
// 4 threads.
//
//     kernel_driver [rounds]
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "scan.h"
#include "training.h"

using namespace bsmamba2;
using Floats = std::vector<float>;

static std::mt19937 random_bits(0);

static int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_bits);
}

static Floats normal(int64_t count, float mean = 0, float deviation = 1) {
  std::normal_distribution<float> draw(mean, deviation);
  Floats values(static_cast<size_t>(count));
  for (float& value : values) value = draw(random_bits);
  return values;
}

static void threads(int count, int64_t n, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  auto work = [&] {
    for (int64_t i; (i = next++) < n;) body(i);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < count; ++t) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
}

// One call with its input tensors.
struct Case {
  Call call{};
  Floats tokens, taps, bias, dt_bias, A_log, D, norm, conv, ssm;

  explicit Case(bool for_training) {
    const int64_t states[] = {1, 8, 17, 64}, dims[] = {1, 7, 16, 64, 72};
    Shape& s = call.shape;
    s = {between(1, 5), dims[between(0, 4)], states[between(0, 3)], between(2, 4)};
    if (for_training) s.head_dim = 64, s.state = 64 * between(1, 2);
    call.batch = between(0, 9) ? between(0, 4) : 40;
    call.length = between(0, 3) ? between(for_training, 150) : between(60, 68);
    call.reverse = between(0, 1);
    call.epsilon = 1e-5f;
    call.conv_state_is_shared = between(0, 1) || call.batch == 1;
    call.ssm_state_is_shared = between(0, 1) || call.batch == 1;
    const int64_t convs = call.conv_state_is_shared ? 1 : call.batch;
    const int64_t ssms = call.ssm_state_is_shared ? 1 : call.batch;
    tokens = normal(call.batch * call.length * s.row());
    taps = normal(s.channels() * s.taps, 0, 0.5f), bias = normal(s.channels());
    dt_bias = normal(s.heads, -2), A_log = normal(s.heads, 1), D = normal(s.heads);
    norm = normal(s.inner());
    conv = normal(convs * s.channels() * (s.taps - 1));
    ssm = normal(ssms * s.inner() * s.state, 0, float(between(0, 1)));
    call.zxbcdt = tokens.data(), call.conv_weight = taps.data(), call.conv_bias = bias.data();
    call.dt_bias = dt_bias.data(), call.A_log = A_log.data(), call.D = D.data();
    call.norm_weight = norm.data(), call.conv_state = conv.data(), call.ssm_state = ssm.data();
  }

  // Runs the scan. Returns y and both states, concatenated.
  Floats run(const Isa& isa, int thread_count) {
    const Shape& s = call.shape;
    const int64_t y = call.batch * call.length * s.inner();
    const int64_t conv_size = call.batch * s.channels() * (s.taps - 1);
    Floats out(size_t(y + conv_size + call.batch * s.inner() * s.state), 7.0f);
    call.y = out.data();
    call.conv_state_out = out.data() + y;
    call.ssm_state_out = out.data() + y + conv_size;
    scan(call, isa, [thread_count](int64_t n, const std::function<void(int64_t)>& body) {
      threads(thread_count, n, body);
    });
    return out;
  }

  // Returns all gradients of the sum of all outputs, concatenated; empty if the call failed.
  Floats gradients(int thread_count) {
    const Shape& s = call.shape;
    const int64_t conv_size = call.batch * s.channels() * (s.taps - 1);
    const int64_t ssm_size = call.batch * s.inner() * s.state, length = call.length;
    const Sizes sizes{call.batch, length, s.heads, s.head_dim, s.state, s.taps, call.reverse,
                      call.conv_state_is_shared ? 1 : call.batch,
                      call.ssm_state_is_shared ? 1 : call.batch, thread_count};
    const Inputs in{tokens.data(), taps.data(), bias.data(), dt_bias.data(), A_log.data(),
                    D.data(), norm.data(), conv.data(), ssm.data()};
    const Floats ones(size_t(std::max({call.batch * length * s.inner(), conv_size, ssm_size})), 1);
    const OutputGradients dout{ones.data(), ones.data(), ones.data()};
    const int64_t counts[] = {call.batch * length * s.row(), s.channels() * s.taps, s.channels(),
                              s.heads, s.heads, s.heads, s.inner(), conv_size, ssm_size};
    Floats result(size_t(std::accumulate(counts, counts + 9, int64_t(0))), 7.0f);
    float *at[9], *next = result.data();
    for (int i = 0; i < 9; next += counts[i++]) at[i] = next;
    const InputGradients out{at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8]};
    if (bsmamba2_scan_gradients(&sizes, call.epsilon, &in, &dout, &out)) result.clear();
    return result;
  }

  // The expected result of `run`.
  Floats recurrence() const {
    const Shape& s = call.shape;
    const int64_t past = s.taps - 1, channels = s.channels();
    Floats y(size_t(call.batch * call.length * s.inner())), convs, states;
    for (int64_t b = 0; b < call.batch; ++b) {
      auto row = [&](int64_t t) {
        const int64_t at = call.reverse ? call.length - 1 - t : t;
        return tokens.data() + (b * call.length + at) * s.row();
      };
      auto conv_input = [&](int64_t t, int64_t c) {
        const int64_t own = call.conv_state_is_shared ? 0 : b;
        return t < 0 ? conv[size_t((own * channels + c) * past + past + t)] : row(t)[s.inner() + c];
      };
      auto silu = [](double x) { return x / (1 + std::exp(-x)); };
      const int64_t own = call.ssm_state_is_shared ? 0 : b, size = s.inner() * s.state;
      std::vector<double> h(ssm.begin() + own * size, ssm.begin() + (own + 1) * size);
      std::vector<double> x(static_cast<size_t>(channels)), out(static_cast<size_t>(s.inner()));
      for (int64_t t = 0; t < call.length; ++t) {
        for (int64_t c = 0; c < channels; ++c) {
          double sum = bias[size_t(c)];
          for (int64_t k = 0; k <= past; ++k)
            sum += double(taps[size_t(c * s.taps + k)]) * conv_input(t - past + k, c);
          x[size_t(c)] = silu(sum);
        }
        const double *B = x.data() + s.inner(), *C = B + s.state;
        double squares = 0;
        for (int64_t i = 0; i < s.inner(); ++i) {
          const size_t head = size_t(i / s.head_dim);
          const double step = double(row(t)[s.inner() + channels + int64_t(head)]) + dt_bias[head];
          const double delta = std::log1p(std::exp(-std::fabs(step))) + std::fmax(step, 0);
          const double decay = std::exp(-delta * std::exp(double(A_log[head])));
          double sum = double(D[head]) * x[size_t(i)];
          for (int64_t n = 0; n < s.state; ++n) {
            double& cell = h[size_t(i * s.state + n)];
            cell = decay * cell + delta * x[size_t(i)] * B[n];
            sum += cell * C[n];
          }
          out[size_t(i)] = sum * silu(row(t)[i]);
          squares += out[size_t(i)] * out[size_t(i)];
        }
        const double scale = 1 / std::sqrt(squares / double(s.inner()) + call.epsilon);
        const int64_t at = call.reverse ? call.length - 1 - t : t;
        for (int64_t i = 0; i < s.inner(); ++i)
          y[size_t((b * call.length + at) * s.inner() + i)] =
              float(out[size_t(i)] * scale * norm[size_t(i)]);
      }
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t k = 0; k < past; ++k) convs.push_back(conv_input(call.length - past + k, c));
      states.insert(states.end(), h.begin(), h.end());
    }
    y.insert(y.end(), convs.begin(), convs.end());
    y.insert(y.end(), states.begin(), states.end());
    return y;
  }
};

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 100;
  double worst = 1e9;
  for (int round = 0; round < rounds; ++round) {
    Case c(false);
    const Floats expected = c.recurrence();
    for (const char* name : {"portable", "avx2", "avx512"}) {
      const Isa* isa = choose_isa(name);
      if (!isa) continue;
      const Floats alone = c.run(*isa, 1), shared = c.run(*isa, 4);
      if (!alone.empty() && std::memcmp(alone.data(), shared.data(), alone.size() * 4))
        return std::printf("round %d, %s: different bits on 4 threads\n", round, name), 1;
      double power = 0, error = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        power += double(expected[i]) * expected[i];
        error += (double(expected[i]) - alone[i]) * (double(expected[i]) - alone[i]);
      }
      const double snr_db = error > 0 || error != error ? 10 * std::log10(power / error) : 300;
      if (!(snr_db >= 100)) return std::printf("round %d, %s: %.1f dB\n", round, name, snr_db), 1;
      worst = std::fmin(worst, snr_db);
    }
  }
  for (int round = 0; round < rounds; ++round) {
    Case c(true);
    const Floats alone = c.gradients(1), shared = c.gradients(4);
    if (alone.empty() || alone.size() != shared.size() ||
        std::memcmp(alone.data(), shared.data(), alone.size() * 4))
      return std::printf("round %d: different gradients on 4 threads\n", round), 1;
    for (float value : alone)
      if (!std::isfinite(value)) return std::printf("round %d: not finite\n", round), 1;
  }
  std::printf("%d rounds on %s: at least %.0f dB.\n", rounds, isa_names().c_str(), worst);
}
