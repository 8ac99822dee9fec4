// The agent's small parts by themselves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <thread>

#include "agent/envelopes.h"
#include "agent/guest_answer.h"
#include "agent/guest_connection.h"
#include "agent/identity.h"
#include "agent/roots.h"
#include "agent/tokens.h"
#include "base/base64.h"
#include "base/testing/temp_dir.h"
#include "base/unix_socket.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

TEST(Envelopes, ComeOutWholeWhateverThePieces) {
  const std::string stream = encode_envelope("first") + encode_envelope("") + std::string("\x02\0\0\0\x02{}", 7);
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    EnvelopeDecoder decoder;
    std::vector<std::pair<bool, std::string>> got;
    for (size_t at = 0; at < stream.size(); at += piece) {
      decoder.add(stream.substr(at, piece));
      for (;;) {
        auto envelope = decoder.next();
        ASSERT_TRUE(envelope);
        if (!*envelope) break;
        got.emplace_back((*envelope)->last, (*envelope)->payload);
      }
    }
    EXPECT_THAT(got, ::testing::ElementsAre(std::pair(false, "first"), std::pair(false, ""), std::pair(true, "{}")));
  }
}

TEST(Envelopes, AHugeOneIsRefusedBeforeItComes) {
  EnvelopeDecoder decoder;
  decoder.add(std::string("\0\x7f\xff\xff\xff", 5));
  EXPECT_FALSE(decoder.next());
}

TEST(GuestAnswer, FieldsOfTheWrongTypeAreAbsent) {
  const json object{{"text", 5}, {"number", "17"}, {"object", "x"}, {"list", {1}}};
  EXPECT_EQ(text_field(object, "text"), "");
  EXPECT_EQ(number_field(object, "number"), 17);
  EXPECT_EQ(number_field(object, "object"), 0);
  EXPECT_EQ(object_field(object, "object"), nullptr);
  EXPECT_EQ(object_field(object, "list"), nullptr);
  EXPECT_EQ(text_field(json::array(), "text"), "");
}

TEST(GuestAnswer, ErrorsKeepTheirCode) {
  EXPECT_EQ(guest_error(404, std::string(R"({"code":404,"message":"gone"})")).code, Code::kNotFound);
  EXPECT_EQ(guest_error(500, std::string(R"({"code":"already_exists","message":"x"})")).code, Code::kAlreadyExists);
  EXPECT_NE(guest_error(418, std::string("")).message, "");
}

// Whoever asks would take it for a word about his own token.
TEST(GuestAnswer, AUserThatTheGuestDoesNotKnowIsAWrongArgument) {
  EXPECT_EQ(guest_error(401, std::string("no json")).code, Code::kInvalidArgument);
  EXPECT_EQ(guest_error(401, std::string(R"({"code":"unauthenticated","message":"invalid username: 'x'"})")).code,
            Code::kInvalidArgument);
}

// A socket that keeps what each call has sent apart.
TEST(GuestConnection, ARequestIsSentInOneCall) {
  auto sockets = unix_socket_pair(SOCK_SEQPACKET);
  ASSERT_TRUE(sockets);
  const UniqueFd& guest = sockets->second;
  GuestConnection connection(std::move(sockets->first), {});
  http::request<http::string_body> request{http::verb::post, "/init", 11};
  request.set(http::field::content_type, "application/json");
  request.body() = R"({"stasis":{}})";
  ASSERT_TRUE(connection.send(request));
  std::array<char, 4096> packet{};
  const ssize_t n = ::recv(guest.get(), packet.data(), packet.size(), MSG_DONTWAIT);
  ASSERT_GT(n, 0);
  const std::string_view text(packet.data(), static_cast<size_t>(n));
  EXPECT_TRUE(text.starts_with("POST /init HTTP/1.1\r\n")) << text;
  EXPECT_TRUE(text.ends_with("\r\n\r\n{\"stasis\":{}}")) << text;
}

