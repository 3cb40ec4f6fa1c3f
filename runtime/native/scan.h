// The scan between in_proj and out_proj of a Mamba2 mixer, for any host: what to compute, the
// instruction sets that can compute it, and the loop over sequences, time and heads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace bsmamba2 {

// Tokens that are computed at once. See README.md for the operations this costs.
constexpr int chunk_length = 64;
constexpr int max_taps = 4;

struct Shape {
  int64_t heads;     // H
  int64_t head_dim;  // P
  int64_t state;     // N
  int64_t taps;      // K, width of the convolution

  // Always inlined, as every instruction set compiles them and the linker would keep one copy.
#define ALWAYS_INLINE inline __attribute__((always_inline))
  ALWAYS_INLINE int64_t inner() const { return heads * head_dim; }             // I
  ALWAYS_INLINE int64_t channels() const { return inner() + 2 * state; }       // x | B | C
  ALWAYS_INLINE int64_t row() const { return inner() + channels() + heads; }   // z | x | B | C | dt
};

// The weights of one mixer. The convolution's taps lie tap by tap, so that channels are adjacent.
struct Weights {
  const float* taps;       // (K, I + 2N)
  const float* conv_bias;  // (I + 2N)
  const float* dt_bias;    // (H)
  const float* A;          // (H), -exp(A_log)
  const float* D;          // (H)
  const float* norm;       // (I)
  float epsilon;
};

// What one instruction set offers, for one chunk of one sequence. A chunk's block holds everything
// that is known about it before the state arrives, so that chunks can be prepared side by side.
//
//     prepare   convolution, softplus, decays, C·Bᵀ            rows -> block
//     finish    outputs of all heads, gate, norm; the state     block, state, z -> out, state
//
// or, where chunks are computed side by side,
//
//     advance   the state that the chunk adds up by itself      block -> own state
//     combine   the state after the chunk, and into its own     running, own state -> the same
//               the one that it starts from
//     finish    the rest                                        block, own state, z -> out
//
// finish uses the block up. A null state is zero, or is not wanted. `past_caches` asks that y go
// straight to memory; its rows must then be whole cache lines. A state lies head by head in panels
// of as many columns as a tile has: (H, panels, N, columns).
struct Adjoint;

struct Isa {
  const char* name;
  size_t (*block_floats)(const Shape&);
  size_t (*state_floats)(const Shape&);
  // `xbc[i]` points to the x|B|C columns of token i; i from -(K-1), the convolution's past.
  void (*prepare)(const Shape&, const Weights&, const float* const* xbc, int rows, float* block);
  void (*advance)(const Shape&, int rows, const float* block, float* own);
  void (*combine)(const Shape&, int64_t head, int rows, const float* block, float* running,
                  float* own);
  void (*finish)(const Shape&, const Weights&, const float* const* z, float* const* out, int rows,
                 bool past_caches, float* block, const float* before, float* after);
  void (*load_state)(const Shape&, const float* state, float* panels);   // from (H, P, N)
  void (*store_state)(const Shape&, const float* panels, float* state);  // to (H, P, N)
  void (*widen)(const uint16_t* half, float* single, int64_t count);
  void (*narrow)(const float* single, uint16_t* half, int64_t count);
  const Adjoint* adjoint;  // the gradients, see adjoint.h
};

// The best instruction set of this machine, or the one that is asked for by name. Null where that
// names none that runs here; `isa_names` then lists those that do.
const Isa* choose_isa(const char* asked);
std::string isa_names();

// The one of this process: as BSMAMBA2_ISA asks at the first call, or the best. Throws where it
// names none that runs here.
const Isa& isa();

// One call. Sequences of zxbcdt and y are float32 or, if `half`, float16; all else is float32.
struct Call {
  Shape shape;
  int64_t batch, length;
  bool half, reverse;
  float epsilon;
  const void* zxbcdt;         // (B, L, 2I + 2N + H)
  const float* conv_weight;   // (I + 2N, 1, K)
  const float* conv_bias;
  const float* dt_bias;
  const float* A_log;
  const float* D;
  const float* norm_weight;
  const float* conv_state;    // (B or 1, I + 2N, K - 1)
  const float* ssm_state;     // (B or 1, H, P, N)
  bool conv_state_is_shared, ssm_state_is_shared;
  void* y;                    // (B, L, I)
  float* conv_state_out;      // null where nobody reads it
  float* ssm_state_out;
};

// Runs body(0) … body(n - 1), in any order, on as many threads as the host likes.
using Parallel = std::function<void(int64_t n, const std::function<void(int64_t)>& body)>;

// Throws std::bad_alloc. The result has the same bits however many threads take part and
// however the work is split among them.
void scan(const Call&, const Isa&, const Parallel&);

}  // namespace bsmamba2
