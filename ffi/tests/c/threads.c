/* threads BUNDLE ENGINE: several threads share an encoder and a job; results are those of one thread, and no thread is started unasked. */

#define _POSIX_C_SOURCE 200809L

#include "ssl_edge.h"

#include <dirent.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 48, N_THREADS = 4, ROUNDS = 6 };

static ssl_edge_encoder *encoder;
static ssl_edge_job *job;
static uint32_t class_ids[2];
static ssl_edge_verdict expected[N_THREADS];

static void must(ssl_edge_status status) {
    if (status != SSL_EDGE_STATUS_OK) {
        printf("failed: %s\n", ssl_edge_last_error());
        exit(1);
    }
}

static ssl_edge_frame stripes(uint8_t *pixels, uint32_t period, uint32_t phase) {
    ssl_edge_frame frame;
    for (uint32_t i = 0; i < SIZE * SIZE; ++i) pixels[i] = (uint8_t)((i % SIZE + phase) / period % 2 * 200 + 20 + i % 7 + phase % 11);
    must(ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = SIZE * SIZE;
    frame.stride = SIZE;
    frame.width = SIZE;
    frame.height = SIZE;
    return frame;
}

static ssl_edge_verdict inspect(uint32_t thread) {
    uint8_t pixels[SIZE * SIZE];
    ssl_edge_verdict verdict;
    const ssl_edge_frame frame = stripes(pixels, thread % 2 == 0 ? 3 : 12, 100 + thread);
    must(ssl_edge_verdict_init(&verdict, sizeof verdict));
    must(ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    return verdict;
}

static void *inspect_often(void *argument) {
    const uint32_t thread = (uint32_t)(uintptr_t)argument;
    char text[16];
    for (int round = 0; round < ROUNDS; ++round) {
        const ssl_edge_verdict verdict = inspect(thread);
        if (memcmp(&verdict, &expected[thread], sizeof verdict) != 0) {
            printf("thread %u: another verdict than alone\n", (unsigned)thread);
            exit(1);
        }
        snprintf(text, sizeof text, "%u", 1000u + (unsigned)thread);
        const ssl_edge_status status = ssl_edge_job_class_name(job, 1000u + thread, text, sizeof text);
        if (status != SSL_EDGE_STATUS_UNKNOWN_CLASS || strstr(ssl_edge_last_error(), text) == NULL) {
            printf("thread %u: the error text is another thread's: %s\n", (unsigned)thread, ssl_edge_last_error());
            exit(1);
        }
    }
    return NULL;
}

static int count_threads(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) return -1;
    for (const struct dirent *entry; (entry = readdir(tasks)) != NULL;) count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    ssl_edge_encoder_options options;
    ssl_edge_fit_report report;
    uint8_t pixels[SIZE * SIZE];
    uint64_t sample_id;
    pthread_t threads[N_THREADS];
    const int before = count_threads();
    must(ssl_edge_encoder_options_init(&options, sizeof options));
    options.engine = (uint32_t)atoi(argv[2]);
    options.threads = 2;
    must(ssl_edge_encoder_open(argv[1], &options, &encoder));
    must(ssl_edge_job_new(encoder, &job));
    must(ssl_edge_job_add_class(job, "fine", &class_ids[0]));
    must(ssl_edge_job_add_class(job, "coarse", &class_ids[1]));
    for (uint32_t i = 0; i < 8; ++i) {
        const ssl_edge_frame frame = stripes(pixels, i % 2 == 0 ? 3 : 12, i);
        must(ssl_edge_job_add_sample(job, encoder, class_ids[i % 2], &frame, "", &sample_id));
    }
    must(ssl_edge_fit_report_init(&report, sizeof report));
    must(ssl_edge_job_fit(job, &report));
    for (uint32_t i = 0; i < N_THREADS; ++i) {
        expected[i] = inspect(i);
        if (expected[i].class_id != class_ids[i % 2]) return 1;
    }
    if (count_threads() > before + 2) {
        printf("%d threads were started where 2 were allowed\n", count_threads() - before);
        return 1;
    }

    for (uint32_t i = 0; i < N_THREADS; ++i) {
        if (pthread_create(&threads[i], NULL, inspect_often, (void *)(uintptr_t)i) != 0) return 1;
    }
    for (uint32_t i = 0; i < N_THREADS; ++i) pthread_join(threads[i], NULL);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(encoder);
    puts("ok");
    return 0;
}
