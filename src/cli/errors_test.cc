// How a command fails, whichever it is: the server's errors, answers that are not ours, no server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/testing/call.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(Errors, OfTheServerAreShownWithCodeAndRemedy) {
  const Call piped(always(error_reply(404, "not_found")), {"pause", kId});
  EXPECT_EQ(piped.status, 1);
  EXPECT_EQ(piped.out, "");
  EXPECT_EQ(json::parse(piped.err),
            (json{{"error", {{"code", "not_found"}, {"message", "it is so"}, {"remedy", "do this"}}}}));
  const Call terminal(always(error_reply(404, "not_found")), {"pause", kId}, kTerminal);
  EXPECT_EQ(terminal.err, "stasis: it is so\n  code:   not_found\n  remedy: do this\n");
  const Call asked(always(error_reply(404, "not_found")), {"pause", kId, "--json"}, kTerminal);
  EXPECT_EQ(json::parse(asked.err)["error"]["code"], "not_found");
}

TEST(Errors, OneWithoutARemedyGetsTheUsualOne) {
  const FakeReply reply{.status = 401, .body = R"({"error":{"code":"unauthenticated","message":"who are you"}})"};
  EXPECT_THAT(Call(always(reply), {"ls"}, kTerminal).err, HasSubstr("remedy: give the server's token"));
  EXPECT_THAT(json::parse(Call(always(reply), {"ls"}).err)["error"]["remedy"], HasSubstr("STASIS_TOKEN"));
}

TEST(Errors, AnAnswerThatIsNotOursSaysSo) {
  const Call html(always({.status = 502, .body = "<html>bad gateway"}), {"ls"});
  EXPECT_EQ(html.status, 1);
  EXPECT_EQ(json::parse(html.err)["error"]["code"], "unavailable");
  const Call text(always({.status = 200, .body = "hello"}), {"ls"});
  EXPECT_EQ(text.status, 1);
  EXPECT_THAT(text.err, HasSubstr("not JSON"));
  const Call shape(always({.status = 200, .body = "[1]"}), {"ls"});
  EXPECT_EQ(shape.status, 1);
  EXPECT_THAT(shape.err, HasSubstr("no list of sandboxes"));
}

TEST(Errors, ABrokenConnectionIsAFailureNotAnUnreachableServer) {
  const Call call(always({.body = "{", .cut_short = true}), {"ls"});
  EXPECT_EQ(call.status, 1);
  EXPECT_EQ(json::parse(call.err)["error"]["code"], "unavailable");
}

TEST(Errors, NoServerIsStatusThree) {
  std::string url;
  {
    const FakeServer gone(always({}));
    url = gone.url();
  }
  const Outcome refused = run_program({"ls", "--url", url});
  EXPECT_EQ(refused.status, 3);
  EXPECT_EQ(json::parse(refused.err)["error"]["code"], "unavailable");
  EXPECT_EQ(run_program({"pause", "a", "b", "--url", url}).status, 3);
  EXPECT_EQ(run_program({"ls", "--state-dir", "/nonexistent/stasis"}).status, 3);
}

TEST(Errors, AMessageCannotControlTheTerminal) {
  const Call call(
      always({.status = 500, .body = json{{"error", {{"code", "internal"}, {"message", "a\x1b[2Jb"}}}}.dump()}), {"ls"},
      kTerminal);
  EXPECT_THAT(call.err, HasSubstr("a?[2Jb"));
}

}  // namespace
}  // namespace stasis::cli
