/* migrate BUNDLE OTHER OLD NEW: a job taught with thumbnails moves from BUNDLE to OTHER; both jobs are saved. */

#include "check.h"

#include <stdint.h>

/* The encoders look at frames of 64 x 64, so that their patches need thumbnails of 128. */
enum { SIDE = 160, SMALL = 96, NEEDED = 128, N = 6 };

static uint8_t pixels[SIDE * SIDE];

/* Fine stripes, along rows or along columns. */
static ssl_edge_frame part(uint32_t seed, int upright) {
    ssl_edge_frame frame;
    uint32_t random = seed + 1;
    for (uint32_t at = 0; at < SIDE * SIDE; ++at) {
        random = random * 1664525u + 1013904223u;
        const uint32_t stripe = (upright ? at % SIDE : at / SIDE) / 8 % 2;
        pixels[at] = (uint8_t)(60 + 100 * stripe + (random >> 28));
    }
    EXPECT(OK, ssl_edge_frame_init(&frame, sizeof frame));
    frame.format = SSL_EDGE_PIXEL_FORMAT_GRAY8;
    frame.data = pixels;
    frame.data_size = sizeof pixels;
    frame.stride = SIDE;
    frame.width = SIDE;
    frame.height = SIDE;
    return frame;
}

static uint64_t teach(ssl_edge_job *job, const ssl_edge_encoder *encoder, uint32_t class_id, uint32_t seed, int upright,
                      uint32_t thumbnail_side) {
    uint64_t sample_id = 0;
    ssl_edge_teach_options options;
    const ssl_edge_frame frame = part(seed, upright);
    EXPECT(OK, ssl_edge_teach_options_init(&options, sizeof options));
    CHECK(options.thumbnail_side == 0 && options.reserved == 0);
    options.copies = SSL_EDGE_COPIES_AUTO;
    options.thumbnail_side = thumbnail_side;
    EXPECT(OK, ssl_edge_job_add_sample_with_options(job, encoder, class_id, &frame, "part", &options, &sample_id));
    return sample_id;
}

static ssl_edge_job *taught(const ssl_edge_encoder *encoder, uint32_t surface, uint32_t thumbnail_side) {
    uint32_t classes[2] = {0, 0};
    ssl_edge_job *job = NULL;
    ssl_edge_fit_report report;
    EXPECT(OK, ssl_edge_job_new(encoder, &job));
    EXPECT(OK, ssl_edge_job_set_surface(job, surface));
    EXPECT(OK, ssl_edge_job_add_class(job, "good", &classes[0]));
    EXPECT(OK, ssl_edge_job_add_class(job, "turned", &classes[1]));
    for (uint32_t seed = 0; seed < N; ++seed) teach(job, encoder, classes[seed % 2], seed, seed % 2 == 1, thumbnail_side);
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_fit(job, &report));
    return job;
}

static ssl_edge_job *move(const ssl_edge_job *job, const ssl_edge_encoder *other, ssl_edge_migration *migration) {
    ssl_edge_job *moved = NULL;
    EXPECT(OK, ssl_edge_migration_init(migration, sizeof *migration));
    CHECK(migration->loo_accuracy_before < 0.0f && migration->loo_accuracy_after < 0.0f);
    EXPECT(OK, ssl_edge_job_migrate(job, other, &moved, migration));
    return moved;
}

static void surfaces(const ssl_edge_encoder *encoder, const ssl_edge_encoder *other) {
    ssl_edge_migration migration;
    ssl_edge_job *job = taught(encoder, SSL_EDGE_SURFACE_PIXELS, SMALL), *moved = move(job, other, &migration);
    CHECK(migration.surface_kept == N / 2 && migration.surface_remade == 0 && migration.surface_dropped == 0);
    CHECK(migration.needed_side == NEEDED && migration.smallest_side == 0);
    ssl_edge_job_free(job);
    ssl_edge_job_free(moved);
    job = taught(encoder, SSL_EDGE_SURFACE_ENCODER, SMALL);
    moved = move(job, other, &migration);
    CHECK(migration.surface_kept == 0 && migration.surface_remade == 0 && migration.surface_dropped == N / 2);
    CHECK(migration.needed_side == NEEDED && migration.smallest_side == SMALL);
    ssl_edge_job_free(job);
    ssl_edge_job_free(moved);
}

