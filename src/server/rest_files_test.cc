#include <gmock/gmock.h>

#include "base/base64.h"
#include "server/testing/harness.h"

namespace stasis::server::testing {
namespace {

using ::testing::HasSubstr;

class RestFiles : public ServerTest {
 protected:
  Answer files(const std::string& id, const std::string& what, const Json& body) {
    return client().post(path(id, "/files/" + what), body);
  }
  Answer upload(const std::string& id, const std::string& query, const std::string& bytes) {
    return client().send("POST", path(id, "/files/write" + query), bytes,
                         {{"Content-Type", "application/octet-stream"}});
  }
  Answer download(const std::string& id, const std::string& query) {
    return client().send("POST", path(id, "/files/read" + query), "", {{"Accept", "application/octet-stream"}});
  }
  std::string stored(const std::string& id, const std::string& file) {
    std::string content;
    agent_->edit([&](auto& sandboxes, auto&) { content = sandboxes.at(id).files.at(file); });
    return content;
  }
};

TEST_F(RestFiles, ContentInJson) {
  const std::string id = create();
  EXPECT_EQ(files(id, "write", {{"path", "/a"}, {"content", "h\xc3\xa9llo"}}).body["bytes"], 6);
  EXPECT_EQ(stored(id, "/a"), "h\xc3\xa9llo");
  const std::string bytes("\0\xff\n", 3);
  EXPECT_EQ(files(id, "write", {{"path", "/b"}, {"content_base64", base64_encode(bytes)}}).status, 200u);
  const Answer read = files(id, "read", {{"path", "/b"}});
  EXPECT_EQ(read.body["size"], 3);
  EXPECT_EQ(read.body["content_base64"], base64_encode(bytes));
  EXPECT_EQ(files(id, "read", {{"path", "/nosuch"}}).status, 404u);
}

TEST_F(RestFiles, BytesOfAnyLengthAreStreamed) {
  const std::string id = create();
  std::string bytes(20 << 20, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 251);
  const Answer written = upload(id, "?path=%2Fbig", bytes);
  ASSERT_EQ(written.status, 200u) << written.text;
  EXPECT_EQ(written.body["bytes"], bytes.size());
  EXPECT_TRUE(stored(id, "/big") == bytes);
  const Answer read = download(id, "?path=/big");
  ASSERT_EQ(read.status, 200u);
  EXPECT_TRUE(read.text == bytes);
  EXPECT_EQ(upload(id, "?path=/empty", "").body["bytes"], 0);
  EXPECT_EQ(download(id, "?path=/empty").text, "");
  const Answer whole = files(id, "read", {{"path", "/big"}});
  EXPECT_EQ(whole.status, 507u);
  EXPECT_THAT(std::string(whole.body["error"]["remedy"]), HasSubstr("octet-stream"));
}

TEST_F(RestFiles, ErrorsOfTheAgentEndAnUpload) {
  const std::string id = create();
  const Answer full = upload(id, "?path=/full", std::string(8 << 20, 'x'));
  EXPECT_EQ(full.status, 507u) << full.text;
  EXPECT_EQ(full.error_code(), "resource_exhausted");
}

TEST_F(RestFiles, AReadThatBreaksIsNotTakenForWhole) {
  const std::string id = create();
  agent_->edit([&](auto& sandboxes, auto&) { sandboxes.at(id).files["/breaks"] = std::string(200'000, 'x'); });
  EXPECT_EQ(download(id, "?path=/breaks").status, 0u) << "the client must see a broken connection";
  EXPECT_EQ(files(id, "read", {{"path", "/breaks"}}).status, 500u);
}

TEST_F(RestFiles, AnUploadThatBreaksWritesNothing) {
  const std::string id = create();
  (void)client().raw_half_closed("POST " + path(id, "/files/write?path=/half") +
                                 " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + server_->token() +
                                 "\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\nonly this");
  agent_->edit([&](auto& sandboxes, auto&) { EXPECT_FALSE(sandboxes.at(id).files.contains("/half")); });
}

TEST_F(RestFiles, ListMakeAndRemove) {
  const std::string id = create();
  files(id, "write", {{"path", "/d/x"}, {"content", "abc"}});
  const Answer list = files(id, "list", {{"path", "/d"}, {"depth", 2}});
  ASSERT_EQ(list.body["entries"].size(), 1u) << list.text;
  EXPECT_EQ(list.body["entries"][0]["name"], "x");
  EXPECT_EQ(list.body["entries"][0]["size"], 3);
  EXPECT_EQ(files(id, "mkdir", {{"path", "/e"}}).status, 204u);
  EXPECT_EQ(files(id, "remove", {{"path", "/d/x"}}).status, 204u);
  EXPECT_EQ(files(id, "remove", {{"path", "/d/x"}}).status, 404u);
}

TEST_F(RestFiles, BadRequests) {
  const std::string id = create();
  EXPECT_EQ(files(id, "write", {{"path", "/a"}}).status, 400u);
  EXPECT_EQ(files(id, "write", {{"path", "/a"}, {"content", "x"}, {"content_base64", "eA=="}}).status, 400u);
  EXPECT_EQ(files(id, "write", {{"path", "/a"}, {"content_base64", "e"}}).status, 400u);
  EXPECT_EQ(files(id, "write", {{"content", "x"}}).status, 400u);
  EXPECT_EQ(files(id, "read", {{"path", std::string(5000, 'a')}}).status, 400u);
  EXPECT_EQ(files(id, "read", {{"path", std::string("a\0b", 3)}}).status, 400u);
  EXPECT_EQ(files(id, "list", {{"path", "/"}, {"depth", 65}}).status, 400u);
  EXPECT_EQ(files(id, "mkdir", Json::object()).status, 400u);
  EXPECT_EQ(upload(id, "", "x").status, 400u);
  EXPECT_EQ(upload(id, "?path=/a&color=red", "x").status, 400u);
  EXPECT_EQ(upload(id, "?path=%ff", "x").status, 400u);
  EXPECT_EQ(client().send("POST", path(id, "/files/write"), "x", {{"Content-Type", "text/html"}}).status, 400u);
  const Answer large = files(id, "write", {{"path", "/a"}, {"content", std::string(13 << 20, 'x')}});
  EXPECT_EQ(large.status, 413u) << large.text;
}

}  // namespace
}  // namespace stasis::server::testing
