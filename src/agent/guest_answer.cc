#include "agent/guest_answer.h"

#include <cstdlib>

namespace stasis::agent {
namespace {

using nlohmann::json;

constexpr size_t kMaxMessage = 4096;

Code code_of_status(unsigned status) {
  switch (status) {
    case 400:
    case 401:
      return Code::kInvalidArgument;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kAlreadyExists;
    case 507:
      return Code::kResourceExhausted;
    default:
      return Code::kInternal;
  }
}

}  // namespace

std::string text_field(const json& object, const char* name) {
  if (!object.is_object()) return "";
  const auto field = object.find(name);
  return field != object.end() && field->is_string() ? field->get<std::string>() : "";
}

int64_t number_field(const json& object, const char* name) {
  if (!object.is_object()) return 0;
  const auto field = object.find(name);
  if (field == object.end()) return 0;
  if (field->is_number_integer()) return field->get<int64_t>();
  if (field->is_string()) return std::strtoll(field->get_ref<const std::string&>().c_str(), nullptr, 10);
  return 0;
}

const json* object_field(const json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto field = object.find(name);
  return field != object.end() && field->is_object() ? &*field : nullptr;
}

Error guest_error(unsigned status, const json& body) {
  Error error{code_of_status(status), text_field(body, "message").substr(0, kMaxMessage)};
  if (error.message.empty()) error.message = "the guest daemon answered with status " + std::to_string(status);
  const std::string word = text_field(body, "code");
  if (!word.empty()) error.code = code_from_name(word);
  // It is about the guest's users. To whoever asks, "unauthenticated" would speak of his own token.
  if (error.code == Code::kUnauthenticated) error.code = Code::kInvalidArgument;
  return error;
}

Error guest_error(unsigned status, const std::string& body) {
  return guest_error(status, json::parse(body, nullptr, false));
}

}  // namespace stasis::agent
