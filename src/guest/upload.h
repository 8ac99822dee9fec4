// A file being uploaded: written as it comes, owned by the user, with its parents created. A write fills the named file
// in place (as the protocol's own daemon does), so links and other names of it stay what they are.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "guest/users.h"

namespace stasis::guest {

class Upload {
 public:
  // kInvalidArgument for a directory, kResourceExhausted if the disk is full.
  static Result<Upload> open(const std::string& path, const User& user);

  Status write(std::string_view data);
  Status finish(const std::map<std::string, std::string>& metadata);
  const std::string& path() const { return path_; }

 private:
  Upload(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
};

}  // namespace stasis::guest
