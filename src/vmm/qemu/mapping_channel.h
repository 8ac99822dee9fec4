// The driver's side of mapping_message.h: tells the preloaded library where guest memory comes from, and hears where
// that is. Not thread-safe.
#pragma once

#include <span>
#include <string>

#include "base/fd.h"
#include "base/file_system.h"
#include "base/poll.h"
#include "base/result.h"
#include "base/userfaultfd.h"
#include "pager/mapped_plan.h"

struct mapping_entry;

namespace stasis::vmm {

struct MappedMemory {
  uint64_t address = 0;  // of guest memory in QEMU
  UserFaultFd tracker;   // tells what is written once it is asked to; without a descriptor on an older kernel
};

class MappingChannel {
 public:
  static Result<MappingChannel> open();

  // To be inherited by QEMU. close_peer() once it runs, so that its end is seen.
  int peer() const { return peer_.get(); }
  void close_peer() { peer_.reset(); }

  // A QEMU that was started with STASIS_HELD goes no further than to link its libraries until then. If it has ended,
  // what is asked of it next says so.
  void let_go();

  // Until the library has guest memory in its hands. kUnavailable if QEMU ended, kDeadlineExceeded if nobody has it by
  // then (a library that could not be preloaded). Of a QEMU that boots with its tracker, and that is all.
  Result<MappedMemory> await_library(Deadline deadline);

  // Then one of the two, once. Both wait until it is done: kUnavailable if QEMU ended over it. `page_server` is the
  // path of its socket, at most 107 bytes; of a plan of which nothing is served, empty.
  Result<MappedMemory> map(const pager::MappedPlan& plan, const Path& page_server, Deadline deadline);
  // All of it by the page server.
  Result<MappedMemory> serve(uint64_t bytes, const Path& page_server, Deadline deadline);

 private:
  MappingChannel(UniqueFd ours, UniqueFd peer) : ours_(std::move(ours)), peer_(std::move(peer)) {}
  // What mapping_message.h says, in its order.
  Status send_pieces(uint64_t bytes, std::span<const mapping_entry> entries, size_t files, const Path& page_server);
  Status send_layers(std::span<const snapshot::Layer* const> layers);
  Result<MappedMemory> await_answer(Deadline deadline);
  UniqueFd ours_;
  UniqueFd peer_;
};

}  // namespace stasis::vmm
