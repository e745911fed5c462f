/* monitor BUNDLE OTHER_BUNDLE: a line is watched, a dark one gives an alarm, threads may share a monitor, and misuse is refused. */

#include "check.h"

#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum { SIZE = 48, PIXELS = SIZE * SIZE, REFERENCE = 20, N_THREADS = 3, PER_THREAD = 8 };

static ssl_edge_encoder *encoder;
static ssl_edge_job *job;
static ssl_edge_monitor *monitor;

/* Brushed metal under a light of the given strength, which varies by some percent. */
static ssl_edge_frame part(uint8_t *pixels, uint32_t seed, double light) {
    ssl_edge_frame frame;
    /* neighbouring seeds must not give neighbouring lights (the finaliser of MurmurHash3) */
    uint32_t random = (seed ^ seed >> 16) * 0x85ebca6bu;
    random = (random ^ random >> 13) * 0xc2b2ae35u;
    random ^= random >> 16;
    const double varied = light * (0.97 + 0.06 * (double)(random >> 8) / (double)(1u << 24));
    for (int y = 0; y < SIZE; ++y) {
        random = random * 1664525u + 1013904223u;
        const int brush = (int)(random >> 28);
        for (int x = 0; x < SIZE; ++x) {
            random = random * 1664525u + 1013904223u;
            pixels[y * SIZE + x] = (uint8_t)(varied * (120 + brush + (int)(random >> 28)));
        }
    }
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = PIXELS;
    frame.stride = SIZE;
    frame.width = SIZE;
    frame.height = SIZE;
    return frame;
}

static void fit(void) {
    ssl_edge_fit_report report;
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_fit(job, &report));
}

static void teach(void) {
    static uint8_t pixels[PIXELS];
    uint32_t good = 0;
    uint64_t sample_id = 0;
    EXPECT(OK, ssl_edge_job_new(encoder, &job));
    EXPECT(OK, ssl_edge_job_set_surface(job, SSL_EDGE_SURFACE_PIXELS));
    EXPECT(OK, ssl_edge_job_add_class(job, "good", &good));
    for (uint32_t seed = 0; seed < 8; ++seed) {
        const ssl_edge_frame frame = part(pixels, seed, 1.0);
        EXPECT(OK, ssl_edge_job_add_sample(job, encoder, good, &frame, "", &sample_id));
    }
    fit();
}

static ssl_edge_monitor_options options_of(double run_length) {
    ssl_edge_monitor_options options;
    EXPECT(OK, ssl_edge_monitor_options_init(&options, sizeof options));
    CHECK(options.run_length == 10000.0 && options.unknown_rate > 0.0f);
    options.run_length = run_length;
    return options;
}

static ssl_edge_status make(const ssl_edge_encoder *by, uint32_t first_seed, size_t count, const ssl_edge_monitor_options *options,
                            ssl_edge_monitor **made) {
    static uint8_t pixels[REFERENCE][PIXELS];
    ssl_edge_frame frames[REFERENCE];
    const ssl_edge_frame *pointers[REFERENCE];
    for (uint32_t i = 0; i < REFERENCE; ++i) {
        frames[i] = part(pixels[i], first_seed + i, 1.0);
        pointers[i] = &frames[i];
    }
    return ssl_edge_monitor_new(job, by, pointers, count, options, made);
}

static ssl_edge_drift observe(uint32_t seed, double light) {
    uint8_t pixels[PIXELS];
    ssl_edge_verdict verdict, alone;
    ssl_edge_drift drift;
    const ssl_edge_frame frame = part(pixels, seed, light);
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_verdict_init(&alone, sizeof alone));
    EXPECT(OK, ssl_edge_drift_init(&drift, sizeof drift));
    EXPECT(OK, ssl_edge_monitor_observe(monitor, job, encoder, &frame, &verdict, &drift));
    EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &alone));
    CHECK(memcmp(&verdict, &alone, sizeof verdict) == 0);
    return drift;
}

static void a_dark_line_gives_an_alarm(void) {
    for (uint32_t seed = 0; seed < 25; ++seed) CHECK(observe(3000 + seed, 1.0).cause == SSL_EDGE_DRIFT_CAUSE_NONE);
    uint32_t n_frames = 0;
    ssl_edge_drift drift;
    float level = 0.0f;
    do {
        drift = observe(4000 + n_frames, 0.6);
        CHECK(++n_frames < 30);
        if (drift.cause == SSL_EDGE_DRIFT_CAUSE_NONE) {
            CHECK(drift.brightness > level && drift.frames == 0 && drift.unlike == 0.0f);
            level = drift.brightness;
        }
    } while (drift.cause == SSL_EDGE_DRIFT_CAUSE_NONE);
    CHECK(drift.cause == SSL_EDGE_DRIFT_CAUSE_CAMERA_BRIGHTNESS && drift.frames >= 1 && drift.frames <= n_frames + 25);
    CHECK(strstr(ssl_edge_drift_action(drift.cause), "light") != NULL);
    CHECK(drift.brightness == 0.0f && drift.unknown == 0.0f);
    CHECK(observe(5000, 0.6).cause == SSL_EDGE_DRIFT_CAUSE_CAMERA_BRIGHTNESS);

    /* charts begin anew: after a reset a frame gives the level that it gave first, and without one a higher level */
    EXPECT(OK, ssl_edge_monitor_reset(monitor));
    const ssl_edge_drift first = observe(5001, 0.95);
    CHECK(first.cause == SSL_EDGE_DRIFT_CAUSE_NONE && first.brightness > 0.0f);
    EXPECT(OK, ssl_edge_monitor_reset(monitor));
    const ssl_edge_drift again = observe(5001, 0.95);
    CHECK(memcmp(&first, &again, sizeof first) == 0);
    const ssl_edge_drift second = observe(5001, 0.95);
    CHECK(second.cause != SSL_EDGE_DRIFT_CAUSE_NONE || second.brightness > first.brightness);
    EXPECT(OK, ssl_edge_monitor_reset(monitor));
}

