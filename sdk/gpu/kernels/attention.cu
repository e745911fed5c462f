// Self-attention in bf16 or f16 on tensor cores, for heads of 32 or 64 channels; no N x N tensor is kept.
//
// qkv [B, T, 3 H D] with the columns Q, K, V and inside each the heads; out and its gradient [B, T, H D]; lse, delta [B H, T].
// The online softmax is that of Dao et al. 2022 (arXiv:2205.14135). The backward computes the probabilities again, once for keys and
// values and once for queries, so that nothing is summed by atomics.
//
// Grid: (B H, blocks of 64 rows). Blocks of 4 warps; a warp has 16 rows of its block. Shared memory: see SHARED_ROWS.
#include "common.cuh"

constexpr int ROWS = 64, WARP_ROWS = 16, STEP = 32;
constexpr float LOG2_E = 1.44269504f;

// Values from one row of a tile in shared memory to the next: 16 bytes more than a row, so that 8 rows lie in different banks.
template <int D> struct Tile {
    static constexpr int STRIDE = D + 8;
};

#ifdef __CUDACC__
// c += a b for a 16 x 16 (row), b 16 x 8 (column), c 16 x 8. With g = lane / 4, t = lane % 4 a lane holds
// a: {(g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)} and the value right of each; b: {(2t, g), (2t + 8, g)} and the value below
// each; c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
DEVICE void mma(bf16, float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE void mma(half, float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices: lane l gives the address of row l % 8 of matrix l / 8 and gets of each matrix (g, 2t) and (g, 2t + 1).
template <class T> DEVICE void load_matrices(u32 (&r)[4], const T *row) {
    const u32 address = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// The same of the transposed matrices: (2t, g) and (2t + 1, g).
template <class T> DEVICE void load_matrices_transposed(u32 (&r)[4], const T *row) {
    const u32 address = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
#endif

template <class T> DEVICE u32 pack(float low, float high) {
    Pack<T, 2> pair;
    pair.v[0] = Convert<T>::from(low);
    pair.v[1] = Convert<T>::from(high);
    u32 word;
    memcpy(&word, &pair, sizeof(word));
    return word;
}

// Rows first .. first + N of a matrix of `rows` rows into a tile; rows beyond are zero.
template <class T, int D, int N> DEVICE void load_tile(T *tile, const T *from, i64 stride, int first, int rows) {
    constexpr int PACKS = D / 8;
    for (int i = threadIdx.x; i < N * PACKS; i += blockDim.x) {
        const int row = i / PACKS, column = i % PACKS * 8;
        Pack<T, 8> values;
        if (first + row < rows) {
            values = load<T, 8>(from + (first + row) * stride + column);
        } else {
            for (int j = 0; j < 8; j++) values.v[j] = Convert<T>::from(0.0f);
        }
        store<T, 8>(tile + row * Tile<D>::STRIDE + column, values);
    }
}

// The warp's 16 rows of a tile as left operands, 16 channels each.
template <class T, int D> DEVICE void load_left(u32 (&left)[D / 16][4], const T *tile) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const T *row = tile + (warp * WARP_ROWS + lane % 16) * Tile<D>::STRIDE + lane / 16 * 8;
UNROLL
    for (int k = 0; k < D / 16; k++) load_matrices(left[k], row + 16 * k);
}

// Adds left times the transposed tile of N rows to c [16, N].
template <class T, int D, int N> DEVICE void multiply_transposed(float (&c)[N / 8][4], const u32 (&left)[D / 16][4], const T *tile) {
    const int lane = threadIdx.x % 32;
    const T *row = tile + (lane / 16 * 8 + lane % 8) * Tile<D>::STRIDE + lane / 8 % 2 * 8;
UNROLL
    for (int k = 0; k < D / 16; k++) {
UNROLL
        for (int n = 0; n < N / 16; n++) {
            u32 right[4];
            load_matrices(right, row + n * 16 * Tile<D>::STRIDE + k * 16);
            mma(T(), c[2 * n], left[k], right[0], right[1]);
            mma(T(), c[2 * n + 1], left[k], right[2], right[3]);
        }
    }
}

// Adds p [16, N] times the tile of N rows to c [16, D].
template <class T, int D, int N> DEVICE void multiply(float (&c)[D / 8][4], const float (&p)[N / 8][4], const T *tile) {
    const int lane = threadIdx.x % 32;
    const T *row = tile + lane % 16 * Tile<D>::STRIDE + lane / 16 * 8;
UNROLL
    for (int k = 0; k < N / 16; k++) {
        const u32 left[4] = {pack<T>(p[2 * k][0], p[2 * k][1]), pack<T>(p[2 * k][2], p[2 * k][3]), pack<T>(p[2 * k + 1][0], p[2 * k + 1][1]),
                             pack<T>(p[2 * k + 1][2], p[2 * k + 1][3])};
UNROLL
        for (int n = 0; n < D / 16; n++) {
            u32 right[4];
            load_matrices_transposed(right, row + k * 16 * Tile<D>::STRIDE + n * 16);
            mma(T(), c[2 * n], left, right[0], right[1]);
            mma(T(), c[2 * n + 1], left, right[2], right[3]);
        }
    }
}

template <int N> DEVICE void clear(float (&c)[N][4]) {
UNROLL
    for (int n = 0; n < N; n++)
        for (int e = 0; e < 4; e++) c[n][e] = 0.0f;
}

// The warp's 16 rows of c, those below `rows`, into a matrix.
template <class T, int D> DEVICE void write_rows(const float (&c)[D / 8][4], T *to, i64 stride, int first, int rows, const float (&factor)[2]) {
    const int lane = threadIdx.x % 32, row = first + threadIdx.x / 32 * WARP_ROWS + lane / 4;
UNROLL
    for (int half = 0; half < 2; half++) {
        if (row + 8 * half < rows) {
            u32 *at = reinterpret_cast<u32 *>(to + (row + 8 * half) * stride + lane % 4 * 2);
UNROLL
            for (int n = 0; n < D / 8; n++) at[n * 4] = pack<T>(c[n][2 * half] * factor[half], c[n][2 * half + 1] * factor[half]);
        }
    }
}

// Where a block works.
template <int D> struct Place {
    i64 head, token, width; // first value of the head in Q; values from a token to the next in qkv and in out
    i64 image;              // first token of the image
    int first;              // first row of the block
    DEVICE Place at(int tokens, int heads) {
        Place p;
        const int b = blockIdx.x / heads, h = blockIdx.x % heads;
        p.width = (i64)heads * D;
        p.token = 3 * p.width;
        p.head = (i64)h * D;
        p.image = (i64)b * tokens;
        p.first = blockIdx.y * ROWS;
        return p;
    }
};

// Shared memory: 2 tiles of 64 rows.
template <class T, int D> DEVICE void forward(const T *qkv, T *out, float *lse, int tokens, int heads, float scale) {
    T *k_tile = reinterpret_cast<T *>(block_memory), *v_tile = k_tile + ROWS * Tile<D>::STRIDE;
    const Place<D> at = Place<D>::at(tokens, heads);
    const T *q = qkv + at.image * at.token + at.head, *k = q + at.width, *v = k + at.width;
    const int lane = threadIdx.x % 32;
    const float by = scale * LOG2_E;

    u32 left[D / 16][4];
    load_tile<T, D, ROWS>(k_tile, q, at.token, at.first, tokens);
    __syncthreads();
    load_left<T, D>(left, k_tile);

    float o[D / 8][4], most[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    clear(o);
    for (int key = 0; key < tokens; key += ROWS) {
        __syncthreads();
        load_tile<T, D, ROWS>(k_tile, k, at.token, key, tokens);
        load_tile<T, D, ROWS>(v_tile, v, at.token, key, tokens);
        __syncthreads();
        float s[ROWS / 8][4];
        clear(s);
        multiply_transposed<T, D, ROWS>(s, left, k_tile);
        float now[2] = {most[0], most[1]};
UNROLL
        for (int n = 0; n < ROWS / 8; n++) {
UNROLL
            for (int e = 0; e < 4; e++) {
                if (key + n * 8 + lane % 4 * 2 + e % 2 >= tokens) s[n][e] = -INFINITY;
                now[e / 2] = fmaxf(now[e / 2], s[n][e]);
            }
        }
UNROLL
        for (int half = 0; half < 2; half++) {
            now[half] = fmaxf(now[half], __shfl_xor_sync(0xffffffffu, now[half], 1));
            now[half] = fmaxf(now[half], __shfl_xor_sync(0xffffffffu, now[half], 2));
            const float fade = exp2f((most[half] - now[half]) * by);
            most[half] = now[half];
            sum[half] *= fade;
UNROLL
            for (int n = 0; n < D / 8; n++) {
                o[n][2 * half] *= fade;
                o[n][2 * half + 1] *= fade;
            }
        }
UNROLL
        for (int n = 0; n < ROWS / 8; n++) {
UNROLL
            for (int e = 0; e < 4; e++) {
                s[n][e] = exp2f((s[n][e] - most[e / 2]) * by);
                sum[e / 2] += s[n][e];
            }
        }
        multiply<T, D, ROWS>(o, s, v_tile);
    }
    float inverse[2];
UNROLL
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
        inverse[half] = 1.0f / sum[half];
        const int row = at.first + threadIdx.x / 32 * WARP_ROWS + lane / 4 + 8 * half;
        if (lane % 4 == 0 && row < tokens) lse[(i64)blockIdx.x * tokens + row] = most[half] * scale + logf(sum[half]);
    }
    write_rows<T, D>(o, out + at.image * at.width + at.head, at.width, at.first, tokens, inverse);
}

// Gradients of keys and values. Shared memory: 2 tiles of 64 rows and 64 floats.
template <class T, int D>
DEVICE void backward_keys(const T *qkv, const T *grad, const float *lse, const float *delta, T *dqkv, int tokens, int heads,
                          float scale) {
    T *q_tile = reinterpret_cast<T *>(block_memory), *g_tile = q_tile + ROWS * Tile<D>::STRIDE;
    float *lse2 = reinterpret_cast<float *>(g_tile + ROWS * Tile<D>::STRIDE), *deltas = lse2 + STEP;
    const Place<D> at = Place<D>::at(tokens, heads);
    const T *q = qkv + at.image * at.token + at.head, *k = q + at.width, *v = k + at.width;
    const T *g = grad + at.image * at.width + at.head;
    const int lane = threadIdx.x % 32;
    const float by = scale * LOG2_E;

    u32 k_left[D / 16][4], v_left[D / 16][4];
    load_tile<T, D, ROWS>(q_tile, k, at.token, at.first, tokens);
    load_tile<T, D, ROWS>(g_tile, v, at.token, at.first, tokens);
    __syncthreads();
    load_left<T, D>(k_left, q_tile);
    load_left<T, D>(v_left, g_tile);

    float dk[D / 8][4], dv[D / 8][4];
    clear(dk);
    clear(dv);
    for (int query = 0; query < tokens; query += STEP) {
        __syncthreads();
        load_tile<T, D, STEP>(q_tile, q, at.token, query, tokens);
        load_tile<T, D, STEP>(g_tile, g, at.width, query, tokens);
        if (threadIdx.x < STEP) {
            const bool inside = query + (int)threadIdx.x < tokens;
            const i64 row = (i64)blockIdx.x * tokens + query + threadIdx.x;
            lse2[threadIdx.x] = inside ? lse[row] * LOG2_E : INFINITY;
            deltas[threadIdx.x] = inside ? delta[row] : 0.0f;
        }
        __syncthreads();
        float p[STEP / 8][4], ds[STEP / 8][4];
        clear(p);
        clear(ds);
        multiply_transposed<T, D, STEP>(p, k_left, q_tile);
        multiply_transposed<T, D, STEP>(ds, v_left, g_tile);
UNROLL
        for (int n = 0; n < STEP / 8; n++) {
UNROLL
            for (int e = 0; e < 4; e++) {
                const int column = n * 8 + lane % 4 * 2 + e % 2;
                p[n][e] = exp2f(p[n][e] * by - lse2[column]);
                ds[n][e] = p[n][e] * (ds[n][e] - deltas[column]);
            }
        }
        multiply<T, D, STEP>(dv, p, g_tile);
        multiply<T, D, STEP>(dk, ds, q_tile);
    }
    T *to = dqkv + at.image * at.token + at.head + at.width;
    const float scales[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
    write_rows<T, D>(dk, to, at.token, at.first, tokens, scales);
    write_rows<T, D>(dv, to + at.width, at.token, at.first, tokens, ones);
}

// Gradient of queries. Shared memory: 2 tiles of 64 rows.
template <class T, int D>
DEVICE void backward_queries(const T *qkv, const T *grad, const float *lse, const float *delta, T *dqkv, int tokens, int heads,
                             float scale) {
    T *k_tile = reinterpret_cast<T *>(block_memory), *v_tile = k_tile + ROWS * Tile<D>::STRIDE;
    const Place<D> at = Place<D>::at(tokens, heads);
    const T *q = qkv + at.image * at.token + at.head, *k = q + at.width, *v = k + at.width;
    const T *g = grad + at.image * at.width + at.head;
    const int lane = threadIdx.x % 32;
    const float by = scale * LOG2_E;

    u32 q_left[D / 16][4], g_left[D / 16][4];
    load_tile<T, D, ROWS>(k_tile, q, at.token, at.first, tokens);
    load_tile<T, D, ROWS>(v_tile, g, at.width, at.first, tokens);
    __syncthreads();
    load_left<T, D>(q_left, k_tile);
    load_left<T, D>(g_left, v_tile);
    float lse2[2], deltas[2];
UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = at.first + threadIdx.x / 32 * WARP_ROWS + lane / 4 + 8 * half;
        lse2[half] = row < tokens ? lse[(i64)blockIdx.x * tokens + row] * LOG2_E : INFINITY;
        deltas[half] = row < tokens ? delta[(i64)blockIdx.x * tokens + row] : 0.0f;
    }

    float dq[D / 8][4];
    clear(dq);
    for (int key = 0; key < tokens; key += STEP) {
        __syncthreads();
        load_tile<T, D, STEP>(k_tile, k, at.token, key, tokens);
        load_tile<T, D, STEP>(v_tile, v, at.token, key, tokens);
        __syncthreads();
        float p[STEP / 8][4], ds[STEP / 8][4];
        clear(p);
        clear(ds);
        multiply_transposed<T, D, STEP>(p, q_left, k_tile);
        multiply_transposed<T, D, STEP>(ds, g_left, v_tile);
UNROLL
        for (int n = 0; n < STEP / 8; n++) {
UNROLL
            for (int e = 0; e < 4; e++) {
                const bool inside = key + n * 8 + lane % 4 * 2 + e % 2 < tokens;
                const float probability = inside ? exp2f(p[n][e] * by - lse2[e / 2]) : 0.0f;
                ds[n][e] = probability * (ds[n][e] - deltas[e / 2]);
            }
        }
        multiply<T, D, STEP>(dq, ds, k_tile);
    }
    const float scales[2] = {scale, scale};
    write_rows<T, D>(dq, dqkv + at.image * at.token + at.head, at.token, at.first, tokens, scales);
}

#define ATTENTION(type, d)                                                                                                              \
    KERNEL __launch_bounds__(128) attention_##type##_##d(const type *qkv, type *out, float *lse, int tokens, int heads, float scale) {  \
        forward<type, d>(qkv, out, lse, tokens, heads, scale);                                                                          \
    }

#define ATTENTION_GRAD(type, d)                                                                                                         \
    KERNEL __launch_bounds__(128) attention_keys_grad_##type##_##d(const type *qkv, const type *grad, const float *lse,                 \
                                                                   const float *delta, type *dqkv, int tokens, int heads,               \
                                                                   float scale) {                                                       \
        backward_keys<type, d>(qkv, grad, lse, delta, dqkv, tokens, heads, scale);                                                      \
    }                                                                                                                                   \
    KERNEL __launch_bounds__(128) attention_queries_grad_##type##_##d(const type *qkv, const type *grad, const float *lse,              \
                                                                      const float *delta, type *dqkv, int tokens, int heads,            \
                                                                      float scale) {                                                    \
        backward_queries<type, d>(qkv, grad, lse, delta, dqkv, tokens, heads, scale);                                                   \
    }

ATTENTION(bf16, 32)
ATTENTION(bf16, 64)
ATTENTION(half, 32)
ATTENTION(half, 64)
ATTENTION_GRAD(bf16, 32)
ATTENTION_GRAD(bf16, 64)
