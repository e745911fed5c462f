/* misuse BUNDLE OTHER_BUNDLE FOLDER: everything that a caller may get wrong gives its status, and outputs stay as they were. */

#include "check.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { SIZE = 64, STRIDE = 200 };

static uint8_t pixels[STRIDE * SIZE];

static ssl_edge_frame valid_frame(void) {
    ssl_edge_frame frame;
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_RGB8;
    frame.data = pixels;
    frame.data_size = sizeof pixels;
    frame.stride = STRIDE;
    frame.width = SIZE;
    frame.height = SIZE;
    return frame;
}

static void structs(void) {
    ssl_edge_frame frame;
    ssl_edge_verdict verdict;
    memset(&verdict, 0xee, sizeof verdict);
    REFUSED(INVALID_STRUCT, "ssl_edge_frame_init", ssl_edge_frame_init(&frame, offsetof(ssl_edge_frame, yuv) - 1));
    REFUSED(INVALID_STRUCT, "ssl_edge_verdict_init", ssl_edge_verdict_init(&verdict, 0));
    REFUSED(INVALID_STRUCT, "ssl_edge_verdict_init", ssl_edge_verdict_init(&verdict, SIZE_MAX));
    CHECK(verdict.struct_size == 0xeeeeeeeeu);
}

static void opening(const char *bundle, const char *folder) {
    ssl_edge_encoder_options options;
    ssl_edge_encoder *encoder = NULL;
    char path[4096];
    EXPECT(OK, ssl_edge_encoder_options_init(&options, sizeof options));

    /* The program is run with a plug-in that is a text. */
    options.engine = SSL_EDGE_ENGINE_CUDA;
    REFUSED(ENGINE_UNAVAILABLE, "text.sslj cannot be loaded", ssl_edge_encoder_open(bundle, &options, &encoder));
    options.engine = SSL_EDGE_ENGINE_NATIVE;

    REFUSED(IO, "nowhere.sslb", ssl_edge_encoder_open("nowhere.sslb", &options, &encoder));
    snprintf(path, sizeof path, "%s/cut.sslb", folder);
    REFUSED(INVALID_BUNDLE, "cut.sslb", ssl_edge_encoder_open(path, &options, &encoder));
    snprintf(path, sizeof path, "%s/text.sslj", folder);
    REFUSED(INVALID_BUNDLE, "text.sslj", ssl_edge_encoder_open(path, &options, &encoder));

    options.signed_by = "nokey.pem";
    REFUSED(IO, "nokey.pem", ssl_edge_encoder_open(bundle, &options, &encoder));
    options.signed_by = bundle;
    REFUSED(IO, bundle, ssl_edge_encoder_open(bundle, &options, &encoder));
    snprintf(path, sizeof path, "%s/text.sslj", folder);
    options.signed_by = path;
    REFUSED(INVALID_ARGUMENT, "text.sslj", ssl_edge_encoder_open(bundle, &options, &encoder));
    snprintf(path, sizeof path, "%s/other.pub.pem", folder);
    REFUSED(UNTRUSTED_BUNDLE, "not signed", ssl_edge_encoder_open(bundle, &options, &encoder));
    CHECK(encoder == NULL);
    char signed_bundle[4096];
    snprintf(signed_bundle, sizeof signed_bundle, "%s/signed.sslb", folder);
    EXPECT(OK, ssl_edge_encoder_open(signed_bundle, &options, &encoder));
    ssl_edge_encoder_free(encoder);
    encoder = NULL;
    options.signed_by = NULL;

    options.threads = 0;
    REFUSED(INVALID_ARGUMENT, "options.threads", ssl_edge_encoder_open(bundle, &options, &encoder));
    options.threads = 1;
    options.engine = 99;
    REFUSED(INVALID_ARGUMENT, "ssl_edge_engine", ssl_edge_encoder_open(bundle, &options, &encoder));
    options.engine = SSL_EDGE_ENGINE_NATIVE;
    options.reserved = 1;
    REFUSED(INVALID_STRUCT, "options.reserved", ssl_edge_encoder_open(bundle, &options, &encoder));
    memset(&options, 0, sizeof options);
    REFUSED(INVALID_STRUCT, "ssl_edge_encoder_options_init", ssl_edge_encoder_open(bundle, &options, &encoder));
    CHECK(encoder == NULL);
}

