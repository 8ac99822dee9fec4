#include "vmm/qemu/state_file.h"

#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/memory.h"
#include "snapshot/crc32c.h"
#include "snapshot/wire.h"

namespace stasis::vmm {
namespace {

constexpr std::string_view kMagic = "STQEMU01";
constexpr size_t kGuarded = 20;  // of the header, by its own checksum
constexpr size_t kHeader = 24;

std::vector<std::byte> encode(std::span<const std::byte> stream) {
  snapshot::WireWriter file(kHeader + stream.size());
  file.append(kMagic.data(), kMagic.size());
  file.u64(stream.size());
  file.u32(snapshot::crc32c(stream));
  file.u32(snapshot::crc32c(file.bytes()));
  file.append(stream.data(), stream.size());
  return file.take();
}

// The stream inside a whole file; nothing if the file is damaged.
std::optional<std::span<const std::byte>> decode(std::span<const std::byte> file) {
  if (file.size() < kHeader || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) return std::nullopt;
  snapshot::WireReader header(file.subspan(kMagic.size()));
  const uint64_t length = header.u64();
  const uint32_t stream_sum = header.u32();
  const uint32_t header_sum = header.u32();
  if (snapshot::crc32c(file.first(kGuarded)) != header_sum || length != file.size() - kHeader) return std::nullopt;
  const auto stream = file.subspan(kHeader);
  if (snapshot::crc32c(stream) != stream_sum) return std::nullopt;
  return stream;
}

// Everything that a memory file holds.
Result<std::vector<std::byte>> content(FileSystem& fs, int fd) {
  std::vector<std::byte> bytes;
  for (;;) {
    const size_t have = bytes.size();
    if (have > kMaxDeviceState) return fail(Code::kInternal, "QEMU's device state is larger than 64 MiB");
    bytes.resize(have + (1 << 20));
    STASIS_ASSIGN(const size_t n, fs.read_at(fd, have, std::span(bytes).subspan(have)));
    bytes.resize(have + n);
    if (n < 1 << 20) return bytes;
  }
}

}  // namespace

Status write_state_file(FileSystem& fs, const Path& path, int stream) {
  STASIS_ASSIGN(const auto bytes, content(fs, stream));
  STASIS_ASSIGN(const UniqueFd file, fs.create(path));
  Status written = fs.write_at(file.get(), 0, encode(bytes));
  if (!written) (void)fs.remove(path);
  return written;
}

Result<UniqueFd> read_state_file(FileSystem& fs, const Path& path) {
  STASIS_ASSIGN(const auto file, read_file(fs, path, kHeader + kMaxDeviceState));
  const auto stream = decode(file);
  if (!stream) return fail(Code::kDataLoss, "the device state " + path.string() + " is damaged");
  STASIS_ASSIGN(UniqueFd memory, create_memory_file("stasis-state", stream->size()));
  STASIS_TRY(real_file_system().write_at(memory.get(), 0, *stream));
  return memory;
}

}  // namespace stasis::vmm
