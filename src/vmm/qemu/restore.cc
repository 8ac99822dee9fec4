#include "base/file.h"
#include "vmm/compatible.h"
#include "vmm/qemu/machine.h"
#include "vmm/qemu/state_file.h"

namespace stasis::vmm {

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

}  // namespace stasis::vmm
