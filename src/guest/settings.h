// What /init told the daemon: the access token, the environment of processes, the default user and directory; and the
// rules that follow from it: who may call, which user a request runs as, what a path means. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "guest/exchange.h"
#include "guest/users.h"

namespace stasis::guest {

class Settings {
 public:
  explicit Settings(UserDatabase users = UserDatabase()) : users_(std::move(users)) {}

  const UserDatabase& users() const { return users_; }

  // Takes `token` as the new access token (none: keeps the old one) if one of `proofs` is the old token, or there is
  // none.
  bool replace_token(const std::optional<std::string>& token, const std::vector<std::string>& proofs);
  bool token_matches(std::string_view given) const;  // always true while there is no token
  std::string token() const;

  void merge_environment(const std::map<std::string, std::string>& variables);
  std::map<std::string, std::string> environment() const;
  void set_default_user(const std::string& name);
  void set_default_workdir(const std::string& path);
  std::string default_user() const;

  // The named user, or the default one for an empty name; kUnauthenticated if there is none of that name.
  Result<User> user(std::string_view name) const;
  // The user of "Authorization: Basic base64(name:)", or the default one without that header.
  Result<User> user_of(const Exchange& exchange) const;

  // "" is the default directory or the user's home, "~" and relative paths start at the home; "." and ".." are resolved
  // as text.
  std::string resolve_path(const User& user, std::string_view path) const;

 private:
  UserDatabase users_;
  mutable std::mutex mutex_;
  std::string token_;
  std::map<std::string, std::string> environment_;
  std::string default_user_ = "root";
  std::string default_workdir_;
};

// v1_ + unpadded base64 of sha256("path:operation:user:token[:expiration]").
std::string url_signature(std::string_view path, std::string_view operation, std::string_view user,
                          std::string_view token, std::optional<uint64_t> expiration);

}  // namespace stasis::guest
