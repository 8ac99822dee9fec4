// The store against plain loops measured in the same run, in turn with it, in processor time of one thread: block maps,
// capture of memory, reading. usage: bench-store DIRECTORY   (a tmpfs with 6 GiB free, to measure the code and not the
// disk)
#include "store_bench.h"

#include <cstdlib>
#include <new>

namespace {
uint64_t allocated = 0;  // bytes, ever; of one thread
}

// Not inlined: the compiler would take malloc with delete for a mistake.
__attribute__((noinline)) void* operator new(size_t size) {
  allocated += size;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void* operator new(size_t size, std::align_val_t alignment) {
  allocated += size;
  const auto unit = static_cast<size_t>(alignment);
  if (void* memory = std::aligned_alloc(unit, (size + unit - 1) / unit * unit)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, size_t /*size*/) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}

namespace stasis::bench {

uint64_t allocated_bytes() { return allocated; }

}  // namespace stasis::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: bench-store DIRECTORY\n";
    return 2;
  }
  nlohmann::json out;
  stasis::bench::bench_maps(out, argv[1]);
  stasis::bench::bench_capture(out, argv[1]);
  stasis::bench::bench_read(out, argv[1]);
  std::cout << out.dump(2) << "\n";
  return 0;
}
