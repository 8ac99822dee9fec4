#include "supervisor/protocol.h"

namespace stasis::supervisor {
namespace {

using nlohmann::json;
using snapshot::GenerationStats;
using snapshot::SnapshotId;

// Reads fields of one object; the first problem is kept, so that a decoder reads straight through and checks once.
class Fields {
 public:
  explicit Fields(const json& object) : object_(object) {
    if (!object.is_object()) complain("not a JSON object");
  }

  void read(const char* name, std::string& out) {
    if (const json* field = find(name, &json::is_string, "a string")) out = field->get<std::string>();
  }
  void read(const char* name, Path& out) {
    std::string text;
    read(name, text);
    out = text;
  }
  void read(const char* name, bool& out) {
    if (const json* field = find(name, &json::is_boolean, "true or false")) out = field->get<bool>();
  }
  template <typename Integer>
    requires std::is_integral_v<Integer>
  void read(const char* name, Integer& out) {
    if (const json* field = find(name, &json::is_number_integer, "a whole number")) out = field->get<Integer>();
  }
  void read(const char* name, SnapshotId& out) {
    std::string text;
    read(name, text);
    if (!problem_.empty()) return;
    auto uuid = Uuid::parse(text);
    if (!uuid) return complain("'" + std::string(name) + "' is not a UUID");
    out.uuid = *uuid;
  }
  void read(const char* name, GenerationStats& out) {
    if (const json* field = find(name, &json::is_object, "an object")) {
      Fields inner(*field);
      inner.read("generation", out.generation);
      inner.read("stored_bytes", out.stored_bytes);
      inner.read("zeroed_bytes", out.zeroed_bytes);
      inner.read("compared_bytes", out.compared_bytes);
      if (!inner.problem_.empty()) complain(inner.problem_);
    }
  }

  void read(const char* name, std::optional<LiveStats>& out) {
    if (const json* field = find(name, &json::is_object, "an object")) {
      Fields inner(*field);
      out.emplace();
      inner.read("rounds", out->rounds);
      inner.read("last_round_bytes", out->last_round_bytes);
      inner.read("reason", out->reason);
      if (!inner.problem_.empty()) complain(inner.problem_);
    }
  }

  // What an older supervisor or agent does not say: those that run are adopted.
  template <typename T>
  void read_if_there(const char* name, T& out) {
    if (!object_.is_object() || object_.contains(name)) read(name, out);
  }

  template <typename T>
  Result<T> finish(T value, std::string_view what) {
    if (problem_.empty()) return value;
    return fail(Code::kInvalidArgument, std::string(what) + ": " + problem_);
  }

 private:
  const json* find(const char* name, bool (json::*is_type)() const noexcept, const char* type) {
    if (!problem_.empty()) return nullptr;
    const auto field = object_.find(name);
    if (field != object_.end() && ((*field).*is_type)()) return &*field;
    complain("'" + std::string(name) + "' is missing or not " + type);
    return nullptr;
  }
  void complain(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
  }

