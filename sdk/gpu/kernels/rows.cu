// Rows of matrices: sums of columns, gathering and its gradient, patches of images, the loss of masked patches.
#include "common.cuh"

// partial[part][n] = sums of columns of x [m, n] over rows part * 8 + i, in steps of 8 * parts. Blocks of 256 threads: 32 packs of
// columns by 8 rows. Grid: (packs of columns / 32, parts). Shared memory: 256 V floats.
template <class T, int V> DEVICE void column_parts(const T *x, float *partial, int m, int n) {
    float *sums = reinterpret_cast<float *>(block_memory);
    const int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
    const int column = (blockIdx.x * 32 + tx) * V;
    float sum[V];
    for (int j = 0; j < V; j++) sum[j] = 0.0f;
    if (column < n) {
        for (i64 row = (i64)blockIdx.y * 8 + ty; row < m; row += 8 * (i64)gridDim.y) {
            const Pack<T, V> p = load<T, V>(x + row * n + column);
            for (int j = 0; j < V; j++) sum[j] += to_float(p.v[j]);
        }
    }
    for (int j = 0; j < V; j++) sums[threadIdx.x * V + j] = sum[j];
    __syncthreads();
    if (ty == 0 && column < n) {
        for (int j = 0; j < V; j++) {
            float total = 0.0f;
            for (int i = 0; i < 8; i++) total += sums[(i * 32 + tx) * V + j];
            partial[(i64)blockIdx.y * n + column + j] = total;
        }
    }
}

KERNEL column_parts_float(const float *x, float *partial, int m, int n, int wide) {
    if (wide)
        column_parts<float, 4>(x, partial, m, n);
    else
        column_parts<float, 1>(x, partial, m, n);
}

KERNEL column_parts_bf16(const bf16 *x, float *partial, int m, int n, int wide) {
    if (wide)
        column_parts<bf16, 4>(x, partial, m, n);
    else
        column_parts<bf16, 1>(x, partial, m, n);
}

// Columns of partial [parts, n] summed over the parts: the first `split` into out0, the others into out1; added to what is there
// where `add` is set. Blocks of 256 threads as above; grid: n / 32; shared memory: 256 floats.
KERNEL column_totals(const float *partial, int parts, int n, int split, float *out0, float *out1, int add) {
    float *sums = reinterpret_cast<float *>(block_memory);
    const int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
    const int column = blockIdx.x * 32 + tx;
    float sum = 0.0f;
    if (column < n)
        for (int part = ty; part < parts; part += 8) sum += partial[(i64)part * n + column];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (ty == 0 && column < n) {
        float total = 0.0f;
        for (int i = 0; i < 8; i++) total += sums[i * 32 + tx];
        float *out = column < split ? out0 + column : out1 + (column - split);
        *out = add ? *out + total : total;
    }
}

// out[i] = x[ids[i]], rows of d values. Grid: rows of out.
KERNEL gather_rows(const float *x, const u32 *ids, float *out, int d) {
    const float *from = x + (i64)ids[blockIdx.x] * d;
    float *to = out + (i64)blockIdx.x * d;
    for (int i = threadIdx.x; i < d; i += blockDim.x) to[i] = from[i];
}

// out[s] = sum of x[ids[j]] for starts[s] <= j < starts[s + 1]. Grid: segments.
KERNEL sum_segments(const float *x, const u32 *ids, const u32 *starts, float *out, int d) {
    const u32 first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 j = first; j < last; j++) sum += x[(i64)ids[j] * d + i];
        out[(i64)blockIdx.x * d + i] = sum;
    }
}

// images [B, C, H, W] to [B, (H/P)(W/P), C P P]. Grid: B C H, one row of pixels each.
template <class T> DEVICE void patches_of(const float *images, T *out, int channels, int height, int width, int patch) {
    const i64 row = blockIdx.x; // (b, channel, y)
    const int y = (int)(row % height), channel = (int)(row / height % channels);
    const i64 b = row / height / channels;
    const int columns = width / patch, length = channels * patch * patch;
    const i64 first = (b * (height / patch) + y / patch) * columns;
    for (int x = threadIdx.x; x < width; x += blockDim.x)
        out[(first + x / patch) * length + (channel * patch + y % patch) * patch + x % patch] = Convert<T>::from(images[row * width + x]);
}

#define PATCHIFY(type)                                                                                                                  \
    KERNEL patchify_##type(const float *images, type *out, int channels, int height, int width, int patch) {                            \
        patches_of<type>(images, out, channels, height, width, patch);                                                                  \
    }

PATCHIFY(float)
PATCHIFY(bf16)
PATCHIFY(half)

// out [B, T, d] = table [T, d], plus patches [B, T - prefix, d] from token `prefix` on. Grid: B T.
KERNEL add_table(const float *patches, const float *table, float *out, int tokens, int prefix, int d) {
    const i64 row = blockIdx.x, image = row / tokens;
    const int token = (int)(row % tokens);
    const float *add = patches + (image * (tokens - prefix) + (token - prefix)) * d;
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
        const float value = table[(i64)token * d + i];
        out[row * d + i] = token < prefix ? value : value + add[i];
    }
}

// One hidden patch of masked autoencoding: its target is the patch's pixels in (row, column, channel) order, with `normalise` less
// their mean and over sqrt(unbiased variance + 1e-6). stats[row] = {mean, scale}; loss[row] = sum of (pred - target)^2.
// patches [_, 3 area] in (channel, row, column) order, pred [rows, 3 area]. Grid: rows; shared memory: 32 floats.
KERNEL patch_loss(const float *patches, const u32 *ids, const float *pred, float *stats, float *loss, int area, int normalise) {
    float *scratch = reinterpret_cast<float *>(block_memory);
    const int n = 3 * area;
    const float *patch = patches + (i64)ids[blockIdx.x] * n;
    pred += (i64)blockIdx.x * n;
    float mean = 0.0f, scale = 1.0f;
    if (normalise) {
        float sum = 0.0f, square = 0.0f;
        for (int i = threadIdx.x; i < n; i += blockDim.x) sum += patch[i];
        mean = block_sum(sum, scratch) / n;
        for (int i = threadIdx.x; i < n; i += blockDim.x) square += (patch[i] - mean) * (patch[i] - mean);
        scale = 1.0f / sqrtf(block_sum(square, scratch) / (n - 1) + 1e-6f);
    }
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float error = pred[i] - (patch[i % 3 * area + i / 3] - mean) * scale;
        sum += error * error;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        stats[2 * blockIdx.x] = mean;
        stats[2 * blockIdx.x + 1] = scale;
        loss[blockIdx.x] = sum;
    }
}

// Gradient of `factor` * sum of losses, times *upstream.
KERNEL patch_loss_grad(const float *patches, const u32 *ids, const float *pred, const float *stats, const float *upstream, float factor,
                       float *grad, int area) {
    const int n = 3 * area;
    const float *patch = patches + (i64)ids[blockIdx.x] * n;
    const float mean = stats[2 * blockIdx.x], scale = stats[2 * blockIdx.x + 1], by = 2.0f * factor * *upstream;
    const i64 start = (i64)blockIdx.x * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        grad[start + i] = by * (pred[start + i] - (patch[i % 3 * area + i / 3] - mean) * scale);
}

// out[0] = factor * sum of n values. One block; shared memory: 32 floats.
KERNEL sum_values(const float *x, i64 n, float factor, float *out) {
    float sum = 0.0f;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = block_sum(sum, reinterpret_cast<float *>(block_memory));
    if (threadIdx.x == 0) out[0] = factor * sum;
}
