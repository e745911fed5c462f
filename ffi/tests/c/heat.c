/* heat BUNDLE OTHER_BUNDLE: heat maps at both resolutions, heads for a device, and what must be refused. */

#include "check.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { WIDTH = 96, HEIGHT = 64, ROWS = 28, COLUMNS = 42 };

static uint8_t pixels[WIDTH * HEIGHT];
static float heat[WIDTH * HEIGHT + 1];

/* A fine texture; on a bad part a bright square from (64, 16) to (80, 32). */
static ssl_edge_frame part(uint32_t seed, int is_bad) {
    ssl_edge_frame frame;
    uint32_t random = seed + 1;
    for (uint32_t y = 0; y < HEIGHT; ++y) {
        for (uint32_t x = 0; x < WIDTH; ++x) {
            random = random * 1664525u + 1013904223u;
            const int inside = is_bad && x >= 64 && x < 80 && y >= 16 && y < 32;
            pixels[y * WIDTH + x] = (uint8_t)(inside ? 250 : 90 + x / 2 + y / 4 + (random >> 28));
        }
    }
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = sizeof pixels;
    frame.stride = WIDTH;
    frame.width = WIDTH;
    frame.height = HEIGHT;
    return frame;
}

static ssl_edge_heat_options options_of(uint32_t resolution) {
    ssl_edge_heat_options options;
    EXPECT(OK, ssl_edge_heat_options_init(&options, sizeof options));
    CHECK(options.resolution == SSL_EDGE_HEAT_RESOLUTION_PIXELS && options.blur == 4.0f);
    options.resolution = resolution;
    return options;
}

static void fit(ssl_edge_job *job) {
    ssl_edge_fit_report report;
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_fit(job, &report));
}

static ssl_edge_job *taught(const ssl_edge_encoder *encoder, uint32_t surface) {
    ssl_edge_job *job = NULL;
    uint32_t good = 0, bad = 0;
    uint64_t sample_id = 0;
    EXPECT(OK, ssl_edge_job_new(encoder, &job));
    EXPECT(OK, ssl_edge_job_set_surface(job, surface));
    EXPECT(OK, ssl_edge_job_add_class(job, "good", &good));
    EXPECT(OK, ssl_edge_job_add_class(job, "bright", &bad));
    for (uint32_t seed = 0; seed < 5; ++seed) {
        ssl_edge_frame frame = part(seed, 0);
        EXPECT(OK, ssl_edge_job_add_sample(job, encoder, good, &frame, "", &sample_id));
        frame = part(seed, 1);
        EXPECT(OK, ssl_edge_job_add_sample(job, encoder, bad, &frame, "", &sample_id));
    }
    fit(job);
    return job;
}

static float largest(size_t count, size_t *place) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i) {
        CHECK(heat[i] >= 0.0f);
        if (heat[i] > heat[best]) best = i;
    }
    *place = best;
    return heat[best];
}

/* Where patches are pixels, the hottest one is in the square; the patches of random weights have seen the whole frame. */
static void maps(const ssl_edge_job *job, const ssl_edge_encoder *encoder, size_t want_rows, size_t want_columns, int is_local) {
    ssl_edge_verdict verdict, alone;
    size_t rows = 0, columns = 0, place = 0;
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_verdict_init(&alone, sizeof alone));
    ssl_edge_heat_options options = options_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    ssl_edge_frame frame = part(50, 1);
    EXPECT(OK, ssl_edge_job_heat_size(job, encoder, &frame, &options, &rows, &columns));
    CHECK(rows == want_rows && columns == want_columns);
    heat[rows * columns] = -7.0f;
    EXPECT(OK, ssl_edge_job_inspect_heat(job, encoder, &frame, &options, &verdict, heat, rows * columns));
    CHECK(heat[rows * columns] == -7.0f);
    EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &alone));
    CHECK(memcmp(&verdict, &alone, sizeof verdict) == 0 && verdict.anomalous == 1);
    CHECK(largest(rows * columns, &place) > SSL_EDGE_HEAT_THRESHOLD);
    const size_t token_x = place % columns * WIDTH / columns, token_y = place / columns * HEIGHT / rows;
    /* a patch is less than three pixels wide */
    CHECK(!is_local || (token_x + 3 >= 64 && token_x < 80 && token_y + 3 >= 16 && token_y < 32));
    CHECK(heat[place] < 1e4f);
    const float peak = heat[place];

    options = options_of(SSL_EDGE_HEAT_RESOLUTION_PIXELS);
    options.blur = 0.0f;
    EXPECT(OK, ssl_edge_job_heat_size(job, encoder, &frame, &options, &rows, &columns));
    CHECK(rows == HEIGHT && columns == WIDTH);
    EXPECT(OK, ssl_edge_job_inspect_heat(job, encoder, &frame, &options, &verdict, heat, rows * columns));
    const float sharp = largest(rows * columns, &place);
    CHECK(sharp > 0.5f * peak && sharp <= peak * 1.0001f);
    options.blur = 2.0f;
    EXPECT(OK, ssl_edge_job_inspect_heat(job, encoder, &frame, &options, &verdict, heat, rows * columns));
    CHECK(largest(rows * columns, &place) < sharp);

    /* the map of a region of interest covers the region alone */
    frame.roi_x = 40;
    frame.roi_y = 8;
    frame.roi_width = 48;
    frame.roi_height = 32;
    EXPECT(OK, ssl_edge_job_heat_size(job, encoder, &frame, &options, &rows, &columns));
    CHECK(rows == 32 && columns == 48);
    EXPECT(OK, ssl_edge_job_inspect_heat(job, encoder, &frame, &options, &verdict, heat, rows * columns));
}

