// What the tests of this room share: bytes that can be told apart, an address space in memory to capture from, a store
// in a directory of its own.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/memory.h"
#include "base/memory_source.h"
#include "base/testing/temp_dir.h"
#include "snapshot/store.h"

namespace stasis::snapshot::testing {

using Bytes = std::vector<std::byte>;
using Random = std::mt19937_64;

inline uint64_t pick(Random& random, uint64_t least, uint64_t most) {
  return std::uniform_int_distribution<uint64_t>(least, most)(random);
}

// Random bytes, none of whose blocks is all zeros.
inline Bytes random_bytes(Random& random, size_t size) {
  Bytes bytes(size);
  for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
    const uint64_t word = random() | 1;
    std::memcpy(bytes.data() + at, &word, std::min(sizeof(word), size - at));
  }
  return bytes;
}

inline Bytes block_of(uint8_t value) { return Bytes(kBlockSize, std::byte{value}); }

inline Range blocks(uint64_t first, uint64_t count) { return {first * kBlockSize, count * kBlockSize}; }

// A guest's memory as a VMM has it: a memfd, and beside it what it must hold.
class Memory {
 public:
  explicit Memory(uint64_t size)
      : content(size),
        fd_(create_memory_file("test", size).value()),
        source_(MemorySource::of_file(duplicate(fd_.get()).value())) {}

  void write(uint64_t offset, const Bytes& bytes) {
    std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(offset));
    ASSERT_TRUE(real_file_system().write_at(fd_.get(), offset, bytes));
  }
  void zero(Range range) { write(range.offset, Bytes(range.length)); }
  const MemorySource& source() const { return source_; }
  Range whole() const { return {0, content.size()}; }

  Bytes content;

 private:
  UniqueFd fd_;
  MemorySource source_;
};

inline Bytes read_all(const AddressSpace& space) {
  Bytes bytes(space.size());
  const Status status = space.read(0, bytes);
  EXPECT_TRUE(status) << status.error().message;
  return bytes;
}

inline Bytes read_whole_file(const Path& path) { return read_file(real_file_system(), path, 1 << 30).value(); }

inline void write_whole_file(const Path& path, const Bytes& bytes) {
  std::filesystem::remove(path);
  const auto fd = real_file_system().create(path);
  ASSERT_TRUE(fd) << fd.error().message;
  ASSERT_TRUE(real_file_system().write_at(fd->get(), 0, bytes));
}

// Changes one byte of a file, whatever its mode.
inline void damage_file(const Path& path, uint64_t offset) {
  std::filesystem::permissions(path, std::filesystem::perms(0600));
  const auto fd = real_file_system().open_write(path);
  ASSERT_TRUE(fd) << fd.error().message;
  Bytes byte(1);
  ASSERT_EQ(real_file_system().read_at(fd->get(), offset, byte).value(), 1U);
  byte[0] ^= std::byte{0x40};
  ASSERT_TRUE(real_file_system().write_at(fd->get(), offset, byte));
}

class StoreTest : public ::testing::Test {
 protected:
  // What an address space is at `map`, opened anew.
  std::shared_ptr<AddressSpace> open(const BlockMap& map) {
    auto space = AddressSpace::open(fs_, store_.layers_dir(), map);
    EXPECT_TRUE(space) << space.error().message;
    return space ? *space : nullptr;
  }
  Result<CaptureResult> take(const Memory& memory, std::vector<Range> candidates, const AddressSpace& base,
                             std::vector<Range> removed = {}) {
    return capture(fs_, store_.layers_dir(), {memory.source(), candidates, removed}, base);
  }
  std::vector<std::string> layer_files() { return fs_.list(store_.layers_dir()).value(); }

  FileSystem& fs_ = real_file_system();
  ::stasis::testing::TempDir dir_;
  Store store_ = Store::open(fs_, dir_.path() / "store").value();
};

}  // namespace stasis::snapshot::testing
