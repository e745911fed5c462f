/*
 * Teaches a job what good and scratched parts look like, shows where fresh ones are unlike good parts, and writes the head for a microcontroller.
 *
 *     cargo build --release -p ssl-edge-capi -p ssl-edge-cli
 *     target/release/ssl-edge export --random vit_n16 --seed 0 --size 64 --out random.sslb
 *     cc -std=c11 -Iffi/include ffi/examples/heat.c -o heat -Ltarget/release -lssl_edge -Wl,-rpath,target/release
 *     ./heat random.sslb station.sslj head.bin
 */

#include "ssl_edge.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 160, HEIGHT = 120, FRAMES_PER_CLASS = 6, CELLS_ACROSS = 20, CELLS_DOWN = 10 };

static void check(ssl_edge_status status) {
    if (status != SSL_EDGE_STATUS_OK) {
        fprintf(stderr, "heat: %s\n", ssl_edge_last_error());
        exit(1);
    }
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fprintf(stderr, "heat: out of memory\n");
        exit(1);
    }
    return memory;
}

/* What a camera would deliver: brushed metal, and on a bad part a dark spot on the right. */
static ssl_edge_frame draw_part(uint8_t *pixels, uint32_t seed, int is_bad) {
    uint32_t random = seed * 2654435761u + 1u;
    for (int y = 0; y < HEIGHT; ++y) {
        for (int x = 0; x < WIDTH; ++x) {
            random = random * 1664525u + 1013904223u;
            const int noise = (int)(random >> 28);
            const int dx = x - 120 - (int)(seed % 3u), dy = y - 60;
            pixels[y * WIDTH + x] = (uint8_t)(is_bad && dx * dx + dy * dy < 256 ? 30 + noise : 140 + x / 4 + y / 8 + noise);
        }
    }
    ssl_edge_frame frame;
    check(ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = HEIGHT * WIDTH;
    frame.stride = WIDTH;
    frame.width = WIDTH;
    frame.height = HEIGHT;
    return frame;
}

/* The map as text: # where a cell has a pixel above the threshold. */
static void print_heat(const float *heat, size_t rows, size_t columns) {
    for (size_t cell_y = 0; cell_y < CELLS_DOWN; ++cell_y) {
        for (size_t cell_x = 0; cell_x < CELLS_ACROSS; ++cell_x) {
            int is_hot = 0;
            for (size_t y = cell_y * rows / CELLS_DOWN; y < (cell_y + 1) * rows / CELLS_DOWN; ++y) {
                for (size_t x = cell_x * columns / CELLS_ACROSS; x < (cell_x + 1) * columns / CELLS_ACROSS; ++x) {
                    is_hot |= heat[y * columns + x] > SSL_EDGE_HEAT_THRESHOLD;
                }
            }
            putchar(is_hot ? '#' : '.');
        }
        putchar('\n');
    }
}

static void inspect(const ssl_edge_job *job, const ssl_edge_encoder *encoder, const ssl_edge_frame *frame) {
    ssl_edge_heat_options options;
    ssl_edge_verdict verdict;
    size_t rows = 0, columns = 0;
    char name[64];
    check(ssl_edge_heat_options_init(&options, sizeof options));
    check(ssl_edge_verdict_init(&verdict, sizeof verdict));
    check(ssl_edge_job_heat_size(job, encoder, frame, &options, &rows, &columns));
    float *heat = allocate(rows * columns, sizeof *heat);
    check(ssl_edge_job_inspect_heat(job, encoder, frame, &options, &verdict, heat, rows * columns));
    check(ssl_edge_job_class_name(job, verdict.class_id, name, sizeof name));
    printf("verdict: %s, %s\n", name, verdict.anomalous == 1 ? "surface unlike good parts" : "surface as it should be");
    print_heat(heat, rows, columns);
    free(heat);
}

static void write_head(const ssl_edge_job *job, const char *path) {
    ssl_edge_device_options options;
    ssl_edge_device_report report;
    size_t size = 0;
    check(ssl_edge_device_options_init(&options, sizeof options));
    check(ssl_edge_device_report_init(&report, sizeof report));
    options.job_number = 7;
    check(ssl_edge_job_device_report(job, &options, &report));
    uint8_t *image = allocate(report.bytes, 1);
    check(ssl_edge_job_device_head(job, &options, image, report.bytes, &size));
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(image, 1, size, file) != size || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    printf("head: %zu bytes, %u of %u samples get the same class in integers\n", size, (unsigned)report.same_class,
           (unsigned)report.compared);
    free(image);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: heat BUNDLE.sslb JOB.sslj HEAD.bin\n");
        return 2;
    }
    ssl_edge_encoder_options options;
    ssl_edge_encoder *encoder = NULL;
    check(ssl_edge_encoder_options_init(&options, sizeof options));
    check(ssl_edge_encoder_open(argv[1], &options, &encoder));

    static uint8_t pixels[HEIGHT * WIDTH];
    ssl_edge_job *job = NULL;
    ssl_edge_fit_report report;
    uint32_t class_ids[2];
    uint64_t sample_id;
    check(ssl_edge_job_new(encoder, &job));
    check(ssl_edge_job_set_surface(job, SSL_EDGE_SURFACE_PIXELS));
    check(ssl_edge_job_add_class(job, "good", &class_ids[0]));
    check(ssl_edge_job_add_class(job, "spot", &class_ids[1]));
    for (uint32_t seed = 0; seed < FRAMES_PER_CLASS; ++seed) {
        for (int is_bad = 0; is_bad < 2; ++is_bad) {
            const ssl_edge_frame frame = draw_part(pixels, seed, is_bad);
            check(ssl_edge_job_add_sample(job, encoder, class_ids[is_bad], &frame, "drawn", &sample_id));
        }
    }
    check(ssl_edge_fit_report_init(&report, sizeof report));
    check(ssl_edge_job_fit(job, &report));

    for (int is_bad = 0; is_bad < 2; ++is_bad) {
        const ssl_edge_frame frame = draw_part(pixels, 100, is_bad);
        inspect(job, encoder, &frame);
    }
    check(ssl_edge_job_save(job, argv[2]));
    write_head(job, argv[3]);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(encoder);
    return 0;
}
