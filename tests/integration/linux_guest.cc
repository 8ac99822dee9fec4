#include "tests/integration/linux_guest.h"

#include <gtest/gtest.h>

#include <array>
#include <charconv>
#include <thread>

#include "base/ip_socket.h"
#include "net/sandbox_network.h"

namespace stasis::vmm::contract {
namespace {

constexpr uint16_t kArenaPort = 49990;  // of arena.py
constexpr uint64_t kPageBytes = 4096;
// Shorter than the kernel's first retransmission, so that a guest which has just begun to listen is not waited for.
constexpr Milliseconds kAttempt{300};
constexpr Milliseconds kBetweenAttempts{20};

std::string text(Range range) { return std::to_string(range.offset) + " " + std::to_string(range.length); }

Result<std::string> read_line(int socket, Deadline deadline) {
  std::string line;
  std::array<std::byte, 256> part;
  while (line.find('\n') == std::string::npos) {
    STASIS_ASSIGN(const size_t n, receive_some(socket, part, deadline));
    if (n == 0) return fail(Code::kUnavailable, "the guest's arena hung up");
    line.append(reinterpret_cast<const char*>(part.data()), n);
  }
  return line;
}

}  // namespace

LinuxGuest::LinuxGuest(Sockets sockets, std::string program)
    : sockets_(std::move(sockets)),
      daemon_([make = sockets_](Transport transport) { return make(transport); }, net::kGuestAddress, ""),
      program_(std::move(program)) {}

// As arena.py has it.
std::vector<uint64_t> LinuxGuest::filled_page(uint64_t page, uint64_t seed) {
  return std::vector<uint64_t>(kPageBytes / sizeof(uint64_t), (seed << 32) + page + 1);
}

Status LinuxGuest::fill(Range range, uint64_t seed) {
  STASIS_TRY(ask("fill " + text(range) + " " + std::to_string(seed)));
  return {};
}

Status LinuxGuest::zero(Range range) {
  STASIS_TRY(ask("zero " + text(range)));
  return {};
}

Status LinuxGuest::rewrite(Range range) {
  STASIS_TRY(ask("rewrite " + text(range)));
  return {};
}

Status LinuxGuest::churn(uint64_t seed) {
  STASIS_TRY(ask("churn " + std::to_string(seed)));
  return {};
}

Result<uint64_t> LinuxGuest::checksum(Range range) { return ask("checksum " + text(range)); }

Result<uint64_t> LinuxGuest::ask(const std::string& line) {
  const Deadline deadline = Deadline::after(patience_);
  STASIS_ASSIGN(const UniqueFd socket, connect(deadline));
  const std::string request = line + "\n";
  STASIS_TRY(send_some(socket.get(), std::as_bytes(std::span(request)), deadline));  // a line is never sent in part
  STASIS_ASSIGN(const std::string answer, read_line(socket.get(), deadline));
  uint64_t number = 0;
  const auto parsed = std::from_chars(answer.data(), answer.data() + answer.size(), number);
  if (parsed.ec != std::errc() || *parsed.ptr != '\n') return fail(Code::kInternal, "the guest's arena says " + answer);
  return number;
}

// Only this is tried again: a command is executed once.
Result<UniqueFd> LinuxGuest::connect(Deadline deadline) {
  while (!deadline.passed()) {
    STASIS_ASSIGN(UniqueFd socket, sockets_(Transport::kTcp));
    const Deadline attempt = Deadline::after(kAttempt);
    const Status connected =
        connect_ip(socket.get(), net::kGuestAddress, kArenaPort, attempt.at() < deadline.at() ? attempt : deadline);
    if (connected) return socket;
    if (connected.error().code == Code::kDeadlineExceeded) continue;
    start_arena();  // refused: the guest is up
    std::this_thread::sleep_for(kBetweenAttempts);
  }
  return fail(Code::kDeadlineExceeded, "the guest does not answer");
}

// Nothing happens as long as the daemon is not up.
void LinuxGuest::start_arena() {
  if (!daemon_.health(Deadline::after(kAttempt))) return;
  agent::Command command;
  command.program = "/usr/bin/python3";
  command.args = {"-I", "-S", "-c", program_};
  std::string words;
  const auto end =
      daemon_.run(command, {.started = {}, .out = {}, .err = [&](std::string_view text) { words += text; }}, -1);
  if (!end || end->exit_code != 0) ADD_FAILURE() << "start arena.py: " << (end ? words : end.error().message);
}

}  // namespace stasis::vmm::contract
