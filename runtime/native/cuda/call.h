// One call of the scan on CUDA: what the host fills in and every kernel takes as its one argument,
// and the sizes that host and kernels must agree on. Shapes and meanings: ../README.md.
#pragma once

#if defined(__CUDACC_RTC__)
typedef long long int64_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned short uint16_t;
#else
#include <cstdint>
#endif

namespace bsmamba2::cuda {

// Tokens come and go as one of these; everything else is float32.
struct Half { uint16_t bits; };
struct Bfloat { uint16_t bits; };

constexpr int head_dim = 64;  // P, the one that there are kernels for
constexpr int taps = 4;

struct Call {
  int64_t batch, length;
  int32_t heads;
  int32_t conv_batch, ssm_batch;  // of the states: batch or 1
  int32_t reverse;                // 0 or 1
  float epsilon;
  const void* zxbcdt;        // (batch, length, 2I + 2N + H)
  const float* conv_weight;  // (I + 2N, 1, 4)
  const float* conv_bias;    // (I + 2N)
  const float* dt_bias;      // (H)
  const float* A_log;        // (H)
  const float* D;            // (H)
  const float* norm_weight;  // (I)
  const float* conv_state;   // (batch or 1, I + 2N, 3)
  const float* ssm_state;    // (batch or 1, H, P, N)
  void* y;                   // (batch, length, I)
  float* conv_state_out;     // null where nobody reads it
  float* ssm_state_out;
  void* workspace;           // workspace_bytes of it, aligned to 256
};

// Sizes of one kind of tokens and one size of the state.
template <class T, int N_>
struct Sizes {
  static constexpr int N = N_, P = head_dim;
  static constexpr int Q = sizeof(T) == 2 ? 64 : 32;  // tokens of a chunk
  static constexpr int pad = 16 / sizeof(T);          // keeps rows of shared memory apart in banks
  static constexpr int warps = 4, threads = 32 * warps;
  static constexpr int prepare_threads = 256, normalise_threads = 128;

  // What one block of `advance` keeps in shared memory.
  struct Shared {
    T B[Q][N + pad], C[Q][N + pad];
    T x[Q][P + pad];
    T z[Q][P + pad];      // then the outputs
    T state[P][N + pad];
    float total[Q];       // log2 of the decay from the chunk's start, and what that rounds away
    float total_rest[Q];
    float delta[Q];
    float to_end[Q];      // Δ times the decay to the chunk's end
    float gain[Q];        // the decay from the chunk's start
    float squares[warps][16];
    float whole;
  };

  static int64_t chunks(const Call& c) { return (c.length + Q - 1) / Q; }
  // Blocks of `prepare` a sequence: one even where there are no tokens, for the states.
  static int64_t prepared(const Call& c) { return c.length ? chunks(c) : 1; }

  // The workspace: B and C of all chunks, mean squares of the heads, one word a head.
  static int64_t power_at(const Call& c) {
    return (c.batch * chunks(c) * 2 * Q * N * int64_t(sizeof(T)) + 255) / 256 * 256;
  }
  static int64_t busy_at(const Call& c) {
    return (power_at(c) + c.batch * c.length * c.heads * 4 + 255) / 256 * 256;
  }
  static int64_t workspace_bytes(const Call& c) { return busy_at(c) + c.heads * 4; }
  static T* shared(const Call& c) { return static_cast<T*>(c.workspace); }
  static float* power(const Call& c) {
    return reinterpret_cast<float*>(static_cast<char*>(c.workspace) + power_at(c));
  }
  static int32_t* busy(const Call& c) {
    return reinterpret_cast<int32_t*>(static_cast<char*>(c.workspace) + busy_at(c));
  }
};

}  // namespace bsmamba2::cuda
