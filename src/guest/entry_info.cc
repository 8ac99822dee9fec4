#include "guest/entry_info.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include "guest/metadata.h"

namespace stasis::guest {
namespace {

std::string time_text(const timespec& time) {
  std::tm parts{};
  gmtime_r(&time.tv_sec, &parts);
  char text[80];
  std::snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ", parts.tm_year + 1900, parts.tm_mon + 1,
                parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, time.tv_nsec);
  return text;
}

const char* type_name(mode_t mode) {
  if (S_ISDIR(mode)) return "FILE_TYPE_DIRECTORY";
  if (S_ISREG(mode)) return "FILE_TYPE_FILE";
  if (S_ISLNK(mode)) return "FILE_TYPE_SYMLINK";
  return nullptr;  // devices, sockets and pipes have no type of their own
}

}  // namespace

std::string permissions_text(unsigned mode) {
  std::string text = S_ISDIR(mode) ? "d" : S_ISLNK(mode) ? "L" : S_ISFIFO(mode) ? "p" : S_ISSOCK(mode) ? "S" : "-";
  constexpr std::string_view kBits = "rwxrwxrwx";
  for (unsigned i = 0; i < 9; ++i) text.push_back((mode & (0400U >> i)) != 0 ? kBits[i] : '-');
  return text;
}

Result<nlohmann::json> entry_info(const std::string& path, const UserDatabase& users) {
  struct stat link {};
  if (lstat(path.c_str(), &link) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return fail(Code::kNotFound, "path '" + path + "' does not exist");
    return fail_errno(errno, "stat " + path);
  }
  struct stat info = link;
  bool is_link = S_ISLNK(link.st_mode);
  if (is_link && stat(path.c_str(), &info) != 0) info = link;
  nlohmann::json entry = {{"name", std::filesystem::path(path).filename().string()},
                          {"path", path},
                          {"size", std::to_string(info.st_size)},
                          {"mode", info.st_mode & 07777},
                          {"permissions", permissions_text(info.st_mode)},
                          {"owner", users.user_name(info.st_uid)},
                          {"group", users.group_name(info.st_gid)},
                          {"modifiedTime", time_text(info.st_mtim)}};
  if (const char* type = type_name(info.st_mode)) entry["type"] = type;
  if (is_link) {
    char target[PATH_MAX];
    ssize_t length = readlink(path.c_str(), target, sizeof(target));
    std::filesystem::path read(std::string(target, static_cast<size_t>(std::max<ssize_t>(length, 0))));
    entry["symlinkTarget"] = (std::filesystem::path(path).parent_path() / read).lexically_normal().string();
    entry["isSymlink"] = true;
  }
  auto metadata = S_ISREG(info.st_mode) ? read_metadata(path) : std::map<std::string, std::string>();
  if (!metadata.empty()) entry["metadata"] = metadata;
  return entry;
}

}  // namespace stasis::guest
