// A stand-in for stasis-supervisor that misbehaves on request: the same protocol, but instead of a VMM it runs the real
// guest daemon, on the loopback of a network namespace of its own. What it is to do wrong stands in STATE/fake/<sandbox
// id>, words separated by spaces (STATE: the directory of the store):
//   no-socket       never listens
//   exit            ends at once with an error
//   exit-restored   ends at once with an error if it is to restore a snapshot
//   no-mapping      refuses to restore a snapshot mapped
//   foreign         refuses to restore a snapshot: another VMM has saved it
//   no-daemon       the "guest" runs, but nothing answers in it
//   hold-state      does not answer `state` until STATE/fake/<id>.go is there
//   no-report       does not tell what its page server has done until STATE/fake/<id>.go is there
//   fail-pause      refuses to pause or to take a snapshot
//   hold-pause      does not pause or take a snapshot until STATE/fake/<id>.go is there; <id>.held says that it was
//   asked lose-answer     publishes, then dies without an answer
// Whoever tells it that the daemon answers finds STATE/fake/<id>.answers.
// And what spares are to do wrong in STATE/fake/spare:
//   exit            ends at once
//   deaf            does not answer when it is to become a sandbox
//   dies            ends instead
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/namespaces.h"
#include "base/network.h"
#include "base/process.h"
#include "base/signals.h"
#include "base/unix_socket.h"
#include "snapshot/store.h"
#include "supervisor/config_file.h"
#include "supervisor/protocol.h"

namespace stasis::supervisor {
namespace {

using nlohmann::json;

constexpr uint64_t kFakeMemory = 1 << 20;

std::set<std::string> words_in(const Path& path) {
  std::ifstream file(path);
  return {std::istream_iterator<std::string>(file), {}};
}

class Fake {
 public:
  Fake(Path dir, SandboxConfig config)
      : dir_(std::move(dir)),
        config_(std::move(config)),
        fake_(config_.store.parent_path() / "fake"),
        words_(words_in(fake_ / config_.sandbox_id)) {}

  // Of a spare: its socket, and the agent's connection.
  void was_spare(UniqueFd listener, UniqueFd client) {
    listener_ = std::move(listener);
    clients_.push_back(std::move(client));
  }

  int run(const Path& guest_program) {
    if (does("exit")) {
      return end({false, "start failed: no memory for it", {Code::kResourceExhausted, "no memory for it"}});
    }
    if (does("exit-restored") && config_.shape.vcpus == 0) {
      return end({false, "start failed: damaged", {Code::kDataLoss, "damaged"}});
    }
    if (does("no-mapping") && config_.shape.vcpus == 0 && config_.restore == kRestoreMapped) {
      return end({false, "start failed: not verified", {Code::kFailedPrecondition, "not verified"}});
    }
    if (does("foreign") && config_.shape.vcpus == 0) {
      return end({false, "start failed: another VMM's", {Code::kFailedPrecondition, "saved by another VMM"}});
    }
    auto signals = take_signals({SIGTERM});
    if (does("no-socket")) (void)wait_readable(signals->get(), Deadline::never());
    spare_ = listener_.valid();
    if (!spare_) listener_ = std::move(listen_unix(dir_ / kControlSocket).value());
    if (!enter_private_network_namespace() || !bring_interface_up("lo")) return 2;
    SpawnOptions options;
    options.argv = does("no-daemon") ? std::vector<std::string>{"sleep", "1000"}
                                     : std::vector<std::string>{guest_program.string(), "--no-init", "--root",
                                                                (dir_ / "root").string()};
    options.die_with_parent = true;
    auto guest = spawn(options);
    if (!guest) return 2;
    guest_ = &*guest;
    return serve(signals->get());
  }

 private:
  bool does(const char* word) const { return words_.contains(word); }

  int end(ExitRecord record) {
    if (guest_ != nullptr) record.pager = report();
    if (guest_ != nullptr) (void)guest_->kill_and_wait();
    (void)replace_file(real_file_system(), dir_ / kExitFile, to_json(record).dump());
    return record.expected ? 0 : 1;
  }

  void await_go() const {
    std::ofstream(fake_ / (config_.sandbox_id + ".held")) << "held";
    while (!exists(real_file_system(), fake_ / (config_.sandbox_id + ".go")))
      std::this_thread::sleep_for(Milliseconds(5));
  }

