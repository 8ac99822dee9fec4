#include "guest/filesystem_service.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "guest/entry_info.h"
#include "guest/json_fields.h"

namespace stasis::guest {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kMaxEntries = 100'000;

Result<std::string> path_field(const json& request, const char* name, const Settings& settings, const User& user) {
  STASIS_ASSIGN(std::string path, string_field(request, name));
  if (path.find('\0') != std::string::npos) return fail(Code::kInvalidArgument, "a zero byte in the path");
  return settings.resolve_path(user, path);
}

// A path below `directory` as deep as `depth`; parents come before their content, names in order.
Status collect(const fs::path& directory, uint64_t depth, const UserDatabase& users, json& entries) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    paths.push_back(it->path());
    if (paths.size() + entries.size() > kMaxEntries) {
      return fail(Code::kResourceExhausted,
                  "more than " + std::to_string(kMaxEntries) + " entries: list a smaller depth");
    }
  }
  if (error && error.value() != ENOENT) return fail_errno(error.value(), "list " + directory.string());
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    auto entry = entry_info(path.string(), users);
    if (!entry) continue;  // removed in the meantime
    entries.push_back(std::move(*entry));
    struct stat info {};
    bool descend = depth > 1 && lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
    if (descend) STASIS_TRY(collect(path, depth - 1, users, entries));
  }
  return {};
}

}  // namespace

Status make_directories(const std::string& path, const User& user) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return {};
    return fail(Code::kInvalidArgument, "path '" + path + "' exists and is not a directory");
  }
  if (errno == ENOTDIR) return fail(Code::kInvalidArgument, "a parent of '" + path + "' is not a directory");
  if (errno != ENOENT) return fail_errno(errno, "stat " + path);
  std::string parent = fs::path(path).parent_path().string();
  if (!parent.empty() && parent != path) STASIS_TRY(make_directories(parent, user));
  if (mkdir(path.c_str(), 0755) != 0) {
    if (errno == EEXIST) return make_directories(path, user);
    return fail_errno(errno, "create directory " + path);
  }
  if (chown(path.c_str(), user.uid, user.gid) != 0) return fail_errno(errno, "chown " + path);
  return {};
}

Result<json> FilesystemService::unary(std::string_view method, const json& request, Exchange& exchange) {
  STASIS_ASSIGN(User user, settings_.user_of(exchange));
  if (method == "Move") return move(user, request);
  if (method != "Stat" && method != "MakeDir" && method != "ListDir" && method != "Remove") {
    return fail(Code::kUnimplemented, "filesystem.Filesystem/" + std::string(method) + " is not offered");
  }
  STASIS_ASSIGN(std::string path, path_field(request, "path", settings_, user));
  if (method == "MakeDir") return make_dir(user, path);
  if (method == "ListDir") {
    STASIS_ASSIGN(uint64_t depth, number_field(request, "depth", 1));
    return list_dir(path, std::max<uint64_t>(depth, 1));
  }
  if (method == "Remove") {
    if (path == "/") return fail(Code::kInvalidArgument, "the root directory cannot be removed");
    std::error_code error;
    fs::remove_all(path, error);
    if (error) return fail_errno(error.value(), "remove " + path);
    return json::object();
  }
  STASIS_ASSIGN(json entry, entry_info(path, settings_.users()));
  return json{{"entry", std::move(entry)}};
}

Result<json> FilesystemService::make_dir(const User& user, const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return fail(Code::kAlreadyExists, "directory already exists: " + path);
    return fail(Code::kInvalidArgument, "path already exists but it is not a directory: " + path);
  }
  STASIS_TRY(make_directories(path, user));
  STASIS_ASSIGN(json entry, entry_info(path, settings_.users()));
  return json{{"entry", std::move(entry)}};
}

Result<json> FilesystemService::move(const User& user, const json& request) {
  STASIS_ASSIGN(std::string source, path_field(request, "source", settings_, user));
  STASIS_ASSIGN(std::string destination, path_field(request, "destination", settings_, user));
  struct stat info {};
  if (lstat(source.c_str(), &info) != 0) return fail(Code::kNotFound, "path '" + source + "' does not exist");
  STASIS_TRY(make_directories(fs::path(destination).parent_path().string(), user));
  if (rename(source.c_str(), destination.c_str()) != 0)
    return fail_errno(errno, "move " + source + " to " + destination);
  STASIS_ASSIGN(json entry, entry_info(destination, settings_.users()));
  return json{{"entry", std::move(entry)}};
}

Result<json> FilesystemService::list_dir(const std::string& path, uint64_t depth) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return fail(Code::kNotFound, "directory '" + path + "' does not exist");
  if (!S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, "path is not a directory: " + path);
  json entries = json::array();
  STASIS_TRY(collect(path, depth, settings_.users(), entries));
  return entries.empty() ? json::object() : json{{"entries", std::move(entries)}};
}

}  // namespace stasis::guest
