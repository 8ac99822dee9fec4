#include <cstdlib>

#include "vmm/contract/firecracker_fixture.h"

namespace stasis::vmm::contract {
namespace {

Driver firecracker_driver(const std::string& name, const FirecrackerFixtureOptions& options) {
  return {name, [options](const Path& directory) { return make_firecracker_fixture(directory, options); }};
}

// With the tiny guest: its stack and state, and what Firecracker writes when it loads (clock, VM generation, queues).
FirecrackerFixtureOptions real_options(const char* program) {
  return {.program = program, .kernel = test_program("tiny-guest"), .memory_mib = 128, .noise_blocks = 8};
}

}  // namespace

std::vector<Driver> drivers() {
  std::vector<Driver> list{firecracker_driver("FirecrackerDouble", double_options())};
  // Asked once, before a fixture sets the variable for its own machines.
  static const char* const program = std::getenv("STASIS_FIRECRACKER");
  if (program != nullptr && *program != '\0') list.push_back(firecracker_driver("Firecracker", real_options(program)));
  return list;
}

}  // namespace stasis::vmm::contract
