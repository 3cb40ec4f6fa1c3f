// The scan between in_proj and out_proj of a Mamba2 mixer, for any host: the call, the interface to
// the instruction sets, and the loop over sequences, time and heads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace bsmamba2 {

// Tokens that are processed together. segment.cpp counts the operations.
constexpr int segment_length = 64;
constexpr int max_taps = 4;

struct Shape {
  int64_t heads;     // H
  int64_t head_dim;  // P
  int64_t state;     // N
  int64_t taps;      // K, the width of the convolution

  // Always inlined: each instruction set compiles these, and the linker would keep only one copy.
#define ALWAYS_INLINE inline __attribute__((always_inline))
  ALWAYS_INLINE int64_t inner() const { return heads * head_dim; }             // I
  ALWAYS_INLINE int64_t channels() const { return inner() + 2 * state; }       // x | B | C
  ALWAYS_INLINE int64_t row() const { return inner() + channels() + heads; }   // z | x | B | C | dt
};

// The weights of one mixer. The convolution's weights are stored tap by tap, so that channels are
// adjacent.
struct Weights {
  const float* taps;       // (K, I + 2N)
  const float* conv_bias;  // (I + 2N)
  const float* dt_bias;    // (H)
  const float* A;          // (H), -exp(A_log)
  const float* D;          // (H)
  const float* norm;       // (I)
  float epsilon;
};

struct Adjoint;

// The functions that each instruction set implements, for one segment of one sequence. The block of
// a segment holds everything that does not depend on the state before it, so that segments can be
// prepared in parallel. Segments of one sequence run one after another as
//
//     prepare   convolution, softplus, decays, C·Bᵀ            rows -> block
//     finish    outputs of all heads, gate, norm; the state     block, state, z -> out, state
//
// or in parallel as
//
//     advance   the state after the segment if it starts at 0   block -> own state
//     combine   the state after the segment, and the state      running, own state -> the same
//               before it (replaces its own state)
//     finish    the rest                                        block, own state, z -> out
//
// finish overwrites the block. A null input state is zero; a null output state is not computed.
// `past_caches` writes y to memory without caching it; its rows must then be whole cache lines. A
// state is stored head by head in panels with as many columns as a tile: (H, panels, N, columns).
struct Isa {
  const char* name;
  size_t (*block_floats)(const Shape&);
  size_t (*state_floats)(const Shape&);
  // `xbc[i]` points to the x|B|C columns of token i. i starts at -(K-1): the convolution's state.
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

// Returns the instruction set with this name, or the best one of this machine if the name is null
// or empty. Returns null if the machine does not support it; `isa_names` lists the supported ones.
const Isa* choose_isa(const char* name);
std::string isa_names();

// Returns the instruction set of this process: the one that BSMAMBA2_ISA names at the first call,
// or the best one. Throws if the machine does not support it.
const Isa& isa();

// One call. zxbcdt and y are float32 or, if `half`, float16; everything else is float32.
struct Call {
  Shape shape;
  int64_t batch, length;
  bool half, reverse;
  float epsilon;
  int64_t row;                // numbers from one token of zxbcdt to the next; 0 without padding
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
  float* conv_state_out;      // null if not needed
  float* ssm_state_out;
};

// Runs body(0) … body(n - 1), in any order, on any number of threads.
using Parallel = std::function<void(int64_t n, const std::function<void(int64_t)>& body)>;

// Throws std::bad_alloc. The bits of the result do not depend on the number of threads or on how
// the work is split among them.
void scan(const Call&, const Isa&, const Parallel&);

}  // namespace bsmamba2
