#include "guest/metadata.h"

#include <sys/xattr.h>

#include <cerrno>
#include <string_view>
#include <vector>

namespace stasis::guest {
namespace {

constexpr std::string_view kPrefix = "user.e2b.";
constexpr size_t kMaxList = size_t{64} << 10;

// The names in a list of zero-terminated strings that are metadata.
std::vector<std::string> metadata_names(std::string_view list) {
  std::vector<std::string> out;
  while (!list.empty()) {
    std::string_view name = list.substr(0, list.find('\0'));
    list.remove_prefix(std::min(list.size(), name.size() + 1));
    if (name.starts_with(kPrefix)) out.emplace_back(name);
  }
  return out;
}

}  // namespace

std::map<std::string, std::string> read_metadata(const std::string& path) {
  std::map<std::string, std::string> out;
  std::vector<char> buffer(kMaxList);
  ssize_t length = listxattr(path.c_str(), buffer.data(), buffer.size());
  if (length <= 0) return out;
  for (const std::string& name : metadata_names({buffer.data(), static_cast<size_t>(length)})) {
    std::vector<char> value(kMaxList);
    ssize_t size = getxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (size >= 0) out[name.substr(kPrefix.size())] = std::string(value.data(), static_cast<size_t>(size));
  }
  return out;
}

Status write_metadata(int fd, const std::map<std::string, std::string>& metadata) {
  std::vector<char> buffer(kMaxList);
  ssize_t length = flistxattr(fd, buffer.data(), buffer.size());
  if (length > 0) {
    for (const std::string& name : metadata_names({buffer.data(), static_cast<size_t>(length)})) {
      (void)fremovexattr(fd, name.c_str());
    }
  }
  for (const auto& [key, value] : metadata) {
    if (fsetxattr(fd, (std::string(kPrefix) + key).c_str(), value.data(), value.size(), 0) != 0) {
      return fail_errno(errno, "store metadata '" + key + "'");
    }
  }
  return {};
}

}  // namespace stasis::guest
