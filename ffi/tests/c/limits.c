/* limits BUNDLE ENGINE: calls that are given up by a time or a cancel, from this thread and from another, and what they leave behind: nothing. */

#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { SIDE = 64, N_GOOD = 6, N_REFERENCE = 5 };

static uint8_t good_pixels[N_GOOD + N_REFERENCE][SIDE * SIDE], new_pixels[SIDE * SIDE];

/* Smooth metal with a little noise. */
static ssl_edge_frame part(uint8_t *pixels, uint32_t seed) {
    ssl_edge_frame frame;
    uint32_t random = seed + 1;
    for (uint32_t i = 0; i < SIDE * SIDE; ++i) {
        random = random * 1664525u + 1013904223u;
        pixels[i] = (uint8_t)(100 + i % SIDE / 2 + (random >> 29));
    }
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = SIDE * SIDE;
    frame.stride = SIDE;
    frame.width = SIDE;
    frame.height = SIDE;
    return frame;
}

static ssl_edge_call_options no_limit(void) {
    ssl_edge_call_options options;
    EXPECT(OK, ssl_edge_call_options_init(&options, sizeof options));
    CHECK(options.timeout_us == UINT64_MAX && options.cancel == NULL);
    return options;
}

static ssl_edge_verdict empty_verdict(void) {
    ssl_edge_verdict verdict;
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    verdict.score = -5.0f;
    return verdict;
}

static ssl_edge_job *taught(const ssl_edge_encoder *encoder, uint32_t *class_id) {
    ssl_edge_job *job = NULL;
    ssl_edge_fit_report report;
    uint64_t sample_id = 0;
    EXPECT(OK, ssl_edge_job_new(encoder, &job));
    EXPECT(OK, ssl_edge_job_set_surface(job, SSL_EDGE_SURFACE_ENCODER));
    EXPECT(OK, ssl_edge_job_add_class(job, "good", class_id));
    for (uint32_t seed = 0; seed < N_GOOD; ++seed) {
        const ssl_edge_frame frame = part(good_pixels[seed], seed);
        EXPECT(OK, ssl_edge_job_add_sample(job, encoder, *class_id, &frame, "", &sample_id));
    }
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_fit(job, &report));
    return job;
}

static void bad_options(const ssl_edge_encoder *encoder, const ssl_edge_job *job) {
    struct {
        ssl_edge_call_options known;
        uint64_t unknown;
    } newer = {0};
    ssl_edge_call_options options = no_limit();
    ssl_edge_verdict verdict = empty_verdict();
    ssl_edge_heat_options heat_options;
    static float heat[SIDE * SIDE];
    const ssl_edge_frame frame = part(new_pixels, 50);
#define INSPECT() ssl_edge_job_inspect_with_options(job, encoder, &frame, &options, &verdict)
    REFUSED(INVALID_STRUCT, "ssl_edge_call_options_init", ssl_edge_call_options_init(&options, sizeof options - 1));
    options.struct_size -= 1;
    REFUSED(INVALID_STRUCT, "ssl_edge_call_options_init", INSPECT());
    memset(&options, 0, sizeof options);
    REFUSED(INVALID_STRUCT, "ssl_edge_call_options_init", INSPECT());
    options = no_limit();
    options.reserved = 1;
    REFUSED(INVALID_STRUCT, "reserved", INSPECT());
    EXPECT(OK, ssl_edge_heat_options_init(&heat_options, sizeof heat_options));
    CHECK(heat_options.call == NULL);
    heat_options.call = &options;
    REFUSED(INVALID_STRUCT, "reserved",
            ssl_edge_job_inspect_heat(job, encoder, &frame, &heat_options, &verdict, heat, SIDE * SIDE));
    options = no_limit();
    options.reserved_end = 1;
    REFUSED(INVALID_STRUCT, "reserved_end", INSPECT());
    EXPECT(OK, ssl_edge_call_options_init(&newer.known, sizeof newer));
    newer.unknown = 1;
    REFUSED(INVALID_STRUCT, "update the library",
            ssl_edge_job_inspect_with_options(job, encoder, &frame, &newer.known, &verdict));
    CHECK(verdict.score == -5.0f);
    newer.unknown = 0;
    EXPECT(OK, ssl_edge_job_inspect_with_options(job, encoder, &frame, &newer.known, &verdict));
#undef INSPECT
    /* a program that was compiled before heat options had a call: what lies behind their end is not read */
    heat_options.struct_size = offsetof(ssl_edge_heat_options, call);
    heat_options.call = (const ssl_edge_call_options *)(uintptr_t)1;
    EXPECT(OK, ssl_edge_job_inspect_heat(job, encoder, &frame, &heat_options, &verdict, heat, SIDE * SIDE));
}

