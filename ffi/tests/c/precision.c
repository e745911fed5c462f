/* precision BUNDLE INT8_BUNDLE: one bundle opened in f32, in int8 and in blocks, what an encoder says of itself, and what must be refused. */

#include "check.h"

#include <stddef.h>
#include <stdint.h>

enum { SIZE = 64, DIM = 192 };

static ssl_edge_encoder_options options_of(uint32_t engine, uint32_t precision) {
    ssl_edge_encoder_options options;
    EXPECT(OK, ssl_edge_encoder_options_init(&options, sizeof options));
    CHECK(options.precision == SSL_EDGE_PRECISION_F32 && options.reserved_end == 0);
    options.engine = engine;
    options.precision = precision;
    return options;
}

static ssl_edge_encoder_info info_of(const ssl_edge_encoder *encoder) {
    ssl_edge_encoder_info info;
    EXPECT(OK, ssl_edge_encoder_info_init(&info, sizeof info));
    EXPECT(OK, ssl_edge_encoder_get_info(encoder, &info));
    return info;
}

static ssl_edge_frame picture(uint8_t *pixels, uint32_t seed) {
    ssl_edge_frame frame;
    for (uint32_t i = 0; i < SIZE * SIZE; ++i) pixels[i] = (uint8_t)(i * i / (7 + seed) + i / SIZE * (3 + seed));
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = SIZE * SIZE;
    frame.stride = SIZE;
    frame.width = SIZE;
    frame.height = SIZE;
    return frame;
}

static void infos(const ssl_edge_encoder *wide, const ssl_edge_encoder *narrow, const ssl_edge_encoder *onnx) {
    const ssl_edge_encoder_info f32 = info_of(wide), int8 = info_of(narrow), graph = info_of(onnx);
    CHECK(f32.engine == SSL_EDGE_ENGINE_NATIVE && int8.engine == SSL_EDGE_ENGINE_NATIVE);
    CHECK(graph.engine == SSL_EDGE_ENGINE_ONNX && graph.precision == SSL_EDGE_PRECISION_F32);
    CHECK(f32.precision == SSL_EDGE_PRECISION_F32 && int8.precision == SSL_EDGE_PRECISION_INT8);
    CHECK(f32.dim == DIM && int8.dim == DIM);
    CHECK(memcmp(f32.hash, int8.hash, sizeof f32.hash) != 0);
    CHECK(memcmp(f32.hash, graph.hash, sizeof f32.hash) == 0);
    CHECK(int8.memory_bytes > 0 && int8.memory_bytes < f32.memory_bytes);
    const ssl_edge_encoder_info all[] = {f32, int8, graph};
    for (int i = 0; i < 3; ++i) {
        CHECK(all[i].self_test_tolerance > 0.0f && all[i].self_test_tolerance < 0.1f);
        CHECK(all[i].self_test_difference >= 0.0f && all[i].self_test_difference <= all[i].self_test_tolerance);
    }

    /* a program compiled before the struct had these fields: they are not written */
    ssl_edge_encoder_info old;
    memset(&old, 0x5a, sizeof old);
    EXPECT(OK, ssl_edge_encoder_info_init(&old, offsetof(ssl_edge_encoder_info, engine)));
    EXPECT(OK, ssl_edge_encoder_get_info(narrow, &old));
    CHECK(old.dim == DIM && old.engine == 0x5a5a5a5au && old.precision == 0x5a5a5a5au);
    CHECK(old.struct_size == offsetof(ssl_edge_encoder_info, engine));
}

/* Weights in blocks: an encoder of its own for each format, near f32. */
static void blocks(const char *path, const ssl_edge_encoder *wide) {
    static uint8_t pixels[SIZE * SIZE];
    static float f32[DIM], found[DIM];
    const ssl_edge_frame frame = picture(pixels, 0);
    const uint32_t precisions[] = {SSL_EDGE_PRECISION_Q8_0, SSL_EDGE_PRECISION_Q4_0};
    EXPECT(OK, ssl_edge_encoder_embed(wide, &frame, f32, DIM));
    for (int p = 0; p < 2; ++p) {
        ssl_edge_encoder *encoder = open_encoder(path, SSL_EDGE_ENGINE_NATIVE, precisions[p]);
        const ssl_edge_encoder_info info = info_of(encoder), other = info_of(wide);
        double dot = 0.0;
        CHECK(info.precision == precisions[p] && memcmp(info.hash, other.hash, sizeof info.hash) != 0);
        EXPECT(OK, ssl_edge_encoder_embed(encoder, &frame, found, DIM));
        for (int i = 0; i < DIM; ++i) dot += (double)f32[i] * (double)found[i];
        CHECK(memcmp(f32, found, sizeof f32) != 0 && dot > (p == 0 ? 0.999 : 0.97) && dot < 1.0001);
        ssl_edge_encoder_free(encoder);
    }
}

