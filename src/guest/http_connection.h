// Serves HTTP/1.1 on one connection: reads requests with Boost.Beast, hands each to the handler as an Exchange, and
// goes on with the next one while both sides keep the connection alive and the whole request body was read. Returns
// when the connection ends. Sizes of heads are bounded; bodies are pulled by the handler.
#pragma once

#include <functional>

#include "guest/exchange.h"

namespace stasis::guest {

using Handler = std::function<void(Exchange&)>;

void serve_connection(Socket& socket, const Handler& handler);

}  // namespace stasis::guest
