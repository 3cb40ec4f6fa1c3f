// Replaces runtime/native/cuda/device.h to run the same kernels on a CPU, with each lane of a block
// as a fiber. A warp collective takes the values of all 32 lanes and distributes the results as the
// tables of the PTX manual define. A lane that waits lets the next one run.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define DEVICE inline
#define KERNEL(name, Argument, threads, blocks) \
  extern "C" __attribute__((visibility("default"))) void name(const bsmamba2::cuda::Argument& call)

namespace bsmamba2::cuda {

// One block, run on one thread of the host. Between two synchronisation points a lane runs without
// interruption. A block can run with its lanes in either order: if the results differ, the kernel
// lacks a barrier.
class Block {
  static constexpr size_t stack_bytes = 1 << 16;
  struct Lane {
    ucontext_t context;
    jmp_buf place;  // jumps are faster than switching contexts, because they skip the signal mask
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
    bool started = false, done = false;
  };
  struct Meeting {  // of the lanes of a warp or of the block
    int arrived = 0;
    int64_t rounds = 0;
  };
  jmp_buf host;
  std::vector<Lane> lanes;
  std::vector<Meeting> meetings;
  Meeting all;
  const std::function<void()>* body = nullptr;

  static void start() {
    Block& here = *current();
    (*here.body)();
    here.lanes[size_t(here.now)].done = true;
    _longjmp(here.host, 1);
  }
  void meet(Meeting& meeting, int count, const std::function<void()>& on_completion) {
    const int64_t round = meeting.rounds;
    if (++meeting.arrived == count) {
      meeting.arrived = 0;
      ++meeting.rounds;
      on_completion();
    }
    while (meeting.rounds == round)
      if (!_setjmp(lanes[size_t(now)].place)) _longjmp(host, 1);
  }
  void run_lane(int lane) {
    now = lane;
    if (_setjmp(host)) return;
    Lane& next = lanes[size_t(lane)];
    if (next.started) _longjmp(next.place, 1);
    next.started = true;
    setcontext(&next.context);
  }

 public:
  int now = 0;
  int64_t index;
  std::vector<uint64_t> shared;  // filled with NaN, to reveal reads of unwritten parts
  struct Argument { const void* in; void* out; };
  std::vector<Argument> arguments;  // of each lane to its warp's collective

  static Block*& current() {
    static thread_local Block* block = nullptr;
    return block;
  }
  Block(int64_t index, int threads, int64_t shared_bytes)
      : lanes(size_t(threads)), meetings(size_t(threads / 32)), index(index),
        shared(size_t(shared_bytes / 8 + 2), ~uint64_t(0)), arguments(size_t(threads)) {}

  void run(const std::function<void()>& kernel, bool last_lane_first) {
    body = &kernel;
    current() = this;
    for (Lane& lane : lanes) {
      getcontext(&lane.context);
      lane.context.uc_stack.ss_sp = lane.stack.get();
      lane.context.uc_stack.ss_size = stack_bytes;
      makecontext(&lane.context, start, 0);
    }
    const int count = int(lanes.size());
    for (bool running = true; running;) {
      running = false;
      for (int i = 0; i < count; ++i) {
        const int lane = last_lane_first ? count - 1 - i : i;
        if (lanes[size_t(lane)].done) continue;
        running = true;
        run_lane(lane);
      }
    }
  }
  void barrier() { meet(all, int(lanes.size()), [] {}); }

