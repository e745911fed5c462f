// All kernels in one library for the host, with a launcher.
#include <cstdio>
#include <cstdlib>
#include <csetjmp>
#include <map>
#include <string>
#include <ucontext.h>
#include <utility>
#include <vector>

#include "../common.cuh"

emulated::Index blockIdx, blockDim, gridDim;

namespace emulated {

Thread *current;
unsigned char *memory;

namespace {

constexpr size_t STACK = 64 * 1024;

// A coroutine begins with its context; from then on it is left and entered by jumps, which, unlike contexts, need no system call.
struct Fiber : Thread {
    ucontext_t context;
    jmp_buf jump;
    std::vector<unsigned char> stack;
    bool started, done;
};

struct Barrier {
    int arrived, generation;
};

jmp_buf scheduler;
std::vector<Fiber> fibers;
std::vector<unsigned char> shared_bytes, mail;
Barrier block_barrier;
std::vector<Barrier> warp_barriers;
int live_in_block;
std::vector<int> live_in_warp;
bool progress;
std::string failure;
void (*entry)(void **);
void **arguments;

void open_if_full(Barrier &barrier, int live) {
    if (live == 0 || barrier.arrived < live) return;
    barrier.arrived = 0;
    barrier.generation++;
    progress = true;
}

void wait_at(Barrier &barrier, int &live) {
    const int generation = barrier.generation;
    barrier.arrived++;
    open_if_full(barrier, live);
    Fiber *self = static_cast<Fiber *>(current);
    while (barrier.generation == generation) {
        if (_setjmp(self->jump) == 0) _longjmp(scheduler, 1);
        current = self;
    }
}

void run_thread() {
    Fiber *self = static_cast<Fiber *>(current);
    entry(arguments);
    self->done = true;
    progress = true;
    open_if_full(block_barrier, --live_in_block);
    open_if_full(warp_barriers[self->warp], --live_in_warp[self->warp]);
    _longjmp(scheduler, 1);
}

void enter(Fiber &fiber) {
    current = &fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.jump, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

bool run_block(int threads, bool reversed) {
    std::fill(shared_bytes.begin(), shared_bytes.end(), 0xff);
    block_barrier = {0, 0};
    warp_barriers.assign(threads / 32, {0, 0});
    live_in_warp.assign(threads / 32, 32);
    live_in_block = threads;
    for (int i = 0; i < threads; i++) {
        Fiber &fiber = fibers[i];
        fiber.index = {(unsigned)i, 0, 0};
        fiber.lane = i % 32;
        fiber.warp = i / 32;
        fiber.started = fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, run_thread, 0);
    }
    while (live_in_block > 0) {
        progress = false;
        for (int k = 0; k < threads; k++) {
            Fiber &fiber = fibers[reversed ? threads - 1 - k : k];
            if (fiber.done) continue;
            enter(fiber);
        }
        if (!progress) {
            failure = "threads wait for a barrier that others do not come to";
            return false;
        }
    }
    return true;
}

} // namespace

void check_aligned(const void *address, size_t bytes) {
    if ((uintptr_t)address % bytes != 0) failure = "an address is not a multiple of " + std::to_string(bytes);
}
void wait_for_block() { wait_at(block_barrier, live_in_block); }
void wait_for_warp() { wait_at(warp_barriers[current->warp], live_in_warp[current->warp]); }
unsigned char *mailbox(int lane) { return &mail[(current->warp * 32 + lane) * 32]; }

} // namespace emulated

namespace norm_cu {
#include "../norm.cu"
}
namespace elementwise_cu {
#include "../elementwise.cu"
}
namespace rows_cu {
#include "../rows.cu"
}
namespace distil_cu {
#include "../distil.cu"
}
namespace optimiser_cu {
#include "../optimiser.cu"
}
namespace attention_cu {
#include "../attention.cu"
}
namespace attention_plain_cu {
#include "../attention_plain.cu"
}

template <class... A, size_t... I> void unpack(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A> *>(args[I])...);
}

template <auto K> struct Entry;
template <class... A, void (*K)(A...)> struct Entry<K> {
    static constexpr int parameters = sizeof...(A);
    static void call(void **args) { unpack(K, args, std::index_sequence_for<A...>()); }
};

struct Kernel {
    void (*call)(void **);
    int parameters;
};

