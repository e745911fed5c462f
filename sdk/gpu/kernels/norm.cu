// Layer normalisation of rows and its gradient. One warp works on one row.
#include "common.cuh"

// y = (x - mean) * rstd * w + b over rows of d values; stats[row] = {mean, rstd}. Grid: ceil(rows / warps of a block).
template <class Out, int V>
DEVICE void norm_rows(const float *x, const float *w, const float *b, Out *y, float *stats, int rows, int d, float eps) {
    const int lane = threadIdx.x % 32;
    const i64 row = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += row * d;
    y += row * d;
    float sum = 0.0f;
    for (int i = lane * V; i < d; i += 32 * V) {
        const Pack<float, V> p = load<float, V>(x + i);
        for (int j = 0; j < V; j++) sum += p.v[j];
    }
    const float mean = warp_sum(sum) / d;
    float square = 0.0f;
    for (int i = lane * V; i < d; i += 32 * V) {
        const Pack<float, V> p = load<float, V>(x + i);
        for (int j = 0; j < V; j++) square += (p.v[j] - mean) * (p.v[j] - mean);
    }
    const float rstd = 1.0f / sqrtf(warp_sum(square) / d + eps);
    for (int i = lane * V; i < d; i += 32 * V) {
        const Pack<float, V> p = load<float, V>(x + i), pw = load<float, V>(w + i), pb = load<float, V>(b + i);
        Pack<Out, V> out;
        for (int j = 0; j < V; j++) out.v[j] = Convert<Out>::from((p.v[j] - mean) * rstd * pw.v[j] + pb.v[j]);
        store<Out, V>(y + i, out);
    }
    if (lane == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = rstd;
    }
}

// With xhat = (x - mean) rstd and h = g w: dx = add + rstd (h - mean(h) - xhat mean(h xhat)), add may be null.
// narrow, unless null, gets factors[row / tokens] * dx; factors may be null and is then 1.
// partial[block] = {sums of g xhat, sums of g} over the block's rows. Shared memory: 2 d floats for each warp.
template <class G, class Narrow, int V>
DEVICE void norm_rows_grad(const float *x, const float *w, const float *stats, const G *g, const float *add, float *dx, Narrow *narrow,
                           const float *factors, int tokens, float *partial, int rows, int d) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float *sums = reinterpret_cast<float *>(block_memory) + warp * 2 * d;
    for (int i = lane; i < 2 * d; i += 32) sums[i] = 0.0f;
    __syncwarp();
    for (i64 row = (i64)blockIdx.x * warps + warp; row < rows; row += (i64)gridDim.x * warps) {
        const float mean = stats[2 * row], rstd = stats[2 * row + 1];
        const i64 start = row * d;
        float sum_h = 0.0f, sum_hx = 0.0f;
        for (int i = lane * V; i < d; i += 32 * V) {
            const Pack<float, V> px = load<float, V>(x + start + i), pw = load<float, V>(w + i);
            const Pack<G, V> pg = load<G, V>(g + start + i);
            for (int j = 0; j < V; j++) {
                const float xhat = (px.v[j] - mean) * rstd, gradient = to_float(pg.v[j]), h = gradient * pw.v[j];
                sum_h += h;
                sum_hx += h * xhat;
                sums[i + j] += gradient * xhat;
                sums[d + i + j] += gradient;
            }
        }
        const float mean_h = warp_sum(sum_h) / d, mean_hx = warp_sum(sum_hx) / d;
        const float factor = factors ? factors[row / tokens] : 1.0f;
        for (int i = lane * V; i < d; i += 32 * V) {
            const Pack<float, V> px = load<float, V>(x + start + i), pw = load<float, V>(w + i);
            const Pack<G, V> pg = load<G, V>(g + start + i);
            Pack<float, V> out;
            Pack<Narrow, V> scaled;
            for (int j = 0; j < V; j++) {
                const float xhat = (px.v[j] - mean) * rstd, h = to_float(pg.v[j]) * pw.v[j];
                out.v[j] = rstd * (h - mean_h - xhat * mean_hx);
            }
            if (add) {
                const Pack<float, V> pa = load<float, V>(add + start + i);
                for (int j = 0; j < V; j++) out.v[j] += pa.v[j];
            }
            store<float, V>(dx + start + i, out);
            if (narrow) {
                for (int j = 0; j < V; j++) scaled.v[j] = Convert<Narrow>::from(factor * out.v[j]);
                store<Narrow, V>(narrow + start + i, scaled);
            }
        }
    }
    __syncthreads();
    const float *all = reinterpret_cast<const float *>(block_memory);
    for (int i = threadIdx.x; i < 2 * d; i += blockDim.x) {
        float sum = 0.0f;
        for (int k = 0; k < warps; k++) sum += all[k * 2 * d + i];
        partial[(i64)blockIdx.x * 2 * d + i] = sum;
    }
}

#define NORM(type)                                                                                                                      \
    KERNEL layer_norm_##type(const float *x, const float *w, const float *b, type *y, float *stats, int rows, int d, float eps,         \
                             int wide) {                                                                                                \
        if (wide)                                                                                                                       \
            norm_rows<type, 4>(x, w, b, y, stats, rows, d, eps);                                                                        \
        else                                                                                                                            \
            norm_rows<type, 1>(x, w, b, y, stats, rows, d, eps);                                                                        \
    }

#define NORM_GRAD(type)                                                                                                                 \
    KERNEL layer_norm_grad_##type(const float *x, const float *w, const float *stats, const type *g, const float *add, float *dx,       \
                                  type *narrow, const float *factors, int tokens, float *partial, int rows, int d, int wide) {          \
        if (wide)                                                                                                                       \
            norm_rows_grad<type, type, 4>(x, w, stats, g, add, dx, narrow, factors, tokens, partial, rows, d);                          \
        else                                                                                                                            \
            norm_rows_grad<type, type, 1>(x, w, stats, g, add, dx, narrow, factors, tokens, partial, rows, d);                          \
    }

NORM(float)
NORM(bf16)
NORM(half)
NORM_GRAD(float)
NORM_GRAD(bf16)
