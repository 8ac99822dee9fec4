#include "guest/users.h"

#include <algorithm>

#include "guest/small_files.h"
#include "guest/text.h"

namespace stasis::guest {
namespace {

constexpr size_t kMaxDatabaseBytes = size_t{4} << 20;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  for (;;) {
    size_t at = text.find(separator);
    out.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at + 1);
  }
}

std::optional<uint32_t> id(std::string_view text) {
  auto number = parse_number(text);
  if (!number || *number > UINT32_MAX) return std::nullopt;
  return static_cast<uint32_t>(*number);
}

// Calls use(fields) for each line with at least `fields` fields, until it returns true.
template <typename Use>
void each_line(const std::string& path, size_t fields, const Use& use) {
  std::string text = read_small_file(path, kMaxDatabaseBytes).value_or("");
  for (std::string_view line : split(text, '\n')) {
    auto parts = split(line, ':');
    if (parts.size() >= fields && use(parts)) return;
  }
}

}  // namespace

std::optional<User> UserDatabase::find(std::string_view name) const {
  std::optional<User> found;
  each_line(passwd_, 7, [&](const auto& parts) {
    auto uid = id(parts[2]);
    auto gid = id(parts[3]);
    if (parts[0] != name || name.empty() || !uid || !gid) return false;
    found = User{std::string(name), *uid, *gid, std::string(parts[5]), std::string(parts[6]), {*gid}};
    return true;
  });
  if (!found) return std::nullopt;
  each_line(group_, 4, [&](const auto& parts) {
    auto gid = id(parts[2]);
    auto members = split(parts[3], ',');
    bool member = gid && std::find(members.begin(), members.end(), name) != members.end();
    if (member && *gid != found->gid) found->groups.push_back(*gid);
    return false;
  });
  return found;
}

std::string UserDatabase::user_name(uid_t uid) const {
  std::string name = std::to_string(uid);
  each_line(passwd_, 7, [&](const auto& parts) {
    if (id(parts[2]) != uid) return false;
    name = parts[0];
    return true;
  });
  return name;
}

std::string UserDatabase::group_name(gid_t gid) const {
  std::string name = std::to_string(gid);
  each_line(group_, 3, [&](const auto& parts) {
    if (id(parts[2]) != gid) return false;
    name = parts[0];
    return true;
  });
  return name;
}

}  // namespace stasis::guest
