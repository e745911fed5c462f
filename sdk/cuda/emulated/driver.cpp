// NVIDIA's driver and cuBLASLt on the host, for tests: memory is the host's, kernels run on the emulation of ssl-edge-gpu, streams do their work at once, and a
// graph is the list of what was asked for. What a GPU would forgive is an error here: no context, memory that is not the GPU's, anything but work while a
// graph is recorded, memory that is left when the last context goes.
//
// SSL_EDGE_EMULATED has words for what is to be different: devices=N, capability=N (75 for 7.5), memory=BYTES, init=CODE, module=CODE, launches=N (the GPU
// fails after so many).
#include "emulated/library.cpp"

#include <functional>
#include <iterator>

#define API extern "C" __attribute__((visibility("default"))) int

namespace {

constexpr int OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719,
              CAPTURE_UNSUPPORTED = 900;

long option(const char *name, long otherwise) {
    const char *words = getenv("SSL_EDGE_EMULATED");
    const char *found = words ? strstr(words, name) : nullptr;
    return found ? atol(found + strlen(name) + 1) : otherwise;
}

struct Graph {
    std::vector<std::function<int()>> work;
};

int retained, depth;
Graph *recording;
std::map<uint64_t, std::vector<unsigned char>> pieces;
long used, launches;

bool inside(uint64_t address, size_t bytes) {
    auto after = pieces.upper_bound(address);
    if (after == pieces.begin()) return false;
    const auto &piece = *std::prev(after);
    return address + bytes <= piece.first + piece.second.size();
}

int submit(std::function<int()> work) {
    if (depth == 0) return INVALID_CONTEXT;
    if (!recording) return work();
    recording->work.push_back(work);
    return OK;
}

int not_while_recording() { return depth == 0 ? INVALID_CONTEXT : recording ? CAPTURE_UNSUPPORTED : OK; }

} // namespace

