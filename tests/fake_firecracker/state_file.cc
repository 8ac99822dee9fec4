#include "state_file.h"

#include <cstring>

namespace fake {
namespace {

using stasis::Code;
using stasis::fail;

constexpr std::string_view kMagic = "FAKEFC11";
constexpr uint64_t kMaxBytes = 1 << 20;

uint64_t checksum(std::string_view text) {  // FNV-1a
  uint64_t sum = 0xcbf29ce484222325;
  for (const char c : text) sum = (sum ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return sum;
}

}  // namespace

stasis::Status write_state_file(const stasis::Path& path, const nlohmann::json& config) {
  stasis::FileSystem& fs = stasis::real_file_system();
  auto file = fs.create(path);
  if (!file) file = fs.open_write(path);  // truncated and overwritten, as Firecracker does
  if (!file) return fail(std::move(file).error());
  std::string text(kMagic);
  text += config.dump();
  const uint64_t sum = checksum(text);
  text.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  STASIS_TRY(fs.truncate(file->get(), 0));
  STASIS_TRY(fs.write_at(file->get(), 0, std::as_bytes(std::span(text))));
  return fs.sync(file->get());
}

stasis::Result<nlohmann::json> read_state_file(const stasis::Path& path) {
  auto bytes = stasis::read_file(stasis::real_file_system(), path, kMaxBytes);
  if (!bytes) return fail(Code::kInternal, "Failed to open snapshot file: No such file or directory (os error 2)");
  const std::string text(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  uint64_t sum = 0;
  if (text.size() < kMagic.size() + sizeof sum) {
    return fail(Code::kInternal,
                "Failed to load snapshot state from file: An error occured during bitcode deserialization");
  }
  const std::string_view content = std::string_view(text).substr(0, text.size() - sizeof sum);
  std::memcpy(&sum, text.data() + content.size(), sizeof sum);
  if (sum != checksum(content))
    return fail(Code::kInternal, "Failed to load snapshot state from file: CRC64 validation failed");
  auto config = nlohmann::json::parse(content.substr(kMagic.size()), nullptr, false);
  if (!content.starts_with(kMagic) || !config.is_object()) {
    return fail(Code::kInternal, "Failed to load snapshot state from file: bitcode error");
  }
  return config;
}

}  // namespace fake
