#include "fields.h"

#include <algorithm>
#include <map>
#include <vector>

namespace fake {
namespace {

using Kind = nlohmann::json::value_t;

struct Field {
  const char* name;
  Kind kind;
  bool required;
};

const std::map<std::string, std::vector<Field>>& routes() {
  static const std::map<std::string, std::vector<Field>> table{
      {"/machine-config",
       {{"vcpu_count", Kind::number_unsigned, true},
        {"mem_size_mib", Kind::number_unsigned, true},
        {"smt", Kind::boolean, false},
        {"track_dirty_pages", Kind::boolean, false}}},
      {"/boot-source",
       {{"kernel_image_path", Kind::string, true},
        {"boot_args", Kind::string, false},
        {"initrd_path", Kind::string, false}}},
      {"/drives",
       {{"drive_id", Kind::string, true},
        {"path_on_host", Kind::string, false},
        {"is_root_device", Kind::boolean, true},
        {"is_read_only", Kind::boolean, false},
        {"cache_type", Kind::string, false}}},
      {"/network-interfaces",
       {{"iface_id", Kind::string, true}, {"host_dev_name", Kind::string, true}, {"guest_mac", Kind::string, false}}},
      {"/entropy", {}},
      {"/logger", {{"log_path", Kind::string, false}, {"level", Kind::string, false}}},
      {"/actions", {{"action_type", Kind::string, true}}},
      {"/vm", {{"state", Kind::string, true}}},
      {"/snapshot/create",
       {{"snapshot_type", Kind::string, false},
        {"snapshot_path", Kind::string, true},
        {"mem_file_path", Kind::string, true}}},
      {"/snapshot/load",
       {{"snapshot_path", Kind::string, true},
        {"mem_backend", Kind::object, true},
        {"track_dirty_pages", Kind::boolean, false},
        {"resume_vm", Kind::boolean, false},
        {"network_overrides", Kind::array, false}}},
  };
  return table;
}

}  // namespace

std::string route_of(const std::string& target) {
  for (const char* prefix : {"/drives", "/network-interfaces"}) {
    if (target.starts_with(std::string(prefix) + "/")) return prefix;
  }
  return target;
}

std::optional<std::string> body_fault(const std::string& route, const nlohmann::json& body) {
  const auto found = routes().find(route);
  if (found == routes().end()) return std::nullopt;
  if (!body.is_object()) return "expected value at line 1 column 1";
  const std::vector<Field>& fields = found->second;
  for (const auto& [name, value] : body.items()) {
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == name; });
    if (field == fields.end()) return "unknown field `" + name + "`";
    if (value.type() != field->kind) return "invalid type for `" + name + "`";
  }
  for (const Field& field : fields) {
    if (field.required && !body.contains(field.name)) return std::string("missing field `") + field.name + "`";
  }
  return std::nullopt;
}

}  // namespace fake
