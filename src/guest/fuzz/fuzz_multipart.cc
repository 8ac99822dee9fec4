// A body is split into the same parts, or refused, in whatever pieces it comes.
#include <cstdlib>

#include "guest/multipart.h"

namespace {

using namespace stasis;

class Record final : public guest::MultipartSink {
 public:
  Status begin_part(const guest::PartHead& head) override {
    text += "<" + head.name + "|" + head.filename + ">";
    return {};
  }
  Status part_data(std::string_view data) override {
    text += data;
    return {};
  }
  Status end_part() override {
    text += "</>";
    return {};
  }
  std::string text;
};

// What came out, and whether it was whole.
std::string split(std::string_view body, size_t piece) {
  Record record;
  guest::MultipartParser parser("XX", record);
  for (size_t at = 0; at < body.size(); at += piece) {
    if (!parser.feed(body.substr(at, piece))) return "refused";
  }
  return parser.finish() ? "whole " + record.text : "cut short";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const std::string all = split(body, body.size() + 1);
  for (const size_t piece : {size_t{1}, size_t{7}}) {
    if (split(body, piece) != all) std::abort();
  }
  return 0;
}