  const json& object_;
  std::string problem_;
};

json stats_json(const GenerationStats& stats) {
  return {{"generation", stats.generation},
          {"stored_bytes", stats.stored_bytes},
          {"zeroed_bytes", stats.zeroed_bytes},
          {"compared_bytes", stats.compared_bytes}};
}

}  // namespace

Status check_restore(const std::string& restore, uint32_t load_mib_per_s) {
  if (!restore.empty() && restore != kRestoreUffd && restore != kRestoreMapped) {
    return fail(Code::kInvalidArgument, "there is no way to restore called '" + restore + "'", "uffd or mapped");
  }
  if (load_mib_per_s > kMaxLoadMibPerS) {
    return fail(Code::kInvalidArgument,
                "background loading goes at most at " + std::to_string(kMaxLoadMibPerS) + " MiB a second");
  }
  if (load_mib_per_s > 0 && restore == kRestoreMapped) {
    return fail(Code::kInvalidArgument, "a mapped memory is not loaded: its pages stay those of its layers",
                "restore it by uffd, or leave background loading out");
  }
  return {};
}

json to_json(const SandboxConfig& config) {
  return {{"sandbox_id", config.sandbox_id},
          {"store", config.store.string()},
          {"base", config.base.text()},
          {"vcpus", config.shape.vcpus},
          {"memory_mib", config.shape.memory_mib},
          {"disk_bytes", config.disk_bytes},
          {"vmm", config.vmm},
          {"restore", config.restore},
          {"load_mib_per_s", config.load_mib_per_s}};
}

Result<SandboxConfig> config_from_json(const json& object) {
  SandboxConfig config;
  Fields fields(object);
  fields.read("sandbox_id", config.sandbox_id);
  fields.read("store", config.store);
  fields.read("base", config.base);
  fields.read("vcpus", config.shape.vcpus);
  fields.read("memory_mib", config.shape.memory_mib);
  fields.read("disk_bytes", config.disk_bytes);
  fields.read("vmm", config.vmm);
  fields.read_if_there("restore", config.restore);
  fields.read_if_there("load_mib_per_s", config.load_mib_per_s);
  return fields.finish(std::move(config), "sandbox configuration");
}

json to_json(const SpareConfig& config) {
  return {{"vcpus", config.shape.vcpus},
          {"memory_mib", config.shape.memory_mib},
          {"disk_bytes", config.disk_bytes},
          {"vmm", config.vmm}};
}

Result<SpareConfig> spare_config_from_json(const json& object) {
  SpareConfig config;
  Fields fields(object);
  fields.read("vcpus", config.shape.vcpus);
  fields.read("memory_mib", config.shape.memory_mib);
  fields.read("disk_bytes", config.disk_bytes);
  fields.read("vmm", config.vmm);
  return fields.finish(std::move(config), "configuration of a spare");
}

json to_json(const StateReply& reply) {
  return {{"sandbox_id", reply.sandbox_id},
          {"state", reply.state},
          {"base", reply.base.text()},
          {"vcpus", reply.shape.vcpus},
          {"memory_mib", reply.shape.memory_mib},
          {"disk_bytes", reply.disk_bytes},
          {"vmm", reply.vmm},
          {"accelerator", reply.accelerator},
          {"guest_address", reply.guest_address},
          {"supervisor_pid", reply.supervisor_pid},
          {"vmm_pid", reply.vmm_pid},
          {"started_unix_ms", reply.started_unix_ms},
          {"vmm_ready_us", reply.vmm_ready_us},
          {"restore_method", reply.restore_method},
          {"restore_reason", reply.restore_reason},
          {"spare", reply.spare},
          {"total_pages", reply.total_pages},
          {"faults", reply.faults},
          {"pages_by_fault", reply.pages_by_fault},
          {"pages_around", reply.pages_around},
          {"pages_prefetched", reply.pages_prefetched},
          {"pages_zero", reply.pages_zero},
          {"write_faults", reply.write_faults},
          {"fault_p50_us", reply.fault_p50_us},
          {"fault_p99_us", reply.fault_p99_us},
          {"mapped_bytes", reply.mapped_bytes},
          {"copied_bytes", reply.copied_bytes},
          {"resident_pages", reply.resident_pages},
          {"disk_blocks_written", reply.disk_blocks_written}};
}

Result<StateReply> state_from_json(const json& object) {
  StateReply reply;
  Fields fields(object);
  fields.read("sandbox_id", reply.sandbox_id);
  fields.read("state", reply.state);
  fields.read("base", reply.base);
  fields.read("vcpus", reply.shape.vcpus);
  fields.read("memory_mib", reply.shape.memory_mib);
  fields.read("disk_bytes", reply.disk_bytes);
  fields.read("vmm", reply.vmm);
  fields.read("accelerator", reply.accelerator);
  fields.read("guest_address", reply.guest_address);
  fields.read("supervisor_pid", reply.supervisor_pid);
  fields.read("vmm_pid", reply.vmm_pid);
  fields.read("started_unix_ms", reply.started_unix_ms);
  fields.read("vmm_ready_us", reply.vmm_ready_us);
  fields.read("restore_method", reply.restore_method);
  fields.read_if_there("restore_reason", reply.restore_reason);
  fields.read_if_there("spare", reply.spare);
  fields.read("total_pages", reply.total_pages);
  fields.read("faults", reply.faults);
  fields.read("pages_by_fault", reply.pages_by_fault);
  fields.read("pages_around", reply.pages_around);
  fields.read("pages_prefetched", reply.pages_prefetched);
  fields.read("pages_zero", reply.pages_zero);
  fields.read_if_there("write_faults", reply.write_faults);
  fields.read_if_there("fault_p50_us", reply.fault_p50_us);
  fields.read_if_there("fault_p99_us", reply.fault_p99_us);
  fields.read_if_there("mapped_bytes", reply.mapped_bytes);
  fields.read_if_there("copied_bytes", reply.copied_bytes);
  fields.read_if_there("resident_pages", reply.resident_pages);
  fields.read("disk_blocks_written", reply.disk_blocks_written);
  return fields.finish(std::move(reply), "supervisor's state");
}

json to_json(const SnapshotReply& reply) {
  json object{{"id", reply.id.text()},
              {"memory", stats_json(reply.memory)},
              {"disk", stats_json(reply.disk)},
              {"stopped_us", reply.stopped_us},
              {"total_us", reply.total_us}};
  if (reply.live) {
    object["live"] = {{"rounds", reply.live->rounds},
                      {"last_round_bytes", reply.live->last_round_bytes},
                      {"reason", reply.live->reason}};
  }
  return object;
}

Result<SnapshotReply> snapshot_from_json(const json& object) {
  SnapshotReply reply;
  Fields fields(object);
  fields.read("id", reply.id);
  fields.read("memory", reply.memory);
  fields.read("disk", reply.disk);
  fields.read("stopped_us", reply.stopped_us);
  fields.read("total_us", reply.total_us);
  fields.read_if_there("live", reply.live);
  return fields.finish(std::move(reply), "supervisor's snapshot answer");
}

json to_json(const Error& error) {
  return {{"code", std::string(code_name(error.code))}, {"message", error.message}, {"remedy", error.remedy}};
}

Error error_from_json(const json& object) {
  Error error{Code::kInternal, "the error has no description"};
  if (!object.is_object()) return error;
  error.code = code_from_name(object.value("code", ""));
  error.message = object.value("message", error.message);
  error.remedy = object.value("remedy", "");
  return error;
}

json to_json(const ExitRecord& record) {
  json object{{"expected", record.expected}, {"reason", record.reason}};
  if (!record.expected) object["error"] = to_json(record.error);
  if (record.pager) object["pager"] = to_json(*record.pager);
  return object;
}

Result<ExitRecord> exit_from_json(const json& object) {
  ExitRecord record;
  Fields fields(object);
  fields.read("expected", record.expected);
  fields.read("reason", record.reason);
  if (object.is_object() && object.contains("error")) record.error = error_from_json(object["error"]);
  // Only numbers depend on it: why the sandbox ended is told also without.
  if (object.is_object() && object.contains("pager")) {
    if (auto report = report_from_json(object["pager"])) record.pager = std::move(*report);
  }
  return fields.finish(std::move(record), "exit record");
}

}  // namespace stasis::supervisor
