// One launch over chunks of all tensors: AdamW, moving averages, squares of gradients.
#include "common.cuh"

// A tensor's part of the table. Its chunks of CHUNK values are `first`, first + 1, and so on.
struct Slot {
    float *a;
    const float *b;
    float *c, *d;
    i64 len, first;
    float keep, rate, second_scale, grad_factor;
};

constexpr i64 CHUNK = 1 << 14;

// The slot that a chunk is of: the last one whose `first` is not beyond it. Slots are in order and none is empty.
DEVICE const Slot &slot_of(const Slot *slots, int n, i64 chunk) {
    int low = 0, high = n - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (slots[middle].first <= chunk)
            low = middle;
        else
            high = middle - 1;
    }
    return slots[low];
}

// a weights, b gradient, c first and d second moment. Grid: chunks of all slots.
KERNEL adamw(const Slot *slots, int n, float beta1, float rest1, float beta2, float rest2, float eps) {
    const Slot slot = slot_of(slots, n, blockIdx.x);
    const i64 start = ((i64)blockIdx.x - slot.first) * CHUNK;
    const i64 end = start + CHUNK < slot.len ? start + CHUNK : slot.len;
    for (i64 i = start + threadIdx.x; i < end; i += blockDim.x) {
        const float g = slot.b[i] * slot.grad_factor;
        const float m = beta1 * slot.c[i] + rest1 * g;
        const float v = beta2 * slot.d[i] + rest2 * (g * g);
        slot.c[i] = m;
        slot.d[i] = v;
        slot.a[i] = slot.a[i] * slot.keep - slot.rate * (m / (sqrtf(v) * slot.second_scale + eps));
    }
}

// a += weight * (b - a).
KERNEL ema(const Slot *slots, int n, float weight) {
    const Slot slot = slot_of(slots, n, blockIdx.x);
    const i64 start = ((i64)blockIdx.x - slot.first) * CHUNK;
    const i64 end = start + CHUNK < slot.len ? start + CHUNK : slot.len;
    for (i64 i = start + threadIdx.x; i < end; i += blockDim.x) slot.a[i] += weight * (slot.b[i] - slot.a[i]);
}

// squares[chunk] = sum of b^2. Shared memory: 32 floats.
KERNEL squares(const Slot *slots, int n, float *sums) {
    const Slot slot = slot_of(slots, n, blockIdx.x);
    const i64 start = ((i64)blockIdx.x - slot.first) * CHUNK;
    const i64 end = start + CHUNK < slot.len ? start + CHUNK : slot.len;
    float sum = 0.0f;
    for (i64 i = start + threadIdx.x; i < end; i += blockDim.x) sum += slot.b[i] * slot.b[i];
    sum = block_sum(sum, reinterpret_cast<float *>(block_memory));
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
