// Huge pages for a test: so many free ones of 2 MiB, and no more, for as long as it lives. Needs root; whatever else
// takes huge pages of the host meanwhile takes them from the test.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

namespace stasis::pager::testing {

class HugePagePool {
 public:
  explicit HugePagePool(uint64_t free) : before_(number("nr_hugepages")) {
    set(before_ - number("free_hugepages") + free);
  }
  ~HugePagePool() { set(before_); }
  HugePagePool(const HugePagePool&) = delete;
  HugePagePool& operator=(const HugePagePool&) = delete;

  void add(uint64_t pages) { set(number("nr_hugepages") + pages); }
  // Fewer than were asked for where the kernel did not find the memory, or did not let this process ask.
  uint64_t free() const { return number("free_hugepages"); }

 private:
  static std::string file(const std::string& name) { return "/sys/kernel/mm/hugepages/hugepages-2048kB/" + name; }
  static uint64_t number(const std::string& name) {
    uint64_t value = 0;
    std::ifstream(file(name)) >> value;
    return value;
  }
  static void set(uint64_t pages) { std::ofstream(file("nr_hugepages")) << pages; }

  uint64_t before_;
};

}  // namespace stasis::pager::testing
