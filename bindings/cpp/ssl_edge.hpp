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

/// A switch that ends calls early, from any thread; copies share it. It lives as long as the last copy.
class CancelToken {
public:
    static Result<CancelToken> create() {
        ssl_edge_cancel *raw = nullptr;
        const auto status = ssl_edge_cancel_new(&raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return CancelToken(raw);
    }

    /// Ends the calls that were given the token, and those that will be, until it is reset.
    Result<void> cancel() const { return Result<void>(ssl_edge_cancel_trigger(raw_.get())); }

    /// Makes the token as new, for calls that begin from here on.
    Result<void> reset() const { return Result<void>(ssl_edge_cancel_reset(raw_.get())); }

    const ssl_edge_cancel *raw() const noexcept { return raw_.get(); }

private:
    explicit CancelToken(ssl_edge_cancel *raw) : raw_(raw, ssl_edge_cancel_free) {}

    std::shared_ptr<ssl_edge_cancel> raw_;
};

/// When to give a call up; see ssl_edge_call_options. It ends with SSL_EDGE_STATUS_TIMED_OUT or SSL_EDGE_STATUS_CANCELLED.
struct CallOptions {
    /// From the beginning of the call; a time below zero is none, no value no limit.
    std::optional<std::chrono::microseconds> timeout;
    std::optional<CancelToken> cancel;
};

namespace detail {

inline ssl_edge_call_options raw(const CallOptions &options) {
    ssl_edge_call_options raw;
    ssl_edge_call_options_init(&raw, sizeof raw);
    if (options.timeout) raw.timeout_us = static_cast<std::uint64_t>(options.timeout->count() > 0 ? options.timeout->count() : 0);
    if (options.cancel) raw.cancel = options.cancel->raw();
    return raw;
}

}  // namespace detail

/// How to open an encoder.
struct EncoderOptions {
    ssl_edge_engine engine = SSL_EDGE_ENGINE_NATIVE;
    std::uint32_t threads = 1;
    /// A PEM file with a public key that must have signed the bundle; empty opens bundles that nobody signed too.
    std::string signed_by;
    ssl_edge_precision precision = SSL_EDGE_PRECISION_F32;
};

/// What an encoder is.
struct EncoderInfo {
    std::string arch;
    std::size_t dim;
    std::uint32_t input_width;
    std::uint32_t input_height;
    std::array<std::uint8_t, 32> hash;
    /// Values of ssl_edge_engine and ssl_edge_precision.
    std::uint32_t engine;
    std::uint32_t precision;
    /// Of weights and work memory; 0 if the engine does not know.
    std::uint64_t memory_bytes;
    float self_test_difference;
    float self_test_tolerance;
};

/// An opened bundle.
class Encoder {
public:
    static Result<Encoder> open(const std::string &path, const EncoderOptions &options = {}) {
        ssl_edge_encoder_options raw_options;
        ssl_edge_encoder_options_init(&raw_options, sizeof raw_options);
        raw_options.engine = options.engine;
        raw_options.precision = options.precision;
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
        EncoderInfo info{raw.arch,      raw.dim,          raw.input_width,          raw.input_height,       {}, raw.engine,
                         raw.precision, raw.memory_bytes, raw.self_test_difference, raw.self_test_tolerance};
        for (std::size_t i = 0; i < info.hash.size(); ++i) info.hash[i] = raw.hash[i];
        return info;
    }

