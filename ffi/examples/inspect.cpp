// The C++ twin of inspect.c: it prints the same lines.
//
//     cargo build --release -p ssl-edge-capi -p ssl-edge-cli
//     target/release/ssl-edge export --random vit_n16 --seed 0 --size 64 --out random.sslb
//     c++ -std=c++17 -Iffi/include -Ibindings/cpp ffi/examples/inspect.cpp -o inspect -Ltarget/release -lssl_edge -Wl,-rpath,target/release
//     ./inspect random.sslb station.sslj

#include "ssl_edge.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

namespace {

constexpr std::uint32_t width = 160;
constexpr std::uint32_t height = 120;
constexpr std::size_t stride = 192;
constexpr std::uint32_t frames_per_class = 5;

// What a camera would deliver: brushed metal, and on a bad part a dark scratch.
class Part {
public:
    Part(std::uint32_t seed, bool is_bad) : pixels_(height * stride) {
        std::uint32_t random = seed * 2654435761u + 1u;
        for (int y = 0; y < static_cast<int>(height); ++y) {
            random = random * 1664525u + 1013904223u;
            const int brush = static_cast<int>(random >> 27);
            for (int x = 0; x < static_cast<int>(width); ++x) {
                random = random * 1664525u + 1013904223u;
                const int noise = static_cast<int>(random >> 28);
                const int from_scratch = std::abs(x - y - 20 - static_cast<int>(seed % 8u) * 3);
                const int level = is_bad && from_scratch < 6 ? 30 + noise : 140 + brush + noise;
                pixels_[static_cast<std::size_t>(y) * stride + static_cast<std::size_t>(x)] = static_cast<std::uint8_t>(level);
            }
        }
    }

    ssl_edge::Frame frame() const {
        return ssl_edge::Frame(SSL_EDGE_PIXEL_FORMAT_GRAY8, pixels_.data(), pixels_.size(), stride, width, height);
    }

private:
    std::vector<std::uint8_t> pixels_;
};

void print_verdicts(const ssl_edge::Job &job, const ssl_edge::Encoder &encoder) {
    for (const bool is_bad : {false, true}) {
        const auto verdict = job.inspect(encoder, Part(100, is_bad).frame()).value();
        std::printf("verdict: %s, score %.4f%s\n", verdict.name.c_str(), static_cast<double>(verdict.score),
                    verdict.unknown ? ", unknown" : "");
    }
}

void run(const char *bundle, const char *job_file) {
    const auto encoder = ssl_edge::Encoder::open(bundle).value();
    const auto info = encoder.info().value();
    std::printf("encoder: %s, %zu values\n", info.arch.c_str(), info.dim);

    auto job = ssl_edge::Job::create(encoder).value();
    const std::uint32_t class_ids[] = {job.add_class("good").value(), job.add_class("bad").value()};
    for (std::uint32_t seed = 0; seed < frames_per_class; ++seed) {
        for (const bool is_bad : {false, true}) {
            job.add_sample(encoder, class_ids[is_bad], Part(seed, is_bad).frame(), "drawn").value();
        }
    }
    const auto report = job.fit().value();
    std::printf("taught: %zu samples, %zu classes, leave-one-out accuracy %.2f\n", report.n_samples, report.n_classes,
                static_cast<double>(report.loo_accuracy));
    print_verdicts(job, encoder);

    job.save(job_file).value();
    const auto loaded = ssl_edge::Job::load(job_file).value();
    std::puts("loaded:");
    print_verdicts(loaded, encoder);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: inspect BUNDLE.sslb JOB.sslj\n");
        return 2;
    }
    try {
        run(argv[1], argv[2]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "inspect: %s\n", error.what());
        return 1;
    }
    return 0;
}
