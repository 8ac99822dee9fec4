// gzip for transfers, piece by piece (zlib behind it).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::guest {

class GzipEncoder {
 public:
  GzipEncoder();
  ~GzipEncoder();
  GzipEncoder(const GzipEncoder&) = delete;
  GzipEncoder& operator=(const GzipEncoder&) = delete;
  // What is ready after this piece, possibly nothing.
  std::string encode(std::string_view data, bool last);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class GzipDecoder {
 public:
  GzipDecoder();
  ~GzipDecoder();
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;
  // Passes what this piece decompresses to, in parts of bounded size.
  Status decode(std::string_view data, const std::function<Status(std::string_view)>& use);
  Status finish() const;  // kInvalidArgument if the data ended early

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stasis::guest
