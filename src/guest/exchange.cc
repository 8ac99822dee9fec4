#include "guest/exchange.h"

#include <nlohmann/json.hpp>

#include "guest/text.h"

namespace stasis::guest {

Result<std::string> Exchange::read_whole_body(size_t limit) {
  std::string body;
  std::vector<char> buffer(size_t{64} << 10);
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