static void frames(const ssl_edge_encoder *encoder) {
    float *embedding;
    size_t dim = 0;
    EXPECT(OK, ssl_edge_encoder_dim(encoder, &dim));
    embedding = malloc(dim * sizeof *embedding);
    CHECK(embedding != NULL);
    for (size_t i = 0; i < dim; ++i) embedding[i] = 42.0f;

#define BAD_FRAME(words, change)                                                                   \
    do {                                                                                           \
        ssl_edge_frame frame = valid_frame();                                                      \
        change;                                                                                    \
        REFUSED(INVALID_FRAME, words, ssl_edge_encoder_embed(encoder, &frame, embedding, dim));    \
    } while (0)
    BAD_FRAME("stride", frame.stride = 3 * SIZE - 1);
    BAD_FRAME("stride", frame.stride = SIZE);
    BAD_FRAME("stride", frame.stride = 0);
    BAD_FRAME("too small", frame.stride = SIZE_MAX);
    BAD_FRAME("too small", frame.data_size = STRIDE * (SIZE - 1) + 3 * SIZE - 1);
    BAD_FRAME("too small", frame.data_size = 0);
    BAD_FRAME("empty", frame.width = 0);
    BAD_FRAME("empty", frame.height = 0);
    BAD_FRAME("stride", frame.width = UINT32_MAX);
    BAD_FRAME("too small", frame.height = UINT32_MAX);
    BAD_FRAME("ssl_edge_pixel_format", frame.format = 0);
    BAD_FRAME("ssl_edge_pixel_format", frame.format = UINT32_MAX);
    BAD_FRAME("ssl_edge_yuv", frame.yuv = 4);
    BAD_FRAME("shared by neighbours", (frame.format = SSL_EDGE_PIXEL_FORMAT_YUYV, frame.width = 63));
    BAD_FRAME("shared by neighbours", (frame.format = SSL_EDGE_PIXEL_FORMAT_NV12, frame.height = 63));
    BAD_FRAME("luma and chroma", frame.format = SSL_EDGE_PIXEL_FORMAT_NV12);
    BAD_FRAME("luma and chroma",
              (frame.format = SSL_EDGE_PIXEL_FORMAT_NV12, frame.height = 32, frame.chroma_offset = SIZE_MAX));
    BAD_FRAME("stride", (frame.format = SSL_EDGE_PIXEL_FORMAT_NV12, frame.height = 32, frame.chroma_stride = 63));
    BAD_FRAME("inside the luma plane", (frame.format = SSL_EDGE_PIXEL_FORMAT_NV12, frame.chroma_offset = 1));
    BAD_FRAME("no chroma plane", frame.chroma_offset = 1);
    BAD_FRAME("stride", (frame.format = SSL_EDGE_PIXEL_FORMAT_MONO12P, frame.stride = 95));
    BAD_FRAME("region of interest", (frame.roi_x = 60, frame.roi_width = 5, frame.roi_height = 1));
    BAD_FRAME("region of interest", (frame.roi_x = 1, frame.roi_y = 1));
    BAD_FRAME("region of interest", (frame.roi_x = UINT32_MAX, frame.roi_width = UINT32_MAX, frame.roi_height = 1));
    BAD_FRAME("region of interest", (frame.roi_width = 1, frame.roi_height = SIZE + 1));
#undef BAD_FRAME

    ssl_edge_frame frame = valid_frame();
    frame.reserved = 1;
    REFUSED(INVALID_STRUCT, "reserved", ssl_edge_encoder_embed(encoder, &frame, embedding, dim));
    frame = valid_frame();
    frame.data_size = SIZE_MAX;
    REFUSED(INVALID_ARGUMENT, "frame.data", ssl_edge_encoder_embed(encoder, &frame, embedding, dim));
    frame = valid_frame();
    frame.data = NULL;
    REFUSED(NULL_POINTER, "frame.data", ssl_edge_encoder_embed(encoder, &frame, embedding, dim));
    memset(&frame, 0, sizeof frame);
    REFUSED(INVALID_STRUCT, "ssl_edge_frame_init", ssl_edge_encoder_embed(encoder, &frame, embedding, dim));
    frame = valid_frame();
    REFUSED(BUFFER_TOO_SMALL, "needed", ssl_edge_encoder_embed(encoder, &frame, embedding, dim - 1));
    REFUSED(BUFFER_TOO_SMALL, "needed", ssl_edge_encoder_embed(encoder, &frame, embedding, 0));
    REFUSED(INVALID_ARGUMENT, "embedding", ssl_edge_encoder_embed(encoder, &frame, embedding, SIZE_MAX));
    REFUSED(TIMED_OUT, "0 of 1 frames", ssl_edge_encoder_embed_within(encoder, &frame, 0, embedding, dim));
    REFUSED(BUFFER_TOO_SMALL, "needed", ssl_edge_encoder_embed_within(encoder, &frame, UINT64_MAX, embedding, dim - 1));
    for (size_t i = 0; i < dim; ++i) CHECK(embedding[i] == 42.0f);
    static float in_time[4096], alone[4096];
    EXPECT(OK, ssl_edge_encoder_embed_within(encoder, &frame, UINT64_MAX, in_time, dim));
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &frame, alone, dim));
    CHECK(memcmp(in_time, alone, dim * sizeof(float)) == 0);
    free(embedding);
}

