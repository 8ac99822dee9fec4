#include "agent/scrubber.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/background.h"
#include "base/clock.h"
#include "base/log.h"

namespace stasis::agent {
namespace {

using nlohmann::json;
using snapshot::LayerId;

constexpr uint64_t kMaxFileBytes = 8 << 20;
constexpr size_t kMaxDamaged = 1000;
// What is checked again after a crash.
constexpr uint64_t kSaveEvery = 256 << 20;
// After an error. And the clock may be set: the time is looked at again.
constexpr Milliseconds kRetry = std::chrono::minutes(1);
constexpr Milliseconds kLookAgain = std::chrono::hours(1);

std::string encode(const ScrubStatus& status) {
  return json{{"started_unix_ms", status.started_unix_ms},
              {"finished_unix_ms", status.finished_unix_ms},
              {"under_way", status.under_way},
              {"bytes", status.bytes},
              {"done", status.done.text()},
              {"damaged", status.damaged},
              {"damaged_before", status.damaged_before}}
      .dump(2, ' ', false, json::error_handler_t::replace);
}

// A file that cannot be read costs a pass from the beginning.
ScrubStatus load(const Path& file) {
  const auto bytes = read_file(real_file_system(), file, kMaxFileBytes);
  if (!bytes) return {};
  try {
    const json from = json::parse(std::string_view(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
    ScrubStatus status;
    from.at("started_unix_ms").get_to(status.started_unix_ms);
    from.at("finished_unix_ms").get_to(status.finished_unix_ms);
    from.at("under_way").get_to(status.under_way);
    from.at("bytes").get_to(status.bytes);
    from.at("damaged").get_to(status.damaged);
    from.at("damaged_before").get_to(status.damaged_before);
    const auto done = Uuid::parse(from.at("done").get<std::string>());
    if (!done) return {};
    status.done = {*done};
    return status;
  } catch (const json::exception&) {
    return {};
  }
}

}  // namespace

std::set<std::string> ScrubStatus::all_damaged() const {
  std::set<std::string> all = damaged;
  all.insert(damaged_before.begin(), damaged_before.end());
  return all;
}

Scrubber::Scrubber(const snapshot::Store& store, Path file, ScrubOptions options, Event stop)
    : store_(store),
      file_(std::move(file)),
      options_(std::move(options)),
      stop_(std::move(stop)),
      status_(load(file_)) {}

Result<std::unique_ptr<Scrubber>> Scrubber::start(const snapshot::Store& store, Path file, ScrubOptions options) {
  STASIS_ASSIGN(Event stop, Event::create());
  std::unique_ptr<Scrubber> scrubber(new Scrubber(store, std::move(file), std::move(options), std::move(stop)));
  scrubber->thread_ = std::thread([raw = scrubber.get()] { raw->run(); });
  return scrubber;
}

Scrubber::~Scrubber() {
  stop();
  thread_.join();
}

ScrubStatus Scrubber::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void Scrubber::change(const std::function<void(ScrubStatus&)>& what) {
  const std::lock_guard lock(mutex_);
  what(status_);
}

void Scrubber::run() {
  become_background_thread();
  Milliseconds wait = options_.settle;
  for (;;) {
    const auto stopped = wait_readable(stop_.fd(), Deadline::after(std::min(wait, kLookAgain)));
    if (!stopped || *stopped) return;
    wait = std::max(Milliseconds(0), wait - kLookAgain);
    if (wait.count() > 0) continue;
    wait = until_next();
    if (wait.count() > 0) continue;
    const Status done = pass();
    if (!done && done.error().code == Code::kCancelled) return;
    if (!done) spdlog::warn("scrub: {}", done.error().message);
    wait = done ? until_next() : kRetry;
  }
}

Milliseconds Scrubber::until_next() const {
  const ScrubStatus now = status();
  if (now.under_way || now.started_unix_ms == 0) return Milliseconds(0);
  const Milliseconds passed(unix_time_ms() - now.started_unix_ms);
  return std::clamp(options_.period - passed, Milliseconds(0), options_.period);
}

Status Scrubber::pass() {
  STASIS_ASSIGN(const auto ids, store_.list());
  change([](ScrubStatus& status) {
    if (status.under_way) return;
    status.started_unix_ms = unix_time_ms();
    status.under_way = true;
    status.bytes = 0;
    status.done = {};
    status.damaged.clear();
  });
  save();
  Status verified = verify(ids);
  if (verified) {
    change([](ScrubStatus& status) {
      status.finished_unix_ms = unix_time_ms();
      status.under_way = false;
      status.damaged_before = std::move(status.damaged);
      status.damaged.clear();
    });
    const ScrubStatus now = status();
    spdlog::info("scrub: {} MiB checked, {} files damaged", now.bytes >> 20, now.damaged_before.size());
  }
  save();
  if (verified) options_.on_pass();
  return verified;
}

Status Scrubber::verify(std::span<const snapshot::SnapshotId> ids) {
  snapshot::VerifyOptions options;
  options.limit = RateLimit(options_.bytes_per_second, stop_.fd());
  const ScrubStatus before = status();
  options.after = before.done;
  uint64_t bytes = 0;
  uint64_t saved = 0;
  options.on_progress = [&](const snapshot::VerifyProgress& progress) {
    bytes = progress.bytes;
    change([&](ScrubStatus& status) { status.bytes = before.bytes + bytes; });
    return true;
  };
  options.on_layer = [&](LayerId id) {
    change([&](ScrubStatus& status) { status.done = id; });
    if (bytes - saved < kSaveEvery) return;
    saved = bytes;
    save();
  };
  options.on_damage = [this](const snapshot::Damage& damage) { found(damage); };
  const snapshot::VerifiedLayers verified(store_);
  auto report = snapshot::verify(store_, ids, options, &verified);
  if (!report) return fail(std::move(report).error());
  return {};
}

void Scrubber::found(const snapshot::Damage& damage) {
  std::string needed_by;
  for (const snapshot::SnapshotId id : damage.snapshots) needed_by += (needed_by.empty() ? "" : ", ") + id.text();
  spdlog::error("scrub: {} (needed by snapshot {})", damage.message, needed_by);
  change([&](ScrubStatus& status) {
    if (status.damaged.size() < kMaxDamaged) status.damaged.insert(damage.file);
  });
}

void Scrubber::save() const {
  if (Status saved = publish_file(real_file_system(), file_, encode(status())); !saved) {
    spdlog::warn("scrub: {}", saved.error().message);
  }
}

}  // namespace stasis::agent
