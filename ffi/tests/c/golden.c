/* golden BUNDLE OTHER_BUNDLE FOLDER: golden parts of pixels and of an encoder's patches, and what must be refused. */

#include "check.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { WIDTH = 96, HEIGHT = 64, ROWS = 28, COLUMNS = 42, PARTS = 4, PIXELS = WIDTH * HEIGHT };

static uint8_t pictures[PARTS][PIXELS], pixels[PIXELS];
static float heat[PIXELS + 1];

/* A printed pattern of dots with some noise; on a bad part the dot at (64, 16) is missing. */
static ssl_edge_frame part(uint8_t *to, uint32_t seed, int is_bad) {
    ssl_edge_frame frame;
    uint32_t random = seed * 2654435761u + 1u;
    for (uint32_t y = 0; y < HEIGHT; ++y) {
        for (uint32_t x = 0; x < WIDTH; ++x) {
            random = random * 1664525u + 1013904223u;
            const int is_dot = (x % 16 - 8) * (x % 16 - 8) + (y % 16 - 8) * (y % 16 - 8) < 20;
            const int is_missing = is_bad && x >= 64 && x < 80 && y >= 16 && y < 32;
            to[y * WIDTH + x] = (uint8_t)((is_dot && !is_missing ? 60 : 180) + x / 8 + (random >> 29));
        }
    }
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = to;
    frame.data_size = PIXELS;
    frame.stride = WIDTH;
    frame.width = WIDTH;
    frame.height = HEIGHT;
    return frame;
}

static ssl_edge_golden_options options_of(uint32_t surface) {
    ssl_edge_golden_options options;
    EXPECT(OK, ssl_edge_golden_options_init(&options, sizeof options));
    CHECK(options.surface == SSL_EDGE_SURFACE_PIXELS && options.max_shift == 2);
    options.surface = surface;
    options.false_alarm_rate = 0.25f;
    return options;
}

static ssl_edge_golden *learned(const ssl_edge_encoder *encoder, uint32_t surface, size_t n_parts) {
    ssl_edge_frame frames[PARTS];
    const ssl_edge_frame *pointers[PARTS];
    const ssl_edge_golden_options options = options_of(surface);
    ssl_edge_golden *golden = NULL;
    for (uint32_t i = 0; i < PARTS; ++i) {
        frames[i] = part(pictures[i], i, 0);
        pointers[i] = &frames[i];
    }
    EXPECT(OK, ssl_edge_golden_learn(pointers, n_parts, encoder, &options, &golden));
    return golden;
}

static ssl_edge_golden_info info_of(const ssl_edge_golden *golden) {
    ssl_edge_golden_info info;
    EXPECT(OK, ssl_edge_golden_info_init(&info, sizeof info));
    EXPECT(OK, ssl_edge_golden_get_info(golden, &info));
    return info;
}

static ssl_edge_golden_verdict compare(const ssl_edge_golden *golden, const ssl_edge_encoder *encoder,
                                       const ssl_edge_frame *frame) {
    ssl_edge_golden_verdict verdict;
    EXPECT(OK, ssl_edge_golden_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_golden_compare(golden, encoder, frame, &verdict));
    return verdict;
}

static ssl_edge_heat_options heat_of(uint32_t resolution) {
    ssl_edge_heat_options options;
    EXPECT(OK, ssl_edge_heat_options_init(&options, sizeof options));
    options.resolution = resolution;
    options.blur = 1.0f;
    return options;
}