/* Formats, strides and regions that show the same pixels give the same embedding. */
static void same_pixels(const ssl_edge_encoder *encoder) {
    static uint8_t bgr[SIZE * SIZE * 3], rgba[SIZE * SIZE * 4];
    static float embeddings[4][4096];
    size_t dim = 0;
    EXPECT(OK, ssl_edge_encoder_dim(encoder, &dim));
    CHECK(dim <= 4096);
    for (int y = 0; y < SIZE; ++y) {
        for (int x = 0; x < SIZE; ++x) {
            for (int c = 0; c < 3; ++c) {
                const uint8_t value = (uint8_t)(x * 3 + y * (c + 1) + 40 * c);
                pixels[y * STRIDE + 3 * x + c] = value;
                bgr[(y * SIZE + x) * 3 + 2 - c] = value;
                rgba[(y * SIZE + x) * 4 + c] = value;
            }
            rgba[(y * SIZE + x) * 4 + 3] = (uint8_t)(x ^ y);
        }
    }
    ssl_edge_frame frame = valid_frame();
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &frame, embeddings[0], dim));
    frame.format = SSL_EDGE_PIXEL_FORMAT_BGR8;
    frame.data = bgr;
    frame.data_size = sizeof bgr;
    frame.stride = SIZE * 3;
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &frame, embeddings[1], dim));
    frame.format = SSL_EDGE_PIXEL_FORMAT_RGBA8;
    frame.data = rgba;
    frame.data_size = sizeof rgba;
    frame.stride = SIZE * 4;
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &frame, embeddings[2], dim));

    ssl_edge_frame part = valid_frame();
    part.roi_x = 10;
    part.roi_y = 20;
    part.roi_width = 30;
    part.roi_height = 40;
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &part, embeddings[3], dim));
    CHECK(memcmp(embeddings[0], embeddings[1], dim * sizeof(float)) == 0);
    CHECK(memcmp(embeddings[0], embeddings[2], dim * sizeof(float)) == 0);
    CHECK(memcmp(embeddings[0], embeddings[3], dim * sizeof(float)) != 0);

    ssl_edge_frame cut = valid_frame();
    cut.data = pixels + 20 * STRIDE + 3 * 10;
    cut.data_size = sizeof pixels - (20 * STRIDE + 3 * 10);
    cut.width = 30;
    cut.height = 40;
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &cut, embeddings[1], dim));
    CHECK(memcmp(embeddings[3], embeddings[1], dim * sizeof(float)) == 0);

    /* a program that was compiled before the struct had luma and chroma: what lies behind its end is not read */
    cut.struct_size = offsetof(ssl_edge_frame, yuv);
    cut.yuv = 99;
    cut.chroma_stride = 99;
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &cut, embeddings[2], dim));
    CHECK(memcmp(embeddings[3], embeddings[2], dim * sizeof(float)) == 0);
}

static void gray_formats(const ssl_edge_encoder *encoder) {
    static uint8_t gray8[SIZE * SIZE];
    static uint16_t gray16[SIZE * SIZE];
    static float embeddings[2][4096];
    size_t dim = 0;
    double dot = 0.0;
    EXPECT(OK, ssl_edge_encoder_dim(encoder, &dim));
    for (int i = 0; i < SIZE * SIZE; ++i) {
        gray8[i] = (uint8_t)(i * 7 % 256);
        gray16[i] = (uint16_t)(gray8[i] * 257);
    }
    ssl_edge_frame frame = valid_frame();
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = gray8;
    frame.data_size = sizeof gray8;
    frame.stride = SIZE;
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &frame, embeddings[0], dim));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY16;
    frame.data = gray16;
    frame.data_size = sizeof gray16;
    frame.stride = SIZE * 2;
    EXPECT(OK, ssl_edge_encoder_embed(encoder, &frame, embeddings[1], dim));
    for (size_t i = 0; i < dim; ++i) dot += (double)embeddings[0][i] * (double)embeddings[1][i];
    CHECK(dot > 0.9999 && dot < 1.0001);
}

