// Text from the other side of the control socket, or from a file of the sandbox's directory, is refused or taken.
#include <string_view>

#include "supervisor/protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis::supervisor;
  const auto json = nlohmann::json::parse(std::string_view(reinterpret_cast<const char*>(data), size), nullptr, false);
  if (json.is_discarded()) return 0;
  (void)config_from_json(json);
  (void)state_from_json(json);
  (void)snapshot_from_json(json);
  (void)exit_from_json(json);
  (void)report_from_json(json);
  (void)trace_from_json(json);
  (void)error_from_json(json);
  return 0;
}