static void hottest(const ssl_edge_golden *golden, const ssl_edge_encoder *encoder, const ssl_edge_frame *frame,
                    uint32_t resolution, size_t want_rows, size_t want_columns) {
    const ssl_edge_heat_options options = heat_of(resolution);
    ssl_edge_golden_verdict verdict, alone = compare(golden, encoder, frame);
    size_t rows = 0, columns = 0, best = 0;
    EXPECT(OK, ssl_edge_golden_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_golden_heat_size(golden, frame, &options, &rows, &columns));
    CHECK(rows == want_rows && columns == want_columns);
    heat[rows * columns] = -7.0f;
    EXPECT(OK, ssl_edge_golden_compare_heat(golden, encoder, frame, &options, &verdict, heat, rows * columns));
    CHECK(memcmp(&verdict, &alone, sizeof verdict) == 0 && heat[rows * columns] == -7.0f);
    for (size_t i = 1; i < rows * columns; ++i) best = heat[i] > heat[best] ? i : best;
    const size_t x = best % columns * WIDTH / columns, y = best / columns * HEIGHT / rows;
    CHECK(heat[best] > SSL_EDGE_HEAT_THRESHOLD);
    CHECK(x + WIDTH / columns >= 64 && x < 80 && y + HEIGHT / rows >= 16 && y < 32);
}

static void pixel_parts(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/parts.sslg", folder);
    for (size_t n = 1; n <= PARTS; ++n) {
        ssl_edge_golden *golden = learned(NULL, SSL_EDGE_SURFACE_PIXELS, n), *loaded = NULL;
        const ssl_edge_golden_info info = info_of(golden);
        CHECK(info.parts == n && info.rows == ROWS && info.columns == COLUMNS && info.surface == SSL_EDGE_SURFACE_PIXELS);
        CHECK((info.threshold_source == SSL_EDGE_THRESHOLD_SOURCE_NONE) == (n == 1));
        CHECK((info.threshold < 0.0f) == (n == 1) && (info.false_alarm_floor < 0.0f) == (n == 1));
        if (n == 4) CHECK(info.threshold_source == SSL_EDGE_THRESHOLD_SOURCE_RANK && info.false_alarm_floor == 0.2f);

        ssl_edge_frame frame = part(pixels, 0, 0);
        const ssl_edge_golden_verdict same = compare(golden, NULL, &frame);
        CHECK(same.shift_rows == 0 && same.shift_columns == 0 && same.nearest_part == (n < 3 ? 0 : -1));
        frame = part(pixels, 90, 1);
        const ssl_edge_golden_verdict bad = compare(golden, NULL, &frame);
        CHECK(bad.differs == (n == 1 ? -1 : 1) && bad.score > same.score);
        CHECK(n == 1 ? bad.p_value < 0.0f : bad.p_value <= 1.0f / (float)(n + 1) + 1e-6f);
        hottest(golden, NULL, &frame, SSL_EDGE_HEAT_RESOLUTION_GRID, ROWS, COLUMNS);
        hottest(golden, NULL, &frame, SSL_EDGE_HEAT_RESOLUTION_PIXELS, HEIGHT, WIDTH);

        EXPECT(OK, ssl_edge_golden_save(golden, path));
        EXPECT(OK, ssl_edge_golden_load(path, &loaded));
        const ssl_edge_golden_verdict again = compare(loaded, NULL, &frame);
        CHECK(memcmp(&bad, &again, sizeof bad) == 0);
        ssl_edge_golden_free(loaded);
        ssl_edge_golden_free(golden);
    }
}

static void encoder_parts(const ssl_edge_encoder *encoder, const ssl_edge_encoder *other) {
    ssl_edge_golden *golden = learned(encoder, SSL_EDGE_SURFACE_ENCODER, 3);
    ssl_edge_golden_verdict verdict;
    ssl_edge_heat_options options = heat_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    const ssl_edge_frame frame = part(pixels, 91, 1);
    /* two tiles down, three across, of four by four patches */
    CHECK(info_of(golden).rows == 8 && info_of(golden).columns == 12);
    CHECK(info_of(golden).surface == SSL_EDGE_SURFACE_ENCODER && compare(golden, encoder, &frame).differs == 1);
    EXPECT(OK, ssl_edge_golden_verdict_init(&verdict, sizeof verdict));
    REFUSED(WRONG_ENCODER, "taught with", ssl_edge_golden_compare(golden, other, &frame, &verdict));
    REFUSED(NULL_POINTER, "encoder is NULL", ssl_edge_golden_compare(golden, NULL, &frame, &verdict));
    REFUSED(WRONG_ENCODER, "taught with",
            ssl_edge_golden_compare_heat(golden, other, &frame, &options, &verdict, heat, PIXELS));
    CHECK(verdict.differs == -1 && verdict.score == 0.0f);
    ssl_edge_golden_free(golden);
}

