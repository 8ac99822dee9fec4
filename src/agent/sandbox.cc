#include "agent/sandbox.h"

#include <signal.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "base/clock.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxRecordBytes = 1 << 20;
constexpr size_t kMaxIdLength = 40;

Result<json> read_json(const Path& path) {
  STASIS_ASSIGN(const auto bytes, read_file(real_file_system(), path, kMaxRecordBytes));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail(Code::kDataLoss, path.string() + " is no JSON object");
  return parsed;
}

}  // namespace

std::string_view state_name(SandboxState state) {
  switch (state) {
    case SandboxState::kStarting:
      return "starting";
    case SandboxState::kRunning:
      return "running";
    case SandboxState::kPausing:
      return "pausing";
    case SandboxState::kResuming:
      return "resuming";
    case SandboxState::kStopping:
      return "stopping";
    case SandboxState::kDead:
      return "dead";
  }
  return "dead";
}

bool is_sandbox_id(const std::string& id) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !id.empty() && id.size() <= kMaxIdLength && std::all_of(id.begin(), id.end(), plain);
}

int64_t deadline_from(uint32_t timeout_sec) {
  return timeout_sec == 0 ? 0 : unix_time_ms() + int64_t{timeout_sec} * 1000;
}

Status save_record(const Path& sandbox_dir, const SandboxRecord& record) {
  const json object{{"hostname", record.hostname},
                    {"access_token", record.access_token},
                    {"env", record.env},
                    {"deadline_unix_ms", record.deadline_unix_ms},
                    {"initialised", record.initialised}};
  return replace_file(real_file_system(), sandbox_dir / kRecordFile,
                      object.dump(-1, ' ', false, json::error_handler_t::replace));
}

Result<SandboxRecord> load_record(const Path& sandbox_dir) {
  STASIS_ASSIGN(const json object, read_json(sandbox_dir / kRecordFile));
  try {
    SandboxRecord record;
    record.hostname = object.at("hostname").get<std::string>();
    record.access_token = object.at("access_token").get<std::string>();
    record.env = object.at("env").get<std::map<std::string, std::string>>();
    record.deadline_unix_ms = object.at("deadline_unix_ms").get<int64_t>();
    record.initialised = object.at("initialised").get<bool>();
    return record;
  } catch (const json::exception& e) {
    return fail(Code::kDataLoss, (sandbox_dir / kRecordFile).string() + ": " + e.what());
  }
}

std::optional<supervisor::ExitRecord> load_exit_record(const Path& sandbox_dir) {
  auto object = read_json(sandbox_dir / supervisor::kExitFile);
  if (!object) return std::nullopt;
  auto record = supervisor::exit_from_json(*object);
  if (!record) return std::nullopt;
  return std::move(*record);
}

std::optional<supervisor::SandboxConfig> load_config(const Path& sandbox_dir) {
  auto object = read_json(sandbox_dir / supervisor::kConfigFile);
  if (!object) return std::nullopt;
  auto config = supervisor::config_from_json(*object);
  if (!config) return std::nullopt;
  return std::move(*config);
}

bool await_end(Sandbox& sandbox, Deadline deadline) {
  if (sandbox.child) {
    auto status = sandbox.child->wait(deadline);
    if (!status || !*status) return false;
  }
  for (const UniqueFd* pidfd : {&sandbox.supervisor_pidfd, &sandbox.vmm_pidfd}) {
    if (!pidfd->valid()) continue;
    auto gone = wait_readable(pidfd->get(), deadline);
    if (!gone || !*gone) return false;
  }
  return true;
}

void kill_supervisor(Sandbox& sandbox) {
  const std::lock_guard lock(sandbox.mutex);
  if (sandbox.supervisor_pidfd) signal_pidfd(sandbox.supervisor_pidfd.get(), SIGKILL);
}

bool supervisor_gone(Sandbox& sandbox) {
  const std::lock_guard lock(sandbox.mutex);
  if (!sandbox.supervisor_pidfd) return true;
  auto gone = wait_readable(sandbox.supervisor_pidfd.get(), Deadline::after(Milliseconds(0)));
  return gone && *gone;
}

tl::unexpected<Error> destroyed_meanwhile(const std::string& id) {
  return fail(Code::kCancelled, "sandbox " + id + " was destroyed meanwhile");
}

}  // namespace stasis::agent
