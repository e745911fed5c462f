// Self-attention for any type and heads of up to 256 channels, without tensor cores: a warp for each query or key. Shapes as in
// attention.cu. Used in f32 and for unusual head sizes.
#include "common.cuh"

constexpr int SLOTS = 8; // channels of a lane, at most

// Where a warp works: row `row` of head `head` of an image. Grid: (B H, T / warps of a block).
struct Row {
    bool exists;
    i64 head, image; // index of image and head together; first token of the image
    int row, lane;
    i64 channel, width; // first channel of the head; H d
};

DEVICE Row row_of_warp(int tokens, int heads, int d) {
    Row r;
    r.lane = threadIdx.x % 32;
    r.row = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
    r.exists = r.row < tokens;
    r.head = blockIdx.x;
    r.image = (i64)(blockIdx.x / heads) * tokens;
    r.channel = (i64)(blockIdx.x % heads) * d;
    r.width = (i64)heads * d;
    return r;
}

template <class T> DEVICE float dot(const T *a, const T *b, int d) {
    float sum = 0.0f;
    for (int i = 0; i < d; i++) sum += to_float(a[i]) * to_float(b[i]);
    return sum;
}

// delta = sum of grad * out over a head's channels.
template <class T> DEVICE void deltas(const T *grad, const T *out, float *delta, int tokens, int heads, int d) {
    const Row at = row_of_warp(tokens, heads, d);
    if (!at.exists) return;
    const i64 start = (at.image + at.row) * at.width + at.channel;
    float sum = 0.0f;
    for (int i = at.lane; i < d; i += 32) sum += to_float(grad[start + i]) * to_float(out[start + i]);
    sum = warp_sum(sum);
    if (at.lane == 0) delta[at.head * tokens + at.row] = sum;
}

template <class T> DEVICE void forward(const T *qkv, T *out, float *lse, int tokens, int heads, int d, float scale) {
    const Row at = row_of_warp(tokens, heads, d);
    if (!at.exists) return;
    const i64 token = 3 * at.width;
    const T *q = qkv + (at.image + at.row) * token + at.channel;
    const T *k = qkv + at.image * token + at.width + at.channel, *v = k + at.width;
    float o[SLOTS], most = -INFINITY, sum = 0.0f;
    for (int i = 0; i < SLOTS; i++) o[i] = 0.0f;
    for (int key = 0; key < tokens; key += 32) {
        const int mine = key + at.lane;
        const float s = mine < tokens ? dot(q, k + mine * token, d) * scale : -INFINITY;
        const float now = fmaxf(most, warp_max(s)), fade = expf(most - now), p = expf(s - now);
        most = now;
        sum = sum * fade + warp_sum(p);
        for (int i = 0; i < SLOTS; i++) o[i] *= fade;
        for (int j = 0; j < 32; j++) {
            const float weight = __shfl_sync(0xffffffffu, p, j);
            if (key + j >= tokens) continue;
            for (int i = 0; i < SLOTS; i++)
                if (at.lane + 32 * i < d) o[i] += weight * to_float(v[(key + j) * token + at.lane + 32 * i]);
        }
    }
    T *to = out + (at.image + at.row) * at.width + at.channel;
    for (int i = 0; i < SLOTS; i++)
        if (at.lane + 32 * i < d) to[at.lane + 32 * i] = Convert<T>::from(o[i] / sum);
    if (at.lane == 0) lse[at.head * tokens + at.row] = most + logf(sum);
}

