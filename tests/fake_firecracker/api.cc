#include "api.h"

#include <chrono>
#include <csignal>
#include <thread>

#include "fields.h"
#include "misbehave.h"

namespace fake {
namespace {

using nlohmann::json;

constexpr const char* kAfterStart = "The requested operation is not supported after starting the microVM.";
constexpr const char* kBeforeStart = "The requested operation is not supported before starting the microVM.";

Answer refuse_json(const std::string& why) {
  return fault("An error occurred when deserializing the json body of a request: " + why + ".");
}

Answer with_body(json body) {
  if (misbehaves("extra_json")) body["new_in_a_later_version"] = {{"nested", {1, 2, 3}}};
  return {200, body.dump(), false};
}

bool there(const json& path) { return stasis::exists(stasis::real_file_system(), path.get<std::string>()); }

}  // namespace

Answer fault(const std::string& message) { return {400, json{{"fault_message", message}}.dump(), false}; }

Answer Api::handle(const Request& request) {
  if (request.method == "GET") return get(request.target);
  const std::string route = route_of(request.target);
  const json body = json::parse(request.body, nullptr, false);
  if (body.is_discarded()) return refuse_json("expected value at line 1 column 1");
  if (const auto wrong = body_fault(route, body)) return refuse_json(*wrong + " at line 1 column 1");
  if (request.method == "PUT") return put(request.target, body);
  if (request.method == "PATCH") return patch(request.target, body);
  return fault("Invalid request method and/or path: " + request.method + " " + request.target + ".");
}

std::string Api::state() const {
  if (!machine_) return "Not started";
  return machine_->guest().running() ? "Running" : "Paused";
}

Answer Api::get(const std::string& target) const {
  const std::string version = misbehaves("old_version") ? "1.12.0" : "1.16.1";
  if (target == "/version")
    return with_body(misbehaves("no_version") ? json::object() : json{{"firecracker_version", version}});
  if (target == "/") {
    return with_body({{"id", "stasis"}, {"state", state()}, {"vmm_version", version}, {"app_name", "Firecracker"}});
  }
  return fault("Invalid request method and/or path: GET " + target + ".");
}

Answer Api::put(const std::string& target, const json& body) {
  const std::string route = route_of(target);
  if (route == "/logger") return {};
  if (route == "/snapshot/create") return create(body);
  if (route == "/snapshot/load") return load(body);
  if (machine_) return fault(kAfterStart);
  if (route == "/actions") return act(body);
  return configure(target, body);
}

Answer Api::configure(const std::string& target, const json& body) {
  const std::string route = route_of(target);
  if (route == "/boot-source") {
    if (!there(body["kernel_image_path"])) {
      return fault("Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)");
    }
    if (body.contains("initrd_path") && !there(body["initrd_path"])) {
      return fault(
          "Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. "
          "No such file or directory (os error 2)");
    }
    config_["boot"] = body;
  } else if (route == "/machine-config") {
    if (body["vcpu_count"] < 1 || body["vcpu_count"] > 32) {
      return fault(
          "Machine config error: The vCPU number is invalid! The vCPU number can only be 1 or an even number.");
    }
    config_["machine"] = body;
  } else if (route == "/drives") {
    return configure_drive(body);
  } else if (route == "/network-interfaces") {
    return configure_interface(body);
  } else if (route == "/entropy") {
    config_["entropy"] = true;
  } else {
    return fault("Invalid request method and/or path: PUT " + target + ".");
  }
  configured_ = true;
  return {};
}

Answer Api::configure_drive(const json& body) {
  if (!there(body["path_on_host"])) {
    return fault(
        "Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating "
        "the backing file: No such file or directory (os error 2) " +
        body["path_on_host"].get<std::string>());
  }
  config_["drives"].push_back(body);
  configured_ = true;
  return {};
}

Answer Api::configure_interface(const json& body) {
  config_["interfaces"].push_back(body);
  configured_ = true;
  return {};
}

Answer Api::act(const json& body) {
  if (body["action_type"] != "InstanceStart") return refuse_json("unknown variant");
  if (misbehaves("refuse_start")) return fault("Start microvm error: Cannot load the kernel: Invalid Elf magic number");
  if (!config_.contains("boot") || !config_.contains("machine")) {
    return fault("Start microvm error: Cannot start microvm without kernel configuration.");
  }
  auto machine = Machine::boot(config_);
  if (!machine) return fault("Start microvm error: " + machine.error().message);
  machine_ = std::move(*machine);
  return {};
}

Answer Api::patch(const std::string& target, const json& body) {
  if (target != "/vm") return fault("Invalid request method and/or path: PATCH " + target + ".");
  const std::string wanted = body["state"];
  if (wanted != "Paused" && wanted != "Resumed") return refuse_json("unknown variant `" + wanted + "`");
  if (!machine_) return fault(kBeforeStart);
  if (misbehaves("refuse_state")) return fault("Internal VMM error: Failed to pause the vCPUs.");
  if (misbehaves("dies_on_state")) ::raise(SIGKILL);
  const bool resume = wanted == "Resumed";
  if (resume && misbehaves("stands_still")) return fault("Internal VMM error: Failed to resume the vCPUs.");
  machine_->guest().set_running(resume);
  if (!resume && (misbehaves("late_pause") || misbehaves("stands_still"))) {
    return fault("Internal VMM error: Failed to pause the vCPUs.");
  }
  return {};
}

Answer Api::create(const json& body) {
  if (!machine_) return fault(kBeforeStart);
  if (machine_->guest().running()) {
    return fault(
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable "
        "while running");
  }
  const bool full = body.value("snapshot_type", "Full") == "Full";
  const auto created = machine_->create_snapshot(full, body["snapshot_path"].get<std::string>(),
                                                 body["mem_file_path"].get<std::string>());
  if (!created) return fault("Create snapshot error: " + created.error().message);
  return {};
}

// A load that gets past the checks of JSON and order, and fails, ends the process.
Answer Api::load(const json& body) {
  if (machine_) return fault(kAfterStart);
  if (configured_) {
    return fault(
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.");
  }
  const json& backend = body["mem_backend"];
  const std::string type = backend.value("backend_type", "");
  if ((type != "Uffd" && type != "File") || !backend.contains("backend_path") || backend.size() != 2) {
    return refuse_json("unknown variant");
  }
  if (misbehaves("load_dies")) ::raise(SIGKILL);
  if (misbehaves("late_load")) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  while (misbehaves("load_hangs")) std::this_thread::sleep_for(std::chrono::hours(1));
  auto machine = Machine::load(body["snapshot_path"].get<std::string>(), backend["backend_path"].get<std::string>(),
                               type == "File", body.value("network_overrides", json::array()));
  if (!machine) {
    Answer answer = fault(machine.error().message);
    answer.end_process = true;
    return answer;
  }
  machine_ = std::move(*machine);
  if (body.value("resume_vm", false)) machine_->guest().set_running(true);
  Answer answer;
  answer.end_process = misbehaves("dies_after_load");
  return answer;
}

}  // namespace fake
