/* teach BUNDLE JOB: ignore masks and copies, and what must be refused. The job in JOB has copies of all samples and a mask. */

#include "check.h"

#include <stddef.h>
#include <stdint.h>

enum { WIDTH = 36, HEIGHT = 24, STRIDE = 40, N_GOOD = 5, COPIES = 9 };

static uint8_t pixels[WIDTH * HEIGHT], mask_pixels[STRIDE * HEIGHT];

static ssl_edge_frame view(const uint8_t *data, size_t size, size_t stride, uint32_t width, uint32_t height) {
    ssl_edge_frame frame;
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = data;
    frame.data_size = size;
    frame.stride = stride;
    frame.width = width;
    frame.height = height;
    return frame;
}

/* A fine texture; with a mark a bright square from (24, 6) to (30, 12). */
static ssl_edge_frame part(uint32_t seed, int has_mark) {
    uint32_t random = seed + 1;
    for (uint32_t y = 0; y < HEIGHT; ++y) {
        for (uint32_t x = 0; x < WIDTH; ++x) {
            random = random * 1664525u + 1013904223u;
            const int inside = has_mark && x >= 24 && x < 30 && y >= 6 && y < 12;
            pixels[y * WIDTH + x] = (uint8_t)(inside ? 250 : 90 + x / 2 + y / 4 + (random >> 28));
        }
    }
    return view(pixels, sizeof pixels, WIDTH, WIDTH, HEIGHT);
}

/* White over the mark and a little around it; what lies between the rows says nothing. */
static ssl_edge_frame mask_over_mark(void) {
    memset(mask_pixels, 255, sizeof mask_pixels);
    for (uint32_t y = 0; y < HEIGHT; ++y) {
        for (uint32_t x = 0; x < WIDTH; ++x) {
            const int inside = x >= 21 && x < 33 && y >= 3 && y < 15;
            mask_pixels[y * STRIDE + x] = inside ? 128 : 127;
        }
    }
    return view(mask_pixels, sizeof mask_pixels, STRIDE, WIDTH, HEIGHT);
}

static ssl_edge_fit_report fit(ssl_edge_job *job) {
    ssl_edge_fit_report report;
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_fit(job, &report));
    return report;
}

static ssl_edge_job *new_job(const ssl_edge_encoder *encoder, uint32_t surface, uint32_t *good) {
    ssl_edge_job *job = NULL;
    EXPECT(OK, ssl_edge_job_new(encoder, &job));
    EXPECT(OK, ssl_edge_job_set_surface(job, surface));
    EXPECT(OK, ssl_edge_job_add_class(job, "good", good));
    return job;
}

static int32_t is_anomalous(const ssl_edge_job *job, const ssl_edge_encoder *encoder, int has_mark) {
    ssl_edge_verdict verdict;
    const ssl_edge_frame frame = part(2, has_mark);
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    return verdict.anomalous;
}

static void bad_masks(ssl_edge_job *job, ssl_edge_job *flat) {
    uint32_t width = 77, height = 77;
#define BAD_MASK(status, words, change)                                                           \
    do {                                                                                          \
        ssl_edge_frame mask = mask_over_mark();                                                   \
        change;                                                                                   \
        REFUSED(status, words, ssl_edge_job_set_ignore_mask(job, &mask));                         \
    } while (0)
    BAD_MASK(INVALID_FRAME, "SSL_EDGE_PIXEL_FORMAT_GRAY8", (mask.format = SSL_EDGE_PIXEL_FORMAT_RGB8, mask.width = 12));
    BAD_MASK(INVALID_FRAME, "SSL_EDGE_PIXEL_FORMAT_GRAY8", (mask.format = SSL_EDGE_PIXEL_FORMAT_GRAY16, mask.width = 18));
    BAD_MASK(INVALID_FRAME, "stride", mask.stride = WIDTH - 1);
    BAD_MASK(INVALID_FRAME, "too small", mask.data_size = STRIDE * (HEIGHT - 1));
    BAD_MASK(INVALID_FRAME, "empty", mask.width = 0);
    BAD_MASK(NULL_POINTER, "frame.data", mask.data = NULL);
    BAD_MASK(INVALID_MASK, "without an ignored pixel", memset(mask_pixels, 0, sizeof mask_pixels));
    BAD_MASK(INVALID_MASK, "ignore", memset(mask_pixels, 255, sizeof mask_pixels));
    /* fewer pixels than the samples have patches */
    BAD_MASK(INVALID_MASK, "one for each patch", (mask.roi_x = 18, mask.roi_y = 3, mask.roi_width = 18, mask.roi_height = 12));
    BAD_MASK(INVALID_STRUCT, "ssl_edge_frame_init", mask.struct_size = 3);
#undef BAD_MASK
    EXPECT(OK, ssl_edge_job_ignore_mask_size(job, &width, &height));
    CHECK(width == 0 && height == 0);
    const ssl_edge_frame mask = mask_over_mark();
    REFUSED(NO_SURFACE, "ssl_edge_job_set_surface", ssl_edge_job_set_ignore_mask(flat, &mask));
    /* a call that was refused changes nothing */
    CHECK(fit(job).n_samples == N_GOOD);
}