API cuInit(unsigned) { return option("init", option("devices", 1) == 0 ? NO_DEVICE : OK); }
API cuDriverGetVersion(int *version) { return *version = 12060, OK; }
API cuGetErrorName(int code, const char **name) {
    static const std::map<int, const char *> names = {{OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"}, {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"}};
    const auto found = names.find(code);
    if (found == names.end()) return INVALID_VALUE;
    return *name = found->second, OK;
}
API cuDeviceGetCount(int *count) { return *count = (int)option("devices", 1), OK; }
API cuDeviceGet(int *device, int number) { return *device = 40 + number, OK; }
API cuDeviceGetName(char *name, int len, int device) { return snprintf(name, len, "emulated %d", device), OK; }
API cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = option("memory", 1l << 30), OK; }
API cuDeviceGetAttribute(int *value, int attribute, int) {
    const int capability = (int)option("capability", 87);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 115;
    return OK;
}
API cuDeviceGetDefaultMemPool(void **pool, int device) { return *pool = (void *)(intptr_t)device, OK; }
API cuMemPoolSetAttribute(void *, int attribute, void *value) { return attribute == 4 && *(uint64_t *)value == UINT64_MAX ? OK : INVALID_VALUE; }
API cuDevicePrimaryCtxRetain(void **context, int device) { return retained++, *context = (void *)(intptr_t)device, OK; }
API cuDevicePrimaryCtxRelease_v2(int) {
    if (--retained == 0 && !pieces.empty()) {
        fprintf(stderr, "%zu pieces of memory were not freed\n", pieces.size());
        abort();
    }
    return OK;
}
API cuCtxPushCurrent_v2(void *) { return retained ? depth++, OK : INVALID_CONTEXT; }
API cuCtxPopCurrent_v2(void **) { return depth ? depth--, OK : INVALID_CONTEXT; }
API cuStreamCreate(void **stream, unsigned flags) { return *stream = (void *)0x57, flags == 1 ? not_while_recording() : INVALID_VALUE; }
API cuStreamDestroy_v2(void *) { return not_while_recording(); }
API cuStreamSynchronize(void *) { return not_while_recording(); }
API cuStreamBeginCapture_v2(void *, int) {
    const int code = not_while_recording();
    if (code == OK) recording = new Graph;
    return code;
}
API cuStreamEndCapture(void *, void **graph) {
    if (!recording) return INVALID_VALUE;
    *graph = recording;
    recording = nullptr;
    return OK;
}
API cuGraphInstantiateWithFlags(void **instance, void *graph, unsigned long long) { return *instance = new Graph(*(Graph *)graph), OK; }
API cuGraphDestroy(void *graph) { return delete (Graph *)graph, OK; }
API cuGraphExecDestroy(void *instance) { return delete (Graph *)instance, not_while_recording(); }
#ifndef OLD
API cuGraphLaunch(void *instance, void *) {
    if (int code = not_while_recording()) return code;
    for (const auto &work : ((Graph *)instance)->work)
        if (int code = work()) return code;
    return OK;
}
#endif
API cuEventCreate(void **event, unsigned) { return *event = (void *)0xe7, not_while_recording(); }
API cuEventRecord(void *, void *) { return not_while_recording(); }
API cuEventSynchronize(void *) { return not_while_recording(); }
API cuEventDestroy_v2(void *) { return not_while_recording(); }
API cuModuleLoadData(void **module, const void *) { return *module = (void *)0x30d, option("module", not_while_recording()); }
API cuModuleUnload(void *) { return not_while_recording(); }
API cuModuleGetFunction(void **function, void *, const char *name) {
    const auto found = table().find(name);
    if (found == table().end()) return NOT_FOUND;
    return *function = (void *)&*found, OK;
}
API cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared, void *, void **args,
                   void **) {
    const auto &kernel = *(const std::pair<const std::string, Kernel> *)function;
    std::vector<uint64_t> values(kernel.second.parameters);
    for (size_t i = 0; i < values.size(); i++) memcpy(&values[i], args[i], 8);
    if (z != 1) return INVALID_VALUE;
    return submit([=]() mutable {
        if (launches++ >= option("launches", 1l << 40)) return LAUNCH_FAILED;
        std::vector<void *> pointers;
        for (uint64_t &value : values) pointers.push_back(&value);
        const char *failure = emulated_launch(kernel.first.c_str(), x, y, threads, shared, pointers.data(), 0);
        if (failure) fprintf(stderr, "%s\n", failure);
        return failure ? LAUNCH_FAILED : OK;
    });
}
API cuMemAllocAsync(uint64_t *address, size_t bytes, void *) {
    if (int code = not_while_recording()) return code;
    if (used + (long)bytes > option("memory", 1l << 30)) return OUT_OF_MEMORY;
    std::vector<unsigned char> piece(bytes, 0xff);
    used += bytes;
    *address = (uint64_t)piece.data();
    pieces.emplace(*address, std::move(piece));
    return OK;
}
API cuMemFreeAsync(uint64_t address, void *) {
    const auto found = pieces.find(address);
    if (int code = not_while_recording()) return code;
    if (found == pieces.end()) return INVALID_VALUE;
    used -= found->second.size();
    pieces.erase(found);
    return OK;
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *) {
    if (!inside(to, bytes)) return INVALID_VALUE;
    return submit([=] { return memcpy((void *)to, from, bytes), OK; });
}
API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *) {
    if (!inside(from, bytes)) return INVALID_VALUE;
    return submit([=] { return memcpy(to, (void *)from, bytes), OK; });
}
API cuMemHostAlloc(void **memory, size_t bytes, unsigned) { return *memory = malloc(bytes), not_while_recording(); }
API cuMemFreeHost(void *memory) { return free(memory), not_while_recording(); }

// cuBLASLt. The types are numbers of library_types.h: 0 for f32, 2 for f16, 14 for bf16.

namespace {

struct Description {
    int transposed[2] = {0, 0};
    unsigned epilogue = 1;
    uint64_t bias = 0;
};

struct Matrix {
    int type;
    uint64_t rows, columns;
    int64_t ld;
    size_t bytes() const { return ((columns - 1) * ld + rows) * (type == 0 ? 4 : 2); }
};

float value(int type, uint64_t address, size_t i) {
    if (type == 0) return ((const float *)address)[i];
    if (type == 2) return half_to_float(((const half *)address)[i]);
    return bf16_to_float(((const bf16 *)address)[i]);
}

void put(int type, uint64_t address, size_t i, float x) {
    if (type == 0)
        ((float *)address)[i] = x;
    else if (type == 2)
        ((half *)address)[i] = float_to_half(x);
    else
        ((bf16 *)address)[i] = float_to_bf16(x);
}

} // namespace

