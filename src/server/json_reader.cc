#include "server/json_reader.h"

namespace stasis::server {
namespace {

Error wrong(const char* name, const std::string& what) {
  return {Code::kInvalidArgument, "field '" + std::string(name) + "' " + what, ""};
}

}  // namespace

Result<Json> parse_object(std::string_view text) {
  if (text.empty()) return Json::object();
  try {
    Json value = Json::parse(text);
    if (value.is_object()) return value;
    return fail(Code::kInvalidArgument, "the body is not a JSON object");
  } catch (const Json::parse_error& error) {
    return fail(Code::kInvalidArgument, "the body is not JSON: error at byte " + std::to_string(error.byte),
                "send a JSON object in UTF-8");
  }
}

const Json* JsonReader::take(const char* name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> JsonReader::text(const char* name, size_t max_length) {
  const Json* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    reject(wrong(name, "is not a string"));
    return std::nullopt;
  }
  std::string text = value->get<std::string>();
  if (text.size() > max_length) reject(wrong(name, "is longer than " + std::to_string(max_length) + " bytes"));
  return text;
}

std::optional<uint32_t> JsonReader::number(const char* name, uint32_t max) {
  const Json* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_unsigned() || value->get<uint64_t>() > max) {
    reject(wrong(name, "is not a whole number from 0 to " + std::to_string(max)));
    return std::nullopt;
  }
  return static_cast<uint32_t>(value->get<uint64_t>());
}

std::optional<bool> JsonReader::flag(const char* name) {
  const Json* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    reject(wrong(name, "is not true or false"));
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<Json> JsonReader::text_map(const char* name, size_t max_entries, size_t max_bytes) {
  const Json* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) {
    reject(wrong(name, "is not an object"));
    return std::nullopt;
  }
  size_t bytes = 0;
  for (const auto& [key, item] : value->items()) {
    if (!item.is_string()) {
      reject(wrong(name, "has a value that is not a string: '" + key + "'"));
      return std::nullopt;
    }
    bytes += key.size() + item.get_ref<const std::string&>().size();
  }
  if (value->size() > max_entries || bytes > max_bytes) {
    reject(wrong(
        name, "is larger than " + std::to_string(max_entries) + " entries or " + std::to_string(max_bytes) + " bytes"));
    return std::nullopt;
  }
  return *value;
}

std::optional<std::vector<std::string>> JsonReader::text_list(const char* name, size_t max_entries) {
  const Json* value = take(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array() || value->size() > max_entries) {
    reject(wrong(name, "is not a list of at most " + std::to_string(max_entries) + " strings"));
    return std::nullopt;
  }
  std::vector<std::string> list;
  for (const Json& item : *value) {
    if (!item.is_string()) {
      reject(wrong(name, "has an entry that is not a string"));
      return std::nullopt;
    }
    list.push_back(item.get<std::string>());
  }
  return list;
}

bool JsonReader::is_text(const char* name) const {
  const auto found = object_.find(name);
  return found != object_.end() && found->is_string();
}

void JsonReader::require(const char* name, bool present) {
  if (!present) reject(wrong(name, "is missing"));
}

void JsonReader::reject(Error error) {
  if (!error_) error_ = std::move(error);
}

Status JsonReader::finish() {
  if (error_) return fail(*error_);
  for (const auto& [name, value] : object_.items()) {
    if (!known_.contains(name)) {
      return fail(Code::kInvalidArgument, "unknown field '" + name + "'", "GET /openapi.yaml names the fields");
    }
  }
  return {};
}

}  // namespace stasis::server
