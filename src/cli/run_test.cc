// The program as a whole: help, usage errors, the daemons' arguments, completion, progress.
#include "cli/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/process.h"
#include "cli/command_line.h"
#include "cli/completion.h"
#include "cli/progress.h"
#include "cli/testing/fake_server.h"
#include "cli/testing/harness.h"

namespace stasis::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::vector<std::vector<std::string>> every_command() {
  std::vector<std::vector<std::string>> paths;
  CommandLine line;
  const Daemons daemons;
  build_command_line(line, daemons);
  const auto all = [](const CLI::App*) { return true; };
  for (const CLI::App* command : line.app.get_subcommands(all)) {
    paths.push_back({command->get_name()});
    for (const CLI::App* sub : command->get_subcommands(all)) paths.push_back({command->get_name(), sub->get_name()});
  }
  return paths;
}

TEST(Help, EveryCommandEndsWithExamplesOfItself) {
  const auto commands = every_command();
  EXPECT_GE(commands.size(), 16U);
  for (std::vector<std::string> command : commands) {
    const std::string path = command.size() == 1 ? command[0] : command[0] + " " + command[1];
    command.push_back("--help");
    const Outcome help = run_program(command);
    EXPECT_EQ(help.status, 0);
    const size_t examples = help.out.find("Examples:\n");
    ASSERT_NE(examples, std::string::npos) << path;
    EXPECT_THAT(help.out.substr(examples), HasSubstr("stasis " + path)) << path;
  }
}

TEST(Usage, ErrorsAreStatusTwoAndPointToHelp) {
  for (const std::vector<std::string>& bad : std::vector<std::vector<std::string>>{{},
                                                                                   {"freeze"},
                                                                                   {"pause"},
                                                                                   {"create", "--vcpus", "none"},
                                                                                   {"create", "--vcpus", "0"},
                                                                                   {"snapshot"},
                                                                                   {"snapshot", "create", "x"},
                                                                                   {"ls", "--bogus"},
                                                                                   {"completion", "tcsh"},
                                                                                   {"up", "--vmm", "xen"},
                                                                                   {"up", "--spares", "17"},
                                                                                   {"up", "--port", "70000"}}) {
    const Outcome outcome = run_program(bad);
    EXPECT_EQ(outcome.status, 2) << testing::PrintToString(bad);
    EXPECT_THAT(json::parse(outcome.err)["error"]["remedy"], HasSubstr("--help")) << testing::PrintToString(bad);
  }
  const Outcome nested = run_program({"snapshot", "create", "x"}, kTerminal);
  EXPECT_THAT(nested.err, HasSubstr("see 'stasis snapshot create --help'"));
}

TEST(CommonOptions, MayStandBeforeTheCommandOrBehindIt) {
  ServerArguments server;
  Setting setting;
  setting.daemons.server = [&](const ServerArguments& given) -> Status {
    server = given;
    return {};
  };
  EXPECT_EQ(run_program({"--state-dir", "/before", "server"}, setting).status, 0);
  EXPECT_EQ(server.state_dir, "/before");
  EXPECT_EQ(run_program({"server", "--state-dir", "/behind"}, setting).status, 0);
  EXPECT_EQ(server.state_dir, "/behind");
  EXPECT_TRUE(json::parse(run_program({"--json", "version"}, kTerminal).out).is_object());
}

TEST(Version, TextOnATerminalAndADocumentWhenPiped) {
  EXPECT_THAT(run_program({"version"}, kTerminal).out, testing::StartsWith("stasis "));
  EXPECT_TRUE(json::parse(run_program({"version"}).out).contains("version"));
  EXPECT_EQ(run_program({"--version"}).status, 0);
}

TEST(Daemons, GetTheirArguments) {
  ServerArguments server;
  AgentArguments agent;
  Setting setting;
  setting.daemons = {.server = [&](const ServerArguments& given) -> Status {
                       server = given;
                       return {};
                     },
                     .agent = [&](const AgentArguments& given) -> Status {
                       agent = given;
                       return {};
                     }};
  EXPECT_EQ(run_program({"server", "--state-dir", "/s", "--port", "0"}, setting).status, 0);
  EXPECT_EQ(server.state_dir, "/s");
  EXPECT_EQ(server.agent_socket, "/s/agent.sock");
  EXPECT_EQ(server.listen_address, "127.0.0.1");
  EXPECT_EQ(server.port, 0);
  EXPECT_EQ(
      run_program({"agent", "--state-dir", "/s", "--image", "/images/a", "--image", "big=/images/b", "--vmm", "qemu"},
                  setting)
          .status,
      0);
  EXPECT_EQ(agent.socket, "/s/agent.sock");
  EXPECT_THAT(agent.images,
              testing::ElementsAre(testing::Pair("base", "/images/a"), testing::Pair("big", "/images/b")));
  EXPECT_EQ(agent.supervisor_program.filename(), "stasis-supervisor");
  EXPECT_EQ(agent.vmm, "qemu");
  EXPECT_EQ(agent.spares, 1U);
  EXPECT_EQ(run_program({"agent", "--image", "=x"}, setting).status, 2);
}

