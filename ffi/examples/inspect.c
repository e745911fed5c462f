/*
 * Teaches a job with ten drawn frames, inspects two fresh ones, saves the job and inspects again with the loaded one.
 *
 *     cargo build --release -p ssl-edge-capi -p ssl-edge-cli
 *     target/release/ssl-edge export --random vit_n16 --seed 0 --size 64 --out random.sslb
 *     cc -std=c11 -Iffi/include ffi/examples/inspect.c -o inspect -Ltarget/release -lssl_edge -Wl,-rpath,target/release
 *     ./inspect random.sslb station.sslj
 */

#include "ssl_edge.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 160, HEIGHT = 120, STRIDE = 192, FRAMES_PER_CLASS = 5 };

typedef uint8_t picture[HEIGHT * STRIDE];

static void check(ssl_edge_status status) {
    if (status != SSL_EDGE_STATUS_OK) {
        fprintf(stderr, "inspect: %s\n", ssl_edge_last_error());
        exit(1);
    }
}

/* What a camera would deliver: brushed metal, and on a bad part a dark scratch. */
static ssl_edge_frame draw_part(uint8_t *pixels, uint32_t seed, int is_bad) {
    uint32_t random = seed * 2654435761u + 1u;
    for (int y = 0; y < HEIGHT; ++y) {
        random = random * 1664525u + 1013904223u;
        const int brush = (int)(random >> 27);
        for (int x = 0; x < WIDTH; ++x) {
            random = random * 1664525u + 1013904223u;
            const int noise = (int)(random >> 28);
            const int from_scratch = abs(x - y - 20 - (int)(seed % 8u) * 3);
            pixels[y * STRIDE + x] = (uint8_t)(is_bad && from_scratch < 6 ? 30 + noise : 140 + brush + noise);
        }
    }
    ssl_edge_frame frame;
    check(ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = HEIGHT * STRIDE;
    frame.stride = STRIDE;
    frame.width = WIDTH;
    frame.height = HEIGHT;
    return frame;
}

static void print_verdict(const ssl_edge_job *job, const ssl_edge_encoder *encoder, const ssl_edge_frame *frame) {
    ssl_edge_verdict verdict;
    char name[64];
    check(ssl_edge_verdict_init(&verdict, sizeof verdict));
    check(ssl_edge_job_inspect(job, encoder, frame, &verdict));
    check(ssl_edge_job_class_name(job, verdict.class_id, name, sizeof name));
    printf("verdict: %s, score %.4f%s\n", name, (double)verdict.score, verdict.unknown ? ", unknown" : "");
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: inspect BUNDLE.sslb JOB.sslj\n");
        return 2;
    }
    ssl_edge_encoder_options options;
    ssl_edge_encoder *encoder = NULL;
    check(ssl_edge_encoder_options_init(&options, sizeof options));
    check(ssl_edge_encoder_open(argv[1], &options, &encoder));

    ssl_edge_encoder_info info;
    check(ssl_edge_encoder_info_init(&info, sizeof info));
    check(ssl_edge_encoder_get_info(encoder, &info));
    printf("encoder: %s, %u values\n", info.arch, (unsigned)info.dim);

    static picture pixels;
    ssl_edge_job *job = NULL;
    uint32_t class_ids[2];
    uint64_t sample_id;
    check(ssl_edge_job_new(encoder, &job));
    check(ssl_edge_job_add_class(job, "good", &class_ids[0]));
    check(ssl_edge_job_add_class(job, "bad", &class_ids[1]));
    for (uint32_t seed = 0; seed < FRAMES_PER_CLASS; ++seed) {
        for (int is_bad = 0; is_bad < 2; ++is_bad) {
            const ssl_edge_frame frame = draw_part(pixels, seed, is_bad);
            check(ssl_edge_job_add_sample(job, encoder, class_ids[is_bad], &frame, "drawn", &sample_id));
        }
    }

    ssl_edge_fit_report report;
    check(ssl_edge_fit_report_init(&report, sizeof report));
    check(ssl_edge_job_fit(job, &report));
    printf("taught: %u samples, %u classes, leave-one-out accuracy %.2f\n", (unsigned)report.n_samples,
           (unsigned)report.n_classes, (double)report.loo_accuracy);

    for (int is_bad = 0; is_bad < 2; ++is_bad) {
        const ssl_edge_frame frame = draw_part(pixels, 100, is_bad);
        print_verdict(job, encoder, &frame);
    }

    check(ssl_edge_job_save(job, argv[2]));
    ssl_edge_job_free(job);
    check(ssl_edge_job_load(argv[2], &job));
    puts("loaded:");
    for (int is_bad = 0; is_bad < 2; ++is_bad) {
        const ssl_edge_frame frame = draw_part(pixels, 100, is_bad);
        print_verdict(job, encoder, &frame);
    }

    ssl_edge_job_free(job);
    ssl_edge_encoder_free(encoder);
    return 0;
}
