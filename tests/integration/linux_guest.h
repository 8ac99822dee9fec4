// A Linux guest with the guest daemon, driven over the network: the first command has the daemon start arena.py, which
// then takes commands itself. Each command is a connection of its own, so none is open across a save.
#pragma once

#include <functional>
#include <string>

#include "agent/guest_client.h"
#include "base/network.h"
#include "vmm/contract/fixture.h"

namespace stasis::vmm::contract {

class LinuxGuest final : public GuestControl {
 public:
  // Makes sockets in the guest's network, not connected.
  using Sockets = std::function<Result<UniqueFd>(Transport)>;
  LinuxGuest(Sockets sockets, std::string program);

  uint64_t arena_bytes() const override { return 8 << 20; }
  void set_patience(Milliseconds patience) override { patience_ = patience; }
  static std::vector<uint64_t> filled_page(uint64_t page, uint64_t seed);

  Result<uint64_t> count() override { return ask("count"); }
  Status fill(Range range, uint64_t seed) override;
  Status zero(Range range) override;
  Status rewrite(Range range) override;
  Result<uint64_t> checksum(Range range) override;
  Status churn(uint64_t seed) override;
  // There is no balloon.
  Status give_back(Range /*range*/) override { return fail(Code::kUnimplemented, "this guest has no balloon"); }

 private:
  Result<uint64_t> ask(const std::string& line);
  Result<UniqueFd> connect(Deadline deadline);
  void start_arena();

  Sockets sockets_;
  agent::GuestClient daemon_;
  std::string program_;  // the text of arena.py
  // For a boot on a busy host without hardware virtualisation.
  Milliseconds patience_{90'000};
};

}  // namespace stasis::vmm::contract
