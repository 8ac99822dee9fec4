#include "vmm/firecracker/firecracker.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/network_interface.h"
#include "vmm/compatible.h"
#include "vmm/firecracker/memory_file.h"
#include "vmm/firecracker/version.h"
#include "vmm/host_cpu.h"

namespace stasis::vmm {
namespace {

// Its API answers about 2 ms after exec.
constexpr Milliseconds kApiPause{1};
// A Firecracker whose load failed answers first and exits then.
constexpr Milliseconds kExitDeadline{2'000};

Status require(const Path& path, const std::string& what) {
  auto info = real_file_system().info(path);
  if (!info) return fail(std::move(info).error().with_context(what));
  return {};
}

// Firecracker makes a tap that is not there, if it may, and the guest would talk to nobody.
Status require_tap(const std::string& tap) {
  if (has_network_interface(tap)) return {};
  return fail(Code::kNotFound, "no network interface " + tap + " in this namespace");
}

// What must be there for a boot and for a restore.
Status require_outside(const MachineConfig& config) {
  if (!config.disk.empty()) STASIS_TRY(require(config.disk, "disk"));
  if (!config.tap.empty()) STASIS_TRY(require_tap(config.tap));
  return {};
}

void remove_if_there(const Path& path) { (void)real_file_system().remove(path); }

}  // namespace

Firecracker::Firecracker(MachineConfig config, FirecrackerDeadlines deadlines)
    : config_(std::move(config)), deadlines_(deadlines), api_(socket()) {
  info_ = {.name = "firecracker", .version = "", .accelerator = "kvm", .cpu_model = host_cpu_model()};
}

Status Firecracker::boot(const BootSpec& spec) {
  if (phase_ == Phase::kNew) STASIS_TRY_CONTEXT(require_outside(config_), "boot");
  STASIS_TRY(start());
  if (Status booted = boot_machine(spec); !booted) return end_with(std::move(booted).error().with_context("boot"));
  phase_ = Phase::kRunning;
  everything_next_ = true;
  return {};
}

Status Firecracker::boot_machine(const BootSpec& spec) {
  for (const ApiRequest& request : boot_requests(config_, spec)) STASIS_TRY(send(request, deadlines_.request));
  STASIS_TRY(send(start_request(), deadlines_.request));
  return {};
}

// Its socket is in the runtime directory: it cannot be started before that is there, and is up within 2 ms.
Status Firecracker::prepare(const std::function<Status()>& meanwhile) {
  if (meanwhile && phase_ == Phase::kNew) STASIS_TRY(meanwhile());
  STASIS_TRY(start());
  phase_ = Phase::kPrepared;
  return {};
}

Status Firecracker::restore(const RestoreSpec& spec) {
  if (phase_ != Phase::kNew && phase_ != Phase::kPrepared) {
    return fail(Code::kFailedPrecondition, "this machine has been started already");
  }
  if (!spec.log.empty()) config_.log = spec.log;
  Status restored = require_for_restore(spec);
  if (restored && phase_ == Phase::kNew) restored = prepare({});
  if (restored) restored = restore_prepared(spec);
  if (!restored) return end_with(std::move(restored).error().with_context("restore"));
  phase_ = Phase::kPaused;
  everything_next_ = false;
  return {};
}

Status Firecracker::require_for_restore(const RestoreSpec& spec) const {
  STASIS_TRY(require(spec.state, "device state"));
  if (spec.mapped) STASIS_TRY(require(spec.mapped_file, "memory"));
  return require_outside(config_);
}

Status Firecracker::restore_prepared(const RestoreSpec& spec) {
  if (spec.on_started) STASIS_TRY(spec.on_started(process_->pid()));
  STASIS_TRY(check_compatible(spec.saved_with, info_));
  return load(spec);
}

Status Firecracker::load(const RestoreSpec& spec) {
  auto answer = send(load_request(config_, spec), deadlines_.load);
  if (!answer) return fail(load_error(std::move(answer).error()));
  return {};
}

// A load that Firecracker attempted and refused ends its process: then it is the state that is damaged or foreign,
// unless the refusal is about memory (nobody listens on the page server's socket) or about a network interface that the
// state lacks.
Error Firecracker::load_error(Error error) {
  if (error.code != Code::kFailedPrecondition) return error;
  auto ended = process_->wait(Deadline::after(kExitDeadline));
  if (!ended || !*ended) return error;
  if (error.message.find("Failed to load guest memory") != std::string::npos) {
    error.code = Code::kUnavailable;
  } else if (error.message.find("Unknown Network Device") == std::string::npos) {
    error.code = Code::kDataLoss;
  }
  return error;
}

Status Firecracker::set_paused(bool paused) {
  if (phase_ != Phase::kRunning && phase_ != Phase::kPaused) {
    return fail(Code::kFailedPrecondition, "this machine does not run");
  }
  STASIS_TRY(send(state_request(paused), deadlines_.request));
  phase_ = paused ? Phase::kPaused : Phase::kRunning;
  return {};
}

Result<SavedMemory> Firecracker::save(const SaveSpec& spec) {
  const Path& state = spec.state;
  if (phase_ != Phase::kPaused) return fail(Code::kFailedPrecondition, "save: pause the machine before saving it");
  if (exists(real_file_system(), state)) return fail(Code::kAlreadyExists, "save: " + state.string() + " exists");
  const Path memory = spec.scratch_dir / "memory";
  // Firecracker merges a Diff into a file that is there already: then its holes would be no holes.
  remove_if_there(memory);
  SnapshotType type = SnapshotType::kFull;
  if (!everything_next_) {
    STASIS_ASSIGN(const bool exact, holes_are_exact(spec.scratch_dir));
    if (exact) type = SnapshotType::kDiff;
  }
  // Until this save has succeeded, what was written is known to nobody.
  everything_next_ = true;
  auto saved = create_snapshot(type, state, memory);
  remove_if_there(memory);  // its descriptor keeps the content
  if (!saved) {
    remove_if_there(state);
    return fail(std::move(saved).error().with_context("save"));
  }
  everything_next_ = false;
  return saved;
}

Result<SavedMemory> Firecracker::create_snapshot(SnapshotType type, const Path& state, const Path& memory) {
  const Milliseconds deadline = deadlines_.create + deadlines_.create_per_gib * (memory_bytes() >> 30);
  STASIS_TRY(send(create_request(type, state, memory), deadline));
  STASIS_TRY(require(state, "device state"));
  return open_memory_file(memory, memory_bytes(), type);
}

Status Firecracker::start() {
  if (phase_ != Phase::kNew) return fail(Code::kFailedPrecondition, "this machine has been started already");
  STASIS_TRY_CONTEXT(spawn_process(), "start Firecracker");
  if (Status up = await_api(); !up) return end_with(std::move(up).error().with_context("start Firecracker"));
  return {};
}

Status Firecracker::spawn_process() {
  STASIS_ASSIGN(const UniqueFd log, open_append(config_.log));
  remove_if_there(socket());  // Firecracker refuses to start where there is one
  SpawnOptions options;
  options.argv = {firecracker_program(), "--api-sock", socket().string(), "--id", "stasis", "--level", "Warn"};
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  options.die_with_parent = true;
  auto spawned = spawn(options);
  if (!spawned) return fail(std::move(spawned).error().with_remedy(kFirecrackerRemedy));
  process_ = std::move(*spawned);
  return {};
}

Status Firecracker::await_api() {
  const Deadline deadline = Deadline::after(deadlines_.start);
  for (;;) {
    const Milliseconds left{std::max(1, deadline.poll_timeout())};
    auto answer = send(version_request(), left);
    if (answer) return check_version(*answer);
    if (answer.error().code != Code::kUnavailable) return fail(std::move(answer).error());
    if (deadline.passed()) return fail(Code::kDeadlineExceeded, "its API does not answer: " + answer.error().message);
    STASIS_ASSIGN(const bool gone, wait_readable(process_->pidfd(), Deadline::after(kApiPause)));
    if (gone) return fail(std::move(answer).error());
  }
}

Status Firecracker::check_version(const std::string& answer) {
  const auto json = nlohmann::json::parse(answer, nullptr, false);
  const auto found = json.is_object() ? json.find("firecracker_version") : json.end();
  if (found == json.end() || !found->is_string()) {
    return fail(Code::kInternal, "Firecracker does not tell its version: " + answer.substr(0, 200));
  }
  STASIS_ASSIGN(info_.version, supported_version(found->get<std::string>()));
  return {};
}

// Once the machine is up, a death is told as a death. Before, end_with() does that for everything.
Result<std::string> Firecracker::send(const ApiRequest& request, Milliseconds deadline) {
  auto answer = api_.send(request, deadline);
  if (!answer && phase_ > Phase::kPrepared) return fail(explain(std::move(answer).error()));
  return answer;
}

Error Firecracker::explain(Error error) {
  if (error.code != Code::kUnavailable || !process_ || phase_ == Phase::kEnded) return error;
  auto ended = process_->wait(Deadline::after(kExitDeadline));
  if (!ended || !*ended) return error;
  return std::move(error).with_context(with_last_words("Firecracker ended with " + (*ended)->text(), config_.log));
}

// A machine that could not be started is ended, whatever became of it.
Status Firecracker::end_with(Error error) {
  error = explain(std::move(error));
  stop();
  return fail(std::move(error));
}

std::string Firecracker::stop() {
  if (process_ && phase_ != Phase::kEnded) {
    end_ = process_->kill_and_wait().text();
    remove_if_there(socket());
  }
  if (process_) phase_ = Phase::kEnded;
  return end_;
}

std::unique_ptr<Vmm> make_firecracker(const MachineConfig& config) { return std::make_unique<Firecracker>(config); }

}  // namespace stasis::vmm