static void learning_is_refused(const ssl_edge_encoder *encoder) {
    ssl_edge_frame frames[3] = {part(pictures[0], 0, 0), part(pictures[1], 1, 0), part(pictures[0], 0, 0)};
    const ssl_edge_frame *pointers[3] = {&frames[0], &frames[1], &frames[2]};
    ssl_edge_golden_options options = options_of(SSL_EDGE_SURFACE_PIXELS);
    ssl_edge_golden *golden = NULL;
#define LEARN(n) ssl_edge_golden_learn(pointers, n, NULL, &options, &golden)
    REFUSED(CANNOT_FIT, "no good frame", LEARN(0));
    REFUSED(INVALID_ARGUMENT, "frames", LEARN(SIZE_MAX));
    REFUSED(ALREADY_TAUGHT, "bit for bit", LEARN(3));
    frames[1].width = WIDTH / 2;
    REFUSED(INVALID_FRAME, "same size", LEARN(2));
    frames[1].stride = 1;
    REFUSED(INVALID_FRAME, "frame 1: ", LEARN(2));
    pointers[1] = NULL;
    REFUSED(NULL_POINTER, "frame 1: ", LEARN(2));
    const float rates[] = {NAN, 0.0f, -0.1f, 1.0f, INFINITY};
    for (int i = 0; i < 5; ++i) {
        options.false_alarm_rate = rates[i];
        REFUSED(INVALID_ARGUMENT, "rate", LEARN(1));
    }
    options = options_of(SSL_EDGE_SURFACE_NONE);
    REFUSED(INVALID_ARGUMENT, "options.surface", LEARN(1));
    options = options_of(77);
    REFUSED(INVALID_ARGUMENT, "options.surface", LEARN(1));
    options = options_of(SSL_EDGE_SURFACE_PIXELS);
    options.max_shift = 17;
    REFUSED(INVALID_ARGUMENT, "options.max_shift", LEARN(1));
    options = options_of(SSL_EDGE_SURFACE_ENCODER);
    REFUSED(NULL_POINTER, "encoder is NULL", LEARN(1));
    options.struct_size = 15;
    REFUSED(INVALID_STRUCT, "ssl_edge_golden_options_init", ssl_edge_golden_learn(pointers, 1, encoder, &options, &golden));
    CHECK(golden == NULL);
}

