// Users and groups, read from the files themselves: a static program has no name service.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stasis::guest {

struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string home;
  std::string shell;
  std::vector<gid_t> groups;  // supplementary, the primary one included
};

class UserDatabase {
 public:
  explicit UserDatabase(std::string passwd = "/etc/passwd", std::string group = "/etc/group")
      : passwd_(std::move(passwd)), group_(std::move(group)) {}

  std::optional<User> find(std::string_view name) const;
  std::string user_name(uid_t uid) const;  // the number as text if it has no name
  std::string group_name(gid_t gid) const;

 private:
  std::string passwd_;
  std::string group_;
};

}  // namespace stasis::guest
