// The Connect protocol's stream envelopes: one flag byte, a 4-byte big-endian length, a payload. Flag 2 marks the last
// one.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::agent {

struct Envelope {
  bool last = false;
  std::string payload;
};

std::string encode_envelope(std::string_view payload);

// Fed with pieces of a stream as they come; gives whole envelopes. A payload over 16 MiB is refused.
class EnvelopeDecoder {
 public:
  void add(std::string_view bytes) { buffer_.append(bytes); }
  Result<std::optional<Envelope>> next();

 private:
  std::string buffer_;
};

}  // namespace stasis::agent