/* Every call that sees a frame, with options that end it: `status` comes back and no output is written. */
static void all_are_given_up(const ssl_edge_encoder *encoder, ssl_edge_job *job, uint32_t class_id,
                             const ssl_edge_call_options *ended, ssl_edge_status status) {
    static float embedding[4096], heat[SIDE * SIDE];
    float scores[1] = {-7.0f};
    size_t dim = 0, count = 0;
    uint64_t sample_id = 77;
    const ssl_edge_frame frame = part(new_pixels, 51);
    const ssl_edge_frame *frames[] = {&frame};
    ssl_edge_verdict verdict = empty_verdict();
    EXPECT(OK, ssl_edge_encoder_dim(encoder, &dim));
    embedding[0] = heat[0] = -7.0f;
    CHECK(ssl_edge_encoder_embed_with_options(encoder, &frame, ended, embedding, dim) == status);
    CHECK(strstr(ssl_edge_last_error(), "0 of 1 frames") != NULL);
    CHECK(ssl_edge_job_inspect_with_options(job, encoder, &frame, ended, &verdict) == status);
    CHECK(ssl_edge_job_inspect_scores_with_options(job, encoder, &frame, ended, &verdict, scores, 1) == status);
    CHECK(strstr(ssl_edge_last_error(), "ready for other frames") != NULL);

    ssl_edge_heat_options heat_options;
    EXPECT(OK, ssl_edge_heat_options_init(&heat_options, sizeof heat_options));
    heat_options.call = ended;
    CHECK(ssl_edge_job_inspect_heat(job, encoder, &frame, &heat_options, &verdict, heat, SIDE * SIDE) == status);

    ssl_edge_teach_options teach_options;
    EXPECT(OK, ssl_edge_teach_options_init(&teach_options, sizeof teach_options));
    teach_options.call = ended;
    CHECK(ssl_edge_job_add_sample_with_options(job, encoder, class_id, &frame, "", &teach_options, &sample_id) == status);
    EXPECT(OK, ssl_edge_job_sample_count(job, class_id, &count));
    CHECK(count == N_GOOD && sample_id == 77);

    ssl_edge_golden_options golden_options;
    ssl_edge_golden *golden = NULL;
    ssl_edge_golden_verdict beside;
    EXPECT(OK, ssl_edge_golden_options_init(&golden_options, sizeof golden_options));
    EXPECT(OK, ssl_edge_golden_verdict_init(&beside, sizeof beside));
    beside.score = -5.0f;
    for (uint32_t surface = SSL_EDGE_SURFACE_PIXELS; surface <= SSL_EDGE_SURFACE_ENCODER; ++surface) {
        golden_options.surface = surface;
        golden_options.call = ended;
        CHECK(ssl_edge_golden_learn(frames, 1, encoder, &golden_options, &golden) == status && golden == NULL);
        golden_options.call = NULL;
        EXPECT(OK, ssl_edge_golden_learn(frames, 1, encoder, &golden_options, &golden));
        CHECK(ssl_edge_golden_compare_with_options(golden, encoder, &frame, ended, &beside) == status);
        CHECK(ssl_edge_golden_compare_heat(golden, encoder, &frame, &heat_options, &beside, heat, SIDE * SIDE) == status);
        ssl_edge_golden_free(golden);
        golden = NULL;
    }
    CHECK(verdict.score == -5.0f && beside.score == -5.0f);
    CHECK(embedding[0] == -7.0f && heat[0] == -7.0f && scores[0] == -7.0f);
}

