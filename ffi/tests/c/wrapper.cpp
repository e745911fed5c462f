// wrapper BUNDLE JOB: values move, errors arrive as results or exceptions, nothing leaks.

#include "ssl_edge.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#define CHECK(condition)                                                 \
    do {                                                                 \
        if (!(condition)) {                                              \
            std::printf("line %d: %s\n", __LINE__, #condition);          \
            std::exit(1);                                                \
        }                                                                \
    } while (0)

static_assert(!std::is_copy_constructible_v<ssl_edge::Encoder> && std::is_nothrow_move_constructible_v<ssl_edge::Encoder>);
static_assert(!std::is_copy_constructible_v<ssl_edge::Job> && std::is_nothrow_move_constructible_v<ssl_edge::Job>);

static_assert(!std::is_copy_constructible_v<ssl_edge::Golden> && std::is_nothrow_move_constructible_v<ssl_edge::Golden>);
static_assert(!std::is_copy_constructible_v<ssl_edge::Monitor> && std::is_nothrow_move_constructible_v<ssl_edge::Monitor>);

static_assert(std::is_copy_constructible_v<ssl_edge::CancelToken>);

/// Smooth metal with a little noise; on a bad part a bright square.
static ssl_edge::Frame part(std::vector<std::uint8_t> &pixels, unsigned seed, bool bad) {
    pixels.resize(64 * 48);
    std::uint32_t random = seed + 1;
    for (unsigned i = 0; i < pixels.size(); ++i) {
        random = random * 1664525u + 1013904223u;
        const bool inside = bad && i % 64 >= 40 && i % 64 < 52 && i / 64 >= 12 && i / 64 < 24;
        pixels[i] = static_cast<std::uint8_t>(inside ? 240 : 100 + i % 64 / 2 + (random >> 29));
    }
    return ssl_edge::Frame(SSL_EDGE_PIXEL_FORMAT_GRAY8, pixels.data(), pixels.size(), 64, 64, 48);
}

/// Heat, a head for a device, a monitor and golden parts.
static void surfaces(const ssl_edge::Encoder &encoder, const std::string &path) {
    std::vector<std::vector<std::uint8_t>> pixels(25);
    std::vector<ssl_edge::Frame> good, reference;
    for (unsigned seed = 0; seed < 24; ++seed) good.push_back(part(pixels[seed], seed, false));
    const auto bad = part(pixels[24], 24, true);
    auto job = ssl_edge::Job::create(encoder).value();
    job.set_surface(SSL_EDGE_SURFACE_PIXELS).value();
    const auto fine = job.add_class("good").value(), bright = job.add_class("bright").value();
    for (std::size_t i = 0; i < 14; ++i) job.add_sample(encoder, fine, good[i]).value();
    job.add_sample(encoder, bright, bad).value();
    job.fit().value();
    const auto heat = job.inspect_heat(encoder, bad).value();
    CHECK(heat.first.anomalous == true && heat.second.rows == 48 && heat.second.columns == 64);
    CHECK(*std::max_element(heat.second.values.begin(), heat.second.values.end()) > SSL_EDGE_HEAT_THRESHOLD);
    const auto grid = job.inspect_heat(encoder, bad, {SSL_EDGE_HEAT_RESOLUTION_GRID}).value();
    CHECK(grid.second.rows == 28 && grid.second.values.size() == 28 * 37);
    const auto head = job.device_head().value();
    CHECK(!head.image.empty() && head.samples_kept == 15 && head.same_class <= head.compared);

    for (std::size_t i = 14; i < 24; ++i) reference.push_back(good[i]);
    auto monitor = ssl_edge::Monitor::create(job, encoder, reference).value();
    const auto seen = monitor.observe(job, encoder, good[15]).value();
    CHECK(!seen.second.is_alarm() && std::string(seen.second.action()).empty() && seen.first.class_id == fine);
    CHECK(monitor.reset().ok());
    CHECK(ssl_edge::Monitor::create(job, encoder, good).error().status() == SSL_EDGE_STATUS_ALREADY_TAUGHT);

    const auto golden = ssl_edge::Golden::learn(good).value();
    golden.save(path).value();
    const auto loaded = ssl_edge::Golden::load(path).value();
    CHECK(loaded.info().value().parts == 24 && loaded.info().value().threshold.has_value());
    const auto verdict = loaded.compare(bad).value();
    CHECK(verdict.differs == true && verdict.p_value.has_value() && !verdict.nearest_part.has_value());
    CHECK(loaded.compare_heat(bad).value().second.values.size() == 64 * 48);
    const auto one = ssl_edge::Golden::learn({good[0]}).value();
    CHECK(!one.info().value().threshold.has_value() && one.compare(good[1]).value().nearest_part == 0u);
    CHECK(ssl_edge::Golden::learn(good, {SSL_EDGE_SURFACE_ENCODER}).error().status() == SSL_EDGE_STATUS_NULL_POINTER);
    CHECK(ssl_edge::Golden::learn(good, {SSL_EDGE_SURFACE_ENCODER}, &encoder).value().compare(bad, &encoder).ok());
}

/// A job with pictures moves, one without does not.
static void moves(const ssl_edge::Encoder &encoder) {
    std::vector<std::uint8_t> pixels;
    auto job = ssl_edge::Job::create(encoder).value();
    const auto fine = job.add_class("good").value(), bright = job.add_class("bright").value();
    for (unsigned seed = 0; seed < 4; ++seed) {
        const auto frame = part(pixels, seed, seed % 2 == 1);
        job.add_sample(encoder, seed % 2 == 1 ? bright : fine, frame, "", {SSL_EDGE_COPIES_OFF, {}, 32}).value();
    }
    const auto [moved, migration] = job.migrate(encoder).value();
    CHECK(!migration.loo_accuracy_before && migration.loo_accuracy_after == 1.0f);
    CHECK(migration.surface_kept == 0 && moved.sample_count(bright).value() == 2);
    const auto frame = part(pixels, 5, true);
    CHECK(moved.inspect(encoder, frame).value().class_id == bright);
    CHECK(job.migrate(encoder, {std::chrono::microseconds(0), {}}).error().status() == SSL_EDGE_STATUS_TIMED_OUT);
    job.add_sample(encoder, fine, part(pixels, 6, false)).value();
    CHECK(job.migrate(encoder).error().status() == SSL_EDGE_STATUS_NO_THUMBNAIL);
}

/// Deadlines, a token that another thread flips, masks and copies.
static void limits(const ssl_edge::Encoder &encoder) {
    std::vector<std::vector<std::uint8_t>> pixels(6);
    std::vector<ssl_edge::Frame> good;
    for (unsigned seed = 0; seed < 4; ++seed) good.push_back(part(pixels[seed], seed, false));
    const auto bad = part(pixels[4], 4, true);
    auto job = ssl_edge::Job::create(encoder).value();
    job.set_surface(SSL_EDGE_SURFACE_PIXELS).value();
    const auto fine = job.add_class("good").value(), bright = job.add_class("bright").value();
    for (const auto &frame : good) job.add_sample(encoder, fine, frame, "", {SSL_EDGE_COPIES_AUTO, {}}).value();
    CHECK(!job.add_sample(encoder, bright, bad, "", {SSL_EDGE_COPIES_OFF, {std::chrono::seconds(-1), {}}}));
    job.add_sample(encoder, bright, bad).value();
    const auto report = job.fit().value();
    CHECK(report.n_samples == 5 && report.n_copies == 4 * 9 && report.copies_used.has_value());

    const auto verdict = job.inspect(encoder, bad).value();
    CHECK(verdict.anomalous == true);
    CHECK(job.inspect(encoder, bad, {std::chrono::microseconds(0), {}}).error().status() == SSL_EDGE_STATUS_TIMED_OUT);
    auto token = ssl_edge::CancelToken::create().value();
    const ssl_edge::CallOptions cancellable{std::nullopt, token};
    std::thread button([token] { token.cancel().value(); });
    while (job.inspect(encoder, bad, cancellable)) continue;
    button.join();
    CHECK(job.inspect(encoder, bad, cancellable).error().status() == SSL_EDGE_STATUS_CANCELLED);
    CHECK(job.scores(encoder, bad, cancellable).error().status() == SSL_EDGE_STATUS_CANCELLED);
    CHECK(job.inspect_heat(encoder, bad, {}, cancellable).error().status() == SSL_EDGE_STATUS_CANCELLED);
    CHECK(encoder.embed(bad, cancellable).error().status() == SSL_EDGE_STATUS_CANCELLED);
    CHECK(ssl_edge::Golden::learn(good, {}, nullptr, cancellable).error().status() == SSL_EDGE_STATUS_CANCELLED);
    const auto golden = ssl_edge::Golden::learn(good).value();
    CHECK(golden.compare(bad, nullptr, cancellable).error().status() == SSL_EDGE_STATUS_CANCELLED);
    CHECK(golden.compare_heat(bad, nullptr, {}, cancellable).error().status() == SSL_EDGE_STATUS_CANCELLED);
    token.reset().value();
    CHECK(job.inspect(encoder, bad, {std::chrono::hours(1), token}).value().score == verdict.score);

    CHECK(!job.ignore_mask().value().has_value());
    pixels[5].assign(64 * 48, 0);
    const ssl_edge::Frame mask(SSL_EDGE_PIXEL_FORMAT_GRAY8, pixels[5].data(), pixels[5].size(), 64, 64, 48);
    CHECK(job.set_ignore_mask(mask).error().status() == SSL_EDGE_STATUS_INVALID_MASK);
    for (unsigned y = 10; y < 27; ++y) std::fill_n(pixels[5].begin() + y * 64 + 37, 18, 255);
    job.set_ignore_mask(mask).value();
    job.fit().value();
    CHECK(job.ignore_mask().value()->width == 64 && job.ignore_mask().value()->pixels == pixels[5]);
    CHECK(job.inspect(encoder, bad).value().anomalous == false);
    job.clear_ignore_mask().value();
    job.fit().value();
    CHECK(job.inspect(encoder, bad).value().anomalous == true);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const auto missing = ssl_edge::Encoder::open("nowhere.sslb");
    CHECK(!missing && missing.error().status() == SSL_EDGE_STATUS_IO);
    CHECK(std::string(missing.error().what()).find("nowhere.sslb") != std::string::npos);
    bool thrown = false;
    try {
        (void)missing.value();
    } catch (const ssl_edge::Error &error) {
        thrown = error.status() == SSL_EDGE_STATUS_IO;
    }
    CHECK(thrown);

    ssl_edge::EncoderOptions options;
    options.threads = 2;
    auto opened = ssl_edge::Encoder::open(argv[1], options).value();
    const auto encoder = std::move(opened);
    CHECK(opened.raw() == nullptr && encoder.info().value().arch == "vit_n16");
    CHECK(encoder.info().value().engine == SSL_EDGE_ENGINE_NATIVE && encoder.info().value().memory_bytes > 0);
    options.precision = SSL_EDGE_PRECISION_INT8;
    CHECK(ssl_edge::Encoder::open(argv[1], options).error().status() == SSL_EDGE_STATUS_ENGINE_UNAVAILABLE);

    const std::vector<std::uint8_t> pixels(100 * 80, 90);
    const ssl_edge::Frame frame(SSL_EDGE_PIXEL_FORMAT_GRAY8, pixels.data(), pixels.size(), 100, 100, 80);
    const auto embedding = encoder.embed(frame.with_roi(10, 10, 50, 50)).value();
    CHECK(embedding.size() == encoder.info().value().dim);
    CHECK(encoder.embed_within(frame, std::chrono::microseconds(0)).error().status() == SSL_EDGE_STATUS_TIMED_OUT);
    CHECK(encoder.embed_within(frame.with_roi(10, 10, 50, 50), std::chrono::hours(1)).value() == embedding);
    CHECK(encoder.embed(frame.with_roi(60, 0, 50, 50)).error().status() == SSL_EDGE_STATUS_INVALID_FRAME);

    // grey as luma without colour: NV12 in full range, its chroma where the caller says, is the grey frame
    std::vector<std::uint8_t> planes(100 * 80 + 7 + 110 * 40, 128);
    std::copy(pixels.begin(), pixels.end(), planes.begin());
    const auto nv12 = ssl_edge::Frame(SSL_EDGE_PIXEL_FORMAT_NV12, planes.data(), planes.size(), 100, 100, 80)
                          .with_chroma(100 * 80 + 7, 110)
                          .with_roi(10, 10, 50, 50);
    CHECK(encoder.embed(nv12.with_yuv(SSL_EDGE_YUV_BT709_FULL)).value() == embedding);
    CHECK(encoder.embed(nv12).value() != embedding);
    for (const auto format : {SSL_EDGE_PIXEL_FORMAT_BAYER_RG8, SSL_EDGE_PIXEL_FORMAT_BAYER_GR8,
                              SSL_EDGE_PIXEL_FORMAT_BAYER_GB8, SSL_EDGE_PIXEL_FORMAT_BAYER_BG8}) {
        const ssl_edge::Frame bayer(format, pixels.data(), pixels.size(), 100, 100, 80);
        CHECK(encoder.embed(bayer.with_roi(10, 10, 50, 50)).value() == embedding);
    }

    auto job = ssl_edge::Job::create_for_embeddings(encoder).value();
    const auto even = job.add_class("even").value();
    const auto odd = job.add_class("odd").value();
    CHECK(job.add_class("odd").error().status() == SSL_EDGE_STATUS_INVALID_CLASS_NAME);
    CHECK(job.class_name(odd).value() == "odd" && job.classes().value() == (std::vector<std::uint32_t>{even, odd}));
    const auto first = job.add_sample(encoder, even, frame, "a flat frame").value();
    auto other = embedding;
    for (std::size_t i = 0; i < other.size(); i += 2) other[i] = -other[i];
    const auto second = job.add_embedding(odd, other).value();
    other[0] = std::nanf("");
    CHECK(job.add_embedding(odd, other).error().status() == SSL_EDGE_STATUS_INVALID_EMBEDDING);
    CHECK(job.inspect_embedding(embedding).error().status() == SSL_EDGE_STATUS_NOT_FITTED);
    CHECK(job.fit().value().n_samples == 2 && job.sample_count(odd).value() == 1);
    const auto verdict = job.inspect(encoder, frame).value();
    CHECK(verdict.name == "even" && verdict.nearest_sample_id == first && verdict.class_id == even);

    job.save(argv[2]).value();
    CHECK(job.save("/nowhere/at/all.sslj").error().status() == SSL_EDGE_STATUS_IO);
    auto loaded = ssl_edge::Job::load(argv[2]).value();
    CHECK(loaded.inspect(encoder, frame).value().score == verdict.score);
    CHECK(loaded.remove_sample(second).ok() && !loaded.remove_sample(second));
    loaded = std::move(job);
    CHECK(loaded.inspect(encoder, frame).ok());
    surfaces(encoder, std::string(argv[2]) + ".sslg");
    moves(encoder);
    limits(encoder);
    std::puts("ok");
    return 0;
}
