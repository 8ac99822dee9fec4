// What the contract suite (contract_*_test.cc) needs of a driver: machines, and a guest in them that does what it is
// told. A new driver adds a Fixture and a line to drivers().
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/unix_socket.h"
#include "vmm/vmm.h"

namespace stasis::vmm::contract {

// A guest that a test drives. It owns an arena: memory that nothing else in the guest writes. Ranges are relative to
// the arena, multiples of 4096 bytes. Every call waits for the guest's answer: kDeadlineExceeded if there is none.
class GuestControl {
 public:
  virtual ~GuestControl() = default;
  virtual uint64_t arena_bytes() const = 0;
  // For tests that expect no answer.
  virtual void set_patience(Milliseconds patience) = 0;
  // Adds one to a counter in guest memory: its new value, 1 for the first.
  virtual Result<uint64_t> count() = 0;
  // Content that follows from seed and position, never zeros, different for every page.
  virtual Status fill(Range range, uint64_t seed) = 0;
  virtual Status zero(Range range) = 0;
  // Writes each page without changing it.
  virtual Status rewrite(Range range) = 0;
  virtual Result<uint64_t> checksum(Range range) = 0;
  // Takes, writes and drops memory outside of the arena, and files, as the seed says; nothing in a guest that has none.
  virtual Status churn(uint64_t seed) = 0;
  // Gives the pages back to the host, as a balloon does. kUnimplemented if this guest cannot.
  virtual Status give_back(Range range) = 0;
};

// A machine of its own: private runtime directory, console and log.
struct Machine {
  std::unique_ptr<Vmm> vmm;
  std::unique_ptr<GuestControl> guest;
  Path runtime_dir;
  Path log;
};

class Fixture {
 public:
  virtual ~Fixture() = default;
  // All machines of a fixture have the same shape and the same disk path, so that a state moves between them.
  virtual Result<Machine> make_machine() = 0;
  virtual BootSpec boot_spec() const = 0;
  virtual uint64_t memory_bytes() const = 0;
  // The words that a guest's fill() writes to one page of its arena.
  virtual std::vector<uint64_t> filled_page(uint64_t page, uint64_t seed) const = 0;
  // How many blocks may change beyond those that a test changes: by the guest's kernel, by loading, by the commands.
  virtual uint64_t noise_blocks() const = 0;
};

// How a restored machine gets its memory.
enum class Way { kUffd, kMapped, kPartly };

struct Driver {
  std::string name;  // a test name: letters and digits
  std::function<Result<std::unique_ptr<Fixture>>(const Path& directory)>
      make;                 // `directory` is empty, and removed by the suite
  bool maps_parts = false;  // kPartly is possible
  Way way = Way::kUffd;
  bool prepared = false;  // what is restored has been prepared before
};
// For gtest, which would print the bytes.
inline void PrintTo(const Driver& driver, std::ostream* out) { *out << driver.name; }

// What the suite runs on. Each program that links it has its own: drivers.cc has the double of Firecracker always, and
// Firecracker itself if STASIS_FIRECRACKER names it; tests/integration has QEMU, with a Linux guest.
std::vector<Driver> drivers();

}  // namespace stasis::vmm::contract
