#include "guest/json_fields.h"

#include "guest/text.h"

namespace stasis::guest {
namespace {

tl::unexpected<Error> wrong(const char* name, std::string_view wanted) {
  return fail(Code::kInvalidArgument, "field '" + std::string(name) + "' is not " + std::string(wanted));
}

}  // namespace

const nlohmann::json* json_field(const nlohmann::json& object, const char* name) {
  auto at = object.find(name);
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

Result<std::string> string_field(const nlohmann::json& object, const char* name) {
  const nlohmann::json* value = json_field(object, name);
  if (!value) return std::string();
  if (!value->is_string()) return wrong(name, "a string");
  return value->get<std::string>();
}

Result<bool> bool_field(const nlohmann::json& object, const char* name, bool otherwise) {
  const nlohmann::json* value = json_field(object, name);
  if (!value) return otherwise;
  if (!value->is_boolean()) return wrong(name, "true or false");
  return value->get<bool>();
}

Result<uint64_t> number_field(const nlohmann::json& object, const char* name, uint64_t otherwise) {
  const nlohmann::json* value = json_field(object, name);
  if (!value) return otherwise;
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  if (value->is_string()) {
    if (auto number = parse_number(value->get_ref<const std::string&>())) return *number;
  }
  return wrong(name, "a number");
}

Result<std::map<std::string, std::string>> map_field(const nlohmann::json& object, const char* name) {
  std::map<std::string, std::string> out;
  const nlohmann::json* value = json_field(object, name);
  if (!value) return out;
  if (!value->is_object()) return wrong(name, "an object");
  for (const auto& [key, entry] : value->items()) {
    if (!entry.is_string()) return wrong(name, "an object of strings");
    out[key] = entry.get<std::string>();
  }
  return out;
}

Result<std::vector<std::string>> list_field(const nlohmann::json& object, const char* name) {
  std::vector<std::string> out;
  const nlohmann::json* value = json_field(object, name);
  if (!value) return out;
  if (!value->is_array()) return wrong(name, "a list");
  for (const auto& entry : *value) {
    if (!entry.is_string()) return wrong(name, "a list of strings");
    out.push_back(entry.get<std::string>());
  }
  return out;
}

}  // namespace stasis::guest
