// What all kernels share. The same sources compile for the GPU, by nvcc, and for the tests, over emulated/cuda.hpp, which runs
// the threads of a block as coroutines on the host.
//
// Rules: blocks are one-dimensional and a multiple of 32 threads; all shared memory is dynamic; no thread leaves a kernel before a
// barrier of its block; sums have a fixed order, so that results do not depend on timing; no atomics.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <string.h>
typedef __nv_bfloat16 bf16;
#define UNROLL _Pragma("unroll")
#define KERNEL extern "C" __global__ void
#define CHECK_ALIGNED(address, bytes)
#define DEVICE static __device__ __forceinline__
extern __shared__ __align__(16) unsigned char block_memory[];
DEVICE float bf16_to_float(bf16 x) { return __bfloat162float(x); }
DEVICE bf16 float_to_bf16(float x) { return __float2bfloat16_rn(x); }
DEVICE float half_to_float(half x) { return __half2float(x); }
DEVICE half float_to_half(float x) { return __float2half_rn(x); }
#else
#include "emulated/cuda.hpp"
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return bf16_to_float(x); }
DEVICE float to_float(half x) { return half_to_float(x); }
template <class T> struct Convert;
template <> struct Convert<float> {
    DEVICE float from(float x) { return x; }
};
template <> struct Convert<bf16> {
    DEVICE bf16 from(float x) { return float_to_bf16(x); }
};
template <> struct Convert<half> {
    DEVICE half from(float x) { return float_to_half(x); }
};

// N values that one instruction moves; the address must be a multiple of the size.
template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T v[N];
};

template <class T, int N> DEVICE Pack<T, N> load(const T *from) {
    CHECK_ALIGNED(from, sizeof(Pack<T, N>));
    return *reinterpret_cast<const Pack<T, N> *>(from);
}
template <class T, int N> DEVICE void store(T *to, const Pack<T, N> &pack) {
    CHECK_ALIGNED(to, sizeof(Pack<T, N>));
    *reinterpret_cast<Pack<T, N> *>(to) = pack;
}

DEVICE float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

DEVICE float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// Sum over the threads of the block, in all of them; `shared` has room for 32 values and may be used again at once.
DEVICE float block_sum(float x, float *shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < warps; i++) total += shared[i];
    __syncthreads();
    return total;
}

DEVICE float block_max(float x, float *shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    float most = shared[0];
    for (int i = 1; i < warps; i++) most = fmaxf(most, shared[i]);
    __syncthreads();
    return most;
}