static void masks(const ssl_edge_encoder *encoder) {
    static uint8_t read[WIDTH * HEIGHT + 1];
    uint32_t good = 0, width = 0, height = 0;
    uint64_t sample_id = 0, revision = 0;
    ssl_edge_job *job = new_job(encoder, SSL_EDGE_SURFACE_PIXELS, &good);
    ssl_edge_job *flat = new_job(encoder, SSL_EDGE_SURFACE_NONE, &good);
    for (uint32_t seed = 0; seed < N_GOOD; ++seed) {
        const ssl_edge_frame frame = part(seed, 0);
        EXPECT(OK, ssl_edge_job_add_sample(job, encoder, good, &frame, "", &sample_id));
    }
    fit(job);
    CHECK(is_anomalous(job, encoder, 1) == 1 && is_anomalous(job, encoder, 0) == 0);
    bad_masks(job, flat);
    read[0] = 77;
    EXPECT(OK, ssl_edge_job_get_ignore_mask(job, read, 0));
    CHECK(read[0] == 77);

    ssl_edge_frame mask = mask_over_mark();
    EXPECT(OK, ssl_edge_job_set_ignore_mask(job, &mask));
    ssl_edge_verdict verdict;
    ssl_edge_frame frame = part(2, 1);
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    REFUSED(NOT_FITTED, "fit", ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    fit(job);
    CHECK(is_anomalous(job, encoder, 1) == 0 && is_anomalous(job, encoder, 0) == 0);
    EXPECT(OK, ssl_edge_job_ignore_mask_size(job, &width, &height));
    CHECK(width == WIDTH && height == HEIGHT);
    REFUSED(BUFFER_TOO_SMALL, "864 are needed", ssl_edge_job_get_ignore_mask(job, read, WIDTH * HEIGHT - 1));
    CHECK(read[0] == 77);
    read[WIDTH * HEIGHT] = 77;
    EXPECT(OK, ssl_edge_job_get_ignore_mask(job, read, WIDTH * HEIGHT));
    for (uint32_t i = 0; i < WIDTH * HEIGHT; ++i) {
        CHECK(read[i] == (mask_pixels[i / WIDTH * STRIDE + i % WIDTH] > 127 ? 255 : 0));
    }
    CHECK(read[WIDTH * HEIGHT] == 77);
    /* the mask is for frames of its shape, whatever their size */
    frame.roi_width = 18;
    frame.roi_height = 18;
    REFUSED(INVALID_FRAME, "ignore mask", ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    frame.roi_height = 12;
    EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    REFUSED(INVALID_ARGUMENT, "surface", ssl_edge_job_set_surface(job, SSL_EDGE_SURFACE_NONE));

    EXPECT(OK, ssl_edge_job_clear_ignore_mask(job));
    fit(job);
    CHECK(is_anomalous(job, encoder, 1) == 1);
    EXPECT(OK, ssl_edge_job_undo(job, &revision));
    EXPECT(OK, ssl_edge_job_ignore_mask_size(job, &width, &height));
    CHECK(width == WIDTH && height == HEIGHT);
    fit(job);
    CHECK(is_anomalous(job, encoder, 1) == 0);
    ssl_edge_job_free(flat);
    ssl_edge_job_free(job);
}

static uint64_t add(ssl_edge_job *job, const ssl_edge_encoder *encoder, uint32_t class_id, uint32_t seed, int has_mark,
                    uint32_t copies) {
    uint64_t sample_id = 0;
    ssl_edge_teach_options options;
    const ssl_edge_frame frame = part(seed, has_mark);
    EXPECT(OK, ssl_edge_teach_options_init(&options, sizeof options));
    CHECK(options.copies == SSL_EDGE_COPIES_OFF && options.call == NULL);
    options.copies = copies;
    EXPECT(OK, ssl_edge_job_add_sample_with_options(job, encoder, class_id, &frame, "", &options, &sample_id));
    return sample_id;
}

static void copies(const ssl_edge_encoder *encoder, const char *path) {
    uint32_t good = 0, marked = 0;
    uint64_t sample_id = 77;
    ssl_edge_job *job = new_job(encoder, SSL_EDGE_SURFACE_PIXELS, &good), *loaded = NULL;
    EXPECT(OK, ssl_edge_job_add_class(job, "marked", &marked));
    for (uint32_t seed = 0; seed < 4; ++seed) {
        add(job, encoder, seed % 2 == 0 ? good : marked, seed, seed % 2 == 1, SSL_EDGE_COPIES_OFF);
    }
    ssl_edge_fit_report report = fit(job);
    CHECK(report.n_samples == 4 && report.n_copies == 0 && report.copies_used == -1);

    ssl_edge_teach_options options;
    ssl_edge_frame frame = part(4, 0);
    EXPECT(OK, ssl_edge_teach_options_init(&options, sizeof options));
#define TEACH() ssl_edge_job_add_sample_with_options(job, encoder, good, &frame, "", &options, &sample_id)
    options.copies = 2;
    REFUSED(INVALID_ARGUMENT, "ssl_edge_copies", TEACH());
    options.copies = SSL_EDGE_COPIES_AUTO;
    options.struct_size = offsetof(ssl_edge_teach_options, call);
    REFUSED(INVALID_STRUCT, "ssl_edge_teach_options_init", TEACH());
    REFUSED(INVALID_STRUCT, "ssl_edge_teach_options_init", ssl_edge_teach_options_init(&options, 0));
    options.struct_size = sizeof options;
    frame = part(0, 0);
    REFUSED(ALREADY_TAUGHT, "taught", TEACH());
    CHECK(sample_id == 77 && fit(job).n_copies == 0);
#undef TEACH

    for (uint32_t seed = 4; seed < 8; ++seed) {
        add(job, encoder, seed % 2 == 0 ? good : marked, seed, seed % 2 == 1, SSL_EDGE_COPIES_AUTO);
    }
    report = fit(job);
    CHECK(report.n_samples == 8 && report.n_copies == 4 * COPIES && report.copies_used == 1);
    for (uint64_t id = 0; id < 4; ++id) EXPECT(OK, ssl_edge_job_remove_sample(job, id));
    ssl_edge_frame mask = mask_over_mark();
    EXPECT(OK, ssl_edge_job_set_ignore_mask(job, &mask));
    CHECK(fit(job).n_copies == 4 * COPIES);
    EXPECT(OK, ssl_edge_job_save(job, path));
    EXPECT(OK, ssl_edge_job_load(path, &loaded));
    CHECK(fit(loaded).n_copies == 4 * COPIES);
    ssl_edge_job_free(loaded);
    ssl_edge_job_free(job);

    EXPECT(OK, ssl_edge_job_new_for_embeddings(encoder, &job));
    EXPECT(OK, ssl_edge_job_add_class(job, "good", &good));
    add(job, encoder, good, 0, 0, SSL_EDGE_COPIES_AUTO);
    report = fit(job);
    CHECK(report.n_copies == COPIES && report.copies_used == -1);
    ssl_edge_job_free(job);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    ssl_edge_encoder *encoder = open_encoder(argv[1], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    masks(encoder);
    copies(encoder, argv[2]);
    ssl_edge_encoder_free(encoder);
    puts("ok");
    return 0;
}
