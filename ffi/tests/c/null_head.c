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
    ssl_edge_cancel *cancel = NULL, *new_cancel = NULL;
    ssl_edge_call_options call_options;
    ssl_edge_teach_options teach_options;
    ssl_edge_encoder_info info;
    ssl_edge_frame frame;
    ssl_edge_verdict verdict;
    ssl_edge_fit_report report;
    ssl_edge_migration migration;
    ssl_edge_fit_options fit_options;
    ssl_edge_golden *golden = NULL, *new_golden = NULL;
    ssl_edge_golden_options golden_options;
    ssl_edge_golden_info golden_info;
    ssl_edge_golden_verdict golden_verdict;
    ssl_edge_monitor *monitor = NULL, *new_monitor = NULL;
    ssl_edge_monitor_options monitor_options;
    ssl_edge_drift drift;
    static unsigned char reference[5][64 * 64];
    ssl_edge_frame views[5];
    const ssl_edge_frame *frames[5];
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
    must(ssl_edge_cancel_new(&cancel));
    must(ssl_edge_call_options_init(&call_options, sizeof call_options));
    must(ssl_edge_teach_options_init(&teach_options, sizeof teach_options));
    must(ssl_edge_verdict_init(&verdict, sizeof verdict));
    must(ssl_edge_fit_report_init(&report, sizeof report));
    must(ssl_edge_migration_init(&migration, sizeof migration));
    must(ssl_edge_fit_options_init(&fit_options, sizeof fit_options));
    must(ssl_edge_golden_options_init(&golden_options, sizeof golden_options));
    golden_options.surface = SSL_EDGE_SURFACE_ENCODER;
    must(ssl_edge_golden_info_init(&golden_info, sizeof golden_info));
    must(ssl_edge_golden_verdict_init(&golden_verdict, sizeof golden_verdict));
    must(ssl_edge_monitor_options_init(&monitor_options, sizeof monitor_options));
    must(ssl_edge_drift_init(&drift, sizeof drift));
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
    must(ssl_edge_job_fit(job, &report));
    for (int i = 0; i < 5; ++i) {
        for (int at = 0; at < 64 * 64; ++at) reference[i][at] = (unsigned char)(at * (i + 3) % 91 + i);
        views[i] = frame;
        views[i].data = reference[i];
        frames[i] = &views[i];
    }
    must(ssl_edge_golden_learn(frames, 3, encoder, &golden_options, &golden));
    must(ssl_edge_monitor_new(job, encoder, frames, 5, &monitor_options, &monitor));
    must(ssl_edge_job_save(job, path));