static void embeddings(const ssl_edge_encoder *wide, const ssl_edge_encoder *narrow) {
    static uint8_t pixels[SIZE * SIZE];
    static float f32[DIM], int8[DIM];
    const ssl_edge_frame frame = picture(pixels, 0);
    double dot = 0.0;
    EXPECT(OK, ssl_edge_encoder_embed(wide, &frame, f32, DIM));
    EXPECT(OK, ssl_edge_encoder_embed(narrow, &frame, int8, DIM));
    for (int i = 0; i < DIM; ++i) dot += (double)f32[i] * (double)int8[i];
    CHECK(memcmp(f32, int8, sizeof f32) != 0 && dot > 0.99 && dot < 1.0001);
}

/* A job taught in int8 judges there and is refused in f32. */
static void jobs(const ssl_edge_encoder *wide, const ssl_edge_encoder *narrow) {
    static uint8_t pixels[SIZE * SIZE];
    ssl_edge_job *job = NULL;
    ssl_edge_fit_report report;
    ssl_edge_verdict verdict;
    uint32_t class_ids[2];
    uint64_t sample_id = 0;
    EXPECT(OK, ssl_edge_job_new(narrow, &job));
    EXPECT(OK, ssl_edge_job_add_class(job, "even", &class_ids[0]));
    EXPECT(OK, ssl_edge_job_add_class(job, "odd", &class_ids[1]));
    for (uint32_t seed = 0; seed < 6; ++seed) {
        const ssl_edge_frame frame = picture(pixels, seed + seed % 2 * 40);
        EXPECT(OK, ssl_edge_job_add_sample(job, narrow, class_ids[seed % 2], &frame, "", &sample_id));
    }
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_fit(job, &report));
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    const ssl_edge_frame frame = picture(pixels, 41);
    verdict.score = -5.0f;
    REFUSED(WRONG_ENCODER, "taught with", ssl_edge_job_inspect(job, wide, &frame, &verdict));
    CHECK(verdict.score == -5.0f);
    EXPECT(OK, ssl_edge_job_inspect(job, narrow, &frame, &verdict));
    CHECK(verdict.class_id == class_ids[1] && verdict.nearest_sample_id == 1);
    ssl_edge_job_free(job);
}

static void refusals(const char *bundle, const char *int8_bundle) {
    ssl_edge_encoder *encoder = NULL;
    ssl_edge_encoder_options options = options_of(SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_INT8);
    REFUSED(ENGINE_UNAVAILABLE, "--quantize int8", ssl_edge_encoder_open(bundle, &options, &encoder));
    options.engine = SSL_EDGE_ENGINE_ONNX;
    REFUSED(ENGINE_UNAVAILABLE, "choose engine native", ssl_edge_encoder_open(int8_bundle, &options, &encoder));
    for (uint32_t wrong = 0; wrong < 100; wrong += 33) {
        options = options_of(SSL_EDGE_ENGINE_NATIVE, wrong);
        REFUSED(INVALID_ARGUMENT, "ssl_edge_precision", ssl_edge_encoder_open(int8_bundle, &options, &encoder));
    }
    options = options_of(SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_INT8);
    options.reserved_end = 1;
    REFUSED(INVALID_STRUCT, "options.reserved_end", ssl_edge_encoder_open(int8_bundle, &options, &encoder));
    CHECK(encoder == NULL);

    /* a program compiled before there was a precision gets f32, whatever lies behind its struct */
    options = options_of(SSL_EDGE_ENGINE_NATIVE, 99);
    options.struct_size = offsetof(ssl_edge_encoder_options, precision);
    EXPECT(OK, ssl_edge_encoder_open(int8_bundle, &options, &encoder));
    CHECK(info_of(encoder).precision == SSL_EDGE_PRECISION_F32);
    ssl_edge_encoder_free(encoder);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    ssl_edge_encoder *wide = open_encoder(argv[2], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    ssl_edge_encoder *narrow = open_encoder(argv[2], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_INT8);
    ssl_edge_encoder *onnx = open_encoder(argv[1], SSL_EDGE_ENGINE_ONNX, SSL_EDGE_PRECISION_F32);
    infos(wide, narrow, onnx);
    embeddings(wide, narrow);
    blocks(argv[2], wide);
    jobs(wide, narrow);
    refusals(argv[1], argv[2]);
    ssl_edge_encoder_free(onnx);
    ssl_edge_encoder_free(narrow);
    ssl_edge_encoder_free(wide);
    puts("ok");
    return 0;
}