TEST(GuestConnection, ALargeBodyComesWhole) {
  auto sockets = unix_socket_pair();
  ASSERT_TRUE(sockets);
  const UniqueFd& guest = sockets->second;
  GuestConnection connection(std::move(sockets->first), {});
  http::request<http::string_body> request{http::verb::post, "/files", 11};
  for (int i = 0; request.body().size() < 200'000; ++i) request.body() += std::to_string(i) + ",";
  std::string came;
  std::thread reader([&] {
    std::array<char, 4096> part{};
    for (ssize_t n = 0; (n = ::read(guest.get(), part.data(), part.size())) > 0;)
      came.append(part.data(), static_cast<size_t>(n));
  });
  EXPECT_TRUE(connection.send(request));
  connection = GuestConnection(UniqueFd(), {});
  reader.join();
  EXPECT_EQ(came.substr(came.find("\r\n\r\n") + 4), request.body());
}

TEST(InitBody, OfANewMachineAndOfTheSame) {
  SandboxRecord record;
  record.access_token = "new";
  record.env = {{"A", "b"}};
  const json fresh = init_body({"one", false, "old"}, record);
  EXPECT_EQ(fresh["accessToken"], "new");
  EXPECT_EQ(fresh["envVars"]["A"], "b");
  EXPECT_EQ(fresh["stasis"]["hostname"], "one");
  EXPECT_EQ(fresh["stasis"]["previousAccessToken"], "old");
  EXPECT_EQ(fresh["stasis"]["machineId"].get<std::string>().size(), 32U);
  EXPECT_EQ(base64_decode(fresh["stasis"]["entropy"].get<std::string>())->size(), 64U);
  const json other = init_body({"two", false, ""}, record);
  EXPECT_NE(other["stasis"]["machineId"], fresh["stasis"]["machineId"]);
  EXPECT_NE(other["stasis"]["entropy"], fresh["stasis"]["entropy"]);
  const json same = init_body({"one", true, ""}, record);
  EXPECT_FALSE(same["stasis"].contains("machineId"));
  EXPECT_FALSE(same["stasis"].contains("hostname"));
  EXPECT_TRUE(same["stasis"].contains("entropy"));
}

TEST(Record, ComesBackAsItWasEvenTheLargestAllowed) {
  const testing::TempDir dir;
  SandboxRecord record;
  record.hostname = "h";
  record.access_token = "token";
  record.env = {{"CONTROL", std::string(131'000, '\x01')}};  // six bytes each as JSON
  record.deadline_unix_ms = 123;
  record.initialised = true;
  ASSERT_TRUE(check_record(record));
  ASSERT_TRUE(save_record(dir.path(), record));
  const auto loaded = load_record(dir.path());
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->env, record.env);
  EXPECT_EQ(loaded->access_token, "token");
  EXPECT_EQ(loaded->deadline_unix_ms, 123);
  EXPECT_TRUE(loaded->initialised);
  record.env["ONE_MORE"] = std::string(1000, 'x');
  EXPECT_FALSE(check_record(record));
}

TEST(Roots, AMapThatCannotBeReadStopsEverything) {
  const testing::TempDir dir;
  std::filesystem::create_directories(dir.path() / "one");
  EXPECT_TRUE(sandbox_roots(dir.path())->empty());
  const auto map = snapshot::BlockMap::zeros(1 << 20)->encode();
  ASSERT_TRUE(publish_file(real_file_system(), dir.path() / "one" / supervisor::kDiskMapFile, *map));
  EXPECT_EQ(sandbox_roots(dir.path())->size(), 1U);
  std::ofstream(dir.path() / "one" / supervisor::kMemoryMapFile) << "damaged";
  EXPECT_FALSE(sandbox_roots(dir.path()));
}

TEST(Tokens, AreForgottenWithTheirSnapshot) {
  const testing::TempDir dir;
  const auto tokens = Tokens::open(dir.path() / "tokens");
  ASSERT_TRUE(tokens);
  const auto id = snapshot::SnapshotId::random();
  EXPECT_EQ(tokens->find(id), "");
  ASSERT_TRUE(tokens->keep(id, "secret"));
  EXPECT_EQ(tokens->find(id), "secret");
  tokens->forget(id);
  EXPECT_EQ(tokens->find(id), "");
}

}  // namespace
}  // namespace stasis::agent
