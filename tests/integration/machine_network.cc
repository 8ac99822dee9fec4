#include "tests/integration/machine_network.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>

#include "base/namespaces.h"
#include "net/sandbox_network.h"

namespace stasis::vmm::contract {
namespace {

Result<UniqueFd> current_space() {
  UniqueFd space(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!space) return fail_errno(errno, "open the network namespace");
  return space;
}

// Brings the thread back where it was.
class Return {
 public:
  explicit Return(UniqueFd space) : space_(std::move(space)) {}
  // A test that went on in the wrong network would say nothing true.
  ~Return() {
    if (::setns(space_.get(), CLONE_NEWNET) != 0) std::abort();
  }
  Return(const Return&) = delete;
  Return& operator=(const Return&) = delete;

 private:
  UniqueFd space_;
};

}  // namespace

Result<std::shared_ptr<MachineNetwork>> MachineNetwork::create() {
  STASIS_ASSIGN(UniqueFd before, current_space());
  const Return back(std::move(before));
  STASIS_TRY(enter_private_network_namespace());
  STASIS_TRY(net::set_up_sandbox_network());
  STASIS_ASSIGN(UniqueFd space, current_space());
  return std::shared_ptr<MachineNetwork>(new MachineNetwork(std::move(space)));
}

Status MachineNetwork::inside(const std::function<Status()>& body) const {
  STASIS_ASSIGN(UniqueFd before, current_space());
  const Return back(std::move(before));
  if (::setns(space_.get(), CLONE_NEWNET) != 0) return fail_errno(errno, "enter the machine's network");
  return body();
}

Result<UniqueFd> MachineNetwork::socket(Transport transport) const {
  UniqueFd made;
  STASIS_TRY(inside([&]() -> Status {
    STASIS_ASSIGN(made, ip_socket(transport));
    return {};
  }));
  return made;
}

}  // namespace stasis::vmm::contract
