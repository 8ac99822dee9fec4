// The QEMU driver: machine type microvm, a memory file of ours as RAM, QMP over an inherited socket pair. What each
// option is for, and what was measured: shared/notes/qemu-microvm.md and docs/architecture.md.
#include <x86intrin.h>

#include <functional>
#include <optional>
#include <thread>

#include "base/file.h"
#include "base/memory.h"
#include "base/piecework.h"
#include "base/process.h"
#include "base/unix_socket.h"
#include "vmm/compatible.h"
#include "vmm/host_cpu.h"
#include "vmm/identity.h"
#include "vmm/qemu/guest_ram.h"
#include "vmm/qemu/mapping_channel.h"
#include "vmm/qemu/qmp.h"
#include "vmm/qemu/save_crew.h"
#include "vmm/qemu/state_file.h"
#include "vmm/vmm.h"

namespace stasis::vmm {
namespace {

using nlohmann::json;

constexpr int kRamFd = 3;  // descriptor numbers inside QEMU
constexpr int kQmpFd = 4;
constexpr int kMappingFd = 5;

// QEMU answers QMP within 25-82 ms of exec on an idle machine; a loaded one with 2 cores has been seen to take seconds.
constexpr Milliseconds kStartDeadline{30'000};
constexpr Milliseconds kCommandDeadline{30'000};
// Device state is 250 KB, but loading it faults pages that the page server may have to fetch.
constexpr Milliseconds kMigrateDeadline{60'000};

// The counter and the clock at one moment. Read together several times, of which the closest counts: whoever is
// interrupted between the two readings on a busy host would measure a wrong rate, and the guest would live with it.
struct Moment {
  std::chrono::steady_clock::time_point time;
  uint64_t tsc = 0;

  static Moment now() {
    Moment best;
    auto closest = std::chrono::steady_clock::duration::max();
    for (int i = 0; i < 16; ++i) {
      const auto before = std::chrono::steady_clock::now();
      const uint64_t tsc = __rdtsc();
      const auto took = std::chrono::steady_clock::now() - before;
      if (took >= closest) continue;
      closest = took;
      best = {before, tsc};
    }
    return best;
  }
};

// The rate of the time stamp counter in kHz. Under TCG the guest's TSC is the host's, and the guest kernel's own
// calibration against an emulated timer fails (one boot of six came up); tsc_early_khz tells it.
uint64_t measure_tsc_khz() {
  const Moment first = Moment::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const Moment last = Moment::now();
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(last.time - first.time);
  return (last.tsc - first.tsc) * 1'000'000 / static_cast<uint64_t>(elapsed.count());
}

// A comma ends an option's value for QEMU, two are one comma.
std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) out.append(c == ',' ? 2 : 1, c);
  return out;
}

// A device state in a memory file, and the file that it is for.
struct StateToWrite {
  UniqueFd content;
  Path file;
};

class Qemu final : public Vmm {
 public:
  Qemu(MachineConfig config, bool kvm) : config_(std::move(config)), kvm_(kvm) {
    info_.name = "qemu";
    info_.accelerator = kvm ? "kvm" : "tcg";
    info_.cpu_model = kvm ? host_cpu_model() : "qemu64";
  }

  Status boot(const BootSpec& spec) override {
    std::vector<std::string> arguments{"-kernel", spec.vmlinux.string(), "-append",
                                       kernel_command_line(spec.command_line)};
    if (!spec.initrd.empty()) arguments.insert(arguments.end(), {"-initrd", spec.initrd.string()});
    return start(std::move(arguments), Purpose::kBoot);
  }
  // No guest: only to ask QEMU who it is.
  Status start_empty() { return start({"-S"}, Purpose::kNothing); }

  Status prepare(const std::function<Status()>& meanwhile) override;
  Status restore(const RestoreSpec& spec) override;
  Status pause() override;
  Status resume() override;
  Result<SavedMemory> look_ahead() override;
  Result<SavedMemory> save(const SaveSpec& spec) override;
  Status finish_save() override;
  void save_failed() override {
    save_crew_.reset();
    if (!ram_) return;
    ram_->forget_tracking();
    ram_->stop_tracking();
  }
  const VmmInfo& info() const override { return info_; }
  bool maps_one_file() const override { return false; }
  GuestMemoryUse guest_memory() const override {
    return ram_ && process_ ? ram_->use(process_->pid()).value_or(GuestMemoryUse{}) : GuestMemoryUse{};
  }
  int events_fd() const override { return qmp_ && !qmp_ended_ ? qmp_->fd() : -1; }
  Status take_events() override;
  int pidfd() const override { return process_ ? process_->pidfd() : -1; }
  pid_t pid() const override { return process_ ? process_->pid() : -1; }
  std::string stop() override;

 private:
  enum class Purpose { kNothing, kBoot, kRestore };
  Status start(std::vector<std::string> more_arguments, Purpose purpose, const std::function<Status()>& meanwhile = {});
  Status preload(SpawnOptions& options, Purpose purpose);
  Status await_library(Purpose purpose);
  Status restore_prepared(const RestoreSpec& spec, int state);
  Status hand_over_memory(const RestoreSpec& spec);
  Status prepare_migration();
  Status load(const RestoreSpec& spec);
  Status await_end_of_migration();
  Status offer_state_file();
  Status export_device_state();
  Result<ChangedPages> export_and_look(std::span<const Range> given_back);
  std::vector<std::string> arguments() const;
  std::string kernel_command_line(const std::string& given) const;
  Status command(const std::string& name, const json& arguments = json::object(), int fd = -1);
  // Its two halves, between which other things may be done.
  Status send(const std::string& name, const json& arguments = json::object(), int fd = -1);
  Status answer_to(const std::string& name);
  // What ended QEMU, if it has ended: put in front of errors that are only its consequence.
  Error explain(Error error);
  // In what state it then is.
  Result<std::optional<std::string>> stopped_by_itself();
  // Whether QEMU says that it could move the device state.
  Result<bool> await_migration();

  MachineConfig config_;
  bool kvm_;
  VmmInfo info_;
  std::optional<GuestRam> ram_;
  std::optional<Process> process_;
  std::string end_;  // how it ended, once it has
  std::optional<Qmp> qmp_;
  bool qmp_ended_ = false;                 // nothing more is taken from it
  std::optional<MappingChannel> mapping_;  // of a prepared machine, until it has its memory
  bool stopped_ = false;                   // the vCPUs, by pause() or since a restore
  UniqueFd state_file_;                    // a memory file that QEMU has, too, since pause() and until the next save
  UniqueFd device_state_;                  // that file, since the last save and until the guest runs on
  std::optional<SaveCrew> save_crew_;      // since pause() and until finish_save()
  std::optional<StateToWrite> unwritten_;  // since save() and until finish_save()
};

std::vector<std::string> Qemu::arguments() const {
  const std::string memory = std::to_string(config_.shape.memory_mib) + "M";
  std::vector<std::string> list{
      kQemuProgram, "-M", std::string("microvm,memory-backend=ram,accel=") + (kvm_ ? "kvm" : "tcg"), "-cpu",
      // The timer of a bare qemu64 may stop while it idles, as it is said of this family: its kernel would tick 250
      // times a second for ever (5% of a processor, 0.6% without).
      kvm_ ? "host" : "qemu64,+arat", "-smp", std::to_string(config_.shape.vcpus), "-m", memory,
      // A file of ours by descriptor, shared, so that x-ignore-shared leaves it out of the migration stream. It begins
      // where a huge page does, so that a layer's may be mapped in its place.
      "-object",
      "memory-backend-file,id=ram,share=on,align=2M,size=" + memory + ",mem-path=/proc/self/fd/" +
          std::to_string(kRamFd),
      // State changes are told as events instead of polled for. A restored guest need not tell its network that it has
      // moved: its namespace knows its address, and telling was an eighth of what it ran before its daemon's first
      // answer.
      "-global", "migration.x-events=on", "-global", "migration.announce-rounds=0", "-nodefaults", "-no-user-config",
      "-display", "none", "-no-reboot", "-chardev", "socket,id=qmp,fd=" + std::to_string(kQmpFd), "-mon",
      "chardev=qmp,mode=control", "-chardev", "file,id=console,append=on,path=" + escaped(config_.log.string()),
      "-serial", "chardev:console", "-device", "virtio-rng-device", "-sandbox",
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"};
  if (!config_.disk.empty()) {
    const json disk = {
        {"node-name", "root"},
        {"driver", "raw"},
        {"discard", "unmap"},
        {"file", {{"driver", "file"}, {"filename", config_.disk.string()}, {"locking", "off"}, {"discard", "unmap"}}}};
    list.insert(list.end(), {"-blockdev", disk.dump(),
                             // A guest whose disk is full gets the error; the default would stop the whole machine.
                             "-device", "virtio-blk-device,drive=root,werror=report,rerror=report"});
  }
  if (!config_.tap.empty()) {
    list.insert(list.end(), {"-netdev", "tap,id=net,script=no,downscript=no,ifname=" + config_.tap, "-device",
                             "virtio-net-device,netdev=net,mac=" + config_.mac});
  }
  return list;
}

std::string Qemu::kernel_command_line(const std::string& given) const {
  return kvm_ ? given : given + " tsc_early_khz=" + std::to_string(measure_tsc_khz());
}

Status Qemu::start(std::vector<std::string> more_arguments, Purpose purpose, const std::function<Status()>& meanwhile) {
  if (process_) return fail(Code::kFailedPrecondition, "this machine has been started already");
  STASIS_ASSIGN(ram_, GuestRam::create(uint64_t{config_.shape.memory_mib} << 20));
  STASIS_ASSIGN(auto sockets, unix_socket_pair());
  STASIS_ASSIGN(const UniqueFd log, open_append(config_.log));
  SpawnOptions options;
  options.argv = arguments();
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

Status Qemu::hand_over_memory(const RestoreSpec& spec) {
  MappingChannel channel = std::move(*mapping_);
  mapping_.reset();
  const Deadline deadline = Deadline::after(kCommandDeadline);
  auto memory = spec.mapped ? channel.map(*spec.mapped, spec.uffd_socket, deadline)
                            : channel.serve(ram_->size(), spec.uffd_socket, deadline);
  if (!memory) return fail(explain(std::move(memory).error()));
  std::vector<Range> of_files;
  std::vector<Range> served{{0, ram_->size()}};
  if (spec.mapped) {
    served = spec.mapped->served;
    for (const pager::MappedRun& run : spec.mapped->runs) {
      if (!run.copied) append_range(of_files, {run.offset, run.length});
    }
  }
  ram_->is_mapped_at(memory->address, std::move(memory->tracker), of_files, std::move(served));
  return {};
}

// RAM stays in its file. (There is no option for this one.)
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

Result<bool> Qemu::await_migration() {
  const Deadline deadline = Deadline::after(kMigrateDeadline);
  for (;;) {
    auto event = qmp_->wait_event("MIGRATION", deadline);
    if (!event) return fail(explain(std::move(event).error()));
    const std::string status = text_member(*event, {"data", "status"});
    if (status == "completed") return true;
    if (status == "failed" || status == "cancelled") return false;
  }
}

// The dynamic linker needs 10 of the 25 ms that QEMU takes to start, and nothing of what is around the machine.
Status Qemu::prepare(const std::function<Status()>& meanwhile) {
  if (process_) return fail(Code::kFailedPrecondition, "this machine has been started already");
  Status ready = start({"-incoming", "defer"}, Purpose::kRestore, meanwhile);
  if (!ready) stop();
  return ready;
}

Status Qemu::restore(const RestoreSpec& spec) {
  if (process_ && !mapping_) return fail(Code::kFailedPrecondition, "this machine has been started already");
  if (!spec.log.empty()) config_.log = spec.log;
  Status restored = [&]() -> Status {
    STASIS_ASSIGN(const UniqueFd state, read_state_file(real_file_system(), spec.state));
    if (!process_) STASIS_TRY(prepare({}));
    return restore_prepared(spec, state.get());
  }();
  if (restored) return {};
  stop();
  return fail(std::move(restored).error().with_context("restore the machine"));
}

Status Qemu::restore_prepared(const RestoreSpec& spec, int state) {
  if (spec.on_started) STASIS_TRY(spec.on_started(process_->pid()));
  STASIS_TRY(check_compatible(spec.saved_with, info_));
  // Read while the library maps.
  STASIS_TRY(send("getfd", {{"fdname", "state"}}, state));
  STASIS_TRY(hand_over_memory(spec));
  STASIS_TRY(answer_to("getfd"));
  return load(spec);
}

Status Qemu::load(const RestoreSpec& spec) {
  STASIS_TRY(command("migrate-incoming", {{"uri", "fd:state"}}));
  const Result<bool> loaded = await_migration();
  if (loaded && *loaded) {
    stopped_ = true;
    return {};
  }
  Error error = loaded ? Error{Code::kDataLoss, "QEMU refuses it: " + log_tail(config_.log)} : loaded.error();
  // A QEMU that cannot load what it is given exits by itself; one that is killed says nothing about the state.
  const auto end = process_->wait(Deadline::after(Milliseconds(0)));
  if (end && *end && (*end)->exited) error.code = Code::kDataLoss;
  return fail(std::move(error).with_context("load the device state " + spec.state.string()));
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

// One of before, that no save has used, QEMU closes.
Status Qemu::offer_state_file() {
  STASIS_ASSIGN(state_file_, create_memory_file("stasis-state", 0));
  return command("getfd", {{"fdname", "state"}}, state_file_.get());
}

// Into memory first: what goes wrong with the file (a full disk) is then ours to tell. And QEMU does this once a pause:
// it refuses to migrate a machine that has not run since it was migrated.
Status Qemu::export_device_state() {
  if (!state_file_) STASIS_TRY(offer_state_file());
  device_state_ = std::move(state_file_);
  qmp_->forget_events();  // the end of a migration that came too late is not that of this one
  STASIS_TRY(command("migrate", {{"uri", "fd:state"}}));
  STASIS_ASSIGN(const bool moved, await_migration());
  if (moved) return {};
  return fail(Code::kInternal, "QEMU could not save its device state: " + log_tail(config_.log));
}

// QEMU tells the end of a migration a moment before it is over, and until then refuses to run the machine ("Migration
// is not finalized yet"). There is no event for that. It is asked only where that has happened: each question costs a
// stopped guest 0.3 ms.
Status Qemu::await_end_of_migration() {
  const Deadline deadline = Deadline::after(kCommandDeadline);
  for (;;) {
    auto status = qmp_->execute("query-status", json::object(), deadline);
    if (!status) return fail(explain(std::move(status).error()));
    if (text_member(*status, {"status"}) != "finish-migrate") return {};
    std::this_thread::sleep_for(Milliseconds(1));
  }
}

Result<SavedMemory> Qemu::save(const SaveSpec& spec) {
  if (!qmp_) return fail(Code::kFailedPrecondition, "this machine has not been started");
  if (!stopped_) return fail(Code::kFailedPrecondition, "pause the machine before saving it");
  SavedMemory saved;
  STASIS_ASSIGN(saved.source, ram_->source(process_->pid()));
  STASIS_ASSIGN(ChangedPages pages, export_and_look(spec.given_back));
  STASIS_ASSIGN(UniqueFd content, duplicate(device_state_.get()));
  unwritten_ = StateToWrite{std::move(content), spec.state};
  ram_->forget_told();
  saved.candidates = std::move(pages.all);
  saved.fresh = std::move(pages.fresh);
  return saved;
}

// Memory is looked at while QEMU is busy with its device state, which takes 1.5 ms, and 4 GiB 1.7 to 2.8 by one thread.
// QEMU writes none of it then: devices of a stopped machine do not, or its own migrations, which send memory before the
// device state, would lose that.
Result<ChangedPages> Qemu::export_and_look(std::span<const Range> given_back) {
  const auto look = [&](Piecework* walk) { return ram_->changed(process_->pid(), given_back, walk); };
  if (device_state_) return look(nullptr);
  if (!save_crew_) save_crew_.emplace(process_->pid());
  std::optional<Result<ChangedPages>> pages;
  const Status exported =
      save_crew_->run([this] { return export_device_state(); }, [&](Piecework& walk) { pages = look(&walk); });
  if (exported) return *std::move(pages);
  save_crew_.reset();
  device_state_.reset();
  ram_->forget_tracking();  // what was told is lost
  return fail(Error(exported.error()));
}

Status Qemu::finish_save() {
  if (!unwritten_) return fail(Code::kFailedPrecondition, "this machine has not been saved");
  save_crew_.reset();
  ram_->stop_tracking();
  const StateToWrite state = std::move(*unwritten_);
  unwritten_.reset();
  return write_state_file(real_file_system(), state.file, state.content.get());
}

Result<SavedMemory> Qemu::look_ahead() {
  if (!process_) return fail(Code::kFailedPrecondition, "this machine has not been started");
  SavedMemory memory;
  STASIS_ASSIGN(memory.source, ram_->source(process_->pid()));
  STASIS_TRY(ram_->start_tracking(process_->pid()));
  STASIS_ASSIGN(ChangedPages pages, ram_->changed(process_->pid()));
  if (!pages.tracked) return fail(Code::kUnimplemented, "nobody tells what this guest writes while it runs");
  memory.candidates = std::move(pages.all);
  memory.fresh = std::move(pages.fresh);
  return memory;
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

}  // namespace

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
