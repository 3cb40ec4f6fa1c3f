// One call of the scan on CUDA: the structure that the host fills in and every kernel takes as its
// only argument, and the sizes that host and kernels share. Shapes and meanings: ../README.md.
#pragma once

#if defined(__CUDACC_RTC__)
typedef long long int64_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned short uint16_t;
#else
#include <cstdint>
#include <cstring>
#endif

namespace bsmamba2::cuda {

// Input and output tokens are float or one of these types; everything else is float32.
struct Half { uint16_t bits; };
struct Bfloat { uint16_t bits; };

// bfloat16 is the upper half of a float32.
inline float widen(Bfloat v) {
  const uint32_t word = uint32_t(v.bits) << 16;
  float wide;
  memcpy(&wide, &word, sizeof wide);
  return wide;
}
inline float widen(float v) { return v; }

constexpr int head_dim = 64;  // P, the only one with kernels
constexpr int taps = 4;

struct Call {
  int64_t batch, length;
  int32_t heads;
  int32_t conv_batch, ssm_batch;  // the states' batch sizes: batch or 1
  int32_t reverse;                // 0 or 1
  int32_t dt_columns;             // H, and the columns of padding after dt
  float epsilon;
  const void* zxbcdt;        // (batch, length, 2I + 2N + dt_columns)
  const float* conv_weight;  // (I + 2N, 1, 4)
  const float* conv_bias;    // (I + 2N)
  const float* dt_bias;      // (H)
  const float* A_log;        // (H)
  const float* D;            // (H)
  const float* norm_weight;  // (I)
  const float* conv_state;   // (batch or 1, I + 2N, 3)
  const float* ssm_state;    // (batch or 1, H, P, N)
  void* y;                   // (batch, length, I)
  float* conv_state_out;     // null if not needed
  float* ssm_state_out;
  void* workspace;           // workspace_bytes, aligned to 256
};

// A call of residual_norm: network/bsmamba2_network/residual_norm.py. D is a multiple of 8.
struct Residual {
  int64_t batch, m, n;
  int32_t features;          // D
  float epsilon, next_epsilon;
  const float* x;            // (batch, m, n, D)
  const void* forwards;      // like x, in the type of the tokens
  const void* backwards;
  const void* scaled;
  const float* bias;         // (D)
  float* joined;             // (batch, n, m, D)
  void* unit;                // like joined, in the type of the tokens
};
constexpr int residual_threads = 128;
constexpr int residual_most_features = 1024;

// The sizes for one type of tokens, one size of the state and segments of Q tokens.
template <class T, int N_, int Q_ = sizeof(T) == 2 ? 64 : 32>
struct Sizes {
  using Token = T;
  static constexpr int N = N_, P = head_dim, Q = Q_;
  static constexpr int pad = 16 / sizeof(T);  // puts the rows of shared memory in different banks
  static constexpr int warps = 4, threads = 32 * warps;
  static constexpr int prepare_threads = 256, normalise_threads = 128;

  // The shared memory of one block of `advance`.
  struct Shared {
    T B[Q][N + pad], C[Q][N + pad];
    T x[Q][P + pad];
    T z[Q][P + pad];      // later the outputs
    T state[P][N + pad];
    float total[Q];       // log2 of the decay from the segment's start, and its rounding error
    float total_low[Q];
    float delta[Q];
    float to_end[Q];      // Δ times the decay to the segment's end
    float from_start[Q];  // the decay from the segment's start
    float squares[warps][16];
    float whole_decay;    // over the whole segment
  };

  static int64_t segments(const Call& c) { return (c.length + Q - 1) / Q; }
  // Blocks of `prepare` per sequence: at least one, which writes the states.
  static int64_t prepare_blocks(const Call& c) { return c.length ? segments(c) : 1; }

  // The workspace: B and C of all segments, the mean square of each head's output for each token,
  // and one word per head that is nonzero if the head's shared initial state is.
  static int64_t mean_squares_at(const Call& c) {
    return (c.batch * segments(c) * 2 * Q * N * int64_t(sizeof(T)) + 255) / 256 * 256;
  }
  static int64_t nonzero_heads_at(const Call& c) {
    return (mean_squares_at(c) + c.batch * c.length * c.heads * 4 + 255) / 256 * 256;
  }
  static int64_t workspace_bytes(const Call& c) { return nonzero_heads_at(c) + c.heads * 4; }
  static T* B_and_C(const Call& c) { return static_cast<T*>(c.workspace); }
  static float* mean_squares(const Call& c) {
    return reinterpret_cast<float*>(static_cast<char*>(c.workspace) + mean_squares_at(c));
  }
  static int32_t* nonzero_heads(const Call& c) {
    return reinterpret_cast<int32_t*>(static_cast<char*>(c.workspace) + nonzero_heads_at(c));
  }
};

using fp32_n64 = Sizes<float, 64>;
using fp32_n128 = Sizes<float, 128>;
using fp16_n64 = Sizes<Half, 64>;
using fp16_n128 = Sizes<Half, 128>;
using bf16_n64 = Sizes<Bfloat, 64>;
using bf16_n128 = Sizes<Bfloat, 128>;
// For GPUs whose multiprocessors have too little shared memory for two blocks of n128.
using fp16_n128_short = Sizes<Half, 128, 32>;
using bf16_n128_short = Sizes<Bfloat, 128, 32>;

}  // namespace bsmamba2::cuda
