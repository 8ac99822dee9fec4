// exec: runs a command in a sandbox, its output as it comes, its exit status as ours.
#include <array>
#include <chrono>
#include <cmath>
#include <iterator>
#include <memory>

#include "cli/command_line.h"
#include "cli/exec_status.h"
#include "cli/progress.h"
#include "cli/sandbox_view.h"

namespace stasis::cli {
namespace {

constexpr size_t kMaxInput = size_t{1} << 20;
constexpr std::chrono::seconds kSilentInput(2);

struct ExecOptions {
  std::string id;
  std::string user;
  std::string cwd;
  std::vector<std::string> env;
  double timeout_sec = 0;
  bool no_stdin = false;
  std::vector<std::string> command;
};

// `ssh host stasis exec` hands on a standard input that nobody thinks of, and that does not end.
void await_input(Io& io) {
  const Progress waiting(io, "waiting for standard input to end; --no-stdin leaves it alone", kSilentInput,
                         Progress::Elsewhere::kOneLine);
  io.in.peek();
}

// All of standard input, when it has data for the command.
Result<std::string> read_input(Io& io) {
  std::string input;
  std::array<char, 64 * 1024> chunk{};
  while (io.in.read(chunk.data(), chunk.size()), io.in.gcount() > 0) {
    input.append(chunk.data(), static_cast<size_t>(io.in.gcount()));
    if (input.size() > kMaxInput) {
      return fail(Code::kInvalidArgument, "standard input is larger than 1 MiB, the most that exec passes on",
                  "copy it into the sandbox first: stasis cp - ID:/tmp/input; or give --no-stdin");
    }
  }
  return input;
}

Result<Json> make_request(Session& session, const ExecOptions& options) {
  Json request = {{"command", options.command}};
  if (!options.user.empty()) request["user"] = options.user;
  if (!options.cwd.empty()) request["cwd"] = options.cwd;
  if (options.timeout_sec > 0) request["timeout_ms"] = static_cast<int64_t>(std::ceil(options.timeout_sec * 1000));
  STASIS_ASSIGN(Json env, pairs_object(options.env, "--env"));
  if (!env.empty()) request["env"] = std::move(env);
  if (!options.no_stdin && session.io().in_kind == InputKind::kData) {
    await_input(session.io());
    Progress progress(session.io(), "reading standard input to its end (--no-stdin leaves it alone)");
    STASIS_ASSIGN(std::string input, read_input(session.io()));
    if (!input.empty()) request["stdin"] = std::move(input);
  }
  return request;
}

// One document with everything, for programs.
Result<int> exec_collected(Session& session, const ExecOptions& options, const Json& request) {
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "running " + options.command.front());
  STASIS_ASSIGN(const Json answer, client->call("POST", sandbox_path(options.id, "/exec"), request));
  progress.stop();
  session.print(answer);
  const auto code = answer.is_object() ? answer.find("exit_code") : answer.end();
  if (!answer.is_object() || code == answer.end() || !code->is_number_integer()) {
    return fail(Code::kInternal, "the server's answer has no exit code", "is that a Stasis server? Check --url");
  }
  return exit_status_of({code->get<int>(), text_field(answer, "status")});
}

Status write_output(std::ostream& out, std::string_view bytes) {
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.flush();
  if (!out) return fail(Code::kCancelled, "the command's output cannot be written any more", "the command was ended");
  return {};
}

Result<int> exec_streamed(Session& session, const ExecOptions& options, const Json& request) {
  STASIS_ASSIGN(Client * client, session.client());
  Io& io = session.io();
  Progress progress(io, "starting " + options.command.front());
  ExecEvents events;
  events.started = [&] { progress.stop(); };
  events.standard_output = [&](std::string_view bytes) { return write_output(io.out, bytes); };
  events.standard_error = [&](std::string_view bytes) { return write_output(io.err, bytes); };
  STASIS_ASSIGN(const ExecEnd end, client->exec(sandbox_path(options.id, "/exec/stream"), request, events));
  return exit_status_of(end);
}

Result<int> exec(Session& session, const ExecOptions& options) {
  if (options.command.empty()) {
    return session.usage("exec needs a command", "stasis exec " + options.id + " -- COMMAND [ARGUMENT]...");
  }
  const auto request = make_request(session, options);
  if (!request) return session.usage(request.error().message, request.error().remedy);
  return session.common().json ? exec_collected(session, options, *request) : exec_streamed(session, options, *request);
}

}  // namespace

void add_exec_command(CommandLine& line) {
  CLI::App& command =
      add_command(line, line.app, "exec",
                  "Run a command in a sandbox, ID -- COMMAND [ARGUMENT]...; exits with the command's status",
                  "stasis exec k3v9x0c2m5n8q1w4e7r6 -- uname -r\n"
                  "stasis exec k3v9x0c2m5n8q1w4e7r6 --user user --cwd /tmp --env A=1 -- bash -c 'echo $A'\n"
                  "echo 'print(6 * 7)' | stasis exec k3v9x0c2m5n8q1w4e7r6 -- python3 -");
  const auto options = std::make_shared<ExecOptions>();
  command.add_option("ID", options->id, "Sandbox")->required();
  command.add_option("-u,--user", options->user, "User to run as (default: the guest's)");
  command.add_option("-w,--cwd", options->cwd, "Directory to run in");
  add_repeated(command, "-e,--env", options->env, "KEY=VALUE for the command; may be repeated");
  command.add_option("--timeout", options->timeout_sec, "Seconds after which the command is ended")
      ->check(CLI::PositiveNumber);
  command.add_flag("-n,--no-stdin", options->no_stdin,
                   "Do not pass on standard input (else a pipe or file, at most 1 MiB, is read to its end first)");
  command.prefix_command();
  command.callback([&line, &command, options] {
    options->command = command.remaining();
    options->command.insert(options->command.end(), line.verbatim.begin(), line.verbatim.end());
    line.action = [options](Session& session) { return exec(session, *options); };
  });
}

}  // namespace stasis::cli