/* A monitor that frames were kept from says what one says that never met them. */
static void lines(const ssl_edge_encoder *encoder, const ssl_edge_job *job, const ssl_edge_call_options *ended,
                  ssl_edge_status status) {
    ssl_edge_monitor_options options;
    ssl_edge_monitor *monitors[2] = {NULL, NULL}, *none = NULL;
    ssl_edge_frame views[N_REFERENCE];
    const ssl_edge_frame *reference[N_REFERENCE];
    for (uint32_t i = 0; i < N_REFERENCE; ++i) {
        views[i] = part(good_pixels[N_GOOD + i], N_GOOD + i);
        reference[i] = &views[i];
    }
    EXPECT(OK, ssl_edge_monitor_options_init(&options, sizeof options));
    CHECK(options.call == NULL);
    options.reserved_end = 1;
    REFUSED(INVALID_STRUCT, "reserved_end", ssl_edge_monitor_new(job, encoder, reference, N_REFERENCE, &options, &none));
    options.reserved_end = 0;
    options.call = ended;
    CHECK(ssl_edge_monitor_new(job, encoder, reference, N_REFERENCE, &options, &none) == status && none == NULL);
    options.call = NULL;
    for (int i = 0; i < 2; ++i) {
        EXPECT(OK, ssl_edge_monitor_new(job, encoder, reference, N_REFERENCE, &options, &monitors[i]));
    }
    const ssl_edge_call_options unlimited = no_limit();
    for (uint32_t seed = 100; seed < 104; ++seed) {
        ssl_edge_verdict verdicts[2] = {empty_verdict(), empty_verdict()}, kept = empty_verdict();
        ssl_edge_drift drifts[2], untouched;
        const ssl_edge_frame frame = part(new_pixels, seed);
        EXPECT(OK, ssl_edge_drift_init(&drifts[0], sizeof drifts[0]));
        drifts[1] = untouched = drifts[0];
        CHECK(ssl_edge_monitor_observe_with_options(monitors[0], job, encoder, &frame, ended, &kept, &untouched) == status);
        CHECK(kept.score == -5.0f && memcmp(&untouched, &drifts[0], sizeof untouched) == 0);
        EXPECT(OK, ssl_edge_monitor_observe_with_options(monitors[0], job, encoder, &frame, &unlimited, &verdicts[0],
                                                         &drifts[0]));
        EXPECT(OK, ssl_edge_monitor_observe(monitors[1], job, encoder, &frame, &verdicts[1], &drifts[1]));
        CHECK(memcmp(&verdicts[0], &verdicts[1], sizeof verdicts[0]) == 0);
        CHECK(memcmp(&drifts[0], &drifts[1], sizeof drifts[0]) == 0);
    }
    ssl_edge_monitor_free(monitors[0]);
    ssl_edge_monitor_free(monitors[1]);
}

static void handles(const ssl_edge_encoder *encoder, ssl_edge_job *job, uint32_t class_id) {
    ssl_edge_cancel *first = NULL, *second = NULL;
    ssl_edge_call_options options = no_limit();
    const ssl_edge_frame frame = part(new_pixels, 52);
    ssl_edge_verdict verdict = empty_verdict();
    EXPECT(OK, ssl_edge_cancel_new(&first));
    EXPECT(OK, ssl_edge_cancel_share(first, &second));
    CHECK(first != second);
    options.cancel = second;
    EXPECT(OK, ssl_edge_job_inspect_with_options(job, encoder, &frame, &options, &verdict));
    EXPECT(OK, ssl_edge_cancel_trigger(first));
    EXPECT(OK, ssl_edge_cancel_trigger(first));
    ssl_edge_cancel_free(first);
    all_are_given_up(encoder, job, class_id, &options, SSL_EDGE_STATUS_CANCELLED);
    lines(encoder, job, &options, SSL_EDGE_STATUS_CANCELLED);
    /* whoever is stopped is not late, too */
    options.timeout_us = 0;
    EXPECT(CANCELLED, ssl_edge_job_inspect_with_options(job, encoder, &frame, &options, &verdict));
    EXPECT(OK, ssl_edge_cancel_reset(second));
    EXPECT(TIMED_OUT, ssl_edge_job_inspect_with_options(job, encoder, &frame, &options, &verdict));
    options.timeout_us = UINT64_MAX - 1;
    EXPECT(OK, ssl_edge_job_inspect_with_options(job, encoder, &frame, &options, &verdict));
    ssl_edge_cancel_free(second);
    ssl_edge_cancel_free(NULL);
}