  int serve(int signals) {
    std::vector<UniqueFd>& clients = clients_;
    for (;;) {
      std::vector<int> fds{listener_.get(), signals, guest_->pidfd()};
      for (const UniqueFd& client : clients) fds.push_back(client.get());
      const auto ready = wait_any(fds, Deadline::never());
      if (!ready) return 2;
      if ((*ready)[1]) return end({true, "stopped: signal to the supervisor", {}});
      if ((*ready)[2]) return end({false, "vmm exited: by itself", {Code::kInternal, "vmm exited: by itself"}});
      for (size_t i = 0; i < clients.size(); ++i) {
        if (!(*ready)[3 + i]) continue;
        auto request = receive_message(clients[i].get(), Milliseconds(1000));
        if (!request || !*request) {
          clients[i].reset();
        } else if (auto status = answer(clients[i].get(), json::parse((*request)->body, nullptr, false))) {
          return *status;
        }
      }
      std::erase_if(clients, [](const UniqueFd& client) { return !client.valid(); });
      if ((*ready)[0]) clients.push_back(std::move(*accept_unix(listener_.get(), Milliseconds(100))));
    }
  }

  // The exit status if that was the end.
  std::optional<int> answer(int socket, const json& request) {
    const std::string op = request.value("op", "");
    if (op == "connect") {
      auto guest = ip_socket(request.value("transport", "") == "udp" ? Transport::kUdp : Transport::kTcp);
      const std::array fds{guest->get()};
      (void)send_message(socket, R"({"ok":{}})", fds);
    } else if (op == "state") {
      if (does("hold-state")) await_go();
      if (request.value("daemon_answers", false)) std::ofstream(fake_ / (config_.sandbox_id + ".answers")) << "answers";
      (void)send_message(socket, json{{"ok", to_json(state())}}.dump());
    } else if (op == "pager") {
      if (does("no-report")) await_go();
      (void)send_message(socket, json{{"ok", to_json(report())}}.dump());
    } else if (op == "trace") {
      TraceReply trace{kRestoreUffd, "asked for", 32'768, report(), {{7, 4096, 8192, "around", true}}, 1};
      trace.spare = spare_;
      (void)send_message(socket, json{{"ok", to_json(trace)}}.dump());
    } else if (op == "stop") {
      const int status = end({true, "stopped: " + request.value("reason", ""), {}});
      (void)send_message(socket, R"({"ok":{}})");
      return status;
    } else {
      return take(socket, request, op == "pause");
    }
    return std::nullopt;
  }

  std::optional<int> take(int socket, const json& request, bool pause) {
    if (does("hold-pause")) await_go();
    if (does("fail-pause")) {
      (void)send_message(socket, json{{"error", to_json(Error{Code::kResourceExhausted, "the disk is full"})}}.dump());
      return std::nullopt;
    }
    const snapshot::SnapshotId id{*Uuid::parse(request.value("snapshot_id", ""))};
    if (!publish(id)) return 2;
    if (does("lose-answer")) return 3;
    SnapshotReply taken{id, {}, {}, 10, 20};
    if (!pause) taken.live = LiveStats{0, 4096, "asked a stopped machine"};
    const json reply{{"ok", to_json(taken)}};
    if (!pause) {
      (void)send_message(socket, reply.dump());
      return std::nullopt;
    }
    const int status = end({true, "paused", {}});
    (void)send_message(socket, reply.dump());
    return status;
  }

  bool publish(snapshot::SnapshotId id) {
    auto store = snapshot::Store::open(real_file_system(), config_.store);
    if (!store) return false;
    const auto lock = store->lock_shared();  // a collection would sweep what is not published yet
    if (!lock || !store->begin(id)) return false;
    snapshot::Manifest manifest;
    manifest.id = id;
    manifest.parent = config_.base;
    manifest.created_unix_ms = unix_time_ms();
    manifest.machine = shape();
    manifest.vmm = config_.vmm;
    manifest.vmm_version = "fake";
    auto map = store->write_map(id, "disk.map", *snapshot::BlockMap::zeros(disk_bytes()));
    auto memory = store->write_map(id, "memory.map", *snapshot::BlockMap::zeros(kFakeMemory));
    const Path state = store->snapshot_dir(id) / "state";
    std::ofstream(state) << "state";
    auto part = store->describe_part(id, "state");
    if (!map || !memory || !part) return false;
    manifest.disk_map = *map;
    manifest.memory_map = *memory;
    manifest.vm_state = *part;
    return store->publish(manifest).has_value();
  }

  // One more fault each time it is asked.
  PagerReport report() {
    PagerReport report;
    report.faults = {{"read", "absent", "copied", ++faults_}};
    report.service = {0, 0, 0, faults_};
    report.service_ns = 5000;
    report.pages = {{"fault", false, faults_}, {"around", true, 31},  {"prefetch", false, 32},
                    {"background", false, 33}, {"mapped", false, 34}, {"copied", false, 35}};
    report.sources = {{PagerReport::kZeros, 512}, {"c0ffee", faults_ * 4096}, {"bad", 1024}};
    report.parked = 1;
    report.prefetch_left = 20;
    report.load_left = 300;
    report.largest_batch = 64;
    report.fetching = 7;
    return report;
  }

  snapshot::MachineShape shape() const {
    return config_.shape.vcpus != 0 ? config_.shape : snapshot::MachineShape{1, 128};
  }

  uint64_t disk_bytes() const {
    if (config_.disk_bytes != 0) return config_.disk_bytes;
    const auto store = snapshot::Store::attach(real_file_system(), config_.store);
    const auto base = store.load(config_.base);
    const auto disk = base ? store.read_map_metadata(base->id, *base->disk_map) : fail(base.error());
    return disk ? disk->size : 0;
  }

  StateReply state() const {
    StateReply reply;
    reply.sandbox_id = config_.sandbox_id;
    reply.state = "running";
    reply.base = config_.base;
    reply.shape = shape();
    reply.disk_bytes = disk_bytes();
    reply.vmm = config_.vmm;
    reply.accelerator = "none";
    reply.guest_address = "127.0.0.1";
    reply.supervisor_pid = ::getpid();
    reply.vmm_pid = guest_->pid();
    reply.started_unix_ms = unix_time_ms();
    if (config_.shape.vcpus == 0) reply.restore_method = config_.restore.empty() ? kRestoreUffd : config_.restore;
    reply.spare = spare_;
    return reply;
  }

  Path dir_;
  SandboxConfig config_;
  Path fake_;
  std::set<std::string> words_;
  Process* guest_ = nullptr;
  UniqueFd listener_;
  std::vector<UniqueFd> clients_;
  bool spare_ = false;
  uint64_t faults_ = 10;
};

int run_sandbox(const Path& dir, UniqueFd listener, UniqueFd client) {
  auto config = read_config_file<SandboxConfig>(dir / kConfigFile, config_from_json);
  if (!config) return 2;
  std::filesystem::create_directories(dir / "root" / "etc");
  std::filesystem::create_directories(dir / "root" / "run");
  Fake fake(dir, std::move(*config));
  if (listener) fake.was_spare(std::move(listener), std::move(client));
  return fake.run(*executable_directory() / "stasis-guest");
}

int run_spare(const Path& dir) {
  const std::set<std::string> words = words_in(dir.parent_path().parent_path() / "fake" / "spare");
  if (words.contains("exit")) return 1;
  UniqueFd listener = listen_unix(dir / kControlSocket).value();
  UniqueFd client = accept_unix(listener.get(), Milliseconds(20'000)).value();
  for (;;) {
    const auto request = receive_message(client.get(), Milliseconds(3'600'000));
    if (!request || !*request) return 0;
    const json asked = json::parse((*request)->body, nullptr, false);
    if (asked.value("op", "") == "become") {
      if (words.contains("dies")) return 1;
      if (words.contains("deaf")) continue;
      const Path sandbox_dir = asked.value("sandbox_dir", "");
      for (const char* name : {kSupervisorLog, kControlSocket}) {
        if (!real_file_system().rename(dir / name, sandbox_dir / name)) return 2;
      }
      if (!outlive_parent() || !send_message(client.get(), R"({"ok":{}})")) return 2;
      return run_sandbox(sandbox_dir, std::move(listener), std::move(client));
    }
    if (!send_message(client.get(), R"({"ok":{}})")) return 2;
  }
}

}  // namespace
}  // namespace stasis::supervisor

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  if (std::string(argv[1]) == "--spare-dir") return stasis::supervisor::run_spare(argv[2]);
  return stasis::supervisor::run_sandbox(argv[2], {}, {});
}