/* Nothing is stretched to the frame: a good part stays below the threshold nearly everywhere. */
static void good_parts_are_cool(const ssl_edge_job *job, const ssl_edge_encoder *encoder) {
    ssl_edge_verdict verdict;
    const ssl_edge_heat_options options = options_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    const ssl_edge_frame frame = part(2, 0);
    size_t n_hot = 0;
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_job_inspect_heat(job, encoder, &frame, &options, &verdict, heat, ROWS * COLUMNS));
    for (size_t i = 0; i < ROWS * COLUMNS; ++i) n_hot += heat[i] > SSL_EDGE_HEAT_THRESHOLD;
    CHECK(n_hot <= ROWS * COLUMNS / 50);
}

static void refusals(ssl_edge_job *job, const ssl_edge_encoder *encoder, const ssl_edge_encoder *other) {
    ssl_edge_verdict verdict;
    size_t rows = 77, columns = 77;
    ssl_edge_heat_options options = options_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    ssl_edge_frame frame = part(50, 1);
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    verdict.score = -5.0f;
    heat[0] = -7.0f;
#define INSPECT(room) ssl_edge_job_inspect_heat(job, encoder, &frame, &options, &verdict, heat, room)
    REFUSED(BUFFER_TOO_SMALL, "1176 are needed", INSPECT(ROWS * COLUMNS - 1));
    REFUSED(BUFFER_TOO_SMALL, "1176 are needed", INSPECT(0));
    REFUSED(INVALID_ARGUMENT, "heat", INSPECT(SIZE_MAX));
    REFUSED(WRONG_ENCODER, "taught with",
            ssl_edge_job_inspect_heat(job, other, &frame, &options, &verdict, heat, ROWS * COLUMNS));
    REFUSED(WRONG_ENCODER, "taught with", ssl_edge_job_heat_size(job, other, &frame, &options, &rows, &columns));
    options.resolution = 0;
    REFUSED(INVALID_ARGUMENT, "ssl_edge_heat_resolution", INSPECT(ROWS * COLUMNS));
    options.resolution = 3;
    REFUSED(INVALID_ARGUMENT, "ssl_edge_heat_resolution",
            ssl_edge_job_heat_size(job, encoder, &frame, &options, &rows, &columns));
    options.resolution = SSL_EDGE_HEAT_RESOLUTION_PIXELS;
    const float wrong[] = {NAN, -1.0f, INFINITY, 1001.0f};
    for (int i = 0; i < 4; ++i) {
        options.blur = wrong[i];
        REFUSED(INVALID_ARGUMENT, "options.blur", INSPECT(WIDTH * HEIGHT));
    }
    options = options_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    options.reserved = 1;
    REFUSED(INVALID_STRUCT, "options.reserved", INSPECT(ROWS * COLUMNS));
    memset(&options, 0, sizeof options);
    REFUSED(INVALID_STRUCT, "ssl_edge_heat_options_init", INSPECT(ROWS * COLUMNS));
    REFUSED(INVALID_STRUCT, "ssl_edge_heat_options_init", ssl_edge_heat_options_init(&options, 15));
    options = options_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    frame.stride = 1;
    REFUSED(INVALID_FRAME, "stride", INSPECT(ROWS * COLUMNS));
    frame = part(50, 1);
    verdict.struct_size = 3;
    REFUSED(INVALID_STRUCT, "ssl_edge_verdict_init", INSPECT(ROWS * COLUMNS));
    verdict.struct_size = sizeof verdict;

    uint64_t revision = 0;
    EXPECT(OK, ssl_edge_job_undo(job, &revision));
    REFUSED(NOT_FITTED, "fit", INSPECT(ROWS * COLUMNS));
    fit(job);
    ssl_edge_job *flat = taught(encoder, SSL_EDGE_SURFACE_NONE);
    REFUSED(NO_SURFACE, "ssl_edge_job_set_surface", ssl_edge_job_heat_size(flat, encoder, &frame, &options, &rows, &columns));
    REFUSED(NO_SURFACE, "ssl_edge_job_set_surface",
            ssl_edge_job_inspect_heat(flat, encoder, &frame, &options, &verdict, heat, ROWS * COLUMNS));
    ssl_edge_job_free(flat);
    CHECK(verdict.score == -5.0f && heat[0] == -7.0f && rows == 77 && columns == 77);
}

