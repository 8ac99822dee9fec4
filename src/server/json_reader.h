// Reads the fields of a JSON object that came from outside: each at most once, of the right type and length, and no
// others. The first thing that is wrong is remembered; finish() tells it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "server/records.h"

namespace stasis::server {

// kInvalidArgument with the position if it is not JSON, or not an object. An empty text is an empty object.
Result<Json> parse_object(std::string_view text);

class JsonReader {
 public:
  explicit JsonReader(const Json& object) : object_(object) {}

  std::optional<std::string> text(const char* name, size_t max_length);
  std::optional<uint32_t> number(const char* name, uint32_t max);
  std::optional<bool> flag(const char* name);
  // An object of strings; nothing if it is absent.
  std::optional<Json> text_map(const char* name, size_t max_entries, size_t max_bytes);
  std::optional<std::vector<std::string>> text_list(const char* name, size_t max_entries);
  // True if the field is there and a string.
  bool is_text(const char* name) const;

  void require(const char* name, bool present);
  void reject(Error error);
  Status finish();

 private:
  const Json* take(const char* name);

  const Json& object_;
  std::set<std::string> known_;
  std::optional<Error> error_;
};

}  // namespace stasis::server
