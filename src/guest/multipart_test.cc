#include "guest/multipart.h"

#include <gtest/gtest.h>

#include <vector>

namespace stasis::guest {
namespace {

struct Part {
  PartHead head;
  std::string data;
  bool ended = false;
};

class Collector final : public MultipartSink {
 public:
  Status begin_part(const PartHead& head) override {
    parts.push_back({head, "", false});
    return {};
  }
  Status part_data(std::string_view data) override {
    parts.back().data.append(data);
    return {};
  }
  Status end_part() override {
    parts.back().ended = true;
    return {};
  }
  std::vector<Part> parts;
};

const std::string kBody =
    "preamble\r\n--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"/tmp/a b.txt\"\r\n"
    "Content-Type: text/plain\r\n\r\nline\r\n--X not the end\r\n--\r\n--XX\r\n"
    "content-disposition: form-data; name=other\r\n\r\n\r\n--XX\r\n"
    "Content-Disposition: form-data; name=\"file\"; filename=\"x\"; "
    "filename*=UTF-8''%C3%A4.txt\r\n\r\nend\r\n--XX--\r\nepilogue";

TEST(Multipart, SplitsWhateverThePieces) {
  for (size_t piece = 1; piece <= kBody.size(); ++piece) {
    Collector sink;
    MultipartParser parser("XX", sink);
    for (size_t at = 0; at < kBody.size(); at += piece)
      ASSERT_TRUE(parser.feed(std::string_view(kBody).substr(at, piece)));
    ASSERT_TRUE(parser.finish());
    ASSERT_EQ(sink.parts.size(), 3U) << piece;
    EXPECT_EQ(sink.parts[0].head.name, "file");
    EXPECT_EQ(sink.parts[0].head.filename, "/tmp/a b.txt");
    EXPECT_EQ(sink.parts[0].data, "line\r\n--X not the end\r\n--");
    EXPECT_EQ(sink.parts[1].head.name, "other");
    EXPECT_EQ(sink.parts[1].data, "");
    EXPECT_EQ(sink.parts[2].head.filename, "ä.txt");
    EXPECT_EQ(sink.parts[2].data, "end");
    EXPECT_TRUE(sink.parts[2].ended);
  }
}

TEST(Multipart, FirstBoundaryNeedsNoLineBefore) {
  Collector sink;
  MultipartParser parser("b", sink);
  ASSERT_TRUE(parser.feed("--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--"));
  EXPECT_TRUE(parser.finish());
  ASSERT_EQ(sink.parts.size(), 1U);
  EXPECT_EQ(sink.parts[0].data, "x");
}

TEST(Multipart, MissingClosingBoundaryIsAnError) {
  Collector sink;
  MultipartParser parser("b", sink);
  ASSERT_TRUE(parser.feed("--b\r\n\r\nx"));
  EXPECT_EQ(parser.finish().error().code, Code::kInvalidArgument);
}

TEST(Multipart, EndlessHeadersAreAnError) {
  Collector sink;
  MultipartParser parser("b", sink);
  EXPECT_FALSE(parser.feed("--b\r\nX: " + std::string(20'000, 'x')));
}

TEST(Multipart, BoundaryComesFromTheContentType) {
  EXPECT_EQ(multipart_boundary("multipart/form-data; boundary=abc"), "abc");
  EXPECT_EQ(multipart_boundary("Multipart/Form-Data; charset=x; Boundary=\"a b\""), "a b");
  EXPECT_EQ(multipart_boundary("multipart/form-data"), std::nullopt);
  EXPECT_EQ(multipart_boundary("application/octet-stream; boundary=a"), std::nullopt);
  EXPECT_EQ(multipart_boundary("multipart/form-data; boundary=" + std::string(300, 'x')), std::nullopt);
}

TEST(HeaderParameters, QuotesAndEscapes) {
  auto parameters = header_parameters(R"(form-data; name="a;b"; filename="q\"u\\o"; flag; last=1)");
  EXPECT_EQ(parameters["name"], "a;b");
  EXPECT_EQ(parameters["filename"], "q\"u\\o");
  EXPECT_EQ(parameters["last"], "1");
}

}  // namespace
}  // namespace stasis::guest