static void comparing_is_refused(void) {
    ssl_edge_golden *golden = learned(NULL, SSL_EDGE_SURFACE_PIXELS, 2);
    ssl_edge_heat_options options = heat_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    ssl_edge_golden_verdict verdict;
    ssl_edge_golden_info info;
    ssl_edge_frame frame = part(pixels, 91, 1);
    size_t rows = 77, columns = 77;
    EXPECT(OK, ssl_edge_golden_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_golden_info_init(&info, sizeof info));
    verdict.score = heat[0] = -5.0f;
#define HEAT(room) ssl_edge_golden_compare_heat(golden, NULL, &frame, &options, &verdict, heat, room)
    REFUSED(BUFFER_TOO_SMALL, "1176 are needed", HEAT(ROWS * COLUMNS - 1));
    REFUSED(INVALID_ARGUMENT, "heat", HEAT(SIZE_MAX));
    options.resolution = 9;
    REFUSED(INVALID_ARGUMENT, "ssl_edge_heat_resolution", HEAT(PIXELS));
    REFUSED(INVALID_ARGUMENT, "ssl_edge_heat_resolution",
            ssl_edge_golden_heat_size(golden, &frame, &options, &rows, &columns));
    options = heat_of(SSL_EDGE_HEAT_RESOLUTION_PIXELS);
    options.blur = NAN;
    REFUSED(INVALID_ARGUMENT, "options.blur", HEAT(PIXELS));
    options = heat_of(SSL_EDGE_HEAT_RESOLUTION_GRID);
    frame.height = HEIGHT / 2;
    REFUSED(INVALID_FRAME, "same size", HEAT(PIXELS));
    REFUSED(INVALID_FRAME, "same size", ssl_edge_golden_compare(golden, NULL, &frame, &verdict));
    frame = part(pixels, 91, 1);
    verdict.struct_size = 5000;
    REFUSED(INVALID_STRUCT, "ssl_edge_golden_verdict_init", ssl_edge_golden_compare(golden, NULL, &frame, &verdict));
    info.struct_size = 0;
    REFUSED(INVALID_STRUCT, "ssl_edge_golden_info_init", ssl_edge_golden_get_info(golden, &info));
    CHECK(verdict.score == -5.0f && heat[0] == -5.0f && rows == 77 && columns == 77);
    ssl_edge_golden_free(golden);
}

/* A file that is cut or changed at any place that is tried is refused, and so is one of another kind. */
static void files(const char *bundle, const char *folder) {
    char path[4096], damaged[4096];
    ssl_edge_golden *golden = learned(NULL, SSL_EDGE_SURFACE_PIXELS, 3), *loaded = NULL;
    ssl_edge_job *job = NULL;
    REFUSED(IO, "/nowhere/at/all.sslg", ssl_edge_golden_save(golden, "/nowhere/at/all.sslg"));
    REFUSED(IO, "/nowhere/at/all.sslg", ssl_edge_golden_load("/nowhere/at/all.sslg", &loaded));
    REFUSED(INVALID_GOLDEN, "not a golden file", ssl_edge_golden_load(bundle, &loaded));
    snprintf(path, sizeof path, "%s/whole.sslg", folder);
    snprintf(damaged, sizeof damaged, "%s/damaged.sslg", folder);
    EXPECT(OK, ssl_edge_golden_save(golden, path));
    REFUSED(INVALID_JOB, "not a job", ssl_edge_job_load(path, &job));
    FILE *file = fopen(path, "rb");
    static unsigned char bytes[1 << 22];
    CHECK(file != NULL);
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    CHECK(size > 1000 && size < sizeof bytes && fclose(file) == 0);
    for (size_t at = 0; at < size; at += 1 + size / 61) {
        for (int is_cut = 0; is_cut < 2; ++is_cut) {
            bytes[at] ^= 1;
            file = fopen(damaged, "wb");
            CHECK(file != NULL && fwrite(bytes, 1, is_cut ? at : size, file) == (is_cut ? at : size) && fclose(file) == 0);
            bytes[at] ^= 1;
            EXPECT(INVALID_GOLDEN, ssl_edge_golden_load(damaged, &loaded));
        }
    }
    CHECK(loaded == NULL && job == NULL);
    EXPECT(OK, ssl_edge_golden_load(path, &loaded));
    ssl_edge_golden_free(loaded);
    ssl_edge_golden_free(golden);
    ssl_edge_golden_free(NULL);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    ssl_edge_encoder *encoder = open_encoder(argv[1], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    ssl_edge_encoder *other = open_encoder(argv[2], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    pixel_parts(argv[3]);
    encoder_parts(encoder, other);
    learning_is_refused(encoder);
    comparing_is_refused();
    files(argv[1], argv[3]);
    ssl_edge_encoder_free(other);
    ssl_edge_encoder_free(encoder);
    puts("ok");
    return 0;
}
