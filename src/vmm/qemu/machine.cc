#include "vmm/qemu/machine.h"

#include "base/file.h"
#include "base/unix_socket.h"

namespace stasis::vmm {
namespace {

using nlohmann::json;

// QEMU answers QMP within 25-82 ms of exec on an idle machine; a loaded one with 2 cores has been seen to take seconds.
constexpr Milliseconds kStartDeadline{30'000};

}  // namespace

Status Qemu::boot(const BootSpec& spec) {
  std::vector<std::string> more{"-kernel", spec.vmlinux.string(), "-append",
                                guest_command_line(spec.command_line, kvm_)};
  if (!spec.initrd.empty()) more.insert(more.end(), {"-initrd", spec.initrd.string()});
  return start(std::move(more), Purpose::kBoot);
}

Status Qemu::start(std::vector<std::string> more_arguments, Purpose purpose, const std::function<Status()>& meanwhile) {
  if (process_) return fail(Code::kFailedPrecondition, "this machine has been started already");
  STASIS_ASSIGN(ram_, GuestRam::create(uint64_t{config_.shape.memory_mib} << 20));
  STASIS_ASSIGN(auto sockets, unix_socket_pair());
  STASIS_ASSIGN(const UniqueFd log, open_append(config_.log));
  SpawnOptions options;
  options.argv = qemu_command_line(config_, kvm_);
  options.argv.insert(options.argv.end(), more_arguments.begin(), more_arguments.end());
  options.fds = {{ram_->fd(), kRamFd}, {sockets.second.get(), kQmpFd}};
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  options.die_with_parent = true;
  if (purpose != Purpose::kNothing) STASIS_TRY(preload(options, purpose));
  auto spawned = spawn(options);
  if (!spawned) return fail(std::move(spawned).error().with_remedy("install QEMU: apt-get install qemu-system-x86"));
  process_ = std::move(*spawned);
  sockets.second.reset();
  if (mapping_) mapping_->close_peer();
  if (meanwhile) STASIS_TRY(meanwhile());
  if (purpose == Purpose::kRestore) mapping_->let_go();
  auto qmp = Qmp::open(std::move(sockets.first), Deadline::after(kStartDeadline));
  if (!qmp) return fail(explain(std::move(qmp).error().with_context("start QEMU")));
  qmp_ = std::move(*qmp);
  info_.version = qmp_->version();
  if (mapping_) STASIS_TRY(await_library(purpose));
  return prepare_migration();
}

// QEMU makes its memory before it answers QMP: if the library has not been at work by then, it never will be.
Status Qemu::await_library(Purpose purpose) {
  auto here = mapping_->await_library(Deadline::after(Milliseconds(0)));
  if (!here) return fail(explain(std::move(here).error()));
  if (purpose == Purpose::kRestore) return {};
  ram_->is_booted(std::move(here->tracker));
  mapping_.reset();
  return {};
}

// The library that puts guest memory where a restored QEMU looks for it, and of any QEMU lets us see what it writes.
Status Qemu::preload(SpawnOptions& options, Purpose purpose) {
  STASIS_ASSIGN(const Path bin, executable_directory());
  const Path library = bin.parent_path() / "lib" / "libstasis-preload.so";
  if (!exists(real_file_system(), library)) {
    return fail(Code::kNotFound, "there is no " + library.string(),
                "build it (make build), or install all of Stasis's files");
  }
  STASIS_ASSIGN(mapping_, MappingChannel::open());
  options.fds.emplace_back(mapping_->peer(), kMappingFd);
  options.env = {{"LD_PRELOAD", library.string()},
                 {"STASIS_RAM_FD", std::to_string(kRamFd)},
                 {"STASIS_MAPPING_FD", std::to_string(kMappingFd)},
                 // A thread that saves a machine would get an arena of its own, which grows by mprotect(): up to nine
                 // times a save, for each of which it needs mmap_lock while we scan 4 GiB under it.
                 {"MALLOC_ARENA_MAX", "1"}};
  options.env.emplace_back(purpose == Purpose::kBoot ? "STASIS_BOOTS" : "STASIS_HELD", "1");
  return {};
}

// RAM stays where it is. (There is no option for this one.)
Status Qemu::prepare_migration() {
  const json capability{{"capability", "x-ignore-shared"}, {"state", true}};
  return command("migrate-set-capabilities", {{"capabilities", json::array({capability})}});
}

Status Qemu::command(const std::string& name, const json& arguments, int fd) {
  STASIS_TRY(send(name, arguments, fd));
  return answer_to(name);
}

Status Qemu::send(const std::string& name, const json& arguments, int fd) {
  if (!qmp_) return fail(Code::kFailedPrecondition, "this machine has not been started");
  if (Status sent = qmp_->send(name, arguments, fd); !sent) return fail(explain(std::move(sent).error()));
  return {};
}

Status Qemu::answer_to(const std::string& name) {
  auto answer = qmp_->answer_to(name, Deadline::after(kCommandDeadline));
  if (!answer) return fail(explain(std::move(answer).error()));
  return {};
}

Error Qemu::explain(Error error) {
  if (error.code != Code::kUnavailable || !process_) return error;
  auto status = process_->wait(Deadline::after(Milliseconds(1000)));
  if (!status || !*status) return error;
  return std::move(error).with_context(with_last_words("QEMU ended with " + (*status)->text(), config_.log));
}

// What the save needs is made before the guest stands still.
Status Qemu::pause() {
  if (!stopped_) {
    STASIS_TRY(offer_state_file());
    save_crew_.emplace(process_->pid());
  }
  STASIS_TRY(command("stop"));
  stopped_ = true;
  return {};
}

Status Qemu::resume() {
  device_state_.reset();  // from now on it changes
  Status runs = command("cont");
  if (!runs && qmp_ && runs.error().code == Code::kFailedPrecondition) {
    STASIS_TRY(await_end_of_migration());
    runs = command("cont");
  }
  if (runs) stopped_ = false;
  if (!unwritten_) save_crew_.reset();
  return runs;
}

// KVM that cannot go on, for one: QEMU then stays, and waits for somebody to look.
Status Qemu::take_events() {
  if (events_fd() < 0) return {};
  const auto state = stopped_by_itself();
  if (state && !*state) return {};
  qmp_ended_ = true;
  if (state) {
    return fail(Code::kUnavailable, with_last_words("QEMU has stopped the guest by itself: " + **state, config_.log));
  }
  if (state.error().code == Code::kUnavailable) return {};  // pidfd() tells that it has ended
  return fail(Error(state.error()));
}

Result<std::optional<std::string>> Qemu::stopped_by_itself() {
  STASIS_TRY(qmp_->take_events());
  if (stopped_ || !qmp_->has_stopped()) return std::nullopt;
  STASIS_ASSIGN(const json status, qmp_->execute("query-status", json::object(), Deadline::after(kCommandDeadline)));
  return text_member(status, {"status"});
}

std::string Qemu::stop() {
  if (!process_) return "not started";
  qmp_.reset();
  mapping_.reset();
  if (end_.empty()) end_ = process_->kill_and_wait().text();
  return end_;
}

Result<VmmInfo> probe_qemu() {
  // The version comes from QMP, not from the text of --version: starts an empty machine and asks it.
  MachineConfig config;
  config.shape = {1, 128};
  config.log = "/dev/null";
  Qemu machine(config, false);
  STASIS_TRY(machine.start_empty());
  return machine.info();
}

std::unique_ptr<Vmm> make_qemu(const MachineConfig& config, bool kvm) { return std::make_unique<Qemu>(config, kvm); }

}  // namespace stasis::vmm
