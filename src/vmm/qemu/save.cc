#include <thread>

#include "base/file.h"
#include "base/memory.h"
#include "vmm/qemu/machine.h"
#include "vmm/qemu/state_file.h"

namespace stasis::vmm {
namespace {

using nlohmann::json;

// Device state is 250 KB, but loading it faults pages that the page server may have to fetch.
constexpr Milliseconds kMigrateDeadline{60'000};

}  // namespace

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

void Qemu::save_failed() {
  save_crew_.reset();
  if (!ram_) return;
  ram_->forget_tracking();
  ram_->stop_tracking();
}

Result<SavedMemory> Qemu::look_ahead() {
  if (!process_) return fail(Code::kFailedPrecondition, "this machine has not been started");
  SavedMemory memory;
  STASIS_ASSIGN(memory.source, ram_->source(process_->pid()));
  STASIS_TRY(ram_->start_tracking(process_->pid()));
  STASIS_ASSIGN(ChangedPages pages, ram_->changed(process_->pid()));
  if (!pages.tracked) {
    return fail(Code::kUnimplemented, "this kernel does not tell what a guest writes while it runs (Linux 6.9 does)");
  }
  memory.candidates = std::move(pages.all);
  memory.fresh = std::move(pages.fresh);
  return memory;
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

}  // namespace stasis::vmm
