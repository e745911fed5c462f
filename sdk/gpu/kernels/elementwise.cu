// One pass over all values: GELU, its gradient, conversions, residuals.
#include "common.cuh"

constexpr float SQRT_2_OVER_PI = 0.797884561f, CUBIC = 0.044715f, DENSITY = 0.398942280f, SQRT_HALF = 0.707106781f;

// The value of GELU over x, and its derivative.
struct Gelu {
    float factor, slope; // gelu(x) = x * factor
};

template <bool ERF> DEVICE Gelu gelu(float x) {
    Gelu y;
    if (ERF) {
        y.factor = 0.5f * (1.0f + erff(x * SQRT_HALF));
        y.slope = y.factor + x * DENSITY * expf(-0.5f * x * x);
    } else {
        // 0.5 (1 + tanh u) = 1 / (1 + e^(-2u))
        const float s = 1.0f / (1.0f + expf(-2.0f * SQRT_2_OVER_PI * (x + CUBIC * x * x * x)));
        y.factor = s;
        y.slope = s + x * 2.0f * s * (1.0f - s) * SQRT_2_OVER_PI * (1.0f + 3.0f * CUBIC * x * x);
    }
    return y;
}

// Calls f(first) for the first index of every pack of V of n values that this thread of a one-dimensional grid has.
template <int V, class F> DEVICE void each(i64 n, F f) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) f(i);
}

template <class T, bool ERF, int V> DEVICE void gelu_values(const T *x, T *y, i64 n) {
    each<V>(n, [=](i64 i) {
        Pack<T, V> p = load<T, V>(x + i);
        for (int j = 0; j < V; j++) {
            const float value = to_float(p.v[j]);
            p.v[j] = Convert<T>::from(value * gelu<ERF>(value).factor);
        }
        store<T, V>(y + i, p);
    });
}

// dx = g * slope, and the value into y unless it is null; y may be x, dx may be g.
template <class T, bool ERF, int V> DEVICE void gelu_grads(const T *x, const T *g, T *y, T *dx, i64 n) {
    each<V>(n, [=](i64 i) {
        Pack<T, V> px = load<T, V>(x + i), pg = load<T, V>(g + i);
        for (int j = 0; j < V; j++) {
            const float value = to_float(px.v[j]);
            const Gelu at = gelu<ERF>(value);
            px.v[j] = Convert<T>::from(value * at.factor);
            pg.v[j] = Convert<T>::from(to_float(pg.v[j]) * at.slope);
        }
        if (y) store<T, V>(y + i, px);
        store<T, V>(dx + i, pg);
    });
}

// out = x * factors[image]; one image of n values for each row of the grid. factors may be null and is then 1.
template <class From, class To, int V> DEVICE void scale_values(const From *x, const float *factors, To *out, i64 n) {
    const float factor = factors ? factors[blockIdx.y] : 1.0f;
    x += (i64)blockIdx.y * n;
    out += (i64)blockIdx.y * n;
    each<V>(n, [=](i64 i) {
        const Pack<From, V> p = load<From, V>(x + i);
        Pack<To, V> scaled;
        for (int j = 0; j < V; j++) scaled.v[j] = Convert<To>::from(factor * to_float(p.v[j]));
        store<To, V>(out + i, scaled);
    });
}

// y = x + factors[image] * branch, images as above.
template <class T, int V> DEVICE void residual_values(const float *x, const T *branch, const float *factors, float *y, i64 n) {
    const float factor = factors[blockIdx.y];
    const i64 image = (i64)blockIdx.y * n;
    each<V>(n, [=](i64 i) {
        Pack<float, V> p = load<float, V>(x + image + i);
        const Pack<T, V> pb = load<T, V>(branch + image + i);
        for (int j = 0; j < V; j++) p.v[j] += factor * to_float(pb.v[j]);
        store<float, V>(y + image + i, p);
    });
}

#define EITHER(wide, call)                                                                                                              \
    if (wide) {                                                                                                                         \
        constexpr int V = 4;                                                                                                            \
        call;                                                                                                                           \
    } else {                                                                                                                            \
        constexpr int V = 1;                                                                                                            \
        call;                                                                                                                           \
    }

#define GELU(form, is_erf, type)                                                                                                        \
    KERNEL gelu_##form##_##type(const type *x, type *y, i64 n, int wide) { EITHER(wide, (gelu_values<type, is_erf, V>(x, y, n))) }      \
    KERNEL gelu_##form##_grad_##type(const type *x, const type *g, type *y, type *dx, i64 n, int wide) {                                \
        EITHER(wide, (gelu_grads<type, is_erf, V>(x, g, y, dx, n)))                                                                     \
    }

GELU(tanh, false, float)
GELU(tanh, false, bf16)
GELU(erf, true, float)
GELU(erf, true, bf16)

// In f16 encoders only run.
#define GELU_VALUES(form, is_erf, type)                                                                                                 \
    KERNEL gelu_##form##_##type(const type *x, type *y, i64 n, int wide) { EITHER(wide, (gelu_values<type, is_erf, V>(x, y, n))) }

GELU_VALUES(tanh, false, half)
GELU_VALUES(erf, true, half)

#define SCALE(from, to)                                                                                                                 \
    KERNEL scale_##from##_##to(const from *x, const float *factors, to *out, i64 n, int wide) {                                         \
        EITHER(wide, (scale_values<from, to, V>(x, factors, out, n)))                                                                   \
    }

SCALE(float, float)
SCALE(float, bf16)
SCALE(bf16, float)
SCALE(float, half)
SCALE(half, float)

#define RESIDUAL(type)                                                                                                                  \
    KERNEL residual_##type(const float *x, const type *branch, const float *factors, float *y, i64 n, int wide) {                       \
        EITHER(wide, (residual_values<type, V>(x, branch, factors, y, n)))                                                              \
    }

RESIDUAL(float)
RESIDUAL(bf16)

// out[row][i] += bias[i], rows of n values. Grid: rows.
template <class T> DEVICE void add_bias(T *out, const T *bias, int n) {
    out += (i64)blockIdx.x * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = Convert<T>::from(to_float(out[i]) + to_float(bias[i]));
}

KERNEL add_bias_float(float *out, const float *bias, int n) { add_bias<float>(out, bias, n); }
KERNEL add_bias_bf16(bf16 *out, const bf16 *bias, int n) { add_bias<bf16>(out, bias, n); }
KERNEL add_bias_half(half *out, const half *bias, int n) { add_bias<half>(out, bias, n); }
