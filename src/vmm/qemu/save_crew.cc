#include "vmm/qemu/save_crew.h"

#include <chrono>
#include <system_error>
#include <utility>

namespace stasis::vmm {

SaveCrew::SaveCrew(pid_t vmm) {
  std::promise<Status> done;
  done_ = done.get_future();
  try {
    second_ = std::thread([this, given = task_.emplace().get_future(), done = std::move(done)]() mutable {
      const Task task = given.get();
      if (!task) return;
      done.set_value(task());
      walk_.help();
    });
  } catch (const std::system_error&) {
    return;
  }
  apart_.emplace(vmm);
  apart_->keep_off(second_);
}

SaveCrew::~SaveCrew() {
  if (!second_.joinable()) return;
  walk_.close();
  if (task_) task_->set_value(nullptr);
  second_.join();
}

Status SaveCrew::run(const std::function<Status()>& wait_for_vmm, const std::function<void(Piecework& walk)>& look) {
  if (second_.joinable()) std::exchange(task_, std::nullopt)->set_value(wait_for_vmm);
  look(walk_);
  walk_.close();
  // A QEMU that needs longer, on a processor that others want too, has this one as well from now on.
  if (done_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) apart_.reset();
  return second_.joinable() ? done_.get() : wait_for_vmm();
}

}  // namespace stasis::vmm