static void names(ssl_edge_job *job) {
    uint32_t class_id = 77;
    size_t number = 77;
    char name[16];
    memset(name, 'x', sizeof name);
    REFUSED(INVALID_CLASS_NAME, "name", ssl_edge_job_add_class(job, "", &class_id));
    REFUSED(INVALID_UTF8, "UTF-8", ssl_edge_job_add_class(job, "\xff\xfe", &class_id));
    CHECK(class_id == 77);
    EXPECT(OK, ssl_edge_job_add_class(job, "gr\xc3\xbcn", &class_id));
    uint32_t other = 77;
    REFUSED(INVALID_CLASS_NAME, "already", ssl_edge_job_add_class(job, "gr\xc3\xbcn", &other));
    CHECK(other == 77);

    EXPECT(OK, ssl_edge_job_class_name_length(job, class_id, &number));
    CHECK(number == 5);
    REFUSED(BUFFER_TOO_SMALL, "6 are needed", ssl_edge_job_class_name(job, class_id, name, 5));
    CHECK(name[0] == 'x');
    EXPECT(OK, ssl_edge_job_class_name(job, class_id, name, 6));
    CHECK(strcmp(name, "gr\xc3\xbcn") == 0 && name[6] == 'x');
    REFUSED(UNKNOWN_CLASS, "no class", ssl_edge_job_class_name(job, 1000, name, sizeof name));
    REFUSED(UNKNOWN_CLASS, "no class", ssl_edge_job_class_name_length(job, 1000, &number));
    REFUSED(UNKNOWN_CLASS, "no class", ssl_edge_job_sample_count(job, 1000, &number));
    REFUSED(UNKNOWN_CLASS, "index 1", ssl_edge_job_class_at(job, 1, &other));
    CHECK(number == 5 && other == 77);
    EXPECT(OK, ssl_edge_job_class_at(job, 0, &other));
    CHECK(other == class_id);
}

