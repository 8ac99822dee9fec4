#include "server/json_codec.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"

namespace stasis::server {
namespace {

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

// Bytes that must follow a first byte in UTF-8; -1 if it is none.
int following(unsigned char byte) {
  if (byte < 0x80) return 0;
  if (byte >= 0xc2 && byte <= 0xdf) return 1;
  if (byte >= 0xe0 && byte <= 0xef) return 2;
  return byte >= 0xf0 && byte <= 0xf4 ? 3 : -1;
}

// Overlong forms, surrogates and what lies beyond Unicode show in the second byte.
bool second_byte_fits(unsigned char first, unsigned char second) {
  if (first == 0xe0) return second >= 0xa0;
  if (first == 0xed) return second <= 0x9f;
  if (first == 0xf0) return second >= 0x90;
  return first != 0xf4 || second <= 0x8f;
}

// One letter in UTF-8: of ASCII, DEL, or of the 32 behind that.
bool is_control(std::string_view letter) {
  const auto first = static_cast<unsigned char>(letter[0]);
  return first < 0x20 || first == 0x7f || (first == 0xc2 && static_cast<unsigned char>(letter[1]) < 0xa0);
}

}  // namespace

Json time_json(int64_t unix_ms) { return unix_ms == 0 ? Json() : Json(rfc3339(unix_ms * 1'000'000)); }

Json sandbox_json(const SandboxRecord& record) {
  return {{"id", record.id},
          {"template", record.template_name},
          {"state", state_name(record.state)},
          {"reason", record.reason},
          {"vcpus", record.vcpus},
          {"memory_mb", record.memory_mb},
          {"disk_mb", record.disk_mb},
          {"timeout_sec", record.timeout_sec},
          {"deadline", time_json(record.deadline_ms)},
          {"metadata", record.metadata},
          {"created_at", time_json(record.created_ms)},
          {"updated_at", time_json(record.updated_ms)},
          {"snapshot_id", or_null(record.snapshot_id)},
          {"vmm", record.vmm},
          {"accelerator", record.accelerator},
          {"address", record.address},
          {"times", record.times},
          {"restore", record.restore},
          {"last_snapshot", record.last_snapshot}};
}

Json template_json(const TemplateRecord& record) {
  return {{"name", record.name},
          {"type", record.type},
          {"snapshot_id", record.snapshot_id},
          {"vcpus", record.vcpus},
          {"memory_mb", record.memory_mb},
          {"disk_mb", record.disk_mb},
          {"size_bytes", record.size_bytes},
          {"created_at", time_json(record.created_ms)},
          {"sandbox_id", or_null(record.sandbox_id)},
          {"template", or_null(record.source_template)},
          {"capture", record.capture}};
}

Json entry_json(const pb::DirEntry& entry) {
  return {{"name", entry.name()}, {"path", entry.path()},   {"type", entry.type()},   {"size", entry.size()},
          {"mode", entry.mode()}, {"owner", entry.owner()}, {"group", entry.group()}, {"modified", entry.modified()}};
}

HttpResponse json_response(unsigned status, const Json& body) {
  HttpResponse response;
  response.status = status;
  response.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  return response;
}

std::string path_text(std::string_view path) {
  std::string text;
  while (!path.empty()) {
    const int more = following(static_cast<unsigned char>(path[0]));
    const std::string_view letter = path.substr(0, static_cast<size_t>(std::max(more, 0)) + 1);
    if (letter == "\\") {
      text += "\\\\";
    } else if (more < 0 || !is_utf8(letter) || is_control(letter)) {
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(path[0]));
      path.remove_prefix(1);
      continue;
    } else {
      text += letter;
    }
    path.remove_prefix(letter.size());
  }
  return text;
}

bool is_utf8(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const auto first = static_cast<unsigned char>(bytes[i++]);
    int left = following(first);
    if (left < 0) return false;
    if (left > 0 && (i >= bytes.size() || !second_byte_fits(first, static_cast<unsigned char>(bytes[i])))) return false;
    for (; left > 0; --left, ++i) {
      if (i >= bytes.size() || (static_cast<unsigned char>(bytes[i]) & 0xc0) != 0x80) return false;
    }
  }
  return true;
}

}  // namespace stasis::server