static void *trigger_soon(void *own_handle) {
    const struct timespec pause = {.tv_nsec = 3 * 1000 * 1000};
    nanosleep(&pause, NULL);
    EXPECT(OK, ssl_edge_cancel_trigger(own_handle));
    ssl_edge_cancel_free(own_handle);
    return NULL;
}

/* Cancelled from another thread wherever a call happens to be, and by times of all lengths: verdicts keep their bits. */
static void from_another_thread(const ssl_edge_encoder *encoder, const ssl_edge_job *job) {
    const ssl_edge_frame frame = part(new_pixels, 53);
    ssl_edge_verdict before = empty_verdict(), verdict;
    EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &before));
    for (int round = 0; round < 5; ++round) {
        ssl_edge_cancel *cancel = NULL, *other = NULL;
        ssl_edge_call_options options = no_limit();
        pthread_t thread;
        ssl_edge_status status = SSL_EDGE_STATUS_OK;
        EXPECT(OK, ssl_edge_cancel_new(&cancel));
        EXPECT(OK, ssl_edge_cancel_share(cancel, &other));
        options.cancel = cancel;
        CHECK(pthread_create(&thread, NULL, trigger_soon, other) == 0);
        while (status == SSL_EDGE_STATUS_OK) {
            verdict = empty_verdict();
            status = ssl_edge_job_inspect_with_options(job, encoder, &frame, &options, &verdict);
            CHECK(status != SSL_EDGE_STATUS_OK || memcmp(&verdict, &before, sizeof verdict) == 0);
        }
        CHECK(status == SSL_EDGE_STATUS_CANCELLED && verdict.score == -5.0f);
        CHECK(pthread_join(thread, NULL) == 0);
        ssl_edge_cancel_free(cancel);
        EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &verdict));
        CHECK(memcmp(&verdict, &before, sizeof verdict) == 0);
    }
    ssl_edge_status status = SSL_EDGE_STATUS_TIMED_OUT;
    for (uint64_t time = 1; status == SSL_EDGE_STATUS_TIMED_OUT; time += time / 2 + 1) {
        ssl_edge_call_options options = no_limit();
        options.timeout_us = time;
        verdict = empty_verdict();
        status = ssl_edge_job_inspect_with_options(job, encoder, &frame, &options, &verdict);
        CHECK(status == SSL_EDGE_STATUS_OK || verdict.score == -5.0f);
    }
    CHECK(status == SSL_EDGE_STATUS_OK && memcmp(&verdict, &before, sizeof verdict) == 0);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint32_t class_id = 0;
    ssl_edge_encoder *encoder = open_encoder(argv[1], (uint32_t)atoi(argv[2]), SSL_EDGE_PRECISION_F32);
    ssl_edge_job *job = taught(encoder, &class_id);
    ssl_edge_call_options late = no_limit();
    bad_options(encoder, job);
    late.timeout_us = 0;
    all_are_given_up(encoder, job, class_id, &late, SSL_EDGE_STATUS_TIMED_OUT);
    lines(encoder, job, &late, SSL_EDGE_STATUS_TIMED_OUT);
    handles(encoder, job, class_id);
    from_another_thread(encoder, job);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(encoder);
    puts("ok");
    return 0;
}
