// Named functions for the GPU features that the kernels use: warp collectives, products of small
// matrices on tensor cores, copies into shared memory, and rounding. The tests replace this file
// and run the same kernels on a CPU, lane by lane.
#pragma once

#define DEVICE __device__ __forceinline__
#define KERNEL(name, Argument, threads, blocks)                                                    \
  extern "C" __global__ void __launch_bounds__(threads, blocks)                                    \
      name(const __grid_constant__ Argument call)

// Blocks of `advance` that one multiprocessor should hold. Hopper and the server versions of
// Blackwell have enough shared memory for three, which leaves 168 registers per thread; other GPUs
// do not.
#if __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
#define BSMAMBA2_RESIDENT 3
#else
#define BSMAMBA2_RESIDENT 2
#endif

namespace bsmamba2::cuda {

extern __shared__ __align__(16) unsigned char dynamic_shared[];

DEVICE int thread() { return threadIdx.x; }
DEVICE int64_t block() { return blockIdx.x; }
DEVICE void barrier() { __syncthreads(); }
DEVICE void* shared_memory() { return dynamic_shared; }

// ---- Warp collectives --------------------------------------------------------------------------

DEVICE float from_lane_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEVICE int any_lane(int v) { return __any_sync(0xffffffffu, v); }
DEVICE double from_last_lane(double v) { return __shfl_sync(0xffffffffu, v, 31); }
DEVICE double from_lane_below(double v, int by) { return __shfl_up_sync(0xffffffffu, v, by); }

// Loads four 8 × 8 matrices of 16-bit numbers. Lane l passes the address of row l % 8 of matrix
// l / 8.
template <bool transposed>
DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// d += a·b: 16 × 16 times 16 × 8 of 16-bit numbers, or 16 × 8 times 8 × 8 of tf32.
#define MMA(shape, kind)                                                              \
  asm("mma.sync.aligned." shape ".row.col.f32." kind "." kind ".f32 "                 \
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                         \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
DEVICE void mma(Half, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MMA("m16n8k16", "f16");
}
DEVICE void mma(Bfloat, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MMA("m16n8k16", "bf16");
}
DEVICE void mma(float, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MMA("m16n8k8", "tf32");
}
#undef MMA

// ---- Copies into shared memory ----------------------------------------------------------------

DEVICE void copy_16_bytes(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))), "l"(from) : "memory");
}
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// ---- Numbers ----------------------------------------------------------------------------------

DEVICE uint32_t bits(float v) { return __float_as_uint(v); }
DEVICE float number(uint32_t v) { return __uint_as_float(v); }
DEVICE float exp2_fast(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
DEVICE float divide_fast(float a, float b) { return __fdividef(a, b); }
DEVICE float reciprocal_root(float v) { return rsqrtf(v); }
DEVICE uint32_t round_to_tf32(float v) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
  return r;
}
DEVICE float widen(Half v) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v.bits));
  return r;
}
DEVICE uint32_t narrow_two(Half, float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
DEVICE uint32_t narrow_two(Bfloat, float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

}  // namespace bsmamba2::cuda