/* A job for embeddings stays one. */
static void for_embeddings(const ssl_edge_encoder *encoder, const ssl_edge_encoder *other) {
    static float embedding[4096];
    size_t dim = 0;
    uint32_t class_id = 0;
    ssl_edge_job *job = NULL;
    ssl_edge_migration migration;
    ssl_edge_verdict verdict;
    EXPECT(OK, ssl_edge_job_new_for_embeddings(encoder, &job));
    EXPECT(OK, ssl_edge_job_add_class(job, "good", &class_id));
    for (uint32_t seed = 0; seed < N; ++seed) teach(job, encoder, class_id, seed, 0, SMALL);
    ssl_edge_job *moved = move(job, other, &migration);
    const ssl_edge_frame frame = part(N, 0);
    EXPECT(OK, ssl_edge_encoder_dim(other, &dim));
    EXPECT(OK, ssl_edge_encoder_embed(other, &frame, embedding, dim));
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    EXPECT(OK, ssl_edge_job_inspect_embedding(moved, embedding, dim, &verdict));
    CHECK(verdict.class_id == class_id);
    ssl_edge_job_free(moved);
    ssl_edge_job_free(job);
}

static void refused(ssl_edge_job *job, const ssl_edge_encoder *encoder, const ssl_edge_encoder *other) {
    ssl_edge_job *moved = NULL;
    ssl_edge_migration migration;
    ssl_edge_call_options call;
    ssl_edge_cancel *cancel = NULL;
    EXPECT(OK, ssl_edge_migration_init(&migration, sizeof migration));
    EXPECT(OK, ssl_edge_call_options_init(&call, sizeof call));
    EXPECT(OK, ssl_edge_cancel_new(&cancel));
    ssl_edge_cancel_trigger(cancel);
    call.cancel = cancel;
    EXPECT(CANCELLED, ssl_edge_job_migrate_with_options(job, other, &call, &moved, &migration));
    EXPECT(OK, ssl_edge_call_options_init(&call, sizeof call));
    call.timeout_us = 1;
    EXPECT(TIMED_OUT, ssl_edge_job_migrate_with_options(job, other, &call, &moved, &migration));
    migration.struct_size = 3;
    REFUSED(INVALID_STRUCT, "ssl_edge_migration_init", ssl_edge_job_migrate(job, other, &moved, &migration));
    migration.struct_size = sizeof migration;
    const uint64_t plain = teach(job, encoder, 0, N, 0, 0);
    REFUSED(NO_THUMBNAIL, "picture", ssl_edge_job_migrate(job, other, &moved, &migration));
    EXPECT(OK, ssl_edge_job_remove_sample(job, plain));
    CHECK(moved == NULL && migration.needed_side == 0);
    ssl_edge_cancel_free(cancel);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    ssl_edge_encoder *encoder = open_encoder(argv[1], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    ssl_edge_encoder *other = open_encoder(argv[2], SSL_EDGE_ENGINE_NATIVE, SSL_EDGE_PRECISION_F32);
    ssl_edge_migration migration;
    ssl_edge_verdict verdict;
    ssl_edge_fit_report report;
    ssl_edge_job *job = taught(encoder, SSL_EDGE_SURFACE_ENCODER, SIDE);
    EXPECT(OK, ssl_edge_job_save(job, argv[3]));
    ssl_edge_job *moved = move(job, other, &migration);
    CHECK(migration.loo_accuracy_before == 1.0f && migration.loo_accuracy_after == 1.0f);
    CHECK(migration.surface_remade == N / 2 && migration.surface_kept == 0 && migration.surface_dropped == 0);
    EXPECT(OK, ssl_edge_job_save(moved, argv[4]));

    /* Each job is its own encoder's; the old one works as before. */
    ssl_edge_frame frame = part(N + 1, 1);
    EXPECT(OK, ssl_edge_verdict_init(&verdict, sizeof verdict));
    EXPECT(WRONG_ENCODER, ssl_edge_job_inspect(moved, encoder, &frame, &verdict));
    EXPECT(OK, ssl_edge_job_inspect(moved, other, &frame, &verdict));
    CHECK(verdict.class_id == 1 && verdict.ok == 0);
    EXPECT(OK, ssl_edge_job_inspect(job, encoder, &frame, &verdict));
    CHECK(verdict.class_id == 1 && verdict.ok == 0);
    EXPECT(OK, ssl_edge_fit_report_init(&report, sizeof report));
    EXPECT(OK, ssl_edge_job_fit(moved, &report));
    CHECK(report.n_samples == N && report.loo_accuracy == migration.loo_accuracy_after);

    refused(job, encoder, other);
    surfaces(encoder, other);
    for_embeddings(encoder, other);
    ssl_edge_job_free(moved);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(other);
    ssl_edge_encoder_free(encoder);
    puts("ok");
    return 0;
}