static void devices(ssl_edge_job *job) {
    ssl_edge_device_options options;
    ssl_edge_device_report report;
    static uint8_t image[1 << 20];
    size_t size = 77;
    EXPECT(OK, ssl_edge_device_options_init(&options, sizeof options));
    EXPECT(OK, ssl_edge_device_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_device_report(job, &options, &report));
    /* one of ten was taken back */
    CHECK(report.samples_kept == 9 && report.compared == 9 && report.same_class == 9);
    CHECK(report.bytes > 0 && report.bytes <= sizeof image && report.score_difference < 0.1f);
    image[0] = 0xaa;
    REFUSED(BUFFER_TOO_SMALL, "needed", ssl_edge_job_device_head(job, &options, image, report.bytes - 1, &size));
    CHECK(image[0] == 0xaa && size == 77);
    image[report.bytes] = 0xaa;
    EXPECT(OK, ssl_edge_job_device_head(job, &options, image, report.bytes, &size));
    CHECK(size == report.bytes && image[0] != 0xaa && image[report.bytes] == 0xaa);

    const uint32_t whole = report.bytes;
    options.max_bytes = whole - 1;
    EXPECT(OK, ssl_edge_job_device_report(job, &options, &report));
    CHECK(report.bytes < whole && report.samples_kept == 8);
    options.max_bytes = 10;
    report.bytes = 77;
    REFUSED(INVALID_ARGUMENT, "at least", ssl_edge_job_device_report(job, &options, &report));
    options.max_bytes = UINT64_MAX;
    options.job_number = 65536;
    REFUSED(INVALID_ARGUMENT, "job_number", ssl_edge_job_device_report(job, &options, &report));
    options.job_number = 65535;
    options.struct_size = 15;
    REFUSED(INVALID_STRUCT, "ssl_edge_device_options_init", ssl_edge_job_device_report(job, &options, &report));
    options.struct_size = sizeof options;
    CHECK(report.bytes == 77);
    EXPECT(OK, ssl_edge_job_device_report(job, &options, &report));
    CHECK(report.bytes == whole);

    uint32_t class_id = 0;
    uint64_t revision = 0;
    EXPECT(OK, ssl_edge_job_class_at(job, 0, &class_id));
    ssl_edge_fit_options knn;
    ssl_edge_fit_report fitted;
    EXPECT(OK, ssl_edge_fit_options_init(&knn, sizeof knn));
    EXPECT(OK, ssl_edge_fit_report_init(&fitted, sizeof fitted));
    knn.head = SSL_EDGE_HEAD_KNN;
    EXPECT(OK, ssl_edge_job_fit_with_options(job, &knn, &fitted));
    REFUSED(NO_DEVICE_HEAD, "head", ssl_edge_job_device_head(job, &options, image, sizeof image, &size));
    EXPECT(OK, ssl_edge_job_add_class(job, "more", &class_id));
    REFUSED(NOT_FITTED, "fit", ssl_edge_job_device_head(job, &options, image, sizeof image, &size));
    EXPECT(OK, ssl_edge_job_undo(job, &revision));
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    ssl_edge_encoder *encoder = open_encoder(argv[1], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32), *other = open_encoder(argv[2], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    ssl_edge_job *job = taught(encoder, SSL_EDGE_SURFACE_PIXELS);
    maps(job, encoder, ROWS, COLUMNS, 1);
    good_parts_are_cool(job, encoder);
    refusals(job, encoder, other);
    devices(job);
    ssl_edge_job_free(job);
    /* two tiles down, three across, of four by four patches */
    job = taught(encoder, SSL_EDGE_SURFACE_ENCODER);
    maps(job, encoder, 8, 12, 0);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(other);
    ssl_edge_encoder_free(encoder);
    puts("ok");
    return 0;
}
