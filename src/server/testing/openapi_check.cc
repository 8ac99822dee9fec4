#include "server/testing/openapi_check.h"

#include <algorithm>

#include "server/http.h"
#include "server/openapi.h"
#include "server/testing/rest_client.h"

namespace stasis::server::testing {
namespace {

const Json& description() {
  static const Json document = Json::parse(kOpenApi);
  return document;
}

const Json& resolve(const Json& node) {
  if (!node.is_object() || !node.contains("$ref")) return node;
  const std::string reference = node["$ref"];
  return description().at(Json::json_pointer(reference.substr(1)));  // "#/components/..."
}

bool is_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  return type == "null" && value.is_null();
}

bool type_allowed(const Json& schema, const Json& value) {
  if (!schema.contains("type")) return true;
  const Json& type = schema["type"];
  if (type.is_string()) return is_type(value, type);
  return std::any_of(type.begin(), type.end(), [&](const Json& one) { return is_type(value, one); });
}

std::string check(const Json& unresolved, const Json& value, const std::string& where);

std::string check_object(const Json& schema, const Json& value, const std::string& where) {
  for (const Json& name : schema.value("required", Json::array())) {
    if (!value.contains(name.get<std::string>())) return where + " lacks " + name.get<std::string>();
  }
  const Json properties = schema.value("properties", Json::object());
  for (const auto& [name, item] : value.items()) {
    const std::string inner = std::string(where).append(".").append(name);
    std::string wrong;
    if (properties.contains(name)) {
      wrong = check(properties[name], item, inner);
    } else if (schema.contains("additionalProperties")) {
      const Json& additional = schema["additionalProperties"];
      if (additional == Json(false)) return inner + " is not described";
      if (additional.is_object()) wrong = check(additional, item, inner);
    }
    if (!wrong.empty()) return wrong;
  }
  return "";
}

std::string check(const Json& unresolved, const Json& value, const std::string& where) {
  const Json& schema = resolve(unresolved);
  if (schema.contains("oneOf")) {
    std::string last;
    for (const Json& one : schema["oneOf"]) {
      last = check(one, value, where);
      if (last.empty()) return "";
    }
    return last;
  }
  if (!type_allowed(schema, value)) return where + " has the wrong type: " + value.dump();
  if (schema.contains("enum")) {
    const Json& allowed = schema["enum"];
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) return where + " is " + value.dump();
  }
  if (value.is_object()) return check_object(schema, value, where);
  if (value.is_array() && schema.contains("items")) {
    for (const Json& item : value) {
      if (std::string wrong = check(schema["items"], item, where + "[]"); !wrong.empty()) return wrong;
    }
  }
  return "";
}

// The described path that `target` falls under; null if there is none.
const Json* find_path(const std::string& target) {
  HttpRequest request;
  if (!parse_target(target, request)) return nullptr;
  for (const auto& [pattern, item] : description()["paths"].items()) {
    HttpRequest described;
    (void)parse_target(pattern, described);
    if (described.segments.size() != request.segments.size()) continue;
    bool same = true;
    for (size_t i = 0; i < described.segments.size(); ++i) {
      same = same && (described.segments[i].starts_with('{') || described.segments[i] == request.segments[i]);
    }
    if (same) return &item;
  }
  return nullptr;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

std::string schema_error(const std::string& schema, const Json& value) {
  return check(description()["components"]["schemas"].at(schema), value, schema);
}

std::string description_error(const std::string& method, const std::string& target, const Answer& answer) {
  const Json* path = find_path(target);
  if (path == nullptr)
    return answer.status == 404 || answer.status == 400 ? schema_error("Error", answer.body) : "no path " + target;
  if (answer.status == 405) return schema_error("Error", answer.body);
  if (!path->contains(lower(method))) return "no method " + method + " at " + target;
  const Json& answers = (*path)[lower(method)]["responses"];
  const std::string status = std::to_string(answer.status);
  if (!answers.contains(status)) return method + " " + target + " is not described to answer " + status;
  const Json& described = resolve(answers[status]);
  if (!described.contains("content")) return answer.text.empty() ? "" : "an answer " + status + " has a body";
  const auto found = answer.headers.find("content-type");
  const std::string type = found == answer.headers.end() ? "" : found->second.substr(0, found->second.find(';'));
  if (!described["content"].contains(type)) return "an answer " + status + " has Content-Type '" + type + "'";
  return type == "application/json" ? check(described["content"][type]["schema"], answer.body, "body") : "";
}

}  // namespace stasis::server::testing
