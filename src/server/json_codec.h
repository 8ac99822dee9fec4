// How rows and the agent's messages look in JSON answers.
#pragma once

#include <string>
#include <string_view>

#include "server/host_agent.h"
#include "server/http.h"
#include "server/records.h"

namespace stasis::server {

Json sandbox_json(const SandboxRecord& record);
Json template_json(const TemplateRecord& record);
Json entry_json(const pb::DirEntry& entry);

// RFC 3339, or null for 0.
Json time_json(int64_t unix_ms);
HttpResponse json_response(unsigned status, const Json& body);
bool is_utf8(std::string_view bytes);
// A path of any bytes as text: backslashes are doubled, and bytes of control characters and what is not UTF-8 become
// \xNN, so that two paths never look the same and none can harm a terminal.
std::string path_text(std::string_view path);

}  // namespace stasis::server
