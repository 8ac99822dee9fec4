// filesystem.Filesystem of the Connect protocol: Stat, MakeDir, Move, ListDir, Remove. Watching is not offered: those
// calls answer kUnimplemented.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"
#include "guest/settings.h"

namespace stasis::guest {

class FilesystemService {
 public:
  explicit FilesystemService(const Settings& settings) : settings_(settings) {}

  Result<nlohmann::json> unary(std::string_view method, const nlohmann::json& request, Exchange& exchange);

 private:
  Result<nlohmann::json> make_dir(const User& user, const std::string& path);
  Result<nlohmann::json> move(const User& user, const nlohmann::json& request);
  Result<nlohmann::json> list_dir(const std::string& path, uint64_t depth);

  const Settings& settings_;
};

// Creates a directory and its missing parents, owned by the user. Success if it is there already; kInvalidArgument if a
// file is in the way.
Status make_directories(const std::string& path, const User& user);

}  // namespace stasis::guest