    Result<std::vector<float>> embed(const Frame &frame, const CallOptions &call = {}) const {
        std::size_t dim = 0;
        auto status = ssl_edge_encoder_dim(raw_.get(), &dim);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        std::vector<float> embedding(dim);
        const auto raw_call = detail::raw(call);
        status = ssl_edge_encoder_embed_with_options(raw_.get(), frame.raw(), &raw_call, embedding.data(), embedding.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return embedding;
    }

    /// Short for `embed` with this timeout and nothing else.
    Result<std::vector<float>> embed_within(const Frame &frame, std::chrono::microseconds time) const {
        return embed(frame, {time, std::nullopt});
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
    /// Copies that the samples were taught with, and whether the head was fitted with them; no value without copies.
    std::size_t n_copies;
    std::optional<bool> copies_used;
};

/// How to fit; see ssl_edge_fit_options.
struct FitOptions {
    std::uint32_t head = 0;
    bool search = false;
    float unknown_rate = 0.05f;
};

/// How a frame is taught; see ssl_edge_teach_options.
struct TeachOptions {
    ssl_edge_copies copies = SSL_EDGE_COPIES_OFF;
    CallOptions call;
    /// Shorter side of the picture that the job keeps, for Job::migrate; 0 for none.
    std::uint32_t thumbnail_side = 0;
};

/// What became of a job that moved to another encoder; see ssl_edge_migration.
struct Migration {
    std::optional<float> loo_accuracy_before;
    std::optional<float> loo_accuracy_after;
    std::size_t surface_kept;
    std::size_t surface_remade;
    std::size_t surface_dropped;
    std::uint32_t needed_side;
    std::uint32_t smallest_side;
};

/// The region of the frame that does not count: row by row, 255 where a pixel does not, 0 where it does.
struct IgnoreMask {
    std::uint32_t width;
    std::uint32_t height;
    std::vector<std::uint8_t> pixels;
};

/// Where a surface is unlike good parts; see ssl_edge_job_inspect_heat. A value above SSL_EDGE_HEAT_THRESHOLD is unlike them.
struct Heat {
    std::size_t rows;
    std::size_t columns;
    /// Row by row.
    std::vector<float> values;
};

/// How heat is drawn; see ssl_edge_heat_options.
struct HeatOptions {
    ssl_edge_heat_resolution resolution = SSL_EDGE_HEAT_RESOLUTION_PIXELS;
    float blur = 4.0f;
};

/// How a head is made for a device; see ssl_edge_device_options.
struct DeviceOptions {
    std::uint16_t job_number = 0;
    /// 0: as much as all samples need.
    std::uint64_t max_bytes = 0;
};

/// A head for a device, and how far it is from the job; see ssl_edge_device_report.
struct DeviceHead {
    std::vector<std::uint8_t> image;
    std::size_t samples_kept;
    std::size_t compared;
    std::size_t same_class;
    std::size_t same_unknown;
    float score_difference;
    float distance_difference;
};

namespace detail {

inline ssl_edge_heat_options raw(const HeatOptions &options, const ssl_edge_call_options &call) {
    ssl_edge_heat_options raw;
    ssl_edge_heat_options_init(&raw, sizeof raw);
    raw.resolution = options.resolution;
    raw.blur = options.blur;
    raw.call = &call;
    return raw;
}

inline std::vector<const ssl_edge_frame *> pointers(const std::vector<Frame> &frames) {
    std::vector<const ssl_edge_frame *> pointers;
    for (const auto &frame : frames) pointers.push_back(frame.raw());
    return pointers;
}

/// A number that is negative where there is none.
inline std::optional<float> known(float number) { return number < 0.0f ? std::nullopt : std::optional<float>(number); }

}  // namespace detail

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
                                     const std::string &source = "", const TeachOptions &options = {}) {
        const auto call = detail::raw(options.call);
        ssl_edge_teach_options raw_options;
        ssl_edge_teach_options_init(&raw_options, sizeof raw_options);
        raw_options.copies = options.copies;
        raw_options.thumbnail_side = options.thumbnail_side;
        raw_options.call = &call;
        std::uint64_t sample_id = 0;
        const auto status = ssl_edge_job_add_sample_with_options(raw_.get(), encoder.raw(), class_id, frame.raw(),
                                                                 source.c_str(), &raw_options, &sample_id);
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

    /// Leaves a region out of the surface of good parts: a grey frame, above 127 where a pixel does not count. The job must be fitted again.
    Result<void> set_ignore_mask(const Frame &mask) {
        return Result<void>(ssl_edge_job_set_ignore_mask(raw_.get(), mask.raw()));
    }

    /// Counts the whole frame again. The job must be fitted again.
    Result<void> clear_ignore_mask() { return Result<void>(ssl_edge_job_clear_ignore_mask(raw_.get())); }

    /// The mask; no value without one.
    Result<std::optional<IgnoreMask>> ignore_mask() const {
        IgnoreMask mask{};
        auto status = ssl_edge_job_ignore_mask_size(raw_.get(), &mask.width, &mask.height);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        if (mask.width == 0) return std::optional<IgnoreMask>();
        mask.pixels.resize(std::size_t{mask.width} * mask.height);
        status = ssl_edge_job_get_ignore_mask(raw_.get(), mask.pixels.data(), mask.pixels.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return std::optional<IgnoreMask>(std::move(mask));
    }

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
        return FitReport{raw.n_samples,
                         raw.n_classes,
                         raw.n_suspects,
                         raw.loo_accuracy,
                         raw.loo_low,
                         raw.loo_high,
                         raw.calibration_error,
                         raw.unknown_rate,
                         raw.head,
                         raw.needs_more_class_id,
                         raw.n_copies,
                         raw.copies_used < 0 ? std::nullopt : std::optional<bool>(raw.copies_used == 1)};
    }

    Result<Verdict> inspect(const Encoder &encoder, const Frame &frame, const CallOptions &call = {}) const {
        const auto raw_call = detail::raw(call);
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        return verdict(ssl_edge_job_inspect_with_options(raw_.get(), encoder.raw(), frame.raw(), &raw_call, &raw), raw);
    }

    /// The score of each class, in the order of classes().
    Result<std::vector<float>> scores(const Encoder &encoder, const Frame &frame, const CallOptions &call = {}) const {
        const auto raw_call = detail::raw(call);
        std::size_t count = 0;
        auto status = ssl_edge_job_class_count(raw_.get(), &count);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        std::vector<float> scores(count);
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        status = ssl_edge_job_inspect_scores_with_options(raw_.get(), encoder.raw(), frame.raw(), &raw_call, &raw,
                                                          scores.data(), scores.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return scores;
    }

    /// The verdict, and where the surface is unlike good parts.
    Result<std::pair<Verdict, Heat>> inspect_heat(const Encoder &encoder, const Frame &frame,
                                                  const HeatOptions &options = {}, const CallOptions &call = {}) const {
        const auto raw_call = detail::raw(call);
        const auto raw_options = detail::raw(options, raw_call);
        Heat heat{};
        auto status =
            ssl_edge_job_heat_size(raw_.get(), encoder.raw(), frame.raw(), &raw_options, &heat.rows, &heat.columns);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        heat.values.resize(heat.rows * heat.columns);
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        status = ssl_edge_job_inspect_heat(raw_.get(), encoder.raw(), frame.raw(), &raw_options, &raw, heat.values.data(),
                                           heat.values.size());
        auto found = verdict(status, raw);
        if (!found) return found.error();
        return std::make_pair(std::move(found).value(), std::move(heat));
    }

    /// The fitted head in integers, for a microcontroller.
    Result<DeviceHead> device_head(const DeviceOptions &options = {}) const {
        ssl_edge_device_options raw_options;
        ssl_edge_device_options_init(&raw_options, sizeof raw_options);
        raw_options.job_number = options.job_number;
        raw_options.max_bytes = options.max_bytes;
        ssl_edge_device_report raw;
        ssl_edge_device_report_init(&raw, sizeof raw);
        auto status = ssl_edge_job_device_report(raw_.get(), &raw_options, &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        DeviceHead head{std::vector<std::uint8_t>(raw.bytes), raw.samples_kept,     raw.compared, raw.same_class,
                        raw.same_unknown,                     raw.score_difference, raw.distance_difference};
        std::size_t size = 0;
        status = ssl_edge_job_device_head(raw_.get(), &raw_options, head.image.data(), head.image.size(), &size);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        head.image.resize(size);
        return head;
    }

    /// The job that another encoder needs, of the thumbnails that were kept with all samples. This one stays as it is.
    Result<std::pair<Job, Migration>> migrate(const Encoder &encoder, const CallOptions &options = {}) const {
        const auto call = detail::raw(options);
        ssl_edge_job *moved = nullptr;
        ssl_edge_migration raw;
        ssl_edge_migration_init(&raw, sizeof raw);
        const auto status = ssl_edge_job_migrate_with_options(raw_.get(), encoder.raw(), &call, &moved, &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return std::pair<Job, Migration>(Job(moved), Migration{detail::known(raw.loo_accuracy_before),
                                                               detail::known(raw.loo_accuracy_after), raw.surface_kept,
                                                               raw.surface_remade, raw.surface_dropped, raw.needed_side,
                                                               raw.smallest_side});
    }

    Result<Verdict> inspect_embedding(const std::vector<float> &embedding) const {
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        return verdict(ssl_edge_job_inspect_embedding(raw_.get(), embedding.data(), embedding.size(), &raw), raw);
    }

    const ssl_edge_job *raw() const noexcept { return raw_.get(); }

private:
    friend class Monitor;

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

/// How golden parts are learned; see ssl_edge_golden_options.
struct GoldenOptions {
    ssl_edge_surface surface = SSL_EDGE_SURFACE_PIXELS;
    std::uint32_t max_shift = 2;
    float false_alarm_rate = 0.05f;
};

/// What golden parts are; see ssl_edge_golden_info.
struct GoldenInfo {
    std::size_t parts;
    std::size_t rows;
    std::size_t columns;
    /// Values of ssl_edge_surface and ssl_edge_threshold_source.
    std::uint32_t surface;
    std::uint32_t threshold_source;
    /// No values for a single golden part.
    std::optional<float> threshold;
    std::optional<float> false_alarm_rate;
    std::optional<float> false_alarm_floor;
};

/// A frame beside golden parts; see ssl_edge_golden_verdict.
struct GoldenVerdict {
    /// No value for a single golden part.
    std::optional<bool> differs;
    float score;
    std::optional<float> p_value;
    std::int32_t shift_rows;
    std::int32_t shift_columns;
    /// No value from three golden parts on.
    std::optional<std::size_t> nearest_part;
};

/// What is where on good parts, position by position. It never changes. An encoder is needed for golden parts of an encoder's patches only.
class Golden {
public:
    static Result<Golden> learn(const std::vector<Frame> &frames, const GoldenOptions &options = {},
                                const Encoder *encoder = nullptr, const CallOptions &call = {}) {
        const auto raw_call = detail::raw(call);
        const auto pointers = detail::pointers(frames);
        ssl_edge_golden_options raw_options;
        ssl_edge_golden_options_init(&raw_options, sizeof raw_options);
        raw_options.surface = options.surface;
        raw_options.max_shift = options.max_shift;
        raw_options.false_alarm_rate = options.false_alarm_rate;
        raw_options.call = &raw_call;
        ssl_edge_golden *raw = nullptr;
        const auto status = ssl_edge_golden_learn(pointers.data(), pointers.size(), encoder ? encoder->raw() : nullptr,
                                                  &raw_options, &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return Golden(raw);
    }

    static Result<Golden> load(const std::string &path) {
        ssl_edge_golden *raw = nullptr;
        const auto status = ssl_edge_golden_load(path.c_str(), &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return Golden(raw);
    }

    Result<void> save(const std::string &path) const {
        return Result<void>(ssl_edge_golden_save(raw_.get(), path.c_str()));
    }

    Result<GoldenInfo> info() const {
        ssl_edge_golden_info raw;
        ssl_edge_golden_info_init(&raw, sizeof raw);
        const auto status = ssl_edge_golden_get_info(raw_.get(), &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return GoldenInfo{raw.parts,
                          raw.rows,
                          raw.columns,
                          raw.surface,
                          raw.threshold_source,
                          detail::known(raw.threshold),
                          detail::known(raw.false_alarm_rate),
                          detail::known(raw.false_alarm_floor)};
    }

    Result<GoldenVerdict> compare(const Frame &frame, const Encoder *encoder = nullptr, const CallOptions &call = {}) const {
        const auto raw_call = detail::raw(call);
        ssl_edge_golden_verdict raw;
        ssl_edge_golden_verdict_init(&raw, sizeof raw);
        const auto status = ssl_edge_golden_compare_with_options(raw_.get(), encoder ? encoder->raw() : nullptr, frame.raw(),
                                                                 &raw_call, &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return verdict(raw);
    }

    /// The comparison, and where the frame differs.
    Result<std::pair<GoldenVerdict, Heat>> compare_heat(const Frame &frame, const Encoder *encoder = nullptr,
                                                        const HeatOptions &options = {}, const CallOptions &call = {}) const {
        const auto raw_call = detail::raw(call);
        const auto raw_options = detail::raw(options, raw_call);
        Heat heat{};
        auto status = ssl_edge_golden_heat_size(raw_.get(), frame.raw(), &raw_options, &heat.rows, &heat.columns);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        heat.values.resize(heat.rows * heat.columns);
        ssl_edge_golden_verdict raw;
        ssl_edge_golden_verdict_init(&raw, sizeof raw);
        status = ssl_edge_golden_compare_heat(raw_.get(), encoder ? encoder->raw() : nullptr, frame.raw(), &raw_options, &raw,
                                              heat.values.data(), heat.values.size());
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return std::make_pair(verdict(raw), std::move(heat));
    }

    const ssl_edge_golden *raw() const noexcept { return raw_.get(); }

private:
    struct Free {
        void operator()(ssl_edge_golden *golden) const noexcept { ssl_edge_golden_free(golden); }
    };

    explicit Golden(ssl_edge_golden *raw) : raw_(raw) {}

    static GoldenVerdict verdict(const ssl_edge_golden_verdict &raw) {
        return GoldenVerdict{raw.differs < 0 ? std::nullopt : std::optional<bool>(raw.differs == 1),
                             raw.score,
                             detail::known(raw.p_value),
                             raw.shift_rows,
                             raw.shift_columns,
                             raw.nearest_part < 0 ? std::nullopt : std::optional<std::size_t>(raw.nearest_part)};
    }

    std::unique_ptr<ssl_edge_golden, Free> raw_;
};

/// How a line is watched; see ssl_edge_monitor_options.
struct MonitorOptions {
    float unknown_rate = 0.02f;
    double run_length = 10000.0;
};

/// What a monitor says after a frame; see ssl_edge_drift.
struct Drift {
    /// A value of ssl_edge_drift_cause.
    std::uint32_t cause;
    std::uint32_t frames;
    float unlike;
    float brightness;
    float focus;
    float saturation;
    float embedding;
    float typicality;
    float unknown;

    /// Whether something changed.
    bool is_alarm() const noexcept { return cause != SSL_EDGE_DRIFT_CAUSE_NONE; }
    /// What to do about it.
    const char *action() const noexcept { return ssl_edge_drift_action(cause); }
};

/// Watches what a job says of the frames of a line.
class Monitor {
public:
    static Result<Monitor> create(const Job &job, const Encoder &encoder, const std::vector<Frame> &reference,
                                  const MonitorOptions &options = {}, const CallOptions &call = {}) {
        const auto raw_call = detail::raw(call);
        const auto pointers = detail::pointers(reference);
        ssl_edge_monitor_options raw_options;
        ssl_edge_monitor_options_init(&raw_options, sizeof raw_options);
        raw_options.unknown_rate = options.unknown_rate;
        raw_options.run_length = options.run_length;
        raw_options.call = &raw_call;
        ssl_edge_monitor *raw = nullptr;
        const auto status =
            ssl_edge_monitor_new(job.raw(), encoder.raw(), pointers.data(), pointers.size(), &raw_options, &raw);
        if (status != SSL_EDGE_STATUS_OK) return Error::last(status);
        return Monitor(raw);
    }

    /// Inspects a frame, in place of Job::inspect, and sees it, unless it is given up.
    Result<std::pair<Verdict, Drift>> observe(const Job &job, const Encoder &encoder, const Frame &frame,
                                              const CallOptions &call = {}) {
        const auto raw_call = detail::raw(call);
        ssl_edge_verdict raw;
        ssl_edge_verdict_init(&raw, sizeof raw);
        ssl_edge_drift drift;
        ssl_edge_drift_init(&drift, sizeof drift);
        const auto status = ssl_edge_monitor_observe_with_options(raw_.get(), job.raw(), encoder.raw(), frame.raw(), &raw_call,
                                                                  &raw, &drift);
        auto found = job.verdict(status, raw);
        if (!found) return found.error();
        return std::make_pair(std::move(found).value(),
                              Drift{drift.cause, drift.frames, drift.unlike, drift.brightness, drift.focus, drift.saturation,
                                    drift.embedding, drift.typicality, drift.unknown});
    }

    Result<void> reset() { return Result<void>(ssl_edge_monitor_reset(raw_.get())); }

    const ssl_edge_monitor *raw() const noexcept { return raw_.get(); }

private:
    struct Free {
        void operator()(ssl_edge_monitor *monitor) const noexcept { ssl_edge_monitor_free(monitor); }
    };

    explicit Monitor(ssl_edge_monitor *raw) : raw_(raw) {}

    std::unique_ptr<ssl_edge_monitor, Free> raw_;
};

}  // namespace ssl_edge

#endif
