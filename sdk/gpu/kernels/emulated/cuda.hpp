// CUDA's execution model on the host, for tests: the threads of a block are coroutines that take turns, and barriers, shuffles and
// tensor-core instructions are where they wait for each other. Shared memory is filled with NaN before a block, and the order of
// the threads can be reversed, so that a missing barrier shows.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string.h>

#define __forceinline__ inline
#define __launch_bounds__(threads)
#define UNROLL
#define KERNEL extern "C" void
#define DEVICE static inline
#define block_memory (emulated::memory)
#define threadIdx (emulated::current->index)
#define CHECK_ALIGNED(address, bytes) emulated::check_aligned(address, bytes)

namespace emulated {

struct Index {
    unsigned x, y, z;
};

struct Thread {
    Index index;
    int lane, warp;
};

extern Thread *current;
extern unsigned char *memory;

void check_aligned(const void *address, size_t bytes);
// Waits for all threads of the block or the warp that have not ended.
void wait_for_block();
void wait_for_warp();
// 32 bytes for each lane of the current warp.
unsigned char *mailbox(int lane);

template <class T> T exchange(T value, int from) {
    static_assert(sizeof(T) <= 32, "a mailbox has 32 bytes");
    std::memcpy(mailbox(current->lane), &value, sizeof(T));
    wait_for_warp();
    T result;
    std::memcpy(&result, mailbox(from), sizeof(T));
    wait_for_warp();
    return result;
}

} // namespace emulated

extern emulated::Index blockIdx, blockDim, gridDim;

inline void __syncthreads() { emulated::wait_for_block(); }
inline void __syncwarp() { emulated::wait_for_warp(); }
template <class T> T __shfl_sync(unsigned, T value, int lane) { return emulated::exchange(value, lane); }
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) { return emulated::exchange(value, emulated::current->lane ^ mask); }

struct bf16 {
    uint16_t bits;
};

inline float bf16_to_float(bf16 x) {
    const uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// To the nearest, ties to even.
inline bf16 float_to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (std::isnan(x)) return {(uint16_t)(bits >> 16 | 0x40)};
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

struct half {
    uint16_t bits;
};

inline float half_to_float(half x) {
    const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    float value;
    if (exponent == 0)
        value = std::ldexp((float)fraction, -24);
    else if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else
        value = std::ldexp((float)(fraction | 1024), exponent - 25);
    return x.bits >> 15 ? -value : value;
}

// To the nearest, ties to even; beyond 65504 to infinity.
inline half float_to_half(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    if (std::isnan(x)) return {(uint16_t)(sign | 0x7e00)};
    const float size = std::fabs(x);
    if (size >= 65520.0f) return {(uint16_t)(sign | 0x7c00)};
    int exponent;
    std::frexp(size, &exponent);
    // steps of 2^-24 below the normal numbers, of 2^-10 of the leading bit above
    const bool small = size == 0.0f || exponent < -13;
    const int steps = (int)std::nearbyint(std::ldexp(size, small ? 24 : 11 - exponent));
    const int bits = small ? steps : ((exponent + 14) << 10) + steps - 1024;
    return {(uint16_t)(sign | bits)};
}

inline float value_of(bf16 x) { return bf16_to_float(x); }
inline float value_of(half x) { return half_to_float(x); }

// See attention.cu for what lanes hold.
template <class T> void mma(T, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Held {
        uint32_t a[4], b[2];
    } mine;
    std::memcpy(mine.a, a, 16);
    mine.b[0] = b0;
    mine.b[1] = b1;
    std::memcpy(emulated::mailbox(emulated::current->lane), &mine, sizeof(mine));
    emulated::wait_for_warp();
    auto held = [](int lane) {
        Held h;
        std::memcpy(&h, emulated::mailbox(lane), sizeof(h));
        return h;
    };
    auto half = [](uint32_t word, int upper) { return value_of(T{(uint16_t)(word >> (16 * upper))}); };
    const int g = emulated::current->lane / 4, t = emulated::current->lane % 4;
    for (int e = 0; e < 4; e++) {
        const int row = g + e / 2 * 8, column = 2 * t + e % 2;
        float sum = 0.0f;
        for (int k = 0; k < 16; k++) {
            const float left = half(held(row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2], k % 2);
            const float right = half(held(column * 4 + k % 8 / 2).b[k / 8], k % 2);
            sum += left * right;
        }
        c[e] += sum;
    }
    emulated::wait_for_warp();
}

template <class T> void load_matrices_as(uint32_t (&r)[4], const T *row, bool transposed) {
    emulated::check_aligned(row, 16);
    std::memcpy(emulated::mailbox(emulated::current->lane), &row, sizeof(row));
    emulated::wait_for_warp();
    auto value = [](int matrix, int row, int column) {
        const T *at;
        std::memcpy(&at, emulated::mailbox(matrix * 8 + row), sizeof(at));
        return (uint32_t)at[column].bits;
    };
    const int g = emulated::current->lane / 4, t = emulated::current->lane % 4;
    for (int i = 0; i < 4; i++) {
        const uint32_t low = transposed ? value(i, 2 * t, g) : value(i, g, 2 * t);
        const uint32_t high = transposed ? value(i, 2 * t + 1, g) : value(i, g, 2 * t + 1);
        r[i] = low | high << 16;
    }
    emulated::wait_for_warp();
}

template <class T> void load_matrices(uint32_t (&r)[4], const T *row) { load_matrices_as(r, row, false); }
template <class T> void load_matrices_transposed(uint32_t (&r)[4], const T *row) { load_matrices_as(r, row, true); }
