// The driver's side of mapping_message.h: gives the preloaded library its plan, and hears where it has put the memory.
#pragma once

#include "base/fd.h"
#include "base/poll.h"
#include "base/result.h"
#include "base/userfaultfd.h"
#include "pager/mapped_plan.h"

namespace stasis::vmm {

struct MappedMemory {
  uint64_t address = 0;  // of guest memory in QEMU
  UserFaultFd tracker;   // tells what is written once it is asked to; without a descriptor on an older kernel
};

class MappingChannel {
 public:
  // The plan is on its way when this returns: nothing more need be done for the library to have it.
  static Result<MappingChannel> open(const pager::MappedPlan& plan);

  // To be inherited by QEMU. close_peer() once it runs, so that its end is seen.
  int peer() const { return peer_.get(); }
  void close_peer() { peer_.reset(); }

  // kUnavailable if QEMU ended or refused the plan, kDeadlineExceeded if guest
  // memory is not what the plan says (a library that could not be preloaded).
  Result<MappedMemory> await_mapped(Deadline deadline);

 private:
  MappingChannel(UniqueFd ours, UniqueFd peer) : ours_(std::move(ours)), peer_(std::move(peer)) {}
  UniqueFd ours_;
  UniqueFd peer_;
};

}  // namespace stasis::vmm
