#include "vmm/qemu/mapping_channel.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/unix_socket.h"
#include "vmm/qemu/mapping_message.h"

namespace stasis::vmm {
namespace {

Result<UniqueFd> file_of_entries(const pager::MappedPlan& plan) {
  std::vector<mapping_entry> entries;
  entries.reserve(plan.runs.size());
  for (const pager::MappedRun& run : plan.runs) {
    entries.push_back({run.offset, run.length, run.layer_offset, run.layer, run.copied ? 1U : 0U});
  }
  const auto bytes = std::as_bytes(std::span(entries));
  STASIS_ASSIGN(UniqueFd file, create_memory_file("stasis-plan", bytes.size()));
  STASIS_TRY(real_file_system().write_at(file.get(), 0, bytes));
  return file;
}

}  // namespace

Result<MappingChannel> MappingChannel::open() {
  STASIS_ASSIGN(auto sockets, unix_socket_pair());
  return MappingChannel(std::move(sockets.first), std::move(sockets.second));
}

Result<MappedMemory> MappingChannel::await_library(Deadline deadline) {
  auto here = await_answer(deadline);
  if (!here) return fail(std::move(here).error().with_context("wait for the preloaded library"));
  return here;
}

Result<MappedMemory> MappingChannel::map(const pager::MappedPlan& plan, Deadline deadline) {
  if (plan.runs.size() > MAPPING_MAX_ENTRIES || plan.layers.size() > MAPPING_MAX_FILES) {
    return fail(Code::kFailedPrecondition, "the plan has more pieces or layers than QEMU can be told");
  }
  STASIS_ASSIGN(const UniqueFd entries, file_of_entries(plan));
  const mapping_header header{MAPPING_MAGIC,
                              plan.memory->size(),
                              static_cast<uint32_t>(plan.runs.size()),
                              static_cast<uint32_t>(plan.layers.size()),
                              {},
                              0};
  const std::array first{entries.get()};
  STASIS_TRY(send_all(ours_.get(), std::as_bytes(std::span(&header, 1)), first));
  std::vector<int> files;
  files.reserve(plan.layers.size());
  for (const snapshot::Layer* layer : plan.layers) files.push_back(layer->fd());
  for (std::span<const int> left(files); !left.empty();) {
    const auto batch = left.first(std::min<size_t>(left.size(), MAPPING_FD_BATCH));
    const std::array byte{std::byte{0}};
    STASIS_TRY(send_all(ours_.get(), byte, batch));
    left = left.subspan(batch.size());
  }
  return await_answer(deadline);
}

Status MappingChannel::serve(const Path& page_server, Deadline deadline) {
  mapping_header header{MAPPING_MAGIC, 0, 0, 0, {}, 0};
  if (page_server.empty() || page_server.native().size() >= sizeof header.page_server) {
    return fail(Code::kInvalidArgument, "the path of the page server's socket has not 1 to 107 bytes");
  }
  page_server.native().copy(header.page_server, sizeof header.page_server - 1);
  STASIS_ASSIGN(const UniqueFd nothing, create_memory_file("stasis-plan", 0));
  const std::array first{nothing.get()};
  STASIS_TRY(send_all(ours_.get(), std::as_bytes(std::span(&header, 1)), first));
  STASIS_TRY(await_answer(deadline));
  return {};
}

Result<MappedMemory> MappingChannel::await_answer(Deadline deadline) {
  STASIS_ASSIGN(const bool ready, wait_readable(ours_.get(), deadline));
  if (!ready) return fail(Code::kDeadlineExceeded, "QEMU did not take over the guest's memory");
  mapping_answer answer{};
  STASIS_ASSIGN(Received received, receive_with_fds(ours_.get(), std::as_writable_bytes(std::span(&answer, 1))));
  if (received.bytes != sizeof answer) return fail(Code::kUnavailable, "QEMU refused what its memory was to be");
  MappedMemory memory{answer.address, {}};
  if (!received.fds.empty()) memory.tracker = UserFaultFd(std::move(received.fds.front()));
  return memory;
}

}  // namespace stasis::vmm