  // Calls work(the arguments of 32 lanes) once, when all lanes have arrived.
  template <class Work>
  void collective(const void* in, void* out, const Work& work) {
    const size_t warp = size_t(now / 32);
    arguments[size_t(now)] = {in, out};
    meet(meetings[warp], 32, [&] { work(&arguments[warp * 32]); });
  }
};

inline int thread() { return Block::current()->now; }
inline int64_t block() { return Block::current()->index; }
inline void barrier() { Block::current()->barrier(); }
inline void* shared_memory() {
  const uintptr_t start = reinterpret_cast<uintptr_t>(Block::current()->shared.data());
  return reinterpret_cast<void*>((start + 15) / 16 * 16);
}

// ---- Warp collectives --------------------------------------------------------------------------

// Every lane gets the value of lane source(lane).
template <class V, class Source>
V exchange(V v, Source source) {
  V got{};
  Block::current()->collective(&v, &got, [&](const Block::Argument* b) {
    for (int l = 0; l < 32; ++l)
      *static_cast<V*>(b[l].out) = *static_cast<const V*>(b[source(l)].in);
  });
  return got;
}
inline float from_lane_xor(float v, int mask) {
  return exchange(v, [mask](int l) { return l ^ mask; });
}
inline double from_last_lane(double v) {
  return exchange(v, [](int) { return 31; });
}
inline double from_lane_below(double v, int by) {
  return exchange(v, [by](int l) { return l < by ? l : l - by; });
}
inline int any_lane(int v) {
  int got = 0;
  Block::current()->collective(&v, &got, [](const Block::Argument* b) {
    int any = 0;
    for (int l = 0; l < 32; ++l) any |= *static_cast<const int*>(b[l].in) != 0;
    for (int l = 0; l < 32; ++l) *static_cast<int*>(b[l].out) = any;
  });
  return got;
}

template <bool transposed>
void load_matrices(uint32_t (&r)[4], const void* row) {
  Block::current()->collective(&row, r, [](const Block::Argument* b) {
    auto element = [b](int matrix, int i, int j) {
      return uint32_t((*static_cast<const uint16_t* const*>(b[matrix * 8 + i].in))[j]);
    };
    for (int l = 0; l < 32; ++l)
      for (int m = 0; m < 4; ++m) {
        const int g = l / 4, two = l % 4 * 2;
        static_cast<uint32_t*>(b[l].out)[m] =
            transposed ? element(m, two, g) | element(m, two + 1, g) << 16
                       : element(m, g, two) | element(m, g, two + 1) << 16;
      }
  });
}

// ---- Numbers ----------------------------------------------------------------------------------

inline uint32_t bits(float v) { uint32_t r; std::memcpy(&r, &v, 4); return r; }
inline float number(uint32_t v) { float r; std::memcpy(&r, &v, 4); return r; }
inline float exp2_fast(float v) { return std::exp2(v); }
inline float divide_fast(float a, float b) { return a / b; }
inline float reciprocal_root(float v) { return 1 / std::sqrt(v); }
inline uint32_t round_to_tf32(float v) {
  return std::isfinite(v) ? (bits(v) + 0x1000) & ~0x1fffu : bits(v);
}
inline float widen(Half v) {
  const float magnitude = (v.bits >> 10 & 31) == 0
      ? float(v.bits & 1023) * 0x1p-24f
      : number(((v.bits >> 10 & 31) == 31 ? 255u : (v.bits >> 10 & 31) + 112u) << 23 |
               uint32_t(v.bits & 1023) << 13);
  return v.bits >> 15 ? -magnitude : magnitude;
}
inline uint16_t narrow(Half, float v) {
  const _Float16 half = _Float16(v);
  uint16_t r;
  std::memcpy(&r, &half, 2);
  return r;
}
inline uint16_t narrow(Bfloat, float v) {
  if (std::isnan(v)) return 0x7fff;
  return uint16_t((bits(v) + 0x7fff + (bits(v) >> 16 & 1)) >> 16);
}
template <class T>
uint32_t narrow_two(T kind, float low, float high) {
  return narrow(kind, low) | uint32_t(narrow(kind, high)) << 16;
}

// ---- Products ---------------------------------------------------------------------------------

struct Operands { float* d; const uint32_t* a; const uint32_t* b; };

// a_at(of, m, k) and b_at(of, k, n) read the operands from the lanes' registers.
template <class A, class B>
void mma_by(int depth, float* d, const uint32_t* a, const uint32_t* b, A a_at, B b_at) {
  const Operands mine{d, a, b};
  Block::current()->collective(&mine, nullptr, [=](const Block::Argument* arguments) {
    auto of = [arguments](int l) { return *static_cast<const Operands*>(arguments[l].in); };
    for (int l = 0; l < 32; ++l)
      for (int e = 0; e < 4; ++e) {
        const int m = l / 4 + e / 2 * 8, n = l % 4 * 2 + e % 2;
        float sum = of(l).d[e];
        for (int k = 0; k < depth; ++k) sum += a_at(of, m, k) * b_at(of, k, n);
        of(l).d[e] = sum;
      }
  });
}
template <class T>
void mma_16(T, float* d, const uint32_t* a, const uint32_t* b) {
  auto half = [](uint32_t word, int i) { return widen(T{uint16_t(word >> i % 2 * 16)}); };
  mma_by(16, d, a, b,
         [half](auto of, int m, int k) {
           return half(of(m % 8 * 4 + k % 8 / 2).a[m / 8 + k / 8 * 2], k);
         },
         [half](auto of, int k, int n) { return half(of(n * 4 + k % 8 / 2).b[k / 8], k); });
}
inline void mma(Half t, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_16(t, d, a, b);
}
inline void mma(Bfloat t, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_16(t, d, a, b);
}
inline void mma(float, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  auto tf32 = [](uint32_t word) { return number(word & ~0x1fffu); };  // the hardware ignores the low bits
  mma_by(8, d, a, b,
         [tf32](auto of, int m, int k) { return tf32(of(m % 8 * 4 + k % 4).a[m / 8 + k / 4 * 2]); },
         [tf32](auto of, int k, int n) { return tf32(of(n * 4 + k % 4).b[k / 4]); });
}

// ---- Copies into shared memory: deferred until wait_for_copies ---------------------------------

struct Copy { void* to; const void* from; };
inline std::vector<std::vector<Copy>>& copies() {
  static thread_local std::vector<std::vector<Copy>> pending;
  return pending;
}
inline void copy_16_bytes(void* to, const void* from) {
  if (copies().size() <= size_t(thread())) copies().resize(size_t(thread()) + 1);
  copies()[size_t(thread())].push_back({to, from});
}
inline void wait_for_copies() {
  if (copies().size() <= size_t(thread())) return;
  for (const Copy& copy : copies()[size_t(thread())]) std::memcpy(copy.to, copy.from, 16);
  copies()[size_t(thread())].clear();
}

}  // namespace bsmamba2::cuda
