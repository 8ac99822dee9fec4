// The network of one machine in a test: a network namespace of its own with a tap, as a sandbox has. So any number of
// machines with the same addresses run in one process.
#pragma once

#include <functional>
#include <memory>

#include "base/fd.h"
#include "base/network.h"
#include "base/result.h"

namespace stasis::vmm::contract {

class MachineNetwork {
 public:
  // The calling thread is in it only meanwhile. The namespace goes with this object and the machine's VMM.
  static Result<std::shared_ptr<MachineNetwork>> create();

  // Calls `body` with the calling thread inside: what it spawns and the sockets that it makes stay there.
  Status inside(const std::function<Status()>& body) const;
  // Not connected.
  Result<UniqueFd> socket(Transport transport) const;

 private:
  explicit MachineNetwork(UniqueFd space) : space_(std::move(space)) {}
  UniqueFd space_;
};

}  // namespace stasis::vmm::contract