static const std::map<std::string, Kernel> &table() {
#define ENTRY(name) {#name, Kernel{Entry<name>::call, Entry<name>::parameters}}
    using namespace norm_cu;
    using namespace elementwise_cu;
    using namespace rows_cu;
    using namespace distil_cu;
    using namespace optimiser_cu;
    using namespace attention_cu;
    using namespace attention_plain_cu;
    static const std::map<std::string, Kernel> entries = {
        ENTRY(layer_norm_float), ENTRY(layer_norm_bf16), ENTRY(layer_norm_half), ENTRY(layer_norm_grad_float), ENTRY(layer_norm_grad_bf16),
        ENTRY(gelu_tanh_float), ENTRY(gelu_tanh_bf16), ENTRY(gelu_tanh_half), ENTRY(gelu_erf_float), ENTRY(gelu_erf_bf16), ENTRY(gelu_erf_half),
        ENTRY(gelu_tanh_grad_float), ENTRY(gelu_tanh_grad_bf16), ENTRY(gelu_erf_grad_float), ENTRY(gelu_erf_grad_bf16),
        ENTRY(scale_float_float), ENTRY(scale_float_bf16), ENTRY(scale_bf16_float), ENTRY(scale_float_half), ENTRY(scale_half_float), ENTRY(residual_float), ENTRY(residual_bf16),
        ENTRY(add_bias_float), ENTRY(add_bias_bf16), ENTRY(add_bias_half),
        ENTRY(column_parts_float), ENTRY(column_parts_bf16), ENTRY(column_totals), ENTRY(gather_rows), ENTRY(sum_segments),
        ENTRY(patchify_float), ENTRY(patchify_bf16), ENTRY(patchify_half), ENTRY(add_table), ENTRY(patch_loss), ENTRY(patch_loss_grad), ENTRY(sum_values),
        ENTRY(unit_rows), ENTRY(unit_rows_grad), ENTRY(teacher_rows), ENTRY(cross_entropy_rows), ENTRY(cross_entropy_grad),
        ENTRY(adamw), ENTRY(ema), ENTRY(squares),
        ENTRY(attention_bf16_32), ENTRY(attention_bf16_64), ENTRY(attention_half_32), ENTRY(attention_half_64),
        ENTRY(attention_keys_grad_bf16_32), ENTRY(attention_keys_grad_bf16_64), ENTRY(attention_queries_grad_bf16_32), ENTRY(attention_queries_grad_bf16_64),
        ENTRY(attention_delta_float), ENTRY(attention_delta_bf16), ENTRY(attention_plain_float), ENTRY(attention_plain_bf16), ENTRY(attention_plain_half),
        ENTRY(attention_plain_queries_grad_float), ENTRY(attention_plain_queries_grad_bf16),
        ENTRY(attention_plain_keys_grad_float), ENTRY(attention_plain_keys_grad_bf16),
    };
    return entries;
#undef ENTRY
}

// Runs a kernel to its end, every block in turn. Returns null, or what went wrong.
extern "C" const char *emulated_launch(const char *name, unsigned grid_x, unsigned grid_y, unsigned threads, unsigned shared, void **args,
                                       int reversed) {
    static std::string message;
    const auto found = table().find(name);
    if (found == table().end()) {
        message = std::string("there is no kernel ") + name;
        return message.c_str();
    }
    if (threads == 0 || threads % 32 != 0 || threads > 1024 || grid_x == 0 || grid_y == 0 || grid_y > 65535 || shared > 48 * 1024)
        return "the grid, the block or its shared memory is not one that a GPU takes";
    using namespace emulated;
    entry = found->second.call;
    arguments = args;
    failure.clear();
    // The bytes beyond belong to nobody, so that what is read there is NaN.
    shared_bytes.resize(48 * 1024 + 16);
    memory = shared_bytes.data() + (16 - (uintptr_t)shared_bytes.data() % 16) % 16;
    mail.resize(threads * 32);
    if (fibers.size() < threads) {
        fibers.resize(threads);
        for (Fiber &fiber : fibers) fiber.stack.resize(STACK);
    }
    gridDim = {grid_x, grid_y, 1};
    blockDim = {threads, 1, 1};
    for (unsigned y = 0; y < grid_y; y++) {
        for (unsigned x = 0; x < grid_x; x++) {
            blockIdx = {x, y, 0};
            if (!run_block((int)threads, reversed != 0)) break;
            for (unsigned i = shared; i < 48 * 1024; i++)
                if (memory[i] != 0xff) failure = "shared memory is written beyond what was asked for";
        }
    }
    if (failure.empty()) return nullptr;
    message = std::string(name) + ": " + failure;
    return message.c_str();
}
