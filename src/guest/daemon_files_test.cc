// Files, /init and access, end to end over HTTP.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <iterator>

#include "guest/daemon_fixture.h"
#include "guest/gzip.h"
#include "guest/settings.h"

namespace stasis::guest {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const HeaderMap kBytes = {{"Content-Type", "application/octet-stream"}};
const HeaderMap kJson = {{"Content-Type", "application/json"}};

class DaemonFilesTest : public DaemonFixture {
 protected:
  std::string target(const std::string& name, const std::string& more = "") const {
    return "/files?path=" + directory_.path(name) + more;
  }
  Answer get(const std::string& where, const HeaderMap& headers = {}) {
    return client_->request(http::verb::get, where, "", headers);
  }
  Answer post(const std::string& where, const std::string& body, const HeaderMap& headers = kBytes) {
    return client_->request(http::verb::post, where, body, headers);
  }
  Answer filesystem(const std::string& method, const json& request) {
    return client_->rpc("filesystem.Filesystem/" + method, request);
  }
};

TEST_F(DaemonFilesTest, WritesAndReadsBack) {
  std::string content("a\0b\nc", 5);
  for (int i = 0; i < 300'000; ++i) content += static_cast<char>(i * 7);
  auto written = post(target("new/deep/file.bin", "&username=daemon"), content);
  EXPECT_EQ(written.status, 200);
  EXPECT_EQ(written.json(),
            (json::array({{{"name", "file.bin"}, {"path", directory_.path("new/deep/file.bin")}, {"type", "file"}}})));
  auto read = get(target("new/deep/file.bin"), {{"Accept-Encoding", "gzip, deflate"}});
  EXPECT_EQ(read.status, 200);
  EXPECT_EQ(read.body, content);
  EXPECT_EQ(read.headers["Content-Length"], std::to_string(content.size()));
  struct stat info {};
  for (const char* name : {"new", "new/deep", "new/deep/file.bin"}) {
    ASSERT_EQ(stat(directory_.path(name).c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 1U) << name;
  }
  EXPECT_EQ(post(target("new/deep/file.bin"), "short").status, 200);
  EXPECT_EQ(directory_.read("new/deep/file.bin"), "short");
}

TEST_F(DaemonFilesTest, FilesThatAreMadeUpAsTheyAreReadComeWhole) {
  const auto lines_of = [](const char* path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  for (const char* path : {"/sys/kernel/mm/transparent_hugepage/enabled", "/proc/filesystems"}) {
    auto whole = get(std::string("/files?path=") + path);
    EXPECT_EQ(whole.status, 200) << path;
    EXPECT_EQ(whole.body, lines_of(path));
  }
}

TEST_F(DaemonFilesTest, Ranges) {
  directory_.write("f", "0123456789");
  auto part = get(target("f"), {{"Range", "bytes=2-4"}});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "234");
  EXPECT_EQ(part.headers["Content-Range"], "bytes 2-4/10");
  EXPECT_EQ(get(target("f"), {{"Range", "bytes=10-"}}).status, 416);
  directory_.write("empty", "");
  EXPECT_EQ(get(target("empty")).headers["Content-Length"], "0");
}

TEST_F(DaemonFilesTest, ErrorsHaveTheirForms) {
  EXPECT_EQ(get("/files?path=/no/such").json(),
            json::parse(R"({"code":404,"message":"path '/no/such' does not exist"})"));
  EXPECT_EQ(get("/files?path=/tmp").status, 400);
  EXPECT_EQ(get("/files?path=/etc/passwd&username=nobody-of-that-name").status, 401);
  EXPECT_EQ(post("/files?path=/tmp", "x").status, 400);
  EXPECT_EQ(post("/files", "x").status, 400);
  EXPECT_EQ(post(target("x"), "x", {{"Content-Type", "text/plain"}}).status, 400);
  EXPECT_EQ(post("/files?path=/etc/passwd/x", "x").status, 400);
  EXPECT_EQ(client_->request(http::verb::put, target("x"), "x", kBytes).status, 405);
  EXPECT_EQ(post("/files?path=/dev/full", "x").status, 507);
}

TEST_F(DaemonFilesTest, Multipart) {
  auto part = [](const std::string& filename, const std::string& data) {
    return "--BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + filename + "\"\r\n\r\n" + data +
           "\r\n";
  };
  const HeaderMap type = {{"Content-Type", "multipart/form-data; boundary=BB"}};
  auto two =
      post("/files", part(directory_.path("m/one"), "1") + part(directory_.path("m/two"), "22") + "--BB--\r\n", type);
  EXPECT_EQ(two.status, 200) << two.body;
  EXPECT_EQ(two.json().size(), 2U);
  EXPECT_EQ(directory_.read("m/one") + directory_.read("m/two"), "122");
  EXPECT_EQ(post(target("named"), part("ignored", "abc") + "--BB--\r\n", type).json()[0]["path"],
            directory_.path("named"));
  EXPECT_EQ(post("/files", part(directory_.path("cut"), "1"), type).status, 400);
  EXPECT_EQ(post("/files", "--BB--\r\n", type).status, 400);
}

TEST_F(DaemonFilesTest, GzipOnlyWhenItIsAskedFor) {
  std::string content(100'000, 'z');
  GzipEncoder encoder;
  EXPECT_EQ(post(target("z"), encoder.encode(content, true),
                 {{"Content-Type", "application/octet-stream"}, {"Content-Encoding", "gzip"}})
                .status,
            200);
  EXPECT_EQ(directory_.read("z"), content);
  auto packed = get(target("z"), {{"Accept-Encoding", "gzip"}});
  EXPECT_EQ(packed.headers["Content-Encoding"], "gzip");
  EXPECT_LT(packed.body.size(), 10'000U);
  std::string out;
  GzipDecoder decoder;
  ASSERT_TRUE(decoder.decode(packed.body, [&](std::string_view piece) {
    out.append(piece);
    return Status();
  }));
  EXPECT_EQ(out, content);
  EXPECT_EQ(post(target("y"), "not gzip", {{"Content-Type", "application/octet-stream"}, {"Content-Encoding", "gzip"}})
                .status,
            400);
}

TEST_F(DaemonFilesTest, Directories) {
  std::string path = directory_.path("tree/a");
  json made = filesystem("MakeDir", {{"path", path}}).json();
  EXPECT_EQ(made["entry"]["type"], "FILE_TYPE_DIRECTORY");
  auto again = filesystem("MakeDir", {{"path", path}});
  EXPECT_EQ(again.status, 409);
  EXPECT_EQ(again.json()["code"], "already_exists");
  directory_.write("tree/file", "12345");
  EXPECT_EQ(filesystem("MakeDir", {{"path", directory_.path("tree/file")}}).json()["code"], "invalid_argument");
  EXPECT_EQ(filesystem("ListDir", {{"path", path}}).body, "{}");
  directory_.write("tree/a/inner", "x");
  json flat = filesystem("ListDir", {{"path", directory_.path("tree")}, {"depth", 1}}).json();
  ASSERT_EQ(flat["entries"].size(), 2U);
  EXPECT_EQ(flat["entries"][1]["name"], "file");
  EXPECT_EQ(flat["entries"][1]["size"], "5");
  EXPECT_EQ(filesystem("ListDir", {{"path", directory_.path("tree")}, {"depth", 2}}).json()["entries"].size(), 3U);
  EXPECT_EQ(filesystem("ListDir", {{"path", directory_.path("tree/file")}}).status, 400);
  EXPECT_EQ(filesystem("ListDir", {{"path", "/no/such"}}).status, 404);
}

TEST_F(DaemonFilesTest, StatMoveRemove) {
  directory_.write("one", "abc");
  ASSERT_EQ(chmod(directory_.path("one").c_str(), 0640), 0);
  ASSERT_EQ(symlink("one", directory_.path("link").c_str()), 0);
  ASSERT_EQ(symlink("nowhere", directory_.path("broken").c_str()), 0);
  json entry = filesystem("Stat", {{"path", directory_.path("one")}}).json()["entry"];
  EXPECT_EQ(entry["mode"], 0640);
  EXPECT_EQ(entry["permissions"], "-rw-r-----");
  EXPECT_EQ(entry["owner"], "root");
  EXPECT_TRUE(parse_rfc3339(entry["modifiedTime"].get<std::string>()));
  json link = filesystem("Stat", {{"path", directory_.path("link")}}).json()["entry"];
  EXPECT_EQ(link["type"], "FILE_TYPE_FILE");
  EXPECT_EQ(link["symlinkTarget"], directory_.path("one"));
  EXPECT_EQ(filesystem("Stat", {{"path", directory_.path("broken")}}).json()["entry"]["type"], "FILE_TYPE_SYMLINK");
  EXPECT_EQ(filesystem("Stat", {{"path", "/no/such"}}).json()["code"], "not_found");
  auto moved = filesystem("Move", {{"source", directory_.path("one")}, {"destination", directory_.path("to/two")}});
  EXPECT_EQ(moved.json()["entry"]["name"], "two");
  EXPECT_EQ(directory_.read("to/two"), "abc");
  EXPECT_EQ(filesystem("Move", {{"source", directory_.path("one")}, {"destination", directory_.path("x")}}).status,
            404);
  EXPECT_EQ(filesystem("Remove", {{"path", directory_.path("to")}}).body, "{}");
  EXPECT_EQ(filesystem("Remove", {{"path", directory_.path("to")}}).body, "{}");
  EXPECT_EQ(filesystem("Stat", {{"path", directory_.path("to")}}).status, 404);
  EXPECT_EQ(filesystem("Remove", {{"path", "/"}}).status, 400);
  EXPECT_EQ(filesystem("CreateWatcher", {{"path", "/"}}).json()["code"], "unimplemented");
}

TEST_F(DaemonFilesTest, InitSetsTheTokenOnceAndOnlyItsHolderChangesIt) {
  EXPECT_EQ(get("/metrics").status, 200);
  auto first = post("/init", R"({"accessToken":"one","envVars":{"FROM_INIT":"yes"},"defaultUser":"daemon"})", kJson);
  EXPECT_EQ(first.status, 204);
  EXPECT_EQ(first.headers["X-Envd-Version"], "0.6.4");
  EXPECT_EQ(get("/health").status, 204);
  EXPECT_EQ(get("/metrics").json()["code"], 401);
  EXPECT_EQ(client_->rpc("process.Process/List", json::object()).status, 401);
  EXPECT_EQ(get(target("f")).status, 401);
  EXPECT_EQ(post("/init", "{}", kJson).status, 401);
  EXPECT_EQ(post("/init", R"({"accessToken":"two"})", kJson).status, 401);
  EXPECT_EQ(post("/init", R"({"accessToken":"two","stasis":{"previousAccessToken":"wrong"}})", kJson).status, 401);
  EXPECT_EQ(post("/init", R"({"accessToken":"one"})", kJson).status, 204);
  EXPECT_EQ(post("/init", R"({"accessToken":"two","stasis":{"previousAccessToken":"one"}})", kJson).status, 204);
  EXPECT_EQ(get("/metrics", {{"X-Access-Token", "one"}}).status, 401);
  EXPECT_EQ(post("/init", R"({"accessToken":"three"})", {{"X-Access-Token", "two"}}).status, 204);
  client_->always = {{"X-Access-Token", "three"}};
  EXPECT_EQ(get("/metrics").status, 200);
  EXPECT_EQ(get("/envs").json()["FROM_INIT"], "yes");
  EXPECT_EQ(run("echo $FROM_INIT; id -un").out, "yes\ndaemon\n");
}

TEST_F(DaemonFilesTest, SignedUrlsOpenFilesOnly) {
  directory_.write("f", "secret");
  post("/init", R"({"accessToken":"tok"})", kJson);
  auto url = [&](const std::string& operation, std::optional<uint64_t> expiration) {
    std::string signature = url_signature(directory_.path("f"), operation, "", "tok", expiration);
    std::string encoded;
    for (char c : signature) encoded += c == '+' ? "%2B" : c == '/' ? "%2F" : std::string(1, c);
    return target("f",
                  "&signature=" + encoded + (expiration ? "&signature_expiration=" + std::to_string(*expiration) : ""));
  };
  auto now = static_cast<uint64_t>(std::time(nullptr));
  EXPECT_EQ(get(url("read", std::nullopt)).body, "secret");
  EXPECT_EQ(get(url("read", now + 60)).body, "secret");
  EXPECT_EQ(get(url("read", now - 60)).status, 401);
  EXPECT_EQ(get(url("write", std::nullopt)).status, 401);
  EXPECT_EQ(post(url("write", std::nullopt), "new").status, 200);
  EXPECT_EQ(directory_.read("f"), "new");
}

TEST_F(DaemonFilesTest, InitGivesAnIdentityAndEndsOldStreams) {
  auto stream = start(bash("read; echo later; sleep 60", {{"stdin", true}}));
  json process = {{"pid", stream->event()["start"]["pid"]}};
  json identity = {{"hostname", "clone-7"},
                   {"machineId", "0123456789abcdef0123456789abcdef"},
                   {"entropy", base64_encode(std::string(64, 'e'))},
                   {"sandboxId", "sb7"},
                   {"templateId", "t1"}};
  EXPECT_EQ(
      post("/init", json{{"stasis", identity}, {"timestamp", "2026-11-24T22:31:05.123456789Z"}}.dump(), kJson).status,
      204);
  EXPECT_FALSE(stream->next());
  EXPECT_EQ(directory_.read("etc/hostname"), "clone-7\n");
  EXPECT_EQ(directory_.read("etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
  EXPECT_EQ(directory_.read("run/e2b/.E2B_SANDBOX_ID"), "sb7");
  EXPECT_EQ(run("echo $E2B_SANDBOX $E2B_SANDBOX_ID $E2B_TEMPLATE_ID").out, "true sb7 t1\n");
  client_->rpc("process.Process/SendInput", {{"process", process}, {"input", {{"stdin", base64_encode("\n")}}}});
  auto connected = client_->stream("process.Process/Connect", json{{"process", process}});
  EXPECT_TRUE(connected->event().contains("start"));
  EXPECT_EQ(base64_decode(connected->event()["data"]["stdout"].get<std::string>()), "later\n");
}

TEST_F(DaemonFilesTest, BadInitChangesNothing) {
  for (const char* body :
       {"[", R"({"accessToken":1})", R"({"accessToken":"t","timestamp":"now"})", R"({"accessToken":"t","stasis":1})",
        R"({"accessToken":"t","stasis":{"hostname":"a b"}})", R"({"accessToken":"t","stasis":{"machineId":"x"}})",
        R"({"accessToken":"t","stasis":{"entropy":"*"}})",
        R"({"accessToken":"t","defaultUser":"nobody-of-that-name"})"}) {
    EXPECT_EQ(post("/init", body, kJson).status, 400) << body;
  }
  EXPECT_EQ(get("/metrics").status, 200);
}

TEST_F(DaemonFilesTest, Metadata) {
  auto written = post(target("m"), "x", {{"Content-Type", "application/octet-stream"}, {"X-Metadata-Color", "blue"}});
  ASSERT_EQ(written.status, 200) << written.body;
  EXPECT_EQ(written.json()[0]["metadata"]["color"], "blue");
  EXPECT_EQ(filesystem("Stat", {{"path", directory_.path("m")}}).json()["entry"]["metadata"]["color"], "blue");
  EXPECT_EQ(post(target("m"), "x").status, 200);
  EXPECT_FALSE(filesystem("Stat", {{"path", directory_.path("m")}}).json()["entry"].contains("metadata"));
}

}  // namespace
}  // namespace stasis::guest
