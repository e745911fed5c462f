/*
 * A line that does not wait: each part has a deadline, and another thread stops the line in the middle of a part.
 *
 *     cargo build --release -p ssl-edge-capi -p ssl-edge-cli
 *     target/release/ssl-edge export --random vit_n16 --seed 0 --size 64 --out random.sslb
 *     cc -std=c11 -Iffi/include ffi/examples/deadline.c -o deadline -pthread -Ltarget/release -lssl_edge -Wl,-rpath,target/release
 *     ./deadline random.sslb
 */

#define _POSIX_C_SOURCE 200809L

#include "ssl_edge.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIDE = 96, PARTS_TAUGHT = 5 };

static void check(ssl_edge_status status) {
    if (status != SSL_EDGE_STATUS_OK) {
        fprintf(stderr, "deadline: %s\n", ssl_edge_last_error());
        exit(1);
    }
}

/* What a camera would deliver: brushed metal. */
static ssl_edge_frame draw_part(uint8_t *pixels, uint32_t seed) {
    uint32_t random = seed * 2654435761u + 1u;
    for (int i = 0; i < SIDE * SIDE; ++i) {
        random = random * 1664525u + 1013904223u;
        pixels[i] = (uint8_t)(120 + i % SIDE / 4 + (random >> 28));
    }
    ssl_edge_frame frame;
    check(ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = SIDE * SIDE;
    frame.stride = SIDE;
    frame.width = SIDE;
    frame.height = SIDE;
    return frame;
}

static ssl_edge_job *teach(const ssl_edge_encoder *encoder, uint8_t *pixels) {
    ssl_edge_job *job = NULL;
    ssl_edge_fit_report report;
    uint32_t class_id = 0;
    uint64_t sample_id = 0;
    check(ssl_edge_job_new(encoder, &job));
    check(ssl_edge_job_set_surface(job, SSL_EDGE_SURFACE_PIXELS));
    check(ssl_edge_job_add_class(job, "good", &class_id));
    for (uint32_t seed = 0; seed < PARTS_TAUGHT; ++seed) {
        const ssl_edge_frame frame = draw_part(pixels, seed);
        check(ssl_edge_job_add_sample(job, encoder, class_id, &frame, "drawn", &sample_id));
    }
    check(ssl_edge_fit_report_init(&report, sizeof report));
    check(ssl_edge_job_fit(job, &report));
    return job;
}

/* Whether the line goes on after this part. */
static int inspect(const ssl_edge_job *job, const ssl_edge_encoder *encoder, const ssl_edge_frame *frame,
                   const ssl_edge_cancel *stop, uint64_t timeout_us, const char *name) {
    ssl_edge_call_options options;
    ssl_edge_verdict verdict;
    check(ssl_edge_call_options_init(&options, sizeof options));
    check(ssl_edge_verdict_init(&verdict, sizeof verdict));
    options.timeout_us = timeout_us;
    options.cancel = stop;
    const ssl_edge_status status = ssl_edge_job_inspect_with_options(job, encoder, frame, &options, &verdict);
    switch (status) {
    case SSL_EDGE_STATUS_TIMED_OUT:
        /* Nothing is known of the part: reject it, and go on with the next one at once. */
        if (name != NULL) printf("%s: no verdict in time\n", name);
        return 1;
    case SSL_EDGE_STATUS_CANCELLED:
        return 0;
    default:
        check(status);
        if (name != NULL) printf("%s: %s\n", name, verdict.ok == 1 ? "OK" : "not OK");
        return 1;
    }
}

/* Somebody presses the stop button. The thread has a handle of its own, so that it does not matter who ends first. */
static void *press_stop(void *own_handle) {
    ssl_edge_cancel *stop = own_handle;
    const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
    nanosleep(&pause, NULL);
    check(ssl_edge_cancel_trigger(stop));
    ssl_edge_cancel_free(stop);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: deadline BUNDLE.sslb\n");
        return 2;
    }
    static uint8_t pixels[SIDE * SIDE];
    ssl_edge_encoder_options options;
    ssl_edge_encoder *encoder = NULL;
    ssl_edge_cancel *stop = NULL, *button = NULL;
    pthread_t operator_thread;
    check(ssl_edge_encoder_options_init(&options, sizeof options));
    check(ssl_edge_encoder_open(argv[1], &options, &encoder));
    ssl_edge_job *job = teach(encoder, pixels);
    check(ssl_edge_cancel_new(&stop));

    const ssl_edge_frame taught = draw_part(pixels, 0);
    inspect(job, encoder, &taught, stop, 60 * 1000 * 1000, "a part with a minute");
    inspect(job, encoder, &taught, stop, 1, "a part with a microsecond");
    inspect(job, encoder, &taught, stop, UINT64_MAX, "the same with no limit");

    check(ssl_edge_cancel_share(stop, &button));
    if (pthread_create(&operator_thread, NULL, press_stop, button) != 0) {
        perror("deadline");
        return 1;
    }
    while (inspect(job, encoder, &taught, stop, 60 * 1000 * 1000, NULL)) continue;
    puts("the line was stopped");
    pthread_join(operator_thread, NULL);
    check(ssl_edge_cancel_reset(stop));
    inspect(job, encoder, &taught, stop, 60 * 1000 * 1000, "a part after the stop");

    ssl_edge_cancel_free(stop);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(encoder);
    return 0;
}
