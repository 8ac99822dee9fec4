// fake-firecracker: a test double of Firecracker. It serves the same HTTP API, keeps guest memory in its own, registers
// it with userfaultfd and hands it over in the same handshake, writes Full and Diff snapshots with the same meaning,
// and runs a scripted guest (guest.h). FAKE_FIRECRACKER_MISBEHAVE makes it misbehave (misbehave.cc). It executes no
// guest code.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <iostream>
#include <string>
#include <thread>

#include "misbehave.h"
#include "server.h"

namespace {

void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// What the real program's parser knows of what the driver uses.
bool parse(int argc, char** argv, std::string& socket) {
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 >= argc || (name != "--api-sock" && name != "--id" && name != "--level")) {
      std::cerr << "Arguments parsing error: Found argument '" << name << "' which wasn't expected" << std::endl;
      return false;
    }
    if (name == "--api-sock") socket = argv[i + 1];
  }
  return !socket.empty();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--version") {
    std::cout << "Firecracker v" << (fake::misbehaves("old_version") ? "1.12.0" : "1.16.1") << "\n\n";
    return fake::misbehaves("exit_at_start") ? 1 : 0;
  }
  std::signal(SIGPIPE, SIG_IGN);
  if (fake::misbehaves("exits_on_sigbus")) std::signal(SIGBUS, [](int) { ::_exit(149); });
  std::string socket;
  if (!parse(argc, argv, socket)) return 153;
  if (fake::misbehaves("exit_at_start")) {
    std::cerr << "Failed to start: told to" << std::endl;
    return 1;
  }
  if (fake::misbehaves("no_socket")) sleep_for_ever();
  if (fake::misbehaves("slow_socket")) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  return fake::serve(socket);
}
