#include "vmm/qemu/mapping_channel.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/pagemap.h"
#include "base/unix_socket.h"
#include "vmm/qemu/mapping_message.h"

namespace stasis::vmm {
namespace {

static_assert(pager::kMostPieces <= MAPPING_MAX_ENTRIES);

// Pieces in the order of guest memory.
std::vector<mapping_entry> entries_of(const pager::MappedPlan& plan) {
  std::vector<mapping_entry> entries;
  entries.reserve(plan.runs.size() + plan.served.size());
  auto served = plan.served.begin();
  const auto add_served = [&](uint64_t before) {
    for (; served != plan.served.end() && served->offset < before; ++served) {
      entries.push_back({served->offset, served->length, 0, 0, MAPPING_SERVED});
    }
  };
  for (const pager::MappedRun& run : plan.runs) {
    add_served(run.offset);
    const uint32_t how = run.copied ? MAPPING_COPIED : MAPPING_MAPPED;
    entries.push_back({run.offset, run.length, run.layer_offset, run.layer, how});
  }
  add_served(plan.memory->size());
  return entries;
}

Result<UniqueFd> file_of(std::span<const mapping_entry> entries) {
  const auto bytes = std::as_bytes(entries);
  STASIS_ASSIGN(UniqueFd file, create_memory_file("stasis-plan", bytes.size()));
  STASIS_TRY(real_file_system().write_at(file.get(), 0, bytes));
  return file;
}

Status name_page_server(mapping_header& header, const Path& socket) {
  if (socket.empty() || socket.native().size() >= sizeof header.page_server) {
    return fail(Code::kInvalidArgument, "the path of the page server's socket has not 1 to 107 bytes");
  }
  socket.native().copy(header.page_server, sizeof header.page_server - 1);
  return {};
}

}  // namespace

Result<MappingChannel> MappingChannel::open() {
  STASIS_ASSIGN(auto sockets, unix_socket_pair());
  return MappingChannel(std::move(sockets.first), std::move(sockets.second));
}

void MappingChannel::let_go() {
  const std::array byte{std::byte{0}};
  (void)send_all(ours_.get(), byte);
}

Result<MappedMemory> MappingChannel::await_library(Deadline deadline) {
  auto here = await_answer(deadline);
  if (!here) return fail(std::move(here).error().with_context("wait for the preloaded library"));
  return here;
}

Result<MappedMemory> MappingChannel::map(const pager::MappedPlan& plan, const Path& page_server, Deadline deadline) {
  const std::vector<mapping_entry> entries = entries_of(plan);
  if (entries.size() > MAPPING_MAX_ENTRIES || plan.layers.size() > MAPPING_MAX_FILES ||
      plan.served.size() > MAPPING_MAX_SERVED) {
    return fail(Code::kFailedPrecondition, "the plan has more pieces or layers than QEMU can be told");
  }
  STASIS_TRY(send_pieces(plan.memory->size(), entries, plan.layers.size(), page_server));
  STASIS_TRY(send_layers(plan.layers));
  return await_answer(deadline);
}

Result<MappedMemory> MappingChannel::serve(uint64_t bytes, const Path& page_server, Deadline deadline) {
  const std::array all{mapping_entry{0, bytes, 0, 0, MAPPING_SERVED}};
  STASIS_TRY(send_pieces(bytes, all, 0, page_server));
  return await_answer(deadline);
}

Status MappingChannel::send_pieces(uint64_t bytes, std::span<const mapping_entry> entries, size_t files,
                                   const Path& page_server) {
  mapping_header header{
      MAPPING_MAGIC, bytes, static_cast<uint32_t>(entries.size()), static_cast<uint32_t>(files), {}, 0};
  const bool served = std::ranges::any_of(entries, [](const mapping_entry& e) { return e.how == MAPPING_SERVED; });
  if (served) STASIS_TRY(name_page_server(header, page_server));
  STASIS_ASSIGN(const UniqueFd file, file_of(entries));
  const std::array first{file.get()};
  return send_all(ours_.get(), std::as_bytes(std::span(&header, 1)), first);
}

Status MappingChannel::send_layers(std::span<const snapshot::Layer* const> layers) {
  std::vector<int> files;
  files.reserve(layers.size());
  for (const snapshot::Layer* layer : layers) files.push_back(layer->fd());
  for (std::span<const int> left(files); !left.empty();) {
    const auto batch = left.first(std::min<size_t>(left.size(), MAPPING_FD_BATCH));
    const std::array byte{std::byte{0}};
    STASIS_TRY(send_all(ours_.get(), byte, batch));
    left = left.subspan(batch.size());
  }
  return {};
}

Result<MappedMemory> MappingChannel::await_answer(Deadline deadline) {
  STASIS_ASSIGN(const bool ready, wait_readable(ours_.get(), deadline));
  if (!ready) return fail(Code::kDeadlineExceeded, "QEMU did not take over the guest's memory");
  mapping_answer answer{};
  STASIS_ASSIGN(Received received, receive_with_fds(ours_.get(), std::as_writable_bytes(std::span(&answer, 1))));
  if (received.bytes != sizeof answer) return fail(Code::kUnavailable, "QEMU refused what its memory was to be");
  MappedMemory memory{answer.address, {}};
  // For nothing where nobody tells what it is to find.
  if (!received.fds.empty() && kernel_tells_written_pages())
    memory.tracker = UserFaultFd(std::move(received.fds.front()));
  return memory;
}

}  // namespace stasis::vmm
