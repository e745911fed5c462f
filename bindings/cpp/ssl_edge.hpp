// C++17 over ssl_edge.h: owners that free themselves, results that cannot be overlooked, no dependency. Header only; link libssl_edge.
//
//     auto encoder = ssl_edge::Encoder::open("encoder.sslb").value();
//     auto job = ssl_edge::Job::load("station.sslj").value();
//     auto verdict = job.inspect(encoder, frame).value();
//
// Result<T>::value() throws ssl_edge::Error; test the result first where exceptions are unwelcome. Thread safety is that of the C types.

#ifndef SSL_EDGE_HPP
#define SSL_EDGE_HPP

#include "ssl_edge.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace ssl_edge {

/// A failed call: its status and the library's text.
class Error : public std::runtime_error {
public:
    Error(ssl_edge_status status, const std::string &text) : std::runtime_error(text), status_(status) {}

    /// The failure of the call that this thread made last.
    static Error last(ssl_edge_status status) { return Error(status, ssl_edge_last_error()); }

    ssl_edge_status status() const noexcept { return status_; }

private:
    ssl_edge_status status_;
};

namespace detail {

[[noreturn]] inline void fail(const Error &error) {
#if defined(__cpp_exceptions)
    throw error;
#else
    (void)error;
    std::abort();
#endif
}

}  // namespace detail

/// A value or the error that there is none.
template <typename T>
class [[nodiscard]] Result {
public:
    Result(T value) : content_(std::move(value)) {}
    Result(Error error) : content_(std::move(error)) {}

    bool ok() const noexcept { return std::holds_alternative<T>(content_); }
    explicit operator bool() const noexcept { return ok(); }

    /// The value. Throws the error if there is none (aborts if compiled without exceptions).
    T value() && {
        if (!ok()) detail::fail(error());
        return std::move(std::get<T>(content_));
    }
    const T &value() const & {
        if (!ok()) detail::fail(error());
        return std::get<T>(content_);
    }

    /// The error. Only of a result that is not ok.
    const Error &error() const { return std::get<Error>(content_); }

private:
    std::variant<T, Error> content_;
};

/// Success or the error.
template <>
class [[nodiscard]] Result<void> {
public:
    explicit Result(ssl_edge_status status)
        : error_(status == SSL_EDGE_STATUS_OK ? Error(status, "") : Error::last(status)) {}

    bool ok() const noexcept { return error_.status() == SSL_EDGE_STATUS_OK; }
    explicit operator bool() const noexcept { return ok(); }

    /// Throws the error if there is one (aborts if compiled without exceptions).
    void value() const {
        if (!ok()) detail::fail(error_);
    }

    /// The error. Only of a result that is not ok.
    const Error &error() const { return error_; }

private:
    Error error_;
};

/// A view of the caller's pixels, which must live as long as calls use it. `data_size` and `stride` are in bytes.
class Frame {
public:
    Frame(ssl_edge_pixel_format format, const void *data, std::size_t data_size, std::size_t stride, std::uint32_t width,
          std::uint32_t height) {
        ssl_edge_frame_init(&raw_, sizeof raw_);
        raw_.format = format;
        raw_.data = data;
        raw_.data_size = data_size;
        raw_.stride = stride;
        raw_.width = width;
        raw_.height = height;
    }

    /// The same pixels with a region of interest.
    Frame with_roi(std::uint32_t x, std::uint32_t y, std::uint32_t width, std::uint32_t height) const {
        Frame frame = *this;
        frame.raw_.roi_x = x;
        frame.raw_.roi_y = y;
        frame.raw_.roi_width = width;
        frame.raw_.roi_height = height;
        return frame;
    }

    /// The same pixels, their luma and chroma read in another way than BT.601 in limited range.
    Frame with_yuv(ssl_edge_yuv yuv) const {
        Frame frame = *this;
        frame.raw_.yuv = yuv;
        return frame;
    }

