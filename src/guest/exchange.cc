#include "guest/exchange.h"

#include <array>
#include <nlohmann/json.hpp>

#include "guest/text.h"

namespace stasis::guest {

Result<std::string> Exchange::read_whole_body(size_t limit) {
  std::string body;
  std::array<char, 8192> buffer;  // pages of a stack that are there already: most bodies are small
  for (;;) {
    STASIS_ASSIGN(size_t count, read_body(buffer));
    if (count == 0) return body;
    if (body.size() + count > limit) {
      return fail(Code::kResourceExhausted, "request body is longer than " + std::to_string(limit) + " bytes");
    }
    body.append(buffer.data(), count);
  }
}

void send_http_error(Exchange& exchange, int status, std::string_view message) {
  exchange.send(status, {{"Content-Type", "application/json"}},
                to_text(nlohmann::json{{"code", status}, {"message", message}}));
}

}  // namespace stasis::guest