TEST(Daemons, TheirErrorsAreReported) {
  Setting setting;
  setting.daemons.server = [](const ServerArguments&) -> Status {
    return fail(Code::kAlreadyExists, "port taken", "another port");
  };
  const Outcome outcome = run_program({"server"}, setting);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(json::parse(outcome.err)["error"]["message"], "port taken");
}

class Completion : public testing::TestWithParam<const char*> {};

TEST_P(Completion, KnowsEveryCommand) {
  const Outcome outcome = run_program({"completion", GetParam()});
  EXPECT_EQ(outcome.status, 0);
  for (const auto& command : every_command()) EXPECT_THAT(outcome.out, HasSubstr(command.back()));
}

INSTANTIATE_TEST_SUITE_P(Shells, Completion, testing::Values("bash", "zsh", "fish"));

// What bash would offer for the words typed so far; the last one is being completed.
std::string bash_offers(const std::string& words) {
  const Path script = Path(testing::TempDir()) / ("completion." + std::to_string(::getpid()));
  const Path answer = Path(testing::TempDir()) / ("offers." + std::to_string(::getpid()));
  std::ofstream(script) << run_program({"completion", "bash"}).out << "COMP_WORDS=(" << words
                        << ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_stasis\necho \"${COMPREPLY[*]}\" > "
                        << answer.string() << "\n";
  SpawnOptions options;
  options.argv = {"/bin/bash", script.string()};
  auto bash = spawn(options);
  EXPECT_TRUE(bash && bash->wait(Deadline::after(std::chrono::seconds(30))));
  std::string line;
  std::ifstream in(answer);
  std::getline(in, line);
  std::filesystem::remove(script);
  std::filesystem::remove(answer);
  return line;
}

TEST(Completion, BashOffersWhatMayFollow) {
  EXPECT_EQ(bash_offers("stasis pau"), "pause");
  EXPECT_EQ(bash_offers("stasis snapshot c"), "create");
  EXPECT_EQ(bash_offers("stasis create --mem"), "--memory");
  EXPECT_EQ(bash_offers("stasis create --env snapshot --over"), "");  // the value of an option is no command
  EXPECT_EQ(bash_offers("stasis snapshot create --over"), "--overwrite");
}

// A stream buffer that lets a test wait for text instead of sleeping.
class WatchedBuffer : public std::streambuf {
 public:
  bool wait_for(const std::string& text) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return text_.find(text) != std::string::npos; });
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 protected:
  int_type overflow(int_type c) override {
    const std::lock_guard lock(mutex_);
    text_ += static_cast<char>(c);
    changed_.notify_all();
    return c;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
};

TEST(ProgressLine, AppearsAfterAWhileWithItsDetailAndIsWiped) {
  WatchedBuffer buffer;
  std::ostream err(&buffer);
  std::istringstream in;
  Io io{in, err, err, InputKind::kNothing, true, true};
  {
    Progress progress(io, "pausing x", std::chrono::milliseconds(1));
    progress.set_detail("12 MiB");
    EXPECT_TRUE(buffer.wait_for("pausing x ... "));
    EXPECT_TRUE(buffer.wait_for("12 MiB"));
  }
  EXPECT_THAT(buffer.text(), testing::EndsWith("\r\033[K"));
}

// What a command prints once it has been waited for, on the terminal that the line is on.
TEST(ProgressLine, IsWipedBeforeTheOutcomeIsPrinted) {
  for (const char* command : {"pause", "resume", "rm"}) {
    WatchedBuffer buffer;
    std::ostream terminal(&buffer);
    std::istringstream in;
    Io io{in, terminal, terminal, InputKind::kNothing, true, true};
    FakeServer server([&](const FakeRequest&) {
      EXPECT_TRUE(buffer.wait_for(" ... "));
      return FakeReply{.body = json{{"id", "x1"}, {"state", "running"}}.dump()};
    });
    const Environment environment = [&](const std::string& name) {
      return name == "STASIS_URL" ? server.url() : name == "STASIS_TOKEN" ? "token" : "";
    };
    EXPECT_EQ(run({command, "x1"}, io, {}, environment), kSuccess);
    EXPECT_THAT(buffer.text(), testing::ContainsRegex("\r.\\[Kx1 is [^\r]*$")) << command;
  }
}

TEST(ProgressLine, IsNotShownWhereNobodyLooks) {
  WatchedBuffer buffer;
  std::ostream err(&buffer);
  std::istringstream in;
  Io io{in, err, err, InputKind::kNothing, true, false};
  { const Progress progress(io, "pausing x", std::chrono::milliseconds(0)); }
  EXPECT_EQ(buffer.text(), "");
}

}  // namespace
}  // namespace stasis::cli