static void *observe_often(void *argument) {
    const uint32_t thread = (uint32_t)(uintptr_t)argument;
    for (uint32_t i = 0; i < PER_THREAD; ++i) observe(6000 + 100 * thread + i, 1.0);
    return NULL;
}

static void threads_share_a_monitor(void) {
    pthread_t threads[N_THREADS];
    for (uint32_t i = 0; i < N_THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, observe_often, (void *)(uintptr_t)i) == 0);
    for (uint32_t i = 0; i < N_THREADS; ++i) pthread_join(threads[i], NULL);
}

static void making_is_refused(const ssl_edge_encoder *other) {
    ssl_edge_monitor *made = NULL;
    ssl_edge_monitor_options options = options_of(1000.0);
    REFUSED(INVALID_ARGUMENT, "at least 5", make(encoder, 1000, 4, &options, &made));
    REFUSED(INVALID_ARGUMENT, "at least 5", make(encoder, 1000, 0, &options, &made));
    REFUSED(INVALID_ARGUMENT, "frames", make(encoder, 1000, SIZE_MAX, &options, &made));
    REFUSED(ALREADY_TAUGHT, "reference frame 0", make(encoder, 7, REFERENCE, &options, &made));
    REFUSED(WRONG_ENCODER, "taught with", make(other, 1000, REFERENCE, &options, &made));
    const double wrong_lengths[] = {NAN, 0.0, -1.0, INFINITY, 1e12};
    for (int i = 0; i < 5; ++i) {
        options = options_of(wrong_lengths[i]);
        REFUSED(INVALID_ARGUMENT, "run_length", make(encoder, 1000, REFERENCE, &options, &made));
    }
    const float wrong_rates[] = {NAN, 0.0f, -1.0f, 0.3f, INFINITY};
    for (int i = 0; i < 5; ++i) {
        options = options_of(1000.0);
        options.unknown_rate = wrong_rates[i];
        REFUSED(INVALID_ARGUMENT, "unknown_rate", make(encoder, 1000, REFERENCE, &options, &made));
    }
    options.struct_size = 8;
    REFUSED(INVALID_STRUCT, "ssl_edge_monitor_options_init", make(encoder, 1000, REFERENCE, &options, &made));
    CHECK(made == NULL);
}

static void observing_is_refused(const ssl_edge_encoder *other) {
    static uint8_t pixels[PIXELS];
    ssl_edge_verdict verdict;
    ssl_edge_drift drift;
    ssl_edge_frame frame = part(pixels, 9000, 1.0);
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_drift_init(&drift, sizeof drift));
    verdict.score = -5.0f;
    drift.unlike = -5.0f;
#define OBSERVE(by) ssl_edge_monitor_observe(monitor, job, by, &frame, &verdict, &drift)
    REFUSED(WRONG_ENCODER, "taught with", OBSERVE(other));
    frame.stride = 1;
    REFUSED(INVALID_FRAME, "stride", OBSERVE(encoder));
    frame = part(pixels, 9000, 1.0);
    drift.struct_size = 4;
    REFUSED(INVALID_STRUCT, "ssl_edge_drift_init", OBSERVE(encoder));
    drift.struct_size = sizeof drift;
    uint32_t class_id = 0;
    EXPECT(OK, ssl_edge_job_class_at(job, 0, &class_id));
    EXPECT(OK, ssl_edge_job_rename_class(job, class_id, "fine"));
    REFUSED(JOB_CHANGED, "new monitor", OBSERVE(encoder));
    uint64_t sample_id = 0;
    EXPECT(OK, ssl_edge_job_add_sample(job, encoder, class_id, &frame, "", &sample_id));
    REFUSED(NOT_FITTED, "fit", OBSERVE(encoder));
    ssl_edge_monitor *made = NULL;
    const ssl_edge_monitor_options options = options_of(1000.0);
    REFUSED(NOT_FITTED, "fit", make(encoder, 1000, REFERENCE, &options, &made));
    CHECK(made == NULL && verdict.score == -5.0f && drift.unlike == -5.0f);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    encoder = open_encoder(argv[1], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    ssl_edge_encoder *other = open_encoder(argv[2], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    teach();
    const ssl_edge_monitor_options options = options_of(1000.0);
    EXPECT(OK, make(encoder, 1000, REFERENCE, &options, &monitor));
    a_dark_line_gives_an_alarm();
    threads_share_a_monitor();
    making_is_refused(other);
    observing_is_refused(other);
    CHECK(strcmp(ssl_edge_drift_action(SSL_EDGE_DRIFT_CAUSE_NONE), "") == 0 && strcmp(ssl_edge_drift_action(99), "") == 0);
    for (uint32_t cause = 1; cause <= SSL_EDGE_DRIFT_CAUSE_NEW_KIND_OF_DEFECT; ++cause) {
        CHECK(strlen(ssl_edge_drift_action(cause)) > 20);
    }
    ssl_edge_monitor_free(monitor);
    ssl_edge_monitor_free(NULL);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(other);
    ssl_edge_encoder_free(encoder);
    puts("ok");
    return 0;
}