    /// The same NV12 frame whose chroma does not follow its luma directly. Both in bytes; a stride of 0 is that of luma.
    Frame with_chroma(std::size_t offset, std::size_t stride = 0) const {
        Frame frame = *this;
        frame.raw_.chroma_offset = offset;
        frame.raw_.chroma_stride = stride;
        return frame;
    }

    const ssl_edge_frame *raw() const noexcept { return &raw_; }

private:
    ssl_edge_frame raw_;
};

/// How to open an encoder.
struct EncoderOptions {
    ssl_edge_engine engine = SSL_EDGE_ENGINE_NATIVE;
    std::uint32_t threads = 1;
    /// A PEM file with a public key that must have signed the bundle; empty opens bundles that nobody signed too.
    std::string signed_by;
};

/// What an encoder is.
struct EncoderInfo {
    std::string arch;
    std::size_t dim;
    std::uint32_t input_width;
    std::uint32_t input_height;
    std::array<std::uint8_t, 32> hash;
};

/// An opened bundle.
class Encoder {
public:
    static Result<Encoder> open(const std::string &path, const EncoderOptions &options = {}) {
        ssl_edge_encoder_options raw_options;
        ssl_edge_encoder_options_init(&raw_options, sizeof raw_options);
        raw_options.engine = options.engine;
        raw_options.threads = options.threads;
        if (!options.signed_by.empty()) raw_options.signed_by = options.signed_by.c_str();
        ssl_edge_encoder *raw = nullptr;
        const auto status = ssl_edge_encoder_open(path.c_str(), &raw_options, &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return Encoder(raw);
    }

    Result<EncoderInfo> info() const {
        ssl_edge_encoder_info raw;
        ssl_edge_encoder_info_init(&raw, sizeof raw);
        const auto status = ssl_edge_encoder_get_info(raw_.get(), &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        EncoderInfo info{raw.arch, raw.dim, raw.input_width, raw.input_height, {}};
        for (std::size_t i = 0; i < info.hash.size(); ++i) info.hash[i] = raw.hash[i];
        return info;
    }

    Result<std::vector<float>> embed(const Frame &frame) const {
        std::size_t dim = 0;
        auto status = ssl_edge_encoder_dim(raw_.get(), &dim);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        std::vector<float> embedding(dim);
        status = ssl_edge_encoder_embed(raw_.get(), frame.raw(), embedding.data(), embedding.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return embedding;
    }

    /// As `embed`, but gives up with SSL_EDGE_STATUS_TIMED_OUT when the time is over. A time below zero is none.
    Result<std::vector<float>> embed_within(const Frame &frame, std::chrono::microseconds time) const {
        std::size_t dim = 0;
        auto status = ssl_edge_encoder_dim(raw_.get(), &dim);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        std::vector<float> embedding(dim);
        const auto us = static_cast<std::uint64_t>(time.count() > 0 ? time.count() : 0);
        status = ssl_edge_encoder_embed_within(raw_.get(), frame.raw(), us, embedding.data(), embedding.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return embedding;
    }

    const ssl_edge_encoder *raw() const noexcept { return raw_.get(); }

private:
    struct Free {
        void operator()(ssl_edge_encoder *encoder) const noexcept { ssl_edge_encoder_free(encoder); }
    };

    explicit Encoder(ssl_edge_encoder *raw) : raw_(raw) {}

    std::unique_ptr<ssl_edge_encoder, Free> raw_;
};

/// What a job says about a frame.
struct Verdict {
    std::uint32_t class_id;
    std::string name;
    float score;
    bool unknown;
    float distance;
    std::uint64_t nearest_sample_id;
    /// How typical the frame is of what was taught, 0 to 1.
    float p_value;
    /// Whether the part may pass; no value for a job without a good class.
    std::optional<bool> ok;
    std::uint64_t revision;
    /// Whether the surface has patches unlike all good parts; no value for a job that looks at no surfaces.
    std::optional<bool> anomalous;
};

/// What a fit found.
struct FitReport {
    std::size_t n_samples;
    std::size_t n_classes;
    std::size_t n_suspects;
    float loo_accuracy;
    float loo_low;
    float loo_high;
    float calibration_error;
    float unknown_rate;
    std::uint32_t head;
    std::uint32_t needs_more_class_id;
};

/// How to fit; see ssl_edge_fit_options.
struct FitOptions {
    std::uint32_t head = 0;
    bool search = false;
    float unknown_rate = 0.05f;
};

/// Classes, samples and the classifier fitted on them.
class Job {
public:
    static Result<Job> create(const Encoder &encoder) {
        ssl_edge_job *raw = nullptr;
        const auto status = ssl_edge_job_new(encoder.raw(), &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return Job(raw);
    }

    static Result<Job> create_for_embeddings(const Encoder &encoder) {
        ssl_edge_job *raw = nullptr;
        const auto status = ssl_edge_job_new_for_embeddings(encoder.raw(), &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return Job(raw);
    }

    static Result<Job> load(const std::string &path) {
        ssl_edge_job *raw = nullptr;
        const auto status = ssl_edge_job_load(path.c_str(), &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return Job(raw);
    }

    Result<void> save(const std::string &path) const { return Result<void>(ssl_edge_job_save(raw_.get(), path.c_str())); }

    Result<std::uint32_t> add_class(const std::string &name) {
        std::uint32_t class_id = 0;
        const auto status = ssl_edge_job_add_class(raw_.get(), name.c_str(), &class_id);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return class_id;
    }

    /// Ids of the classes in the order in which they were added.
    Result<std::vector<std::uint32_t>> classes() const {
        std::size_t count = 0;
        auto status = ssl_edge_job_class_count(raw_.get(), &count);
        std::vector<std::uint32_t> ids(count);
        for (std::size_t i = 0; i < count && status == SSL_EDGE_STATUS_OK; ++i) {
            status = ssl_edge_job_class_at(raw_.get(), i, &ids[i]);
        }
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return ids;
    }

    Result<std::string> class_name(std::uint32_t class_id) const {
        std::size_t length = 0;
        auto status = ssl_edge_job_class_name_length(raw_.get(), class_id, &length);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        std::vector<char> name(length + 1);
        status = ssl_edge_job_class_name(raw_.get(), class_id, name.data(), name.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return std::string(name.data());
    }

    Result<std::size_t> sample_count(std::uint32_t class_id) const {
        std::size_t count = 0;
        const auto status = ssl_edge_job_sample_count(raw_.get(), class_id, &count);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return count;
    }

    Result<std::uint64_t> add_sample(const Encoder &encoder, std::uint32_t class_id, const Frame &frame,
                                     const std::string &source = "") {
        std::uint64_t sample_id = 0;
        const auto status =
            ssl_edge_job_add_sample(raw_.get(), encoder.raw(), class_id, frame.raw(), source.c_str(), &sample_id);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return sample_id;
    }

    Result<std::uint64_t> add_embedding(std::uint32_t class_id, const std::vector<float> &embedding,
                                        const std::string &source = "") {
        std::uint64_t sample_id = 0;
        const auto status = ssl_edge_job_add_embedding(raw_.get(), class_id, embedding.data(), embedding.size(),
                                                       source.c_str(), &sample_id);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return sample_id;
    }

    Result<void> remove_sample(std::uint64_t sample_id) {
        return Result<void>(ssl_edge_job_remove_sample(raw_.get(), sample_id));
    }

    Result<void> set_operator(const std::string &name, std::int64_t unix_time) {
        return Result<void>(ssl_edge_job_set_operator(raw_.get(), name.c_str(), unix_time));
    }

    /// A value of ssl_edge_surface, to be set before samples are taught.
    Result<void> set_surface(std::uint32_t surface) { return Result<void>(ssl_edge_job_set_surface(raw_.get(), surface)); }

    Result<void> rename_class(std::uint32_t class_id, const std::string &name) {
        return Result<void>(ssl_edge_job_rename_class(raw_.get(), class_id, name.c_str()));
    }

    Result<void> set_good(std::uint32_t class_id, bool good) {
        return Result<void>(ssl_edge_job_set_good(raw_.get(), class_id, good ? 1 : 0));
    }

    Result<void> set_cost(std::uint32_t class_id, double cost) {
        return Result<void>(ssl_edge_job_set_cost(raw_.get(), class_id, cost));
    }

    Result<void> remove_class(std::uint32_t class_id) {
        return Result<void>(ssl_edge_job_remove_class(raw_.get(), class_id));
    }

    Result<void> merge_classes(std::uint32_t class_id, std::uint32_t into) {
        return Result<void>(ssl_edge_job_merge_classes(raw_.get(), class_id, into));
    }

    Result<void> relabel_sample(std::uint64_t sample_id, std::uint32_t class_id) {
        return Result<void>(ssl_edge_job_relabel_sample(raw_.get(), sample_id, class_id));
    }

    /// The revision whose change was taken back; 0 if there was nothing to take back.
    Result<std::uint64_t> undo() {
        std::uint64_t revision = 0;
        const auto status = ssl_edge_job_undo(raw_.get(), &revision);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return revision;
    }

    Result<FitReport> fit(const FitOptions &options = {}) {
        ssl_edge_fit_options raw_options;
        ssl_edge_fit_options_init(&raw_options, sizeof raw_options);
        raw_options.head = options.head;
        raw_options.search = options.search ? 1 : 0;
        raw_options.unknown_rate = options.unknown_rate;
        ssl_edge_fit_report raw;
        ssl_edge_fit_report_init(&raw, sizeof raw);
        const auto status = ssl_edge_job_fit_with_options(raw_.get(), &raw_options, &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return FitReport{raw.n_samples,         raw.n_classes,    raw.n_suspects, raw.loo_accuracy, raw.loo_low, raw.loo_high,
                         raw.calibration_error, raw.unknown_rate, raw.head,       raw.needs_more_class_id};
    }

    Result<Verdict> inspect(const Encoder &encoder, const Frame &frame) const {
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        return verdict(ssl_edge_job_inspect(raw_.get(), encoder.raw(), frame.raw(), &raw), raw);
    }

    /// The score of each class, in the order of classes().
    Result<std::vector<float>> scores(const Encoder &encoder, const Frame &frame) const {
        std::size_t count = 0;
        auto status = ssl_edge_job_class_count(raw_.get(), &count);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        std::vector<float> scores(count);
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        status = ssl_edge_job_inspect_scores(raw_.get(), encoder.raw(), frame.raw(), &raw, scores.data(), scores.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return scores;
    }

    Result<Verdict> inspect_embedding(const std::vector<float> &embedding) const {
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        return verdict(ssl_edge_job_inspect_embedding(raw_.get(), embedding.data(), embedding.size(), &raw), raw);
    }

    const ssl_edge_job *raw() const noexcept { return raw_.get(); }

private:
    struct Free {
        void operator()(ssl_edge_job *job) const noexcept { ssl_edge_job_free(job); }
    };

    explicit Job(ssl_edge_job *raw) : raw_(raw) {}

    Result<Verdict> verdict(ssl_edge_status status, const ssl_edge_verdict &raw) const {
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        auto name = class_name(raw.class_id);
        if (!name) return name.error();
        return Verdict{raw.class_id, std::move(name).value(), raw.score, raw.unknown != 0, raw.distance, raw.nearest_sample_id,
                       raw.p_value, raw.ok < 0 ? std::nullopt : std::optional<bool>(raw.ok == 1), raw.revision,
                       raw.anomalous < 0 ? std::nullopt : std::optional<bool>(raw.anomalous == 1)};
    }

    std::unique_ptr<ssl_edge_job, Free> raw_;
};

}  // namespace ssl_edge

#endif
