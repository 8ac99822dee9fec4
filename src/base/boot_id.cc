#include "base/boot_id.h"

#include <vector>

#include "base/file_system.h"
#include "base/uuid.h"

namespace stasis {
namespace {

constexpr size_t kUuidText = 36;

}  // namespace

Result<std::string> boot_id() {
  FileSystem& fs = real_file_system();
  STASIS_ASSIGN(const UniqueFd fd, fs.open_read("/proc/sys/kernel/random/boot_id"));
  std::string text(kUuidText, '\0');
  STASIS_ASSIGN(const size_t n, fs.read_at(fd.get(), 0, std::as_writable_bytes(std::span(text))));
  text.resize(n);
  STASIS_ASSIGN(const Uuid uuid, Uuid::parse(text));
  return uuid.text();
}

}  // namespace stasis
