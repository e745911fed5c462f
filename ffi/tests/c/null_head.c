#include "ssl_edge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_calls = 0;

static void must(ssl_edge_status status) {
    if (status != SSL_EDGE_STATUS_OK) {
        printf("preparation failed: %s\n", ssl_edge_last_error());
        exit(1);
    }
}

static void expect_null(ssl_edge_status status, const char *function, const char *parameter) {
    ++n_calls;
    if (status != SSL_EDGE_STATUS_NULL_POINTER || strstr(ssl_edge_last_error(), "NULL") == NULL) {
        printf("%s with %s NULL returned %u: %s\n", function, parameter, (unsigned)status, ssl_edge_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const char *path = argv[2];
    static unsigned char pixels[64 * 64];
    ssl_edge_encoder *encoder = NULL, *new_encoder = NULL;
    ssl_edge_job *job = NULL, *new_job = NULL;
    ssl_edge_encoder_options options;
    ssl_edge_encoder_info info;
    ssl_edge_frame frame;
    ssl_edge_verdict verdict;
    ssl_edge_fit_report report;
    ssl_edge_fit_options fit_options;
    ssl_edge_heat_options heat_options;
    ssl_edge_device_options device_options;
    ssl_edge_device_report device_report;
    static unsigned char bytes[4096];
    size_t dim = 0, size = 0;
    uint32_t class_id = 0, number = 0;
    uint64_t sample_id = 0;
    static float embedding[4096];
    static char name[4096];

    must(ssl_edge_encoder_options_init(&options, sizeof options));
    must(ssl_edge_encoder_info_init(&info, sizeof info));
    must(ssl_edge_verdict_init(&verdict, sizeof verdict));
    must(ssl_edge_fit_report_init(&report, sizeof report));
    must(ssl_edge_fit_options_init(&fit_options, sizeof fit_options));
    must(ssl_edge_heat_options_init(&heat_options, sizeof heat_options));
    must(ssl_edge_device_options_init(&device_options, sizeof device_options));
    must(ssl_edge_device_report_init(&device_report, sizeof device_report));
    must(ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = sizeof pixels;
    frame.stride = 64;
    frame.width = 64;
    frame.height = 64;
    must(ssl_edge_encoder_open(argv[1], &options, &encoder));
    must(ssl_edge_encoder_dim(encoder, &dim));
    must(ssl_edge_job_new(encoder, &job));
    must(ssl_edge_job_add_class(job, "a", &class_id));
    must(ssl_edge_job_add_sample(job, encoder, class_id, &frame, "", &sample_id));
    must(ssl_edge_job_save(job, path));

