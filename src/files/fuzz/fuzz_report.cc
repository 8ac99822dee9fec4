// Bytes are no report of stasis-files, or one that encodes to the same bytes.
#include <algorithm>
#include <cstdlib>

#include "files/report.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto report = stasis::files::decode(bytes);
  if (!report) return 0;
  const auto again = stasis::files::encode(report);
  if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) std::abort();
  return 0;
}
