// What DINO computes on logits: rows of unit length, the teacher's probabilities, the multi-crop cross-entropy. Blocks work on rows;
// shared memory: 32 floats.
#include "common.cuh"

constexpr float LEAST_NORM = 1e-12f;

DEVICE float row_norm(const float *x, int d, float *scratch) {
    float square = 0.0f;
    for (int i = threadIdx.x; i < d; i += blockDim.x) square += x[i] * x[i];
    return fmaxf(sqrtf(block_sum(square, scratch)), LEAST_NORM);
}

// y = x / |x|. Grid: rows.
KERNEL unit_rows(const float *x, float *y, int d) {
    const i64 start = (i64)blockIdx.x * d;
    const float scale = 1.0f / row_norm(x + start, d, reinterpret_cast<float *>(block_memory));
    for (int i = threadIdx.x; i < d; i += blockDim.x) y[start + i] = x[start + i] * scale;
}

// dx = (g - y (g y)) / |x|.
KERNEL unit_rows_grad(const float *x, const float *g, float *dx, int d) {
    float *scratch = reinterpret_cast<float *>(block_memory);
    const i64 start = (i64)blockIdx.x * d;
    const float scale = 1.0f / row_norm(x + start, d, scratch);
    float dot = 0.0f;
    for (int i = threadIdx.x; i < d; i += blockDim.x) dot += x[start + i] * scale * g[start + i];
    dot = block_sum(dot, scratch);
    for (int i = threadIdx.x; i < d; i += blockDim.x) dx[start + i] = (g[start + i] - x[start + i] * scale * dot) * scale;
}

// log of the sum of exp((x - centre) * by); centre may be null.
DEVICE float log_sum_exp(const float *x, const float *centre, float by, int k, float *scratch) {
    float most = -INFINITY;
    for (int i = threadIdx.x; i < k; i += blockDim.x) most = fmaxf(most, (x[i] - (centre ? centre[i] : 0.0f)) * by);
    most = block_max(most, scratch);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < k; i += blockDim.x) sum += expf((x[i] - (centre ? centre[i] : 0.0f)) * by - most);
    return most + logf(block_sum(sum, scratch));
}

// p = softmax((x - centre) * by) of each row of k, and its entropy. Grid: rows.
KERNEL teacher_rows(const float *x, const float *centre, float by, float *p, float *entropy, int k) {
    float *scratch = reinterpret_cast<float *>(block_memory);
    const i64 start = (i64)blockIdx.x * k;
    const float log_sum = log_sum_exp(x + start, centre, by, k, scratch);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        const float log_p = (x[start + i] - centre[i]) * by - log_sum;
        p[start + i] = expf(log_p);
        sum -= p[start + i] * log_p;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) entropy[blockIdx.x] = sum;
}

// For the student's row of view row / batch and sample row % batch: the cross-entropies with the teacher's global crops q of the
// sample, q not the row's own view, summed; log_sums[row] as the gradient needs it. Grid: rows of the student.
KERNEL cross_entropy_rows(const float *student, const float *teacher, float by, float *log_sums, float *loss, int batch, int globals,
                          int k) {
    float *scratch = reinterpret_cast<float *>(block_memory);
    const int view = blockIdx.x / batch, sample = blockIdx.x % batch;
    const float *x = student + (i64)blockIdx.x * k;
    const float log_sum = log_sum_exp(x, nullptr, by, k, scratch);
    float sum = 0.0f;
    for (int q = 0; q < globals; q++) {
        if (q == view) continue;
        const float *t = teacher + ((i64)q * batch + sample) * k;
        for (int i = threadIdx.x; i < k; i += blockDim.x) sum += t[i] * (log_sum - x[i] * by);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        log_sums[blockIdx.x] = log_sum;
        loss[blockIdx.x] = sum;
    }
}

// (mass * softmax(student * by) - sum of the teacher's rows) * factor * *upstream, mass being the sum of all their values.
KERNEL cross_entropy_grad(const float *student, const float *teacher, float by, const float *log_sums, const float *upstream,
                          float factor, float *grad, int batch, int globals, int k) {
    const int view = blockIdx.x / batch, sample = blockIdx.x % batch;
    const i64 start = (i64)blockIdx.x * k;
    const float log_sum = log_sums[blockIdx.x], scale = factor * *upstream;
    float mass = 0.0f;
    for (int q = 0; q < globals; q++) {
        if (q == view) continue;
        const float *t = teacher + ((i64)q * batch + sample) * k;
        for (int i = threadIdx.x; i < k; i += blockDim.x) mass += t[i];
    }
    mass = block_sum(mass, reinterpret_cast<float *>(block_memory));
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        float value = mass * expf(student[start + i] * by - log_sum);
        for (int q = 0; q < globals; q++)
            if (q != view) value -= teacher[((i64)q * batch + sample) * k + i];
        grad[start + i] = value * scale;
    }
}