template <class T>
DEVICE void backward_queries(const T *qkv, const T *grad, const float *lse, const float *delta, T *dqkv, int tokens, int heads, int d,
                             float scale) {
    const Row at = row_of_warp(tokens, heads, d);
    if (!at.exists) return;
    const i64 token = 3 * at.width;
    const T *q = qkv + (at.image + at.row) * token + at.channel, *g = grad + (at.image + at.row) * at.width + at.channel;
    const T *k = qkv + at.image * token + at.width + at.channel, *v = k + at.width;
    const float own_lse = lse[at.head * tokens + at.row], own_delta = delta[at.head * tokens + at.row];
    float dq[SLOTS];
    for (int i = 0; i < SLOTS; i++) dq[i] = 0.0f;
    for (int key = 0; key < tokens; key += 32) {
        const int mine = key + at.lane;
        float ds = 0.0f;
        if (mine < tokens) {
            const float p = expf(dot(q, k + mine * token, d) * scale - own_lse);
            ds = p * (dot(g, v + mine * token, d) - own_delta) * scale;
        }
        for (int j = 0; j < 32; j++) {
            const float weight = __shfl_sync(0xffffffffu, ds, j);
            if (key + j >= tokens) continue;
            for (int i = 0; i < SLOTS; i++)
                if (at.lane + 32 * i < d) dq[i] += weight * to_float(k[(key + j) * token + at.lane + 32 * i]);
        }
    }
    T *to = dqkv + (at.image + at.row) * token + at.channel;
    for (int i = 0; i < SLOTS; i++)
        if (at.lane + 32 * i < d) to[at.lane + 32 * i] = Convert<T>::from(dq[i]);
}

template <class T>
DEVICE void backward_keys(const T *qkv, const T *grad, const float *lse, const float *delta, T *dqkv, int tokens, int heads, int d,
                          float scale) {
    const Row at = row_of_warp(tokens, heads, d);
    if (!at.exists) return;
    const i64 token = 3 * at.width;
    const T *q = qkv + at.image * token + at.channel, *g = grad + at.image * at.width + at.channel;
    const T *k = q + at.row * token + at.width, *v = k + at.width;
    float dk[SLOTS], dv[SLOTS];
    for (int i = 0; i < SLOTS; i++) dk[i] = dv[i] = 0.0f;
    for (int query = 0; query < tokens; query += 32) {
        const int mine = query + at.lane;
        float p = 0.0f, ds = 0.0f;
        if (mine < tokens) {
            p = expf(dot(k, q + mine * token, d) * scale - lse[at.head * tokens + mine]);
            ds = p * (dot(v, g + mine * at.width, d) - delta[at.head * tokens + mine]) * scale;
        }
        for (int j = 0; j < 32; j++) {
            const float weight = __shfl_sync(0xffffffffu, p, j), slope = __shfl_sync(0xffffffffu, ds, j);
            if (query + j >= tokens) continue;
            for (int i = 0; i < SLOTS; i++) {
                const int channel = at.lane + 32 * i;
                if (channel < d) {
                    dv[i] += weight * to_float(g[(query + j) * at.width + channel]);
                    dk[i] += slope * to_float(q[(query + j) * token + channel]);
                }
            }
        }
    }
    T *to = dqkv + (at.image + at.row) * token + at.width + at.channel;
    for (int i = 0; i < SLOTS; i++) {
        if (at.lane + 32 * i < d) {
            to[at.lane + 32 * i] = Convert<T>::from(dk[i]);
            to[at.width + at.lane + 32 * i] = Convert<T>::from(dv[i]);
        }
    }
}

#define PLAIN(type)                                                                                                                     \
    KERNEL attention_plain_##type(const type *qkv, type *out, float *lse, int tokens, int heads, int d, float scale) {                  \
        forward<type>(qkv, out, lse, tokens, heads, d, scale);                                                                          \
    }

#define PLAIN_GRAD(type)                                                                                                                \
    KERNEL attention_delta_##type(const type *grad, const type *out, float *delta, int tokens, int heads, int d) {                      \
        deltas<type>(grad, out, delta, tokens, heads, d);                                                                               \
    }                                                                                                                                   \
    KERNEL attention_plain_queries_grad_##type(const type *qkv, const type *grad, const float *lse, const float *delta, type *dqkv,     \
                                               int tokens, int heads, int d, float scale) {                                             \
        backward_queries<type>(qkv, grad, lse, delta, dqkv, tokens, heads, d, scale);                                                   \
    }                                                                                                                                   \
    KERNEL attention_plain_keys_grad_##type(const type *qkv, const type *grad, const float *lse, const float *delta, type *dqkv,        \
                                            int tokens, int heads, int d, float scale) {                                                \
        backward_keys<type>(qkv, grad, lse, delta, dqkv, tokens, heads, d, scale);                                                      \
    }

PLAIN(float)
PLAIN(bf16)
PLAIN(half)
PLAIN_GRAD(float)
PLAIN_GRAD(bf16)
