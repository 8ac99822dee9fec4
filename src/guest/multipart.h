// Splits a multipart/form-data body as it comes in, without holding a part in memory. The user feeds bytes; the sink
// gets each part's headers, then its data in pieces, then its end.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace stasis::guest {

struct PartHead {
  std::string name;
  std::string filename;
};

class MultipartSink {
 public:
  virtual ~MultipartSink() = default;
  virtual Status begin_part(const PartHead& head) = 0;
  virtual Status part_data(std::string_view data) = 0;
  virtual Status end_part() = 0;
};

class MultipartParser {
 public:
  MultipartParser(std::string boundary, MultipartSink& sink)
      : delimiter_("\r\n--" + boundary), buffer_("\r\n"), sink_(sink) {}

  Status feed(std::string_view data);
  // To be called at the end of the body: kInvalidArgument if the closing boundary is missing.
  Status finish() const;

 private:
  enum class State { kPreamble, kAfterDelimiter, kHeaders, kData, kDone };
  // One step of progress; false if more bytes are needed.
  Result<bool> step();
  Result<bool> skip_or_pass_data();
  Result<bool> after_delimiter();
  Result<bool> headers();

  std::string delimiter_;
  std::string buffer_;
  MultipartSink& sink_;
  State state_ = State::kPreamble;
};

// The boundary of a Content-Type "multipart/form-data; boundary=..."; nothing for another type.
std::optional<std::string> multipart_boundary(std::string_view content_type);
// "form-data; name=\"file\"; filename=\"a.txt\"" as its parameters.
std::map<std::string, std::string> header_parameters(std::string_view value);

}  // namespace stasis::guest