API cublasLtCreate(void **handle) { return *handle = (void *)0xb1a5, OK; }
API cublasLtDestroy(void *) {
    if (depth == 0) abort();
    return OK;
}
API cublasLtMatmulDescCreate(void **description, int compute, int scale) {
    return *description = new Description, compute == 68 && scale == 0 ? OK : INVALID_VALUE;
}
API cublasLtMatmulDescSetAttribute(void *description, int attribute, const void *value, size_t bytes) {
    auto *d = (Description *)description;
    if (bytes != (attribute == 8 ? 8 : 4)) return INVALID_VALUE;
    if (attribute == 3 || attribute == 4) return d->transposed[attribute - 3] = *(const int *)value, OK;
    if (attribute == 7) return d->epilogue = *(const unsigned *)value, OK;
    if (attribute == 8) return d->bias = *(const uint64_t *)value, OK;
    return INVALID_VALUE;
}
API cublasLtMatmulDescDestroy(void *description) { return delete (Description *)description, OK; }
API cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    return *layout = new Matrix{type, rows, columns, ld}, OK;
}
API cublasLtMatrixLayoutDestroy(void *layout) { return delete (Matrix *)layout, OK; }
API cublasLtMatmulPreferenceCreate(void **preference) { return *preference = new int, OK; }
API cublasLtMatmulPreferenceSetAttribute(void *, int attribute, const void *, size_t bytes) {
    return (attribute == 1 && bytes == 8) || (attribute >= 5 && attribute <= 8 && bytes == 4) ? OK : INVALID_VALUE;
}
API cublasLtMatmulPreferenceDestroy(void *preference) { return delete (int *)preference, OK; }
// A bias on products of f16 into f32 is refused, so that the way round it is taken too.
API cublasLtMatmulAlgoGetHeuristic(void *, void *description, void *a, void *, void *, void *out, void *, int, void *result, int *count) {
    const bool bias = ((Description *)description)->epilogue == 4;
    *count = !(bias && ((Matrix *)a)->type == 2 && ((Matrix *)out)->type == 0);
    return memset(result, *count ? 0 : 0xff, 96), OK;
}
API cublasLtMatmul(void *, void *description, const float *alpha, uint64_t a, void *la, uint64_t b, void *lb, const float *beta, uint64_t c, void *,
                   uint64_t out, void *lout, const void *, uint64_t workspace, size_t workspace_bytes, void *) {
    const Description d = *(Description *)description;
    const Matrix ma = *(Matrix *)la, mb = *(Matrix *)lb, mo = *(Matrix *)lout;
    const float scale = *alpha, keep = *beta;
    if (!inside(a, ma.bytes()) || !inside(b, mb.bytes()) || !inside(out, mo.bytes()) || !inside(workspace, workspace_bytes)) return INVALID_VALUE;
    if (keep != 0.0f && !inside(c, mo.bytes())) return INVALID_VALUE;
    return submit([=] {
        const size_t depth = d.transposed[0] ? ma.rows : ma.columns;
        for (size_t column = 0; column < mo.columns; column++) {
            for (size_t row = 0; row < mo.rows; row++) {
                double sum = 0.0;
                for (size_t k = 0; k < depth; k++)
                    sum += (double)value(ma.type, a, d.transposed[0] ? k + row * ma.ld : row + k * ma.ld) *
                           value(mb.type, b, d.transposed[1] ? column + k * mb.ld : k + column * mb.ld);
                const size_t at = row + column * mo.ld;
                sum *= scale;
                if (keep != 0.0f) sum += keep * value(mo.type, c, at);
                if (d.epilogue == 4) sum += value(mo.type, d.bias, row);
                put(mo.type, out, at, (float)sum);
            }
        }
        return OK;
    });
}