static void samples(ssl_edge_job *job, const ssl_edge_encoder *encoder, const ssl_edge_encoder *other_encoder) {
    static float embedding[4096];
    size_t dim = 0, count = 0;
    uint32_t class_ids[2];
    uint64_t sample_id = 77, extra = 77;
    ssl_edge_fit_report report;
    ssl_edge_verdict verdict;
    ssl_edge_frame frame = valid_frame();
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    verdict.score = -5.0f;
    EXPECT(OK, ssl_edge_encoder_dim(encoder, &dim));
    EXPECT(OK, ssl_edge_job_class_at(job, 0, &class_ids[0]));

    REFUSED(CANNOT_FIT, "no sample", ssl_edge_job_fit(job, &report));
    EXPECT(OK, ssl_edge_job_add_class(job, "rot", &class_ids[1]));
    REFUSED(CANNOT_FIT, "no sample", ssl_edge_job_fit(job, &report));
    REFUSED(NOT_FITTED, "fit", ssl_edge_job_inspect(job, encoder, &frame, &verdict));

    REFUSED(WRONG_ENCODER, "taught with", ssl_edge_job_add_sample(job, other_encoder, class_ids[0], &frame, "", &sample_id));
    REFUSED(UNKNOWN_CLASS, "no class", ssl_edge_job_add_sample(job, encoder, 1000, &frame, "", &sample_id));
    frame.stride = 1;
    REFUSED(INVALID_FRAME, "stride", ssl_edge_job_add_sample(job, encoder, class_ids[0], &frame, "", &sample_id));
    frame = valid_frame();
    for (size_t i = 0; i < dim; ++i) embedding[i] = (float)i;
    embedding[3] = NAN;
    REFUSED(INVALID_EMBEDDING, "NaN", ssl_edge_job_add_embedding(job, class_ids[0], embedding, dim, "cam", &sample_id));
    REFUSED(INVALID_EMBEDDING, "NaN", ssl_edge_job_add_embedding(job, class_ids[0], embedding, dim, "", &sample_id));
    embedding[3] = INFINITY;
    REFUSED(INVALID_EMBEDDING, "inf", ssl_edge_job_add_embedding(job, class_ids[0], embedding, dim, "", &sample_id));
    embedding[3] = 3.0f;
    REFUSED(INVALID_EMBEDDING, "values", ssl_edge_job_add_embedding(job, class_ids[0], embedding, dim - 1, "", &sample_id));
    REFUSED(INVALID_EMBEDDING, "values", ssl_edge_job_add_embedding(job, class_ids[0], embedding, 0, "", &sample_id));
    CHECK(sample_id == 77);

    EXPECT(OK, ssl_edge_job_add_sample(job, encoder, class_ids[0], &frame, "first", &sample_id));
    EXPECT(OK, ssl_edge_job_add_embedding(job, class_ids[1], embedding, dim, "second", &extra));
    CHECK(sample_id != extra);
    EXPECT(OK, ssl_edge_job_fit(job, &report));
    CHECK(report.n_samples == 2 && report.n_classes == 2 && report.loo_accuracy < 0.0f);
    REFUSED(WRONG_ENCODER, "taught with", ssl_edge_job_inspect(job, other_encoder, &frame, &verdict));
    embedding[0] = NAN;
    REFUSED(INVALID_EMBEDDING, "NaN", ssl_edge_job_inspect_embedding(job, embedding, dim, &verdict));
    CHECK(verdict.score == -5.0f);
    EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    CHECK(verdict.class_id == class_ids[0] && verdict.nearest_sample_id == sample_id && verdict.distance < 1e-6f);

    REFUSED(UNKNOWN_SAMPLE, "no sample", ssl_edge_job_remove_sample(job, 1000));
    EXPECT(OK, ssl_edge_job_remove_sample(job, extra));
    REFUSED(UNKNOWN_SAMPLE, "no sample", ssl_edge_job_remove_sample(job, extra));
    REFUSED(NOT_FITTED, "fit", ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    EXPECT(OK, ssl_edge_job_sample_count(job, class_ids[1], &count));
    CHECK(count == 0);
    EXPECT(OK, ssl_edge_job_sample_count(job, class_ids[0], &count));
    CHECK(count == 1);
}

static void files(const ssl_edge_job *job, const char *bundle, const char *folder) {
    char path[4096];
    ssl_edge_job *loaded = NULL;
    REFUSED(IO, "/nowhere/at/all.sslj", ssl_edge_job_save(job, "/nowhere/at/all.sslj"));
    REFUSED(IO, "/nowhere/at/all.sslj", ssl_edge_job_load("/nowhere/at/all.sslj", &loaded));
    REFUSED(INVALID_JOB, "not a job", ssl_edge_job_load(bundle, &loaded));
    snprintf(path, sizeof path, "%s/text.sslj", folder);
    EXPECT(INVALID_JOB, ssl_edge_job_load(path, &loaded));
    CHECK(loaded == NULL);
    snprintf(path, sizeof path, "%s/job.sslj", folder);
    EXPECT(OK, ssl_edge_job_save(job, path));
    EXPECT(OK, ssl_edge_job_load(path, &loaded));
    ssl_edge_job_free(loaded);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    CHECK(strcmp(ssl_edge_last_error(), "") == 0);
    CHECK(ssl_edge_abi_version() == SSL_EDGE_ABI_VERSION);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", SSL_EDGE_VERSION_MAJOR, SSL_EDGE_VERSION_MINOR, SSL_EDGE_VERSION_PATCH);
    CHECK(strcmp(ssl_edge_version(), version) == 0);
    structs();
    opening(argv[1], argv[3]);
    ssl_edge_encoder *encoder = open_encoder(argv[1], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    ssl_edge_encoder *onnx = open_encoder(argv[1], SSL_EDGE_ENGINE_ONNX, SSL_EDGE_PRECISION_F32);
    ssl_edge_encoder *other = open_encoder(argv[2], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    frames(encoder);
    same_pixels(encoder);
    same_pixels(onnx);
    gray_formats(encoder);
    ssl_edge_job *job = NULL;
    EXPECT(OK, ssl_edge_job_new_for_embeddings(encoder, &job));
    names(job);
    samples(job, encoder, other);
    files(job, argv[1], argv[3]);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(other);
    ssl_edge_encoder_free(onnx);
    ssl_edge_encoder_free(encoder);
    ssl_edge_job_free(NULL);
    ssl_edge_encoder_free(NULL);
    puts("ok");
    return 0;
}
