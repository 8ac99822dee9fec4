// up, server, agent.
#include <memory>

#include "base/process.h"
#include "cli/command_line.h"
#include "cli/up.h"
#include "cli/version.h"

namespace stasis::cli {
namespace {

const char* const kVmms = "auto, qemu or firecracker";

void add_vmm(CLI::App& command, std::string& vmm) {
  command.add_option("--vmm", vmm, kVmms + std::string(" (default: auto)"))
      ->check(CLI::IsMember({"auto", "qemu", "firecracker"}));
}

void add_spares(CLI::App& command, size_t& spares) {
  command.add_option("--spares", spares, "VMMs started ahead for the next restore, 0 to 16; 0: none (default: 1)")
      ->check(CLI::Range(size_t{0}, kMaxSpares));
}

struct ImageOptions {
  std::vector<std::string> images;
  UpArguments up;
  ServerArguments server;
  AgentArguments agent;
};

Result<std::vector<std::pair<std::string, Path>>> images_of(Session& session, const std::vector<std::string>& texts) {
  std::vector<std::pair<std::string, Path>> images;
  for (const std::string& text : texts) {
    auto image = parse_image(text);
    if (!image) return session.usage(image.error().message, image.error().remedy);
    images.push_back(std::move(*image));
  }
  if (images.empty()) {
    STASIS_ASSIGN(Path directory, default_image());
    images.emplace_back("base", std::move(directory));
  }
  return images;
}

Path absolute_state_dir(const Session& session) {
  std::error_code error;
  return std::filesystem::absolute(session.state_dir(), error).lexically_normal();
}

void add_up(CommandLine& line) {
  CLI::App& command =
      add_local_command(line, "up", "Run server and host agent here, until Ctrl-C; sandboxes outlive it",
                        "stasis up\n"
                        "stasis up --state-dir /srv/stasis --port 8080\n"
                        "stasis up --image base=build/image --vmm qemu");
  const auto options = std::make_shared<ImageOptions>();
  add_repeated(command, "--image", options->images,
               "[NAME=]DIRECTORY of an image; may be repeated (default: the one built here, as base)");
  const CLI::Option* port =
      command.add_option("--port", options->up.port,
                         "Port on 127.0.0.1; 0: a free one (default: 7878, with another --state-dir a free one)");
  add_vmm(command, options->up.vmm);
  add_spares(command, options->up.spares);
  command.callback([&line, options, port] {
    line.action = [options, port](Session& session) -> Result<int> {
      UpArguments arguments = options->up;
      // Several of them live side by side as long as their state directories differ.
      if (port->count() == 0 && session.state_dir() == Path(kDefaultStateDir)) arguments.port = kDefaultPort;
      STASIS_ASSIGN(arguments.images, images_of(session, options->images));
      arguments.state_dir = absolute_state_dir(session);
      return run_up(session, arguments);
    };
  });
}

void add_server(CommandLine& line, const Daemons& daemons) {
  CLI::App& command = add_local_command(line, "server", "Run the control plane alone (REST, database)",
                                        "stasis server --agent-socket /var/lib/stasis/agent.sock\n"
                                        "stasis server --state-dir /srv/stasis --listen 127.0.0.1 --port 8080");
  const auto options = std::make_shared<ImageOptions>();
  command.add_option("--agent-socket", options->server.agent_socket,
                     "Socket of the host agent (default: STATE/agent.sock)");
  command.add_option("--listen", options->server.listen_address, "Address to listen on (default: 127.0.0.1)");
  command.add_option("--port", options->server.port, "Port; 0: a free one (default: 7878)");
  command.callback([&line, &daemons, options] {
    line.action = [&daemons, options](Session& session) -> Result<int> {
      ServerArguments arguments = options->server;
      arguments.state_dir = absolute_state_dir(session);
      if (arguments.agent_socket.empty()) arguments.agent_socket = agent_socket_of(arguments.state_dir);
      STASIS_TRY(daemons.server(arguments));
      return kSuccess;
    };
  });
}

void add_agent(CommandLine& line, const Daemons& daemons) {
  CLI::App& command = add_local_command(line, "agent", "Run the host agent alone",
                                        "stasis agent --image base=build/image\n"
                                        "stasis agent --state-dir /srv/stasis --socket /run/stasis/agent.sock");
  const auto options = std::make_shared<ImageOptions>();
  command.add_option("--socket", options->agent.socket, "Socket to listen on (default: STATE/agent.sock)");
  add_repeated(command, "--image", options->images,
               "[NAME=]DIRECTORY of an image; may be repeated (default: the one built here, as base)");
  command.add_option("--supervisor", options->agent.supervisor_program,
                     "The supervisor program (default: beside this one)");
  add_vmm(command, options->agent.vmm);
  add_spares(command, options->agent.spares);
  command.callback([&line, &daemons, options] {
    line.action = [&daemons, options](Session& session) -> Result<int> {
      AgentArguments arguments = options->agent;
      STASIS_ASSIGN(arguments.images, images_of(session, options->images));
      arguments.state_dir = absolute_state_dir(session);
      if (arguments.socket.empty()) arguments.socket = agent_socket_of(arguments.state_dir);
      if (arguments.supervisor_program.empty()) {
        STASIS_ASSIGN(const Path here, executable_directory());
        arguments.supervisor_program = here / "stasis-supervisor";
      }
      STASIS_TRY(daemons.agent(arguments));
      return kSuccess;
    };
  });
}

}  // namespace

void add_daemon_commands(CommandLine& line, const Daemons& daemons) {
  add_up(line);
  add_server(line, daemons);
  add_agent(line, daemons);
}

void add_version_command(CommandLine& line) {
  CLI::App& command = add_local_command(line, "version", "Print the version of this program",
                                        "stasis version\n"
                                        "stasis version --json");
  command.callback([&line] {
    line.action = [](Session& session) -> Result<int> {
      if (session.json()) {
        session.print({{"version", kVersion}});
      } else {
        session.io().out << kVersionText << '\n';
      }
      return kSuccess;
    };
  });
}

}  // namespace stasis::cli
