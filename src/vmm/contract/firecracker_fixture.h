// Fixtures for Firecracker with the tiny guest, and for its test double, which answers the same commands.
#pragma once

#include "vmm/contract/fixture.h"

namespace stasis::vmm::contract {

struct FirecrackerFixtureOptions {
  Path program;  // what STASIS_FIRECRACKER is for the user
  Path kernel;
  uint32_t memory_mib = 0;
  uint64_t noise_blocks = 0;
};

// Sets STASIS_FIRECRACKER and STASIS_TEST_PROGRAM of this process, so that machines get a console.
Result<std::unique_ptr<Fixture>> make_firecracker_fixture(const Path& directory,
                                                          const FirecrackerFixtureOptions& options);

// A directory that programs built for tests are in.
Path test_program(const std::string& name);
FirecrackerFixtureOptions double_options();

}  // namespace stasis::vmm::contract
